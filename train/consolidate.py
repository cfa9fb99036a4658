"""From the last checkpoint of a stage, sharded or not, to final.ckpt: plain, as one process writes it."""

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import torch

from ..coder.errors import LaconicError
from .language import read_training_checkpoint
from .run import Run

KEPT = ("epoch", "global_step", "pytorch-lightning_version", "hyper_parameters", "laconic")
BEST, LAST, FINAL = "best.ckpt", "last.ckpt", "final.ckpt"


def last_checkpoint(folder: Path) -> Path | None:
    """What a stage goes on from: a file, or a folder of ZeRO's; None where nothing was saved.

    One that was being replaced when its process ended is put back.
    """
    for name in (LAST, BEST):
        path, old = folder / name, folder / f"{name}.old"
        if old.is_dir() and not path.exists():
            with contextlib.suppress(OSError):  # another rank was first
                old.rename(path)
    return folder / LAST if (folder / LAST).exists() else None


def read_settings(path: Path) -> dict[str, Any]:
    """The hyper-parameters in a checkpoint of training.

    Raises:
        LaconicError: it is damaged.
    """
    return (_client_state(path) if path.is_dir() else read_training_checkpoint(path))["hyper_parameters"]


def consolidate(folder: Path) -> Path:
    """Write final.ckpt of a stage from the best checkpoint, where one was kept, or else from the last.

    Raises:
        LaconicError: there is none, it is damaged, or it takes DeepSpeed, which is not installed.
    """
    last = last_checkpoint(folder)
    best = folder / BEST
    path = best if best.exists() else last
    if path is None:
        raise LaconicError(f"{folder} has no checkpoint: this stage was not begun, or ended before its first")
    saved = _of_zero(path) if path.is_dir() else read_training_checkpoint(path)
    partial = folder / "final.partial"
    torch.save({name: saved[name] for name in (*KEPT, "state_dict")}, partial)
    os.replace(partial, folder / FINAL)
    return folder / FINAL


def end_stage(run: Run, stage: str) -> tuple[Path, int]:
    """Have a stage that was cut off end where its last checkpoint stands.

    Returns:
        (final.ckpt, the steps that were taken).

    Raises:
        LaconicError: the stage is done, or has no checkpoint, or a damaged one.
    """
    folder = run.folder / stage
    if (folder / FINAL).is_file():
        raise LaconicError(f"{folder / FINAL} is there already: this stage is done")
    path = consolidate(folder)
    return path, read_training_checkpoint(path)["global_step"]


def _client_state(path: Path) -> dict[str, Any]:
    """What Lightning gave DeepSpeed to keep. DeepSpeed's files are pickled: read none but your own."""
    files = sorted((path / "checkpoint").glob("*_model_states.pt"))
    try:
        if not files:
            raise FileNotFoundError("no model states")
        return torch.load(files[0], map_location="cpu", weights_only=False)
    except Exception as error:  # whatever unpickling raises
        raise _damaged(path, error) from None


def _of_zero(path: Path) -> dict[str, Any]:
    """The same as one process would have saved: weights in float32, and buffers."""
    try:
        from deepspeed.utils import zero_to_fp32  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise LaconicError(
            f"{path} is sharded by DeepSpeed, which is not installed: pip install 'laconic[deepspeed]'"
        ) from None
    saved = _client_state(path)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            weights = zero_to_fp32.get_fp32_state_dict_from_zero_checkpoint(str(path), "checkpoint")
        assert weights is not None
    except Exception as error:  # a shard is missing, or damaged
        raise _damaged(path, error) from None
    return {**saved, "state_dict": {name: weights[name].clone() for name in weights}}


def _damaged(path: Path, error: Exception) -> LaconicError:
    reason = str(error).strip().split("\n")[0]
    return LaconicError(f"{path} is damaged ({reason}): remove it to train this stage again")
