"""The frozen graph in torch: the same integers as the reference, by exact arithmetic in other types.

Products of weights are exact int8 or float32 GEMMs (coder/exactgemm.py), those of attention float32 ones
whose every partial sum stays below 2^24; everything else is float64 used as a 53-bit integer unit:
coder/graph.py proves the bounds. Rounding shifts become floor(x * 2^-shift + 1/2), which is exact there.

Dimensions: S streams, T tokens fed at once, D width, H query heads, G key heads, K head_dim, W window,
V vocabulary, C keys that a chunk looks at.
"""

# torch leaves many of its own functions untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .. import fixedpoint as fp
from ..checkpoint import FrozenCheckpoint
from ..fixedpoint import Array
from ..parallel import share
from .exactgemm import Float32Gemm, Gemm, Int8Gemm, choose_gemm

GROUP_ROWS = 256  # rows that go through the graph together: what they need stays in a processor's cache
SHARED_WORK = 1 << 28  # multiply-accumulates a call; below, waiting for others costs more than they do
EXACT_SQUARES = 512  # columns whose squares add up to at most 2^53: a residual is at most 2^22
HIDDEN = -(2.0**52)  # added to a score, which is below 2^40

_lock = Lock()
_usual = _users = 0  # torch's threads before the first of those that are in `one_thread`, and their number


@dataclass
class TorchState:
    """Keys and values of the last W positions of every layer: position p is in slot p mod W."""

    position: Tensor  # int64 []: how many tokens came before
    keys: list[Tensor]  # float32 [S, G, W, K] a layer
    values: list[Tensor]


@dataclass(frozen=True)
class Places:
    """Where a chunk's tokens are, and what they see; the same for every stream.

    Attributes:
        order: slots of the W - 1 positions before, in order; None where one token is fed, which looks at the
            slots as they lie, its own among them.
        slots: of the last min(T, W) tokens that are fed.
        added: what is added to the scores of each layer, float64 [H or 1, T, C]: biases, and HIDDEN.
        turn: cosines and sines of the positions, float64 [T, 1, K / 2]; None without rotary positions.
    """

    order: Tensor | None
    slots: Tensor
    added: list[Tensor]
    turn: tuple[Tensor, Tensor] | None


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


@contextmanager
def one_thread() -> Generator[None]:
    """torch's own threads meet after every operation: threads that take streams of their own need not."""
    global _usual, _users
    with _lock:
        if _users == 0:
            _usual = torch.get_num_threads()
        _users += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:  # a thread that comes now must not take 1 for what is usual
            torch.set_num_threads(_usual)
            _users -= 1


class TorchEngine:
    """Evaluates a frozen checkpoint with torch on the CPU."""

    name = "torch"
    gemms: ClassVar[tuple[Gemm, ...]] = (Int8Gemm(), Float32Gemm())

    def __init__(
        self, checkpoint: FrozenCheckpoint, threads: int | None = None, device: torch.device | None = None
    ) -> None:
        self.threads = threads or torch.get_num_threads()
        self.device = device or torch.device("cpu")
        c = self.config = checkpoint.transformer
        self.vocab_size = c.vocab_size
        tensors = checkpoint.tensors
        weights = {
            key.removesuffix(".weight"): value for key, value in tensors.items() if key.endswith(".weight")
        }
        if c.tied:
            weights["head"] = weights["embed"][: c.vocab_size]
        self.factors = {
            key: self._float64(tensors[f"{key}.multiplier"]) * 2.0 ** -int(tensors[f"{key}.shift"][0])
            for key in (key.removesuffix(".multiplier") for key in tensors if key.endswith(".multiplier"))
        }
        embedded = self._float64(weights.pop("embed")).mul_(self.factors["embed"][:, None])
        self.embedded = _round(embedded).clamp_(-fp.RESIDUAL_LIMIT, fp.RESIDUAL_LIMIT)
        with one_thread():
            shapes = [value.shape for value in weights.values()]
            self.gemm = choose_gemm(self.gemms, shapes, self.device)
        self.kernel = self.gemm.describe(self.device)
        self.weights = {
            key: self.gemm.prepare(torch.from_numpy(value).to(self.device)) for key, value in weights.items()
        }
        self.biases = [
            self._float64(tensors[f"layers.{i}.bias"]) if c.positions == "relative" else None
            for i in range(c.num_layers)
        ]
        self.attention_table = _attention_table().to(self.device)
        if c.positions == "rotary":
            self.cosine = self._float64(tensors["rotary.cosine"]) * 2.0**-fp.ROTARY_BITS
            self.turns = torch.from_numpy(tensors["rotary.turns"].astype(np.int64)).to(self.device)

    def _float64(self, values: Array) -> Tensor:
        return torch.from_numpy(values.astype(np.float64)).to(self.device)

    def start(self, num_streams: int) -> TorchState:
        """A state of streams that have seen nothing."""
        c = self.config
        shape = (num_streams, c.num_kv_heads, c.window, c.head_dim)
        buffers = [torch.zeros(shape, device=self.device) for _ in range(2 * c.num_layers)]
        position = torch.zeros((), dtype=torch.int64, device=self.device)
        return TorchState(position, buffers[: c.num_layers], buffers[c.num_layers :])

    def advance(self, state: Any, ids: Array) -> Array:
        """Feed ids [S, T]; returns the logits after each, int32 [S, T, V]."""
        fed = torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64))
        with one_thread(), torch.inference_mode():
            return self.evaluate(state, fed).numpy()

    def select(self, state: Any, streams: Sequence[int]) -> TorchState:
        """A new state, whose stream i has seen what stream streams[i] of `state` has."""
        chosen = torch.tensor(list(streams), device=self.device)
        keys, values = (
            [ring.index_select(0, chosen) for ring in layers] for layers in (state.keys, state.values)
        )
        return TorchState(state.position.clone(), keys, values)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, "torch engine", torch.set_num_threads, (1,))

    def evaluate(self, state: TorchState, ids: Tensor) -> Tensor:
        """Feed int64 ids [S, T] on the device, streams in groups; returns int32 logits [S, T, V] there."""
        streams, count = ids.shape
        places = self._places(state.position, count)
        logits = torch.empty((streams, count, self.vocab_size), dtype=torch.int32, device=self.device)
        threads = share(self.threads)
        shared = threads > 1 and ids.numel() * self.config.macs_per_token() >= SHARED_WORK
        size = min(max(1, GROUP_ROWS // count), -(-streams // threads) if shared else streams)
        groups = [slice(begin, min(begin + size, streams)) for begin in range(0, streams, size)]

        def work(group: slice) -> None:
            with torch.inference_mode():
                logits[group] = self._forward(state, group, ids[group], places)

        for _ in self._pool.map(work, groups) if shared else map(work, groups):
            pass
        state.position += count
        return logits

    def _forward(self, state: TorchState, group: slice, ids: Tensor, places: Places) -> Tensor:
        """Logits of a group of streams, float64 [S, T, V]."""
        x = self.embedded[ids]  # float64 [S, T, D]
        for layer in range(self.config.num_layers):
            keys, values = state.keys[layer][group], state.values[layer][group]
            x = self._add(x, self._attention(layer, x, keys, values, places))
            x = self._add(x, self._feed_forward(layer, x))
        return self._linear(*self._normalise(x), "head").clamp_(-fp.LOGIT_LIMIT, fp.LOGIT_LIMIT)

    @staticmethod
    def _add(x: Tensor, y: Tensor) -> Tensor:
        return y.add_(x).clamp_(-fp.RESIDUAL_LIMIT, fp.RESIDUAL_LIMIT)

    @staticmethod
    def _quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
        """(q of whole numbers [..., K], m [..., 1]), float64."""
        m: Tensor = x.abs().amax(dim=-1, keepdim=True).clamp_min_(1)
        reciprocal = _quotient(fp.INT8_MAX << fp.ROW_BITS, m).mul_(2.0**-fp.ROW_BITS)
        return _round(x * reciprocal), m

    def _normalise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, m = self._quantise_rows(x)
        squares = [part.sum(dim=-1, keepdim=True) for part in (x * x).split(EXACT_SQUARES, dim=-1)]
        total = torch.stack([part.to(torch.int64) for part in squares]).sum(dim=0)
        # IEEE roots of whole numbers below 2^46 never round up to the next whole number.
        rms = (total // x.shape[-1]).double().sqrt_().floor_().clamp_min_(1)
        return q, torch.floor(m * (1 << fp.SCALE_BITS) / rms)

    def _linear(self, q: Tensor, scale: Tensor, name: str) -> Tensor:
        factors = self.factors[name]
        products = self.gemm.multiply(q.view(-1, q.shape[-1]), self.weights[name])[:, : len(factors)]
        accumulators = products.double().view(*q.shape[:-1], -1)
        scaled = _round(accumulators.mul_(scale * 2.0**-fp.SCALE_BITS))
        return _round(scaled.mul_(factors))

    def _places(self, position: Tensor, count: int) -> Places:
        """For `count` tokens after `position` others; nothing here leaves the device."""
        c, device = self.config, self.device
        steps = torch.arange(count, device=device)
        if count == 1:
            order = None
            distance = (position - torch.arange(c.window, device=device)).remainder(c.window)[None, :]
        else:
            before = torch.arange(c.window - 1, device=device)
            order = (position + 1 + before).remainder(c.window)
            distance = steps[:, None] - torch.arange(1 - c.window, count, device=device)
        hidden = (distance < 0) | (distance >= c.window) | (distance > (position + steps)[:, None])
        last = min(count, c.window)
        slots = (position + count - last + torch.arange(last, device=device)).remainder(c.window)
        distance = distance.clamp(0, c.window - 1)
        blocked = hidden.double().mul_(HIDDEN)
        added = [blocked[None] if bias is None else bias[:, distance].add_(blocked) for bias in self.biases]
        turn = None
        if c.positions == "rotary":
            turned = ((position + steps)[:, None] * self.turns).remainder(c.rotary_period)
            quarter = (turned - c.rotary_period // 4).remainder(c.rotary_period)
            turn = self.cosine[turned][:, None], self.cosine[quarter][:, None]
        return Places(order, slots, added, turn)

    def _attention(
        self, layer: int, x: Tensor, old_keys: Tensor, old_values: Tensor, places: Places
    ) -> Tensor:
        c, name = self.config, f"layers.{layer}"
        H, G, K = c.num_heads, c.num_kv_heads, c.head_dim
        S, T, _ = x.shape
        qkv = self._linear(*self._normalise(x), f"{name}.qkv").clamp_(-fp.INNER_LIMIT, fp.INNER_LIMIT)
        qkv = qkv.view(S, T, H + 2 * G, K)
        if places.turn is not None:
            qkv[:, :, : H + G] = self._rotate(qkv[:, :, : H + G], *places.turn)
        steps = _round(qkv.mul_(2.0**-fp.HEAD_BITS)).clamp_(-fp.INT8_MAX, fp.INT8_MAX).float().transpose(1, 2)
        keys = self._remember(old_keys, steps[:, H : H + G], places)
        values = self._remember(old_values, steps[:, H + G :], places)

        q = steps[:, :H].reshape(S, G, H // G * T, K)
        products = torch.matmul(q, keys.transpose(-1, -2)).double().view(S, H, T, -1)
        scores = _round(products.mul_(self.factors[f"{name}.score"])).add_(places.added[layer])
        below = scores.amax(dim=-1, keepdim=True).sub(scores).clamp_max_(len(self.attention_table) - 1)
        weights = self.attention_table.index_select(0, below.to(torch.int64).view(-1))
        weights = weights.view(S, H, T, -1)  # float32; index_select is several times faster than [...]
        total = weights.sum(dim=-1, keepdim=True).double()
        sums = torch.matmul(weights.view(S, G, H // G * T, -1), values).double().view(S, H, T, K)
        reciprocal = _quotient(1 << fp.RECIPROCAL_BITS, total)
        averages = _round(sums.mul_(reciprocal.mul_(2.0 ** (fp.AVERAGE_BITS - fp.RECIPROCAL_BITS))))
        rows, m = self._quantise_rows(averages.transpose(1, 2).reshape(S, T, H * K))
        return self._linear(rows, m.mul_(1 << fp.ROW_SCALE_SHIFT), f"{name}.out")

    @staticmethod
    def _remember(ring: Tensor, new: Tensor, places: Places) -> Tensor:
        """What the new tokens look at, [S, G, C, K]; `ring` [S, G, W, K] takes the last of them."""
        seen = None if places.order is None else torch.cat((ring.index_select(2, places.order), new), dim=2)
        ring.index_copy_(2, places.slots, new[:, :, -len(places.slots) :])
        return ring if seen is None else seen

    @staticmethod
    def _rotate(z: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate pairs (i, i + K/2) of [S, T, heads, K]."""
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
