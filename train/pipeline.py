"""The stages of a run in order, each resumable: tokenizer, shards, teacher, student, freezing."""

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ..coder.errors import LaconicError
from ..data.corpus import Corpus
from ..data.datamodule import TokenDataModule
from ..data.shards import build_shards
from ..models.config import ModelConfig
from .distill import DistillationModule
from .export import export
from .language import LanguageModule, load_language_module
from .recipe import Recipe, TrainingRecipe
from .run import Run
from .tokenizer import fit_tokenizer
from .trainer import fit

RESERVE_SECONDS = 45.0  # of the minutes, for freezing and the report
Say = Callable[[str], None]


def say(message: str) -> None:
    """Progress for people, on stderr."""
    print(message, file=sys.stderr, flush=True)


def prepare(run: Run, sources: list[str]) -> None:
    """Train the tokenizer where there is none, and build the token shards where they are not there."""
    recipe = run.recipe
    corpus = Corpus(sources)
    if not run.tokenizer_file.is_file():
        fit_tokenizer(run, corpus)
    build_shards(
        corpus,
        run.tokenizer(),
        run.shards,
        validation_share=recipe.data.validation_share,
        test_share=recipe.data.test_share,
    )


def _module(run: Run, shape: ModelConfig, training: TrainingRecipe) -> LanguageModule:
    tokenizer = run.tokenizer()
    sha256 = hashlib.sha256(tokenizer.to_json().encode()).hexdigest()
    pl.seed_everything(training.seed, verbose=False)  # the same first weights whatever ran before
    return LanguageModule(shape, tokenizer.byte_lengths.tolist(), training, sha256)


def _data(run: Run) -> TokenDataModule:
    t = run.recipe.training
    return TokenDataModule(
        run.shards, t.seq_len, t.batch_size, seed=t.seed, validation_tokens=run.recipe.data.validation_tokens
    )


def pretrain(run: Run, stage: str, training: TrainingRecipe) -> LanguageModule:
    """Train stage `teacher` or `student` from text alone."""
    shape = run.recipe.teacher if stage == "teacher" else run.recipe.model
    path = fit(_module(run, shape, training), _data(run), run.stage(stage), stage)
    return load_language_module(str(path))


def distill(run: Run, training: TrainingRecipe) -> LanguageModule:
    """Train the student from text and from the run's teacher."""
    teacher = run.stage("teacher") / "final.ckpt"
    if not teacher.is_file():
        raise LaconicError(
            f"{run.folder} has no teacher yet: run `laconic pretrain --stage teacher -o {run.folder}`"
        )
    student = _module(run, run.recipe.model, training)
    module = DistillationModule(student, load_language_module(str(teacher)), run.recipe.distillation)
    path = fit(module, _data(run), run.stage("student"), "student")
    return load_language_module(str(path))


def _part(training: TrainingRecipe, share: float, minutes: float | None) -> TrainingRecipe:
    steps = training.max_steps
    return replace(
        training, minutes=minutes, max_steps=None if steps is None else max(1, round(steps * share))
    )


def run(sources: list[str], out: Path, recipe: Recipe) -> dict[str, Any]:
    """From corpus to frozen checkpoint; `recipe.training.minutes` bounds the whole of it.

    A run that was interrupted goes on where it stopped.

    Returns:
        The report of `export`.
    """
    began = time.monotonic()
    this = Run.open(out, recipe)
    prepare(this, sources)
    training, share = recipe.training, recipe.distillation.teacher_share
    minutes = training.minutes
    if minutes is not None:
        spent = time.monotonic() - began
        minutes -= (spent + min(RESERVE_SECONDS, 6 * minutes)) / 60
        if minutes <= 0:
            raise LaconicError(
                f"preparing the corpus took {spent / 60:.1f} of {training.minutes:g} minutes and left none "
                "to train: give more minutes; what is prepared is kept"
            )
    if share:
        part = None if minutes is None else minutes * share
        pretrain(this, "teacher", _part(training, share, part))
        rest = None if minutes is None else minutes * (1 - share)
        student = distill(this, _part(training, 1 - share, rest))
    else:
        student = pretrain(this, "student", _part(training, 1.0, minutes))
    say("freezing")
    return export(this, student)
