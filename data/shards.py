"""From a corpus to a folder of token shards: in parallel, larger than memory, all or nothing."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ..coder.errors import LaconicError
from ..coder.parallel import in_order
from ..coder.tokenizer import ByteTokenizer
from .corpus import Corpus, require_enough
from .splits import SPLITS, Split, is_used, split_of
from .tokenshard import VERSION, ShardWriter, TokenShard

MANIFEST = "manifest.json"
BATCH_BYTES = 4_000_000  # text encoded at a time, on all threads of the library
BATCHES_IN_WORK = 2  # while the library encodes one, the tokens of another become arrays


def shard_path(folder: str | os.PathLike[str], split: Split) -> Path:
    """Where a folder of shards keeps one split."""
    return Path(folder) / f"{split}.tokens"


def open_shard(folder: str | os.PathLike[str], split: Split) -> TokenShard:
    """One split of a folder, its tokens checked: read once a process, at some GB a second.

    Raises:
        LaconicError: it is missing or damaged.
    """
    shard = TokenShard.open(shard_path(folder, split))
    status = shard.path.stat()
    wanted = read_manifest(folder)["splits"][split].get("tokens_blake2b")  # not there: built before it was
    if wanted and wanted != _digest_of(shard.path.resolve(), status.st_size, status.st_mtime_ns):
        raise LaconicError(
            f"{shard.path} is damaged: its tokens have another checksum than {MANIFEST} says; "
            f"remove folder {shard.path.parent} and build the shards again (`laconic tokenizer`)"
        )
    return shard


@cache
def _digest_of(path: Path, size: int, mtime_ns: int) -> str:
    return TokenShard.open(path).digest()


def build_shards(
    corpus: Corpus,
    tokenizer: ByteTokenizer,
    folder: str | os.PathLike[str],
    validation_share: float = 0.02,
    test_share: float = 0.02,
    train_share: float = 1.0,
) -> dict[Split, TokenShard]:
    """The shards of a corpus, built unless the folder holds exactly these.

    They are these if the sources, the sizes and times of their files, the tokenizer and the shares are. A
    build that was interrupted leaves no manifest and is done again.

    Returns:
        The opened shard of each split.

    Raises:
        LaconicError: the corpus cannot be read or is too small, or a split with a share gets no document.
    """
    folder = Path(folder)
    build = _describe(corpus, tokenizer, validation_share, test_share, train_share)
    found = _opened(folder, build)
    if found:
        return found
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for leftover in folder.glob("*.partial"):
        leftover.unlink()
    tokenizer_sha256 = hashlib.sha256(tokenizer.to_json().encode()).digest()
    writers: dict[Split, ShardWriter] = {
        split: ShardWriter(shard_path(folder, split), tokenizer.vocab_size, tokenizer_sha256)
        for split in SPLITS
    }
    try:
        encoded = in_order(lambda b, _: (b, tokenizer.encode_batch(b)), _batches(corpus), BATCHES_IN_WORK)
        for batch, ids in encoded:
            splits = [split_of(document, validation_share, test_share) for document in batch]
            used = [s != "train" or is_used(d, train_share) for d, s in zip(batch, splits, strict=True)]
            for split, writer in writers.items():
                chosen = [i for i, s in enumerate(splits) if s == split and used[i]]
                writer.add([batch[i] for i in chosen], [ids[i] for i in chosen])
        _check(writers, {"train": train_share, "validation": validation_share, "test": test_share})
        for writer in writers.values():
            writer.close()
    finally:
        for writer in writers.values():
            writer.discard()
    shards: dict[Split, TokenShard] = {split: TokenShard.open(shard_path(folder, split)) for split in SPLITS}
    manifest = {
        "build": build,
        "splits": {
            split: {**_summary(shard), "tokens_blake2b": writers[split].blake2b.hexdigest()}
            for split, shard in shards.items()
        },
        "skipped": corpus.skips,
    }
    _write_manifest(folder, manifest)
    return shards


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What a folder of shards was built from.

    Returns:
        {"build": {"sources", "files": [[path, bytes, mtime_ns]], ...},
        "splits": {split: {"documents", "bytes", "tokens", "sha256", "tokens_blake2b"}},
        "skipped": {path: why}}; the last is not in older ones

    Raises:
        LaconicError: there is none, or it is damaged.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        if "build" in manifest and all("sha256" in manifest["splits"][split] for split in SPLITS):
            return manifest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise LaconicError(f"{path} is missing or damaged: build the shards with laconic tokenizer")


def _describe(
    corpus: Corpus, tokenizer: ByteTokenizer, validation_share: float, test_share: float, train_share: float
) -> dict[str, Any]:
    return {
        "version": VERSION,
        "sources": corpus.sources,
        "files": [[os.path.abspath(file.path), file.size, file.mtime_ns] for file in corpus.files],
        "max_document_bytes": corpus.max_document_bytes,
        "validation_share": validation_share,
        "test_share": test_share,
        "train_share": train_share,
        "tokenizer_sha256": hashlib.sha256(tokenizer.to_json().encode()).hexdigest(),
        **({} if corpus.sample_bytes is None else {"sample_bytes": corpus.sample_bytes}),
        **({"skip_unreadable": True} if corpus.skip_unreadable else {}),
    }


def _summary(shard: TokenShard) -> dict[str, Any]:
    return {
        "documents": shard.num_documents,
        "bytes": shard.num_bytes,
        "tokens": shard.num_tokens,
        "sha256": shard.sha256,
    }


def _opened(folder: Path, build: dict[str, Any]) -> dict[Split, TokenShard] | None:
    """The shards in the folder, if they are this build's and sound."""
    try:
        manifest = read_manifest(folder)
        if manifest["build"] != build:
            return None
        shards: dict[Split, TokenShard] = {split: open_shard(folder, split) for split in SPLITS}
        same = all(_summary(shard).items() <= manifest["splits"][s].items() for s, shard in shards.items())
    except LaconicError:
        return None
    return shards if same else None


def _batches(corpus: Corpus) -> Iterator[list[bytes]]:
    """Documents in batches of some BATCH_BYTES, with a progress bar on a terminal."""
    from tqdm import tqdm

    total = corpus.total_bytes or None
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="shards", leave=False, disable=not sys.stderr.isatty()
    ) as bar:
        batch: list[bytes] = []
        size = 0
        for document in corpus:
            batch.append(document)
            size += len(document)
            if size >= BATCH_BYTES:
                yield batch
                bar.update(size)
                batch, size = [], 0
        if batch:
            yield batch


def _check(writers: dict[Split, ShardWriter], shares: dict[str, float]) -> None:
    require_enough(sum(writer.num_bytes for writer in writers.values()))
    documents = sum(writer.num_documents for writer in writers.values())
    for split, writer in writers.items():
        if split != "test" and shares[split] and not writer.num_documents:
            raise LaconicError(
                f"of the corpus's {documents:,} documents none fell to the {split} split, whose share is "
                f"{shares[split]:g}, and equal ones fall to the same: give more text that differs, or a "
                f"larger data.{split}_share"
            )


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    partial = folder / f"{MANIFEST}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / MANIFEST)
