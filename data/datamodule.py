"""Lightning's view of a folder of token shards."""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ..coder.errors import LaconicError
from .batches import sequence_batch
from .predictions import Predictions
from .shards import open_shard
from .tokenshard import TokenShard

Batch = tuple[Tensor, ...]  # inputs int64 [B, T], targets int64 [B, T]; predictions, where they are served


class TokenDataModule(pl.LightningDataModule):
    """Serves the train and validation shards of a folder.

    Training batches never end. Each pass over the shard has its own order of sequences and its own random
    shift of their borders, both drawn from the seed and the number of the pass; so the number of a batch says
    all that is in it, and a checkpoint needs to keep just how many were used.

    Attributes:
        batches_served: training batches that this process has handed to the training step; Lightning fetches
            one ahead, which does not count.
        waiting_seconds: that training has waited for its batches.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        seq_len: int,
        batch_size: int,
        seed: int = 0,
        validation_tokens: int = 500_000,
        predictions: Predictions | None = None,
    ) -> None:
        """Name the shards; they are opened when they are asked for.

        Args:
            folder: what `build_shards` made.
            seq_len: T, tokens a sequence.
            batch_size: B, sequences a batch.
            seed: of order and shifts.
            validation_tokens: how many tokens of the validation shard, from its start, are read.
            predictions: of the train shard's tokens; training batches then have two more members, ids int64
                [B, T, k] and log-probabilities float32 [B, T, k + 1] of the targets.
        """
        super().__init__()
        self.folder, self.seq_len, self.batch_size, self.seed = Path(folder), seq_len, batch_size, seed
        self.validation_tokens, self.predictions = validation_tokens, predictions
        self.batches_served = 0
        self.waiting_seconds = 0.0

    def _world(self) -> tuple[int, int]:
        """Rank and number of the processes that train together."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Endless batches, from number `batches_served` on.

        Raises:
            LaconicError: the shard has fewer tokens than one sequence.
        """
        shard = open_training(self.folder, self.seq_len)
        return DataLoader(Timed(self, TrainingBatches(self, shard)), batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Each token of the validation shard once, in order; the last batches are smaller or shorter.

        Of N ranks that train together each gets every Nth batch, and as many as the others: an empty one
        where there is none left.

        Raises:
            LaconicError: the shard is missing or damaged.
        """
        shard = open_shard(self.folder, "validation")
        return DataLoader(_ValidationBatches(self, shard), batch_size=None)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Count what the training step is about to use."""
        if self.trainer and self.trainer.training:
            self.batches_served += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """{"batches_served"}, for Lightning's checkpoints."""
        return {"batches_served": self.batches_served}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the batch after those that were served."""
        self.batches_served = state_dict["batches_served"]


def open_training(folder: str | os.PathLike[str], seq_len: int) -> TokenShard:
    """The train shard of a folder.

    Raises:
        LaconicError: it has fewer tokens than one sequence, is missing or damaged.
    """
    shard = open_shard(folder, "train")
    if shard.num_tokens < seq_len:
        raise LaconicError(
            f"the training text has {shard.num_tokens:,} tokens, a sequence needs {seq_len}: "
            f"give more text or a training.seq_len of at most {shard.num_tokens}"
        )
    return shard


class Timed(IterableDataset[Batch]):
    """Endless batches as they are; what they take is added to the module's `waiting_seconds`."""

    def __init__(self, module: TokenDataModule, batches: Iterable[Batch]) -> None:
        self.module, self.batches = module, batches

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.batches)
        while True:
            began = time.perf_counter()
            batch = next(batches)
            self.module.waiting_seconds += time.perf_counter() - began
            yield batch


class TrainingBatches(IterableDataset[Batch]):
    """Endless batches of one shard, `batch_size` sequences each (None: as many as the module's).

    Sequences with a token that `barred` (bool [num_tokens]) names are left out; others take their places.
    """

    def __init__(
        self,
        module: TokenDataModule,
        shard: TokenShard,
        batch_size: int | None = None,
        barred: NDArray[np.bool_] | None = None,
    ) -> None:
        self.module, self.shard, self.barred = module, shard, barred
        self.batch_size = batch_size or module.batch_size
        # So many sequences fit whatever the shift below seq_len; a shard too small for two has one.
        T = module.seq_len
        self.num_sequences = max(1, (shard.num_tokens - T + 1) // T)
        self.num_shifts = min(T, shard.num_tokens - self.num_sequences * T + 1)
        self._pass = -1
        self._order: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._shift = 0

    def __iter__(self) -> Iterator[Batch]:
        rank, world = self.module._world()
        number = self.module.batches_served * world + rank
        while True:
            yield self.batch(number)
            number += world

    def batch(self, number: int) -> Batch:
        """Sequences number * B to (number + 1) * B of an endless row of passes over the shard."""
        B, T, begin_id = self.batch_size, self.module.seq_len, self.shard.vocab_size
        first, parts = number * B, []
        while first < (number + 1) * B:
            self._enter(first // self.num_sequences)
            place = first % self.num_sequences
            chosen = self._order[place : place + (number + 1) * B - first]
            part = sequence_batch(self.shard, chosen, T, begin_id, self._shift)
            if self.module.predictions is not None:
                part += self.module.predictions.at(self._shift + chosen * T, T)
            parts.append(part)
            first += len(chosen)
        return tuple(torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True))

    def _enter(self, number: int) -> None:
        """Draw the order and the shift of a pass."""
        if number != self._pass:
            generator = np.random.default_rng([self.module.seed, number])
            self._shift = int(generator.integers(self.num_shifts))
            self._order = generator.permutation(self.num_sequences)
            if self.barred is not None:
                left = self._clean(self.barred)
                self._order = left[self._order % left.size]
            self._pass = number

    def _clean(self, barred: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Sequences without barred tokens at the pass's shift, or at the next that has any."""
        for _ in range(self.num_shifts):
            tokens = barred[self._shift :][: self.num_sequences * self.module.seq_len]
            left = np.flatnonzero(~tokens.reshape(self.num_sequences, -1).any(axis=1))
            if left.size:
                return left
            self._shift = (self._shift + 1) % self.num_shifts
        raise LaconicError(
            f"{self.shard.path} holds no sequence of {self.module.seq_len} tokens without text that is kept "
            "out of training: give other old text, or adaptation.replay_share 0"
        )


class _ValidationBatches(IterableDataset[Batch]):
    def __init__(self, module: TokenDataModule, shard: TokenShard) -> None:
        self.shard, self.seq_len, self.batch_size = shard, module.seq_len, module.batch_size
        self.rank, self.world = module._world()
        self.num_sequences, self.rest = divmod(
            min(shard.num_tokens, module.validation_tokens), module.seq_len
        )

    def __len__(self) -> int:
        return -(-self._num_batches() // self.world)

    def _num_batches(self) -> int:
        """Of all ranks."""
        return -(-self.num_sequences // self.batch_size) + bool(self.rest)

    def __iter__(self) -> Iterator[Batch]:
        for number in range(self.rank, len(self) * self.world, self.world):
            yield self.batch(number)

    def batch(self, number: int) -> Batch:
        """Sequences number * B to (number + 1) * B, then one of the tokens that are left, then nothing."""
        begin_id, B, T = self.shard.vocab_size, self.batch_size, self.seq_len
        chosen, shift = np.arange(number * B, min((number + 1) * B, self.num_sequences)), 0
        if number == self._num_batches() - 1 and self.rest:
            chosen, T, shift = np.arange(1), self.rest, self.num_sequences * T
        inputs, targets = sequence_batch(self.shard, chosen, T, begin_id, shift)
        return torch.from_numpy(inputs), torch.from_numpy(targets)
