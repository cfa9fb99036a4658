"""Cross-entropy of a large vocabulary, in slices of tokens: the logits of a whole batch never exist at once.

Notation: N tokens, D width of the last layer, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

SLICE = 512  # tokens whose logits exist at the same time


def slice_of_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(code length of the targets, float32 []; its gradient by the logits, in their type)."""
    logits_float = logits.float()
    top = logits_float.amax(dim=-1, keepdim=True)
    weights = torch.exp(logits_float - top)
    total = weights.sum(dim=-1, keepdim=True)
    chosen = logits_float.gather(1, targets[:, None])
    nats = (top + torch.log(total) - chosen).sum()
    ids = torch.arange(logits.shape[1], device=logits.device)
    gradient = weights / total - (ids == targets[:, None]).float()
    return nats, gradient.to(logits.dtype)


class _SlicedCrossEntropy(torch.autograd.Function):
    """Computes both gradients on the way forward, while a slice of logits is in the cache."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, table: Tensor, targets: Tensor, inner: Any, wants_gradient: bool
    ) -> Tensor:
        device = x.device.type
        product = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        with torch.autocast(device, enabled=False):
            x_N, table_V = x.to(product), table.to(product)
            nats = torch.zeros((), device=x.device)
            x_gradient = torch.empty_like(x_N) if wants_gradient else None
            table_gradient = torch.zeros_like(table, dtype=torch.float32) if wants_gradient else None
            for begin in range(0, len(x_N), SLICE):
                piece = slice(begin, begin + SLICE)
                slice_nats, gradient = inner(x_N[piece] @ table_V.T, targets[piece])
                nats += slice_nats
                if x_gradient is not None and table_gradient is not None:
                    x_gradient[piece] = gradient @ table_V
                    table_gradient += gradient.T @ x_N[piece]
        if wants_gradient:
            ctx.save_for_backward(x_gradient, table_gradient)
            ctx.count, ctx.types = len(x_N), (x.dtype, table.dtype)
        return nats / len(x_N)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = outputs[0] / ctx.count
        of_x, of_table = (gradient * scale for gradient in ctx.saved_tensors)
        return of_x.to(ctx.types[0]), of_table.to(ctx.types[1]), None, None, None


def sliced_cross_entropy(x: Tensor, table: Tensor, targets: Tensor, inner: Any = slice_of_gradient) -> Tensor:
    """Mean code length of the targets under softmax(x @ table.T), in nats a token.

    Args:
        x: [N, D], the last layer's rows.
        table: [V, D], the head's weights.
        targets: int64 [N].
        inner: the work on one slice, which a caller may have compiled.
    """
    wants_gradient = torch.is_grad_enabled() and (x.requires_grad or table.requires_grad)
    return _SlicedCrossEntropy.apply(x, table, targets, inner, wants_gradient)  # pyright: ignore[reportReturnType]
