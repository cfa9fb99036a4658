"""Levels, several checkpoints and --memory on the command line."""

import os

import numpy as np
import pytest
from fakes import TOKENS, FakeCheckpoint, FakeEngine, fake_model, know_only, predictable

from laconic.cli import main
from laconic.coder.container import Writer
from laconic.coder.model import Model
from laconic.coder.segment import EXPERTS, Segment

DATA = predictable(3000) + b" ".join(b"%d bottles of beer" % number for number in range(99))


@pytest.fixture(autouse=True)
def known(model, tmp_path, monkeypatch):
    """Checkpoints: default, other, and one of another vocabulary."""
    foreign = Model(FakeCheckpoint("foreign", [*TOKENS[:-1], b"\xff\xff"]), FakeEngine())
    know_only(model, tmp_path / "known", monkeypatch, other=fake_model("other", 5), foreign=foreign)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    put("a", DATA)
    return tmp_path / "known"


def put(name, data):
    with open(name, "wb") as file:
        file.write(data)


def get(name):
    with open(name, "rb") as file:
        return file.read()


@pytest.mark.parametrize("level", range(1, 10))
@pytest.mark.parametrize("name", ["none", "default"])
def test_every_level_there_and_back(level, name, capsys):
    assert main(["compress", "-q", f"-{level}", "-m", name, "--segment-size", "2000", "a"]) == 0
    assert main(["decompress", "-q", "a.lac", "-o", "b"]) == 0
    assert get("b") == DATA
    assert main(["info", "a.lac"]) == 0
    out = capsys.readouterr().out
    assert "format version  3" in out
    assert (f"level           {level}\n" in out) == (level > 1)


def test_the_last_level_counts_and_6_is_the_default():
    sizes = []
    for number, options in enumerate([["-2"], ["-9", "-2"], ["-6"], []]):
        assert main(["compress", "-q", *options, "a", "-o", f"{number}.lac"]) == 0
        sizes.append(get(f"{number}.lac"))
    assert sizes[0] == sizes[1] != sizes[2] == sizes[3]


@pytest.mark.parametrize("level", ["-0", "-10", "-19", "-99"])
def test_levels_that_there_are_not(level, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["compress", level, "a"])
    expected = f"error: there is no level {level}: choose from -1 (fast) to -9 (small); see laconic compress"
    assert expected in capsys.readouterr().err
    assert os.listdir() == ["a"]


def test_levels_stand_among_other_letters(capsys):
    for number, options in enumerate((["-q", "-3"], ["-q3"], ["-f3q"], ["-3fq"])):
        assert main(["compress", *options, "a", "-o", f"{number}.lac"]) == 0
        assert get(f"{number}.lac") == get("0.lac")
    with pytest.raises(SystemExit, match="0"):
        main(["compress", "--help"])
    assert "[-1 ... -9]" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_two_outputs_are_wrong_usage(command, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([command, "-o", "x", "-c", "a"])
    err = capsys.readouterr().err
    assert "-c/--stdout: not allowed with argument -o/--output" in err
    assert err.count("\n") == 1
    assert os.listdir() == ["a"]


def test_two_checkpoints_there_and_back(capsys, model):
    assert main(["compress", "-q", "-m", "default", "-m", "other", "--segment-size", "1000", "a"]) == 0
    one, two = model.checkpoint.id[:8].hex(), FakeCheckpoint("other").id[:8].hex()
    assert main(["info", "a.lac"]) == 0
    assert f"checkpoint      {one} (default), {two} (other)\n" in capsys.readouterr().out
    assert main(["decompress", "-q", "a.lac", "-o", "b"]) == 0
    assert get("b") == DATA
    assert main(["test", "-q", "a.lac"]) == 0
    assert main(["compress", "-q", "-m", "other", "-m", "default", "a", "-o", "c.lac"]) == 0
    assert main(["info", "c.lac"]) == 0
    assert f"checkpoint      {two} (other), {one} (default)\n" in capsys.readouterr().out


def test_one_of_two_is_missing(known, capsys):
    assert main(["compress", "-q", "-m", "default", "-m", "other", "a"]) == 0
    away = known.parent / "away"
    (known / "other").rename(away)
    missing = FakeCheckpoint("other").id[:8].hex()
    assert main(["decompress", "a.lac", "-o", "b"]) == 1
    assert f"checkpoint {missing}, which is not here: name its folder by -m PATH" in capsys.readouterr().err
    assert main(["info", "a.lac"]) == 0
    assert f"{missing} (not here)" in capsys.readouterr().out
    assert main(["decompress", "-q", "-m", str(away), "a.lac", "-o", "b"]) == 0
    assert get("b") == DATA


def test_recovery_without_a_head_takes_the_checkpoints_in_their_order(known, capsys):
    options = ["-m", "default", "-m", "other"]
    assert main(["compress", "-q", *options, "--segment-size", "1000", "a"]) == 0
    blob = bytearray(get("a.lac"))
    for at in (4, 5, 9, 15):  # version and flags, the number of checkpoints, the name of each
        broken = blob.copy()
        broken[at] ^= 0x11
        put("b.lac", broken)
        assert main(["decompress", "--recover", *options, "-f", "b.lac", "-o", "b"]) == 1
        assert get("b") == DATA
    err = capsys.readouterr().err
    assert err.count("whatever followed") == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "default", "-m", "foreign"], "have different vocabularies and cannot predict together"),
        (["-m", "default", "-m", "default"], "a checkpoint is named twice"),
        (["-1", "-m", "default", "-m", "other"], "level 1 takes one checkpoint"),
        (["-m", "default", "-m", "nobody"], "there is no checkpoint 'nobody'"),
        (["-m", "default"] * 9, "9 checkpoints: a file can name up to 8"),
    ],
)
def test_checkpoints_that_cannot_be_taken_together(options, message, capsys):
    assert main(["compress", *options, "a"]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert os.listdir() == ["a"]


@pytest.mark.parametrize("command", ["decompress", "test", "cat"])
def test_memory_that_is_not_allowed(command, capsysbinary):
    put("text", DATA[3000:])
    assert main(["compress", "-q", "text"]) == 0
    os.remove("text")
    assert main([command, "--memory", "1M", "text.lac"]) == 1
    err = capsysbinary.readouterr().err
    assert b"of memory, allowed are 1 MB: raise --memory" in err
    assert err.count(b"\n") == 1
    assert not os.path.exists("text")
    assert main([command, "--memory", "64M", "text.lac"]) == 0
    assert main([command, "-f" if command == "decompress" else "-q", "text.lac"]) == 0


def test_recovery_passes_over_what_asks_for_more_memory(capsys):
    noise = np.random.default_rng(0).bytes(1000)
    put("a", DATA[:1000] + noise + DATA[1000:2000])
    assert main(["compress", "-q", "--segment-size", "1000", "a"]) == 0
    assert main(["decompress", "--recover", "--memory", "1M", "a.lac", "-o", "b"]) == 1
    assert get("b") == noise
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("a.lac: passed over are 1,000 bytes, from 0 up to 1,000: a segment asks for ")
    assert second.startswith(
        "a.lac: passed over are 1,000 bytes, from 2,000 up to 3,000: a segment asks for "
    )
    assert "MB of memory, allowed are 1 MB: raise --memory" in first
    assert main(["decompress", "--recover", "a.lac", "-o", "c"]) == 0
    assert get("c") == get("a")


@pytest.mark.parametrize("memory", ["0", "x", "-1", "1q", "1.5G", "0K", "M"])
def test_memory_that_is_none(memory, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["decompress", f"--memory={memory}", "a.lac"])
    err = capsys.readouterr().err
    assert (
        f"--memory: '{memory}' is no size: give a whole number of bytes above 0, or one with K, M or G" in err
    )
    assert err.count("\n") == 1


def test_a_file_whose_segment_needs_more_than_the_default(capsys):
    """A header is believed no further than its checks reach; here they are right, and it is greedy."""
    with open("greedy.lac", "wb") as file:
        writer = Writer(file, None)
        writer.add(Segment(EXPERTS, 2000, b"x" * 99, profile=0x9C), bytes(2000))
        writer.finish()
    assert main(["test", "greedy.lac"]) == 1
    assert "MB of memory, allowed are 1,024 MB: raise --memory" in capsys.readouterr().err
    assert main(["decompress", "--recover", "greedy.lac"]) == 1
    assert "MB of memory, allowed are 1,024 MB: raise --memory" in capsys.readouterr().err
    assert main(["test", "--memory", "4G", "greedy.lac"]) == 1
    assert "memory" not in capsys.readouterr().err


def test_a_file_asks_for_its_checkpoint_only_where_a_segment_needs_it(known, capsysbinary):
    noise = b"".join(number.to_bytes(2, "big") for number in range(0, 60_000, 61))
    put("noise", noise)
    put("both", noise + predictable(1000))
    for name, size in (("noise", "1M"), ("noise", "1000"), ("both", "1000")):
        assert main(["compress", "-q", "--segment-size", size, name, "-o", f"{name}{size}"]) == 0
    (known / "default").rename(known.parent / "moved")
    for name in ("noise1M", "noise1000"):
        assert main(["decompress", name, "-o", f"{name}.out"]) == 0
        assert get(f"{name}.out") == noise
    assert main(["info", "noise1M"]) == 0
    assert b"checkpoint      none\n" in capsysbinary.readouterr().out
    assert main(["info", "noise1000"]) == 0
    assert b"(not here), not needed\n" in capsysbinary.readouterr().out
    assert main(["info", "both1000"]) == 0
    assert b"(not here)\n" in capsysbinary.readouterr().out
    assert main(["cat", "both1000", "--range", "500:1500"]) == 0
    assert capsysbinary.readouterr().out == noise[500:1500]
    assert main(["decompress", "both1000", "-o", "out"]) == 1
    assert b"which is not here" in capsysbinary.readouterr().err
