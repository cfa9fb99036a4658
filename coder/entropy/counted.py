"""Tables of counts: what the coders of intervals and of states send of their symbols.

A count is sent by its length in bits and half of the bits below the first, as a larger error would cost more
than a bit saves, and a smaller one less. Both sides take the middle of what is left, doubled to stay whole.
"""

import numpy as np

from ..segment import DamageError
from .frequencies import MAX_SYMBOLS, Frequencies, Int64, frequencies, normalise
from .tables import Table

LENGTHS = MAX_SYMBOLS.bit_length() + 1  # classes: 0, and the lengths of counts up to MAX_SYMBOLS
EXTRA_BITS: Int64 = np.maximum(0, (np.arange(LENGTHS, dtype=np.int64) - 2) // 2)


def describe(counts: Int64) -> Table:
    """The table of counts [alphabet], each at most MAX_SYMBOLS."""
    lengths = np.frexp(counts.astype(np.float64))[1].astype(np.int64)  # exact: a count has fewer than 53 bits
    dropped = np.maximum(lengths - 1 - EXTRA_BITS[lengths], 0)
    return Table(lengths, (counts >> dropped) & ((1 << EXTRA_BITS[lengths]) - 1))


def weights(table: Table) -> Int64:
    """Twice the counts, nearly: int64 [alphabet]."""
    lengths = table.classes
    dropped = np.maximum(lengths - 1 - EXTRA_BITS[lengths], 0)
    least = np.where(lengths > 0, ((1 << EXTRA_BITS[lengths]) | table.extras) << dropped, 0)
    return 2 * least + np.where(lengths > 0, (1 << dropped) - 1, 0)


def shares(table: Table, log: int) -> Frequencies:
    """The frequencies that both sides make of a table, parts of 2^log.

    Raises:
        DamageError: counts that are more together than a segment can have.
    """
    doubled = weights(table)
    symbols = np.flatnonzero(doubled)
    if int(doubled.sum()) > 4 * MAX_SYMBOLS:
        raise DamageError(
            f"the counts of a segment's table sum to {int(doubled.sum()) // 2:,}, more than "
            f"{2 * MAX_SYMBOLS:,}: get the file again"
        )
    return frequencies(symbols, normalise(doubled[symbols], log), log)
