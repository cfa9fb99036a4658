"""`laconic export`: freeze the student of a run, or its n-grams, into a checkpoint folder, and measure it."""

import argparse
from typing import Any

from ...coder.errors import LaconicError
from ...coder.registry import read_listing
from ..rank import require_alone
from ..run import Run
from .common import NGRAM, add_run, first_stage, print_report, resumed

TAKES_SETTINGS = True  # cli.py hands --section.key VALUE over as args.settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_run(parser)
    parser.epilog = (
        "How it is frozen can be given anew, as --training.weight_bits 6 or --training.table_bits 6. The "
        "checkpoint that stood in DIR gives way: copy its folder before, where files need it."
    )


def run(args: argparse.Namespace) -> int:
    """Freeze and report."""
    require_alone("export")
    with resumed(args) as this:
        before = read_listing(this.checkpoint)
        if this.recipe.kind == NGRAM:
            from ..ngram import train_ngram

            report = train_ngram(this)
            this.keep_recipe()
        else:
            report = _export(this)
    print_report(report, args.out)
    if before is not None and before.id.hex() != report["id"]:
        student = before.summary.get("student_sha256")  # n-grams and older ones do not name it
        same = student is not None and report["student_sha256"] == student
        again = "the settings of before give it again" if same else "this run may not give it again"
        print(f"in place of  {before.id.hex()[:16]}, which files that it coded need: {again}")
    return 0


def _export(run: Run) -> dict[str, Any]:
    path = run.stage("student") / "final.ckpt"
    if not path.is_file():
        before = f"laconic {first_stage(run.recipe)} -o {run.folder}"
        raise LaconicError(f"{run.folder} has no trained student: run `{before}` first")
    from ..export import export
    from ..language import load_language_module

    return export(run, load_language_module(path))
