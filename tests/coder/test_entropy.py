"""Segments and files by the entropy coders: what goes together, on the command line and in Python."""

import os
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from containers import WORDS
from fakes import FakeCheckpoint, FakeEngine, fake_model, know_only, predictable
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic
from laconic.cli import main
from laconic.coder.codec import decode_segment, encode_segment
from laconic.coder.errors import LaconicError
from laconic.coder.limits import BYTE_BYTES, MemoryLimitError
from laconic.coder.model import Model
from laconic.coder.segment import BYTES, ENTROPY, RANS, RAW, TOKENS, DamageError

TABLES = ENTROPY[1:]
ONE = fake_model()


@pytest.mark.parametrize("entropy", TABLES)
@pytest.mark.parametrize("named", [None, ONE])
def test_segments(entropy, named):
    segment = encode_segment(WORDS * 20, named, entropy=entropy)
    assert segment.method == (BYTES if named is None else TOKENS)
    assert segment.tokens == (0 if named is None else len(named.tokenize(WORDS * 20)))
    assert (segment.streams, ENTROPY[segment.profile]) == (0, entropy)
    assert len(segment.payload) < 0.6 * len(WORDS * 20)
    assert decode_segment(segment, named) == WORDS * 20


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=400), st.sampled_from(TABLES), st.sampled_from([None, ONE]))
def test_any_bytes(data, entropy, named):
    segment = encode_segment(data, named, entropy=entropy)
    assert len(segment.payload) <= len(data)
    assert decode_segment(segment, named) == data


@pytest.mark.parametrize("entropy", TABLES)
def test_what_is_no_smaller_is_raw_and_lzma_is_not_tried(entropy):
    assert encode_segment(np.random.default_rng(0).bytes(300), None, entropy=entropy).method == RAW
    data = np.random.default_rng(0).bytes(300) * 40
    repeated = encode_segment(data, None, entropy=entropy)
    assert (repeated.method, len(repeated.payload) > 0.7 * len(data)) == (BYTES, True)
    zeros = encode_segment(bytes(100_000), None, entropy=entropy)
    assert (zeros.method, len(zeros.payload) < 10) == (BYTES, True)
    assert decode_segment(zeros, None) == bytes(100_000)


@pytest.mark.parametrize(
    ("entropy", "level", "streams", "several", "message"),
    [
        ("zip", None, None, False, "entropy coder 'zip': choose from range, huffman, rans, tans"),
        ("huffman", 1, None, False, "huffman at level 1: tables have no levels; leave the level out"),
        ("tans", 6, None, False, "tans at level 6"),
        ("rans", 2, None, False, "rans at level 2.*rans takes level 1 too"),
        ("rans", None, None, True, "rans takes one checkpoint: name one by -m, or choose range"),
        ("rans", 1, None, True, "rans takes one checkpoint"),
        ("tans", None, 4, False, "tans with 4 streams: tables have none; leave streams out"),
        ("range", 11, None, False, "level 11: choose from 1"),
    ],
)
def test_what_does_not_go_together(entropy, level, streams, several, message, model, pair):
    with pytest.raises(LaconicError, match=message):
        encode_segment(b"abc", pair if several else model, streams, level=level, entropy=entropy)


def test_predictions_need_a_model():
    with pytest.raises(LaconicError, match="there is none: name a checkpoint by -m, or leave the level out"):
        encode_segment(b"abc", None, level=1, entropy="rans")


def test_memory_and_wrong_numbers(model):
    segment = encode_segment(WORDS * 20, model, entropy="tans")
    with pytest.raises(MemoryLimitError):
        decode_segment(segment, model, memory=1000)
    for tokens in (1, segment.tokens - 1, segment.tokens + 1):
        with pytest.raises(DamageError):
            decode_segment(replace(segment, tokens=tokens), model)
    with pytest.raises(DamageError, match="do not add up"):
        decode_segment(replace(segment, original_length=segment.original_length + 1), model)


@pytest.mark.parametrize("entropy", TABLES)
def test_bytes_take_no_more_memory_than_is_checked(entropy):
    data = np.random.default_rng(0).integers(0, 250, 1 << 20).astype(np.uint8).tobytes()
    segment, allowed = encode_segment(data, None, entropy=entropy), BYTE_BYTES << 20
    assert len(segment.payload) > 0.99 * len(data)
    with pytest.raises(MemoryLimitError):
        decode_segment(segment, None, memory=allowed - 1)
    decode_segment(segment, None)  # what compiles takes memory too
    tracemalloc.start()
    try:
        assert decode_segment(segment, None, memory=allowed) == data
        assert tracemalloc.get_traced_memory()[1] < allowed + (1 << 20)  # and tables
    finally:
        tracemalloc.stop()


@pytest.fixture
def folder(model, tmp_path, monkeypatch):
    know_only(model, tmp_path / "known", monkeypatch, other=Model(FakeCheckpoint("other"), FakeEngine(5)))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work" / "a").write_bytes(WORDS * 20 + predictable(900))
    return tmp_path / "work"


@pytest.mark.parametrize("entropy", TABLES)
@pytest.mark.parametrize("name", ["none", "default"])
def test_files_there_and_back(entropy, name, folder, capsys):
    options = ["-q", "-m", name, "--entropy", entropy, "--segment-size", "2000"]
    assert main(["compress", *options, "a"]) == 0
    assert main(["decompress", "-q", "a.lac", "-o", "b"]) == 0
    assert (folder / "b").read_bytes() == (folder / "a").read_bytes()
    assert main(["cat", "--range", "3000:3100", "a.lac"]) == 0
    assert main(["info", "a.lac"]) == 0
    out = capsys.readouterr().out
    assert f"tables for      {entropy}\n" in out
    assert ("tokens by table" if name == "default" else "bytes by table") in out
    assert "level" not in out
    assert "streams" not in out


def test_predictions_by_rans_there_and_back(folder, capsys):
    (folder / "a").write_bytes(predictable(900))
    assert main(["compress", "-q1", "--entropy", "rans", "a"]) == 0
    assert main(["decompress", "-q", "a.lac", "-o", "b"]) == 0
    assert (folder / "b").read_bytes() == (folder / "a").read_bytes()
    assert main(["info", "a.lac"]) == 0
    out = capsys.readouterr().out
    assert "1 (1 model by rans)" in out
    assert "streams         1\n" in out


def test_range_is_what_it_was(folder):
    assert main(["compress", "-q", "a", "-o", "1"]) == 0
    assert main(["compress", "-q", "--entropy", "range", "-6", "a", "-o", "2"]) == 0
    assert (folder / "1").read_bytes() == (folder / "2").read_bytes()


def test_refusals_on_the_command_line(folder, capsys):
    for options, named in (
        (["-3", "--entropy", "tans"], "tans at level 3"),
        (["-1", "-m", "none", "--entropy", "rans"], "rans at level 1"),
    ):
        assert main(["compress", *options, "a"]) == 1
        assert capsys.readouterr().err.startswith(f"laconic: error: {named}")
    with pytest.raises(SystemExit, match="2"):
        main(["compress", "--entropy", "zip", "a"])
    assert "invalid choice: 'zip'" in capsys.readouterr().err
    assert os.listdir() == ["a"]


@pytest.mark.parametrize("entropy", ENTROPY)
def test_in_python(entropy, folder):
    data = (folder / "a").read_bytes()
    blob = laconic.compress(data, entropy=entropy, segment_size=1500)
    assert laconic.decompress(blob) == data
    with laconic.open("c.lac", "wb", entropy=entropy, segment_size=1500) as file:
        file.write(data)
    assert (folder / "c.lac").read_bytes() == blob
    with pytest.raises(LaconicError, match="level 12: "):
        laconic.open("d.lac", "wb", entropy=entropy, level=12)
    assert laconic.compress(predictable(900), level=1, entropy="rans")[13] == RANS
