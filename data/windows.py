"""The training text of a corpus as endless windows of tokens; no two ranks share a document.

An epoch reads the units of the corpus (files, data sets of the hub) in an order of its own. Training document
i of unit u of that order, in epoch e, goes to rank (e + u + i) mod N: every rank reads all of them, and
encodes its own. A unit's numbers do not depend on the units before it, of which a fault may have one rank
read less than another; units of a single document go to the ranks in turn. A window is the next
`window_bytes` of these, to the end of a document or of a row; their tokens are put end to end and cut into
sequences. What is left, less than a sequence, begins the next window; an epoch ends a window. So a window
follows from the place where it begins, and going on from there takes no more than reading it again.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..coder.errors import LaconicError
from ..coder.tokenizer import ByteTokenizer
from .corpus import Corpus
from .sources import Rows
from .splits import split_of
from .tokenshard import item_type


def _none() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Place:
    """Where a window begins.

    Attributes:
        number: windows before it.
        epoch: epochs before it.
        unit: units before it in this epoch, of its order.
        start: place in the unit: see `Corpus.read`.
        documents: training documents before it in its unit, of all ranks.
        tokens: int64 [less than a sequence], what the window before has left.
        offsets: int64, where documents begin among them.
    """

    number: int = 0
    epoch: int = 0
    unit: int = 0
    start: int = 0
    documents: int = 0
    tokens: NDArray[np.int64] = field(default_factory=_none)
    offsets: NDArray[np.int64] = field(default_factory=_none)


@dataclass(frozen=True)
class Window:
    """Tokens of one window, in the order of the text.

    Attributes:
        place: where it begins.
        tokens: uint16 or uint32 [num_tokens].
        offsets: int64, where documents begin among them.
        order: int64 [S], its sequences in the order in which they are used.
    """

    place: Place
    tokens: NDArray[np.unsignedinteger]
    offsets: NDArray[np.int64]
    order: NDArray[np.int64]

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of the positions, of their shape."""
        return self.tokens[positions].astype(np.int64)


@dataclass(frozen=True)
class Stream:
    """What windows are made of, the ranks apart."""

    corpus: Corpus
    tokenizer: ByteTokenizer
    validation_share: float
    test_share: float
    window_bytes: int
    seq_len: int
    seed: int

    def windows(self, place: Place, rank: int, world: int) -> Iterator[Window]:
        """Endless windows of a rank, from a place on; the first rank says where rows are read again up to it.

        Raises:
            LaconicError: the corpus cannot be read, or has fewer training documents than ranks.
        """
        begun = self.corpus.units[self._order(place.epoch)[place.unit]]
        if rank == 0 and place.start and isinstance(begun, Rows):
            print(f"reading {begun.name} again up to row {place.start:,}", file=sys.stderr, flush=True)
        while True:
            order = self._order(place.epoch)
            texts: list[bytes] = []
            num_bytes, documents, total = 0, place.documents, 0
            first, begin = place.unit, place.start
            for unit in range(first, len(order)):
                for group, start in self.corpus.read(order[unit], begin if unit == first else 0):
                    for document in group:
                        if split_of(document, self.validation_share, self.test_share) == "train":
                            if (place.epoch + unit + documents) % world == rank:
                                texts.append(document)
                                num_bytes += len(document)
                            documents += 1
                            total += 1
                    if num_bytes >= self.window_bytes:
                        window, tokens, offsets = self._window(place, texts, rank)
                        yield window
                        place = Place(place.number + 1, place.epoch, unit, start, documents, tokens, offsets)
                        texts, num_bytes = [], 0
                documents = 0
            if not texts and total < world and not (place.unit or place.start):
                raise LaconicError(
                    f"the corpus has {total} documents to train on, and {world} ranks need one each at "
                    "least: give more text"
                )
            window, tokens, offsets = self._window(place, texts, rank)
            yield window
            place = Place(place.number + 1, place.epoch + 1, 0, 0, 0, tokens, offsets)

    def _order(self, epoch: int) -> list[int]:
        """Numbers of the units."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.corpus.units)).tolist()

    def _window(
        self, place: Place, texts: list[bytes], rank: int
    ) -> tuple[Window, NDArray[np.int64], NDArray[np.int64]]:
        """(the window, and of what it leaves: tokens, offsets)."""
        ids = self.tokenizer.encode_batch(texts)
        ends = len(place.tokens) + np.cumsum([0, *map(len, ids)], dtype=np.int64)
        kind = item_type(self.tokenizer.vocab_size)
        tokens = np.concatenate([place.tokens, *ids], dtype=kind, casting="unsafe")
        offsets = np.concatenate([place.offsets, ends[:-1]])
        sequences, T = len(tokens) // self.seq_len, self.seq_len
        order = np.random.default_rng([self.seed, rank, place.number]).permutation(sequences)
        left = offsets[offsets >= sequences * T] - sequences * T
        return Window(place, tokens, offsets, order), tokens[sequences * T :].astype(np.int64), left
