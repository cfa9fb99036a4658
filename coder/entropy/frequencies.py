"""How often symbols come, and frequencies of whole numbers that sum to a power of two."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..compiled import compiled
from ..errors import LaconicError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Uint64 = npt.NDArray[np.uint64]

MAX_ALPHABET = 1 << 16
MAX_SYMBOLS = 1 << 28  # of a segment, which has as many bytes at most
MAX_LOG = 24  # of the sum of frequencies
FIELD = 25  # bits of a frequency, or of the sum of those before it


class Frequencies(NamedTuple):
    """The symbols that occur, K of them, in ascending order, and their parts of 2^log.

    An interval coder takes frequency f for the interval begin <= x < begin + f of 2^log.
    """

    symbols: Int64  # [K]
    parts: Int64  # [K], each at least 1
    begins: Int64  # [K]
    log: int

    @property
    def ordered(self) -> Uint64:
        """symbol << 25 | begin, by which a decoder looks, and 2^log at the end: uint64 [K + 1]."""
        return np.append(self.symbols << FIELD | self.begins, 1 << self.log).astype(np.uint64)

    def by_symbol(self, alphabet: int) -> Uint64:
        """begin << 25 | part of each symbol, 0 where it does not occur: uint64 [alphabet]."""
        packed = np.zeros(alphabet, dtype=np.uint64)
        packed[self.symbols] = (self.begins << FIELD | self.parts).astype(np.uint64)
        return packed


def count_symbols(symbols: Int32, alphabet: int) -> Int64:
    """How often each of 0 <= v < alphabet comes in symbols [N]: int64 [alphabet].

    Raises:
        LaconicError: an alphabet or a number of symbols that is not allowed, or a symbol beyond the alphabet.
    """
    if not 1 <= alphabet <= MAX_ALPHABET:
        raise LaconicError(f"an alphabet of {alphabet} symbols: 1 to {MAX_ALPHABET} are allowed")
    if not 1 <= len(symbols) <= MAX_SYMBOLS:
        raise LaconicError(f"{len(symbols)} symbols: a segment has 1 to {MAX_SYMBOLS}; cut it")
    counts = np.zeros(alphabet, dtype=np.int64)
    wrong = _count(symbols, counts)
    if wrong >= 0:
        raise LaconicError(
            f"symbol {symbols[wrong]} at {wrong}: 0 to {alphabet - 1} are allowed; give a larger alphabet"
        )
    return counts


@compiled
def _count(symbols: Int32, counts: Int64) -> int:
    """Where the first symbol beyond the alphabet is, or -1."""
    for i in range(symbols.shape[0]):
        symbol = symbols[i]
        if symbol < 0 or symbol >= counts.shape[0]:
            return i
        counts[symbol] += 1
    return -1


def normalise(weights: Int64, log: int) -> Int64:
    """Parts of 2^log in proportion to weights [K], K <= 2^log, sum below 2^(63 - log): int64 [K].

    Each is at least 1. What would get less gets 1; the rest is shared in proportion, rounded down; what is
    left goes to the largest remainders, the first of equals first. All is whole numbers: both sides get the
    same.
    """
    size, total = 1 << log, int(weights.sum())
    assert len(weights) <= size
    assert total < 1 << (63 - log)  # else products overflow
    parts, free = np.ones(len(weights), dtype=np.int64), np.ones(len(weights), dtype=np.bool_)
    while True:
        small = free & (weights * size < total)
        if not small.any():
            break
        free &= ~small
        size -= int(small.sum())
        total -= int(weights[small].sum())
    shares, remainders = np.divmod(weights[free] * size, total)
    first = np.argsort(-remainders, kind="stable")[: size - int(shares.sum())]
    shares[first] += 1
    parts[free] = shares
    return parts


def frequencies(symbols: Int64, parts: Int64, log: int) -> Frequencies:
    """A table of what a coder shall use.

    Raises:
        LaconicError: parts that are below 1, or do not sum to 2^log, or are too fine.
    """
    if not 0 <= log <= MAX_LOG:
        raise LaconicError(f"a table of 2^{log} parts: up to 2^{MAX_LOG} are allowed")
    if not len(parts) or parts.min() < 1 or int(parts.sum()) != 1 << log:
        raise LaconicError(
            f"{len(parts)} frequencies sum to {int(parts.sum())}: each must be 1 at least, all {1 << log}"
        )
    return Frequencies(symbols, parts, np.cumsum(parts) - parts, log)
