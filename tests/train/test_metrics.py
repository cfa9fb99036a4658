import math

import pytest
import torch
from test_transformer import SHAPES, small, stirred

from laconic.train.metrics import BitsPerByte
from laconic.train.optimizer import learning_rate_factor, parameter_groups
from laconic.train.recipe import TrainingRecipe


def test_bits_per_byte_is_a_ratio_of_sums():
    metric = BitsPerByte()
    metric.update(torch.tensor(10 * math.log(2)), torch.tensor([3, 2]))
    metric.update(torch.tensor(30 * math.log(2)), torch.tensor([15]))
    assert metric.compute().dtype == torch.float64
    assert metric.compute().item() == pytest.approx(2.0, abs=1e-7)


def test_bits_per_byte_keeps_small_parts_of_large_sums():
    metric = BitsPerByte()
    metric.update(torch.tensor(2.0**30), torch.tensor([2**30]))
    for _ in range(1000):
        metric.update(torch.tensor(0.01), torch.tensor([0]))
    assert metric.total_nats.item() - 2.0**30 > 9.99


def test_schedule_warms_up_stays_and_falls():
    recipe = TrainingRecipe(warmup_share=0.1, warmdown_share=0.5, final_learning_rate=0.2)
    factors = [learning_rate_factor(p, recipe) for p in (0.0, 0.05, 0.1, 0.5, 0.75, 1.0, 1.5)]
    assert factors == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.6, 0.2, 0.2])


def test_every_parameter_is_in_one_group():
    recipe = TrainingRecipe()
    for changes in SHAPES:
        model = stirred(small(**changes))
        decayed, plain = (group["params"] for group in parameter_groups(model, recipe))
        assert len(decayed) == 8
        assert {id(p) for p in decayed} | {id(p) for p in plain} == {id(p) for p in model.parameters()}
        assert not {id(p) for p in decayed} & {id(p) for p in plain}
