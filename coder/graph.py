"""The frozen graph's shape: its configuration, its tensors, and the proof that nothing overflows."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from .errors import LaconicError
from .fixedpoint import INT8_MAX, MULTIPLIER_BITS, ROTARY_BITS, SHIFT_MAX, Array
from .ngram import NGRAM_TENSORS, NgramConfig, Trie, check_ngram

# What the mixer begins with (coder/mixing/prior.py): all of them or none.
PRIOR_TENSORS = ("mixer.weights", "mixer.maps", "mixer.matches", "mixer.rates")
PRIOR_SHAPES = {
    "mixer.weights": ("int32", (6, 43), -(1 << 22), 1 << 22),
    "mixer.maps": ("uint16", (22, 256), 0, (1 << 16) - 1),
    "mixer.matches": ("int32", (128,), 0, (1 << 22) - 1),
    "mixer.rates": ("int32", (3,), 1, 1023),
}
MULTIPLIER_LIMIT = (1 << MULTIPLIER_BITS) - 1
BIAS_LIMIT = 1 << 20


@dataclass(frozen=True)
class FrozenConfig:
    """Shape of a frozen checkpoint; all of it is part of the id."""

    vocab_size: int
    d_model: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int
    ffn: str  # "relu2" or "reglu"
    ffn_dim: int
    positions: str  # "rotary" or "relative"
    rotary_period: int
    tied: bool
    spec: int = 2

    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {
        "vocab_size": (2, 65536),
        "d_model": (2, 4096),
        "num_layers": (1, 64),
        "num_heads": (1, 64),
        "num_kv_heads": (1, 64),
        "head_dim": (2, 128),
        "window": (2, 512),
        "ffn_dim": (1, 4096),
        "rotary_period": (4, 65536),
        "spec": (2, 2),
    }

    def problems(self) -> list[str]:
        """Every value outside what the integer graph is proved for, one sentence each."""
        found: list[str] = []
        for name, (low, high) in self.LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                found.append(f"{name} is {value!r}, allowed are whole numbers from {low} to {high}")
        if found:
            return found
        queries = self.num_heads * self.head_dim
        if queries > 4096:
            found.append(f"num_heads * head_dim is {queries}, allowed are at most 4096")
        if self.num_heads % self.num_kv_heads:
            found.append(
                f"num_heads is {self.num_heads}, it must be a multiple of num_kv_heads, {self.num_kv_heads}"
            )
        if self.ffn not in ("relu2", "reglu"):
            found.append(f"ffn is {self.ffn!r}, allowed are relu2 and reglu")
        if self.positions not in ("rotary", "relative"):
            found.append(f"positions is {self.positions!r}, allowed are rotary and relative")
        if type(self.tied) is not bool:
            found.append(f"tied is {self.tied!r}, allowed are true and false")
        if self.positions != "rotary":
            return found
        if self.head_dim % 2:
            found.append(f"head_dim is {self.head_dim}, it must be even with rotary positions")
        period = self.rotary_period
        if period & (period - 1) or period < self.window:
            found.append(
                f"rotary_period is {period}, it must be a power of two, at least window, {self.window}"
            )
        return found

    def macs_per_token(self) -> int:
        """Multiply-accumulates to decode one token: trunk, attention over a full window, head."""
        queries, keys = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        attention = self.d_model * (2 * queries + 2 * keys) + 2 * self.window * queries
        ffn = self.d_model * self.ffn_dim * (3 if self.ffn == "reglu" else 2)
        return self.num_layers * (attention + ffn) + self.d_model * self.vocab_size

    def cache_bytes_per_token(self) -> int:
        """Bytes of int8 keys and values, of a full window, that are read to decode one token."""
        return self.num_layers * self.window * 2 * self.num_kv_heads * self.head_dim

    def memory_per_stream(self) -> int:
        """Bytes, at most, that any engine takes for a stream and a step of it."""
        keys = self.num_kv_heads * -(-self.head_dim // 16) * 16
        # Keys and values as int64, or as bytes with room to spare; rows; scores; logits.
        caches = 16 * self.num_layers * (self.window + 96) * keys
        queries = (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        rows = 64 * (self.d_model + 2 * self.ffn_dim + queries)
        return caches + rows + 48 * self.num_heads * self.window + 40 * self.vocab_size


@dataclass(frozen=True)
class TensorSpec:
    """What a tensor must be."""

    dtype: str
    shape: tuple[int, ...]
    low: int
    high: int


def tensor_specs(config: FrozenConfig) -> dict[str, TensorSpec]:
    """Every tensor of the graph but the token bytes, whose length is free."""
    specs: dict[str, TensorSpec] = {}

    def scaled(name: str, rows: int, columns: int, multipliers: int | None = None) -> None:
        if columns:
            specs[f"{name}.weight"] = TensorSpec("int8", (rows, columns), -INT8_MAX, INT8_MAX)
        count = rows if multipliers is None else multipliers
        specs[f"{name}.multiplier"] = TensorSpec("int32", (count,), 0, MULTIPLIER_LIMIT)
        specs[f"{name}.shift"] = TensorSpec("int32", (1,), 1, SHIFT_MAX)

    D, V, F = config.d_model, config.vocab_size, config.ffn_dim
    queries = config.num_heads * config.head_dim
    scaled("embed", V + 1, D)
    for i in range(config.num_layers):
        layer = f"layers.{i}"
        scaled(f"{layer}.qkv", queries + 2 * config.num_kv_heads * config.head_dim, D)
        scaled(f"{layer}.score", 1, 0)
        if config.positions == "relative":
            shape = (config.num_heads, config.window)
            specs[f"{layer}.bias"] = TensorSpec("int32", shape, -BIAS_LIMIT, BIAS_LIMIT)
        scaled(f"{layer}.out", D, queries)
        scaled(f"{layer}.up", F * (2 if config.ffn == "reglu" else 1), D)
        scaled(f"{layer}.down", D, F)
    scaled("head", V, 0 if config.tied else D)
    if config.positions == "rotary":
        limit = 1 << ROTARY_BITS
        specs["rotary.cosine"] = TensorSpec("int32", (config.rotary_period,), -limit, limit)
        specs["rotary.turns"] = TensorSpec("int32", (config.head_dim // 2,), 1, config.rotary_period - 1)
    return specs


def check_tensors(config: FrozenConfig | NgramConfig, tensors: dict[str, Array]) -> Trie | None:
    """Refuse what the kind of checkpoint does not list, or what could overflow.

    A transformer's limits prove the bounds: an accumulator is at most 127 * 127 * 4096 < 2^26, a row's scale
    at most 2^24, so their product is below 2^50, its quotient by 2^16 below 2^34, and that times a multiplier
    below 2^52: everything stays exact in int64, and in float64.

    Returns:
        What the tensors of an n-gram model unfold into.

    Raises:
        LaconicError: with the tensor's name and what is allowed.
    """
    faults = config.problems()
    if faults:
        raise LaconicError("; ".join(faults))
    ngram = isinstance(config, NgramConfig)
    specs = {} if ngram else tensor_specs(config)
    free = NGRAM_TENSORS if ngram else ()
    if any(name in tensors for name in PRIOR_TENSORS):
        specs |= {name: TensorSpec(*PRIOR_SHAPES[name]) for name in PRIOR_TENSORS}
    for name in sorted(set(tensors) ^ {*specs, *free, "token_bytes", "token_ends"}):
        raise LaconicError(f"tensor {name} is {'unknown' if name in tensors else 'missing'}")
    for name, spec in specs.items():
        tensor = tensors[name]
        if tensor.dtype != np.dtype(spec.dtype) or tensor.shape != spec.shape:
            found = f"{tensor.dtype} {list(tensor.shape)}"
            raise LaconicError(f"tensor {name} is {found}, it must be {spec.dtype} {list(spec.shape)}")
        if tensor.min() < spec.low or tensor.max() > spec.high:
            raise LaconicError(
                f"tensor {name} reaches {tensor.min()}..{tensor.max()}, allowed are {spec.low}..{spec.high}"
            )
    _check_token_bytes(config.vocab_size, tensors["token_bytes"], tensors["token_ends"])
    return check_ngram(config, tensors) if ngram else None


def token_tensors(token_bytes: list[bytes]) -> dict[str, Array]:
    """The tensors that say which bytes each token stands for."""
    return {
        "token_bytes": np.frombuffer(b"".join(token_bytes), dtype=np.uint8).copy(),
        "token_ends": np.cumsum([len(token) for token in token_bytes]).astype(np.int32),
    }


def _check_token_bytes(vocab_size: int, joined: Array, ends: Array) -> None:
    if joined.dtype != np.uint8 or ends.dtype != np.int32 or ends.shape != (vocab_size,) or joined.ndim != 1:
        raise LaconicError("token_bytes must be uint8 [n] and token_ends int32 [vocab_size]")
    if np.any(np.diff(ends, prepend=0) < 1) or ends[-1] != joined.size:
        raise LaconicError("token_ends must grow by at least one byte a token and end with the last byte")
    text, begins = joined.tobytes(), [0, *ends.tolist()]
    tokens = [text[begin:end] for begin, end in pairwise(begins)]
    if any(a > b for a, b in pairwise(tokens)):
        raise LaconicError("the tokens must be in ascending order of their bytes")
