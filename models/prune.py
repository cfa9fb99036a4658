"""A trained transformer with fewer layers, heads or channels: what matters least goes, and tensors shrink.

A layer is worth what the code length grows by without it. Heads and channels are inputs of the matrix that
follows them: those go whose loss changes its outputs least, and the weights of the others are fitted anew,
which makes good what can be (Kurtić et al. 2023, "ZipLM", arXiv:2302.04089; without gradients, by the second
moments of what passes).

Notation: N outputs, K inputs, in groups of S; I groups; H query heads, G key and value heads.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .config import ModelConfig
from .freeze import Arrays, calibrate
from .loss import sliced_cross_entropy
from .rounding import Array, damped
from .transformer import Transformer

ROUND = 8  # of the groups that are there, one in so many goes before their worth is measured again

Batches = Sequence[tuple[Tensor, Tensor]]
State = dict[str, Tensor]


@torch.no_grad()
def prune(model: Transformer, wanted: ModelConfig, batches: Batches) -> Transformer:
    """A copy with as few layers, query heads and feed-forward channels as `wanted` has, where it has fewer.

    Args:
        model: stays as it is.
        wanted: nothing else of it is looked at; its heads are a multiple of the model's key and value heads.
        batches: (inputs, targets), ids [B, T] each; some ten thousand tokens in all.
    """
    pruned = copy.deepcopy(model)
    while len(pruned.layers) > wanted.num_layers:
        shorter = [_without_layer(pruned, layer) for layer in range(len(pruned.layers))]
        pruned = min(shorter, key=lambda tried: _total_nats(tried, batches))
    if pruned.config.num_heads > wanted.num_heads:
        pruned = _fewer_heads(pruned, wanted.num_heads, batches)
    if pruned.config.ffn_dim > wanted.ffn_dim:
        pruned = _fewer_channels(pruned, wanted.ffn_dim, batches)
    return pruned


def fewer_inputs(
    weight: Array, moment: Array, keep: int, size: int = 1, families: int = 1
) -> tuple[NDArray[np.int64], Array]:
    """The inputs that a matrix keeps, and its weights for them: outputs change by the least squares.

    Args:
        weight: [N, K].
        moment: [K, K], the mean of x x^T over the inputs x.
        keep: how many groups stay.
        size: S, neighbouring inputs that stay or go together.
        families: equal runs of groups, of each of which equally many stay.

    Returns:
        The groups that stay, int64 [keep], ascending; weights [N, keep * S].
    """
    moment = damped(moment)
    groups = np.arange(weight.shape[1]).reshape(families, -1, size)
    while True:
        places = groups.ravel()
        inverse = np.linalg.inv(moment[np.ix_(places, places)])
        fitted = weight @ moment[:, places] @ inverse
        surplus = groups.shape[1] - keep // families
        if not surplus:
            return groups[..., 0].ravel() // size, fitted
        columns = fitted.T.reshape(-1, size, len(weight))  # (I, S, N)
        number = np.arange(len(columns))
        blocks = inverse.reshape(len(columns), size, len(columns), size)[number, :, number, :]  # (I, S, S)
        error = (columns * np.linalg.solve(blocks, columns)).sum(axis=(1, 2)).reshape(families, -1)
        going = min(surplus, max(1, groups.shape[1] // ROUND))
        staying = np.sort(np.argsort(error, axis=1, kind="stable")[:, going:], axis=1)
        groups = np.take_along_axis(groups, staying[..., None], axis=1)


def _made(model: Transformer, state: State, **changes: int) -> Transformer:
    """A model of a changed shape with these weights, in the mode of `model`."""
    made = Transformer(replace(model.config, **changes), model.vocab_size)
    made.load_state_dict(state)
    return made.train(model.training)


def _without_layer(model: Transformer, layer: int) -> Transformer:
    blocks = nn.ModuleList(block for i, block in enumerate(model.blocks) if i != layer)
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("blocks.")}
    state |= {f"blocks.{name}": tensor for name, tensor in blocks.state_dict().items()}
    return _made(model, state, num_layers=len(blocks))


def _total_nats(model: Transformer, batches: Batches) -> float:
    total = 0.0
    for inputs, targets in batches:
        x_BTD, table = model.trunk(inputs)
        total += float(sliced_cross_entropy(x_BTD.flatten(0, 1), table, targets.flatten())) * targets.numel()
    return total


def _moments(model: Transformer, batches: Batches) -> Arrays:
    return calibrate(model, [inputs for inputs, _ in batches], moments=True).moments


def _numpy(weight: Tensor) -> Array:
    return weight.double().numpy()


def _fewer_heads(model: Transformer, keep: int, batches: Batches) -> Transformer:
    H, G, K = model.config.num_heads, model.config.num_kv_heads, model.config.head_dim
    moments, state = _moments(model, batches), model.state_dict()
    for i, block in enumerate(model.layers):
        name = f"blocks.{i}.attention"
        heads, out = fewer_inputs(_numpy(block.attention.out.weight), moments[f"layers.{i}.out"], keep, K, G)
        q, kv = block.attention.qkv.weight.split((H * K, 2 * G * K))
        state[f"{name}.qkv.weight"] = torch.cat((q.view(H, K, -1)[heads].flatten(0, 1), kv))
        state[f"{name}.out.weight"] = torch.from_numpy(out)
        if model.config.positions == "relative":
            state[f"{name}.bias"] = block.attention.bias[heads]
    return _made(model, state, num_heads=keep)


def _fewer_channels(model: Transformer, keep: int, batches: Batches) -> Transformer:
    F, D = model.config.ffn_dim, model.config.d_model
    moments, state = _moments(model, batches), model.state_dict()
    for i, block in enumerate(model.layers):
        channels, down = fewer_inputs(_numpy(block.ffn.down.weight), moments[f"layers.{i}.down"], keep)
        up = block.ffn.up.weight.view(-1, F, D)  # the gates and their values, or the one of them
        state[f"blocks.{i}.ffn.up.weight"] = up[:, channels].flatten(0, 1)
        state[f"blocks.{i}.ffn.down.weight"] = torch.from_numpy(down)
    return _made(model, state, ffn_dim=keep)
