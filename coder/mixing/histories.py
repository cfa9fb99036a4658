"""Bit histories: what followed in a context, in one byte, and how it goes on.

A history of up to four bits is kept whole. A longer one is two counts, of zeros and ones, and its last bit;
the counts are bounded, the larger one by the smaller, and a bit that contradicts many takes most of them
back, so that a history follows its source when it changes. The idea is that of the PAQ compressors (M.
Mahoney, "Adaptive Weighing of Context Models for Lossless Data Compression", 2005); the states are our own.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

WHOLE = 4  # bits of a history that is kept as it is
BOUNDS = (28, 24, 16, 10, 6)  # of the larger count, by the smaller
KEPT = (0, 1, 2, 2, 3, 3, 3, 4, 4)  # of a count that is contradicted; the last for all above

Counts = tuple[int, int, int]  # zeros, ones, last bit


class Histories(NamedTuple):
    """The states: 0 is the empty history."""

    following: npt.NDArray[np.uint8]  # [512]: the state after state s and bit y, at 2 s + y
    zeros: npt.NDArray[np.int32]  # [256]: counts of each state
    ones: npt.NDArray[np.int32]
    weight: npt.NDArray[np.uint8]  # [256]: how much a state knows; slots of little weight give way


def _fits(zeros: int, ones: int) -> bool:
    small, large = sorted((zeros, ones))
    return small < len(BOUNDS) and large <= BOUNDS[small]


def _bounded(zeros: int, ones: int, last: int) -> Counts:
    """The counts, lowered until they fit: the larger first, and of equals that of the bit not seen last."""
    while not _fits(zeros, ones):
        if zeros > ones or (zeros == ones and last):
            zeros -= 1
        else:
            ones -= 1
    return zeros, ones, last


def _follow(state: "str | Counts", bit: int) -> "str | Counts":
    if isinstance(state, str):
        if len(state) < WHOLE:
            return state + str(bit)
        zeros, ones = state.count("0"), state.count("1")
    else:
        zeros, ones, _ = state
    if bit:
        zeros, ones = KEPT[min(zeros, len(KEPT) - 1)], ones + 1
    else:
        zeros, ones = zeros + 1, KEPT[min(ones, len(KEPT) - 1)]
    return _bounded(zeros, ones, bit)


@cache
def histories() -> Histories:
    """All states, in the order in which they are first reached from the empty one, zeros before ones."""
    states: list[str | Counts] = [""]
    numbers: dict[str | Counts, int] = {"": 0}
    following = np.zeros(512, dtype=np.uint8)
    for number, state in enumerate(states):  # grows while it is read
        for bit in (0, 1):
            after = _follow(state, bit)
            if after not in numbers:
                numbers[after] = len(states)
                states.append(after)
            following[2 * number + bit] = numbers[after]
    assert len(states) <= 256
    zeros, ones = np.zeros(256, dtype=np.int32), np.zeros(256, dtype=np.int32)
    for number, state in enumerate(states):
        whole = isinstance(state, str)
        zeros[number] = state.count("0") if whole else state[0]
        ones[number] = state.count("1") if whole else state[1]
    weight = (zeros + ones).astype(np.uint8)
    for array in (following, zeros, ones, weight):
        array.setflags(write=False)
    return Histories(following, zeros, ones, weight)
