"""torch.compile for the inner part of a training step: the blocks, and a slice of the loss."""

from contextlib import AbstractContextManager
from typing import Any

import torch

from ..coder.errors import LaconicError
from ..models.loss import SliceWork, slice_of_gradient
from ..models.transformer import Transformer
from .recipe import TrainingRecipe

WORTH_MINUTES, WORTH_STEPS = 10.0, 5000  # a run that is shorter does not earn back the minute of compiling


def eagerly() -> AbstractContextManager[Any]:
    """Within it, what was compiled runs as it was written: for shapes and modes that occur rarely."""
    return torch.compiler.set_stance("force_eager")


def compile_step(transformer: Transformer, recipe: TrainingRecipe) -> SliceWork:
    """Compile the blocks in place where the recipe wants it, and where it can be done.

    Returns:
        The work on a slice of the loss, compiled likewise.

    Raises:
        LaconicError: the recipe asks for it, and this machine cannot (it takes a C++ compiler).
    """
    if not _wanted(recipe):
        return slice_of_gradient
    try:
        torch.compile(_trial, dynamic=False)(torch.ones(8))
    except Exception as error:  # whatever the compiler's tool chain raises
        if recipe.compile is None:
            return slice_of_gradient
        reason = str(error).strip().split("\n")[0][:200]
        raise LaconicError(
            f"training.compile is true, and torch.compile fails here ({reason}): install a C++ compiler, "
            "or set training.compile to null"
        ) from None
    for block in transformer.layers:
        block.compile(dynamic=False)
    return torch.compile(slice_of_gradient, dynamic=False)


def _wanted(recipe: TrainingRecipe) -> bool:
    if recipe.shards:
        return False
    if recipe.compile is not None:
        return recipe.compile
    if recipe.max_steps is not None:
        return recipe.max_steps >= WORTH_STEPS
    return (recipe.minutes or 0.0) >= WORTH_MINUTES


def _trial(x: torch.Tensor) -> torch.Tensor:
    return x.exp().sum()
