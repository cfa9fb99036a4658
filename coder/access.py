"""Containers read by seeking: the index, any byte range, and what is sound of a damaged file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from .container import (
    CHECK,
    DIGEST,
    INDEX_MARK,
    MAX_POSITION,
    MAX_SEGMENT,
    SEGMENT_MARK,
    DamageError,
    Decode,
    Prologue,
    Segment,
    Source,
    Stored,
    damaged,
    index_digest,
    read_marked,
    read_prologue,
    read_single,
    restore,
)
from .errors import LaconicError

_FOOTER = 4  # bytes of the index's length
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
    if size - begin < len(INDEX_MARK) + 1 + DIGEST + _FOOTER:
        raise damaged("its index is missing")
    index_length = int.from_bytes(_at(file, size - _FOOTER).exactly(_FOOTER), "little")
    start = size - _FOOTER - index_length
    if start < begin or index_length < len(INDEX_MARK) + 1 + DIGEST:
        raise damaged("its last bytes do not say where the index begins")
    index = _at(file, start).exactly(index_length - DIGEST)
    if index_digest(prologue, index) != _at(file, size - _FOOTER - DIGEST).exactly(DIGEST):
        raise damaged("the index does not match its digest")
    entries = _parse_index(_at(file, start), begin, start)
    return Layout(prologue, entries, sum(entry.original_length for entry in entries), size)


def _parse_index(source: Source, begin: int, start: int) -> list[Entry]:
    if source.exactly(len(INDEX_MARK)) != INDEX_MARK:
        raise damaged("its last bytes do not say where the index begins")
    entries: list[Entry] = []
    offset, position = begin, 0
    for _ in range(source.varint(1, start, "the number of segments")):
        size = source.varint(1, start - begin, "the size of a segment")
        original = source.varint(1, MAX_SEGMENT, "the original length of a segment")
        entries.append(Entry(offset, size, position, original, source.exactly(2 * CHECK)))
        offset += size
        position += original
        if offset > start or position > MAX_POSITION:
            break
    if offset != start:
        raise damaged("the index does not cover the file")
    return entries


def _at(file: BinaryIO, offset: int) -> Source:
    file.seek(offset)
    return Source(file, offset)


def read_stored(file: BinaryIO, layout: Layout, entry: Entry) -> Stored:
    """A segment, verified against its own check and the index."""
    source = _at(file, entry.offset)
    if layout.prologue.single:
        return read_single(source, layout.prologue)
    if source.exactly(len(SEGMENT_MARK)) != SEGMENT_MARK:
        raise damaged(f"no segment begins at byte {entry.offset}")
    stored, checks = read_marked(source, layout.prologue.checkpoint)
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
            data = restore(read_stored(file, layout, entry), decode)
            yield data[first - entry.position : last - entry.position]


class Piece(NamedTuple):
    """Bytes begin <= i < end of the original; lost where data is None, with an end that may be unknown."""

    begin: int
    end: int | None
    data: bytes | None


def recover(file: BinaryIO, decode: Decode) -> Iterator[Piece]:
    """Every sound segment of a seekable file, in order, and the ranges that are lost between and after them.

    Head and index may be damaged too: segments are found by their markers and say where they belong. Without
    the index, the last piece is lost with an unknown end, for nothing says how long the original was.

    Raises:
        LaconicError: there is no sound segment at all, or a checkpoint that is needed is not here.
    """
    prologue, total = _what_is_left(file)
    if prologue is not None and prologue.single:
        try:
            data = restore(read_stored(file, layout := read_layout(file), layout.entries[0]), decode)
            yield Piece(0, len(data), data)
            return
        except DamageError:
            pass
    expected = 0
    for stored in _sound_segments(file, None if prologue is None else prologue.checkpoint):
        try:
            data = restore(stored, decode)
        except DamageError:
            continue
        if stored.position > expected:
            yield Piece(expected, stored.position, None)
        expected = stored.position + len(data)
        yield Piece(stored.position, expected, data)
    if expected == 0 and total != 0:
        raise LaconicError("nothing of this file is sound: get it again")
    if total is None or total > expected:
        yield Piece(expected, total, None)


def _what_is_left(file: BinaryIO) -> tuple[Prologue | None, int | None]:
    """The prologue and the original length, where they can be read and, the second, be trusted."""
    try:
        prologue = read_prologue(_at(file, 0))
    except LaconicError:
        return None, None
    try:
        return prologue, None if prologue.single else read_layout(file).original_length
    except LaconicError:
        return prologue, None


def _sound_segments(file: BinaryIO, checkpoint: bytes | None) -> Iterator[Stored]:
    """Segments whose stored check holds, none beginning in the original before the last one ended."""
    offset, expected = _find_mark(file, 0), 0
    while offset is not None:
        source = _at(file, offset + len(SEGMENT_MARK))
        after = offset + 1
        try:
            stored, _ = read_marked(source, checkpoint)
        except DamageError:
            pass
        else:
            if stored.position >= expected:
                after = source.position
                expected = stored.position + stored.segment.original_length
                yield stored
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
