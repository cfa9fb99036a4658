"""The mixing of inputs, compiled, and what it learns."""

# numba's integers are no Python ints:
# pyright: reportArgumentType=false, reportReturnType=false

import numpy as np

from ..compiled import inlined
from .instructions import dot, step
from .layout import INPUTS, SETS, WEIGHT_LIMIT, Mixing


@inlined
def mix(m: Mixing, sets: int) -> int:
    """Log odds of a one by all sets of weights; those of each set are left in `scratch`."""
    x, vectors, odds = m.inputs, m.places[3], m.scratch[4]
    inputs = m.parameters[INPUTS]
    for i in range(sets):
        odds[i] = max(-4095, min(4095, dot(m.weights[vectors[i]], x, inputs) >> 16))
    total, final = np.int64(0), np.int64(vectors[0]) * SETS
    for i in range(SETS):
        total += odds[i] * np.int64(m.final[np.uint64(final + i)])
    return max(-4095, min(4095, total >> 16))


@inlined
def learn_mix(m: Mixing, sets: int, bit: int, rate: int, error: int, moved_0: int, moved_1: int) -> None:
    """Move two refinements, the weights of the sets and those of the inputs towards the bit."""
    x, vectors, odds, apm = m.inputs, m.places[3], m.scratch[4], m.apm
    target = 65535 * 64 * bit
    for at in (np.uint64(moved_0), np.uint64(moved_1)):
        apm[at] += (target - np.int64(apm[at])) >> 5
    final = np.int64(vectors[0]) * SETS
    for i in range(SETS):
        at = np.uint64(final + i)
        changed = np.int64(m.final[at]) + ((odds[i] * error + 8192) >> 14)
        m.final[at] = max(-WEIGHT_LIMIT, min(WEIGHT_LIMIT, changed))
    inputs = m.parameters[INPUTS]
    for i in range(sets):
        size = (((bit << 16) - np.int64(m.squash[np.uint64(odds[i] + 4096)])) * rate) >> 8
        step(m.weights[vectors[i]], x, inputs, np.int32(size))
