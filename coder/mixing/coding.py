"""Segments by context mixing: bytes by the experts alone, or tokens by models and experts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import kernels as rangecoder
from ..direct import check_end, check_enough
from ..limits import TOKEN_BYTES, check_decisions, check_memory
from ..lockstep import (
    IdArray,
    chunk_steps,
    end_to_end,
    fed_before,
    in_lockstep,
    num_streams,
    reported_steps,
    steps_alive,
)
from ..model import Model
from ..report import Report
from ..segment import EXPERTS, MIXED, Segment
from . import kernels
from .layout import MAX_BYTES_PER_DECISION, Mixing, Tree
from .state import Shape, fresh, shape_for, tree_arrays
from .tree import byte_tree

DEFAULT_STREAMS = 1  # experts learn less from streams that they read side by side: docs/results.md
STEPS = 1 << 15  # bytes that are coded between two reports, without a model
# Decisions a token, beyond eight for each of its bytes: where it ends, and which of its equals it is.
SPARE_DECISIONS = 96
NO_LOGITS = np.zeros((0, 1, 1, 256), dtype=np.int32)


def encode_experts(data: bytes, level: int, limit: int, report: Report | None = None) -> Segment | None:
    """`data` by the experts alone; None as soon as it is clear that `limit` bytes are less."""
    shape = shape_for(len(data), level, 1, 0)
    values, alive = np.frombuffer(data, dtype=np.uint8), np.ones(STEPS, dtype=np.int32)
    tree, mixing = tree_arrays(byte_tree()), fresh(shape)
    coder, out = rangecoder.encoder_state(), np.zeros(0, dtype=np.uint8)
    for begin in range(0, len(data), STEPS):
        piece = values[None, begin : begin + STEPS].astype(np.int32)
        out = rangecoder.with_room(out, coder, 8 * MAX_BYTES_PER_DECISION * piece.size)
        kernels.code_tokens(False, piece, alive[: piece.size], NO_LOGITS, tree, mixing, coder, out)
        if coder[2] > limit:
            return None
        if report is not None:
            report(min(1.0, (begin + STEPS) / len(data)))
    length = rangecoder.finish_encoding(coder, out)
    return Segment(EXPERTS, len(data), out[:length].tobytes(), profile=shape.profile)


def decode_experts(segment: Segment, memory: int, report: Report | None = None) -> bytes:
    """Raises DamageError for a payload that no encoder writes, LaconicError for too much memory."""
    shape = _shape(segment, None, memory)
    restored = np.empty(segment.original_length, dtype=np.uint8)
    tree, mixing = tree_arrays(byte_tree()), fresh(shape)
    data, coder = source_of(segment.payload)
    for begin in range(0, segment.original_length, STEPS):
        piece = np.zeros((1, min(STEPS, segment.original_length - begin)), dtype=np.int32)
        alive = np.ones(piece.size, dtype=np.int32)
        check_enough(kernels.code_tokens(True, piece, alive, NO_LOGITS, tree, mixing, coder, data))
        restored[begin : begin + STEPS] = piece[0]
        if report is not None:
            report(begin / segment.original_length)
    check_end(coder, data)
    return restored.tobytes()


def encode_mixed(
    data: bytes, model: Model, level: int, streams: int | None, limit: int, report: Report | None = None
) -> Segment | None:
    """`data` by models and experts; None as soon as it is clear that `limit` bytes are less."""
    ids = model.tokenize(data)
    shape = shape_for(len(data), level, num_streams(len(ids), streams, DEFAULT_STREAMS), len(model.members))
    payload, _ = mix_tokens(ids, model, shape, limit, report)
    if payload is None:
        return None
    return Segment(MIXED, len(data), payload, len(ids), shape.streams, shape.profile)


def mix_tokens(
    ids: IdArray, model: Model, shape: Shape, limit: int, report: Report | None = None
) -> tuple[bytes | None, Mixing]:
    """Code ids [n]; the payload (None: longer than `limit`), and what the mixer has become."""
    streams, vocab = shape.streams, model.engine.vocab_size
    targets, alive = in_lockstep(ids, streams)
    fed = fed_before(targets, vocab)
    chunk = max(1, chunk_steps(streams, vocab) // shape.models)
    longest = int(np.diff(model.tree.token_ends).max())
    tree, mixing = tree_arrays(model.tree), fresh(shape, vocab, model.checkpoint.prior)
    states = [member.engine.start(streams) for member in model.members]
    coder, out = rangecoder.encoder_state(), np.zeros(0, dtype=np.uint8)
    for begin in range(0, len(alive), chunk):
        coded = np.ascontiguousarray(targets[:, begin : begin + chunk])
        room = (8 * longest + SPARE_DECISIONS) * MAX_BYTES_PER_DECISION * coded.size
        out = rangecoder.with_room(out, coder, room)
        logits = predict(model, states, fed[:, begin : begin + chunk])
        kernels.code_tokens(False, coded, alive[begin : begin + chunk], logits, tree, mixing, coder, out)
        if coder[2] > limit:
            return None, mixing
        if report is not None:
            report(min(1.0, (begin + chunk) / len(alive)))
    return out[: rangecoder.finish_encoding(coder, out)].tobytes(), mixing


def decode_mixed(segment: Segment, model: Model, memory: int, report: Report | None = None) -> bytes:
    """Raises DamageError for a payload that no encoder writes, LaconicError for too much memory."""
    streams, vocab = segment.streams, model.engine.vocab_size
    shape = _shape(segment, model, memory)
    alive = steps_alive(segment.tokens, streams)
    ids = np.zeros((streams, len(alive)), dtype=np.int32)
    tree, mixing = tree_arrays(model.tree), fresh(shape, vocab, model.checkpoint.prior)
    states: list[Any] = [member.engine.start(streams) for member in model.members]
    data, coder = source_of(segment.payload)
    fed = np.full((streams, 1), vocab, dtype=np.int32)
    count = reported_steps(streams)
    for begin in range(0, len(alive), count):
        end = min(begin + count, len(alive))
        check_enough(decode_steps(model, states, tree, mixing, coder, data, fed, alive, ids, begin, end))
        if report is not None:
            report(end / len(alive))
    check_end(coder, data)
    return model.restore(end_to_end(ids, segment.tokens), segment.original_length)


def decode_steps(
    model: Model, states: list[Any], tree: Tree, mixing: Mixing, coder: npt.NDArray[np.int64],
    data: npt.NDArray[np.uint8], fed: IdArray, alive: IdArray, ids: IdArray, begin: int, end: int,
) -> bool:  # fmt: skip
    """Decode the steps from `begin` to `end` into ids [S, T]; False where the data ended before."""
    if model.engine.name == "numba" and not model.others:
        from .. import fused

        if isinstance(numba := model.engine, fused.NumbaEngine):
            return fused.decode_mixed(
                numba, states[0], tree, mixing, coder, data, fed, alive, ids, begin, end
            )
    for step in range(begin, end):
        logits = predict(model, states, fed)
        if not kernels.code_tokens(True, fed, alive[step : step + 1], logits, tree, mixing, coder, data):
            return False
        ids[:, step] = fed[:, 0]
    return True


def predict(model: Model, states: Sequence[object], fed: IdArray) -> npt.NDArray[np.int32]:
    """Logits of every member, int32 [M, S, T, V]."""
    logits = [member.engine.advance(state, fed) for member, state in zip(model.members, states, strict=True)]
    return np.ascontiguousarray(logits[0])[None] if len(logits) == 1 else np.stack(logits)


def source_of(payload: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    data = np.frombuffer(payload, dtype=np.uint8)
    return data.copy(), rangecoder.decoder_state(data)  # the kernel's type is of what can be written


def _shape(segment: Segment, model: Model | None, memory: int) -> Shape:
    """What the header asks for.

    Raises:
        LaconicError: it is more memory than is allowed.
        DamageError: the payload is too short for what the header says.
    """
    level, slot_bits = Shape.unpack_profile(segment.profile)
    streams = max(1, segment.streams)
    models = 0 if model is None else len(model.members)
    shape = shape_for(segment.original_length, level, streams, models, slot_bits)
    predictions = 0 if model is None else model.memory(streams)
    check_memory(shape.memory + predictions + TOKEN_BYTES * segment.tokens, memory)
    check_decisions(segment, segment.tokens if models else 8 * segment.original_length)
    return shape
