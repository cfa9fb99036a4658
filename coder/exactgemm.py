"""Products of int8 matrices in torch, by the fastest kernel that proves itself exact where it runs.

Two kernels: `torch._int_mm`, and a float32 GEMM whose every partial sum stays below 2^24. The first saturates
silently on processors that multiply pairs of bytes into 16 bits, so each kernel is tried on extreme operands
of the shapes that it will meet before it is trusted.

Dimensions: M rows, K columns that are summed over, N outputs.
"""

# torch leaves many of its own functions untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

import time
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import LaconicError
from .fixedpoint import INT8_MAX

EXACT_COLUMNS = 1040  # 127 * 127 * 1040 < 2^24
PATTERNS = 19  # rows of extreme operands: a prime, so that every lane of a register meets every one of them
PROOF_ROWS = (1, 17, 64, 130)
TRIAL_ROWS, TRIAL_OUTPUTS, TRIALS = 16, 1024, 3  # of the products that are timed


class Gemm(Protocol):
    """One way to multiply int8 matrices."""

    def describe(self, device: torch.device) -> str:
        """What multiplies, in words."""
        ...

    def prepare(self, weight: Tensor) -> Tensor:
        """A weight matrix, int8 [N, K], as `multiply` wants it."""
        ...

    def multiply(self, q: Tensor, weight: Tensor) -> Tensor:
        """q @ weight^T for q of whole numbers in -127..127, [M, K]; whole numbers of any type, [M, N]."""
        ...


class Float32Gemm:
    """Partial sums below 2^24 are exact in float32 in any order.

    bfloat16 and TF32, which a user may have allowed torch to take for float32, hold eight significant bits
    and more, and so hold every operand; what they do with sums is for `is_exact` to see.
    """

    def describe(self, device: torch.device) -> str:
        if device.type == "cuda":
            return f"float32 GEMM (cuBLAS), {torch.cuda.get_device_name(device)}"
        return f"float32 GEMM, CPU capability {torch.backends.cpu.get_cpu_capability()}"

    def prepare(self, weight: Tensor) -> Tensor:
        return weight.float()

    def multiply(self, q: Tensor, weight: Tensor) -> Tensor:
        q = q.float()
        if weight.shape[1] <= EXACT_COLUMNS:
            return F.linear(q, weight)
        parts = zip(q.split(EXACT_COLUMNS, -1), weight.split(EXACT_COLUMNS, -1), strict=True)
        return torch.stack([F.linear(a, b).double() for a, b in parts]).sum(dim=0)


class Int8Gemm:
    """torch._int_mm as it stands: for processors."""

    def describe(self, device: torch.device) -> str:
        return "int8 GEMM (oneDNN)"

    def prepare(self, weight: Tensor) -> Tensor:
        return weight.contiguous().t()

    def multiply(self, q: Tensor, weight: Tensor) -> Tensor:
        return torch._int_mm(q.to(torch.int8), weight)


class PaddedInt8Gemm:
    """torch._int_mm with zeros around the operands: on GPUs it wants more than 16 rows, and multiples of 8.

    K and N become multiples of 16, as tensor cores take them.
    """

    ALIGNMENT, MIN_ROWS = 16, 32

    def describe(self, device: torch.device) -> str:
        where = f" (cuBLASLt), {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
        return f"int8 GEMM{where}"

    def prepare(self, weight: Tensor) -> Tensor:
        """[N, K], padded: the number of outputs is cut from the result by who knows it."""
        n, k = (-size % self.ALIGNMENT for size in weight.shape)
        return F.pad(weight, (0, k, 0, n)).contiguous().t()

    def multiply(self, q: Tensor, weight: Tensor) -> Tensor:
        rows, columns = q.shape
        more = max(self.MIN_ROWS - rows, -rows % 8)
        padded = F.pad(q.to(torch.int8), (0, weight.shape[0] - columns, 0, more))
        return torch._int_mm(padded, weight)[:rows]


def extreme_operands(columns: int) -> Tensor:
    """int8 [PATTERNS, K]: all pairs of +-127, which sums of two products in 16 bits cannot hold, and more."""
    rng = np.random.default_rng(0)
    pairs = np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]]) * INT8_MAX
    rows = [np.resize(pair, columns) for pair in pairs]
    rows += [rng.choice([-INT8_MAX, INT8_MAX], columns) for _ in range(7)]
    rows += [rng.integers(-INT8_MAX, INT8_MAX + 1, columns) for _ in range(PATTERNS - len(rows))]
    return torch.from_numpy(np.stack(rows).astype(np.int8))


def is_exact(gemm: Gemm, shapes: Iterable[tuple[int, int]], device: torch.device) -> bool:
    """Whether it multiplies extreme operands without a fault, for weights of these shapes [N, K].

    A kernel that this build of torch, or the device, does not have is not exact.
    """
    try:
        return all(_multiplies(gemm, outputs, columns, device) for outputs, columns in set(shapes))
    except (RuntimeError, NotImplementedError, AttributeError):
        return False


def _multiplies(gemm: Gemm, outputs: int, columns: int, device: torch.device) -> bool:
    patterns = extreme_operands(columns)
    wide = patterns.double()
    exact = (wide @ wide.t()).to(device)  # below 2^26
    patterns = patterns.to(device)
    across = torch.arange(outputs, device=device) % PATTERNS
    weight = gemm.prepare(patterns[across])
    for rows in PROOF_ROWS:
        down = torch.arange(rows, device=device) % PATTERNS
        got = gemm.multiply(patterns[down].double(), weight)[:, :outputs]
        if not torch.equal(got.double(), exact[down][:, across]):
            return False
    return True


def _seconds(gemm: Gemm, shape: tuple[int, int], device: torch.device) -> float:
    """Of a small product; without end where the kernel does not exist."""
    outputs, columns = min(shape[0], TRIAL_OUTPUTS), shape[1]
    try:
        weight = gemm.prepare(torch.ones((outputs, columns), dtype=torch.int8, device=device))
        q = torch.ones((TRIAL_ROWS, columns), dtype=torch.float64, device=device)
        found: list[float] = []
        for _ in range(TRIALS + 1):  # the first warms up
            begin = time.perf_counter()
            gemm.multiply(q, weight)[0, 0].item()  # waits for a GPU
            found.append(time.perf_counter() - begin)
    except (RuntimeError, NotImplementedError, AttributeError):
        return float("inf")
    return min(found[1:])


def choose_gemm(gemms: Sequence[Gemm], shapes: Sequence[tuple[int, int]], device: torch.device) -> Gemm:
    """The fastest that is exact for weights of these shapes [N, K].

    Where `torch._int_mm` has no kernel for a processor it is a plain loop: exact, and slower than float32.

    Raises:
        LaconicError: none is.
    """
    largest = max(shapes, key=lambda shape: shape[0] * shape[1])
    for gemm in sorted(gemms, key=lambda gemm: _seconds(gemm, largest, device)):
        if is_exact(gemm, shapes, device):
            return gemm
    raise LaconicError(f"torch multiplies whole numbers wrongly on this {device.type}: choose --engine numpy")
