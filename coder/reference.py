"""What a file is coded against: a text that both sides have, which the file names by its hash."""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from .container import REFERENCE
from .errors import LaconicError
from .segment import MAX_REFERENCE

if TYPE_CHECKING:
    from .copies import Index

Given = bytes | bytearray | memoryview | str | os.PathLike[str]
_HASH = 8  # bytes of the SHA-256
_LOCK = Lock()  # segments in work at the same time share an index


@dataclass(frozen=True)
class Reference:
    """The bytes of a reference."""

    data: bytes

    @property
    def index(self) -> "Index":
        """Where its blocks lie; made when first needed."""
        with _LOCK:
            return self._index

    @cached_property
    def _index(self) -> "Index":
        from .copies import build_index

        return build_index(self.data)

    @cached_property
    def name(self) -> bytes:
        """What a file's prologue says of it: the first 8 bytes of its SHA-256, and its length in 5."""
        length = len(self.data).to_bytes(REFERENCE - _HASH, "little")
        return hashlib.sha256(self.data).digest()[:_HASH] + length


def open_reference(given: "Given | Reference | None") -> Reference | None:
    """A reference from its bytes, or from the path of a file.

    Raises:
        LaconicError: there is no such file, it cannot be read, or it is too large.
    """
    if given is None or isinstance(given, Reference):
        return given
    if isinstance(given, bytes | bytearray | memoryview):
        return Reference(bytes(given))
    if not isinstance(given, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LaconicError(f"a reference of type {type(given).__name__}: give bytes, or the path of a file")
    try:
        path = Path(given)
        if not path.exists():
            raise LaconicError(f"the reference {path} does not exist: check the path")
        if not path.is_file():
            what = "a folder" if path.is_dir() else "no regular file"
            raise LaconicError(f"the reference {path} is {what}: name a file, which is read more than once")
        if path.stat().st_size > MAX_REFERENCE:
            raise LaconicError(f"the reference {path} is too large: name a file of less than 1 TB")
        try:
            return Reference(path.read_bytes())
        except MemoryError:
            raise LaconicError(
                f"the reference {path} of {path.stat().st_size:,} bytes does not fit into memory: name a "
                "smaller one"
            ) from None
    except OSError as error:
        raise LaconicError(
            f"the reference {os.fspath(given)} cannot be read ({error.strerror}): name another"
        ) from None


def describe(name: bytes) -> str:
    """A reference's name in words."""
    length = int.from_bytes(name[_HASH:], "little")
    return f"{length:,} bytes whose SHA-256 begins with {name[:_HASH].hex()}"


def check_reference(needed: bytes, given: Reference | None) -> Reference:
    """The reference given, where it is the one that is needed.

    Args:
        needed: its name; empty where a damaged head does not tell it, and any will be tried.

    Raises:
        LaconicError: none was given, or another.
    """
    if given is not None and needed in (b"", given.name):
        return given
    if not needed:
        raise LaconicError("it needs a reference and does not name it: name it by --reference FILE")
    if given is None:
        raise LaconicError(
            f"it was compressed against a reference, {describe(needed)}: name that file by --reference "
            "(reference= in Python)"
        )
    raise LaconicError(
        f"the reference given is another one, {describe(given.name)}; needed is {describe(needed)}"
    )
