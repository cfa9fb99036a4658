"""`laconic info`: what a file says of itself, without decoding it."""

import argparse
import io
from typing import BinaryIO

from ..access import Layout, read_header, read_layout
from ..container import PREFIX, VERSION
from ..reference import describe as describe_reference
from ..registry import available
from ..segment import AT_LEVELS, BY_MODEL, BY_TABLE, ENTROPY, IN_STREAMS, METHOD_NAMES
from . import shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_files(parser)


def run(args: argparse.Namespace) -> int:
    def one(name: str) -> None:
        with shared.opened(name, compressed=True) as source:
            file = source if source.seekable() else io.BytesIO(source.read())
            print(f"{shared.label(name)}\n{describe(file, read_layout(file))}")

    return shared.each(args.files, one)


def describe(file: BinaryIO, layout: Layout) -> str:
    """The lines that `laconic info` prints for a file."""
    methods: dict[str, int] = dict.fromkeys(METHOD_NAMES, 0)
    tokens, against, streams, levels, coders = 0, 0, set[int](), set[int](), set[str]()
    for entry in layout.entries:
        header, _ = read_header(file, layout, entry)
        methods[METHOD_NAMES[header.method]] += 1
        against += header.learned is not None
        if header.method in AT_LEVELS:
            levels.add(header.profile >> 4)
        if header.method in BY_TABLE:
            coders.add(ENTROPY[header.profile])
        if header.method in BY_MODEL:
            tokens += header.tokens
        if header.method in IN_STREAMS:
            streams.add(header.streams)
    used = ", ".join(f"{count:,} {name}" for name, count in methods.items() if count)
    rows = [
        ("format version", str(VERSION)),
        ("checkpoint", _checkpoint(layout.prologue.checkpoint, needed=tokens > 0)),
        *_reference(layout.prologue.reference, against),
        ("segments", f"{len(layout.entries):,} ({used})"),
        ("original", f"{layout.original_length:,} bytes"),
        ("compressed", f"{layout.size:,} bytes"),
    ]
    if levels:
        rows.append(("level", ", ".join(str(level) for level in sorted(levels))))
    if coders:
        rows.append(("tables for", ", ".join(sorted(coders))))
    if tokens:
        rows.append(("tokens", f"{tokens:,}"))
    if streams:
        low, high = min(streams), max(streams)
        rows.append(("streams", f"{high}" if low == high else f"{low} to {high}"))
    if layout.original_length:
        rows.append(("ratio", f"{layout.original_length / layout.size:.3f}"))
        rows.append(("bits per byte", f"{8 * layout.size / layout.original_length:.3f}"))
    return "\n".join(f"  {name:<15} {value}" for name, value in rows)


def _checkpoint(prefix: bytes | None, needed: bool) -> str:
    """A file of many is begun before it is known whether a segment will need what it names."""
    if prefix is None:
        return "none"
    parts = [prefix[start : start + PREFIX] for start in range(0, len(prefix), PREFIX)]
    names = {listing.id[:PREFIX]: listing.name for listing in available()}
    named = ", ".join(f"{part.hex()} ({names.get(part, 'not here')})" for part in parts)
    return named if needed else f"{named}, not needed"


def _reference(name: bytes | None, against: int) -> list[tuple[str, str]]:
    """A row where the file names a reference, and how many segments need it."""
    if name is None:
        return []
    return [("reference", f"{describe_reference(name)}; segments that need it: {against:,}")]
