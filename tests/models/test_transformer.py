import pytest
import torch

from laconic.models.config import ModelConfig
from laconic.models.transformer import Transformer

SHAPES = [
    {},
    {"positions": "relative"},
    {"ffn": "reglu", "tied": False},
    {"num_heads": 6, "num_kv_heads": 3},
]


def small(**changes) -> ModelConfig:
    values = {"d_model": 32, "num_layers": 2, "num_heads": 4, "head_dim": 8, "window": 8, "ffn_dim": 64}
    return ModelConfig(**{**values, **changes})


def stirred(config: ModelConfig, vocab_size: int = 50) -> Transformer:
    """A model whose every layer matters (fresh ones begin as the identity)."""
    torch.manual_seed(0)
    model = Transformer(config, vocab_size)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.mark.parametrize("changes", SHAPES)
@torch.no_grad()
def test_causal_and_windowed(changes):
    model = stirred(small(**changes))
    ids = torch.randint(0, 50, (2, 40))
    logits = model(ids)
    assert logits.shape == (2, 40, 50)
    later = ids.clone()
    later[:, 20] = (later[:, 20] + 1) % 50
    changed = (model(later) - logits).abs().amax(dim=(0, 2)) > 1e-5
    reach = 20 + 2 * (8 - 1)  # two layers see window - 1 tokens back each
    assert not changed[:20].any()
    assert changed[20]
    assert not changed[reach + 1 :].any()


@pytest.mark.parametrize("changes", SHAPES)
@torch.no_grad()
def test_simulated_integers_stay_near_the_float_model(changes):
    from laconic.models.freeze import calibrate

    model = stirred(small(**changes))
    ids = torch.randint(0, 50, (8, 32))
    floats = model(ids)
    calibrate(model, [ids])
    model.simulate_integers()
    simulated = model(ids)
    assert not torch.equal(floats, simulated)
    assert (floats - simulated).std() < 0.1 * floats.std()


def test_simulated_integers_train():
    model = stirred(small())
    from laconic.models.freeze import calibrate

    ids = torch.randint(0, 50, (4, 32))
    calibrate(model, [ids])
    model.train().simulate_integers()
    model(ids).square().mean().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


@pytest.mark.parametrize("quantised", [False, True])
def test_recomputed_activations_change_no_bit_and_are_not_kept(quantised):
    from laconic.models.freeze import calibrate

    ids = torch.randint(0, 50, (4, 32))
    results = []
    for recomputes in (False, True):
        model = stirred(small()).train()
        calibrate(model, [ids])
        model.simulate_integers(quantised)
        for block in model.layers:
            block.recomputes = recomputes
        kept = 0

        def keep(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(ids).logsumexp(-1).mean()
        loss.backward()
        results.append((kept, loss.detach(), [parameter.grad for parameter in model.parameters()]))
    (all_kept, loss, gradients), (few_kept, same_loss, same_gradients) = results
    assert few_kept < 0.3 * all_kept
    assert torch.equal(loss, same_loss)
    assert all(torch.equal(a, b) for a, b in zip(gradients, same_gradients, strict=True))


@torch.no_grad()
def test_rotary_positions_repeat_with_their_period():
    model = stirred(small(rotary_period=8))
    ids = torch.randint(0, 50, (1, 8)).repeat(1, 6)
    logits = model(ids)[0]
    torch.testing.assert_close(logits[32], logits[40])


def test_problems_name_every_fault():
    faults = ModelConfig(d_model=1, window=600, rotary_period=3).problems()
    assert len(faults) == 3
    assert any("window is 600" in fault and "512" in fault for fault in faults)
    assert len(ModelConfig(num_kv_heads=3, rotary_period=1000, positions="rotary").problems()) == 2


def test_work_is_the_sum_of_its_matrices():
    config = small()
    model = Transformer(config, 50)
    matrices = sum(p.numel() for n, p in model.named_parameters() if "blocks" in n)
    attention = config.num_layers * 2 * config.window * config.num_heads * config.head_dim
    assert config.macs_per_token(50) == matrices + attention + 50 * config.d_model
