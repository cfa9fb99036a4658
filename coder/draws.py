"""Tokens drawn from a prediction in integers: what is drawn is the same on every machine.

A prediction is V integers in units of 2^-10 bits. With d the distance from the largest, 22 * 1024 at most,
and t the temperature in millionths, the weight of a token is as in `docs/format.md` (method 1), at the
distance floor((2 * 10^6 * d + t) / (2 * t)), but 0 where a shift leaves nothing. At temperature 1 these are
the coder's own weights: what is drawn is what a decoder would make of random bits.

Temperature comes first, then top-k, then top-p. Of equal predictions the lower token counts as the likelier.

Random numbers are those of SplitMix64 (`docs/frozen.md`), z being the seed at first. A number below n is
u mod n for the first of them, u, that is less than 2^64 - 2^64 mod n.
"""

from decimal import Decimal, InvalidOperation

import numpy as np
import numpy.typing as npt

from .engines.conformance import SplitMix64
from .errors import LaconicError

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

MILLION = 1_000_000
WEIGHT_BITS = 22  # of the largest weight
SEED_LIMIT = 1 << 64


def millionths(value: object, name: str, most: int) -> int:
    """A number above 0, up to `most`, in units of 10^-6.

    Args:
        value: a number, or its digits; of a float those that Python prints.

    Raises:
        LaconicError: it is not in that range, or has more than six decimals.
    """
    try:
        number = Decimal(str(value))
        if 0 < number <= most and number == (rounded := round(number, 6)):
            return int(rounded.scaleb(6))
    except InvalidOperation:
        pass
    raise LaconicError(f"{name} of {value}: choose a number above 0, up to {most}, of at most six decimals")


def weights(logits: Int32, temperature: int = MILLION) -> Int64:
    """Weights of a prediction int32 [V], at a temperature in millionths; int64 [V], the largest 2^22."""
    distance = np.minimum(int(logits.max()) - logits.astype(np.int64), WEIGHT_BITS << 10)
    if temperature != MILLION:
        distance = (2 * MILLION * distance + temperature) // (2 * temperature)
    part = distance & 1023
    return ((1 << WEIGHT_BITS) - (part * (704512 - 176 * part) >> 8)) >> np.minimum(distance >> 10, 31)


def most_likely(logits: Int32, count: int) -> Int64:
    """The `count` most likely tokens of a prediction int32 [V], in that order; int64 [min(count, V)]."""
    return np.argsort(-logits.astype(np.int64), kind="stable")[:count]


class Sampler:
    """Draws one token after another.

    Args:
        temperature, top_p: in millionths.
        top_k: how many of the most likely tokens may be drawn; None for all.
        seed: 0 to 2^64 - 1.
    """

    def __init__(
        self, temperature: int = MILLION, top_k: int | None = None, top_p: int = MILLION, seed: int = 0
    ) -> None:
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.numbers = SplitMix64(seed)

    def __call__(self, logits: Int32) -> int:
        """A token of a prediction int32 [V]."""
        ends = np.cumsum(self.allowed(logits))
        return int(np.searchsorted(ends, self.below(int(ends[-1])), side="right"))

    def allowed(self, logits: Int32) -> Int64:
        """The weights by which tokens are drawn, int64 [V]; 0 for those that top-k and top-p leave out.

        Top-p keeps the fewest of the most likely tokens that have at least that part of what top-k left.
        """
        found = weights(logits, self.temperature)
        if self.top_k is None and self.top_p == MILLION:
            return found
        ranked = most_likely(logits, self.top_k or len(logits))
        sums = np.cumsum(found[ranked])  # the last below 2^38, so that a million times that is exact
        kept = ranked[: 1 + int(np.searchsorted(sums * MILLION, int(sums[-1]) * self.top_p, side="left"))]
        left = np.zeros_like(found)
        left[kept] = found[kept]
        return left

    def below(self, limit: int) -> int:
        """A random number from 0 to limit - 1, each as likely as the others."""
        while True:
            number = int(self.numbers.draw(1)[0])
            if number < (1 << 64) - (1 << 64) % limit:
                return number % limit
