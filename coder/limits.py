"""What a decoder checks before it takes memory or time for a segment."""

from .errors import LaconicError
from .segment import DamageError, Segment

MEMORY_LIMIT = 1 << 30  # bytes for decoding a segment, beside the segment itself, where nothing else is said
BYTE_BYTES = 7  # at most, of a segment's byte by a table: as a symbol, and three copies of what is coded
TOKEN_BYTES = 12  # at most, of a segment's tokens: by stream, put end to end, and who is alive at each step
CODER_BITS = 56  # that the range coder holds when the payload ends
DECISIONS_PER_BIT = 45427  # at most: a decision of the mixer costs at least log2(65536 / 65535) bits


class MemoryLimitError(LaconicError):
    """A segment asks for more memory than is allowed."""


def check_memory(needed: int, allowed: int) -> None:
    """Raises MemoryLimitError where a segment asks for more memory than is allowed."""
    if needed > allowed:
        raise MemoryLimitError(
            f"a segment asks for {_size(needed)} of memory, allowed are {_size(allowed)}: "
            "raise --memory (memory= in Python) if you trust the file"
        )


def _size(count: int) -> str:
    return f"{count:,} bytes" if count < 1 << 20 else f"{count >> 20:,} MB"


def check_memory_limit(memory: int | None) -> int:
    """The limit in bytes.

    Raises:
        LaconicError: it is no whole number above zero.
    """
    if memory is None:
        return MEMORY_LIMIT
    if type(memory) is not int or memory < 1:
        raise LaconicError(f"a memory limit of {memory!r}: give a whole number of bytes above 0")
    return memory


def check_decisions(segment: Segment, decisions: int) -> None:
    """Refuse a segment whose payload is too short for that many decisions of the mixer.

    Raises:
        DamageError: no encoder writes it.
    """
    if decisions > (8 * len(segment.payload) + CODER_BITS) * DECISIONS_PER_BIT:
        raise DamageError(
            f"{len(segment.payload)} bytes cannot hold {segment.original_length:,}: get the file again"
        )
