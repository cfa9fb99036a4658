"""Range asymmetric numeral systems: symbols are coded from the last on, and decoded from the first on.

A state x, 2^32 <= x < 2^64, takes a symbol of frequency f and begin b of 2^24 by x = floor(x / f) 2^24 + b +
x mod f. Before, its low 32 bits are written, as a word, where the result would reach 2^64. Symbol i is taken
by state i mod 4. All states begin with 2^32; what is sent are the states at the end and the words, the last
one first.

After J. Duda, "Asymmetric numeral systems" (2013), and F. Giesen, "Interleaved entropy coders" (2014).
"""

import numpy as np

from ..compiled import compiled, inlined
from ..segment import DamageError
from .bits import Wide, Words
from .counted import shares
from .frequencies import MAX_LOG, Int32, Uint64
from .lookup import HIGH, LOW, Starts, find, starts_of
from .tables import Table

LOG = MAX_LOG
STATES = 4
STATE_BYTES, WORD_BYTES = 8, 4
LOWEST = np.uint64(1 << 32)
WORD_SHIFT, LOG_SHIFT = np.uint64(32), np.uint64(LOG)
_TOP_SHIFT = np.uint64(64 - LOG)  # a state below f << this has room for a symbol of frequency f
_WORD_MASK, SLOT_MASK = np.uint64((1 << 32) - 1), np.uint64((1 << LOG) - 1)


def write(symbols: Int32, table: Table) -> bytes:
    """The states, eight bytes each, that of symbol 0 first; and the words, four each; all of little end."""
    words = np.empty(len(symbols) * LOG // 32 + STATES, dtype=np.uint32)
    states = np.full(STATES, LOWEST, dtype=np.uint64)
    first = _write(symbols, shares(table, LOG).by_symbol(len(table.classes)), states, words)
    return states.astype("<u8").tobytes() + words[first:].astype("<u4").tobytes()


def read(data: bytes, count: int, table: Table) -> Int32:
    """The inverse.

    Raises:
        DamageError: the data ends too early, goes on, or does not end where an encoder begins.
    """
    used = shares(table, LOG)
    head, tail = data[: STATES * STATE_BYTES], data[STATES * STATE_BYTES :]
    if len(head) < STATES * STATE_BYTES or len(tail) % WORD_BYTES:
        raise DamageError(f"{len(data)} bytes are no states and words of rANS: get the file again")
    states = np.frombuffer(head, dtype="<u8").astype(np.uint64)
    if int(states.min()) < int(LOWEST):
        raise DamageError("a state of rANS is below 2^32: get the file again")
    words, symbols = np.frombuffer(tail, dtype="<u4").astype(np.uint32), np.empty(count, dtype=np.int32)
    end = _read(words, used.ordered, starts_of(used), states, symbols)
    if end < 0:
        raise DamageError("the coded data of a segment ends too early: get the file again")
    if end < len(words) or any(int(state) != int(LOWEST) for state in states):
        raise DamageError("the coded data of a segment does not end with its last symbol: get the file again")
    return symbols


@inlined
def push(x: Wide, begin: Wide, part: Wide, words: Words, at: int) -> tuple[Wide, int]:
    """The state after a symbol, and where the words, which grow downwards, begin now."""
    if x >> _TOP_SHIFT >= part:
        at -= 1
        words[at] = np.uint32(x & _WORD_MASK)
        x >>= WORD_SHIFT
    whole = x // part
    return (whole << LOG_SHIFT) + (x - whole * part) + begin, at


@inlined
def pop(x: Wide, begin: Wide, part: Wide) -> Wide:
    """The state before a symbol; below 2^32, it wants a word."""
    return part * (x >> LOG_SHIFT) + (x & SLOT_MASK) - begin


@compiled
def _write(symbols: Int32, entries: Uint64, states: Uint64, words: Words) -> int:
    """Where the words begin; they end with `words`."""
    i, at = symbols.shape[0], words.shape[0]
    while i & (STATES - 1):
        i -= 1
        entry = entries[symbols[i]]
        states[i & (STATES - 1)], at = push(states[i & (STATES - 1)], entry >> HIGH, entry & LOW, words, at)
    a, b, c, d = states[0], states[1], states[2], states[3]
    while i > 0:
        i -= STATES
        entry = entries[symbols[i + 3]]
        d, at = push(d, entry >> HIGH, entry & LOW, words, at)
        entry = entries[symbols[i + 2]]
        c, at = push(c, entry >> HIGH, entry & LOW, words, at)
        entry = entries[symbols[i + 1]]
        b, at = push(b, entry >> HIGH, entry & LOW, words, at)
        entry = entries[symbols[i]]
        a, at = push(a, entry >> HIGH, entry & LOW, words, at)
    states[0], states[1], states[2], states[3] = a, b, c, d
    return at


@compiled
def _read(words: Words, ordered: Uint64, starts: Starts, states: Uint64, symbols: Int32) -> int:
    """How many words were read, or -1 where one was missing."""
    at, end = 0, words.shape[0]
    a, b, c, d = states[0], states[1], states[2], states[3]
    for i in range(symbols.shape[0]):
        place = find(a & SLOT_MASK, ordered, starts)
        begin = ordered[place] & LOW
        symbols[i] = np.int32(ordered[place] >> HIGH)
        x = pop(a, begin, (ordered[place + 1] & LOW) - begin)
        if x < LOWEST:
            if at >= end:
                return -1
            x = x << WORD_SHIFT | np.uint64(words[at])
            at += 1
        a, b, c, d = b, c, d, x
    states[0], states[1], states[2], states[3] = a, b, c, d
    return at
