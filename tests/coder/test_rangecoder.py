import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.coder.errors import LaconicError
from laconic.coder.rangecoder import SPAN_FULL, TOTAL_LIMIT, RangeDecoder, RangeEncoder, weights_reference

WEIGHTS = st.lists(st.integers(1, 1 << 22), min_size=1, max_size=40)


def encode(symbols, tables):
    encoder = RangeEncoder()
    for symbol, weights in zip(symbols, tables, strict=True):
        encoder.encode(sum(weights[:symbol]), weights[symbol], sum(weights))
    return encoder.finish()


@given(st.lists(WEIGHTS, max_size=60), st.randoms(use_true_random=False))
def test_round_trip_at_the_cost_of_the_code_length(tables, random):
    symbols = [random.randrange(len(weights)) for weights in tables]
    coded = encode(symbols, tables)
    bits = sum(math.log2(sum(w) / w[s]) for s, w in zip(symbols, tables, strict=True))
    assert len(coded) <= bits / 8 + 1.01
    decoder = RangeDecoder(coded)
    assert [decoder.decode(weights) for weights in tables] == symbols
    decoder.finish()


SEQUENCES = {
    "mixed": ([0, 1, 2, 3, 3, 2, 1, 0, 2, 2, 3, 0], [1, 2, 3, 4]),
    "zeros": ([0] * 64, [1, 1]),
    "ones": ([1] * 64, [1, 1]),
    "rare": ([0, 0, 0, 1] * 4, [1 << 22, 1]),
    "sure": ([1] * 1000, [1, 1 << 22]),
    "nothing": ([], [1]),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_golden_bytes(name, golden):
    symbols, weights = SEQUENCES[name]
    golden(f"rangecoder-{name}", encode(symbols, [weights] * len(symbols)))


def test_the_number_lies_in_the_exact_interval():
    symbols, weights = SEQUENCES["mixed"]
    low, width, total = Fraction(0), Fraction(1), sum(weights)
    for symbol in symbols:
        low += width * sum(weights[:symbol]) / total
        width *= Fraction(weights[symbol], total)
    coded = encode(symbols, [weights] * len(symbols))
    value = Fraction(int.from_bytes(coded, "big"), 256 ** len(coded))
    assert low <= value + Fraction(1, 1 << 45)
    assert value < low + width


def test_a_carry_runs_through_the_bytes_already_written():
    encoder = RangeEncoder()
    for _ in range(8):
        encoder.encode(127, 2, 256)  # low ends in ...ff, and the interval reaches over the next multiple
    before = bytes(encoder.written)
    encoder.encode(255, 1, 256)
    assert encoder.finish() > before
    encoder = RangeEncoder()
    encoder.written = bytearray(b"\x01\xff\xff")
    encoder.low, encoder.span = SPAN_FULL - 1, 1 << 50
    encoder.encode(1, 1, 2)
    assert encoder.written == b"\x02\x00\x00"


def test_the_end_is_the_shortest_that_names_the_interval():
    assert RangeEncoder().finish() == b""
    encoder = RangeEncoder()
    encoder.encode(0, 1, 3)
    assert encoder.finish() == b""  # low is 0: zeros are implied
    encoder = RangeEncoder()
    encoder.encode(1, 1, 2)
    assert encoder.finish() == b"\x80"


def test_interval_of_the_largest_total():
    encoder = RangeEncoder()
    total = TOTAL_LIMIT - 1
    encoder.encode(total - 1, 1, total)
    coded = encoder.finish()
    decoder = RangeDecoder(coded)
    assert min(decoder.offset // (decoder.span // total), total - 1) == total - 1


@pytest.mark.parametrize("cut", range(9))
def test_missing_bytes_are_noticed_and_end(cut):
    symbols = [i * 7 % 16 for i in range(100)]
    coded = encode(symbols, [[1] * 16] * 100)
    decoder = RangeDecoder(coded[:cut])
    with pytest.raises(LaconicError, match="ends too early"):
        [decoder.decode([1] * 16) for _ in range(100)]


def test_bytes_left_over_are_noticed():
    decoder = RangeDecoder(encode([1, 2], [[1] * 4] * 2) + b"\0" * 10)
    for _ in range(2):
        decoder.decode([1] * 4)
    with pytest.raises(LaconicError, match="goes on"):
        decoder.finish()


def test_weights_of_logits():
    assert weights_reference([0, -1024, -2048, -1 << 31]) == [1 << 22, 1 << 21, 1 << 20, 1]
    assert weights_reference([(1 << 31) - 1, -1 << 31]) == [1 << 22, 1]
    assert weights_reference([5, 5 - 22 * 1024, 5 - 21 * 1024]) == [1 << 22, 1, 2]


def test_weights_are_powers_of_two_within_a_third_of_a_percent():
    distances = range(2048)
    weights = weights_reference([-distance for distance in distances])
    exact = [2 ** (22 - distance / 1024) for distance in distances]
    errors = [weight / power - 1 for weight, power in zip(weights, exact, strict=True)]
    assert max(map(abs, errors)) < 0.0033
    assert all(a > b for a, b in pairwise(weights))
