"""Random frozen n-gram models for tests, and what they mean, in plain Python."""

import numpy as np

from laconic.coder.checkpoint import FrozenCheckpoint
from laconic.coder.graph import token_tensors
from laconic.coder.ngram import CONTINUED, LAST, NgramConfig


def random_ngram(order=4, vocab_size=12, seed=0, share=0.3) -> FrozenCheckpoint:
    """Each n-gram has each continuation with probability `share`; every value is drawn from 0 to 127."""
    rng = np.random.default_rng(seed)
    level, values, tokens = list(range(vocab_size)), [], []
    for depth in range(1, order + 1):
        following = []
        for _ in level:
            more = np.flatnonzero(rng.random(vocab_size) < share) if depth < order else []
            values.append(int(rng.integers(0, 128)) | (CONTINUED if len(more) else 0))
            tokens += [int(token) | (LAST if token == more[-1] else 0) for token in more]
            following += [int(token) for token in more]
        level = following
    names = sorted(bytes([i % 256]) * (1 + i // 256) for i in range(vocab_size))
    tensors = {
        "ngram.values": np.array(values, dtype=np.uint8),
        "ngram.tokens": np.array(tokens, dtype=np.uint16),
        **token_tensors(names),
    }
    return FrozenCheckpoint(NgramConfig(vocab_size, order), tensors, '{"kind": "test"}', {"name": "random"})


def as_dictionary(checkpoint: FrozenCheckpoint) -> dict[tuple[int, ...], int]:
    """What each n-gram adds, in quarters of a bit, read as docs/frozen.md says."""
    vocab = checkpoint.config.vocab_size
    values = checkpoint.tensors["ngram.values"].tolist()
    rest = iter(checkpoint.tensors["ngram.tokens"].tolist())
    ngrams = [(token,) for token in range(vocab)]
    for ngram, value in zip(ngrams, values, strict=False):
        last = not value & CONTINUED
        while not last:
            token = next(rest)
            ngrams.append((*ngram, token & (LAST - 1)))
            last = bool(token & LAST)
    return {ngram: value & 127 for ngram, value in zip(ngrams, values, strict=True)}


def plain_logits(checkpoint: FrozenCheckpoint, ids: list[int]) -> list[int]:
    """Logits after the ids of one stream."""
    table, config = as_dictionary(checkpoint), checkpoint.config
    contexts = [tuple(ids[len(ids) - k :]) for k in range(min(config.order, len(ids) + 1))]
    return [
        256 * sum(table.get((*context, token), 0) for context in contexts)
        for token in range(config.vocab_size)
    ]
