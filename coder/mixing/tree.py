"""The binary tree along which tokens are coded: the bits of their bytes.

Tokens are numbered in the order of their bytes, so all that begin alike are an interval of ids, and so is
each half of it that the next bit makes. A node is such an interval [low, high) and its split: the bit of a
byte, or whether the token ends here, or, among tokens of equal bytes, which. What only one token can
continue costs nothing. Because nodes are bits of bytes, the experts see bytes, however a tokenizer cut them.

Without a model the tokens are the 256 bytes, and the tree is the eight bits of each.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
# Columns of `TokenTree.nodes`.
LOW, MIDDLE, HIGH, DEPTH, PARTIAL, ZERO, ONE, WIDTH = range(8)


@dataclass(frozen=True)
class TokenTree:
    """A tree over V tokens.

    Attributes:
        nodes: int32 [V - 1, 7]; node 0 is the root. LOW, MIDDLE, HIGH: tokens, a one bit leading to
            [MIDDLE, HIGH). DEPTH: bytes of the token that are known here. PARTIAL: 1 followed by the known
            bits of the next byte, 1 to 255; or 0 where the split is none of a bit: zero then means that the
            token ends (or is in the first half of its equals). ZERO, ONE: the node after each bit, or
            -1 - token where that decides it.
        token_bytes: uint8 [n], all tokens' bytes in order of id.
        token_ends: int64 [V + 1]: token t is bytes token_ends[t] up to token_ends[t + 1].
    """

    nodes: Int32
    token_bytes: npt.NDArray[np.uint8]
    token_ends: npt.NDArray[np.int64]


def build_tree(tokens: list[bytes]) -> TokenTree:
    """The tree over at least two tokens, each of at least one byte, in ascending order of their bytes."""
    nodes: list[list[int]] = []
    # Each entry: the interval, the bytes and the bits of the next byte that its tokens share, and where its
    # number is to be written.
    waiting: list[tuple[int, int, int, int, int, int]] = [(0, len(tokens), 0, 0, -1, 0)]
    while waiting:
        low, high, depth, bits, parent, side = waiting.pop()
        if high - low == 1:
            nodes[parent][side] = -1 - low
            continue
        middle, depth, bits, partial = _split(tokens, low, high, depth, bits)
        if parent >= 0:
            nodes[parent][side] = len(nodes)
        number = len(nodes)
        nodes.append([low, middle, high, depth, partial, 0, 0])
        after = bits + 1 if partial else bits
        waiting.append((middle, high, depth, after, number, ONE))
        waiting.append((low, middle, depth, after, number, ZERO))
    joined = np.frombuffer(b"".join(tokens), dtype=np.uint8)
    ends = np.concatenate(([0], np.cumsum([len(token) for token in tokens]))).astype(np.int64)
    return TokenTree(np.array(nodes, dtype=np.int32), joined, ends)


def _split(tokens: list[bytes], low: int, high: int, depth: int, bits: int) -> tuple[int, int, int, int]:
    """(middle, depth, bits, partial) of the first split of tokens low..high - 1, alike before it."""
    first, last = tokens[low], tokens[high - 1]
    if first == last:
        return (low + high) // 2, len(first), 0, 0
    while True:
        if bits == 8:
            depth, bits = depth + 1, 0
        if bits == 0 and len(first) == depth:  # it ends here, and the last does not
            middle = low + 1
            while len(tokens[middle]) == depth:
                middle += 1
            return middle, depth, 0, 0
        mask = 128 >> bits
        if (first[depth] ^ last[depth]) & mask:
            middle = low
            while not tokens[middle][depth] & mask:
                middle += 1
            return middle, depth, bits, (256 | first[depth]) >> (8 - bits)
        bits += 1


@cache
def byte_tree() -> TokenTree:
    """The tree over the 256 bytes: what is coded without a model."""
    return build_tree([bytes([byte]) for byte in range(256)])
