"""Batches of new text and old, so that a model that learns the one keeps the other."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset

from .datamodule import Batch, Timed, TokenDataModule, TrainingBatches, open_training
from .shards import open_shard
from .tokenshard import TokenShard

SAME = 64  # tokens in a row that two texts have in common by descent, not by chance
KNOWN = 0.9  # of a document: that much of it is all of it
LEAST = 16  # tokens of a whole document, likewise
MULTIPLIER = 0x9E3779B97F4A7C15  # of a polynomial in 64 bits
CHUNK = 1 << 20  # tokens looked at together


def held_out(folder: str | os.PathLike[str]) -> list[TokenShard]:
    """The shards of a folder that nothing learns from."""
    return [open_shard(folder, "validation"), open_shard(folder, "test")]


def found_in(others: list[TokenShard], shard: TokenShard) -> NDArray[np.bool_]:
    """Which tokens of a shard, [num_tokens], are documents of other shards of the same vocabulary.

    A document is found, wherever documents begin here, where KNOWN of it is in SAME tokens in the same order,
    so that lines which recur in all logs are not; one with less than SAME tokens and at least LEAST is, where
    it is a document here too.
    """
    found = np.zeros(shard.num_tokens, dtype=bool)
    theirs = {document for other in others for _, _, document in _short_documents(other)}
    for begin, end, document in _short_documents(shard):
        found[begin:end] |= document in theirs
    documents = [_hashes(document) for other in others for document in _long_documents(other)]
    if not documents:
        return found
    hashes, places = np.unique(np.concatenate(documents), return_inverse=True)
    seen = np.zeros(hashes.size, dtype=bool)
    for _, places_here, same in _matches(hashes, shard):
        seen[places_here[same]] = True
    ends = np.cumsum([document.size for document in documents])[:-1]
    known = [document.mean() >= KNOWN for document in np.split(seen[places], ends)]
    if not any(known):
        return found
    hashes = np.unique(
        np.concatenate([document for document, all_of_it in zip(documents, known, strict=True) if all_of_it])
    )
    for begin, _, same in _matches(hashes, shard):
        for offset in range(SAME):
            found[begin + offset : begin + offset + same.size] |= same
    return found


def _matches(
    hashes: NDArray[np.uint64], shard: TokenShard
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.bool_]]]:
    """A chunk's begin; of each SAME tokens from there on their place in sorted hashes, and if it is one."""
    for begin in range(0, shard.num_tokens, CHUNK):
        own = _hashes(shard.tokens[begin : begin + CHUNK + SAME - 1])
        places = np.searchsorted(hashes, own).clip(max=hashes.size - 1)
        yield begin, places, hashes[places] == own


def _long_documents(shard: TokenShard) -> Iterator[NDArray[np.unsignedinteger]]:
    for begin, end in itertools.pairwise(shard.offsets.tolist()):
        if end - begin >= SAME:
            yield shard.tokens[begin:end]


def _short_documents(shard: TokenShard) -> Iterator[tuple[int, int, bytes]]:
    """(begin, end, tokens) of documents that are too short for SAME tokens."""
    lengths = np.diff(shard.offsets)
    for number in np.flatnonzero((lengths >= LEAST) & (lengths < SAME)).tolist():
        begin, end = shard.offsets[number : number + 2].tolist()
        yield begin, end, shard.tokens[begin:end].tobytes()


def _hashes(tokens: NDArray[np.unsignedinteger]) -> NDArray[np.uint64]:
    """Of each SAME tokens in a row: [n] -> [n - SAME + 1], or [0]."""
    if len(tokens) < SAME:
        return np.zeros(0, dtype=np.uint64)
    hashes, width = tokens.astype(np.uint64) + np.uint64(1), 1
    while width < SAME:  # twice as many, of what half as many gave
        hashes = hashes[:-width] * np.uint64(pow(MULTIPLIER, width, 1 << 64)) + hashes[width:]
        width *= 2
    return hashes


class ReplayDataModule(TokenDataModule):
    """A TokenDataModule whose training batches begin with sequences of another folder's train shard.

    Sequences with text that the other splits of the new text hold are left out (see `found_in`). Validation
    is of the new text alone. (Experience replay: Robins 1995, "Catastrophic forgetting, rehearsal and
    pseudorehearsal".)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        old_folder: str | os.PathLike[str],
        old_sequences: int,
        seq_len: int,
        batch_size: int,
        seed: int = 0,
        validation_tokens: int = 500_000,
    ) -> None:
        """
        Args:
            folder: shards of the new text.
            old_folder: shards of the old text, of the same vocabulary.
            old_sequences: of the old text in each batch, from 1 to batch_size - 1.
        """
        super().__init__(folder, seq_len, batch_size, seed, validation_tokens)
        assert 1 <= old_sequences < batch_size
        self.old_folder, self.old_sequences = Path(old_folder), old_sequences
        self._found: NDArray[np.bool_] | None = None

    def train_dataloader(self) -> DataLoader[Batch]:
        """Endless batches [B, T], from number `batches_served` on.

        Raises:
            LaconicError: one of the shards has fewer tokens than one sequence.
        """
        old, new = self.old_sequences, self.batch_size - self.old_sequences
        shards = [open_training(folder, self.seq_len) for folder in (self.old_folder, self.folder)]
        parts = [
            TrainingBatches(self, shards[0], old, self._barred(shards[0])),
            TrainingBatches(self, shards[1], new),
        ]
        return DataLoader(Timed(self, _Joined(parts)), batch_size=None)

    def _barred(self, old: TokenShard) -> NDArray[np.bool_]:
        if self._found is None:
            self._found = found_in(held_out(self.folder), old)
        return self._found


class _Joined(IterableDataset[Batch]):
    """Batch n of each part, put under one another."""

    def __init__(self, parts: list[TrainingBatches]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[Batch]:
        for batches in zip(*self.parts, strict=True):
            inputs, targets = zip(*batches, strict=True)
            yield torch.cat(inputs), torch.cat(targets)
