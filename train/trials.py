"""Trials: which recipes a sweep runs, and what each of them came to."""

import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..coder.errors import LaconicError
from .configuration import flatten, load_recipe, read_mappings, read_overrides, read_yaml
from .logs import as_csv
from .pipeline import prepare
from .pipeline import run as run_pipeline
from .processes import Interrupted
from .recipe import Recipe
from .run import Run, write_whole, writing
from .teachers import cached_predictions, named_teachers

Settings = dict[str, Any]
VALUE = re.compile(r"(?:^|,)((?:\{[^}]*\}|\[[^\]]*\]|[^,])*)")  # between commas, those in brackets apart
WIDEST, MOST_TRIALS = 1e300, 1000  # of a range, that its draws do not overflow; of a sweep
FAULTS = (LaconicError, RuntimeError, MemoryError, OSError)  # what ends a trial, and not the sweep
FIGURES = (
    "bits_per_byte",  # shipped bytes of validation text
    "float_bits_per_byte",
    "integer_bits_per_byte",
    "macs_per_byte",
    "checkpoint_bytes",
    "validation_bytes",
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

    What has no number at both ends of `..` is a listed value, such as a path.

    Raises:
        LaconicError: it is neither, or a value is empty or named twice.
    """
    key, found, values = text.partition("=")
    if not (key and found and values):
        raise LaconicError(f"{text!r} is no axis: write KEY=A,B,C or KEY=LOW..HIGH")

    def read(parts: list[str]) -> tuple[Any, ...]:
        return tuple(read_overrides([f"--{key}={part}"])[key] for part in parts)

    ends = read(values.split(".."))
    if len(ends) == 2 and all(type(end) in (int, float) for end in ends):
        if not 0 < ends[1] - ends[0] < WIDEST:
            raise LaconicError(
                f"{text!r}: {values} is no range, write LOW..HIGH, finite, the lower number first"
            )
        return Axis(key, ends, between=True)
    parts = VALUE.findall(values)
    if not all(part.strip() for part in parts):
        raise LaconicError(f"{text!r} holds an empty value: write '' for empty text, or drop the comma")
    listed = read(parts)
    if len(set(map(repr, listed))) < len(listed):
        raise LaconicError(f"{text!r} names a value twice: name each once")
    return Axis(key, listed)


def plan_trials(axes: Sequence[Axis], draws: int | None, seed: int) -> list[Settings]:
    """Every combination of the axes' values, or `draws` random ones, none of them twice.

    Raises:
        LaconicError: there is nothing to vary, axes overlap, a range has no draws, there are fewer
            combinations, or too many trials.
    """
    if not axes:
        raise LaconicError(
            "nothing varies: name what does, such as --over model.d_model=96,128, or list trials in a file "
            "for --trials"
        )
    keys = [axis.key for axis in axes]
    if len(set(keys)) < len(keys):
        raise LaconicError(f"--over names a key twice ({', '.join(keys)}): give all of its values at once")
    for section, key in itertools.permutations(keys, 2):
        if key.startswith(f"{section}."):
            raise LaconicError(f"{key} is within {section}, which varies too: give it in the mappings there")
    if draws is None:
        if ranges := [axis.key for axis in axes if axis.between]:
            raise LaconicError(f"{', '.join(ranges)} is a range: say how many trials to draw by --draws N")
        _check_number(math.prod(len(axis.values) for axis in axes))
        combinations = itertools.product(*(a.values for a in axes))
        return [flatten(dict(zip(keys, chosen, strict=True))) for chosen in combinations]
    _check_number(draws)
    random = np.random.default_rng(seed)
    trials: list[Settings] = []
    for _ in range(100 * draws):
        trial = flatten({axis.key: axis.draw(random) for axis in axes})
        if trial not in trials:
            trials.append(trial)
        if len(trials) == draws:
            return trials
    raise LaconicError(f"{draws} draws of {len(trials)} combinations: ask for fewer, or leave --draws out")


def read_trials(path: Path) -> list[Settings]:
    """The trials that a file lists in YAML: the settings of each, such as `model: {num_layers: 4}`.

    Raises:
        LaconicError: it is missing, no such list, too long, or names a trial twice.
    """
    trials = [flatten(settings) for settings in read_mappings(path)]
    _check_number(len(trials))
    for number, trial in enumerate(trials):
        if trial in trials[:number]:
            raise LaconicError(
                f"{path}: trials {trials.index(trial)} and {number} are the same: name each once"
            )
    return trials


def _check_number(trials: int) -> None:
    if trials > MOST_TRIALS:
        raise LaconicError(
            f"{trials:,} trials are more than {MOST_TRIALS:,}: name fewer values, or draw some by --draws N"
        )


class Sweep:
    """Trials below one folder, each a run of its own; those that share tokenizer and splits share shards."""

    def __init__(self, folder: Path, sources: list[str], base: Settings, trials: list[Settings]) -> None:
        """
        Args:
            base: {"recipe", "config", "settings"}, what all trials have.

        Raises:
            LaconicError: the folder holds another sweep, of which this one is no continuation, or is part of
                a source, or a recipe has faults, or is not the one that a trial was begun with, for the file
                of `config` has changed since.
        """
        self.folder, self.sources, self.base, self.trials = folder, sources, base, trials
        for source in sources:
            if Path(source).is_dir() and folder.resolve().is_relative_to(Path(source).resolve()):
                raise LaconicError(f"{folder} is inside {source}, which is read: give a folder outside of it")
        self.runs = [Run(folder / f"{i:03d}", recipe) for i, recipe in enumerate(self._recipes())]
        plan = json.dumps({"sources": sources, "base": base, "trials": trials}, indent=1) + "\n"
        path = folder / "sweep.json"
        if path.is_file() and not _continues(json.loads(plan), path.read_text()):
            raise LaconicError(
                f"{folder} holds another sweep: choose another folder, remove it, or add trials after those "
                f"of {path}"
            )
        for run in self.runs:
            run.check_recipe(free=("threads",))
        write_whole(path, plan)

    def _recipes(self) -> list[Recipe]:
        """Of every trial. Raises LaconicError, and names the trial unless all of them have that fault."""
        recipes: list[Recipe] = []
        faults: dict[str, str] = {}
        for trial in self.trials:
            settings = {**self.base["settings"], **trial}
            try:
                recipes.append(load_recipe(self.base["recipe"], self.base["config"], settings))
            except LaconicError as error:
                name = ", ".join(f"{key}={value}" for key, value in trial.items()) or "the recipe as it is"
                faults[name] = str(error)
        if not faults:
            return recipes
        if len(faults) == len(self.trials) and len(set(faults.values())) == 1:
            raise LaconicError(next(iter(faults.values())))
        name, fault = next(iter(faults.items()))
        more = f" (other trials with faults: {len(faults) - 1})" if len(faults) > 1 else ""
        raise LaconicError(f"trial {name}: {fault}{more}")

    def run(self) -> Iterator[dict[str, Any]]:
        """Run what is not done yet; yields the row of each trial, and keeps results.csv up to date.

        A trial that failed is tried anew by the next call.
        """
        table = self.folder / "results.csv"
        done = [number for number, run in enumerate(self.runs) if run.report_file.is_file()]
        rows = {n: self._row(n, _figures(self.runs[n])) for n in done}
        for number, run in enumerate(self.runs):
            if number not in rows:
                rows[number] = self._row(number, self._outcome(run))
            with writing(self.folder):
                write_whole(table, as_csv([rows[n] for n in sorted(rows)]))
            yield rows[number]

    def _row(self, number: int, outcome: dict[str, Any]) -> dict[str, Any]:
        """Of a trial, all that varies, as it was there: what it leaves alone has the recipe's value."""
        run = self.runs[number]
        kept = read_yaml(run.recipe_file) if run.recipe_file.is_file() else {}
        recipe = {**flatten(asdict(run.recipe)), **kept}
        varies = dict.fromkeys(key for trial in self.trials for key in trial)
        return {"trial": number, **{key: recipe[key] for key in varies}, **outcome}

    def _outcome(self, run: Run) -> dict[str, Any]:
        """The figures of a trial, which is run, or why it has none."""
        try:
            self._share_shards(run)
            run_pipeline(self.sources, run.folder, run.recipe)
        except (Interrupted, BrokenPipeError):
            raise
        except FAULTS as error:
            return {"status": "failed", "fault": " ".join(str(error).split()) or type(error).__name__}
        return _figures(run)

    def _share_shards(self, run: Run) -> None:
        """Build tokenizer and shards once for all trials of one way to make them, and link them.

        Predictions of teachers that are there already are made here too, within the shards.
        """
        recipe = recipe_of_corpus(run.recipe)
        known = [recipe_of_corpus(other.recipe) for other in self.runs]
        shared = self.folder / "corpora" / f"{known.index(recipe):03d}"
        with Run.open(shared, recipe) as corpus:
            prepare(corpus, self.sources)
            if run.recipe.distillation.teachers and not run.recipe.distillation.teacher_share:
                corpus.recipe = run.recipe
                cached_predictions(corpus, named_teachers(corpus))
        run.folder.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "shards"):
            link = run.folder / name
            if not link.exists():
                _link(shared / name, link)


def _continues(plan: Settings, text: str) -> bool:
    """Whether a plan is the one that was kept as JSON, or that and more trials after its own."""
    try:
        kept = json.loads(text)
        before = kept.pop("trials")
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    others = {key: value for key, value in plan.items() if key != "trials"}
    return kept == others and plan["trials"][: len(before)] == before


def _figures(run: Run) -> dict[str, Any]:
    """What a trial that is done came to, by its report."""
    report = json.loads(run.report_file.read_text())
    validation = report["validation"]
    figures = {name: report[name] for name in FIGURES if name in report}
    figures |= {name: validation[name] for name in FIGURES if name in validation}
    coded = validation["coded"]
    figures |= {"bits_per_byte": coded["bits_per_byte"], "validation_bytes": coded["bytes"]}
    return {"status": "done", **figures}


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
