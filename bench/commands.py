"""`laconic bench`: files through a checkpoint and the peers, in real bytes; or the speed of its parts."""

import argparse
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from ..coder.commands.shared import Once, count
from ..coder.engine import ENGINES
from ..coder.errors import LaconicError
from ..coder.mixing.experts import DEFAULT_LEVEL
from .entropy import Entropy, measure_entropy
from .measure import Sample, measure, read_samples
from .outputs import check_outputs, write_output
from .peers import PEERS, select_peers
from .plots import plot_bits_per_byte, plot_every_file, plot_growth
from .programs import PROGRAMS
from .report import Report
from .scaling import Growth, measure_growth, read_sizes
from .speed import measure_speed
from .speed_report import Speed
from .subject import laconic_codec, load_checkpoints, select_levels
from .tokenizing import Tokenizing, measure_tokenizing

Measurement = Speed | Entropy | Growth | Tokenizing
PROGRAM_NAMES = ", ".join(program.name for program in PROGRAMS)


def compare(
    samples: Sequence[Sample], model: str, peers: str = "all", levels: Sequence[int] = (DEFAULT_LEVEL,)
) -> Report:
    """Measure the codec with `model` at each level, then each peer, on the same samples.

    Args:
        model: name or folder of a frozen checkpoint, or "none".
        peers: as `select_peers` takes it.
        levels: one result each.

    Raises:
        LaconicError: nothing to measure, an unknown peer, a checkpoint that cannot be read, a round trip that
            fails.
    """
    if not sum(len(sample.data) for sample in samples):
        raise LaconicError("there is not one byte to measure; give files that are not empty")
    others, left_out = select_peers(peers)
    checkpoints = load_checkpoints(model)
    plain = list(levels) == [DEFAULT_LEVEL]
    ours = (laconic_codec(model, level, "laconic" if plain else f"laconic -{level}") for level in levels)
    return Report(samples, [measure(codec, samples) for codec in chain(ours, others)], left_out, checkpoints)


def write_json(report: Report | Measurement, out: Path) -> None:
    """The whole report as JSON.

    Raises:
        OSError: it cannot be written.
    """
    write_output(out, json.dumps(report.as_json(), indent=1).encode() + b"\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `laconic bench`."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="what to compress")
    parser.add_argument(
        "-m",
        "--model",
        action=Once,
        default="default",
        metavar="CHECKPOINT",
        help="a name, a folder, or none (default: %(default)s)",
    )
    parser.add_argument(
        "--peers",
        default="all",
        metavar="LIST",
        help=f"all, none, or some of {','.join(PEERS)} (default: all); {PROGRAM_NAMES} are programs on PATH, "
        "whose speeds include their start",
    )
    parser.add_argument(
        "--levels",
        metavar="LIST",
        help="all, or some of 1 (fast) to 9 (small), a row each "
        f"(default: {DEFAULT_LEVEL}; with --speed: all)",
    )
    parser.add_argument(
        "--speed",
        action="store_true",
        help="measure how fast the whole codec is on all cores, and engine and coders alone beside the "
        "machine's peaks, on a sample of the files put end to end; speeds of peers are in the comparison",
    )
    parser.add_argument(
        "--entropy",
        action="store_true",
        help="measure the entropy coders on the bytes and the checkpoint's tokens of the files put end to "
        "end: bits above the bound, and MB/s",
    )
    parser.add_argument(
        "--scaling",
        metavar="SIZES",
        help="measure how CPU time and memory of every stage grow, from the tokenizer to a restored file: on "
        "texts of so many megabytes, such as 1,10,100, cut from the files",
    )
    parser.add_argument(
        "--tokenizing",
        action="store_true",
        help="measure how fast the files become token shards, beside the tokenizers library alone",
    )
    parser.add_argument(
        "--engine", metavar="E", help=f"with --speed: {', '.join(ENGINES)} (default: {ENGINES[0]})"
    )
    parser.add_argument(
        "--streams",
        type=count,
        metavar="N",
        help="with --speed: coded in lockstep in a segment, 1 to 4096 (default: what each level chooses)",
    )
    parser.add_argument(
        "--json", metavar="OUT", type=Path, help="write every figure there, replacing what is"
    )
    parser.add_argument(
        "--plot",
        metavar="OUT.png",
        type=Path,
        help="draw bits per byte by codec, and each of several files, likewise",
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write what was asked for."""
    check_outputs(args.json, args.plot, args.files)
    if args.tokenizing:
        return _run_tokenizing(args)
    if args.entropy:
        return _run_entropy(args)
    if args.scaling:
        return _run_scaling(args)
    levels = select_levels(args.levels or ("all" if args.speed else str(DEFAULT_LEVEL)))
    if args.speed:
        return _run_speed(args, levels)
    if args.engine is not None or args.streams is not None:
        raise LaconicError("--engine and --streams are for measuring parts: add --speed, or leave them out")
    report = compare(read_samples(args.files), args.model, args.peers, levels)
    print(report.text())
    if args.json:
        write_json(report, args.json)
        print(f"\nfigures      {args.json}")
    if args.plot:
        if len(report.samples) == 1:
            plot_bits_per_byte({report.samples[0].name: report.results}, args.plot)
        else:
            plot_every_file(report.results, args.plot)
        print(f"{'' if args.json else chr(10)}picture      {args.plot}")
    return 0


def _run_speed(args: argparse.Namespace, levels: Sequence[int]) -> int:
    """Raises LaconicError for options that only the comparison has."""
    if args.plot or args.peers != "all":
        raise LaconicError("--speed measures laconic's own parts: leave out --plot and --peers")
    data = b"".join(sample.data for sample in read_samples(args.files))
    return _show(measure_speed(data, args.model, levels, args.engine, args.streams), args)


def _run_entropy(args: argparse.Namespace) -> int:
    """Raises LaconicError for options that the other measurements have."""
    others = args.speed or args.scaling or args.plot or args.peers != "all"
    if others or args.levels or args.engine or args.streams:
        raise LaconicError("--entropy measures coders alone: leave out all but FILE, -m and --json")
    data = b"".join(sample.data for sample in read_samples(args.files))
    return _show(measure_entropy(data, args.model), args)


def _run_scaling(args: argparse.Namespace) -> int:
    """Raises LaconicError for options that the other measurements have."""
    levels = select_levels(args.levels or str(DEFAULT_LEVEL))
    if args.speed or args.peers != "all" or len(levels) > 1 or args.engine or args.streams:
        raise LaconicError("--scaling measures stages: leave out all but FILE, -m, one level, --json, --plot")
    growth = measure_growth(args.files, read_sizes(args.scaling), args.model, levels[0])
    _show(growth, args)
    if args.plot:
        plot_growth(growth, args.plot)
        print(f"picture      {args.plot}")
    return 0


def _run_tokenizing(args: argparse.Namespace) -> int:
    """Raises LaconicError for options that the other measurements have."""
    others = args.speed or args.entropy or args.scaling or args.plot or args.peers != "all"
    if others or args.levels or args.engine or args.streams:
        raise LaconicError("--tokenizing measures tokenizers alone: leave out all but FILE, -m and --json")
    return _show(measure_tokenizing(args.files, args.model), args)


def _show(report: Measurement, args: argparse.Namespace) -> int:
    print(report.as_text())
    if args.json:
        write_json(report, args.json)
        print(f"\nfigures      {args.json}")
    return 0
