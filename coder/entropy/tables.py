"""Tables, sent compactly: one small number for each symbol of the alphabet, by an adaptive range coder.

A table gives each symbol a class, 0 where it does not occur, and some classes have further bits. Sent are:
how many symbols occur, and, up to the last of them, each symbol's class, under counts that learn, by whether
the symbol before occurs; its further bits follow it, under no model. docs/format.md is normative.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .. import kernels as rangecoder
from ..compiled import compiled
from ..segment import DamageError
from .frequencies import Int64

Bytes = npt.NDArray[np.uint8]

STEP, LIMIT = 24, 1 << 14  # of the counts that learn: a class gains it, and above it all are halved
MAX_BYTES_PER_SYMBOL = 4  # 14 bits for a class, and 13 further ones


class Table(NamedTuple):
    """Classes and further bits of each symbol: int64 [alphabet] both."""

    classes: Int64
    extras: Int64


def pack(table: Table, extra_bits: Int64) -> bytes:
    """
    Args:
        extra_bits: of each class, int64 [C].
    """
    alphabet, distinct = len(table.classes), int(np.count_nonzero(table.classes))
    coder = rangecoder.encoder_state()
    out = np.zeros(MAX_BYTES_PER_SYMBOL * (alphabet + 4) + rangecoder.TAIL, dtype=np.uint8)
    counts = np.ones((2, len(extra_bits)), dtype=np.int64)
    _write(table.classes, table.extras, extra_bits, distinct, counts, coder, out)
    return out[: rangecoder.finish_encoding(coder, out)].tobytes()


def unpack(data: bytes, alphabet: int, extra_bits: Int64) -> Table:
    """The inverse.

    Raises:
        DamageError: the data ends too early, goes on, or tells of symbols beyond the alphabet.
    """
    source = np.frombuffer(bytearray(data), dtype=np.uint8)
    table = Table(np.zeros(alphabet, dtype=np.int64), np.zeros(alphabet, dtype=np.int64))
    coder = rangecoder.decoder_state(source)
    counts = np.ones((2, len(extra_bits)), dtype=np.int64)
    missing = _read(table.classes, table.extras, extra_bits, counts, coder, source)
    if missing < 0:
        raise DamageError("the table of a segment ends too early: get the file again")
    if missing:
        raise DamageError(
            f"the table of a segment lacks {missing} symbols of its {alphabet}: get the file again"
        )
    if not rangecoder.is_shortest(source, coder):
        raise DamageError("the table of a segment does not end with its last symbol: get the file again")
    return table


@compiled
def _learn(row: Int64, found: int) -> None:
    row[found] += STEP
    total = 0
    for c in range(row.shape[0]):
        total += row[c]
    if total > LIMIT:
        for c in range(row.shape[0]):
            row[c] = (row[c] + 1) >> 1


@compiled
def _write(
    classes: Int64, extras: Int64, extra_bits: Int64, distinct: int, counts: Int64, coder: Int64, out: Bytes
) -> None:
    alphabet = classes.shape[0]
    rangecoder.encode_interval(distinct - 1, distinct, alphabet, coder, out)
    at, left, before = 0, distinct, 0
    while left > 0:
        found, row = classes[at], counts[before]
        cum, total = np.int64(0), np.int64(0)
        for c in range(row.shape[0]):
            cum += row[c] if c < found else 0
            total += row[c]
        rangecoder.encode_interval(cum, cum + row[found], total, coder, out)
        _learn(row, found)
        bits = int(extra_bits[found])
        if bits > 0:
            rangecoder.encode_interval(extras[at], extras[at] + 1, 1 << bits, coder, out)
        before = min(found, 1)
        left -= before
        at += 1


@compiled
def _read(classes: Int64, extras: Int64, extra_bits: Int64, counts: Int64, coder: Int64, data: Bytes) -> int:
    """How many symbols are missing; -1 where the data ended too early."""
    alphabet = classes.shape[0]
    left = rangecoder.decode_target(alphabet, coder) + 1
    if not rangecoder.decode_interval(left - 1, left, alphabet, coder, data):
        return -1
    at, before = 0, 0
    while left > 0 and at < alphabet:
        row, total = counts[before], 0
        for c in range(row.shape[0]):
            total += row[c]
        target = rangecoder.decode_target(total, coder)
        found, cum = 0, 0
        while cum + row[found] <= target:
            cum += row[found]
            found += 1
        if not rangecoder.decode_interval(cum, cum + row[found], total, coder, data):
            return -1
        _learn(row, found)
        classes[at] = found
        bits = int(extra_bits[found])
        if bits > 0:
            extra = rangecoder.decode_target(1 << bits, coder)
            if not rangecoder.decode_interval(extra, extra + 1, 1 << bits, coder, data):
                return -1
            extras[at] = extra
        before = min(found, 1)
        left -= before
        at += 1
    return left
