"""From a trained transformer to the integers of docs/frozen.md."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..coder import fixedpoint as fp
from ..coder.graph import FrozenConfig, token_tensors
from .attention import Attention
from .quantise import QuantLinear
from .rounding import levels_of, round_rows
from .transformer import FeedForward, Transformer

STEPS_PER_CLIP = fp.INT8_MAX << fp.HEAD_BITS  # queries, keys and values: the clip in fixed point
RESIDUAL_TARGET = fp.RESIDUAL_LIMIT // 2  # largest calibrated magnitude of the residual stream
INNER_TARGET = 1 << 13  # largest calibrated feed-forward input in fixed point: half of its saturation
FIXED_LOG2E = math.log2(math.e) * (1 << fp.LOGIT_BITS)

Arrays = dict[str, np.ndarray]


@dataclass
class Calibration:
    """What passed through a model on some text.

    Attributes:
        largest: the largest magnitude of each layer's feed-forward input.
        residual: the largest magnitude of the residual stream, which begins with rows of unit size.
        moments: layer, or "head" -> the mean of x x^T over its inputs x, float64 [K, K].
    """

    largest: list[float]
    residual: float
    moments: Arrays

    @property
    def residual_unit(self) -> float:
        """Fixed-point units of 1 in the residual stream: fewer where it would come near its saturation.

        Whatever reads the stream normalises it first, so that its scale is free.
        """
        return min(1 << fp.RESIDUAL_BITS, RESIDUAL_TARGET / max(self.residual, 1e-6))


def linears(model: Transformer) -> dict[str, QuantLinear]:
    """The matrices of the blocks by the names of their tensors."""
    found: dict[str, QuantLinear] = {}
    for i, block in enumerate(model.layers):
        found |= {f"layers.{i}.qkv": block.attention.qkv, f"layers.{i}.out": block.attention.out}
        found |= {f"layers.{i}.up": block.ffn.up, f"layers.{i}.down": block.ffn.down}
    return found


@torch.no_grad()
def calibrate(model: Transformer, batches: Iterable[Tensor], moments: bool = False) -> Calibration:
    """Set the static ranges of attention from what passes, and measure the inputs of the layers.

    Args:
        model: left in the mode in which it came.
        batches: ids [B, T], a few thousand tokens of training text in all.
        moments: whether those of the inputs are wanted, by which weights are rounded.
    """
    largest = [0.0] * len(model.layers)
    residual = [0.0]
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def watch(layer: int):
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            largest[layer] = max(largest[layer], float(output.abs().max()))

        return hook

    def watch_residual(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        residual[0] = max(residual[0], float(output.abs().max()))

    def add(name: str, x: Tensor) -> None:
        rows = x.flatten(0, -2).double()
        sums[name] = sums.get(name, torch.zeros(())) + rows.T @ rows
        counts[name] = counts.get(name, 0) + len(rows)

    def collect(name: str):
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            add(name, inputs[0])

        return hook

    handles = [block.ffn.up.register_forward_hook(watch(i)) for i, block in enumerate(model.layers)]
    handles += [block.register_forward_hook(watch_residual) for block in model.layers]
    if moments:
        handles += [m.register_forward_pre_hook(collect(name)) for name, m in linears(model).items()]
    training, quantised = model.training, model.quantised
    model.eval().simulate_integers(False)
    for block in model.layers:
        for clip in (block.attention.q_clip, block.attention.k_clip, block.attention.v_clip):
            clip.value.zero_()
    model.observe_ranges(True)
    try:
        for ids in batches:
            rows, _ = model.trunk(ids)
            if moments:
                add("head", rows)
    finally:
        model.observe_ranges(False)
        model.simulate_integers(quantised)
        model.train(training)
        for handle in handles:
            handle.remove()
    return Calibration(
        largest, residual[0], {name: _numpy(total / counts[name]) for name, total in sums.items()}
    )


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy()


def _put_multiplier(tensors: Arrays, name: str, scale: np.ndarray) -> None:
    multiplier, shift = fp.multiplier_for(scale)
    tensors[f"{name}.multiplier"] = multiplier
    tensors[f"{name}.shift"] = np.array([shift], dtype=np.int32)


class _Rounding:
    """How matrices become integers."""

    def __init__(self, calibration: Calibration, bits: int, sparsity: float) -> None:
        self.moments, self.levels, self.sparsity = calibration.moments, levels_of(bits), sparsity
        self.residual_unit = calibration.residual_unit

    def put(self, tensors: Arrays, name: str, weight: Tensor, scale: float | np.ndarray) -> None:
        """`scale`: fixed-point output a unit of (input q x row scale x weight)."""
        moment = self.moments.get(name)
        tensors[f"{name}.weight"], step = round_rows(_numpy(weight), self.levels, moment, self.sparsity)
        _put_multiplier(tensors, name, step * scale)


def _freeze_attention(tensors: Arrays, layer: str, attention: Attention, rounding: _Rounding) -> None:
    config = attention.config
    H, G, K = config.num_heads, config.num_kv_heads, config.head_dim
    clips = [max(float(c.value), 1e-6) for c in (attention.q_clip, attention.k_clip, attention.v_clip)]
    per_row = np.repeat([STEPS_PER_CLIP / clip for clip in clips], [H * K, G * K, G * K])
    rounding.put(tensors, f"{layer}.qkv", attention.qkv.weight, per_row / fp.INT8_MAX)
    q_step, k_step, v_step = (clip / fp.INT8_MAX for clip in clips)
    _put_multiplier(tensors, f"{layer}.score", np.array([q_step * k_step / math.sqrt(K) * FIXED_LOG2E]))
    if config.positions == "relative":
        bias = np.rint(_numpy(attention.bias) * FIXED_LOG2E)
        tensors[f"{layer}.bias"] = np.clip(bias, -(1 << 20), 1 << 20).astype(np.int32)
    unit = 2.0 ** (fp.SCALE_BITS - fp.ROW_SCALE_SHIFT - fp.AVERAGE_BITS)
    rounding.put(
        tensors,
        f"{layer}.out",
        attention.out.weight,
        unit * v_step / fp.INT8_MAX * rounding.residual_unit,
    )


def _freeze_ffn(tensors: Arrays, layer: str, ffn: FeedForward, largest: float, rounding: _Rounding) -> None:
    inner = INNER_TARGET / max(largest, 1e-6)  # fixed point a unit of the hidden pre-activations
    rounding.put(tensors, f"{layer}.up", ffn.up.weight, inner / fp.INT8_MAX)
    unit = 2.0 ** (fp.SCALE_BITS - fp.ROW_SCALE_SHIFT + fp.HIDDEN_SHIFT) / inner**2
    rounding.put(tensors, f"{layer}.down", ffn.down.weight, unit / fp.INT8_MAX * rounding.residual_unit)


def _freeze_embedding(tensors: Arrays, model: Transformer, calibration: Calibration, levels: int) -> None:
    read = calibration.moments.get("head") if levels < fp.INT8_MAX else None
    weight, step = round_rows(_numpy(model.embed.weight), levels, read if model.head is None else None)
    rms = np.sqrt(np.maximum((weight.astype(np.float64) ** 2).mean(axis=1), 1e-6))
    tensors["embed.weight"] = weight
    _put_multiplier(tensors, "embed", calibration.residual_unit / rms)
    if model.head is not None:
        tensors["head.weight"], step = round_rows(_numpy(model.head.weight), levels, read)
        _put_multiplier(tensors, "head", step * FIXED_LOG2E / fp.INT8_MAX)
    else:
        _put_multiplier(tensors, "head", step[:-1] * FIXED_LOG2E / fp.INT8_MAX)


def freeze(
    model: Transformer,
    token_bytes: list[bytes],
    calibration: Calibration,
    bits: int = 8,
    sparsity: float = 0.0,
    table_bits: int = 8,
) -> tuple[FrozenConfig, Arrays]:
    """The integer tensors of a calibrated model.

    Args:
        model: after `calibrate`.
        token_bytes: the bytes of each id, V of them.
        calibration: what `calibrate` returned.
        bits: of the blocks' matrices.
        sparsity: share of the blocks' weights that become zero, beside those that are rounded to it.
        table_bits: of the embedding and the head.
    """
    assert len(token_bytes) == model.vocab_size
    tensors: Arrays = {}
    rounding = _Rounding(calibration, bits, sparsity)
    _freeze_embedding(tensors, model, calibration, levels_of(table_bits))
    for i, block in enumerate(model.layers):
        _freeze_attention(tensors, f"layers.{i}", block.attention, rounding)
        _freeze_ffn(tensors, f"layers.{i}", block.ffn, calibration.largest[i], rounding)
    if model.config.positions == "rotary":
        period = model.config.rotary_period
        angles = 2 * np.pi * np.arange(period) / period
        tensors["rotary.cosine"] = np.rint(np.cos(angles) * (1 << fp.ROTARY_BITS)).astype(np.int32)
        turns = model.layers[0].attention.turns.cpu().numpy()
        tensors["rotary.turns"] = turns.astype(np.int32)
    tensors |= token_tensors(token_bytes)
    return model.config.frozen(model.vocab_size), tensors
