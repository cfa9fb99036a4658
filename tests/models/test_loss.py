import pytest
import torch
from torch.nn import functional as F

from laconic.models import loss
from laconic.models.loss import sliced_cross_entropy


def case(tokens, requires_grad=True):
    torch.manual_seed(0)
    x = torch.randn(tokens, 8, requires_grad=requires_grad)
    table = torch.randn(50, 8, requires_grad=requires_grad)
    return x, table, torch.randint(0, 50, (tokens,))


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 70])
def test_value_and_gradients_are_those_of_the_whole(monkeypatch, tokens):
    monkeypatch.setattr(loss, "SLICE", 16)
    x, table, targets = case(tokens)
    expected = F.cross_entropy(x @ table.T, targets)
    gradients = torch.autograd.grad(3 * expected, (x, table))
    nats = sliced_cross_entropy(x, table, targets)
    torch.testing.assert_close(nats, expected)
    for found, wanted in zip(torch.autograd.grad(3 * nats, (x, table)), gradients, strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_frozen_table_gets_no_gradient_and_the_rows_theirs():
    x, table, targets = case(20)
    (expected,) = torch.autograd.grad(F.cross_entropy(x @ table.T, targets), x)
    sliced_cross_entropy(x, table.detach(), targets).backward()
    torch.testing.assert_close(x.grad, expected)


def test_without_gradients_none_are_made():
    x, table, targets = case(20)
    with torch.no_grad():
        nats = sliced_cross_entropy(x, table, targets)
    assert not nats.requires_grad
    torch.testing.assert_close(nats, F.cross_entropy(x @ table.T, targets).detach())


def test_under_autocast_products_are_bfloat16_and_the_sum_is_not():
    x, table, targets = case(64)
    with torch.autocast("cpu", torch.bfloat16):
        nats = sliced_cross_entropy(x, table, targets)
    assert nats.dtype == torch.float32
    assert nats.item() == pytest.approx(F.cross_entropy(x @ table.T, targets).item(), rel=0.01)
    nats.backward()
    assert x.grad.dtype == table.grad.dtype == torch.float32


def test_extreme_logits_stay_finite():
    x = torch.tensor([[1e4, -1e4]], requires_grad=True)
    nats = sliced_cross_entropy(x, torch.eye(2), torch.tensor([1]))
    nats.backward()
    assert nats.item() == 2e4
    assert torch.isfinite(x.grad).all()
