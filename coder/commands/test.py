"""`laconic test`: decode, verify, write nothing."""

import argparse
import os
import sys

from ..files import decompress_stream
from ..progress import Progress
from . import shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_files(parser)
    shared.add_decoder(parser)


def run(args: argparse.Namespace) -> int:
    decode = shared.decoder(args)

    def one(name: str) -> None:
        with shared.opened(name, compressed=True) as source:
            total = os.fstat(source.fileno()).st_size if os.path.isfile(name) else None
            progress = Progress(shared.label(name), total, not args.quiet)
            try:
                totals = decompress_stream(source, None, decode, progress)
            finally:
                progress.clear()
        if not args.quiet:
            print(f"{shared.label(name)}: ok, {totals.original:,} bytes", file=sys.stderr)

    return shared.each(args.files, one)
