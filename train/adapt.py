"""Adapting a trained model to new text, pruned before or not: train, freeze, and say what that was worth."""

import hashlib
import itertools
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ..coder.errors import LaconicError
from ..data.corpus import Corpus
from ..data.datamodule import TokenDataModule
from ..data.replay import ReplayDataModule, found_in, held_out
from ..data.shards import build_shards, open_shard, read_manifest
from ..models.grow import grow
from ..models.prune import prune
from ..models.transformer import Transformer
from .export import calibration_batches, export
from .language import LanguageModule, load_language_module
from .pipeline import prepare
from .processes import device_type
from .publish import STREAM, corpus_of
from .rank import require_alone
from .recipe import Recipe, TrainingRecipe
from .run import Run, say, write_whole
from .soundness import check_new_text
from .start import Start, keep_start
from .trainer import fit, limited_threads, resolve_precision
from .worth import measure_worth

DOUBT = (
    "held-out text may be of a corpus that the start has learned from: figures are of text that it may know"
)
TRIED_STEPS = 3  # for the time that one takes, after a first one that is slower


def adapt(start: Start, sources: list[str], replay: list[str], out: Path, recipe: Recipe) -> dict[str, Any]:
    """From a trained model and new text to a frozen checkpoint; a run that was interrupted goes on.

    Args:
        replay: sources of old text; with none, the start's own shards where it has them.
        recipe: as `adaptation_recipe` makes it.

    Returns:
        The report of `export`, and what `measure_worth` found under "adaptation".

    Raises:
        LaconicError: text or start are unfit, or nothing was gained: no checkpoint is written then.
    """
    require_alone("train")
    if recipe.training.together:
        raise LaconicError(
            "training.devices and training.strategy are for training anew: --from adapts in one process, "
            "leave them as they are"
        )
    if recipe.data.streaming:
        raise LaconicError(
            "data.streaming is true, and --from adapts to text that is little: set it to false"
        )
    check_new_text(Corpus(sources, exclude=out, skip_unreadable=recipe.data.skip_unreadable), start)
    with Run.open(out, recipe) as run:
        return _adapted(run, start, sources, replay)


def _adapted(run: Run, start: Start, sources: list[str], replay: list[str]) -> dict[str, Any]:
    recipe = run.recipe
    keep_start(run, start)
    prepare(run, sources)
    if not open_shard(run.shards, "test").num_documents:
        raise LaconicError(
            f"no document fell to the test split, whose data.test_share is {recipe.data.test_share:g}, and "
            "the figures are of its text: give another folder, and more text or a larger share, at most 0.5"
        )
    if _may_know(run, start):
        say(DOUBT)
        write_whole(run.doubt_file, DOUBT + "\n")
    old = _old_shards(run, start, replay)
    data = _data(run, old)
    transformer = _shaped(run, start)
    training = _bounded(run, _module(run, transformer, recipe.training), data)
    module = _module(run, transformer, training)
    before = _float_bits_per_byte(module, data)
    trained = load_language_module(fit(module, data, run.stage("student"), "adapting"))
    after = _float_bits_per_byte(trained, data)
    if after >= before:
        raise LaconicError(
            f"nothing was gained: validation text takes {before:.4f} bits per byte before adapting and "
            f"{after:.4f} after; no checkpoint was written: go on with {start.name}, or give more text"
        )
    reshaped = " in its new shape," * (recipe.model != start.transformer.config)
    say(f"validation text:{reshaped} {before:.4f} bits per byte before learning, {after:.4f} after; freezing")
    report = export(run, trained)
    report["adaptation"] = measure_worth(run, report, old)
    write_whole(run.report_file, json.dumps(report, indent=1) + "\n")
    return report


def _shaped(run: Run, start: Start) -> Transformer:
    """The start in the recipe's shape: pruned where that has less, grown where it has more."""
    there, wanted = start.transformer.config, run.recipe.model
    if wanted == there:
        return start.transformer
    old, new = asdict(there), asdict(wanted)
    say(", ".join(f"{key} {old[key]} becomes {new[key]}" for key in old if old[key] != new[key]))
    pruned = prune(start.transformer, wanted, calibration_batches(run, start.transformer.begin_id))
    return grow(pruned, wanted.num_layers, wanted.window)


def _module(run: Run, transformer: Transformer, training: TrainingRecipe) -> LanguageModule:
    """The start in its new shape, ready to learn."""
    tokenizer = run.tokenizer()
    sha256 = hashlib.sha256(tokenizer.to_json().encode()).hexdigest()
    module = LanguageModule(run.recipe.model, tokenizer.byte_lengths.tolist(), training, sha256)
    module.transformer.load_state_dict(transformer.state_dict())
    module.anchor = run.recipe.adaptation.anchor
    return module


def _may_know(run: Run, start: Start) -> bool:
    """Whether the start may have learned held-out text: its shards hold some, or it learned from a namesake.

    A corpus of the same name and hash was split alike: the same was held out of it. Where all of the start's
    own text lies in its shards, they decide, and names only of what it learned from before.
    """
    own, learned = corpus_of(run.shards), start.checkpoint.summary.get("corpora", [])
    if start.old_shards is not None:
        if found_in(held_out(run.shards), open_shard(start.old_shards, "train")).any():
            return True
        if corpus_of(start.old_shards) in learned and not learned[0]["source"].endswith(STREAM):
            learned = [corpus for corpus in learned if corpus != corpus_of(start.old_shards)]
    names = _names(own)
    return any(names & _names(other) and other["sha256"] != own["sha256"] for other in learned)


def _names(corpus: Mapping[str, Any]) -> set[str]:
    return set(corpus["source"].removesuffix(STREAM).split(", "))


def _old_shards(run: Run, start: Start, replay: list[str]) -> Path | None:
    """Shards of old text: of what is named, or else of what the start learned from."""
    if not replay:
        run.claim_replay(start.old_shards)
        return start.old_shards
    corpus = Corpus(replay, exclude=run.folder, skip_unreadable=run.recipe.data.skip_unreadable)
    run.claim_replay(corpus)
    build_shards(
        corpus,
        run.tokenizer(),
        run.replay,
        validation_share=run.recipe.data.validation_share,
        test_share=run.recipe.data.test_share,
    )
    run.keep_skips(read_manifest(run.replay).get("skipped", {}))
    return run.replay


def _data(run: Run, old: Path | None) -> TokenDataModule:
    t, tokens = run.recipe.training, run.recipe.data.validation_tokens
    replayed = run.recipe.replayed
    if old is None or not replayed:
        return TokenDataModule(run.shards, t.seq_len, t.batch_size, t.seed, tokens)
    if replayed == t.batch_size:
        raise LaconicError(
            f"a batch of {t.batch_size} sequences has no room for new text beside a replay of "
            f"{run.recipe.adaptation.replay_share:g}: give a larger training.batch_size"
        )
    return ReplayDataModule(run.shards, old, replayed, t.seq_len, t.batch_size, t.seed, tokens)


def _bounded(run: Run, module: LanguageModule, data: TokenDataModule) -> TrainingRecipe:
    """The training recipe with its steps: as many as the passes over the new text, within the minutes.

    The number is kept in the run's folder, so that a run which goes on has the same schedule, whatever its
    minutes are now.
    """
    recipe, path = run.recipe, run.folder / "steps.json"
    t = recipe.training
    if t.max_steps is not None:
        return t
    if not path.is_file():
        new = t.batch_size - (data.old_sequences if isinstance(data, ReplayDataModule) else 0)
        sequences = max(1, open_shard(run.shards, "train").num_tokens // t.seq_len)
        wanted = math.ceil(recipe.adaptation.passes * sequences / (new * t.accumulate))
        assert t.minutes is not None
        affordable = int(60 * t.minutes / _seconds_a_step(module, data))
        write_whole(path, json.dumps(max(t.validations, min(wanted, affordable))) + "\n")
    return replace(t, max_steps=int(json.loads(path.read_text())))


def _seconds_a_step(module: LanguageModule, data: TokenDataModule) -> float:
    """What a step takes here, batches and optimiser, the first one apart; the module's weights change."""
    recipe = module.training_recipe
    device = device_type(recipe.accelerator)
    low = resolve_precision(recipe) == "bf16-mixed"
    seconds: list[float] = []
    with limited_threads(recipe.threads):
        optimizer = module.to(device).train().configure_optimizers()
        batches = iter(data.train_dataloader())
        for _ in range(1 + TRIED_STEPS):
            began = time.monotonic()
            for inputs, targets in itertools.islice(batches, recipe.accumulate):
                with torch.autocast(device, torch.bfloat16, enabled=low):
                    nats = module.code_length(inputs.to(device), targets.to(device))
                nats.backward()
            optimizer.step()
            optimizer.zero_grad()
            next(module.parameters()).sum().item()  # a GPU has ended by then
            seconds.append(time.monotonic() - began)
    return sum(seconds[1:]) / TRIED_STEPS


@torch.no_grad()
def _float_bits_per_byte(module: LanguageModule, data: TokenDataModule) -> float:
    """Code length of the validation shard, in sequences, without the rounding of the integer graph."""
    module.eval().transformer.simulate_integers(False)
    nats, num_bytes = 0.0, 0
    for inputs, targets in data.val_dataloader():
        nats += float(module.code_length(inputs, targets)) * targets.numel()
        num_bytes += int(module.byte_lengths[targets].sum())
    return nats / math.log(2) / num_bytes
