"""The tokenizer's runtime: bytes to token ids and back, without loss on any byte string.

`tokenizers` works on text, so byte b stands as the character U+0100 + b: 256 letters that no Unicode rule
takes for spaces (as plain byte alphabets do with 0x85 and 0xA0). Its JSON form is what is kept; the library
only encodes. Decoding is a look-up in `token_bytes` and needs no library.
"""

import codecs
import json
import os
from collections.abc import Iterator
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import LaconicError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["bpe", "wordpiece", "unigram", "bytes"]
KINDS: tuple[Kind, ...] = ("bpe", "wordpiece", "unigram", "bytes")

ALPHABET_START = 0x100  # byte b is the character U+0100 + b
_ALPHABET: Any = "".join(chr(ALPHABET_START + byte) for byte in range(256))
CONTINUATION = "##"  # WordPiece's mark of a token inside a piece; it stands for no byte
CHUNK_BYTES = 1 << 16  # long input is cut into chunks of at most this, which share the threads
_GROUP_CHUNKS = 128  # chunks encoded at a time: the library holds some 100 bytes a token while it does
_BOUNDARY_SEARCH_BYTES = 1 << 12  # how far back from a chunk's end a piece boundary is looked for
_WHITESPACE = np.isin(np.arange(256), list(b"\t\n\v\f\r "))


def bytes_to_text(data: bytes) -> str:
    """Each byte b as the character U+0100 + b."""
    return codecs.charmap_decode(data, "strict", _ALPHABET)[0]


def text_to_bytes(text: str) -> bytes:
    """Inverse of `bytes_to_text`.

    Raises:
        LaconicError: a character outside U+0100..U+01FF.
    """
    if text and not (ord(min(text)) >= ALPHABET_START and ord(max(text)) <= ALPHABET_START + 255):
        raise LaconicError(
            f"{text[:20]!r} has characters that stand for no byte: the tokenizer was not trained by laconic"
        )
    return (np.frombuffer(text.encode("utf-16-le"), "<u2") - ALPHABET_START).astype(np.uint8).tobytes()


def _ranges(*spans: tuple[int, int]) -> str:
    return "".join(f"{chr(ALPHABET_START + a)}-{chr(ALPHABET_START + b)}" for a, b in spans)


def _piece_pattern() -> str:
    """Pieces of at most 64 bytes that cover every byte string, with no class but code point ranges.

    A space before a word, number or run of punctuation belongs to it; bytes from 0x80 up count as letters;
    digits go by three. A run of white space ends before the space that belongs to what follows.
    """
    space = chr(ALPHABET_START + 0x20)
    letters = _ranges((0x41, 0x5A), (0x61, 0x7A), (0x80, 0xFF))
    digits = _ranges((0x30, 0x39))
    others = _ranges((0x00, 0x08), (0x0E, 0x1F), (0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7F))
    white = _ranges((0x09, 0x0D), (0x20, 0x20))
    return "|".join(
        (
            f"{space}?[{letters}]{{1,63}}",
            f"{space}?[{digits}]{{1,3}}",
            f"{space}?[{others}]{{1,63}}",
            f"[{white}]{{1,64}}(?={space}[^{white}])",
            f"[{white}]{{1,64}}",
        )
    )


PRE_TOKENIZER: dict[str, Any] = {
    "type": "Split",
    "pattern": {"Regex": _piece_pattern()},
    "behavior": "Isolated",
    "invert": False,
}


# All of a model but what it has learnt. Other options could make it lose bytes, or encode at random.
MODEL_OPTIONS: dict[str, dict[str, Any]] = {
    "BPE": {
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    },
    "WordPiece": {
        "unk_token": "[UNK]",  # required by the form; never emitted, for every byte has its tokens
        "continuing_subword_prefix": CONTINUATION,
        "max_input_chars_per_word": 100,
    },
    "Unigram": {"unk_id": None, "byte_fallback": False},
}


def tokenizer_json(model: dict[str, Any]) -> str:
    """JSON form, as `tokenizers` reads it, of a model over the byte alphabet."""
    document: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": PRE_TOKENIZER,
        "post_processor": None,
        "decoder": None,
        "model": model,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _token_texts(model: dict[str, Any]) -> list[str]:
    """The text of each id, as the model writes it; ids must be 0..V-1."""
    vocabulary = model["vocab"]
    if model["type"] == "Unigram":
        return [text for text, _ in vocabulary]
    texts = sorted(vocabulary, key=vocabulary.__getitem__)
    if [vocabulary[text] for text in texts] != list(range(len(texts))):
        raise LaconicError("the tokenizer's ids are not 0..V-1: it was not trained by laconic")
    return texts


def _check_alphabet(kind: Kind, texts: list[str]) -> None:
    """Every byte must have a token wherever it may stand, or some input could not be encoded."""
    known, prefixes = set(texts), ("", CONTINUATION) if kind == "wordpiece" else ("",)
    absent = [b for p in prefixes for b in range(256) if p + chr(ALPHABET_START + b) not in known]
    if absent:
        raise LaconicError(
            f"the tokenizer has no token for byte {absent[0]:#04x}: train it with laconic tokenizer"
        )


class ByteTokenizer:
    """A lossless tokenizer of byte strings: BPE, WordPiece, Unigram or plain bytes.

    Attributes:
        kind: "bpe", "wordpiece", "unigram" or "bytes" (a BPE of 256 entries without merges).
        vocab_size: number of ids V, in ascending order of their bytes; there are no special tokens.
        token_bytes: the bytes of each id, never empty.
        byte_lengths: int32 [V], their lengths.
    """

    def __init__(self, text: str) -> None:
        """Read the JSON form that `tokenizers` writes.

        Raises:
            LaconicError: it is not a tokenizer over the byte alphabet, cut by our rules.
        """
        try:
            document = cast("dict[str, Any]", json.loads(text))
            model = cast("dict[str, Any]", document["model"])
            options = {k: v for k, v in model.items() if k not in ("type", "vocab", "merges")}
            ours = options == MODEL_OPTIONS[model["type"]] and document == json.loads(tokenizer_json(model))
            kind = cast("Kind", {"BPE": "bpe", "WordPiece": "wordpiece", "Unigram": "unigram"}[model["type"]])
            texts = _token_texts(model)
            size = len(texts)
            _check_alphabet(kind, texts)
            if kind == "wordpiece":
                # A byte below 0x80 cannot look like the mark: its character lies above U+00FF.
                texts = [t.removeprefix(CONTINUATION) for t in texts]
            self.token_bytes: list[bytes] = [text_to_bytes(t) for t in texts]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LaconicError(
                f"this is not a tokenizer ({error!r}): train one with laconic tokenizer"
            ) from None
        if not ours:
            raise LaconicError(
                "the tokenizer is not as laconic writes them: train one with laconic tokenizer"
            )
        if not all(self.token_bytes):
            raise LaconicError("the tokenizer has a token without bytes: train it with laconic tokenizer")
        if any(a > b for a, b in pairwise(self.token_bytes)):
            raise LaconicError(
                "the tokenizer's ids are not in the order of their bytes: train it again by laconic tokenizer"
            )
        self.kind: Kind = "bytes" if kind == "bpe" and size == 256 else kind
        self.vocab_size: int = size
        self.byte_lengths: NDArray[np.int32] = np.array([len(t) for t in self.token_bytes], dtype=np.int32)
        self._json = text

    @cached_property
    def _engine(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        return Tokenizer.from_str(self._json)

    @cached_property
    def _byte_ids(self) -> NDArray[np.int32]:
        """Id of each single byte, for the kind `bytes`."""
        ids = np.empty(256, dtype=np.int32)
        ids[[token[0] for token in self.token_bytes]] = np.arange(256)
        return ids

    def encode(self, data: bytes) -> NDArray[np.int32]:
        """Token ids int32 [n]; their bytes put end to end are `data`."""
        return self.encode_batch([data])[0]

    def encode_batch(self, batch: list[bytes]) -> list[NDArray[np.int32]]:
        """Token ids of each byte string, on as many threads as there are cores."""
        if self.kind == "bytes":
            return [self._byte_ids[np.frombuffer(data, np.uint8)] for data in batch]
        pieces = [chunks(data) for data in batch]
        encoded = self._encode_chunks(list(chain.from_iterable(pieces)))
        ids = [
            np.concatenate([next(encoded) for _ in parts]) if len(parts) > 1 else next(encoded)
            for parts in pieces
        ]
        for data, ids_of_data in zip(batch, ids, strict=True):
            assert int(self.byte_lengths[ids_of_data].sum(dtype=np.int64)) == len(data)
        return ids

    def _encode_chunks(self, parts: list[bytes]) -> Iterator[NDArray[np.int32]]:
        for begin in range(0, len(parts), _GROUP_CHUNKS):
            group = parts[begin : begin + _GROUP_CHUNKS]
            different = list(dict.fromkeys(group))  # megabytes of one byte are one chunk, over and over
            texts = [bytes_to_text(part) for part in different]
            encoded = self._engine.encode_batch_fast(texts, add_special_tokens=False)
            ids = {
                part: np.array(encoding.ids, dtype=np.int32)
                for part, encoding in zip(different, encoded, strict=True)
            }
            for part in group:
                yield ids[part]

    def decode(self, ids: ArrayLike) -> bytes:
        """The bytes of the ids, put end to end."""
        tokens = self.token_bytes
        numbers = cast("list[int]", np.asarray(ids, dtype=np.int64).tolist())
        return b"".join([tokens[i] for i in numbers])

    def to_json(self) -> str:
        """The JSON form, exactly as it was read."""
        return self._json

    @classmethod
    def from_json(cls, text: str) -> "ByteTokenizer":
        """A tokenizer from its JSON form.

        Raises:
            LaconicError: it is not a tokenizer over the byte alphabet, cut by our rules.
        """
        return cls(text)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ByteTokenizer":
        """A tokenizer from a file of JSON.

        Raises:
            LaconicError: the file is not there, or is not a tokenizer of ours.
        """
        try:
            text = Path(path).read_bytes().decode("utf-8")
        except OSError as error:
            raise LaconicError(f"cannot read the tokenizer {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise LaconicError(f"{path} is not a tokenizer: train one with laconic tokenizer") from None
        try:
            return cls(text)
        except LaconicError as error:
            raise LaconicError(f"{path}: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON form under a temporary name, flush it to the disk, and rename it."""
        partial = f"{os.fspath(path)}.partial"
        with open(partial, "wb") as file:
            file.write(self._json.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


def chunks(data: bytes, limit: int = CHUNK_BYTES) -> list[bytes]:
    """Cut into chunks of at most `limit` bytes, each ending before white space that follows other bytes.

    A piece ends there, so chunks have the tokens of the whole. Where no such place is near, the cut is hard.
    """
    cut: list[bytes] = []
    begin = 0
    while len(data) - begin > limit:
        end = begin + limit
        searched = min(_BOUNDARY_SEARCH_BYTES, limit)
        tail = _WHITESPACE[np.frombuffer(data, np.uint8, searched, end - searched)]
        edges = np.flatnonzero(tail[1:] & ~tail[:-1])
        if len(edges):
            end -= searched - 1 - int(edges[-1])
        cut.append(data[begin:end])
        begin = end
    cut.append(data[begin:])
    return cut
