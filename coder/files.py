"""Whole files and byte strings: streaming compression and decompression, output that appears when done."""

import io
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from . import registry
from .container import Stored, read_segments, restore
from .encoder import Encoder
from .errors import LaconicError
from .parallel import Check, check_threads, checked, in_order, is_idle
from .pipeline import SEGMENT_SIZE, Totals, compress_stream
from .progress import Progress
from .reference import Given, Reference, open_reference
from .segment import Source

if TYPE_CHECKING:
    from .model import Model

SUFFIX = ".lac"
Name = registry.Name
Names = Name | Sequence[Name]


def open_model(
    model: "Names | Model | None", engine: str | None = None, threads: int | None = None
) -> "Model | None":
    """The model to compress with: a checkpoint's name, path or id; None or "none" for no model.

    Several names, or one that means several, make one model, whose checkpoints predict together. An opened
    model is returned as it is.

    Raises:
        LaconicError: there is no such checkpoint, or it is damaged, or there is no such engine; or several do
            not share a vocabulary.
    """
    if model is None or model == "none":
        return None
    if not isinstance(model, str | os.PathLike | Sequence):
        return model
    from .model import ensemble

    names = [model] if isinstance(model, str | os.PathLike) else list(model)
    if names == ["none"]:
        return None
    if not names or "none" in names:
        raise LaconicError('"none" stands alone, and an empty list names nothing: name checkpoints, or none')
    return ensemble([registry.open_model(listing, engine, threads) for listing in registry.find_all(names)])


def decompress_stream(
    source: BinaryIO, target: BinaryIO | None, decoder: registry.Decoder, progress: Progress | None = None
) -> Totals:
    """Read a container to its end; each segment is verified before it is written (to nowhere, if None).

    Raises:
        LaconicError: the file is damaged or truncated, goes on after its end, or its checkpoint is not here.
    """
    reader, original = Source(source), 0
    shown = progress or Progress("", None, False)

    def sized() -> Iterator[tuple[Stored, int]]:
        """The segments, and the bytes that each takes in the file."""
        before = 0
        for stored in read_segments(reader):
            yield stored, reader.position - before
            before = reader.position

    def decode(item: tuple[Stored, int], check: Check) -> bytes:
        stored, size = item
        length = stored.segment.original_length
        shown.known(length, size)
        report = checked(check, shown.segment(size, length))
        data = restore(stored, lambda segment, checkpoint: decoder(segment, checkpoint, report))
        report(1.0)
        return data

    restored = in_order(decode, sized(), check_threads(decoder.threads), lambda: is_idle(source))
    with closing(restored):
        for data in restored:
            if target is not None:
                target.write(data)
            original += len(data)
    return Totals(original, reader.position)


def compress(
    data: bytes | bytearray | memoryview,
    model: "Names | Model | None" = "default",
    *,
    level: int | None = None,
    entropy: str = "range",
    engine: str | None = None,
    threads: int | None = None,
    streams: int | None = None,
    segment_size: int = SEGMENT_SIZE,
    reference: "Given | Reference | None" = None,
) -> bytes:
    """Compress bytes into a .lac container.

    Args:
        model: a checkpoint's name, path or id, several of one vocabulary, or what `open_model` returned; None
            or "none" for no model.
        level: 1 for the model alone, 2 (fast) to 9 (small) for more and more experts around it (None: 6).
        entropy: "range", what the levels are of; or "huffman", "rans", "tans": the checkpoint's tokens, or
            bytes where there is none, by tables that are sent, and raw where that is smaller. "rans" also
            takes level 1, the model's predictions.
        engine: what evaluates it (None: the fastest); the result is the same.
        threads: segments in work at the same time (None: as many as cores); the result is the same. Each
            takes memory of its own: some 350 MB for 8 MiB at the default level.
        streams: coded in lockstep, 1..4096 (None: by length).
        segment_size: bytes a segment; segments are decoded independently of each other.
        reference: bytes, or the path of a file, that decoding will need too: an earlier version, a template.

    Raises:
        LaconicError: there is no such checkpoint, engine, coder or reference, or a number is out of range.
    """
    target = io.BytesIO()
    known = open_reference(reference)
    loaded = open_model(model, engine, threads)
    encoder = Encoder(loaded, streams, level, entropy, known, threads)
    compress_stream(io.BytesIO(as_bytes(data)), target, encoder, segment_size)
    return target.getvalue()


def decompress(
    blob: bytes | bytearray | memoryview,
    model: "Names | Model | None" = None,
    *,
    engine: str | None = None,
    threads: int | None = None,
    memory: int | None = None,
    reference: "Given | Reference | None" = None,
) -> bytes:
    """The bytes that a .lac container holds, verified.

    Args:
        model: checkpoints beside those in the known folders; the container itself names what it needs.
        threads: segments in work at the same time (None: as many as cores).
        memory: bytes that the mixer of each segment in work may take (None: 1 GiB).
        reference: what the container was compressed against: bytes, or the path of a file.

    Raises:
        LaconicError: the container is damaged, or its checkpoint is not here, or it needs another reference.
    """
    target = io.BytesIO()
    known = open_reference(reference)
    decoder = registry.Decoder(extra_model(model), engine, threads, memory, known)
    decompress_stream(io.BytesIO(as_bytes(blob)), target, decoder)
    return target.getvalue()


def as_bytes(data: "bytes | bytearray | memoryview") -> bytes:
    """Raises LaconicError for what is none of these: io.BytesIO takes None for nothing."""
    if not isinstance(data, bytes | bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LaconicError(f"data of type {type(data).__name__}: give bytes, bytearray or memoryview")
    return bytes(data)


def extra_model(model: "Names | Model | None") -> "Names | Model | None":
    """What -m means when decoding: "default" and "none" add nothing to the known checkpoints."""
    if isinstance(model, Sequence) and not isinstance(model, str):
        return [name for name in model if name not in ("none", registry.DEFAULT)]
    return None if model in (None, "none", registry.DEFAULT) else model


class PendingFile:
    """A file written under a temporary name in its own folder, and renamed when it is complete.

    As a context manager it removes the temporary file unless `commit` was called. What is no regular file
    (a device, a pipe) is written directly.
    """

    def __init__(self, path: Name, force: bool, like: os.stat_result | None = None) -> None:
        """
        Args:
            force: replace what exists.
            like: status of the source, whose permissions and time of change the file will have.

        Raises:
            LaconicError: the path exists, is a folder, or lies in a folder that does not exist.
        """
        self.path = Path(path)
        self.force = force
        self.like = like
        self.temporary: Path | None = None
        self._check()
        if self.path.exists() and not self.path.is_file():
            self.file: BinaryIO = open(self.path, "wb")  # noqa: SIM115 - closed by commit and discard
            return
        self.temporary = self.path.parent / f".laconic-{secrets.token_hex(6)}.part"
        mode = 0o666 if like is None else stat.S_IMODE(like.st_mode) & 0o777 | stat.S_IWUSR
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            self.file = os.fdopen(os.open(self.temporary, flags, mode), "wb")
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def _check(self) -> None:
        if self.path.is_dir():
            raise LaconicError(f"{self.path} is a folder: name a file by -o")
        if not self.path.parent.is_dir():
            raise LaconicError(f"{self.path}: the folder {self.path.parent} does not exist; make it first")
        if not self.force and self.path.is_file():
            raise LaconicError(f"{self.path} exists: choose another by -o, or replace it by -f")

    def commit(self) -> None:
        """Bring everything to the disk and give the file its name."""
        if self.temporary is None:
            self.file.close()
            return
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        if self.like is not None:
            os.chmod(self.temporary, stat.S_IMODE(self.like.st_mode) & 0o777)
            os.utime(self.temporary, ns=(self.like.st_atime_ns, self.like.st_mtime_ns))
        self._check()
        os.replace(self.temporary, self.path)
        self.temporary = None

    def discard(self) -> None:
        """Close and remove what has not been committed; may be called at any time, and twice."""
        # A full disk is met again when closing flushes, and has been reported.
        with suppress(OSError):
            self.file.close()
        if self.temporary is not None:
            self.temporary.unlink(missing_ok=True)
            self.temporary = None

    def __enter__(self) -> "PendingFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()
