"""Static range coding: the coder of rangecoder.py, with frequencies that do not change."""

import numpy as np

from .. import kernels as rangecoder
from ..compiled import compiled
from ..segment import DamageError
from .counted import shares
from .frequencies import MAX_LOG, Int32, Int64, Uint64
from .lookup import HIGH, LOW, Starts, find, starts_of
from .tables import Bytes, Table

LOG = MAX_LOG  # of the sum of the frequencies
MAX_BYTES_PER_SYMBOL = 4  # 24 bits, and the rest of the byte before


def write(symbols: Int32, table: Table) -> bytes:
    """The bytes that a range encoder writes for symbols [N]."""
    coder = rangecoder.encoder_state()
    out = np.zeros(MAX_BYTES_PER_SYMBOL * len(symbols) + rangecoder.TAIL + 1, dtype=np.uint8)
    _write(symbols, shares(table, LOG).by_symbol(len(table.classes)), coder, out)
    return out[: rangecoder.finish_encoding(coder, out)].tobytes()


def read(data: bytes, count: int, table: Table) -> Int32:
    """The inverse.

    Raises:
        DamageError: the data ends too early or goes on, or the table is none.
    """
    used = shares(table, LOG)
    source, symbols = np.frombuffer(bytearray(data), dtype=np.uint8), np.empty(count, dtype=np.int32)
    coder = rangecoder.decoder_state(source)
    if not _read(source, used.ordered, starts_of(used), coder, symbols):
        raise DamageError("the coded data of a segment ends too early: get the file again")
    if not rangecoder.is_shortest(source, coder):
        raise DamageError("the coded data of a segment does not end with its last symbol: get the file again")
    return symbols


@compiled
def _write(symbols: Int32, entries: Uint64, coder: Int64, out: Bytes) -> None:
    for i in range(symbols.shape[0]):
        entry = entries[symbols[i]]
        begin, part = np.int64(entry >> HIGH), np.int64(entry & LOW)
        rangecoder.encode_interval(begin, begin + part, 1 << LOG, coder, out)


@compiled
def _read(data: Bytes, ordered: Uint64, starts: Starts, coder: Int64, symbols: Int32) -> bool:
    for i in range(symbols.shape[0]):
        at = find(np.uint64(rangecoder.decode_target(1 << LOG, coder)), ordered, starts)
        begin, after = np.int64(ordered[at] & LOW), np.int64(ordered[at + 1] & LOW)
        if not rangecoder.decode_interval(begin, after, 1 << LOG, coder, data):
            return False
        symbols[i] = np.int32(ordered[at] >> HIGH)
    return True
