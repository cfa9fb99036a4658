"""What the mixer's plain twin remembers of the streams: bytes, matches, records, and the experts' contexts.

Hashes and the last eight bytes are of 64 bits and without sign. A stream remembers only what its ring holds:
what is older is overwritten, and reading it gives what took its place.
"""

import string
from dataclasses import dataclass

from . import layout as k
from .experts import EXPERTS, TOKEN_EXPERTS
from .state import Shape

WHOLE = 1 << 64
LETTERS = string.ascii_letters


def hashed(a: int, b: int) -> int:
    """64 bits of two numbers, of which the low 64 bits count."""
    h = (a * 0x1E3779B97F4A7C15 + b * 0x56E8FEB86659FD93 + 0x632BE59BD9B4E019) % WHOLE
    h = (h ^ h >> 32) * 0x56E8FEB86659FD93 % WHOLE
    return h ^ h >> 29


@dataclass
class Match:
    """A place in some stream that was reached by the same bytes as the present."""

    source: int = 0  # the stream
    position: int = 0  # of the byte that is expected
    length: int = 0  # bytes that agreed; 0 where there is no match

    @property
    def level(self) -> int:
        """The length, coarser where it is long: 0..MATCH_LENGTHS - 1."""
        fine = self.length if self.length < 16 else 16 + (self.length - 16) // 4
        return min(fine, k.MATCH_LENGTHS - 1)


class Stream:
    """The bytes of one stream, as far as its ring holds them, and what is remembered of them."""

    def __init__(self, ring_bits: int) -> None:
        self.ring = bytearray(1 << ring_bits)
        self.position = 0  # bytes so far
        self.last_eight = 0  # the newest lowest
        self.word = self.word_before = 0  # hashes
        self.shape = 0  # kinds of the last runs, nine bits each
        self.field = 0  # separators since the line began
        self.line = self.line_above = 0  # where they begin
        self.last_seen: dict[int, int] = {}  # byte -> position
        self.matches = [Match() for _ in k.LEAST_MATCH]
        self.tokens = [0] * len(TOKEN_EXPERTS)  # the last ones, the newest first, counted from 1; 0 is none
        self._begin_token()

    def _begin_token(self) -> None:
        """What the last one, two and three tokens say; the bytes of the next are hashed into it."""
        last, second, third = self.tokens
        pair = (last << 20) + second
        self.spoken = [hashed(last, 22), hashed(pair, 23), hashed((pair << 20) + third, 24)]

    def end_token(self, token: int) -> None:
        """The bytes of this token have been appended."""
        self.tokens = [token + 1, *self.tokens[:-1]]
        self._begin_token()

    def byte_at(self, position: int) -> int:
        return self.ring[position % len(self.ring)]

    def back(self, distance: int) -> int:
        """The byte that many bytes ago; 0 before the first, and for no distance."""
        return self.byte_at(self.position - distance) if 0 < distance <= self.position else 0

    def write(self, byte: int) -> None:
        """The next byte into the ring; `push` does the rest."""
        self.ring[self.position % len(self.ring)] = byte

    def push(self, byte: int) -> None:
        self.position += 1
        self.last_eight = (self.last_eight << 8 | byte) % WHOLE
        self.spoken = [hashed(said, byte) for said in self.spoken]
        if chr(byte) in LETTERS or byte >= 128:
            lower = byte + 32 if byte < ord("a") else byte
            self.word = (self.word + lower + 1) * 0x2F0B4C47 % WHOLE
        elif self.word:
            self.word_before, self.word = self.word, 0
        kind = _kind(byte)
        if kind > 3 or kind != self.shape % 512:
            self.shape = (self.shape << 9 | kind) & k.SEVEN_RUNS
        if byte == ord("\n"):
            self.line_above, self.line, self.field = self.line, self.position, 0
        elif chr(byte) in " ,\t;":
            self.field += 1


def _kind(byte: int) -> int:
    """Kinds 1 to 3 are of many bytes, and make runs."""
    if chr(byte) in LETTERS:
        return 1
    if ord("0") <= byte <= ord("9"):
        return 2
    return 3 if byte >= 128 else byte + 4


class Past:
    """All streams, and what they have in common: followers, length of records, where contexts were last."""

    def __init__(self, shape: Shape) -> None:
        self.streams = [Stream(shape.ring_bits) for _ in range(shape.streams)]
        self.bytes = 0
        self.followers: dict[
            tuple[int, int], int
        ] = {}  # (context, bytes of it) -> what came the last two times
        self.record = 0  # length of records, 0 as long as none is seen
        self.votes = [0] * k.RECORD_MAX  # for each length
        self.match_mask = (1 << shape.match_bits) - 1
        self.places: list[dict[int, tuple[int, int]]] = [{} for _ in k.LEAST_MATCH]

    def push(self, number: int, byte: int) -> None:
        """Append a byte to a stream."""
        stream = self.streams[number]
        for order in (1, 2):
            context = stream.last_eight % 256**order, order
            self.followers[context] = (self.followers.get(context, 0) << 8 | byte) % 65536
        stream.write(byte)  # before it is voted: in a small ring that overwrites what is read
        self._vote(stream, byte)
        self.bytes += 1
        if self.bytes % 2048 == 0:
            self.votes = [count // 2 for count in self.votes]
        stream.push(byte)
        keys = hashed(stream.last_eight % 256**6, 20), hashed(stream.last_eight, 21)
        for match, places, key, least in zip(stream.matches, self.places, keys, k.LEAST_MATCH, strict=True):
            self._follow(match, byte)
            entry = key & self.match_mask
            if not match.length and entry in places:
                match.source, match.position = places[entry]
                agreed = self._agreement(stream, match)
                match.length = agreed if agreed >= least else 0
            # What is expected next may not be known yet, or not any more.
            end = self.streams[match.source].position
            if not end - len(stream.ring) <= match.position < end:
                match.length = 0
            places[entry] = number, stream.position

    def _vote(self, stream: Stream, byte: int) -> None:
        """Records may be as long as the distance of two equal bytes whose predecessors are equal too."""
        before = stream.last_seen.get(byte)
        stream.last_seen[byte] = stream.position
        if before is None:
            return
        distance = stream.position - before
        if not 2 < distance < k.RECORD_MAX or not before:
            return
        if stream.byte_at(before - 1) == stream.last_eight % 256:
            self.votes[distance] += 1
            if self.votes[distance] > self.votes[self.record] + 4:
                self.record = distance

    def _follow(self, match: Match, byte: int) -> None:
        """One byte on: a match ends when another byte came than was expected."""
        if match.length:
            expected = self.expected(match)
            match.length = min(match.length + 1, k.MAX_LENGTH) if byte == expected else 0
            match.position += 1

    def _agreement(self, stream: Stream, match: Match) -> int:
        """How many bytes before both places agree, of at most VERIFIED."""
        source = self.streams[match.source]
        oldest = max(0, source.position - len(source.ring))
        most = min(k.VERIFIED, match.position - oldest, stream.position)
        for length in range(most):
            if source.byte_at(match.position - length - 1) != stream.byte_at(stream.position - length - 1):
                return length
        return max(0, most)

    def expected(self, match: Match) -> int:
        return self.streams[match.source].byte_at(match.position)


def contexts(past: Past, stream: Stream, tokens: bool) -> list[int]:
    """The contexts of all experts; with `tokens` some of them see the last tokens, not bytes."""
    seen = [hashed(*pair) for pair in map(_seen(past, stream).__getitem__, EXPERTS)]
    if tokens:
        for expert, said in zip(TOKEN_EXPERTS, stream.spoken, strict=True):
            seen[expert] = said
    return seen


def _seen(past: Past, stream: Stream) -> dict[str, tuple[int, int]]:
    """What each expert sees of the bytes, in two numbers of which it hashes the low 64 bits."""
    h, record = stream.last_eight, past.record
    last = h & 0xFF
    column = stream.position - stream.line
    above = stream.byte_at(stream.line_above + column) if stream.line_above + column < stream.line else 0
    once, twice = stream.back(record), stream.back(2 * record)
    after_one, after_two = past.followers.get((last, 1), 0), past.followers.get((h & 0xFFFF, 2), 0)
    return {
        "order 2": (h & 0xFFFF, 1),
        "order 3": (h & 0xFFFFFF, 2),
        "order 4": (h & 0xFFFFFFFF, 3),
        "order 6": (h & 0xFFFFFFFFFFFF, 4),
        "word": (stream.word, 5 + (last << 8)),
        "shape": (stream.shape, 6),
        "column": (min(column, 255) << 8 | above, 7),
        "order 5": (h & 0xFFFFFFFFFF, 8),
        "skip 2": (h & 0xFFFF0000, 9),
        "record": (record << 16 | once << 8 | twice, 10),
        "followers 2": (after_two << 16 | h & 0xFFFF, 11),
        "two words": (stream.word * 31 + stream.word_before, 12 + (last << 8)),
        "field": (stream.field << 8 | last, 13),
        "followers 1": (after_one << 8 | last, 14),
        "skip 1": (h & 0xFFFF00, 15),
        "coarse": (h & 0xF0F0F0FF, 16),
        "record, order 1": (record << 16 | once << 8 | last, 17),
        "order 8": (h, 18),
    }
