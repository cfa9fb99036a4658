"""What the machine can do: its cores, and the peak of large products of float32 and of int8.

An operation is a multiply or an add: two a multiply-accumulate.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..coder.parallel import cores

GEMM_SIZE, REPETITIONS = 4096, 2
TRIED = 256  # size of the product that tells how long a large one will take
ENOUGH_SECONDS = 4.0  # of one product: what would take longer is made smaller
CHECKED = (64, 256, 64)  # rows, depth and columns of the product that has to be exact
SATURATES = "int8 not exact here"


@dataclass(frozen=True)
class Peak:
    """Products of square matrices.

    Attributes:
        size: rows and columns.
        operations_per_second: by threads, of the fastest repetition.
    """

    kind: str
    size: int
    operations_per_second: dict[int, float]


@dataclass(frozen=True)
class Peaks:
    """What was found; `int8` is None where `without_int8` says why."""

    float32: Peak
    int8: Peak | None
    without_int8: str = ""

    @property
    def known(self) -> list[Peak]:
        return [self.float32, *([self.int8] if self.int8 else [])]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def load_before() -> float | None:
    """Processes that wanted a core in the minute before, where the system tells."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peaks() -> Peaks:
    """Measure them on one thread and on all, in seconds.

    Without torch it is NumPy's float32 product on all threads, as its library does not let itself be told.
    """
    rng = np.random.default_rng(0)

    def float32(size: int) -> Any:
        return rng.random((size, size), dtype=np.float32)

    try:
        import torch
    except ImportError:
        found = _peak("float32", lambda size: _squared(float32(size), np.matmul), [cores()], lambda _: None)
        return Peaks(found, None, "int8 needs torch")

    def int8(size: int) -> Any:
        return torch.from_numpy(rng.integers(-128, 128, (size, size), dtype=np.int8))

    threads = sorted({1, cores()})
    int8_product: Any = vars(torch).get("_int_mm")
    with _threads_kept(torch):
        first = _peak(
            "float32",
            lambda size: _squared(torch.from_numpy(float32(size)), torch.mm),
            threads,
            torch.set_num_threads,
        )
        fault = int8_fault(int8_product, rng)
        if fault:
            return Peaks(first, None, fault)
        second = _peak(
            "int8", lambda size: _squared(int8(size), int8_product), threads, torch.set_num_threads
        )
    return Peaks(first, second)


def int8_fault(product: Callable[[Any, Any], Any] | None, rng: np.random.Generator) -> str:
    """Why products of int8 do not count, or nothing: a small one of the whole range has to be exact."""
    import torch

    if product is None:
        return "this torch has no int8 product"
    rows, depth, columns = CHECKED
    a, b = (rng.integers(-128, 128, shape, dtype=np.int8) for shape in ((rows, depth), (depth, columns)))
    a[0], b[:, 0], a[1], b[:, 1] = 127, 127, -128, -128
    try:
        found = product(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    except RuntimeError:
        return "torch has no int8 product here"
    return "" if np.array_equal(found, a.astype(np.int64) @ b.astype(np.int64)) else SATURATES


def _squared(matrix: Any, product: Callable[[Any, Any], Any]) -> Callable[[], Any]:
    return lambda: product(matrix, matrix)


def _peak(
    kind: str, product: Callable[[int], Callable[[], Any]], threads: list[int], choose: Callable[[int], Any]
) -> Peak:
    """Of the largest product that does not take too long, by threads."""
    size = min(TRIED, GEMM_SIZE)
    choose(threads[0])
    seconds = _shortest(product(size))
    while 2 * size <= GEMM_SIZE and 8 * seconds <= ENOUGH_SECONDS:
        size, seconds = 2 * size, 8 * seconds
    action, found = product(size), dict[int, float]()
    for number in threads:
        choose(number)
        found[number] = 2 * size**3 / _shortest(action)
    return Peak(kind, size, found)


@contextmanager
def _threads_kept(torch: Any) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _shortest(action: Callable[[], Any]) -> float:
    """Seconds of the fastest repetition; the first warms up."""
    seconds: list[float] = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        action()
        seconds.append(max(time.perf_counter() - start, 1e-9))
    return min(seconds)
