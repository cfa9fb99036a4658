"""rANS under a model's predictions, and its segments, held to their definition in plain Python."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import predictable
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.coder.codec import decode_segment, encode_segment
from laconic.coder.entropy import predicted, reference
from laconic.coder.kernels import BLOCK
from laconic.coder.lockstep import fed_before, in_lockstep
from laconic.coder.rangecoder import weights_reference
from laconic.coder.segment import MODEL, RANS, RAW, DamageError


def interval(logits, target):
    """(begin, part) of 2^24."""
    weights = weights_reference(logits)
    total, share = sum(weights), (1 << 24) - len(weights)
    begin = share * sum(weights[:target]) // total + target
    return begin, share * sum(weights[: target + 1]) // total + target + 1 - begin


def payload_of(intervals):
    (state,), words = reference.rans(intervals, 1)
    return (state.to_bytes(8, "big") + b"".join(word.to_bytes(4, "big") for word in words)).lstrip(b"\0")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(2, 300), st.integers(0, 22), st.integers(0, 1 << 30))
def test_kernels_equal_the_plain_twin(streams, steps, vocab, spread, seed):
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal((streams, steps, vocab)) * (1 << spread)).astype(np.int32)
    targets = rng.integers(0, vocab, (streams, steps), dtype=np.int32)
    alive = np.full(steps, streams, dtype=np.int32)
    intervals = np.empty(streams * steps, dtype=np.uint64)
    assert predicted.find_intervals(logits, targets, alive, intervals, 0) == len(intervals)
    places = [(s, t) for t in range(steps) for s in range(streams)]
    expected = [interval(logits[place].tolist(), int(targets[place])) for place in places]
    assert [(int(both) >> 32, int(both) & 0xFFFFFFFF) for both in intervals] == expected
    room = np.empty(len(intervals) + 2, dtype=np.uint32)
    words = room[predicted.encode_intervals(intervals, room) :]
    assert words.astype(">u4").tobytes().lstrip(b"\0") == payload_of(expected)
    coder = np.array([int(words[0]) << 32 | int(words[1]), 2], dtype=np.uint64)
    sums, ids = np.empty(-(-vocab // BLOCK), dtype=np.int64), np.zeros(streams, dtype=np.int32)
    for t in range(steps):
        assert predicted.decode_each(np.ascontiguousarray(logits[:, t]), words, coder, ids, sums)
        assert np.array_equal(ids, targets[:, t])
    assert coder.tolist() == [1 << 32, len(words)]


@pytest.mark.parametrize("vocab", [2, 64, 65, 65_536])
def test_extreme_predictions(vocab):
    """All intervals of a distribution: they follow each other, none is empty, and they fill 2^24."""
    rows = np.zeros((3, vocab), dtype=np.int32)
    rows[1], rows[1, vocab // 2] = -(1 << 31), (1 << 31) - 1
    rows[2] = np.linspace(0, -30 * 1024, vocab)
    tried = np.unique([0, 1, vocab // 2, vocab - 2, vocab - 1]).astype(np.int32)
    for row in rows:
        logits = np.ascontiguousarray(np.broadcast_to(row, (1, len(tried), vocab)))
        intervals = np.empty(len(tried), dtype=np.uint64)
        alive = np.ones(len(tried), dtype=np.int32)
        predicted.find_intervals(logits, tried[None], alive, intervals, 0)
        begins, parts = (intervals >> np.uint64(32)).tolist(), (intervals & np.uint64(0xFFFFFFFF)).tolist()
        assert min(parts) >= 1
        assert begins[0] == 0
        assert begins[-1] + parts[-1] == 1 << 24
        assert all(b + p <= c for b, p, c in zip(begins, parts, begins[1:], strict=False))


@pytest.mark.parametrize("streams", [1, 7, 64, None])
def test_segments(streams, model):
    data = predictable(9000)
    segment = encode_segment(data, model, streams, level=1, entropy="rans")
    ranged = encode_segment(data, model, streams, level=1)
    assert (segment.method, ranged.method) == (RANS, MODEL)
    assert (segment.tokens, segment.streams) == (ranged.tokens, ranged.streams)
    assert abs(len(segment.payload) - len(ranged.payload)) <= 8
    assert decode_segment(segment, model) == data


def test_the_payload_is_what_the_format_says(model):
    data = predictable(600)
    segment = encode_segment(data, model, 3, level=1, entropy="rans")
    targets, alive = in_lockstep(model.tokenize(data), 3)
    logits = model.engine.advance(model.engine.start(3), fed_before(targets, model.engine.vocab_size))
    coded = [(s, t) for t in range(len(alive)) for s in range(alive[t])]
    expected = payload_of([interval(logits[s, t].tolist(), int(targets[s, t])) for s, t in coded])
    assert segment.payload == expected


def test_what_is_no_smaller_is_raw(model):
    data = np.random.default_rng(0).bytes(50)
    assert encode_segment(data, model, level=1, entropy="rans").method == RAW


def test_segments_cut_at_any_byte_and_longer(model):
    segment = encode_segment(predictable(400), model, 2, level=1, entropy="rans")
    payload = segment.payload
    broken = [payload[:length] for length in range(len(payload))]
    broken += [b"\0" + payload, payload + b"\0", payload + bytes(4), b"\1" + payload]
    for piece in broken:
        with pytest.raises(DamageError, match="get the file again"):
            decode_segment(replace(segment, payload=piece), model)


def test_segments_damaged_anywhere(model):
    segment = encode_segment(predictable(300), model, 2, level=1, entropy="rans")
    data = decode_segment(segment, model)
    refused = 0
    for at in range(len(segment.payload)):
        for mask in (1, 0x80):
            payload = bytearray(segment.payload)
            payload[at] ^= mask
            try:
                assert decode_segment(replace(segment, payload=bytes(payload)), model) != data
            except DamageError:
                refused += 1
    assert refused > len(segment.payload)
