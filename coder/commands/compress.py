"""`laconic compress`."""

import argparse
import os
import sys
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, BinaryIO

from .. import registry
from ..against import check_against
from ..codec import LEVELS
from ..encoder import Encoder, Encodes, check_segment_size, check_streams
from ..errors import LaconicError
from ..files import SUFFIX, open_model
from ..manifest import Manifest
from ..mixing.experts import DEFAULT_LEVEL
from ..pipeline import SEGMENT_SIZE, Job, compress_files
from ..progress import Progress
from ..reference import open_reference
from ..segment import ENTROPY
from . import shared


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
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread the segments over the workers of a Ray cluster: HOST:PORT of its head, auto, or local "
        "for this machine; -T is the number of workers (default: one for each free core that has work)",
    )
    parser.add_argument("--manifest", metavar="FILE", help="write an account of the files there, in JSON")


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
    check_streams(args.streams)
    check_segment_size(args.segment_size)
    reference = open_reference(args.reference)
    check_against(reference, args.level, args.streams, args.entropy)
    given: list[str] = args.model or [registry.DEFAULT]
    models = given if "none" in given else [listing.path for listing in registry.find_all(given)]
    names: list[str] = args.files or [shared.STANDARD]
    sizes = [_size(name) for name in names]
    known = None if None in sizes else [size or 0 for size in sizes]
    status = 0
    _check_outputs(names, args)
    with ExitStack() as stack:

        def encoder() -> Encodes:
            model = open_model(models, args.engine, args.threads)
            here = Encoder(model, args.streams, args.level, args.entropy, reference, args.threads)
            if args.ray is None:
                return here
            from ...cluster import Cluster

            segments = None if known is None else sum(-(-size // args.segment_size) for size in known)
            return stack.enter_context(Cluster(args.ray, here, args.engine, segments))

        manifest = None
        if args.manifest is not None:
            manifest = stack.enter_context(Manifest(args.manifest, args.force, names))
        what = shared.label(names[0]) if len(names) == 1 else f"{len(names)} files"
        progress = Progress(what, None if known is None else sum(known), not args.quiet)
        stack.callback(progress.clear)
        jobs = (Job(name, _opened(name, args)) for name in names)
        with closing(compress_files(jobs, encoder, args.segment_size, progress)) as over:
            for job in over:
                progress.clear()
                status = max(status, _conclude(job, args, manifest))
    return status


def _conclude(job: Job, args: argparse.Namespace, manifest: Manifest | None) -> int:
    """Say what became of a file; its exit status."""
    if isinstance(job.error, BrokenPipeError):
        raise job.error
    if job.error is not None:
        shared.complain(job.name, job.error)
        if manifest is not None:
            manifest.add_failure(job.name, shared.explain(job.error))
        return 1
    if not args.quiet:
        original, coded = job.totals
        rate = f", {8 * coded / original:.3f} bits per byte" if original else ""
        print(f"{shared.label(job.name)}: {original:,} -> {coded:,} bytes{rate}", file=sys.stderr)
    if manifest is not None:
        manifest.add(job, _path(job.name, args))
    return 0


@contextmanager
def _opened(name: str, args: argparse.Namespace) -> Generator[tuple[BinaryIO, BinaryIO], None, None]:
    with (
        shared.opened(name, compressed=False) as source,
        shared.output(name, _path(name, args), args.force, binary=True) as target,
    ):
        yield source, target


def _size(name: str) -> int | None:
    """Bytes of an input, 0 where there is none; None where nobody knows before it has been read."""
    if os.path.isfile(name):
        return os.path.getsize(name)
    return None if name == shared.STANDARD or (os.path.exists(name) and not os.path.isdir(name)) else 0


def _check_outputs(names: list[str], args: argparse.Namespace) -> None:
    """Raises LaconicError where an output is the reference, or the account is another file."""
    outputs = [name + SUFFIX for name in names] if args.output is None else [args.output]
    reference: list[str] = [] if args.reference is None else [args.reference]

    def is_one_of(path: str, others: list[str]) -> bool:
        return os.path.realpath(path) in map(os.path.realpath, others)

    if not args.stdout and any(is_one_of(path, outputs) for path in reference):
        raise LaconicError(
            f"{args.reference} is both the reference, which decoding needs, and the output: "
            "name another by -o"
        )
    if args.manifest is not None and is_one_of(args.manifest, [*names, *outputs, *reference]):
        raise LaconicError(
            f"--manifest {args.manifest} is an input, an output or the reference: name another file"
        )


def _path(name: str, args: argparse.Namespace) -> str:
    return shared.output_path(name, args, lambda name: _with_suffix(name, args.force))


def _with_suffix(name: str, force: bool) -> str:
    if name.endswith(SUFFIX) and not force:
        raise LaconicError(
            f"{name} ends in {SUFFIX} already: compress it again by -f, or name the output by -o"
        )
    return name + SUFFIX
