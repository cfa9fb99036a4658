"""`laconic consolidate`: end a stage that was cut off, with what its last checkpoint holds."""

import argparse

from ..rank import require_alone
from .common import add_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_run(parser)
    parser.add_argument(
        "--stage", choices=("student", "teacher"), default="student", help="which model (default: student)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the stage's final.ckpt."""
    from ..consolidate import end_stage
    from ..run import Run

    require_alone("consolidate")
    with Run.open(args.out, None) as this:
        path, steps = end_stage(this, args.stage)
    print(f"{args.stage:<12} {path}  ({steps:,} steps)")
    print(f"next: laconic {'distill' if args.stage == 'teacher' else 'export'} -o {args.out}")
    return 0
