"""The frozen checkpoint: a folder of integers, addressed by the SHA-256 of what decoding depends on.

    model.lacw          integer tensors alone, entropy-coded
    config.json         spec version, shape, id, training summary, and a SHA-256 of all that
    tokenizer.json.xz   for encoding only
    card.md             for people

Nothing is unpickled; what is unlisted, out of range or of another spec version is refused.
"""

import hashlib
import json
import lzma
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .errors import LaconicError
from .fixedpoint import Array
from .graph import PRIOR_TENSORS, FrozenConfig, check_tensors
from .ngram import NgramConfig, Trie
from .tensorfile import read_tensors, write_tensors
from .tokenizer import ByteTokenizer

if TYPE_CHECKING:
    from .mixing.prior import Prior

Config = FrozenConfig | NgramConfig

TENSORS, CONFIG, TOKENIZER, CARD = "model.lacw", "config.json", "tokenizer.json.xz", "card.md"

MOST_TOKENIZER_BYTES = 1 << 28  # unpacked


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def content_id(config: Config, tensors: dict[str, Array]) -> bytes:
    """SHA-256 over the shape and every tensor in order of name: dtype, shape, little-endian bytes."""
    digest = hashlib.sha256(_canonical(asdict(config)))
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(_canonical([name, tensor.dtype.name, list(tensor.shape)]))
        digest.update(
            np.ascontiguousarray(tensor).astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes()
        )
    return digest.digest()


@dataclass
class FrozenCheckpoint:
    """Integers that predict, and the bytes of each token."""

    config: Config
    tensors: dict[str, Array]
    tokenizer_json: str
    summary: dict[str, Any]  # how it was trained: JSON values, not part of the id
    card: str = ""
    path: Path | None = None

    def __post_init__(self) -> None:
        self.trie: Trie | None = check_tensors(self.config, self.tensors)  # of an n-gram model

    @cached_property
    def id(self) -> bytes:
        """32 bytes; files name the first 8."""
        return content_id(self.config, self.tensors)

    @property
    def transformer(self) -> FrozenConfig:
        """The shape of a transformer, for what evaluates nothing else."""
        assert isinstance(self.config, FrozenConfig)
        return self.config

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes of each id."""
        joined = self.tensors["token_bytes"].tobytes()
        ends = [0, *self.tensors["token_ends"].tolist()]
        return [joined[a:b] for a, b in pairwise(ends)]

    @cached_property
    def prior(self) -> "Prior | None":
        """What the mixer begins with, where the checkpoint has it."""
        if PRIOR_TENSORS[0] not in self.tensors:
            return None
        from .mixing.prior import LEARNED_COUNT, Prior

        weights, maps, matches, rates = (self.tensors[name] for name in PRIOR_TENSORS)
        return Prior(weights, maps, matches, rates, LEARNED_COUNT)

    @cached_property
    def tokenizer(self) -> ByteTokenizer:
        """For encoding; its vocabulary must be the one that decoding knows."""
        tokenizer = ByteTokenizer.from_json(self.tokenizer_json)
        if tokenizer.token_bytes != self.token_bytes:
            raise LaconicError(
                f"{self.path}: {TOKENIZER} belongs to another vocabulary; export the checkpoint again"
            )
        return tokenizer

    @property
    def size_bytes(self) -> int:
        """Bytes on disk of all that coding needs (the card is left out)."""
        if self.path is None:
            raise LaconicError("this checkpoint has not been saved yet: call save(folder) first")
        return sum((self.path / name).stat().st_size for name in (TENSORS, CONFIG, TOKENIZER))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the folder beside its final place and rename it; an existing folder is an error."""
        target = Path(folder)
        if target.exists():
            raise LaconicError(f"{target} exists: choose another folder or remove it first")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            write_tensors(partial / TENSORS, self.tensors)
            head: dict[str, Any] = {
                "config": asdict(self.config),
                "id": self.id.hex(),
                "tokenizer_sha256": hashlib.sha256(self.tokenizer_json.encode()).hexdigest(),
                "summary": self.summary,
            }
            head["sha256"] = hashlib.sha256(_canonical(head)).hexdigest()
            (partial / CONFIG).write_text(json.dumps(head, indent=1, sort_keys=True) + "\n")
            packed = lzma.compress(self.tokenizer_json.encode(), preset=9 | lzma.PRESET_EXTREME)
            (partial / TOKENIZER).write_bytes(packed)
            (partial / CARD).write_text(self.card)
            for file in partial.iterdir():
                file.chmod(0o644)
            partial.chmod(0o755)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        self.path = target

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "FrozenCheckpoint":
        """Read and verify a folder.

        Raises:
            LaconicError: a file is missing, damaged, of another spec version or out of range.
        """
        path = Path(folder)
        missing = [name for name in (TENSORS, CONFIG, TOKENIZER) if not (path / name).is_file()]
        if missing:
            raise LaconicError(
                f"{path} is no frozen checkpoint ({', '.join(missing)} missing): see `laconic models`"
            )
        head = _read_head(path / CONFIG)
        config = _read_config(path / CONFIG, head["config"])
        tensors = read_tensors(path / TENSORS)
        damaged = LaconicError(
            f"{path} is damaged (its content is not what its id says): get a good copy, or export it again"
        )
        try:
            unpacking = lzma.LZMADecompressor(lzma.FORMAT_XZ, MOST_TOKENIZER_BYTES)
            tokenizer_json = unpacking.decompress((path / TOKENIZER).read_bytes(), MOST_TOKENIZER_BYTES)
        except lzma.LZMAError:
            raise damaged from None
        whole = unpacking.eof and not unpacking.unused_data
        if not whole or hashlib.sha256(tokenizer_json).hexdigest() != head["tokenizer_sha256"]:
            raise damaged
        try:
            loaded = cls(config, tensors, tokenizer_json.decode(), head["summary"], path=path)
        except LaconicError as error:
            raise LaconicError(f"{path}: {error}") from None
        except UnicodeDecodeError:
            raise damaged from None
        if loaded.id.hex() != head["id"]:
            raise damaged
        card = path / CARD
        loaded.card = card.read_text(errors="replace") if card.is_file() else ""
        return loaded


def _read_head(path: Path) -> dict[str, Any]:
    damaged = LaconicError(f"{path} is damaged: get a good copy of the checkpoint, or export it again")
    try:
        parsed: Any = json.loads(path.read_bytes())
        head = cast(dict[str, Any], parsed)
        sha256 = head.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise damaged from None
    spec = head.get("config", {}).get("spec") if isinstance(head.get("config"), dict) else None
    if spec != FrozenConfig.spec:
        raise LaconicError(
            f"{path} is of spec version {spec}, this laconic reads version {FrozenConfig.spec}: "
            "install the laconic that made it, or export the checkpoint again"
        )
    if hashlib.sha256(_canonical(head)).hexdigest() != sha256:
        raise damaged
    if set(head) != {"config", "id", "tokenizer_sha256", "summary"} or not isinstance(head["summary"], dict):
        raise damaged
    return head


def _read_config(path: Path, values: dict[str, Any]) -> Config:
    """Of a kind that is named; a transformer's is not."""
    shape = FrozenConfig
    if "kind" in values:
        shape = NgramConfig
        if values["kind"] != NgramConfig.kind:
            raise LaconicError(
                f"{path} is of kind {values['kind']!r}, this laconic reads transformers and "
                f"{NgramConfig.kind}: install the laconic that made it"
            )
    known = {field.name for field in fields(shape)}
    if set(values) != known:
        odd = sorted(set(values) ^ known)
        raise LaconicError(
            f"{path}: the shape's keys {odd} are unknown or missing; export the checkpoint again"
        )
    config = shape(**values)
    faults = config.problems()
    if faults:
        raise LaconicError(f"{path}: {'; '.join(faults)}")
    return config
