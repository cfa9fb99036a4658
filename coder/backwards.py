"""Method RANS: the engine's prediction alone, by rANS, which codes from the last token to the first."""

import numpy as np

from .direct import DEFAULT_STREAMS, check_enough, predictions
from .entropy import predicted
from .entropy.bits import to_bytes, to_words
from .entropy.rans import LOWEST
from .kernels import BLOCK
from .limits import TOKEN_BYTES, check_memory
from .lockstep import end_to_end, num_streams, reported_steps, steps_alive
from .model import Model
from .report import Report
from .segment import RANS, DamageError, Segment


def encode_backwards(data: bytes, model: Model, streams: int | None, report: Report | None = None) -> Segment:
    """All intervals are kept until the last is known: 8 bytes a token."""
    ids = model.tokenize(data)
    streams = num_streams(len(ids), streams, DEFAULT_STREAMS)
    intervals, at = np.empty(len(ids), dtype=np.uint64), 0
    for logits, targets, alive in predictions(ids, model, streams, report):
        at = predicted.find_intervals(logits, targets, alive, intervals, at)
    words = np.empty(len(ids) + 2, dtype=np.uint32)
    first = predicted.encode_intervals(intervals, words)
    payload = to_bytes(words[first:]).lstrip(b"\0")
    return Segment(RANS, len(data), payload, len(ids), streams)


def decode_backwards(segment: Segment, model: Model, memory: int, report: Report | None = None) -> bytes:
    """Raises DamageError for a payload that no encoder writes, LaconicError for too much memory."""
    engine, streams, payload = model.engine, segment.streams, segment.payload
    check_memory(model.memory(streams) + TOKEN_BYTES * segment.tokens, memory)
    if len(payload) <= 4 or payload[0] == 0:
        raise DamageError(f"{len(payload)} bytes do not begin with a state of rANS: get the file again")
    words = to_words(bytes(-len(payload) % 4) + payload)
    coder = np.array([int(words[0]) << 32 | int(words[1]), 2], dtype=np.uint64)
    alive, count = steps_alive(segment.tokens, streams), reported_steps(streams)
    ids = np.zeros((streams, len(alive)), dtype=np.int32)
    fed = np.full((streams, 1), engine.vocab_size, dtype=np.int32)
    state, sums = engine.start(streams), np.empty(-(-engine.vocab_size // BLOCK), dtype=np.int64)
    for step in range(len(alive)):
        logits = np.ascontiguousarray(engine.advance(state, fed)[: alive[step], 0])
        check_enough(predicted.decode_each(logits, words, coder, fed[:, 0], sums))
        ids[:, step] = fed[:, 0]
        if report is not None and step % count == count - 1:
            report((step + 1) / len(alive))
    if int(coder[0]) != int(LOWEST) or int(coder[1]) != len(words):
        raise DamageError("the coded data of a segment does not end with its last token: get the file again")
    return model.restore(end_to_end(ids, segment.tokens), segment.original_length)
