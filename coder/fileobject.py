"""laconic.open: compressed files as Python file objects, in the manner of gzip.open."""

import io
import os
from bisect import bisect_right
from functools import partial
from types import TracebackType
from typing import IO, Any, BinaryIO, cast

from . import registry
from .access import read_layout, read_stored
from .container import Writer, restore
from .encoder import Encoder, check_segment_size
from .errors import LaconicError
from .files import SEGMENT_SIZE, Name, Names, PendingFile, extra_model, open_model
from .model import Model
from .parallel import Check, Lanes
from .reference import Given, Reference, open_reference
from .segment import Segment


class LacReader(io.RawIOBase):
    """The original bytes of a file, seekable; the segment last used is kept."""

    def __init__(self, file: BinaryIO, decoder: registry.Decoder) -> None:
        self._file = file
        self._decoder = decoder
        self._layout = read_layout(file)
        self._ends = [entry.position + entry.original_length for entry in self._layout.entries]
        self._position = 0
        self._kept: tuple[int, bytes] | None = None  # number of a segment, and its bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def _segment(self, number: int) -> bytes:
        if self._kept is None or self._kept[0] != number:
            entry = self._layout.entries[number]
            self._kept = number, restore(read_stored(self._file, self._layout.prologue, entry), self._decoder)
        return self._kept[1]

    def readinto(self, buffer: Any) -> int:
        number = bisect_right(self._ends, self._position)
        # An empty file has one empty segment, which is verified like any other.
        if number == len(self._ends) and self._layout.original_length:
            return 0
        number = min(number, len(self._ends) - 1)
        begin = self._position - self._layout.entries[number].position
        data = self._segment(number)[begin : begin + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._layout.original_length}[
            whence
        ]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} lies before the beginning")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class LacWriter(io.BufferedIOBase):
    """Compresses what is written to it; the file appears when it is closed.

    Left by an exception inside `with`, or never closed, it leaves nothing behind.
    """

    def __init__(self, pending: PendingFile, encoder: Encoder, segment_size: int) -> None:
        self.name = os.fspath(pending.path)
        self._pending = pending
        self._segment_size = segment_size
        self._buffer = bytearray()
        self._writer = Writer(pending.file, encoder.prefixes, encoder.reference_name)
        self._lanes = Lanes(partial(_encode, encoder), encoder.lanes)
        self._position = 0  # of the next segment
        self._failed = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.closed:
            raise ValueError("write to a closed file")
        view = memoryview(data).cast("B")
        self._buffer += view
        while len(self._buffer) >= self._segment_size:
            self._cut(self._segment_size)
        return len(view)

    def _cut(self, length: int) -> None:
        """Have a segment encoded, and write what is finished in its turn."""
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        try:
            self._lanes.put((self._position, data))
            self._position += length
            while self._lanes.full:
                self._writer.add(*self._lanes.take())
        except BaseException:
            self._failed = True  # a later close must not publish what is incomplete
            raise

    def close(self) -> None:
        if self.closed:
            return
        try:
            if not self._failed:
                if self._buffer:
                    self._cut(len(self._buffer))
                while self._lanes:
                    self._writer.add(*self._lanes.take())
                self._writer.finish()
                self._pending.commit()
        finally:
            self._lanes.close()
            self._pending.discard()
            super().close()

    def abort(self) -> None:
        """Close without leaving a file."""
        self._failed = True
        self.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        if hasattr(self, "_lanes"):
            self.abort()


def _encode(encoder: Encoder, item: tuple[int, bytes], check: Check) -> tuple[Segment, bytes]:
    position, data = item
    return encoder(position, data, lambda part: check()).segment, data


class _TextWriter(io.TextIOWrapper):
    """Text over a LacWriter, which must hear of exceptions."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            lac = self.buffer
            assert isinstance(lac, LacWriter)
            lac.abort()
        else:
            self.close()

    def __del__(self) -> None:
        lac = self.buffer
        assert isinstance(lac, LacWriter)
        lac.abort()


def open_file(
    path: Name,
    mode: str = "rb",
    model: Names | Model | None = "default",
    *,
    level: int | None = None,
    entropy: str = "range",
    engine: str | None = None,
    threads: int | None = None,
    streams: int | None = None,
    segment_size: int = SEGMENT_SIZE,
    memory: int | None = None,
    reference: Given | Reference | None = None,
    encoding: str = "utf-8",
    errors: str | None = None,
    newline: str | None = None,
) -> IO[Any]:
    """Open a .lac file as gzip.open opens a .gz.

    Args:
        mode: "rb", "wb" or "xb", or with "t" for text; "r", "w" and "x" mean bytes. "x" fails on what exists.
        model: to write, the checkpoint to use ("none": no model); to read, one more place to look.
        level, entropy, engine, threads, streams, segment_size: as for `compress`; what is read is decoded
            one segment at a time.
        memory: as for `decompress`.
        reference: as for both.
        encoding, errors, newline: of text, as for the built-in open.

    Returns:
        A file object. One that reads is seekable; one that writes lets the file appear when it is closed.

    Raises:
        LaconicError: as `compress` and `decompress`; also while reading and writing.
        ValueError: an unknown mode.
    """
    kind, text = mode.replace("t", "").replace("b", ""), "t" in mode
    if kind not in ("r", "w", "x") or sorted(mode) not in (
        sorted(kind),
        sorted(kind + "b"),
        sorted(kind + "t"),
    ):
        raise ValueError(f"mode {mode!r}: choose rb, wb, xb, rt, wt or xt")
    known = open_reference(reference)
    if kind == "r":
        decoder = registry.Decoder(extra_model(model), engine, threads, memory, known)
        if os.path.isdir(path):
            raise LaconicError(f"{os.fspath(path)} is a folder: name a file")
        file = open(path, "rb")  # noqa: SIM115 - the reader closes it
        try:
            reader = io.BufferedReader(LacReader(file, decoder))
        except BaseException:
            file.close()
            raise
        return io.TextIOWrapper(reader, encoding, errors, newline) if text else reader
    check_segment_size(segment_size)
    encoder = Encoder(open_model(model, engine, threads), streams, level, entropy, known, threads)
    writer = LacWriter(PendingFile(path, force=kind == "w"), encoder, segment_size)
    return cast(IO[Any], _TextWriter(writer, encoding, errors, newline) if text else writer)
