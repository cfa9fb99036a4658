"""Tables of the mixer, computed in integers alone; docs/mixing.md says what they are for.

Log odds are log2(p / (1 - p)) in units of 2^-8 bits, probabilities whole numbers below 2^16.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from ..fixedpoint import exp2_table

ODDS_LIMIT = 4095  # log odds are in -4095..4095: sixteen bits
STRETCHED = 4096  # probabilities that `stretch_table` tells apart
RATES = 1024  # counts that `rate_table` knows

Int16 = npt.NDArray[np.int16]
Int32 = npt.NDArray[np.int32]


def _frozen(values: "npt.ArrayLike", dtype: type[np.generic]) -> npt.NDArray[np.generic]:
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


@cache
def squash_table() -> Int32:
    """Probability in 2^-16 for log odds x = -4096..4095, at index x + 4096; 1..65535, int32 [8192].

    For x >= 0 it is 2^38 // (2^22 + 2^22 * 2^-x), the power from `exp2_table`; squash(-x) = 2^16 - squash(x).
    """
    powers = exp2_table()
    positive: list[int] = []
    for x in range(4097):
        power = int(powers[(4 * x) & 1023]) >> min((4 * x) >> 10, 31)
        positive.append(min(65535, (1 << 38) // ((1 << 22) + power)))
    values = [65536 - positive[-x] if x < 0 else positive[x] for x in range(-4096, 4096)]
    return _frozen(values, np.int32)  # type: ignore[return-value]


@cache
def stretch_table() -> Int16:
    """The least log odds whose probability is at least (16 i + 8) / 2^16, for i = 0..4095; int16 [4096]."""
    squash = squash_table()
    wanted = 16 * np.arange(STRETCHED) + 8
    return _frozen(np.searchsorted(squash, wanted) - 4096, np.int16)  # type: ignore[return-value]


@cache
def log2_table() -> Int16:
    """floor(1024 * log2(1 + m / 1024)) for m = 0..1023, as far as `exp2_table` tells; int16 [1024].

    That is 1024 - f for the least f with 2 * exp2_table[f] <= (1024 + m) * 2^12.
    """
    doubled = 2 * exp2_table().astype(np.int64)  # falls from 2^23 to just above 2^22
    limits = (1024 + np.arange(1024, dtype=np.int64)) << 12
    first = 1024 - np.searchsorted(doubled[::-1], limits, side="right")
    return _frozen(1024 - first, np.int16)  # type: ignore[return-value]


def log2(x: int) -> int:
    """log2 of a whole number x >= 1 by `log2_table`, in units of 2^-10: exact for powers of two."""
    exponent = x.bit_length() - 1
    return exponent << 10 | int(log2_table()[(x << 10 >> exponent) & 1023])


@cache
def rate_table() -> Int32:
    """The step of an adaptive probability that has been used n times: 2^17 // (2 n + 3); int32 [1024]."""
    return _frozen([(1 << 17) // (2 * n + 3) for n in range(RATES)], np.int32)  # type: ignore[return-value]
