"""Training of tokenizers over the byte alphabet, through `tokenizers`."""

import json
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..coder.errors import LaconicError
from ..coder.tokenizer import (
    ALPHABET_START,
    CONTINUATION,
    KINDS,
    MODEL_OPTIONS,
    ByteTokenizer,
    Kind,
    bytes_to_text,
    chunks,
    tokenizer_json,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ALPHABET = [chr(ALPHABET_START + b) for b in range(256)]
LEAST_VOCAB_SIZE: dict[Kind, int] = {"bpe": 256, "wordpiece": 512, "unigram": 257, "bytes": 256}
UNIGRAM_TEXT_BYTES = 4_000_000  # its trainer takes some 4 seconds a megabyte
_ROUNDS = 3  # of re-estimation of the Unigram scores


def train_tokenizer(documents: Iterable[bytes], kind: Kind, vocab_size: int) -> ByteTokenizer:
    """Train a tokenizer; the same documents in the same order give the same tokenizer.

    Args:
        documents: byte strings; Unigram looks at their first 4 MB alone, for the sake of time.
        kind: "bpe", "wordpiece", "unigram", or "bytes", which learns nothing.
        vocab_size: number of ids, fewer where the documents give no more; every byte is one of them (for
            WordPiece two: at the start of a piece and inside one).

    Raises:
        LaconicError: `kind` is unknown, or `vocab_size` is below the alphabet.
    """
    if kind not in KINDS:
        raise LaconicError(f"tokenizer kind {kind!r} is unknown: choose one of {', '.join(KINDS)}")
    least = LEAST_VOCAB_SIZE[kind]
    if vocab_size < least or (kind == "bytes" and vocab_size != least):
        relation = "exactly" if kind == "bytes" else "at least"
        raise LaconicError(
            f"a vocabulary of {vocab_size} cannot hold every byte: kind {kind} needs {relation} {least}"
        )
    if kind == "bytes":
        model = _model("BPE", vocab=dict(zip(ALPHABET, range(256), strict=True)), merges=[])
    elif kind == "unigram":
        model = _train_unigram(list(_first_bytes(documents, UNIGRAM_TEXT_BYTES)), vocab_size)
    else:
        model = _train_merges(documents, kind, vocab_size)
    return ByteTokenizer(tokenizer_json(model))


def _model(form: str, **learnt: Any) -> dict[str, Any]:
    return {"type": form, **MODEL_OPTIONS[form], **learnt}


def _untrained(model: dict[str, Any]) -> "Tokenizer":
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer_json(model))


def _texts(documents: Iterable[bytes]) -> Iterator[str]:
    for document in documents:
        for chunk in chunks(document):
            yield bytes_to_text(chunk)


def _first_bytes(documents: Iterable[bytes], limit: int) -> Iterator[bytes]:
    for document in documents:
        yield document[:limit]
        limit -= len(document)
        if limit <= 0:
            return


def _train_merges(documents: Iterable[bytes], kind: Kind, vocab_size: int) -> dict[str, Any]:
    from tokenizers.trainers import BpeTrainer, WordPieceTrainer

    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "initial_alphabet": ALPHABET,
        "show_progress": False,
    }
    if kind == "bpe":
        engine, trainer = _untrained(_model("BPE", vocab={}, merges=[])), BpeTrainer(**settings)
    else:
        # As special tokens the inner forms are there in a fixed order, whether the text has them or not.
        inner = [CONTINUATION + letter for letter in ALPHABET]
        engine, trainer = (
            _untrained(_model("WordPiece", vocab={})),
            WordPieceTrainer(**settings, special_tokens=inner, continuing_subword_prefix=CONTINUATION),
        )
    engine.train_from_iterator(_texts(documents), trainer)
    trained = json.loads(engine.to_str())["model"]
    # The frozen checkpoint numbers tokens in the order of their bytes; merges have an order of their own.
    texts = sorted(trained["vocab"], key=lambda text: (text.removeprefix(CONTINUATION), text))
    vocab = {text: number for number, text in enumerate(texts)}
    if kind == "bpe":
        return _model("BPE", vocab=vocab, merges=trained["merges"])
    return _model("WordPiece", vocab=vocab)


def _train_unigram(documents: list[bytes], vocab_size: int) -> dict[str, Any]:
    """The pieces that the library finds, with scores estimated anew.

    The library adds up its floats in the order of a randomly seeded hash table, so its scores differ from run
    to run in the third digit (its pieces did not, where tried). Here they come from counts of the best
    segmentation (hard expectation maximisation), starting from the fewest pieces.
    """
    from tokenizers.trainers import UnigramTrainer

    texts = list(_texts(documents))
    engine = _untrained(_model("Unigram", vocab=[]))
    trainer = UnigramTrainer(
        vocab_size=vocab_size, initial_alphabet=ALPHABET, unk_token=None, show_progress=False
    )
    engine.train_from_iterator(texts, trainer)
    pieces: list[str] = sorted(piece for piece, _ in json.loads(engine.to_str())["model"]["vocab"])
    scores = [-10.0] * len(pieces)
    for _ in range(_ROUNDS):
        engine = _untrained(_model("Unigram", vocab=list(zip(pieces, scores, strict=True))))
        counts = np.ones(len(pieces), dtype=np.int64)
        for encoding in engine.encode_batch_fast(texts, add_special_tokens=False):
            counts += np.bincount(encoding.ids, minlength=len(pieces))
        log_total = math.log(int(counts.sum()))
        scores = [round(math.log(count) - log_total, 6) for count in counts.tolist()]
    return _model("Unigram", vocab=list(zip(pieces, scores, strict=True)))
