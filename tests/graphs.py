"""Random frozen checkpoints for tests: every shape the graph allows, extreme weights included."""

import numpy as np

from laconic.coder.checkpoint import FrozenCheckpoint
from laconic.coder.fixedpoint import ROTARY_BITS
from laconic.coder.graph import FrozenConfig, tensor_specs


def random_config(**changes) -> FrozenConfig:
    """A small shape."""
    values = {
        "vocab_size": 256,
        "d_model": 32,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "window": 12,
        "ffn": "relu2",
        "ffn_dim": 48,
        "positions": "rotary",
        "rotary_period": 64,
        "tied": True,
    }
    return FrozenConfig(**{**values, **changes})


def random_checkpoint(config: FrozenConfig, seed: int = 0, saturated: bool = False) -> FrozenCheckpoint:
    """Tensors drawn within the graph's limits; `saturated` takes the limits themselves."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, spec in tensor_specs(config).items():
        if name.endswith(".shift"):
            values = np.full(spec.shape, 12 if name.startswith("embed") else 20)
        elif saturated:
            values = rng.choice([spec.low, spec.high], size=spec.shape)
        elif name.endswith(".multiplier"):
            values = rng.integers(1 << 10, 1 << 14, size=spec.shape)
        else:
            values = rng.integers(spec.low, spec.high + 1, size=spec.shape)
        tensors[name] = values.astype(spec.dtype)
    if config.positions == "rotary":
        angles = 2 * np.pi * np.arange(config.rotary_period) / config.rotary_period
        tensors["rotary.cosine"] = np.rint(np.cos(angles) * (1 << ROTARY_BITS)).astype(np.int32)
    tokens = sorted(bytes([i % 256]) * (1 + i // 256) for i in range(config.vocab_size))
    tensors["token_bytes"] = np.frombuffer(b"".join(tokens), dtype=np.uint8).copy()
    tensors["token_ends"] = np.cumsum([len(t) for t in tokens]).astype(np.int32)
    return FrozenCheckpoint(config, tensors, '{"kind": "test"}', {"name": "random"})
