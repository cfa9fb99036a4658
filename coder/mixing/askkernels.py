"""What experts say of a decision, compiled: their inputs to the mixer, and the learning of their maps."""

# numba's integers are no Python ints:
# pyright: reportArgumentType=false, reportReturnType=false

import numpy as np

from ..compiled import inlined
from .layout import (
    ENDS,
    EXPERTS,
    FIRST_EXPERT,
    FIRST_OF_ENDS,
    MAP_LIMIT,
    MATCHES,
    ORDER_1,
    ORDER_1_LIMIT,
    SLOT_BITS,
    Int32,
    Int64,
    Mixing,
    UInt32,
)
from .pastkernels import find, hash_of


@inlined
def ask_experts(
    m: Mixing, partial: int, bit_number: int, last: int, match_map_0: int, match_map_1: int
) -> None:
    """The inputs of a bit of a byte: of the slots that were found, order 1, matches (-1: it is silent)."""
    x, experts, slots, maps, stretch = m.inputs, m.parameters[EXPERTS], m.slots, m.maps, m.stretch
    slot, used, where = m.places[0], m.places[1], m.places[2]
    offset = partial
    if bit_number >= 4:
        low = 1 << (bit_number - 4)
        offset = (partial & (low - 1)) | low
    for k in range(experts):
        place = np.uint32(slot[k] + np.uint32(offset))
        state = np.uint32(slots[place])
        index = np.uint32(np.uint32(k << 8) | state)
        where[k] = place
        used[k] = index
        chance = np.uint32(maps[index] >> np.uint32(20))
        known = np.int32(state != 0)
        x[FIRST_EXPERT + 2 * k] = np.int32(stretch[chance]) * known
        x[FIRST_EXPERT + 2 * k + 1] = ((np.int32(chance) - 2048) >> 1) * known
    place = np.uint32(last << 8 | partial)
    index = np.uint32(np.uint32(experts << 8) | np.uint32(m.order_1[place]))
    where[experts] = place
    used[experts] = index
    chance = np.uint32(maps[index] >> np.uint32(20))
    x[ORDER_1] = stretch[chance]
    x[ORDER_1 + 1] = (np.int32(chance) - 2048) >> 1
    x[MATCHES], x[MATCHES + 1] = 0, 0
    if match_map_0 >= 0:
        x[MATCHES] = stretch[m.match_maps[match_map_0] >> 10]
    if match_map_1 >= 0:
        x[MATCHES + 1] = stretch[m.match_maps[match_map_1] >> 10]


@inlined
def ask_ends(m: Mixing, node: int, history: int, match: int, keys: Int64) -> None:
    """The inputs where the split is none of a bit.

    `match` says what the first match expects; `keys` are hashes of the experts' contexts and the node.
    """
    x, experts, maps, slots = m.inputs, m.parameters[EXPERTS], m.maps, m.slots
    used, where = m.places[1], m.places[2]
    slot_bits = m.parameters[SLOT_BITS]
    for j in range(MATCHES, FIRST_EXPERT):
        x[j] = 0
    where[0] = node & (ENDS - 1)
    where[1] = hash_of(history & 0xFFFFFF, node) & (ENDS - 1)
    where[2] = hash_of(node, match) & (ENDS - 1)
    for k in range(FIRST_OF_ENDS):
        used[k] = np.uint32((experts + 1 + k) << 8) | np.uint32(m.ends[where[k]])
    mask = (1 << slot_bits) - 1
    for k in range(FIRST_OF_ENDS, experts):
        place = find(slots, k << (slot_bits + 4), keys[k], mask, m.zeros, m.ones) + np.uint32(1)
        where[k] = place
        used[k] = np.uint32(k << 8) | np.uint32(slots[place])
    for k in range(experts):
        index = used[k]
        chance = np.uint32(maps[index] >> np.uint32(20))
        known = np.int32((index & np.uint32(255)) != 0)
        x[FIRST_EXPERT + 2 * k] = np.int32(m.stretch[chance]) * known
        x[FIRST_EXPERT + 2 * k + 1] = ((np.int32(chance) - 2048) >> 1) * known


@inlined
def _learn(maps: UInt32, index: int, bit: int, rates: Int32, limit: int) -> None:
    """Move a map's probability towards the bit, the less the more often it was used."""
    value = np.int64(maps[index])
    chance, count = value >> 10, value & 1023
    distance = ((1 << 22) - chance if bit else chance) >> 3
    move = distance * np.int64(rates[np.uint64(count)]) >> 13
    chance += move if bit else -move
    maps[index] = chance << 10 | min(count + 1, limit)


@inlined
def learn_maps(m: Mixing, bit: int, partial: int, match_map_0: int, match_map_1: int) -> None:
    """Move what spoke towards the bit, and its histories on."""
    maps, slots, following, rates, experts = m.maps, m.slots, m.following, m.rates, m.parameters[EXPERTS]
    used, where = m.places[1], m.places[2]
    if partial:
        for k in range(experts):
            _learn(maps, used[k], bit, rates, MAP_LIMIT)
            slots[where[k]] = following[np.uint64(2 * (used[k] & 255) + bit)]
        _learn(maps, used[experts], bit, rates, ORDER_1_LIMIT)
        m.order_1[where[experts]] = following[np.uint64(2 * (used[experts] & 255) + bit)]
        goal = (bit << 22) - bit
        if match_map_0 >= 0:
            m.match_maps[match_map_0] += (goal - m.match_maps[match_map_0]) >> 7
        if match_map_1 >= 0:
            m.match_maps[match_map_1] += (goal - m.match_maps[match_map_1]) >> 7
    else:
        for k in range(FIRST_OF_ENDS):
            _learn(maps, used[k], bit, rates, MAP_LIMIT)
            m.ends[where[k]] = following[np.uint64(2 * (used[k] & 255) + bit)]
        for k in range(FIRST_OF_ENDS, experts):
            _learn(maps, used[k], bit, rates, MAP_LIMIT)
            slots[where[k]] = following[np.uint64(2 * (used[k] & 255) + bit)]
