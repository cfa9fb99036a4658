"""Streams: how the tokens of a segment are laid out so that an engine works on many of them at once.

The n ids are split into S consecutive ranges whose lengths differ by at most one, the longer first. They are
coded in lockstep (step, then stream), and a stream that has ended is passed over.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .segment import MAX_STREAMS

IdArray = npt.NDArray[np.int32]

TOKENS_PER_STREAM = 2048  # a stream more costs a byte and a half: the model's first tokens
REPORTED_TOKENS = 4096  # between two reports of a decoder, at which it can be stopped
# Of the chunk that an encoder asks of the engine: larger arrays are pages that the system clears every time.
LOGITS_BYTES = 16_000_000
MAX_CHUNK_STEPS = 64  # an engine's attention over a chunk grows with its square


def num_streams(num_tokens: int, wanted: int | None, most: int) -> int:
    """Streams of a segment of `num_tokens` >= 1 tokens: as wanted, or by its length, 1 to `most`."""
    streams = min(num_tokens // TOKENS_PER_STREAM, most) if wanted is None else wanted
    return max(1, min(streams, num_tokens, MAX_STREAMS))


def stream_starts(num_tokens: int, streams: int) -> npt.NDArray[np.int64]:
    """First token of each stream, and the end of the last: int64 [S + 1]."""
    short, longer = divmod(num_tokens, streams)
    lengths = np.full(streams, short, dtype=np.int64)
    lengths[:longer] += 1
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])


def in_lockstep(ids: IdArray, streams: int) -> tuple[IdArray, IdArray]:
    """The streams as rows.

    Returns:
        targets int32 [S, T], what comes (zero where a stream has ended); alive int32 [T], the number of
        streams that have not ended.
    """
    starts = stream_starts(len(ids), streams)
    alive = steps_alive(len(ids), streams)
    targets = np.zeros((streams, len(alive)), dtype=np.int32)
    for stream, (begin, end) in enumerate(pairwise(starts.tolist())):
        targets[stream, : end - begin] = ids[begin:end]
    return targets, alive


def steps_alive(num_tokens: int, streams: int) -> IdArray:
    """Of each step of a segment, the number of streams that have not ended: int32 [T]."""
    steps = -(-num_tokens // streams)
    alive = np.full(steps, streams, dtype=np.int32)
    alive[-1] = num_tokens - streams * (steps - 1)
    return alive


def reported_steps(streams: int) -> int:
    """Steps between two reports of a decoder."""
    return max(1, REPORTED_TOKENS // streams)


def end_to_end(ids: IdArray, num_tokens: int) -> IdArray:
    """The streams' tokens, rows of ids [S, T], as they stand in the text: int32 [num_tokens]."""
    lengths = np.diff(stream_starts(num_tokens, len(ids))).tolist()
    return np.concatenate([row[:length] for row, length in zip(ids, lengths, strict=True)])


def fed_before(targets: IdArray, begin_id: int) -> IdArray:
    """What an engine is told before each step: the id before, and `begin_id` at first; int32 [S, T]."""
    fed = np.full_like(targets, begin_id)
    fed[:, 1:] = targets[:, :-1]
    return fed


def chunk_steps(streams: int, vocab_size: int) -> int:
    """Steps that an encoder asks of the engine at a time."""
    return max(1, min(MAX_CHUNK_STEPS, LOGITS_BYTES // (4 * streams * vocab_size)))
