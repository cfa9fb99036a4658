"""Lengths are those of the best codes, and codes are canonical."""

import heapq
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import streams

from laconic.coder.entropy import huffman
from laconic.coder.entropy.huffman import LONGEST, assign, code_lengths
from laconic.coder.entropy.tables import Table
from laconic.coder.segment import DamageError


def huffman_bits(counts):
    """Bits of all symbols by Huffman's own construction, no length limited."""
    heap, bits = list(counts), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        bits += joined
        heapq.heappush(heap, joined)
    return bits


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=100))
def test_unlimited_lengths_are_huffmans(counts):
    lengths = code_lengths(np.array(counts), 40)
    assert int((lengths * counts).sum()) == huffman_bits(counts)
    assert sum(2.0**-lengths) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=2, max_size=6), st.integers(3, 5))
def test_limited_lengths_are_the_best_of_all(counts, longest):
    lengths = code_lengths(np.array(counts), longest)
    assert lengths.max() <= longest
    best = min(
        sum(a * b for a, b in zip(tried, sorted(counts), strict=True))
        for tried in itertools.combinations_with_replacement(range(longest, 0, -1), len(counts))
        if sum(2.0**-length for length in tried) <= 1
    )
    assert int((lengths * counts).sum()) == best


def test_the_limit_is_met():
    symbols, alphabet = streams()["fibonacci"]
    counts = np.bincount(symbols, minlength=alphabet)
    assert code_lengths(counts, 40).max() == 29
    assert code_lengths(counts).max() == LONGEST
    assert int((code_lengths(counts) * counts).sum()) < 1.0001 * huffman_bits(counts.tolist())


def test_all_symbols_of_the_largest_alphabet():
    assert set(code_lengths(np.ones(1 << 16, dtype=np.int64)).tolist()) == {16}
    assert set(code_lengths(np.ones(1 << 16, dtype=np.int64), 16).tolist()) == {16}


def table(lengths):
    return Table(np.array(lengths), np.zeros(len(lengths), dtype=np.int64))


def test_codes_are_in_the_order_of_length_and_symbol():
    codes = assign(table([2, 0, 3, 1, 3]))
    assert codes.symbols.tolist() == [3, 0, 2, 4]
    assert codes.codes.tolist() == [0b0, 0b10, 0b110, 0b111]


@pytest.mark.parametrize("lengths", [[1, 2], [1, 1, 1], [2, 2, 2], [0, 2], [20] * 9, [1, 1, 20]])
def test_lengths_that_do_not_sum(lengths):
    with pytest.raises(DamageError, match="code lengths of a segment's table do not sum to one"):
        assign(table(lengths))


def test_long_codes_are_found():
    counts = (1.7 ** np.arange(40)).astype(np.int64)
    symbols = np.arange(40, dtype=np.int32).repeat(5)
    made = huffman.describe(counts)
    assert made.classes.max() > huffman.LOOKED_UP
    assert np.array_equal(huffman.read(huffman.write(symbols, made), len(symbols), made), symbols)
