"""What the codec's commands have in common: arguments, inputs and outputs, going on after a failure."""

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import LaconicError
from ..files import SUFFIX, PendingFile
from ..reference import open_reference
from ..registry import Decoder, find_all

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STANDARD = "-"  # stands for stdin and stdout


def add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="files; none, or -, means standard input")


def add_output(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-o", "--output", metavar="OUT", help="file to write; - means standard output")
    where.add_argument("-c", "--stdout", action="store_true", help="write to standard output")
    parser.add_argument("-f", "--force", action="store_true", help="replace what exists, write to a terminal")
    parser.add_argument("-k", "--keep", action="store_true", help="keep the source: it always is")


def add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-T",
        "--threads",
        type=count,
        metavar="N",
        help="segments worked on at the same time (default: one for each core); each takes memory of "
        "its own, some 350 MB for 8 MiB at the default level; the bytes are the same",
    )
    parser.add_argument(
        "--engine", metavar="E", help="numba, torch, cuda or numpy: the bytes are the same (default: numba)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")


def add_decoder(parser: argparse.ArgumentParser) -> None:
    text = "one more checkpoint to decode with: folder, name or id; may be repeated"
    parser.add_argument("-m", "--model", action="append", metavar="CHECKPOINT", help=text)
    parser.add_argument(
        "--memory",
        type=size,
        metavar="BYTES",
        help="that decoding a segment may take beside the segment, each of -T (default: 1G)",
    )
    add_reference(parser)
    add_engine(parser)


def add_reference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reference",
        action=Once,
        metavar="FILE",
        help="a text that both sides have, such as an earlier version: decoding needs the same one",
    )


def decoder(args: argparse.Namespace) -> Decoder:
    """As -m, --reference, --engine and -T say."""
    names: list[str] = args.model or []
    models = [listing.path for listing in find_all([name for name in names if name != "none"])]
    return Decoder(models, args.engine, args.threads, args.memory, open_reference(args.reference))


class Once(argparse.Action):
    """An option that takes one value: given twice it is an error, where argparse would drop the first."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        mark = f"{self.dest}_given"
        if getattr(namespace, mark, False):
            parser.error(f"{option_string} is given twice: this command takes one")
        setattr(namespace, mark, True)
        setattr(namespace, self.dest, values)


def count(text: str) -> int:
    """An argument that is a whole number above zero."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def size(text: str) -> int:
    """An argument in bytes: 1000, 64K, 4M, 1G (binary units)."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    unit = units.get(text[-1:].upper(), 1)
    number = text if unit == 1 else text[:-1]
    if not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size: give a whole number of bytes above 0, or one with K, M or G (4M)"
        )
    return int(number) * unit


def usage_error(message: str) -> int:
    print(f"laconic: error: {message}", file=sys.stderr)
    return 2


def explain(error: BaseException) -> str:
    """One line for what stopped a command."""
    if isinstance(error, MemoryError):
        return (
            "out of memory: free some, take fewer threads (-T 1), or compress with a smaller --segment-size"
        )
    if isinstance(error, OSError) and error.strerror:
        remedy = ": check the path" if isinstance(error, FileNotFoundError) else ""
        return f"{error.filename}: {error.strerror}{remedy}" if error.filename else error.strerror
    return str(error)


def each(names: Sequence[str], action: Callable[[str], int | None]) -> int:
    """Do it to each file, going on after a failure; exit status 1 if any failed."""
    status = 0
    for name in names or [STANDARD]:
        try:
            status = max(status, action(name) or 0)
        except BrokenPipeError:
            raise
        except (LaconicError, OSError, MemoryError) as error:
            complain(name, error)
            status = 1
    return status


def complain(name: str, error: BaseException) -> None:
    """Say in one line what stopped a file."""
    reason = explain(error)
    prefix = "" if reason.startswith(name) else f"{label(name)}: "
    print(f"laconic: error: {prefix}{reason}", file=sys.stderr)


def label(name: str) -> str:
    return "(stdin)" if name == STANDARD else name


@contextmanager
def opened(name: str, compressed: bool) -> Generator[BinaryIO, None, None]:
    """The input, for reading.

    Raises:
        LaconicError: it is a folder, or compressed data is to come from a terminal.
    """
    if name == STANDARD:
        if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
            raise LaconicError("standard input is closed: name a file")
        if compressed and sys.stdin.isatty():
            raise LaconicError("compressed data is not read from a terminal: name a file")
        yield sys.stdin.buffer
        return
    if os.path.isdir(name):
        remedy = "name the .lac files in it"
        if not compressed:
            remedy = f"pack it first (tar -cf - {name} | laconic compress -o OUT.lac)"
        raise LaconicError(f"{name} is a folder: {remedy}")
    with open(name, "rb") as file:
        yield file


class _WholeWrites(io.BytesIO):
    """Writes to a raw stream (PYTHONUNBUFFERED), which may take a part at a time, until it has all."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__()
        self.raw = raw

    def write(self, data: "ReadableBuffer", /) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        while len(view):
            view = view[self.raw.write(view) or 0 :]
        return size

    def flush(self) -> None:
        self.raw.flush()


def standard_output() -> BinaryIO:
    """Standard output for bytes; a write takes all of them or fails."""
    stream: Any = sys.stdout.buffer
    return _WholeWrites(stream) if isinstance(stream, io.RawIOBase) else stream


@contextmanager
def output(name: str, path: str, force: bool, binary: bool) -> Generator[BinaryIO, None, None]:
    """Where the result of input `name` goes: a file that appears on success, or stdout for path "-".

    Raises:
        LaconicError: it exists, is the input, or is a terminal that should not see binary data.
    """
    if path == STANDARD:
        if binary and not force and sys.stdout.isatty():
            raise LaconicError("compressed data is not written to a terminal: use -o, or -f to insist")
        with _blaming("(stdout)"):
            stream = standard_output()
            yield stream
            stream.flush()
        return
    if name != STANDARD and os.path.exists(path) and os.path.samefile(name, path):
        raise LaconicError(f"{name} is both the source and the output: name another by -o")
    regular = name != STANDARD and os.path.isfile(name)
    like = os.stat(name) if regular else None
    with _blaming(path), PendingFile(path, force, like) as pending:
        yield pending.file
        pending.commit()


@contextmanager
def _blaming(path: str) -> Generator[None, None, None]:
    """Failed writes do not say where: name the output where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and not error.filename:
            raise OSError(error.errno, error.strerror, path) from None
        raise


def output_path(name: str, args: argparse.Namespace, default: Callable[[str], str]) -> str:
    """By -o, -c, or by the input's name."""
    if args.stdout:
        return STANDARD
    if args.output is not None:
        return args.output
    return STANDARD if name == STANDARD else default(name)


def without_suffix(name: str) -> str:
    base = name.removesuffix(SUFFIX)
    if base == name or not Path(name).name.removesuffix(SUFFIX):
        raise LaconicError(f"{name} does not end in {SUFFIX}: name the output by -o")
    return base
