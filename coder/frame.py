"""The frame of a record: a flag byte, what codes the record, and a check where one was asked for.

docs/format.md, "Records", is normative.
"""

import zlib
from typing import NamedTuple

from .container import CHECK, check

RAW, MODEL, DEFLATE = 0, 1, 2
METHODS = (RAW, MODEL, DEFLATE)
CHECKED = 4  # the flag that says that a check follows
SPARE_SHIFT = 3
SPARE = 32  # values of the five bits above
MAX_TOKENS = 1 << 14  # of a record by the model
MAX_INFLATED = 1 << 24  # bytes of a deflated record


class Frame(NamedTuple):
    """A blob in its parts."""

    method: int
    spare: int  # the five high bits of the flag byte
    payload: bytes
    check: bytes | None


def pack(record: bytes, method: int, payload: bytes, spare: int, checked: bool) -> bytes:
    """A blob; `spare` counts for method MODEL alone."""
    if method != MODEL:
        spare = SPARE - 1 if checked else 0
    flags = spare << SPARE_SHIFT | (CHECKED if checked else 0) | method
    return bytes((flags,)) + payload + (check(record) if checked else b"")


def parse(blob: bytes) -> Frame | None:
    """The parts of a blob, or None where no encoder writes it."""
    if not blob:
        return None
    flags = blob[0]
    method, checked, spare = flags & 3, bool(flags & CHECKED), flags >> SPARE_SHIFT
    end = len(blob) - CHECK if checked else len(blob)
    if method not in METHODS or end < 1 or (method != MODEL and spare != (SPARE - 1 if checked else 0)):
        return None
    return Frame(method, spare, blob[1:end], blob[end:] if checked else None)


def deflate(record: bytes) -> bytes:
    """RFC 1951, without any header."""
    coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return coder.compress(record) + coder.flush()


def inflate(payload: bytes) -> bytes | None:
    """The record, or None where the payload is not one whole stream of at most MAX_INFLATED bytes."""
    coder = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        record = coder.decompress(payload, MAX_INFLATED)
    except zlib.error:
        return None
    return record if coder.eof and not coder.unused_data else None
