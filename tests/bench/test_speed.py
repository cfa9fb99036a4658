import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import know_only

from laconic.bench import machine, speed, timing
from laconic.bench.coders import Replay
from laconic.bench.machine import Peak, Peaks
from laconic.bench.speed import measure_speed
from laconic.bench.speed_report import Speed, Work
from laconic.bench.timing import Pace
from laconic.bench.whole import Whole, measure_whole
from laconic.cli import main
from laconic.coder.errors import LaconicError
from laconic.coder.model import Model

TOKENS = sorted([b"ab", *(bytes([byte]) for byte in range(256))])
VOCAB = len(TOKENS)
CODERS = ["coder of level 1", "mixer of level 2", "mixer of level 9"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(machine, "GEMM_SIZE", 16)
    monkeypatch.setattr(timing, "REPETITIONS", 1)
    monkeypatch.setattr(speed, "compile_kernels", lambda model: None)
    for module in ("bench.speed", "bench.whole", "bench.machine"):
        monkeypatch.setattr(f"laconic.{module}.cores", lambda: 2)


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
        tokenizer=SimpleNamespace(encode_batch=lambda batch: [encode(data) for data in batch]),
        config=SimpleNamespace(
            macs_per_token=lambda: 3000, cache_bytes_per_token=lambda: 1200, memory_per_stream=lambda: 9000
        ),
    )
    know_only(Model(checkpoint, Alternating()), tmp_path / "known", monkeypatch)


def test_every_part_is_measured_on_the_same_tokens(model, monkeypatch):
    monkeypatch.setattr("laconic.coder.lockstep.TOKENS_PER_STREAM", 1000)
    monkeypatch.setattr("laconic.coder.direct.DEFAULT_STREAMS", 3)
    monkeypatch.setattr("laconic.coder.mixing.coding.DEFAULT_STREAMS", 2)
    found = measure_speed(text(6000), "default", [1, 2, 9])
    assert [pace.part for pace in found.paces] == [
        "tokenizer",
        "engine fake, 1 stream, 1 thread",
        "engine fake, 3 streams, 1 thread",
        "engine fake, 2 streams, 1 thread",
        "engine fake, 2 streams, 2 segments",
        *CODERS,
    ]
    assert [pace.level for pace in found.paces] == [None] * 5 + [1, 2, 9]
    assert [pace.streams for pace in found.paces] == [None, 1, 3, 2, 2, 3, 2, 2]
    assert found.streams == 2
    _, small, direct, engine, twice, *coders = found.paces
    assert small.tokens <= speed.TOKENS_PER_STREAM
    assert 5900 < engine.bytes <= 6000 < 2 * engine.tokens
    assert (twice.tokens, twice.bytes, twice.threads) == (2 * engine.tokens, 2 * engine.bytes, 2)
    assert [coder.tokens for coder in coders] == [direct.tokens, engine.tokens, engine.tokens]
    assert [coder.bytes for coder in coders] == [direct.bytes, engine.bytes, engine.bytes]
    assert found.work.macs_per_token == 3000
    assert found.work.kernel == "table"
    assert set(found.work.peaks.float32.operations_per_second) <= {1, 2}
    assert [whole.level for whole in found.whole] == [1, 2, 9]


def test_a_long_text_is_sampled(model, monkeypatch):
    monkeypatch.setattr("laconic.coder.lockstep.TOKENS_PER_STREAM", 1000)
    monkeypatch.setattr("laconic.coder.mixing.coding.DEFAULT_STREAMS", 16)
    monkeypatch.setattr(speed, "SAMPLE_BYTES", 3000)
    monkeypatch.setattr(speed, "LOGITS_BYTES", 4 * VOCAB * 100)
    found = measure_speed(text(60_000), "default", [2])
    assert found.streams > 10  # as the whole text would be coded
    assert found.paces[-1].tokens == 100 // found.streams * found.streams
    assert "of the first 3,000 of 60,000 bytes" in found.text
    assert [whole.level for whole in found.whole] == [1, 2]
    assert {(whole.bytes, whole.segments) for whole in found.whole} == {(6000, 2)}


def test_a_slow_engine_is_given_fewer_tokens(model, monkeypatch):
    monkeypatch.setattr(speed, "LONGEST_SECONDS", 0.0)
    assert {pace.tokens for pace in measure_speed(text(3000), "default", [2]).paces[1:]} == {1, 2}


def test_streams_can_be_chosen(model):
    found = measure_speed(text(3000), "default", [1, 2], streams=5)
    assert found.streams == 5
    assert {pace.streams for pace in found.paces[1:]} == {1, 5}


def test_a_text_of_one_byte_can_be_measured(model):
    found = measure_speed(b"a", "default", [1, 2])
    assert found.paces[-1].tokens == 1
    assert found.whole[0].segments == 1


def test_the_command_prints_and_writes_it(model, tmp_path, capsys):
    path, figures = tmp_path / "text", tmp_path / "speed.json"
    path.write_bytes(text(2000))
    assert main(["bench", "--speed", str(path), "--levels", "1,2,9", "--json", str(figures)]) == 0
    out = capsys.readouterr().out
    for words in (
        "engine fake, 1 stream, 1 thread",
        "mixer of level 9",
        "float32 GEMM, 16^3, ",
        "0.003 M a token",
        "kernel       table",
        "1.2 KB of keys and values",
        "2 cores",
        "2,000 bytes as 2 segments on 2 threads, restored and compared",
        "level 1 ",
    ):
        assert words.removesuffix("s") in out
    read = json.loads(figures.read_text())
    assert [part["level"] for part in read["parts"]] == [None] * 3 + [1, 2, 9]
    assert [whole["level"] for whole in read["whole"]] == [1, 2, 9]
    assert read["whole"][0]["decode_kb_per_second"] > 0
    assert read["work"]["cache_bytes_per_token"] == 1200
    assert read["work"]["peaks"]["float32"]["size"] == 16
    assert read["work"]["reached"][0]["decode"]["operations_per_second"] > 0
    assert read["work"]["step"] is None
    assert read["parts"][-1]["decode_tokens_per_second"] > 0
    assert 0 < read["parts"][-1]["share_of_decoding"] < 1
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
    assert [whole["level"] for whole in read["whole"]] == [3]
    assert read["work"] is None


def found_by_hand(peaks):
    engine = Pace("engine numba, 4 streams, 1 thread", None, 1, 4, 1000, 4000, 1.0, 2.0)
    other = Pace("engine numba, 1 stream, 1 thread", None, 1, 1, 1000, 4000, 10.0, 20.0)
    mixer = Pace("mixer of level 2", 2, 1, 4, 500, 2000, 0.25, 0.25)
    whole = Whole(2, 2, 2, 4000, 1000, {"mixed": 4000}, 2.0, 4.0)
    work = Work(10_000, 640, 4.0, peaks, "numba", "some instruction")
    return Speed("text", 4, [whole], [other, engine, mixer], work, None)


def test_shares_are_of_the_peaks_and_of_the_time():
    peaks = Peaks(Peak("float32", 64, {1: 2e8, 2: 4e8}), Peak("int8", 64, {1: 8e8}))
    found = found_by_hand(peaks)
    work = found.as_json()["work"]
    assert work["macs_per_byte"] == 2500
    assert work["reached"][1]["encode"] == {
        "operations_per_second": 2e7,
        "share_of": {"float32": 0.1, "int8": 0.025},
    }
    lines = found.as_text().splitlines()
    assert lines[0].split() == ["whole", "codec", "encode", "KB/s", "decode", "KB/s", "bits/byte", "by"]
    assert lines[2].split() == ["level", "2", "2.0", "1.0", "2.000", "mixed"]
    rows = [line.split() for line in lines]
    assert next(row for row in rows if row[:1] == ["mixer"])[-5:] == ["2,000", "8.0", "2,000", "8.0", "20%"]
    assert [
        "engine",
        "numba,",
        "4",
        "streams,",
        "1",
        "thread",
        "0.0",
        "10.0%",
        "2.5%",
        "0.0",
        "5.0%",
        "1.2%",
    ] in rows
    assert ["float32", "GEMM,", "64^3,", "2", "threads", "0.4", "0.4"] in rows
    assert "kernel       some instruction" in lines


def test_what_saturates_is_left_out():
    text = found_by_hand(Peaks(Peak("float32", 64, {1: 2e8}), None, machine.SATURATES)).as_text()
    assert "of int8" not in text
    assert "\nint8 not exact here\n" in text


def test_int8_products_have_to_be_exact():
    torch = pytest.importorskip("torch")

    def saturating(a, b):
        pairs = a.numpy().astype(np.int64)[:, :, None] * b.numpy().astype(np.int64)[None]
        sums = (pairs[:, ::2] + pairs[:, 1::2]).clip(-(1 << 15), (1 << 15) - 1)
        return torch.from_numpy(sums.sum(axis=1))

    def refusing(a, b):
        raise RuntimeError("not implemented")

    rng = np.random.default_rng(0)
    assert machine.int8_fault(lambda a, b: a.long() @ b.long(), rng) == ""
    assert machine.int8_fault(saturating, rng) == "int8 not exact here"
    assert "no int8 product" in machine.int8_fault(refusing, rng)
    assert "no int8 product" in machine.int8_fault(None, rng)


def test_a_product_that_takes_too_long_is_made_smaller(monkeypatch):
    monkeypatch.setattr(machine, "GEMM_SIZE", 64)
    monkeypatch.setattr(machine, "TRIED", 16)
    monkeypatch.setattr(machine, "ENOUGH_SECONDS", 0.0)
    assert machine.peaks().float32.size == 16
    monkeypatch.setattr(machine, "ENOUGH_SECONDS", 60.0)
    assert machine.peaks().float32.size == 64


def test_other_bytes_are_not_a_speed(monkeypatch):
    monkeypatch.setattr("laconic.bench.whole.decompress", lambda blob, model, threads: b"other")
    with pytest.raises(LaconicError, match="level 3 did not restore"):
        measure_whole(b"abc" * 100, None, [3])


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
