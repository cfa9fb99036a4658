"""From frozen tensors to a checkpoint folder that was written, reloaded and measured."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..coder.checkpoint import Config, FrozenCheckpoint
from ..coder.files import compress, decompress
from ..coder.fixedpoint import Array
from ..coder.graph import PRIOR_TENSORS
from ..data.shards import open_shard, read_manifest
from ..data.tokenshard import TokenShard
from .configuration import dump_recipe
from .prior import MOST_TEXT, with_prior
from .run import Run, write_whole

SAMPLE_BYTES = 1 << 20
STREAM = " (a stream; hash of a sample)"  # after the names of such a corpus

Rows = list[tuple[str, str]]


def publish(
    run: Run,
    config: Config,
    tensors: dict[str, Array],
    figures: dict[str, Any],
    evaluate: Callable[[FrozenCheckpoint], dict[str, Any]],
    describe: Callable[[dict[str, Any]], tuple[Rows, Rows]],
) -> dict[str, Any]:
    """Write run.checkpoint, reload it from disk, and measure it.

    Args:
        tensors: the tokens' bytes among them; the mixer's prior is learned here, on validation text.
        figures: of the training, for the report.
        evaluate: bits per byte of the reloaded checkpoint on sequences of validation text, for the report.
        describe: from the report, rows of the card: on the model, and on bits per byte.

    Returns:
        The report, which is also kept in the checkpoint's summary and in report.json.
    """
    tokenizer = run.tokenizer()
    training, validation = (open_shard(run.shards, split) for split in ("train", "validation"))
    bytes_per_token = training.num_bytes / training.num_tokens
    draft = run.folder / "checkpoint.partial"
    for leftover in (draft, *run.folder.glob(".checkpoint.*")):  # of a time that was cut off
        shutil.rmtree(leftover, ignore_errors=True)
    start = FrozenCheckpoint.load(run.start) if run.start.is_dir() else None
    if start is not None:  # its prior, for text that is too short for one of its own
        tensors |= {name: start.tensors[name] for name in PRIOR_TENSORS if name in start.tensors}
    frozen = FrozenCheckpoint(config, tensors, tokenizer.to_json(), {})
    with_prior(frozen, sample(validation, tokenizer.token_bytes, MOST_TEXT)).save(draft)
    loaded = FrozenCheckpoint.load(draft)
    report: dict[str, Any] = {
        "name": run.recipe.name,
        **({} if start is None else {"adapted_from": start.id.hex()}),
        **({"doubt": run.doubt_file.read_text().strip()} if run.doubt_file.is_file() else {}),
        **({"skipped": skips} if (skips := run.skips()) else {}),
        "corpora": corpora(run, start),
        **figures,
        "bytes_per_token": bytes_per_token,
        "macs_per_token": config.macs_per_token(),
        "macs_per_byte": config.macs_per_token() / bytes_per_token,
        "validation": {
            **evaluate(loaded),
            "coded": shipped([draft], sample(validation, loaded.token_bytes, SAMPLE_BYTES)),
        },
    }
    # The summary is not part of the id: the checkpoint that was measured is the one that stays.
    loaded.summary = report
    loaded.card = card(loaded, run, *describe(report))
    _replace(loaded, run.checkpoint)
    shutil.rmtree(draft)
    report = {**report, "id": loaded.id.hex(), "checkpoint_bytes": loaded.size_bytes}
    write_whole(run.report_file, json.dumps(report, indent=1) + "\n")
    return report


def sample(shard: TokenShard, token_bytes: list[bytes], limit: int) -> bytes:
    """The first `limit` bytes of a shard's text, whole documents put end to end."""
    ids = shard.tokens[:limit].tolist()
    return b"".join(token_bytes[i] for i in ids)[:limit]


def shipped(folders: list[Path], text: bytes) -> dict[str, Any]:
    """Compress with the checkpoints in some folders (none: by experts alone), restore and compare.

    Returns:
        Figures of shipped bytes.
    """
    began = time.perf_counter()
    blob = compress(text, folders or None)
    between = time.perf_counter()
    restored = decompress(blob, folders or None)
    ended = time.perf_counter()
    if restored != text:
        raise AssertionError("the codec did not restore the validation text: this is a defect of laconic")
    return {
        "bytes": len(text),
        "coded_bytes": len(blob),
        "bits_per_byte": 8 * len(blob) / len(text),
        "compress_kb_per_second": len(text) / 1000 / (between - began),
        "decompress_kb_per_second": len(text) / 1000 / (ended - between),
    }


def corpora(run: Run, start: FrozenCheckpoint | None = None) -> list[dict[str, Any]]:
    """What the model learned from, and what its start did."""
    folders = [run.shards, *([run.replay] if run.recipe.replayed and run.names_replay else [])]
    old = [] if start is None else start.summary.get("corpora", [])
    return [*map(corpus_of, folders), *old]


def corpus_of(shards: Path) -> dict[str, Any]:
    """A corpus with names without the folders that only this machine has; of a stream, what files hold."""
    manifest = read_manifest(shards)
    build, train = manifest["build"], manifest["splits"]["train"]
    source = ", ".join(Path(source).name or source for source in build["sources"])
    if "sample_bytes" not in build:
        return {"source": source, "bytes": train["bytes"], "sha256": train["sha256"]}
    stored = sum(size for _, size, _ in build["files"])
    return {"source": f"{source}{STREAM}", "bytes": stored, "sha256": train["sha256"]}


def _replace(checkpoint: FrozenCheckpoint, folder: Path) -> None:
    """Save where an earlier export of the same run may stand; that one is kept until the new one is whole."""
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    try:
        checkpoint.save(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def card(checkpoint: FrozenCheckpoint, run: Run, model: Rows, rates: Rows) -> str:
    """The checkpoint's card, in Markdown."""
    r = checkpoint.summary
    coded = r["validation"]["coded"]
    rates = [
        *rates,
        (
            f"shipped bytes of {coded['bytes']:,} bytes, restored and compared",
            f"{coded['bits_per_byte']:.4f}",
        ),
    ]
    if "adapted_from" in r:
        model = [*model, ("adapted from", f"`{r['adapted_from']}`")]
    doubt = f", but {r['doubt']}" if "doubt" in r else ""
    about, measured = ("\n".join(f"| {a} | {b} |" for a, b in rows) for rows in (model, rates))
    sources = "\n".join(f"| {s['source']} | {s['bytes']:,} | `{s['sha256']}` |" for s in r["corpora"])
    return f"""# {r["name"]}

A frozen checkpoint of laconic, id `{checkpoint.id.hex()}`.

| | |
|---|---|
{about}

## Trained on

| source | bytes | SHA-256 of the content read |
|---|---|---|
{sources}

## Bits per byte

Text of the same corpora that was kept out of training{doubt}:

| | bits per byte |
|---|---|
{measured}

## Limits

Text unlike the above gains little or nothing from this model: there the experts alone, or LZMA, take over.

## Recipe

```yaml
{dump_recipe(run.recipe)}```
"""
