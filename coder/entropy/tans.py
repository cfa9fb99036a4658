"""Finite-state entropy: asymmetric numeral systems by table, two states in turn.

A state x, R <= x < 2R with R = 2^log, stands for the symbol at place x - R of a table, in which each symbol
has as many places as its frequency says: places 0, s, 2s, ... mod R, with s = R/2 + R/8 + 3, are given to the
symbols in turn, to each all of its own. The places of a symbol of frequency f, from the lowest on, are the
states that the numbers f <= y < 2f lead to. To code the symbol, low bits of x are written until what is left
is such a number y. Symbols are coded from the last to the first, symbol i by state i mod 2; both states begin
with R, and each symbol's bits stand before those of the symbol after it. Before all stand the two states at
the end, less R, and before these a bit 1, behind zeros that fill the first byte.

After J. Duda, "Asymmetric numeral systems" (2013), and Y. Collet, "Finite State Entropy" (2013), whose spread
it is.
"""

from typing import NamedTuple

import numpy as np

from ..compiled import compiled
from ..segment import DamageError
from .bits import WORD, Words, to_bytes, to_words
from .counted import shares
from .frequencies import Frequencies, Int32, Int64
from .tables import Table

LEAST_LOG = 10  # log of the table of an alphabet of one symbol; half a bit more for each bit of a symbol
STATES = 2


def table_log(alphabet: int) -> int:
    """By the alphabet, up to 18: 14 for bytes, 16 for 4,096 tokens. Finer tables leave the fast caches."""
    return LEAST_LOG + ((alphabet - 1).bit_length() + 1) // 2


def spread(used: Frequencies) -> Int64:
    """The place of the symbol, in `used`, that each state stands for: int64 [R]."""
    size = 1 << used.log
    step = (size >> 1) + (size >> 3) + 3
    places = np.empty(size, dtype=np.int64)
    places[np.arange(size) * step & (size - 1)] = np.repeat(np.arange(len(used.parts)), used.parts)
    return places


class Steps(NamedTuple):
    """What a coder looks up."""

    bits: Int64  # [R], written or read at each state
    bases: Int64  # [R], the lowest state, less R, that those bits lead to
    symbols: Int64  # [R]
    order: Int64  # [R], states, less R, by symbol and then by place


def steps(used: Frequencies) -> Steps:
    size, places = 1 << used.log, spread(used)
    order = np.argsort(places, kind="stable")
    numbers = np.empty(size, dtype=np.int64)
    numbers[order] = np.arange(size) - np.repeat(used.begins, used.parts) + np.repeat(used.parts, used.parts)
    bits = used.log + 1 - np.frexp(numbers.astype(np.float64))[1].astype(np.int64)
    return Steps(bits, (numbers << bits) - size, used.symbols[places], order)


def write(symbols: Int32, table: Table) -> bytes:
    """A bit 1 behind the zeros of the first byte, the states at the end, and each symbol's bits."""
    used = shares(table, table_log(len(table.classes)))
    size, alphabet = 1 << used.log, len(table.classes)
    most = used.log + 1 - np.frexp(np.maximum(used.parts - 1, 1).astype(np.float64))[1].astype(np.int64)
    entries = np.zeros((alphabet, 2), dtype=np.int64)
    # The number of bits is (x + the first) >> 32: `most` from the state on that f << most is, one less below.
    entries[used.symbols, 0] = (most << 32) - (used.parts << most)
    entries[used.symbols, 1] = used.begins - used.parts
    states = np.full(STATES, size, dtype=np.int64)
    words = np.zeros((len(symbols) + STATES) * used.log // WORD + 3, dtype=np.uint32)
    bits = _write(symbols, entries, steps(used).order + size, states, used.log, words)
    return to_bytes(words)[4 * len(words) - (bits + 7) // 8 :]


def read(data: bytes, count: int, table: Table) -> Int32:
    """The inverse.

    Raises:
        DamageError: the data ends too early, goes on, or does not end where an encoder begins.
    """
    used = shares(table, table_log(len(table.classes)))
    if not data or not data[0]:
        raise DamageError("the coded data of a segment does not begin as tANS does: get the file again")
    skipped = 9 - data[0].bit_length()
    found = steps(used)
    entries = found.symbols << 32 | found.bits << 24 | found.bases
    states, symbols = np.zeros(STATES, dtype=np.int64), np.empty(count, dtype=np.int32)
    bits = _read(to_words(data), entries, states, used.log, skipped, symbols)
    if bits > 8 * len(data):
        raise DamageError("the coded data of a segment ends too early: get the file again")
    if bits < 8 * len(data) or states.any():
        raise DamageError("the coded data of a segment does not end with its last symbol: get the file again")
    return symbols


@compiled
def _write(symbols: Int32, entries: Int64, order: Int64, states: Int64, log: int, words: Words) -> int:
    """Number of bits; they end with `words`."""
    held, filled, at = np.int64(0), np.int64(0), words.shape[0]
    for i in range(symbols.shape[0] - 1, -1, -1):
        x, symbol = states[i & 1], symbols[i]
        bits = (x + entries[symbol, 0]) >> 32
        held |= (x & ((1 << bits) - 1)) << filled
        filled += bits
        states[i & 1] = order[(x >> bits) + entries[symbol, 1]]
        if filled >= WORD:
            at -= 1
            words[at] = np.uint32(held & 0xFFFFFFFF)
            held >>= WORD
            filled -= WORD
    for s in range(STATES - 1, -1, -1):
        held |= (states[s] - (1 << log)) << filled
        filled += log
        if filled >= WORD:
            at -= 1
            words[at] = np.uint32(held & 0xFFFFFFFF)
            held >>= WORD
            filled -= WORD
    at -= 1
    words[at] = np.uint32(held | 1 << filled)
    return (words.shape[0] - at - 1) * WORD + int(filled) + 1


@compiled
def _read(words: Words, entries: Int64, states: Int64, log: int, skipped: int, symbols: Int32) -> int:
    """Number of bits that were read: more than there are, where the data ended too early."""
    held, filled, at = np.int64(words[0]), np.int64(WORD - skipped), 1
    for s in range(STATES):
        if filled < log:
            word = np.int64(words[at]) if at < words.shape[0] else np.int64(0)
            held = held << WORD | word
            filled += WORD
            at += 1
        filled -= log
        states[s] = (held >> filled) & ((1 << log) - 1)
    a, b = states[0], states[1]
    for i in range(symbols.shape[0]):
        if filled < log:
            if at > words.shape[0]:
                return at * WORD
            word = np.int64(words[at]) if at < words.shape[0] else np.int64(0)
            held = held << WORD | word
            filled += WORD
            at += 1
        entry = entries[a]
        bits = (entry >> 24) & 255
        filled -= bits
        symbols[i] = entry >> 32
        a, b = b, (entry & 0xFFFFFF) + ((held >> filled) & ((1 << bits) - 1))
    states[0], states[1] = a, b
    return at * WORD - int(filled)
