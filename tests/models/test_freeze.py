import numpy as np
import pytest
import torch
from test_transformer import SHAPES, small, stirred

from laconic.coder.checkpoint import FrozenCheckpoint
from laconic.coder.engines.reference import NumpyEngine
from laconic.coder.fixedpoint import LOGIT_BITS
from laconic.coder.graph import check_tensors
from laconic.coder.tensorfile import pack_tensors
from laconic.models.freeze import calibrate, freeze


@pytest.mark.parametrize("changes", SHAPES)
@torch.no_grad()
def test_frozen_integers_predict_what_the_float_model_does(changes):
    model = stirred(small(**changes))
    ids = torch.randint(0, 50, (4, 40))
    ids[:, 0] = model.begin_id
    calibration = calibrate(model, [ids], moments=True)
    config, tensors = freeze(model, [bytes([i]) for i in range(50)], calibration)
    check_tensors(config, tensors)
    checkpoint = FrozenCheckpoint(config, tensors, "{}", {})
    engine = NumpyEngine(checkpoint)
    integers = engine.advance(engine.start(4), ids.numpy())
    nats = torch.from_numpy(integers).double() * np.log(2) / (1 << LOGIT_BITS)
    frozen, floats = torch.log_softmax(nats, -1), torch.log_softmax(model(ids).double(), -1)
    divergence = (floats.exp() * (floats - frozen)).sum(-1).mean() / np.log(2)
    assert divergence < 0.004  # bits a token
    assert (frozen - floats).abs().max() < 0.6


@torch.no_grad()
def test_simulation_matches_the_frozen_graph_better_than_float_does():
    model = stirred(small())
    ids = torch.randint(0, 50, (4, 40))
    ids[:, 0] = model.begin_id
    calibration = calibrate(model, [ids])
    config, tensors = freeze(model, [bytes([i]) for i in range(50)], calibration)
    engine = NumpyEngine(FrozenCheckpoint(config, tensors, "{}", {}))
    frozen = (
        torch.from_numpy(engine.advance(engine.start(4), ids.numpy())).double()
        * np.log(2)
        / (1 << LOGIT_BITS)
    )
    floats = model(ids)
    model.simulate_integers()
    simulated = model(ids)
    assert (simulated - frozen).square().mean() < 0.5 * (floats - frozen).square().mean()


def test_calibration_leaves_the_model_as_it_was():
    model = stirred(small()).train()
    model.simulate_integers()
    before = {k: v.clone() for k, v in model.state_dict().items() if "clip" not in k}
    calibrate(model, [torch.randint(0, 50, (2, 16))])
    assert model.training
    assert model.quantised
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())


@torch.no_grad()
@pytest.mark.parametrize("bits", [8, 6, 4])
def test_rounding_by_moments_brings_the_integers_nearer_to_the_float_model(bits):
    model = stirred(small())
    ids = torch.randint(0, 50, (32, 40))
    floats = model(ids)

    def distance(moments: bool) -> float:
        config, tensors = freeze(
            model, [bytes([i]) for i in range(50)], calibrate(model, [ids], moments=moments), bits
        )
        assert max(np.abs(tensors[f"layers.{i}.up.weight"]).max() for i in (0, 1)) <= 2 ** (bits - 1) - 1
        engine = NumpyEngine(FrozenCheckpoint(config, tensors, "{}", {}))
        logits = torch.from_numpy(engine.advance(engine.start(32), ids.numpy())).double()
        return float((logits * np.log(2) / (1 << LOGIT_BITS) - floats).square().mean())

    assert distance(True) < 0.9 * distance(False)


@torch.no_grad()
def test_sparse_blocks_take_fewer_bytes():
    model = stirred(small())
    calibration = calibrate(model, [torch.randint(0, 50, (32, 40))], moments=True)
    token_bytes = [bytes([i]) for i in range(50)]
    dense, sparse = (freeze(model, token_bytes, calibration, 8, share)[1] for share in (0.0, 0.6))
    for name, tensor in sparse.items():
        assert tensor.shape == dense[name].shape
        if name.startswith("layers.") and name.endswith(".weight"):
            assert (tensor == 0).mean() > 0.599, name
    assert np.array_equal(sparse["embed.weight"], dense["embed.weight"])
    assert len(pack_tensors(sparse)) < 0.8 * len(pack_tensors(dense))


@torch.no_grad()
def test_tables_of_fewer_bits_take_fewer_bytes():
    model = stirred(small(tied=False))
    calibration = calibrate(model, [torch.randint(0, 50, (32, 40))], moments=True)
    token_bytes = [bytes([i]) for i in range(50)]
    whole, short = (freeze(model, token_bytes, calibration, 8, 0.0, bits)[1] for bits in (8, 4))
    for name in ("embed.weight", "head.weight"):
        assert np.abs(whole[name]).max() == 127
        assert np.abs(short[name]).max() == 7
    for name in short:
        assert name.startswith(("embed", "head")) or np.array_equal(short[name], whole[name]), name
    assert len(pack_tensors(short)) < len(pack_tensors(whole))
    # What a row is, is kept: its integers times the multiplier of the head
    rows = short["head.weight"] * short["head.multiplier"][:, None] / 2.0 ** short["head.shift"][0]
    exact = whole["head.weight"] * whole["head.multiplier"][:, None] / 2.0 ** whole["head.shift"][0]
    assert np.abs(rows - exact).mean() < np.abs(exact).max() / 14


@torch.no_grad()
def test_a_residual_stream_beyond_its_saturation_is_scaled_down():
    model = stirred(small())
    for block in model.layers:
        block.ffn.down.weight.mul_(1000)
        block.attention.out.weight.mul_(1000)
    ids = torch.randint(0, 50, (4, 40))
    calibration = calibrate(model, [ids])
    assert calibration.residual > 1024  # what 2^22 units of 2^-12 hold
    config, tensors = freeze(model, [bytes([i]) for i in range(50)], calibration)
    engine = NumpyEngine(FrozenCheckpoint(config, tensors, "{}", {}))
    logits = torch.from_numpy(engine.advance(engine.start(4), ids.numpy())).double()
    frozen = torch.log_softmax(logits * np.log(2) / (1 << LOGIT_BITS), -1)
    floats = torch.log_softmax(model(ids).double(), -1)
    assert (floats.exp() * (floats - frozen)).sum(-1).mean() / np.log(2) < 0.004  # bits a token
