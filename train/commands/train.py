"""`laconic train`: from corpus to frozen checkpoint in one command, anew or from a model that is there."""

import argparse

from ...coder.errors import LaconicError
from .common import NGRAM, add_recipe, add_run, add_sources, overrides_from, print_report, recipe_from

TAKES_SETTINGS = True  # cli.py hands --section.key VALUE over as args.settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_sources(parser)
    add_run(parser)
    add_recipe(parser)
    parser.add_argument(
        "--from",
        dest="start",
        metavar="START",
        help="adapt a checkpoint (name, folder or id) or the student of a run, by configs/adapt.yaml; the "
        "tokenizer and the shape are its own, unless more --model.num_layers or --model.window let it grow, "
        "or fewer layers, --model.num_heads or --model.ffn_dim prune it; --minutes is then for its training "
        "steps, which are reckoned by the first few: validation, freezing and measuring come on top",
    )
    parser.add_argument(
        "--replay",
        action="append",
        default=[],
        metavar="PATH",
        help="with --from: old text that it shall not forget (repeat it for more; default: the run's own)",
    )


def run(args: argparse.Namespace) -> int:
    """Every stage in order; a run that was interrupted goes on."""
    if args.start is not None:
        return _adapt(args)
    if args.replay:
        raise LaconicError("--replay is old text for a model that is adapted: name the model by --from")
    recipe = recipe_from(args)
    from ..pipeline import run as run_pipeline

    print_report(run_pipeline(args.sources, args.out, recipe), args.out)
    return 0


def _adapt(args: argparse.Namespace) -> int:
    if args.model == NGRAM:
        raise LaconicError("--model ngram: n-grams are counted, not adapted; leave --from or --model out")
    if args.tier is not None:
        raise LaconicError(f"--tier {args.tier}: the shape is that of {args.start}; leave --tier out")
    from ..adapt import adapt
    from ..start import adaptation_recipe, find_start
    from ..worth import worth_lines

    start = find_start(args.start)
    recipe = adaptation_recipe(start, args.config, overrides_from(args))
    report = adapt(start, args.sources, args.replay, args.out, recipe)
    print_report(report, args.out)
    worth, size = report["adaptation"], report["checkpoint_bytes"]
    print("\n".join(worth_lines(worth, size, start.model, args.out / "checkpoint")))
    return 0
