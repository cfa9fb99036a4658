"""From a trained transformer to a deeper one that predicts the same, and sees further.

A model that grows late in its training reaches more with the same computing than one that was large from the
start: Du et al. 2024 (arXiv:2405.15319) compare the ways.
"""

from dataclasses import replace

import torch

from ..coder.errors import LaconicError
from .transformer import Transformer


@torch.no_grad()
def grow(model: Transformer, num_layers: int, window: int) -> Transformer:
    """A transformer of more layers and a longer window that begins with what `model` has learned.

    Blocks are added evenly, each a copy of the one before it whose output matrices are zero: it changes
    nothing until it learns, and begins with queries, keys and channels that are of use. A longer window shows
    tokens that were hidden, and until it has learned to use them predicts worse (LOG.md has by how much).

    Raises:
        LaconicError: either is less than the model has, or the window grows with a learned bias a distance.
    """
    config = model.config
    if num_layers < config.num_layers or window < config.window:
        raise LaconicError(
            f"{num_layers} layers and a window of {window} tokens are less than the {config.num_layers} and "
            f"{config.window} that are there: grow to at least these"
        )
    if window != config.window and config.positions == "relative":
        raise LaconicError(
            f"a window of {window} tokens in place of {config.window}: relative positions have a bias for "
            "each distance, which longer ones lack; keep the window"
        )
    grown = Transformer(replace(config, num_layers=num_layers, window=window), model.vocab_size)
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith("blocks.")}
    grown.load_state_dict(weights, strict=False)
    sources = [i * config.num_layers // num_layers for i in range(num_layers)]
    for i, source in enumerate(sources):
        block = grown.layers[i]
        block.load_state_dict(model.layers[source].state_dict())
        if i and sources[i - 1] == source:
            block.attention.out.weight.zero_()
            block.ffn.down.weight.zero_()
    return grown.train(model.training)
