"""Checkpoints of training on the disk: whole or not there, checked before use, the one before kept.

A checkpoint is a file as torch.save writes it, or a folder of such files (DeepSpeed's). They are ZIP
archives, whose parts carry a CRC-32 that torch.load does not look at.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from torch._C import PyTorchFileReader

from ..coder.disk import flush, flush_all
from ..coder.errors import LaconicError
from .rank import is_first

PARTS = "parts.json"  # of a checkpoint that is a folder
FOLDER = 0x10  # attribute of a part of an archive, of which torch.load then reads nothing, and says nothing

_sound: dict[Path, list[tuple[int, ...]]] = {}  # what was checked or written here, as `fault` says


def fault(path: Path) -> str | None:
    """What is wrong with a checkpoint, every byte of which is read; None where nothing is.

    What this process wrote or found sound is not read again, unless its files have changed.
    """
    try:
        stamp = _stamp(path)
        if _sound.get(path) == stamp:
            return None
        if path.is_dir() and (lack := _lack(path)):
            return lack
        for file in sorted(path.rglob("*.pt")) if path.is_dir() else [path]:
            if (torn := _torn(file)) is not None:
                return torn
    except Exception as error:  # whatever damage makes of an archive, or a disk that does not read
        return str(error).split("\n")[0] or type(error).__name__
    _sound[path] = stamp
    return None


def _stamp(path: Path) -> list[tuple[int, ...]]:
    """What changes when a file is written."""
    status = [file.stat() for file in (path, *sorted(path.rglob("*")))]
    return [(s.st_ino, s.st_size, s.st_mtime_ns) for s in status]


def _torn(file: Path) -> str | None:
    """What of an archive is not as it was written."""
    with zipfile.ZipFile(file) as archive:
        if (part := archive.testzip()) is not None:
            return f"{part} is not what its checksum says"
        for part in archive.infolist():
            if part.external_attr & FOLDER:
                return f"{part.filename} is marked as a folder"
    PyTorchFileReader(str(file))  # refuses what zipfile does not look at
    return None


def list_parts(folder: Path) -> None:
    """Note which files a checkpoint's folder has, and how long they are; the last thing to write into it."""
    parts = {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    (folder / PARTS).write_text(json.dumps(parts, indent=1) + "\n")


def _lack(folder: Path) -> str | None:
    """What of its files a checkpoint's folder has not, or not whole."""
    try:
        parts: dict[str, int] = json.loads((folder / PARTS).read_text())
    except FileNotFoundError:  # of an older laconic: a folder has its name only once it is whole
        return None if any(folder.rglob("*.pt")) else "it is empty"
    except (OSError, ValueError):
        return f"{PARTS} is damaged"
    for name, size in parts.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if (there := (folder / name).stat().st_size) != size:
            return f"{name} has {there:,} bytes of {size:,}"
    return None


def damaged(path: Path, reason: object) -> LaconicError:
    """What to say of a checkpoint that cannot be read."""
    first = str(reason).strip().split("\n")[0]
    return LaconicError(f"{path} is damaged ({first}): remove it to train this stage again")


def one_before(path: Path) -> Path:
    """Where the checkpoint that a name had before is kept."""
    return path.with_name(path.name + ".old")


def newest_sound(*names: Path) -> Path | None:
    """The checkpoint of the first of these names that has a sound one, or the one before it; None for none.

    Says which one it is where another was damaged.

    Raises:
        LaconicError: what is there is damaged.
    """
    damage = None
    for candidate in (path for name in names for path in (name, one_before(name))):
        if candidate.exists():
            reason = fault(candidate)
            if reason is None:
                if damage and is_first():
                    print(f"{damage}: using {candidate}", file=sys.stderr, flush=True)
                return candidate
            damage = damage or f"{candidate} is damaged ({reason})"
    if damage:
        raise LaconicError(f"{damage}, and no other is sound: remove it to train this stage again")
    return None


def settle(partial: Path, path: Path) -> None:
    """Put what was written on the disk and under its name; a sound one of that name becomes the one before.

    Whatever ends the process, one of both is there and whole.
    """
    flush_all(partial)
    if path.exists() and fault(path) is None:
        remove(one_before(path))
        os.replace(path, one_before(path))
    remove(path)
    os.replace(partial, path)
    flush(path.parent)
    _sound[path] = _stamp(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a file beside its name, on the disk, and rename it.

    Raises:
        LaconicError: it cannot be written; what was there is as it was.
    """
    content = io.BytesIO()  # for torch.save does not say which way a file failed
    torch.save(checkpoint, content)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content.getbuffer())
        settle(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise LaconicError(
            f"cannot save {path}: {error.strerror}; what was saved before is as it was: make room, or make "
            f"{path.parent} writable, and give the same command again"
        ) from None


class WholeFiles(TorchCheckpointIO):
    """Lightning's way to the disk; its own is by the system's folder for temporary files, and a copy."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write_checkpoint(checkpoint, Path(path))
