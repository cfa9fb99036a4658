"""What no encoder writes is refused with a reason, or decodes to symbols of the alphabet."""

import os
import re
from collections import Counter

import numpy as np
import pytest
from streams import SMALL, streams

from laconic.coder.entropy import counted, huffman, tables
from laconic.coder.entropy.coders import CODERS
from laconic.coder.entropy.frequencies import MAX_SYMBOLS, frequencies
from laconic.coder.errors import LaconicError
from laconic.coder.kernels import TAIL
from laconic.coder.segment import DamageError, pack_varint

ROUNDS = int(os.environ.get("LACONIC_FUZZ", "600"))  # of each coder


def outcome(coder, blob, count, alphabet):
    """What a decoder says: "refused", or "decoded" to so many symbols of the alphabet."""
    try:
        symbols = CODERS[coder].decode(blob, count, alphabet)
    except LaconicError as error:
        return "refused" if re.fullmatch(r".{20,200}", str(error)) else f"no reason: {error}"
    assert symbols.shape == (count,)
    assert symbols.min() >= 0
    assert symbols.max() < alphabet
    return "decoded"


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("stream", SMALL)
def test_streams_cut_at_any_byte(stream, coder):
    symbols, alphabet = streams()[stream]
    coded = CODERS[coder].encode(symbols, alphabet)
    for length in range(len(coded.blob)):
        # A range decoder may take zeros for what is cut from the end: the container's checks see that.
        if coder == "range" and len(coded.blob) - TAIL <= length >= len(coded.table):
            outcome(coder, coded.blob[:length], len(symbols), alphabet)
            continue
        with pytest.raises(LaconicError, match=r"get (the file|it) again"):
            CODERS[coder].decode(coded.blob[:length], len(symbols), alphabet)


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("stream", SMALL)
def test_bytes_too_many(stream, coder):
    symbols, alphabet = streams()[stream]
    blob = CODERS[coder].encode(symbols, alphabet).blob
    for more in (b"\0" * 8, b"\xff", b"\0" * 4, blob):
        with pytest.raises(LaconicError, match="get the file again"):
            CODERS[coder].decode(blob + more, len(symbols), alphabet)


@pytest.mark.parametrize("coder", CODERS)
def test_damage_at_random(coder):
    """Flipped bits, other bytes, other counts, pieces that change places, and noise."""
    rng, found = np.random.default_rng(7), Counter()
    for number in range(ROUNDS):
        symbols, alphabet = streams()[SMALL[number % len(SMALL)]]
        blob = np.frombuffer(CODERS[coder].encode(symbols, alphabet).blob, dtype=np.uint8).copy()
        count, kind = len(symbols), number // len(SMALL) % 5
        if kind == 0:
            blob[rng.integers(len(blob))] ^= 1 << rng.integers(8)
        elif kind == 1:
            blob[rng.integers(len(blob), size=4)] = rng.integers(0, 256, 4)
        elif kind == 2:
            count = int(rng.integers(1, 2 * count + 2))
        elif kind == 3:
            blob = np.roll(blob, rng.integers(1, len(blob) + 1))
        else:
            blob = rng.integers(0, 256, rng.integers(0, 60)).astype(np.uint8)
            blob[:1] = rng.integers(0, 12)
        found[outcome(coder, blob.tobytes(), count, alphabet)] += 1
    print(f"\n{coder}: {ROUNDS:,} damaged blobs, {found['refused']:,} refused, {found['decoded']:,} decoded")
    assert found.total() == ROUNDS
    assert found["refused"] > ROUNDS // 3


def blob_of(table, extra_bits, words=b"\1" * 40):
    packed = tables.pack(table, extra_bits)
    return pack_varint(len(packed)) + packed + words


def table_of(classes):
    return tables.Table(np.array(classes, dtype=np.int64), np.zeros(len(classes), dtype=np.int64))


@pytest.mark.parametrize("coder", ["range", "rans", "tans"])
def test_counts_that_overflow(coder):
    table = table_of([counted.LENGTHS - 1] * 200 + [1] * 56)
    with pytest.raises(DamageError, match=r"counts of a .* table sum to [\d,]+, more than 536,870,912"):
        CODERS[coder].decode(blob_of(table, counted.EXTRA_BITS), 100, 256)
    counts = np.zeros(256, dtype=np.int64)
    counts[[3, 200]] = MAX_SYMBOLS - 1, 1
    assert counted.shares(counted.describe(counts), 24).parts.tolist() == [(1 << 24) - 1, 1]


def test_code_lengths_that_do_not_sum():
    for lengths in ([1, 2, 3], [1, 1, 1], [0, 5, 0]):
        with pytest.raises(DamageError, match="do not sum to one"):
            huffman.read(b"\0" * 9, 5, table_of(lengths))
    with pytest.raises(DamageError, match="do not sum to one"):
        CODERS["huffman"].decode(blob_of(table_of([1, 2, 3, 0]), huffman.EXTRA_BITS), 5, 4)


@pytest.mark.parametrize(
    ("parts", "log"), [([1, 2], 2), ([4, 4], 2), ([0, 4], 2), ([-1, 5], 2), ([], 2), ([1 << 25], 25)]
)
def test_frequencies_that_do_not_sum(parts, log):
    with pytest.raises(LaconicError, match=r"frequencies sum to|parts: up to"):
        frequencies(np.arange(len(parts)), np.array(parts, dtype=np.int64), log)


def test_tables_that_are_none():
    packed = tables.pack(table_of([1, 0, 3, 2]), huffman.EXTRA_BITS)
    assert tables.unpack(packed, 4, huffman.EXTRA_BITS).classes.tolist() == [1, 0, 3, 2]
    with pytest.raises(DamageError, match="does not end with its last symbol"):
        tables.unpack(packed + b"\0" * 9, 4, huffman.EXTRA_BITS)
    with pytest.raises(DamageError, match=r"ends too early|lacks \d+ symbols"):
        tables.unpack(packed[:1], 1000, huffman.EXTRA_BITS)
    with pytest.raises(DamageError, match=r"lacks 4 symbols of its 4"):
        tables.unpack(b"\xc0", 4, huffman.EXTRA_BITS)  # four of four, none of which occurs


def test_a_table_of_one_symbol_takes_no_bytes():
    for coder in CODERS.values():
        blob = coder.encode(np.full(9, 2, dtype=np.int32), 5).blob
        with pytest.raises(DamageError, match="2 bytes follow a table of one symbol"):
            coder.decode(blob + b"ab", 9, 5)


@pytest.mark.parametrize("coder", CODERS)
def test_a_table_of_one_symbol_is_that_of_their_number(coder):
    blob = CODERS[coder].encode(np.full(9, 2, dtype=np.int32), 5).blob
    if coder == "huffman":
        blob = blob_of(table_of([0, 0, 7, 0, 0]), huffman.EXTRA_BITS, b"")  # a code of 7 bits
    with pytest.raises(DamageError, match="one symbol is not that of 300 of it"):
        CODERS[coder].decode(blob, 300, 5)


def test_huge_counts_of_short_blobs_are_refused_before_memory_is_taken():
    symbols, alphabet = streams()["odd ends"]
    blob = CODERS["huffman"].encode(symbols, alphabet).blob
    with pytest.raises(DamageError, match="cannot hold 268,435,456 codes"):
        CODERS["huffman"].decode(blob, MAX_SYMBOLS, alphabet)
