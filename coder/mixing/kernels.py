"""The mixer compiled: tokens to bytes and back, one core, no Python objects.

`reference.py` says the same in plain Python, and the tests hold this file to it byte by byte; docs/mixing.md
specifies it. Everything is int64 with wrapping products, so that nothing turns into floats.

Dimensions: S streams, T steps, V tokens, M models, E experts, I inputs of the mixer.
"""

# numba's integers are no Python ints:
# pyright: reportArgumentType=false, reportReturnType=false

import numpy as np
import numpy.typing as npt

from ..compiled import compiled, inlined
from ..kernels import BLOCK, token_weight
from .layout import (
    APM_CONTEXTS,
    APM_STEPS,
    APM_WIDTH,
    BIAS,
    BYTES,
    ENDS,
    EXPERTS,
    EXTRA_RATE,
    FINAL_RATE,
    FIRST_EXPERT,
    HISTORY,
    INPUTS,
    LINE,
    MAP_LIMIT,
    MATCH,
    MATCH_COLUMNS,
    MATCH_LENGTH,
    MATCH_LENGTHS,
    MATCH_POSITION,
    MATCH_STREAM,
    MATCHES,
    ORDER_1,
    ORDER_1_LIMIT,
    POSITION,
    RATE,
    RATE_BYTES,
    RING_BITS,
    SET_STARTS,
    SETS,
    SLOT_BITS,
    SPAN_FULL,
    SPAN_LOW,
    TAIL,
    TOP_SHIFT,
    WEIGHT_LIMIT,
    Bytes,
    Int32,
    Int64,
    Mixing,
    Tree,
    UInt32,
)
from .prefetch import prefetch
from .pastkernels import find, goes_on, hash_of, length_class, push_byte, set_contexts


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


@inlined
def _log2(table: npt.NDArray[np.int16], x: int) -> int:
    """log2 of 1 <= x < 2^53 in units of 2^-10, by the eleven highest bits: those of x as a float64."""
    exact = np.float64(x).view(np.int64)
    return ((exact >> 52) - 1023) << 10 | np.int64(table[(exact >> 42) & 1023])


@compiled
def _fill_weights(row: Int32, weights: UInt32, sums: Int64) -> int:
    """The weight of each token, and the sum of all before each block; returns the sum of all."""
    top = row[0]
    for v in range(row.shape[0]):
        top = max(top, row[v])
    whole = row.shape[0] // BLOCK
    total = np.int64(0)
    for block in range(whole):  # of a constant length, so that the loop becomes vectors and nothing else
        sums[block] = total
        partial = np.uint32(0)
        for v in range(BLOCK):
            weight = token_weight(row[block * BLOCK + v], top)
            weights[block * BLOCK + v] = weight
            partial = np.uint32(partial + weight)
        total += np.int64(partial)
    sums[whole] = total
    for v in range(whole * BLOCK, row.shape[0]):
        weight = token_weight(row[v], top)
        weights[v] = weight
        total += np.int64(weight)
    return total


@inlined
def _before(weights: UInt32, sums: Int64, token: int) -> int:
    """Sum of the weights of the tokens below `token`."""
    block = token // BLOCK
    within = np.int32(token - block * BLOCK)
    partial = np.uint32(0)
    for v in range(BLOCK):
        weight = weights[block * BLOCK + v]
        partial = np.uint32(partial + (weight if np.int32(v) < within else np.uint32(0)))
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
    weights_of, sums_of = m.token_weights, m.token_sums
    below, middles, above = m.scratch[5], m.scratch[6], m.scratch[7]
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
                below[k], above[k] = 0, _fill_weights(logits[k, s, t], weights_of[k], sums_of[k])
            token = np.int64(ids[s, t])
            node, depth, nibble = 0, 0, -1
            expected_0, expected_1, length_0, length_1, hits = -1, -1, 0, 0, 0
            fresh = False
            while node >= 0:
                row = tree.nodes[node]
                begin = tree.token_ends[row[0]]
                while depth < row[3]:
                    push_byte(m, s, np.int64(tree.token_bytes[begin + depth]))
                    depth += 1
                    fresh = False
                if not fresh:
                    set_contexts(m, s, contexts)
                    for k in range(experts):
                        prefetch(slots, (k << (slot_bits + 4)) + ((contexts[k] & slot_mask) << 4))
                    fresh, nibble = True, -1
                    length_0 = length_class(stream[MATCH + MATCH_LENGTH])
                    length_1 = length_class(stream[MATCH + MATCH_COLUMNS + MATCH_LENGTH])
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
                apm_0 = (last << 8 | partial) * APM_STEPS
                apm_1 = hash_of(stream[HISTORY] & 0xFFFF, partial) & (APM_CONTEXTS - 1)
                apm_1 = (APM_CONTEXTS + apm_1) * APM_STEPS
                prefetch(apm, apm_0)
                prefetch(apm, apm_0 + 16)
                prefetch(apm, apm_0 + 32)
                prefetch(apm, apm_1)
                prefetch(apm, apm_1 + 16)
                prefetch(apm, apm_1 + 32)
                x[MATCHES], x[MATCHES + 1], x[ORDER_1], x[ORDER_1 + 1] = 0, 0, 0, 0
                match_map_0, match_map_1 = -1, -1
                if partial:
                    bit_number = 0
                    while partial >> (bit_number + 1):
                        bit_number += 1
                    if (bit_number >> 2) != nibble:
                        nibble = bit_number >> 2
                        hits = 0
                        if nibble == 1:
                            for k in range(experts):
                                contexts[k] = hash_of(contexts[k], partial >> (bit_number - 4))
                            for k in range(experts):
                                prefetch(slots, (k << (slot_bits + 4)) + ((contexts[k] & slot_mask) << 4))
                        for k in range(experts):
                            h = contexts[k]
                            base = k << (slot_bits + 4)
                            slot[k] = find(slots, base, h, slot_mask, m.zeros, m.ones)
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
                        continues = 1 + goes_on(tree, row[1], row[2], depth, expected_0 & 255)
                    where[0] = node & (ENDS - 1)
                    where[1] = hash_of(stream[HISTORY] & 0xFFFFFF, node) & (ENDS - 1)
                    where[2] = hash_of(node, continues << 5 | length_0) & (ENDS - 1)
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
                refined_0, refined_1 = apm_0 + step, apm_1 + step
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
                push_byte(m, s, np.int64(tree.token_bytes[at]))
            if decoding:
                ids[s, t] = token
    coder[0], coder[1], coder[2] = low, span, end
    return True
