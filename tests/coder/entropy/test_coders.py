"""Round trips of real and adversarial streams, and what they cost beside their code lengths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import NAMES, bits_of, streams

from laconic.coder.entropy import counted, huffman, tans
from laconic.coder.entropy.coders import CODERS
from laconic.coder.errors import LaconicError

BEGIN_BITS = {"range": 8, "huffman": 7, "rans": 4 * 64, "tans": 8 + 2 * 18}  # that a stream may cost more
PRECISION = {"range": 1e-6, "huffman": 0, "rans": 1e-3, "tans": 0.01}  # relative
PER_SYMBOL = {"range": 1e-6, "huffman": 0, "rans": 1e-5, "tans": 1e-3}  # bits


def code_length(name, symbols, alphabet):
    """Bits of the symbols under the table that the coder sends, by its frequencies or code lengths."""
    counts = np.bincount(symbols, minlength=alphabet)
    if name == "huffman":
        return int((huffman.describe(counts).classes * counts).sum())
    log = tans.table_log(alphabet) if name == "tans" else 24
    used = counted.shares(counted.describe(counts), log)
    return float((counts[used.symbols] * (log - np.log2(used.parts))).sum())


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("stream", NAMES)
def test_round_trip_at_the_cost_of_the_code_length(stream, coder):
    symbols, alphabet = streams()[stream]
    coded = CODERS[coder].encode(symbols, alphabet)
    assert np.array_equal(CODERS[coder].decode(coded.blob, len(symbols), alphabet), symbols)
    if len(np.unique(symbols)) == 1:
        assert coded.words == b""
        assert len(coded.table) <= 40
        return
    bits = code_length(coder, symbols, alphabet)
    more = 8 * len(coded.words) - bits
    assert more <= BEGIN_BITS[coder] + bits * PRECISION[coder] + len(symbols) * PER_SYMBOL[coder]
    if coder == "huffman":
        assert len(coded.words) == (bits + 7) // 8


# Bits a symbol above what the stream's own frequencies allow, without and with the table.
ABOVE = {
    ("tokens", "range"): (0.003, 0.14),
    ("tokens", "rans"): (0.006, 0.14),
    ("tokens", "tans"): (0.004, 0.14),
    ("tokens", "huffman"): (0.043, 0.17),
    ("bytes", "range"): (0.0002, 0.008),
    ("bytes", "rans"): (0.003, 0.01),
    ("bytes", "tans"): (0.002, 0.009),
    ("bytes", "huffman"): (0.042, 0.05),
    ("two, one in a million", "rans"): (0.0003, 0.0003),
    ("two, one in a million", "tans"): (0.001, 0.001),
    ("four of many, extreme", "range"): (0.0001, 0.003),
    ("65536, by rank", "rans"): (0.01, 0.4),
    ("all of 65536, even", "tans"): (0.035, 0.33),
}


@pytest.mark.parametrize(("stream", "coder"), ABOVE)
def test_bits_above_the_bound(stream, coder):
    symbols, alphabet = streams()[stream]
    coded, bound = CODERS[coder].encode(symbols, alphabet), bits_of(np.bincount(symbols))
    words, whole = ABOVE[stream, coder]
    assert 8 * len(coded.words) - bound <= words * len(symbols)
    assert 8 * len(coded.blob) - bound <= whole * len(symbols)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(CODERS)),
    st.lists(st.integers(0, 20), min_size=1, max_size=200),
    st.integers(0, 300),
    st.integers(0, 1 << 11),
)
def test_any_symbols(coder, symbols, spare, shift):
    symbols = np.array(symbols, dtype=np.int32) + shift
    alphabet = int(symbols.max()) + 1 + spare
    blob = CODERS[coder].encode(symbols, alphabet).blob
    assert np.array_equal(CODERS[coder].decode(blob, len(symbols), alphabet), symbols)


GOLDEN = {
    "text": ([ord(c) for c in "to be or not to be, that is the question"], 128),
    "two": ([0] * 40 + [1] + [0] * 20, 2),
    "one": ([5] * 9, 7),
    "sparse": ([60_000, 3, 3, 3, 60_000, 3, 65_535], 65_536),
}


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("stream", GOLDEN)
def test_golden_words(stream, coder, golden):
    symbols, alphabet = GOLDEN[stream]
    symbols = np.array(symbols, dtype=np.int32)
    blob = CODERS[coder].encode(symbols, alphabet).blob
    golden(f"entropy-{stream}-{coder}", blob)
    assert np.array_equal(CODERS[coder].decode(blob, len(symbols), alphabet), symbols)


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize(
    ("symbols", "alphabet", "message"),
    [
        ([1], 0, "an alphabet of 0 symbols: 1 to 65536 are allowed"),
        ([1], 65_537, "an alphabet of 65537 symbols"),
        ([], 5, "0 symbols: a segment has 1 to 268435456"),
        ([0, 5], 5, "symbol 5 at 1: 0 to 4 are allowed; give a larger alphabet"),
        ([0, 0, -1], 5, "symbol -1 at 2: 0 to 4"),
    ],
)
def test_what_is_not_coded(coder, symbols, alphabet, message):
    with pytest.raises(LaconicError, match=message):
        CODERS[coder].encode(np.array(symbols, dtype=np.int32), alphabet)


@pytest.mark.parametrize(("count", "alphabet"), [(0, 5), (1 << 29, 5), (5, 0), (5, 1 << 17)])
def test_what_is_not_decoded(count, alphabet):
    blob = CODERS["rans"].encode(np.zeros(5, dtype=np.int32), 5).blob
    with pytest.raises(LaconicError, match="are allowed"):
        CODERS["rans"].decode(blob, count, alphabet)


def test_numbers_of_coders():
    assert [(coder.number, name) for name, coder in CODERS.items()] == [
        (0, "range"),
        (1, "huffman"),
        (2, "rans"),
        (3, "tans"),
    ]
