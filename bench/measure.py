"""Real measurements: bytes counted, round trips compared, seconds and memory taken."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..coder.errors import LaconicError
from .peers import Codec

WARM_UP_BYTES = 4096
T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """A named byte string to be compressed.

    Attributes:
        note: what is known of its part in training; "" where the checkpoint decides.
    """

    name: str
    data: bytes
    note: str = ""


@dataclass(frozen=True)
class Measurement:
    """One codec on one file; its existence says that the round trip was compared and is equal.

    Attributes:
        methods: bytes of the file by what they were coded by; empty where a codec has one method.
    """

    file: str
    file_bytes: int
    compressed_bytes: int
    compress_seconds: float
    decompress_seconds: float
    methods: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def bits_per_byte(self) -> float:
        return 8 * self.compressed_bytes / self.file_bytes if self.file_bytes else 0.0


@dataclass(frozen=True)
class CodecResult:
    """One codec on all files.

    Attributes:
        ready_seconds: first use, on a file's first bytes: imports, loading of the checkpoint, but
            not what `Codec.prepare` does.
        peak_bytes: growth of resident memory from before the first use to its peak, or None where the
            system does not tell, or the memory is another process's. Memory that an earlier codec gave back
            to the process is not seen.
        external, level: as `Codec` has them.
    """

    codec: str
    version: str
    ready_seconds: float
    peak_bytes: int | None
    measurements: list[Measurement]
    external: bool = False
    level: int | None = None

    @property
    def file_bytes(self) -> int:
        return sum(m.file_bytes for m in self.measurements)

    @property
    def compressed_bytes(self) -> int:
        return sum(m.compressed_bytes for m in self.measurements)

    @property
    def bits_per_byte(self) -> float:
        return 8 * self.compressed_bytes / self.file_bytes if self.file_bytes else 0.0

    @property
    def methods(self) -> dict[str, int]:
        """Bytes of all files by what they were coded by."""
        found = Counter[str]()
        for measurement in self.measurements:
            found.update(measurement.methods)
        return dict(found)

    @property
    def compress_kb_per_second(self) -> float:
        return self.file_bytes / 1e3 / max(sum(m.compress_seconds for m in self.measurements), 1e-9)

    @property
    def decompress_kb_per_second(self) -> float:
        return self.file_bytes / 1e3 / max(sum(m.decompress_seconds for m in self.measurements), 1e-9)

    def as_json(self) -> dict[str, Any]:
        """Everything measured and derived, for json.dump."""
        return {
            **asdict(self),
            "file_bytes": self.file_bytes,
            "compressed_bytes": self.compressed_bytes,
            "bits_per_byte": self.bits_per_byte,
            "compress_kb_per_second": self.compress_kb_per_second,
            "decompress_kb_per_second": self.decompress_kb_per_second,
        }


def read_samples(paths: Sequence[str]) -> list[Sample]:
    """Files as samples, named as they were given.

    Raises:
        LaconicError: a path that is no readable file.
    """
    samples: list[Sample] = []
    for path in paths:
        try:
            samples.append(Sample(path, Path(path).read_bytes()))
        except OSError as error:
            raise LaconicError(f"{path}: {error.strerror or error}; give files that can be read") from error
    return samples


def measure(codec: Codec, samples: Sequence[Sample]) -> CodecResult:
    """Compress and decompress each sample once, in this process or the codec's own, and compare.

    Raises:
        LaconicError: bytes that came back different, with the first place that differs.
    """
    before = _restart_peak()
    if codec.prepare:
        codec.prepare()
    warm_up = next((sample.data[:WARM_UP_BYTES] for sample in samples if sample.data), b"")
    ready_seconds, _ = _timed(lambda: codec.decompress(codec.compress(warm_up)))
    measurements = [_measure_one(codec, sample) for sample in samples]
    peak = _status_bytes("VmHWM")
    growth = max(0, peak - before) if before is not None and peak is not None else None
    if codec.external:
        growth = None
    return CodecResult(
        codec.name, codec.version, ready_seconds, growth, measurements, codec.external, codec.level
    )


def _measure_one(codec: Codec, sample: Sample) -> Measurement:
    compress_seconds, blob = _timed(lambda: codec.compress(sample.data))
    decompress_seconds, restored = _timed(lambda: codec.decompress(blob))
    if restored != sample.data:
        place = next(
            (i for i, (a, b) in enumerate(zip(restored, sample.data, strict=False)) if a != b),
            min(len(restored), len(sample.data)),
        )
        raise LaconicError(
            f"{codec.name} did not restore {sample.name}: {len(restored)} of {len(sample.data)} bytes came "
            f"back, different from byte {place} on; please report it with the file"
        )
    methods = codec.methods(blob) if codec.methods else {}
    return Measurement(
        sample.name, len(sample.data), len(blob), compress_seconds, decompress_seconds, methods
    )


def _timed(action: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def _restart_peak() -> int | None:
    """Let the kernel's high-water mark fall to the present size, and return that size in bytes (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status_bytes("VmRSS")


def _status_bytes(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":")), None)
