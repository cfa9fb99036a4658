"""Callbacks: the end of a run, when it is saved, what is logged, and the line that people watch."""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, ProgressBar

from ..data.datamodule import TokenDataModule
from .language import LanguageModule
from .logs import position
from .usage import Usage, peak_bytes, peak_rate, restart_peak

LOGGED_STEPS = 50  # Lightning logs what a training step tells it every so many
WORTH_SAYING = 0.05  # share of the time that waits for data


class Budget(pl.Callback):
    """Keeps the clock of a run, and ends it when its steps or minutes are spent."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run may go on from a checkpoint at which it had already ended."""
        assert isinstance(pl_module, LanguageModule)
        patience = trainer.early_stopping_callback
        if pl_module.progress() >= 1.0 or (patience and patience.wait_count >= patience.patience):
            trainer.should_stop = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LanguageModule)
        pl_module.tick()
        if pl_module.progress() >= 1.0:
            trainer.should_stop = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, LanguageModule)
        if trainer.state.fn == "fit":
            pl_module.tick()


class ValidationClock(pl.Callback):
    """Has validation run every so many seconds of training, on all ranks after the same step."""

    def __init__(self, seconds: float, never: int) -> None:
        self.seconds, self.never = seconds, never
        self._since = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"since": self._since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._since = state_dict["since"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LanguageModule)
        due = pl_module.elapsed_seconds - self._since >= self.seconds
        due = due and batches_taken(trainer) % trainer.accumulate_grad_batches == 0
        trainer.val_check_batch = 1 if due else self.never
        if due:
            self._since = pl_module.elapsed_seconds


class Keep(Checkpoint):
    """Saves `last` after each validation, when training ends, and when `seconds` have passed between.

    `best` too, where the run has patience and no validation was better before. Never while the validation of
    a step or its row in the log is still to come, nor between the batches of a step: a run that goes on from
    there would lack them.
    """

    def __init__(self, last: Path, best: Path, seconds: float = 300.0) -> None:
        self.last, self.best, self.seconds = last, best, seconds

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, LanguageModule)
        self._since, self._step = pl_module.elapsed_seconds, trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LanguageModule)
        batches, validated = batches_taken(trainer), trainer.val_check_batch
        assert isinstance(validated, int)
        to_come = (
            trainer.should_stop
            or batches % validated == 0
            or batches % trainer.accumulate_grad_batches
            or trainer.global_step % LOGGED_STEPS == 0
        )
        if not to_come and pl_module.elapsed_seconds - self._since >= self.seconds:
            self._save(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        patience = trainer.early_stopping_callback
        if patience and patience.wait_count == 0:
            trainer.save_checkpoint(self.best)
        self._save(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step != self._step:
            self._save(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
            checkpoint["logs"] = position(self.last.parent)

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.last)
        self.on_train_start(trainer, pl_module)


def batches_taken(trainer: pl.Trainer) -> int:
    """Batches of the run so far, the present one with them."""
    return trainer.fit_loop.total_batch_idx + 1


class Throughput(pl.Callback):
    """Logs training bits per byte, the learning rate and `Usage.figures` every `every` seconds.

    Each figure is of the steps since the last; those of all steps are in the module's `usage`.
    """

    def __init__(self, products: torch.dtype, every: float = 5.0) -> None:
        """
        Args:
            products: type of the numbers that training multiplies.
        """
        self.products, self.every = products, every
        self._peak_rate = 0.0  # operations a second
        self._begun = (0.0, 0, 0.0)  # what the module's counts were when these steps began

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, LanguageModule)
        self._peak_rate = peak_rate(pl_module.device, self.products)
        restart_peak(pl_module.device)
        self._begun = _counts(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._end(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._begun = _counts(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, LanguageModule)
        if pl_module.elapsed_seconds - self._begun[0] < self.every and pl_module.progress() < 1.0:
            return
        values = {
            "train/bits_per_byte": pl_module.train_bits_per_byte.compute().item(),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "elapsed_minutes": pl_module.elapsed_seconds / 60,
            **self._end(trainer, pl_module).figures(),
        }
        pl_module.train_bits_per_byte.reset()
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})

    def _end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Usage:
        """Count the steps since these began, and begin the next ones."""
        assert isinstance(pl_module, LanguageModule)
        now = _counts(trainer, pl_module)
        seconds, tokens, waiting_seconds = (b - a for a, b in zip(self._begun, now, strict=True))
        usage = Usage(
            seconds=seconds,
            tokens=int(tokens),
            waiting_seconds=waiting_seconds,
            operations=pl_module.operations_per_token() * tokens / trainer.world_size,
            possible_operations=self._peak_rate * seconds,
            peak_bytes=peak_bytes(pl_module.device),
        )
        pl_module.usage.add(usage)
        self._begun = now
        return usage


def _counts(trainer: pl.Trainer, module: pl.LightningModule) -> tuple[float, int, float]:
    """(seconds, tokens, seconds of waiting) so far."""
    data = getattr(trainer, "datamodule", None)
    assert isinstance(module, LanguageModule)
    assert isinstance(data, TokenDataModule)
    return module.elapsed_seconds, module.tokens_seen, data.waiting_seconds


class ProgressLine(ProgressBar):
    """One line on stderr: share done, bits per byte, tokens a second, MFU, time left.

    On a terminal it is rewritten in place; elsewhere a line is written every half minute.
    """

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label
        self.enabled = True
        self.live = sys.stderr.isatty()
        self._last = 0.0

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        now = time.monotonic()
        if self.enabled and now - self._last >= (0.5 if self.live else 30.0):
            self._last = now
            self._write(trainer, pl_module, "\r" if self.live else "", "" if self.live else "\n")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.enabled:
            self._write(trainer, pl_module, "\r" if self.live else "", "\n")

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule, start: str, end: str) -> None:
        assert isinstance(pl_module, LanguageModule)
        metrics, progress = trainer.callback_metrics, pl_module.progress()
        parts = [f"{self.label:<8} {100 * progress:5.1f}%  step {trainer.global_step}"]
        for key, name in (("train/bits_per_byte", "train"), ("validation/bits_per_byte", "validation")):
            if key in metrics:
                parts.append(f"{name} {float(metrics[key]):.4f} bpb")
        if "tokens_per_second" in metrics:
            rate, mfu, waiting = (float(metrics[f]) for f in ("tokens_per_second", "mfu", "waiting_share"))
            parts.append(f"{rate:,.0f} tokens/s, MFU {mfu:.0%}")
            if waiting > WORTH_SAYING:
                parts.append(f"{waiting:.0%} waiting for data")
        if progress > 0:
            left = pl_module.elapsed_seconds * (1 - progress) / progress
            parts.append(f"{int(left // 60)}:{int(left % 60):02d} left")
        line = "  ".join(parts)
        if self.live:  # what does not fit would scroll instead of being rewritten
            columns = shutil.get_terminal_size().columns - 1
            line = line[:columns].ljust(columns)
        sys.stderr.write(start + line + end)
        sys.stderr.flush()
