"""The stages of a run in order, each resumable: tokenizer, shards, teacher, student, freezing.

An n-gram model has one stage after the shards (train/ngram.py).
"""

import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from ..coder.errors import LaconicError
from ..data.corpus import Corpus
from ..data.datamodule import TokenDataModule
from ..data.predictions import Predictions
from ..data.shards import build_shards, read_manifest
from ..data.streaming import StreamingDataModule
from ..data.windows import Stream
from ..models.config import ModelConfig
from ..models.transformer import Transformer
from .consolidate import is_done
from .distill import DistillationModule
from .export import export
from .language import LanguageModule, load_language_module, sha256_of
from .ngram import train_ngram
from .processes import check_room, launch, must_launch
from .rank import is_first, require_alone
from .recipe import DistillationRecipe, Recipe, TrainingRecipe
from .run import Run, say, writing
from .teachers import cached_predictions, find_teachers, named_teachers
from .tokenizer import fit_tokenizer
from .trainer import fit

RESERVE_MINUTES = 1.0  # for the last validation, freezing and the report


def prepare(run: Run, sources: list[str]) -> None:
    """Train the tokenizer where there is none, and build the token shards where they are not there.

    Where training reads the corpus as a stream, both are of a sample.
    """
    recipe = run.recipe
    corpus = Corpus(sources, exclude=run.folder, skip_unreadable=recipe.data.skip_unreadable)
    run.claim(corpus)
    if recipe.data.streaming:
        corpus = corpus.sample(max(recipe.tokenizer.sample_bytes, recipe.data.held_bytes))
    taken = None
    if not run.tokenizer_file.is_file():
        if (taken := recipe.tokenizer.source) is None:
            fit_tokenizer(run, corpus)
        else:
            run.take_tokenizer(taken)
    try:
        named_teachers(run)  # or refuses them before anything is tokenised
    except LaconicError:
        if taken is not None:
            run.tokenizer_file.unlink()  # what was made of nothing yet does not bind the folder
        raise
    with writing(run.shards):
        build_shards(
            corpus,
            run.tokenizer(),
            run.shards,
            validation_share=recipe.data.validation_share,
            test_share=recipe.data.test_share,
            train_share=recipe.data.train_share,
        )
    run.keep_skips({**read_manifest(run.shards).get("skipped", {}), **corpus.skips})


def _module(run: Run, shape: ModelConfig, training: TrainingRecipe) -> LanguageModule:
    tokenizer = run.tokenizer()
    sha256 = hashlib.sha256(tokenizer.to_json().encode()).hexdigest()
    pl.seed_everything(training.seed, verbose=False)  # the same first weights whatever ran before
    return LanguageModule(shape, tokenizer.byte_lengths.tolist(), training, sha256)


def _check_kind(run: Run) -> None:
    if run.recipe.kind == "ngram":
        raise LaconicError(
            f"{run.folder} holds a run of an n-gram model, which is counted, not trained: "
            f"run `laconic export -o {run.folder}`"
        )


def _data(run: Run, predictions: Predictions | None) -> TokenDataModule:
    t, d = run.recipe.training, run.recipe.data
    if not d.streaming:
        return TokenDataModule(run.shards, t.seq_len, t.batch_size, t.seed, d.validation_tokens, predictions)
    corpus = Corpus(run.sources(), exclude=run.folder, skip_unreadable=d.skip_unreadable)
    run.claim(corpus)
    if is_first():
        run.keep_skips(corpus.skips)
        corpus.skips.keep = run.keep_skips  # at once, for this process may be killed
    tokenizer, shares = run.tokenizer(), (d.validation_share, d.test_share)
    stream = Stream(corpus, tokenizer, *shares, d.shuffle_bytes, t.seq_len, t.seed)
    return StreamingDataModule(run.shards, stream, t.batch_size, d.validation_tokens)


def _fit(
    run: Run, module: LanguageModule, stage: str, predictions: Predictions | None = None
) -> LanguageModule:
    return load_language_module(fit(module, _data(run, predictions), run.stage(stage), stage))


def _launch_where_it_is_due(run: Run, stage: str, training: TrainingRecipe, distilled: bool) -> None:
    """Leaves final.ckpt, which `fit` then finds."""
    if must_launch(training) and not is_done(run.stage(stage)):
        launch(run, stage, training, distilled)


def pretrain(run: Run, stage: str, training: TrainingRecipe) -> LanguageModule:
    """Train stage `teacher` or `student` from text alone: here, or in several processes."""
    _check_kind(run)
    if run.start.is_dir():
        raise LaconicError(f"{run.folder} adapts a checkpoint: go on by the laconic train that began it")
    _launch_where_it_is_due(run, stage, training, distilled=False)
    shape = run.recipe.teacher if stage == "teacher" else run.recipe.model
    return _fit(run, _module(run, shape, training), stage)


def _check_taught(recipe: DistillationRecipe) -> None:
    if not recipe.taught and (recipe.top_k or recipe.hidden_weight or recipe.attention_weight):
        raise LaconicError(
            "the distillation section asks for a teacher, and there is none: give distillation.teachers, or "
            "distillation.teacher_share"
        )


def _predictions(run: Run, teachers: list[Transformer]) -> Predictions | None:
    """What the student is yet to learn from, where it is cached."""
    return None if is_done(run.stage("student")) else cached_predictions(run, teachers)


def distill(run: Run, training: TrainingRecipe) -> LanguageModule:
    """Train the student from text and from its teachers: here, or in several processes."""
    _check_kind(run)
    teachers = find_teachers(run)
    predictions = _predictions(run, teachers)
    _launch_where_it_is_due(run, "student", training, distilled=True)
    student = _module(run, run.recipe.model, training)
    module = DistillationModule(
        student, [] if run.recipe.distillation.top_k else teachers, run.recipe.distillation
    )
    module.hparams["teachers"] = [sha256_of(teacher) for teacher in teachers]  # fit goes on with no others
    return _fit(run, module, "student", predictions)


def _steps(training: TrainingRecipe, share: float) -> int | None:
    return None if training.max_steps is None else max(1, round(training.max_steps * share))


class _Clock:
    """What is left of the minutes of a call, when the end of a run has had its part."""

    def __init__(self, training: TrainingRecipe) -> None:
        self.began = time.monotonic()
        self.total = None if training.max_steps is not None else training.minutes

    def left(self, share: float = 1.0) -> float | None:
        """Minutes for a stage that may take `share` of the whole; None where steps are counted.

        Raises:
            LaconicError: none are left.
        """
        if self.total is None:
            return None
        spent = (time.monotonic() - self.began) / 60
        left = self.total - spent - min(RESERVE_MINUTES, 0.1 * self.total)
        if left <= 0:
            raise LaconicError(
                f"{spent:.1f} of {self.total:g} minutes are spent and none are left to train: "
                "give more minutes; what is done is kept"
            )
        return min(left, share * self.total)


def run(sources: list[str], out: Path, recipe: Recipe) -> dict[str, Any]:
    """From corpus to frozen checkpoint; `recipe.training.minutes` bounds the whole of a transformer's run.

    A run that was interrupted goes on where it stopped.

    Returns:
        The report of `export`.
    """
    require_alone("train")
    check_room(recipe.training)
    _check_taught(recipe.distillation)
    with Run.open(out, recipe) as this:
        clock = _Clock(this.recipe.training)
        prepare(this, sources)
        if recipe.kind == "ngram":
            say("counting n-grams")
            return train_ngram(this)
        student = _student(this, clock)
        say("freezing")
        return export(this, student)


def _student(run: Run, clock: _Clock) -> LanguageModule:
    """The student of a run that is prepared, taught or not."""
    training, distillation = run.recipe.training, run.recipe.distillation
    share = distillation.teacher_share
    if share:
        of_teacher = replace(training, minutes=clock.left(share), max_steps=_steps(training, share))
        pretrain(run, "teacher", of_teacher)
    if distillation.taught and distillation.top_k:
        _predictions(run, find_teachers(run))
    rest = replace(training, minutes=clock.left(1 - share), max_steps=_steps(training, 1 - share))
    return distill(run, rest) if distillation.taught else pretrain(run, "student", rest)
