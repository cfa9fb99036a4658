"""`laconic pretrain`: train the teacher or the student of a run from text."""

import argparse

from ...coder.errors import LaconicError
from ..rank import is_first
from .common import add_run, first_stage, resumed

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
        if args.stage == "student" and this.recipe.distillation.taught:
            raise LaconicError(
                f"{args.out} has teachers, and this stage would train its student without them: "
                f"give `laconic {first_stage(this.recipe)} -o {args.out}`, or take them out by "
                "--distillation.teachers [] --distillation.teacher_share 0"
            )
        module = pretrain(this, args.stage, this.recipe.training)
        if not is_first():
            return 0
        this.keep_recipe()
    print(f"{args.stage:<12} {this.stage(args.stage) / 'final.ckpt'}  ({module.tokens_seen:,} tokens seen)")
    after = "distill" if args.stage == "teacher" else "export"
    print(f"next: laconic {after} -o {args.out}")
    return 0
