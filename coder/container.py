"""The .lac container, version 3, written and read as a stream. docs/format.md is normative.

A file of one segment is a prologue, a header, the payload and two checks; a file of many is a prologue,
segments that begin with a marker each, and an index. This module moves bytes and knows nothing of models;
`access.py` reads by seeking.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

from .errors import LaconicError
from .segment import (
    BY_MODEL,
    MAX_SEGMENT,
    METHOD_NAMES,
    MIXED,
    RAW,
    DamageError,
    Segment,
    Source,
    damaged,
    pack_header,
    pack_varint,
    truncated,
)

MAGIC = b"\xabLAC"
SEGMENT_MARK = b"\xb5SEG"
INDEX_MARK = b"\xb5IDX"
VERSION = 3
SINGLE, WITHOUT_CHECKPOINT, SEVERAL, WITH_REFERENCE = 1, 2, 4, 8  # flags
MAX_CHECKPOINTS = 8  # that a file names
MAX_POSITION = (1 << 56) - 1
PREFIX = 8  # bytes of the checkpoint's id
REFERENCE = 13  # bytes that name a reference
UNKNOWN = b""  # stands for the prefix, and for the reference's name, where a damaged head does not tell
CHECK = 4  # bytes of each check
DIGEST = 8  # bytes of the index's digest


Decode = Callable[[Segment, bytes | None], bytes]  # the segment and the prefix of its checkpoint's id


class Stored(NamedTuple):
    """A segment as found in a file, its stored check already verified."""

    segment: Segment
    position: int  # of its first byte in the original
    content_check: bytes
    checkpoint: bytes | None  # prefix of the id


@dataclass(frozen=True)
class Prologue:
    """What a file begins with."""

    single: bool
    checkpoint: bytes | None  # prefix of the id; of each id, joined, where several predict together
    reference: bytes | None = None  # its name, where there is one

    def pack(self) -> bytes:
        count = len(self.checkpoint or b"") // PREFIX
        flags = (SINGLE if self.single else 0) | (SEVERAL if count > 1 else 0)
        flags |= WITHOUT_CHECKPOINT if self.checkpoint is None else 0
        flags |= 0 if self.reference is None else WITH_REFERENCE
        number = bytes([count]) if count > 1 else b""
        return (
            MAGIC
            + bytes([VERSION << 4 | flags])
            + number
            + (self.checkpoint or b"")
            + (self.reference or b"")
        )


def check(*parts: bytes) -> bytes:
    """BLAKE2b of 4 bytes over the parts joined."""
    digest = hashlib.blake2b(digest_size=CHECK)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _with_payload(header: Segment, payload: bytes) -> Segment:
    """The segment, if its payload has a length that its method allows."""
    if header.method == RAW:
        sound = len(payload) == header.original_length
    else:
        sound = len(payload) < header.original_length
    if not sound:
        raise damaged(
            f"{len(payload)} bytes cannot hold {header.original_length} by {METHOD_NAMES[header.method]}"
        )
    return replace(header, payload=payload)


def read_prologue(source: Source) -> Prologue:
    """Raises LaconicError for what is no .lac file, or one of another version."""
    magic = source.up_to(len(MAGIC))
    if magic != MAGIC:
        if MAGIC.startswith(magic):
            raise truncated(len(magic))
        raise LaconicError(
            f"this is no .lac file: it begins with {magic.hex(' ')}, not {MAGIC.hex(' ')}; "
            "name one that laconic compress wrote"
        )
    version, flags = divmod(source.exactly(1)[0], 16)
    if version != VERSION:
        raise LaconicError(
            f"the file is of format version {version}, this laconic reads {VERSION}: "
            "install the laconic that wrote it"
        )
    if flags & SEVERAL and flags & WITHOUT_CHECKPOINT:
        raise damaged(f"flags {flags:#x} are reserved")
    count = 1
    if flags & SEVERAL:
        count = source.exactly(1)[0]
        if not 2 <= count <= MAX_CHECKPOINTS:
            raise damaged(
                f"{count} checkpoints at byte {source.position - 1}: 2 to {MAX_CHECKPOINTS} are allowed"
            )
    checkpoint = None if flags & WITHOUT_CHECKPOINT else source.exactly(count * PREFIX)
    if (
        checkpoint is not None
        and len({checkpoint[i : i + PREFIX] for i in range(0, count * PREFIX, PREFIX)}) < count
    ):
        raise damaged("it names a checkpoint twice")
    reference = source.exactly(REFERENCE) if flags & WITH_REFERENCE else None
    return Prologue(bool(flags & SINGLE), checkpoint, reference)


def _agree(header: Segment, checkpoint: bytes | None, reference: bytes | None) -> bool:
    """Whether a file that names this can hold a segment of this kind."""
    if header.learned is not None and reference is None:
        return False
    if header.method not in BY_MODEL:
        return True
    return checkpoint is not None and (header.method == MIXED or len(checkpoint) <= PREFIX)


def _named(segment: Segment, reference: bytes | None) -> Segment:
    """A segment that knows the reference which it needs."""
    return segment if segment.learned is None else replace(segment, reference=reference or UNKNOWN)


def read_marked(
    source: Source, checkpoint: bytes | None, offset: int, reference: bytes | None = None
) -> tuple[Stored, bytes]:
    """A segment of a file of many, from after its marker on; verified.

    Args:
        offset: of its marker in the file as it was written. The check covers it, so that the segments of a
            .lac file that lies within another's payload are not taken for the outer file's.
        reference: its name, None where the file has none.

    Returns:
        The segment and its two checks, as the index repeats them.
    """
    header = source.header()
    coded = source.varint(0, header.original_length, "the coded length")
    position = source.varint(0, MAX_POSITION, "the position")
    checks = source.exactly(2 * CHECK)
    segment = _with_payload(header, source.exactly(coded))
    if not segment.original_length:
        raise damaged("a segment of many is empty")
    if not _agree(segment, checkpoint, reference):
        raise damaged("method and flags contradict each other")
    content, stored = checks[:CHECK], checks[CHECK:]
    if check(pack_varint(offset), _marked_header(segment, position), content, segment.payload) != stored:
        raise damaged(f"the segment that ends at byte {source.position} does not match its checksum")
    return Stored(_named(segment, reference), position, content, checkpoint), checks


def read_single(source: Source, prologue: Prologue) -> Stored:
    """The one segment of a file of one, from after the prologue to the end; verified."""
    header = source.header()
    models, reference = header.method in BY_MODEL, header.learned is not None
    needed = (prologue.checkpoint is not None, prologue.reference is not None)
    if needed != (models, reference) or not _agree(header, prologue.checkpoint, prologue.reference):
        raise damaged("method and flags contradict each other")
    rest = source.up_to(header.original_length + 2 * CHECK)
    if len(rest) < 2 * CHECK:
        raise truncated(source.position)
    source.end()
    payload, content, stored = rest[: -2 * CHECK], rest[-2 * CHECK : -CHECK], rest[-CHECK:]
    if check(prologue.pack(), pack_header(header), payload, content) != stored:
        raise damaged("its content does not match its checksum, or its end is missing")
    segment = _named(_with_payload(header, payload), prologue.reference)
    return Stored(segment, 0, content, prologue.checkpoint)


def restore(stored: Stored, decode: Decode) -> bytes:
    """The original bytes of a segment.

    Raises:
        DamageError: they are not those that were coded.
    """
    data = decode(stored.segment, stored.checkpoint)
    if check(data) != stored.content_check:
        raise DamageError(
            f"the {stored.segment.original_length} bytes from {stored.position} on decode to something else, "
            "though the file is as it was written: try --engine numpy"
        )
    return data


def _marked_header(segment: Segment, position: int) -> bytes:
    return pack_header(segment) + pack_varint(len(segment.payload)) + pack_varint(position)


class _Index:
    """Collects what the end of a file of many says; writer and reader build the same bytes."""

    def __init__(self, prologue: Prologue) -> None:
        self.prologue = prologue
        self.entries = bytearray()
        self.count = 0

    def add(self, size: int, original_length: int, checks: bytes) -> None:
        self.entries += pack_varint(size) + pack_varint(original_length) + checks
        self.count += 1

    def pack(self) -> bytes:
        index = INDEX_MARK + pack_varint(self.count) + self.entries
        digest = index_digest(self.prologue, index)
        return index + digest + (len(index) + DIGEST).to_bytes(4, "little")


def index_digest(prologue: Prologue, index: bytes) -> bytes:
    """The digest of the whole: the index repeats every segment's checks, so that this binds every byte."""
    return hashlib.blake2b(prologue.pack() + index, digest_size=DIGEST).digest()


def read_segments(source: Source) -> Iterator[Stored]:
    """Every segment of a file or pipe, from its first byte on, each verified; then its end.

    Raises:
        LaconicError: what is no .lac file, truncated, damaged anywhere, or goes on after its end. It may come
            after sound segments.
    """
    prologue = read_prologue(source)
    if prologue.single:
        yield read_single(source, prologue)
        return
    index, position, number = _Index(prologue), 0, 0
    while True:
        start = source.position
        mark = source.exactly(len(SEGMENT_MARK))
        if mark == INDEX_MARK:
            break
        if mark != SEGMENT_MARK:
            raise damaged(f"neither a segment nor the index begins at byte {start}")
        stored, checks = read_marked(source, prologue.checkpoint, start, prologue.reference)
        if stored.position != position:
            raise damaged(
                f"segment {number} begins at {stored.position} of the original, expected was {position}"
            )
        index.add(source.position - start, stored.segment.original_length, checks)
        position += stored.segment.original_length
        number += 1
        yield stored
    if not number:
        raise damaged("it holds no segment")
    expected = index.pack()[len(INDEX_MARK) :]
    if source.exactly(len(expected)) != expected:
        raise damaged(f"the index at byte {start} does not match the {number} segments before it")
    source.end()


class Writer:
    """Writes segments as they come; one is held back, for a file of one segment has a shorter form."""

    def __init__(self, target: BinaryIO, prefix: bytes | None, reference: bytes | None = None) -> None:
        """
        Args:
            prefix: `Model.prefixes`, or None where no segment will need a model.
            reference: `Reference.name`, or None where no segment will need one.
        """
        self.target = target
        self.prefix = prefix
        self.reference = reference
        self.index = _Index(Prologue(False, self.prefix, self.reference))
        self.position = 0
        self.bytes_written = 0
        self.digest = hashlib.sha256()  # of what is written
        self.held: tuple[Segment, bytes] | None = None

    def _write(self, data: bytes) -> None:
        self.target.write(data)
        self.digest.update(data)
        self.bytes_written += len(data)

    def add(self, segment: Segment, original: bytes) -> None:
        """Take the next segment, whose original bytes are not empty."""
        assert 0 < len(original) == segment.original_length <= MAX_SEGMENT
        content = check(original)
        if self.held is not None:
            if self.index.count == 0:
                self._write(self.index.prologue.pack())
            self._write_marked(*self.held)
        self.held = segment, content

    def _write_marked(self, segment: Segment, content: bytes) -> None:
        header = _marked_header(segment, self.position)
        checks = content + check(pack_varint(self.bytes_written), header, content, segment.payload)
        self._write(SEGMENT_MARK + header + checks)
        self._write(segment.payload)
        size = len(SEGMENT_MARK) + len(header) + len(checks) + len(segment.payload)
        self.index.add(size, segment.original_length, checks)
        self.position += segment.original_length

    def finish(self) -> None:
        """Write what is held back and the end; nothing is added after it."""
        if self.held is not None and self.index.count:
            self._write_marked(*self.held)
            self._write(self.index.pack())
            return
        segment, content = self.held or (Segment(RAW, 0, b""), check())
        prefix = self.prefix if segment.method in BY_MODEL else None
        reference = None if segment.learned is None else self.reference
        prologue = Prologue(True, prefix, reference).pack()
        header = pack_header(segment)
        self._write(prologue + header)
        self._write(segment.payload)
        self._write(content + check(prologue, header, segment.payload, content))
