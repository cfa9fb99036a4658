"""One command at a time writes into a folder."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..coder.errors import LaconicError

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where nothing is locked
    fcntl = None

LOCK = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other command that asks for the same out of a folder until the block ends.

    The system lets the lock go with the process that holds it, whatever ends that. The file stays, and means
    nothing then. A file system without locks keeps nobody out.

    Raises:
        LaconicError: another process has it, and is named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab+", buffering=0) as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode(errors="replace") or "another process"
            raise LaconicError(
                f"{folder} is in use by {holder}: wait for it, end it, or choose another folder"
            ) from None
        except OSError:
            pass
        with suppress(OSError):  # a full disk: the name alone is lacking
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
