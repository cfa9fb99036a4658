"""Who trains where: what is refused, what a failure is called, and that nothing outlives it."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from laconic.cli import main
from laconic.coder.errors import LaconicError
from laconic.train import processes
from laconic.train.configuration import build_recipe
from laconic.train.processes import check_room
from laconic.train.rank import require_alone
from laconic.train.recipe import TrainingRecipe

ADAMW = {"training.optimizer": "adamw"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"training.strategy": "zero"}, "training.strategy is 'zero'"),
        ({"training.devices": 0}, "training.devices is 0, allowed are 1 to 1024"),
        ({"training.timeout_minutes": 0}, "training.timeout_minutes is 0, allowed are 0.05"),
        ({"training.strategy": "fsdp", "training.devices": 2}, "muon, which needs whole matrices"),
        ({"training.strategy": "fsdp", **ADAMW}, "one process has nothing to shard"),
        ({"kind": "ngram", "training.devices": 2}, "n-grams are counted in one process"),
        ({"training.strategy": "deepspeed_1"}, "set training.optimizer adamw, or training.strategy ddp"),
        ({"training.strategy": "deepspeed_3", "training.compile": True, **ADAMW}, "training.compile is true"),
        ({"training.devices": 2, "training.offload": True}, "allowed are fsdp, deepspeed_1"),
    ],
)
def test_settings_that_cannot_work_are_one_line(settings, words):
    with pytest.raises(LaconicError) as caught:
        build_recipe(settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_muon_is_allowed_where_matrices_are_whole():
    assert build_recipe({"training.strategy": "ddp", "training.devices": 2}).training.together
    assert build_recipe({"training.strategy": "deepspeed_3", **ADAMW}).training.zero_stage == 3


@pytest.mark.parametrize(
    ("changes", "environment", "words"),
    [
        ({"devices": 999, "accelerator": "cpu"}, {}, "training.devices is 999, this machine has"),
        ({"accelerator": "gpu", "devices": 99}, {}, "GPUs: (give at most|set training.accelerator to cpu)"),
        ({"offload": True, "accelerator": "cpu"}, {}, "no GPU to take load from"),
        ({"nodes": 2}, {}, "more than one machine takes torchrun"),
        ({"devices": 2}, {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "8"}, "is 2, and 8 processes"),
    ],
)
def test_what_the_machine_has_no_room_for_is_refused(changes, environment, words, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaconicError, match=words):
        check_room(replace(TrainingRecipe(), **changes))


def test_without_deepspeed_its_strategies_are_refused_before_anything_is_made(tmp_path, capsys, monkeypatch):
    find = processes.importlib.util.find_spec
    monkeypatch.setattr(
        processes.importlib.util, "find_spec", lambda name: None if name == "deepspeed" else find(name)
    )
    (tmp_path / "text.txt").write_text("a text " * 10_000)
    arguments = ["--training.strategy=deepspeed_2", "--training.optimizer=adamw"]
    assert main(["train", str(tmp_path / "text.txt"), "-o", str(tmp_path / "run"), *arguments]) == 1
    error = capsys.readouterr().err
    assert "pip install 'laconic[deepspeed]'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_torchrun_is_not_for_what_one_process_does(monkeypatch):
    require_alone("train")
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaconicError, match="`laconic train` is work for one process, and 2 were started"):
        require_alone("train")


def _ranks(tmp_path, monkeypatch, *programs):
    """Run a program for each rank; what `_wait` says of them, and whether all are gone after."""
    monkeypatch.setattr(processes, "GRACE_SECONDS", 1.0)
    choose = "import os, sys, time, signal; exec(sys.argv[1 + int(os.environ['RANK'])])"
    logs = [tmp_path / f"rank-{rank}.log" for rank in range(len(programs))]
    with processes._started([sys.executable, "-c", choose, *programs], logs) as ranks:
        result = processes._wait(ranks)
    assert all(isinstance(rank, subprocess.Popen) and rank.returncode is not None for rank in ranks)
    return result


def test_a_rank_that_dies_ends_the_others(tmp_path, monkeypatch):
    killed = "os.kill(os.getpid(), signal.SIGKILL)"
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    assert _ranks(tmp_path, monkeypatch, "time.sleep(60)", killed, deaf) == ({1: -9}, [0, 2])
    assert _ranks(tmp_path, monkeypatch, "pass", "print(os.environ['WORLD_SIZE'])") == ({}, [])
    assert (tmp_path / "rank-1.log").read_text() == "2\n"
    meet = "import socket; socket.create_connection(('127.0.0.1', int(os.environ['MASTER_PORT'])))"
    assert _ranks(tmp_path, monkeypatch, meet, meet) == ({}, [])


@pytest.mark.parametrize(
    ("notes", "failed", "silent", "words"),
    [
        ({0: "unanswered"}, {0: 1, 1: -9}, [], "rank 1 of 3 was ended by SIGKILL, and the others with it"),
        ({2: "mistake"}, {1: -6, 2: 1}, [], "rank 2 of 3: mistake of 2"),
        ({0: "defect"}, {0: 1, 1: -9}, [], "rank 1 of 3 was ended by SIGKILL"),
        ({0: "unanswered", 2: "mistake"}, {0: 1, 2: 1}, [1], "rank 2 of 3: mistake of 2"),
        ({0: "unanswered", 1: "defect"}, {0: 1, 1: 1}, [2], "rank 1 of 3 failed: defect of 1; see"),
        (
            {0: "unanswered", 2: "unanswered"},
            {0: 1, 2: 1},
            [1],
            "rank 1 of 3 did not answer within 7 minutes",
        ),
        ({0: "unanswered", 1: "unanswered"}, {0: 1, 1: 1}, [], "a rank of 3 did not answer within 7 minutes"),
    ],
)
def test_the_verdict_names_the_first_cause(notes, failed, silent, words, tmp_path):
    for rank, kind in notes.items():
        note = {"message": f"{kind} of {rank}", "kind": kind, "trace": "a trace"}
        processes.note_of(tmp_path / "recipe.yaml", rank).write_text(json.dumps(note))
    logs = [tmp_path / f"rank-{rank}.log" for rank in range(3)]
    verdict = processes._verdict(failed, silent, tmp_path, logs, TrainingRecipe(timeout_minutes=7))
    assert words in verdict
    assert "\n" not in verdict
    assert all(logs[rank].read_text() == "a trace" for rank in notes)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_log_that_cannot_be_written_does_not_hide_the_cause(tmp_path):
    note = {"message": "cannot write into runs/a: No space left on device", "kind": "mistake", "trace": "it"}
    processes.note_of(tmp_path / "recipe.yaml", 0).write_text(json.dumps(note))
    (log := tmp_path / "rank-0.log").symlink_to("/dev/full")
    verdict = processes._verdict({0: 1}, [], tmp_path, [log], TrainingRecipe())
    assert verdict == f"rank 0 of 1: {note['message']}"
