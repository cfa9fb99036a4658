"""The engine for GPUs: all of it but the GPU on every machine, and the rest where there is one."""

from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
import torch
from graphs import random_checkpoint, random_config
from test_engines import SHAPES, evaluate, tokens
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from laconic.coder.cuda_engine import CudaEngine
from laconic.coder.engine import load_engine
from laconic.coder.errors import LaconicError
from laconic.coder.exactgemm import PaddedInt8Gemm
from laconic.coder.reference import NumpyEngine
from laconic.coder.torch_engine import one_thread

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
CUTS = [[], list(range(1, 45)), [2, 12, 22, 32, 44]]


class Recording(TorchDispatchMode):
    """The operations that torch is asked for, to be run again."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a recording cannot wait for a value"
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def run(self):
        """Tensors by the id of those that they replace."""
        found = {}
        for func, args, kwargs, out in self.calls:
            args, kwargs = tree_map_only(torch.Tensor, lambda t: found.get(id(t), t), (args, kwargs))
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                found[id(old)] = new
        return found


class WithoutGpu(CudaEngine):
    """Records the operations of a step and replays them on the same tensors, as a CUDA graph does.

    What a step computed in Python is a constant of the recording; a replay with another id or position would
    come out wrong.
    """

    gemms = (PaddedInt8Gemm(),)

    def __init__(self, checkpoint):
        self.recordings = self.replays = 0
        super().__init__(checkpoint)

    def _find_device(self):
        return torch.device("cpu")

    @contextmanager
    def _on_device(self):
        with one_thread(), torch.no_grad():
            yield

    def _record(self, step):
        self.recordings += 1
        (state,) = (cell.cell_contents for cell in step.__closure__ if hasattr(cell.cell_contents, "keys"))
        mutable = [state.position, *state.keys, *state.values]
        before = [tensor.clone() for tensor in mutable]
        with Recording() as recording:
            logits = step()
        for tensor, value in zip(mutable, before, strict=True):  # recording a CUDA graph runs nothing
            tensor.copy_(value)

        def replay():
            self.replays += 1
            return recording.run()[id(logits)]

        return replay

    def _to_host(self, logits):
        return logits.numpy().copy()


@pytest.mark.parametrize("shape", SHAPES)
def test_recordings_equal_the_reference(shape):
    checkpoint = random_checkpoint(random_config(**SHAPES[shape]), saturated=shape == "gated")
    try:
        engine = WithoutGpu(checkpoint)
    except LaconicError:
        pytest.skip("this processor has no exact int8 product")
    ids = tokens(checkpoint.config, length=45)
    expected = evaluate(NumpyEngine(checkpoint), ids, [])
    for cuts in CUTS:
        np.testing.assert_array_equal(evaluate(engine, ids, cuts), expected)
    assert engine.recordings == 2  # steps, and chunks of ten
    assert engine.replays == 44 + 2


def test_a_recording_is_for_one_number_of_streams():
    checkpoint = random_checkpoint(random_config())
    try:
        engine = WithoutGpu(checkpoint)
    except LaconicError:
        pytest.skip("this processor has no exact int8 product")
    ids = tokens(checkpoint.config)
    expected = evaluate(NumpyEngine(checkpoint), ids, [])
    state = engine.start(3)
    for rows, (begin, end) in ((3, (0, 30)), (2, (30, 69)), (1, (69, 70))):
        for step, after in pairwise(range(begin, end + 1)):
            got = engine.advance(state, ids[:rows, step:after])
            np.testing.assert_array_equal(got, expected[:rows, step:after])
    assert engine.recordings == 2
    other = engine.start(3)
    np.testing.assert_array_equal(engine.advance(other, ids[:, :2]), expected[:, :2])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_engine_is_refused():
    with pytest.raises(LaconicError, match="torch sees none"):
        load_engine(random_checkpoint(random_config()), "cuda")


@needs_gpu
@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("saturated", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_cuda_equals_reference(shape, saturated, precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        checkpoint = random_checkpoint(random_config(**SHAPES[shape]), saturated=saturated)
        engine, ids = load_engine(checkpoint, "cuda"), tokens(checkpoint.config, streams=5)
        assert engine.kernel.startswith("int8 GEMM")
        expected = evaluate(NumpyEngine(checkpoint), ids, [])
        for cuts in CUTS:
            np.testing.assert_array_equal(evaluate(engine, ids, cuts), expected)
    finally:
        torch.set_float32_matmul_precision(before)
