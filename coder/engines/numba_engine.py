"""The frozen graph in numba: the same integers as the reference, on one core, without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import fixedpoint as fp
from ..checkpoint import FrozenCheckpoint
from ..fixedpoint import Array
from ..graph import FrozenConfig
from . import kernels
from .layout import OFFSET, PANEL, ROWS, Cache, Scratch, Shape, Weights
from .products import BLOCK, DEPTH, INSTRUCTIONS, LANES, TILE_ROWS

SPARE_POSITIONS = ROWS  # room behind a cached window before it is moved to the front
WEIGHTLESS = 10 << fp.LOGIT_BITS  # no attention at this distance from the highest score


@dataclass
class NumbaState:
    """Keys and values, and room to work: a state serves one thread at a time."""

    cache: Cache
    scratch: Scratch


class NumbaEngine:
    """Evaluates a frozen checkpoint by compiled kernels, on one core."""

    name = "numba"
    kernel = INSTRUCTIONS.name

    def __init__(self, checkpoint: FrozenCheckpoint) -> None:
        c, t = checkpoint.transformer, checkpoint.tensors
        self.vocab_size = c.vocab_size
        self.shape = Shape(
            c.d_model,
            c.num_layers,
            c.num_heads,
            c.num_kv_heads,
            c.head_dim,
            _up(c.head_dim, LANES),
            c.window,
            c.ffn_dim,
            c.ffn == "reglu",
            c.rotary_period if c.positions == "rotary" else 0,
            c.vocab_size,
        )
        self.weights = _pack(c, t)

    def start(self, num_streams: int) -> NumbaState:
        """A state of streams that have seen nothing."""
        s = self.shape
        room = _up(s.window - 2 + LANES + SPARE_POSITIONS, LANES)
        positions = (s.num_layers, num_streams, s.num_kv_heads, room)
        cache = Cache(
            _zeros(np.int8, int(np.prod(positions)) * s.head_room),
            _zeros(np.int32, *positions),
            _zeros(np.int8, int(np.prod(positions)) * s.head_room),
            np.zeros(2, dtype=np.int64),
        )
        return NumbaState(cache, self._scratch(room))

    def advance(self, state: Any, ids: Array) -> Array:
        """Feed ids [S, T]; returns the logits after each, int32 [S, T, V]."""
        logits = np.empty((ids.size, self.vocab_size), dtype=np.int32)
        ids = np.ascontiguousarray(ids, dtype=np.int32)
        kernels.advance(self.shape, self.weights, state.cache, state.scratch, ids, logits)
        return logits.reshape(*ids.shape, self.vocab_size)

    def select(self, state: Any, streams: Sequence[int]) -> NumbaState:
        """A new state, whose stream i has seen what stream streams[i] of `state` has."""
        chosen, old = self.start(len(streams)), state.cache
        for new, kept in zip(chosen.cache[:3], old[:3], strict=True):
            by_stream = kept.reshape(*old.begins.shape[:2], -1)
            new.reshape(self.shape.num_layers, len(streams), -1)[:] = by_stream[:, list(streams)]
        chosen.cache.counts[:] = old.counts
        return chosen

    def _scratch(self, room: int) -> Scratch:
        s, rows = self.shape, ROWS
        share = s.num_heads // s.num_kv_heads
        queries = (s.num_heads + 2 * s.num_kv_heads) * s.head_dim
        inputs = max(s.d_model, s.num_heads * s.head_dim, s.ffn_dim)
        columns = max(queries, s.d_model, s.ffn_dim * (1 + s.gated))
        places = np.zeros((2, rows), dtype=np.int64)
        places[0] = np.arange(rows)
        return Scratch(
            _zeros(np.int32, rows, s.d_model),
            _zeros(np.uint8, rows, _up(inputs, BLOCK)),
            np.zeros(rows),
            _zeros(np.int32, rows, _up(columns, LANES)),
            _zeros(np.int32, TILE_ROWS * PANEL),
            _zeros(np.uint8, rows, s.num_heads * s.head_room),
            _zeros(np.int32, share, room),
            _zeros(np.int64, room + share),
            _zeros(np.uint8, share, room),
            _zeros(np.int32, share, s.head_room),
            _zeros(np.int32, 2, rows, max(1, s.head_dim // 2)),
            _zeros(np.int32, s.head_room),
            places,
        )


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def _zeros(kind: Any, *shape: int) -> Array:
    """Zeros that begin at a cache line: vectors that cross one cost twice."""
    count = int(np.prod(shape)) * np.dtype(kind).itemsize
    buffer = np.zeros(count + BLOCK, dtype=np.uint8)
    begin = -buffer.ctypes.data % BLOCK
    found: Array = buffer[begin : begin + count].view(kind).reshape(shape)
    return found


def _pack(config: FrozenConfig, tensors: dict[str, Array]) -> Weights:
    names = [f"layers.{i}.{part}" for i in range(config.num_layers) for part in ("qkv", "out", "up", "down")]
    linears = [(name, tensors[f"{name}.weight"]) for name in names]
    linears.append(
        ("head", tensors["embed.weight"][: config.vocab_size] if config.tied else tensors["head.weight"])
    )
    table, blocks, begins, factors = list[tuple[int, ...]](), list[Array](), list[Array](), list[Array]()
    w_at = c_at = 0
    for name, weight in linears:
        columns, inputs = weight.shape
        padded = np.zeros((_up(columns, PANEL), _up(inputs, DEPTH)), dtype=np.int8)
        padded[:columns, :inputs] = weight
        table.append((w_at, c_at, columns, padded.shape[1] // DEPTH))
        blocks.append(_blocks(padded))
        begins.append(-OFFSET * padded.sum(axis=1, dtype=np.int32))
        factors.append(np.zeros(len(padded)))
        factors[-1][:columns] = _factors(tensors, name)
        w_at += padded.size
        c_at += len(padded)
    products = _zeros(np.int8, w_at)
    products[:] = np.concatenate(blocks)
    relative = config.positions == "relative"
    biases = np.zeros((config.num_layers, config.num_heads, config.window), dtype=np.int32)
    for i in range(config.num_layers if relative else 0):
        biases[i] = tensors[f"layers.{i}.bias"][:, ::-1]
    embedded = fp.requantise(
        tensors["embed.weight"].astype(np.int64),
        tensors["embed.multiplier"].astype(np.int64)[:, None],
        int(tensors["embed.shift"][0]),
    )
    scores = [
        [int(tensors[f"layers.{i}.score.{part}"][0]) for part in ("multiplier", "shift")]
        for i in range(config.num_layers)
    ]
    return Weights(
        np.array(table, dtype=np.int64),
        products,
        np.concatenate(begins),
        np.concatenate(factors),
        fp.saturate(embedded, fp.RESIDUAL_LIMIT).astype(np.int32),
        np.array(scores, dtype=np.int64),
        biases,
        fp.attention_weights(np.arange(WEIGHTLESS + 1)).astype(np.uint8),
        np.zeros(1, dtype=np.int64) if relative else tensors["rotary.turns"].astype(np.int64),
        np.zeros(1, dtype=np.int32) if relative else tensors["rotary.cosine"],
    )


def _blocks(weight: Array) -> Array:
    """[columns, inputs] as `products.py` reads it: [columns / 16, inputs / 4, 16, 4], flat."""
    columns, inputs = weight.shape
    split = weight.reshape(columns // LANES, LANES, inputs // DEPTH, DEPTH)
    return split.transpose(0, 2, 1, 3).reshape(-1)


def _factors(tensors: dict[str, Array], name: str) -> Array:
    """Multipliers of a linear layer over two to its shift: exact in float64."""
    return tensors[f"{name}.multiplier"] * 2.0 ** -int(tensors[f"{name}.shift"][0])
