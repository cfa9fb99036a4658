"""laconic bench --entropy: what it tells of bytes and tokens."""

import importlib.util
import json

import numpy as np
import pytest
from fakes import fake_model, know_only, predictable

from laconic.bench import entropy
from laconic.bench.entropy import PEER, measure_entropy, measure_stream
from laconic.cli import main
from laconic.coder.errors import LaconicError
from laconic.coder.segment import ENTROPY

NAMES = [*ENTROPY, *([f"range, {PEER}", f"rans, {PEER}"] if importlib.util.find_spec(PEER) else [])]


@pytest.fixture(autouse=True)
def once(monkeypatch):
    monkeypatch.setattr(entropy, "ROUNDS", 1)


def test_a_stream():
    symbols = np.arange(4, dtype=np.int32).repeat(1000)
    stream = measure_stream("letters", symbols, 9, 12_345)
    assert (stream.symbols, stream.distinct, stream.bound_bits, stream.bytes) == (4000, 4, 8000.0, 12_345)
    assert [result.coder for result in stream.results] == NAMES
    found = {result.coder: result for result in stream.results}
    assert found["huffman"].words_bytes == 1000
    assert stream.above(found["huffman"].words_bytes) == 0
    assert stream.above(1500) == 1
    assert 2 <= found["rans"].table_bytes <= 12
    for result in stream.results[4:]:
        assert result.table_bytes is None
        assert 1000 <= result.words_bytes <= 1012
    assert min(min(r.encode_seconds, r.decode_seconds) for r in stream.results) > 0
    assert (
        stream.as_text().splitlines()[-1]
        == "4,000 letters, 4 different: at least 2.0000 bits each, 1,000 bytes"
    )


def test_one_symbol_has_no_peer():
    stream = measure_stream("zeros", np.zeros(99, dtype=np.int32), 2, 99)
    assert [result.coder for result in stream.results] == list(ENTROPY)


def test_the_command(tmp_path, monkeypatch, capsys):
    know_only(fake_model(), tmp_path / "known", monkeypatch)
    (tmp_path / "a").write_bytes(predictable(2000))
    (tmp_path / "b").write_bytes(predictable(1000, seed=3))
    files, figures = [str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "figures.json"
    assert main(["bench", "--entropy", *files, "--json", str(figures)]) == 0
    out = capsys.readouterr().out
    assert "3,000 bytes, " in out
    assert " tokens, " in out
    assert "Every round trip was compared" in out
    streams = json.loads(figures.read_text())["streams"]
    assert [stream["kind"] for stream in streams] == ["bytes", "tokens"]
    assert all(stream["bytes"] == 3000 for stream in streams)
    assert main(["bench", "--entropy", "-m", "none", *files]) == 0
    assert " tokens, " not in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--speed"], ["--peers", "xz"], ["--levels", "3"], ["--streams", "4"]])
def test_options_of_other_measurements(option, tmp_path, capsys):
    (tmp_path / "a").write_bytes(b"abc")
    assert main(["bench", "--entropy", *option, str(tmp_path / "a")]) == 1
    assert "leave out all but FILE, -m and --json" in capsys.readouterr().err


def test_nothing_to_measure():
    with pytest.raises(LaconicError, match="0 bytes to measure"):
        measure_entropy(b"", "none")
