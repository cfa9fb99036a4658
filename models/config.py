"""The shape of a causal transformer: one typed configuration, checked as a whole."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class ModelConfig:
    """Shape of a model. Multiples of 32 keep every matrix product friendly to int8."""

    d_model: int = 128  # width of the residual stream
    num_layers: int = 3
    num_heads: int = 4  # query heads
    num_kv_heads: int = 1  # key and value heads; must divide num_heads
    head_dim: int = 32
    window: int = 64  # tokens that attention sees, the current one included
    ffn: Literal["relu2", "reglu"] = "relu2"  # squared ReLU, or a product with a ReLU gate
    ffn_dim: int = 512
    positions: Literal["rotary", "relative"] = "rotary"  # integer rotary table, or a bias a distance
    rotary_period: int = 1024  # angles are 2 pi k / period: a power of two, at least the window
    tied: bool = True  # the head shares the embedding's weights

    def problems(self) -> list[str]:
        """Every fault of this configuration, one sentence each."""
        found = [
            f"{name} is {value}, allowed are {low} to {high}"
            for name, value, low, high in (
                ("d_model", self.d_model, 8, 4096),
                ("num_layers", self.num_layers, 1, 64),
                ("num_heads", self.num_heads, 1, 64),
                ("head_dim", self.head_dim, 4, 128),
                ("window", self.window, 2, 512),
                ("ffn_dim", self.ffn_dim, 8, 4096),
            )
            if not low <= value <= high
        ]
        if self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads:
            found.append(f"num_kv_heads is {self.num_kv_heads}, it must divide num_heads = {self.num_heads}")
        if self.num_heads * self.head_dim > 4096:
            found.append(
                f"num_heads x head_dim is {self.num_heads * self.head_dim}, at most 4096 are allowed"
            )
        if self.positions == "rotary":
            period = self.rotary_period
            if period & (period - 1) or not self.window <= period <= 65536:
                found.append(
                    f"rotary_period is {period}, allowed are powers of two from {self.window} to 65536"
                )
            if self.head_dim % 2:
                found.append(f"head_dim is {self.head_dim}, rotary positions need an even one")
        return found

    def macs_per_token(self, vocab_size: int) -> int:
        """Multiply-accumulates to decode one token: trunk, attention over a full window, head."""
        queries = self.num_heads * self.head_dim
        keys = self.num_kv_heads * self.head_dim
        attention = self.d_model * (2 * queries + 2 * keys) + 2 * self.window * queries
        inputs = 2 if self.ffn == "reglu" else 1
        ffn = self.d_model * self.ffn_dim * (inputs + 1)
        return self.num_layers * (attention + ffn) + self.d_model * vocab_size
