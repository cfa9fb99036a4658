"""What lies behind a decision, compiled: contexts, slots, matches. The twin of `past.py`."""

# numba's integers are no Python ints:
# pyright: reportArgumentType=false, reportReturnType=false

import numpy as np

from ..compiled import compiled, inlined
from .experts import TOKEN_EXPERTS
from .instructions import prefetch
from .layout import (
    BYTES,
    CHECK_SHIFT,
    EXPERTS,
    FIELD,
    HISTORY,
    LEAST_MATCH,
    LINE,
    LINE_ABOVE,
    MATCH,
    MATCH_BITS,
    MATCH_COLUMNS,
    MATCH_LENGTH,
    MATCH_LENGTHS,
    MATCH_POSITION,
    MATCH_STREAM,
    MAX_LENGTH,
    POSITION,
    RECORD,
    RECORD_MAX,
    RING_BITS,
    SEVEN_RUNS,
    SHAPE,
    SLOT,
    SLOT_BITS,
    TOKENS,
    VERIFIED,
    WORD,
    WORD_BEFORE,
    Bytes,
    Int32,
    Int64,
    Mixing,
    Tree,
)


@inlined
def hash_of(a: int, b: int) -> int:
    h = a * 0x1E3779B97F4A7C15 + b * 0x56E8FEB86659FD93 + 0x632BE59BD9B4E019
    h ^= (h >> 32) & 0xFFFFFFFF
    h *= 0x56E8FEB86659FD93
    return h ^ ((h >> 29) & 0x7FFFFFFFF)


@inlined
def find(slots: Bytes, base: int, h: int, mask: int, zeros: Int32, ones: Int32) -> int:
    """The slot of hash h in the table that begins at `base`: found, or taken from the least informed."""
    index = h & mask
    check = np.uint8((h >> CHECK_SHIFT) & 255)
    first = np.uint32(base + index * SLOT)
    second = np.uint32(base + (index ^ 1) * SLOT)
    third = np.uint32(base + (index ^ 2) * SLOT)
    is_first, is_second, is_third = slots[first] == check, slots[second] == check, slots[third] == check
    chosen = first if is_first else (second if is_second else third)
    if not (is_first | is_second | is_third):
        a, b, c = slots[first + np.uint32(1)], slots[second + np.uint32(1)], slots[third + np.uint32(1)]
        wa, wb, wc = zeros[a] + ones[a], zeros[b] + ones[b], zeros[c] + ones[c]
        if wa <= wb and wa <= wc:
            chosen = first
        elif wb <= wc:
            chosen = second
        slots[chosen] = check
        for i in range(1, SLOT):
            slots[chosen + np.uint32(i)] = 0
    return chosen


@inlined
def set_contexts(m: Mixing, s: int, contexts: Int64) -> None:
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
    contexts[0] = hash_of(h & 0xFFFF, 1)
    contexts[1] = hash_of(h & 0xFFFFFF, 2)
    contexts[2] = hash_of(h & 0xFFFFFFFF, 3)
    contexts[3] = hash_of(h & 0xFFFFFFFFFFFF, 4)
    contexts[4] = hash_of(stream[WORD], 5 + (last << 8))
    contexts[5] = hash_of(stream[SHAPE], 6)
    contexts[6] = hash_of(min(column, 255) << 8 | above, 7)
    contexts[7] = hash_of(h & 0xFFFFFFFFFF, 8)
    contexts[8] = hash_of(h & 0xFFFF0000, 9)
    contexts[9] = hash_of(record << 16 | once << 8 | twice, 10)
    contexts[10] = hash_of(np.int64(m.followers[256 + (h & 0xFFFF)]) << 16 | (h & 0xFFFF), 11)
    contexts[11] = hash_of(stream[WORD] * 31 + stream[WORD_BEFORE], 12 + (last << 8))
    contexts[12] = hash_of(stream[FIELD] << 8 | last, 13)
    contexts[13] = hash_of(np.int64(m.followers[last]) << 8 | last, 14)
    contexts[14] = hash_of(h & 0xFFFF00, 15)
    contexts[15] = hash_of(h & 0xF0F0F0FF, 16)
    contexts[16] = hash_of(record << 16 | once << 8 | last, 17)
    contexts[17] = hash_of(h, 18)


@inlined
def begin_token(m: Mixing, s: int, spoken: Int64) -> None:
    """What the last one, two and three tokens of stream s say before the first byte of the next."""
    stream = m.streams[s]
    last_two = (stream[TOKENS] << 20) + stream[TOKENS + 1]
    spoken[0] = hash_of(stream[TOKENS], 22)
    spoken[1] = hash_of(last_two, 23)
    spoken[2] = hash_of((last_two << 20) + stream[TOKENS + 2], 24)


@inlined
def end_token(m: Mixing, s: int, token: int) -> None:
    """Remember a token of stream s, whose bytes are appended."""
    stream = m.streams[s]
    stream[TOKENS + 2] = stream[TOKENS + 1]
    stream[TOKENS + 1] = stream[TOKENS]
    stream[TOKENS] = token + 1


@inlined
def set_token_contexts(spoken: Int64, contexts: Int64) -> None:
    """Some experts see the last tokens instead, with the bytes of the next one hashed into them."""
    for k in range(len(TOKEN_EXPERTS)):
        contexts[TOKEN_EXPERTS[k]] = spoken[k]


@inlined
def fetch_slots(m: Mixing, contexts: Int64, first: int) -> None:
    """Have the slots of `contexts` fetched, from expert `first` on.

    The three that `find` looks at are in one line of the cache.
    """
    slot_bits = m.parameters[SLOT_BITS]
    for k in range(first, m.parameters[EXPERTS]):
        prefetch(m.slots, ((k << slot_bits) + (contexts[k] & ((1 << slot_bits) - 1))) * SLOT)


@inlined
def push_byte(m: Mixing, s: int, byte: int) -> None:
    """Append a byte to stream s."""
    stream, p = m.streams[s], m.parameters
    before = stream[HISTORY]
    history, match_mask = before << 8 | byte, (1 << p[MATCH_BITS]) - 1
    entry_0 = hash_of(history & 0xFFFFFFFFFFFF, 20) & match_mask
    entry_1 = (1 << p[MATCH_BITS]) + (hash_of(history, 21) & match_mask)
    prefetch(m.matches, entry_0)
    prefetch(m.matches, entry_1)
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
        stream[SHAPE] = (stream[SHAPE] << 9 | kind) & SEVEN_RUNS
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
        entry = entry_0 if which == 0 else entry_1
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
def length_class(length: int) -> int:
    return min(length if length < 16 else 16 + ((length - 16) >> 2), MATCH_LENGTHS - 1)


@inlined
def expect(m: Mixing, s: int) -> tuple[int, int, int, int]:
    """Of both matches of stream s: classes of length, then 256 + the bytes that they expect, or -1."""
    stream, ring = m.streams[s], m.parameters[RING_BITS]
    ring_mask = (1 << ring) - 1
    length_0 = length_class(stream[MATCH + MATCH_LENGTH])
    length_1 = length_class(stream[MATCH + MATCH_COLUMNS + MATCH_LENGTH])
    expected_0, expected_1 = -1, -1
    if length_0 > 0:
        place = (stream[MATCH + MATCH_STREAM] << ring) + (stream[MATCH + MATCH_POSITION] & ring_mask)
        expected_0 = np.int64(m.history[place]) | 256
    if length_1 > 0:
        at = MATCH + MATCH_COLUMNS
        place = (stream[at + MATCH_STREAM] << ring) + (stream[at + MATCH_POSITION] & ring_mask)
        expected_1 = np.int64(m.history[place]) | 256
    return length_0, length_1, expected_0, expected_1


@inlined
def floor_log2(x: int) -> int:
    """floor(log2(x)) for 1 <= x < 2^53: the exponent of x as a float64."""
    return (np.float64(x).view(np.int64) >> 52) - 1023


@compiled
def goes_on(tree: Tree, begin: int, end: int, depth: int, byte: int) -> int:
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
