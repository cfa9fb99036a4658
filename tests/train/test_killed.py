"""A run that is killed, at any moment, and started again is the uninterrupted run: bit for bit."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import TINY

from laconic.train.configuration import build_recipe, dump_recipe
from laconic.train.pipeline import prepare
from laconic.train.run import Run
from laconic.train.saving import newest_sound

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="forks, and asks for the names of files, as Linux does"
)
STEPS = 12
SETTINGS = {
    **TINY,
    "training.max_steps": STEPS,
    "training.batch_size": 4,
    "training.accumulate": 2,
    "training.validations": 3,
    "training.accelerator": "cpu",
    "training.quantised_share": 0.3,
    "data.validation_tokens": 1000,
}
TWO = {"training.devices": 2, "training.threads": 2}


class Driver:
    """The process of killed.py."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("killed.py"))]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def run(self, notes: Path, arguments: list[str], kill: tuple[str, str, int] | None = None) -> dict:
        notes.mkdir(exist_ok=True)
        assert self.process.stdin
        assert self.process.stdout
        request = {"arguments": arguments, "notes": str(notes), "kill": kill}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def driver():
    it = Driver()
    yield it
    it.process.stdin.close()
    assert it.process.wait() == 0


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory) -> Path:
    this = Run(tmp_path_factory.mktemp("prepared") / "run", build_recipe(SETTINGS))
    prepare(this, [str(corpus)])
    this.keep_recipe()
    return this.folder


@dataclass
class Case:
    """A run that can be made again and again."""

    driver: Driver
    folder: Path
    arguments: list[str]  # of laconic, but for -o and the folder of the run
    prepared: Path | None

    def run(self, name: str, kill: tuple[str, str, int] | None = None) -> dict:
        out = self.folder / name / "run"
        if self.prepared and not out.exists():
            shutil.copytree(self.prepared, out)
        out.parent.mkdir(exist_ok=True)
        return self.driver.run(out.parent / "notes", [*self.arguments, "-o", str(out)], kill)

    def moments(self, name: str) -> dict[tuple[str, str], int]:
        """(who, moment) -> how often it came in a run."""
        found: dict[tuple[str, str], int] = {}
        for path in sorted((self.folder / name / "notes").glob("moments-*")):
            for moment in path.read_text().splitlines():
                key = path.name.removeprefix("moments-"), moment
                found[key] = found.get(key, 0) + 1
        return found

    def losses(self, name: str) -> dict[tuple[str, str], set[str]]:
        """(who, batch) -> what its loss was, each time that it was taken."""
        found: dict[tuple[str, str], set[str]] = {}
        for path in (self.folder / name / "notes").glob("losses-*"):
            for batch, loss in map(str.split, path.read_text().splitlines()):
                found.setdefault((path.name, batch), set()).add(loss)
        return found

    def left(self, name: str) -> tuple[dict[str, bytes], bytes, dict[str, list], str | None]:
        """What a run left: weights, metrics.csv, TensorBoard's curves, the id of the checkpoint."""
        run = self.folder / name / "run"
        student, report = run / "student", run / "report.json"
        events = EventAccumulator(str(student / "tensorboard"), size_guidance={"scalars": 0}).Reload()
        curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        state = torch.load(student / "final.ckpt", weights_only=True)["state_dict"]
        weights = {name: value.numpy().tobytes() for name, value in state.items()}
        identity = json.loads(report.read_text())["id"] if report.is_file() else None
        return weights, (student / "metrics.csv").read_bytes(), curves, identity

    def check(self, name: str) -> None:
        """That a run is the whole one, to the last bit."""
        assert self.losses(name) == self.losses("whole")
        for found, expected in zip(self.left(name), self.left("whole"), strict=True):
            assert found == expected

    def kill_and_go_on(self, name: str, *kills: tuple[str, str, int]) -> int:
        """Returns the step that the last of the runs went on from; prints a row for docs/cluster.md."""
        for kill in kills:
            killed = self.run(name, kill)
            assert killed["status"] == (1 if kill[0] else -9), killed
            assert ("laconic: error" in killed["said"]) == bool(kill[0])
        last = newest_sound(self.folder / name / "run" / "student" / "last.ckpt")
        step = torch.load(last, weights_only=True)["global_step"] if last else 0
        again = self.run(name)
        assert again["status"] == 0, again
        assert "damaged" not in again["said"]
        self.check(name)
        who, moment, time = kills[-1]
        print(f"| {who and f'rank {who}: '}{moment} | {time} | {step} | equal |")
        return step


def case(driver, folder: Path, arguments: list[str], prepared: Path | None = None) -> Case:
    made = Case(driver, folder, arguments, prepared)
    whole = made.run("whole")
    assert whole["status"] == 0, whole
    return made


def test_a_run_killed_in_a_save_and_between_its_renames_is_the_uninterrupted_one(driver, prepared, tmp_path):
    alone = case(driver, tmp_path, ["pretrain"], prepared)
    between = ("", "before naming last.ckpt", 4)
    assert alone.kill_and_go_on("twice", ("", "torn last.ckpt.partial", 3), between) == 10
    assert len(alone.losses("twice")) == 2 * STEPS


def check_each(case: Case, parts: list[str]) -> None:
    """Kill in every part of a run, named by a pattern of its moments; which of them, and when, is drawn."""
    draw, moments = random.Random(0), case.moments("whole")
    for number, part in enumerate(parts):
        kind = draw.choice(sorted(kind for kind in moments if re.fullmatch(part, ": ".join(kind))))
        case.kill_and_go_on(str(number), (*kind, draw.randint(1, moments[kind])))


@pytest.mark.slow
def test_ten_kills_between_corpus_and_checkpoint(driver, corpus, tmp_path):
    (tmp_path / "recipe.yaml").write_text(dump_recipe(build_recipe(SETTINGS)))
    arguments = ["train", str(corpus), "--config", str(tmp_path / "recipe.yaml")]
    parts = [
        ": .*tokenizer.*",
        ": (.* (add|close)|.*(.tokens|manifest.json).*)",
        ": .* training_step",
        ": .* step",
        ": .* validation_step",
        ": torn last.ckpt.partial",
        ": .* naming last.ckpt(.old)?",
        ": .*(metrics.csv|final.ckpt).*",
        ": .* (with_prior|shipped|publish)",
        ": .* naming (checkpoint|checkpoint.partial|report.json)",
    ]
    check_each(case(driver, tmp_path, arguments), parts)


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two processes need two processor cores")
def test_six_kills_of_the_command_or_of_one_of_two_ranks(driver, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "prepared")
    Run(tmp_path / "prepared", build_recipe(SETTINGS, TWO)).keep_recipe()
    parts = [
        "1: .* training_step",
        "0: .* step",
        "[01]: .* validation_step",
        "0: torn last.ckpt.partial",
        "0: .* naming last.ckpt(.old)?",
    ]
    two = case(driver, tmp_path, ["pretrain"], tmp_path / "prepared")
    check_each(two, parts)
    two.kill_and_go_on("command", ("", "before sleep", 5))  # the fifth look at the ranks, half a second in
