"""`laconic compress`."""

import argparse
import os
import sys
from functools import cache
from typing import TYPE_CHECKING

from .. import registry
from ..errors import LaconicError
from ..files import SEGMENT_SIZE, SUFFIX, check_sizes, compress_stream
from ..progress import Progress
from . import shared

if TYPE_CHECKING:
    from ..codec import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_files(parser)
    parser.add_argument(
        "-m",
        "--model",
        default=registry.DEFAULT,
        metavar="CHECKPOINT",
        help="folder, name or id of a checkpoint, or none (default: %(default)s)",
    )
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
        help="of what is decoded at once, up to 256M (default: 1M)",
    )


def run(args: argparse.Namespace) -> int:
    several = len(args.files) > 1
    if several and (args.stdout or args.output is not None):
        return shared.usage_error("a .lac file holds one file: give one, or leave out -o and -c")
    check_sizes(args.streams, args.segment_size)
    listing = None if args.model == "none" else registry.find(args.model)

    @cache
    def model() -> "Model | None":
        return None if listing is None else registry.open_model(listing, args.engine, args.threads)

    def one(name: str) -> None:
        with shared.opened(name, compressed=False) as source:
            path = shared.output_path(name, args, lambda name: _with_suffix(name, args.force))
            with shared.output(name, path, args.force, binary=True) as target:
                total = os.fstat(source.fileno()).st_size if os.path.isfile(name) else None
                progress = Progress(shared.label(name), total, not args.quiet)
                try:
                    totals = compress_stream(
                        source, target, model(), args.streams, args.segment_size, progress
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
