"""`laconic bench`: files through a checkpoint and the peers, in real bytes."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..coder.errors import LaconicError
from .measure import Sample, measure, read_samples
from .outputs import check_outputs, write_output
from .peers import PEERS, Codec, select_peers
from .plots import plot_bits_per_byte
from .programs import PROGRAMS
from .report import Report
from .subject import laconic_codec

PROGRAM_NAMES = ", ".join(program.name for program in PROGRAMS)


def compare(samples: Sequence[Sample], model: str, peers: str = "all") -> Report:
    """Measure the codec with `model`, then each peer, on the same samples.

    Args:
        model: name or folder of a frozen checkpoint, or "none".
        peers: as `select_peers` takes it.

    Raises:
        LaconicError: nothing to measure, an unknown peer, a checkpoint that cannot be read, a round trip that
            fails.
    """
    if not sum(len(sample.data) for sample in samples):
        raise LaconicError("there is not one byte to measure; give files that are not empty")
    others, left_out = select_peers(peers)
    ours, checkpoint = laconic_codec(model)
    codecs: list[Codec] = [ours, *others]
    return Report(samples, [measure(codec, samples) for codec in codecs], left_out, checkpoint)


def write_json(report: Report, out: Path) -> None:
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
        "--json", metavar="OUT", type=Path, help="write every figure there, replacing what is"
    )
    parser.add_argument(
        "--plot", metavar="OUT.png", type=Path, help="draw bits per byte by codec there, likewise"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write what was asked for."""
    check_outputs(args.json, args.plot, args.files)
    report = compare(read_samples(args.files), args.model, args.peers)
    print(report.text())
    if args.json:
        write_json(report, args.json)
        print(f"\nfigures      {args.json}")
    if args.plot:
        files = len(report.samples)
        title = report.samples[0].name if files == 1 else f"{files} files"
        plot_bits_per_byte({title: report.results}, report.results[0].codec, args.plot)
        print(f"{'' if args.json else chr(10)}picture      {args.plot}")
    return 0
