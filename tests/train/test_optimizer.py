import copy

import pytest
import torch
from test_transformer import small, stirred

from laconic.train.optimizer import (
    MuonAdamW,
    build_optimizer,
    has_bfloat16,
    orthogonalised,
    parameter_groups,
)
from laconic.train.recipe import TrainingRecipe


@pytest.mark.parametrize("shape", [(32, 32), (64, 16), (16, 64), (1, 8)])
def test_orthogonalised_brings_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert torch.isfinite(orthogonalised(torch.zeros(shape))).all()


def test_bfloat16_that_a_gpu_emulates_does_not_count(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not has_bfloat16.__wrapped__(torch.device("cuda"))


def test_groups_hold_every_parameter_once_and_muon_takes_only_matrices_of_blocks():
    model = stirred(small(positions="relative", tied=False))
    for optimizer in ("muon", "adamw"):
        groups = parameter_groups(model, TrainingRecipe(optimizer=optimizer))
        held = [p for group in groups for p in group["params"]]
        assert len(held) == len({id(p) for p in held}) == len(list(model.parameters()))
    names = {id(p): name for name, p in model.named_parameters()}
    muon = [group for group in parameter_groups(model, TrainingRecipe()) if group["kind"] == "muon"]
    taken = {names[id(p)] for group in muon for p in group["params"]}
    assert taken == {n for n, p in model.named_parameters() if n.startswith("blocks") and p.ndim == 2} - {
        n for n in names.values() if n.endswith("bias")
    }


def test_adamw_is_that_of_torch():
    torch.manual_seed(0)
    ours = [torch.randn(5, 3, requires_grad=True)]
    theirs = [ours[0].detach().clone().requires_grad_()]
    kept = {"lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.97)}
    a = MuonAdamW([{"params": ours, "kind": "adamw", **kept}])
    b = torch.optim.AdamW(theirs, **kept)
    for _ in range(20):
        gradient = torch.randn(5, 3)
        ours[0].grad, theirs[0].grad = gradient.clone(), gradient.clone()
        a.step()
        b.step()
    torch.testing.assert_close(ours[0], theirs[0])


def test_a_muon_step_has_the_same_size_whatever_the_gradient_s():
    for factor in (1e-3, 1e3):
        torch.manual_seed(0)
        weight = torch.zeros(64, 16, requires_grad=True)
        weight.grad = torch.randn(64, 16) * factor
        groups = {"kind": "muon", "lr": 0.1, "weight_decay": 0.0, "momentum": 0.9}
        MuonAdamW([{"params": [weight], **groups}]).step()
        values = torch.linalg.svdvals(weight.detach())
        assert values.min() > 0.1  # 0.1 times 2, for four rows a column
    assert values.max() < 0.26


def test_a_saved_state_goes_on_as_if_never_interrupted():
    ids = torch.randint(0, 50, (4, 16))

    def steps(model, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            model(ids).logsumexp(-1).mean().backward()
            optimizer.step()

    model = stirred(small())
    optimizer = build_optimizer(model, TrainingRecipe())
    steps(model, optimizer, 3)
    resumed = copy.deepcopy(model)
    again = build_optimizer(resumed, TrainingRecipe())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(model, optimizer, 3)
    steps(resumed, again, 3)
    for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_an_anchor_holds_weights_near_where_they_were_and_is_kept_with_the_state(optimizer):
    recipe = TrainingRecipe(optimizer=optimizer, weight_decay=0.0)
    ids = torch.randint(0, 50, (4, 16))

    def steps(model, adapting, count):
        for _ in range(count):
            adapting.zero_grad()
            model(ids).logsumexp(-1).mean().backward()
            adapting.step()

    def distance(model):
        pairs = zip(model.parameters(), stirred(small()).parameters(), strict=True)
        return sum(float((a - b).detach().square().sum()) for a, b in pairs) ** 0.5

    models = [stirred(small()) for _ in range(3)]
    adapting = [
        build_optimizer(model, recipe, anchor) for model, anchor in zip(models, (0, 20, 20), strict=True)
    ]
    for model, each in zip(models, adapting, strict=True):
        steps(model, each, 20)
    assert 0 < distance(models[1]) < 0.6 * distance(models[0])
    again = build_optimizer(models[2], recipe, 20)
    again.load_state_dict(copy.deepcopy(adapting[2].state_dict()))
    steps(models[1], adapting[1], 5)
    steps(models[2], again, 5)
    for a, b in zip(models[1].parameters(), models[2].parameters(), strict=True):
        assert torch.equal(a, b)
