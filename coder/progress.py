"""One line on a terminal that says how far a file is."""

import sys
import time

_INTERVAL = 0.2  # seconds between two updates


def human(count: float) -> str:
    """Bytes in decimal units: 999 B, 12.3 KB, 4.5 MB."""
    for unit in ("B", "KB", "MB"):
        if count < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


class Progress:
    """Writes to stderr if that is a terminal and `wanted`; else does nothing."""

    def __init__(self, label: str, total: int | None, wanted: bool) -> None:
        """`total` is what `done` will be at the end, or None where that is unknown."""
        self.label = label
        self.total = total
        self.wanted = wanted and sys.stderr.isatty()
        self.start = self.last = time.monotonic()

    def update(self, done: float, original: float, coded: float) -> None:
        """`done` of the total; bytes of original and of coded data so far."""
        now = time.monotonic()
        if not self.wanted or now - self.last < _INTERVAL:
            return
        self.last = now
        elapsed = now - self.start
        line = f"{self.label}: {human(original)}"
        if self.total:
            line += f", {100 * done / self.total:.0f}%"
        line += f", {original / elapsed / 1000:.1f} KB/s"
        if coded > 0:
            line += f", ratio {original / coded:.2f}"
        if self.total and done > 0:
            left = round(elapsed * max(0.0, self.total / done - 1))
            line += f", {left // 60}:{left % 60:02} left"
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.wanted:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
