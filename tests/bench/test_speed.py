import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import know_only

from laconic.bench import machine, speed
from laconic.bench.speed import Pace, Replay, Speed, Work, measure_speed
from laconic.cli import main
from laconic.coder.model import Model

TOKENS = sorted([b"ab", *(bytes([byte]) for byte in range(256))])
VOCAB = len(TOKENS)
CODERS = ["coder of level 1", "mixer of level 2", "mixer of level 9"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(machine, "GEMM_SIZE", 8)
    monkeypatch.setattr(speed, "REPETITIONS", 1)
    monkeypatch.setattr(speed, "compile_kernels", lambda: None)


class Alternating:
    """An engine whose logits are those of the last id alone."""

    name = "fake"
    kernel = "table"
    vocab_size = VOCAB

    def start(self, num_streams):
        return None

    def advance(self, state, ids):
        return ((ids[:, :, None].astype(np.int32) * 7919 + np.arange(VOCAB, dtype=np.int32)) % 4096) - 4000


def encode(data):
    """ "ab" is a token, and every other byte."""
    tokens = re.findall(b"(?s)ab|.", data)
    return np.array([TOKENS.index(token) for token in tokens], dtype=np.int32)


def text(length):
    rng = np.random.default_rng(0)
    return bytes(rng.choice(list(b"abc "), length).astype(np.uint8))


@pytest.fixture
def model(tmp_path, monkeypatch):
    checkpoint = SimpleNamespace(
        id=bytes(range(32)),
        path=tmp_path,
        prior=None,
        token_bytes=TOKENS,
        tokenizer=SimpleNamespace(encode=encode),
        config=SimpleNamespace(macs_per_token=lambda: 3000),
    )
    know_only(Model(checkpoint, Alternating()), tmp_path / "known", monkeypatch)


def test_every_part_is_measured_on_the_same_tokens(model, monkeypatch):
    monkeypatch.setattr("laconic.coder.lockstep.TOKENS_PER_STREAM", 1000)
    found = measure_speed(text(6000), "default", [1, 2, 9])
    assert [pace.part for pace in found.paces] == ["tokenizer", "engine, fake, 1 thread", *CODERS]
    assert [pace.level for pace in found.paces] == [None, None, 1, 2, 9]
    engine, *coders = found.paces[1:]
    assert found.streams > 1
    assert engine.tokens % found.streams == 0
    assert 5900 < engine.bytes <= 6000 < 2 * engine.tokens
    assert {(coder.tokens, coder.bytes) for coder in coders} == {(engine.tokens, engine.bytes)}
    assert found.work.macs_per_token == 3000
    assert 1 in found.work.gemm_macs_per_second


def test_a_long_text_is_sampled(model, monkeypatch):
    monkeypatch.setattr("laconic.coder.lockstep.TOKENS_PER_STREAM", 1000)
    monkeypatch.setattr(speed, "SAMPLE_BYTES", 3000)
    monkeypatch.setattr(speed, "LOGITS_BYTES", 4 * VOCAB * 100)
    found = measure_speed(text(60_000), "default", [1, 2])
    assert found.streams > 10  # as the whole text would be coded
    assert {pace.tokens for pace in found.paces[1:]} == {100 // found.streams * found.streams}
    assert "of the first 3,000 of 60,000 bytes" in found.text


def test_a_text_of_one_byte_can_be_measured(model):
    assert measure_speed(b"a", "default", [1, 2]).paces[-1].tokens == 1


def test_the_command_prints_and_writes_it(model, tmp_path, capsys):
    path, figures = tmp_path / "text", tmp_path / "speed.json"
    path.write_bytes(text(2000))
    assert main(["bench", "--speed", str(path), "--levels", "1,2,9", "--json", str(figures)]) == 0
    out = capsys.readouterr().out
    for words in (
        "engine, fake, 1 thread",
        "mixer of level 9",
        "kernel       table",
        "float32 GEMM",
        "0.003 M a token",
        "cores",
    ):
        assert words.rstrip("s") in out
    read = json.loads(figures.read_text())
    assert [part["level"] for part in read["parts"]] == [None, None, 1, 2, 9]
    assert read["work"]["share_of_gemm"][0]["decode"] > 0
    assert read["parts"][-1]["decode_tokens_per_second"] > 0
    assert read["machine"]["cores"] >= 1


def test_without_a_model_there_are_experts_alone(tmp_path, capsys):
    path, figures = tmp_path / "text", tmp_path / "speed.json"
    path.write_bytes(b"in the beginning was the word, and " * 20)
    assert main(["bench", "--speed", str(path), "-m", "none", "--levels", "1,3", "--json", str(figures)]) == 0
    out = capsys.readouterr().out
    assert "experts of level 3" in out
    assert "tokens" not in out
    read = json.loads(figures.read_text())
    assert [part["level"] for part in read["parts"]] == [3]
    assert read["work"] is None


def test_shares_are_of_the_peak_and_of_the_time():
    engine = Pace("engine, torch, 1 thread", None, 1, 1000, 4000, 1.0, 2.0)
    mixer = Pace("mixer of level 2", 2, 1, 1000, 4000, 0.5, 0.5)
    found = Speed("text", 4, [engine, mixer], Work(10_000, 4.0, {1: 1e8}, "int8 GEMM"), None)
    assert found.as_json()["work"]["share_of_gemm"] == [{"threads": 1, "encode": 0.1, "decode": 0.05}]
    assert found.as_json()["work"]["macs_per_byte"] == 2500
    assert "of that 10.0% encoding and 5.0% decoding on 1 thread" in found.as_text()
    row = next(line for line in found.as_text().splitlines() if line.startswith("mixer"))
    assert row.split()[-5:] == ["2,000", "8.0", "2,000", "8.0", "20%"]


def test_a_replay_gives_the_same_logits_by_pieces_and_by_steps():
    logits = np.arange(2 * 5 * 3, dtype=np.int32).reshape(2, 5, 3)
    engine = Replay([logits[:, :4].copy(), logits[:, 4:].copy()])
    state = engine.start(2)
    assert np.array_equal(engine.advance(state, np.zeros((2, 4), np.int32)), logits[:, :4])
    stepwise = engine.in_steps()
    state = stepwise.start(2)
    found = [stepwise.advance(state, np.zeros((2, 1), np.int32)) for _ in range(5)]
    assert np.array_equal(np.concatenate(found, axis=1), logits)
    assert not engine.pieces
