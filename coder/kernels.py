"""The range coder compiled: from logits to bytes and back, one core, no Python objects.

`rangecoder.py` says what these do; the tests hold them to it bit for bit.

Dimensions: S streams, T steps, V symbols. All integers fit into int64, and mixing int64 with uint64 (which
numba would turn into floats) is avoided.
"""

import numpy as np
import numpy.typing as npt

from .compiled import compiled, inlined

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]
Bytes = npt.NDArray[np.uint8]

TAIL = 7
TOP_SHIFT = 48
SPAN_FULL = 1 << 56
SPAN_LOW = 1 << 48
BLOCK = 64  # symbols a partial sum: at most 64 * 2^22 < 2^32
MAX_BYTES_PER_TOKEN = 6  # a weight of 1 in 2^39 costs five, and the rest of the byte before


@compiled
def _maximum(row: Int32) -> int:
    top = row[0]
    for v in range(1, row.shape[0]):
        top = max(top, row[v])
    return top


@inlined
def token_weight(logit: int, top: int) -> np.uint32:
    """2^22 * 2^-(distance / 1024), nearly; all is cut to 32 bits so that the loops around vectorise."""
    distance = np.uint32(top - logit)
    part = np.uint32(distance & np.uint32(1023))
    slope = np.uint32(np.uint32(704512) - np.uint32(np.uint32(176) * part))
    weight = np.uint32(np.uint32(1 << 22) - np.uint32(np.uint32(part * slope) >> np.uint32(8)))
    shift = min(np.uint32(distance >> np.uint32(10)), np.uint32(31)) & np.uint32(31)
    return max(np.uint32(weight >> shift), np.uint32(1))


@compiled
def _sum_weights(row: Int32, begin: int, end: int, top: int) -> np.int64:
    """Sum of the weights of the symbols begin <= v < end."""
    total = np.int64(0)
    for block in range(begin, end, BLOCK):
        partial = np.uint32(0)
        for v in range(block, min(block + BLOCK, end)):
            partial = np.uint32(partial + token_weight(row[v], top))
        total += np.int64(partial)
    return total


@compiled
def _fill_weights(row: Int32, top: int, weights: UInt32, sums: Int64) -> np.int64:
    """Write each symbol's weight and each block's sum; returns the total."""
    total = np.int64(0)
    for block in range(sums.shape[0]):
        partial = np.uint32(0)
        for v in range(block * BLOCK, min(block * BLOCK + BLOCK, row.shape[0])):
            weight = token_weight(row[v], top)
            weights[v] = weight
            partial = np.uint32(partial + weight)
        sums[block] = np.int64(partial)
        total += np.int64(partial)
    return total


@compiled
def _carry(out: Bytes, end: int) -> None:
    at = end - 1
    while out[at] == 255:
        out[at] = 0
        at -= 1
    out[at] += 1


def with_room(out: Bytes, state: Int64, more: int) -> Bytes:
    """`out`, longer where `more` bytes and the end would not fit behind what an encoder has written."""
    room = int(state[2]) + more + TAIL
    if room <= len(out):
        return out
    return np.concatenate([out, np.zeros(max(room, 2 * len(out)) - len(out), dtype=np.uint8)])


def encoder_state() -> Int64:
    """[low, span, bytes written] of an encoder that has coded nothing."""
    return np.array([0, SPAN_FULL, 0], dtype=np.int64)


@compiled
def encode_tokens(logits: Int32, targets: Int32, alive: Int32, state: Int64, out: Bytes) -> None:
    """Code targets [S, T] under logits int32 [S, T, V]: step by step, and the first alive[t] streams of each.

    Args:
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
            cum = _sum_weights(row, 0, target, top)
            after = cum + _sum_weights(row, target, target + 1, top)
            total = after + _sum_weights(row, target + 1, vocab, top)
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


@compiled
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


def decode_tokens(logits: Int32, data: Bytes, state: Int64, ids: Int32) -> bool:
    """Decode one token of each stream into ids [S], under logits int32 [S, V].

    Args:
        state: from `decoder_state(data)`, updated.

    Returns:
        False when the data ended before the tokens did: it is damaged.
    """
    vocab = int(logits.shape[1])
    sums = np.empty((vocab + BLOCK - 1) // BLOCK, dtype=np.int64)
    weights = np.empty(vocab, dtype=np.uint32)
    return _decode_tokens(logits, data, state, ids, weights, sums)


@compiled
def _decode_tokens(
    logits: Int32, data: Bytes, state: Int64, ids: Int32, weights: UInt32, sums: Int64
) -> bool:
    offset, span, position = state[0], state[1], state[2]
    for s in range(logits.shape[0]):
        row = logits[s]
        total = _fill_weights(row, _maximum(row), weights, sums)
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


def code_lengths(logits: Int32, targets: Int32) -> npt.NDArray[np.float64]:
    """Bits that each of targets [N] costs under logits int32 [N, V]: log2(total / weight), float64 [N]."""
    bits = np.empty(logits.shape[0], dtype=np.float64)
    _code_lengths(logits, targets, bits)
    return bits


@compiled
def _code_lengths(logits: Int32, targets: Int32, bits: npt.NDArray[np.float64]) -> None:
    for n in range(logits.shape[0]):
        row = logits[n]
        top = _maximum(row)
        weight = _sum_weights(row, targets[n], targets[n] + 1, top)
        bits[n] = np.log2(_sum_weights(row, 0, row.shape[0], top) / weight)
