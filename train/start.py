"""What adapting begins with: a frozen checkpoint, or the student of a run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..coder.checkpoint import FrozenCheckpoint
from ..coder.errors import LaconicError
from ..coder.graph import FrozenConfig
from ..coder.registry import find
from ..models.thaw import bits_of, thaw
from ..models.transformer import Transformer
from .configuration import CONFIGS, build_recipe, read_config, read_yaml
from .language import load_language_module, sha256_of
from .recipe import DistillationRecipe, Recipe
from .run import Run

GROWING = ("model.num_layers", "model.window")  # what may become more than the start has
PRUNABLE = ("model.num_layers", "model.num_heads", "model.ffn_dim")  # and what less


@dataclass
class Start:
    """A trained model.

    Attributes:
        name: as the user gave it.
        checkpoint: its integers, its tokenizer and where they lie.
        transformer: the same in floats.
        old_shards: folder of shards of the text that it learned from, where it is known.
    """

    name: str
    checkpoint: FrozenCheckpoint
    transformer: Transformer
    old_shards: Path | None

    @property
    def model(self) -> str:
        """What -m takes for it."""
        return self.name if self.old_shards is None else str(self.checkpoint.path)


def find_start(name: str) -> Start:
    """The student of the run in a folder, or else the checkpoint of that name, folder or id.

    Raises:
        LaconicError: there is none, it is damaged, or the run has not come to its end.
    """
    folder = Path(name)
    if not (folder / "recipe.yaml").is_file():
        checkpoint = FrozenCheckpoint.load(find(name).path)
        if not isinstance(checkpoint.config, FrozenConfig):
            raise _no_transformer(name)
        return Start(name, checkpoint, thaw(checkpoint.config, checkpoint.tensors), None)
    run = Run(folder, build_recipe(read_yaml(folder / "recipe.yaml")))
    if run.recipe.kind == "ngram":
        raise _no_transformer(name)
    trained = folder / "student" / "final.ckpt"
    if not trained.is_file() or not run.checkpoint.is_dir():
        raise LaconicError(
            f"the run in {folder} has not come to its end, there is no student to begin with: finish it by "
            "the command that began it, or name a checkpoint"
        )
    checkpoint, module = FrozenCheckpoint.load(run.checkpoint), load_language_module(trained)
    shape, student = module.transformer.config, sha256_of(module.transformer)
    if (
        checkpoint.config != shape.frozen(module.transformer.vocab_size)
        or checkpoint.summary.get("student_sha256", student) != student  # an older one does not name it
    ):
        raise LaconicError(
            f"{run.checkpoint} is not of the student beside it: freeze it again by laconic export -o {folder}"
        )
    module.transformer.simulate_integers(False)
    shards = run.shards if (run.shards / "manifest.json").is_file() else None
    return Start(name, checkpoint, module.transformer, shards)


def _no_transformer(name: str) -> LaconicError:
    return LaconicError(
        f"{name} is an n-gram model, which is counted, not trained: name a transformer, or count new text by "
        "laconic train --model ngram"
    )


def adaptation_recipe(start: Start, config: str | None, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe of configs/adapt.yaml with the start's shape and vocabulary, changed by file and overrides.

    More layers or a longer window than the start has are what it grows to (see `models.grow`), fewer layers,
    heads or channels what it is pruned to (see `models.prune`); both may be asked for.

    Raises:
        LaconicError: it has faults, or contradicts the start.
    """
    tokenizer = start.checkpoint.tokenizer
    fixed: dict[str, Any] = {f"model.{key}": value for key, value in asdict(start.transformer.config).items()}
    fixed |= {"tokenizer.kind": tokenizer.kind, "tokenizer.vocab_size": tokenizer.vocab_size}
    fixed |= {"kind": "transformer", "tokenizer.source": None}
    fixed |= {f"distillation.{key}": value for key, value in asdict(DistillationRecipe()).items()}
    wanted = {**read_config(config), **overrides}
    changed = [key for key in fixed if wanted.get(key, fixed[key]) != fixed[key]]
    if taught := [key for key in changed if key.startswith("distillation.")]:
        raise LaconicError(
            f"--from has no teachers: leave out {', '.join(taught)}, or train anew without --from, by "
            f"tokenizer.source {start.name}"
        )
    blocks, tables = bits_of(start.checkpoint.tensors)
    bits = {"training.weight_bits": blocks, "training.table_bits": tables}
    recipe = build_recipe(read_yaml(CONFIGS / "adapt.yaml"), fixed, bits, wanted)
    odd = [f"{key} {wanted[key]}" for key in changed if not _may_become(key, wanted[key], fixed)]
    if odd:
        there = ", ".join(f"{fixed[text.split()[0]]}" for text in odd)
        raise LaconicError(
            f"the recipe asks for {', '.join(odd)}, {start.name} has {there}: what is adapted keeps its "
            "tokenizer and its shape, but for more layers or a longer window, or fewer layers, heads or "
            "channels; leave that out, or train anew without --from"
        )
    return recipe


def _may_become(key: str, wanted: Any, there: Mapping[str, Any]) -> bool:
    """Whether more can grow, or less be left by pruning; relative positions have a bias for each distance."""
    if key == "model.window" and there["model.positions"] == "relative":
        return False
    if key == "tokenizer.vocab_size":  # asked for, and more than the text gave
        return wanted > there[key]
    return (key in GROWING and wanted > there[key]) or (key in PRUNABLE and wanted < there[key])


def keep_start(run: Run, start: Start) -> None:
    """Copy the start's checkpoint and tokenizer into the run, so that it needs nothing else to go on.

    Raises:
        LaconicError: the run began with another.
    """
    if run.start.is_dir():
        kept = FrozenCheckpoint.load(run.start).id
        if kept != start.checkpoint.id:
            raise LaconicError(
                f"{run.folder} began with checkpoint {kept.hex()[:16]}, {start.name} is "
                f"{start.checkpoint.id.hex()[:16]}: choose another folder, or remove it"
            )
    elif run.tokenizer_file.is_file():
        raise LaconicError(f"{run.folder} holds a run that began without --from: choose another folder")
    else:
        start.checkpoint.save(run.start)
    if not run.tokenizer_file.is_file():
        start.checkpoint.tokenizer.save(run.tokenizer_file)
