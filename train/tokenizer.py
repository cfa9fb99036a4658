"""Training of the tokenizer as a Lightning stage, with the logs and the run folder of every other."""

import math
import sys
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from random import Random
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, IterableDataset

from ..coder.errors import LaconicError
from ..coder.tokenizer import ByteTokenizer, Kind
from ..data.corpus import Corpus
from ..data.splits import Split
from ..models.tokenizer import train_tokenizer
from .logs import cut, stage_loggers
from .run import Run, writing
from .trainer import quiet

COUNTED_BYTES = 8_000_000  # of the training text, whose token counts make the order-0 model
VALIDATION_BYTES = 2_000_000
BATCH_DOCUMENTS = 256


class TokenizerModule(pl.LightningModule):
    """Trains a tokenizer from batches of documents (list[bytes]) in one epoch; nothing has gradients.

    It collects text, trains when the training epoch ends, and logs on validation:
        bytes_per_token: of the validation text.
        order0_bits_per_byte: code length of the validation tokens, each coded by its count in the training
            text plus one, in bits per byte of the validation text.

    Attributes:
        tokenizer: the result, None until then.
    """

    def __init__(self, kind: Kind, vocab_size: int, max_bytes: int = 64_000_000) -> None:
        """Choose the tokenizer to train.

        Args:
            kind: "bpe", "wordpiece", "unigram" or "bytes".
            vocab_size: number of ids.
            max_bytes: of text to learn from; what comes later is passed over.
        """
        super().__init__()
        self.automatic_optimization = False
        self.kind: Kind = kind
        self.vocab_size, self.max_bytes = vocab_size, max_bytes
        self.tokenizer: ByteTokenizer | None = None
        self._documents: list[bytes] = []
        self._num_bytes = 0
        self._bits_of_token = np.zeros(0)
        self._forget_validation()

    def _forget_validation(self) -> None:
        self._tokens = self._bytes = 0
        self._bits = 0.0

    def configure_optimizers(self) -> None:
        """None: there is nothing to optimise."""

    def transfer_batch_to_device(self, batch: list[bytes], device: Any, dataloader_idx: int) -> list[bytes]:
        """Leave the bytes where they are; Lightning would look for tensors among them, one by one."""
        return batch

    def training_step(self, batch: list[bytes], batch_idx: int) -> None:
        """Collect documents."""
        for document in batch:
            if self._num_bytes < self.max_bytes:
                self._documents.append(document[: self.max_bytes - self._num_bytes])
                self._num_bytes += len(self._documents[-1])

    def _train(self) -> None:
        """Train on what was collected."""
        self.tokenizer = train_tokenizer(self._documents, self.kind, self.vocab_size)
        counts = np.ones(self.tokenizer.vocab_size, dtype=np.int64)
        for ids in self.tokenizer.encode_batch(list(_limited(self._documents, COUNTED_BYTES))):
            counts += np.bincount(ids, minlength=len(counts))
        self._bits_of_token = math.log2(int(counts.sum())) - np.log2(counts)
        self._documents.clear()

    def on_validation_start(self) -> None:
        """Lightning validates before it ends the training epoch, so training is done here at the latest."""
        if self._documents:
            self._train()
        self._forget_validation()

    def on_train_epoch_end(self) -> None:
        """Train where no validation has."""
        if self._documents:
            self._train()

    def validation_step(self, batch: list[bytes], batch_idx: int) -> None:
        """Add up tokens, bytes and bits."""
        if self.tokenizer is None:
            return
        for ids in self.tokenizer.encode_batch(batch):
            self._tokens += len(ids)
            self._bits += float(self._bits_of_token[ids].sum())
        self._bytes += sum(map(len, batch))

    def on_validation_epoch_end(self) -> None:
        """Log the ratios of the sums."""
        if self._tokens:
            self.log("bytes_per_token", self._bytes / self._tokens, batch_size=1)
            self.log("order0_bits_per_byte", self._bits / self._bytes, batch_size=1)


class _Documents(IterableDataset[list[bytes]]):
    """Batches of a split's documents, until there are `limit` bytes."""

    def __init__(self, module: "DocumentDataModule", split: Split, limit: int) -> None:
        self.split: Split = split
        self.module, self.limit = module, limit

    def __iter__(self) -> Iterator[list[bytes]]:
        documents = self.module.corpus.documents(self.split, *self.module.shares)
        if self.split == "train":
            documents = self._spread(documents)
        batch: list[bytes] = []
        for document in _limited(documents, self.limit):
            batch.append(document)
            if len(batch) == BATCH_DOCUMENTS:
                yield batch
                batch = []
        if batch:
            yield batch

    def _spread(self, documents: Iterable[bytes]) -> Iterable[bytes]:
        """Of more text than the limit, a sample of all of it, in its order: those that draw the least number.

        Rows do not say how much text they hold, so that which share it is shows at their end alone.
        """
        draw, kept, num_bytes = Random(0), list[tuple[float, int, bytes]](), 0
        for number, document in enumerate(documents):
            heappush(kept, (-draw.random(), number, document))
            num_bytes += len(document)
            while num_bytes > self.limit and len(kept) > 1:
                num_bytes -= len(heappop(kept)[2])
        return (document for _, _, document in sorted(kept, key=lambda one: one[1]))


def _limited(documents: Iterable[bytes], limit: int) -> Iterator[bytes]:
    for document in documents:
        if limit <= 0:
            return
        yield document
        limit -= len(document)


class DocumentDataModule(pl.LightningDataModule):
    """Serves the documents of a corpus's train and validation splits in batches (list[bytes])."""

    def __init__(
        self,
        corpus: Corpus,
        sample_bytes: int = 64_000_000,
        validation_share: float = 0.02,
        test_share: float = 0.02,
    ) -> None:
        """Name the corpus and its shares; of training text, some `sample_bytes` are served."""
        super().__init__()
        self.corpus, self.sample_bytes, self.shares = corpus, sample_bytes, (validation_share, test_share)

    def train_dataloader(self) -> DataLoader[list[bytes]]:
        """Training documents, spread over the corpus where they are a part of it."""
        return DataLoader(_Documents(self, "train", self.sample_bytes), batch_size=None)

    def val_dataloader(self) -> DataLoader[list[bytes]]:
        """The first validation documents, some 2 MB of them."""
        return DataLoader(_Documents(self, "validation", VALIDATION_BYTES), batch_size=None)


def fit_tokenizer(run: Run, corpus: Corpus) -> ByteTokenizer:
    """Train the tokenizer of a run on a corpus, and write run.tokenizer_file; fewer tokens are said."""
    quiet()
    recipe, shares = run.recipe.tokenizer, run.recipe.data
    module = TokenizerModule(recipe.kind, recipe.vocab_size, recipe.sample_bytes)
    data = DocumentDataModule(corpus, recipe.sample_bytes, shares.validation_share, shares.test_share)
    cut(run.stage("tokenizer"), None)  # of a time that was cut off
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        num_sanity_val_steps=0,
        logger=stage_loggers(run.stage("tokenizer")),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
    )
    with writing(run.stage("tokenizer")):
        trainer.fit(module, datamodule=data)
        tokenizer = module.tokenizer
        if tokenizer is None:  # no step had a document
            raise LaconicError(
                "no document of the corpus fell to the train split, and equal ones fall to the same: give "
                "more text that differs, or a smaller data.validation_share and data.test_share"
            )
        tokenizer.save(run.tokenizer_file)
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    shown = "".join(f", {value:.3f} {name.replace('_', ' ')}" for name, value in figures.items())
    less = (
        ""
        if tokenizer.vocab_size == recipe.vocab_size
        else f" (not {recipe.vocab_size:,}: the text has no more)"
    )
    print(f"tokenizer: {tokenizer.kind}, {tokenizer.vocab_size:,} tokens{less}{shown}", file=sys.stderr)
    return tokenizer
