"""From the integers of docs/frozen.md back to a transformer that can be trained: the inverse of freezing.

What freezing multiplied into one scale cannot be told apart again: the ranges of queries and keys, of values
and of what follows them, of the feed-forward input. Any split gives the same function. Here both sides of a
split have the same size, root mean square times the root of the fan in, which is near where training leaves
them.
"""

import math
from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray

from ..coder import fixedpoint as fp
from ..coder.graph import FrozenConfig
from .attention import Attention
from .config import ModelConfig
from .freeze import FIXED_LOG2E, STEPS_PER_CLIP, Arrays
from .rounding import levels_of
from .transformer import FeedForward, Transformer

Matrix = NDArray[np.float64]


def shape_of(config: FrozenConfig) -> ModelConfig:
    """The shape that freezes into `config`."""
    return ModelConfig(**{field.name: getattr(config, field.name) for field in fields(ModelConfig)})


def bits_of(tensors: Arrays) -> tuple[int, int]:
    """Bits that the blocks' matrices, and embedding and head, were rounded to: the fewest that hold them."""
    matrices = {name: tensor for name, tensor in tensors.items() if name.endswith(".weight")}
    blocks = [t for name, t in matrices.items() if name.startswith("layers.")]
    return _bits(blocks), _bits([t for name, t in matrices.items() if not name.startswith("layers.")])


def _bits(matrices: list[np.ndarray]) -> int:
    largest = max(int(np.abs(matrix.astype(np.int64)).max()) for matrix in matrices)
    return next(bits for bits in range(2, 9) if largest <= levels_of(bits))


@torch.no_grad()
def thaw(config: FrozenConfig, tensors: Arrays) -> Transformer:
    """A transformer that predicts what the integers predict, but for the rounding of activations.

    Its static ranges are not set: `calibrate` does that.

    Args:
        tensors: of a checkpoint, already checked.
    """
    model = Transformer(shape_of(config), config.vocab_size).eval()
    _thaw_embedding(model, tensors)
    residual = _residual_unit(tensors)
    for i, block in enumerate(model.layers):
        _thaw_attention(block.attention, f"layers.{i}", tensors, residual)
        _thaw_ffn(block.ffn, f"layers.{i}", tensors, residual)
    return model


def _scale(tensors: Arrays, name: str) -> Matrix:
    """What multiplier and shift stand for, [N]."""
    return tensors[f"{name}.multiplier"] * 2.0 ** -float(tensors[f"{name}.shift"][0])


def _matrix(tensors: Arrays, name: str, unit: float | Matrix) -> Matrix:
    """Integers times their steps; `unit` is what freezing multiplied each row's step by."""
    return tensors[f"{name}.weight"] * (_scale(tensors, name) / unit)[:, None]


def _row_rms(weight: Matrix) -> Matrix:
    return np.sqrt(np.maximum((weight**2).mean(axis=1), 1e-6))


def _residual_unit(tensors: Arrays) -> float:
    """Fixed-point units of 1 in the residual stream: what rows of the embedding, of size 1, are scaled to."""
    rms = _row_rms(tensors["embed.weight"].astype(np.float64))
    return float(np.median(_scale(tensors, "embed") * rms))


def _size(weight: Matrix) -> float:
    return max(float(np.sqrt((weight**2).mean() * weight.shape[1])), 1e-12)


def _put(parameter: torch.Tensor, values: Matrix) -> None:
    parameter.copy_(torch.from_numpy(np.ascontiguousarray(values)))


def _thaw_embedding(model: Transformer, tensors: Arrays) -> None:
    logits = FIXED_LOG2E / fp.INT8_MAX
    weight = tensors["embed.weight"].astype(np.float64)
    rms = _row_rms(weight)[:, None]
    if model.head is not None:
        _put(model.head.weight, _matrix(tensors, "head", logits))
        _put(model.embed.weight, weight / rms * float(model.embed.weight.square().mean().sqrt()))
        return
    tied = weight[:-1] * (_scale(tensors, "head") / logits)[:, None]
    begin = weight[-1:] / rms[-1] * np.sqrt((tied**2).mean())  # no logit tells its step; any does
    _put(model.embed.weight, np.concatenate((tied, begin)))


def _thaw_attention(attention: Attention, layer: str, tensors: Arrays, residual: float) -> None:
    config = attention.config
    H, G, K = config.num_heads, config.num_kv_heads, config.head_dim
    unit = STEPS_PER_CLIP / fp.INT8_MAX  # as if every clip were 1
    q, k, v = np.split(_matrix(tensors, f"{layer}.qkv", unit), [H * K, (H + G) * K])
    average = 2.0 ** (fp.SCALE_BITS - fp.ROW_SCALE_SHIFT - fp.AVERAGE_BITS)
    out = _matrix(tensors, f"{layer}.out", average / fp.INT8_MAX**2 * residual)
    clips = float(_scale(tensors, f"{layer}.score")[0]) / FIXED_LOG2E * math.sqrt(K) * fp.INT8_MAX**2
    q_clip = math.sqrt(clips * _size(k) / _size(q))
    v_clip = math.sqrt(_size(out) / _size(v))
    _put(attention.qkv.weight, np.concatenate((q * q_clip, k * (clips / q_clip), v * v_clip)))
    _put(attention.out.weight, out / v_clip)
    if config.positions == "relative":
        _put(attention.bias, tensors[f"{layer}.bias"] / FIXED_LOG2E)


def _thaw_ffn(ffn: FeedForward, layer: str, tensors: Arrays, residual: float) -> None:
    up = _matrix(tensors, f"{layer}.up", 1.0 / fp.INT8_MAX)  # as if fixed point had one unit
    unit = 2.0 ** (fp.SCALE_BITS - fp.ROW_SCALE_SHIFT + fp.HIDDEN_SHIFT)
    down = _matrix(tensors, f"{layer}.down", unit / fp.INT8_MAX * residual)
    inner = (_size(down) / _size(up)) ** (1 / 3)  # what the activation squares, or multiplies with its like
    _put(ffn.up.weight, up * inner)
    _put(ffn.down.weight, down / inner**2)
