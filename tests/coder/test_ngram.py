"""Frozen n-gram models: their format, and engines that give the same integers."""

import hashlib
import json
from itertools import pairwise

import numpy as np
import pytest
from graphs import random_checkpoint, random_config
from ngrams import plain_logits, random_ngram

from laconic.coder.checkpoint import CONFIG, TENSORS, FrozenCheckpoint
from laconic.coder.codec import decode_segment
from laconic.coder.direct import encode_direct
from laconic.coder.engine import ENGINES, build_engine, load_engine
from laconic.coder.engines.ngram_numba import NgramEngine
from laconic.coder.engines.ngram_reference import NgramReference
from laconic.coder.errors import LaconicError
from laconic.coder.mixing.coding import encode_mixed
from laconic.coder.model import Model, ensemble
from laconic.coder.ngram import CONTINUED, LAST, NgramConfig
from laconic.coder.tensorfile import pack_tensors
from laconic.models.tokenizer import train_tokenizer

# SHA-256 of logits of the spec: a change makes every old file unreadable.
GOLDEN = "876863387b7ac4742e6a3111e6bf881e01e48027ecb7a15259d472fdde12447f"

SHAPES = {
    "one token": {"order": 1},
    "pairs": {"order": 2, "vocab_size": 40},
    "long": {"order": 6, "vocab_size": 6, "share": 0.5},
    "sparse": {"order": 5, "vocab_size": 50, "share": 0.03},
    "nothing beyond tokens": {"order": 3, "share": 0.0},
}


def tokens(vocab_size, streams=3, length=40, seed=1):
    ids = np.random.default_rng(seed).integers(0, vocab_size, (streams, length)).astype(np.int32)
    ids[:, 0] = vocab_size
    ids[1, 7] = vocab_size  # a text may begin anew
    return ids


@pytest.mark.parametrize("shape", SHAPES)
def test_the_reference_follows_the_document(shape):
    checkpoint = random_ngram(**SHAPES[shape])
    ids = tokens(checkpoint.config.vocab_size)
    engine = NgramReference(checkpoint)
    logits = engine.advance(engine.start(len(ids)), ids)
    assert logits.dtype == np.int32
    for s, t in np.ndindex(*ids.shape):
        assert logits[s, t].tolist() == plain_logits(checkpoint, ids[s, : t + 1].tolist())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_engine_equals_the_reference_in_any_pieces(shape):
    checkpoint = random_ngram(**SHAPES[shape])
    ids = tokens(checkpoint.config.vocab_size)
    reference, engine = NgramReference(checkpoint), NgramEngine(checkpoint)
    expected = reference.advance(reference.start(len(ids)), ids)
    for cuts in ([], [1], list(range(1, 40)), [1, 2, 7, 8, 39]):
        state, edges = engine.start(len(ids)), [0, *cuts, 40]
        found = np.concatenate([engine.advance(state, ids[:, a:b]) for a, b in pairwise(edges)], axis=1)
        np.testing.assert_array_equal(found, expected)


def test_streams_that_end_leave_the_others_alone():
    checkpoint = random_ngram()
    ids = tokens(12, streams=5)
    reference, engine = NgramReference(checkpoint), NgramEngine(checkpoint)
    expected = reference.advance(reference.start(5), ids)
    for each in (reference, engine):
        state = each.start(5)
        np.testing.assert_array_equal(each.advance(state, ids[:, :10]), expected[:, :10])
        np.testing.assert_array_equal(each.advance(state, ids[:2, 10:]), expected[:2, 10:])


def test_streams_go_on_in_several_ways():
    checkpoint = random_ngram()
    ids = tokens(12, streams=3)
    for engine in (NgramReference(checkpoint), NgramEngine(checkpoint)):
        state = engine.start(3)
        engine.advance(state, ids[:, :20])
        branched = engine.select(state, [2, 0, 0])
        found = engine.advance(branched, ids[[2, 0, 0], 20:])
        np.testing.assert_array_equal(found, engine.advance(state, ids[:, 20:])[[2, 0, 0]])


def test_golden_logits():
    digest = hashlib.sha256()
    for shape in SHAPES.values():
        checkpoint = random_ngram(**shape)
        engine = build_engine(checkpoint, "numpy")
        logits = engine.advance(engine.start(3), tokens(checkpoint.config.vocab_size))
        digest.update(checkpoint.id + logits.astype("<i4").tobytes())
    assert digest.hexdigest() == GOLDEN


def test_every_name_of_an_engine_is_answered():
    checkpoint = random_ngram()
    kinds = {name: type(load_engine(checkpoint, name)) for name in ENGINES}
    assert kinds == dict.fromkeys(ENGINES, NgramEngine) | {"numpy": NgramReference}
    with pytest.raises(LaconicError, match="no engine 'abacus'"):
        load_engine(checkpoint, "abacus")


@pytest.fixture
def folder(tmp_path):
    random_ngram().save(tmp_path / "frozen")
    return tmp_path / "frozen"


def test_saved_and_loaded_is_the_same(folder):
    made, loaded = random_ngram(), FrozenCheckpoint.load(folder)
    assert loaded.id == made.id
    assert loaded.config == made.config == NgramConfig(12, 4)
    assert json.loads((folder / CONFIG).read_text())["config"] == {
        "kind": "ngram",
        "order": 4,
        "spec": 2,
        "vocab_size": 12,
    }
    assert all((loaded.tensors[name] == value).all() for name, value in made.tensors.items())
    assert loaded.size_bytes < sum(path.stat().st_size for path in folder.iterdir()) + 1
    assert random_ngram(seed=1).id != made.id


def test_any_cut_is_noticed_and_no_flipped_bit_changes_what_is_loaded(folder):
    path, sound = folder / TENSORS, random_ngram().id
    content = path.read_bytes()
    refused = 0
    for position in range(len(content)):
        for wrong in (content[:position], content + content[: position + 1]):
            path.write_bytes(wrong)
            with pytest.raises(LaconicError):
                FrozenCheckpoint.load(folder)
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 7)
        path.write_bytes(damaged)
        try:
            assert FrozenCheckpoint.load(folder).id == sound
        except LaconicError:
            refused += 1
    assert refused > 0.9 * len(content)
    path.unlink()
    with pytest.raises(LaconicError, match=f"{TENSORS} missing"):
        FrozenCheckpoint.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "oracle"}, "of kind 'oracle'"),
        ({"order": 9}, "order is 9, allowed are whole numbers from 1 to 8"),
        ({"order": True}, "order is True"),
        ({"vocab_size": 1 << 16}, "vocab_size is 65536"),
        ({"window": 3}, "window"),
        ({"spec": 3}, "spec version 3"),
    ],
)
def test_configurations_that_are_refused(folder, change, message):
    path = folder / CONFIG
    head = json.loads(path.read_text())
    head["config"] |= change
    head.pop("sha256")
    canonical = json.dumps(head, sort_keys=True, separators=(",", ":")).encode()
    path.write_text(json.dumps({**head, "sha256": hashlib.sha256(canonical).hexdigest()}))
    with pytest.raises(LaconicError, match=message):
        FrozenCheckpoint.load(folder)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ngram.gaps", lambda t: t.__setitem__(-1, t[-1] & (LAST - 1)), "groups of continuations"),
        ("ngram.gaps", lambda t: t.__setitem__(0, 12 | t[0] & LAST), "token [0-9]+, the highest is 11"),
        ("ngram.values", lambda v: v.__setitem__(0, v[0] ^ CONTINUED), "groups of continuations"),
        ("ngram.values", lambda v: v.resize(len(v) - 1, refcheck=False), "one for each value"),
        ("ngram.values", lambda v: v.resize(11, refcheck=False), "uint8 of 12 to"),
    ],
)
def test_tensors_that_are_no_trie_are_refused(folder, name, change, message):
    sound = random_ngram()
    changed = sound.tensors[name].copy()
    change(changed)
    (folder / TENSORS).write_bytes(pack_tensors({**sound.tensors, name: changed}))
    with pytest.raises(LaconicError, match=message):
        FrozenCheckpoint.load(folder)


def test_more_depth_than_the_order_and_n_grams_that_contain_themselves_are_refused():
    sound = random_ngram()
    with pytest.raises(LaconicError, match="reach 4 tokens or more, the order is 3"):
        FrozenCheckpoint(NgramConfig(12, 3), sound.tensors, "{}", {})
    loop = {
        "ngram.values": np.array([0, 0, CONTINUED], dtype=np.uint8),
        "ngram.gaps": np.array([LAST], dtype=np.uint16),
    }
    fixed = {name: random_ngram(1, 2).tensors[name] for name in ("token_bytes", "token_ends")}
    with pytest.raises(LaconicError, match="before its continuations"):
        FrozenCheckpoint(NgramConfig(2, 3), {**fixed, **loop}, "{}", {})
    with pytest.raises(LaconicError, match=r"ngram\.gaps is missing"):
        FrozenCheckpoint(NgramConfig(2, 3), fixed, "{}", {})


@pytest.fixture(scope="module")
def text_model():
    """An n-gram model over bytes, whose tokenizer works."""
    tokenizer = train_tokenizer([bytes(range(256))], "bytes", 256)
    checkpoint = random_ngram(order=3, vocab_size=256, share=0.02)
    checkpoint.tokenizer_json = tokenizer.to_json()
    return Model(checkpoint, load_engine(checkpoint))


TEXT = b"she sells sea shells by the sea shore, " * 20 + bytes(range(256))


@pytest.mark.parametrize("streams", [1, 7])
def test_segments_by_the_model_alone_come_back(text_model, streams):
    segment = encode_direct(TEXT, text_model, streams, 1 << 30, None)
    assert decode_segment(segment, text_model, None, 1 << 30) == TEXT
    slow = Model(text_model.checkpoint, load_engine(text_model.checkpoint, "numpy"))
    assert encode_direct(TEXT, slow, streams, 1 << 30, None) == segment
    assert decode_segment(segment, slow, None, 1 << 30) == TEXT


def test_segments_by_model_and_experts_come_back_and_a_transformer_may_predict_beside(text_model):
    transformer = random_checkpoint(random_config())
    transformer.tokenizer_json = text_model.checkpoint.tokenizer_json
    both = ensemble([Model(transformer, load_engine(transformer)), text_model])
    for model in (text_model, both):
        segment = encode_mixed(TEXT, model, 6, 2, 1 << 30, None)
        assert decode_segment(segment, model, None, 1 << 30) == TEXT
        assert len(segment.payload) < len(TEXT) / 2
