"""Losses over a large vocabulary, in slices of tokens: the logits of a whole batch never exist at once.

Notation: N tokens, D width of the last layer, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SLICE = 512  # tokens whose logits exist at the same time

SliceWork = Callable[..., tuple[Tensor, Tensor]]


def product_type(x: Tensor) -> torch.dtype:
    """The type of products with x: autocast's within it, else that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def slice_of_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(code length of the targets, float32 []; its gradient by the logits, in their type).

    In place: the gradient takes the memory of float32 logits, for passes over memory are what it costs.
    """
    values = logits.float()
    chosen, top = values.gather(1, targets[:, None]), values.amax(dim=-1, keepdim=True)
    weights = values.sub_(top).exp_()
    total = weights.sum(dim=-1, keepdim=True)
    nats = (top + torch.log(total) - chosen).sum()
    gradient = weights.div_(total)
    gradient.scatter_add_(1, targets[:, None], gradient.new_full((len(targets), 1), -1.0))
    return nats, gradient.to(logits.dtype)


class _SlicedLoss(torch.autograd.Function):
    """Computes both gradients on the way forward, while a slice of logits is in the cache."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, table: Tensor, columns: tuple[Tensor, ...], inner: Any, wants_gradient: bool
    ) -> Tensor:
        product = product_type(x)
        with torch.autocast(x.device.type, enabled=False):
            x_N, table_V = x.to(product), table.to(product)
            nats = torch.zeros((), device=x.device)
            x_gradient = torch.empty_like(x_N) if wants_gradient else None
            table_gradient = torch.zeros_like(table, dtype=torch.float32) if wants_gradient else None
            for begin in range(0, len(x_N), SLICE):
                piece = slice(begin, begin + SLICE)
                slice_nats, gradient = inner(x_N[piece] @ table_V.T, *(column[piece] for column in columns))
                nats = nats + slice_nats
                if x_gradient is not None and table_gradient is not None:
                    torch.mm(gradient, table_V, out=x_gradient[piece])
                    if product == torch.float32:
                        table_gradient.addmm_(gradient.T, x_N[piece])
                    else:  # sums in the type of products would lose what is small
                        table_gradient += gradient.T @ x_N[piece]
        if wants_gradient:
            ctx.save_for_backward(x_gradient, table_gradient)
            ctx.count, ctx.types = len(x_N), (x.dtype, table.dtype)
        return nats / len(x_N)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = outputs[0].flatten()[0] / ctx.count
        of_x, of_table = (gradient * scale for gradient in ctx.saved_tensors)
        return of_x.to(ctx.types[0]), of_table.to(ctx.types[1]), None, None, None


def sliced_loss(x: Tensor, table: Tensor, columns: tuple[Tensor, ...], inner: SliceWork) -> Tensor:
    """Means over N tokens of what `inner` computes from their logits x @ table.T, float32 [] or [M].

    Args:
        x: [N, D], the last layer's rows.
        table: [V, D], the head's weights.
        columns: [N, ...] each; what else `inner` takes of each token, without gradients.
        inner: from a slice of the logits [n, V] and of the columns to (sums over the slice, [] or [M]; the
            gradient of the first of them by the logits [n, V], in their type). Only the first of the means
            has a gradient, the others are figures.
    """
    wants_gradient = torch.is_grad_enabled() and (x.requires_grad or table.requires_grad)
    return _SlicedLoss.apply(x, table, columns, inner, wants_gradient)  # pyright: ignore[reportReturnType]


def sliced_cross_entropy(
    x: Tensor, table: Tensor, targets: Tensor, inner: SliceWork = slice_of_gradient
) -> Tensor:
    """Mean code length of the targets under softmax(x @ table.T), in nats a token.

    Args:
        x: [N, D], the last layer's rows.
        table: [V, D], the head's weights.
        targets: int64 [N].
        inner: the work on one slice, which a caller may have compiled.
    """
    return sliced_loss(x, table, (targets,), inner)
