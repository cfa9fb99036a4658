"""A segment: its methods, its header, and how numbers are read. docs/format.md is normative."""

from dataclasses import dataclass
from typing import BinaryIO

from .errors import LaconicError

RAW, MODEL, LZMA, MIXED, EXPERTS, BYTES, TOKENS, RANS = range(8)  # methods
METHOD_NAMES = (
    "raw", "model", "lzma", "mixed", "experts", "bytes by table", "tokens by table", "model by rans",
)  # fmt: skip
BY_MODEL = (MODEL, MIXED, TOKENS, RANS)  # methods that need the checkpoint
IN_STREAMS = (MODEL, MIXED, RANS)
AT_LEVELS = (MIXED, EXPERTS)
BY_TABLE = (BYTES, TOKENS)
ENTROPY = ("range", "huffman", "rans", "tans")  # coders by number; the first is no coder of tables
MAX_SEGMENT = 1 << 28  # original bytes of a segment
MAX_STREAMS = 4096
AGAINST = 0x80  # of the byte that tells the method: the segment is coded against the file's reference
MAX_REFERENCE = (1 << 40) - 1  # bytes
MAX_LEARNED = 1 << 24  # bytes of it that a segment is prepared by
_PIECE = 1 << 20


class DamageError(LaconicError):
    """The file is not what was written."""


@dataclass(frozen=True)
class Segment:
    """A coded stretch of the original."""

    method: int
    original_length: int
    payload: bytes
    tokens: int = 0  # BY_MODEL
    streams: int = 0  # IN_STREAMS
    profile: int = 0  # AT_LEVELS: level and size of the mixer; BY_TABLE: number of the coder
    learned: tuple[int, int] | None = None  # against a reference: where the part of it begins, and its length
    reference: bytes = b""  # `Reference.name`, as the file's prologue tells it; no part of the header


def pack_varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first, the high bit set on all bytes but the last."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def pack_header(segment: Segment) -> bytes:
    """Method and lengths, without the coded length, which only segments of many carry."""
    against = 0 if segment.learned is None else AGAINST
    header = bytes([segment.method | against]) + pack_varint(segment.original_length)
    if segment.method in BY_MODEL:
        header += pack_varint(segment.tokens)
    if segment.method in IN_STREAMS:
        header += pack_varint(segment.streams)
    if segment.method in (*AT_LEVELS, *BY_TABLE):
        header += bytes([segment.profile])
    if segment.learned is not None:
        header += b"".join(map(pack_varint, segment.learned))
    return header


class Source:
    """Reads exact amounts from a file or pipe, and knows how far it is."""

    def __init__(self, stream: BinaryIO, position: int = 0) -> None:
        self.stream = stream
        self.position = position

    def up_to(self, count: int) -> bytes:
        """`count` bytes, fewer only at the end; memory grows with what is there, not with what is claimed."""
        pieces: list[bytes] = []
        while count > 0:
            piece = self.stream.read(min(count, _PIECE))
            if not piece:
                break
            pieces.append(piece)
            count -= len(piece)
            self.position += len(piece)
        return b"".join(pieces)

    def exactly(self, count: int) -> bytes:
        data = self.up_to(count)
        if len(data) < count:
            raise truncated(self.position)
        return data

    def varint(self, low: int, high: int, name: str) -> int:
        start, value, shift = self.position, 0, 0
        while True:
            byte = self.exactly(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if value > high or shift > 63:
                break
        if (byte == 0 and shift > 7) or byte > 127 or not low <= value <= high:
            raise damaged(f"{name} at byte {start} is no number from {low} to {high}")
        return value

    def header(self) -> Segment:
        """Method and lengths of a segment, its payload still empty."""
        first = self.exactly(1)[0]
        method, against = first & ~AGAINST, first & AGAINST
        if method >= len(METHOD_NAMES) or (against and method not in AT_LEVELS):
            raise damaged(
                f"method {first} at byte {self.position - 1} is unknown, if it is not of a newer laconic"
            )
        original = self.varint(0, MAX_SEGMENT, "the original length")
        tokens = streams = profile = 0
        if method in BY_MODEL:
            tokens = self.varint(1, max(1, original), "the number of tokens")
        if method in IN_STREAMS:
            streams = self.varint(1, 1 if against else min(tokens, MAX_STREAMS), "the number of streams")
        if method in (*AT_LEVELS, *BY_TABLE):
            profile = self.exactly(1)[0]
            level, slots = profile >> 4, profile & 15
            sound = 1 <= profile < len(ENTROPY) if method in BY_TABLE else 2 <= level <= 9 and slots <= 12
            if not sound:
                raise damaged(f"profile {profile:#04x} at byte {self.position - 1} is unknown")
        learned = None
        if against:
            begin = self.varint(0, MAX_REFERENCE, "the place of what is learned")
            learned = begin, self.varint(0, MAX_LEARNED, "the length of what is learned")
        return Segment(method, original, b"", tokens, streams, profile, learned)

    def end(self) -> None:
        if self.up_to(1):
            raise damaged(f"something follows the end of the file at byte {self.position - 1}")


def truncated(position: int) -> DamageError:
    return DamageError(
        f"the file ends after {position} bytes, before its end: it is truncated; "
        "get it again, or save what is sound by decompress --recover"
    )


def damaged(what: str) -> DamageError:
    return DamageError(
        f"the file is damaged: {what}; get it again, or save what is sound by decompress --recover"
    )
