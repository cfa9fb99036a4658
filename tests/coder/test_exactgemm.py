"""Products of int8 matrices: those that are wrong are found out, before anything depends on them."""

import numpy as np
import pytest
import torch
from graphs import random_checkpoint, random_config
from test_engines import evaluate, tokens

from laconic.coder import exactgemm
from laconic.coder.errors import LaconicError
from laconic.coder.exactgemm import (
    Float32Gemm,
    Int8Gemm,
    PaddedInt8Gemm,
    choose_gemm,
    extreme_operands,
    is_exact,
)
from laconic.coder.reference import NumpyEngine
from laconic.coder.torch_engine import TorchEngine

CPU = torch.device("cpu")
SHAPES = [(40, 32), (256, 32), (33, 1100), (7, 5)]


def saturating(a, b):
    """Pairs of products summed in 16 bits, as processors without VNNI do: a + 128 is unsigned there."""
    a, b = a.numpy().astype(np.int64), b.numpy().astype(np.int64)
    odd = a.shape[1] % 2
    a, b = np.pad(a, ((0, 0), (0, odd)), constant_values=-128), np.pad(b, ((0, odd), (0, 0)))
    products = (a + 128)[:, :, None] * b[None]
    pairs = np.clip(products[:, ::2] + products[:, 1::2], -(1 << 15), (1 << 15) - 1)
    return torch.from_numpy((pairs.sum(axis=1) - 128 * b.sum(axis=0)).astype(np.int32))


def whole(a, b):
    return torch.from_numpy(a.numpy().astype(np.int32) @ b.numpy().astype(np.int32))


def strict(a, b):
    """As on a GPU, which refuses other shapes."""
    assert a.dtype == b.dtype == torch.int8
    if a.shape[0] <= 16 or a.shape[1] % 8 or b.shape[1] % 8:
        raise RuntimeError(f"no kernel for {a.shape} @ {b.shape}")
    return whole(a, b)


def lying(kind):
    """One fault in an otherwise exact product."""

    def multiply(a, b):
        out = whole(a, b)
        if kind == "rows" and len(out) > 16:
            out[16] += 1
        elif kind == "column":
            out[:, 3] -= 1
        elif kind == "large":
            out.clamp_(-(1 << 18), 1 << 18)
        return out

    return multiply


def test_float32_is_exact():
    assert is_exact(Float32Gemm(), SHAPES, CPU)


@pytest.mark.parametrize("multiply", [saturating, lying("rows"), lying("column"), lying("large")])
@pytest.mark.parametrize("gemm", [Int8Gemm(), PaddedInt8Gemm()])
def test_wrong_products_are_noticed(multiply, gemm, monkeypatch):
    monkeypatch.setattr(torch, "_int_mm", whole)
    assert is_exact(gemm, SHAPES, CPU)
    monkeypatch.setattr(torch, "_int_mm", multiply)
    assert not is_exact(gemm, [(33, 1100)], CPU)


@pytest.mark.parametrize("columns", [5, 32, 1100])
def test_saturation_shows_in_every_shape(columns, monkeypatch):
    monkeypatch.setattr(torch, "_int_mm", saturating)
    assert not is_exact(Int8Gemm(), [(8, columns)], CPU)


def test_a_kernel_that_does_not_exist_is_not_exact(monkeypatch):
    monkeypatch.delattr(torch, "_int_mm")
    assert not is_exact(Int8Gemm(), SHAPES, CPU)
    assert isinstance(choose_gemm((Int8Gemm(), Float32Gemm()), SHAPES, CPU), Float32Gemm)
    with pytest.raises(LaconicError, match="--engine numpy"):
        choose_gemm((Int8Gemm(),), SHAPES, CPU)


def test_an_engine_yields_to_float32(monkeypatch):
    """Even where the wrong product is the faster one."""
    monkeypatch.setattr(torch, "_int_mm", saturating)
    monkeypatch.setattr(exactgemm, "_seconds", lambda gemm, *_: isinstance(gemm, Float32Gemm))
    checkpoint = random_checkpoint(random_config())
    engine, ids = TorchEngine(checkpoint), tokens(checkpoint.config)
    assert engine.kernel.startswith("float32 GEMM, CPU capability")
    np.testing.assert_array_equal(evaluate(engine, ids, [1]), evaluate(NumpyEngine(checkpoint), ids, []))


def test_the_fastest_that_is_exact(monkeypatch):
    gemms = (Int8Gemm(), Float32Gemm())
    monkeypatch.setattr(torch, "_int_mm", whole)
    for fast in gemms:
        monkeypatch.setattr(exactgemm, "_seconds", lambda gemm, *_, fast=fast: gemm is not fast)
        assert choose_gemm(gemms, SHAPES, CPU) is fast


def test_padded_products_suit_a_gpu(monkeypatch):
    monkeypatch.setattr(torch, "_int_mm", strict)
    assert not is_exact(Int8Gemm(), SHAPES, CPU)
    assert is_exact(PaddedInt8Gemm(), SHAPES, CPU)


def test_extreme_operands_hold_every_pair():
    operands = extreme_operands(6).numpy()
    assert {(a, b) for a, b in operands[:, :2].tolist() if abs(a) == abs(b) == 127} == {
        (a, b) for a in (-127, 127) for b in (-127, 127)
    }
    assert operands.min() == -127
