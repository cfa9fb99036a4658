"""n-grams of a token shard, counted out of core: sorted runs of keys on disk, merged range by range.

Orders are counted one after the other. An n-gram is the number of the n-gram without its last token, among
those of the order below, and that token: a key of 64 bits whatever the order. Of each order only n-grams that
occur often enough are kept, and only those are extended: what occurs often consists of what does. No n-gram
spans the begin of a document.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coder.errors import LaconicError
from .tokenshard import TokenShard

CHUNK = 1 << 22  # positions that are sorted at a time
MOST = 1 << 22  # n-grams of an order that are kept: of more, those that occur most often
RAREST = 4  # counts up to this are counted themselves
COUNTED = 256  # the highest least count that is tried
MANIFEST = "counts.json"

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Order:
    """The n-grams of one order that are kept, in ascending order of their keys.

    Attributes:
        parents: int32 [n], of each the number of the n-gram without its last token, one order below.
        tokens: int32 [n], its last token.
        suffixes: int32 [n], the number of the n-gram without its first token, one order below.
        counts: int64 [n], how often it occurs.
        followed: int64 [n], how often within a document a token comes after it.
        left_out: [RAREST], the number of n-grams that are not kept and occur 1, 2, ... times.
        least: what is kept occurs as often or more often.
    """

    parents: Int32
    tokens: Int32
    suffixes: Int32
    counts: Int64
    followed: Int64
    left_out: list[int]
    least: int


def count_ngrams(
    shard: TokenShard, order: int, min_count: int, folder: Path, chunk: int = CHUNK, most: int = MOST
) -> list[Order]:
    """The n-grams of orders 1 to `order` of a shard; counted unless the folder holds exactly these.

    Args:
        min_count: n-grams of two tokens and more that occur less often are left out.
        folder: for files, made where it is not there; a count that was interrupted is done again.

    Returns:
        One entry an order; order 1 has all tokens, whether they occur or not.

    Raises:
        LaconicError: the shard has no tokens or is damaged, or too many n-grams occur too often.
    """
    if not shard.num_tokens:
        raise LaconicError(f"{shard.path} has no tokens to count: give more text")
    wanted = {
        "shard": shard.sha256,
        "tokenizer": shard.tokenizer_sha256,
        "tokens": shard.num_tokens,
        "min_count": min_count,
        "most": most,
    }
    kept = _kept(folder, wanted)
    if len(kept) >= order:
        return [_opened(folder, number, entry) for number, entry in enumerate(kept[:order], 1)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    try:
        counter = _Counter(shard, folder, chunk, most)
        entries = [counter.tokens()]
        for number in range(2, order + 1):
            entries.append(counter.extend(number, max(min_count, entries[-1]["least"])))
        counter.close(order)
        partial = folder / f"{MANIFEST}.partial"
        partial.write_text(json.dumps({**wanted, "orders": entries}, indent=1) + "\n")
        partial.replace(folder / MANIFEST)
    finally:  # also what an interrupted count has left
        for path in folder.glob("*.partial"):
            path.unlink()
    return [_opened(folder, number, entry) for number, entry in enumerate(entries, 1)]


def _kept(folder: Path, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """What the folder's manifest says of each order, where it is of this shard."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        entries = manifest.pop("orders")
    except (OSError, ValueError, KeyError, AttributeError):
        return []
    return entries if manifest == wanted else []


def _file(folder: Path, number: int, name: str) -> Path:
    return folder / f"{number}.{name}.npy"


def _opened(folder: Path, number: int, entry: dict[str, Any]) -> Order:
    try:
        arrays = [
            np.load(_file(folder, number, name), mmap_mode="r" if entry["size"] else None)
            for name in ("parents", "tokens", "suffixes", "counts", "followed")
        ]
    except (OSError, ValueError, EOFError):
        raise LaconicError(f"{folder} is damaged: remove it and count again") from None
    parents, tokens, suffixes, counts, followed = arrays
    return Order(parents, tokens, suffixes, counts, followed, entry["left_out"], entry["least"])


class _Counter:
    """Counts one order after the other.

    `nodes` is, of each position of the shard, the number of the last order's n-gram that ends there, or -1.
    """

    def __init__(self, shard: TokenShard, folder: Path, chunk: int, most: int) -> None:
        self.shard, self.folder, self.chunk, self.most = shard, folder, chunk, most
        self.bits = max(1, (shard.vocab_size - 1).bit_length())
        self._nodes = folder / "nodes.partial"
        self.nodes: Int32 = np.memmap(self._nodes, np.int32, "w+", shape=(shard.num_tokens,))
        self.keys: Int64 = np.arange(shard.vocab_size, dtype=np.int64)  # of the last order
        self.suffixes: Int32 = np.zeros(shard.vocab_size, dtype=np.int32)

    def tokens(self) -> dict[str, Any]:
        """Order 1."""
        shard, counts = self.shard, np.zeros(self.shard.vocab_size, dtype=np.int64)
        for begin in range(0, shard.num_tokens, self.chunk):
            tokens = shard.tokens[begin : begin + self.chunk]
            if int(tokens.max()) >= shard.vocab_size:
                raise LaconicError(f"{shard.path} is damaged: it has a token {tokens.max()}; build it again")
            counts += np.bincount(tokens, minlength=shard.vocab_size)
            self.nodes[begin : begin + len(tokens)] = tokens
        none = np.zeros(shard.vocab_size, dtype=np.int32)
        self._write(1, parents=none, tokens=self.keys.astype(np.int32), suffixes=none, counts=counts)
        return {"size": shard.vocab_size, "least": 1, "left_out": [0] * RAREST}

    def extend(self, number: int, least: int) -> dict[str, Any]:
        """The n-grams of `number` tokens, from those of one less."""
        merged = _Merged(self.folder, number, least, len(self.keys), self.bits)
        runs = self._runs(number)
        for keys, counts in _merge(runs, self.chunk):
            merged.add(keys, counts)
        for run in runs:
            _delete(run)
        np.save(_file(self.folder, number - 1, "followed"), merged.followed)
        keys, counts, least = merged.close(self.most)
        parents = (keys >> self.bits).astype(np.int32)
        tokens = (keys & ((1 << self.bits) - 1)).astype(np.int32)
        suffixes = tokens
        if number > 2:  # what follows the parent's suffix
            wanted = self.suffixes[parents].astype(np.int64) << self.bits | tokens
            suffixes = np.searchsorted(self.keys, wanted).astype(np.int32)
        self._follow(keys)
        self.keys, self.suffixes = keys, suffixes
        self._write(number, parents=parents, tokens=tokens, suffixes=suffixes, counts=counts)
        return {"size": len(keys), "least": least, "left_out": merged.left_out(least)}

    def close(self, order: int) -> None:
        """What follows the last order's n-grams is not counted."""
        np.save(_file(self.folder, order, "followed"), np.zeros(len(self.keys), dtype=np.int64))

    def _write(self, number: int, **arrays: NDArray) -> None:
        for name, array in arrays.items():
            np.save(_file(self.folder, number, name), array)

    def _pieces(self) -> Iterator[tuple[int, NDArray[np.bool_], Int64]]:
        """Of each chunk of positions: its begin, whether an n-gram can end there, and the keys of those."""
        shard, before = self.shard, -1
        for begin in range(0, shard.num_tokens, self.chunk):
            tokens = shard.tokens[begin : begin + self.chunk]
            nodes = self.nodes[begin : begin + len(tokens)]
            parents = np.concatenate([[before], nodes[:-1]])
            before = int(nodes[-1])
            first, last = np.searchsorted(shard.offsets, (begin, begin + len(tokens)))
            parents[shard.offsets[first:last] - begin] = -1
            valid = parents >= 0
            yield begin, valid, parents[valid].astype(np.int64) << self.bits | tokens[valid]

    def _runs(self, number: int) -> list[NDArray]:
        """Sorted keys and counts of each chunk, on disk: int64 [2, n]."""
        runs: list[NDArray] = []
        for _, _, keys in self._pieces():
            if len(keys):
                keys.sort()
                path = self.folder / f"{number}.{len(runs)}.run.partial"
                found = _summed(keys, np.ones(len(keys), dtype=np.int64))
                run = np.memmap(path, np.int64, "w+", shape=(2, len(found[0])))
                run[0], run[1] = found
                runs.append(run)
        return runs

    def _follow(self, keys: Int64) -> None:
        """Move every position's node to the order of `keys`."""
        for begin, valid, wanted in self._pieces():
            nodes = np.full(len(valid), -1, dtype=np.int32)
            if len(keys):
                found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
                nodes[valid] = np.where(keys[found] == wanted, found, -1)
            self.nodes[begin : begin + len(valid)] = nodes


def _delete(mapped: NDArray) -> None:
    """Remove the file of a mapping."""
    assert isinstance(mapped, np.memmap)
    Path(str(mapped.filename)).unlink(missing_ok=True)


def _summed(keys: Int64, counts: Int64) -> tuple[Int64, Int64]:
    """Sorted keys without repetition, and the sum of the counts of each."""
    if not len(keys):
        return keys, counts
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(counts, starts)


def _merge(runs: list[NDArray], chunk: int) -> Iterator[tuple[Int64, Int64]]:
    """Runs [2, n] of keys and counts as one, in pieces of at most `chunk` keys.

    Every step-th key of each run is a sample. Between two samples that have len(runs) others between them,
    each run has less than a step beyond those: 2 * len(runs) steps in all.
    """
    if not runs:
        return
    step = max(1, chunk // (2 * len(runs)))
    samples = np.sort(np.concatenate([run[0, ::step] for run in runs]))
    bounds = [np.searchsorted(run[0], samples[len(runs) :: len(runs)]).tolist() for run in runs]
    places = zip(*([0, *cuts, run.shape[1]] for run, cuts in zip(runs, bounds, strict=True)), strict=True)
    begins = next(places)
    for ends in places:
        pieces = [run[:, a:b] for run, a, b in zip(runs, begins, ends, strict=True)]
        keys = np.concatenate([piece[0] for piece in pieces])
        order = np.argsort(keys, kind="stable")
        yield _summed(keys[order], np.concatenate([piece[1] for piece in pieces])[order])
        begins = ends


class _Merged:
    """What is left of an order when rare n-grams are dropped."""

    def __init__(self, folder: Path, number: int, least: int, num_parents: int, bits: int) -> None:
        self.least, self.bits = least, bits
        self.followed = np.zeros(num_parents, dtype=np.int64)
        self.times = np.zeros(COUNTED + 1, dtype=np.int64)  # n-grams by count, the last: that and more
        self._path = folder / f"{number}.merged.partial"
        self._file = open(self._path, "wb")  # noqa: SIM115
        self._number = number

    def add(self, keys: Int64, counts: Int64) -> None:
        """Append a piece of the merged keys."""
        if len(keys):
            parents = keys >> self.bits
            first = int(parents[0])
            sums = np.bincount(parents - first, weights=counts).astype(np.int64)  # exact below 2^53
            self.followed[first : first + len(sums)] += sums
            self.times += np.bincount(np.minimum(counts, COUNTED), minlength=COUNTED + 1)
            kept = counts >= self.least
            np.stack([keys[kept], counts[kept]], axis=1).tofile(self._file)

    def close(self, most: int) -> tuple[Int64, Int64, int]:
        """Keys and counts of what is kept, at most `most`, and how often it occurs at least.

        Raises:
            LaconicError: more than `most` occur COUNTED times or more.
        """
        self._file.close()
        least = self.least
        while (left := int(self.times[min(least, COUNTED) :].sum())) > most:
            if least >= COUNTED:
                raise LaconicError(
                    f"{left:,} n-grams of {self._number} tokens occur {COUNTED} times or more, held are at "
                    f"most {most:,}: give a smaller ngram.order, or less text"
                )
            least += 1
        keys, counts = list[Int64](), list[Int64]()
        with open(self._path, "rb") as file:
            while len(block := np.fromfile(file, np.int64, 2 * CHUNK)):
                pairs = block.reshape(-1, 2)
                kept = pairs[:, 1] >= least
                keys.append(pairs[kept, 0])
                counts.append(pairs[kept, 1])
        self._path.unlink()
        none = np.zeros(0, dtype=np.int64)
        return np.concatenate([none, *keys]), np.concatenate([none, *counts]), least

    def left_out(self, least: int) -> list[int]:
        """The number of n-grams that are not kept and occur 1 to RAREST times."""
        return [int(self.times[count]) if count < least else 0 for count in range(1, RAREST + 1)]
