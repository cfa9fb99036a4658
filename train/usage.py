"""How well training uses the machine: tokens a second, MFU, memory, and time that waits for data."""

import contextlib
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..models.transformer import Transformer

LARGEST = {"cuda": 8192}  # rows of the largest product that the peak is measured by
LARGEST_ELSEWHERE = 2048
PEAK_SECONDS = 0.2  # of measuring it


@dataclass
class Usage:
    """What some steps of training took.

    Attributes:
        seconds: of steps, by the first rank's clock: checkpoints are part of it, validation is not.
        tokens: that all ranks learnt from.
        waiting_seconds: that this rank's steps waited for their batches.
        operations: of this rank, by `LanguageModule.operations_per_token`.
        possible_operations: those of `seconds` at the peak that `peak_rate` measured when training began.
        peak_bytes: of memory so far: on a GPU what tensors took at most, elsewhere what was resident of the
            whole process; None where the system does not tell.
    """

    seconds: float = 0.0
    tokens: int = 0
    waiting_seconds: float = 0.0
    operations: float = 0.0
    possible_operations: float = 0.0
    peak_bytes: int | None = None

    def add(self, more: "Usage") -> None:
        """Count what came after."""
        self.seconds += more.seconds
        self.tokens += more.tokens
        self.waiting_seconds += more.waiting_seconds
        self.operations += more.operations
        self.possible_operations += more.possible_operations
        self.peak_bytes = max(self.peak_bytes or 0, more.peak_bytes or 0) or None

    def figures(self) -> dict[str, float]:
        """What is logged and reported; empty before the first step.

        tokens_per_second   tokens / seconds, of all ranks
        mfu                 operations / possible_operations, of this rank: model FLOPs utilisation (Chowdhery
                            et al. 2022, arXiv:2204.02311). Of a token they are 6 a multiply-accumulate: two
                            on the way forward, four on the way back; and there is one multiply-accumulate a
                            weight of every matrix, the head's among them, and two a head's dimension and
                            token of the window (`forward_operations`). What is computed twice to save memory
                            counts once; what is no product does not count.
        waiting_share       waiting_seconds / seconds, of this rank
        peak_bytes          of memory, of this rank
        """
        if not self.seconds:
            return {}
        found = {
            "tokens_per_second": self.tokens / self.seconds,
            "mfu": self.operations / max(self.possible_operations, 1.0),
            "waiting_share": self.waiting_seconds / self.seconds,
        }
        return found if self.peak_bytes is None else {**found, "peak_bytes": self.peak_bytes}


def forward_operations(model: Transformer, seq_len: int) -> float:
    """Multiplies and adds of the products of the way forward, for a token of sequences of `seq_len`.

    Every token counts as one that sees a full window, or the whole sequence where that is shorter.
    """
    config = replace(model.config, window=min(model.config.window, seq_len))
    return 2.0 * config.macs_per_token(model.vocab_size)


def peak_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest product of square matrices: on a processor of all threads together.

    An operation is a multiply or an add. There it is one thread's rate, by its own CPU time, times torch's
    threads: a busy machine has the same peak as an idle one. Products double in size from 256 rows while they
    are quick.
    """
    generator = torch.Generator(device).manual_seed(0)  # its own: what is trained draws what it would have
    on_processor, threads = device.type == "cpu", torch.get_num_threads()
    clock = time.thread_time if on_processor else time.perf_counter

    def square(rows: int) -> torch.Tensor:
        return torch.randn(rows, rows, device=device, generator=generator).to(dtype)

    def seconds_of(matrix: torch.Tensor) -> float:
        began = clock()
        (matrix @ matrix)[0, 0].item()  # which waits for it, on any device
        return max(clock() - began, 1e-9)

    try:
        if on_processor:
            torch.set_num_threads(1)
        matrix, best = square(256), 0.0
        seconds_of(matrix)  # which loads the library
        end = clock() + PEAK_SECONDS
        while (left := end - clock()) > 0:
            seconds = seconds_of(matrix)
            best = max(best, 2 * len(matrix) ** 3 / seconds)
            if len(matrix) < LARGEST.get(device.type, LARGEST_ELSEWHERE) and 32 * seconds < left:
                matrix = square(2 * len(matrix))
    finally:
        torch.set_num_threads(threads)
    return best * threads if on_processor else best


def restart_peak(device: torch.device) -> None:
    """Forget the peak of memory so far, where the system lets us (Linux, GPUs)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int | None:
    """The peak of memory since `restart_peak`, as `Usage` has it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError, StopIteration):
        # Not by getrusage, whose peak is the parent's where that was larger when it started this process.
        status = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in status if line.startswith("VmHWM:")).split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
