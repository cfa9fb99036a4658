"""`laconic models`: the checkpoints that are here, verified, and which of them a name means."""

import argparse
from typing import Any, cast

from ..registry import ALIASES, SHIPPED, VARIABLE, Listing, available, fault, find

MEANINGS = {alias: f"{alias} means {' and '.join(names)}" for alias, names in ALIASES.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        f"They are looked for in the folders that {VARIABLE} lists, then in {SHIPPED}. Of several of one "
        f"name the first is meant. Where no folder is called so, {', and '.join(MEANINGS.values())}."
    )


def run(args: argparse.Namespace) -> int:
    listings = list(available())
    if not listings:
        print(f"no checkpoints in {SHIPPED}, nor in the folders that {VARIABLE} lists")
        return 0
    print(f"{'name':<20} {'id':<16} {'bytes':>12} {'bpb':>7}  {'state':<8} folder")
    names = {listing.name for listing in listings}
    notes = [MEANINGS[a] for a, meant in ALIASES.items() if a not in names and names.issuperset(meant)]
    for listing in listings:
        wrong, meant = fault(listing), _meant_by(listing.name, listings)
        if wrong is not None:
            notes.append(f"damaged: {wrong}")
        elif meant.path != listing.path:
            notes.append(
                f"hidden: {listing.name} means {meant.path}; take {listing.path} by this path or by its id"
            )
        state = "damaged" if wrong is not None else "sound" if meant.path == listing.path else "hidden"
        rate = _bits_per_byte(listing.summary)
        print(
            f"{listing.name:<20} {listing.id.hex()[:16]:<16} {_size(listing):>12,} {rate:>7}  "
            f"{state:<8} {listing.path}"
        )
    if notes:
        print("\n" + "\n".join(notes))
    return 0


def _meant_by(name: str, listings: list[Listing]) -> Listing:
    """What a name stands for; not searched for, and not verified again, where only one has it."""
    named = [listing for listing in listings if listing.name == name]
    return named[0] if len(named) == 1 else find(name)


def _size(listing: Listing) -> int:
    files = [path for path in listing.path.iterdir() if path.is_file() and path.suffix != ".md"]
    return sum(path.stat().st_size for path in files)


def _bits_per_byte(summary: dict[str, Any]) -> str:
    """Of the shipped bytes of the text that was kept out of training, where the summary has it."""
    value: Any = summary
    for key in ("validation", "coded", "bits_per_byte"):
        value = cast(dict[str, Any], value).get(key) if isinstance(value, dict) else None
    return f"{value:.3f}" if isinstance(value, float) else "-"
