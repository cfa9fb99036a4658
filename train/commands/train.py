"""`laconic train`: from corpus to frozen checkpoint in one command."""

import argparse

from .common import add_recipe, add_run, add_sources, print_report, recipe_from

TAKES_SETTINGS = True  # cli.py hands --section.key VALUE over as args.settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_sources(parser)
    add_run(parser)
    add_recipe(parser)


def run(args: argparse.Namespace) -> int:
    """Every stage in order; a run that was interrupted goes on."""
    recipe = recipe_from(args)
    from ..pipeline import run as run_pipeline

    print_report(run_pipeline(args.sources, args.out, recipe), args.out)
    return 0
