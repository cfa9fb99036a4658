import numpy as np
import pytest
import torch
from test_transformer import SHAPES, small, stirred

from laconic.coder.checkpoint import FrozenCheckpoint
from laconic.coder.engines.reference import NumpyEngine
from laconic.models.freeze import calibrate, freeze
from laconic.models.thaw import bits_of, shape_of, thaw

BYTES = [bytes([i]) for i in range(50)]


def ids() -> torch.Tensor:
    torch.manual_seed(1)
    drawn = torch.randint(0, 50, (8, 40))
    drawn[:, 0] = 50
    return drawn


def predictions(config, tensors) -> np.ndarray:
    engine = NumpyEngine(FrozenCheckpoint(config, tensors, "{}", {}))
    return engine.advance(engine.start(8), ids().numpy())


@pytest.mark.parametrize("changes", SHAPES)
@torch.no_grad()
def test_a_thawed_model_computes_what_it_was_frozen_from(changes):
    model = stirred(small(**changes))
    config, tensors = freeze(model, BYTES, calibrate(model, [ids()]))
    thawed = thaw(config, tensors)
    assert shape_of(config) == model.config
    before, after = (torch.log_softmax(m(ids()).double(), -1) for m in (model, thawed))
    divergence = (before.exp() * (before - after)).sum(-1).mean() / np.log(2)
    assert divergence < 0.002  # bits a token, for weights of 8 bits


@pytest.mark.parametrize("changes", SHAPES)
@torch.no_grad()
def test_frozen_again_it_predicts_the_same_but_for_rounding(changes):
    model = stirred(small(**changes))
    first = freeze(model, BYTES, calibrate(model, [ids()]))
    thawed = thaw(*first)
    again = freeze(thawed, BYTES, calibrate(thawed, [ids()]))
    assert again[0] == first[0]
    for name in first[1]:
        if name.endswith("weight"):
            assert np.abs(again[1][name].astype(int) - first[1][name]).max() <= 1, name
    a, b = predictions(*first), predictions(*again)
    assert np.abs(a - b).mean() < 0.1 * a.std()
    p = torch.log_softmax(torch.from_numpy(a).double() * np.log(2) / 1024, -1)
    q = torch.log_softmax(torch.from_numpy(b).double() * np.log(2) / 1024, -1)
    assert (p.exp() * (p - q)).sum(-1).mean() / np.log(2) < 0.002


@torch.no_grad()
def test_a_residual_stream_of_another_unit_is_read_as_such():
    model = stirred(small())
    calibration = calibrate(model, [ids()])
    calibration.residual = 3000.0
    assert calibration.residual_unit < 1000
    thawed = thaw(*freeze(model, BYTES, calibration))
    before, after = (torch.log_softmax(m(ids()).double(), -1) for m in (model, thawed))
    assert (before.exp() * (before - after)).sum(-1).mean() / np.log(2) < 0.002


@pytest.mark.parametrize(("bits", "table_bits"), [(8, 8), (5, 6), (3, 8), (8, 2)])
@torch.no_grad()
def test_the_bits_of_the_weights_are_found_again(bits, table_bits):
    for model in (stirred(small()), stirred(small(tied=False))):
        calibration = calibrate(model, [ids()], moments=True)
        _, tensors = freeze(model, BYTES, calibration, bits, table_bits=table_bits)
        assert bits_of(tensors) == (bits, table_bits)


@torch.no_grad()
def test_both_sides_of_a_split_have_one_size():
    model = stirred(small())
    for block in model.layers:  # the same function, badly split
        block.attention.qkv.weight[:32] *= 8
        block.attention.qkv.weight[32:40] /= 8
        block.ffn.up.weight *= 4
        block.ffn.down.weight /= 16
    thawed = thaw(*freeze(model, BYTES, calibrate(model, [ids()])))
    for block in thawed.layers:
        q, k, v = block.attention.qkv.weight.split((32, 8, 8))
        for a, b in ((q, k), (v, block.attention.out.weight), (block.ffn.up.weight, block.ffn.down.weight)):
            sizes = [float((w.square().mean() * w.shape[1]).sqrt()) for w in (a, b)]
            assert sizes[0] == pytest.approx(sizes[1], rel=1e-3)
