"""Batches of new text and old, so that a model that learns the one keeps the other."""

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader, IterableDataset

from .datamodule import Batch, Timed, TokenDataModule, TrainingBatches, open_training


class ReplayDataModule(TokenDataModule):
    """A TokenDataModule whose training batches begin with sequences of another folder's train shard.

    Validation is of the new text alone. (Experience replay: Robins 1995, "Catastrophic forgetting, rehearsal
    and pseudorehearsal".)
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

    def train_dataloader(self) -> DataLoader[Batch]:
        """Endless batches [B, T], from number `batches_served` on.

        Raises:
            LaconicError: one of the shards has fewer tokens than one sequence.
        """
        old, new = self.old_sequences, self.batch_size - self.old_sequences
        parts = [
            TrainingBatches(self, open_training(folder, self.seq_len), count)
            for folder, count in ((self.old_folder, old), (self.folder, new))
        ]
        return DataLoader(Timed(self, _Joined(parts)), batch_size=None)


class _Joined(IterableDataset[Batch]):
    """Batch n of each part, put under one another."""

    def __init__(self, parts: list[TrainingBatches]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[Batch]:
        for batches in zip(*self.parts, strict=True):
            inputs, targets = zip(*batches, strict=True)
            yield torch.cat(inputs), torch.cat(targets)
