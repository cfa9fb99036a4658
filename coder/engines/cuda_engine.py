"""The torch engine on an NVIDIA GPU: int8 tensor cores, and calls of one shape replayed as CUDA graphs.

A call is some hundred small kernels, and a decoder makes thousands of them: launched one by one they would
leave the GPU waiting. Nothing between ids and logits comes back to the host, so the second call of a shape is
recorded, and those after it are replayed.
"""

# torch leaves many of its own functions untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from threading import Lock
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import FrozenCheckpoint
from ..errors import LaconicError
from ..fixedpoint import Array
from .exactgemm import Float32Gemm, Gemm, PaddedInt8Gemm
from .torch_engine import TorchEngine, TorchState


@dataclass
class CudaState(TorchState):
    """What the torch engine keeps, and the last shape's recording."""

    ids: Tensor | None = None  # int64 [S, T], read by the recording
    replay: Callable[[], Tensor] | None = None


class CudaEngine(TorchEngine):
    """Evaluates a frozen checkpoint with torch on the current GPU."""

    name = "cuda"
    gemms: ClassVar[tuple[Gemm, ...]] = (PaddedInt8Gemm(), Float32Gemm())

    def __init__(self, checkpoint: FrozenCheckpoint) -> None:
        """Raises LaconicError: torch sees no GPU, or neither of its products is exact there."""
        super().__init__(checkpoint, 1, self._find_device())
        self._lock = Lock()  # while one thread records, no other may touch the stream

    def start(self, num_streams: int) -> CudaState:
        """A state of streams that have seen nothing."""
        return self._unrecorded(super().start(num_streams))

    def advance(self, state: Any, ids: Array) -> Array:
        """Feed ids [S, T]; returns the logits after each, int32 [S, T, V]."""
        fed = torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64))
        with self._lock, self._on_device():
            if state.ids is None or state.ids.shape != fed.shape:
                state.ids, state.replay = fed.to(self.device, copy=True), None
                return self._to_host(self.evaluate(state, state.ids))  # warms up, too
            state.ids.copy_(fed)
            if state.replay is None:
                state.replay = self._record(lambda: self.evaluate(state, state.ids))
            return self._to_host(state.replay())

    def select(self, state: Any, streams: Sequence[int]) -> CudaState:
        """A new state, whose stream i has seen what stream streams[i] of `state` has."""
        with self._lock, self._on_device():
            return self._unrecorded(super().select(state, streams))

    @staticmethod
    def _unrecorded(state: TorchState) -> CudaState:
        return CudaState(**{field.name: getattr(state, field.name) for field in fields(TorchState)})

    def evaluate(self, state: TorchState, ids: Tensor) -> Tensor:
        """Feed int64 ids [S, T] on the device; returns int32 logits [S, T, V] there."""
        places = self._places(state.position, ids.shape[1])
        logits = self._forward(state, slice(0, len(ids)), ids, places).to(torch.int32)
        state.position += ids.shape[1]
        return logits

    # What follows is all that needs a GPU.

    def _find_device(self) -> torch.device:
        if not torch.cuda.is_available():
            raise LaconicError(
                "engine cuda needs a GPU, and torch sees none: choose another, or leave --engine out"
            )
        self.stream = torch.cuda.Stream()  # of its own: the default stream cannot be recorded
        return torch.device("cuda", torch.cuda.current_device())

    @contextmanager
    def _on_device(self) -> Generator[None]:
        self.stream.wait_stream(torch.cuda.current_stream())  # where tensors were made
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            yield

    def _record(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Record a step without running it; what is returned runs it, in the same memory each time."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            logits = step()

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay

    def _to_host(self, logits: Tensor) -> Array:
        """A copy of its own: torch reuses page-locked memory that has been given back."""
        host = torch.empty(logits.shape, dtype=logits.dtype, pin_memory=True)
        host.copy_(logits, non_blocking=True)
        self.stream.synchronize()
        return host.numpy()
