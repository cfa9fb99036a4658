"""Containers read by seeking: the index, any byte range, and what is sound of a damaged file."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from typing import BinaryIO, NamedTuple

from .container import (
    CHECK,
    DIGEST,
    INDEX_MARK,
    MAX_CHECKPOINTS,
    MAX_POSITION,
    PREFIX,
    REFERENCE,
    SEGMENT_MARK,
    UNKNOWN,
    Decode,
    Prologue,
    Stored,
    index_digest,
    read_marked,
    read_prologue,
    read_single,
    restore,
)
from .errors import LaconicError
from .limits import MemoryLimitError
from .segment import MAX_SEGMENT, DamageError, Segment, Source, damaged

_SMALLEST = 15  # bytes of a file: that of the empty original
_FOOTER = 4  # bytes of the index's length
# Without a checkpoint, with one, and with several and their number.
_NAMING_CHECKPOINTS = (5, 5 + PREFIX, *(6 + count * PREFIX for count in range(2, MAX_CHECKPOINTS + 1)))
_PROLOGUE_SIZES = (*_NAMING_CHECKPOINTS, *(size + REFERENCE for size in _NAMING_CHECKPOINTS))
_PIECE = 1 << 20


@dataclass(frozen=True)
class Entry:
    """Where a segment lies."""

    offset: int  # in the file
    size: int
    position: int  # in the original
    original_length: int
    checks: bytes  # empty in a file of one segment, which has no index


@dataclass(frozen=True)
class Layout:
    """What a file says of itself, the index verified."""

    prologue: Prologue
    entries: list[Entry]
    original_length: int
    size: int  # of the file


def read_layout(file: BinaryIO) -> Layout:
    """Find the segments of a seekable file without reading them.

    Raises:
        LaconicError: it is no .lac file, or its head or index is damaged.
    """
    size = file.seek(0, os.SEEK_END)
    source = _at(file, 0)
    prologue = read_prologue(source)
    begin = source.position
    if prologue.single:
        length = source.header().original_length
        return Layout(prologue, [Entry(begin, size - begin, 0, length, b"")], length, size)
    index = _read_index(file, size)
    index.verify(prologue)
    if index.span != index.start - begin:
        raise damaged("the index does not cover the file")
    entries = index.placed(begin)
    return Layout(prologue, entries, sum(entry.original_length for entry in entries), size)


@dataclass(frozen=True)
class _Index:
    """An index as found, not verified."""

    start: int  # in the file
    content: bytes  # before the digest
    digest: bytes
    entries: list[Entry]  # with offsets that count from the first segment

    @property
    def span(self) -> int:
        """Bytes of all segments as they were written."""
        return sum(entry.size for entry in self.entries)

    def verify(self, prologue: Prologue) -> None:
        """Raises DamageError where it is not the index that was written after this prologue."""
        if index_digest(prologue, self.content) != self.digest:
            raise damaged("the index does not match its digest")

    def placed(self, begin: int) -> list[Entry]:
        """The entries in a file whose first segment begins at `begin`."""
        return [replace(entry, offset=begin + entry.offset) for entry in self.entries]


def _read_index(file: BinaryIO, size: int) -> _Index:
    """Parse what the last bytes of a file say is its index."""
    if size < len(INDEX_MARK) + 1 + DIGEST + _FOOTER:
        raise damaged("its index is missing")
    length = int.from_bytes(_at(file, size - _FOOTER).exactly(_FOOTER), "little")
    start, end = size - _FOOTER - length, size - _FOOTER - DIGEST
    if start < 0 or end - start < len(INDEX_MARK) + 1:
        raise damaged("its last bytes do not say where the index begins")
    content = _at(file, start).exactly(end - start)
    source = Source(BytesIO(content))
    if source.exactly(len(INDEX_MARK)) != INDEX_MARK:
        raise damaged("its last bytes do not say where the index begins")
    entries: list[Entry] = []
    offset = position = 0
    for _ in range(source.varint(1, len(content), "the number of segments")):
        span = source.varint(1, MAX_POSITION, "the size of a segment")
        original = source.varint(1, MAX_SEGMENT, "the original length of a segment")
        entries.append(Entry(offset, span, position, original, source.exactly(2 * CHECK)))
        offset += span
        position += original
    if source.position != len(content) or position > MAX_POSITION:
        raise damaged("the index does not end where it should")
    return _Index(start, content, _at(file, end).exactly(DIGEST), entries)


def _at(file: BinaryIO, offset: int) -> Source:
    file.seek(offset)
    return Source(file, offset)


def read_stored(file: BinaryIO, prologue: Prologue, entry: Entry) -> Stored:
    """A segment, verified against its own check and the index."""
    source = _at(file, entry.offset)
    if prologue.single:
        return read_single(source, prologue)
    if source.exactly(len(SEGMENT_MARK)) != SEGMENT_MARK:
        raise damaged(f"no segment begins at byte {entry.offset}")
    stored, checks = read_marked(source, prologue.checkpoint, entry.offset, prologue.reference)
    found = (source.position - entry.offset, stored.position, checks)
    if found != (entry.size, entry.position, entry.checks):
        raise damaged(f"the segment at byte {entry.offset} is not the one in the index")
    return stored


def read_header(file: BinaryIO, layout: Layout, entry: Entry) -> tuple[Segment, int]:
    """Method and lengths of a segment, without its payload; and the length of that. Not verified."""
    source = _at(file, entry.offset + (0 if layout.prologue.single else len(SEGMENT_MARK)))
    header = source.header()
    if layout.prologue.single:
        return header, max(0, layout.size - source.position - 2 * CHECK)
    return header, source.varint(0, header.original_length, "the coded length")


def read_range(file: BinaryIO, begin: int, end: int, decode: Decode) -> Iterator[bytes]:
    """Bytes begin <= i < end of the original, as far as it goes, in pieces.

    Only the segments that hold them are read, verified and decoded.
    """
    layout = read_layout(file)
    for entry in layout.entries:
        first, last = max(begin, entry.position), min(end, entry.position + entry.original_length)
        if first < last:
            data = restore(read_stored(file, layout.prologue, entry), decode)
            yield data[first - entry.position : last - entry.position]


class Piece(NamedTuple):
    """Bytes begin <= i < end of the original.

    Where data is None they are lost, with an end that may be unknown, or passed over: `refused` says why.
    """

    begin: int
    end: int | None
    data: bytes | None
    refused: str = ""


def recover(file: BinaryIO, decode: Decode) -> Iterator[Piece]:
    """Every sound segment of a seekable file, in order, and the ranges that are lost between and after them.

    With a sound index that fits the file its segments are tried. Otherwise they are found by their markers
    and say where they belong; without an index the last piece is lost with an unknown end, for nothing says
    how long the original was. A segment that asks for more memory than is allowed is passed over.

    Raises:
        LaconicError: not one segment can be restored, or a checkpoint that is needed is not here.
    """
    left = _what_is_left(file)
    expected, anything, wrong = 0, False, False
    waiting: list[Piece] = []  # refused, until something is restored
    for stored in left.segments:
        data, refused = None, ""
        try:
            data = _restore(stored, decode, left.total is None)
        except DamageError:
            wrong = True
            continue
        except MemoryLimitError as error:
            refused = str(error)
        except LaconicError as error:
            raise _blame_head(left.head, error) from None
        if stored.position > expected:
            waiting.append(Piece(expected, stored.position, None))
        expected = stored.position + stored.segment.original_length
        waiting.append(Piece(stored.position, expected, data, refused))
        if data is not None:
            anything = True
        if anything:
            yield from waiting
            waiting.clear()
    if not anything:
        raise _nothing(file, left, wrong, next((piece.refused for piece in waiting if piece.refused), ""))
    if left.total is None or left.total > expected:
        yield Piece(expected, left.total, None)


def _blame_head(head: LaconicError | None, error: LaconicError) -> LaconicError:
    """A checkpoint is not here: what is no .lac file of this version is told that first."""
    if head is None or isinstance(head, DamageError):
        return error
    return LaconicError(f"{head}; or, where only its head is damaged, {error}")


def _nothing(file: BinaryIO, left: "_Left", wrong: bool, refused: str) -> LaconicError:
    """Why nothing was restored; `wrong`: something was decoded, to something else."""
    size = file.seek(0, os.SEEK_END)
    if refused:
        return MemoryLimitError(refused)
    if size < _SMALLEST:
        why = f"it has {size} bytes, the smallest .lac file has {_SMALLEST}; get it again"
    elif wrong:
        why = "its segments decode to something else; name its own checkpoint by -m, or get it again"
    elif left.head is not None and not isinstance(left.head, DamageError):
        why = str(left.head)
    elif left.single:
        why = "its only segment is damaged, or not all there; get it again"
    else:
        why = "none of its segments is sound; get it again"
    return LaconicError(f"nothing of this file can be restored: {why}")


def _restore(stored: Stored, decode: Decode, head_in_doubt: bool) -> bytes:
    """As `restore`; what is not here may have a damaged name, where the head is in doubt."""
    try:
        return restore(stored, decode)
    except (DamageError, MemoryLimitError):
        raise
    except LaconicError as error:
        if not head_in_doubt:
            raise
        not_here = error
    nameless = (
        stored.segment if stored.segment.learned is None else replace(stored.segment, reference=UNKNOWN)
    )
    for segment, checkpoint in (
        (stored.segment, UNKNOWN), (nameless, stored.checkpoint), (nameless, UNKNOWN),
    ):  # fmt: skip
        if (segment, checkpoint) == (stored.segment, stored.checkpoint):
            continue
        try:
            return restore(stored._replace(segment=segment, checkpoint=checkpoint), decode)
        except (DamageError, MemoryLimitError):
            raise
        except LaconicError:
            continue
    raise not_here


class _Left(NamedTuple):
    """What is left of a file."""

    segments: Iterator[Stored]  # whose stored check holds
    total: int | None  # length of the original, where anything sound tells it
    single: bool = False  # it says that it is of one segment
    head: LaconicError | None = None  # why its head is not believed


def _what_is_left(file: BinaryIO) -> _Left:
    size = file.seek(0, os.SEEK_END)
    source = _at(file, 0)
    single, head = False, None
    try:
        prologue = read_prologue(source)
        if prologue.single:
            single = True
            layout = read_layout(file)
            return _Left(_indexed(file, layout), layout.original_length, single)
    except LaconicError as error:
        prologue, head = Prologue(False, UNKNOWN), error
    # A head that nothing confirms is not believed where it says that no segment needs a checkpoint, or a
    # reference.
    doubted = Prologue(False, prologue.checkpoint or UNKNOWN, prologue.reference or UNKNOWN)
    try:
        index = _read_index(file, size)
    except LaconicError:
        return _Left(_scanned(file, doubted, [0]), None, single, head)
    try:
        index.verify(prologue)
    except LaconicError:
        shifts = [0, *(index.start - index.span - begin for begin in _PROLOGUE_SIZES)]
        return _Left(_scanned(file, doubted, shifts), None, single, head)
    begin, total = source.position, sum(entry.original_length for entry in index.entries)
    shift = index.start - index.span - begin
    if shift:  # bytes are missing or too many; or it is another file's index, at the end of what is left
        return _Left(_scanned(file, prologue, [0, shift]), total)
    return _Left(_indexed(file, Layout(prologue, index.placed(begin), total, size)), total)


def _indexed(file: BinaryIO, layout: Layout) -> Iterator[Stored]:
    """The segments of a layout that are sound."""
    for entry in layout.entries:
        with suppress(DamageError):
            yield read_stored(file, layout.prologue, entry)


def _scanned(file: BinaryIO, prologue: Prologue, shifts: list[int]) -> Iterator[Stored]:
    """Segments found by their markers, none beginning in the original before the last one ended.

    They are where they were written, or shifted by one of `shifts` bytes.
    """
    offset, expected = _find_mark(file, 0), 0
    while offset is not None:
        after = offset + 1
        for shift in shifts:
            source = _at(file, offset + len(SEGMENT_MARK))
            try:
                where = max(0, offset - shift)
                stored, _ = read_marked(source, prologue.checkpoint, where, prologue.reference)
            except DamageError:
                continue
            if stored.position >= expected:
                after = source.position
                expected = stored.position + stored.segment.original_length
                yield stored
            break
        offset = _find_mark(file, after)


def _find_mark(file: BinaryIO, offset: int) -> int | None:
    """Where the next marker of a segment begins, at or after `offset`."""
    window = b""
    file.seek(offset)
    while piece := file.read(_PIECE):
        window = window[-(len(SEGMENT_MARK) - 1) :] + piece
        found = window.find(SEGMENT_MARK)
        if found >= 0:
            return file.tell() - len(window) + found
    return None
