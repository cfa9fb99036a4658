"""Records, held to docs/format.md."""

import zlib
from fractions import Fraction
from math import log2

import numpy as np
import pytest
from fakes import TOKENS, VOCAB, fake_model, predictable
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic import Compressor, LaconicError
from laconic.coder import frame, records
from laconic.coder.container import check
from laconic.coder.model import ensemble
from laconic.coder.rangecoder import RangeEncoder, weights_reference
from laconic.coder.segment import DamageError

KINDS = {
    "empty": b"",
    "byte": b"x",
    "text": predictable(300),
    "not-utf-8": b"\xff\xfe\x80" * 5,
    "repetitive": b"abc" * 1200,
    "noise": np.random.default_rng(0).bytes(500),
    "longest": predictable(frame.MAX_TOKENS, seed=1),
    "longer": predictable(frame.MAX_TOKENS + 1, seed=2),
}


@pytest.fixture
def compressor(model):
    return Compressor(model, threads=1)


def encode_reference(data, model, checked):
    """(blob, bits of the code length) by docs/format.md, method model, in plain Python."""
    ids = model.checkpoint.tokenizer.encode(data).tolist()
    encoder, cost = RangeEncoder(), Fraction(1)
    high, low = divmod(len(ids) - 1, 32)
    predictions = [[-1536 * int(log2(q + 1)) for q in range(512)]]
    predictions += model.engine.advance(model.engine.start(1), np.array([[VOCAB, *ids[:-1]]]))[0].tolist()
    for symbol, logits in zip([high, *ids], predictions, strict=True):
        weights = weights_reference(logits)
        encoder.encode(sum(weights[:symbol]), weights[symbol], sum(weights))
        cost *= Fraction(sum(weights), weights[symbol])
    bits = log2(cost.numerator) - log2(cost.denominator)
    end = check(data) if checked else b""
    return bytes([low << 3 | checked << 2 | 1]) + encoder.finish() + end, bits


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("length", [1, 2, 33, 150, 2000])
def test_the_blob_is_what_the_format_says(length, checked, model, compressor):
    data = predictable(length, seed=length)
    expected, bits = encode_reference(data, model, checked)
    (blob,) = compressor.compress_many([data], check=checked)
    if length > 2:
        assert blob == expected
    assert len(expected) <= bits / 8 + 2.01 + 4 * checked
    assert compressor.decompress_many([expected]) == [data]


@pytest.mark.parametrize("checked", [False, True])
def test_kinds_of_records(checked, compressor):
    blobs = dict(zip(KINDS, compressor.compress_many(list(KINDS.values()), check=checked), strict=True))
    assert compressor.decompress_many(list(blobs.values())) == list(KINDS.values())
    methods = {name: blob[0] & 3 for name, blob in blobs.items()}
    assert methods == {
        "empty": frame.RAW,
        "byte": frame.RAW,
        "text": frame.MODEL,
        "not-utf-8": frame.DEFLATE,
        "repetitive": frame.DEFLATE,
        "noise": frame.RAW,
        "longest": frame.MODEL,
        "longer": methods["longer"],
    }
    assert methods["longer"] != frame.MODEL
    for name, blob in blobs.items():
        assert len(blob) <= len(KINDS[name]) + 1 + 4 * checked
    if not checked:
        assert (blobs["empty"], blobs["byte"]) == (b"\0", b"\0x")


PREDICTABLE = st.builds(predictable, st.integers(1, 120), st.integers(0, 1000))
RECORD = st.one_of(
    st.binary(max_size=40), PREDICTABLE, st.builds(bytes.__mul__, st.binary(max_size=5), st.integers(0, 50))
)


@settings(max_examples=60, deadline=None)
@given(st.lists(RECORD, max_size=12), st.booleans(), st.randoms())
def test_round_trips_each_on_its_own(data, checked, random):
    compressor = Compressor(fake_model(), threads=1)
    blobs = compressor.compress_many(data, check=checked)
    assert compressor.decompress_many(blobs) == data
    for record, blob in zip(data, blobs, strict=True):
        assert compressor.compress_many([record], check=checked) == [blob]
        assert compressor.decompress_many([blob]) == [record]
        assert len(blob) <= len(record) + 1 + 4 * checked
    order = random.sample(range(len(data)), len(data))
    assert compressor.decompress_many([blobs[i] for i in order]) == [data[i] for i in order]


def test_batches_and_threads_do_not_matter(model, monkeypatch):
    data = [predictable(1 + 37 * i % 700, seed=i) for i in range(150)]
    expected = Compressor(model, threads=1).compress_many(data)
    for small, threads in ((1, 1), (1, 3), (7, 2), (500, 4)):
        monkeypatch.setattr(records, "SMALL_BATCH", small)
        compressor = Compressor(model, threads=threads)
        assert compressor.compress_many(data) == expected
        assert compressor.decompress_many(expected) == data


def test_streams_that_have_ended_are_not_fed(model, compressor):
    data = [predictable(length, seed=length) for length in (20, 900, 30, 40)]
    blobs = compressor.compress_many(data)
    before = model.engine.tokens_seen
    compressor.decompress_many(blobs)
    assert model.engine.tokens_seen - before == sum(len(model.tokenize(record)) for record in data)


@pytest.mark.parametrize("name", ["text", "byte", "repetitive"])
@pytest.mark.parametrize("checked", [False, True])
def test_golden_blobs(name, checked, compressor, golden):
    (blob,) = compressor.compress_many([KINDS[name]], check=checked)
    golden(f"record-{name}-checked" if checked else f"record-{name}", blob)


def decode(compressor, blob):
    """The record, or None for DamageError; anything else is a failure."""
    try:
        (record,) = compressor.decompress_many([blob])
    except DamageError:
        return None
    return record


@pytest.mark.parametrize("name", ["empty", "byte", "text", "not-utf-8", "noise"])
def test_damage_at_every_byte(name, compressor):
    data = KINDS[name][:150]
    plain, checked = (compressor.compress_many([data], check=asked)[0] for asked in (False, True))
    for at in range(len(checked)):
        for flip in range(1, 256, 1 if at == 0 else 37):
            changed = bytearray(checked)
            changed[at] ^= flip
            record = decode(compressor, bytes(changed))
            # A flag byte may change to one without a check; no change of a single bit does that unnoticed.
            assert record in (None, data) or (at == 0 and flip & (flip - 1))
        assert decode(compressor, checked[:at]) is None
    assert decode(compressor, checked + b"\0") is None
    for at in range(len(plain)):
        for flip in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            decode(compressor, plain[:at] + bytes([plain[at] ^ flip]) + plain[at + 1 :])
        decode(compressor, plain[:at])


def test_without_a_check_most_damage_is_found_by_the_end(compressor):
    (blob,) = compressor.compress_many([KINDS["text"]])
    found = [
        decode(compressor, blob[:at] + bytes([blob[at] ^ 1 << bit]) + blob[at + 1 :]) is None
        for at in range(1, len(blob))
        for bit in range(8)
    ]
    assert sum(found) > 0.8 * len(found)
    cut = [decode(compressor, blob[:at]) is None for at in range(len(blob))]
    assert sum(cut) > 0.6 * len(cut)
    for extra in (b"\0", b"\1", b"\xff", bytes(4), bytes(7)):
        assert decode(compressor, blob + extra) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=6))
def test_any_bytes(blobs):
    compressor = Compressor(fake_model(), threads=1)
    for blob in blobs:
        decode(compressor, blob)
    try:
        restored = compressor.decompress_many(blobs)
    except DamageError:
        assert None in [decode(compressor, blob) for blob in blobs]
    else:
        assert restored == [decode(compressor, blob) for blob in blobs]


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x03",
        b"\x03abc",
        b"\x08abc",
        b"\xf8abc",
        b"\x04",
        b"\x04abc",
        b"\xfcabc",
        b"\x02",
        b"\x02\x00",
        b"\x05abc",
    ],
)
def test_what_no_encoder_writes(blob, compressor):
    assert decode(compressor, blob) is None


def test_deflate_must_be_one_whole_stream(compressor):
    whole = frame.deflate(KINDS["repetitive"])
    assert decode(compressor, b"\x02" + whole) == KINDS["repetitive"]
    for payload in (whole[:-1], whole + b"\0", zlib.compress(KINDS["repetitive"])):
        assert decode(compressor, b"\x02" + payload) is None


def test_a_number_of_tokens_that_the_bytes_do_not_hold_ends_early(model, compressor):
    encoder, weights = RangeEncoder(), weights_reference([-1536 * int(log2(q + 1)) for q in range(512)])
    encoder.encode(sum(weights[:511]), weights[511], sum(weights))
    assert decode(compressor, b"\xf9" + encoder.finish()) is None
    assert model.engine.tokens_seen < 1000


def test_a_model_that_is_sure_ends_at_the_limit():
    model = fake_model(bits=2000)
    compressor = Compressor(model, threads=1)
    record = decode(compressor, b"\xf9" + b"\xff" * 60)
    assert record is None
    assert model.engine.tokens_seen <= frame.MAX_TOKENS


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_damaged_blob_is_named(threads, model, monkeypatch):
    monkeypatch.setattr(records, "SMALL_BATCH", 1)
    compressor = Compressor(model, threads=threads)
    blobs = compressor.compress_many([predictable(50 + i, seed=i) for i in range(40)])
    for i in (31, 17):
        blobs[i] += b"\0"
    with pytest.raises(DamageError, match=r"^blob 17 is damaged"):
        compressor.decompress_many(blobs)


def test_another_checkpoint_is_noticed_by_the_check(compressor):
    blobs = compressor.compress_many([KINDS["text"]], check=True)
    with pytest.raises(DamageError, match="another checkpoint"):
        Compressor(fake_model("other", 5), threads=1).decompress_many(blobs)


def test_a_tokenizer_that_loses_bytes_is_refused(model, compressor, monkeypatch):
    monkeypatch.setattr(model.checkpoint, "token_bytes", [*TOKENS[1:], b"?"])
    with pytest.raises(LaconicError, match="does not give its input back"):
        compressor.compress_many([b"some text"])


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True])
def test_threads_that_there_are_not(threads, model):
    with pytest.raises(LaconicError, match="choose from 1 to"):
        Compressor(model, threads=threads)


def test_one_checkpoint_is_needed(model):
    for wrong in (None, "none", ensemble([model, fake_model("other", 5)])):
        with pytest.raises(LaconicError, match="one checkpoint"):
            Compressor(wrong)
    with pytest.raises(LaconicError, match="no checkpoint 'nobody'"):
        Compressor("nobody")


def test_what_is_no_list_of_bytes(compressor):
    for call in (compressor.compress_many, compressor.decompress_many):
        with pytest.raises(LaconicError, match="give a list"):
            call(b"abc")
        with pytest.raises(LaconicError, match="1 is of type str: give bytes"):
            call([b"", "abc"])
        assert call([]) == []


def test_what_inflates_without_end_is_refused(model, monkeypatch):
    monkeypatch.setattr(frame, "MAX_INFLATED", 1000)
    compressor = Compressor(model, threads=1)
    [blob] = compressor.compress_many([bytes(1000)])
    assert compressor.decompress_many([blob]) == [bytes(1000)]
    monkeypatch.setattr(frame, "MAX_INFLATED", 999)
    with pytest.raises(DamageError):
        compressor.decompress_many([blob])
