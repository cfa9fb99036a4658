"""`laconic models`: the checkpoints that are here."""

import argparse
from typing import Any, cast

from ..registry import SHIPPED, VARIABLE, Listing, available


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"They are looked for in {SHIPPED} and in the folders that {VARIABLE} lists."


def run(args: argparse.Namespace) -> int:
    rows = [_row(listing) for listing in available()]
    if not rows:
        print(f"no checkpoints in {SHIPPED}, nor in the folders that {VARIABLE} lists")
        return 0
    print(f"{'name':<20} {'id':<16} {'bytes':>12} {'bpb':>7}  folder")
    for name, identity, size, rate, folder in rows:
        print(f"{name:<20} {identity:<16} {size:>12,} {rate:>7}  {folder}")
    return 0


def _row(listing: Listing) -> tuple[str, str, int, str, str]:
    files = [path for path in listing.path.iterdir() if path.is_file() and path.suffix != ".md"]
    size = sum(path.stat().st_size for path in files)
    return listing.name, listing.id.hex()[:16], size, _bits_per_byte(listing.summary), str(listing.path)


def _bits_per_byte(summary: dict[str, Any]) -> str:
    """Of the shipped bytes of the text that was kept out of training, where the summary has it."""
    value: Any = summary
    for key in ("validation", "coded", "bits_per_byte"):
        value = cast(dict[str, Any], value).get(key) if isinstance(value, dict) else None
    return f"{value:.3f}" if isinstance(value, float) else "-"
