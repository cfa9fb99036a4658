"""The shape of a causal transformer: one typed configuration, checked as a whole."""

from dataclasses import asdict, dataclass
from typing import Literal

from ..coder.graph import FrozenConfig


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

    def frozen(self, vocab_size: int) -> FrozenConfig:
        """The shape that this model freezes into."""
        return FrozenConfig(vocab_size=vocab_size, **asdict(self))

    def problems(self) -> list[str]:
        """Every fault of this configuration, one sentence each: what could not be frozen is not trained."""
        return self.frozen(256).problems()

    def macs_per_token(self, vocab_size: int) -> int:
        """Multiply-accumulates to decode one token: trunk, attention over a full window, head."""
        return self.frozen(vocab_size).macs_per_token()
