"""Which method codes a segment, at every level; and payloads that no encoder writes."""

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import LONGER, TOKENS, FakeTokenizer, fake_model, predictable
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.coder import codec
from laconic.coder.codec import LEVELS, SAMPLE, check_level, decode_segment, encode_segment
from laconic.coder.container import check
from laconic.coder.errors import LaconicError
from laconic.coder.mixing import coding
from laconic.coder.model import Model, ensemble
from laconic.coder.segment import EXPERTS, LZMA, MIXED, MODEL, RAW, DamageError

MODEL_ONE = fake_model()
PAIR = ensemble([fake_model("first"), fake_model("second", 5)])
WORDS = b" ".join(b"%d bottles of beer on the wall" % (number * number) for number in range(40))


@settings(max_examples=80, deadline=None)
@given(
    st.binary(min_size=1, max_size=400),
    st.integers(1, 70),
    st.sampled_from([None, MODEL_ONE, PAIR]),
    st.sampled_from(LEVELS),
)
def test_any_bytes(data, streams, model, level):
    if model is PAIR and level == 1:
        level = 2
    segment = encode_segment(data, model, streams, level=level)
    assert len(segment.payload) <= len(data)
    assert decode_segment(segment, model) == data


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "data", [b"a", bytes(range(256)), bytes(5000), b"\xff\xfe" * 3, b"abc end \0\xff" * 50, WORDS]
)
def test_every_level_restores_special_bytes(data, level, model, pair):
    for predictor in (None, model, pair) if level > 1 else (None, model):
        assert decode_segment(encode_segment(data, predictor, level=level), predictor) == data


@pytest.mark.parametrize("level", LEVELS)
def test_methods_and_levels(level, model):
    data = predictable(6000)
    by_model = encode_segment(data, model, level=level)
    assert by_model.method == (MODEL if level == 1 else MIXED)
    assert by_model.tokens == len(model.tokenize(data))
    assert by_model.streams == (by_model.tokens // 2048 if level == 1 else 1)
    assert len(by_model.payload) < 0.25 * len(data)
    alone = encode_segment(WORDS, None, level=level)
    assert alone.method == (LZMA if level == 1 else EXPERTS)
    assert (alone.tokens, alone.streams) == (0, 0)
    for segment in (by_model, alone):
        assert segment.profile >> 4 == (level if level > 1 else 0)


def test_higher_levels_are_smaller():
    sizes = [len(encode_segment(WORDS, None, level=level).payload) for level in LEVELS]
    assert sizes[8] < sizes[1] < 0.8 * sizes[0]


@pytest.mark.parametrize("streams", [1, 7, 64, 500, None])
def test_streams_restore_the_same_bytes(streams, model, pair):
    data = predictable(3000)
    for predictor in (model, pair):
        segment = encode_segment(data, predictor, streams)
        assert (segment.method, segment.streams) == (MIXED, streams or 1)
        assert decode_segment(segment, predictor) == data


def test_chunks_do_not_change_the_payload(pair, monkeypatch):
    data = predictable(3000)
    whole, alone = encode_segment(data, pair, 3), encode_segment(WORDS, None)
    monkeypatch.setattr("laconic.coder.lockstep.MAX_CHUNK_STEPS", 17)
    monkeypatch.setattr("laconic.coder.mixing.coding.STEPS", 17)
    assert encode_segment(data, pair, 3) == whole
    assert encode_segment(WORDS, None) == alone
    assert decode_segment(alone, None) == WORDS


@pytest.mark.parametrize("level", [0, 10, -1])
def test_levels_that_there_are_not(level):
    for check_it in (
        lambda level: check_level(level, None),
        lambda level: encode_segment(b"abc", None, level=level),
    ):
        with pytest.raises(LaconicError, match=f"level {level}: choose from 1 .* to 9"):
            check_it(level)


def test_level_1_takes_one_model(pair):
    for data in (predictable(500), bytes(5000), b"a"):
        with pytest.raises(LaconicError, match="level 1 takes one checkpoint"):
            encode_segment(data, pair, level=1)


@pytest.mark.parametrize("level", [1, 6])
def test_zeros_never_reach_the_model(level, model):
    began = time.process_time()
    segment = encode_segment(bytes(1 << 20), model, level=level)
    assert segment.method == LZMA
    assert len(segment.payload) < 1000
    assert model.engine.tokens_seen == 0
    assert time.process_time() - began < 2
    assert decode_segment(segment, model) == bytes(1 << 20)


def test_noise_never_reaches_the_model(model):
    data = np.random.default_rng(0).bytes(2 * SAMPLE)
    assert encode_segment(data, model, level=2).method == RAW
    assert model.engine.tokens_seen == 0


def test_a_model_that_does_not_help_sees_a_sample(model):
    rng = np.random.default_rng(1)
    words = [rng.bytes(5).hex().encode() for _ in range(500)]
    data = b" ".join(words[number] for number in rng.integers(0, 500, 2 * SAMPLE // 11 + 100))
    segment = encode_segment(data, model, level=2)
    assert segment.method == EXPERTS
    assert model.engine.tokens_seen <= SAMPLE
    assert decode_segment(segment, None) == data


def test_a_model_that_helps_makes_the_experts_alone_unnecessary(model, monkeypatch):
    data = predictable(2 * SAMPLE)
    asked = []

    encode_experts = coding.encode_experts
    monkeypatch.setattr(
        coding, "encode_experts", lambda data, *more: asked.append(len(data)) or encode_experts(data, *more)
    )
    segment = encode_segment(data, model, level=2)
    assert (segment.method, segment.streams) == (MIXED, 1)
    assert set(asked) == {SAMPLE}
    assert decode_segment(segment, model) == data


@pytest.mark.parametrize(
    ("length", "ratios", "helps"),
    [
        (2 * codec.SAMPLE - 1, [], None),
        (codec.LONG - 1, [(0.84, 0.7)], True),
        (codec.LONG - 1, [(1.14, 1.04)], False),
        (codec.LONG - 1, [(0.9, 0.8)], None),
        (codec.LONG - 1, [(1.1, 1.0)], None),
        (codec.LONG, [(0.84, 0.7)], True),
        (codec.LONG, [(1.14, 1.04)], False),
        (codec.LONG, [(0.86, 0.8), (0.94, 0.9)], True),
        (codec.LONG, [(1.1, 1.0), (1.1, 1.04)], False),
        (codec.LONG, [(1.1, 1.0), (0.96, 0.9)], None),
        (codec.LONG, [(1.1, 1.0), (1.04, 0.99)], None),
    ],
)
def test_a_larger_sample_settles_what_the_first_leaves_open(length, ratios, helps, model, monkeypatch):
    """Long segments only: what it costs is little beside both methods in full."""
    asked, promised = [], iter(ratios)
    monkeypatch.setattr(codec, "_promised", lambda *what: asked.append(what[3]) or next(promised))
    assert codec.model_helps(bytes(length), model, 6, None, None) is helps
    assert asked == [codec.SAMPLE, codec.LARGER][: len(ratios)]
    assert codec.model_helps(bytes(length), model, 6, 4, None) is None


def test_what_a_sample_promises(model):
    good, bad = predictable(2 * SAMPLE), np.random.default_rng(0).bytes(5 * SAMPLE).hex().encode()
    usual, at_best = codec._promised(good, model, 2, SAMPLE, None)
    assert 0.1 < at_best == usual < 0.85
    assert min(codec._promised(bad, model, 2, SAMPLE, None)) > 1


def test_what_n_grams_save_may_last(model, monkeypatch):
    """A text of twice the sample: they are tried where a model that costs more is not."""
    assert model.macs_per_token > 0
    data = predictable(2 * SAMPLE)
    usual, at_best = codec._promised(data, model, 2, SAMPLE, None)
    monkeypatch.setattr(Model, "macs_per_token", 0)
    assert codec._promised(data, model, 2, SAMPLE, None) == (usual, pytest.approx(at_best - 0.02))


def test_progress_never_goes_back(model, monkeypatch):
    monkeypatch.setattr("laconic.coder.lockstep.MAX_CHUNK_STEPS", 100)
    monkeypatch.setattr("laconic.coder.mixing.coding.STEPS", 100)
    encoding, decoding = [], []
    encode_segment(
        predictable(2000), model, 4, encoding.append
    )  # by model and experts, then by experts alone
    decode_segment(encode_segment(WORDS, None), None, decoding.append)
    for parts in (encoding, decoding):
        assert parts == sorted(parts)
        assert len(set(parts)) > 3
        assert 0 <= parts[0] < parts[-1] <= 1


@pytest.fixture(params=["mixed", "several", "experts"])
def coded(request, model, pair):
    """(a segment by models and experts, its model, its original)."""
    data, predictor = predictable(1000), {"mixed": model, "several": pair, "experts": None}[request.param]
    if predictor is None:
        return encode_segment(WORDS, None), None, WORDS
    return encode_segment(data, predictor, 2), predictor, data


@pytest.mark.parametrize("change", ["empty", "zeros", "ones", "more", "twice", "less", "half"])
def test_a_payload_that_is_too_short_or_too_long(change, coded):
    segment, model, _ = coded
    payload = segment.payload
    changed = {
        "empty": b"",
        "zeros": bytes(40),
        "ones": b"\xff" * 3,
        "more": payload + bytes(8),
        "twice": payload + payload,
        "less": payload[:-8],
        "half": payload[: len(payload) // 2],
    }[change]
    assert noticed(replace(segment, payload=changed), model, coded[2])


def noticed(segment, model, data):
    """Whether a damaged segment is refused, or decodes to what its check tells from `data`."""
    try:
        return check(decode_segment(segment, model)) != check(data)
    except DamageError:
        return True


def test_damage_anywhere_in_a_payload_is_noticed(coded):
    """Without the check that is stored beside it, which notices before anything is decoded."""
    segment, model, data = coded
    for at in range(0, len(segment.payload), 11):
        for mask in (1, 0xFF):
            broken = bytearray(segment.payload)
            broken[at] ^= mask
            assert noticed(replace(segment, payload=bytes(broken)), model, data)
    for length in range(0, len(segment.payload) - 1, 17):
        assert noticed(replace(segment, payload=segment.payload[:length]), model, data)


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=60),
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(2, 9),
    st.integers(0, 3),
    st.sampled_from([None, MODEL_ONE, PAIR]),
)
def test_noise_is_refused_or_decodes_to_something(noise, length, tokens, streams, level, slots, model):
    segment = encode_segment(b"x" * 9, None)
    tokens = min(length, tokens)
    segment = replace(
        segment,
        method=EXPERTS if model is None else MIXED,
        original_length=length,
        payload=noise,
        tokens=tokens,
        streams=min(tokens, streams),
        profile=level << 4 | slots,
    )
    try:
        data = decode_segment(segment, model)
    except DamageError:
        return
    longest = 1 if model is None else max(map(len, TOKENS))
    assert len(data) <= max(length, longest * tokens)


@pytest.mark.parametrize("changes", [{"tokens": 10}, {"tokens": 990}, {"streams": 1}, {"profile": 0x70}])
def test_headers_that_do_not_fit_the_payload(changes, model):
    data = predictable(1000)
    segment = encode_segment(data, model, 2)
    assert noticed(replace(segment, **changes), model, data)


@pytest.mark.parametrize("level", [1, 6])
def test_tokens_must_add_up_to_the_length(level, model):
    segment = encode_segment(predictable(1000), model, 2, level=level)
    for length in (segment.original_length - 1, segment.original_length + 1):
        with pytest.raises(DamageError, match="add up to its length"):
            decode_segment(replace(segment, original_length=length), model)


def test_a_segment_that_asks_for_too_much_memory(coded):
    segment, model, data = coded
    with pytest.raises(
        LaconicError, match=r"asks for 1\d MB of memory, allowed are 1 MB: raise --memory"
    ) as error:
        decode_segment(segment, model, memory=1 << 20)
    assert not isinstance(error.value, DamageError)
    assert decode_segment(segment, model, memory=1 << 25) == data
    greedy = replace(segment, profile=0x9C)  # 18 tables of 64 MB
    with pytest.raises(
        LaconicError, match=r"asks for 1,\d\d\d MB of memory, allowed are 1,024 MB: raise --memory"
    ):
        decode_segment(greedy, model)


def test_lzma_that_goes_on_or_stops_early():
    good = encode_segment(bytes(5000), None, level=1)
    assert good.method == LZMA
    for payload in (good.payload + b"x", good.payload[:-1], good.payload[:-6]):
        with pytest.raises(DamageError):
            decode_segment(replace(good, payload=payload), None)
    for length in (1, 4999, 5001):
        with pytest.raises(DamageError):
            decode_segment(replace(good, original_length=length), None)


def test_tokens_are_the_alphabet_and_more_in_the_order_of_their_bytes():
    assert sorted(TOKENS) == TOKENS
    assert set(TOKENS) == {bytes([b]) for b in range(256)} | set(LONGER)


@pytest.mark.parametrize("level", [1, 6])
def test_a_tokenizer_that_loses_bytes_is_noticed(level):
    model = fake_model()
    model.checkpoint.tokenizer = SimpleNamespace(
        encode_batch=lambda batch: [FakeTokenizer().encode(data)[:-1] for data in batch]
    )
    with pytest.raises(LaconicError, match="does not give its input back"):
        encode_segment(predictable(5000), model, level=level)
