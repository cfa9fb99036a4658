"""The mixer compiled: tokens to bytes and back, one core, no Python objects.

`reference.py` says the same in plain Python, and the tests hold this file to it byte by byte; docs/mixing.md
specifies it. Everything is int64 with wrapping products, so that nothing turns into floats. An index without
sign is not asked whether it counts from the end.

Much of the time goes to waiting for memory. So what is read next is fetched early: a decision is learned
from only after the bytes that it completed are appended and the slots of the next one are on their way.

Dimensions: S streams, T steps, V tokens, M models, E experts, I inputs of the mixer.
"""

# numba's integers are no Python ints:
# pyright: reportArgumentType=false, reportReturnType=false

import numpy as np
import numpy.typing as npt

from ..compiled import compiled, inlined
from ..kernels import BLOCK, token_weight
from .askkernels import ask_ends, ask_experts, learn_maps
from .experts import TOKEN_EXPERTS
from .instructions import prefetch
from .layout import (
    APM_CONTEXTS,
    APM_STEPS,
    APM_WIDTH,
    BIAS,
    BYTES,
    EXPERTS,
    EXTRA_RATE,
    FINAL_RATE,
    FIRST_EXPERT,
    FIRST_OF_ENDS,
    HISTORY,
    LINE,
    LINE_INTS,
    MATCH_LENGTHS,
    POSITION,
    RATE,
    RATE_BYTES,
    SET_STARTS,
    SETS,
    SLOT_BITS,
    SPAN_FULL,
    SPAN_LOW,
    TAIL,
    TOP_SHIFT,
    Bytes,
    Int32,
    Int64,
    Mixing,
    Tree,
    UInt32,
)
from .mixkernels import learn_mix, mix
from .pastkernels import (
    begin_token,
    end_token,
    expect,
    fetch_slots,
    find,
    floor_log2,
    goes_on,
    hash_of,
    push_byte,
    set_contexts,
    set_token_contexts,
)
from .tree import DEPTH, HIGH, LOW, MIDDLE, PARTIAL, ZERO

FETCHED_LINES = 16  # of each model's next predictions, a decision


@inlined
def _log2(table: npt.NDArray[np.int16], x: int) -> int:
    """log2 of 1 <= x < 2^53 in units of 2^-10, by the eleven highest bits: those of x as a float64."""
    exact = np.float64(x).view(np.int64) >> 42  # exponent and ten bits of the fraction
    return ((exact >> 10) - 1023) << 10 | np.int64(table[np.uint64(exact & 1023)])


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
    begin, within = np.uint64(block * BLOCK), np.int32(token - block * BLOCK)
    partial = np.uint32(0)
    for v in range(BLOCK):  # all of them, so that nothing is to be guessed
        weight = weights[begin + np.uint64(v)]
        partial = np.uint32(partial + (weight if np.int32(v) < within else np.uint32(0)))
    return sums[np.uint64(block)] + np.int64(partial)


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
    experts, models = p[EXPERTS], logits.shape[0]
    slot_bits = p[SLOT_BITS]
    slot_mask = (1 << slot_bits) - 1
    weights_of, sums_of = m.token_weights, m.token_sums
    below, middles, above = m.scratch[1], m.scratch[2], m.scratch[3]
    contexts, odds, spoken, end_keys = m.scratch[0], m.scratch[4], m.scratch[5], m.scratch[6]
    slot, vectors = m.places[0], m.places[3]
    x = m.inputs
    first_model = FIRST_EXPERT + 2 * experts
    sets = SETS if models else SETS - 1
    low, span, end = coder[0], coder[1], coder[2]
    limit = data.shape[0] + TAIL
    slots, apm = m.slots, m.apm
    x[BIAS] = 256
    odds[SETS - 1] = 0
    # Of the stream whose token comes next; each token's end does it for the one after.
    set_contexts(m, 0, contexts)
    if models:
        begin_token(m, 0, spoken)
        set_token_contexts(spoken, contexts)
    length_0, length_1, expected_0, expected_1 = expect(m, 0)
    # Of the decision before, as long as nothing was learned from it.
    bit, rate, error, partial, moved_0, moved_1, match_map_0, match_map_1 = 0, 0, 0, 0, 0, 0, -1, -1
    hits = 0

    for t in range(ids.shape[1]):
        for s in range(alive[t]):
            stream = m.streams[s]
            token = np.int64(ids[s, t])
            later, after = (s + 1, t) if s + 1 < alive[t] else (0, min(t + 1, ids.shape[1] - 1))
            node, depth, nibble, fetched, fresh, decided = 0, 0, -1, 0, True, False
            rate = p[RATE] + p[EXTRA_RATE] * RATE_BYTES // (RATE_BYTES + m.counts[BYTES])
            for k in range(models):
                below[k], above[k] = 0, _fill_weights(logits[k, s, t], weights_of[k], sums_of[k])
            while True:
                # Arrive: at a node, or at the token (then contexts are those of the next stream).
                row = tree.nodes[max(node, 0)]
                first, known = np.int64(row[LOW]), np.int64(row[DEPTH])
                if node < 0:
                    first = -1 - node
                    known = tree.token_ends[first + 1] - tree.token_ends[first]
                begin = tree.token_ends[first]
                while depth < known:
                    byte = np.int64(tree.token_bytes[begin + depth])
                    push_byte(m, s, byte)
                    if models:
                        for k in range(len(TOKEN_EXPERTS)):
                            spoken[k] = hash_of(spoken[k], byte)
                    depth += 1
                    fresh = False
                if node < 0 or not fresh:
                    whose = s if node >= 0 else later
                    set_contexts(m, whose, contexts)
                    if models:
                        if node < 0:
                            end_token(m, s, first)
                            begin_token(m, later, spoken)
                        set_token_contexts(spoken, contexts)
                    fetch_slots(m, contexts, 0)
                    length_0, length_1, expected_0, expected_1 = expect(m, whose)
                    fresh, nibble = True, -1
                partial_before, partial = partial, np.int64(row[PARTIAL])
                bit_number = floor_log2(partial | 1)
                half = bit_number >> 2
                if node >= 0 and half == 1 and nibble != 1:
                    for k in range(experts):
                        contexts[k] = hash_of(contexts[k], partial >> (bit_number - 4))
                    fetch_slots(m, contexts, 0)
                if node >= 0 and partial == 0:
                    for k in range(FIRST_OF_ENDS, experts):
                        end_keys[k] = hash_of(contexts[k], 32 + node)
                    fetch_slots(m, end_keys, FIRST_OF_ENDS)

                # Learn from the decision before: nothing that it reads has changed meanwhile.
                if decided:
                    learn_mix(m, sets, bit, rate, error, moved_0, moved_1)
                    learn_maps(m, bit, partial_before, match_map_0, match_map_1)
                if node < 0:
                    break
                decided = True

                # Fetch what comes later: predictions of the next token, a part a decision, and refinements.
                if fetched < logits.shape[3]:
                    for k in range(models):
                        ahead = logits[k, later, after]
                        for line in range(FETCHED_LINES):
                            prefetch(ahead, fetched + line * LINE_INTS)
                    fetched += FETCHED_LINES * LINE_INTS
                last = stream[HISTORY] & 255
                apm_0 = (last << 8 | partial) * APM_STEPS
                apm_1 = hash_of(stream[HISTORY] & 0xFFFF, partial) & (APM_CONTEXTS - 1)
                apm_1 = (APM_CONTEXTS + apm_1) * APM_STEPS
                for line in range(0, APM_STEPS, LINE_INTS):
                    prefetch(apm, apm_0 + line)
                    prefetch(apm, apm_1 + line)

                # Ask.
                believed = 0
                for k in range(models):
                    middle = _before(weights_of[k], sums_of[k], np.int64(row[MIDDLE]))
                    middles[k] = middle
                    difference = _log2(m.log2, above[k] - middle) - _log2(m.log2, middle - below[k])
                    stretched = max(-4095, min(4095, difference >> 2))
                    x[first_model + 2 * k] = stretched
                    x[first_model + 2 * k + 1] = (m.squash[np.uint64(stretched + 4096)] - 32768) >> 5
                    if k == 0:
                        believed = ((stretched + 4096) >> 9) * 9
                match_map_0, match_map_1 = -1, -1
                if partial:
                    if half != nibble:
                        nibble = half
                        hits = 0
                        for k in range(experts):
                            base = k << (slot_bits + 4)
                            slot[k] = find(slots, base, contexts[k], slot_mask, m.zeros, m.ones)
                            if (k < 4 or k == 7) and slots[slot[k] + np.uint32(1)] != 0:
                                hits += 1
                    if expected_0 >> (8 - bit_number) == partial:
                        match_map_0 = length_0 << 1 | (expected_0 >> (7 - bit_number) & 1)
                    if expected_1 >> (8 - bit_number) == partial:
                        match_map_1 = (MATCH_LENGTHS + length_1) << 1 | (expected_1 >> (7 - bit_number) & 1)
                    ask_experts(m, partial, bit_number, last, match_map_0, match_map_1)
                    vectors[0] = partial
                    vectors[1] = SET_STARTS[1] + ((length_0 if match_map_0 >= 0 else 0) << 3 | hits)
                    vectors[2] = SET_STARTS[2] + (half << 8 | last)
                    vectors[3] = SET_STARTS[3] + ((stream[HISTORY] >> 8 & 255) << 3 | bit_number)
                    vectors[4] = SET_STARTS[4] + (min(stream[POSITION] - stream[LINE], 255) << 3 | bit_number)
                    vectors[5] = SET_STARTS[5] + bit_number + believed
                else:
                    continues = 0
                    if length_0 > 0:
                        # Does a longer token go on with the byte that is expected?
                        continues = 1 + goes_on(tree, row[MIDDLE], row[HIGH], depth, expected_0 & 255)
                    ask_ends(m, node, stream[HISTORY], continues << 5 | length_0, end_keys)
                    vectors[0] = 0
                    vectors[1] = SET_STARTS[1] + 256 + length_0
                    vectors[2] = SET_STARTS[2] + (512 | last)
                    vectors[3] = SET_STARTS[3] + 2048 + min(depth, 15)
                    vectors[4] = SET_STARTS[4] + 2048 + min(depth, 15)
                    vectors[5] = SET_STARTS[5] + 8 + believed

                # Mix and refine.
                mixed = mix(m, sets)
                chance = np.int64(m.squash[np.uint64(mixed + 4096)])
                scaled = max(0, min(6143, mixed + 3072))
                step = scaled // APM_WIDTH
                part = scaled - step * APM_WIDTH
                apm_0 += step
                apm_1 += step
                q = np.int64(apm[np.uint64(apm_0)]) * (APM_WIDTH - part)
                q += np.int64(apm[np.uint64(apm_0 + 1)]) * part
                q += np.int64(apm[np.uint64(apm_1)]) * (APM_WIDTH - part)
                q += np.int64(apm[np.uint64(apm_1 + 1)]) * part
                coded = (2 * chance + q // (APM_WIDTH * 64) + 2) >> 2
                coded = max(1, min(65535, coded))
                nearer = 1 if 2 * part >= APM_WIDTH else 0
                moved_0, moved_1 = apm_0 + nearer, apm_1 + nearer

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
                    bit = 1 if token >= row[MIDDLE] else 0
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
                error = ((bit << 16) - chance) * p[FINAL_RATE] >> 8

                # Descend.
                for k in range(models):
                    if bit:
                        below[k] = middles[k]
                    else:
                        above[k] = middles[k]
                node = np.int64(row[ZERO + bit])
            if decoding:
                ids[s, t] = -1 - node
    coder[0], coder[1], coder[2] = low, span, end
    return True
