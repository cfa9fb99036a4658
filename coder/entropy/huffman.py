"""Canonical Huffman codes of at most LONGEST bits: lengths by package-merge, symbols by table.

The table that is sent is the length of each symbol's code. Codes are given in the order of length, then
symbol, each the one before plus one, zeros appended where they get longer.

After L. L. Larmore and D. S. Hirschberg, "A fast algorithm for optimal length-limited Huffman codes" (1990).
"""

from typing import NamedTuple

import numpy as np

from ..compiled import compiled
from ..segment import DamageError
from .bits import WORD, Words, to_bytes, to_words
from .frequencies import Int32, Int64
from .tables import Table

LONGEST = 20  # bits of a code: 16 would do for every alphabet, and 4 more cost a table next to nothing
EXTRA_BITS: Int64 = np.zeros(LONGEST + 1, dtype=np.int64)
LOOKED_UP = 12  # bits that a decoder looks at; longer codes are found by comparing


def code_lengths(counts: Int64, longest: int = LONGEST) -> Int64:
    """Lengths of the best codes of at most `longest` bits for counts [K], each at least 1: int64 [K].

    Of the `longest` rounds each joins neighbours of the round before to packages and merges these with the
    counts, in ascending order; the first 2 K - 2 of the last round are taken apart, and a length is how often
    its symbol is found in them. A single symbol gets 1.
    """
    number = len(counts)
    assert 0 < number <= 1 << longest
    order = np.argsort(counts, kind="stable")
    leaves = counts[order]
    items, rounds = (
        leaves,
        [np.ones(number, dtype=np.bool_)],
    )  # rounds: whether each item is a count, no package
    for _ in range(longest - 1):
        pairs = items[: len(items) // 2 * 2].reshape(-1, 2).sum(axis=1)
        merged = np.concatenate([leaves, pairs])
        by_weight = np.argsort(merged, kind="stable")
        rounds.append(by_weight < number)
        items = merged[by_weight]
    lengths, taken = np.zeros(number, dtype=np.int64), max(1, 2 * number - 2)
    for is_count in reversed(rounds):
        found = int(is_count[:taken].sum())
        lengths[:found] += 1
        taken = 2 * (taken - found)
    restored = np.empty(number, dtype=np.int64)
    restored[order] = lengths
    return restored


def describe(counts: Int64) -> Table:
    """The table of counts [alphabet]."""
    table = Table(np.zeros(len(counts), dtype=np.int64), np.zeros(len(counts), dtype=np.int64))
    found = np.flatnonzero(counts)
    table.classes[found] = code_lengths(counts[found])
    return table


class Codes(NamedTuple):
    """Symbols in the order of their codes, and where the codes of each length begin."""

    symbols: Int64  # [K]
    codes: Int64  # [K]
    lengths: Int64  # [K]
    limits: Int64  # [LONGEST + 1], the end of the codes of each length and shorter ones, in LONGEST bits
    starts: Int64  # [LONGEST + 1], the place of each length's first symbol
    firsts: Int64  # [LONGEST + 1], its code


def assign(table: Table) -> Codes:
    """The codes that lengths [alphabet] give.

    Raises:
        DamageError: the lengths leave some strings of bits without a symbol, or give them two.
    """
    found = np.flatnonzero(table.classes)
    order = found[np.argsort(table.classes[found], kind="stable")]
    lengths = table.classes[order]
    widths = 1 << (LONGEST - lengths)
    if int(widths.sum()) != 1 << LONGEST:
        raise DamageError(
            f"the {len(found)} code lengths of a segment's table do not sum to one "
            f"({int(widths.sum()) / (1 << LONGEST):.6f}): get the file again"
        )
    begins = np.cumsum(widths) - widths
    per_length = np.bincount(lengths, minlength=LONGEST + 1)
    starts = np.cumsum(per_length) - per_length
    shifts = LONGEST - np.arange(LONGEST + 1)
    ends = np.cumsum(per_length << shifts)
    return Codes(
        order, begins >> (LONGEST - lengths), lengths, ends, starts, (ends - (per_length << shifts)) >> shifts
    )


def write(symbols: Int32, table: Table) -> bytes:
    """The codes of symbols [N], one after the other, and zeros up to a whole byte."""
    codes = assign(table)
    entries = np.zeros(len(table.classes), dtype=np.int64)
    entries[codes.symbols] = codes.codes << 5 | codes.lengths
    room = len(symbols) * int(codes.lengths.max()) // WORD + 2
    words = np.zeros(room, dtype=np.uint32)
    bits = _write(symbols, entries, words)
    return to_bytes(words)[: (bits + 7) // 8]


def read(data: bytes, count: int, table: Table) -> Int32:
    """The inverse.

    Raises:
        DamageError: the data ends too early, or goes on, or its last bits are not zeros.
    """
    codes = assign(table)
    if count > 8 * len(data):
        raise DamageError(f"{len(data)} bytes cannot hold {count:,} codes: get the file again")
    looked_up = np.zeros(1 << LOOKED_UP, dtype=np.int64)
    short = int(np.searchsorted(codes.lengths, LOOKED_UP, side="right"))
    widths = 1 << (LOOKED_UP - codes.lengths[:short])
    known = np.repeat(codes.symbols[:short] << 5 | codes.lengths[:short], widths)
    looked_up[: len(known)] = known
    symbols = np.empty(count, dtype=np.int32)
    bits = _read(to_words(data), looked_up, codes.limits, codes.starts, codes.firsts, codes.symbols, symbols)
    if bits > 8 * len(data):
        raise DamageError("the codes of a segment end too early: get the file again")
    if bits <= 8 * len(data) - 8 or data[-1] & ((1 << (8 * len(data) - bits)) - 1):
        raise DamageError("the codes of a segment go on after the last symbol: get the file again")
    return symbols


@compiled
def _write(symbols: Int32, entries: Int64, words: Words) -> int:
    """Number of bits."""
    held, filled, at = np.int64(0), np.int64(0), 0
    for i in range(symbols.shape[0]):
        entry = entries[symbols[i]]
        length = entry & 31
        held = held << length | entry >> 5
        filled += length
        if filled >= WORD:
            filled -= WORD
            words[at] = np.uint32(held >> filled)
            held &= (1 << filled) - 1
            at += 1
    words[at] = np.uint32(held << (WORD - filled))
    return at * WORD + int(filled)


@compiled
def _read(
    words: Words,
    looked_up: Int64,
    limits: Int64,
    starts: Int64,
    firsts: Int64,
    ordered: Int64,
    symbols: Int32,
) -> int:
    """Number of bits that were read: more than there are, where the data ended too early."""
    held, filled, at = np.int64(0), np.int64(0), 0
    for i in range(symbols.shape[0]):
        if filled < WORD:
            if at > words.shape[0]:
                return at * WORD
            word = np.int64(words[at]) if at < words.shape[0] else np.int64(0)
            held = held << WORD | word
            filled += WORD
            at += 1
        entry = looked_up[(held >> (filled - LOOKED_UP)) & ((1 << LOOKED_UP) - 1)]
        length = entry & 31
        if length > 0:
            symbols[i] = entry >> 5
        else:
            window = (held >> (filled - LONGEST)) & ((1 << LONGEST) - 1)
            length = LOOKED_UP + 1
            while window >= limits[length]:
                length += 1
            symbols[i] = ordered[starts[length] + (window >> (LONGEST - length)) - firsts[length]]
        filled -= length
    return at * WORD - int(filled)
