"""The range coder in plain Python: the normative twin of the compiled kernels.

A symbol is an interval [cum, cum + weight) of `total` < 2^39. The coder keeps an interval [low, low + span)
of 56-bit numbers, 2^48 < span <= 2^56, as the continuation of the bytes already written; a carry out of
`low` propagates into those bytes. With r = span // total a symbol takes the r * weight numbers from
low + r * cum on, and the last symbol of the alphabet what is left, so that nothing of the interval is lost.
While span <= 2^48 the top byte of `low` is written. Everything fits into signed 64-bit integers.

At the end come the fewest further bytes (0 to 7) such that the number written, continued with zeros, lies in
the final interval. A decoder therefore never needs more than 7 zeros past the end: needing more, or not
having needed every byte, is proof of damage.

After G. N. N. Martin, "Range encoding" (1979), with carries as in M. Schindler's coder (1998).
"""

from collections.abc import Sequence

from .errors import LaconicError

CODE_BITS = 56
TOP_SHIFT = CODE_BITS - 8
SPAN_FULL = 1 << CODE_BITS
SPAN_LOW = 1 << TOP_SHIFT  # the span stays above this
TOTAL_LIMIT = 1 << 39
TAIL = CODE_BITS // 8  # zeros that may be read past the end


def weights_reference(logits: Sequence[int]) -> list[int]:
    """Integer weights of the symbols, from logits in units of 2^-10 bits.

    With d the distance from the largest logit, a weight is 2^22 * 2^-(d / 1024) to within 0.33%: the fraction
    of the power by 1 - x (a - b x), a = 704512 / 2^20 and b = 176 / 2^10, which is exact at both ends.

    Args:
        logits: V integers of 32 bits.

    Returns:
        V integers in 1..2^22.
    """
    top = max(logits)
    weights: list[int] = []
    for logit in logits:
        whole, part = divmod(top - logit, 1024)
        weight = (1 << 22) - (part * (704512 - 176 * part) >> 8)
        weights.append(max(1, weight >> min(whole, 31)))
    return weights


class RangeEncoder:
    """Collects the bytes of a sequence of symbols."""

    def __init__(self) -> None:
        self.low = 0
        self.span = SPAN_FULL
        self.written = bytearray()

    def encode(self, cum: int, weight: int, total: int) -> None:
        """Code the symbol whose interval is [cum, cum + weight) of total < 2^39; weight >= 1."""
        assert 0 <= cum < cum + weight <= total < TOTAL_LIMIT
        r = self.span // total
        self.low += r * cum
        self.span = self.span - r * cum if cum + weight == total else r * weight
        self._carry()
        while self.span <= SPAN_LOW:
            self.written.append(self.low >> TOP_SHIFT)
            self.low = (self.low << 8) & (SPAN_FULL - 1)
            self.span <<= 8

    def _carry(self) -> None:
        if self.low < SPAN_FULL:
            return
        self.low -= SPAN_FULL
        at = len(self.written) - 1
        while self.written[at] == 255:
            self.written[at] = 0
            at -= 1
        self.written[at] += 1

    def finish(self) -> bytes:
        """The coded bytes; the encoder is spent."""
        for count in range(TAIL + 1):
            step = 1 << (CODE_BITS - 8 * count)
            candidate = -(-self.low // step) * step
            if candidate < self.low + self.span:
                self.low = candidate
                self._carry()
                return bytes(self.written) + self.low.to_bytes(TAIL, "big")[:count]
        raise AssertionError("7 bytes name any number of 56 bits")


class RangeDecoder:
    """Reads back what a RangeEncoder wrote, given the same intervals."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.span = SPAN_FULL
        self.offset = 0  # the number read, relative to low: always below span
        for _ in range(TAIL):
            self._read_byte()

    def _read_byte(self) -> None:
        if self.position >= len(self.data) + TAIL:
            raise LaconicError("the coded data ends too early: the file is damaged")
        byte = self.data[self.position] if self.position < len(self.data) else 0
        self.offset = (self.offset << 8) | byte
        self.position += 1

    def decode(self, weights: Sequence[int]) -> int:
        """The next symbol, 0 <= v < len(weights).

        Raises:
            LaconicError: the data ends before the symbol does.
        """
        total = sum(weights)
        r = self.span // total
        target = min(self.offset // r, total - 1)
        symbol, cum = 0, 0
        while cum + weights[symbol] <= target:
            cum += weights[symbol]
            symbol += 1
        weight = weights[symbol]
        self.offset -= r * cum
        self.span = self.span - r * cum if cum + weight == total else r * weight
        while self.span <= SPAN_LOW:
            self._read_byte()
            self.span <<= 8
        return symbol

    def finish(self) -> None:
        """Check that the data ended where the symbols did.

        Raises:
            LaconicError: bytes are left over.
        """
        if self.position < len(self.data):
            raise LaconicError("the coded data goes on after its last symbol: the file is damaged")

    def is_shortest(self) -> bool:
        """Whether the data is, to the byte, what an encoder writes that ends here."""
        low = int.from_bytes(self.data[: self.position].ljust(self.position, b"\0"), "big") - self.offset
        for count in range(TAIL + 1):
            step = 1 << (CODE_BITS - 8 * count)
            candidate = -(-low // step) * step
            if candidate < low + self.span:
                return candidate.to_bytes(self.position, "big")[: self.position - TAIL + count] == self.data
        raise AssertionError("7 bytes name any number of 56 bits")
