"""From the last checkpoint of a stage, sharded or not, to final.ckpt: plain, as one process writes it."""

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import torch

from ..coder.errors import LaconicError
from .language import read_training_checkpoint
from .rank import is_first
from .run import Run
from .saving import damaged, fault, newest_sound, write_checkpoint

KEPT = ("epoch", "global_step", "pytorch-lightning_version", "hyper_parameters", "laconic")
BEST, LAST, FINAL = "best.ckpt", "last.ckpt", "final.ckpt"


def is_done(folder: Path) -> bool:
    """Whether a stage has its final.ckpt; a damaged one is dropped, for another checkpoint makes it again.

    Raises:
        LaconicError: it is damaged, and no other checkpoint is sound.
    """
    final = folder / FINAL
    reason = fault(final) if final.is_file() else None
    if reason is not None:
        other = newest_sound(folder / LAST, folder / BEST)
        if other is None:
            raise damaged(final, reason)
        if is_first():
            print(f"{final} is damaged ({reason}): making it again from {other}", file=sys.stderr, flush=True)
            final.unlink(missing_ok=True)
        return False
    return final.is_file()


def read_state(path: Path) -> dict[str, Any]:
    """What training saved, the weights of a ZeRO's folder apart.

    Raises:
        LaconicError: it is damaged.
    """
    return _client_state(path) if path.is_dir() else read_training_checkpoint(path)


def consolidate(folder: Path) -> Path:
    """Write final.ckpt of a stage from the best checkpoint, where one was kept, or else from the last.

    Raises:
        LaconicError: there is none, it is damaged, or it takes DeepSpeed, which is not installed.
    """
    path = newest_sound(folder / BEST, folder / LAST)
    if path is None:
        raise LaconicError(f"{folder} has no checkpoint: this stage was not begun, or ended before its first")
    saved = _of_zero(path) if path.is_dir() else read_training_checkpoint(path)
    write_checkpoint({name: saved[name] for name in (*KEPT, "state_dict")}, folder / FINAL)
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
        raise damaged(path, error) from None


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
    except Exception as error:  # a shard is missing, or damaged
        raise damaged(path, error) from None
    return {**saved, "state_dict": {name: weights[name].clone() for name in weights}}
