"""What predicts: a checkpoint and its engine, or several that share a vocabulary."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .container import MAX_CHECKPOINTS, PREFIX
from .errors import LaconicError
from .segment import DamageError

if TYPE_CHECKING:
    from .checkpoint import FrozenCheckpoint
    from .engine import Engine
    from .mixing.tree import TokenTree

PIECE = 1 << 16  # tokens
_LOCK = Lock()  # threads may be the first to ask for a tree


@dataclass(frozen=True)
class Model:
    """A checkpoint and the engine that evaluates it; `others` predict beside it."""

    checkpoint: "FrozenCheckpoint"
    engine: "Engine"
    others: tuple["Model", ...] = ()

    @property
    def members(self) -> tuple["Model", ...]:
        return (self, *self.others)

    @property
    def prefixes(self) -> bytes:
        """The first 8 bytes of the id of each member, joined: what a file names."""
        return b"".join(member.checkpoint.id[:PREFIX] for member in self.members)

    @property
    def tree(self) -> "TokenTree":
        with _LOCK:
            return self._tree

    @cached_property
    def _tree(self) -> "TokenTree":
        from .mixing.tree import build_tree

        return build_tree(self.checkpoint.token_bytes)

    @property
    def macs_per_token(self) -> int:
        """Multiply-accumulates to predict one token, of all members; none where all are n-grams."""
        return sum(member.checkpoint.config.macs_per_token() for member in self.members)

    def memory(self, streams: int) -> int:
        """Bytes, at most, that predicting so many streams takes."""
        return streams * sum(member.checkpoint.config.memory_per_stream() for member in self.members)

    def tokenize(self, data: bytes) -> npt.NDArray[np.int32]:
        """Token ids whose bytes are `data`.

        Raises:
            LaconicError: the checkpoint's tokenizer does not give its input back.
        """
        return self.tokenize_many([data])[0]

    def tokenize_many(self, batch: list[bytes]) -> list[npt.NDArray[np.int32]]:
        """`tokenize` for each of several byte strings."""
        many = self.checkpoint.tokenizer.encode_batch(batch)
        if any(self.join(ids) != data for ids, data in zip(many, batch, strict=True)):
            raise LaconicError(
                "the checkpoint's tokenizer does not give its input back: get a good copy of the "
                "checkpoint, or compress with -m none"
            )
        return many

    def restore(self, ids: npt.NDArray[np.int32], length: int) -> bytes:
        """The bytes of the ids, put end to end.

        Raises:
            DamageError: they are not `length` bytes.
        """
        lengths = np.diff(self.tree.token_ends)
        if sum(int(lengths[piece].sum()) for piece in _pieces(ids)) != length:
            raise DamageError("the tokens of a segment do not add up to its length: get the file again")
        return self.join(ids)

    def join(self, ids: npt.NDArray[np.int32]) -> bytes:
        token_bytes, joined = self.checkpoint.token_bytes, bytearray()
        for piece in _pieces(ids):
            numbers: list[int] = piece.tolist()
            joined += b"".join([token_bytes[i] for i in numbers])
        return bytes(joined)


def _pieces(ids: npt.NDArray[np.int32]) -> Iterator[npt.NDArray[np.int32]]:
    """What is done to all tokens at once takes many times their memory."""
    return (ids[begin : begin + PIECE] for begin in range(0, len(ids), PIECE))


def ensemble(models: list[Model]) -> Model:
    """Several models as one.

    Raises:
        LaconicError: there are too many, one occurs twice, or their vocabularies differ.
    """
    first = models[0]
    if len(models) > MAX_CHECKPOINTS:
        raise LaconicError(f"{len(models)} checkpoints: a file can name up to {MAX_CHECKPOINTS}")
    if len({model.checkpoint.id for model in models}) < len(models):
        raise LaconicError("a checkpoint is named twice: name different ones by -m")
    for model in models[1:]:
        if model.checkpoint.token_bytes != first.checkpoint.token_bytes:
            a, b = (m.checkpoint.path or m.checkpoint.id.hex()[:16] for m in (first, model))
            raise LaconicError(
                f"{a} and {b} have different vocabularies and cannot predict together: train one of them "
                "with the other's tokenizer"
            )
    return Model(first.checkpoint, first.engine, tuple(models[1:]))
