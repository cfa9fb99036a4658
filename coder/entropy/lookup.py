"""Which symbol a number below 2^24 belongs to: a start by its highest bits, and a short walk."""

import numpy as np
import numpy.typing as npt

from ..compiled import inlined
from .bits import Wide
from .frequencies import FIELD, MAX_LOG, Frequencies, Uint64

Starts = npt.NDArray[np.uint16]

HEAD = 13  # bits by which the walk begins: 16 KB, and mostly no step
LOW, HIGH = np.uint64((1 << FIELD) - 1), np.uint64(FIELD)  # the low field's mask, and the way to the high one
_HEAD_SHIFT = np.uint64(MAX_LOG - HEAD)


def starts_of(used: Frequencies) -> Starts:
    """The place of the symbol that each multiple of 2^(24 - HEAD) belongs to: uint16 [2^HEAD]."""
    assert used.log == MAX_LOG
    heads = np.arange(1 << HEAD, dtype=np.int64) << (MAX_LOG - HEAD)
    return (np.searchsorted(used.begins, heads, side="right") - 1).astype(np.uint16)


@inlined
def find(number: Wide, ordered: Uint64, starts: Starts) -> int:
    """The place in `ordered` of the symbol that `number` belongs to."""
    at = int(starts[np.int64(number >> _HEAD_SHIFT)])
    while ordered[at + 1] & LOW <= number:
        at += 1
    return at
