"""`laconic distill`: train the student of a run from text and from its teachers."""

import argparse

from ...coder.errors import LaconicError
from ..rank import is_first
from .common import add_run, resumed

TAKES_SETTINGS = True  # cli.py hands --section.key VALUE over as args.settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_run(parser)
    parser.add_argument("--minutes", type=float, help="of training (training.minutes)")
    parser.add_argument(
        "--cache",
        action="store_true",
        help="only have the teachers read the training text, for distillation.top_k; before torchrun",
    )


def run(args: argparse.Namespace) -> int:
    """Train the student."""
    from ..pipeline import distill
    from ..teachers import cached_predictions, find_teachers

    with resumed(args) as this:
        if args.cache:
            if cached_predictions(this, find_teachers(this)) is None:
                raise LaconicError("distillation.top_k is 0, so that nothing is cached: give it, such as 16")
            this.keep_recipe()
            return 0
        module = distill(this, this.recipe.training)
        if not is_first():
            return 0
        this.keep_recipe()
    print(f"student      {this.stage('student') / 'final.ckpt'}  ({module.tokens_seen:,} tokens seen)")
    print(f"next: laconic export -o {args.out}")
    return 0
