"""What a step of engine numba consists of.

The engine's body runs as plain Python, with a clock around each kernel that it calls. A call from Python
costs some microseconds by itself: each kernel is called for no rows too, and the difference counts.
"""

import statistics
import time
import types
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .report import table
from .timing import count

if TYPE_CHECKING:
    from ..coder.engine import Engine

STEPS = 320  # that are timed; the caches are moved to the front every 64 to 80

# kernel: (part, the argument that says how many rows or steps)
KERNELS = {
    "linear": ("linear layers", 2),
    "attend": ("attention, softmax included", 5),
    "normalise": ("norms and quantisation", 1),
    "gate": ("feed-forward gates", 1),
    "add": ("additions", 1),
    "store": ("upkeep of the caches", 4),
    "turn": ("upkeep of the caches", 3),
    "make_room": ("upkeep of the caches", 2),
}
RARE = "make_room"  # works now and then only: when it moves the caches
HEAD = "the head among them"


@dataclass(frozen=True)
class Step:
    """Seconds of a step of `streams` streams whose windows are full.

    Attributes:
        seconds: of the step as it is compiled.
        parts: of its parts, alone.
        head: of the last linear layer, which is in `parts` too.
    """

    streams: int
    seconds: float
    parts: dict[str, float]
    head: float

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def as_text(self) -> str:
        rows = [["step of the engine, decoding", "µs", "share"]]
        for part, seconds in self.parts.items():
            rows.append(self._row(part, seconds))
            if part == KERNELS["linear"][0]:
                rows.append(self._row(f"  {HEAD}", self.head))
        return (
            f"{table(rows)}\nparts alone {self.total * 1e6:,.1f} µs; compiled as one, a step of "
            f"{count(self.streams, 'stream')} takes {self.seconds * 1e6:,.1f} µs"
        )

    def as_json(self) -> dict[str, Any]:
        shares = {part: seconds / self.total for part, seconds in self.parts.items()}
        return {**asdict(self), "shares": shares}

    def _row(self, part: str, seconds: float) -> list[str]:
        return [part, f"{seconds * 1e6:,.1f}", f"{seconds / self.total:.1%}"]


class _Clock:
    """Seconds of kernels, by their name, which of the step's calls it is, and whether the caches moved."""

    def __init__(self) -> None:
        self.seconds: defaultdict[tuple[str, int, bool], list[float]] = defaultdict(list)
        self.calls: defaultdict[str, int] = defaultdict(int)

    def around(self, name: str, kernel: Callable[..., None]) -> Callable[..., None]:
        place = KERNELS[name][1]

        def timed(*arguments: Any) -> None:
            nothing = (*arguments[:place], 0, *arguments[place + 1 :])
            kernel(*nothing)  # what a call needs has been fetched
            start = time.perf_counter()
            kernel(*nothing)
            empty = time.perf_counter() - start
            before = arguments[1].counts[1] if name == RARE else 0
            start = time.perf_counter()
            kernel(*arguments)
            full = time.perf_counter() - start
            moved = name == RARE and bool(arguments[1].counts[1] < before)
            self.seconds[name, self.calls[name], moved].append(full - empty)
            self.calls[name] += 1

        return timed

    def of(self, name: str, number: int) -> float:
        """Seconds a step: by medians, as other processes interrupt some calls for long."""
        both = (self.seconds.get((name, number, moved), [0.0]) for moved in (False, True))
        return sum(max(0.0, statistics.median(times)) * len(times) / STEPS for times in both)


def take_apart(engine: "Engine", fed: npt.NDArray[np.int32]) -> Step | None:
    """Time a step's parts on the streams of `fed` [S, T]; None for what numba does not evaluate as layers."""
    if engine.name != "numba":
        return None
    from ..coder.engines import kernels
    from ..coder.engines.numba_engine import NumbaEngine

    if not isinstance(engine, NumbaEngine):
        return None

    numba: Any = engine
    compiled: Any = kernels.advance
    clock, globals_of = _Clock(), vars(kernels)
    timed = {name: clock.around(name, globals_of[name]) for name in KERNELS}
    body = types.FunctionType(compiled.py_func.__code__, {**globals_of, **timed})

    streams, window = len(fed), numba.shape.window
    state, seconds = numba.start(streams), list[float]()
    logits = np.empty((streams, numba.vocab_size), dtype=np.int32)

    def step(number: int, function: Callable[..., None]) -> float:
        at = number % fed.shape[1]
        ids = np.ascontiguousarray(fed[:, at : at + 1])
        start = time.perf_counter()
        function(numba.shape, numba.weights, state.cache, state.scratch, ids, logits)
        return time.perf_counter() - start

    for number in range(window):
        step(number, compiled)
    for number in range(window, window + STEPS):
        seconds.append(step(number, compiled))
    step(window + STEPS, body)  # loads what has been called by other kernels alone
    clock.seconds.clear()
    for number in range(window + STEPS + 1, window + 2 * STEPS + 1):
        clock.calls.clear()
        step(number, body)

    parts = dict.fromkeys((part for part, _ in KERNELS.values()), 0.0)
    for name, calls in clock.calls.items():
        parts[KERNELS[name][0]] += sum(clock.of(name, number) for number in range(calls))
    # The head comes last in each of the groups of rows that a step is cut into.
    each = kernels.PER_LAYER * numba.shape.num_layers + 1
    head = sum(clock.of("linear", number) for number in range(each - 1, clock.calls["linear"], each))
    return Step(streams, statistics.median(seconds), parts, head)
