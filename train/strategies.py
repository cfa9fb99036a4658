"""How several processes share a training step: DDP, FSDP and DeepSpeed's ZeRO, as Lightning strategies.

DDP holds the whole model in every process. FSDP and ZeRO 3 shard weights, gradients and the optimiser's
state, ZeRO 1 the state alone, ZeRO 2 gradients too (Rajbhandari et al. 2020, arXiv:1910.02054). Under each,
bf16-mixed is what it is in one process: weights and gradients in float32, products in bfloat16.
"""

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.utilities.seed import reset_seed
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.plugins.precision import DeepSpeedPrecision, FSDPPrecision, Precision
from pytorch_lightning.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullStateDictConfig,
    FullyShardedDataParallel,
    MixedPrecision,
    OptimStateKeyType,
    StateDictType,
)

from ..coder.errors import LaconicError
from ..models.transformer import Block
from .recipe import TrainingRecipe
from .saving import WholeFiles, list_parts, remove, settle

BUCKET = 1 << 24  # numbers that ZeRO reduces or gathers at once
KEPT_WHOLE = 1000  # parameters up to this many numbers are not worth sharding


def clip_gradients(strategy: Strategy, module: nn.Module, max_norm: float) -> Tensor:
    """Scale the gradients of a module so that their norm over all ranks is at most `max_norm`.

    Returns:
        The norm before, float32 []; zero under DeepSpeed, which clips in its own step.
    """
    if isinstance(strategy, DeepSpeedStrategy):
        return torch.zeros(())
    if isinstance(strategy, FSDPStrategy):
        assert isinstance(strategy.model, FullyShardedDataParallel)
        return strategy.model.clip_grad_norm_(max_norm)
    return torch.nn.utils.clip_grad_norm_(module.parameters(), max_norm)


def diverged(fault: str, step: str) -> LaconicError:
    """What to say where numbers became non-finite: settings of a run that has begun do not change."""
    return LaconicError(
        f"{fault} at step {step}. Begin in another folder with lower training.learning_rate and "
        "training.matrix_learning_rate, or have the stage end where it was saved last: "
        "laconic consolidate -o RUN"
    )


def trainer_settings(recipe: TrainingRecipe, precision: Any, device: str) -> dict[str, Any]:
    """What the Trainer of a process of several is given.

    Args:
        precision: "32-true" or "bf16-mixed".
        device: "cpu" or "cuda".
    """
    strategy, plugin = _strategy(recipe, precision, device)
    plugins = [TorchElasticEnvironment(), WholeFiles(), *([plugin] if plugin else [])]
    return {
        "devices": recipe.devices,
        "num_nodes": recipe.nodes,
        "strategy": strategy,
        "plugins": plugins,
        "precision": None if plugin else precision,
    }


def _strategy(recipe: TrainingRecipe, precision: Any, device: str) -> tuple[Strategy, Precision | None]:
    timeout = timedelta(minutes=recipe.timeout_minutes)
    if recipe.strategy == "fsdp":
        sharded = (FSDPStrategy if device == "cuda" else _FsdpOnProcessors)(
            timeout=timeout,
            auto_wrap_policy={Block},
            cpu_offload=recipe.offload,
            mixed_precision=MixedPrecision(),
        )
        return sharded, _FsdpPrecision(precision, device)
    if stage := recipe.zero_stage:
        zero = (_Zero if device == "cuda" else _ZeroOnProcessors)(recipe, stage)
        return zero, _ZeroPrecision(precision, device)
    return DDPStrategy(timeout=timeout, broadcast_buffers=False), None


def _autocast(precision: str, device: str) -> AbstractContextManager[Any]:
    return torch.autocast(device, torch.bfloat16) if precision == "bf16-mixed" else nullcontext()


class _FsdpOnProcessors(FSDPStrategy):
    """Without a GPU, over gloo: FSDP is told its device, which Lightning knows by number alone.

    Nor is what it gathers moved to the processor, where it is: FSDP would free it, or write over it.
    """

    def _setup_model(self, model: nn.Module) -> nn.Module:
        return FullyShardedDataParallel(
            model,
            cpu_offload=self.cpu_offload,
            mixed_precision=self.mixed_precision,
            sharding_strategy=self.sharding_strategy,
            device_id=torch.device("cpu"),
            **self.kwargs,
        )

    def _gathered(self) -> AbstractContextManager[Any]:
        assert self.model is not None
        return FullyShardedDataParallel.state_dict_type(
            self.model,
            StateDictType.FULL_STATE_DICT,
            FullStateDictConfig(offload_to_cpu=False),
            FullOptimStateDictConfig(offload_to_cpu=False),
        )

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.model is not None
        with self._gathered():
            return self.model.state_dict()

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        assert self.model is not None
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        with self._gathered():
            state = FullyShardedDataParallel.optim_state_dict(self.model, inner)
            return FullyShardedDataParallel.rekey_optim_state_dict(
                state, OptimStateKeyType.PARAM_ID, self.model
            )


class _FsdpPrecision(FSDPPrecision):
    """Autocast on any device."""

    def __init__(self, precision: Any, device: str) -> None:
        super().__init__(precision)
        self.device = device

    def forward_context(self) -> AbstractContextManager[Any]:
        return _autocast(self.precision, self.device)


class _ZeroPrecision(DeepSpeedPrecision):
    """Weights in float32 and autocast, where DeepSpeed alone would turn the model to bfloat16."""

    def __init__(self, precision: Any, device: str) -> None:
        super().__init__("32-true")
        self.products, self.device = precision, device

    def forward_context(self) -> AbstractContextManager[Any]:
        return _autocast(self.products, self.device)

    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, tensor: Tensor, model: pl.LightningModule, optimizer: Any, *args: Any, **kwargs: Any
    ) -> None:
        """The loss is divided by `accumulate` once: by Lightning, and not by DeepSpeed too."""
        super().backward(tensor, model, optimizer, *args, scale_wrt_gas=False, **kwargs)

    def optimizer_step(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, optimizer: Any, model: pl.LightningModule, closure: Callable[[], Any], **kwargs: Any
    ) -> Any:
        """One step.

        Raises:
            LaconicError: the gradient's norm was not finite; DeepSpeed tells after its step.
        """
        result = super().optimizer_step(optimizer, model, closure, **kwargs)
        norm = model.trainer.model.get_global_grad_norm()  # pyright: ignore
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)):
            raise diverged(f"the gradient's norm became {float(norm)}", f"{model.global_step}")
        return result


class _Zero(DeepSpeedStrategy):
    """DeepSpeed as Lightning runs it, whose checkpoints, folders, appear when they are whole."""

    def __init__(self, recipe: TrainingRecipe, stage: int) -> None:
        if not torch.cuda.is_available():
            os.environ["DS_ACCELERATOR"] = "cpu"  # or it looks for one, and warns
        super().__init__(
            stage=stage,
            offload_optimizer=recipe.offload,
            offload_parameters=recipe.offload and stage == 3,
            allgather_bucket_size=BUCKET,
            reduce_bucket_size=BUCKET,
            logging_batch_size_per_gpu=recipe.batch_size,
            logging_level=logging.ERROR,
            timeout=timedelta(minutes=recipe.timeout_minutes),
        )
        assert isinstance(self.config, dict)
        self.config["gradient_clipping"] = recipe.clip_norm
        self.config["zero_force_ds_cpu_optimizer"] = False  # offloaded or not, the optimiser is ours
        if stage == 3:
            self.config["zero_optimization"]["stage3_param_persistence_threshold"] = KEPT_WHOLE

    def setup(self, trainer: pl.Trainer) -> None:
        super().setup(trainer)
        if self.zero_stage_3:
            import deepspeed  # pyright: ignore[reportMissingImports]

            # What is used outside the layer that holds it is gathered with the module as a whole.
            for name, parameter in self.lightning_module.named_parameters():  # pyright: ignore
                if ".blocks." not in name:
                    deepspeed.zero.register_external_parameter(self.lightning_module, parameter)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        path = Path(self.broadcast(str(filepath)))
        partial = path.with_name(path.name + ".partial")
        if self.is_global_zero:
            remove(partial)  # what a killed save left would be listed among this one's parts
        self.barrier()
        super().save_checkpoint(checkpoint, partial, storage_options)
        self.barrier()
        if self.is_global_zero:
            list_parts(partial)
            settle(partial, path)
        self.barrier()


class _ZeroOnProcessors(_Zero):
    """The same without a GPU, over gloo: what Lightning checks is lifted."""

    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu", self.local_rank)

    def setup_environment(self) -> None:
        assert self.accelerator is not None
        self.accelerator.setup_device(self.root_device)
        import deepspeed.ops  # pyright: ignore[reportMissingImports]

        # None of DeepSpeed's operators is compiled: gloo carries what one of them would by shared memory.
        vars(deepspeed.ops)["__compatible_ops__"] = {}
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()
