"""`laconic pretrain`: train the teacher or the student of a run from text."""

import argparse

from ..rank import is_first
from .common import add_run, resumed

TAKES_SETTINGS = True  # cli.py hands --section.key VALUE over as args.settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_run(parser)
    parser.add_argument(
        "--stage", choices=("student", "teacher"), default="student", help="which model (default: student)"
    )
    parser.add_argument("--minutes", type=float, help="of training (training.minutes)")


def run(args: argparse.Namespace) -> int:
    """Train one model on the run's shards."""
    from ..pipeline import pretrain

    with resumed(args) as this:
        module = pretrain(this, args.stage, this.recipe.training)
        if not is_first():
            return 0
        this.keep_recipe()
    print(f"{args.stage:<12} {this.stage(args.stage) / 'final.ckpt'}  ({module.tokens_seen:,} tokens seen)")
    after = "distill" if args.stage == "teacher" else "export"
    print(f"next: laconic {after} -o {args.out}")
    return 0
