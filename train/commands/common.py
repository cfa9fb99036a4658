"""Arguments that the training commands share."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...coder.errors import LaconicError
from ..configuration import DOMAINS, build_recipe, load_recipe, read_overrides, read_yaml, recipe_names
from ..recipe import Recipe
from ..run import Run, changed_settings

SKIPS_SHOWN = 5
FEW_BYTES = 50_000  # of validation text
MORE_BYTES = "a larger --data.validation_share keeps more of the corpus for that"
NGRAM = "ngram"  # a kind of model, and its recipe
OF_STAGES = ("training", "distillation", "ngram")  # sections that a stage run alone may change


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Where text comes from."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="PATH",
        help="files, folders, globs, or datasets:... (text, JSON lines, CSV, Parquet, a hub name)",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """The run folder."""
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="DIR", help="folder of the run")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Which recipe, and what to change in it."""
    names = [name for name in recipe_names() if name not in ("quickstart", "adapt", NGRAM)]
    parser.add_argument(
        "--model",
        choices=("transformer", NGRAM),
        default="transformer",
        help="kind of model; an n-gram model has a recipe of its own, and no tier (default: transformer)",
    )
    parser.add_argument("--tier", choices=names, help="size of the model (default: nano)")
    parser.add_argument(
        "--config",
        metavar="YAML",
        help=f"settings on top of the tier's recipe: a file, or one of {', '.join(recipe_names(DOMAINS))}",
    )
    parser.add_argument("--minutes", type=float, help="bound of the whole command (training.minutes)")
    parser.add_argument("-T", "--threads", type=int, help="processor cores (training.threads)")
    parser.epilog = (
        "Any setting of the recipe can be given as --section.key VALUE, such as --training.seed 1."
    )


def overrides_from(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments change in a recipe."""
    overrides: dict[str, Any] = read_overrides(args.settings)
    if args.minutes is not None:
        overrides |= {"training.minutes": args.minutes, "training.max_steps": None}
    if args.threads is not None:
        overrides["training.threads"] = args.threads
    return overrides


def recipe_from(args: argparse.Namespace) -> Recipe:
    """The recipe that the arguments describe.

    Raises:
        LaconicError: a tier of n-grams, or what `load_recipe` refuses.
    """
    if args.model == NGRAM and args.tier is not None:
        raise LaconicError(f"--tier {args.tier}: n-grams have none, but ngram.max_bytes; leave it out")
    return load_recipe(recipe_name(args), args.config, overrides_from(args))


def recipe_name(args: argparse.Namespace) -> str:
    """Which of the recipes that ship the arguments begin with."""
    return NGRAM if args.model == NGRAM else args.tier or "nano"


@contextmanager
def resumed(args: argparse.Namespace) -> Iterator[Run]:
    """The run in args.out, with settings of this call; the caller keeps them when its stage is done.

    The stage is args.stage, or else the student.

    Raises:
        LaconicError: there is none, or a setting is none of a stage's own, and differs from the run's; what
            cannot be read may be left out from now on.
    """
    overrides: dict[str, Any] = read_overrides(args.settings)
    if getattr(args, "minutes", None) is not None:
        overrides |= {"training.minutes": args.minutes, "training.max_steps": None}
    with Run.open(args.out, None) as run:
        kept, run.recipe = run.recipe, build_recipe(read_yaml(run.recipe_file), overrides)
        before, now = ({k: v for k, v in asdict(r).items() if k not in OF_STAGES} for r in (kept, run.recipe))
        if changed := changed_settings(before, now, free=("skip_unreadable",)):
            raise LaconicError(
                f"{run.folder} was begun with other settings ({', '.join(changed)}): leave them as they are, "
                "or begin another run; a stage alone changes those of training, distillation and ngram"
            )
        run.keep_budget(getattr(args, "stage", "student"))
        yield run


def first_stage(recipe: Recipe) -> str:
    """The command after `laconic tokenizer`."""
    if recipe.kind == NGRAM:
        return "export"
    if recipe.distillation.teacher_share:
        return "pretrain --stage teacher"
    return "distill" if recipe.distillation.teachers else "pretrain"


def print_report(report: dict[str, Any], run_folder: Path) -> None:
    """What a run made, for people."""
    v = report["validation"]
    coded = v["coded"]
    print(
        f"checkpoint   {run_folder / 'checkpoint'}  "
        f"({report['checkpoint_bytes']:,} bytes, id {report['id'][:16]})"
    )
    if report["macs_per_byte"]:
        print(f"work         {report['macs_per_byte'] / 1e6:.3f} M multiply-accumulates a byte")
    else:
        print(f"n-grams      {report['parameters']:,}, in {60 * report['training_minutes']:.0f} seconds")
    if "zeros" in report:
        print(f"zeros        {report['zeros']:.1%} of the weights of its blocks")
    print("validation text, of the same corpus and not learned from:")
    if "float_bits_per_byte" in v:
        print(f"  float      {v['float_bits_per_byte']:.4f} bits per byte")
    print(f"  integers   {v['integer_bits_per_byte']:.4f} bits per byte, sequences from their beginning")
    if v["integer_bits_per_byte"] > 8 or v.get("float_bits_per_byte", 0.0) > 8:
        print(
            "  that is worse than bytes as they are: training diverged (smaller training.learning_rate and "
            "training.matrix_learning_rate), had too few steps, or such text cannot be foreseen"
        )
    print(
        f"  shipped    {coded['bits_per_byte']:.4f} bits per byte: {coded['bytes']:,} -> "
        f"{coded['coded_bytes']:,} bytes, restored and compared"
    )
    if coded["bytes"] < FEW_BYTES:
        print(f"  so few bytes say little: {MORE_BYTES}")
    if skips := report.get("skipped"):
        names = ", ".join(sorted(skips)[:SKIPS_SHOWN]) + (", ..." if len(skips) > SKIPS_SHOWN else "")
        print(f"left out     {len(skips)} that could not be read: {names}; why: report.json")
    print(f"next: laconic compress FILE -m {run_folder / 'checkpoint'}")
