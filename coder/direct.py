"""Method MODEL: the engine's prediction alone, each token an interval of the range coder."""

import numpy as np
import numpy.typing as npt

from . import kernels
from .container import MODEL, DamageError, Segment
from .limits import PREDICTION_BYTES, check_memory
from .lockstep import IdArray, chunk_steps, fed_before, in_lockstep, num_streams, stream_starts
from .model import Model
from .report import Report

DEFAULT_STREAMS = 64  # a model loses next to nothing by them
PLACES, WARM_UP, COUNTED = 16, 64, 64  # of a sample: places, and tokens before and within what is counted
PROMISING = 1.1  # times the best other size: an estimate above that is not followed up


def encode_direct(
    data: bytes, model: Model, streams: int | None, limit: int, report: Report | None
) -> Segment | None:
    """None as soon as it is clear that `limit` bytes are less."""
    engine, vocab = model.engine, model.engine.vocab_size
    ids = model.tokenize(data)
    if len(ids) > 2 * PLACES * (WARM_UP + COUNTED) and _estimate(ids, model) > PROMISING * limit:
        return None
    streams = num_streams(len(ids), streams, DEFAULT_STREAMS)
    targets, alive = in_lockstep(ids, streams)
    fed = fed_before(targets, vocab)
    chunk = chunk_steps(streams, vocab)
    state, coder = engine.start(streams), kernels.encoder_state()
    out = np.zeros(0, dtype=np.uint8)
    for begin in range(0, len(alive), chunk):
        piece = slice(begin, begin + chunk)
        logits = np.ascontiguousarray(engine.advance(state, fed[:, piece]))
        coded = np.ascontiguousarray(targets[:, piece])
        out = kernels.with_room(out, coder, kernels.MAX_BYTES_PER_TOKEN * coded.size)
        kernels.encode_tokens(logits, coded, alive[piece], coder, out)
        if coder[2] > limit:
            return None
        if report is not None:
            report(min(1.0, (begin + chunk) / len(alive)))
    length = kernels.finish_encoding(coder, out)
    return Segment(MODEL, len(data), out[:length].tobytes(), len(ids), streams)


def _estimate(ids: IdArray, model: Model) -> float:
    """Bytes that the model would need for all of `ids`, from a sample that has warmed up."""
    length = WARM_UP + COUNTED
    places = np.linspace(0, len(ids) - length, PLACES).astype(np.int64)
    sample = ids[places[:, None] + np.arange(length)]
    fed = fed_before(sample, model.engine.vocab_size)
    state = model.engine.start(PLACES)
    model.engine.advance(state, fed[:, :WARM_UP])
    logits = np.ascontiguousarray(model.engine.advance(state, fed[:, WARM_UP:]))
    targets = np.ascontiguousarray(sample[:, WARM_UP:]).reshape(-1)
    bits = kernels.code_lengths(logits.reshape(len(targets), -1), targets)
    return float(bits.mean()) * len(ids) / 8


def decode_direct(segment: Segment, model: Model, memory: int, report: Report | None = None) -> bytes:
    """Raises DamageError for a payload that no encoder writes, LaconicError for too much memory."""
    engine, streams = model.engine, segment.streams
    check_memory(streams * engine.vocab_size * PREDICTION_BYTES + 4 * segment.tokens, memory)
    starts = stream_starts(segment.tokens, streams)
    steps = -(-segment.tokens // streams)
    ids: npt.NDArray[np.int32] = np.zeros(segment.tokens, dtype=np.int32)
    data = np.frombuffer(segment.payload, dtype=np.uint8)
    state, coder = engine.start(streams), kernels.decoder_state(data)
    fed = np.full(streams, engine.vocab_size, dtype=np.int32)
    for step in range(steps):
        alive = min(streams, segment.tokens - streams * step)
        logits = np.ascontiguousarray(engine.advance(state, fed[:, None])[:alive, 0])
        if not kernels.decode_tokens(logits, data, coder, fed):
            raise DamageError("the coded data of a segment ends too early: get the file again")
        ids[starts[:alive] + step] = fed[:alive]
        if report is not None and step % 64 == 0:
            report(step / steps)
    check_end(coder, data)
    return model.restore(ids, segment.original_length)


def check_end(coder: npt.NDArray[np.int64], data: npt.NDArray[np.uint8]) -> None:
    """Raises DamageError where a decoder has not needed every byte."""
    if coder[2] < len(data):
        raise DamageError("the coded data of a segment goes on after its last token: get the file again")
