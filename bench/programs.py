"""Peers that are programs of their own: found on PATH, and fed through a temporary folder.

A program's seconds include its start and the files that it is given and leaves; one thread is allowed, where
it has a say in that.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..coder.errors import LaconicError

FILE, PACKED, RESTORED = "f", "p.zpaq", "r"  # zpaq stores the first, and insists on the ending of the second
MIB = 1 << 20
BZIP3_BLOCKS_MIB = (16, 511)  # its default, and its largest


class ProgramMissing(Exception):
    """There is no program of this name on PATH."""


@dataclass(frozen=True)
class Program:
    """A compressor and how it is called, in a folder that is its own.

    Attributes:
        name: of the program and of the peer.
        heading: of its column.
        home: where it can be had.
        compress: bytes in FILE -> arguments that make PACKED of FILE.
        decompress: arguments that make RESTORED of PACKED.
        banner: arguments that make it print its version.
    """

    name: str
    heading: str
    home: str
    compress: Callable[[int], list[str]]
    decompress: list[str]
    banner: list[str]

    def find(self) -> str:
        """The path of the program.

        Raises:
            ProgramMissing: it is not on PATH.
        """
        path = shutil.which(self.name)
        if path is None:
            raise ProgramMissing(f"no program of that name is on PATH (it is at {self.home})")
        return os.path.abspath(path)  # PATH may be relative, and the program runs elsewhere

    def version(self, path: str) -> str:
        """Name and version, the name alone where the program prints none.

        Raises:
            LaconicError: it cannot be run.
        """
        printed = self._run(path, self.banner).stdout.decode(errors="replace")
        number = re.search(r"\d+(\.\d+)+", printed)
        return f"{self.name} {number[0]}" if number else self.name

    def pack(self, path: str, data: bytes) -> bytes:
        """Compress.

        Raises:
            LaconicError: the program cannot be run, fails, or leaves no output.
        """
        return self._convert(path, self.compress(len(data)), FILE, data, PACKED)

    def unpack(self, path: str, blob: bytes) -> bytes:
        """Decompress, likewise."""
        return self._convert(path, self.decompress, PACKED, blob, RESTORED)

    def _convert(self, path: str, arguments: list[str], source: str, data: bytes, result: str) -> bytes:
        with tempfile.TemporaryDirectory(prefix="laconic-") as name:
            folder = Path(name)
            (folder / source).write_bytes(data)
            done = self._run(path, arguments, folder)
            if done.returncode == 0 and (folder / result).is_file():
                return (folder / result).read_bytes()
            files = sorted(path.name for path in folder.iterdir())
        lines = [line.strip() for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
        last = "; ".join(lines[-2:]) or "it said nothing"  # two, as zpaq ends with its seconds in any case
        raise LaconicError(
            f"'{' '.join([self.name, *arguments])}' on {len(data)} bytes ended with status {done.returncode} "
            f"and left {', '.join(files)} ({last}); 0 and {result} are wanted: "
            f"mend {path}, or leave {self.name} out of --peers"
        )

    def _run(
        self, path: str, arguments: list[str], folder: Path | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        try:
            return subprocess.run(
                [path, *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise LaconicError(
                f"{path} cannot be run ({error.strerror or error}): "
                f"mend it, or leave {self.name} out of --peers"
            ) from error


def bzip3_block_mib(length: int) -> int:
    """MiB of a block that holds a file of `length` bytes, as far as bzip3 has such blocks."""
    smallest, largest = BZIP3_BLOCKS_MIB
    return min(max(smallest, -(-length // MIB)), largest)


PROGRAMS = [
    # Burrows-Wheeler and context mixing, the whole file in one block up to 511 MiB.
    Program(
        "bzip3",
        "bzip3",
        "https://github.com/kspalaiologos/bzip3",
        lambda length: ["-e", "-b", str(bzip3_block_mib(length)), FILE, PACKED],
        ["-d", PACKED, RESTORED],
        ["-V"],
    ),
    # Context mixing in blocks of 64 MiB. It is a journaling archiver: an archive of one empty file, without
    # attributes and with a name of one letter, has about 1,000 bytes.
    Program(
        "zpaq",
        "zpaq -m5",
        "https://mattmahoney.net/dc/zpaq.html",
        lambda length: ["a", PACKED, FILE, "-m5", "-noattributes", "-t1"],
        ["x", PACKED, FILE, "-to", RESTORED, "-noattributes", "-t1"],
        [],
    ),
    # Context mixing with 1.5 GB of memory; at most 2 GB of input.
    Program(
        "lpaq8",
        "lpaq8 9",
        "https://mattmahoney.net/dc/",
        lambda length: ["9", FILE, PACKED],
        ["d", PACKED, RESTORED],
        [],
    ),
]
