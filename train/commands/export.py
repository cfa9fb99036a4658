"""`laconic export`: freeze the student of a run into a checkpoint folder, reload it and measure it."""

import argparse

from ...coder.errors import LaconicError
from .common import add_run, print_report, resume

TAKES_SETTINGS = True  # cli.py hands --section.key VALUE over as args.settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_run(parser)


def run(args: argparse.Namespace) -> int:
    """Freeze and report."""
    this = resume(args)
    path = this.stage("student") / "final.ckpt"
    if not path.is_file():
        raise LaconicError(f"{args.out} has no trained student: run `laconic pretrain -o {args.out}` first")
    from ..export import export
    from ..language import load_language_module

    print_report(export(this, load_language_module(path)), args.out)
    return 0
