"""The kernels, held to plain Python bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import SMALL, streams

from laconic.coder.entropy import counted, huffman, reference, tans
from laconic.coder.entropy.coders import CODERS
from laconic.coder.entropy.frequencies import normalise
from laconic.coder.segment import pack_varint


def reference_blob(coder, symbols, alphabet):
    counts, symbols = np.bincount(symbols, minlength=alphabet).tolist(), symbols.tolist()
    if coder == "huffman":
        lengths = reference.code_lengths(counts)
        table, words = reference.length_table(lengths), reference.huffman_words(symbols, lengths)
    else:
        parts = reference.frequencies(counts, tans.table_log(alphabet) if coder == "tans" else 24)
        table, words = reference.count_table(counts), getattr(reference, f"{coder}_words")(symbols, parts)
    alone = len(set(symbols)) == 1
    return pack_varint(len(table)) + table + (b"" if alone else words)


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("stream", SMALL)
def test_streams(stream, coder):
    symbols, alphabet = streams()[stream]
    symbols = symbols[:400]
    assert CODERS[coder].encode(symbols, alphabet).blob == reference_blob(coder, symbols, alphabet)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(CODERS)),
    st.integers(1, 300),
    st.integers(1, 500),
    st.sampled_from([0.02, 0.3, 5]),
    st.integers(0, 1 << 30),
)
def test_random_streams(coder, alphabet, count, evenness, seed):
    rng = np.random.default_rng(seed)
    parts = rng.dirichlet(np.full(alphabet, evenness))
    symbols = rng.choice(alphabet, count, p=parts).astype(np.int32)
    assert CODERS[coder].encode(symbols, alphabet).blob == reference_blob(coder, symbols, alphabet)


COUNTS = st.lists(st.integers(0, 1 << 20) | st.integers(0, 3), min_size=2, max_size=80).filter(
    lambda counts: sum(count > 0 for count in counts) > 1
)


@settings(max_examples=100, deadline=None)
@given(COUNTS, st.integers(7, 24))
def test_frequencies(counts, log):
    used = counted.shares(counted.describe(np.array(counts)), log)
    expected = reference.frequencies(counts, log)
    found = np.zeros(len(counts), dtype=np.int64)
    found[used.symbols] = used.parts
    assert found.tolist() == expected
    assert sum(expected) == 1 << log
    assert [part > 0 for part in expected] == [count > 0 for count in counts]


@settings(max_examples=100, deadline=None)
@given(COUNTS, st.integers(7, 20))
def test_code_lengths(counts, longest):
    counts = np.array(counts)
    found = np.zeros(len(counts), dtype=np.int64)
    found[counts > 0] = huffman.code_lengths(counts[counts > 0], longest)
    assert found.tolist() == reference.code_lengths(counts.tolist(), longest)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 1 << 29), min_size=1, max_size=60), st.integers(6, 24))
def test_parts_are_in_proportion(weights, log):
    parts = normalise(np.array(weights), log)
    assert parts.min() >= 1
    assert parts.sum() == 1 << log
    exact = [weight * (1 << log) / sum(weights) for weight in weights]
    assert all(part <= max(1, share + 1) for part, share in zip(parts.tolist(), exact, strict=True))
