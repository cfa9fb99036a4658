"""rANS under a model's own distributions: one state, an interval of 2^24 for each token.

A prediction is weights as of the range coder (kernels.token_weight), whose sum is no power of two. With
K = 2^24 - V, token v has the interval from floor(K cum_v / total) + v on, up to that of token v + 1.
"""

import numpy as np

from ..compiled import compiled
from ..kernels import BLOCK, fill_sums, maximum, sum_weights, token_weight
from .bits import Words
from .frequencies import MAX_LOG, Int32, Int64, Uint64
from .rans import LOWEST, SLOT_MASK, WORD_SHIFT, pop, push

_SIZE = 1 << MAX_LOG
_HALF, _LOW_HALF = np.uint64(32), np.uint64((1 << 32) - 1)


@compiled
def find_intervals(logits: Int32, targets: Int32, alive: Int32, intervals: Uint64, at: int) -> int:
    """Append begin << 32 | part of targets [S, T] under logits int32 [S, T, V], in the order of coding.

    Args:
        alive: [T], the streams that each step has.
        intervals: as many as there are tokens; `at` of them are there.

    Returns:
        How many are there now.
    """
    vocab = logits.shape[2]
    share = _SIZE - vocab
    for t in range(logits.shape[1]):
        for s in range(alive[t]):
            row, target = logits[s, t], int(targets[s, t])
            top = maximum(row)
            cum = sum_weights(row, 0, target, top)
            after = cum + np.int64(token_weight(row[target], top))
            total = after + sum_weights(row, target + 1, vocab, top)
            begin = cum * share // total + target
            part = after * share // total + target + 1 - begin
            intervals[at] = np.uint64(begin << 32 | part)
            at += 1
    return at


@compiled
def encode_intervals(intervals: Uint64, words: Words) -> int:
    """Where the words begin, the state's two first; `words` has two more than intervals."""
    x, at = LOWEST, words.shape[0]
    for i in range(intervals.shape[0] - 1, -1, -1):
        x, at = push(x, intervals[i] >> _HALF, intervals[i] & _LOW_HALF, words, at)
    words[at - 1], words[at - 2] = np.uint32(x & _LOW_HALF), np.uint32(x >> _HALF)
    return at - 2


@compiled
def decode_each(logits: Int32, words: Words, coder: Uint64, ids: Int32, sums: Int64) -> bool:
    """Decode one token of each stream into ids [S] under logits int32 [S, V]; False where a word was missing.

    Args:
        coder: the state, and how many words were read; updated.
        sums: room for one number for each BLOCK of the V logits.
    """
    vocab = logits.shape[1]
    share = _SIZE - vocab
    for s in range(logits.shape[0]):
        row, x = logits[s], coder[0]
        slot = np.int64(x & SLOT_MASK)
        top = maximum(row)
        total = fill_sums(row, top, sums)
        # Token v begins at or before the slot if and only if cum_v * share < (slot - v + 1) * total.
        cum, block = np.int64(0), 0
        while (cum + sums[block]) * share < (slot - min((block + 1) * BLOCK, vocab) + 1) * total:
            cum += sums[block]
            block += 1
        symbol = block * BLOCK
        after = cum + np.int64(token_weight(row[symbol], top))
        while after * share < (slot - symbol) * total:
            symbol += 1
            cum = after
            after += np.int64(token_weight(row[symbol], top))
        begin = cum * share // total + symbol
        part = after * share // total + symbol + 1 - begin
        x = pop(x, np.uint64(begin), np.uint64(part))
        if x < LOWEST:
            at = np.int64(coder[1])
            if at >= words.shape[0]:
                return False
            x = x << WORD_SHIFT | np.uint64(words[at])
            coder[1] = np.uint64(at + 1)
        coder[0] = x
        ids[s] = symbol
    return True
