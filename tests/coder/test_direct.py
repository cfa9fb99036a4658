import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import TOKENS, VOCAB, FakeTokenizer, fake_model, predictable
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.coder.codec import decode_segment, encode_segment, num_streams
from laconic.coder.container import LZMA, MODEL, RAW, DamageError, Segment
from laconic.coder.errors import LaconicError
from laconic.coder.fixedpoint import exp2_table
from laconic.coder.rangecoder import RangeEncoder, weights_reference

MODEL_ONE = fake_model()


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
    encoder, table = RangeEncoder(), exp2_table().tolist()
    for t in range(len(parts[0])):
        for part, logits in zip(parts, predictions, strict=True):
            if t < len(part):
                weights = weights_reference(logits[t].tolist(), table)
                encoder.encode(sum(weights[: part[t]]), weights[part[t]], sum(weights))
    return Segment(MODEL, len(data), encoder.finish(), len(ids), streams)


@pytest.mark.parametrize("streams", [1, 7, 64])
def test_the_payload_is_what_the_format_says(streams, model):
    data = predictable(1500)
    segment = encode_segment(data, model, streams)
    assert segment == encode_reference(data, model, streams)
    assert decode_segment(segment, model) == data


@pytest.mark.parametrize("streams", [1, 7, 64, 500, None])
def test_streams_restore_the_same_bytes(streams, model):
    data = predictable(9000)
    segment = encode_segment(data, model, streams)
    assert segment.method == MODEL
    assert segment.streams == num_streams(segment.tokens, streams)
    assert len(segment.payload) < 0.5 * len(data)
    assert decode_segment(segment, model) == data


def test_number_of_streams():
    assert [num_streams(n) for n in (1, 4095, 8191, 8192, 1 << 20)] == [1, 1, 1, 2, 64]
    assert [num_streams(5, n) for n in (1, 5, 6, 9999)] == [1, 5, 5, 5]
    assert num_streams(1 << 20, 9999) == 4096


def test_chunks_do_not_change_the_payload(model, monkeypatch):
    data = predictable(3000)
    whole = encode_segment(data, model, 3)
    monkeypatch.setattr("laconic.coder.codec.LOGITS_BYTES", 4 * 3 * VOCAB * 17)
    assert encode_segment(data, model, 3) == whole


def test_chunks_are_short_enough_for_attention(model, monkeypatch):
    advance, steps = model.engine.advance, []
    monkeypatch.setattr(
        model.engine, "advance", lambda state, ids: steps.append(ids.shape[1]) or advance(state, ids)
    )
    encode_segment(predictable(9000), model, 1)
    assert max(steps) <= 128


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=400), st.integers(1, 70), st.booleans())
def test_any_bytes(data, streams, with_model):
    model = MODEL_ONE if with_model else None
    segment = encode_segment(data, model, streams)
    assert len(segment.payload) <= len(data)
    assert decode_segment(segment, model) == data


@pytest.mark.parametrize(
    "data", [b"a", bytes(range(256)), bytes(5000), b"\xff\xfe" * 3, b"abc end \0\xff" * 50]
)
def test_special_bytes(data, model):
    assert decode_segment(encode_segment(data, model), model) == data


def test_random_bytes_are_stored_raw_after_a_sample(model):
    data = np.random.default_rng(0).bytes(40_000)
    assert encode_segment(data, model).method == RAW
    assert model.engine.tokens_seen < 3000


def test_zeros_never_reach_the_model(model):
    began = time.process_time()
    segment = encode_segment(bytes(1 << 20), model)
    assert segment.method == LZMA
    assert len(segment.payload) < 1000
    assert model.engine.tokens_seen == 0
    assert time.process_time() - began < 2
    assert decode_segment(segment, model) == bytes(1 << 20)


def test_lzma_is_taken_where_it_is_smaller(model):
    data = predictable(700, seed=1)[:40] * 12 + np.random.default_rng(1).bytes(600)
    segment = encode_segment(data, model)
    assert segment.method == LZMA
    assert decode_segment(segment, model) == data


def test_progress_ends_at_one(model, monkeypatch):
    monkeypatch.setattr("laconic.coder.codec.MAX_CHUNK_STEPS", 100)
    parts = []
    encode_segment(predictable(2000), model, 4, parts.append)
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
    segment = replace(encode_segment(predictable(1000), model, 2), **change)
    with pytest.raises(DamageError):
        decode_segment(segment, model)


def test_lzma_that_goes_on_or_stops_early():
    good = encode_segment(b"laconic " * 100, None)
    assert good.method == LZMA
    for payload in (good.payload + b"x", good.payload[:-1], good.payload[:-6]):
        with pytest.raises(DamageError):
            decode_segment(replace(good, payload=payload), None)
    for length in (1, 799, 801):
        with pytest.raises(DamageError):
            decode_segment(replace(good, original_length=length), None)


def test_tokens_cover_the_alphabet():
    assert sorted(TOKENS[:256]) == [bytes([b]) for b in range(256)]


def test_a_tokenizer_that_loses_bytes_is_noticed():
    model = fake_model()
    model.checkpoint.tokenizer = SimpleNamespace(encode=lambda data: FakeTokenizer().encode(data)[:-1])
    with pytest.raises(LaconicError, match="does not give its input back"):
        encode_segment(predictable(5000), model)
