"""`laconic compress`."""

import argparse
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from .. import registry
from ..against import check_against
from ..codec import LEVELS
from ..errors import LaconicError
from ..files import SEGMENT_SIZE, SUFFIX, check_sizes, compress_stream, open_model
from ..mixing.experts import DEFAULT_LEVEL
from ..progress import Progress
from ..reference import open_reference
from ..segment import ENTROPY
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
    parser.add_argument(
        *(f"-{level}" for level in LEVELS),
        action=_Level,
        dest="level",
        nargs=0,
        help=f"1, the model alone, or LZMA; from 2 on, more and more experts (default: -{DEFAULT_LEVEL})",
    )
    parser.add_argument(
        "--entropy",
        choices=ENTROPY,
        default=ENTROPY[0],
        help="range (default): what the levels are of. huffman, rans, tans: the checkpoint's tokens, or "
        "bytes with -m none, by a table that is sent; -1 with rans: the model's predictions. No other method "
        "is tried then; what is no smaller is stored as it is",
    )
    # Else -19 would be -1 and then -9.
    wrong = (f"-{number}" for number in range(100) if number not in LEVELS)
    parser.add_argument(*wrong, action=_Level, dest="level", nargs=0, help=argparse.SUPPRESS)
    shared.add_output(parser)
    shared.add_reference(parser)
    shared.add_engine(parser)
    parser.add_argument(
        "--streams",
        type=shared.count,
        metavar="N",
        help="coded in lockstep in a segment, 1 to 4096: faster and larger (default: 1; at level 1, by "
        "length up to 64)",
    )
    parser.add_argument(
        "--segment-size",
        type=shared.size,
        default=SEGMENT_SIZE,
        metavar="BYTES",
        help=f"of what is decoded at once, up to 256M (default: {SEGMENT_SIZE >> 20}M)",
    )


class _Level(argparse.Action):
    """A level by its number, whether there is such a level or not."""

    def format_usage(self) -> str:
        return f"-{LEVELS[0]} ... -{LEVELS[-1]}"

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        level = int(str(option_string)[1:])
        if level not in LEVELS:
            parser.error(
                f"there is no level {option_string}: choose from -{LEVELS[0]} (fast) to -{LEVELS[-1]} (small)"
            )
        namespace.level = level


def run(args: argparse.Namespace) -> int:
    several = len(args.files) > 1
    if several and (args.stdout or args.output is not None):
        return shared.usage_error("a .lac file holds one file: give one, or leave out -o and -c")
    check_sizes(args.streams, args.segment_size)
    reference = open_reference(args.reference)
    check_against(reference, args.level, args.streams, args.entropy)
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
                        args.entropy,
                        reference,
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
