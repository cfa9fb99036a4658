"""`laconic sweep`: many recipes on one corpus, one table, and the front of what is worth its work."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from .coder.errors import LaconicError

BUDGETS = ("training.max_steps", "training.minutes")
TAKES_SETTINGS = True  # cli.py hands --section.key VALUE over as args.settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    from .train.commands.common import add_recipe, add_run, add_sources

    add_sources(parser)
    add_run(parser)
    add_recipe(parser)
    parser.add_argument(
        "--over",
        action="append",
        default=[],
        metavar="KEY=VALUES",
        help="what varies: A,B,C, or LOW..HIGH to draw from, or for KEY a section, mappings of its settings "
        "such as {},{weight: 0.5} (repeat it for more keys)",
    )
    parser.add_argument(
        "--trials",
        type=Path,
        metavar="YAML",
        help="in place of --over, a file that lists the settings of each trial, such as those of "
        "configs/sweeps; trials added at its end are run by the same command",
    )
    parser.add_argument(
        "--draws", type=int, metavar="N", help="so many random trials (default: every combination)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.epilog = (
        "Every trial is a run of its own, DIR/000 and so on, and --minutes bounds each; tokenizer, shards "
        "and what distillation.teachers say of them are made once, outside of the minutes. The same command "
        "goes on where it was interrupted. "
        "DIR/results.csv has a row a trial, DIR/front.png shows bits per byte against work. Any other "
        "setting of the recipe can be given as --section.key VALUE."
    )


def run(args: argparse.Namespace) -> int:
    """Every trial in order, then the table; 1 where a trial failed."""
    from .train.commands.common import FEW_BYTES, MORE_BYTES, overrides_from, recipe_name
    from .train.lock import locked
    from .train.rank import require_alone
    from .train.trials import Sweep, pareto_front, plan_trials, read_axis, read_trials

    require_alone("sweep")
    if args.draws is not None and args.draws < 1:
        raise LaconicError(f"--draws {args.draws}: it must be at least 1")
    settings = overrides_from(args)
    if args.trials is None:
        trials = plan_trials([read_axis(text) for text in args.over], args.draws, args.seed)
    elif args.over or args.draws is not None or args.seed:
        raise LaconicError("--trials lists what runs: leave --over, --draws and --seed out")
    else:
        trials = read_trials(args.trials)
    base = {"recipe": recipe_name(args), "config": args.config, "settings": settings}
    rows: list[dict[str, Any]] = []
    with locked(args.out):
        for row in Sweep(args.out, args.sources, base, trials).run():
            rows.append(row)
            print(f"{row['trial'] + 1} of {len(trials)}: {_describe(row, trials)}", flush=True)
    done = [row for row in rows if row["status"] == "done"]
    points = [(row["macs_per_byte"], row["bits_per_byte"]) for row in done]
    front = pareto_front(points)
    print("\nbest at their work, the least work first:")
    for index in front:
        print(f"  {_describe(done[index], trials)}")
    if done and (few := min(row["validation_bytes"] for row in done)) < FEW_BYTES:
        print(f"of {few:,} bytes of validation text, which say little: {MORE_BYTES}")
    print(f"all trials: {args.out / 'results.csv'}")
    if done:
        _draw(args.out / "front.png", points, _labels(done, trials), front)
    return 1 if len(done) < len(rows) else 0


def _settings(row: dict[str, Any], trials: list[dict[str, Any]]) -> str:
    return " ".join(f"{key}={row[key]}" for key in trials[row["trial"]]) or "the recipe as it is"


def _labels(rows: list[dict[str, Any]], trials: list[dict[str, Any]]) -> dict[int, str]:
    """What each trial is, by its number from 1: settings without their sections, and without how long it
    learned, where that tells all of them apart; else as they are."""
    keys = {key for trial in trials for key in trial} - set(BUDGETS)
    names = {key: key.split(".")[-1] for key in keys}
    labels = {
        row["trial"] + 1: ", ".join(f"{names[key]} {row[key]}" for key in trials[row["trial"]] if key in keys)
        or "the recipe as it is"
        for row in rows
    }
    if len(set(names.values())) < len(names) or len(set(labels.values())) < len(labels):
        return {row["trial"] + 1: _settings(row, trials) for row in rows}
    return labels


def _describe(row: dict[str, Any], trials: list[dict[str, Any]]) -> str:
    if row["status"] != "done":
        return f"{_settings(row, trials)}: failed, {row['fault']}"
    return (
        f"{row['bits_per_byte']:.4f} bits per byte, {row['macs_per_byte'] / 1e6:.3f} M multiply-accumulates "
        f"a byte, {row['checkpoint_bytes']:,} bytes: {_settings(row, trials)}"
    )


def _draw(out: Path, points: list[tuple[float, float]], labels: dict[int, str], front: list[int]) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        print("front.png was not drawn: pictures need matplotlib, pip install 'laconic[bench]'")
        return
    from .bench.plots import plot_front

    plot_front(points, labels, front, out)
    print(f"picture:    {out}")
