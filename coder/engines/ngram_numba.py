"""An n-gram model compiled: the same integers as its reference, on one core."""

# numba's integers are no Python ints:
# pyright: reportArgumentType=false

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..checkpoint import FrozenCheckpoint
from ..compiled import compiled
from ..fixedpoint import Array
from ..ngram import NgramConfig

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


class NgramEngine:
    """Looks up what came before in a trie; a state is as the reference's."""

    name = "numba"
    kernel = "look-ups in a trie"

    def __init__(self, checkpoint: FrozenCheckpoint) -> None:
        assert isinstance(checkpoint.config, NgramConfig)
        assert checkpoint.trie is not None
        self.vocab_size, self.order = checkpoint.config.vocab_size, checkpoint.config.order
        self.trie = checkpoint.trie

    def start(self, num_streams: int) -> Int64:
        """A state of streams that have seen nothing."""
        return np.full((num_streams, max(1, self.order - 1)), -1, dtype=np.int64)

    def select(self, state: Any, streams: Sequence[int]) -> Int64:
        """A new state, whose stream i has seen what stream streams[i] of `state` has."""
        chosen: Int64 = state[list(streams)]
        return chosen

    def advance(self, state: Any, ids: Array) -> Array:
        """Feed ids [S, T]; returns the logits after each, int32 [S, T, V]."""
        logits = np.empty((*ids.shape, self.vocab_size), dtype=np.int32)
        ids = np.ascontiguousarray(ids, dtype=np.int32)
        _advance(self.order, self.trie.tokens, self.trie.values, self.trie.begins, state, ids, logits)
        return logits


@compiled
def _find(tokens: Int32, begin: int, end: int, token: int) -> int:
    """The node of `token` among those from `begin` to `end`; -1 where there is none."""
    last = end
    while begin < end:
        middle = (begin + end) >> 1
        if tokens[middle] < token:
            begin = middle + 1
        else:
            end = middle
    return begin if begin < last and tokens[begin] == token else -1


@compiled
def _advance(
    order: int, tokens: Int32, values: Int32, begins: Int64, nodes: Int64, ids: Int32, logits: Int32
) -> None:
    vocab = logits.shape[2]
    for s in range(ids.shape[0]):
        for t in range(ids.shape[1]):
            token, row = np.int64(ids[s, t]), logits[s, t]
            for k in range(order - 2, 0, -1):  # from long to short: each comes from the one below, as it was
                node = nodes[s, k - 1]
                nodes[s, k] = _find(tokens, begins[node], begins[node + 1], token) if node >= 0 else -1
            nodes[s, 0] = token if token < vocab else -1
            for v in range(vocab):
                row[v] = values[v]
            for k in range(order - 1):
                node = nodes[s, k]
                if node >= 0:
                    for i in range(begins[node], begins[node + 1]):
                        row[tokens[i]] += values[i]
