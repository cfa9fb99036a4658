"""Segments against a reference, held to the plain mixer; payloads that no encoder writes."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from fakes import TOKENS, fake_model, predictable

from laconic.coder.copies import Copy, gaps_between, pack_copies
from laconic.coder.limits import TOKEN_BYTES, MemoryLimitError
from laconic.coder.mixing import primed, reference
from laconic.coder.mixing.longest import longest_tokens
from laconic.coder.mixing.primed import CONTEXT, decode_primed, encode_primed
from laconic.coder.mixing.state import Shape, shape_for, tree_arrays
from laconic.coder.mixing.tree import build_tree, byte_tree
from laconic.coder.model import ensemble
from laconic.coder.rangecoder import RangeEncoder
from laconic.coder.segment import EXPERTS, MIXED, DamageError

OLD = predictable(1500) + b"to be or not to be, that is the question. " * 5
NEW = OLD[:300] + b"abc end 1" + OLD[320:1100] + predictable(60, seed=3) + OLD[1200:]
COPIES = [Copy(0, 0, 200), Copy(340, 351, 700), Copy(1200, 1251, 3)]
PAIR = ensemble([fake_model("first"), fake_model("second", 5)])
WAYS = [(None, []), (None, COPIES), (PAIR, []), (PAIR, COPIES)]


def plain_tokens(data, tokens):
    """Longest first, from left to right."""
    ids, at = [], 0
    while at < len(data):
        fitting = [token for token in tokens if data.startswith(token, at)]
        if fitting:
            ids.append(tokens.index(max(fitting, key=len)))
        at += len(max(fitting, key=len)) if fitting else 1
    return ids


class PlainModels:
    """Predictions of every model after one token more."""

    def __init__(self, model):
        self.model = model
        self.begin()

    def begin(self):
        self.states = [member.engine.start(1) for member in self.model.members] if self.model else []
        self.fed = len(TOKENS)

    def predict(self):
        fed = np.array([[self.fed]], dtype=np.int32)
        members = self.model.members if self.model else ()
        logits = [m.engine.advance(state, fed)[0, 0] for m, state in zip(members, self.states, strict=True)]
        return [reference.Prediction(row.tolist()) for row in logits]


def plain_payload(data, old, learned, copies, model, level):
    """As docs/format.md says it, by the plain mixer."""
    tokens = TOKENS if model else [bytes([byte]) for byte in range(256)]
    shape = shape_for(len(data) + learned[1], level, 1, len(model.members) if model else 0)
    mixer = reference.Mixer(shape, build_tree(TOKENS) if model else byte_tree())
    models, encoder, stream = PlainModels(model), RangeEncoder(), mixer.past.streams[0]

    def code(ids, write):
        for token in ids:
            mixer.code_token(0, models.predict(), write, token)
            models.fed = token

    def write(chance, bit):
        encoder.encode(*((0, chance) if bit else (chance, 65536 - chance)), 65536)
        return bit

    begin, length = learned
    code(plain_tokens(old[begin : begin + length], tokens), lambda chance, bit: bit)
    seen, copied = old[begin : begin + length], False
    for first, end, copy in gaps_between(copies, len(data)):
        gap = data[first:end]
        if gap and copied and model:
            models.begin()
            stream.tokens = [0, 0, 0]
            for token in plain_tokens(seen[-CONTEXT:], tokens):
                stream.end_token(token)
                models.predict()
                models.fed = token
        copied = copied and not gap
        code(model.tokenize(gap).tolist() if model else gap, write)
        seen += gap
        if copy is not None:
            copied, source = True, old[copy.source : copy.source + copy.length]
            seen += source
            for byte in source:
                mixer.past.push(0, byte)
    return pack_copies(copies) + encoder.finish()


def test_copies_of_the_example_are_true():
    for begin, source, length in COPIES:
        assert NEW[begin : begin + length] == OLD[source : source + length]


@pytest.mark.parametrize(("model", "copies"), WAYS)
@pytest.mark.parametrize("learned", [(0, 0), (200, 900)])
def test_the_plain_mixer_writes_the_same(model, copies, learned):
    segment = encode_primed(NEW, OLD, learned, copies, model, 2, len(NEW))
    assert segment.payload == plain_payload(NEW, OLD, learned, copies, model, 2)
    assert segment.method == (MIXED if model else EXPERTS)
    assert segment.learned == learned
    assert decode_primed(segment, OLD, model, 1 << 30) == NEW


@pytest.mark.parametrize(("model", "copies"), WAYS)
def test_pieces_do_not_matter(model, copies, monkeypatch):
    whole = encode_primed(NEW, OLD, (0, 1000), copies, model, 3, len(NEW))
    monkeypatch.setattr(primed, "STEPS", 17)
    monkeypatch.setattr(primed, "REPORTED_TOKENS", 5)
    monkeypatch.setattr("laconic.coder.lockstep.MAX_CHUNK_STEPS", 7)
    assert encode_primed(NEW, OLD, (0, 1000), copies, model, 3, len(NEW)) == whole
    assert decode_primed(whole, OLD, model, 1 << 30) == NEW


@pytest.mark.parametrize("model", [None, PAIR])
def test_nothing_but_a_copy(model):
    copies = [Copy(0, 5, 900)]
    segment = encode_primed(OLD[5:905], OLD, (0, 0), copies, model, 2, 900)
    if model is None:
        assert segment.payload == pack_copies(copies)
        assert decode_primed(segment, OLD, None, 1 << 30) == OLD[5:905]
    else:
        assert segment is None


@pytest.mark.parametrize("model", [None, PAIR])
def test_a_limit(model):
    size = len(encode_primed(NEW, OLD, (0, 1000), COPIES, model, 2, len(NEW)).payload)
    assert encode_primed(NEW, OLD, (0, 1000), COPIES, model, 2, size // 2) is None


@pytest.mark.parametrize("model", [None, PAIR])
def test_payloads_that_no_encoder_writes(model):
    segment = encode_primed(NEW, OLD, (200, 900), COPIES, model, 2, len(NEW))
    payload = segment.payload
    for broken in (
        replace(segment, payload=payload[:-2]),
        replace(segment, payload=payload + b"\1" * 8),
        replace(segment, learned=(len(OLD) - 899, 900)),
        replace(segment, tokens=max(1, segment.tokens - 1), original_length=segment.original_length - 1),
        replace(segment, tokens=segment.tokens + 9, original_length=segment.original_length + 1),
    ):
        with suppress(DamageError):
            assert decode_primed(broken, OLD, model, 1 << 30) != NEW
    for at in range(12):
        with_flip = bytearray(payload)
        with_flip[at] ^= 0x44
        with suppress(DamageError):
            assert decode_primed(replace(segment, payload=bytes(with_flip)), OLD, model, 1 << 30) != NEW


def test_memory_counts_what_is_learned():
    data = bytes(1000)
    segment = encode_primed(data, OLD * 100, (0, 100_000), [], None, 2, 1000)
    shape = shape_for(101_000, 2, 1, 0, Shape.unpack_profile(segment.profile)[1])
    assert decode_primed(segment, OLD * 100, None, shape.memory + TOKEN_BYTES * 100_000) == data
    with pytest.raises(MemoryLimitError):
        decode_primed(segment, OLD * 100, None, shape.memory)


@pytest.mark.parametrize(
    "tokens",
    [
        TOKENS,
        [b"a", b"a", b"ab", b"abc", b"abcde", b"b", b"bcd", b"bce", b"c", b"\xff", b"\xff\xff\xff"],
        [b"ab", b"ac"],
    ],
)
def test_longest_tokens(tokens):
    tree = tree_arrays(build_tree(tokens))
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 5, 300):
        data = b"".join(rng.choice([b"a", b"b", b"c", b"ab", b"abc", b"d", b"e", b"\xff", b"end "], count))
        ids = longest_tokens(data, tree)
        assert ids.dtype == np.int32
        assert ids.tolist() == plain_tokens(data, tokens)
