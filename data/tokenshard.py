"""Token shards: the tokens of a corpus on disk, one file a split, memory-mapped.

File, little-endian:

    magic            8 bytes  b"LACTOKEN"
    version          uint32   1
    item size        uint32   bytes a token: 2 (vocabulary up to 65,536) or 4
    vocab_size       uint64
    num_tokens       uint64
    num_documents    uint64
    num_bytes        uint64   of the split's documents
    sha256           32 bytes of the split's documents put end to end
    tokenizer        32 bytes SHA-256 of the tokenizer's JSON form
    checksum         16 bytes BLAKE2b of all the above
    tokens           num_tokens items, then zeros up to a multiple of 8 bytes
    offsets          int64 [num_documents + 1]: where each document's tokens begin, and their end

A folder of shards holds one such file a split and `manifest.json`, which is written last: without it, or with
that of another corpus or tokenizer, the shards are built anew.
"""

import hashlib
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..coder.errors import LaconicError

MAGIC, VERSION = b"LACTOKEN", 1
_FIELDS = struct.Struct("<8sIIQQQQ32s32s")
_CHECKSUM_BYTES = 16
HEADER_BYTES = _FIELDS.size + _CHECKSUM_BYTES
_ITEM_TYPES = {2: np.dtype("<u2"), 4: np.dtype("<u4")}
_COPY_BYTES = 1 << 20


def _checksum(fields: bytes) -> bytes:
    return hashlib.blake2b(fields, digest_size=_CHECKSUM_BYTES).digest()


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=_CHECKSUM_BYTES)


def item_type(vocab_size: int) -> np.dtype:
    """Of the tokens."""
    return _ITEM_TYPES[item_size(vocab_size)]


def item_size(vocab_size: int) -> int:
    """Bytes a token."""
    return 2 if vocab_size <= 1 << 16 else 4


@dataclass(frozen=True)
class TokenShard:
    """The tokens of one split.

    Attributes:
        tokens: uint16 or uint32 [num_tokens], memory-mapped.
        offsets: int64 [num_documents + 1], memory-mapped.
        num_bytes: of the documents; the sum of their tokens' lengths.
        sha256: of the documents put end to end, in hexadecimal.
        tokenizer_sha256: of the tokenizer's JSON form, in hexadecimal.
    """

    path: Path
    tokens: NDArray[np.unsignedinteger]
    offsets: NDArray[np.int64]
    vocab_size: int
    num_tokens: int
    num_documents: int
    num_bytes: int
    sha256: str
    tokenizer_sha256: str

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "TokenShard":
        """Map a shard; its header, size and offsets are checked, its tokens are not read.

        Raises:
            LaconicError: the file is not there, is of another version, or is truncated or damaged.
        """
        path = Path(path)
        advice = f"remove folder {path.parent} and build the shards again (`laconic tokenizer`)"
        try:
            size = path.stat().st_size
            with open(path, "rb") as file:
                header = file.read(HEADER_BYTES)
        except FileNotFoundError:
            raise LaconicError(f"{path} is not there: build the shards with laconic tokenizer") from None
        except OSError as error:
            raise LaconicError(f"cannot read {path}: {error.strerror}") from None
        if header[:8] != MAGIC:
            raise LaconicError(f"{path} is not a token shard: {advice}")
        fields = header[: _FIELDS.size]
        if len(header) < HEADER_BYTES or header[_FIELDS.size :] != _checksum(fields):
            raise LaconicError(f"{path} has a damaged header: {advice}")
        _, version, item, vocab_size, num_tokens, num_documents, num_bytes, sha256, tokenizer = (
            _FIELDS.unpack(fields)
        )
        if version != VERSION:
            raise LaconicError(f"{path} is of version {version}, this laconic reads {VERSION}: {advice}")
        offsets_begin = _offsets_begin(num_tokens, item)
        expected = offsets_begin + 8 * (num_documents + 1)
        if size != expected:
            raise LaconicError(f"{path} has {size:,} bytes, its header says {expected:,}: {advice}")
        tokens = _map(path, _ITEM_TYPES[item], HEADER_BYTES, num_tokens)
        offsets = _map(path, np.dtype("<i8"), offsets_begin, num_documents + 1)
        if offsets[0] != 0 or offsets[-1] != num_tokens or (np.diff(offsets) <= 0).any():
            raise LaconicError(f"{path} has damaged offsets: {advice}")
        counts = (vocab_size, num_tokens, num_documents, num_bytes)
        return cls(path, tokens, offsets, *counts, sha256.hex(), tokenizer.hex())

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of the positions, of their shape.

        Raises:
            LaconicError: one of them is none of the vocabulary.
        """
        taken = self.tokens[positions].astype(np.int64)
        if taken.size and taken.max() >= self.vocab_size:
            raise LaconicError(
                f"{self.path} is damaged: it has token {taken.max()}, the largest is {self.vocab_size - 1}: "
                f"remove folder {self.path.parent} and build the shards again (`laconic tokenizer`)"
            )
        return taken

    def digest(self) -> str:
        """BLAKE2b of the tokens in 16 bytes, in hexadecimal; reads them all."""
        digest = _digest()
        for begin in range(0, self.num_tokens, _COPY_BYTES):
            digest.update(self.tokens[begin : begin + _COPY_BYTES].tobytes())
        return digest.hexdigest()


def _offsets_begin(num_tokens: int, item: int) -> int:
    return (HEADER_BYTES + num_tokens * item + 7) // 8 * 8


def _map(path: Path, dtype: np.dtype, offset: int, count: int) -> NDArray:
    """An array in a file; a mapping of no bytes is not possible."""
    return np.memmap(path, dtype, "r", offset, (count,)) if count else np.zeros(0, dtype)


class ShardWriter:
    """Writes a shard under a temporary name; it gets its own when it is closed."""

    def __init__(self, path: Path, vocab_size: int, tokenizer_sha256: bytes) -> None:
        self.path = path
        self.num_tokens = self.num_documents = self.num_bytes = 0
        self.sha256, self.blake2b = hashlib.sha256(), _digest()  # of the documents, of the tokens
        self._vocab_size, self._tokenizer_sha256 = vocab_size, tokenizer_sha256
        self._item = item_size(vocab_size)
        self._partial, self._partial_offsets = (
            path.with_name(f"{path.name}{s}.partial") for s in ("", ".offsets")
        )
        self._file: BinaryIO = open(self._partial, "wb")  # noqa: SIM115
        self._offsets: BinaryIO = open(self._partial_offsets, "w+b")  # noqa: SIM115
        self._file.write(bytes(HEADER_BYTES))
        self._offsets.write(bytes(8))

    def add(self, documents: list[bytes], ids: list[NDArray[np.int32]]) -> None:
        """Append documents; ids [n] of each are its tokens."""
        if not documents:
            return
        tokens = np.concatenate(ids).astype(_ITEM_TYPES[self._item]).tobytes()
        text = b"".join(documents)
        self._file.write(tokens)
        self.blake2b.update(tokens)
        self.sha256.update(text)
        ends = self.num_tokens + np.cumsum([len(part) for part in ids], dtype="<i8")
        self._offsets.write(ends.tobytes())
        self.num_tokens = int(ends[-1])
        self.num_documents += len(documents)
        self.num_bytes += len(text)

    def close(self) -> None:
        """Complete the file, flush it to the disk, and give it its name."""
        self._file.write(bytes(_offsets_begin(self.num_tokens, self._item) - self._file.tell()))
        self._offsets.seek(0)
        while block := self._offsets.read(_COPY_BYTES):
            self._file.write(block)
        counts = (self.num_tokens, self.num_documents, self.num_bytes)
        digests = (self.sha256.digest(), self._tokenizer_sha256)
        fields = _FIELDS.pack(MAGIC, VERSION, self._item, self._vocab_size, *counts, *digests)
        self._file.seek(0)
        self._file.write(fields + _checksum(fields))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._partial, self.path)
        self.discard()

    def discard(self) -> None:
        """Remove what has no final name, as far as the system lets us; raises no OSError."""
        for file, path in ((self._file, self._partial), (self._offsets, self._partial_offsets)):
            with suppress(OSError):  # on a full disk: closing writes what is left
                file.close()
            with suppress(OSError):
                path.unlink()
