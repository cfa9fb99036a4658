"""Decoding with engine numba: prediction and coder in one kernel, with no Python between the steps.

With one stream, calling two kernels a token costs as much as what they do.
"""

import numpy as np

from .compiled import compiled
from .engines import kernels as engine
from .engines.layout import Bytes, Cache, Int32, Int64, Scratch, Shape, Weights
from .engines.numba_engine import NumbaEngine, NumbaState
from .kernels import BLOCK, decode_each
from .mixing import kernels as mixer
from .mixing.layout import Mixing, Tree


def decode_direct(
    numba: NumbaEngine, state: NumbaState, coder: Int64, data: Bytes, fed: Int32, alive: Int32,
    ids: Int32, begin: int, end: int,
) -> bool:  # fmt: skip
    """As `direct.py` decodes: the steps from `begin` to `end` into ids [S, T].

    Args:
        fed: [S, 1], the tokens before; updated.
        alive: [T], the streams that each step has.

    Returns:
        False where the data ended too early.
    """
    vocab = numba.vocab_size
    logits = np.empty((len(fed), vocab), dtype=np.int32)
    sums = np.empty(-(-vocab // BLOCK), dtype=np.int64)
    return _decode_direct(
        numba.shape, numba.weights, state.cache, state.scratch, coder, data, fed, alive, ids, begin, end,
        logits, sums,
    )  # fmt: skip


def decode_mixed(
    numba: NumbaEngine, state: NumbaState, tree: Tree, mixing: Mixing, coder: Int64, data: Bytes,
    fed: Int32, alive: Int32, ids: Int32, begin: int, end: int,
) -> bool:  # fmt: skip
    """As `mixing/coding.py` decodes; see `decode_direct`."""
    logits = np.empty((1, len(fed), 1, numba.vocab_size), dtype=np.int32)
    return _decode_mixed(
        numba.shape, numba.weights, state.cache, state.scratch, tree, mixing, coder, data, fed, alive, ids,
        begin, end, logits, logits.reshape(len(fed), -1),
    )  # fmt: skip


@compiled
def _decode_direct(
    shape: Shape, weights: Weights, cache: Cache, scratch: Scratch, coder: Int64, data: Bytes, fed: Int32,
    alive: Int32, ids: Int32, begin: int, end: int, logits: Int32, sums: Int64,
) -> bool:  # fmt: skip
    for t in range(begin, end):
        engine.advance(shape, weights, cache, scratch, fed, logits)
        if not decode_each(logits[: alive[t]], data, coder, fed[:, 0], sums):
            return False
        for s in range(ids.shape[0]):
            ids[s, t] = fed[s, 0]
    return True


@compiled
def _decode_mixed(
    shape: Shape, weights: Weights, cache: Cache, scratch: Scratch, tree: Tree, mixing: Mixing, coder: Int64,
    data: Bytes, fed: Int32, alive: Int32, ids: Int32, begin: int, end: int, logits: Int32,
    rows: Int32,
) -> bool:  # fmt: skip
    for t in range(begin, end):
        engine.advance(shape, weights, cache, scratch, fed, rows)
        if not mixer.code_tokens(True, fed, alive[t : t + 1], logits, tree, mixing, coder, data):
            return False
        for s in range(ids.shape[0]):
            ids[s, t] = fed[s, 0]
    return True
