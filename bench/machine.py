"""What the machine can do: its cores, and the peak of large float32 products."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..coder.parallel import cores

GEMM_SIZE, REPETITIONS = 2048, 5


def load_before() -> float | None:
    """Processes that wanted a core in the minute before, where the system tells."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def gemm_macs_per_second() -> dict[int, float]:
    """Threads -> multiply-accumulates a second of the best of a few large float32 products.

    Without torch it is NumPy's product on all threads, as its library does not let itself be told.
    """
    values = np.random.default_rng(0).random((2, GEMM_SIZE, GEMM_SIZE), dtype=np.float32)
    try:
        import torch
    except ImportError:
        return {cores(): GEMM_SIZE**3 / _shortest(lambda: values[0] @ values[1])}
    a, b = torch.from_numpy(values[0]), torch.from_numpy(values[1])
    before, found = torch.get_num_threads(), dict[int, float]()
    try:
        for threads in sorted({1, cores()}):
            torch.set_num_threads(threads)
            found[threads] = GEMM_SIZE**3 / _shortest(lambda: a @ b)
    finally:
        torch.set_num_threads(before)
    return found


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _shortest(action: Callable[[], Any]) -> float:
    """Seconds of the fastest repetition; the first warms up."""
    seconds: list[float] = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        action()
        seconds.append(max(time.perf_counter() - start, 1e-9))
    return min(seconds)
