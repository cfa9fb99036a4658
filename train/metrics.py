"""Bits per byte: a ratio of two sums, kept in float64, reduced apart and divided once."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric


class BitsPerByte(Metric):
    """Code length of tokens in bits, over the bytes they stand for."""

    full_state_update = False
    higher_is_better = False

    total_nats: Tensor
    total_bytes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total_nats", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total_bytes", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, nats: Tensor, num_bytes: Tensor) -> None:
        """Add the summed code length of some tokens, in nats, and the number of their bytes."""
        self.total_nats += nats.detach().double().sum()
        self.total_bytes += num_bytes.detach().double().sum()

    def compute(self) -> Tensor:
        """Bits per byte of all that was added; NaN where nothing was."""
        return self.total_nats / math.log(2) / self.total_bytes
