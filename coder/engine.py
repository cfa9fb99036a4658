"""Engines: what evaluates a frozen checkpoint, and how one is chosen."""

import importlib.util
import os
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from .checkpoint import FrozenCheckpoint
from .errors import LaconicError
from .fixedpoint import Array
from .ngram import NgramConfig

ENGINES = ("numba", "torch", "cuda", "numpy")  # numba first: it is the default

PROVEN_STREAMS, PROVEN_STEPS = 5, 3  # of the tokens by which an engine is held to the reference when loaded
PROVEN_LENGTH, PROVEN_CHUNK = 150, 90  # of a stream besides: beyond a window of 64 and the room of its cache


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


class BranchingEngine(Engine, Protocol):
    """An engine whose streams can be continued in several ways, as each of ENGINES is."""

    def select(self, state: Any, streams: Sequence[int]) -> Any:
        """A new state, whose stream i has seen what stream streams[i] of `state` has."""
        ...


def load_engine(checkpoint: FrozenCheckpoint, name: str | None = None, threads: int | None = None) -> Engine:
    """The engine called `name`, or the fastest, held to the reference here, with this checkpoint.

    One that gives other integers is not used: without a name the reference takes its place, with a warning.

    Args:
        threads: that engine torch may use; the others use one.

    Raises:
        LaconicError: an engine that does not exist, whose library or GPU is missing, or that is not exact.
    """
    engine = build_engine(checkpoint, name or ENGINES[0], threads)
    if engine.name == "numpy" or (fault := _fault(engine, checkpoint)) is None:
        return engine
    fault = f"engine {engine.name} ({engine.kernel}) {fault}"
    if name is not None:
        raise LaconicError(f"{fault}: choose another, and see laconic selftest")
    warnings.warn(f"{fault}: engine numpy takes its place, slower; see laconic selftest", stacklevel=2)
    return build_engine(checkpoint, "numpy")


def _fault(engine: Engine, checkpoint: FrozenCheckpoint) -> str | None:
    """What is wrong with an engine: some tokens' logits are not the reference's, or it fails."""
    reference = build_engine(checkpoint, "numpy")
    for streams, steps, chunk in ((PROVEN_STREAMS, PROVEN_STEPS, 1), (1, PROVEN_LENGTH, PROVEN_CHUNK)):
        ids = np.arange(streams * steps, dtype=np.int32).reshape(streams, steps) * 37 % engine.vocab_size
        ids[:, 0] = engine.vocab_size
        state, expected = engine.start(streams), reference.advance(reference.start(streams), ids)
        for begin in range(0, steps, chunk):
            piece = slice(begin, begin + chunk)
            try:
                logits = engine.advance(state, ids[:, piece])
            except (MemoryError, LaconicError):
                raise
            except Exception as error:
                return f"fails on this machine ({type(error).__name__}: {error})"
            if not np.array_equal(logits, expected[:, piece]):
                return "gives other integers than the reference on this machine"
    return None


def build_engine(checkpoint: FrozenCheckpoint, name: str, threads: int | None = None) -> Engine:
    """The engine called `name`, whether it is exact here or not.

    An n-gram model is looked up, not multiplied: numba evaluates it where torch or cuda is asked for.
    """
    if name in ENGINES and isinstance(checkpoint.config, NgramConfig):
        if name == "numpy":
            from .engines.ngram_reference import NgramReference

            return NgramReference(checkpoint)
        from .engines.ngram_numba import NgramEngine

        return NgramEngine(checkpoint)
    if name == "numba":
        from .engines.numba_engine import NumbaEngine

        return NumbaEngine(checkpoint)
    if name == "numpy":
        from .engines.reference import NumpyEngine

        return NumpyEngine(checkpoint)
    if name not in ENGINES:
        raise LaconicError(f"there is no engine {name!r}: choose one of {', '.join(ENGINES)}")
    if importlib.util.find_spec("torch") is None:
        raise LaconicError(f"engine {name} needs torch: pip install 'laconic[train]', or leave --engine out")
    # Waiting threads that spin slow two busy processes on two cores down severalfold. OpenMP reads this when
    # torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if name == "cuda":
        from .engines.cuda_engine import CudaEngine

        return CudaEngine(checkpoint)
    from .engines.torch_engine import TorchEngine

    return TorchEngine(checkpoint, threads)
