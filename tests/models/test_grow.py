import pytest
import torch
from test_transformer import SHAPES, small, stirred

from laconic.coder.errors import LaconicError
from laconic.models.grow import grow

IDS = torch.arange(80).view(2, 40) % 50


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("more", [0, 1, 3])
@torch.no_grad()
def test_a_deeper_model_predicts_the_same(changes, more):
    model = stirred(small(**changes))
    config = model.config
    grown = grow(model, config.num_layers + more, config.window)
    assert len(grown.layers) == grown.config.num_layers == config.num_layers + more
    torch.testing.assert_close(grown(IDS), model(IDS), atol=0, rtol=0)
    assert grown.embed.weight.data_ptr() != model.embed.weight.data_ptr()


def test_added_blocks_stand_between_the_old_and_learn():
    model = stirred(small(num_layers=2))
    grown = grow(model, 5, model.config.window)
    silent = [bool((block.ffn.down.weight == 0).all()) for block in grown.layers]
    assert silent == [False, True, True, False, True]
    torch.testing.assert_close(grown.layers[4].ffn.up.weight, model.layers[1].ffn.up.weight)
    grown(IDS).logsumexp(-1).sum().backward()
    for block in grown.layers:
        assert block.ffn.down.weight.grad.abs().max() > 0
        assert block.attention.out.weight.grad.abs().max() > 0


@torch.no_grad()
def test_within_the_old_window_a_longer_one_changes_nothing():
    model = stirred(small(window=16))
    grown = grow(model, model.config.num_layers, 32)
    assert grown.config.window == 32
    torch.testing.assert_close(grown(IDS)[:, :16], model(IDS)[:, :16], atol=1e-5, rtol=1e-5)
    assert (grown(IDS)[:, 20:] - model(IDS)[:, 20:]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "layers", "window", "words"),
    [
        ({"num_layers": 2}, 1, 16, "1 layers and a window of 16"),
        ({"num_layers": 2}, 2, 8, "a window of 8 tokens are less"),
        ({"positions": "relative"}, 2, 32, "keep the window"),
    ],
)
def test_what_cannot_be_grown_to_is_refused(changes, layers, window, words):
    with pytest.raises(LaconicError, match=words):
        grow(stirred(small(window=16, **changes)), layers, window)
