import math

import pytest
import torch
from test_transformer import small

from laconic.models import attention
from laconic.models.attention import Attention


def dense(layer: Attention, x: torch.Tensor) -> torch.Tensor:
    """The same layer over all pairs of tokens."""
    c = layer.config
    B, T, _ = x.shape
    H, G, K = c.num_heads, c.num_kv_heads, c.head_dim
    q, k, v = layer.qkv(x).split((H * K, G * K, G * K), dim=-1)
    q, k, v = q.view(B, T, H, K), k.view(B, T, G, K), v.view(B, T, G, K)
    if c.positions == "rotary":
        q, k = layer.rotate(q), layer.rotate(k)
    k, v = (t.repeat_interleave(H // G, dim=2) for t in (k, v))
    scores = torch.einsum("bihk,bjhk->bhij", q, k) / math.sqrt(K)
    distance = torch.arange(T)[:, None] - torch.arange(T)[None, :]
    if c.positions == "relative":
        scores = scores + layer.bias[:, distance.clamp(0, c.window - 1)]
    outside = (distance < 0) | (distance >= c.window)
    weights = scores.masked_fill(outside, -math.inf).softmax(-1)
    return layer.out(torch.einsum("bhij,bjhk->bihk", weights, v).reshape(B, T, H * K))


@pytest.mark.parametrize("positions", ["rotary", "relative"])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("window", [2, 8, 31])
def test_blocks_see_what_all_pairs_see(monkeypatch, positions, groups, window):
    monkeypatch.setattr(attention, "BLOCK", 8)
    torch.manual_seed(0)
    layer = Attention(small(positions=positions, num_kv_heads=groups, window=window, rotary_period=64))
    for tokens in (1, 7, 8, 9, 24, 50):
        x = torch.randn(2, tokens, layer.config.d_model)
        torch.testing.assert_close(layer(x), dense(layer, x))
