"""How fast a corpus becomes token shards, beside the `tokenizers` library on the same texts and cores."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..coder.errors import LaconicError
from ..coder.tokenizer import bytes_to_text
from ..data.corpus import Corpus, require_enough
from ..data.shards import build_shards
from .subject import load_checkpoints

TEXTS_AT_A_TIME = 128


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, and of all cores."""

    wall_seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Tokenizing:
    """Both of them on `bytes` bytes in `documents` documents; the better of two runs each."""

    bytes: int
    documents: int
    library: Cost
    shards: Cost

    @property
    def shares(self) -> tuple[float, float]:
        """The library's rate that the building of shards reaches: on the clock, and by cores' seconds."""
        return (
            self.library.wall_seconds / self.shards.wall_seconds,
            self.library.cpu_seconds / self.shards.cpu_seconds,
        )

    def as_json(self) -> dict[str, Any]:
        """Every figure."""
        return {**asdict(self), "wall_share": self.shares[0], "cpu_share": self.shares[1]}

    def as_text(self) -> str:
        """A table for people."""
        lines = [f"{self.bytes:,} bytes, {self.documents:,} documents", "", f"{'':<22}MB/s   MB/s a core"]
        for name, cost in (("tokenizers alone", self.library), ("documents to shards", self.shards)):
            rates = [self.bytes / 1e6 / seconds for seconds in (cost.wall_seconds, cost.cpu_seconds)]
            lines.append(f"{name:<20}{rates[0]:6.2f}   {rates[1]:11.2f}")
        lines.append(f"{'share':<20}{self.shares[0]:6.0%}   {self.shares[1]:11.0%}")
        return "\n".join(lines)


def _cost(action: Callable[[], Any]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def measure_tokenizing(sources: list[str], model: str) -> Tokenizing:
    """Build shards of a corpus in a temporary folder, with the tokenizer of a checkpoint.

    Raises:
        LaconicError: the checkpoint or the corpus cannot be read, the corpus is too small, or the tokenizer
            is plain bytes.
    """
    checkpoints = load_checkpoints(model)
    if not checkpoints or checkpoints[0].tokenizer.kind == "bytes":
        raise LaconicError(f"{model!r} has no tokenizer of the library: name a checkpoint with one by -m")
    tokenizer, corpus = checkpoints[0].tokenizer, Corpus(sources)
    documents = list(corpus)
    require_enough(sum(map(len, documents)))  # of rows, nothing was read before
    texts = [bytes_to_text(document) for document in documents]
    tokenizer.encode(documents[0])

    def library() -> None:
        for begin in range(0, len(texts), TEXTS_AT_A_TIME):
            tokenizer._engine.encode_batch_fast(
                texts[begin : begin + TEXTS_AT_A_TIME], add_special_tokens=False
            )

    def shards() -> None:
        with tempfile.TemporaryDirectory() as folder:
            build_shards(corpus, tokenizer, folder)

    runs = [(_cost(library), _cost(shards)) for _ in range(2)]
    alone, whole = (min(costs, key=lambda cost: cost.cpu_seconds) for costs in zip(*runs, strict=True))
    return Tokenizing(sum(map(len, documents)), len(documents), alone, whole)
