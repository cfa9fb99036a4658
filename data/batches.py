"""Batches of sequences from a row of tokens. B sequences of T tokens."""

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .tokenshard import TokenShard


class Tokens(Protocol):
    """A row of documents as tokens: a shard, or a window of a stream."""

    @property
    def num_tokens(self) -> int: ...

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where documents begin, in order."""
        ...

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of the positions, of their shape."""
        ...


def sequence_batch(
    shard: Tokens, indices: ArrayLike, seq_len: int, begin_id: int, shift: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sequences of a shard or a window, to be predicted token by token.

    Args:
        indices: [B], which sequences; sequence i covers the tokens [shift + i * T, shift + (i + 1) * T).
        seq_len: T, tokens.
        begin_id: the token that stands before the first one of a sequence and of a document.
        shift: tokens before sequence 0.

    Returns:
        inputs int64 [B, T], targets int64 [B, T]: the targets are the tokens, the input at j is the token
        before target j. Every target is a token of the shard, and no token is in two sequences.
    """
    starts_B = shift + np.asarray(indices, dtype=np.int64) * seq_len
    positions_BT = starts_B[:, None] + np.arange(seq_len)
    assert positions_BT.size == 0 or (positions_BT[0].min() >= 0 and positions_BT.max() < shard.num_tokens)
    targets_BT = shard.take(positions_BT)
    inputs_BT = np.empty_like(targets_BT)
    inputs_BT[:, 1:] = targets_BT[:, :-1]
    inputs_BT[:, 0] = begin_id
    for row, start in enumerate(starts_B.tolist()):
        first, last = np.searchsorted(shard.offsets, (start, start + seq_len))
        inputs_BT[row, shard.offsets[first:last] - start] = begin_id
    return inputs_BT, targets_BT


def spread_batches(
    shard: TokenShard, seq_len: int, sequences: int, count: int, begin_id: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """`count` batches of some `sequences` each, spread evenly over a shard; see `sequence_batch`."""
    available = shard.num_tokens // seq_len
    chosen = np.linspace(0, max(0, available - 1), min(available, sequences * count)).astype(np.int64)
    for part in np.array_split(np.unique(chosen), max(1, math.ceil(len(chosen) / sequences))):
        yield sequence_batch(shard, part, seq_len, begin_id, 0)
