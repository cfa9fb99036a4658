"""From files to containers: read in order, coded by several at the same time, written in order.

The segments of all files go through the same lanes, so that many short files keep them as busy as one long
one. Whoever takes the results reads and writes, one segment after another.
"""

import hashlib
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import replace
from itertools import chain
from typing import BinaryIO, NamedTuple

from .container import Writer
from .encoder import Coded, Encodes, check_segment_size
from .errors import LaconicError
from .parallel import Check, checked, in_order, is_idle
from .progress import Progress
from .segment import Source

SEGMENT_SIZE = 1 << 23
FAILURES = (LaconicError, OSError, MemoryError)  # of one file: the others go on

Opened = AbstractContextManager[tuple[BinaryIO, BinaryIO]]  # to read from, and to write to


class Totals(NamedTuple):
    """Bytes of a file before and after compression."""

    original: int
    coded: int


class Part(NamedTuple):
    """A segment in the account of a file."""

    position: int
    coded_length: int
    coded: Coded  # without its payload


class Job:
    """A file on its way, and the account of it."""

    def __init__(self, name: str, opened: Opened) -> None:
        """`opened` is to let the result appear, or, left by an exception, nothing."""
        self.name = name
        self.over = False
        self.error: BaseException | None = None
        self.totals = Totals(0, 0)
        self.sha256 = "", ""  # of the original and of the container
        self.parts: list[Part] = []
        self.seconds = 0.0  # from opening it to closing it
        self.source: BinaryIO | None = None
        self._opened = opened
        self._context = ExitStack()
        self._target: BinaryIO | None = None
        self._writer: Writer | None = None
        self._digest = hashlib.sha256()
        self._begin = time.monotonic()

    def pieces(self, size: int) -> "Generator[Piece, None, None]":
        """Open the file and read its segments; then the end, also of what cannot be read any further."""
        self._begin, position = time.monotonic(), 0
        try:
            self.source, self._target = self._context.enter_context(self._opened)
            reader = Source(self.source)
            while not self.over and (data := reader.up_to(size)):
                yield Piece(self, position, data)
                position = reader.position
        except FAILURES as error:
            self.error = error
        yield Piece(self, position, b"")

    def add(self, piece: "Piece", coded: Coded, encoder: Encodes) -> None:
        """Write a segment."""
        try:
            self._write_to(encoder).add(coded.segment, piece.data)
        except FAILURES as error:
            return self.close(error)
        self._digest.update(piece.data)
        emptied = replace(coded.segment, payload=b"")
        self.parts.append(Part(piece.position, len(coded.segment.payload), coded._replace(segment=emptied)))

    def finish(self, length: int) -> None:
        """Write the end; `length` bytes have been read."""
        try:
            if self.error is not None:
                raise self.error
            writer = self._write_to(None)
            writer.finish()
        except FAILURES as error:
            return self.close(error)
        self.totals = Totals(length, writer.bytes_written)
        self.sha256 = self._digest.hexdigest(), writer.digest.hexdigest()
        self.close()

    def close(self, error: BaseException | None = None) -> None:
        """Let go of the file, which appears if there is no error; the second time nothing happens."""
        if self.over:
            return
        self.over, self.error = True, error
        self.seconds = time.monotonic() - self._begin
        try:
            self._context.__exit__(error and type(error), error, error and error.__traceback__)
        except FAILURES as last:
            self.error = last
        self.source = self._target = self._writer = None  # the last segment's bytes go with it

    def _write_to(self, encoder: Encodes | None) -> Writer:
        if self._writer is None:
            assert self._target is not None
            names = (None, None) if encoder is None else (encoder.prefixes, encoder.reference_name)
            self._writer = Writer(self._target, *names)
        return self._writer


class Piece(NamedTuple):
    """A segment that has been read; without data, the end of the file."""

    job: Job
    position: int
    data: bytes


_Result = tuple[Piece, Coded | BaseException | None]  # what became of it, or what failed; None for an end


def compress_files(
    jobs: Iterable[Job], encoder: Callable[[], Encodes], segment_size: int, progress: Progress
) -> Generator[Job, None, None]:
    """Compress files; each is yielded when it is over, in their order, and knows what failed, if anything.

    Args:
        encoder: called once, when there is something to code.

    Raises:
        LaconicError: segment_size is out of range, or `encoder` raises it.
    """
    check_segment_size(segment_size)
    begun: list[Job] = []

    def read() -> Generator[Piece, None, None]:
        for job in jobs:
            begun.append(job)
            yield from job.pieces(segment_size)

    def idle() -> bool:
        return is_idle(begun[-1].source)

    def code(piece: Piece, check: Check) -> _Result:
        if not piece.data or piece.job.over:
            return piece, None
        report = checked(check, progress.segment(len(piece.data), len(piece.data)))
        try:
            coded = encode(piece.position, piece.data, report)
        except FAILURES as error:
            return piece, error
        report(1.0)
        return piece, coded

    try:
        pieces = read()
        for piece in pieces:
            if piece.data:
                encode = encoder()
                results = in_order(code, chain([piece], pieces), encode.lanes, idle)
                yield from _written(results, encode, progress)
            else:
                piece.job.finish(0)
                yield piece.job
    finally:
        for job in begun:
            job.close(CancelledError())


def _written(
    results: Generator[_Result, None, None], encoder: Encodes, progress: Progress
) -> Generator[Job, None, None]:
    with closing(results):
        for piece, coded in results:
            job = piece.job
            if job.over:
                continue
            if isinstance(coded, BaseException):
                job.close(coded)
            elif coded is None:
                job.finish(piece.position)
            else:
                job.add(piece, coded, encoder)
                progress.known(len(piece.data), len(coded.segment.payload))
            if job.over:
                yield job


def compress_stream(
    source: BinaryIO,
    target: BinaryIO,
    encoder: Encodes,
    segment_size: int = SEGMENT_SIZE,
    progress: Progress | None = None,
) -> Totals:
    """Read to the end, segment by segment, and write a container.

    Raises:
        LaconicError: segment_size is out of range, or a segment cannot be coded.
    """
    job = Job("", nullcontext((source, target)))
    for _ in compress_files([job], lambda: encoder, segment_size, progress or Progress("", None, False)):
        pass
    if job.error is not None:
        raise job.error
    return job.totals
