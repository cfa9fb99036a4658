"""What an adapted checkpoint is worth beside its start and the experts alone, and when it pays."""

import math
from pathlib import Path
from typing import Any

from ..coder.checkpoint import FrozenCheckpoint
from ..coder.graph import FrozenConfig
from ..data.replay import found_in
from ..data.shards import open_shard
from ..data.splits import SPLITS
from .publish import sample, shipped
from .run import Run

NEW_BYTES, OLD_BYTES = 1 << 20, 1 << 18  # of held-out text that are compressed


def measure_worth(run: Run, report: dict[str, Any], old: Path | None) -> dict[str, Any]:
    """What the checkpoint makes of text that it did not learn from.

    Args:
        run: exported, with a copy of its start.
        report: of that export.
        old: folder of shards of old text.

    Returns:
        {"new": {"bytes", "start", "adapted", "both", "none"}, "old": {"bytes", "start", "adapted",
        "relearned": whether some of it is new text that was learned from} or None,
        "break_even": {"start", "none", "best"}, "corpus_bytes", "pruned": {"start_bytes",
        "start_macs_per_byte", "until"} or None}: shipped bits per byte at the default level, restored and
        compared; bytes of such text from which it pays, and until which it is smaller than its start where
        it takes its place (None: never, and for ever).
    """
    token_bytes = run.tokenizer().token_bytes
    text = sample(open_shard(run.shards, "test"), token_bytes, NEW_BYTES)
    start, adapted = [run.start], [run.checkpoint]
    ways = {"start": start, "adapted": adapted, "both": start + adapted, "none": []}
    new = {way: shipped(folders, text)["bits_per_byte"] for way, folders in ways.items()}
    kept = None
    if old is not None:
        held_out = open_shard(old, "validation")
        old_text = sample(held_out, token_bytes, OLD_BYTES)
        kept = {way: shipped(ways[way], old_text)["bits_per_byte"] for way in ("start", "adapted")}
        kept["bytes"] = len(old_text)
        kept["relearned"] = bool(found_in([held_out], open_shard(run.shards, "train")).any())
    others = {"start": new["start"], "none": new["none"], "best": min(new["start"], new["none"])}
    return {
        "new": {"bytes": len(text), **new},
        "old": kept,
        "break_even": {
            name: break_even(report["checkpoint_bytes"], other, new["adapted"])
            for name, other in others.items()
        },
        "corpus_bytes": sum(open_shard(run.shards, split).num_bytes for split in SPLITS),
        "pruned": _pruned(run, report, new),
    }


def _pruned(run: Run, report: dict[str, Any], new: dict[str, float]) -> dict[str, Any] | None:
    """What is spared beside the start, where bytes and work are less."""
    start = FrozenCheckpoint.load(run.start)
    assert isinstance(start.config, FrozenConfig)
    spared = start.size_bytes - report["checkpoint_bytes"]
    if spared <= 0 or report["macs_per_token"] >= start.config.macs_per_token():
        return None
    return {
        "start_bytes": start.size_bytes,
        "start_macs_per_byte": start.config.macs_per_token() / report["bytes_per_token"],
        "until": break_even(spared, new["adapted"], new["start"]),
    }


def break_even(checkpoint_bytes: int, other: float, ours: float) -> int | None:
    """Bytes of text from which our output and the checkpoint are below the other's output; None: never.

    `other` and `ours` in bits per byte.
    """
    return math.ceil(8 * checkpoint_bytes / (other - ours)) if other > ours else None


def worth_lines(worth: dict[str, Any], checkpoint_bytes: int, start: str, folder: Path) -> list[str]:
    """The same for people; `start` and `folder` are what -m takes for the two checkpoints."""
    new, old, pays, pruned = (worth[name] for name in ("new", "old", "break_even", "pruned"))
    from_start, from_none = (
        "never" if pays[name] is None else f"from {pays[name]:,} bytes of such text on"
        for name in ("start", "none")
    )
    lines = [
        f"test text, {new['bytes']:,} bytes of the new, in no part used before, shipped bits per byte:",
        f"  start      {new['start']:.4f}  -m {start}",
        f"  adapted    {new['adapted']:.4f}  -m {folder}",
        f"  both       {new['both']:.4f}  -m {start} -m {folder}",
        f"  experts    {new['none']:.4f}  -m none",
    ]
    if old is None:
        lines.append("old text     not measured: name some by --replay, and less of it is forgotten")
    else:
        lines += [
            f"validation text of the old, {old['bytes']:,} bytes, shipped bits per byte:",
            f"  start      {old['start']:.4f}",
            f"  adapted    {old['adapted']:.4f}  ({old['adapted'] - old['start']:+.4f})",
        ]
        if old.get("relearned"):
            lines.append(
                "             some of it is in the new text, and was learned: of other, more is forgotten"
            )
    if pruned is not None:
        macs, until = pruned["start_macs_per_byte"] / 1e6, pruned["until"]
        so_far = "however long the text" if until is None else f"until {until:,} bytes of such text"
        return [
            *lines,
            f"pruned       from {pruned['start_bytes']:,} bytes, {macs:.3f} M multiply-accumulates a byte",
            f"             in its start's place: output and checkpoint are smaller {so_far}",
            f"break-even   of its {checkpoint_bytes:,} bytes against experts alone: {from_none}",
        ]
    lines += [
        f"break-even   of its {checkpoint_bytes:,} bytes against the start: {from_start}",
        f"             against experts alone: {from_none}",
        _verdict(worth["corpus_bytes"], checkpoint_bytes, pays["best"]),
    ]
    return lines


def _verdict(corpus_bytes: int, checkpoint_bytes: int, least: int | None) -> str:
    text = f"{corpus_bytes:,} bytes of text"
    if least is None:
        return f"{text}: adapting to it does not pay, start or experts alone make files no larger"
    if least > corpus_bytes:
        return (
            f"{text}: too little to pay for a checkpoint of {checkpoint_bytes:,} bytes; that does not pay "
            f"until {least:,} bytes are compressed with it"
        )
    return f"{text}: as much again, compressed with the checkpoint, pays for its bytes"
