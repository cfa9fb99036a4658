"""Copies are true, long and in order; what no encoder writes is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.coder import copies
from laconic.coder.copies import (
    BLOCK,
    LEAST,
    STRIDE,
    Copy,
    build_index,
    find_copies,
    pack_copies,
    read_copies,
)
from laconic.coder.segment import DamageError, pack_varint

NOISE = np.random.default_rng(0).bytes(20_000)


def check(found, data, reference):
    done = 0
    for begin, source, length in found:
        assert begin >= done
        assert length >= copies.LEAST
        assert data[begin : begin + length] == reference[source : source + length]
        done = begin + length
    assert done <= len(data)
    head = pack_copies(found)
    assert read_copies(head + b"rest", len(data), len(reference)) == (found, b"rest")
    return found


def copies_of(data, reference):
    return check(find_copies(data, reference, build_index(reference)), data, reference)


def test_an_edit_costs_one_copy():
    for edited in (NOISE[:5000] + b"new" + NOISE[5000:], NOISE[:5000] + NOISE[5003:]):
        first, second = copies_of(edited, NOISE)
        assert first == (0, 0, 5000)
        assert second.begin + second.length == len(edited)
        assert second.source - second.begin == len(NOISE) - len(edited)


@pytest.mark.parametrize("at", [0, 1, STRIDE - 1, STRIDE, 777])
@pytest.mark.parametrize("length", [LEAST - 1, LEAST, LEAST + 1, 3000])
def test_copies_reach_as_far_as_they_can(at, length):
    data = b"\xff" * 40 + NOISE[at : at + length] + b"\xfe" * 40
    reference = b"\x01" + NOISE[: at + length] + b"\x02"
    assert copies_of(data, reference) == ([(40, 1 + at, length)] if length >= LEAST else [])


def test_of_several_places_the_longest_is_taken():
    reference = NOISE[:1500] + b"a" * 50 + NOISE[:4000] + b"b" * 50 + NOISE[:2000]
    assert copies_of(NOISE[:4000], reference) == [(0, 1550, 4000)]


def test_what_is_short_empty_or_all_alike():
    for data, reference in ((b"", b""), (b"", NOISE), (NOISE, b""), (NOISE, NOISE[: BLOCK - 1])):
        assert copies_of(data, reference) == []
    assert copies_of(bytes(50_000), bytes(20_000)) == [
        (0, 0, 20_000),
        (20_000, 0, 20_000),
        (40_000, 0, 10_000),
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 200), st.binary(max_size=9)), max_size=8))
def test_any_edits(edits):
    small = NOISE[:400]
    data = b"".join(small[at : at + length] + new for at, length, new in edits)
    before, copies.LEAST = copies.LEAST, 40
    try:
        copies_of(data, small)
    finally:
        copies.LEAST = before


def numbers(*values):
    return b"".join(map(pack_varint, values))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        numbers(101),  # more copies than bytes
        numbers(1),
        numbers(1, 101, 0, 1),
        numbers(1, 0, 0, 0),
        numbers(1, 0, 0, 101),
        numbers(1, 60, 0, 41),
        numbers(1, 100, 0, 1),
        numbers(1, 0, 1, 1),  # begins before the reference
        numbers(1, 0, 2 * 50, 1),  # ends after it
        numbers(1, 0, 2 * 49, 2),
        numbers(2, 0, 0, 50, 0, 0, 1),
        numbers(2, 0, 0, 10, 0, 0),
        b"\x81\x00",
    ],
)
def test_copies_that_no_encoder_writes(payload):
    with pytest.raises(DamageError):
        read_copies(payload, 100, 50)


def test_numbers_of_copies():
    found = [Copy(3, 7, 10), Copy(13, 0, 5), Copy(20, 90, 1)]
    head = pack_copies(found)
    assert head == numbers(3, 3, 2 * 4, 10, 0, 2 * 17 - 1, 5, 2, 2 * 83, 1)
    assert read_copies(head, 21, 91) == (found, b"")
