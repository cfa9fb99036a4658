"""Text out of a checkpoint: what its model believes comes next, in integers, the same on every machine.

A prompt need not end where a token does. Its last token is taken back, and the first token chosen is one that
begins with the bytes of that; of it, what the prompt lacks is new.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .draws import MILLION, SEED_LIMIT, Int32, Sampler, millionths
from .errors import LaconicError
from .files import Names, as_bytes, open_model
from .lockstep import chunk_steps

if TYPE_CHECKING:
    from .model import Model

DEFAULT_TOKENS = 128
TEMPERATURE_MOST = 1000
BEAM_MOST = 256


@dataclass(frozen=True)
class Request:
    """How much, and how each token is chosen: by `choose`, or all of them by a search of width `beam`.

    Attributes:
        tokens: beyond the prompt's.
        num_bytes: beyond the prompt's, in place of tokens where it is not None.
    """

    tokens: int
    num_bytes: int | None
    choose: Callable[[Int32], int]
    beam: int | None

    def enough(self, tokens: int, num_bytes: int) -> bool:
        """Whether so many are as many as wanted."""
        return tokens >= self.tokens if self.num_bytes is None else num_bytes >= self.num_bytes


@dataclass(frozen=True)
class Beginning:
    """After a prompt.

    Attributes:
        state: of the engine, one stream.
        logits: the prediction of what comes next, int32 [V].
        held: the bytes of the token that was taken back, or none.
        first, last: the tokens first..last - 1 begin with them.
    """

    state: Any
    logits: Int32
    held: bytes
    first: int
    last: int


def read_request(
    tokens: int | None = None,
    num_bytes: int | None = None,
    temperature: object = None,
    top_k: int | None = None,
    top_p: object = None,
    seed: int | None = None,
    greedy: bool = False,
    beam: int | None = None,
) -> Request:
    """A request from the arguments of `generate`.

    Raises:
        LaconicError: one is out of range, or two exclude each other.
    """
    if tokens is not None and num_bytes is not None:
        raise LaconicError("a number of tokens and one of bytes: give one of them")
    for name, value, most in (
        ("a number of tokens", tokens, None),
        ("a number of bytes", num_bytes, None),
        ("top-k", top_k, None),
        ("a beam", beam, BEAM_MOST),
    ):
        if value is not None and (type(value) is not int or value < 1 or (most and value > most)):
            allowed = f"from 1 to {most}" if most else "above 0"
            raise LaconicError(f"{name} of {value}: choose a whole number {allowed}")
    if seed is not None and (type(seed) is not int or not 0 <= seed < SEED_LIMIT):
        raise LaconicError(f"a seed of {seed}: choose a whole number from 0 to {SEED_LIMIT - 1}")
    if str(temperature) in ("0", "0.0"):
        raise LaconicError(
            "a temperature of 0: choose a number above 0, or greedy, the likeliest token each time"
        )
    sampler = Sampler(
        MILLION if temperature is None else millionths(temperature, "a temperature", TEMPERATURE_MOST),
        top_k,
        MILLION if top_p is None else millionths(top_p, "top-p", 1),
        seed or 0,
    )
    drawn = {"temperature": temperature, "top-k": top_k, "top-p": top_p, "seed": seed}
    for name, given in (("a beam", beam is not None), ("greedy", greedy)):
        others = [other for other, value in drawn.items() if given and value is not None]
        if others:
            raise LaconicError(
                f"{name} draws nothing at random: leave it out, or the {' and the '.join(others)}"
            )
    if greedy and beam is not None:
        raise LaconicError("greedy is a beam of 1: leave one of them out")
    return Request(tokens or DEFAULT_TOKENS, num_bytes, _likeliest if greedy else sampler, beam)


def generate(
    prompt: bytes | bytearray | memoryview = b"",
    model: "Names | Model" = "default",
    *,
    tokens: int | None = None,
    num_bytes: int | None = None,
    temperature: float | str | None = None,
    top_k: int | None = None,
    top_p: float | str | None = None,
    seed: int | None = None,
    greedy: bool = False,
    beam: int | None = None,
    engine: str | None = None,
) -> Iterator[bytes]:
    """What a checkpoint continues a prompt with, as it comes: the bytes of one token after another.

    Without `greedy` and `beam` every token is drawn at random, by the probabilities that the coder uses. The
    same arguments give the same bytes, on every machine and by every engine.

    Args:
        prompt: any bytes, or none.
        model: a checkpoint's name, path or id, or what `open_model` returned.
        tokens: how many beyond the prompt's (None: 128, where num_bytes is not given).
        num_bytes: how many, in place of tokens; the last token is cut.
        temperature: by which log probabilities are divided: above 0, up to 1000, of six decimals (None: 1).
        top_k: draw from the most likely k tokens only.
        top_p: draw from the fewest most likely tokens only that have this part of the probability: above 0,
            up to 1, of six decimals.
        seed: of the random numbers, 0 to 2^64 - 1 (None: 0).
        greedy: take the most likely token each time.
        beam: search for the continuation of the least code length, keeping so many (1 to 256) at a time;
            it comes in one piece.
        engine: what evaluates the checkpoint (None: the fastest); the result is the same.

    Raises:
        LaconicError: there is no such checkpoint or engine, an argument is out of range, or two of them
            exclude each other.
    """
    request = read_request(tokens, num_bytes, temperature, top_k, top_p, seed, greedy, beam)
    return pieces(as_bytes(prompt), one_model(model, engine), request)


def one_model(names: "Names | Model", engine: str | None) -> "Model":
    """Raises LaconicError: it is none, or several."""
    model = open_model(names, engine)
    if model is None:
        raise LaconicError("without a checkpoint there is nothing to say: name one by -m, see laconic models")
    if model.others:
        raise LaconicError(
            "several checkpoints predict together only when they compress: name one; `laconic models` says "
            "which names mean several"
        )
    return model


def pieces(prompt: bytes, model: "Model", request: Request) -> Iterator[bytes]:
    """The pieces of what a request asks for, none of them empty."""
    if request.beam is not None:
        from .beam import search

        yield search(prompt, model, request, request.beam)[0].text
        return
    total = 0
    # A token in place of the one taken back is none beyond the prompt's.
    for count, piece in enumerate(_tokens(prompt, model, request.choose), 0 if prompt else 1):
        if request.num_bytes is not None:
            piece = piece[: request.num_bytes - total]
        total += len(piece)
        if piece:
            yield piece
        if request.enough(count, total):
            return


def begin(prompt: bytes, model: "Model") -> Beginning:
    """Feed a prompt, but its last token."""
    engine, token_bytes = model.engine, model.checkpoint.token_bytes
    ids: npt.NDArray[np.int32] = model.tokenize(prompt) if prompt else np.zeros(0, dtype=np.int32)
    held = token_bytes[int(ids[-1])] if prompt else b""
    fed = np.concatenate(([engine.vocab_size], ids[:-1])).astype(np.int32)
    state, chunk = engine.start(1), chunk_steps(1, engine.vocab_size)
    *before, rest = (fed[None, start : start + chunk] for start in range(0, len(fed), chunk))
    for piece in before:
        engine.advance(state, piece)
    logits: Int32 = engine.advance(state, rest)[0, -1]
    first = last = bisect_left(token_bytes, held)  # tokens are in the order of their bytes
    while last < len(token_bytes) and token_bytes[last].startswith(held):
        last += 1
    return Beginning(state, logits, held, first, last)


def _tokens(prompt: bytes, model: "Model", choose: Callable[[Int32], int]) -> Iterator[bytes]:
    """The new bytes of one token after another, without end; the first may have none."""
    engine, start = model.engine, begin(prompt, model)
    token = start.first + choose(start.logits[start.first : start.last])
    yield model.checkpoint.token_bytes[token][len(start.held) :]
    while True:
        logits = engine.advance(start.state, np.array([[token]], dtype=np.int32))
        token = choose(logits[0, 0])
        yield model.checkpoint.token_bytes[token]


def _likeliest(logits: Int32) -> int:
    return int(logits.argmax())  # of equals the first
