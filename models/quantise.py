"""Simulated quantisation: float tensors rounded as the integer graph rounds them.

Gradients pass straight through every rounding (Bengio et al. 2013, arXiv:1308.3432).
"""

import torch
from torch import Tensor, nn

INT8_MAX = 127
ATTENTION_MAX = 255


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """The value of `rounded` with the gradient of `x`."""
    return x + (rounded - x).detach()


def fake_quantise_rows(x: Tensor, levels: int = INT8_MAX) -> Tensor:
    """Each row of [..., K] rounded to 2 * levels + 1 levels by its own largest magnitude."""
    step = x.detach().abs().amax(dim=-1, keepdim=True).clamp_min(1e-8) / levels
    return straight_through(x, torch.round(x / step) * step)


def fake_quantise_clipped(x: Tensor, clip: Tensor) -> Tensor:
    """x rounded to 255 levels over -clip..clip, and saturated there."""
    step = clip.clamp_min(1e-8) / INT8_MAX
    levels = torch.clamp(torch.round(x.detach() / step), -INT8_MAX, INT8_MAX)
    return straight_through(torch.clamp(x, -clip, clip), levels * step)


def fake_quantise_attention(weights: Tensor) -> Tensor:
    """Softmax numerators in 0..1 rounded to 255 levels."""
    return straight_through(weights, torch.round(weights * ATTENTION_MAX) / ATTENTION_MAX)


class QuantLinear(nn.Linear):
    """A linear layer without bias that can round its weights and inputs to int8 as it will be frozen.

    Shapes: [..., in_features] -> [..., out_features]. `quantised` switches the simulation, `levels` is the
    largest integer of its weights.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.quantised = False
        self.levels = INT8_MAX

    def forward(self, input: Tensor) -> Tensor:
        if not self.quantised:
            return nn.functional.linear(input, self.weight)
        return nn.functional.linear(fake_quantise_rows(input), fake_quantise_rows(self.weight, self.levels))


class Clip(nn.Module):
    """Range of a tensor that is quantised with one static scale: a slow average of its high quantile.

    While `observing`, each call moves `value` towards the 99.99% quantile of |x|.
    """

    value: Tensor

    def __init__(self, momentum: float = 0.99) -> None:
        super().__init__()
        self.momentum = momentum
        self.observing = False
        self.quantised = False
        self.register_buffer("value", torch.zeros(()))

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Move `value` towards the high quantile of |x| (at once on the first call)."""
        magnitudes = x.detach().float().abs().flatten()
        rank = max(1, int(magnitudes.numel() * 0.9999))
        high = magnitudes.kthvalue(rank).values
        self.value.copy_(high if self.value == 0 else self.value.lerp(high, 1 - self.momentum))

    def forward(self, x: Tensor) -> Tensor:
        if self.observing:
            self.observe(x)
        return fake_quantise_clipped(x, self.value) if self.quantised else x
