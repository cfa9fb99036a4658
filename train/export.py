"""Freezing a trained model into a checkpoint folder, and the figures that say what that cost."""

import json
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..coder.checkpoint import FrozenCheckpoint
from ..coder.engine import load_engine
from ..coder.files import compress, decompress
from ..coder.kernels import code_lengths
from ..data.batches import sequence_batch
from ..data.shards import read_manifest, shard_path
from ..data.tokenshard import TokenShard
from ..models.freeze import calibrate, freeze
from .configuration import dump_recipe
from .language import LanguageModule
from .prior import MOST_TEXT, with_prior
from .processes import require_alone
from .run import Run, write_whole

CALIBRATION_BATCHES, CALIBRATION_SEQUENCES = 8, 16
SAMPLE_BYTES = 1 << 20


@dataclass
class Comparison:
    """Bits per byte of the same validation sequences, each evaluated from its own beginning."""

    float_bits_per_byte: float
    integer_bits_per_byte: float
    bytes: int


def _batches(shard: TokenShard, seq_len: int, sequences: int, count: int, begin_id: int):
    """`count` batches spread evenly over a shard."""
    available = shard.num_tokens // seq_len
    chosen = np.linspace(0, max(0, available - 1), min(available, sequences * count)).astype(np.int64)
    for part in np.array_split(np.unique(chosen), max(1, math.ceil(len(chosen) / sequences))):
        yield sequence_batch(shard, part, seq_len, begin_id, 0)


@torch.no_grad()
def compare(
    module: LanguageModule, checkpoint: FrozenCheckpoint, shard: TokenShard, sequences: int = 256
) -> Comparison:
    """Float model and frozen integers side by side on `sequences` sequences of a shard."""
    transformer = module.transformer.eval()
    transformer.simulate_integers(False)
    engine = load_engine(checkpoint)
    lengths = module.byte_lengths.numpy()
    float_nats = integer_bits = 0.0
    num_bytes = 0
    seq_len = min(module.training_recipe.seq_len, shard.num_tokens)
    for inputs, targets in _batches(shard, seq_len, 64, math.ceil(sequences / 64), transformer.begin_id):
        nats = module.code_length(torch.from_numpy(inputs), torch.from_numpy(targets))
        float_nats += float(nats) * targets.size
        logits = engine.advance(engine.start(len(inputs)), inputs)
        bits = code_lengths(logits.reshape(targets.size, -1), targets.ravel().astype(np.int32))
        integer_bits += float(bits.sum())
        num_bytes += int(lengths[targets].sum())
    return Comparison(float_nats / math.log(2) / num_bytes, integer_bits / num_bytes, num_bytes)


def _sample(shard: TokenShard, token_bytes: list[bytes], limit: int) -> bytes:
    """The first `limit` bytes of a shard's text, whole documents put end to end."""
    ids = shard.tokens[:limit].tolist()
    return b"".join(token_bytes[i] for i in ids)[:limit]


def _coded(folder: Path, text: bytes) -> dict[str, Any]:
    """Compress with the checkpoint in a folder, restore and compare: figures of shipped bytes."""
    began = time.perf_counter()
    blob = compress(text, folder)
    between = time.perf_counter()
    restored = decompress(blob, folder)
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


def _corpora(run: Run) -> list[dict[str, Any]]:
    """What the model learned from: names without the folders that only this machine has."""
    manifest = read_manifest(run.shards)
    names = [Path(source).name or source for source in manifest["build"]["sources"]]
    train = manifest["splits"]["train"]
    return [{"source": ", ".join(names), "bytes": train["bytes"], "sha256": train["sha256"]}]


def export(run: Run, module: LanguageModule) -> dict[str, Any]:
    """Freeze a module, write run.checkpoint, reload it from disk, and measure it.

    Returns:
        The report, which is also kept in the checkpoint's summary and in report.json.
    """
    require_alone("export")
    tokenizer = run.tokenizer()
    training, validation = (
        TokenShard.open(shard_path(run.shards, split)) for split in ("train", "validation")
    )
    transformer = module.transformer.eval().cpu()
    seq_len = min(module.training_recipe.seq_len, training.num_tokens)
    batches = _batches(training, seq_len, CALIBRATION_SEQUENCES, CALIBRATION_BATCHES, transformer.begin_id)
    largest = calibrate(transformer, [torch.from_numpy(inputs) for inputs, _ in batches])
    config, tensors = freeze(transformer, tokenizer.token_bytes, largest)

    bytes_per_token = training.num_bytes / training.num_tokens
    draft = run.folder / "checkpoint.partial"
    shutil.rmtree(draft, ignore_errors=True)
    frozen = FrozenCheckpoint(config, tensors, tokenizer.to_json(), {})
    with_prior(frozen, _sample(validation, tokenizer.token_bytes, MOST_TEXT)).save(draft)
    loaded = FrozenCheckpoint.load(draft)
    report: dict[str, Any] = {
        "name": run.recipe.name,
        "corpora": _corpora(run),
        "tokens_seen": module.tokens_seen,
        "training_minutes": round(module.elapsed_seconds / 60, 2),
        "parameters": sum(p.numel() for p in transformer.parameters()),
        "bytes_per_token": bytes_per_token,
        "macs_per_token": config.macs_per_token(),
        "macs_per_byte": config.macs_per_token() / bytes_per_token,
        "validation": {
            **asdict(compare(module, loaded, validation)),
            "coded": _coded(draft, _sample(validation, loaded.token_bytes, SAMPLE_BYTES)),
        },
    }
    # The summary is not part of the id: the checkpoint that was measured is the one that stays.
    loaded.summary = report
    loaded.card = card(loaded, run)
    _replace(loaded, run.checkpoint)
    shutil.rmtree(draft)
    report = {**report, "id": loaded.id.hex(), "checkpoint_bytes": loaded.size_bytes}
    write_whole(run.report_file, json.dumps(report, indent=1) + "\n")
    return report


def _replace(checkpoint: FrozenCheckpoint, folder: Path) -> None:
    """Save where an earlier export of the same run may stand; that one is kept until the new one is whole."""
    if not folder.exists():
        checkpoint.save(folder)
        return
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    try:
        checkpoint.save(folder)
    except BaseException:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def card(checkpoint: FrozenCheckpoint, run: Run) -> str:
    """The checkpoint's card, in Markdown."""
    r, c = checkpoint.summary, checkpoint.config
    v = r["validation"]
    corpora = "\n".join(f"| {s['source']} | {s['bytes']:,} | `{s['sha256']}` |" for s in r["corpora"])
    return f"""# {r["name"]}

A frozen checkpoint of laconic, id `{checkpoint.id.hex()}`.

| | |
|---|---|
| shape | {c.num_layers} layers, width {c.d_model}, window {c.window}, vocabulary {c.vocab_size:,} |
| work to decode | {r["macs_per_byte"] / 1e6:.3f} M multiply-accumulates a byte |
| bytes a token | {r["bytes_per_token"]:.3f} |
| trained on | {r["tokens_seen"]:,} tokens in {r["training_minutes"]:.1f} minutes |

## Trained on

| source | bytes | SHA-256 of the content read |
|---|---|---|
{corpora}

## Bits per byte

Text of the same corpora that was kept out of training:

| | bits per byte |
|---|---|
| float model, sequences of {run.recipe.training.seq_len} tokens | {v["float_bits_per_byte"]:.4f} |
| frozen integers, the same sequences | {v["integer_bits_per_byte"]:.4f} |
| shipped bytes of {v["coded"]["bytes"]:,} bytes, restored and compared | {v["coded"]["bits_per_byte"]:.4f} |

## Limits

Text unlike the above gains little or nothing from this model: there the experts alone, or LZMA, take over.

## Recipe

```yaml
{dump_recipe(run.recipe)}```
"""
