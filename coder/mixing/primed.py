"""Segments against a reference: what learns is prepared by a part of it, and long copies of it are not coded.

The preparation is done by the kernels that code, with a range coder whose bytes nobody keeps, so that encoder
and decoder come to the same state.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import kernels as rangecoder
from ..compiled import compiled
from ..copies import Copy, gaps_between, pack_copies, read_copies
from ..direct import check_end, check_enough
from ..limits import TOKEN_BYTES, check_decisions, check_memory
from ..lockstep import REPORTED_TOKENS, IdArray, chunk_steps
from ..model import Model
from ..report import Report
from ..segment import EXPERTS, MIXED, DamageError, Segment, damaged
from . import kernels
from .coding import NO_LOGITS, SPARE_DECISIONS, STEPS, decode_steps, predict, source_of
from .layout import MAX_BYTES_PER_DECISION, POSITION, TOKENS, Mixing
from .longest import longest_tokens
from .pastkernels import push_byte
from .state import Shape, fresh, shape_for, tree_arrays
from .tree import byte_tree

CONTEXT = 512  # bytes that models read anew where a copy came before what is coded

Int64 = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@compiled
def _append(m: Mixing, data: Bytes) -> None:
    for i in range(data.shape[0]):
        push_byte(m, 0, np.int64(data[i]))  # pyright: ignore[reportArgumentType] - no Python int


class _Prepared:
    """Mixer and models of one stream: they learn, are shown copies, and code what lies between."""

    def __init__(self, shape: Shape, model: Model | None) -> None:
        self.shape, self.model = shape, model
        self.longest = 1
        if model is None:
            self.vocab, self.chunk = 256, STEPS
            self.tree, self.mixing = tree_arrays(byte_tree()), fresh(shape)
        else:
            self.vocab = model.engine.vocab_size
            self.chunk = max(1, chunk_steps(1, self.vocab) // shape.models)
            self.tree = tree_arrays(model.tree)
            self.mixing = fresh(shape, self.vocab, model.checkpoint.prior)
            self.longest = int(np.diff(model.tree.token_ends).max())
        self.copied = False
        self._begin()

    def _begin(self) -> None:
        """Models that have seen nothing; `fed` is what they are told next."""
        self.states: list[Any] = [] if self.model is None else [m.engine.start(1) for m in self.model.members]
        self.fed = np.full((1, 1), self.vocab, dtype=np.int32)

    def learn(self, data: bytes, report: Report | None) -> None:
        """Code a part of the reference, and drop what that writes."""
        ids = self.cut(data)
        out = np.zeros(0, dtype=np.uint8)
        for begin in range(0, len(ids), self.chunk):
            coder = rangecoder.encoder_state()
            out = self.encode(ids[begin : begin + self.chunk], coder, out)
            if report is not None:
                report(begin / len(ids))

    def cut(self, data: bytes) -> IdArray:
        """The tokens of what both sides have."""
        if self.model is None:
            return np.frombuffer(data, dtype=np.uint8).astype(np.int32)
        return longest_tokens(data, self.tree)

    def copy(self, data: bytes) -> None:
        """Append bytes that nobody learns to predict."""
        _append(self.mixing, np.frombuffer(data, dtype=np.uint8))
        self.copied = True

    def catch_up(self) -> None:
        """After copies, let the models read anew what came last."""
        if self.model is None or not self.copied:
            return
        self.copied = False
        stream, history = self.mixing.streams[0], self.mixing.history
        places = np.arange(max(0, int(stream[POSITION]) - CONTEXT), int(stream[POSITION]))
        ids = self.cut(history[places & (len(history) - 1)].tobytes())
        last = [int(token) + 1 for token in ids[:-4:-1]]
        stream[TOKENS : TOKENS + 3] = [*last, *(0 for _ in range(3 - len(last)))]
        self._begin()
        if len(ids):
            fed = np.concatenate([self.fed[0], ids[:-1]])
            for begin in range(0, len(fed), self.chunk):
                predict(self.model, self.states, fed[None, begin : begin + self.chunk])
            self.fed[0, 0] = ids[-1]

    def encode(self, ids: IdArray, coder: Int64, out: Bytes) -> Bytes:
        """Code ids [n], at most a chunk; returns where the bytes are."""
        room = 8 if self.model is None else 8 * self.longest + SPARE_DECISIONS
        out = rangecoder.with_room(out, coder, room * MAX_BYTES_PER_DECISION * len(ids))
        logits = NO_LOGITS
        if self.model is not None:
            fed = np.concatenate([self.fed[0], ids[:-1]])[None]
            logits = predict(self.model, self.states, fed)
            self.fed[0, 0] = ids[-1]
        alive = np.ones(len(ids), dtype=np.int32)
        kernels.code_tokens(False, ids[None].copy(), alive, logits, self.tree, self.mixing, coder, out)
        return out

    def decode(self, count: int, coder: Int64, data: Bytes) -> IdArray:
        """The next `count` ids.

        Raises:
            DamageError: the data ended before.
        """
        ids, alive = np.zeros((1, count), dtype=np.int32), np.ones(count, dtype=np.int32)
        if self.model is None:
            sound = kernels.code_tokens(True, ids, alive, NO_LOGITS, self.tree, self.mixing, coder, data)
        else:
            sound = decode_steps(
                self.model, self.states, self.tree, self.mixing, coder, data, self.fed, alive, ids, 0, count
            )
        check_enough(sound)
        return ids[0]


def encode_primed(
    data: bytes, reference: bytes, learned: tuple[int, int], copies: Sequence[Copy], model: Model | None,
    level: int, limit: int, report: Report | None = None,
) -> Segment | None:  # fmt: skip
    """`data` by experts, or by models and experts; None as soon as it is clear that `limit` bytes are less.

    Args:
        learned: the place in the reference, and the length, of what the mixer is prepared by.
    """
    begin, length = learned
    shape = shape_for(len(data) + length, level, 1, 0 if model is None else len(model.members))
    head = pack_copies(copies)
    coder, out, count = rangecoder.encoder_state(), np.zeros(0, dtype=np.uint8), 0
    prepared = _Prepared(shape, model)
    prepared.learn(reference[begin : begin + length], _share(report, 0, length, len(data) + length))
    gaps = list(gaps_between(copies, len(data)))
    pieces = [data[first:end] for first, end, _ in gaps]
    tokens = map(prepared.cut, pieces) if model is None else iter(model.tokenize_many(pieces))
    told = _share(report, length, len(data), len(data) + length)
    for (first, end, copy), ids in zip(gaps, tokens, strict=True):
        if len(ids):
            prepared.catch_up()
        for at in range(0, len(ids), prepared.chunk):
            out = prepared.encode(ids[at : at + prepared.chunk], coder, out)
            if coder[2] + len(head) > limit:
                return None
            if told is not None:
                told((first + (end - first) * at / len(ids)) / len(data))
        count += len(ids)
        if copy is not None:
            prepared.copy(data[copy.begin : copy.begin + copy.length])
    payload = head + out[: rangecoder.finish_encoding(coder, out)].tobytes() if count else head
    if model is None:
        return Segment(EXPERTS, len(data), payload, profile=shape.profile, learned=learned)
    return Segment(MIXED, len(data), payload, count, 1, shape.profile, learned) if count else None


def decode_primed(
    segment: Segment, reference: bytes, model: Model | None, memory: int, report: Report | None = None
) -> bytes:
    """The original bytes; `model` for method MIXED only.

    Raises:
        DamageError: the payload is not what an encoder writes.
        LaconicError: the segment asks for more than `memory` bytes.
    """
    assert segment.learned is not None
    (begin, length), total = segment.learned, segment.original_length
    if begin + length > len(reference):
        raise damaged("what is learned lies outside of the reference")
    copies, payload = read_copies(segment.payload, total, len(reference))
    level, slot_bits = Shape.unpack_profile(segment.profile)
    shape = shape_for(total + length, level, 1, 0 if model is None else len(model.members), slot_bits)
    predictions = 0 if model is None else model.memory(1)
    check_memory(shape.memory + predictions + TOKEN_BYTES * (segment.tokens + length), memory)
    coded = total - sum(copy.length for copy in copies)
    check_decisions(segment, segment.tokens if model else 8 * coded)
    data, coder = source_of(payload)
    prepared = _Prepared(shape, model)
    prepared.learn(reference[begin : begin + length], _share(report, 0, length, total + length))
    told = _share(report, length, total, total + length)
    restored, left = bytearray(), segment.tokens if model else coded
    for _, end, copy in gaps_between(copies, total):
        if len(restored) < end:
            prepared.catch_up()
        while len(restored) < end:
            # So many at least: none is longer than the longest.
            count = min(-(-(end - len(restored)) // prepared.longest), REPORTED_TOKENS)
            left -= count
            if left < 0:
                raise DamageError("a segment has more tokens than it says: get the file again")
            ids = prepared.decode(count, coder, data)
            restored += ids.astype(np.uint8).tobytes() if model is None else model.join(ids)
            if told is not None:
                told(len(restored) / total)
        if len(restored) > end:
            raise DamageError("the tokens of a segment do not end where a copy begins: get the file again")
        if copy is not None:
            copied = reference[copy.source : copy.source + copy.length]
            prepared.copy(copied)
            restored += copied
    if left:
        raise DamageError("a segment has fewer tokens than it says: get the file again")
    check_end(coder, data)
    return bytes(restored)


def _share(report: Report | None, begin: int, size: int, total: int) -> Report | None:
    """What tells of `size` bytes from `begin` on, of `total`."""
    return None if report is None else lambda done: report((begin + done * size) / max(1, total))
