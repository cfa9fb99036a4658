"""The optimisers and the one schedule: shares of a run that is measured in steps or in minutes."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from .recipe import TrainingRecipe

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # a quintic that drives singular values towards 1 (Jordan 2024)
NEWTON_SCHULZ_STEPS = 5
MUON_WEIGHT_DECAY = 0.2  # of the recipe's: the matrices' learning rate is some five times AdamW's


def learning_rate_factor(progress: float, recipe: TrainingRecipe) -> float:
    """Linear warm-up, plateau, linear warm-down.

    Args:
        progress: share of the run that is done, 0..1.

    Returns:
        Factor of the recipe's learning rates, from `final_learning_rate` to 1.
    """
    if progress < recipe.warmup_share:
        return max(0.01, progress / recipe.warmup_share)
    left = 1.0 - min(1.0, progress)
    if left >= recipe.warmdown_share:
        return 1.0
    floor = recipe.final_learning_rate
    return floor + (1.0 - floor) * left / recipe.warmdown_share


@functools.cache
def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values between 0.7 and 1.2. [N, K] -> [N, K].

    In bfloat16 where that is fast, which the iteration bears (Jordan et al. 2024, "Muon: an optimizer for
    hidden layers"); processors without it take ten times as long as for float32.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16() if has_bfloat16(matrix.device) else matrix.float()
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.T
        x = a * x + torch.addmm(square, square, square, beta=b, alpha=c) @ x
    return (x.T if tall else x).to(matrix.dtype)


class MuonAdamW(torch.optim.Optimizer):
    """Muon for the matrices of the blocks and AdamW for the rest, in one optimiser and one state.

    Muon: the momentum of a matrix, made semi-orthogonal, is its step, scaled by sqrt(max(1, N / K)).
    AdamW: Loshchilov & Hutter 2019, arXiv:1711.05101.

    Groups have `kind` ("muon" or "adamw"), `lr`, `weight_decay` (decoupled), `momentum` (Muon) or `betas`.
    With `anchor` above 0, parameters are also drawn towards what they were before the first step, by lr times
    anchor of the distance (decoupled L2-SP: Li et al. 2018, arXiv:1802.01483).
    """

    def __init__(self, groups: list[dict[str, Any]], epsilon: float = 1e-8) -> None:
        super().__init__(groups, {"epsilon": epsilon, "anchor": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["anchor"]:
                for parameter in parameters:
                    state = self.state[parameter]
                    if "start" not in state:
                        state["start"] = parameter.clone()
                    parameter.lerp_(state["start"], group["lr"] * group["anchor"])
            if group["kind"] == "adamw":
                self._adamw(parameters, group)
            else:
                for parameter in parameters:
                    self._muon(parameter, parameter.grad, self.state[parameter], group)
        return loss

    @staticmethod
    def _muon(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(momentum, group["momentum"])  # Nesterov's
        scale = math.sqrt(max(1.0, parameter.shape[0] / parameter.shape[1]))
        parameter.add_(orthogonalised(ahead), alpha=-group["lr"] * scale)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Of all parameters at once, in torch's fused kernel: on processors, too, a third of the time."""
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if "step" not in state:
                state["step"] = torch.zeros(())
                state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["step"] = state["step"].to(parameter.device)  # where the kernel wants it
        beta1, beta2 = group["betas"]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            maximize=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["epsilon"],
        )


def parameter_groups(module: nn.Module, recipe: TrainingRecipe) -> list[dict[str, Any]]:
    """Matrices of the blocks decay; embeddings, heads and biases do not, and Muon never takes them.

    `initial_lr` of a group is what `learning_rate_factor` scales.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        (matrices if ".blocks." in f".{name}" and name.endswith("weight") else rest).append(parameter)
    adamw = {"kind": "adamw", "betas": (recipe.beta1, recipe.beta2), "initial_lr": recipe.learning_rate}
    muon = {"kind": "muon", "momentum": recipe.momentum, "initial_lr": recipe.matrix_learning_rate}
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay, **adamw},
        {"params": rest, "weight_decay": 0.0, **adamw},
    ]
    if recipe.optimizer == "muon":
        groups[0] = {"params": matrices, "weight_decay": recipe.weight_decay * MUON_WEIGHT_DECAY, **muon}
    for group in groups:
        group["lr"] = group["initial_lr"]
    return groups


def build_optimizer(module: nn.Module, recipe: TrainingRecipe, anchor: float = 0.0) -> torch.optim.Optimizer:
    """What the recipe names, over `parameter_groups`; `anchor` of them all as in `MuonAdamW`."""
    return MuonAdamW([{**group, "anchor": anchor} for group in parameter_groups(module, recipe)])
