"""Each term that a teacher adds, against its definition and the gradient that autograd finds."""

import math

import pytest
import torch
from test_transformer import small, stirred
from torch.nn import functional as F

from laconic.models import attention, loss
from laconic.models.loss import sliced_loss
from laconic.models.teaching import (
    attention_distance,
    cached_slice,
    hidden_distance,
    mean_log_probs,
    taught_slice,
)
from laconic.models.transformer import rms_norm

N, D, V = 40, 8, 50


def case():
    torch.manual_seed(0)
    x, table = torch.randn(N, D, requires_grad=True), torch.randn(V, D, requires_grad=True)
    return x, table, torch.randint(0, V, (N,))


def plain(logits, targets, p, weight, temperature):
    """(weighted sum, text, teacher): the teacher's part over all tokens, p [N, V] at the temperature."""
    q = torch.softmax(logits / temperature, -1)
    teacher = temperature**2 * (torch.xlogy(p, p) - p * q.log()).sum(-1).mean()
    text = F.cross_entropy(logits, targets)
    return torch.stack(((1 - weight) * text + weight * teacher, text, teacher))


def check(found, expected, x, table):
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(3 * expected[0], (x, table))
    for got, want in zip(torch.autograd.grad(3 * found[0], (x, table)), wanted, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("count", [1, 3])
def test_teachers_that_are_there(monkeypatch, temperature, count):
    monkeypatch.setattr(loss, "SLICE", 16)
    x, table, targets = case()
    teachers = tuple(2 * torch.randn(N, V) for _ in range(count))
    p = torch.stack([torch.softmax(t / temperature, -1) for t in teachers]).mean(0)
    torch.testing.assert_close(mean_log_probs(teachers, temperature).exp(), p)

    def work(logits, targets, *theirs):
        return taught_slice(logits, targets, theirs, torch.tensor(0.3), temperature)

    check(
        sliced_loss(x, table, (targets, *teachers), work),
        plain(x @ table.T, targets, p, 0.3, temperature),
        x,
        table,
    )


def test_the_mean_of_teachers_is_never_longer_than_their_mean_length():
    _, _, targets = case()
    teachers = [3 * torch.randn(N, V) for _ in range(4)]
    each = torch.stack([F.cross_entropy(t, targets) for t in teachers])
    assert F.nll_loss(mean_log_probs(teachers, 1.0), targets) <= each.mean()


def cached(p, top_k):
    top = p.topk(top_k)
    rest = (1 - top.values.sum(-1, keepdim=True)).clamp_min(1e-13)
    return top.indices, torch.cat((top.values, rest), -1).log()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("top_k", [1, 7, V])
def test_cached_predictions(monkeypatch, temperature, top_k):
    """k + 1 outcomes; with k = V that is all of it."""
    monkeypatch.setattr(loss, "SLICE", 16)
    x, table, targets = case()
    p = torch.softmax(2 * torch.randn(N, V), -1)
    ids, log_p = cached(p, top_k)

    def work(*slices):
        return cached_slice(*slices, torch.tensor(0.3), temperature)

    found = sliced_loss(x, table, (targets, ids, log_p), work)
    logits = x @ table.T
    q = torch.softmax(logits / temperature, -1).gather(1, ids)
    if top_k < V:
        q = torch.cat((q, 1 - q.sum(-1, keepdim=True)), -1)
        teacher = temperature**2 * (log_p.exp() * (log_p - q.log())).sum(-1).mean()
        text = F.cross_entropy(logits, targets)
        expected = torch.stack((0.7 * text + 0.3 * teacher, text, teacher))
        assert teacher < plain(logits, targets, p, 0.3, temperature)[2]  # outcomes that were put together
    else:
        expected = plain(logits, targets, p, 0.3, temperature)
    check(found, expected, x, table)


def test_a_student_that_leaves_nothing_to_other_tokens_gets_finite_gradients():
    logits = torch.zeros(1, V)
    logits[0, 3] = 80.0
    log_p = torch.tensor([[0.5, 0.5]]).log()
    sums, gradient = cached_slice(
        logits, torch.tensor([3]), torch.tensor([[3]]), log_p, torch.tensor(0.5), 1.0
    )
    assert torch.isfinite(sums).all()
    assert torch.isfinite(gradient).all()


def test_hidden_rows_are_compared_by_direction():
    a, b = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    cosine = F.cosine_similarity(a, b, dim=-1)
    torch.testing.assert_close(hidden_distance(a, b), (2 - 2 * cosine).mean())
    torch.testing.assert_close(hidden_distance(a, 7 * a), torch.tensor(0.0))


@pytest.mark.parametrize("changes", [{}, {"positions": "relative", "num_kv_heads": 2}])
@pytest.mark.parametrize("tokens", [5, 8, 20])
@torch.no_grad()
def test_maps_are_what_attention_does(monkeypatch, changes, tokens):
    """With values that name their token, attention's output is its map."""
    monkeypatch.setattr(attention, "BLOCK", 8)
    layer = stirred(small(**changes)).layers[0].attention
    x = rms_norm(torch.randn(2, tokens, 32))
    map_BTW = layer.map(x)
    scores, _ = layer.scores(x)
    values = F.pad(torch.eye(tokens), (0, 0, min(8, tokens), -tokens % 8))
    keys, block = scores.shape[-1], scores.shape[3]
    expected = torch.zeros(2, tokens, tokens)
    for t in range(tokens):
        n, i = divmod(t, block)
        weights = scores[:, n, :, i].softmax(-1).mean((1, 2))
        expected[:, t] = weights @ values[n * block : n * block + keys]
    assert map_BTW.shape == (2, tokens, min(8, tokens))
    torch.testing.assert_close(map_BTW.sum(-1), torch.ones(2, tokens))
    for t in range(tokens):
        for distance in range(min(8, tokens)):
            there = expected[:, t, t - distance] if distance <= t else torch.zeros(2)
            torch.testing.assert_close(map_BTW[:, t, distance], there)


def test_attention_is_compared_over_the_distances_that_both_see():
    student, teacher = (torch.softmax(torch.randn(2, 6, w), -1) for w in (4, 9))
    p = teacher[..., :4] / teacher[..., :4].sum(-1, keepdim=True)
    expected = (p * (p / student).log()).sum(-1).mean()
    torch.testing.assert_close(attention_distance(student, teacher), expected)
    assert attention_distance(student, student).item() == pytest.approx(0, abs=1e-6)
    nothing = torch.tensor([[[1.0, 0.0, 0.0]]])
    assert math.isfinite(attention_distance(nothing, nothing.flip(-1)))
