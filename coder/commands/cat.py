"""`laconic cat`: the original bytes, all or a range, to standard output."""

import argparse
import tempfile
from shutil import copyfileobj

from ..access import read_range
from ..container import MAX_POSITION
from . import shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a .lac file; - means standard input")
    parser.add_argument(
        "--range",
        type=byte_range,
        default=(0, MAX_POSITION),
        metavar="A:B",
        help="bytes A up to but not including B, either of which may be left out; as far as the file goes",
    )
    shared.add_decoder(parser)


def byte_range(text: str) -> tuple[int, int]:
    """An argument A:B."""
    first, colon, last = text.partition(":")
    if not colon or not all(part == "" or part.isdecimal() for part in (first, last)):
        raise argparse.ArgumentTypeError(f"{text!r} is not A:B, two whole numbers, either left out or not")
    begin, end = int(first or 0), int(last or MAX_POSITION)
    if end < begin:
        raise argparse.ArgumentTypeError(f"{text!r} ends before it begins: give the smaller number first")
    return begin, end


def run(args: argparse.Namespace) -> int:
    decode = shared.decoder(args)
    begin, end = args.range

    def one(name: str) -> None:
        with shared.opened(name, compressed=True) as source, tempfile.TemporaryFile() as copy:
            if not source.seekable():
                copyfileobj(source, copy)
            stream = shared.standard_output()
            for data in read_range(source if source.seekable() else copy, begin, end, decode):
                stream.write(data)
            stream.flush()

    return shared.each([args.file], one)
