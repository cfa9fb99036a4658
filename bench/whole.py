"""The whole codec through its front door, on all cores: what users feel."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..coder.errors import LaconicError
from ..coder.files import compress, decompress
from ..coder.model import Model
from ..coder.parallel import cores
from .report import rate, table
from .subject import bytes_by_method
from .timing import count, median

WARM_UP = 4096  # bytes, by which all that is used has been used


@dataclass(frozen=True)
class Whole:
    """A text compressed, decompressed and compared, on `threads` threads.

    Attributes:
        segments: at least; each is worked on by one thread.
        methods: bytes of the text by what made them the smallest.
    """

    level: int
    threads: int
    segments: int
    bytes: int
    coded_bytes: int
    methods: dict[str, int]
    encode_seconds: float
    decode_seconds: float

    @property
    def encode_kb_per_second(self) -> float:
        return self.bytes / 1e3 / self.encode_seconds

    @property
    def decode_kb_per_second(self) -> float:
        return self.bytes / 1e3 / self.decode_seconds

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "encode_kb_per_second": self.encode_kb_per_second,
            "decode_kb_per_second": self.decode_kb_per_second,
        }


def measure_whole(
    data: bytes, model: Model | None, levels: Sequence[int], streams: int | None = None
) -> list[Whole]:
    """Compress and decompress `data`, at least one byte, as a segment for each core.

    Raises:
        LaconicError: other bytes came back.
    """
    threads, found = cores(), list[Whole]()
    size = -(-len(data) // threads)
    for level in levels:
        decompress(compress(data[:WARM_UP], model, level=level, threads=1), model, threads=1)
        encode_seconds, blob = median(
            lambda level=level: compress(
                data, model, level=level, threads=threads, streams=streams, segment_size=size
            )
        )
        decode_seconds, restored = median(lambda blob=blob: decompress(blob, model, threads=threads))
        if restored != data:
            raise LaconicError(f"level {level} did not restore the text; please report it with the file")
        segments, methods = -(-len(data) // size), bytes_by_method(blob)
        found.append(
            Whole(level, threads, segments, len(data), len(blob), methods, encode_seconds, decode_seconds)
        )
    return found


def whole_table(found: Sequence[Whole]) -> str:
    """A row a level, and beneath what was coded."""
    first = found[0]
    rows = [["whole codec", "encode KB/s", "decode KB/s", "bits/byte", "by"]]
    for whole in found:
        rates = [rate(whole.encode_kb_per_second), rate(whole.decode_kb_per_second)]
        bits = f"{8 * whole.coded_bytes / whole.bytes:.3f}"
        rows.append([f"level {whole.level}", *rates, bits, ", ".join(whole.methods)])
    return (
        f"{table(rows)}\n{first.bytes:,} bytes as {count(first.segments, 'segment')} on "
        f"{count(first.threads, 'thread')}, restored and compared"
    )
