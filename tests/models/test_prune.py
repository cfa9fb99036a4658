from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from test_transformer import SHAPES, small, stirred

from laconic.coder.checkpoint import FrozenCheckpoint
from laconic.coder.engine import load_engine
from laconic.coder.engines.reference import NumpyEngine
from laconic.coder.fixedpoint import LOGIT_BITS
from laconic.coder.graph import check_tensors
from laconic.models.freeze import calibrate, freeze
from laconic.models.prune import fewer_inputs, prune


@torch.no_grad()
def batches(model):
    """Text as the model would have it."""
    torch.manual_seed(2)
    drawn = torch.randint(0, 50, (4, 8, 40))
    return [(ids, torch.distributions.Categorical(logits=model(ids)).sample()) for ids in drawn]


def agree(a, b):
    ids = batches(a)[0][0]
    torch.testing.assert_close(a(ids), b(ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", SHAPES)
@torch.no_grad()
def test_where_nothing_is_to_go_the_copy_is_the_model(changes):
    model = stirred(small(**changes))
    same = prune(model, model.config, batches(model))
    assert same is not model
    assert all(torch.equal(tensor, same.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("changes", SHAPES)
@torch.no_grad()
def test_tensors_shrink_and_the_model_itself_stays(changes):
    model = stirred(small(**changes))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wanted = replace(model.config, num_layers=1, num_heads=3, ffn_dim=21)
    pruned, again = (prune(model, wanted, batches(model)) for _ in range(2))
    assert pruned.config == wanted
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in pruned.state_dict().items())
    matrices = sum(p.numel() for name, p in pruned.named_parameters() if name.endswith("weight"))
    inputs = 0 if wanted.tied else 51 * 32  # an untied table is looked up, not multiplied with
    attention = 2 * wanted.window * wanted.num_heads * wanted.head_dim
    assert matrices - inputs - (32 if wanted.tied else 0) == wanted.macs_per_token(50) - attention
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())


@pytest.mark.parametrize("changes", SHAPES)
@torch.no_grad()
def test_what_does_nothing_goes_and_the_outputs_stay(changes):
    model = stirred(small(**changes))
    config = model.config
    idle = [1, 2, 5] if config.num_kv_heads == 3 else [0, 2]  # one of each group; any two
    kept = config.num_heads - len(idle)
    for block in model.layers:
        block.attention.out.weight.view(32, config.num_heads, config.head_dim)[:, idle] = 0
        block.ffn.up.weight[:20] = 0  # of a gate, or of all that there is
    agree(model, prune(model, replace(config, num_heads=kept), batches(model)))
    agree(model, prune(model, replace(config, ffn_dim=44), batches(model)))
    first = model.layers[0]
    first.attention.out.weight.zero_()
    first.ffn.down.weight.zero_()
    shorter = prune(model, replace(config, num_layers=1), batches(model))
    agree(model, shorter)
    everything = replace(config, num_layers=1, num_heads=kept, ffn_dim=44)
    agree(model, prune(model, everything, batches(model)))


@torch.no_grad()
def test_the_weights_that_stay_make_good_for_those_that_went():
    model = stirred(small())
    data = batches(model)
    ids = data[0][0]
    wanted = replace(model.config, ffn_dim=40)
    pruned = prune(model, wanted, data)
    cut = prune(model, wanted, data)
    for before, block in zip(model.layers, cut.layers, strict=True):  # the same channels, not fitted
        rows = (before.ffn.up.weight[:, None] == block.ffn.up.weight).all(dim=-1).float().argmax(dim=0)
        block.ffn.down.weight.copy_(before.ffn.down.weight[:, rows])
    lost, fitted = ((other(ids) - model(ids)).square().mean() for other in (cut, pruned))
    assert fitted < 0.9 * lost


def layer(mixed=True):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(2000, 24))
    return random.normal(size=(16, 24)), inputs @ random.normal(size=(24, 24)) if mixed else inputs


def test_inputs_that_others_can_replace_go_without_loss():
    weight, inputs = layer(mixed=False)
    inputs[:, 5] = 2 * inputs[:, 7] - inputs[:, 9]
    inputs[:, 20] = inputs[:, 3]
    moment = inputs.T @ inputs / len(inputs)
    kept, fitted = fewer_inputs(weight, moment, 22)
    gone = set(range(24)) - set(kept.tolist())
    assert len(gone & {5, 7, 9}) == 1
    assert len(gone & {3, 20}) == 1
    lost = inputs[:, kept] @ fitted.T - inputs @ weight.T
    assert lost.var() < 0.01 * (inputs @ weight.T).var()


def test_groups_go_as_a_whole_and_families_stay_equal():
    weight, inputs = layer()
    weight[:, 12:] *= 0.01  # all groups of the second family matter less than any of the first
    moment = inputs.T @ inputs / len(inputs)
    kept, fitted = fewer_inputs(weight, moment, 4, size=4, families=2)
    assert [int((kept < 3).sum()), len(kept)] == [2, 4]
    assert fitted.shape == (16, 16)
    kept, _ = fewer_inputs(weight, moment, 3, size=4)
    assert kept.tolist() == [0, 1, 2]


@pytest.mark.parametrize("changes", SHAPES)
@torch.no_grad()
def test_a_pruned_model_freezes_and_engines_agree(changes):
    model = stirred(small(**changes))
    data = batches(model)
    pruned = prune(model, replace(model.config, num_heads=3, ffn_dim=37), data)
    calibration = calibrate(pruned, [inputs for inputs, _ in data], moments=True)
    config, tensors = freeze(pruned, [bytes([i]) for i in range(50)], calibration, sparsity=0.3)
    check_tensors(config, tensors)
    assert asdict(config).items() >= asdict(pruned.config).items()
    checkpoint = FrozenCheckpoint(config, tensors, "{}", {})
    reference, fast = NumpyEngine(checkpoint), load_engine(checkpoint)
    ids = data[0][0].numpy()
    integers = reference.advance(reference.start(len(ids)), ids)
    assert np.array_equal(integers, fast.advance(fast.start(len(ids)), ids))
    dense = freeze(pruned, [bytes([i]) for i in range(50)], calibration)
    engine = NumpyEngine(FrozenCheckpoint(*dense, "{}", {}))
    nats = torch.from_numpy(engine.advance(engine.start(len(ids)), ids)).double() * np.log(2)
    frozen = torch.log_softmax(nats / (1 << LOGIT_BITS), -1)
    floats = torch.log_softmax(pruned(data[0][0]).double(), -1)
    assert (floats.exp() * (floats - frozen)).sum(-1).mean() / np.log(2) < 0.004  # bits a token
