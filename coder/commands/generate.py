"""`laconic generate`: what a checkpoint continues a prompt with, to standard output."""

import argparse
import os
import sys

from .. import registry
from ..errors import LaconicError
from . import shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m",
        "--model",
        action=shared.Once,
        default=registry.DEFAULT,
        metavar="CHECKPOINT",
        help=f"folder, name or id of a checkpoint (default: {registry.DEFAULT})",
    )
    parser.add_argument(
        "--prompt",
        action=shared.Once,
        default="",
        metavar="TEXT",
        help="what is continued; - means standard input (default: nothing)",
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--tokens", type=shared.count, metavar="N", help="how many beyond the prompt's (default: 128)"
    )
    amount.add_argument("--bytes", type=shared.count, metavar="N", help="how many, in place of tokens")
    parser.add_argument(
        "--temperature",
        metavar="T",
        help="divides log probabilities: below 1 likelier text, above 1 more surprising (default: 1)",
    )
    parser.add_argument(
        "--top-k", type=shared.count, metavar="K", help="draw from the K most likely tokens only"
    )
    parser.add_argument(
        "--top-p",
        metavar="P",
        help="draw from the fewest most likely tokens that have this probability, up to 1",
    )
    parser.add_argument(
        "--seed", type=seed, metavar="S", help="of the random numbers: other numbers, other text (default: 0)"
    )
    parser.add_argument("--greedy", action="store_true", help="take the most likely token each time")
    parser.add_argument(
        "--beam", type=shared.count, metavar="N", help="search for the least code length, keeping N at a time"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="with --beam: every one that was kept, its bits and its bytes in quotes",
    )
    parser.add_argument(
        "--engine", metavar="E", help="numba, torch, cuda or numpy: the text is the same (default: numba)"
    )


def seed(text: str) -> int:
    """An argument that is a whole number."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**64 - 1}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    from ..generate import one_model, pieces, read_request

    try:
        request = read_request(
            args.tokens,
            args.bytes,
            args.temperature,
            args.top_k,
            args.top_p,
            args.seed,
            args.greedy,
            args.beam,
        )
    except LaconicError as error:
        return shared.usage_error(str(error))
    if args.all and args.beam is None:
        return shared.usage_error("--all shows what a beam kept: give --beam, or leave --all out")
    model = one_model(args.model, args.engine)
    prompt = os.fsencode(args.prompt)
    if args.prompt == shared.STANDARD:
        with shared.opened(shared.STANDARD, compressed=False) as source:
            prompt = source.read()
    with shared.output(shared.STANDARD, shared.STANDARD, force=False, binary=False) as stream:
        if args.all:
            from ..beam import search

            for one in search(prompt, model, request, args.beam):
                stream.write(f"{one.code_length / 1024:.3f} bits  {one.text!r}\n".encode())
            return 0
        for piece in pieces(prompt, model, request):
            stream.write(piece)
            stream.flush()  # as it comes, and no more once nobody reads it
        if sys.stdout.isatty():
            stream.write(b"\n")
    return 0
