import hashlib
import json
import lzma
import os

import numpy as np
import pytest
from graphs import random_checkpoint, random_config

from laconic.coder.checkpoint import CONFIG, TENSORS, TOKENIZER, FrozenCheckpoint
from laconic.coder.errors import LaconicError
from laconic.coder.graph import PRIOR_SHAPES, PRIOR_TENSORS
from laconic.coder.mixing.prior import LEARNED_COUNT
from laconic.coder.mixing.state import default_prior
from laconic.coder.registry import read_listing
from laconic.coder.tensorfile import read_tensors, write_tensors
from laconic.models.tokenizer import train_tokenizer


@pytest.fixture
def folder(tmp_path):
    random_checkpoint(random_config()).save(tmp_path / "frozen")
    return tmp_path / "frozen"


def test_saved_and_loaded_is_the_same(folder):
    made, loaded = random_checkpoint(random_config()), FrozenCheckpoint.load(folder)
    assert loaded.id == made.id
    assert loaded.config == made.config
    assert loaded.token_bytes == made.token_bytes == [bytes([i]) for i in range(256)]
    assert loaded.summary == {"name": "random"}
    assert loaded.size_bytes == sum((folder / n).stat().st_size for n in (TENSORS, CONFIG, TOKENIZER))
    assert all((loaded.tensors[k] == v).all() for k, v in made.tensors.items())


def test_the_id_depends_on_every_tensor_and_on_the_shape_and_on_nothing_else():
    made = random_checkpoint(random_config())
    ids = {made.id}
    for name in made.tensors:
        if name in ("token_ends",):
            continue
        changed = random_checkpoint(random_config())
        flat = changed.tensors[name].reshape(-1)
        flat[0] = 2 if flat[0] == 1 else 1
        ids.add(changed.id)
    ids.add(random_checkpoint(random_config(window=13)).id)
    assert len(ids) == len(made.tensors) + 1
    renamed = random_checkpoint(random_config())
    renamed.summary, renamed.card, renamed.tokenizer_json = {"name": "other"}, "card", "{}"
    assert renamed.id == made.id


@pytest.mark.parametrize("name", [TENSORS, CONFIG, TOKENIZER])
def test_any_flipped_byte_is_noticed(folder, name):
    path = folder / name
    content = path.read_bytes()
    for position in range(0, len(content), max(1, len(content) // 150)):
        if name == CONFIG and content[position : position + 1].isspace():
            continue
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 7)
        path.write_bytes(damaged)
        with pytest.raises(LaconicError):
            FrozenCheckpoint.load(folder)
    path.write_bytes(content)
    FrozenCheckpoint.load(folder)


@pytest.mark.parametrize("name", [TENSORS, CONFIG, TOKENIZER])
def test_truncated_and_missing_files(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(LaconicError):
        FrozenCheckpoint.load(folder)
    path.unlink()
    with pytest.raises(LaconicError, match=name):
        FrozenCheckpoint.load(folder)


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"config":' * 200_000, b"\xff\xfe"], ids=range(3))
def test_what_is_no_description(folder, content):
    (folder / CONFIG).write_bytes(content)
    assert read_listing(folder) is None
    with pytest.raises(LaconicError, match="is damaged"):
        FrozenCheckpoint.load(folder)


def describe(folder, **changes):
    """Change what config.json says, and sign it."""
    head = json.loads((folder / CONFIG).read_text()) | changes
    head.pop("sha256")
    canonical = json.dumps(head, sort_keys=True, separators=(",", ":")).encode()
    (folder / CONFIG).write_text(json.dumps({**head, "sha256": hashlib.sha256(canonical).hexdigest()}))


def test_what_is_signed_and_no_checkpoint(folder):
    describe(folder, summary=[])
    with pytest.raises(LaconicError, match="is damaged"):
        FrozenCheckpoint.load(folder)
    describe(folder, summary={}, tokenizer_sha256=hashlib.sha256(b"\xff").hexdigest())
    (folder / TOKENIZER).write_bytes(lzma.compress(b"\xff"))
    with pytest.raises(LaconicError, match="is damaged"):
        FrozenCheckpoint.load(folder)


@pytest.mark.parametrize("spec", [1, 3])
def test_another_spec_version(folder, spec):
    head = json.loads((folder / CONFIG).read_text())
    head["config"]["spec"] = spec
    (folder / CONFIG).write_text(json.dumps(head))
    with pytest.raises(LaconicError, match=f"spec version {spec}"):
        FrozenCheckpoint.load(folder)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("embed.weight", np.full((257, 32), -128, dtype=np.int8), "-128"),
        ("embed.multiplier", np.full(257, 1 << 18, dtype=np.int32), "embed.multiplier"),
        ("layers.0.qkv.shift", np.array([0], dtype=np.int32), "layers.0.qkv.shift"),
        ("layers.1.up.weight", np.zeros((48, 31), dtype=np.int8), "layers.1.up.weight"),
        ("head.shift", np.array([41], dtype=np.int32), "head.shift"),
        ("extra", np.zeros(1, dtype=np.int8), "extra is unknown"),
        ("token_ends", np.arange(256, dtype=np.int32), "token_ends"),
    ],
)
def test_tensors_out_of_range_are_refused_with_their_name(folder, name, value, message):
    tensors = read_tensors(folder / TENSORS)
    tensors[name] = value
    write_tensors(folder / TENSORS, tensors)
    with pytest.raises(LaconicError, match=message):
        FrozenCheckpoint.load(folder)


def test_tokens_out_of_order_are_refused(folder):
    tensors = read_tensors(folder / TENSORS)
    tensors["token_bytes"][[7, 8]] = tensors["token_bytes"][[8, 7]]
    write_tensors(folder / TENSORS, tensors)
    with pytest.raises(LaconicError, match="ascending order of their bytes"):
        FrozenCheckpoint.load(folder)


def prior_tensors():
    prior = default_prior()
    return {name: getattr(prior, name.split(".")[1]).copy() for name in PRIOR_TENSORS}


def test_a_prior_is_part_of_the_checkpoint_and_of_its_id(tmp_path):
    plain, made = random_checkpoint(random_config()), random_checkpoint(random_config())
    assert plain.prior is None
    made.tensors |= prior_tensors()
    made.save(tmp_path / "with prior")
    loaded = FrozenCheckpoint.load(tmp_path / "with prior")
    assert loaded.id == made.id != plain.id
    assert loaded.prior is not None
    assert loaded.prior.count == LEARNED_COUNT
    for name in ("weights", "maps", "matches", "rates"):
        np.testing.assert_array_equal(getattr(loaded.prior, name), getattr(default_prior(), name))
    ids = {made.id}
    for name in PRIOR_TENSORS:
        changed = random_checkpoint(random_config())
        changed.tensors |= prior_tensors()
        changed.tensors[name].reshape(-1)[0] += 1
        ids.add(changed.id)
    assert len(ids) == 5


@pytest.mark.parametrize("name", PRIOR_TENSORS)
def test_a_prior_that_is_incomplete_or_out_of_range_is_refused(folder, name):
    tensors = read_tensors(folder / TENSORS) | prior_tensors()
    sound = tensors.pop(name)
    kind, _, low, high = PRIOR_SHAPES[name]
    worse = [sound.astype(np.int64), sound[..., :-1]]
    for value in [] if kind == "uint16" else [low - 1, high + 1]:
        beyond = sound.copy()
        beyond.reshape(-1)[-1] = value
        worse.append(beyond)
    for value in (None, *worse):
        write_tensors(folder / TENSORS, tensors if value is None else {**tensors, name: value})
        with pytest.raises(LaconicError, match=f"{name}"):
            FrozenCheckpoint.load(folder)


def test_shapes_beyond_the_proof_are_refused():
    for changes in (
        {"window": 513},
        {"ffn_dim": 5000},
        {"num_kv_heads": 3},
        {"ffn": "gelu"},
        {"d_model": 1.5},
    ):
        assert random_config(**changes).problems()
    assert random_config().problems() == []


def test_an_existing_folder_is_not_overwritten(folder):
    with pytest.raises(LaconicError, match="exists"):
        random_checkpoint(random_config()).save(folder)


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("laconic.coder.checkpoint.write_tensors", full)
    with pytest.raises(OSError, match="No space"):
        random_checkpoint(random_config()).save(tmp_path / "frozen")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="cannot flush folders here")
def test_all_of_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    made, named, fsync = tmp_path / "frozen", {}, os.fsync

    def noted(descriptor):
        named[os.fstat(descriptor).st_ino] = made.exists()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    random_checkpoint(random_config()).save(made)
    inside = [path.stat().st_ino for path in (made, *made.iterdir())]
    assert named == {**dict.fromkeys(inside, False), tmp_path.stat().st_ino: True}


def test_a_tokenizer_of_another_vocabulary_is_refused():
    checkpoint = random_checkpoint(random_config(vocab_size=300))
    checkpoint.tokenizer_json = train_tokenizer([], "bytes", 256).to_json()
    with pytest.raises(LaconicError, match="vocabulary"):
        _ = checkpoint.tokenizer
