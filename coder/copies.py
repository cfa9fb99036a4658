"""Copies: the long stretches of a segment that stand in its reference too, found and written down.

Blocks of the reference are found by a hash that rolls over the segment (A. Tridgell, "Efficient Algorithms
for Sorting and Synchronization", 1999), and what they have in common is extended both ways.
"""

# numba's integers are no Python ints:
# pyright: reportArgumentType=false, reportReturnType=false

import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .compiled import compiled, inlined
from .segment import MAX_REFERENCE, Source, damaged, pack_varint

Bytes = npt.NDArray[np.uint8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

LEAST = 512  # bytes of a copy: experts that have seen the reference code shorter ones for fewer bytes
BLOCK, STRIDE = 32, 16  # bytes that are hashed, and between the places of the reference where they are
CANDIDATES = 16  # blocks of one hash that are tried
TABLE_BITS = (10, 24)
_FACTOR = 0x2F0B4C47


class Copy(NamedTuple):
    """`length` bytes of the original from `begin` on, which stand in the reference from `source` on."""

    begin: int
    source: int
    length: int


class Index(NamedTuple):
    """Where blocks of a reference begin, by their hash; in units of STRIDE."""

    heads: Int32  # by hash, -1 for none
    following: Int32  # by block, the next of the same hash


def build_index(reference: bytes) -> Index:
    data = np.frombuffer(reference, dtype=np.uint8)
    blocks = max(0, (len(data) - BLOCK) // STRIDE + 1)
    low, high = TABLE_BITS
    heads = np.full(1 << max(low, min(high, blocks.bit_length())), -1, dtype=np.int32)
    following = np.full(blocks, -1, dtype=np.int32)
    _fill(data, heads, following)
    return Index(heads, following)


def find_copies(data: bytes, reference: bytes, index: Index) -> list[Copy]:
    """Copies of at least LEAST bytes, in order and apart; greedy, of several the longest."""
    found = np.zeros((len(data) // LEAST + 1, 3), dtype=np.int64)
    ours, theirs = np.frombuffer(data, dtype=np.uint8), np.frombuffer(reference, dtype=np.uint8)
    count = _find(ours, theirs, index.heads, index.following, LEAST, found)
    return [Copy(*row) for row in found[:count].tolist()]


@inlined
def _hash(data: Bytes, at: int) -> int:
    value = np.int64(0)
    for i in range(BLOCK):
        value = value * _FACTOR + np.int64(data[at + i]) + 1
    return value


@inlined
def _entry(value: int, heads: Int32) -> int:
    return ((value ^ (value >> 29)) * 0x56E8FEB86659FD93 >> 36) & (heads.shape[0] - 1)


@compiled
def _fill(data: Bytes, heads: Int32, following: Int32) -> None:
    for block in range(following.shape[0] - 1, -1, -1):
        entry = _entry(_hash(data, block * STRIDE), heads)
        following[block] = heads[entry]
        heads[entry] = block


@compiled
def _find(ours: Bytes, theirs: Bytes, heads: Int32, following: Int32, least: int, found: Int64) -> int:
    """Fill rows of `found`; returns their number.

    Blocks tell of sources at one distance modulo STRIDE: once there is a copy, longer ones are looked for in
    as many places.
    """
    leaving = np.int64(1)
    for _ in range(BLOCK - 1):
        leaving *= _FACTOR
    count, done, shift, at = 0, 0, 0, 0
    hashed, value = -1, np.int64(0)  # where the hash is of, and the hash
    until, length, begin, source = -1, 0, 0, 0  # the longest copy since one was long enough
    while at + BLOCK <= ours.shape[0]:
        if hashed >= 0 and hashed + 1 == at:
            value = (value - (np.int64(ours[at - 1]) + 1) * leaving) * _FACTOR
            value += np.int64(ours[at + BLOCK - 1]) + 1
        else:
            value = _hash(ours, at)
        hashed = at
        block, tried = heads[_entry(value, heads)], -1
        if until < 0:
            length, begin, source = 0, 0, 0
        while block >= 0 and tried < CANDIDATES:
            there, after, before = np.int64(block) * STRIDE, 0, 0
            if tried >= 0:
                block = following[block]
            elif 0 <= at + shift < theirs.shape[0]:
                there = at + shift  # where the copy before would go on
            tried += 1
            while (
                at + after < ours.shape[0]
                and there + after < theirs.shape[0]
                and ours[at + after] == theirs[there + after]
            ):
                after += 1
            if after >= BLOCK:
                while (
                    at - before > done
                    and there > before
                    and ours[at - before - 1] == theirs[there - before - 1]
                ):
                    before += 1
                if after + before > length or (after + before == length and there - at == shift):
                    length, begin, source = after + before, at - before, there - before
        if length >= least and until < 0:
            until = at + STRIDE
        if at + 1 < until and at + 1 + BLOCK <= ours.shape[0]:
            at += 1
        elif until >= 0:
            found[count, 0], found[count, 1], found[count, 2] = begin, source, length
            count += 1
            done, shift = begin + length, source - begin
            at, until = done, -1
        else:
            at = max(at + 1, begin + length - BLOCK + 1)
    return count


def pack_copies(copies: Sequence[Copy]) -> bytes:
    """Their number; of each the bytes before it, its source relative to where it would be, its length."""
    out, done, expected = bytearray(pack_varint(len(copies))), 0, 0
    for copy in copies:
        gap = copy.begin - done
        jump = copy.source - (expected + gap)
        out += pack_varint(gap) + pack_varint(2 * jump if jump >= 0 else -2 * jump - 1)
        out += pack_varint(copy.length)
        done, expected = copy.begin + copy.length, copy.source + copy.length
    return bytes(out)


def read_copies(payload: bytes, original_length: int, reference_length: int) -> tuple[list[Copy], bytes]:
    """The copies that a payload begins with, and what follows them.

    Raises:
        DamageError: no encoder writes them.
    """
    source = Source(io.BytesIO(payload))
    copies, done, expected = list[Copy](), 0, 0
    for _ in range(source.varint(0, original_length, "the number of copies")):
        gap = source.varint(0, original_length - done, "the bytes before a copy")
        coded = source.varint(0, 2 * MAX_REFERENCE, "the place of a copy")
        length = source.varint(1, max(1, original_length - done - gap), "the length of a copy")
        begin = expected + gap + (-(coded + 1) // 2 if coded & 1 else coded // 2)
        done += gap
        if done + length > original_length or not 0 <= begin <= reference_length - length:
            raise damaged("a copy lies outside of the original or of the reference")
        copies.append(Copy(done, begin, length))
        done, expected = done + length, begin + length
    return copies, payload[source.position :]


def gaps_between(copies: Sequence[Copy], original_length: int) -> Iterator[tuple[int, int, Copy | None]]:
    """(begin, end) of what lies before each copy, with the copy; and after the last, with None."""
    done = 0
    for copy in copies:
        yield done, copy.begin, copy
        done = copy.begin + copy.length
    yield done, original_length, None
