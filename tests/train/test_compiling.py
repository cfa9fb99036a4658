"""What torch.compile makes of a step, beside the step as it was written."""

import pytest
import torch
from test_transformer import small, stirred

from laconic.models.loss import sliced_cross_entropy
from laconic.train.compiling import compile_step
from laconic.train.recipe import TrainingRecipe


@pytest.mark.slow
@pytest.mark.parametrize("recomputes", [False, True])
def test_a_compiled_step_is_the_step_as_it_was_written(recomputes):
    ids = torch.randint(0, 50, (4, 128))
    results = []
    for compiled in (False, True):
        model = stirred(small(window=64, num_layers=1)).train()
        for block in model.layers:
            block.recomputes = recomputes
        work = compile_step(model, TrainingRecipe(compile=compiled))
        x_BTD, table = model.trunk(ids)
        loss = sliced_cross_entropy(x_BTD.flatten(0, 1), table, ids.flatten(), work)
        loss.backward()
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)
