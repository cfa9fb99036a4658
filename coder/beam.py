"""Beam search: the continuation of the least code length, as far as a beam of some width sees.

Code lengths are in units of 2^-10 bits: of a token, log2(total) - log2(weight), by the weights of
`docs/format.md` and the logarithm of `docs/mixing.md`. They are sums of integers, the same everywhere.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from .draws import Int32, most_likely, weights
from .generate import Request, begin
from .mixing.tables import log2

if TYPE_CHECKING:
    from .engine import BranchingEngine
    from .model import Model


@dataclass(frozen=True)
class Continuation:
    """What may come after a prompt.

    Attributes:
        code_length: of its tokens, given the prompt, in units of 2^-10 bits.
        text: their bytes.
        tokens: how many, beyond the prompt's.
        last: the last of them; -1 before there is one.
    """

    code_length: int
    text: bytes
    tokens: int
    last: int


def search(prompt: bytes, model: "Model", request: Request, width: int) -> list[Continuation]:
    """The best continuations, `width` at most, the least code length first; of equals what was ahead.

    Each step extends every continuation that is not long enough by its `width` most likely tokens, and keeps
    the best of all. One that is long enough costs nothing more. Two may be the same text in other tokens.
    """
    engine, token_bytes = cast("BranchingEngine", model.engine), model.checkpoint.token_bytes
    start = begin(prompt, model)
    state, logits, first, held = (
        start.state,
        start.logits[None, start.first : start.last],
        start.first,
        start.held,
    )
    beam = [Continuation(0, b"", -1 if prompt else 0, -1)]  # the token taken back is one of the prompt's
    rows = {0: 0}  # place in the beam of those that go on -> row of state and logits
    while rows:
        found = [(one.code_length, place, 0, -1) for place, one in enumerate(beam) if place not in rows]
        for place, row in rows.items():
            costs = _cheapest(logits[row], width)
            length = beam[place].code_length
            found += [(length + cost, place, rank, first + at) for rank, (at, cost) in enumerate(costs)]
        found = sorted(found)[:width]

        extended: list[Continuation] = []
        for length, place, _, token in found:
            one = beam[place]
            if token >= 0:
                text = (one.text + token_bytes[token][len(held) :])[: request.num_bytes]
                one = Continuation(length, text, one.tokens + 1, token)
            extended.append(one)
        going = [place for place, one in enumerate(extended) if not request.enough(one.tokens, len(one.text))]
        if going:
            state = engine.select(state, [rows[found[place][1]] for place in going])
            fed = np.array([[extended[place].last] for place in going], dtype=np.int32)
            logits = engine.advance(state, fed)[:, 0]
        beam, rows, first, held = extended, {place: row for row, place in enumerate(going)}, 0, b""
    return beam


def _cheapest(logits: Int32, count: int) -> list[tuple[int, int]]:
    """The `count` most likely tokens of a prediction int32 [V], each with its code length."""
    found = weights(logits)
    total, tokens = log2(int(found.sum())), most_likely(logits, count)
    return [
        (token, total - log2(weight))
        for token, weight in zip(tokens.tolist(), found[tokens].tolist(), strict=True)
    ]
