"""Method MODEL: the engine's prediction alone, each token an interval of the range coder."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import kernels
from .limits import TOKEN_BYTES, check_memory
from .lockstep import (
    IdArray,
    chunk_steps,
    end_to_end,
    fed_before,
    in_lockstep,
    num_streams,
    reported_steps,
    steps_alive,
)
from .model import Model
from .report import Report
from .segment import MODEL, DamageError, Segment

if TYPE_CHECKING:
    from .engine import Engine

Int64 = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

DEFAULT_STREAMS = 64  # a model loses next to nothing by them
PLACES, WARM_UP, COUNTED = 16, 64, 64  # of a sample: places, and tokens before and within what is counted
PROMISING = 1.1  # times the best other size: an estimate above that is not followed up


def encode_direct(
    data: bytes, model: Model, streams: int | None, limit: int, report: Report | None
) -> Segment | None:
    """None as soon as it is clear that `limit` bytes are less."""
    ids = model.tokenize(data)
    if len(ids) > 2 * PLACES * (WARM_UP + COUNTED) and _estimate(ids, model) > PROMISING * limit:
        return None
    streams = num_streams(len(ids), streams, DEFAULT_STREAMS)
    coder, out = kernels.encoder_state(), np.zeros(0, dtype=np.uint8)
    for logits, targets, alive in predictions(ids, model, streams, report):
        out = kernels.with_room(out, coder, kernels.MAX_BYTES_PER_TOKEN * targets.size)
        kernels.encode_tokens(logits, targets, alive, coder, out)
        if coder[2] > limit:
            return None
    length = kernels.finish_encoding(coder, out)
    return Segment(MODEL, len(data), out[:length].tobytes(), len(ids), streams)


def predictions(
    ids: IdArray, model: Model, streams: int, report: Report | None
) -> Iterator[tuple[npt.NDArray[np.int32], IdArray, IdArray]]:
    """In pieces of T steps: logits int32 [S, T, V], targets int32 [S, T], and alive int32 [T]."""
    engine, vocab = model.engine, model.engine.vocab_size
    targets, alive = in_lockstep(ids, streams)
    fed = fed_before(targets, vocab)
    chunk = chunk_steps(streams, vocab)
    state = engine.start(streams)
    for begin in range(0, len(alive), chunk):
        piece = slice(begin, begin + chunk)
        logits = np.ascontiguousarray(engine.advance(state, fed[:, piece]))
        yield logits, np.ascontiguousarray(targets[:, piece]), alive[piece]
        if report is not None:
            report(min(1.0, (begin + chunk) / len(alive)))


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
    check_memory(model.memory(streams) + TOKEN_BYTES * segment.tokens, memory)
    alive = steps_alive(segment.tokens, streams)
    data, ids = (
        np.frombuffer(segment.payload, dtype=np.uint8),
        np.zeros((streams, len(alive)), dtype=np.int32),
    )
    state, coder = engine.start(streams), kernels.decoder_state(data)
    fed = np.full((streams, 1), engine.vocab_size, dtype=np.int32)
    count = reported_steps(streams)
    for begin in range(0, len(alive), count):
        end = min(begin + count, len(alive))
        check_enough(_decode_steps(engine, state, coder, data, fed, alive, ids, begin, end))
        if report is not None:
            report(end / len(alive))
    check_end(coder, data)
    return model.restore(end_to_end(ids, segment.tokens), segment.original_length)


def _decode_steps(
    engine: "Engine", state: Any, coder: Int64, data: Bytes, fed: IdArray, alive: IdArray, ids: IdArray,
    begin: int, end: int,
) -> bool:  # fmt: skip
    """Decode the steps from `begin` to `end` into ids [S, T]; False where the data ended before."""
    if engine.name == "numba":
        from . import fused

        if isinstance(engine, fused.NumbaEngine):
            return fused.decode_direct(engine, state, coder, data, fed, alive, ids, begin, end)
    for step in range(begin, end):
        logits = np.ascontiguousarray(engine.advance(state, fed)[: alive[step], 0])
        if not kernels.decode_tokens(logits, data, coder, fed[:, 0]):
            return False
        ids[:, step] = fed[:, 0]
    return True


def check_enough(sound: bool) -> None:
    """Raises DamageError where a decoder needed more bytes than there were."""
    if not sound:
        raise DamageError("the coded data of a segment ends too early: get the file again")


def check_end(coder: npt.NDArray[np.int64], data: npt.NDArray[np.uint8]) -> None:
    """Raises DamageError where a decoder has not needed every byte."""
    if coder[2] < len(data):
        raise DamageError("the coded data of a segment goes on after its last token: get the file again")
