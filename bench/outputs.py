"""Files of figures and pictures: checked before the work, whole or not there after it."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from ..coder.errors import LaconicError
from ..coder.files import PendingFile


def check_outputs(figures: Path | None, picture: Path | None, inputs: Sequence[str | Path]) -> None:
    """Refuse what `check_output` does, two outputs in one file, and a picture that nothing can draw.

    Raises:
        LaconicError: as said.
    """
    check_output(figures, inputs)
    check_output(picture, inputs, ".png")
    if figures and picture and figures.resolve() == picture.resolve():
        raise LaconicError(f"{picture} cannot hold figures and picture: name two files")
    if picture and importlib.util.find_spec("matplotlib") is None:
        raise LaconicError("pictures need matplotlib: pip install 'laconic[bench]'")


def check_output(path: Path | None, inputs: Sequence[str | Path], suffix: str | None = None) -> None:
    """Refuse an output that could not be written, or would replace what is measured.

    Raises:
        LaconicError: it is an input, a folder, in no folder, or has another suffix.
    """
    if path is None:
        return
    if suffix is not None and path.suffix.lower() != suffix:
        raise LaconicError(f"{path} must end in {suffix}: name it {path.stem}{suffix}")
    if path.is_dir() or not path.parent.is_dir():
        raise LaconicError(f"{path} cannot be written: name a file in a folder that exists")
    for source in inputs:
        if path.exists() and os.path.exists(source) and os.path.samefile(path, source):
            raise LaconicError(f"{path} is one of the files to measure: name another output")


def write_output(path: Path, content: bytes) -> None:
    """Write under a temporary name and rename; an earlier file is replaced.

    Raises:
        OSError: it cannot be written; nothing has changed then.
    """
    with PendingFile(path, force=True) as pending:
        pending.file.write(content)
        pending.commit()
