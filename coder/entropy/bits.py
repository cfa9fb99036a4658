"""Bits as words: a stream of bits, the first being the highest of the first word of 32."""

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

WORD = 32


def to_words(data: bytes) -> Words:
    """The bits of `data` and zeros up to a whole word: uint32 [ceil(n / 4)]."""
    padded = data + bytes(-len(data) % 4)
    return np.frombuffer(padded, dtype=">u4").astype(np.uint32)


def to_bytes(words: Words) -> bytes:
    return words.astype(">u4").tobytes()
