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

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ModelConfig
from .quantise import Clip, QuantLinear, fake_quantise_attention, fake_quantise_rows

NORM_EPSILON = 1e-6


def rotary_frequencies(head_dim: int, period: int) -> Tensor:
    """Whole turns a period, int64 [head_dim / 2]: geometric from about one radian a token down to one."""
    pairs = head_dim // 2
    highest = period / (2 * math.pi)
    exponents = torch.arange(pairs, dtype=torch.float64) / max(1, pairs - 1)
    return torch.round(highest ** (1 - exponents)).clamp_min(1).to(torch.int64)


def rms_norm(x: Tensor) -> Tensor:
    """Rows of unit root mean square."""
    return F.rms_norm(x, (x.shape[-1],), eps=NORM_EPSILON)


class Attention(nn.Module):
    """Causal attention over the last `window` tokens."""

    turns: Tensor  # whole turns a period of each pair; with rotary positions only

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        H, G, K = config.num_heads, config.num_kv_heads, config.head_dim
        self.qkv = QuantLinear(config.d_model, (H + 2 * G) * K)
        self.out = QuantLinear(H * K, config.d_model)
        self.q_clip, self.k_clip, self.v_clip = Clip(), Clip(), Clip()
        if config.positions == "relative":
            distances = torch.arange(config.window, dtype=torch.float32)
            slopes = 2.0 ** -(1 + 7 * torch.arange(H, dtype=torch.float32) / max(1, H - 1))
            self.bias = nn.Parameter(-slopes[:, None] * distances)  # (H, window), as in ALiBi to begin with
        else:
            turns = rotary_frequencies(K, config.rotary_period)
            self.register_buffer("turns", turns, persistent=False)

    def rotate(self, x_BTHK: Tensor) -> Tensor:
        """Rotate pairs (i, i + K/2) by the position's angles."""
        T = x_BTHK.shape[1]
        positions = torch.arange(T, device=x_BTHK.device) % self.config.rotary_period
        steps = (positions[:, None] * self.turns) % self.config.rotary_period  # (T, K/2)
        angles = steps.float() * (2 * math.pi / self.config.rotary_period)
        cos, sin = angles.cos()[:, None, :], angles.sin()[:, None, :]
        a, b = x_BTHK.float().chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x_BTHK.dtype)

    def mask(self, T: int, device: torch.device) -> Tensor:
        """Additive (T, T), or (H, T, T) with relative positions: -inf outside the window."""
        index = torch.arange(T, device=device)
        distance = index[:, None] - index[None, :]
        outside = (distance < 0) | (distance >= self.config.window)
        if self.config.positions == "relative":
            bias = self.bias[:, distance.clamp(0, self.config.window - 1)]
            return bias.masked_fill(outside, -math.inf)
        return torch.zeros(T, T, device=device).masked_fill(outside, -math.inf)

    def forward(self, x_BTD: Tensor) -> Tensor:
        H, G, K = self.config.num_heads, self.config.num_kv_heads, self.config.head_dim
        B, T, _ = x_BTD.shape
        q, k, v = self.qkv(x_BTD).split((H * K, G * K, G * K), dim=-1)
        q, k, v = q.view(B, T, H, K), k.view(B, T, G, K), v.view(B, T, G, K)
        if self.config.positions == "rotary":
            q, k = self.rotate(q), self.rotate(k)
        q, k, v = self.q_clip(q), self.k_clip(k), self.v_clip(v)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # (B, heads, T, K)
        k, v = (t.repeat_interleave(H // G, dim=1) for t in (k, v))
        mask = self.mask(T, x_BTD.device).to(q.dtype)
        if self.qkv.quantised:
            y = self._quantised_attention(q, k, v, mask)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(B, T, H * K))

    @staticmethod
    def _quantised_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + mask
        weights = torch.exp(scores - scores.detach().amax(dim=-1, keepdim=True))
        weights = fake_quantise_attention(weights)
        return (weights @ v) / weights.sum(dim=-1, keepdim=True)


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
    """Attention and feed-forward, each on a normalised copy of the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.ffn = FeedForward(config)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attention(rms_norm(x_BTD))
        return x_BTD + self.ffn(rms_norm(x_BTD))


class Transformer(nn.Module):
    """Token ids to logits of the next token.

    The input vocabulary has one id more than the output's: `begin_id` = V, which starts every stream.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size, self.begin_id = config, vocab_size, vocab_size
        self.embed = nn.Embedding(vocab_size + 1, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head = None if config.tied else QuantLinear(config.d_model, vocab_size)
        self.quantised = False
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
        return [block for block in self.blocks if isinstance(block, Block)]

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

    def forward(self, ids_BT: Tensor) -> Tensor:
        """ids [B, T] in 0..V -> logits [B, T, V] in nats."""
        table = fake_quantise_rows(self.embed.weight) if self.quantised else self.embed.weight
        x_BTD = rms_norm(F.embedding(ids_BT, table))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        x_BTD = rms_norm(x_BTD)
        if self.head is not None:
            return self.head(x_BTD)
        if self.quantised:
            x_BTD = fake_quantise_rows(x_BTD)
        return F.linear(x_BTD, table[: self.vocab_size])
