"""The model alone, level 1, held to docs/format.md."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import VOCAB, predictable
from hypothesis import given
from hypothesis import strategies as st

from laconic.coder.codec import decode_segment, encode_segment
from laconic.coder.direct import DEFAULT_STREAMS
from laconic.coder.lockstep import chunk_steps, fed_before, in_lockstep, num_streams, stream_starts
from laconic.coder.rangecoder import RangeEncoder, weights_reference
from laconic.coder.segment import LZMA, MODEL, RAW, DamageError, Segment


def encode_reference(data, model, streams):
    """The payload by docs/format.md, in plain Python."""
    ids = model.checkpoint.tokenizer.encode(data).tolist()
    short, longer = divmod(len(ids), streams)
    parts, at = [], 0
    for s in range(streams):
        length = short + (s < longer)
        parts.append(ids[at : at + length])
        at += length
    predictions = []
    for part in parts:
        fed = np.array([[VOCAB, *part[:-1]]])
        predictions.append(model.engine.advance(model.engine.start(1), fed)[0])
    encoder = RangeEncoder()
    for t in range(len(parts[0])):
        for part, logits in zip(parts, predictions, strict=True):
            if t < len(part):
                weights = weights_reference(logits[t].tolist())
                encoder.encode(sum(weights[: part[t]]), weights[part[t]], sum(weights))
    return Segment(MODEL, len(data), encoder.finish(), len(ids), streams)


@pytest.mark.parametrize("streams", [1, 7, 64])
def test_the_payload_is_what_the_format_says(streams, model):
    data = predictable(1500)
    segment = encode_segment(data, model, streams, level=1)
    assert segment == encode_reference(data, model, streams)
    assert decode_segment(segment, model) == data


@pytest.mark.parametrize("streams", [1, 7, 64, 500, None])
def test_streams_restore_the_same_bytes(streams, model):
    data = predictable(9000)
    segment = encode_segment(data, model, streams, level=1)
    assert segment.method == MODEL
    assert segment.streams == num_streams(segment.tokens, streams, DEFAULT_STREAMS)
    assert len(segment.payload) < 0.5 * len(data)
    assert decode_segment(segment, model) == data


def test_number_of_streams():
    assert [num_streams(n, None, 64) for n in (1, 2047, 4095, 4096, 1 << 20)] == [1, 1, 1, 2, 64]
    assert [num_streams(5, n, 64) for n in (1, 5, 6, 9999)] == [1, 5, 5, 5]
    assert num_streams(1 << 20, 9999, 64) == 4096


@given(st.integers(1, 300), st.integers(1, 40))
def test_streams_are_laid_out_as_the_format_says(num_tokens, wanted):
    ids = np.arange(num_tokens, dtype=np.int32)
    streams = num_streams(num_tokens, wanted, 64)
    starts = stream_starts(num_tokens, streams)
    assert (starts[0], starts[-1]) == (0, num_tokens)
    lengths = np.diff(starts)
    assert lengths.max() - lengths.min() <= 1
    assert (np.diff(lengths) <= 0).all()
    targets, alive = in_lockstep(ids, streams)
    assert [(targets[s, t], t) for t in range(len(alive)) for s in range(alive[t])] == [
        (starts[s] + t, t) for t in range(max(lengths)) for s in range(streams) if t < lengths[s]
    ]
    fed = fed_before(targets, 999)
    assert (fed[:, 0] == 999).all()
    np.testing.assert_array_equal(fed[:, 1:], targets[:, :-1])


def test_chunks_do_not_change_the_payload(model, monkeypatch):
    data = predictable(3000)
    whole = encode_segment(data, model, 3, level=1)
    assert chunk_steps(3, VOCAB) == 64
    monkeypatch.setattr("laconic.coder.lockstep.LOGITS_BYTES", 4 * 3 * VOCAB * 17)
    assert chunk_steps(3, VOCAB) == 17
    assert encode_segment(data, model, 3, level=1) == whole


def test_chunks_are_short_enough_for_attention(model, monkeypatch):
    advance, steps = model.engine.advance, []
    monkeypatch.setattr(
        model.engine, "advance", lambda state, ids: steps.append(ids.shape[1]) or advance(state, ids)
    )
    encode_segment(predictable(9000), model, 1, level=1)
    assert max(steps) <= 128


def test_random_bytes_are_stored_raw_after_a_sample(model):
    data = np.random.default_rng(0).bytes(40_000)
    assert encode_segment(data, model, level=1).method == RAW
    assert model.engine.tokens_seen < 3000


def test_lzma_is_taken_where_it_is_smaller(model):
    data = predictable(700, seed=1)[:40] * 12 + np.random.default_rng(1).bytes(600)
    segment = encode_segment(data, model, level=1)
    assert segment.method == LZMA
    assert decode_segment(segment, model) == data


def test_progress_ends_at_one(model, monkeypatch):
    monkeypatch.setattr("laconic.coder.lockstep.MAX_CHUNK_STEPS", 100)
    parts = []
    encode_segment(predictable(2000), model, 4, parts.append, level=1)
    assert parts == sorted(parts)
    assert parts[-1] == 1
    assert len(parts) > 3


@pytest.mark.parametrize(
    "change",
    [
        {"payload": b""},
        {"payload": b"\0" * 40},
        {"tokens": 10},
        {"tokens": 900},
        {"original_length": 999},
        {"method": LZMA},
        {"method": LZMA, "payload": b""},
    ],
)
def test_a_payload_that_no_encoder_writes(change, model):
    segment = replace(encode_segment(predictable(1000), model, 2, level=1), **change)
    with pytest.raises(DamageError):
        decode_segment(segment, model)
