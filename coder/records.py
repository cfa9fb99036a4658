"""`laconic.Compressor`: thousands of short records, each coded on its own by the model alone, in batches.

Threads take the batches from a pool: engines and kernels release the interpreter's lock. The bytes of a
record depend on neither.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from .container import check as check_of
from .errors import LaconicError
from .files import Name, open_model
from .frame import DEFLATE, MAX_INFLATED, MAX_TOKENS, MODEL, RAW, SPARE, Frame, deflate, inflate, pack, parse
from .parallel import check_threads
from .rows import Coded, decode_rows, encode_rows, open_rows
from .segment import DamageError

if TYPE_CHECKING:
    from .model import Model

_Result = TypeVar("_Result")

BATCH, SMALL_BATCH = 256, 32  # records; a small one is split no further to keep threads busy
BATCHES_PER_THREAD = 4
STEP_BYTES = 1 << 25  # of the logits of a batch for one step


class Compressor:
    """Compresses records by one checkpoint, which the decoder must know: the blobs do not name it."""

    def __init__(
        self, model: "Name | Model" = "default", *, engine: str | None = None, threads: int | None = None
    ) -> None:
        """
        Args:
            model: a checkpoint's name, path or id, or what `open_model` returned.
            engine: what evaluates it (None: numba); the result is the same.
            threads: that take batches (None: as many as cores); the result is the same.

        Raises:
            LaconicError: there is no such checkpoint, engine or number of threads.
        """
        opened = open_model(model, engine, 1)
        if opened is None or opened.others:
            raise LaconicError(
                "records are coded by one checkpoint, neither by none nor by several: name one"
            )
        self.model = opened
        self.threads = check_threads(threads)
        self.largest = max(1, min(BATCH, STEP_BYTES // (4 * opened.engine.vocab_size)))

    def compress_many(self, records: Sequence[bytes], *, check: bool = False) -> list[bytes]:
        """A blob for each record, at most one byte longer than the record (five with a check).

        A blob does not say where it ends: keep the list, or the lengths. Records above 16,384 bytes are coded
        without the model; use `laconic.compress` for them.

        Args:
            check: whether each blob ends with four bytes that verify the record. Without them a damaged blob,
                or one of another checkpoint, may decode to wrong bytes.

        Raises:
            LaconicError: a record is not of type bytes.
        """
        _check_types(records, "record")
        blobs = [b""] * len(records)

        def encode(batch: list[int]) -> list[bytes]:
            return self._encode([records[i] for i in batch], check)

        batches = self._cut(sorted(range(len(records)), key=lambda i: -len(records[i])))
        for batch, coded in zip(batches, self._each(encode, batches), strict=True):
            for i, blob in zip(batch, coded, strict=True):
                blobs[i] = blob
        return blobs

    def decompress_many(self, blobs: Sequence[bytes]) -> list[bytes]:
        """The record of each blob: of any blobs that this checkpoint made, in any order.

        Raises:
            LaconicError: a blob is not of type bytes.
            DamageError: a blob is not what an encoder writes, or its check is not that of the record.
        """
        _check_types(blobs, "blob")
        frames = [parse(blob) for blob in blobs]
        records = [None if frame is None else _without_model(frame) for frame in frames]
        by_model = {i: frame for i, frame in enumerate(frames) if frame is not None and frame.method == MODEL}
        for i, record in zip(by_model, self._decode(list(by_model.values())), strict=True):
            records[i] = record
        restored: list[bytes] = []
        for i, (frame, record) in enumerate(zip(frames, records, strict=True)):
            if frame is None or record is None or (frame.check and frame.check != check_of(record)):
                raise DamageError(
                    f"blob {i} is damaged, or was made with another checkpoint: get it again, or name the "
                    "checkpoint that made it"
                )
            restored.append(record)
        return restored

    def _encode(self, records: list[bytes], checked: bool) -> list[bytes]:
        """A batch of blobs."""
        suitable = [i for i, record in enumerate(records) if 0 < len(record) <= MAX_TOKENS]
        coded: dict[int, Coded | None] = {}
        if suitable:
            coded = dict(zip(suitable, encode_rows([records[i] for i in suitable], self.model), strict=True))
        return [_smallest(record, coded.get(i), checked) for i, record in enumerate(records)]

    def _decode(self, frames: list[Frame]) -> list[bytes | None]:
        """Records by the model."""
        if not frames:
            return []
        rows = open_rows([frame.payload for frame in frames], [frame.spare for frame in frames])
        records: list[bytes | None] = [None] * len(frames)
        batches = self._cut(rows.order)
        done = self._each(lambda batch: decode_rows(rows, batch, self.model), batches)
        for batch, restored in zip(batches, done, strict=True):
            for i, record in zip(batch, restored, strict=True):
                records[i] = record
        return records

    def _cut(self, order: list[int]) -> list[list[int]]:
        """Batches of neighbours: several for each thread, as long as they are not too small."""
        shared = -(-len(order) // (self.threads * BATCHES_PER_THREAD))
        size = min(self.largest, max(SMALL_BATCH, shared))
        return [order[begin : begin + size] for begin in range(0, len(order), size)]

    def _each(
        self, work: Callable[[list[int]], list[_Result]], batches: list[list[int]]
    ) -> list[list[_Result]]:
        workers = min(self.threads, len(batches))
        if workers < 2:
            return [work(batch) for batch in batches]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(work, batches))


def _check_types(items: Sequence[bytes], what: str) -> None:
    if isinstance(items, bytes | str):
        raise LaconicError(f"one {what} alone: give a list of them")
    for i, item in enumerate(items):
        if type(item) is not bytes:
            raise LaconicError(f"{what} {i} is of type {type(item).__name__}: give bytes")


def _smallest(record: bytes, coded: Coded | None, checked: bool) -> bytes:
    method, payload = RAW, record
    deflated = deflate(record) if len(record) <= MAX_INFLATED else record
    if len(deflated) < len(payload):
        method, payload = DEFLATE, deflated
    if coded is not None and len(coded.payload) < len(payload):
        return pack(record, MODEL, coded.payload, (coded.tokens - 1) % SPARE, checked)
    return pack(record, method, payload, 0, checked)


def _without_model(frame: Frame) -> bytes | None:
    if frame.method == DEFLATE:
        return inflate(frame.payload)
    return frame.payload if frame.method == RAW else None
