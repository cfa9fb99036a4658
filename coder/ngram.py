"""A frozen n-gram model: its configuration, its tensors, and the trie that they unfold into.

The trie's nodes are n-grams, numbered breadth first: 0 to V - 1 are the tokens themselves, then come the
continuations of node 0 in the order of their tokens, those of node 1, and so on.

    ngram.values  uint8 [N]       bits 0-6: what the node adds to its last token's logit, in quarters of a
                                  bit; bit 7: the node has continuations
    ngram.gaps    uint16 [N - V]  bits 0-14: the tokens that are passed over between the last token of the
                                  continuation before, or the first of all, and that of node V + i;
                                  bit 15: it is the last continuation
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .errors import LaconicError
from .fixedpoint import LOGIT_BITS, Array

NGRAM_TENSORS = ("ngram.gaps", "ngram.values")
VALUE_BITS = 2  # values are in units of 2^-2 bits
VALUE_SHIFT = LOGIT_BITS - VALUE_BITS
VALUE_MAX = 127
CONTINUED = 1 << 7  # in a value
LAST = 1 << 15  # in a gap
MOST_NODES = 1 << 26


@dataclass(frozen=True)
class NgramConfig:
    """Shape of a frozen n-gram model; all of it is part of the id."""

    vocab_size: int
    order: int  # tokens of the longest n-gram
    kind: str = "ngram"
    spec: int = 2

    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {
        "vocab_size": (2, LAST),
        "order": (1, 8),
        "spec": (2, 2),
    }

    def problems(self) -> list[str]:
        """Every value that is not allowed, one sentence each."""
        return [
            f"{name} is {getattr(self, name)!r}, allowed are whole numbers from {low} to {high}"
            for name, (low, high) in self.LIMITS.items()
            if type(getattr(self, name)) is not int or not low <= getattr(self, name) <= high
        ]

    def macs_per_token(self) -> int:
        """Nothing is multiplied."""
        return 0

    def cache_bytes_per_token(self) -> int:
        """No keys and values are kept."""
        return 0

    def memory_per_stream(self) -> int:
        """Bytes, at most, that any engine takes for a stream and a step of it."""
        return 64 * self.order + 40 * self.vocab_size


@dataclass(frozen=True)
class Trie:
    """The unfolded model.

    Attributes:
        tokens: int32 [N], the last token of each node.
        values: int32 [N], what each node adds, in units of 2^-10 bits.
        begins: int64 [N + 1]: the continuations of node i are begins[i] to begins[i + 1] - 1.
    """

    tokens: Array
    values: Array
    begins: Array


def _unfold(config: NgramConfig, tensors: dict[str, Array]) -> Trie:
    """The trie of tensors whose groups were checked."""
    vocab, values, gaps = config.vocab_size, tensors["ngram.values"], tensors["ngram.gaps"]
    sizes = np.zeros(len(values), dtype=np.int64)
    sizes[np.flatnonzero(values & CONTINUED)] = np.diff(np.flatnonzero(gaps & LAST), prepend=-1)
    return Trie(
        np.concatenate([np.arange(vocab), _last_tokens(gaps)]).astype(np.int32),
        (values & VALUE_MAX).astype(np.int32) << VALUE_SHIFT,
        np.concatenate([[0], np.cumsum(sizes)]) + vocab,
    )


def _last_tokens(gaps: Array) -> Array:
    """Of each node beyond the tokens, the last token: int64 [N - V]."""
    counted = np.cumsum((gaps & (LAST - 1)).astype(np.int64) + 1)
    ends = np.flatnonzero(gaps & LAST)
    before = np.concatenate([[0], counted[ends]])[:-1]  # where each group begins
    return counted - np.repeat(before, np.diff(ends, prepend=-1)) - 1


def check_ngram(config: NgramConfig, tensors: dict[str, Array]) -> Trie:
    """What the tensors unfold into, unless they are no trie of this shape.

    A logit is at most order * 127 * 2^8 < 2^18: nothing overflows.

    Raises:
        LaconicError: with what is wrong.
    """
    vocab, values, gaps = config.vocab_size, tensors["ngram.values"], tensors["ngram.gaps"]
    if values.dtype != np.uint8 or values.ndim != 1 or not vocab <= len(values) <= MOST_NODES:
        raise LaconicError(
            f"tensor ngram.values is {values.dtype} {list(values.shape)}, it must be uint8 of {vocab} to "
            f"{MOST_NODES} elements"
        )
    if gaps.dtype != np.uint16 or gaps.shape != (len(values) - vocab,):
        raise LaconicError(
            f"tensor ngram.gaps is {gaps.dtype} {list(gaps.shape)}, it must be uint16 "
            f"[{len(values) - vocab}]: one for each value but the first {vocab}"
        )
    continued, last = np.flatnonzero(values & CONTINUED), (gaps & LAST) != 0
    if len(continued) != int(last.sum()) or (len(gaps) and not last[-1]):
        raise LaconicError(
            f"tensor ngram.gaps has {last.sum()} groups of continuations, ngram.values asks for "
            f"{len(continued)}"
        )
    trie = _unfold(config, tensors)
    if int(trie.tokens.max()) >= vocab:
        raise LaconicError(
            f"tensor ngram.gaps leads to token {trie.tokens.max()}, the highest is {vocab - 1}"
        )
    if np.any(trie.begins[continued] <= continued):
        raise LaconicError("tensor ngram.values: an n-gram must come before its continuations")
    end, depth = vocab, 1
    while end < len(values) and depth <= config.order:
        end, depth = int(trie.begins[end]), depth + 1
    if depth > config.order:
        raise LaconicError(f"the n-grams reach {depth} tokens or more, the order is {config.order}")
    return trie
