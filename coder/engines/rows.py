"""What the frozen graph does to rows: quantisation, normalisation, linear layers, gates; one core.

`reference.py` says what these do; the tests hold them to it bit for bit. Rows go into products as bytes
without sign, 128 more than they are, and `Weights.begins` takes 128 times the sum of a column away again.
What is no product is int32 where the bounds of the graph allow it, else int64, or float64 within 2^53.
"""

import numpy as np

from ..compiled import compiled, inlined
from ..fixedpoint import (
    HIDDEN_SHIFT,
    INT8_MAX,
    RESIDUAL_LIMIT,
    ROW_BITS,
    ROW_SCALE_SHIFT,
    SCALE_BITS,
)
from .layout import OFFSET, PANEL, Bytes, Float64, Int32, Int64, Scratch, Shape, Weights
from .products import BLOCK, DEPTH, TILE_ROWS, tile_1x4, tile_4x4

SCALE_UNIT = 2.0**-SCALE_BITS


@inlined
def clamp(value: np.int32, limit: int) -> np.int32:
    return np.int32(min(max(np.int32(value), np.int32(-limit)), np.int32(limit)))


@inlined
def round_shift(value: np.int32, bits: int) -> np.int32:
    return np.int32(np.int32(value + np.int32(1 << (bits - 1))) >> np.int32(bits))


@inlined
def _quantise(row: Int32, count: int, q: Bytes) -> np.int64:
    """Quantise `count` elements into q, shifted by OFFSET; returns the row's maximum."""
    top = np.int32(1)
    for j in range(count):
        top = max(top, max(row[j], np.int32(-row[j])))
    reciprocal = np.int32((INT8_MAX << ROW_BITS) // np.int64(top))
    for j in range(count):  # with what rounds, at most 127 * 2^24 + 2^23 < 2^31
        q[j] = np.uint8(round_shift(np.int32(row[j] * reciprocal), ROW_BITS) + OFFSET)
    return np.int64(top)


@inlined
def _root_mean_square(row: Int32, count: int) -> np.int64:
    total = np.int64(0)
    for j in range(count):
        total += np.int64(row[j]) * np.int64(row[j])
    mean = total // count
    root = np.int64(np.sqrt(np.float64(mean)))
    if root * root > mean:
        root -= 1
    if (root + 1) * (root + 1) <= mean:
        root += 1
    return max(root, np.int64(1))


@inlined
def quantise_row(row: Int32, count: int, r: int, scratch: Scratch) -> None:
    """Quantise what is not normalised into row r."""
    top = _quantise(row, count, scratch.q[r])
    scratch.scales[r] = np.float64(top << ROW_SCALE_SHIFT) * SCALE_UNIT


@compiled
def normalise(shape: Shape, rows: int, scratch: Scratch) -> None:
    """RMSNorm and quantisation of rows of the residual stream."""
    x, count = scratch.x, shape.d_model
    for r in range(rows):
        top = _quantise(x[r], count, scratch.q[r])
        scratch.scales[r] = np.float64((top << SCALE_BITS) // _root_mean_square(x[r], count)) * SCALE_UNIT


@inlined
def _rescale(sums: Int32, scale: float, factors: Float64, limit: float, out: Int32) -> None:
    """Sums of a linear layer's row to what it stands for."""
    for c in range(out.shape[0]):
        scaled = np.floor(np.float64(sums[c]) * scale + 0.5)
        value = np.floor(scaled * factors[c] + 0.5)
        value = limit if value > limit else value
        value = -limit if value < -limit else value
        out[c] = np.int32(value)


@compiled
def linear(
    weights: Weights, number: int, rows: int, scratch: Scratch, limit: np.int64, places: Int64, out: Int32
) -> None:
    """Linear layer `number` of the quantised rows, clamped, into rows `places` of `out`."""
    q, scales, sums = scratch.q, scratch.scales, scratch.sums
    w_at, c_at, columns, depth = weights.linears[number]
    stride = q.shape[1]
    for panel in range(0, columns, PANEL):
        begin, end = c_at + panel, min(panel + PANEL, columns)
        factors = weights.factors[begin : begin + end - panel]
        w = w_at + panel * depth * DEPTH
        r = 0
        while r + TILE_ROWS <= rows:
            tile_4x4(
                q, r * stride, stride, weights.products, w, depth * BLOCK, depth,
                weights.begins, begin, sums, 0, PANEL,
            )  # fmt: skip
            for i in range(TILE_ROWS):
                part = sums[i * PANEL : (i + 1) * PANEL]
                _rescale(part, scales[r + i], factors, float(limit), out[places[r + i], panel:end])
            r += TILE_ROWS
        while r < rows:
            tile_1x4(
                q, r * stride, stride, weights.products, w, depth * BLOCK, depth,
                weights.begins, begin, sums, 0, PANEL,
            )  # fmt: skip
            _rescale(sums, scales[r], factors, float(limit), out[places[r], panel:end])
            r += 1


@compiled
def gate(shape: Shape, rows: int, scratch: Scratch) -> None:
    """The feed-forward layer's hidden row, quantised, from its inputs in scratch.y."""
    width = shape.ffn_dim
    for r in range(rows):
        y = scratch.y[r]
        if shape.gated:
            values = y[width:]
            for j in range(width):
                y[j] = round_shift(np.int32(max(y[j], np.int32(0)) * values[j]), HIDDEN_SHIFT)
        else:
            for j in range(width):
                positive = max(y[j], np.int32(0))
                y[j] = round_shift(np.int32(positive * positive), HIDDEN_SHIFT)
        quantise_row(y, width, r, scratch)


@compiled
def add(shape: Shape, rows: int, scratch: Scratch) -> None:
    """Add what a linear layer gave to the residual stream."""
    for r in range(rows):
        x, y = scratch.x[r], scratch.y[r]
        for j in range(shape.d_model):
            x[j] = clamp(np.int32(x[j] + y[j]), RESIDUAL_LIMIT)
