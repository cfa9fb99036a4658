"""The n-gram model's stage: count, choose, estimate, freeze, measure."""

import json
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..coder.checkpoint import FrozenCheckpoint
from ..coder.engine import load_engine
from ..coder.errors import LaconicError
from ..coder.fixedpoint import Array
from ..coder.graph import PRIOR_SHAPES, token_tensors
from ..coder.kernels import code_lengths
from ..coder.ngram import NgramConfig
from ..coder.tensorfile import pack_tensors
from ..data.batches import spread_batches
from ..data.ngrams import Order, count_ngrams
from ..data.shards import open_shard
from ..data.tokenshard import TokenShard
from ..models.ngram import estimate, freeze, select, worth
from .publish import Rows, corpora, publish
from .run import Run, writing

SEQUENCES = 256  # of validation text, as for transformers
HEAD_BYTES = 4096  # of config.json, beside the names of the corpora
BYTES_PER_NGRAM = 1.8  # packed, about: where the search for a size begins
NEAR, TRIALS = 0.99, 6  # a size is near enough; sizes that are tried


def train_ngram(run: Run) -> dict[str, Any]:
    """Count the run's training shard, write run.checkpoint, reload it and measure it.

    Counts are kept in the run's folder, and used again with other settings of size.

    Returns:
        The report, which is also kept in the checkpoint's summary and in report.json.

    Raises:
        LaconicError: too many tokens, or max_bytes holds no model.
    """
    recipe, tokenizer, began = run.recipe.ngram, run.tokenizer(), time.perf_counter()
    faults = NgramConfig(tokenizer.vocab_size, recipe.order).problems()
    if faults:
        raise LaconicError(f"the tokenizer does not fit: {'; '.join(faults)}")
    training, validation = (open_shard(run.shards, split) for split in ("train", "validation"))
    with writing(run.stage("ngram")):
        orders = count_ngrams(training, recipe.order, recipe.min_count, run.stage("ngram"))
    for number, order in enumerate(orders, 1):
        if order.least > recipe.min_count:
            print(
                f"{number} tokens: {len(order.counts):,} n-grams that occur {order.least} times or more; "
                "there are too many of the others",
                file=sys.stderr,
            )
    fixed = token_tensors(tokenizer.token_bytes)
    limit = None if recipe.max_bytes is None else recipe.max_bytes - _beside(run)
    config, tensors = fit(orders, fixed, limit)
    ngrams = len(tensors["ngram.values"])
    figures = {
        "tokens_seen": training.num_tokens,
        "training_minutes": round((time.perf_counter() - began) / 60, 3),
        "parameters": ngrams,
    }

    def evaluate(checkpoint: FrozenCheckpoint) -> dict[str, Any]:
        return _evaluate(checkpoint, validation, run.recipe.training.seq_len)

    def describe(report: dict[str, Any]) -> tuple[Rows, Rows]:
        return [
            ("shape", f"{ngrams:,} n-grams of up to {config.order} of {config.vocab_size:,} tokens"),
            ("work to decode", "look-ups, no multiplications"),
            ("bytes a token", f"{report['bytes_per_token']:.3f}"),
            (
                "trained on",
                f"{report['tokens_seen']:,} tokens in {60 * report['training_minutes']:.0f} seconds",
            ),
        ], [
            (
                f"frozen integers, sequences of {run.recipe.training.seq_len} tokens",
                f"{report['validation']['integer_bits_per_byte']:.4f}",
            )
        ]

    with writing(run.folder):
        return publish(run, config, {**fixed, **tensors}, figures, evaluate, describe)


def _beside(run: Run) -> int:
    """Bytes of a checkpoint that are not tensors of the model, and the mixer's prior."""
    prior = sum(math.prod(shape) * np.dtype(kind).itemsize for kind, shape, *_ in PRIOR_SHAPES.values())
    return run.tokenizer_file.stat().st_size + prior + HEAD_BYTES + len(json.dumps(corpora(run)))


def fit(
    orders: Sequence[Order], fixed: dict[str, Array], limit: int | None
) -> tuple[NgramConfig, dict[str, Array]]:
    """The frozen model of the n-grams that save most, as many as `limit` packed bytes hold, `fixed` included.

    Raises:
        LaconicError: they do not hold the tokens.
    """
    vocab_size, gains = len(orders[0].counts), worth(orders)

    def frozen(most: int) -> tuple[NgramConfig, dict[str, Array]]:
        return freeze(estimate(orders, select(gains, most)), vocab_size)

    everything = sum(len(order.counts) for order in orders[1:])
    if limit is None:
        return frozen(everything)
    best = frozen(0)
    largest = least = len(pack_tensors({**fixed, **best[1]}))
    if least > limit:
        raise LaconicError(
            f"ngram.max_bytes is too small by {least - limit:,} bytes for the tokens alone: give more, or "
            "take a smaller vocabulary"
        )
    most = min(everything, int((limit - least) / BYTES_PER_NGRAM))
    for _ in range(TRIALS):
        found = frozen(most)
        size = len(pack_tensors({**fixed, **found[1]}))
        if largest <= size <= limit:
            best, largest = found, size
            if most == everything or size >= NEAR * limit:
                break
        most = min(everything, int(most * (limit - least) * (1 + NEAR) / 2 / max(1, size - least)))
    return best


def _evaluate(checkpoint: FrozenCheckpoint, shard: TokenShard, seq_len: int) -> dict[str, Any]:
    """Bits per byte of sequences of a shard, each from its own beginning."""
    engine, bits, num_bytes = load_engine(checkpoint), 0.0, 0
    lengths = np.array([len(token) for token in checkpoint.token_bytes])
    seq_len = min(seq_len, shard.num_tokens)
    for inputs, targets in spread_batches(shard, seq_len, 16, SEQUENCES // 16, engine.vocab_size):
        logits = engine.advance(engine.start(len(inputs)), inputs)
        bits += float(code_lengths(logits.reshape(targets.size, -1), targets.ravel().astype(np.int32)).sum())
        num_bytes += int(lengths[targets].sum())
    return {"integer_bits_per_byte": bits / num_bytes, "bytes": num_bytes}
