"""What codes segments: a segment's bytes in, its coded form out.

`Encoder` does it in this process; whatever else has the shape of `Encodes` may take its place.
"""

import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .errors import LaconicError
from .parallel import check_threads
from .reference import Reference
from .report import Report
from .segment import MAX_SEGMENT, MAX_STREAMS, Segment

if TYPE_CHECKING:
    from .model import Model


class Coded(NamedTuple):
    """A coded segment, and who coded it."""

    segment: Segment
    node: str  # the machine
    retries: int  # attempts that failed before
    seconds: float  # of the attempt that did not


class Encodes(Protocol):
    """Segments to coded segments. Threads share it; the bytes depend on the segment alone."""

    @property
    def lanes(self) -> int:
        """Segments that may be given to it at the same time."""
        ...

    @property
    def prefixes(self) -> bytes | None:
        """`Model.prefixes`, or None where there is no model."""
        ...

    @property
    def reference_name(self) -> bytes | None:
        """`Reference.name`, or None where there is none."""
        ...

    def __call__(self, position: int, data: bytes, report: Report) -> Coded:
        """The coded form of `data`, which begins at `position` of the original; what `report` raises ends it.

        Raises:
            LaconicError: it cannot be coded.
        """
        ...


@dataclass(frozen=True)
class Encoder:
    """Codes segments in this process.

    Raises:
        LaconicError: streams, level or threads are out of range, or do not go with `entropy` or a reference.
    """

    model: "Model | None"
    streams: int | None = None
    level: int | None = None
    entropy: str = "range"
    reference: Reference | None = None
    threads: int | None = None  # segments in work at the same time; None: as many as cores

    def __post_init__(self) -> None:
        check_streams(self.streams)
        check_threads(self.threads)
        from .codec import check_entropy  # it brings numpy

        check_entropy(self.entropy, self.level, self.model, self.streams)
        if self.reference is not None:
            from .against import check_against  # it brings numba

            check_against(self.reference, self.level, self.streams, self.entropy)

    @property
    def lanes(self) -> int:
        return check_threads(self.threads)

    @property
    def prefixes(self) -> bytes | None:
        return None if self.model is None else self.model.prefixes

    @property
    def reference_name(self) -> bytes | None:
        return None if self.reference is None else self.reference.name

    def __call__(self, position: int, data: bytes, report: Report) -> Coded:
        from .codec import encode_segment

        begin = time.monotonic()
        if self.reference is None:
            segment = encode_segment(data, self.model, self.streams, report, self.level, self.entropy)
        else:
            from .against import encode_against

            segment = encode_against(data, self.model, self.reference, position, report, self.level)
        return Coded(segment, platform.node(), 0, time.monotonic() - begin)


def check_streams(streams: int | None) -> None:
    """Raises LaconicError for what the format does not allow."""
    if streams is not None and not 1 <= streams <= MAX_STREAMS:
        raise LaconicError(f"{streams} streams: choose from 1 to {MAX_STREAMS}")


def check_segment_size(size: int) -> None:
    """Raises LaconicError for what the format does not allow."""
    if not 1 <= size <= MAX_SEGMENT:
        raise LaconicError(f"a segment of {size} bytes: choose from 1 to {MAX_SEGMENT}")
