"""Records in lockstep by the model: each is a stream, and a row with a range coder of its own.

The streams of a batch stand in falling order of their tokens, so that those that end are the engine's last.

Dimensions: S records, T steps, V symbols.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import kernels
from .frame import MAX_TOKENS, SPARE
from .lockstep import IdArray, fed_before
from .model import Model

Int64 = npt.NDArray[np.int64]

CHUNK_BYTES = 1 << 22  # of the logits that an encoder asks of the engine: they stay in the cache
CHUNK_STEPS = 8  # a stream is fed to the end of the chunk in which it ends
# The prediction of (tokens - 1) // 32: a bit and a half less each time that it doubles.
COUNT_LOGITS = np.array(
    [-1536 * ((high + 1).bit_length() - 1) for high in range(MAX_TOKENS // SPARE)], dtype=np.int32
)


class Coded(NamedTuple):
    """A record by the model."""

    tokens: int
    payload: bytes


def encode_rows(records: list[bytes], model: Model) -> list[Coded | None]:
    """Each record, 1 to MAX_TOKENS bytes long, by the model; None where that is longer than the record.

    Raises:
        LaconicError: the checkpoint's tokenizer does not give its input back.
    """
    tokenized = model.tokenize_many(records)
    order = sorted(range(len(records)), key=lambda i: -len(tokenized[i]))
    counts = np.array([len(tokenized[i]) for i in order], dtype=np.int64)
    targets = np.zeros((len(records), counts[0]), dtype=np.int32)
    for row, i in enumerate(order):
        targets[row, : counts[row]] = tokenized[i]
    limits = np.array([len(records[i]) for i in order], dtype=np.int64)
    room = int(limits.max()) + kernels.MAX_BYTES_PER_TOKEN + kernels.TAIL
    out = np.zeros((len(records), room), dtype=np.uint8)
    states = np.tile(kernels.encoder_state(), (len(records), 1))
    high = ((counts - 1) // SPARE).astype(np.int32)[:, None]
    kernels.encode_rows(COUNT_LOGITS[None, None], high, np.ones_like(counts), limits, states, out)
    _encode_tokens(targets, counts, limits, model, states, out)
    lengths = np.empty_like(counts)
    kernels.finish_rows(limits, states, out, lengths)
    coded: list[Coded | None] = [None] * len(records)
    for row, (i, length, count) in enumerate(zip(order, lengths.tolist(), counts.tolist(), strict=True)):
        if length >= 0:
            coded[i] = Coded(count, out[row, :length].tobytes())
    return coded


def _encode_tokens(
    targets: IdArray, counts: Int64, limits: Int64, model: Model, states: Int64, out: npt.NDArray[np.uint8]
) -> None:
    engine, begin, steps = model.engine, 0, int(counts[0])
    fed = fed_before(targets, engine.vocab_size)
    state = engine.start(len(counts))
    while begin < steps:
        alive = int(np.searchsorted(-counts, -begin))
        width = max(1, min(CHUNK_STEPS, CHUNK_BYTES // (4 * alive * engine.vocab_size)))
        piece = slice(begin, begin + width)
        logits = np.ascontiguousarray(engine.advance(state, fed[:alive, piece]))
        left = np.minimum(counts[:alive] - begin, logits.shape[1])
        coded = np.ascontiguousarray(targets[:alive, piece])
        kernels.encode_rows(logits, coded, left, limits, states, out)
        begin += width


class Rows(NamedTuple):
    """Records by the model, whose numbers of tokens have been read."""

    data: npt.NDArray[np.uint8]  # the payloads of all
    bounds: Int64  # [S, 2]: where each begins and ends
    states: Int64  # [S, 3]: the range decoders
    counts: Int64  # [S]: tokens
    order: list[int]  # the rows in falling order of tokens


def open_rows(payloads: list[bytes], spares: list[int]) -> Rows:
    """Read how many tokens each record has; `spares` are those numbers, less one, mod 32."""
    data = np.frombuffer(b"".join(payloads), dtype=np.uint8)
    ends = np.cumsum([len(payload) for payload in payloads])
    bounds = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
    states = kernels.decoder_states(payloads)
    high = np.empty(len(payloads), dtype=np.int32)
    kernels.decode_rows(COUNT_LOGITS[None], data, bounds, states, high)
    counts = high.astype(np.int64) * SPARE + np.array(spares) + 1
    order: list[int] = np.argsort(-counts, kind="stable").tolist()
    return Rows(data, bounds, states, counts, order)


def decode_rows(rows: Rows, chosen: list[int], model: Model) -> list[bytes | None]:
    """The records of a part of `rows.order`; None where a payload is not what an encoder writes."""
    engine, data = model.engine, rows.data
    bounds, states, counts = rows.bounds[chosen], rows.states[chosen], rows.counts[chosen]
    steps = int(counts[0])
    alive_at: list[int] = np.searchsorted(-counts, -np.arange(steps)).tolist()
    ids = np.zeros((len(counts), steps), dtype=np.int32)
    fed = np.full(len(counts), engine.vocab_size, dtype=np.int32)
    state = engine.start(len(counts))
    for step, alive in enumerate(alive_at):
        logits = np.ascontiguousarray(engine.advance(state, fed[:alive, None])[:, 0])
        sound = kernels.decode_rows(logits, data, bounds, states, fed[:alive])
        if sound == 0:
            break
        ids[:alive, step] = fed[:alive]
    ended = np.empty(len(counts), dtype=np.bool_)
    kernels.ended_shortest(data, bounds, states, ended)
    return [
        model.join(row[:count]) if good else None
        for row, count, good in zip(ids, counts.tolist(), ended.tolist(), strict=True)
    ]
