"""Segments to coded segments and back: by a model, by LZMA, or raw, whichever is the smallest.

A segment is tokenised whole. Its n ids are split into S consecutive ranges whose lengths differ by at most
one, the longer first: the streams. They are coded in lockstep (step, then stream) into one range coder, so
that the engine works on S streams at once, and a stream that has ended is passed over.
"""

import lzma
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .container import LZMA, MAX_STREAMS, MODEL, RAW, DamageError, Segment, pack_header
from .errors import LaconicError

if TYPE_CHECKING:
    from .checkpoint import FrozenCheckpoint
    from .engine import Engine

IdArray = npt.NDArray[np.int32]
Report = Callable[[float], None]  # is told what part of the segment is done, 0 to 1

TOKENS_PER_STREAM = 4096
DEFAULT_STREAMS = 64  # at most, when nothing is said
LOGITS_BYTES = 64_000_000  # of the chunk that the encoder asks of the engine
MAX_CHUNK_STEPS = 64  # an engine's attention over a chunk grows with its square
LZMA_IS_ENOUGH = 0.02  # of the original: no model is asked where LZMA does better
PROMISING = 1.1  # times the best other size: an estimate above that is not followed up
PLACES, WARM_UP, COUNTED = 16, 64, 64  # the sample: places, and tokens before and within what is counted


@dataclass(frozen=True)
class Model:
    """A checkpoint and the engine that evaluates it."""

    checkpoint: "FrozenCheckpoint"
    engine: "Engine"


def num_streams(num_tokens: int, wanted: int | None = None) -> int:
    """Streams of a segment of `num_tokens` >= 1 tokens: what is wanted, or one for 4096 tokens, 1 to 64."""
    streams = min(num_tokens // TOKENS_PER_STREAM, DEFAULT_STREAMS) if wanted is None else wanted
    return max(1, min(streams, num_tokens, MAX_STREAMS))


def encode_segment(
    data: bytes, model: Model | None, streams: int | None = None, report: Report | None = None
) -> Segment:
    """The smallest coded form of `data`, at least one byte and at most MAX_SEGMENT.

    Args:
        model: None leaves LZMA and raw.
        streams: 1..4096, or None for a number that suits the length.
    """
    best = Segment(RAW, len(data), data)
    packed = lzma.compress(data, lzma.FORMAT_RAW, filters=_lzma_filters(len(data)))
    if len(packed) < len(data):
        best = Segment(LZMA, len(data), packed)
    if model is None or len(packed) < LZMA_IS_ENOUGH * len(data):
        return best
    coded = _encode_with_model(data, model, streams, len(best.payload), report)
    if coded is not None and _stored_size(coded) < _stored_size(best):
        best = coded
    return best


def decode_segment(segment: Segment, model: Model | None, report: Report | None = None) -> bytes:
    """The original bytes; `model` is needed for method MODEL only.

    Raises:
        DamageError: the payload is not what an encoder writes.
    """
    if segment.method == RAW:
        return segment.payload
    if segment.method == LZMA:
        return _decode_lzma(segment)
    assert model is not None
    return _decode_with_model(segment, model, report)


def _stored_size(segment: Segment) -> int:
    return len(pack_header(segment)) + len(segment.payload)


def _lzma_filters(original_length: int) -> list[dict[str, Any]]:
    """LZMA1 without a container: these parameters are part of the format."""
    dictionary = max(4096, original_length)
    preset = 9 | lzma.PRESET_EXTREME
    return [{"id": lzma.FILTER_LZMA1, "preset": preset, "dict_size": dictionary, "lc": 3, "lp": 0, "pb": 0}]


def _decode_lzma(segment: Segment) -> bytes:
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_lzma_filters(segment.original_length))
    try:
        data = decoder.decompress(segment.payload, segment.original_length + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise DamageError(f"the LZMA data of a segment is damaged ({error}): get the file again") from None
    if not decoder.eof or decoder.unused_data or len(data) != segment.original_length:
        raise DamageError("the LZMA data of a segment does not end where it should: get the file again")
    return data


def _starts(num_tokens: int, streams: int) -> npt.NDArray[np.int64]:
    """First token of each stream, and the end of the last: int64 [S + 1]."""
    short, longer = divmod(num_tokens, streams)
    lengths = np.full(streams, short, dtype=np.int64)
    lengths[:longer] += 1
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])


def _lockstep(ids: IdArray, streams: int, begin_id: int) -> tuple[IdArray, IdArray, IdArray]:
    """The streams as rows.

    Returns:
        fed int32 [S, T], what the engine is told before each step; targets int32 [S, T], what comes (zero
        where a stream has ended); alive int32 [T], the number of streams that have not ended.
    """
    starts = _starts(len(ids), streams)
    steps = -(-len(ids) // streams)
    targets = np.zeros((streams, steps), dtype=np.int32)
    for stream, (begin, end) in enumerate(pairwise(starts.tolist())):
        targets[stream, : end - begin] = ids[begin:end]
    fed = np.full((streams, steps), begin_id, dtype=np.int32)
    fed[:, 1:] = targets[:, :-1]
    alive = np.full(steps, streams, dtype=np.int32)
    alive[-1] = len(ids) - streams * (steps - 1)
    return fed, targets, alive


def _encode_with_model(
    data: bytes, model: Model, streams: int | None, limit: int, report: Report | None
) -> Segment | None:
    """None as soon as it is clear that `limit` bytes are less."""
    from . import kernels
    from .fixedpoint import exp2_table

    engine, vocab, tokens = model.engine, model.engine.vocab_size, model.checkpoint.token_bytes
    ids = np.ascontiguousarray(model.checkpoint.tokenizer.encode(data), dtype=np.int32)
    numbers: list[int] = ids.tolist()
    if b"".join([tokens[i] for i in numbers]) != data:
        raise LaconicError(
            "the checkpoint's tokenizer does not give its input back: get a good copy of the "
            "checkpoint, or choose -m none"
        )
    if len(ids) > 2 * PLACES * (WARM_UP + COUNTED) and _estimate(ids, model) > PROMISING * limit:
        return None
    streams = num_streams(len(ids), streams)
    fed, targets, alive = _lockstep(ids, streams, vocab)
    chunk = max(1, min(MAX_CHUNK_STEPS, LOGITS_BYTES // (4 * streams * vocab)))
    state, coder, table = engine.start(streams), kernels.encoder_state(), exp2_table()
    out = np.zeros(0, dtype=np.uint8)
    for begin in range(0, len(alive), chunk):
        piece = slice(begin, begin + chunk)
        logits = np.ascontiguousarray(engine.advance(state, fed[:, piece]))
        room = int(coder[2]) + kernels.MAX_BYTES_PER_TOKEN * targets[:, piece].size + kernels.TAIL
        if room > len(out):
            out = np.concatenate([out, np.zeros(room - len(out), dtype=np.uint8)])
        kernels.encode_tokens(
            logits, np.ascontiguousarray(targets[:, piece]), alive[piece], table, coder, out
        )
        if coder[2] > limit:
            return None
        if report is not None:
            report(min(1.0, (begin + chunk) / len(alive)))
    length = kernels.finish_encoding(coder, out)
    return Segment(MODEL, len(data), out[:length].tobytes(), len(ids), streams)


def _estimate(ids: IdArray, model: Model) -> float:
    """Bytes that the model would need for all of `ids`, from a sample that has warmed up."""
    from . import kernels
    from .fixedpoint import exp2_table

    length = WARM_UP + COUNTED
    places = np.linspace(0, len(ids) - length, PLACES).astype(np.int64)
    sample = ids[places[:, None] + np.arange(length)]
    fed = np.full_like(sample, model.engine.vocab_size)
    fed[:, 1:] = sample[:, :-1]
    state = model.engine.start(PLACES)
    model.engine.advance(state, fed[:, :WARM_UP])
    logits = np.ascontiguousarray(model.engine.advance(state, fed[:, WARM_UP:]))
    targets = np.ascontiguousarray(sample[:, WARM_UP:]).reshape(-1)
    bits = kernels.code_lengths(logits.reshape(len(targets), -1), targets, exp2_table())
    return float(bits.mean()) * len(ids) / 8


def _decode_with_model(segment: Segment, model: Model, report: Report | None) -> bytes:
    from . import kernels
    from .fixedpoint import exp2_table

    engine, streams, table = model.engine, segment.streams, exp2_table()
    starts = _starts(segment.tokens, streams)
    steps = -(-segment.tokens // streams)
    ids = np.zeros(segment.tokens, dtype=np.int32)
    data = np.frombuffer(segment.payload, dtype=np.uint8)
    state, coder = engine.start(streams), kernels.decoder_state(data)
    fed = np.full(streams, engine.vocab_size, dtype=np.int32)
    for step in range(steps):
        alive = min(streams, segment.tokens - streams * step)
        logits = np.ascontiguousarray(engine.advance(state, fed[:, None])[:alive, 0])
        if not kernels.decode_tokens(logits, table, data, coder, fed):
            raise DamageError("the coded data of a segment ends too early: get the file again")
        ids[starts[:alive] + step] = fed[:alive]
        if report is not None and step % 64 == 0:
            report(step / steps)
    if coder[2] < len(data):
        raise DamageError("the coded data of a segment goes on after its last token: get the file again")
    token_bytes = model.checkpoint.token_bytes
    lengths = np.array([len(b) for b in token_bytes], dtype=np.int64)
    if int(lengths[ids].sum()) != segment.original_length:
        raise DamageError("the tokens of a segment do not add up to its length: get the file again")
    return b"".join([token_bytes[i] for i in ids.tolist()])
