"""`compiled`: numba's compiler with a cache on disk that no stale code survives.

numba renews a cached kernel when the kernel's own file changes, and not when a file that it calls or a
constant that it froze does. Here the cache lies in a folder named by a hash of every source of `coder/`, in
the user's cache folder. Where it cannot be written or read, kernels are compiled anew in each process.
"""

import hashlib
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, cast

import numba.core.config
from numba import njit

from .report import tell

_Function = TypeVar("_Function", bound=Callable[..., Any])
_KEPT = 4  # folders of other versions that stay
_LOCK = Lock()  # threads may be the first to import kernels


def cache_root() -> Path:
    """Where machine code is kept: NUMBA_CACHE_DIR, or the user's cache folder."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen) / "laconic"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "laconic" / "numba"


@cache
def source_digest() -> str:
    """A hash of every source file of `coder/`, 16 hexadecimal digits."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _cache_folder() -> str | None:
    """The folder of this version, or None where none can be written."""
    try:
        root = cache_root()
        folder = root / source_digest()
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        others = sorted(root.iterdir(), key=lambda path: path.stat().st_mtime)
        for old in others[: -_KEPT - 1]:
            shutil.rmtree(old, ignore_errors=True)
        if os.access(folder, os.W_OK):
            return str(folder)
    except (OSError, RuntimeError):  # a full or foreign disk; no home
        pass
    warnings.warn(
        "compiled code cannot be kept, some 20 seconds each time: name a folder by NUMBA_CACHE_DIR",
        stacklevel=2,
    )
    return None


class _Forgiving:
    """numba's cache of a kernel, for which a full disk or a damaged file is no more than a miss."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = None
        try:
            found = self._inner.load_overload(sig, target_context)
        except Exception:  # whatever unpickling a damaged file raises
            with suppress(OSError):
                self._inner.flush()
        if found is None:
            tell("compiling for this processor, once: some 20 seconds")
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            self._inner.save_overload(sig, data)


def compiled(function: _Function) -> _Function:
    """Compile when first called, and keep the machine code on disk where it can be kept.

    A kernel allocates no arrays: without numba's reference counting, passing many of them costs nothing.
    """
    return _compile(function)


def inlined(function: _Function) -> _Function:
    """Compile into every kernel that calls it."""
    return _compile(function, forceinline=True)


def _compile(function: _Function, **options: bool) -> _Function:
    with _LOCK:
        return _compile_alone(function, {"nogil": True, "_nrt": False, **options})


def _compile_alone(function: _Function, options: dict[str, bool]) -> _Function:
    folder = _cache_folder()
    config: Any = numba.core.config
    compiler: Any = njit
    before: str = config.CACHE_DIR
    config.CACHE_DIR = folder or before
    try:
        kernel = compiler(cache=folder is not None, **options)(function)
    except RuntimeError:  # numba found no place after all
        kernel, folder = compiler(**options)(function), None
    finally:
        config.CACHE_DIR = before
    if folder is not None:
        kernel._cache = _Forgiving(kernel._cache)
    return cast(_Function, kernel)
