"""Fixed-point arithmetic of the frozen graph: the scalar rules of docs/frozen.md in NumPy.

Every function takes and returns integers; shifts are arithmetic, divisions floor, and rounding is
`(x + half) >> shift` throughout. int64 holds every intermediate, and each stays below 2^53, so that an
engine may use float64 as a 53-bit integer unit.
"""

from functools import cache
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import LaconicError

RESIDUAL_BITS = 12  # residual stream: units of 2^-12
RESIDUAL_LIMIT = 1 << 22  # and its saturation
SCALE_BITS = 16  # scales of normalised rows: units of 2^-16
ROW_SCALE_SHIFT = 8  # scales of other quantised rows: their maximum times 2^8
ROW_BITS = 24  # reciprocals of row maxima
HEAD_BITS = 6  # queries, keys and values before they are int8: 1/64 of a step
INNER_LIMIT = (1 << 14) - 1  # saturation of queries, keys, values and feed-forward inputs
HIDDEN_SHIFT = 12  # products in the feed-forward layer are divided by 2^12
ROTARY_BITS = 14  # cosines
LOGIT_BITS = 10  # attention scores and logits: units of 2^-10 bits (log2 domain)
LOGIT_LIMIT = 1 << 24
MULTIPLIER_BITS = 18  # requantisation multipliers stay below 2^18
SHIFT_MAX = 40
WEIGHT_BITS = 22  # of exp2_table
ATTENTION_MAX = 255  # the largest attention weight
AVERAGE_BITS = 8  # attention averages: units of 2^-8 of a value's step
RECIPROCAL_BITS = 31  # of the sum of attention weights
INT8_MAX = 127

Array = npt.NDArray[Any]


def round_shift(x: Array, shift: int) -> Array:
    """floor(x / 2^shift + 1/2) for int64 x; shift >= 1."""
    return (x + (1 << (shift - 1))) >> shift


def _root_of_half(table_bits: int, precision: int) -> int:
    """2^(-1 / 2^table_bits) in units of 2^-precision, by repeated integer square roots."""
    root = 1 << (precision - 1)
    for _ in range(table_bits):
        root = isqrt(root << precision)
    return root


@cache
def exp2_table() -> npt.NDArray[np.uint32]:
    """T[f] = round(2^22 * 2^(-f / 1024)), f = 0..1023, computed in integers alone.

    Returns:
        uint32 [1024], from 2^22 down to a little above 2^21.
    """
    precision = 160
    step = _root_of_half(LOGIT_BITS, precision)
    power = 1 << precision
    values: list[int] = []
    for _ in range(1 << LOGIT_BITS):
        values.append((power + (1 << (precision - WEIGHT_BITS - 1))) >> (precision - WEIGHT_BITS))
        power = (power * step) >> precision
    table = np.array(values, dtype=np.uint32)
    table.setflags(write=False)
    return table


def exp2_weights(distance: Array) -> Array:
    """2^(22 - distance / 1024) by table, rounded down, for distance >= 0; int64 in and out."""
    table = exp2_table().astype(np.int64)
    mask = (1 << LOGIT_BITS) - 1
    return table[distance & mask] >> np.minimum(distance >> LOGIT_BITS, 31)


def attention_weights(distance: Array) -> Array:
    """round(255 * 2^(-distance / 1024)) by table: attention weights of at most eight bits."""
    return round_shift(exp2_weights(distance) * ATTENTION_MAX, WEIGHT_BITS)


def integer_sqrt(x: Array) -> Array:
    """floor(sqrt(x)) for int64 0 <= x < 2^52: the float root is corrected to the exact integer."""
    root = np.sqrt(x.astype(np.float64)).astype(np.int64)
    root -= (root * root > x).astype(np.int64)
    root += ((root + 1) * (root + 1) <= x).astype(np.int64)
    return root


def quantise_rows(x: Array) -> tuple[Array, Array]:
    """Each row to -127..127 by its own maximum.

    Args:
        x: int64 [..., K].

    Returns:
        (q, m): q int64 [..., K] with x ~ q * m / 127, m int64 [..., 1] >= 1.
    """
    m = np.maximum(np.abs(x).max(axis=-1, keepdims=True), 1)
    reciprocal = (INT8_MAX << ROW_BITS) // m
    return round_shift(x * reciprocal, ROW_BITS), m


def root_mean_square(x: Array) -> Array:
    """floor(sqrt(floor(sum x^2 / K))), at least 1, for each row of int64 [..., K] -> [..., 1]."""
    return np.maximum(integer_sqrt((x * x).sum(axis=-1, keepdims=True) // x.shape[-1]), 1)


def saturate(x: Array, limit: int) -> Array:
    """Clamp to -limit..limit."""
    return np.clip(x, -limit, limit)


def requantise(x: Array, multiplier: Array | int, shift: int) -> Array:
    """round(x * multiplier / 2^shift), int64."""
    return round_shift(x * multiplier, shift)


def multiplier_for(scale: Array, headroom: int = MULTIPLIER_BITS) -> tuple[npt.NDArray[np.int32], int]:
    """Integer multipliers and one shift with multiplier / 2^shift ~ scale.

    Args:
        scale: float64 array of positive numbers (used when freezing only).
        headroom: multipliers stay below 2^headroom.

    Returns:
        (multipliers int32 of scale's shape, shift in 1..62).
    """
    largest = float(scale.max())
    shift = headroom - int(np.floor(np.log2(largest))) - 1 if largest > 0 else 1
    shift = max(1, min(SHIFT_MAX, shift))
    multipliers = np.rint(scale * 2.0**shift).astype(np.int64)
    limit = (1 << headroom) - 1
    if np.any(multipliers > limit + 1):  # limit + 1 is a rounding up of a number just below the power of two
        raise LaconicError(
            f"a scale of {largest:g} is beyond what the frozen graph can express: the model's weights have "
            "grown out of bounds; train again at a lower training.learning_rate"
        )
    return np.minimum(multipliers, limit).astype(np.int32), shift
