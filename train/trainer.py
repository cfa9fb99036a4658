"""The Trainer that every stage runs under: same logs, progress and run folder."""

import contextlib
import datetime
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from ..coder.errors import LaconicError
from ..data.datamodule import TokenDataModule
from .callbacks import Budget, ProgressLine, Throughput
from .language import LanguageModule
from .recipe import TrainingRecipe

MONITOR = "validation/bits_per_byte"


def quiet() -> None:
    """Leave warnings that nobody can act on out of people's terminals."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def resolve_precision(recipe: TrainingRecipe) -> Literal["32-true", "bf16-mixed"]:
    """bf16 where the processor multiplies it natively, float32 elsewhere."""
    if recipe.precision != "auto":
        return recipe.precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


def stage_loggers(folder: Path) -> list[CSVLogger | TensorBoardLogger]:
    """CSV and TensorBoard logs below the stage's folder."""
    return [
        CSVLogger(folder, name="csv", flush_logs_every_n_steps=1),
        TensorBoardLogger(folder, name="tensorboard"),
    ]


def _validation_interval(recipe: TrainingRecipe) -> int | datetime.timedelta:
    if recipe.max_steps is not None:
        return max(1, recipe.max_steps * recipe.accumulate // recipe.validations)
    assert recipe.minutes is not None
    return datetime.timedelta(minutes=recipe.minutes / recipe.validations)


def build_trainer(folder: Path, recipe: TrainingRecipe, label: str) -> pl.Trainer:
    """A Trainer for one stage of a language model."""
    callbacks: list[pl.Callback] = [
        Throughput(),
        Budget(),
        ProgressLine(label),
        ModelCheckpoint(
            folder, "best", monitor=MONITOR, save_last=True, save_top_k=1, enable_version_counter=False
        ),
    ]
    if recipe.patience:
        callbacks.append(EarlyStopping(MONITOR, patience=recipe.patience, check_finite=False))
    return pl.Trainer(
        accelerator=recipe.accelerator,
        devices=recipe.devices,
        strategy=recipe.strategy,
        precision=resolve_precision(recipe),
        max_steps=recipe.max_steps if recipe.max_steps is not None else -1,
        max_epochs=-1,
        accumulate_grad_batches=recipe.accumulate,
        val_check_interval=_validation_interval(recipe),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=stage_loggers(folder),
        callbacks=callbacks,
        enable_model_summary=False,
        enable_checkpointing=True,
    )


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit(module: LanguageModule, data: TokenDataModule, folder: Path, label: str) -> Path:
    """Train until the budget is spent; a run that was interrupted goes on from its last checkpoint.

    Returns:
        folder/final.ckpt, whose existence says that the stage is done. With early stopping it holds the
        best weights, else the last.

    Raises:
        LaconicError: the loss became non-finite, or the last checkpoint is another shape.
    """
    quiet()
    final, last = folder / "final.ckpt", folder / "last.ckpt"
    if final.is_file():
        return final
    recipe = module.training_recipe
    resume = last if last.is_file() else None
    if resume:
        saved = torch.load(resume, map_location="cpu", weights_only=True)["hyper_parameters"]
        if (
            saved["model"] != module.hparams["model"]
            or saved["byte_lengths"] != module.hparams["byte_lengths"]
        ):
            raise LaconicError(
                f"{resume} was made by another recipe: choose another folder, or remove {folder}"
            )
        module.training_recipe = replace(recipe, minutes=saved["training"]["minutes"])
        module.hparams["training"]["minutes"] = saved["training"]["minutes"]
    pl.seed_everything(recipe.seed, verbose=False)
    with _threads(recipe.threads):
        trainer = build_trainer(folder, recipe, label)
        try:
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        except SystemExit:
            raise LaconicError(
                f"interrupted at step {trainer.global_step}: the same command goes on from {last}"
                if last.is_file()
                else "interrupted before the first checkpoint: the same command starts this stage again"
            ) from None
        best = trainer.checkpoint_callback
        if recipe.patience and isinstance(best, ModelCheckpoint) and best.best_model_path:
            weights = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
            module.load_state_dict(weights["state_dict"])
            module.on_load_checkpoint(weights)
        trainer.validate(module, datamodule=data, verbose=False)
        partial = folder / "final.partial"
        trainer.save_checkpoint(partial)
        os.replace(partial, final)
    return final
