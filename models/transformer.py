"""The causal transformer.

Notable features:
- RMSNorm without gains, on the embedding and before each block (Zhang & Sennrich 2019, arXiv:1910.07467)
- rotary positions on a table of fixed period, or a learned bias a distance
- grouped queries (Ainslie et al. 2023, arXiv:2305.13245), one key and value head in the small tiers
- a fixed attention window, so that a rolling cache and a masked batch compute the same
- squared ReLU (So et al. 2021, arXiv:2109.08668) or ReGLU (Shazeer 2020, arXiv:2002.05202)
- tied or untied head, no biases
- every layer can simulate the integer graph that it will be frozen into

Dimensions: B batch, T tokens, D d_model, H query heads, G key/value heads, K head_dim, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .attention import Attention
from .config import ModelConfig
from .quantise import INT8_MAX, Clip, QuantLinear, fake_quantise_rows

NORM_EPSILON = 1e-6


def rms_norm(x: Tensor) -> Tensor:
    """Rows of unit root mean square."""
    return F.rms_norm(x, (x.shape[-1],), eps=NORM_EPSILON)


class FeedForward(nn.Module):
    """Two linear layers around a squared ReLU, or around a product with a ReLU gate."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated = config.ffn == "reglu"
        self.up = QuantLinear(config.d_model, config.ffn_dim * (2 if self.gated else 1))
        self.down = QuantLinear(config.ffn_dim, config.d_model)

    def forward(self, x_BTD: Tensor) -> Tensor:
        hidden = self.up(x_BTD)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            return self.down(F.relu(gate) * value)
        return self.down(F.relu(hidden).square())


class Block(nn.Module):
    """Attention and feed-forward, each on a normalised copy of the residual stream.

    Attributes:
        recomputes: whether its activations are not kept for the way back, but computed again from its input
            (Chen et al. 2016, arXiv:1604.06174): the same numbers in less memory and more time.
    """

    norm: Callable[[Tensor], Tensor] = staticmethod(rms_norm)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.ffn = FeedForward(config)
        self.recomputes = False

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.recomputes and torch.is_grad_enabled():
            return checkpoint(self._residual, x_BTD, use_reentrant=False, preserve_rng_state=False)
        return self._residual(x_BTD)

    def _residual(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(self.norm(x_BTD))
        return x_BTD + self.ffn(self.norm(x_BTD))


class Transformer(nn.Module):
    """Token ids to logits of the next token.

    The input vocabulary has one id more than the output's: `begin_id` = V, which starts every stream.
    """

    norm: Callable[[Tensor], Tensor] = staticmethod(rms_norm)

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size, self.begin_id = config, vocab_size, vocab_size
        self.embed = nn.Embedding(vocab_size + 1, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head = None if config.tied else QuantLinear(config.d_model, vocab_size)
        self.quantised, self.table_levels = False, INT8_MAX
        self.init_weights()

    def init_weights(self) -> None:
        """All initialisation.

        embedding          normal, std 0.05 (normalised on input, so only the tied head sees the scale)
        qkv, up            uniform, std 1 / sqrt(fan in)
        out, down          zero: every block begins as the identity
        untied head        normal, std 0.02
        """
        nn.init.normal_(self.embed.weight, std=0.05)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)
        for block in self.layers:
            for layer in (block.attention.qkv, block.ffn.up):
                bound = math.sqrt(3.0 / layer.in_features)
                nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(block.attention.out.weight)
            nn.init.zeros_(block.ffn.down.weight)

    @property
    def layers(self) -> list[Block]:
        """The blocks, with their type."""
        return cast("list[Block]", list(self.blocks))  # or what FSDP wrapped them in, with their attributes

    def simulate_integers(self, enabled: bool = True) -> None:
        """Switch the simulation of the integer graph in every layer (quantisation-aware training)."""
        self.quantised = enabled
        for module in self.modules():
            if isinstance(module, (QuantLinear, Clip)):
                module.quantised = enabled

    def observe_ranges(self, enabled: bool = True) -> None:
        """Let every static range follow the activations that pass."""
        for module in self.modules():
            if isinstance(module, Clip):
                module.observing = enabled

    def trunk(self, ids_BT: Tensor, entering: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """ids [B, T] in 0..V -> (last rows [B, T, D], head [V, D]); the logits are their product.

        What enters each block, [B, T, D], is added to the list, where one is given.
        """
        table = self._table(self.embed.weight)
        x_BTD = rms_norm(F.embedding(ids_BT, table))
        for block in self.blocks:
            if entering is not None:
                entering.append(x_BTD)
            x_BTD = block(x_BTD)
        x_BTD = self.norm(x_BTD)
        if self.quantised:
            x_BTD = fake_quantise_rows(x_BTD)
        if self.head is None:
            return x_BTD, table[: self.vocab_size]
        return x_BTD, self._table(self.head.weight)

    def _table(self, weight: Tensor) -> Tensor:
        """The rows of embedding or head, rounded to `table_levels` where integers are simulated."""
        return fake_quantise_rows(weight, self.table_levels) if self.quantised else weight

    def forward(self, ids_BT: Tensor) -> Tensor:
        """ids [B, T] in 0..V -> logits [B, T, V] in nats."""
        return F.linear(*self.trunk(ids_BT))
