"""`laconic selftest`: what it prints, and that it notices."""

import importlib.util
import json
import re
from functools import partial

import numpy as np
import pytest

from laconic.cli import main
from laconic.coder.engine import build_engine
from laconic.coder.engines import matrix, selftest
from laconic.coder.engines.conformance import generate, load_cases
from laconic.coder.engines.reference import NumpyEngine
from laconic.coder.engines.selftest import Tally, check_case, chunkings, drawn_text, run_short
from laconic.coder.engines.torch_engine import TorchEngine
from laconic.coder.files import compress, open_model
from laconic.coder.segment import MIXED, MODEL

CASES = {case.name: case for case in load_cases()}
FEW = [CASES[name] for name in ("smallest", "odd heads", "limits, relative, reglu")]


@pytest.fixture
def few(monkeypatch):
    """Few cases and small texts."""
    monkeypatch.setattr("laconic.coder.engines.conformance.load_cases", lambda: FEW)
    monkeypatch.setattr(matrix, "load_cases", lambda: FEW)
    monkeypatch.setattr(selftest, "DRAWN", (8, 20))
    monkeypatch.setattr(matrix, "DRAWN", (8, 20))


def wrong_at(engine, monkeypatch, stream):
    """The last logit of some streams is too high: by enough that it shows in a short file."""
    advance = engine.advance

    def wrong(self, state, ids):
        logits = advance(self, state, ids).copy()
        logits[stream:, :, -1] += 5000
        return logits

    monkeypatch.setattr(engine, "advance", wrong)


def test_the_table_says_what_was_compared(few, capsys, tmp_path):
    table = tmp_path / "table.txt"
    assert main(["selftest", "-o", str(table)]) == 0
    out = capsys.readouterr().out
    assert table.read_text() == out
    logits = [case.config.vocab_size * case.steps for case in FEW]
    each = 3 * sum(4 * count for count in logits)  # three chunkings, batches of 1 and 3
    for name in ("numba", "torch", "numpy"):
        assert re.search(rf"^{name} +3 +{each:,} +0 +4 +\d+  \S", out, flags=re.MULTILINE)
    assert re.search(
        r"integers compared, 0 mismatches\n\d kernels give the same integers; \d+ files coded, all alike; ",
        out,
    )


def test_one_engine_restores_its_own_files(few, capsys):
    assert main(["selftest", "--engine", "numpy"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^numpy .* 4 +4  NumPy", out, flags=re.MULTILINE)) == 1
    assert "torch" not in out


def test_a_wrong_engine_is_named_with_case_and_place_and_remedy(few, capsys, monkeypatch):
    wrong_at(TorchEngine, monkeypatch, 1)
    assert main(["selftest"]) == 1
    out, err = capsys.readouterr()
    assert "all alike" not in out
    first, *_, last = err.splitlines()
    assert re.fullmatch(
        r"laconic: error: engine torch, case smallest, batch 3, fed as one: logit of stream 1, step 0, "
        r"token 1 is (-?\d+), it must be (-?\d+) \(16 of 48 differ\)",
        first,
    )
    assert last == "laconic: error: do not use engine torch here: choose --engine numba or numpy"
    assert len(re.findall("engine torch, level .* the coded file is not that", err)) > 0


def test_a_wrong_reference_is_named_with_its_tensor(few, capsys, monkeypatch):
    rotate = NumpyEngine._rotate
    monkeypatch.setattr(NumpyEngine, "_rotate", lambda *a: rotate(*a) + 1)
    # english-nano does not rotate: its files come back
    monkeypatch.setattr(selftest, "shipped_model", partial(selftest.shipped_model, name="english-nano"))
    assert main(["selftest"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(
        "laconic: error: engine numpy, case smallest: tensor layers.0.rotated is not that of the vectors"
    )
    assert err.endswith("do not use engine numpy here: choose --engine numba or torch\n")


def test_a_damaged_file_is_noticed(monkeypatch):
    """An engine that was right when it encoded."""
    model = open_model(selftest.CODER, "torch")
    text = drawn_text(model, 32, 24)
    files = [compress(text, model, level=level, streams=streams) for level, streams in selftest.CODINGS]
    tally = Tally("torch")
    selftest.read_files(tally, model, text, files, "another")
    assert (tally.restored, tally.mismatches) == (4, 0)
    advance = TorchEngine.advance
    monkeypatch.setattr(TorchEngine, "advance", lambda *a: np.roll(advance(*a), 1, axis=-1))
    selftest.read_files(tally, model, text, files, "another")
    assert (tally.restored, tally.mismatches) == (8, 4)
    assert tally.faults[0] == (
        "engine torch, level 1, streams 1: the file that another wrote is not restored"
    )
    assert selftest.write_files(tally, model, text, files) != files
    assert tally.mismatches == 8


def test_what_is_not_installed_is_said(few, capsys, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else find_spec(name))
    assert main(["selftest"]) == 0
    assert "torch: not installed (engine torch needs torch" in capsys.readouterr().out
    assert main(["selftest", "--engine", "torch"]) == 1
    assert "pip install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "abacus"], "no engine 'abacus': choose one of"),
        (["-o", "/nowhere/at/all"], "/nowhere/at"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert main(["selftest", *arguments]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_work_bounds_steps_and_leaves_out_what_is_too_much():
    case = CASES["odd heads"]
    checkpoint, ids = generate(case)
    engine = build_engine(checkpoint, "numpy")
    logits = selftest.evaluate(engine, ids, [])
    macs = case.config.macs_per_token()
    tally = Tally("numpy")
    check_case(tally, engine, case, ids, logits, (1, 3, 64), 10 * macs)
    assert tally.compared == case.config.vocab_size * 3 * (1 * 10 + 3 * 3)
    assert tally.mismatches == 0
    logits[2, 2, 5] += 1
    check_case(tally, engine, case, ids, logits, (1, 3, 64), 10 * macs)
    assert tally.mismatches == 3


def test_chunkings_cover_the_steps():
    assert chunkings(2) == {"as one": [], "in uneven pieces": [1], "one at a time": [1]}
    assert chunkings(9) == {"as one": [], "in uneven pieces": [1, 2, 5], "one at a time": list(range(1, 9))}


def test_an_array_of_another_shape_is_a_mismatch():
    tally = Tally("torch")
    tally.compare("here", np.zeros((1, 2, 3)), np.zeros((1, 2, 4)))
    assert (tally.mismatches, tally.faults) == (
        8,
        ["engine torch, here: logits are [1, 2, 3], not [1, 2, 4]"],
    )


@pytest.mark.parametrize(("name", "drawn"), [(selftest.CODER, selftest.DRAWN), (matrix.CODER, matrix.DRAWN)])
def test_the_text_is_coded_by_the_model(name, drawn):
    """Where LZMA took it, files would show nothing of engines."""
    model = open_model(name)
    text = drawn_text(model, *drawn)
    for level, streams in selftest.CODINGS:
        assert compress(text, model, level=level, streams=streams)[13] == (MODEL if level == 1 else MIXED)


def test_short_and_matrix_count_alike(few, tmp_path, monkeypatch):
    """What a process of the matrix does, done here."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setattr(matrix, "BATCHES", (1, 3))
    (tally,) = run_short(["torch"], FEW, matrix.WORK)[1:]
    assert matrix._prepare(tmp_path).mismatches == 0
    task = {"names": ["torch", "numpy"], "number": 7, "label": "here"}
    (tmp_path / "task.json").write_text(json.dumps(task))
    matrix._work(tmp_path)
    found = [Tally(**entry) for entry in json.loads((tmp_path / "7.json").read_text())]
    assert [(t.engine, t.threads) for t in found] == [("torch", 1), ("torch", 2), ("numpy", 1)]
    for one in found:
        assert (one.mismatches, one.compared, one.coded, one.restored) == (0, tally.compared, 4, 4)
        assert one.environment == "here"
    damaged = tmp_path / "previous.2"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    matrix._work(tmp_path)
    found = [Tally(**entry) for entry in json.loads((tmp_path / "7.json").read_text())]
    assert [t.faults for t in found] == [
        ["engine torch, level 2, streams 64: the file that the setting before wrote is not restored"], [], []
    ]  # fmt: skip


def test_a_process_that_dies_is_a_fault(few, monkeypatch):
    dead = matrix.Environment({"PYTHONHOME": "/nowhere", "OPENBLAS_NUM_THREADS": "1"})
    shown = []
    tallies = matrix.run_matrix(["torch"], [dead], shown.append)
    assert tallies == shown
    assert tallies[0].mismatches == 0
    assert re.search(r"engine torch, PYTHONHOME=/nowhere: the process ended with 1: .", tallies[1].faults[0])


def test_only_instructions_that_are_here_are_asked_for(monkeypatch):
    everything = {name: True for e in matrix.ENVIRONMENTS for name in e.needs}
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: everything)
    assert matrix.runnable() == list(matrix.ENVIRONMENTS)
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", lambda: {**everything, "avxvnni": False})
    assert [e.label for e in matrix.ENVIRONMENTS if e not in matrix.runnable()] == [
        "NUMBA_CPU_NAME=alderlake"
    ]
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", dict)
    assert {e.needs for e in matrix.runnable()} == {()}
