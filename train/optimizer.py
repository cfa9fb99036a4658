"""Optimisers and the one schedule: shares of a run that is measured in steps or in minutes."""

from collections.abc import Iterable

import torch
from torch import nn

from .recipe import TrainingRecipe


def learning_rate_factor(progress: float, recipe: TrainingRecipe) -> float:
    """Linear warm-up, plateau, linear warm-down.

    Args:
        progress: share of the run that is done, 0..1.

    Returns:
        Factor of the recipe's learning rate, from `final_learning_rate` to 1.
    """
    if progress < recipe.warmup_share:
        return max(0.01, progress / recipe.warmup_share)
    left = 1.0 - min(1.0, progress)
    if left >= recipe.warmdown_share:
        return 1.0
    floor = recipe.final_learning_rate
    return floor + (1.0 - floor) * left / recipe.warmdown_share


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices of the blocks decay; embeddings, heads and biases do not."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        (decayed if ".blocks." in f".{name}" and name.endswith("weight") else plain).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def build_optimizer(module: nn.Module, recipe: TrainingRecipe) -> torch.optim.Optimizer:
    """AdamW over `parameter_groups` (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
    groups: Iterable[dict[str, object]] = parameter_groups(module, recipe.weight_decay)
    betas = (recipe.beta1, recipe.beta2)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=betas, fused=True)
