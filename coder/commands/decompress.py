"""`laconic decompress`."""

import argparse
import os
import shutil
import sys
import tempfile
from typing import BinaryIO

from ..access import read_layout, recover
from ..errors import LaconicError
from ..files import decompress_stream
from ..progress import Progress
from ..registry import Decoder
from . import shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_files(parser)
    shared.add_output(parser)
    shared.add_decoder(parser)
    parser.add_argument(
        "--recover",
        action="store_true",
        help="of a damaged file, write what is sound and report what is lost or asks for more than --memory "
        "(exit status 1)",
    )


def run(args: argparse.Namespace) -> int:
    if len(args.files) > 1 and args.output is not None:
        return shared.usage_error(
            "-o names one output for several files: leave it out, or use -c to join them"
        )
    decode = shared.decoder(args)

    def one(name: str) -> int:
        with shared.opened(name, compressed=True) as source:
            path = shared.output_path(name, args, shared.without_suffix)
            with shared.output(name, path, args.force, binary=False) as target:
                if args.recover:
                    return _recover(source, target, decode, shared.label(name))
                total = os.fstat(source.fileno()).st_size if os.path.isfile(name) else None
                progress = Progress(shared.label(name), total, not args.quiet)
                try:
                    decompress_stream(source, target, decode, progress)
                finally:
                    progress.clear()
        return 0

    return shared.each(args.files, one)


def _recover(source: BinaryIO, target: BinaryIO, decode: Decoder, label: str) -> int:
    """Write the sound pieces one after another, and say what is missing between them."""
    status = 0
    with tempfile.TemporaryFile() as copy:
        if not source.seekable():
            shutil.copyfileobj(source, copy)
        file = source if source.seekable() else copy
        for piece in recover(file, decode):
            if piece.data is not None:
                target.write(piece.data)
                continue
            status = 1
            if piece.end is None:
                lost = "nothing sound says how long the original was: "
                lost += f"whatever followed the first {piece.begin:,} bytes is lost"
            else:
                place = f"{piece.end - piece.begin:,} bytes, from {piece.begin:,} up to {piece.end:,}"
                lost = f"passed over are {place}: {piece.refused}" if piece.refused else f"lost are {place}"
            print(f"{label}: {lost}", file=sys.stderr)
        if not status:
            try:
                read_layout(file)
            except LaconicError as error:
                print(f"{label}: what is restored is sound; but {error}", file=sys.stderr)
                status = 1
    return status
