"""Seconds of a part: repeated, the median, and what they say."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

REPETITIONS = 5
ENOUGH_SECONDS = 5.0  # of repetitions of one thing


@dataclass(frozen=True)
class Pace:
    """Seconds that a part takes to encode and to decode `tokens` tokens (0: it codes bytes) of `bytes` bytes.

    Attributes:
        level: of a coder; None for what all levels share.
        threads: that it uses.
        streams: that an engine or a coder works on in lockstep; None for other parts.
    """

    part: str
    level: int | None
    threads: int
    streams: int | None
    tokens: int
    bytes: int
    encode_seconds: float
    decode_seconds: float

    @property
    def is_engine(self) -> bool:
        return self.level is None and self.streams is not None

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        for way, seconds in (("encode", self.encode_seconds), ("decode", self.decode_seconds)):
            found[f"{way}_kb_per_second"] = self.bytes / 1e3 / seconds
            if self.tokens:
                found[f"{way}_tokens_per_second"] = self.tokens / seconds
        return found


def median(action: Callable[[], Any]) -> tuple[float, Any]:
    """(median seconds, the last result) of a few repetitions: fewer, where they take long."""
    seconds: list[float] = []
    while True:
        found, result = once(action)
        seconds.append(found)
        if len(seconds) >= REPETITIONS or sum(seconds) > ENOUGH_SECONDS:
            return statistics.median(seconds), result


def once(action: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds, the result)."""
    start = time.perf_counter()
    result = action()
    return max(time.perf_counter() - start, 1e-9), result


def count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
