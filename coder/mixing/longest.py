"""A text as tokens by a rule that needs no tokenizer: the longest that fits, from left to right.

A decoder cuts a reference like the encoder by it; a checkpoint's tokenizer serves encoders only.
"""

import numpy as np

from ..compiled import compiled
from ..lockstep import IdArray
from .layout import Bytes, Int64, Tree


def longest_tokens(data: bytes, tree: Tree) -> IdArray:
    """int32 [n]: the longest token at each place, of equal ones the first; what begins none is left out."""
    ids = np.empty(len(data), dtype=np.int32)
    count = _cut(np.frombuffer(data, dtype=np.uint8), tree.token_bytes, tree.token_ends, ids)
    return ids[:count].copy()


@compiled
def _cut(data: Bytes, text: Bytes, ends: Int64, ids: IdArray) -> int:
    """Tokens are in the order of their bytes: those of one beginning are neighbours, the shortest first."""
    at, count = 0, 0
    while at < data.shape[0]:
        low, high, depth, found, length = 0, ends.shape[0] - 1, 0, -1, 0
        while low < high and at + depth < data.shape[0]:
            byte = data[at + depth]
            # Those that have `byte` at `depth`: all are longer than `depth`, or are passed over here.
            while low < high and ends[low + 1] - ends[low] <= depth:
                low += 1
            begin, end = low, high
            while begin < end:
                middle = (begin + end) >> 1
                if text[ends[middle] + depth] < byte:
                    begin = middle + 1
                else:
                    end = middle
            low, end = begin, high
            while begin < end:
                middle = (begin + end) >> 1
                if text[ends[middle] + depth] <= byte:
                    begin = middle + 1
                else:
                    end = middle
            high = begin
            depth += 1
            if low < high and ends[low + 1] - ends[low] == depth:
                found, length = low, depth
        if found >= 0:
            ids[count] = found
            count += 1
            at += length
        else:
            at += 1
    return count
