"""What was written is on the disk, whatever the system keeps in memory."""

import os
from contextlib import nullcontext, suppress
from pathlib import Path


def flush(path: Path) -> None:
    """Have a file, or the names in a folder where the system and its disk allow that, on the disk."""
    folder = path.is_dir()
    with suppress(OSError) if folder else nullcontext():
        descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def flush_all(folder: Path) -> None:
    """Have a file, or a folder with all that is in it, on the disk."""
    for path in (folder, *folder.rglob("*")):
        flush(path)
