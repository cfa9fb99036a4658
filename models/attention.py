"""Causal attention over a window, computed in blocks of queries.

Dimensions: B batch, T tokens, H query heads, G key/value heads, R = H / G queries a key, K head_dim,
N blocks of C queries, each of which sees W + C keys.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import ModelConfig
from .quantise import Clip, QuantLinear, fake_quantise_attention

BLOCK = 64  # queries that share their keys


def rotary_frequencies(head_dim: int, period: int) -> Tensor:
    """Whole turns a period, int64 [head_dim / 2]: geometric from about one radian a token down to one."""
    pairs = head_dim // 2
    highest = period / (2 * math.pi)
    exponents = torch.arange(pairs, dtype=torch.float64) / max(1, pairs - 1)
    return torch.round(highest ** (1 - exponents)).clamp_min(1).to(torch.int64)


class Attention(nn.Module):
    """Causal attention over the last `window` tokens.

    A query sees at most `window` keys, so that a block of queries meets only the keys that one of them may
    see: work grows with the window, not with the sequence (Beltagy et al. 2020, arXiv:2004.05150).
    """

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

    def mask(self, blocks: int, block: int, reach: int, device: torch.device) -> Tensor:
        """What is added to scores [N, G or 1, C, R or 1, W + C]: -inf for what a query may not see.

        Key j of block n is token n * block - reach + j.
        """
        H, G = self.config.num_heads, self.config.num_kv_heads
        query, key = torch.arange(block, device=device), torch.arange(reach + block, device=device) - reach
        distance = query[:, None] - key[None, :]
        before = torch.arange(blocks, device=device)[:, None] * block + key < 0  # (N, W + C)
        outside = ((distance < 0) | (distance >= self.config.window))[None] | before[:, None, :]
        outside = outside[:, None, :, None, :]
        if self.config.positions == "relative":
            bias = self.bias[:, distance.clamp(0, self.config.window - 1)]  # (H, C, W + C)
            bias = bias.view(G, H // G, block, reach + block).transpose(1, 2)
            return bias.masked_fill(outside, -math.inf)
        return torch.zeros(outside.shape, device=device).masked_fill(outside, -math.inf)

    def scores(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """(masked scores [B, N, G, C, R, W + C], values [B, N, G, W + C, K])."""
        H, G, K = self.config.num_heads, self.config.num_kv_heads, self.config.head_dim
        B, T, _ = x_BTD.shape
        q, k, v = self.qkv(x_BTD).split((H * K, G * K, G * K), dim=-1)
        q, k, v = q.view(B, T, H, K), k.view(B, T, G, K), v.view(B, T, G, K)
        if self.config.positions == "rotary":
            q, k = self.rotate(q), self.rotate(k)
        q, k, v = self.q_clip(q), self.k_clip(k), self.v_clip(v)
        block, reach = min(BLOCK, T), min(self.config.window, T)
        blocks = -(-T // block)
        missing = blocks * block - T
        q = F.pad(q, (0, 0, 0, 0, 0, missing)).view(B, blocks, block, G, H // G, K).transpose(2, 3)
        q = q.reshape(B, blocks, G, block * (H // G), K)
        k, v = (_windows(x, blocks, block, reach) for x in (k, v))
        scores = (q @ k.transpose(-1, -2)).view(B, blocks, G, block, H // G, reach + block)
        return scores / math.sqrt(K) + self.mask(blocks, block, reach, q.device).to(q.dtype), v

    def map(self, x_BTD: Tensor) -> Tensor:
        """How much of its attention each token gives to which distance, heads averaged, of the float graph.

        Returns:
            float32 [B, T, W] for a window of W tokens, or for T where that is less: distributions, the token
            itself first. What lies before the first token has 0.
        """
        B, T, _ = x_BTD.shape
        scores, _ = self.scores(x_BTD)
        weights_BNCJ = scores.float().softmax(dim=-1).mean(dim=(2, 4))
        block, keys = weights_BNCJ.shape[2:]
        reach = keys - block
        steps = torch.arange(block, device=x_BTD.device)[:, None] + reach
        place = steps - torch.arange(reach, device=x_BTD.device)  # (C, W): key of each distance
        found = weights_BNCJ.gather(-1, place.expand(*weights_BNCJ.shape[:2], -1, -1))
        return found.reshape(B, -1, reach)[:, :T]

    def forward(self, x_BTD: Tensor) -> Tensor:
        H, G, K = self.config.num_heads, self.config.num_kv_heads, self.config.head_dim
        B, T, _ = x_BTD.shape
        scores, v = self.scores(x_BTD)
        blocks, block, keys = scores.shape[1], scores.shape[3], scores.shape[5]
        if self.qkv.quantised:
            weights = torch.exp(scores - scores.detach().amax(dim=-1, keepdim=True))
            weights = fake_quantise_attention(weights)
        else:
            weights = torch.softmax(scores, dim=-1)
        y = weights.view(B, blocks, G, block * (H // G), keys) @ v
        if self.qkv.quantised:
            y = y / weights.sum(dim=-1).view(B, blocks, G, block * (H // G), 1)
        y = y.view(B, blocks, G, block, H // G, K).transpose(2, 3).reshape(B, blocks * block, H * K)
        return self.out(y[:, :T])


def _windows(x_BTGK: Tensor, blocks: int, block: int, reach: int) -> Tensor:
    """What each block of queries sees, the `reach` tokens before it and its own: [B, N, G, W + C, K].

    By slices and not by `Tensor.unfold`, whose gradient torch.compile gets wrong on processors (2.13).
    """
    B, T, G, K = x_BTGK.shape
    before = -(-reach // block)  # blocks that hold them
    padded = F.pad(x_BTGK, (0, 0, 0, 0, before * block, blocks * block - T))
    chunks = padded.view(B, before + blocks, block, G, K)
    windows = torch.cat([chunks[:, first : first + blocks] for first in range(before + 1)], dim=2)
    return windows[:, :, before * block - reach :].transpose(2, 3)
