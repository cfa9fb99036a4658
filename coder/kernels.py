"""The range coder compiled: from logits to bytes and back, one core, no Python objects.

`rangecoder.py` says what these do; the tests hold them to it bit for bit. Numba's cache on disk is renewed
when this file changes and not when another does: therefore every kernel is here, calls only kernels that are
here, uses no constant of another module, and takes its table as an argument.

Dimensions: S streams, T steps, V symbols. All integers fit into int64, and mixing int64 with uint64 (which
numba would turn into floats) is avoided.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]
Bytes = npt.NDArray[np.uint8]

# Constants that numba freezes into the code: renewed with this file.
TAIL = 7
TOP_SHIFT = 48
SPAN_FULL = 1 << 56
SPAN_LOW = 1 << 48
BLOCK = 64  # symbols a partial sum: at most 64 * 2^22 < 2^32
MAX_BYTES_PER_TOKEN = 6  # a weight of 1 in 2^39 costs five, and the rest of the byte before


def _compiled(function: _Function) -> _Function:
    """Compile, keeping the machine code on disk where any folder for that can be written."""
    try:
        return cast(_Function, njit(cache=True, nogil=True)(function))
    except RuntimeError:
        return cast(_Function, njit(nogil=True)(function))


@_compiled
def _maximum(row: Int32) -> int:
    top = row[0]
    for v in range(1, row.shape[0]):
        top = max(top, row[v])
    return top


@_compiled
def _weight(logit: int, top: int, table: UInt32) -> np.uint32:
    """Every value is cut to 32 bits, and the shift is masked, so that the loops around it vectorise."""
    distance = np.uint32(top - logit)
    shift = min(np.uint32(distance >> np.uint32(10)), np.uint32(31)) & np.uint32(31)
    return max(np.uint32(np.uint32(table[distance & np.uint32(1023)]) >> shift), np.uint32(1))


@_compiled
def _sum_weights(row: Int32, begin: int, end: int, top: int, table: UInt32) -> np.int64:
    """Sum of the weights of the symbols begin <= v < end."""
    total = np.int64(0)
    for block in range(begin, end, BLOCK):
        partial = np.uint32(0)
        for v in range(block, min(block + BLOCK, end)):
            partial = np.uint32(partial + _weight(row[v], top, table))
        total += np.int64(partial)
    return total


@_compiled
def _fill_weights(row: Int32, top: int, table: UInt32, weights: UInt32, sums: Int64) -> np.int64:
    """Write each symbol's weight and each block's sum; returns the total."""
    total = np.int64(0)
    for block in range(sums.shape[0]):
        partial = np.uint32(0)
        for v in range(block * BLOCK, min(block * BLOCK + BLOCK, row.shape[0])):
            weight = _weight(row[v], top, table)
            weights[v] = weight
            partial = np.uint32(partial + weight)
        sums[block] = np.int64(partial)
        total += np.int64(partial)
    return total


@_compiled
def _carry(out: Bytes, end: int) -> None:
    at = end - 1
    while out[at] == 255:
        out[at] = 0
        at -= 1
    out[at] += 1


def encoder_state() -> Int64:
    """[low, span, bytes written] of an encoder that has coded nothing."""
    return np.array([0, SPAN_FULL, 0], dtype=np.int64)


@_compiled
def encode_tokens(
    logits: Int32, targets: Int32, alive: Int32, table: UInt32, state: Int64, out: Bytes
) -> None:
    """Code targets [S, T] under logits int32 [S, T, V]: step by step, and the first alive[t] streams of each.

    Args:
        table: uint32 [1024], `exp2_table()`.
        state: from `encoder_state()`, updated.
        out: every byte written so far and room for MAX_BYTES_PER_TOKEN more a token.
    """
    low, span, end = state[0], state[1], state[2]
    vocab = logits.shape[2]
    for t in range(logits.shape[1]):
        for s in range(alive[t]):
            row = logits[s, t]
            target = targets[s, t]
            top = _maximum(row)
            cum = _sum_weights(row, 0, target, top, table)
            after = cum + _sum_weights(row, target, target + 1, top, table)
            total = after + _sum_weights(row, target + 1, vocab, top, table)
            r = span // total
            low += r * cum
            span = span - r * cum if after == total else r * (after - cum)
            if low >= SPAN_FULL:
                low -= SPAN_FULL
                _carry(out, end)
            while span <= SPAN_LOW:
                out[end] = low >> TOP_SHIFT
                end += 1
                low = (low << 8) & (SPAN_FULL - 1)
                span <<= 8
    state[0], state[1], state[2] = low, span, end


@_compiled
def finish_encoding(state: Int64, out: Bytes) -> int:
    """Write the fewest bytes that name a number of the final interval (at most 7); returns the length."""
    low, span, end = state[0], state[1], state[2]
    count = 0
    while True:
        step = 1 << (56 - 8 * count)
        candidate = (low + step - 1) // step * step
        if candidate < low + span:
            break
        count += 1
    if candidate >= SPAN_FULL:
        candidate -= SPAN_FULL
        _carry(out, end)
    for i in range(count):
        out[end + i] = (candidate >> (TOP_SHIFT - 8 * i)) & 255
    return end + count


def decoder_state(data: Bytes) -> Int64:
    """[offset, span, bytes read] of a decoder that has decoded nothing."""
    head = data[:TAIL].tobytes().ljust(TAIL, b"\0")
    return np.array([int.from_bytes(head, "big"), SPAN_FULL, TAIL], dtype=np.int64)


@_compiled
def decode_tokens(logits: Int32, table: UInt32, data: Bytes, state: Int64, ids: Int32) -> bool:
    """Decode one token of each stream into ids [S], under logits int32 [S, V].

    Args:
        state: from `decoder_state(data)`, updated.

    Returns:
        False when the data ended before the tokens did: it is damaged.
    """
    offset, span, position = state[0], state[1], state[2]
    vocab = logits.shape[1]
    weights = np.empty(vocab, dtype=np.uint32)
    sums = np.empty((vocab + BLOCK - 1) // BLOCK, dtype=np.int64)
    for s in range(logits.shape[0]):
        row = logits[s]
        total = _fill_weights(row, _maximum(row), table, weights, sums)
        r = span // total
        target = min(offset // r, total - 1)
        cum, block = np.int64(0), 0
        while cum + sums[block] <= target:
            cum += sums[block]
            block += 1
        symbol = block * BLOCK
        while cum + np.int64(weights[symbol]) <= target:
            cum += np.int64(weights[symbol])
            symbol += 1
        weight = np.int64(weights[symbol])
        ids[s] = symbol
        offset -= r * cum
        span = span - r * cum if cum + weight == total else r * weight
        while span <= SPAN_LOW:
            if position >= data.shape[0] + TAIL:
                return False
            byte = np.int64(data[position]) if position < data.shape[0] else np.int64(0)
            offset = (offset << 8) | byte
            position += 1
            span <<= 8
    state[0], state[1], state[2] = offset, span, position
    return True


@_compiled
def code_lengths(logits: Int32, targets: Int32, table: UInt32) -> npt.NDArray[np.float64]:
    """Bits that each of targets [N] costs under logits int32 [N, V]: log2(total / weight), float64 [N]."""
    bits = np.empty(logits.shape[0], dtype=np.float64)
    for n in range(logits.shape[0]):
        row = logits[n]
        top = _maximum(row)
        weight = _sum_weights(row, targets[n], targets[n] + 1, top, table)
        bits[n] = np.log2(_sum_weights(row, 0, row.shape[0], top, table) / weight)
    return bits
