"""The normative evaluation of an n-gram model, in NumPy: docs/frozen.md, The n-gram model."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checkpoint import FrozenCheckpoint
from ..fixedpoint import Array
from ..ngram import NgramConfig

NONE = -1  # where a node is not there


class NgramReference:
    """Looks up what came before in a trie, one stream and one token at a time.

    A state is int64 [S, max(1, order - 1)]: the node of the last token, of the last two, and so on.
    """

    name = "numpy"
    kernel = "numpy look-ups"

    def __init__(self, checkpoint: FrozenCheckpoint) -> None:
        assert isinstance(checkpoint.config, NgramConfig)
        assert checkpoint.trie is not None
        self.vocab_size, self.order = checkpoint.config.vocab_size, checkpoint.config.order
        self.trie = checkpoint.trie

    def start(self, num_streams: int) -> Array:
        """A state of streams that have seen nothing."""
        return np.full((num_streams, max(1, self.order - 1)), NONE, dtype=np.int64)

    def select(self, state: Any, streams: Sequence[int]) -> Array:
        """A new state, whose stream i has seen what stream streams[i] of `state` has."""
        chosen: Array = state[list(streams)]
        return chosen

    def advance(self, state: Any, ids: Array) -> Array:
        """Feed ids [S, T]; returns the logits after each, int32 [S, T, V]."""
        tokens, values = self.trie.tokens, self.trie.values
        logits = np.empty((*ids.shape, self.vocab_size), dtype=np.int32)
        logits[:] = values[: self.vocab_size]
        for s, row in enumerate(ids.tolist()):
            for t, token in enumerate(row):
                state[s] = self._after(state[s].tolist(), token)
                for node in state[s, : self.order - 1].tolist():
                    found = self._continuations(node)
                    logits[s, t, tokens[found]] += values[found]
        return logits

    def _continuations(self, node: int) -> slice:
        if node == NONE:
            return slice(0, 0)
        return slice(int(self.trie.begins[node]), int(self.trie.begins[node + 1]))

    def _after(self, nodes: list[int], token: int) -> list[int]:
        """The nodes of the contexts when `token` has come."""
        after = [token if token < self.vocab_size else NONE]
        for node in nodes[:-1]:
            found = self._continuations(node)
            place = found.start + int(np.searchsorted(self.trie.tokens[found], token))
            after.append(place if place < found.stop and self.trie.tokens[place] == token else NONE)
        return after
