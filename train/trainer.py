"""The Trainer that every stage runs under: same logs, progress and run folder."""

import contextlib
import ctypes
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping

from ..coder.errors import LaconicError
from ..data.datamodule import TokenDataModule
from .callbacks import LOGGED_STEPS, Budget, Keep, ProgressLine, Throughput, ValidationClock
from .consolidate import BEST, FINAL, LAST, consolidate, is_done, read_state
from .language import LanguageModule
from .logs import cut, stage_loggers
from .optimizer import has_bfloat16
from .processes import Interrupted, Unanswered, check_room, device_type
from .rank import is_first, rank_and_world
from .recipe import DistillationRecipe, TrainingRecipe
from .run import changed_settings, writing
from .saving import WholeFiles, newest_sound
from .strategies import trainer_settings

MONITOR = "validation/bits_per_byte"
NEVER = 1 << 62  # batches
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def quiet() -> None:
    """Leave warnings that nobody can act on out of people's terminals."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def resolve_precision(recipe: TrainingRecipe) -> Literal["32-true", "bf16-mixed"]:
    """bf16 where the device multiplies it natively, float32 elsewhere."""
    if recipe.precision != "auto":
        return recipe.precision
    return "bf16-mixed" if has_bfloat16(torch.device(device_type(recipe.accelerator))) else "32-true"


def _validation_interval(recipe: TrainingRecipe) -> int:
    """Batches, those of whole steps; where minutes are counted, ValidationClock says when."""
    if recipe.max_steps is not None:
        return recipe.accumulate * max(1, recipe.max_steps // recipe.validations)
    return NEVER


def build_trainer(folder: Path, recipe: TrainingRecipe, label: str) -> pl.Trainer:
    """A Trainer for one stage of a language model."""
    precision = resolve_precision(recipe)
    callbacks: list[pl.Callback] = [
        Budget(),
        Throughput(torch.bfloat16 if precision == "bf16-mixed" else torch.float32),
        ProgressLine(label),
    ]
    if recipe.max_steps is None:
        assert recipe.minutes is not None
        callbacks.append(ValidationClock(60 * recipe.minutes / recipe.validations, NEVER))
    if recipe.patience:
        callbacks.append(EarlyStopping(MONITOR, patience=recipe.patience, check_finite=False))
    callbacks.append(Keep(folder / LAST, folder / BEST))  # after those whose state it saves
    settings: dict[str, Any] = {
        "accelerator": recipe.accelerator,
        "devices": 1,
        "precision": precision,
        "plugins": [WholeFiles()],
    }
    if recipe.together:
        device = device_type(recipe.accelerator)
        settings = {"accelerator": device, **trainer_settings(recipe, precision, device)}
    return pl.Trainer(
        max_steps=recipe.max_steps if recipe.max_steps is not None else -1,
        max_epochs=-1,
        accumulate_grad_batches=recipe.accumulate,
        val_check_interval=_validation_interval(recipe),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=LOGGED_STEPS,
        logger=stage_loggers(folder),
        callbacks=callbacks,
        enable_model_summary=False,
        enable_checkpointing=True,
        **settings,
    )


def _keep_pages() -> None:
    """Have glibc reuse the memory of large tensors, which every step asks for anew.

    By default it gives them back to the system, whose zeroing of fresh pages is a tenth of a step's time.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for option, bytes_ in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, (1 << 31) - 1)):
            mallopt(option, bytes_)


@contextlib.contextmanager
def limited_threads(threads: int | None, devices: int = 1) -> Iterator[None]:
    """Have torch use so many threads (None: as many as it would), shared by processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, (threads or before) // devices))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_settings(path: Path, state: dict[str, Any], module: LanguageModule) -> None:
    saved = state["hyper_parameters"]
    saved["training"] = {**asdict(TrainingRecipe()), **saved["training"]}  # an older one lacks some
    if "distillation" in saved:
        saved["distillation"] = {**asdict(DistillationRecipe()), **saved["distillation"]}
        saved.setdefault("teachers", module.hparams.get("teachers"))
    if changed := changed_settings(saved, module.hparams):
        raise LaconicError(
            f"{path} was trained with other settings ({', '.join(changed)}): "
            f"remove {path.parent} to train anew, or choose another folder for the run"
        )


def _explained(error: RuntimeError, recipe: TrainingRecipe) -> Exception:
    """The error itself, or what it means where the ranks lost each other."""
    lost = isinstance(error, torch.distributed.DistError) or any(
        word in str(error) for word in ("gloo", "NCCL", "pair closure")
    )
    place = rank_and_world()
    if not lost or place is None:
        return error
    return Unanswered(
        f"rank {place[0]} of {place[1]} lost the others: one of them ended, or did not answer within "
        f"{recipe.timeout_minutes:g} minutes (training.timeout_minutes); their own messages say why"
    )


def fit(module: LanguageModule, data: TokenDataModule, folder: Path, label: str) -> Path:
    """Train until the budget is spent; a run that was interrupted goes on from its last sound checkpoint.

    Where this process is one of several, all of them call this, and the first one writes.

    Returns:
        folder/final.ckpt, whose existence says that the stage is done: a plain file, whatever the strategy.
        With early stopping it holds the best weights, else the last.

    Raises:
        LaconicError: the loss became non-finite, what is in the folder was trained with other settings, the
            machine has no room for the recipe, or the other processes were lost.
    """
    quiet()
    final, last = folder / FINAL, folder / LAST
    if is_done(folder):
        _check_settings(final, read_state(final), module)
        return final
    recipe = module.training_recipe
    check_room(recipe)
    resume = newest_sound(last, folder / BEST)
    state = read_state(resume) if resume else {}
    if resume:
        _check_settings(resume, state, module)
    if is_first():
        cut(folder, state.get("logs"))
    del state  # which is as large as what is trained
    pl.seed_everything(recipe.seed, verbose=False)
    _keep_pages()
    with limited_threads(recipe.threads, recipe.devices), writing(folder):
        trainer = build_trainer(folder, recipe, label)
        try:
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        except SystemExit:
            raise Interrupted(
                f"interrupted at step {trainer.global_step}: the same command goes on from {last}"
                if last.exists()
                else "interrupted before the first checkpoint: the same command starts this stage again"
            ) from None
        except RuntimeError as error:
            raise _explained(error, recipe) from error
        if trainer.is_global_zero:
            consolidate(folder)
        trainer.strategy.barrier()
    return final
