"""From a trained transformer to the integers of docs/frozen.md."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from ..coder import fixedpoint as fp
from ..coder.graph import FrozenConfig, token_tensors
from .transformer import Attention, FeedForward, Transformer

STEPS_PER_CLIP = fp.INT8_MAX << fp.HEAD_BITS  # queries, keys and values: the clip in fixed point
INNER_TARGET = 1 << 13  # largest calibrated feed-forward input in fixed point: half of its saturation
FIXED_LOG2E = math.log2(math.e) * (1 << fp.LOGIT_BITS)

Arrays = dict[str, np.ndarray]


@torch.no_grad()
def calibrate(model: Transformer, batches: Iterable[Tensor]) -> list[float]:
    """Set the static ranges of attention from what passes, and measure the feed-forward inputs.

    Args:
        model: left in the mode in which it came.
        batches: ids [B, T], a few thousand tokens of training text in all.

    Returns:
        The largest magnitude of each layer's feed-forward input.
    """
    largest = [0.0] * len(model.layers)

    def watch(layer: int):
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            largest[layer] = max(largest[layer], float(output.abs().max()))

        return hook

    handles = [block.ffn.up.register_forward_hook(watch(i)) for i, block in enumerate(model.layers)]
    training, quantised = model.training, model.quantised
    model.eval().simulate_integers(False)
    for block in model.layers:
        for clip in (block.attention.q_clip, block.attention.k_clip, block.attention.v_clip):
            clip.value.zero_()
    model.observe_ranges(True)
    try:
        for ids in batches:
            model(ids)
    finally:
        model.observe_ranges(False)
        model.simulate_integers(quantised)
        model.train(training)
        for handle in handles:
            handle.remove()
    return largest


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy()


def _quantise_weight(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 [N, K] -> (int8 [N, K], step float64 [N]) with weight ~ int8 * step."""
    step = np.maximum(np.abs(weight).max(axis=1), 1e-8) / fp.INT8_MAX
    return np.rint(weight / step[:, None]).astype(np.int8), step


def _put_multiplier(tensors: Arrays, name: str, scale: np.ndarray) -> None:
    multiplier, shift = fp.multiplier_for(scale)
    tensors[f"{name}.multiplier"] = multiplier
    tensors[f"{name}.shift"] = np.array([shift], dtype=np.int32)


def _put_linear(tensors: Arrays, name: str, weight: Tensor, scale: float | np.ndarray) -> None:
    """`scale`: fixed-point output a unit of (input q x row scale x weight)."""
    tensors[f"{name}.weight"], step = _quantise_weight(_numpy(weight))
    _put_multiplier(tensors, name, step * scale)


def _freeze_attention(tensors: Arrays, layer: str, attention: Attention) -> None:
    config = attention.config
    H, G, K = config.num_heads, config.num_kv_heads, config.head_dim
    clips = [max(float(c.value), 1e-6) for c in (attention.q_clip, attention.k_clip, attention.v_clip)]
    per_row = np.repeat([STEPS_PER_CLIP / clip for clip in clips], [H * K, G * K, G * K])
    _put_linear(tensors, f"{layer}.qkv", attention.qkv.weight, per_row / fp.INT8_MAX)
    q_step, k_step, v_step = (clip / fp.INT8_MAX for clip in clips)
    _put_multiplier(tensors, f"{layer}.score", np.array([q_step * k_step / math.sqrt(K) * FIXED_LOG2E]))
    if config.positions == "relative":
        bias = np.rint(_numpy(attention.bias) * FIXED_LOG2E)
        tensors[f"{layer}.bias"] = np.clip(bias, -(1 << 20), 1 << 20).astype(np.int32)
    unit = 2.0 ** (fp.SCALE_BITS - fp.ROW_SCALE_SHIFT - fp.AVERAGE_BITS)
    _put_linear(
        tensors,
        f"{layer}.out",
        attention.out.weight,
        unit * v_step / fp.INT8_MAX * (1 << fp.RESIDUAL_BITS),
    )


def _freeze_ffn(tensors: Arrays, layer: str, ffn: FeedForward, largest: float) -> None:
    inner = INNER_TARGET / max(largest, 1e-6)  # fixed point a unit of the hidden pre-activations
    _put_linear(tensors, f"{layer}.up", ffn.up.weight, inner / fp.INT8_MAX)
    unit = 2.0 ** (fp.SCALE_BITS - fp.ROW_SCALE_SHIFT + fp.HIDDEN_SHIFT) / inner**2
    _put_linear(tensors, f"{layer}.down", ffn.down.weight, unit / fp.INT8_MAX * (1 << fp.RESIDUAL_BITS))


def _freeze_embedding(tensors: Arrays, model: Transformer) -> None:
    weight, step = _quantise_weight(_numpy(model.embed.weight))
    rms = np.sqrt(np.maximum((weight.astype(np.float64) ** 2).mean(axis=1), 1e-6))
    tensors["embed.weight"] = weight
    _put_multiplier(tensors, "embed", (1 << fp.RESIDUAL_BITS) / rms)
    if model.head is not None:
        _put_linear(tensors, "head", model.head.weight, FIXED_LOG2E / fp.INT8_MAX)
    else:
        _put_multiplier(tensors, "head", step[:-1] * FIXED_LOG2E / fp.INT8_MAX)


def freeze(model: Transformer, token_bytes: list[bytes], largest: list[float]) -> tuple[FrozenConfig, Arrays]:
    """The integer tensors of a calibrated model.

    Args:
        model: after `calibrate`.
        token_bytes: the bytes of each id, V of them.
        largest: what `calibrate` returned.
    """
    assert len(token_bytes) == model.vocab_size
    tensors: Arrays = {}
    _freeze_embedding(tensors, model)
    for i, block in enumerate(model.layers):
        _freeze_attention(tensors, f"layers.{i}", block.attention)
        _freeze_ffn(tensors, f"layers.{i}", block.ffn, largest[i])
    if model.config.positions == "rotary":
        period = model.config.rotary_period
        angles = 2 * np.pi * np.arange(period) / period
        tensors["rotary.cosine"] = np.rint(np.cos(angles) * (1 << fp.ROTARY_BITS)).astype(np.int32)
        turns = model.layers[0].attention.turns.cpu().numpy()
        tensors["rotary.turns"] = turns.astype(np.int32)
    tensors |= token_tensors(token_bytes)
    return model.config.frozen(model.vocab_size), tensors
