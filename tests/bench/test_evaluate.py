import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import fake_model, predictable
from hypothesis import given
from hypothesis import strategies as st

from laconic.bench import evaluate
from laconic.bench.evaluate import (
    CLASSES,
    bits_by_class,
    byte_class,
    code_length,
    code_length_bits,
    costliest_places,
    costliest_tokens,
    describe,
)
from laconic.bench.measure import Sample
from laconic.coder.codec import encode_segment
from laconic.coder.kernels import code_lengths
from laconic.coder.rangecoder import weights_reference
from laconic.coder.segment import MODEL

VOCABULARY = [bytes([value]) for value in range(256)]
TEXT = b"def f(x):\n    return x + 41\n\xc3\xa9\0" * 20


class PreviousToken:
    """An engine that expects the token it was fed last, by six bits, and records what it was fed."""

    name, kernel, vocab_size = "previous", "none", 256

    def __init__(self):
        self.fed = []

    def start(self, num_streams):
        assert num_streams == 1
        return None

    def advance(self, state, ids):
        self.fed += ids[0].tolist()
        logits = np.zeros((*ids.shape, 256), dtype=np.int32)
        for step, token in enumerate(ids[0]):
            if token < 256:
                logits[0, step, token] = 6 << 10
        return logits


TOKENIZER = SimpleNamespace(
    encode=lambda data: np.frombuffer(data, dtype=np.uint8).astype(np.int32),
)
CHECKPOINT = SimpleNamespace(tokenizer=TOKENIZER, token_bytes=VOCABULARY)


def test_code_length_is_that_of_the_weights():
    engine = PreviousToken()
    length = code_length(CHECKPOINT, engine, b"aab")
    uniform, total = 8.0, 2**22 + 255 * 2**16
    expected = [uniform, math.log2(total / 2**22), math.log2(total / 2**16)]
    assert length.token_bits.tolist() == pytest.approx(expected, abs=1e-12)
    assert code_length_bits(CHECKPOINT, engine, b"aab") == pytest.approx(sum(expected), abs=1e-12)
    assert engine.fed[:3] == [256, ord("a"), ord("a")]


def test_chunks_change_nothing(monkeypatch):
    whole = code_length_bits(CHECKPOINT, PreviousToken(), TEXT)
    for tokens in (1, 7, len(TEXT) - 1, len(TEXT)):
        monkeypatch.setattr(evaluate, "CHUNK_TOKENS", tokens)
        engine = PreviousToken()
        assert code_length_bits(CHECKPOINT, engine, TEXT) == whole
        assert engine.fed == [256, *TEXT[:-1]]


def test_the_coder_writes_what_the_code_length_says():
    model, data = fake_model(), predictable(20_000)
    segment = encode_segment(data, model, streams=1, level=1)
    assert segment.method == MODEL
    bits = code_length_bits(model.checkpoint, model.engine, data)
    assert bits - 8 < 8 * len(segment.payload) < bits + 16


def test_nothing_costs_nothing():
    length = code_length(CHECKPOINT, PreviousToken(), b"")
    assert (length.bits, length.bits_per_byte) == (0.0, 0.0)
    assert "0 bytes, 0 tokens" in describe(Sample("empty", b""), length, VOCABULARY)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=40), st.data())
def test_bits_are_those_of_exact_arithmetic(logits, data):
    token = data.draw(st.integers(0, len(logits) - 1))
    weights = weights_reference(logits)
    exact = Fraction(sum(weights), weights[token])
    bits = code_lengths(np.array([logits], dtype=np.int32), np.array([token], dtype=np.int32))[0]
    assert bits == pytest.approx(math.log2(exact), abs=1e-9)
    assert bits >= 0


def test_every_byte_has_one_class():
    classes = [byte_class(value) for value in range(256)]
    assert set(classes) == set(CLASSES)
    examples = {
        "a": "letters",
        "Z": "letters",
        "7": "digits",
        "\n": "whitespace",
        "(": "punctuation",
        "\0": "control",
    }
    assert {c: classes[ord(c)] for c in examples} == examples
    assert set(classes[128:]) == {"high bytes"}


def test_classes_tokens_and_places_account_for_the_bits():
    length = code_length(CHECKPOINT, PreviousToken(), TEXT)
    rows = bits_by_class(length, VOCABULARY)
    assert sum(row[1] for row in rows) == sum(row[2] for row in rows) == len(TEXT)
    assert math.fsum(row[3] for row in rows) == pytest.approx(length.bits)
    assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)

    tokens = costliest_tokens(length, VOCABULARY)
    assert len(tokens) == 10
    assert all(TEXT.count(token) == times for token, times, _ in tokens)

    at, bits, before, token = costliest_places(length, TEXT, VOCABULARY)[0]
    assert bits == length.token_bits.max()
    assert TEXT[at : at + 1] == token
    assert TEXT[:at].endswith(before)


def test_the_description_names_figures():
    text = describe(Sample("f.py", TEXT), code_length(CHECKPOINT, PreviousToken(), TEXT), VOCABULARY)
    assert f"f.py: {len(TEXT)} bytes, {len(TEXT)} tokens, 1.000 bytes per token" in text
    for name in CLASSES:
        assert name in text
