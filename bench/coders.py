"""The coders alone, behind an engine that only hands out logits computed before; one core."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..coder.lockstep import chunk_steps, fed_before
from ..coder.model import Model
from ..coder.segment import MIXED, MODEL, Segment
from .timing import Pace, median

if TYPE_CHECKING:
    from ..coder.engine import Engine

NO_LIMIT = 1 << 62

Logits = npt.NDArray[np.int32]


class Replay:
    """An engine that hands out logits computed before, piece after piece, int32 [S, T, V] each."""

    name = "replay"
    kernel = "none"

    def __init__(self, pieces: list[Logits]) -> None:
        self.pieces = pieces
        self.vocab_size: int = pieces[0].shape[2]

    def start(self, num_streams: int) -> list[Logits]:
        return self.pieces[::-1]

    def advance(self, state: list[Logits], ids: npt.NDArray[np.int32]) -> Logits:
        logits = state.pop()
        assert logits.shape[:2] == ids.shape
        return logits

    def in_steps(self) -> "Replay":
        """The same, a step at a time, as a decoder asks; the pieces here are given up to save memory."""
        steps: list[Logits] = []
        self.pieces.reverse()
        while self.pieces:
            piece = self.pieces.pop()
            steps += [np.ascontiguousarray(piece[:, t : t + 1]) for t in range(piece.shape[1])]
        return Replay(steps)


def experts_pace(sample: bytes, level: int) -> Pace:
    """The experts without a model."""
    from ..coder.mixing.coding import decode_experts, encode_experts

    encode_seconds, segment = median(lambda: encode_experts(sample, level, NO_LIMIT))
    assert segment is not None
    decode_seconds, restored = median(lambda: decode_experts(segment, NO_LIMIT))
    assert restored == sample
    part = f"experts of level {level}"
    return Pace(part, level, 1, None, 0, len(sample), encode_seconds, decode_seconds)


def coder_paces(
    model: Model, targets: npt.NDArray[np.int32], segment_bytes: int, levels: Sequence[int]
) -> list[Pace]:
    """The coders of `levels`, on the tokens `targets` [S, T].

    Args:
        segment_bytes: their tables are those for a segment of that many, new.
    """
    from ..coder.direct import decode_direct
    from ..coder.mixing.coding import decode_mixed, mix_tokens
    from ..coder.mixing.state import shape_for

    streams, ids = len(targets), targets.reshape(-1)
    expected = model.join(ids)
    length, chunk = len(expected), chunk_steps(streams, model.engine.vocab_size)
    ahead = Replay(_pieces(model.engine, targets, chunk))
    replayed = Model(model.checkpoint, ahead)
    assert replayed.tree is not None  # built before it is timed

    encode_seconds: dict[int, float] = {}
    segments: dict[int, Segment] = {}
    for level in levels:
        if level == 1:
            encode_seconds[1], payload = median(lambda: _encode_direct(ahead, targets, chunk))
            segments[1] = Segment(MODEL, length, payload, ids.size, streams)
            continue
        slot_bits = shape_for(segment_bytes, level, streams, 1).slot_bits
        shape = shape_for(length, level, streams, 1, slot_bits)
        encode_seconds[level], (mixed, _) = median(
            lambda shape=shape: mix_tokens(ids, replayed, shape, NO_LIMIT)
        )
        assert mixed is not None
        segments[level] = Segment(MIXED, length, mixed, ids.size, streams, shape.profile)

    stepwise, paces = Model(model.checkpoint, ahead.in_steps()), list[Pace]()
    assert stepwise.tree is not None
    for level, segment in segments.items():
        decode = decode_direct if level == 1 else decode_mixed
        decode_seconds, restored = median(
            lambda decode=decode, segment=segment: decode(segment, stepwise, NO_LIMIT)
        )
        assert restored == expected
        part = "coder of level 1" if level == 1 else f"mixer of level {level}"
        paces.append(Pace(part, level, 1, streams, ids.size, length, encode_seconds[level], decode_seconds))
    return paces


def _pieces(engine: "Engine", targets: npt.NDArray[np.int32], chunk: int) -> list[Logits]:
    state, fed = engine.start(len(targets)), fed_before(targets, engine.vocab_size)
    return [
        np.ascontiguousarray(engine.advance(state, fed[:, begin : begin + chunk]))
        for begin in range(0, targets.shape[1], chunk)
    ]


def _encode_direct(engine: Replay, targets: npt.NDArray[np.int32], chunk: int) -> bytes:
    """As coder/direct.py encodes, without the estimate that asks an engine for something else first."""
    from ..coder import kernels

    state, coder, out = engine.start(len(targets)), kernels.encoder_state(), np.zeros(0, dtype=np.uint8)
    for begin in range(0, targets.shape[1], chunk):
        coded = np.ascontiguousarray(targets[:, begin : begin + chunk])
        alive = np.full(coded.shape[1], len(targets), dtype=np.int32)
        out = kernels.with_room(out, coder, kernels.MAX_BYTES_PER_TOKEN * coded.size)
        kernels.encode_tokens(engine.advance(state, coded), coded, alive, coder, out)
    return out[: kernels.finish_encoding(coder, out)].tobytes()
