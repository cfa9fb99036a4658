"""`laconic distill`: train the student of a run from text and from the run's teacher."""

import argparse

from .common import add_run, resume

TAKES_SETTINGS = True  # cli.py hands --section.key VALUE over as args.settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_run(parser)
    parser.add_argument("--minutes", type=float, help="of training (training.minutes)")


def run(args: argparse.Namespace) -> int:
    """Train the student."""
    this = resume(args)
    from ..pipeline import distill
    from ..processes import is_first

    module = distill(this, this.recipe.training)
    if not is_first():
        return 0
    this.keep_recipe()
    print(f"student      {this.stage('student') / 'final.ckpt'}  ({module.tokens_seen:,} tokens seen)")
    print(f"next: laconic export -o {args.out}")
    return 0
