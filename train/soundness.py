"""Whether text is fit to adapt to: what cannot work is refused, what may not pay is said."""

import hashlib
import warnings

from ..coder.errors import LaconicError
from ..data.corpus import LEAST_BYTES, Corpus
from .start import Start

SMALL_BYTES = 90_000  # below, little can be learned
LOOKED_AT_BYTES = 32_000_000
TOKENIZED_BYTES = 1_000_000
LEAST_DISTINCT = 10  # documents
CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\x1b"))
MOST_CONTROL = 0.03  # of the bytes; text has next to none
FOREIGN = 0.6  # bytes a token, as a share of what the start has on its own text


def check_new_text(corpus: Corpus, start: Start) -> None:
    """Look at the first 32 MB of a corpus; warns of what is little or foreign.

    Raises:
        LaconicError: it repeats itself, is binary, or cannot be read.
    """
    seen: set[bytes] = set()
    total = distinct = control = tokens = tokenized = 0
    tokenizer = start.checkpoint.tokenizer
    for document in corpus:
        total += len(document)
        control += len(document) - len(document.translate(None, CONTROL))
        digest = hashlib.blake2b(document, digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            distinct += len(document)
            if tokenized < TOKENIZED_BYTES:
                tokens, tokenized = tokens + len(tokenizer.encode(document)), tokenized + len(document)
        if total >= LOOKED_AT_BYTES:
            break
    if control > MOST_CONTROL * total:
        raise LaconicError(
            f"the corpus looks like binary data, {control / total:.0%} of its bytes are control characters: "
            f"give text, or compress such files with -m none; {start.name} is as it was"
        )
    if len(seen) < LEAST_DISTINCT or distinct < LEAST_BYTES:
        raise LaconicError(
            f"the corpus repeats itself: of its {total:,} bytes {distinct:,} remain, in {len(seen)} pieces, "
            f"where each counts once; {LEAST_BYTES:,} bytes in {LEAST_DISTINCT} pieces are needed. Give "
            "other text, or compress such files with -m none, which needs next to nothing for repeats; "
            f"{start.name} is as it was"
        )
    if total < SMALL_BYTES:
        warnings.warn(
            f"the corpus holds {total:,} bytes: little can be learned from less than some 100,000",
            stacklevel=2,
        )
    own = start.checkpoint.summary.get("bytes_per_token")
    if own and tokenized < FOREIGN * own * tokens:
        warnings.warn(
            f"a token of {start.name} covers {tokenized / tokens:.2f} bytes of this text, and {own:.2f} of "
            "what it was trained on: for a language or format that it has never seen, a model with a "
            "tokenizer of its own (laconic train without --from) needs less time and codes better",
            stacklevel=2,
        )
