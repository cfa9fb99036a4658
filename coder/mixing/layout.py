"""The layout of a mixer's state: arrays, columns and constants that the kernels and their twin share."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]
Bytes = npt.NDArray[np.uint8]

# Columns of `Mixing.streams`.
HISTORY, WORD, WORD_BEFORE, SHAPE, FIELD, POSITION, LINE, LINE_ABOVE = range(8)
MATCH = 8  # two matches of three columns: stream and position of the byte that is expected, verified length
MATCH_STREAM, MATCH_POSITION, MATCH_LENGTH, MATCH_COLUMNS = range(4)
TOKENS = 14  # with a model: the last three tokens, the newest first, counted from 1; 0 where there is none
COLUMNS = 17
# Entries of `Mixing.counts`.
BYTES, RECORD = range(2)
# Inputs: bias, two matches, order 1 twice, experts twice each, models twice each.
BIAS, MATCHES, ORDER_1, FIRST_EXPERT = 0, 1, 3, 5
INPUT_GROUP = 16  # inputs are padded to a multiple: the kernel takes so many at a time
# Weight vectors of each set.
SETS = 6
SET_STARTS = (0, 256, 544, 1312, 3376, 5440, 5584)  # and their end

LINE_BYTES, LINE_INTS = 64, 16  # of a line of the processor's caches
SLOT = 16  # bytes of a slot: a check and 15 histories
CHECK_SHIFT = 40
ENDS = 1 << 16  # histories of token ends
FIRST_OF_ENDS = 3  # experts from here on speak of token ends too; in place of those before, `ends` does
APM_STEPS, APM_WIDTH = 33, 192
APM_CONTEXTS = 1 << 16
MATCH_LENGTHS = 32
MAX_LENGTH = 65535
LEAST_MATCH = (6, 11)
VERIFIED = 32  # bytes that a candidate is compared over, at most
RECORD_MAX = 4096
SEVEN_RUNS = (1 << 63) - 1  # of nine bits each
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
    scratch: Int64  # [7, 32]
    places: UInt32  # [4, 32]: slots, maps, histories, weights
    token_weights: UInt32  # [M, blocks * 64], blocks = V // 64 + 1
    token_sums: Int64  # [M, blocks]


class Tree(NamedTuple):
    """`tree.TokenTree` as arrays."""

    nodes: Int32
    token_bytes: Bytes
    token_ends: Int64


# Entries of `Mixing.parameters`.
EXPERTS, INPUTS, SLOT_BITS, RING_BITS, MATCH_BITS, RATE, EXTRA_RATE, FINAL_RATE = range(8)
