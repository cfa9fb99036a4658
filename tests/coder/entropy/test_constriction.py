"""The coders beside those of `constriction`, an independent implementation."""

import numpy as np
import pytest
from streams import bits_of, streams

from laconic.coder.entropy import counted, predicted
from laconic.coder.entropy.coders import CODERS
from laconic.coder.entropy.frequencies import normalise

constriction = pytest.importorskip("constriction")
Categorical = constriction.stream.model.Categorical
LOWEST = np.array([0, 1], dtype=np.uint32)  # the words of a state of 2^32


def model_of(parts):
    """Exactly these parts of 2^24: a perfect quantisation of what needs none."""
    return Categorical(np.asarray(parts, dtype=np.float64) / (1 << 24), perfect=True)


def state_and_words(coder):
    """Of an AnsCoder: its state, and its words as a decoder reads them."""
    words = coder.get_compressed()[::-1].tolist()
    return words[0] << 32 | words[1], words[2:]


@pytest.mark.parametrize("seed", range(5))
def test_rans_under_changing_distributions_word_for_word(seed):
    rng = np.random.default_rng(seed)
    theirs, intervals, drawn = constriction.stream.stack.AnsCoder(LOWEST), [], []
    for _ in range(400):
        parts = normalise(rng.integers(1, 1 << int(rng.integers(1, 28)), rng.integers(2, 50)), 24)
        symbol = int(rng.integers(len(parts)))
        intervals.append(int(parts[:symbol].sum()) << 32 | int(parts[symbol]))
        drawn.append((symbol, parts))
    for symbol, parts in drawn[::-1]:
        theirs.encode_reverse(np.array([symbol], dtype=np.int32), model_of(parts))
    room = np.empty(len(intervals) + 2, dtype=np.uint32)
    words = room[predicted.encode_intervals(np.array(intervals, dtype=np.uint64), room) :].tolist()
    assert (words[0] << 32 | words[1], words[2:]) == state_and_words(theirs)


@pytest.mark.parametrize("stream", ["tokens", "bytes", "few tokens", "odd ends"])
def test_static_rans_state_by_state_and_word_for_word(stream):
    """Four of theirs, each with every fourth symbol: states alike, and the words are theirs, put in turn."""
    symbols, alphabet = streams()[stream]
    used = counted.shares(counted.describe(np.bincount(symbols, minlength=alphabet)), 24)
    place = np.zeros(alphabet, dtype=np.int32)
    place[used.symbols] = np.arange(len(used.symbols))
    model, states, words = model_of(used.parts), [], []
    for lane in range(4):
        theirs = constriction.stream.stack.AnsCoder(LOWEST)
        theirs.encode_reverse(place[symbols[lane::4]], model)
        state, own = state_and_words(theirs)
        states.append(state)
        words += own
    ours = CODERS["rans"].encode(symbols, alphabet).words
    assert np.frombuffer(ours[:32], dtype="<u8").tolist() == states
    assert sorted(np.frombuffer(ours[32:], dtype="<u4").tolist()) == sorted(words)


@pytest.mark.parametrize("stream", ["few tokens", "odd ends"])
def test_huffman_needs_as_many_bits(stream):
    symbols, alphabet = streams()[stream]
    counts = np.bincount(symbols, minlength=alphabet)
    found = np.flatnonzero(counts)
    place = np.zeros(alphabet, dtype=np.int64)
    place[found] = np.arange(len(found))
    theirs = constriction.symbol.QueueEncoder()
    tree = constriction.symbol.huffman.EncoderHuffmanTree(counts[found].astype(np.float64))
    for symbol in place[symbols].tolist():
        theirs.encode_symbol(symbol, tree)
    _, bits = theirs.get_compressed_and_bitrate()
    assert len(CODERS["huffman"].encode(symbols, alphabet).words) == (bits + 7) // 8


@pytest.mark.parametrize("stream", ["tokens", "bytes", "256, halving"])
def test_the_range_coder_is_as_short(stream):
    symbols, alphabet = streams()[stream]
    used = counted.shares(counted.describe(np.bincount(symbols, minlength=alphabet)), 24)
    place = np.zeros(alphabet, dtype=np.int32)
    place[used.symbols] = np.arange(len(used.symbols))
    theirs = constriction.stream.queue.RangeEncoder()
    theirs.encode(place[symbols], model_of(used.parts))
    ours = len(CODERS["range"].encode(symbols, alphabet).words)
    assert abs(ours - 4 * len(theirs.get_compressed())) <= 8
    assert 8 * ours >= bits_of(np.bincount(symbols))
