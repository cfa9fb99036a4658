"""Bits as words: a stream of bits, the first being the highest of the first word of 32."""

from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
Wide = Any  # a uint64 in a kernel: type checkers take sums of such for arrays

WORD = 32


def to_words(data: bytes) -> Words:
    """The bits of `data` and zeros up to a whole word: uint32 [ceil(n / 4)]."""
    padded = data + bytes(-len(data) % 4)
    return np.frombuffer(padded, dtype=">u4").astype(np.uint32)


def to_bytes(words: Words) -> bytes:
    return words.astype(">u4").tobytes()
