"""Methods BYTES and TOKENS: a segment's bytes, or its tokens, by a static table that is sent with them."""

import numpy as np

from .entropy.coders import CODERS
from .limits import BYTE_BYTES, TOKEN_BYTES, check_memory
from .model import Model
from .segment import BYTES, ENTROPY, TOKENS, Segment


def encode_tabled(data: bytes, model: Model | None, entropy: str) -> Segment:
    """Tokens with a model, bytes without one; the payload may be longer than `data`."""
    coder = CODERS[entropy]
    if model is None:
        values = np.frombuffer(data, dtype=np.uint8).astype(np.int32)
        return Segment(BYTES, len(data), coder.encode(values, 256).blob, profile=coder.number)
    ids = model.tokenize(data)
    coded = coder.encode(ids, model.engine.vocab_size)
    return Segment(TOKENS, len(data), coded.blob, len(ids), profile=coder.number)


def decode_tabled(segment: Segment, model: Model | None, memory: int) -> bytes:
    """Raises DamageError for a payload that no encoder writes, LaconicError for too much memory."""
    coder = CODERS[ENTROPY[segment.profile]]
    if segment.method == BYTES:
        check_memory(BYTE_BYTES * segment.original_length, memory)
        return coder.decode(segment.payload, segment.original_length, 256).astype(np.uint8).tobytes()
    assert model is not None
    check_memory(TOKEN_BYTES * segment.tokens, memory)
    ids = coder.decode(segment.payload, segment.tokens, model.engine.vocab_size)
    return model.restore(ids, segment.original_length)
