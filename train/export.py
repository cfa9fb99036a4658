"""Freezing a trained transformer into a checkpoint folder, and the figures that say what that cost."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..coder.checkpoint import FrozenCheckpoint
from ..coder.engine import load_engine
from ..coder.fixedpoint import Array
from ..coder.kernels import code_lengths
from ..data.batches import spread_batches
from ..data.shards import open_shard
from ..data.tokenshard import TokenShard
from ..models.freeze import calibrate, freeze
from .language import LanguageModule, sha256_of
from .publish import Rows, publish
from .rank import require_alone
from .run import Run, writing

CALIBRATION_BATCHES, CALIBRATION_SEQUENCES = 8, 16


@dataclass
class Comparison:
    """Bits per byte of the same validation sequences, each evaluated from its own beginning."""

    float_bits_per_byte: float
    integer_bits_per_byte: float
    bytes: int


def calibration_batches(run: Run, begin_id: int) -> list[tuple[Tensor, Tensor]]:
    """(inputs [B, T], targets [B, T]) spread over the text that the run learns from."""
    shard = open_shard(run.shards, "train")
    seq_len = min(run.recipe.training.seq_len, shard.num_tokens)
    batches = spread_batches(shard, seq_len, CALIBRATION_SEQUENCES, CALIBRATION_BATCHES, begin_id)
    return [(torch.from_numpy(inputs), torch.from_numpy(targets)) for inputs, targets in batches]


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
    begin_id, count = transformer.begin_id, math.ceil(sequences / 64)
    for inputs, targets in spread_batches(shard, seq_len, 64, count, begin_id):
        nats = module.code_length(torch.from_numpy(inputs), torch.from_numpy(targets))
        float_nats += float(nats) * targets.size
        logits = engine.advance(engine.start(len(inputs)), inputs)
        bits = code_lengths(logits.reshape(targets.size, -1), targets.ravel().astype(np.int32))
        integer_bits += float(bits.sum())
        num_bytes += int(lengths[targets].sum())
    return Comparison(float_nats / math.log(2) / num_bytes, integer_bits / num_bytes, num_bytes)


def _zeros(tensors: dict[str, Array]) -> float:
    """Share of the blocks' weights that are zero: what rounding makes so, and `training.sparsity`."""
    matrices = [tensor for name, tensor in tensors.items() if name.startswith("layers.") and tensor.ndim == 2]
    return 1 - sum(map(np.count_nonzero, matrices)) / sum(matrix.size for matrix in matrices)


def export(run: Run, module: LanguageModule) -> dict[str, Any]:
    """Freeze a module, write run.checkpoint, reload it from disk, and measure it.

    Returns:
        The report, which is also kept in the checkpoint's summary and in report.json.
    """
    require_alone("export")
    tokenizer = run.tokenizer()
    validation = open_shard(run.shards, "validation")
    transformer = module.transformer.eval().cpu()
    student = sha256_of(transformer)  # before calibration
    batches = calibration_batches(run, transformer.begin_id)
    calibration = calibrate(transformer, [inputs for inputs, _ in batches], moments=True)
    t = run.recipe.training
    config, tensors = freeze(
        transformer, tokenizer.token_bytes, calibration, t.weight_bits, t.sparsity, t.table_bits
    )
    figures = {
        "student_sha256": student,
        "tokens_seen": module.tokens_seen,
        "training_minutes": round(module.elapsed_seconds / 60, 2),
        "usage": module.usage.figures(),
        "parameters": sum(p.numel() for p in transformer.parameters()),
        "zeros": _zeros(tensors),
    }

    def describe(report: dict[str, Any]) -> tuple[Rows, Rows]:
        v = report["validation"]
        return [
            (
                "shape",
                f"{config.num_layers} layers, width {config.d_model}, window {config.window}, "
                f"vocabulary {config.vocab_size:,}",
            ),
            ("work to decode", f"{report['macs_per_byte'] / 1e6:.3f} M multiply-accumulates a byte"),
            ("bytes a token", f"{report['bytes_per_token']:.3f}"),
            ("trained on", f"{report['tokens_seen']:,} tokens in {report['training_minutes']:.1f} minutes"),
        ], [
            (
                f"float model, sequences of {run.recipe.training.seq_len} tokens",
                f"{v['float_bits_per_byte']:.4f}",
            ),
            ("frozen integers, the same sequences", f"{v['integer_bits_per_byte']:.4f}"),
        ]

    with writing(run.folder):
        return publish(
            run,
            config,
            tensors,
            figures,
            lambda checkpoint: asdict(compare(module, checkpoint, validation)),
            describe,
        )
