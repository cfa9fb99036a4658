"""`laconic compress`."""

import argparse
import os
import sys
from functools import cache
from typing import TYPE_CHECKING

from .. import registry
from ..codec import LEVELS
from ..errors import LaconicError
from ..files import SEGMENT_SIZE, SUFFIX, check_sizes, compress_stream, open_model
from ..mixing.experts import DEFAULT_LEVEL
from ..progress import Progress
from . import shared

if TYPE_CHECKING:
    from ..model import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_files(parser)
    parser.add_argument(
        "-m",
        "--model",
        action="append",
        metavar="CHECKPOINT",
        help=f"folder, name or id of a checkpoint, or none (default: {registry.DEFAULT}); "
        "repeated, those of one vocabulary predict together",
    )
    for level in LEVELS:
        text = {1: "the model alone, or LZMA", 2: f"to -9: more and more experts (default: -{DEFAULT_LEVEL})"}
        parser.add_argument(
            f"-{level}",
            dest="level",
            action="store_const",
            const=level,
            help=text.get(level, argparse.SUPPRESS),
        )
    parser.set_defaults(level=DEFAULT_LEVEL)
    shared.add_output(parser)
    shared.add_engine(parser)
    parser.add_argument(
        "--streams",
        type=shared.count,
        metavar="N",
        help="coded in lockstep in a segment, 1 to 4096 (by length)",
    )
    parser.add_argument(
        "--segment-size",
        type=shared.size,
        default=SEGMENT_SIZE,
        metavar="BYTES",
        help=f"of what is decoded at once, up to 256M (default: {SEGMENT_SIZE >> 20}M)",
    )


def run(args: argparse.Namespace) -> int:
    several = len(args.files) > 1
    if several and (args.stdout or args.output is not None):
        return shared.usage_error("a .lac file holds one file: give one, or leave out -o and -c")
    check_sizes(args.streams, args.segment_size)
    given: list[str] = args.model or [registry.DEFAULT]
    names = given if "none" in given else [registry.find(name).path for name in given]

    @cache
    def model() -> "Model | None":
        return open_model(names, args.engine, args.threads)

    def one(name: str) -> None:
        with shared.opened(name, compressed=False) as source:
            path = shared.output_path(name, args, lambda name: _with_suffix(name, args.force))
            with shared.output(name, path, args.force, binary=True) as target:
                total = os.fstat(source.fileno()).st_size if os.path.isfile(name) else None
                progress = Progress(shared.label(name), total, not args.quiet)
                try:
                    totals = compress_stream(
                        source,
                        target,
                        model(),
                        args.streams,
                        args.segment_size,
                        progress,
                        args.level,
                        args.threads,
                    )
                finally:
                    progress.clear()
        if not args.quiet:
            rate = f", {8 * totals.coded / totals.original:.3f} bits per byte" if totals.original else ""
            summary = f"{totals.original:,} -> {totals.coded:,} bytes{rate}"
            print(f"{shared.label(name)}: {summary}", file=sys.stderr)

    return shared.each(args.files, one)


def _with_suffix(name: str, force: bool) -> str:
    if name.endswith(SUFFIX) and not force:
        raise LaconicError(
            f"{name} ends in {SUFFIX} already: compress it again by -f, or name the output by -o"
        )
    return name + SUFFIX
