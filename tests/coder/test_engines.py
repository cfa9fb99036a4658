"""The engines give the same integers, whatever the batch, the chunking and the threads."""

import hashlib
import os
import subprocess
import sys
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
from graphs import random_checkpoint, random_config

from laconic.cli import main
from laconic.coder.engine import ENGINES, load_engine
from laconic.coder.engines import torch_engine
from laconic.coder.engines.reference import NumpyEngine, exact_matmul
from laconic.coder.errors import LaconicError
from laconic.coder.parallel import in_order

# SHA-256 of the logits of the spec: a change makes every old file unreadable.
GOLDEN = "7c62813ce66530a65c0e591ff89f1034c23c6c9b32ab728703f1397ef719b699"

SHAPES = {
    "rotary": {},
    "relative": {"positions": "relative"},
    "gated": {"ffn": "reglu", "tied": False},
    "one key head": {"num_kv_heads": 1, "num_heads": 3, "head_dim": 10},
    "wide": {"d_model": 1056, "ffn_dim": 1100, "num_layers": 1, "vocab_size": 64},
    "long window": {"window": 200, "rotary_period": 256},
}


def tokens(config, streams=3, length=70, seed=1):
    ids = np.random.default_rng(seed).integers(0, config.vocab_size, (streams, length)).astype(np.int32)
    ids[:, 0] = config.vocab_size
    return ids


def evaluate(engine, ids, cuts):
    state = engine.start(len(ids))
    edges = [0, *cuts, ids.shape[1]]
    return np.concatenate([engine.advance(state, ids[:, a:b]) for a, b in pairwise(edges)], axis=1)


@pytest.mark.parametrize("name", ["numba", "torch"])
@pytest.mark.parametrize("saturated", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_engines_equal_reference(shape, saturated, name):
    checkpoint = random_checkpoint(random_config(**SHAPES[shape]), saturated=saturated)
    ids = tokens(checkpoint.config)
    whole = evaluate(NumpyEngine(checkpoint), ids, [])
    assert whole.dtype == np.int32
    assert whole.shape == (*ids.shape, checkpoint.config.vocab_size)
    assert len(np.unique(whole)) > 2
    engine = load_engine(checkpoint, name)
    for cuts in ([], [1], list(range(1, 70)), [1, 2, 40, 69]):
        np.testing.assert_array_equal(evaluate(engine, ids, cuts), whole)


@pytest.mark.parametrize("shape", SHAPES)
def test_reference_does_not_depend_on_chunking_or_batch(shape):
    checkpoint = random_checkpoint(random_config(**SHAPES[shape]))
    ids = tokens(checkpoint.config)
    engine = NumpyEngine(checkpoint)
    whole = evaluate(engine, ids, [])
    np.testing.assert_array_equal(evaluate(engine, ids, [1, 2, 3, 50]), whole)
    np.testing.assert_array_equal(evaluate(engine, ids[1:2], [7]), whole[1:2])


@pytest.mark.parametrize("name", ["numba", "torch"])
@pytest.mark.parametrize("batch", [1, 3, 64, 257])
@pytest.mark.parametrize("threads", [1, 2])
def test_engines_do_not_depend_on_batch_or_threads(batch, threads, name):
    checkpoint = random_checkpoint(random_config())
    ids = np.repeat(tokens(checkpoint.config, 1, 30), batch, axis=0)
    expected = evaluate(NumpyEngine(checkpoint), ids[:1], [])
    before = torch.get_num_threads()
    try:
        got = evaluate(load_engine(checkpoint, name, threads), ids, [1, 2])
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(got, np.repeat(expected, batch, axis=0))


def engine_called(checkpoint, name, threads=None):
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    return load_engine(checkpoint, name, threads)


@pytest.mark.parametrize("name", ENGINES)
def test_streams_end(name):
    checkpoint = random_checkpoint(random_config())
    ids = tokens(checkpoint.config)
    whole = evaluate(NumpyEngine(checkpoint), ids, [])
    engine = engine_called(checkpoint, name)
    state = engine.start(3)
    for rows, begin, end in ((3, 0, 20), (3, 20, 21), (2, 21, 50), (1, 50, 51), (1, 51, 70)):
        got = engine.advance(state, ids[:rows, begin:end])
        np.testing.assert_array_equal(got, whole[:rows, begin:end])


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("positions", ["rotary", "relative"])
def test_streams_branch(name, positions):
    checkpoint = random_checkpoint(random_config(positions=positions))
    ids, chosen = tokens(checkpoint.config), [2, 0, 0, 1]
    after = tokens(checkpoint.config, 4, 30, 2)[:, 1:]
    engine, reference = engine_called(checkpoint, name), NumpyEngine(checkpoint)
    state = engine.start(3)
    engine.advance(state, ids[:, :20])
    branched = engine.select(state, chosen)
    expected = evaluate(reference, ids, [])[:, 20:]
    np.testing.assert_array_equal(engine.advance(state, ids[:, 20:]), expected)  # it goes on by itself
    whole = evaluate(reference, np.concatenate([ids[chosen, :20], after], axis=1), [])
    np.testing.assert_array_equal(engine.advance(branched, after[:, :1]), whole[:, 20:21])
    np.testing.assert_array_equal(engine.advance(branched, after[:, 1:]), whole[:, 21:])
    alone = engine.select(branched, [3])
    again = np.concatenate([ids[1:2, :20], after[3:], ids[:1, 1:]], axis=1)
    np.testing.assert_array_equal(
        engine.advance(alone, ids[:1, 1:]), evaluate(reference, again, [])[:, -ids.shape[1] + 1 :]
    )


@pytest.mark.parametrize("name", ENGINES)
def test_threads_share_an_engine(name):
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    checkpoint = random_checkpoint(random_config())
    engine, ids = engine_called(checkpoint, name, 2), tokens(checkpoint.config)
    parts = [ids[:2], ids[1:], ids, ids[:1]]
    cuts = list(range(1, ids.shape[1]))
    expected = [evaluate(NumpyEngine(checkpoint), part, []) for part in parts]
    for _ in range(5):
        got = list(in_order(lambda part, check: evaluate(engine, part, cuts), parts, len(parts)))
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_torch_shares_streams_among_threads(rows, monkeypatch):
    """In groups of any size, fewer at the end."""
    monkeypatch.setattr(torch_engine, "SHARED_WORK", 0)
    monkeypatch.setattr(torch_engine, "GROUP_ROWS", rows)
    checkpoint = random_checkpoint(random_config())
    ids = tokens(checkpoint.config, 7)
    engine = load_engine(checkpoint, "torch", threads=3)
    before = torch.get_num_threads()
    got = evaluate(engine, ids, [1, 2, 5, 40])
    assert torch.get_num_threads() == before
    np.testing.assert_array_equal(got, evaluate(NumpyEngine(checkpoint), ids, []))


def test_torch_gets_its_threads_back_from_threads_that_overlap():
    usual = torch.get_num_threads()
    torch.set_num_threads(3)
    first, second = torch_engine.one_thread(), torch_engine.one_thread()
    try:
        first.__enter__()
        second.__enter__()
        assert torch.get_num_threads() == 1
        first.__exit__(None, None, None)
        second.__exit__(None, None, None)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(usual)


def test_exact_matmul_equals_integer_product():
    rng = np.random.default_rng(0)
    a = rng.choice([-127, 127], (5, 1100))
    b = np.full((1100, 4), 127)
    np.testing.assert_array_equal(exact_matmul(a, b, 127 * 127 * 1100), a @ b)
    np.testing.assert_array_equal(exact_matmul(b.T, b, 127 * 127 * 1100), b.T @ b)


def test_golden_logits():
    digest = hashlib.sha256()
    for changes in SHAPES.values():
        checkpoint = random_checkpoint(random_config(**changes), seed=5)
        logits = evaluate(NumpyEngine(checkpoint), tokens(checkpoint.config, 2, 40), [])
        digest.update(logits.astype("<i4").tobytes())
    assert digest.hexdigest() == GOLDEN


ISA = """
import hashlib, sys, torch
sys.path[:0] = {folders!r}
from graphs import random_checkpoint, random_config
from test_engines import SHAPES, evaluate, tokens
from laconic.coder.engine import ENGINES, load_engine
digest = hashlib.sha256()
for changes in SHAPES.values():
    checkpoint = random_checkpoint(random_config(**changes), seed=5)
    engine = load_engine(checkpoint, sys.argv[1])
    logits = evaluate(engine, tokens(checkpoint.config, 2, 40), [1, 5])
    digest.update(logits.astype("<i4").tobytes())
ones = torch.full((64, 64), 127, dtype=torch.int8)
saturates = bool((torch._int_mm(ones, ones) != 127 * 127 * 64).any())
print(digest.hexdigest(), saturates, engine.kernel)
"""
SATURATING = [  # ... which multiply pairs of bytes into 16 bits, unless the processor has nothing that does
    {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
]


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        *(("torch", environment) for environment in SATURATING),
        ("torch", {"ATEN_CPU_CAPABILITY": "default"}),
        ("numba", {"NUMBA_CPU_NAME": "generic"}),
    ],
)
def test_instruction_sets_agree(name, environment):
    here = os.path.dirname(__file__)
    script = ISA.format(folders=[here, os.path.dirname(here)])
    run = subprocess.run(
        [sys.executable, "-c", script, name],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    digest, saturates, kernel = run.stdout.strip().split(" ", 2)
    assert digest == GOLDEN
    if name == "torch" and saturates == "True":
        assert kernel.startswith("float32 GEMM")


def test_unknown_engine():
    with pytest.raises(LaconicError, match="abacus"):
        load_engine(random_checkpoint(random_config()), "abacus")


class Liar(NumpyEngine):
    name, kernel = "numba", "lies"

    def advance(self, state, ids):
        logits = super().advance(state, ids)
        logits[-1, -1, -1] += 1
        return logits


class Broken(NumpyEngine):
    name, kernel = "numba", "nothing"

    def advance(self, state, ids):
        raise RuntimeError("no such instruction")


@pytest.mark.parametrize(
    ("engine", "fault"),
    [
        (Liar, r"numba \(lies\) gives other integers"),
        (Broken, "fails on this machine .*no such instruction"),
    ],
)
def test_an_engine_that_is_not_exact_is_not_used(engine, fault, monkeypatch):
    monkeypatch.setattr("laconic.coder.engines.numba_engine.NumbaEngine", engine)
    checkpoint = random_checkpoint(random_config())
    with pytest.raises(LaconicError, match=fault):
        load_engine(checkpoint, "numba")
    with pytest.warns(UserWarning, match="engine numpy takes its place"):
        assert type(load_engine(checkpoint)) is NumpyEngine


@pytest.mark.parametrize("name", ["numba", "numpy", "torch"])
@pytest.mark.parametrize(
    "changes", [{}, {"vocab_size": 2, "window": 512, "num_kv_heads": 4, "rotary_period": 512}]
)
def test_a_stream_takes_no_more_than_is_counted(changes, name):
    """As NumPy counts, which torch does not allocate by: there, the caches."""
    config = random_config(**changes)
    engine, streams = load_engine(random_checkpoint(config), name), 400
    ids = np.zeros((streams, 1), dtype=np.int32)
    state = engine.start(streams)
    for _ in range(3):
        engine.advance(state, ids)
    tracemalloc.start()
    state = engine.start(streams)
    for _ in range(20):
        engine.advance(state, ids)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if name == "torch":
        peak += sum(buffer.nbytes for buffer in (*state.keys, *state.values))
    assert peak < streams * config.memory_per_stream()


def test_the_command_says_in_a_line_that_an_engine_is_not_exact(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("laconic.coder.engines.numba_engine.NumbaEngine", Liar)
    text = tmp_path / "text"
    text.write_bytes(b"to be or not to be, that is the question")
    assert main(["compress", "-q", "-m", "english-nano", str(text)]) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("laconic: warning: engine numba (lies) gives other integers")
    assert main(["decompress", "-q", "-c", f"{text}.lac"]) == 0
