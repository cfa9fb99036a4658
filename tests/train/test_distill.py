import pytest
import torch
from test_transformer import small

from laconic.coder.errors import LaconicError
from laconic.train.distill import DistillationModule, teacher_code_length
from laconic.train.language import LanguageModule
from laconic.train.recipe import DistillationRecipe, TrainingRecipe


def module(vocabulary="a" * 64, **changes) -> LanguageModule:
    torch.manual_seed(1)
    return LanguageModule(small(**changes), [1] * 50, TrainingRecipe(), vocabulary)


def test_teacher_code_length_is_zero_at_the_teacher_and_positive_elsewhere():
    logits = torch.randn(2, 3, 50)
    assert teacher_code_length(logits, logits, 2.0).item() == pytest.approx(0, abs=1e-6)
    assert teacher_code_length(torch.randn(2, 3, 50), logits, 1.0) > 0.1


def test_forward_kl_equals_its_definition():
    student, teacher = torch.randn(1, 4, 50), torch.randn(1, 4, 50)
    p, q = torch.softmax(teacher / 2, -1), torch.softmax(student / 2, -1)
    expected = 4 * (p * (p.log() - q.log())).sum(-1).mean()
    torch.testing.assert_close(teacher_code_length(student, teacher, 2.0), expected)


def test_the_teacher_may_differ_in_shape_is_frozen_and_is_not_saved():
    teacher = module(d_model=48, num_layers=3)
    distillation = DistillationModule(module(), teacher, DistillationRecipe(weight=0.5))
    distillation.log = lambda *_: None
    inputs, targets = torch.randint(0, 51, (2, 16)), torch.randint(0, 50, (2, 16))
    loss, nats = distillation.loss(inputs, targets)
    loss.backward()
    assert all(p.grad is None for p in teacher.transformer.parameters())
    assert distillation.transformer.embed.weight.grad.abs().sum() > 0
    assert not any("teacher" in name for name in distillation.state_dict())
    with torch.no_grad():
        logits = distillation(inputs)
        expected = 0.5 * nats + 0.5 * teacher_code_length(logits, teacher.transformer(inputs), 1.0)
    torch.testing.assert_close(loss.detach(), expected)


def test_another_tokenizer_is_refused():
    with pytest.raises(LaconicError, match="tokenizer"):
        DistillationModule(module(), module("b" * 64), DistillationRecipe())
