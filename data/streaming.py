"""Lightning's view of a corpus that is tokenised while it is learned from."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from ..coder.errors import LaconicError
from .batches import sequence_batch
from .datamodule import Batch, Timed, TokenDataModule
from .windows import Place, Stream, Window


@dataclass(frozen=True)
class _State:
    """What a rank's next batch follows from: a window, and how many of its sequences were used."""

    place: Place = field(default_factory=Place)
    used: int = 0

    def as_plain(self) -> dict[str, Any]:
        """As numbers and tensors, which is all that checkpoints are read back with."""
        plain = {**asdict(self.place), "used": self.used}
        return {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in plain.items()}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "_State":
        values: dict[str, Any] = {
            k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in plain.items()
        }
        if "before" in values:
            raise LaconicError(
                "this run was begun by an older laconic, whose ranks had other documents: begin another"
            )
        used = values.pop("used")
        return cls(Place(**values), used)


class StreamingDataModule(TokenDataModule):
    """Training batches of a stream; validation reads the validation shard of a folder.

    Training batches never end: they are the sequences of the rank's windows (see `laconic.data.windows`),
    each window's in an order drawn from the seed; a thread reads and encodes the next one. A checkpoint keeps
    where each rank's window begins, and training goes on with the same batches.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        stream: Stream,
        batch_size: int,
        validation_tokens: int = 500_000,
    ) -> None:
        """
        Args:
            folder: shards of a sample of the corpus.
            stream: what is learned from.
            batch_size: B, sequences a batch.
            validation_tokens: how many tokens of the validation shard, from its start, are read.
        """
        super().__init__(folder, stream.seq_len, batch_size, stream.seed, validation_tokens)
        self.stream = stream
        self._states: list[dict[str, Any]] = []  # of all ranks, as they were saved
        self._state: _State | None = None  # after the batches that were served
        self._fetched: deque[_State] = deque()  # after each batch that was fetched since

    def train_dataloader(self) -> DataLoader[Batch]:
        """Endless batches, from the one after those that were served on."""
        return DataLoader(Timed(self, _StreamedBatches(self)), batch_size=None)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Note what the training step is about to use."""
        if self.trainer and self.trainer.training:
            self._state = self._fetched.popleft()
        return super().on_after_batch_transfer(batch, dataloader_idx)

    def state_dict(self) -> dict[str, Any]:
        """{"batches_served", "ranks": where each of them is}, for checkpoints; all ranks call."""
        own, (_, world) = self._begin().as_plain(), self._world()
        ranks = [own] * world
        if world > 1:
            torch.distributed.all_gather_object(ranks, own)
        return {**super().state_dict(), "ranks": ranks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the batch after those that were served."""
        super().load_state_dict(state_dict)
        self._states, self._state = state_dict["ranks"], None

    def _begin(self) -> _State:
        """Where this rank goes on.

        Raises:
            LaconicError: the checkpoint is of another number of ranks.
        """
        rank, world = self._world()
        if self._state is None:
            if self._states and len(self._states) != world:
                raise LaconicError(
                    f"training began with {len(self._states)} ranks, which share a stream, and {world} are "
                    "to go on: keep training.devices and training.nodes"
                )
            self._state = _State.from_plain(self._states[rank]) if self._states else _State()
        return self._state


class _StreamedBatches(IterableDataset[Batch]):
    def __init__(self, module: StreamingDataModule) -> None:
        self.module = module

    def __iter__(self) -> Iterator[Batch]:
        module, stream = self.module, self.module.stream
        B, T, begin_id = module.batch_size, stream.seq_len, stream.tokenizer.vocab_size
        state, (rank, world) = module._begin(), module._world()
        module._fetched.clear()
        used, parts, wanted = state.used, [], B
        for window in _ahead(stream.windows(state.place, rank, world)):
            while used < len(window.order):
                chosen = window.order[used : used + wanted]
                used, wanted = used + len(chosen), wanted - len(chosen)
                parts.append(sequence_batch(window, chosen, T, begin_id, 0))
                if not wanted:
                    module._fetched.append(_State(window.place, used))
                    inputs, targets = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
                    parts, wanted = [], B
                    yield torch.from_numpy(inputs), torch.from_numpy(targets)
            used = 0


def _ahead(windows: Iterable[Window]) -> Iterator[Window]:
    """The windows in order, each made by a thread of its own while the one before is used."""
    pool, iterator = ThreadPoolExecutor(1), iter(windows)
    try:
        coming = pool.submit(next, iterator)
        while True:
            window = coming.result()
            coming = pool.submit(next, iterator)
            yield window
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
