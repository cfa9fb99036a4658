"""Checkpoints of training: damage is noticed wherever it is, and a write that fails costs nothing."""

import os
import random
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from pytorch_lightning.strategies import DeepSpeedStrategy

from laconic.coder.errors import LaconicError
from laconic.train.logs import CsvLog, cut, position
from laconic.train.run import writing
from laconic.train.saving import (
    FOLDER,
    PARTS,
    fault,
    list_parts,
    newest_sound,
    one_before,
    settle,
    write_checkpoint,
)
from laconic.train.strategies import _Zero


def content(number: int) -> dict:
    values = torch.arange(3000, dtype=torch.float32) * number
    return {"number": number, "weights": values, "others": [values.to(torch.int64), {"name": "last"}]}


def number_of(path: Path | None) -> int:
    return torch.load(path, weights_only=True)["number"]


@pytest.fixture
def last(tmp_path) -> Path:
    """The third of three checkpoints."""
    for number in (1, 2, 3):
        write_checkpoint(content(number), tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_the_newest_and_the_one_before_are_kept(last):
    assert sorted(last.parent.iterdir()) == [last, one_before(last)]
    assert [number_of(path) for path in (last, one_before(last))] == [3, 2]
    assert newest_sound(last) == last
    assert newest_sound(last.with_name("best.ckpt")) is None


def outside_data(path: Path) -> list[int]:
    """The places in an archive at which none of its parts has a byte."""
    content, within = path.read_bytes(), set()
    for part in zipfile.ZipFile(path).infolist():
        name, extra = struct.unpack_from("<HH", content, part.header_offset + 26)
        begin = part.header_offset + 30 + name + extra
        within |= set(range(begin, begin + part.compress_size))
    return sorted(set(range(len(content))) - within)


def test_a_bit_flipped_anywhere_is_noticed_or_changes_nothing(tmp_path):
    path, weights, draw = tmp_path / "sound.ckpt", torch.arange(100.0), random.Random(0)
    write_checkpoint({"weights": weights}, path)
    sound, outside = path.read_bytes(), outside_data(path)
    assert len(outside) > 1000
    noticed = 0
    for place in (*outside, *draw.sample(range(len(sound)), 200)):
        for bit in (1 << draw.randrange(8), FOLDER):
            damaged = tmp_path / f"{place}-{bit}.ckpt"
            damaged.write_bytes(sound[:place] + bytes([sound[place] ^ bit]) + sound[place + 1 :])
            if fault(damaged) is None:
                assert torch.equal(torch.load(damaged, weights_only=True)["weights"], weights), place
            else:
                noticed += 1
            damaged.unlink()
    assert noticed > 800  # the rest are fields that nobody reads, and what fills files up to multiples of 64


def test_what_was_found_sound_is_read_again_when_it_has_changed(last, monkeypatch):
    read = []
    monkeypatch.setattr("laconic.train.saving._torn", read.append)
    for path in (last, one_before(last)) * 2:
        assert fault(path) is None
    assert read == [one_before(last)]  # for what was written here is sound
    os.utime(last)
    assert fault(last) is None
    assert read == [one_before(last), last]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: bytes(len(data)),
        lambda data: data[:20000] + bytes(4096) + data[24096:],
        lambda data: data[:-4096] + bytes(4096),
        lambda data: data[4096:],
    ],
    ids=["empty", "a-byte-short", "half", "zeros", "a-zeroed-page", "a-zeroed-end", "without-its-beginning"],
)
def test_the_one_before_takes_the_place_of_a_damaged_one(damage, last, capsys):
    last.write_bytes(damage(last.read_bytes()))
    os.utime(last, (0, 0))  # another time than that at which it was written, a moment ago
    assert newest_sound(last) == one_before(last)
    said = capsys.readouterr().err
    assert said.startswith(f"{last} is damaged (")
    assert said.endswith(f"): using {one_before(last)}\n")
    assert said.count("\n") == 1
    write_checkpoint(content(4), last)  # the damaged one does not take the place of the sound one
    assert [number_of(path) for path in (last, one_before(last))] == [4, 2]


def test_one_that_was_being_renamed_is_there_under_the_other_name(last, capsys):
    last.unlink()
    assert newest_sound(last) == one_before(last)
    assert capsys.readouterr().err == ""


def test_two_damaged_ones_leave_another_name_or_are_an_error(last, capsys):
    for path in (last, one_before(last)):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LaconicError, match=r"last.ckpt is damaged .*no other is sound"):
        newest_sound(last)
    other = last.with_name("other.ckpt")
    write_checkpoint(content(4), other)
    assert newest_sound(last, other) == other
    said = capsys.readouterr().err
    assert said.startswith(f"{last} is damaged (")
    assert said.endswith(f"): using {other}\n")


def test_a_folder_without_one_of_its_parts_is_damaged(tmp_path, capsys):
    last = tmp_path / "last.ckpt"
    for number in (1, 2):
        partial = tmp_path / "last.ckpt.partial"
        (partial / "checkpoint").mkdir(parents=True)
        for rank in (0, 1):
            torch.save(content(number), partial / "checkpoint" / f"rank_{rank}.pt")
        list_parts(partial)
        settle(partial, last)
    assert newest_sound(last) == last
    part = last / "checkpoint" / "rank_0.pt"
    torch.save(content(3)["weights"], part)
    assert "rank_0.pt has" in (fault(last) or "")
    part.unlink()
    assert newest_sound(last) == one_before(last)
    assert "rank_0.pt is missing): using" in capsys.readouterr().err
    (one_before(last) / PARTS).unlink()  # as an older laconic left it
    assert fault(one_before(last)) is None


def test_a_folder_that_a_killed_save_left_lends_the_next_one_nothing(tmp_path, monkeypatch):
    last, partial = tmp_path / "last.ckpt", tmp_path / "last.ckpt.partial"
    happened = []

    def save(strategy, checkpoint, path, storage_options):
        happened.append("parts")
        Path(path).mkdir(exist_ok=True)
        torch.save(checkpoint, Path(path) / f"rank_{checkpoint['number']}.pt")

    def barrier(strategy):
        happened.append("barrier")

    monkeypatch.setattr(DeepSpeedStrategy, "save_checkpoint", save)
    for name, value in {"barrier": barrier, "broadcast": lambda _, x: x, "is_global_zero": True}.items():
        monkeypatch.setattr(_Zero, name, value)
    strategy = object.__new__(_Zero)  # needs no DeepSpeed
    save(strategy, content(1), partial, None)
    list_parts(partial)  # and here it was killed
    happened.clear()
    for number in (2, 3):
        strategy.save_checkpoint(content(number), last)
        assert sorted(path.name for path in last.iterdir()) == [PARTS, f"rank_{number}.pt"]
        assert fault(last) is None
    assert happened == ["barrier", "parts", "barrier", "barrier"] * 2  # no rank writes what is then removed
    assert not partial.exists()


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="has no device that is always full")
def test_a_full_disk_is_one_line_and_costs_nothing(last):
    partial = last.with_name("last.ckpt.partial")
    partial.symlink_to("/dev/full")
    with pytest.raises(LaconicError, match=f"cannot save {last}: No space left on device") as caught:
        write_checkpoint(content(4), last)
    assert "\n" not in str(caught.value)
    assert [number_of(path) for path in (last, one_before(last))] == [3, 2]
    assert not partial.exists()
    write_checkpoint(content(4), last)
    assert number_of(last) == 4


def test_a_place_that_cannot_be_written_is_one_line_and_costs_nothing(last):
    last.with_name("last.ckpt.partial").mkdir()
    with pytest.raises(LaconicError, match=f"cannot save {last}: Is a directory"):
        write_checkpoint(content(4), last)
    assert [number_of(path) for path in (last, one_before(last))] == [3, 2]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="has no device that is always full")
def test_a_disk_that_is_full_under_an_open_file_is_one_line_with_the_folder(tmp_path):
    with pytest.raises(LaconicError, match=f"cannot write into {tmp_path}: No space"), writing(tmp_path):
        Path("/dev/full").write_bytes(b"text")
    with pytest.raises(ConnectionError), writing(tmp_path):
        raise ConnectionError("of another kind")


def test_logs_go_on_where_a_checkpoint_left_them(tmp_path):
    log = CsvLog(tmp_path)
    log.log_metrics({"a": 1.5}, 1)
    log.log_metrics({"b": 0.1}, 1)
    events = tmp_path / "tensorboard"
    events.mkdir()
    (events / "events.1").write_bytes(b"one")
    kept, before = position(tmp_path), (tmp_path / "metrics.csv").read_text()
    log.log_metrics({"a": 2.5, "b": 0.2}, 2)
    log.log_metrics({"c": 3.5}, 3)
    (events / "events.1").write_bytes(b"one, two")
    (events / "events.2").write_bytes(b"three")
    (events / "hparams.yaml").write_text("")
    cut(tmp_path, kept)
    assert [path.read_bytes() for path in events.glob("events.*")] == [b"one"]
    CsvLog(tmp_path).log_metrics({"a": 2.5, "b": 0.2}, 2)
    text = (tmp_path / "metrics.csv").read_text()
    assert text == before + "2,2.5,0.2\n" == "step,a,b\n1,1.5,\n1,,0.1\n2,2.5,0.2\n"
    cut(tmp_path, None)
    assert position(tmp_path) == {"rows": 0, "events": {}}
