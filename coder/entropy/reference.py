"""The entropy coders in plain Python: the normative twins of the compiled kernels, from counts to bytes.

docs/format.md says the same in words. Nothing here is fast, and nothing is shared with the kernels.
"""

from collections.abc import Sequence

from ..rangecoder import RangeEncoder
from .counted import LENGTHS
from .frequencies import MAX_LOG
from .huffman import LONGEST
from .tables import LIMIT, STEP


def extra_bits(length: int) -> int:
    """Bits of a count that are sent, below the first, of a count of that length in bits."""
    return max(0, (length - 2) // 2)


def count_table(counts: Sequence[int]) -> bytes:
    """The table that is sent of counts, one for each symbol of the alphabet."""
    extras = [(count >> _dropped(count)) % (1 << extra_bits(count.bit_length())) for count in counts]
    return _table([count.bit_length() for count in counts], extras, [extra_bits(n) for n in range(LENGTHS)])


def length_table(lengths: Sequence[int]) -> bytes:
    """The table that is sent of code lengths, 0 for what does not occur."""
    return _table(lengths, [0] * len(lengths), [0] * (LONGEST + 1))


def _table(classes: Sequence[int], extras: Sequence[int], bits_of: Sequence[int]) -> bytes:
    coder, left, before = RangeEncoder(), sum(c > 0 for c in classes), 0
    coder.encode(left - 1, 1, len(classes))
    learned = [[1] * len(bits_of), [1] * len(bits_of)]
    for found, extra in zip(classes, extras, strict=True):
        if not left:
            break
        row = learned[before]
        coder.encode(sum(row[:found]), row[found], sum(row))
        row[found] += STEP
        if sum(row) > LIMIT:
            row[:] = [(count + 1) // 2 for count in row]
        if bits_of[found]:
            coder.encode(extra, 1, 1 << bits_of[found])
        before = 1 if found else 0
        left -= before
    return coder.finish()


def _dropped(count: int) -> int:
    return max(0, count.bit_length() - 1 - extra_bits(count.bit_length()))


def frequencies(counts: Sequence[int], log: int) -> list[int]:
    """Parts of 2^log of counts as they are known from the table; 0 where a symbol does not occur."""
    middles = [2 * (c >> _dropped(c) << _dropped(c)) + (1 << _dropped(c)) - 1 if c else 0 for c in counts]
    few: set[int] = set()  # what gets 1, though its proportion is less
    while True:
        size = (1 << log) - len(few)
        total = sum(m for v, m in enumerate(middles) if v not in few)
        fewer = {v for v, m in enumerate(middles) if m and v not in few and m * size < total}
        if not fewer:
            break
        few |= fewer
    parts = [1 if v in few else m * size // total for v, m in enumerate(middles)]
    rest = {v: m * size % total for v, m in enumerate(middles) if m and v not in few}
    for v in sorted(rest, key=lambda v: (-rest[v], v))[: (1 << log) - sum(parts)]:
        parts[v] += 1
    return parts


def code_lengths(counts: Sequence[int], longest: int = LONGEST) -> list[int]:
    """Lengths of optimal codes of at most `longest` bits, by packages that know what they are made of."""
    leaves = sorted((count, [v]) for v, count in enumerate(counts) if count)
    items = leaves
    for _ in range(longest - 1):
        pairs = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(items[::2], items[1::2], strict=False)]
        items = sorted(leaves + pairs, key=lambda item: item[0])
    lengths = [0] * len(counts)
    for _, made_of in items[: max(1, 2 * len(leaves) - 2)]:
        for v in made_of:
            lengths[v] += 1
    return lengths


def huffman_words(symbols: Sequence[int], lengths: Sequence[int]) -> bytes:
    code, before, codes = 0, 0, dict[int, str]()
    for length, v in sorted((length, v) for v, length in enumerate(lengths) if length):
        code <<= length - before
        codes[v] = f"{code:0{length}b}"
        code, before = code + 1, length
    bits = "".join(codes[v] for v in symbols)
    return _whole_bytes(bits + "0" * (-len(bits) % 8))


def _whole_bytes(bits: str) -> bytes:
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:]


def range_words(symbols: Sequence[int], parts: Sequence[int]) -> bytes:
    coder = RangeEncoder()
    for v in symbols:
        coder.encode(sum(parts[:v]), parts[v], sum(parts))
    return coder.finish()


def rans(intervals: Sequence[tuple[int, int]], states: int) -> tuple[list[int], list[int]]:
    """The states at the end, and the words in the order in which a decoder reads them.

    Args:
        intervals: (begin, part) of each symbol, of 2^24.
        states: that take symbols in turn.
    """
    x, words = [1 << 32] * states, list[int]()
    for i in range(len(intervals) - 1, -1, -1):
        begin, part = intervals[i]
        state = x[i % states]
        if state // part * (1 << MAX_LOG) + begin + state % part >= 1 << 64:
            words.append(state % (1 << 32))
            state >>= 32
        x[i % states] = state // part * (1 << MAX_LOG) + begin + state % part
    return x, words[::-1]


def rans_words(symbols: Sequence[int], parts: Sequence[int]) -> bytes:
    states, words = rans([(sum(parts[:v]), parts[v]) for v in symbols], 4)
    return b"".join([x.to_bytes(8, "little") for x in states] + [w.to_bytes(4, "little") for w in words])


def tans_words(symbols: Sequence[int], parts: Sequence[int]) -> bytes:
    size = sum(parts)
    step, place, stands_for = size // 2 + size // 8 + 3, 0, [0] * size
    for v, part in enumerate(parts):
        for _ in range(part):
            stands_for[place] = v
            place = (place + step) % size
    state_of, number = dict[tuple[int, int], int](), list(parts)
    for place, v in enumerate(stands_for):
        state_of[v, number[v]] = size + place
        number[v] += 1
    x, bits = [size, size], list[str]()
    for i in range(len(symbols) - 1, -1, -1):
        v, state, written = symbols[i], x[i % 2], ""
        while (v, state) not in state_of:
            written = str(state % 2) + written
            state //= 2
        bits.append(written)
        x[i % 2] = state_of[v, state]
    joined = "1" + "".join(f"{state - size:0{size.bit_length() - 1}b}" for state in x) + "".join(bits[::-1])
    return _whole_bytes("0" * (-len(joined) % 8) + joined)
