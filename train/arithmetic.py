"""Rules of fixed-point arithmetic (docs/frozen.md) that may cost bits, each alone in the float model."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..coder import fixedpoint as fp
from ..models.attention import Attention
from ..models.freeze import FIXED_LOG2E, INNER_TARGET, Calibration, linears
from ..models.transformer import Transformer

Step = Callable[[Transformer], None]


def arithmetic_steps(calibration: Calibration) -> dict[str, Step]:
    """Name -> what has a float model follow that rule alone.

    Args:
        calibration: by which the model was frozen.
    """
    unit = calibration.residual_unit

    def norms(model: Transformer) -> None:
        def norm(x: Tensor) -> Tensor:
            rows = _rounded(x, unit).double().numpy() * unit
            return torch.from_numpy(rows / fp.root_mean_square(rows.astype(np.int64))).float()

        model.norm = norm
        for block in model.layers:
            block.norm = norm

    def scores(model: Transformer) -> None:
        for attention in _attentions(model):
            attention.scores = _with_rounded_scores(attention.scores)

    def positions(model: Transformer) -> None:
        for attention in _attentions(model):
            if attention.config.positions == "relative":
                attention.bias.data = _rounded(attention.bias.data, FIXED_LOG2E)
            else:
                attention.rotate = _rotation(attention)

    def results(model: Transformer) -> None:
        for name, linear in linears(model).items():
            layer, kind = int(name.split(".")[1]), name.rpartition(".")[2]
            if kind == "up":
                units: float | Tensor = INNER_TARGET / max(calibration.largest[layer], 1e-6)
            elif kind == "qkv":
                units = _head_units(model.layers[layer].attention)
            else:
                units = unit
            linear.register_forward_hook(_rounds_result(units))

    def multipliers(model: Transformer) -> None:
        for name, linear in linears(model).items():
            step = linear.weight.data.abs().amax(dim=1)
            if name.endswith(".qkv"):
                step = step * _head_units(model.layers[int(name.split(".")[1])].attention)
            scale = (step / step.max()).clamp_min(1e-9).double().numpy()  # to the largest row's
            multiplier, shift = fp.multiplier_for(scale)
            linear.weight.data *= torch.from_numpy(multiplier / (scale * (1 << shift))).float()[:, None]

    return {
        "residual stream and its norms in fixed point": norms,
        "attention scores in steps of 1/1024 bit": scores,
        "positions in fixed point": positions,
        "results of the blocks' matrices in fixed point": results,
        "their multipliers, 18 bits": multipliers,
    }


def _rounded(x: Tensor, units: float | Tensor) -> Tensor:
    return torch.round(x * units) / units


def _attentions(model: Transformer) -> list[Attention]:
    return [block.attention for block in model.layers]


def _with_rounded_scores(scores: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Any:
    def rounded(x: Tensor) -> tuple[Tensor, Tensor]:
        found, values = scores(x)
        return _rounded(found, FIXED_LOG2E), values

    return rounded


def _rotation(attention: Attention) -> Any:
    """As `Attention.rotate`, by a table such as the frozen graph's."""
    period = attention.config.rotary_period
    table = _rounded(torch.cos(2 * math.pi * torch.arange(period) / period), 1 << fp.ROTARY_BITS)

    def rotate(x_BTHK: Tensor) -> Tensor:
        steps = (torch.arange(x_BTHK.shape[1])[:, None] * attention.turns) % period
        cos, sin = table[steps][:, None, :], table[(steps - period // 4) % period][:, None, :]
        a, b = x_BTHK.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

    return rotate


def _head_units(attention: Attention) -> Tensor:
    """Steps of queries, keys and values before they become int8, a unit of each, [(H + 2 * G) * K]."""
    config = attention.config
    widths = [config.num_heads * config.head_dim] + 2 * [config.num_kv_heads * config.head_dim]
    clips = (attention.q_clip, attention.k_clip, attention.v_clip)
    return torch.cat(
        [
            torch.full((width,), (fp.INT8_MAX << fp.HEAD_BITS) / max(float(clip.value), 1e-6))
            for width, clip in zip(widths, clips, strict=True)
        ]
    )


def _rounds_result(units: float | Tensor) -> Any:
    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return _rounded(output, units)

    return hook
