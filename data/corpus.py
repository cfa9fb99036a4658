"""A corpus of any size: sources of bytes, cut into documents, read as a stream."""

import copy
import os
from collections.abc import Iterator
from typing import BinaryIO

from ..coder.errors import LaconicError
from .sources import PlainFile, Skips, SourceFile, Unreadable, resolve
from .splits import Split, split_of

LEAST_BYTES = 20_000
DOCUMENTS_AIMED_AT = 400  # of a small corpus, so that its splits have some each
LEAST_BOUND, LARGEST_BOUND = 512, 65_536


class Corpus:
    """Documents of bytes, exactly as stored; `sources` describes what names them.

    A document is a file, or a row of a source that `datasets` reads. Longer ones than a bound are cut into
    several, after the last newline in the bound's second half where there is one. The same sources give the
    same documents in the same order; nothing but the list of files is held in memory.

    Attributes:
        sources: as given.
        units: what is read one after the other: files, and data sets of the hub.
        files: the local files that are named, in order.
        total_bytes: of the plain files; rows are not counted, for nothing has read them yet.
        max_document_bytes: the bound for plain files: total_bytes // 400, within 512 and 65,536. It is 65,536
            for rows.
        skips: files that were left out until now, and why.
        sample_bytes: how much it was reduced to by `sample`, else None.
    """

    def __init__(
        self,
        sources: list[str],
        max_document_bytes: int | None = None,
        exclude: str | os.PathLike[str] | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        """Look at every source, and read none.

        Args:
            sources: names of sources: see `laconic.data.sources`.
            max_document_bytes: another bound than the one that follows from the size, for all sources.
            exclude: a folder whose files are left out, such as the one that a run writes into.
            skip_unreadable: leave files out from where they cannot be read, in place of refusing them.

        Raises:
            LaconicError: a source is missing, empty, unreadable or malformed, or all of them are too small.
        """
        self.sources = list(sources)
        self.skips, self.skip_unreadable = Skips(), skip_unreadable
        self.units = resolve(self.sources, exclude, self.skips if skip_unreadable else None)
        self.files: list[SourceFile] = [unit.file for unit in self.units if unit.file is not None]
        plain = [unit.file.size for unit in self.units if isinstance(unit, PlainFile)]
        self.total_bytes = sum(plain)
        if len(plain) == len(self.units):
            require_enough(self.total_bytes)
        bound = min(max(self.total_bytes // DOCUMENTS_AIMED_AT, LEAST_BOUND), LARGEST_BOUND)
        self.max_document_bytes = max_document_bytes or bound
        self._max_row_bytes = max_document_bytes or LARGEST_BOUND
        self.sample_bytes: int | None = None
        self._unit_bytes: int | None = None  # after which a unit is left; None: never

    def __iter__(self) -> Iterator[bytes]:
        """Every document; none is empty.

        Raises:
            LaconicError: a source cannot be read.
        """
        for number in range(len(self.units)):
            num_bytes = 0
            for documents, _ in self.read(number):
                yield from documents
                num_bytes += sum(map(len, documents))
                if self._unit_bytes is not None and num_bytes >= self._unit_bytes:
                    break

    def read(self, number: int, start: int = 0) -> Iterator[tuple[list[bytes], int]]:
        """The documents of one unit from a place on: (a few, the place after them).

        Args:
            start: 0, or a place that was given before: bytes of a plain file, or rows.

        Raises:
            LaconicError: the source cannot be read.
        """
        unit = self.units[number]
        try:
            if isinstance(unit, PlainFile):
                for document in _file_documents(unit.file.path, self.max_document_bytes, start):
                    start += len(document)
                    yield [document], start
            else:
                for value, after in unit.values(start):
                    yield list(cut(value, self._max_row_bytes)), after
        except Unreadable as error:
            if not self.skip_unreadable:
                raise
            self.skips.add(error)

    def sample(self, num_bytes: int) -> "Corpus":
        """Some `num_bytes` from the beginnings of all units, or of some at equal distances of many.

        What is smaller is read whole. Its documents are documents of this corpus.
        """
        sizes = [num_bytes if unit.file is None else unit.file.size for unit in self.units]
        document = self.max_document_bytes if self.total_bytes else self._max_row_bytes
        least = max(1, min(document, sum(sizes) // len(sizes)))
        step = max(1, len(sizes) * least // num_bytes)
        part = copy.copy(self)
        part.units = self.units[::step]
        part._unit_bytes = max(least, _level(sizes[::step], num_bytes))
        part.total_bytes = min(self.total_bytes, num_bytes)
        part.sample_bytes = num_bytes
        return part

    def documents(
        self, split: Split, validation_share: float = 0.02, test_share: float = 0.02
    ) -> Iterator[bytes]:
        """The documents of one split."""
        for document in self:
            if split_of(document, validation_share, test_share) == split:
                yield document


def _level(sizes: list[int], num_bytes: int) -> int:
    """The most to take of each, so that together it is `num_bytes`: small ones whole, of others the same."""
    left = num_bytes
    for number, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - number)
        if size > share:
            return share
        left -= size
    return num_bytes


def require_enough(num_bytes: int) -> None:
    """Refuse a corpus from which nothing can be learnt.

    Raises:
        LaconicError: it has fewer than 20,000 bytes.
    """
    if num_bytes < LEAST_BYTES:
        what = f"holds {num_bytes:,} bytes" if num_bytes else "is empty"
        raise LaconicError(f"the corpus {what}, at least {LEAST_BYTES:,} bytes are needed: give more text")


def _end(data: bytes, begin: int, bound: int) -> int:
    """Where the document ends that begins at `begin`, of data longer than `bound` from there."""
    newline = data.rfind(b"\n", begin + bound // 2, begin + bound)
    return newline + 1 if newline >= 0 else begin + bound


def cut(data: bytes, bound: int) -> Iterator[bytes]:
    """Documents of at most `bound` bytes that put end to end are `data`."""
    begin = 0
    while len(data) - begin > bound:
        end = _end(data, begin, bound)
        yield data[begin:end]
        begin = end
    if begin < len(data):
        yield data[begin:]


def _file_documents(path: str, bound: int, start: int) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            yield from _stream_documents(file, bound)
    except OSError as error:
        raise Unreadable(f"cannot read {path}: {error.strerror}", path) from None


def _stream_documents(file: BinaryIO, bound: int) -> Iterator[bytes]:
    """As `cut`, with at most two bounds of the file in memory."""
    rest = b""
    while block := file.read(bound + 1 - len(rest)):
        rest += block
        if len(rest) > bound:
            end = _end(rest, 0, bound)
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest
