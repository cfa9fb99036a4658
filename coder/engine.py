"""Engines: what evaluates a frozen checkpoint, and how one is chosen."""

import importlib.util
import os
from typing import Any, Protocol

from .checkpoint import FrozenCheckpoint
from .errors import LaconicError
from .fixedpoint import Array

ENGINES = ("numba", "torch", "cuda", "numpy")  # numba first: it is the default


class Engine(Protocol):
    """Every engine gives the same integers, whatever the batch, the chunking and the threads."""

    name: str
    kernel: str  # what multiplies, in words
    vocab_size: int

    def start(self, num_streams: int) -> Any:
        """A state of `num_streams` streams that have seen nothing."""
        ...

    def advance(self, state: Any, ids: Array) -> Array:
        """Feed ids [S, T], updating `state`; returns the logits after each token, int32 [S, T, V].

        Logits are in units of 2^-10 bits. The first token of a stream is the begin id, V. Where there are
        fewer rows than streams, the first streams go on, and the others are over.
        """
        ...


def load_engine(checkpoint: FrozenCheckpoint, name: str | None = None, threads: int | None = None) -> Engine:
    """The engine called `name`, or the fastest.

    Args:
        threads: that engine torch may use; the others use one.

    Raises:
        LaconicError: an engine that does not exist, or whose library or GPU is missing.
    """
    name = name or ENGINES[0]
    if name == "numba":
        from .engines.numba_engine import NumbaEngine

        return NumbaEngine(checkpoint)
    if name == "numpy":
        from .reference import NumpyEngine

        return NumpyEngine(checkpoint)
    if name not in ENGINES:
        raise LaconicError(f"there is no engine {name!r}: choose one of {', '.join(ENGINES)}")
    if importlib.util.find_spec("torch") is None:
        raise LaconicError(f"engine {name} needs torch: pip install 'laconic[train]', or leave --engine out")
    # Waiting threads that spin slow two busy processes on two cores down severalfold. OpenMP reads this when
    # torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if name == "cuda":
        from .cuda_engine import CudaEngine

        return CudaEngine(checkpoint)
    from .torch_engine import TorchEngine

    return TorchEngine(checkpoint, threads)
