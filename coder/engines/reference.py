"""The normative engine: the frozen graph in NumPy, as docs/frozen.md writes it.

Dimensions: S streams, T tokens fed at once, D width, H query heads, G key heads, K head_dim, W window,
V vocabulary, C cached tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import fixedpoint as fp
from ..checkpoint import FrozenCheckpoint
from ..fixedpoint import Array

FLOAT32_EXACT = 1 << 24


def exact_matmul(a: Array, b: Array, largest: int) -> Array:
    """Integer product a @ b, int64, by a float GEMM in which every partial sum is exact.

    Args:
        a, b: integer-valued arrays that matmul accepts.
        largest: bound of |partial sums|; below 2^24 float32 serves, below 2^53 float64.
    """
    dtype = np.float32 if largest < FLOAT32_EXACT else np.float64
    return np.matmul(a.astype(dtype), b.astype(dtype)).astype(np.int64)


@dataclass
class ReferenceState:
    """Rolling keys and values of every layer, and how many tokens came before."""

    position: int = 0
    keys: list[Array] = field(default_factory=list[Array])  # int64 [S, G, C, K] a layer, C < W
    values: list[Array] = field(default_factory=list[Array])


class NumpyEngine:
    """Evaluates a frozen checkpoint with NumPy alone."""

    name = "numpy"
    kernel = "NumPy float32 GEMM"

    def __init__(self, checkpoint: FrozenCheckpoint) -> None:
        self.config = checkpoint.transformer
        self.vocab_size = self.config.vocab_size
        self.tensors = {
            k: v.astype(np.int64) if v.dtype != np.int8 else v for k, v in checkpoint.tensors.items()
        }
        # A dict here receives every intermediate tensor, under the names of docs/frozen.md.
        self.trace: dict[str, Array] | None = None

    def start(self, num_streams: int) -> ReferenceState:
        """A state of streams that have seen nothing."""
        c = self.config
        empty = np.zeros((num_streams, c.num_kv_heads, 0, c.head_dim), dtype=np.int64)
        return ReferenceState(0, [empty] * c.num_layers, [empty] * c.num_layers)

    def advance(self, state: Any, ids: Array) -> Array:
        """Feed ids [S, T]; returns the logits after each, int32 [S, T, V]."""
        c, t = self.config, self.tensors
        x = fp.requantise(
            t["embed.weight"][ids].astype(np.int64),
            t["embed.multiplier"][ids][..., None],
            t["embed.shift"][0],
        )
        x = fp.saturate(x, fp.RESIDUAL_LIMIT)
        self._note("embed", x)
        for layer in range(c.num_layers):
            attended = self._attention(state, layer, x)
            x = fp.saturate(x + attended, fp.RESIDUAL_LIMIT)
            self._note(f"layers.{layer}.attended", x)
            x = fp.saturate(x + self._feed_forward(layer, x), fp.RESIDUAL_LIMIT)
            self._note(f"layers.{layer}.fed", x)
        state.position += ids.shape[1]
        q, scale = self._normalise(x)
        weight = t["embed.weight"][: c.vocab_size] if c.tied else t["head.weight"]
        logits = self._linear(q, scale, weight, "head")
        logits = fp.saturate(logits, fp.LOGIT_LIMIT).astype(np.int32)
        self._note("logits", logits)
        return logits

    def select(self, state: Any, streams: Sequence[int]) -> ReferenceState:
        """A new state, whose stream i has seen what stream streams[i] of `state` has."""
        chosen = list(streams)
        keys, values = ([layer[chosen] for layer in layers] for layers in (state.keys, state.values))
        return ReferenceState(state.position, keys, values)

    def _note(self, name: str, value: Array) -> None:
        if self.trace is not None:
            self.trace[name] = value

    @staticmethod
    def _normalise(x: Array) -> tuple[Array, Array]:
        """RMSNorm and quantisation in one: (q int8-valued [..., D], scale in 2^-16 [..., 1])."""
        q, m = fp.quantise_rows(x)
        return q, (m << fp.SCALE_BITS) // fp.root_mean_square(x)

    def _linear(self, q: Array, scale: Array, weight: Array, name: str) -> Array:
        """q [..., K] @ weight [N, K]^T, times the row's scale, times the channel's multiplier."""
        bound = fp.INT8_MAX * fp.INT8_MAX * weight.shape[1]
        accumulators = exact_matmul(q, weight.T, bound)
        scaled = fp.round_shift(accumulators * scale, fp.SCALE_BITS)
        y = fp.requantise(scaled, self.tensors[f"{name}.multiplier"], int(self.tensors[f"{name}.shift"][0]))
        self._note(f"{name}.rows", q)
        self._note(f"{name}.scales", scale)
        self._note(f"{name}.sums", accumulators)
        self._note(f"{name}.scaled", scaled)
        self._note(name, y)
        return y

    def _attention(self, state: ReferenceState, layer: int, x: Array) -> Array:
        c, t, name = self.config, self.tensors, f"layers.{layer}"
        H, G, K = c.num_heads, c.num_kv_heads, c.head_dim
        S, T, _ = x.shape
        qkv = self._linear(*self._normalise(x), t[f"{name}.qkv.weight"], f"{name}.qkv")
        qkv = fp.saturate(qkv, fp.INNER_LIMIT).reshape(S, T, H + 2 * G, K).transpose(0, 2, 1, 3)
        q, k, v = qkv[:, :H], qkv[:, H : H + G], qkv[:, H + G :]
        if c.positions == "rotary":
            positions = state.position + np.arange(T, dtype=np.int64)
            q, k = self._rotate(q, positions), self._rotate(k, positions)
            if self.trace is not None:
                self._note(f"{name}.rotated", np.concatenate([q, k], axis=1).transpose(0, 2, 1, 3))
        q, k, v = (fp.saturate(fp.round_shift(z, fp.HEAD_BITS), fp.INT8_MAX) for z in (q, k, v))
        for kind, steps in (("queries", q), ("keys", k), ("values", v)):
            self._note(f"{name}.{kind}", steps.transpose(0, 2, 1, 3))
        k = np.concatenate([state.keys[layer][:S], k], axis=2)
        v = np.concatenate([state.values[layer][:S], v], axis=2)
        state.keys[layer], state.values[layer] = k[:, :, 1 - c.window :], v[:, :, 1 - c.window :]

        cached = k.shape[2]
        index = np.arange(cached, dtype=np.int64)
        distance = index[cached - T :, None] - index[None, :]  # (T, C)
        visible = (distance >= 0) & (distance < c.window)
        q = q.reshape(S, G, H // G * T, K)  # the heads of a group share its keys
        products = exact_matmul(q, k.transpose(0, 1, 3, 2), fp.INT8_MAX * fp.INT8_MAX * K)
        scores = fp.requantise(products, t[f"{name}.score.multiplier"][0], int(t[f"{name}.score.shift"][0]))
        scores = scores.reshape(S, H, T, cached)
        if c.positions == "relative":
            scores = scores + t[f"{name}.bias"][:, np.clip(distance, 0, c.window - 1)]
        highest = np.where(visible, scores, np.iinfo(np.int64).min).max(axis=-1, keepdims=True)
        weights = np.where(visible, fp.attention_weights(np.where(visible, highest - scores, 0)), 0)
        total = weights.sum(axis=-1, keepdims=True)
        if self.trace is not None:
            self._note(f"{name}.scores", np.where(visible, scores, 0).transpose(0, 2, 1, 3))
        self._note(f"{name}.weights", weights.transpose(0, 2, 1, 3))
        grouped = weights.reshape(S, G, H // G * T, cached)
        sums = exact_matmul(grouped, v, fp.ATTENTION_MAX * fp.INT8_MAX * c.window).reshape(S, H, T, K)
        reciprocal = (1 << fp.RECIPROCAL_BITS) // total
        averages = fp.round_shift(sums * reciprocal, fp.RECIPROCAL_BITS - fp.AVERAGE_BITS)
        averages = averages.transpose(0, 2, 1, 3).reshape(S, T, H * K)
        self._note(f"{name}.averages", averages)
        rows, m = fp.quantise_rows(averages)
        return self._linear(rows, m << fp.ROW_SCALE_SHIFT, t[f"{name}.out.weight"], f"{name}.out")

    def _rotate(self, z: Array, positions: Array) -> Array:
        """Rotate pairs (i, i + K/2) of [S, heads, T, K] by the integer cosine table."""
        cosine, period = self.tensors["rotary.cosine"], self.config.rotary_period
        steps = (positions[:, None] * self.tensors["rotary.turns"]) % period  # (T, K/2)
        cos, sin = cosine[steps], cosine[(steps - period // 4) % period]
        a, b = np.split(z, 2, axis=-1)
        return fp.round_shift(np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1), fp.ROTARY_BITS)

    def _feed_forward(self, layer: int, x: Array) -> Array:
        t, name = self.tensors, f"layers.{layer}"
        hidden = self._linear(*self._normalise(x), t[f"{name}.up.weight"], f"{name}.up")
        hidden = fp.saturate(hidden, fp.INNER_LIMIT)
        gate, value = np.split(hidden, 2, axis=-1) if self.config.ffn == "reglu" else (hidden, hidden)
        product = fp.round_shift(np.maximum(gate, 0) * value, fp.HIDDEN_SHIFT)
        self._note(f"{name}.hidden", product)
        rows, m = fp.quantise_rows(product)
        return self._linear(rows, m << fp.ROW_SCALE_SHIFT, t[f"{name}.down.weight"], f"{name}.down")
