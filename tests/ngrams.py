"""Random frozen n-gram models for tests, and what they mean, in plain Python."""

from itertools import pairwise

import numpy as np

from laconic.coder.checkpoint import FrozenCheckpoint
from laconic.coder.graph import token_tensors
from laconic.coder.ngram import CONTINUED, LAST, NgramConfig


def random_ngram(order=4, vocab_size=12, seed=0, share=0.3) -> FrozenCheckpoint:
    """Each n-gram has each continuation with probability `share`; every value is drawn from 0 to 127."""
    rng = np.random.default_rng(seed)
    level, values, gaps = list(range(vocab_size)), [], []
    for depth in range(1, order + 1):
        following = []
        for _ in level:
            more = np.flatnonzero(rng.random(vocab_size) < share if depth < order else np.zeros(0))
            values.append(int(rng.integers(0, 128)) | (CONTINUED if len(more) else 0))
            gaps += [b - a - 1 | (LAST if b == more[-1] else 0) for a, b in pairwise([-1, *more.tolist()])]
            following += [int(token) for token in more]
        level = following
    names = sorted(bytes([i % 256]) * (1 + i // 256) for i in range(vocab_size))
    tensors = {
        "ngram.values": np.array(values, dtype=np.uint8),
        "ngram.gaps": np.array(gaps, dtype=np.uint16),
        **token_tensors(names),
    }
    return FrozenCheckpoint(NgramConfig(vocab_size, order), tensors, '{"kind": "test"}', {"name": "random"})


def as_dictionary(checkpoint: FrozenCheckpoint) -> dict[tuple[int, ...], int]:
    """What each n-gram adds, in quarters of a bit, read as docs/frozen.md says."""
    vocab = checkpoint.config.vocab_size
    values = checkpoint.tensors["ngram.values"].tolist()
    rest = iter(checkpoint.tensors["ngram.gaps"].tolist())
    ngrams = [(token,) for token in range(vocab)]
    for ngram, value in zip(ngrams, values, strict=False):
        last, token = not value & CONTINUED, -1
        while not last:
            gap = next(rest)
            token += (gap & (LAST - 1)) + 1
            ngrams.append((*ngram, token))
            last = bool(gap & LAST)
    return {ngram: value & 127 for ngram, value in zip(ngrams, values, strict=True)}


def plain_logits(checkpoint: FrozenCheckpoint, ids: list[int]) -> list[int]:
    """Logits after the ids of one stream."""
    table, config = as_dictionary(checkpoint), checkpoint.config
    contexts = [tuple(ids[len(ids) - k :]) for k in range(min(config.order, len(ids) + 1))]
    return [
        256 * sum(table.get((*context, token), 0) for context in contexts)
        for token in range(config.vocab_size)
    ]
