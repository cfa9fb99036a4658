"""The mixer compiled: tokens to bytes and back, one core, no Python objects.

`reference.py` says the same in plain Python, and the tests hold this file to it byte by byte; docs/mixing.md
specifies it. Everything is int64 with wrapping products, so that nothing turns into floats.

Dimensions: S streams, T steps, V tokens, M models, E experts, I inputs of the mixer.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..compiled import compiled, inlined
from ..kernels import token_weight

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]
Bytes = npt.NDArray[np.uint8]

# Columns of `Mixing.streams`.
HISTORY, WORD, WORD_BEFORE, SHAPE, FIELD, POSITION, LINE, LINE_ABOVE = range(8)
MATCH = 8  # two matches of three columns: stream and position of the byte that is expected, verified length
MATCH_STREAM, MATCH_POSITION, MATCH_LENGTH, MATCH_COLUMNS = range(4)
COLUMNS = 14
# Entries of `Mixing.counts`.
BYTES, RECORD = range(2)
# Inputs: bias, two matches, order 1 twice, experts twice each, models twice each.
BIAS, MATCHES, ORDER_1, FIRST_EXPERT = 0, 1, 3, 5
# Weight vectors of each set.
SETS = 6
SET_STARTS = (0, 256, 544, 1312, 3376, 5440, 5584)  # and their end

SLOT = 16  # bytes of a slot: a check and 15 histories
CHECK_SHIFT = 40
ENDS = 1 << 16  # histories of token ends
APM_STEPS, APM_WIDTH = 33, 192
APM_CONTEXTS = 1 << 16
MATCH_LENGTHS = 32
MAX_LENGTH = 65535
LEAST_MATCH = (5, 11)
VERIFIED = 32  # bytes that a candidate is compared over, at most
RECORD_MAX = 4096
WEIGHT_LIMIT = 1 << 22
RATE_BYTES = 1 << 15  # after so many bytes the extra learning rate has halved
MAP_LIMIT, ORDER_1_LIMIT = 600, 1000  # uses after which a map's rate stays
SPAN_FULL, SPAN_LOW, TOP_SHIFT, TAIL = 1 << 56, 1 << 48, 48, 7
MAX_BYTES_PER_DECISION = 3  # a probability of 2^-16 costs two, and the rest of the byte before


class Mixing(NamedTuple):
    """Adaptive state of a segment; what it means is in `state.py`."""

    slots: Bytes  # [E << (slot_bits + 4)]
    order_1: Bytes  # [65536]
    ends: Bytes  # [ENDS]
    maps: UInt32  # [(E + 4) * 256]: 22 bits of probability, 10 of count; the last four: order 1, ends
    match_maps: Int32  # [2 * MATCH_LENGTHS * 2], 22 bits
    weights: Int32  # [SET_STARTS[-1], I], units of 2^-16
    final: Int32  # [256 * SETS]
    apm: Int32  # [2 * APM_CONTEXTS * APM_STEPS], 22 bits
    history: Bytes  # [S << ring_bits]
    matches: Int64  # [2 << match_bits]: stream << 40 | position of the byte that followed
    followers: Int32  # [256 + 65536]
    last_seen: Int64  # [S * 256]
    records: Int32  # [RECORD_MAX]
    streams: Int64  # [S, COLUMNS]
    counts: Int64  # [2]
    parameters: Int64  # see `state.PARAMETERS`
    following: Bytes  # bit histories
    zeros: Int32
    ones: Int32
    squash: Int32
    stretch: npt.NDArray[np.int16]
    log2: npt.NDArray[np.int16]
    rates: Int32
    inputs: Int32  # [I]
    scratch: Int64  # [10, 32]
    token_weights: UInt32  # [M, V]
    token_sums: Int64  # [M, ceil(V / 64)]


class Tree(NamedTuple):
    """`tree.TokenTree` as arrays."""

    nodes: Int32
    token_bytes: Bytes
    token_ends: Int64


# Entries of `Mixing.parameters`.
EXPERTS, INPUTS, SLOT_BITS, RING_BITS, MATCH_BITS, RATE, EXTRA_RATE, FINAL_RATE = range(8)


@inlined
def _hash(a: int, b: int) -> int:
    h = a * 0x1E3779B97F4A7C15 + b * 0x56E8FEB86659FD93 + 0x632BE59BD9B4E019
    h ^= (h >> 32) & 0xFFFFFFFF
    h *= 0x56E8FEB86659FD93
    return h ^ ((h >> 29) & 0x7FFFFFFFF)


@inlined
def _find(slots: Bytes, base: int, h: int, mask: int, zeros: Int32, ones: Int32) -> int:
    """The slot of hash h in the table that begins at `base`: found, or taken from the least informed."""
    index = h & mask
    check = np.uint8((h >> CHECK_SHIFT) & 255)
    first = base + index * SLOT
    if slots[first] == check:
        return first
    second = base + (index ^ 1) * SLOT
    if slots[second] == check:
        return second
    third = base + (index ^ 2) * SLOT
    if slots[third] == check:
        return third
    a, b, c = slots[first + 1], slots[second + 1], slots[third + 1]
    wa, wb, wc = zeros[a] + ones[a], zeros[b] + ones[b], zeros[c] + ones[c]
    chosen = third
    if wa <= wb and wa <= wc:
        chosen = first
    elif wb <= wc:
        chosen = second
    slots[chosen] = check
    for i in range(1, SLOT):
        slots[chosen + i] = 0
    return chosen


@inlined
def _set_contexts(m: Mixing, s: int, contexts: Int64) -> None:
    """The experts' contexts before the next byte of stream s, as `experts.EXPERTS` lists them."""
    stream = m.streams[s]
    h = stream[HISTORY]
    last = h & 255
    position, ring = stream[POSITION], m.parameters[RING_BITS]
    ring_mask, start = (1 << ring) - 1, s << ring
    column = position - stream[LINE]
    above = 0
    if stream[LINE_ABOVE] + column < stream[LINE]:
        above = np.int64(m.history[start + ((stream[LINE_ABOVE] + column) & ring_mask)])
    record, once, twice = m.counts[RECORD], 0, 0
    if record > 0:
        if position >= record:
            once = np.int64(m.history[start + ((position - record) & ring_mask)])
        if position >= 2 * record:
            twice = np.int64(m.history[start + ((position - 2 * record) & ring_mask)])
    contexts[0] = _hash(h & 0xFFFF, 1)
    contexts[1] = _hash(h & 0xFFFFFF, 2)
    contexts[2] = _hash(h & 0xFFFFFFFF, 3)
    contexts[3] = _hash(h & 0xFFFFFFFFFFFF, 4)
    contexts[4] = _hash(stream[WORD], 5 + (last << 8))
    contexts[5] = _hash(stream[SHAPE], 6)
    contexts[6] = _hash(min(column, 255) << 8 | above, 7)
    contexts[7] = _hash(h & 0xFFFFFFFFFF, 8)
    contexts[8] = _hash(h & 0xFFFF0000, 9)
    contexts[9] = _hash(record << 16 | once << 8 | twice, 10)
    contexts[10] = _hash(np.int64(m.followers[256 + (h & 0xFFFF)]) << 16 | (h & 0xFFFF), 11)
    contexts[11] = _hash(stream[WORD] * 31 + stream[WORD_BEFORE], 12 + (last << 8))
    contexts[12] = _hash(stream[FIELD] << 8 | last, 13)
    contexts[13] = _hash(np.int64(m.followers[last]) << 8 | last, 14)
    contexts[14] = _hash(h & 0xFFFF00, 15)
    contexts[15] = _hash(h & 0xF0F0F0FF, 16)
    contexts[16] = _hash(record << 16 | once << 8 | last, 17)
    contexts[17] = _hash(h, 18)


@inlined
def _push_byte(m: Mixing, s: int, byte: int) -> None:
    """Append a byte to stream s."""
    stream, p = m.streams[s], m.parameters
    before = stream[HISTORY]
    m.followers[before & 255] = (m.followers[before & 255] << 8 | byte) & 0xFFFF
    pair = 256 + (before & 0xFFFF)
    m.followers[pair] = (m.followers[pair] << 8 | byte) & 0xFFFF
    position, ring = stream[POSITION], p[RING_BITS]
    ring_mask, start = (1 << ring) - 1, s << ring
    m.history[start + (position & ring_mask)] = byte

    # The length of records: the distance between equal bytes whose predecessors are equal too.
    seen = s * 256 + byte
    distance = position - m.last_seen[seen]
    m.last_seen[seen] = position
    if 2 < distance < RECORD_MAX and position > distance:
        same = m.history[start + ((position - 1 - distance) & ring_mask)] == (before & 255)
        if same:
            m.records[distance] += 1
            if m.records[distance] > m.records[m.counts[RECORD]] + 4:
                m.counts[RECORD] = distance
    m.counts[BYTES] += 1
    if m.counts[BYTES] & 0x7FF == 0:
        for i in range(RECORD_MAX):
            m.records[i] >>= 1

    history = before << 8 | byte
    stream[HISTORY] = history
    position += 1
    stream[POSITION] = position
    lower = byte + 32 if 65 <= byte <= 90 else byte
    if 97 <= lower <= 122 or byte >= 128:
        stream[WORD] = (stream[WORD] + lower + 1) * 0x2F0B4C47
    elif stream[WORD] != 0:
        stream[WORD_BEFORE] = stream[WORD]
        stream[WORD] = 0
    kind = byte + 4
    if 97 <= lower <= 122:
        kind = 1
    elif 48 <= byte <= 57:
        kind = 2
    elif byte >= 128:
        kind = 3
    if kind > 3 or (stream[SHAPE] & 0x1FF) != kind:
        stream[SHAPE] = stream[SHAPE] << 9 | kind
    if byte == 10:
        stream[LINE_ABOVE] = stream[LINE]
        stream[LINE] = position
        stream[FIELD] = 0
    elif byte == 32 or byte == 44 or byte == 9 or byte == 59:
        stream[FIELD] += 1

    for which in range(2):
        at = MATCH + which * MATCH_COLUMNS
        length = stream[at + MATCH_LENGTH]
        if length > 0:
            source, where = stream[at + MATCH_STREAM], stream[at + MATCH_POSITION]
            expected = np.int64(m.history[(source << ring) + (where & ring_mask)])
            length = min(length + 1, MAX_LENGTH) if expected == byte else 0
            stream[at + MATCH_POSITION] = where + 1
        key = _hash(history & 0xFFFFFFFFFFFF, 20) if which == 0 else _hash(history, 21 + (stream[WORD] << 8))
        entry = (which << p[MATCH_BITS]) + (key & ((1 << p[MATCH_BITS]) - 1))
        if length == 0 and m.matches[entry] != 0:
            source, where = m.matches[entry] >> 40, m.matches[entry] & ((1 << 40) - 1)
            oldest = max(0, m.streams[source, POSITION] - (1 << ring))
            base = source << ring
            while (
                length < VERIFIED
                and where - length > oldest
                and position > length
                and m.history[base + ((where - length - 1) & ring_mask)]
                == m.history[start + ((position - length - 1) & ring_mask)]
            ):
                length += 1
            if length < (LEAST_MATCH[0] if which == 0 else LEAST_MATCH[1]):
                length = 0
            stream[at + MATCH_STREAM] = source
            stream[at + MATCH_POSITION] = where
        if length > 0:
            # What comes next may not be known yet, or not any more.
            newest = m.streams[stream[at + MATCH_STREAM], POSITION]
            where = stream[at + MATCH_POSITION]
            if where >= newest or where < newest - (1 << ring):
                length = 0
        stream[at + MATCH_LENGTH] = length
        m.matches[entry] = s << 40 | position


@inlined
def _learn(maps: UInt32, index: int, bit: int, rates: Int32, limit: int) -> None:
    """Move a map's probability towards the bit, the less the more often it was used."""
    value = np.int64(maps[index])
    chance, count = value >> 10, value & 1023
    rate = np.int64(rates[count])
    if bit:
        chance += (((1 << 22) - chance) >> 3) * rate >> 13
    else:
        chance -= (chance >> 3) * rate >> 13
    maps[index] = chance << 10 | min(count + 1, limit)


@compiled
def _goes_on(tree: Tree, begin: int, end: int, depth: int, byte: int) -> int:
    """1 if a token of begin..end - 1, which begin alike and are longer than `depth`, has `byte` there."""
    ends, text = tree.token_ends, tree.token_bytes
    if ends[begin] + depth == ends[begin + 1]:
        return 0  # tokens of equal bytes
    while begin < end:
        middle = (begin + end) >> 1
        found = np.int64(text[ends[middle] + depth])
        if found == byte:
            return 1
        if found < byte:
            begin = middle + 1
        else:
            end = middle
    return 0


@inlined
def _quantise_length(length: int) -> int:
    return min(length if length < 16 else 16 + ((length - 16) >> 2), MATCH_LENGTHS - 1)


@inlined
def _log2(table: npt.NDArray[np.int16], x: int) -> int:
    """log2 of x >= 1 in units of 2^-10, by the eleven highest bits."""
    exponent = 0
    for step in (32, 16, 8, 4, 2, 1):
        if x >> (exponent + step):
            exponent += step
    mantissa = x >> (exponent - 10) if exponent >= 10 else x << (10 - exponent)
    return exponent << 10 | np.int64(table[mantissa & 1023])


@compiled
def _fill_weights(row: Int32, weights: UInt32, sums: Int64) -> None:
    """The weight of each token, and the sum of all before each block of 64."""
    top = row[0]
    for v in range(1, row.shape[0]):
        top = max(top, row[v])
    for v in range(row.shape[0]):
        weights[v] = token_weight(row[v], top)
    total = np.int64(0)
    for block in range(sums.shape[0]):
        sums[block] = total
        partial = np.uint32(0)
        for v in range(block * 64, min(block * 64 + 64, row.shape[0])):
            partial = np.uint32(partial + weights[v])
        total += np.int64(partial)


@inlined
def _before(weights: UInt32, sums: Int64, token: int) -> int:
    """Sum of the weights of the tokens below `token`."""
    block = token >> 6
    partial = np.uint32(0)
    for v in range(block * 64, token):
        partial = np.uint32(partial + weights[v])
    return sums[block] + np.int64(partial)


@compiled
def code_tokens(
    decoding: bool,
    ids: Int32,
    alive: Int32,
    logits: Int32,
    tree: Tree,
    m: Mixing,
    coder: Int64,
    data: Bytes,
) -> bool:
    """Code or decode ids [S, T], step by step and the first alive[t] streams of each.

    Args:
        ids: what is coded, or where what is decoded goes.
        logits: int32 [M, S, T, V], M = 0 where no model predicts.
        coder: `kernels.encoder_state()` or `kernels.decoder_state(data)`, updated.
        data: every byte written so far and room for MAX_BYTES_PER_DECISION more a decision; or what is read.

    Returns:
        False when the data ended before the tokens did: it is damaged.
    """
    p = m.parameters
    experts, inputs, models = p[EXPERTS], p[INPUTS], logits.shape[0]
    slot_bits, ring = p[SLOT_BITS], p[RING_BITS]
    slot_mask, ring_mask = (1 << slot_bits) - 1, (1 << ring) - 1
    vocab = tree.token_ends.shape[0] - 1
    weights_of, sums_of = m.token_weights, m.token_sums
    totals, below, middles, above = m.scratch[4], m.scratch[5], m.scratch[6], m.scratch[7]
    contexts, slot = m.scratch[0], m.scratch[1]
    x = m.inputs
    used, where = m.scratch[2], m.scratch[3]  # maps that spoke, and histories
    vectors, odds = m.scratch[8], m.scratch[9]
    first_model = FIRST_EXPERT + 2 * experts
    sets = SETS if models else SETS - 1
    low, span, end = coder[0], coder[1], coder[2]
    limit = data.shape[0] + TAIL
    slots, maps, weights, apm, following = m.slots, m.maps, m.weights, m.apm, m.following
    x[BIAS] = 256

    for t in range(ids.shape[1]):
        for s in range(alive[t]):
            stream = m.streams[s]
            rate = p[RATE] + p[EXTRA_RATE] * RATE_BYTES // (RATE_BYTES + m.counts[BYTES])
            for k in range(models):
                _fill_weights(logits[k, s, t], weights_of[k], sums_of[k])
                totals[k] = _before(weights_of[k], sums_of[k], vocab - 1) + np.int64(weights_of[k, vocab - 1])
                below[k], above[k] = 0, totals[k]
            token = np.int64(ids[s, t])
            node, depth, nibble = 0, 0, -1
            expected_0, expected_1, length_0, length_1, hits = -1, -1, 0, 0, 0
            fresh = False
            while node >= 0:
                row = tree.nodes[node]
                begin = tree.token_ends[row[0]]
                while depth < row[3]:
                    _push_byte(m, s, np.int64(tree.token_bytes[begin + depth]))
                    depth += 1
                    fresh = False
                if not fresh:
                    _set_contexts(m, s, contexts)
                    fresh, nibble = True, -1
                    length_0 = _quantise_length(stream[MATCH + MATCH_LENGTH])
                    length_1 = _quantise_length(stream[MATCH + MATCH_COLUMNS + MATCH_LENGTH])
                    expected_0, expected_1 = -1, -1
                    if length_0 > 0:
                        place = (stream[MATCH + MATCH_STREAM] << ring) + (
                            stream[MATCH + MATCH_POSITION] & ring_mask
                        )
                        expected_0 = np.int64(m.history[place]) | 256
                    if length_1 > 0:
                        place = (stream[MATCH + MATCH_COLUMNS + MATCH_STREAM] << ring) + (
                            stream[MATCH + MATCH_COLUMNS + MATCH_POSITION] & ring_mask
                        )
                        expected_1 = np.int64(m.history[place]) | 256
                partial = np.int64(row[4])
                last = stream[HISTORY] & 255
                x[MATCHES], x[MATCHES + 1], x[ORDER_1], x[ORDER_1 + 1] = 0, 0, 0, 0
                match_map_0, match_map_1 = -1, -1
                if partial:
                    bit_number = 0
                    while partial >> (bit_number + 1):
                        bit_number += 1
                    if (bit_number >> 2) != nibble:
                        nibble = bit_number >> 2
                        hits = 0
                        for k in range(experts):
                            h = (
                                contexts[k]
                                if nibble == 0
                                else _hash(contexts[k], partial >> (bit_number - 4))
                            )
                            base = k << (slot_bits + 4)
                            slot[k] = _find(slots, base, h, slot_mask, m.zeros, m.ones)
                            if (k < 4 or k == 7) and slots[slot[k] + 1] != 0:
                                hits += 1
                    offset = partial
                    if nibble == 1:
                        offset = (partial & ((1 << (bit_number - 4)) - 1)) | 1 << (bit_number - 4)
                    for k in range(experts):
                        where[k] = slot[k] + offset
                        state = np.int64(slots[where[k]])
                        used[k] = k << 8 | state
                        chance = np.int64(maps[used[k]] >> np.uint32(20))
                        known = np.int64(state != 0)
                        x[FIRST_EXPERT + 2 * k] = m.stretch[chance] * known
                        x[FIRST_EXPERT + 2 * k + 1] = ((chance - 2048) >> 1) * known
                    where[experts] = last << 8 | partial
                    state = np.int64(m.order_1[where[experts]])
                    used[experts] = experts << 8 | state
                    chance = np.int64(maps[used[experts]] >> np.uint32(20))
                    x[ORDER_1] = m.stretch[chance]
                    x[ORDER_1 + 1] = (chance - 2048) >> 1
                    if expected_0 >> (8 - bit_number) == partial:
                        match_map_0 = length_0 << 1 | (expected_0 >> (7 - bit_number) & 1)
                        x[MATCHES] = m.stretch[m.match_maps[match_map_0] >> 10]
                    if expected_1 >> (8 - bit_number) == partial:
                        match_map_1 = (MATCH_LENGTHS + length_1) << 1 | (expected_1 >> (7 - bit_number) & 1)
                        x[MATCHES + 1] = m.stretch[m.match_maps[match_map_1] >> 10]
                    vectors[0] = partial
                    vectors[1] = (length_0 if match_map_0 >= 0 else 0) << 3 | hits
                    vectors[2] = nibble << 8 | last
                    vectors[3] = (stream[HISTORY] >> 8 & 255) << 3 | bit_number
                    vectors[4] = min(stream[POSITION] - stream[LINE], 255) << 3 | bit_number
                    vectors[5] = bit_number
                else:
                    bit_number = 0
                    for k in range(experts):
                        x[FIRST_EXPERT + 2 * k] = 0
                        x[FIRST_EXPERT + 2 * k + 1] = 0
                    continues = 0
                    if length_0 > 0:
                        # Does a longer token go on with the byte that is expected?
                        continues = 1 + _goes_on(tree, row[1], row[2], depth, expected_0 & 255)
                    where[0] = node & (ENDS - 1)
                    where[1] = _hash(stream[HISTORY] & 0xFFFFFF, node) & (ENDS - 1)
                    where[2] = _hash(node, continues << 5 | length_0) & (ENDS - 1)
                    for k in range(3):
                        state = np.int64(m.ends[where[k]])
                        used[k] = (experts + 1 + k) << 8 | state
                        chance = np.int64(maps[used[k]] >> np.uint32(20))
                        known = np.int64(state != 0)
                        x[FIRST_EXPERT + 2 * k] = m.stretch[chance] * known
                        x[FIRST_EXPERT + 2 * k + 1] = ((chance - 2048) >> 1) * known
                    vectors[0] = 0
                    vectors[1] = 256 + length_0
                    vectors[2] = 512 | last
                    vectors[3] = 2048 + min(depth, 15)
                    vectors[4] = 2048 + min(depth, 15)
                    vectors[5] = 8
                for k in range(models):
                    middle = _before(weights_of[k], sums_of[k], np.int64(row[1]))
                    middles[k] = middle
                    difference = _log2(m.log2, above[k] - middle) - _log2(m.log2, middle - below[k])
                    stretched = max(-4095, min(4095, difference >> 2))
                    x[first_model + 2 * k] = stretched
                    x[first_model + 2 * k + 1] = (m.squash[stretched + 4096] - 32768) >> 5
                    if k == 0:
                        vectors[5] += ((stretched + 4096) >> 9) * 9

                # Mix.
                total = np.int64(0)
                final = np.int64(vectors[0]) * SETS
                for i in range(sets):
                    vectors[i] += SET_STARTS[i]
                    vector = vectors[i]
                    dot = np.int64(0)
                    for j in range(inputs):
                        dot += np.int64(weights[vector, j]) * np.int64(x[j])
                    odds[i] = max(-4095, min(4095, dot >> 16))
                    total += odds[i] * np.int64(m.final[final + i])
                mixed = max(-4095, min(4095, total >> 16))
                chance = np.int64(m.squash[mixed + 4096])
                # Refine.
                scaled = max(0, min(6143, mixed + 3072))
                step = scaled // APM_WIDTH
                part = scaled - step * APM_WIDTH
                refined_0 = (last << 8 | partial) * APM_STEPS + step
                refined_1 = _hash(stream[HISTORY] & 0xFFFF, partial << 1) & (APM_CONTEXTS - 1)
                refined_1 = (APM_CONTEXTS + refined_1) * APM_STEPS + step
                q = np.int64(apm[refined_0]) * (APM_WIDTH - part) + np.int64(apm[refined_0 + 1]) * part
                q += np.int64(apm[refined_1]) * (APM_WIDTH - part) + np.int64(apm[refined_1 + 1]) * part
                coded = (2 * chance + q // (APM_WIDTH * 64) + 2) >> 2
                coded = max(1, min(65535, coded))

                # Code.
                one = (span >> 16) * coded
                if decoding:
                    bit = 1 if low < one else 0
                    if bit:
                        span = one
                    else:
                        low -= one
                        span -= one
                else:
                    bit = 1 if token >= row[1] else 0
                    if bit:
                        span = one
                    else:
                        low += one
                        span -= one
                    if low >= SPAN_FULL:
                        low -= SPAN_FULL
                        at = end - 1
                        while data[at] == 255:
                            data[at] = 0
                            at -= 1
                        data[at] += 1
                while span <= SPAN_LOW:
                    if decoding:
                        if end >= limit:
                            return False
                        low = low << 8 | (np.int64(data[end]) if end < data.shape[0] else 0)
                    else:
                        data[end] = low >> TOP_SHIFT
                        low = (low << 8) & (SPAN_FULL - 1)
                    end += 1
                    span <<= 8

                # Learn.
                target = 65535 * 64 * bit
                nearer = 1 if 2 * part >= APM_WIDTH else 0
                apm[refined_0 + nearer] += (target - apm[refined_0 + nearer]) >> 5
                apm[refined_1 + nearer] += (target - apm[refined_1 + nearer]) >> 5
                error = ((bit << 16) - chance) * p[FINAL_RATE] >> 8
                for i in range(sets):
                    changed = np.int64(m.final[final + i]) + ((odds[i] * error + 8192) >> 14)
                    m.final[final + i] = max(-WEIGHT_LIMIT, min(WEIGHT_LIMIT, changed))
                for i in range(sets):
                    step_size = np.int32((((bit << 16) - np.int64(m.squash[odds[i] + 4096])) * rate) >> 8)
                    vector = vectors[i]
                    for j in range(inputs):
                        move = np.int32(np.int32(np.int32(x[j] * step_size) + np.int32(8192)) >> np.int32(14))
                        moved = np.int32(weights[vector, j] + move)
                        weights[vector, j] = max(np.int32(-WEIGHT_LIMIT), min(np.int32(WEIGHT_LIMIT), moved))
                goal = (bit << 22) - bit
                if partial:
                    for k in range(experts):
                        state = used[k] & 255
                        _learn(maps, used[k], bit, m.rates, MAP_LIMIT)
                        slots[where[k]] = following[2 * state + bit]
                    state = used[experts] & 255
                    _learn(maps, used[experts], bit, m.rates, ORDER_1_LIMIT)
                    m.order_1[where[experts]] = following[2 * state + bit]
                    if match_map_0 >= 0:
                        m.match_maps[match_map_0] += (goal - m.match_maps[match_map_0]) >> 7
                    if match_map_1 >= 0:
                        m.match_maps[match_map_1] += (goal - m.match_maps[match_map_1]) >> 7
                else:
                    for k in range(3):
                        state = used[k] & 255
                        _learn(maps, used[k], bit, m.rates, MAP_LIMIT)
                        m.ends[where[k]] = following[2 * state + bit]

                # Descend.
                for k in range(models):
                    if bit:
                        below[k] = middles[k]
                    else:
                        above[k] = middles[k]
                node = np.int64(row[5 + bit])
            token = -1 - node
            begin, stop = tree.token_ends[token], tree.token_ends[token + 1]
            for at in range(begin + depth, stop):
                _push_byte(m, s, np.int64(tree.token_bytes[at]))
            if decoding:
                ids[s, t] = token
    coder[0], coder[1], coder[2] = low, span, end
    return True
