"""`laconic export`: freeze the student of a run, or its n-grams, into a checkpoint folder, and measure it."""

import argparse

from ...coder.errors import LaconicError
from .common import NGRAM, add_run, print_report, resume

TAKES_SETTINGS = True  # cli.py hands --section.key VALUE over as args.settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_run(parser)


def run(args: argparse.Namespace) -> int:
    """Freeze and report."""
    this = resume(args)
    if this.recipe.kind == NGRAM:
        from ..ngram import train_ngram

        report = train_ngram(this)
        this.keep_recipe()
        print_report(report, args.out)
        return 0
    path = this.stage("student") / "final.ckpt"
    if not path.is_file():
        raise LaconicError(f"{args.out} has no trained student: run `laconic pretrain -o {args.out}` first")
    from ..export import export
    from ..language import load_language_module

    print_report(export(this, load_language_module(path)), args.out)
    return 0
