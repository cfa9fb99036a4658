"""Two processes over gloo train what one process trains: DDP, FSDP and ZeRO 1, 2, 3, on processors."""

import csv
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TINY

import laconic
from laconic.coder.errors import LaconicError
from laconic.train.configuration import build_recipe
from laconic.train.consolidate import end_stage
from laconic.train.pipeline import distill, prepare, pretrain, run
from laconic.train.run import Run
from laconic.train.saving import fault

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two processes need two processor cores"),
]
DEEPSPEED = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed: pip install 'laconic[deepspeed]'"
)
STRATEGIES = ["ddp", "fsdp", *(pytest.param(f"deepspeed_{stage}", marks=DEEPSPEED) for stage in (1, 2, 3))]
STEPS = 12
SETTINGS = {
    **TINY,
    "model.tied": True,
    "training.max_steps": STEPS,
    "training.batch_size": 4,
    "training.threads": 2,
    "training.accelerator": "cpu",
    "training.optimizer": "adamw",
    "training.quantised_share": 0.3,
}
CONSTANT = {
    "warmup_share": 0.0,
    "warmdown_share": 0.0,
    "quantised_share": 0.0,
}  # whatever the number of steps
# Gradients are 0.89 to 1.30 long: not all are clipped, and none would be if they were halved.
STEPS_OF_TWO = {"accumulate": 2, "clip_norm": 0.9}


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory) -> Path:
    this = Run(tmp_path_factory.mktemp("run") / "run", build_recipe(SETTINGS))
    prepare(this, [str(corpus)])
    return this.folder


def new_run(prepared: Path, folder: Path, **training) -> Run:
    recipe = build_recipe(SETTINGS, {f"training.{name}": value for name, value in training.items()})
    if not folder.exists():
        shutil.copytree(prepared, folder)
    this = Run(folder, recipe)
    this.keep_recipe()
    return this


def validated(this: Run) -> float:
    """The last validation loss that was logged, in bits per byte."""
    with (this.folder / "student" / "metrics.csv").open() as file:
        *_, loss = filter(None, (row["validation/bits_per_byte"] for row in csv.DictReader(file)))
    return float(loss)


@pytest.fixture(scope="module")
def alone(prepared, tmp_path_factory):
    """One process with the batches of two: steps of two of them, a schedule, integers; and none of these."""
    made = []
    for changes in (STEPS_OF_TWO, CONSTANT):
        this = new_run(prepared, tmp_path_factory.mktemp("alone") / "run", batch_size=8, **changes)
        made.append((pretrain(this, "student", this.recipe.training), validated(this)))
    return made


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_reach_the_loss_of_one(strategy, alone, prepared, tmp_path):
    changes = {"strategy": strategy, "checkpoint_activations": True}  # which changes no number
    this = new_run(prepared, tmp_path / "run", devices=2, **changes, **STEPS_OF_TWO)
    module = pretrain(this, "student", this.recipe.training)
    reference, loss = alone[0]
    assert validated(this) == pytest.approx(loss, abs=2e-5)
    assert module.transformer.quantised
    assert module.tokens_seen == reference.tokens_seen == STEPS * 2 * 8 * 32
    weights, expected = module.state_dict(), reference.state_dict()
    assert set(weights) == set(expected)
    torch.testing.assert_close(weights, expected, atol=2e-4, rtol=1e-3)
    assert not list((this.folder / "student").glob("rank-*.log"))


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_a_run_goes_on_from_its_sharded_checkpoint(strategy, alone, prepared, tmp_path):
    for steps in (STEPS // 2, STEPS):
        this = new_run(prepared, tmp_path / "run", devices=2, strategy=strategy, max_steps=steps, **CONSTANT)
        final = this.folder / "student" / "final.ckpt"
        final.unlink(missing_ok=True)
        if (last := final.with_name("last.ckpt")).is_dir():  # as a save that was killed leaves it
            shutil.copytree(last, last.with_name("last.ckpt.partial"))
        module = pretrain(this, "student", this.recipe.training)
    assert fault(last) is None
    assert validated(this) == pytest.approx(alone[1][1], abs=2e-5)
    assert module.tokens_seen == alone[1][0].tokens_seen
    before = torch.load(final, weights_only=True)["state_dict"]
    final.unlink()
    path, steps = end_stage(this, "student")
    assert (path, steps) == (final, STEPS)
    torch.testing.assert_close(torch.load(final, weights_only=True)["state_dict"], before, atol=0, rtol=0)
    with pytest.raises(LaconicError, match="this stage is done"):
        end_stage(this, "student")


def test_a_student_learns_from_its_teacher_in_minutes_of_two_processes(prepared, tmp_path):
    # More patience than there are validations: the best is kept, and nothing ends the run before its minutes.
    changes = {"devices": 2, "optimizer": "muon", "patience": 1000, "accumulate": 2}
    this = new_run(prepared, tmp_path / "run", **changes)
    pretrain(this, "teacher", this.recipe.training)
    this = new_run(prepared, tmp_path / "run", **changes, minutes=0.1, max_steps=None)
    module = distill(this, this.recipe.training)
    last = torch.load(this.folder / "student" / "last.ckpt", weights_only=True)["laconic"]
    assert last["elapsed_seconds"] >= 6
    assert module.elapsed_seconds <= last["elapsed_seconds"]  # of the best
    assert module.tokens_seen % (8 * 32) == 0
    assert validated(this) < 2.5


METHODS = {
    "cached": {"top_k": 8},
    "inner": {"weight": 0.3, "hidden_weight": 1.0, "attention_weight": 1.0, "final_weight": 0.5},
}


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_are_taught_as_one_is(method, prepared, tmp_path):
    made = []
    for devices, batch_size in ((1, 8), (2, 4)):
        this = new_run(prepared, tmp_path / f"{devices}", devices=devices, batch_size=batch_size)
        for name, value in METHODS[method].items():
            setattr(this.recipe.distillation, name, value)
        alone = replace(this.recipe.training, devices=1, batch_size=8)
        pretrain(Run(this.folder, replace(this.recipe, training=alone)), "teacher", alone)
        made.append(distill(this, this.recipe.training))
    assert made[0].tokens_seen == made[1].tokens_seen == STEPS * 8 * 32
    torch.testing.assert_close(made[1].state_dict(), made[0].state_dict(), atol=2e-4, rtol=1e-3)


@DEEPSPEED
def test_files_are_compressed_with_what_sharded_training_made(corpus, tmp_path):
    changes = {"training.devices": 2, "training.strategy": "deepspeed_3"}
    report = run([str(corpus)], tmp_path / "run", build_recipe(SETTINGS, changes))
    assert report["tokens_seen"] == STEPS * 8 * 32
    text = (corpus / "07.txt").read_bytes()
    blob = laconic.compress(text, tmp_path / "run" / "checkpoint")
    assert laconic.decompress(blob, tmp_path / "run" / "checkpoint") == text


def _rank(parent: int, rank: int) -> int:
    """The process id of a rank."""
    for process in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"\0RANK={rank}\0" in Path(f"/proc/{process}/environ").read_text():
            return int(process)
    raise AssertionError("no such rank")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes as Linux shows them")
@pytest.mark.parametrize(
    ("number", "timeout_minutes", "words"),
    [
        (signal.SIGKILL, 30, "rank 1 of 2 was ended by SIGKILL"),
        (signal.SIGSTOP, 0.5, "rank 1 of 2 did not answer within 0.5 minutes"),
    ],
    ids=["killed", "stopped"],
)
def test_a_rank_that_is_lost_ends_the_run_with_its_name(number, timeout_minutes, words, prepared, tmp_path):
    changes = {"minutes": 10_000, "max_steps": None, "timeout_minutes": timeout_minutes}
    this = new_run(prepared, tmp_path / "run", devices=2, **changes)
    command = [sys.executable, "-m", "laconic", "pretrain", "-o", str(this.folder)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as parent:
        assert parent.stderr is not None
        assert "step 1" in parent.stderr.readline()
        lost = [_rank(parent.pid, rank) for rank in (0, 1)]
        began = time.monotonic()
        os.kill(lost[1], number)
        *_, error = parent.stderr.readlines()
        assert parent.wait() == 1
    assert error.startswith(f"laconic: error: {words}")
    assert time.monotonic() - began < 500  # and not the 600 that are the default
    assert not any(Path(f"/proc/{process}").exists() for process in lost)
