"""The frozen graph in torch: the same integers as the reference, by exact float arithmetic.

Products of int8 values are float32 GEMMs whose every partial sum stays below 2^24; everything else is
float64 used as a 53-bit integer unit: coder/graph.py proves the bounds. Rounding shifts become
floor(x * 2^-shift + 1/2), which is exact there.

Dimensions: S streams, T tokens fed at once, D width, H query heads, G key heads, K head_dim, V vocabulary.
"""

# torch leaves many of its own functions untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from . import fixedpoint as fp
from .checkpoint import FrozenCheckpoint
from .fixedpoint import Array
from .parallel import share

EXACT_COLUMNS = 1040  # 127 * 127 * 1040 < 2^24
SHARED_WORK = 1 << 28  # multiply-accumulates a call; below, waiting for others costs more than they do
SPARE_TOKENS = 64  # room behind a cached window before it is moved to the front


@dataclass
class TorchState:
    """Keys and values of every layer in buffers that are compacted when full."""

    position: int = 0
    filled: int = 0  # tokens in the buffers; the last window - 1 matter
    keys: list[Tensor] = field(default_factory=list[Tensor])  # float32 [S, G, room, K] a layer
    values: list[Tensor] = field(default_factory=list[Tensor])


def _attention_table() -> Tensor:
    """Attention weight by distance from the highest score, down to the first distance that weighs nothing."""
    distances = np.arange(10 << fp.LOGIT_BITS)
    return torch.from_numpy(fp.attention_weights(distances).astype(np.float32))


def _round(x: Tensor) -> Tensor:
    return x.add_(0.5).floor_()


def _quotient(numerator: int, x: Tensor) -> Tensor:
    """numerator // x for float64 whole numbers 1 <= x < 2^24, numerator < 2^32.

    The correctly rounded quotient is below the next whole number, from which the true one is at least 1 / x
    away. (A Python number over a tensor would be a product with its reciprocal, rounded twice.)
    """
    return torch.floor(torch.full_like(x, numerator) / x)


class TorchEngine:
    """Evaluates a frozen checkpoint with torch on the CPU."""

    name = "torch"

    def __init__(self, checkpoint: FrozenCheckpoint, threads: int | None = None) -> None:
        self.threads = threads or torch.get_num_threads()
        c = self.config = checkpoint.config
        self.vocab_size = c.vocab_size
        tensors = checkpoint.tensors
        self.weights = {
            name.removesuffix(".weight"): torch.from_numpy(value.astype(np.float32))
            for name, value in tensors.items()
            if name.endswith(".weight")
        }
        if c.tied:
            self.weights["head"] = self.weights["embed"][: c.vocab_size]
        self.factors = {
            name: torch.from_numpy(tensors[f"{name}.multiplier"].astype(np.float64))
            * 2.0 ** -int(tensors[f"{name}.shift"][0])
            for name in (key.removesuffix(".multiplier") for key in tensors if key.endswith(".multiplier"))
        }
        self.biases = [
            torch.from_numpy(tensors[f"layers.{i}.bias"].astype(np.float64))
            if c.positions == "relative"
            else None
            for i in range(c.num_layers)
        ]
        embedded = self.weights["embed"].double() * self.factors["embed"][:, None]
        self.embedded = _round(embedded).clamp_(-fp.RESIDUAL_LIMIT, fp.RESIDUAL_LIMIT)
        self.attention_table = _attention_table()
        if c.positions == "rotary":
            self.cosine = torch.from_numpy(tensors["rotary.cosine"].astype(np.float64)) * 2.0**-fp.ROTARY_BITS
            self.turns = torch.from_numpy(tensors["rotary.turns"].astype(np.int64))

    def start(self, num_streams: int) -> TorchState:
        """A state of streams that have seen nothing."""
        c = self.config
        shape = (num_streams, c.num_kv_heads, c.window - 1 + SPARE_TOKENS, c.head_dim)
        buffers = [torch.zeros(shape) for _ in range(2 * c.num_layers)]
        return TorchState(0, 0, buffers[: c.num_layers], buffers[c.num_layers :])

    def advance(self, state: Any, ids: Array) -> Array:
        """Feed ids [S, T]; returns the logits after each, int32 [S, T, V]."""
        before = torch.get_num_threads()
        large = ids.size * self.config.macs_per_token() >= SHARED_WORK
        torch.set_num_threads(share(self.threads) if large else 1)
        try:
            with torch.inference_mode():
                return self._advance(state, torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64)))
        finally:
            torch.set_num_threads(before)

    def _advance(self, state: TorchState, ids: Tensor) -> Array:
        c = self.config
        for buffers in (state.keys, state.values):
            buffers[:] = [buffer[: len(ids)] for buffer in buffers]
        self._make_room(state, ids.shape[1])
        visible = self._visibility(state, ids.shape[1])
        x = self.embedded[ids]  # float64 [S, T, D]
        for layer in range(c.num_layers):
            x = self._add(x, self._attention(state, layer, x, *visible))
            x = self._add(x, self._feed_forward(layer, x))
        state.position += ids.shape[1]
        state.filled += ids.shape[1]
        logits = self._linear(*self._normalise(x), "head").clamp_(-fp.LOGIT_LIMIT, fp.LOGIT_LIMIT)
        return logits.to(torch.int32).numpy()

    @staticmethod
    def _add(x: Tensor, y: Tensor) -> Tensor:
        return y.add_(x).clamp_(-fp.RESIDUAL_LIMIT, fp.RESIDUAL_LIMIT)

    @staticmethod
    def _quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
        """(q float32 [..., K] of whole numbers, m float64 [..., 1])."""
        m: Tensor = x.abs().amax(dim=-1, keepdim=True).clamp_min_(1)
        reciprocal = _quotient(fp.INT8_MAX << fp.ROW_BITS, m).mul_(2.0**-fp.ROW_BITS)
        return _round(x * reciprocal).float(), m

    def _normalise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, m = self._quantise_rows(x)
        wide = x.to(torch.int64)
        mean = (wide * wide).sum(dim=-1, keepdim=True) // x.shape[-1]
        # IEEE roots of whole numbers below 2^46 never round up to the next whole number.
        rms = mean.double().sqrt_().floor_().clamp_min_(1)
        return q, torch.floor(m * (1 << fp.SCALE_BITS) / rms)

    def _linear(self, q: Tensor, scale: Tensor, name: str) -> Tensor:
        weight = self.weights[name]
        if weight.shape[1] <= EXACT_COLUMNS:
            accumulators = F.linear(q, weight).double()
        else:
            parts = zip(q.split(EXACT_COLUMNS, -1), weight.split(EXACT_COLUMNS, -1), strict=True)
            accumulators = torch.stack([F.linear(a, b).double() for a, b in parts]).sum(dim=0)
        scaled = _round(accumulators.mul_(scale * 2.0**-fp.SCALE_BITS))
        return _round(scaled.mul_(self.factors[name]))

    def _make_room(self, state: TorchState, count: int) -> None:
        """Move the last window - 1 tokens to the front of larger buffers where `count` more do not fit."""
        kept = min(state.filled, self.config.window - 1)
        room = state.keys[0].shape[2]
        if state.filled + count <= room:
            return
        for buffers in (state.keys, state.values):
            for layer, buffer in enumerate(buffers):
                recent = buffer[:, :, state.filled - kept : state.filled].clone()
                if kept + count > room:
                    shape = (*buffer.shape[:2], kept + count, buffer.shape[3])
                    buffers[layer] = buffer = torch.zeros(shape)
                buffer[:, :, :kept] = recent
        state.filled = kept

    def _visibility(self, state: TorchState, count: int) -> tuple[int, Tensor, Tensor]:
        """(first cached token that counts, distances [T, C], whether they are outside the window [T, C])."""
        first = max(0, state.filled - (self.config.window - 1))
        queries = torch.arange(state.filled, state.filled + count)
        distance = queries[:, None] - torch.arange(first, state.filled + count)[None, :]
        outside = (distance < 0) | (distance >= self.config.window)
        return first, distance.clamp_(0, self.config.window - 1), outside

    def _attention(
        self, state: TorchState, layer: int, x: Tensor, first: int, distance: Tensor, outside: Tensor
    ) -> Tensor:
        c, name = self.config, f"layers.{layer}"
        H, G, K = c.num_heads, c.num_kv_heads, c.head_dim
        S, T, _ = x.shape
        qkv = self._linear(*self._normalise(x), f"{name}.qkv").clamp_(-fp.INNER_LIMIT, fp.INNER_LIMIT)
        qkv = qkv.view(S, T, H + 2 * G, K)
        if c.positions == "rotary":
            qkv[:, :, : H + G] = self._rotate(qkv[:, :, : H + G], state.position)
        steps = _round(qkv.mul_(2.0**-fp.HEAD_BITS)).clamp_(-fp.INT8_MAX, fp.INT8_MAX).float().transpose(1, 2)
        last = state.filled + T
        state.keys[layer][:, :, state.filled : last] = steps[:, H : H + G]
        state.values[layer][:, :, state.filled : last] = steps[:, H + G :]
        keys, values = state.keys[layer][:, :, first:last], state.values[layer][:, :, first:last]

        q = steps[:, :H].reshape(S, G, H // G * T, K)
        products = torch.matmul(q, keys.transpose(-1, -2)).double().view(S, H, T, -1)
        scores = _round(products.mul_(self.factors[f"{name}.score"]))
        bias = self.biases[layer]
        if bias is not None:
            scores.add_(bias[:, distance])
        if T > 1 or last - first > c.window:
            scores.masked_fill_(outside, -(2.0**52))
        below = scores.amax(dim=-1, keepdim=True).sub(scores).clamp_max_(len(self.attention_table) - 1)
        weights = self.attention_table[below.to(torch.int64)]  # float32 [S, H, T, C]
        total = weights.sum(dim=-1, keepdim=True).double()
        sums = torch.matmul(weights.view(S, G, H // G * T, -1), values).double().view(S, H, T, K)
        reciprocal = _quotient(1 << fp.RECIPROCAL_BITS, total)
        averages = _round(sums.mul_(reciprocal.mul_(2.0 ** (fp.AVERAGE_BITS - fp.RECIPROCAL_BITS))))
        rows, m = self._quantise_rows(averages.transpose(1, 2).reshape(S, T, H * K))
        return self._linear(rows, m.mul_(1 << fp.ROW_SCALE_SHIFT), f"{name}.out")

    def _rotate(self, z: Tensor, position: int) -> Tensor:
        """Rotate pairs (i, i + K/2) of [S, T, heads, K]."""
        period = self.config.rotary_period
        positions = torch.arange(position, position + z.shape[1])
        turned = (positions[:, None] * self.turns) % period
        cos, sin = self.cosine[turned][:, None], self.cosine[(turned - period // 4) % period][:, None]
        a, b = z.chunk(2, dim=-1)
        return _round(torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1))

    def _feed_forward(self, layer: int, x: Tensor) -> Tensor:
        name = f"layers.{layer}"
        hidden = self._linear(*self._normalise(x), f"{name}.up").clamp_(-fp.INNER_LIMIT, fp.INNER_LIMIT)
        if self.config.ffn == "reglu":
            gate, value = hidden.chunk(2, dim=-1)
            product = gate.clamp_min(0).mul_(value)
        else:
            product = hidden.clamp_min(0).mul_(hidden)
        rows, m = self._quantise_rows(_round(product.mul_(2.0**-fp.HIDDEN_SHIFT)))
        return self._linear(rows, m.mul_(1 << fp.ROW_SCALE_SHIFT), f"{name}.down")
