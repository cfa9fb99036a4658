"""`laconic tokenizer`: the first stages of a run, tokenizer and token shards."""

import argparse

from ..rank import require_alone
from .common import add_recipe, add_run, add_sources, first_stage, recipe_from

TAKES_SETTINGS = True  # cli.py hands --section.key VALUE over as args.settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_sources(parser)
    add_run(parser)
    add_recipe(parser)


def run(args: argparse.Namespace) -> int:
    """Train the tokenizer and build the shards."""
    recipe = recipe_from(args)
    from ..pipeline import prepare
    from ..run import Run

    require_alone("tokenizer")
    with Run.open(args.out, recipe) as this:
        prepare(this, args.sources)
        tokenizer = this.tokenizer()
    print(f"tokenizer    {this.tokenizer_file}  ({tokenizer.kind}, {tokenizer.vocab_size:,} tokens)")
    print(f"next: laconic {first_stage(recipe)} -o {args.out}")
    return 0
