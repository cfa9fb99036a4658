"""Four entropy coders behind one interface: symbols to a table and coded bytes, and back.

blob = CODERS["rans"].encode(symbols, alphabet).blob
CODERS["rans"].decode(blob, len(symbols), alphabet)
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

import numpy as np

from ..errors import LaconicError
from ..segment import ENTROPY, DamageError, Source, pack_varint
from . import counted, huffman, ranges, rans, tans
from .frequencies import MAX_ALPHABET, MAX_SYMBOLS, Int32, Int64, count_symbols
from .tables import Table, pack, unpack


class Coded(NamedTuple):
    """What symbols have become: the table with its length before it, and what it codes."""

    table: bytes
    words: bytes

    @property
    def blob(self) -> bytes:
        return self.table + self.words


@dataclass(frozen=True)
class Coder:
    """An entropy coder with static tables.

    Attributes:
        describe: counts [alphabet] -> the table that is sent.
        write, read: symbols under a table of two symbols or more -> bytes, and bytes and a number -> symbols.
        extra_bits: of each of the table's classes.
    """

    name: str
    describe: Callable[[Int64], Table]
    write: Callable[[Int32, Table], bytes]
    read: Callable[[bytes, int, Table], Int32]
    extra_bits: Int64

    @property
    def number(self) -> int:
        """That files name it by."""
        return ENTROPY.index(self.name)

    def encode(self, symbols: Int32, alphabet: int) -> Coded:
        """Code symbols [N], 1 <= N <= 2^28, each 0 <= v < alphabet <= 2^16.

        Raises:
            LaconicError: a symbol, their number or the alphabet is not allowed.
        """
        table = self.describe(count_symbols(symbols, alphabet))
        packed = pack(table, self.extra_bits)
        alone = np.count_nonzero(table.classes) == 1  # one symbol needs no bits
        return Coded(pack_varint(len(packed)) + packed, b"" if alone else self.write(symbols, table))

    def decode(self, blob: bytes, count: int, alphabet: int) -> Int32:
        """The `count` symbols of a blob: int32 [count], which is all the memory that grows with them.

        Raises:
            DamageError: no encoder writes this: it says why.
            LaconicError: `count` or `alphabet` is not allowed.
        """
        if not 1 <= count <= MAX_SYMBOLS or not 1 <= alphabet <= MAX_ALPHABET:
            raise LaconicError(
                f"{count} symbols of {alphabet}: 1 to {MAX_SYMBOLS}, of 1 to {MAX_ALPHABET}, are allowed"
            )
        source = Source(BytesIO(blob))
        table = unpack(
            source.exactly(source.varint(0, len(blob), "a table's length")), alphabet, self.extra_bits
        )
        words, found = blob[source.position :], np.flatnonzero(table.classes)
        if len(found) == 1:
            if words:
                raise DamageError(f"{len(words)} bytes follow a table of one symbol: get the file again")
            counts = np.zeros(alphabet, dtype=np.int64)
            counts[found] = count
            if not all(map(np.array_equal, table, self.describe(counts))):
                raise DamageError(f"a table of one symbol is not that of {count:,} of it: get the file again")
            return np.full(count, found[0], dtype=np.int32)
        return self.read(words, count, table)


CODERS = {
    coder.name: coder
    for coder in (
        Coder("range", counted.describe, ranges.write, ranges.read, counted.EXTRA_BITS),
        Coder("huffman", huffman.describe, huffman.write, huffman.read, huffman.EXTRA_BITS),
        Coder("rans", counted.describe, rans.write, rans.read, counted.EXTRA_BITS),
        Coder("tans", counted.describe, tans.write, tans.read, counted.EXTRA_BITS),
    )
}
