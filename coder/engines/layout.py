"""What the engine's kernels read and write: arrays and their order.

Dimensions: S streams, D width, L layers, H query heads, G key heads, K head_dim (K' rounded up to whole
blocks), W window, V vocabulary, C room of the caches.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .products import LANES, TILE_BLOCKS

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

ROWS = 64  # that are evaluated together: what they need stays in the first two caches
PANEL = LANES * TILE_BLOCKS  # columns that are evaluated together
OFFSET = 128  # of activations as bytes without sign
QKV, OUT, UP, DOWN, PER_LAYER = 0, 1, 2, 3, 4  # rows of Weights.linears, from a layer's first


class Shape(NamedTuple):
    """Numbers of a checkpoint."""

    d_model: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    head_room: int  # K'
    window: int
    ffn_dim: int
    gated: bool
    period: int  # 0: positions are relative
    vocab_size: int


class Weights(NamedTuple):
    """A checkpoint as the kernels read it.

    Attributes:
        linears: [4 L + 1, 4] of each linear layer, the head last: where its weights and its columns begin,
            columns, and inputs / 4.
        products: each linear layer's weights in blocks (`products.py`), whole panels.
        begins, factors: of each column: what its sum begins with, multiplier / 2^shift.
        embedded: [V + 1, D], scaled.
        scores: [L, 2]: multiplier and shift.
        biases: [L, H, W], the farthest position first; zeros for rotary positions.
        table: attention weights by distance from the highest score; the last is 0.
        turns, cosines: of rotary positions, [K / 2] and [period].
    """

    linears: Int64
    products: Int8
    begins: Int32
    factors: Float64
    embedded: Int32
    scores: Int64
    biases: Int32
    table: Bytes
    turns: Int64
    cosines: Int32


class Cache(NamedTuple):
    """Keys and values of every layer, stream and key head, in blocks; the last W - 1 positions matter.

    Attributes:
        keys: [L, S, G, C / 16, K' / 4, 16, 4]; begins: [L, S, G, C], -128 times the sum of each key.
        values: [L, S, G, K' / 16, C / 4, 16, 4].
        counts: [position, positions in the caches].
    """

    keys: Int8
    begins: Int32
    values: Int8
    counts: Int64


class Scratch(NamedTuple):
    """What a block of rows needs.

    Attributes:
        x: [rows, D] the residual stream; q: [rows, inputs] quantised; scales: [rows], in units of 1.
        y: [rows, columns] of a linear layer; sums: [4 * PANEL] of a tile.
        queries: [rows, H * K']; products: [H, C]; scores: [C]; attention: [H, C]; averages: [H, K'].
        rotation: [2, rows, K / 2], cosines and sines; zeros: [K'].
    """

    x: Int32
    q: Bytes
    scales: Float64
    y: Int32
    sums: Int32
    queries: Bytes
    products: Int32
    scores: Int64
    attention: Bytes
    averages: Int32
    rotation: Int32
    zeros: Int32
    places: Int64
