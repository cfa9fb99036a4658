"""Conformance vectors: what docs/frozen.md computes, for others to compare with.

`conformance.json` has a list of cases. Each names a shape, and a seed from which checkpoint and ids follow by
SplitMix64, and has a digest of every intermediate tensor. docs/frozen.md specifies all of it.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .checkpoint import FrozenCheckpoint
from .fixedpoint import Array
from .graph import BIAS_LIMIT, FrozenConfig, TensorSpec, tensor_specs
from .reference import NumpyEngine

VECTORS = Path(__file__).parent / "conformance.json"
KINDS = ("typical", "any", "sparse", "limits", "highest", "lowest", "zeros", "mixed")
TYPICAL_SHIFTS = {"embed.shift": 8, "score.shift": 16}  # by the end of the name; 18 for the others

Numbers = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Case:
    """One checkpoint and what to feed it.

    Attributes:
        kind: one of KINDS, how tensors are drawn.
        streams, steps: of the ids, which follow from the seed as the tensors do.
        digests: of every intermediate tensor by its name, and of the logits.
    """

    name: str
    config: FrozenConfig
    kind: str
    seed: int
    streams: int
    steps: int
    digests: dict[str, str]

    @property
    def macs(self) -> int:
        """Multiply-accumulates to evaluate all of it."""
        return self.config.macs_per_token() * self.streams * self.steps


class SplitMix64:
    """Steele, Lea and Flood's generator: number n, from 1, is a mix of seed + n * 0x9E3779B97F4A7C15."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.drawn = 0

    def draw(self, count: int) -> Numbers:
        """The next `count` numbers."""
        begin, self.drawn = self.drawn + 1, self.drawn + count
        z = np.arange(begin, begin + count, dtype=np.uint64)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(self.seed)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z ^= z >> np.uint64(shift)
            z *= np.uint64(factor)
        return z ^ (z >> np.uint64(31))


def _between(numbers: Numbers, low: int, high: int) -> Array:
    return (numbers % np.uint64(high - low + 1)).astype(np.int64) + low


def _typical(name: str, spec: TensorSpec, numbers: Numbers) -> Array:
    if name.endswith(".shift"):
        shift = next((value for end, value in TYPICAL_SHIFTS.items() if name.endswith(end)), 18)
        return np.full(numbers.shape, shift)
    if name.endswith(".multiplier"):
        return _between(numbers, 1 << 10, (1 << 14) - 1)
    if name.endswith(".bias"):
        return _between(numbers, -BIAS_LIMIT >> 8, BIAS_LIMIT >> 8)
    return _between(numbers, spec.low, spec.high)


def _any(name: str, spec: TensorSpec, numbers: Numbers) -> Array:
    if name.endswith(".shift"):
        return _typical(name, spec, numbers)
    return _between(numbers, spec.low, spec.high)


def _sparse(name: str, spec: TensorSpec, numbers: Numbers) -> Array:
    if not name.endswith(".weight"):
        return _typical(name, spec, numbers)
    kept = numbers % np.uint64(16) == 0
    return np.where(kept, _between(numbers >> np.uint64(4), spec.low, spec.high), 0)


def _limits(name: str, spec: TensorSpec, numbers: Numbers) -> Array:
    if name.endswith(".shift"):
        return np.full(numbers.shape, spec.low)
    return np.where(numbers % np.uint64(2) == 1, spec.high, spec.low)


def _highest(name: str, spec: TensorSpec, numbers: Numbers) -> Array:
    return np.full(numbers.shape, spec.low if name.endswith(".shift") else spec.high)


def _lowest(name: str, spec: TensorSpec, numbers: Numbers) -> Array:
    return np.full(numbers.shape, spec.high if name.endswith(".multiplier") else spec.low)


def _zeros(name: str, spec: TensorSpec, numbers: Numbers) -> Array:
    if name.endswith(".shift"):
        return np.full(numbers.shape, spec.high)
    return np.full(numbers.shape, max(spec.low, 0))


DRAW: dict[str, Callable[[str, TensorSpec, Numbers], Array]] = {
    "typical": _typical,
    "any": _any,
    "sparse": _sparse,
    "limits": _limits,
    "highest": _highest,
    "lowest": _lowest,
    "zeros": _zeros,
}


def generate(case: Case) -> tuple[FrozenCheckpoint, Array]:
    """The checkpoint of a case, and its ids, int32 [streams, steps]."""
    generator, tensors = SplitMix64(case.seed), dict[str, Array]()
    for name, spec in sorted(tensor_specs(case.config).items()):
        choice = int(generator.draw(1)[0] % np.uint64(len(DRAW)))
        kind = list(DRAW)[choice] if case.kind == "mixed" else case.kind
        numbers = generator.draw(int(np.prod(spec.shape)))
        tensors[name] = DRAW[kind](name, spec, numbers).astype(spec.dtype).reshape(spec.shape)
    vocab_size = case.config.vocab_size
    ids = _between(generator.draw(case.streams * case.steps), 0, vocab_size - 1)
    ids = ids.astype(np.int32).reshape(case.streams, case.steps)
    ids[:, 0] = vocab_size
    tensors["token_bytes"] = np.zeros(vocab_size, dtype=np.uint8)
    tensors["token_ends"] = np.arange(1, vocab_size + 1, dtype=np.int32)
    return FrozenCheckpoint(case.config, tensors, "{}", {"name": case.name}), ids


def digest(tensor: Array) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the elements, int64, little-endian, row-major."""
    return hashlib.sha256(np.ascontiguousarray(tensor, dtype="<i8").tobytes()).hexdigest()[:16]


def trace(checkpoint: FrozenCheckpoint, ids: Array) -> dict[str, Array]:
    """Every intermediate tensor of the reference engine, by its name, the logits among them."""
    engine = NumpyEngine(checkpoint)
    engine.trace = found = dict[str, Array]()
    engine.advance(engine.start(len(ids)), ids)
    return found


def load_cases(path: Path = VECTORS) -> list[Case]:
    """The cases that ship with the package."""
    entries: list[dict[str, Any]] = json.loads(path.read_text())["cases"]
    return [Case(config=FrozenConfig(**entry.pop("config")), **entry) for entry in entries]


def regenerate(path: Path = VECTORS) -> None:
    """Compute the digests of every case anew; what defines the cases stays."""
    entries: list[dict[str, Any]] = []
    for case in load_cases(path):
        found = {name: digest(tensor) for name, tensor in trace(*generate(case)).items()}
        entries.append({**asdict(case), "digests": found})
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    path.write_text(f'{{"spec": {FrozenConfig.spec}, "cases": [\n{lines}\n]}}\n')
