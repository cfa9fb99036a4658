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
Bytes = npt.NDArray[np.uint8]
Whole = int | np.int64

TAIL = 7
TOP_SHIFT = 48
SPAN_FULL = 1 << 56
SPAN_LOW = 1 << 48
BLOCK = 64  # symbols a partial sum: at most 64 * 2^22 < 2^32
MAX_BYTES_PER_TOKEN = 6  # a weight of 1 in 2^39 costs five, and the rest of the byte before


@compiled
def maximum(row: Int32) -> int:
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
def _block_sum(block: Int32, top: int) -> np.int64:
    """Sum of the weights of BLOCK logits; a loop of constant length is what vectorises fully."""
    partial = np.uint32(0)
    for v in range(BLOCK):
        partial = np.uint32(partial + token_weight(block[v], top))
    return np.int64(partial)


@compiled
def sum_weights(row: Int32, begin: int, end: int, top: int) -> np.int64:
    """Sum of the weights of the symbols begin <= v < end."""
    total, at = np.int64(0), begin
    while at + BLOCK <= end:
        total += _block_sum(row[at : at + BLOCK], top)
        at += BLOCK
    for v in range(at, end):
        total += np.int64(token_weight(row[v], top))
    return total


@compiled
def fill_sums(row: Int32, top: int, sums: Int64) -> np.int64:
    """Write the sum of each block's weights; returns the total."""
    total = np.int64(0)
    for block in range(sums.shape[0]):
        begin = block * BLOCK
        sums[block] = sum_weights(row, begin, min(begin + BLOCK, row.shape[0]), top)
        total += sums[block]
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


@inlined
def encode_interval(cum: Whole, after: Whole, total: Whole, state: Int64, out: Bytes) -> None:
    """Code the symbol whose interval is cum <= x < after of total < 2^39: at most 6 bytes more."""
    low, span, end = state[0], state[1], state[2]
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
def _encode_token(row: Int32, target: int, state: Int64, out: Bytes) -> None:
    vocab = row.shape[0]
    top = maximum(row)
    cum = sum_weights(row, 0, target, top)
    after = cum + sum_weights(row, target, target + 1, top)
    total = after + sum_weights(row, target + 1, vocab, top)
    encode_interval(cum, after, total, state, out)


@compiled
def encode_tokens(logits: Int32, targets: Int32, alive: Int32, state: Int64, out: Bytes) -> None:
    """Code targets [S, T] under logits int32 [S, T, V]: step by step, and the first alive[t] streams of each.

    Args:
        state: from `encoder_state()`, updated.
        out: every byte written so far and room for MAX_BYTES_PER_TOKEN more a token.
    """
    for t in range(logits.shape[1]):
        for s in range(alive[t]):
            _encode_token(logits[s, t], targets[s, t], state, out)


@compiled
def encode_rows(
    logits: Int32, targets: Int32, counts: Int64, limits: Int64, states: Int64, out: Bytes
) -> None:
    """Code the first counts[s] of targets [S, T] by a coder of each row's own, into row s of out [S, B].

    Args:
        logits: int32 [S, T, V]; or [1, T, V], for every row the same.
        limits: a row that has written more than limits[s] bytes is given up: states[s, 2] stays above.
        states: int64 [S or more, 3], each as of `encoder_state()`, updated.
        out: B is at least MAX_BYTES_PER_TOKEN + TAIL above every limit.
    """
    shared = logits.shape[0] - 1
    for s in range(targets.shape[0]):
        for t in range(counts[s]):
            if states[s, 2] > limits[s]:
                break
            _encode_token(logits[min(s, shared), t], targets[s, t], states[s], out[s])


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


@compiled
def finish_rows(limits: Int64, states: Int64, out: Bytes, lengths: Int64) -> None:
    """`finish_encoding` for each row into lengths [S]; -1 where the row has more than limits[s] bytes."""
    for s in range(lengths.shape[0]):
        lengths[s] = -1
        if states[s, 2] <= limits[s]:
            length = finish_encoding(states[s], out[s])
            if length <= limits[s]:
                lengths[s] = length


def decoder_state(data: Bytes) -> Int64:
    """[offset, span, bytes read] of a decoder that has decoded nothing."""
    return decoder_states([data[:TAIL].tobytes()])[0]


def decoder_states(payloads: list[bytes]) -> Int64:
    """Those of several decoders, int64 [S, 3]."""
    heads = [int.from_bytes(payload[:TAIL].ljust(TAIL, b"\0"), "big") for payload in payloads]
    return np.array([[head, SPAN_FULL, TAIL] for head in heads], dtype=np.int64)


def decode_tokens(logits: Int32, data: Bytes, state: Int64, ids: Int32) -> bool:
    """Decode one token of each stream into ids [S], under logits int32 [S, V].

    Args:
        state: from `decoder_state(data)`, updated.

    Returns:
        False when the data ended before the tokens did: it is damaged.
    """
    vocab = int(logits.shape[1])
    sums = np.empty((vocab + BLOCK - 1) // BLOCK, dtype=np.int64)
    return decode_each(logits, data, state, ids, sums)


@inlined
def decode_target(total: Whole, state: Int64) -> int:
    """The number below `total` that lies in the interval of the next symbol."""
    return min(state[0] // (state[1] // total), total - 1)


@inlined
def decode_interval(cum: Whole, after: Whole, total: Whole, state: Int64, data: Bytes) -> bool:
    """Take the symbol whose interval is cum <= x < after of total; False when the data ended before it."""
    offset, span, position = state[0], state[1], state[2]
    r = span // total
    offset -= r * cum
    span = span - r * cum if after == total else r * (after - cum)
    while span <= SPAN_LOW:
        if position >= data.shape[0] + TAIL:
            return False
        byte = np.int64(data[position]) if position < data.shape[0] else np.int64(0)
        offset = (offset << 8) | byte
        position += 1
        span <<= 8
    state[0], state[1], state[2] = offset, span, position
    return True


@compiled
def _decode_token(row: Int32, data: Bytes, state: Int64, sums: Int64) -> int:
    """The next token, or -1 when the data ended before it did."""
    top = maximum(row)
    total = fill_sums(row, top, sums)
    target = decode_target(total, state)
    cum, block = np.int64(0), 0
    while cum + sums[block] <= target:
        cum += sums[block]
        block += 1
    symbol = block * BLOCK
    weight = np.int64(token_weight(row[symbol], top))
    while cum + weight <= target:
        cum += weight
        symbol += 1
        weight = np.int64(token_weight(row[symbol], top))
    return symbol if decode_interval(cum, cum + weight, total, state, data) else -1


@compiled
def decode_each(logits: Int32, data: Bytes, state: Int64, ids: Int32, sums: Int64) -> bool:
    for s in range(logits.shape[0]):
        symbol = _decode_token(logits[s], data, state, sums)
        if symbol < 0:
            return False
        ids[s] = symbol
    return True


def decode_rows(logits: Int32, data: Bytes, bounds: Int64, states: Int64, ids: Int32) -> int:
    """Decode one token of each row into ids [S], each by a coder of its own.

    Args:
        logits: int32 [S, V]; or [1, V], for every row the same.
        data: the coded bytes of all rows; those of row s are data[bounds[s, 0] : bounds[s, 1]].
        states: int64 [S or more, 3], each as of `decoder_state(data)`, updated. Where the data ended before
            the token did the span becomes 0; such a row decodes to 0 from then on.

    Returns:
        How many rows have not failed.
    """
    vocab = int(logits.shape[1])
    sums = np.empty((vocab + BLOCK - 1) // BLOCK, dtype=np.int64)
    return _decode_rows(logits, data, bounds, states, ids, sums)


@compiled
def _decode_rows(logits: Int32, data: Bytes, bounds: Int64, states: Int64, ids: Int32, sums: Int64) -> int:
    shared, sound = logits.shape[0] - 1, 0
    for s in range(ids.shape[0]):
        ids[s] = 0
        if states[s, 1] == 0:
            continue
        piece = data[bounds[s, 0] : bounds[s, 1]]
        symbol = _decode_token(logits[min(s, shared)], piece, states[s], sums)
        if symbol < 0:
            states[s, 1] = 0
        else:
            ids[s] = symbol
            sound += 1
    return sound


@compiled
def ended_shortest(data: Bytes, bounds: Int64, states: Int64, sound: npt.NDArray[np.bool_]) -> None:
    """Whether the data of each row is what an encoder writes that ends here; into sound [S].

    That is position - TAIL bytes, and the fewest more that name a number of the final interval: the first
    multiple of a power of 256 from `low` on.
    """
    for s in range(sound.shape[0]):
        offset, span, position = states[s, 0], states[s, 1], states[s, 2]
        length, read = bounds[s, 1] - bounds[s, 0], np.int64(0)
        sound[s] = False
        if span == 0:
            continue
        for i in range(position - TAIL, position):
            read = (read << 8) | (np.int64(data[bounds[s, 0] + i]) if i < length else np.int64(0))
        low, count = read - offset, 0
        while -low & ((1 << (56 - 8 * count)) - 1) >= span:
            count += 1
        further = -low & ((1 << (56 - 8 * count)) - 1)
        sound[s] = offset == further and position - TAIL + count == length


def is_shortest(data: Bytes, state: Int64) -> bool:
    """`ended_shortest` for the one decoder of all of `data`."""
    sound = np.zeros(1, dtype=np.bool_)
    ended_shortest(data, np.array([[0, len(data)]], dtype=np.int64), state[None], sound)
    return bool(sound[0])


def code_lengths(logits: Int32, targets: Int32) -> npt.NDArray[np.float64]:
    """Bits that each of targets [N] costs under logits int32 [N, V]: log2(total / weight), float64 [N]."""
    bits = np.empty(logits.shape[0], dtype=np.float64)
    _code_lengths(logits, targets, bits)
    return bits


@compiled
def _code_lengths(logits: Int32, targets: Int32, bits: npt.NDArray[np.float64]) -> None:
    for n in range(logits.shape[0]):
        row = logits[n]
        top = maximum(row)
        weight = sum_weights(row, targets[n], targets[n] + 1, top)
        bits[n] = np.log2(sum_weights(row, 0, row.shape[0], top) / weight)
