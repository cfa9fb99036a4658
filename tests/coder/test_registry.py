import json
from pathlib import Path

import pytest
from fakes import FakeCheckpoint, FakeEngine, fake_model, predictable
from graphs import random_checkpoint, random_config

from laconic.coder import registry
from laconic.coder.codec import encode_segment
from laconic.coder.container import UNKNOWN
from laconic.coder.errors import LaconicError
from laconic.coder.model import Model, ensemble
from laconic.coder.registry import Decoder, available, fault, find, find_all, read_listing


def add(folder, name, identity):
    (folder / name).mkdir(parents=True)
    (folder / name / "config.json").write_text(json.dumps({"id": identity, "summary": {}}))
    return folder / name


@pytest.fixture
def folders(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    add(first, "one", "11" * 32)
    add(first, "two", "1122" + "00" * 30)
    add(second, "three", "abcd" + "00" * 30)
    monkeypatch.setenv(registry.VARIABLE, f"{first}:{tmp_path / 'not here'}:{second}")
    monkeypatch.setattr(registry, "SHIPPED", tmp_path / "shipped")
    return tmp_path


def test_by_name_path_and_id(folders):
    assert [listing.name for listing in available()] == ["one", "two", "three"]
    assert find("three").id.hex().startswith("abcd")
    assert find("ABCD00").name == "three"
    assert find(folders / "first" / "one").name == "one"
    other = add(folders, "elsewhere", "77" * 32)
    assert find(str(other)).path == other


def test_a_name_comes_before_a_folder(folders, monkeypatch):
    monkeypatch.chdir(folders)
    add(folders, "one", "88" * 32)
    add(folders, "here", "99" * 32)
    assert find("one").id[0] == 0x11
    assert find("./one").id[0] == find(Path("one")).id[0] == 0x88
    assert find("here").id[0] == 0x99


def test_a_name_may_mean_several(folders, monkeypatch):
    monkeypatch.setitem(registry.ALIASES, "both", ("two", "three"))
    assert [listing.name for listing in find_all(["both", "one"])] == ["two", "three", "one"]
    with pytest.raises(LaconicError, match=r"no checkpoint 'bot'; here are: .*three \(abcd0000\), both[:;.]"):
        find_all(["bot"])
    with pytest.raises(
        LaconicError, match="both means two and three together, and this takes one checkpoint"
    ):
        find("both")
    add(folders / "second", "both", "55" * 32)
    assert find("both").name == "both"
    monkeypatch.setitem(registry.ALIASES, "half", ("two", "four"))
    with pytest.raises(
        LaconicError, match=r"no checkpoint 'half', which means two and four \(not here: four\)"
    ):
        find("half")
    with pytest.raises(LaconicError, match="no checkpoint 'half'; here are"):
        find(Path("half"))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("four", r"no checkpoint 'four'; here are: one \(11111111\), two"),
        ("ffff", "no checkpoint"),
        ("abc", "no checkpoint"),
        ("", "no checkpoint"),
    ],
)
def test_what_is_not_here(folders, wanted, message):
    with pytest.raises(LaconicError, match=message):
        find(wanted)


def test_the_folder_of_a_run_is_told_from_its_checkpoint(folders):
    add(folders / "run", "checkpoint", "66" * 32)
    with pytest.raises(LaconicError, match=r"run has no config.json, .* but .*run/checkpoint is one: name"):
        find(folders / "run")


def test_an_id_must_tell_one_checkpoint_from_another(folders):
    add(folders / "second", "four", "1122" + "33" * 30)
    with pytest.raises(LaconicError, match="2 checkpoints"):
        find("1122")
    add(folders / "second", "copy", "11" * 32)
    assert find("111111").name == "one"


def test_a_folder_without_a_checkpoint(folders, tmp_path):
    with pytest.raises(LaconicError, match=r"no config\.json"):
        find(tmp_path)
    for text in (
        "{",
        "[]",
        "{}",
        '{"id": 5}',
        '{"id": "zz"}',
        '{"id": "1234"}',
        '{"id": "%s", "summary": 3}' % ("11" * 32),
    ):
        (tmp_path / "config.json").write_text(text)
        assert read_listing(tmp_path) is None
        with pytest.raises(LaconicError, match="no frozen checkpoint"):
            find(tmp_path)


def test_decoding_finds_the_checkpoint_that_a_file_names(folders, monkeypatch):
    right, wrong = Model(FakeCheckpoint("right"), FakeEngine()), FakeCheckpoint("wrong")
    loaded = []

    def open_model(listing, engine=None, threads=None):
        loaded.append((listing.name, engine, threads))
        return right

    monkeypatch.setattr(registry, "open_model", open_model)
    data = predictable(600)
    segment, prefix = encode_segment(data, right), right.checkpoint.id[:8]
    decoder = Decoder()
    with pytest.raises(LaconicError, match=f"{prefix.hex()}, which is not here.* -m PATH .* one"):
        decoder(segment, prefix)
    with pytest.raises(LaconicError, match="does not name it"):
        decoder(segment, None)
    add(folders, "outside", right.checkpoint.id.hex())
    assert Decoder(folders / "outside")(segment, prefix) == data
    add(folders / "second", "inside", right.checkpoint.id.hex())
    decoder = Decoder(engine="numpy", threads=3)
    assert [decoder(segment, prefix), decoder(segment, prefix)] == [data, data]
    assert loaded == [("outside", None, None), ("inside", "numpy", 3)]
    assert Decoder(right)(segment, prefix) == data
    with pytest.raises(LaconicError, match="which is not here"):
        Decoder(right)(segment, wrong.id[:8])
    outside = Decoder(folders / "outside")
    assert outside(segment, UNKNOWN) == data
    with pytest.raises(LaconicError, match="which is not here"):
        outside(segment, wrong.id[:8])


def test_a_damaged_copy_does_not_hide_a_good_one(folders, monkeypatch):
    right = Model(FakeCheckpoint("right"), FakeEngine())
    for place in ("first", "second"):
        add(folders / place, "copy", right.checkpoint.id.hex())

    def open_model(listing, engine=None, threads=None):
        if listing.path.parent.name in damaged:
            raise LaconicError(f"{listing.path} is damaged")
        return right

    monkeypatch.setattr(registry, "open_model", open_model)
    data, prefix = predictable(600), right.checkpoint.id[:8]
    segment = encode_segment(data, right)
    damaged = ["first"]
    assert Decoder()(segment, prefix) == data
    damaged.append("second")
    with pytest.raises(LaconicError, match="first/copy is damaged"):
        Decoder()(segment, prefix)


def save(folder, seed=0):
    """A real checkpoint."""
    random_checkpoint(random_config(), seed).save(folder)
    return folder


def damage(folder):
    path = folder / "model.lacw"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_name_or_an_id_goes_on_to_a_sound_copy_a_path_does_not(folders):
    first, second = save(folders / "first" / "mine"), save(folders / "second" / "copy")
    listing = find("mine")
    names = ["mine", listing.id.hex(), listing.id.hex()[:8]]
    assert [find(name).path for name in names] == [first] * 3
    damage(first)
    assert [find(name).path for name in names] == [second] * 3
    assert find("copy").path == second
    assert find(first).path == find(str(first)).path == first
    assert "first/mine/model.lacw is damaged" in fault(find(first))
    assert fault(find(second)) is None
    (second / "model.lacw").write_bytes(b"short")
    assert [find(name).path for name in names] == [first] * 3
    assert find("copy").path == second


def test_a_damaged_checkpoint_is_not_replaced_by_another_of_its_name(folders):
    damage(save(folders / "first" / "mine"))
    save(folders / "second" / "mine", seed=1)
    assert find("mine").path == folders / "first" / "mine"


def test_decoding_finds_several_checkpoints(folders, monkeypatch):
    first, second = fake_model("first"), fake_model("second", 5)
    known = {model.checkpoint.id: model for model in (first, second)}
    monkeypatch.setattr(registry, "open_model", lambda listing, engine=None, threads=None: known[listing.id])
    both, data = ensemble([first, second]), predictable(600)
    segment = encode_segment(data, both)
    add(folders / "first", "here", first.checkpoint.id.hex())
    missing = second.checkpoint.id[:8].hex()
    with pytest.raises(LaconicError, match=f"checkpoint {missing}, which is not here.* -m PATH"):
        Decoder()(segment, both.prefixes)
    elsewhere = add(folders, "elsewhere", second.checkpoint.id.hex())
    for extra in (elsewhere, [elsewhere], [folders / "first" / "one", elsewhere, "here"]):
        assert Decoder(extra)(segment, both.prefixes) == data
    assert Decoder(both)(segment, both.prefixes) == data
    # A damaged head does not name them: the order is that of the command.
    assert Decoder(["here", elsewhere])(segment, UNKNOWN) == data
    with pytest.raises(LaconicError, match="does not name it"):
        Decoder()(segment, UNKNOWN)


def test_memory_is_limited(folders):
    data = b" ".join(b"%d bottles of beer" % number for number in range(99))
    segment = encode_segment(data, None)
    assert Decoder()(segment, None) == Decoder(memory=1 << 30)(segment, None) == data
    with pytest.raises(LaconicError, match="allowed are 2 MB: raise --memory"):
        Decoder(memory=2 << 20)(segment, None)


def test_leftovers_of_interrupted_saves_are_not_listed(folders):
    for name in (".hidden", "one.old", "one.partial"):
        add(folders / "first", name, "55" * 32)
    assert [listing.name for listing in available()] == ["one", "two", "three"]


def test_lzma_and_experts_need_no_checkpoint(folders):
    data = b"laconic " * 30
    for level in (1, 6):
        assert Decoder()(encode_segment(data, None, level=level), b"\0" * 8) == data
