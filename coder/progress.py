"""One line on a terminal that says how far a file is."""

import sys
import time
from threading import Lock

from .report import Report

_INTERVAL = 0.2  # seconds between two updates


def human(count: float) -> str:
    """Bytes in decimal units: 999 B, 12.3 KB, 4.5 MB."""
    for unit in ("B", "KB", "MB"):
        if count < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def clock(seconds: float) -> str:
    """Minutes and seconds, after an hour hours too: 0:07, 12:00, 1:02:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Progress:
    """Writes to stderr if that is a terminal and `wanted`; else does nothing. Threads may share it."""

    def __init__(self, label: str, total: int | None, wanted: bool) -> None:
        """`total` is the size of the input in bytes, or None where that is unknown."""
        self.label = label
        self.total = total
        self.wanted = wanted and sys.stderr.isatty()
        self.start = self.last = time.monotonic()
        self.done = self.original = 0.0  # bytes of input, and of original, over all segments
        self.finished = [0, 0]  # original and coded bytes of segments of which both are known
        self._lock = Lock()

    def segment(self, size: int, original: int) -> Report:
        """What tells of one more segment, of `size` bytes of input and `original` bytes."""
        before = 0.0

        def report(part: float) -> None:
            nonlocal before
            with self._lock:
                gain = max(0.0, part - before)
                before += gain
                self.done += gain * size
                self.original += gain * original
                self._show()

        return report

    def known(self, original: int, coded: int) -> None:
        """Bytes of a segment before and after compression, for the ratio."""
        with self._lock:
            self.finished[0] += original
            self.finished[1] += coded

    def _show(self) -> None:
        now = time.monotonic()
        if not self.wanted or now - self.last < _INTERVAL:
            return
        self.last = now
        elapsed = now - self.start
        line = f"{self.label}: {human(self.original)}"
        if self.total:
            line += f", {100 * self.done / self.total:.0f}%"
        line += f", {human(self.original / elapsed)}/s"
        original, coded = self.finished
        if coded:
            line += f", ratio {original / coded:.2f}"
        if self.total and self.done:
            line += f", {clock(elapsed * max(0.0, self.total / self.done - 1))} left"
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.wanted:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
