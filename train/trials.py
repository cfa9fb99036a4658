"""Trials: which recipes a sweep runs, and what each of them came to."""

import itertools
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..coder.errors import LaconicError
from .configuration import flatten, load_recipe, read_overrides
from .logs import as_csv
from .pipeline import prepare
from .pipeline import run as run_pipeline
from .recipe import Recipe
from .run import Run, write_whole
from .teachers import cached_predictions, named_teachers
from .trainer import Interrupted

Settings = dict[str, Any]
VALUE = re.compile(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,])+")  # between commas, those in brackets apart
FIGURES = (
    "bits_per_byte",  # shipped bytes of text that was kept out of training
    "float_bits_per_byte",
    "integer_bits_per_byte",
    "macs_per_byte",
    "checkpoint_bytes",
    "tokens_seen",
    "training_minutes",
)


@dataclass(frozen=True)
class Axis:
    """A key of the recipe and what it takes: listed values, or all between two numbers."""

    key: str
    values: tuple[Any, ...]
    between: bool = False

    def draw(self, random: np.random.Generator) -> Any:
        """A listed value, or a number between: by its logarithm where both ends are positive."""
        if not self.between:
            return self.values[int(random.integers(len(self.values)))]
        low, high = self.values
        if low > 0:
            value = math.exp(random.uniform(math.log(low), math.log(high)))
        else:
            value = random.uniform(low, high)
        return round(value) if isinstance(low, int) and isinstance(high, int) else float(f"{value:.4g}")


def read_axis(text: str) -> Axis:
    """`KEY=A,B,C` or `KEY=LOW..HIGH`; of a section, mappings of its settings: `SECTION={a: 1},{a: 2, b: 3}`.

    Raises:
        LaconicError: it is neither.
    """
    key, found, values = text.partition("=")
    if not found or not values:
        raise LaconicError(f"{text!r} is no axis: write KEY=A,B,C or KEY=LOW..HIGH")
    low, between, high = ("", "", "") if values[0] in "{[" else values.partition("..")
    parts = [low, high] if between else VALUE.findall(values)
    read = tuple(read_overrides([f"--{key}={part}"])[key] for part in parts)
    if between and not (all(isinstance(v, (int, float)) for v in read) and read[0] < read[1]):
        raise LaconicError(
            f"{text!r}: {values} is no range, write LOW..HIGH with numbers, the lower one first"
        )
    if len(set(map(repr, read))) < len(read):
        raise LaconicError(f"{text!r} names a value twice: name each once")
    return Axis(key, read, bool(between))


def plan_trials(axes: Sequence[Axis], draws: int | None, seed: int) -> list[Settings]:
    """Every combination of the axes' values, or `draws` random ones, none of them twice.

    Raises:
        LaconicError: there is nothing to vary, a range has no draws, or there are fewer combinations.
    """
    if not axes:
        raise LaconicError("nothing varies: name what does, such as --over model.d_model=96,128")
    keys = [axis.key for axis in axes]
    if len(set(keys)) < len(keys):
        raise LaconicError(f"--over names a key twice ({', '.join(keys)}): give all of its values at once")
    if draws is None:
        if ranges := [axis.key for axis in axes if axis.between]:
            raise LaconicError(f"{', '.join(ranges)} is a range: say how many trials to draw by --draws N")
        combinations = itertools.product(*(a.values for a in axes))
        return [flatten(dict(zip(keys, chosen, strict=True))) for chosen in combinations]
    random = np.random.default_rng(seed)
    trials: list[Settings] = []
    for _ in range(100 * draws):
        trial = flatten({axis.key: axis.draw(random) for axis in axes})
        if trial not in trials:
            trials.append(trial)
        if len(trials) == draws:
            return trials
    raise LaconicError(f"{draws} draws of {len(trials)} combinations: ask for fewer, or leave --draws out")


class Sweep:
    """Trials below one folder, each a run of its own; those that share tokenizer and splits share shards."""

    def __init__(self, folder: Path, sources: list[str], base: Settings, trials: list[Settings]) -> None:
        """
        Args:
            base: {"recipe", "config", "settings"}, what all trials have.

        Raises:
            LaconicError: the folder holds another sweep or is part of a source, or a recipe has faults.
        """
        self.folder, self.sources, self.base, self.trials = folder, sources, base, trials
        for source in sources:
            if Path(source).is_dir() and folder.resolve().is_relative_to(Path(source).resolve()):
                raise LaconicError(f"{folder} is inside {source}, which is read: give a folder outside of it")
        self.recipes = [self._recipe(trial) for trial in trials]
        plan = json.dumps({"sources": sources, "base": base, "trials": trials}, indent=1) + "\n"
        path = folder / "sweep.json"
        if path.is_file() and path.read_text() != plan:
            raise LaconicError(f"{folder} holds another sweep: choose another folder, or remove it")
        write_whole(path, plan)

    def _recipe(self, trial: Settings) -> Recipe:
        return load_recipe(self.base["recipe"], self.base["config"], {**self.base["settings"], **trial})

    def run(self) -> Iterator[dict[str, Any]]:
        """Run what is not done yet; yields the row of each trial, and keeps results.csv up to date."""
        rows: list[dict[str, Any]] = []
        for number, (trial, recipe) in enumerate(zip(self.trials, self.recipes, strict=True)):
            row = {"trial": number, **trial, **self._one(number, recipe)}
            rows.append(row)
            write_whole(self.folder / "results.csv", as_csv(rows))
            yield row

    def _one(self, number: int, recipe: Recipe) -> dict[str, Any]:
        """The figures of a trial, or why it has none; a trial that failed is tried anew by the next call."""
        folder = self.folder / f"{number:03d}"
        run = Run(folder, recipe)
        began = time.monotonic()
        try:
            if not run.report_file.is_file():
                self._share_shards(folder, recipe)
                run_pipeline(self.sources, folder, recipe)
            report = json.loads(run.report_file.read_text())
        except Interrupted:
            raise
        except LaconicError as error:
            return {"status": "failed", "fault": str(error), "seconds": round(time.monotonic() - began)}
        validation = report["validation"]
        figures = {name: report[name] for name in FIGURES if name in report}
        figures |= {name: validation[name] for name in FIGURES if name in validation}
        figures["bits_per_byte"] = validation["coded"]["bits_per_byte"]
        return {"status": "done", **figures, "seconds": round(time.monotonic() - began)}

    def _share_shards(self, folder: Path, recipe: Recipe) -> None:
        """Build tokenizer and shards once for all trials of one way to make them, and link them.

        Predictions of teachers that are there already are made here too, within the shards.
        """
        key = {"tokenizer": asdict(recipe.tokenizer), "data": asdict(recipe.data)}
        known = [{"tokenizer": asdict(other.tokenizer), "data": asdict(other.data)} for other in self.recipes]
        shared = self.folder / "corpora" / f"{known.index(key):03d}"
        prepare(Run.open(shared, recipe_of_corpus(recipe)), self.sources)
        if recipe.distillation.teachers and not recipe.distillation.teacher_share:
            corpus = Run(shared, recipe)
            cached_predictions(corpus, named_teachers(corpus))
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "shards"):
            link = folder / name
            if not link.exists():
                _link(shared / name, link)


def recipe_of_corpus(recipe: Recipe) -> Recipe:
    """The recipe of nothing but a tokenizer and its shards."""
    return Recipe(name="corpus", data=recipe.data, tokenizer=recipe.tokenizer)


def _link(target: Path, link: Path) -> None:
    try:
        os.symlink(os.path.relpath(target, link.parent), link)
    except OSError:  # where the system has no such links
        (shutil.copytree if target.is_dir() else shutil.copy)(target, link)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other one is better than in both coordinates (less is better), by the first one."""
    front: list[int] = []
    best = math.inf
    for index in sorted(range(len(points)), key=lambda i: points[i]):
        if points[index][1] < best:
            best = points[index][1]
            front.append(index)
    return front
