"""The mixer in plain Python: the normative twin of `kernels.py`, to be read.

A token is coded as the decisions on its way through the tree. For each decision

1. experts say what they expect: the bit histories of contexts, two match models, the language models,
2. sets of weights, of which the situation selects one vector each, mix these log odds,
3. a last small mixer joins the sets, and two refining curves correct what comes out,
4. the range coder codes the bit with the resulting probability, and everything learns from it.

All numbers are integers, probabilities those of a one, and shifts to the right round down. What is tuned most
is in one place each: `past.contexts` (what experts see), `Mixer._inputs` (their order), `Mixer._selectors`
(which weights mix them).
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from operator import mul
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..rangecoder import RangeDecoder, RangeEncoder, weights_reference
from . import layout as k
from .experts import ORDERS, experts_of
from .histories import histories
from .past import Past, Stream, contexts, hashed
from .state import Shape, fresh
from .tables import ODDS_LIMIT, log2, rate_table, squash_table, stretch_table
from .tree import TokenTree

Array = npt.NDArray[np.integer]
CERTAIN = 1 << 22  # probability one in a map

_SQUASH: list[int] = squash_table().tolist()
_STRETCH: list[int] = stretch_table().tolist()
_RATES: list[int] = rate_table().tolist()
_FOLLOWING: list[int] = histories().following.tolist()
_KNOWLEDGE: list[int] = histories().weight.tolist()


def squash(odds: int) -> int:
    """Probability in 2^-16 of log odds in 2^-8 bits."""
    return _SQUASH[odds + ODDS_LIMIT + 1]


def _bounded(value: int, limit: int) -> int:
    return max(-limit, min(limit, value))


class Slots:
    """A hash table of slots: a check, and histories of the bits of half a byte, at 1 and the bits before."""

    def __init__(self, slot_bits: int) -> None:
        self.mask = (1 << slot_bits) - 1
        self.checks: dict[int, int] = {}
        self.slots: dict[int, list[int]] = {}

    def find(self, key: int) -> list[int]:
        """The slot of a key: among three that has its check, or the one that knows least of its first bit."""
        check = key >> k.CHECK_SHIFT & 255
        near = [key & self.mask ^ other for other in (0, 1, 2)]
        for index in near:
            if self.checks.get(index, 0) == check:
                return self.slots.setdefault(index, [0] * k.SLOT)
        slots = [self.slots.setdefault(index, [0] * k.SLOT) for index in near]
        least = min((0, 1, 2), key=lambda which: _KNOWLEDGE[slots[which][1]])  # of equals the first
        self.checks[near[least]] = check
        slots[least][:] = [0] * k.SLOT
        return slots[least]


class Chance:
    """An adaptive probability of 22 bits that moves the less the more often it was used."""

    def __init__(self, packed: int) -> None:
        self.chance, self.count = packed >> 10, packed & 1023

    def learn(self, bit: int, limit: int) -> None:
        rate = _RATES[self.count]
        if bit:
            self.chance += ((CERTAIN - self.chance) >> 3) * rate >> 13
        else:
            self.chance -= (self.chance >> 3) * rate >> 13
        self.count = min(self.count + 1, limit)


class Reading:
    """A bit history that was looked up at `store[at]`, and the chance that its expert's map gives to it."""

    def __init__(self, store: list[int], at: int, chances: list[Chance], limit: int = k.MAP_LIMIT) -> None:
        self.store, self.at, self.limit = store, at, limit
        self.state = store[at]
        self.chance = chances[self.state]

    def inputs(self, certainly: bool = False) -> list[int]:
        """Log odds, and the probability around 0; of an empty history nothing."""
        chance = self.chance.chance >> 10
        return [_STRETCH[chance], (chance - 2048) >> 1] if self.state or certainly else [0, 0]

    def learn(self, bit: int) -> None:
        self.chance.learn(bit, self.limit)
        self.store[self.at] = _FOLLOWING[2 * self.state + bit]


class Node(NamedTuple):
    """A decision; see `tree.TokenTree`."""

    low: int
    middle: int
    high: int
    depth: int
    partial: int
    zero: int
    one: int


class Prediction:
    """What a language model expects of a token."""

    def __init__(self, logits: Sequence[int]) -> None:
        self.before = list(accumulate(weights_reference(logits), initial=0))

    def odds(self, node: Node) -> int:
        """Log odds of a one: of the weights of the tokens on its side, against the others of the node."""
        low, middle, high = (self.before[token] for token in node[:3])
        return _bounded((log2(high - middle) - log2(middle - low)) >> 2, ODDS_LIMIT)


class Situation:
    """What stays the same for all decisions about one byte of a stream."""

    def __init__(self, past: Past, stream: Stream, num_experts: int, tokens: bool) -> None:
        self.stream = stream
        self.contexts = contexts(past, stream, tokens)[:num_experts]
        self.levels = [match.level for match in stream.matches]
        self.expected = [past.expected(match) if match.length else None for match in stream.matches]
        self.last = stream.last_eight & 0xFF
        self.nibble = -1  # the half of the byte whose slots are at hand
        self.slots: list[list[int]] = []
        self.hits = 0  # experts in ORDERS that have been here before


class Rows(dict[int, list[int]]):
    """Rows of an array, copied when they are first needed."""

    def __init__(self, array: Array) -> None:
        super().__init__()
        self.array = array

    def __missing__(self, row: int) -> list[int]:
        self[row] = self.array[row].tolist()
        return self[row]


class Mixer:
    """All that learns. `predict` and `learn` take turns, one decision each."""

    def __init__(self, shape: Shape, tree: TokenTree, first: k.Mixing | None = None) -> None:
        """Begins with the values of `first`, which no byte has passed, or of `fresh(shape)`."""
        first = first or fresh(shape)
        self.past = Past(shape)
        self.num_experts = experts_of(shape.level)
        self.with_models = shape.models > 0
        self.num_sets = k.SETS if self.with_models else k.SETS - 1
        self.nodes = [Node(*row) for row in tree.nodes.tolist()]
        ends = tree.token_ends.tolist()
        self.tokens = [tree.token_bytes[a:b].tobytes() for a, b in pairwise(ends)]
        self.slots = [Slots(shape.slot_bits) for _ in range(self.num_experts)]
        self.order_1 = [0] * len(first.order_1)
        self.ends = [0] * k.ENDS
        self.maps = [[Chance(packed) for packed in row] for row in first.maps.reshape(-1, 256).tolist()]
        self.match_maps: list[int] = first.match_maps.tolist()
        self.weights, self.final = Rows(first.weights), Rows(first.final.reshape(-1, k.SETS))
        self.curves = Rows(first.apm.reshape(-1, k.APM_STEPS))
        self.rate, self.extra_rate, self.final_rate = first.parameters[k.RATE :].tolist()

    def predict(self, here: Situation, number: int, models: Sequence[Prediction]) -> int:
        """The probability of a one, 1..65535, at node `number`."""
        node = self.nodes[number]
        self.readings: list[Reading] = []
        self.matched: list[int | None] = [None, None]  # entries of match_maps that spoke
        if node.partial:
            self._read_bit(here, node.partial)
        else:
            self._read_end(here, number)
        model_odds = [model.odds(node) for model in models]
        self.x = self._inputs(node.partial, model_odds)
        starts = k.SET_STARTS[: self.num_sets]
        selectors = self._selectors(here, node, model_odds)
        self.vectors = [start + selected for start, selected in zip(starts, selectors, strict=False)]
        self.odds = [
            _bounded(sum(map(mul, self.weights[vector], self.x)) >> 16, ODDS_LIMIT) for vector in self.vectors
        ]
        self.final_vector = self.final[selectors[0]]
        mixed = _bounded(sum(map(mul, self.final_vector, self.odds)) >> 16, ODDS_LIMIT)
        self.chance = squash(mixed)
        return max(1, min(65535, (2 * self.chance + self._refined(here, node.partial, mixed) + 2) >> 2))

    def _read_bit(self, here: Situation, partial: int) -> None:
        """Experts about a bit of a byte, of which `partial` tells the bits before."""
        bit_number = partial.bit_length() - 1
        nibble, within = divmod(bit_number, 4)
        if nibble != here.nibble:
            keys = (
                [hashed(context, partial >> within) for context in here.contexts] if nibble else here.contexts
            )
            here.nibble = nibble
            here.slots = [slots.find(key) for slots, key in zip(self.slots, keys, strict=True)]
            here.hits = sum(here.slots[i][1] != 0 for i in ORDERS if i < self.num_experts)
        at = 1 << within | partial & (1 << within) - 1
        for slot, chances in zip(here.slots, self.maps, strict=False):
            self.readings.append(Reading(slot, at, chances))
        order_1 = here.last << 8 | partial
        self.readings.append(Reading(self.order_1, order_1, self.maps[self.num_experts], k.ORDER_1_LIMIT))
        for which, (expected, level) in enumerate(zip(here.expected, here.levels, strict=True)):
            if expected is not None and (256 | expected) >> (8 - bit_number) == partial:
                bit = expected >> (7 - bit_number) & 1
                self.matched[which] = (which * k.MATCH_LENGTHS + level) << 1 | bit

    def _read_end(self, here: Situation, number: int) -> None:
        """Whether tokens ended at this node: always, after these bytes, with this match, and in contexts."""
        node, expected = self.nodes[number], here.expected[0]
        continues = 0
        if expected is not None:
            longer = (token[node.depth :] for token in self.tokens[node.middle : node.high])
            continues = 2 if any(rest[:1] == bytes([expected]) for rest in longer) else 1
        places = (
            number,
            hashed(here.stream.last_eight & 0xFFFFFF, number),
            hashed(number, continues << 5 | here.levels[0]),
        )
        for place, chances in zip(places, self.maps[self.num_experts + 1 :], strict=True):
            self.readings.append(Reading(self.ends, place % k.ENDS, chances))
        for expert in range(k.FIRST_OF_ENDS, self.num_experts):
            slot = self.slots[expert].find(hashed(here.contexts[expert], 32 + number))
            self.readings.append(Reading(slot, 1, self.maps[expert]))

    def _inputs(self, partial: int, model_odds: list[int]) -> list[int]:
        """The mixer's inputs in their order; what does not speak says 0."""
        experts = self.readings[: self.num_experts]
        return [
            256,
            *(0 if entry is None else _STRETCH[self.match_maps[entry] >> 10] for entry in self.matched),
            *(self.readings[-1].inputs(certainly=True) if partial else (0, 0)),
            *(value for reading in experts for value in reading.inputs()),
            *(value for odds in model_odds for value in (odds, (squash(odds) - 32768) >> 5)),
        ]

    def _selectors(self, here: Situation, node: Node, model_odds: list[int]) -> tuple[int, ...]:
        """Of each set the vector; the last set is for models only."""
        model = (model_odds[0] + 4096) >> 9 if model_odds else 0
        if not node.partial:
            depth = 2048 + min(node.depth, 15)
            return 0, 256 + here.levels[0], 512 | here.last, depth, depth, 9 * model + 8
        bit_number = node.partial.bit_length() - 1
        matched = here.levels[0] if self.matched[0] is not None else 0
        column = here.stream.position - here.stream.line
        return (
            node.partial,
            matched << 3 | here.hits,
            here.nibble << 8 | here.last,
            here.stream.back(2) << 3 | bit_number,
            min(column, 255) << 3 | bit_number,
            9 * model + bit_number,
        )

    def _refined(self, here: Situation, partial: int, mixed: int) -> int:
        """The sum of what two curves make of the mixed log odds, in 2^-16."""
        step, part = divmod(max(0, min((k.APM_STEPS - 1) * k.APM_WIDTH - 1, mixed + 3072)), k.APM_WIDTH)
        places = here.last << 8 | partial, hashed(here.stream.last_eight & 0xFFFF, partial)
        self.used_curves = [
            self.curves[which * k.APM_CONTEXTS + place % k.APM_CONTEXTS] for which, place in enumerate(places)
        ]
        self.nearest = step + (2 * part >= k.APM_WIDTH)
        total = sum(c[step] * (k.APM_WIDTH - part) + c[step + 1] * part for c in self.used_curves)
        return total // (k.APM_WIDTH * 64)

    def learn(self, bit: int) -> None:
        """From the bit that came after `predict`."""
        for curve in self.used_curves:
            curve[self.nearest] += (65535 * 64 * bit - curve[self.nearest]) >> 5
        error = ((bit << 16) - self.chance) * self.final_rate >> 8
        for i, odds in enumerate(self.odds):
            self.final_vector[i] = _bounded(
                self.final_vector[i] + (odds * error + 8192 >> 14), k.WEIGHT_LIMIT
            )
        for vector, odds in zip(self.vectors, self.odds, strict=True):
            step = ((bit << 16) - squash(odds)) * self.token_rate >> 8
            weights = self.weights[vector]
            for i, x in enumerate(self.x):
                if x:
                    weights[i] = _bounded(weights[i] + (x * step + 8192 >> 14), k.WEIGHT_LIMIT)
        for reading in self.readings:
            reading.learn(bit)
        for entry in self.matched:
            if entry is not None:
                self.match_maps[entry] += (bit * (CERTAIN - 1) - self.match_maps[entry]) >> 7

    def code_token(
        self, number: int, models: Sequence[Prediction], code: Callable[[int, int], int], wanted: int
    ) -> int:
        """Code the next token of a stream: `wanted`, or whichever the bits from `code` lead to."""
        stream = self.past.streams[number]
        self.token_rate = self.rate + self.extra_rate * k.RATE_BYTES // (k.RATE_BYTES + self.past.bytes)
        here = Situation(self.past, stream, self.num_experts, self.with_models)
        at, known = 0, 0
        while at >= 0:
            node = self.nodes[at]
            if known < node.depth:
                for byte in self.tokens[node.low][known : node.depth]:
                    self.past.push(number, byte)
                known = node.depth
                here = Situation(self.past, stream, self.num_experts, self.with_models)
            bit = code(self.predict(here, at, models), int(wanted >= node.middle))
            self.learn(bit)
            at = node.one if bit else node.zero
        token = -1 - at
        for byte in self.tokens[token][known:]:
            self.past.push(number, byte)
        stream.end_token(token)
        return token


def encode(
    ids: Sequence[int],
    tree: TokenTree,
    shape: Shape,
    logits: Array | None = None,
    first: k.Mixing | None = None,
) -> bytes:
    """Code a segment's ids, as `shape.streams` streams in lockstep.

    Args:
        logits: integers [M, S, T, V] in 2^-10 bits, or None.
        first: what the mixer begins with, if not `fresh(shape)`.
    """
    encoder = RangeEncoder()

    def write(chance: int, bit: int) -> int:
        interval = (0, chance) if bit else (chance, 65536 - chance)
        encoder.encode(*interval, 65536)
        return bit

    _lockstep(Mixer(shape, tree, first), list(ids), shape, logits, write)
    return encoder.finish()


def decode(
    payload: bytes,
    count: int,
    tree: TokenTree,
    shape: Shape,
    logits: Array | None = None,
    first: k.Mixing | None = None,
) -> list[int]:
    """The `count` ids that `encode` was given.

    Raises:
        LaconicError: the payload ends before the ids do, or goes on after them.
    """
    decoder, ids = RangeDecoder(payload), [0] * count

    def read(chance: int, _: int) -> int:
        return 1 - decoder.decode([chance, 65536 - chance])

    _lockstep(Mixer(shape, tree, first), ids, shape, logits, read)
    decoder.finish()
    return ids


def _lockstep(
    mixer: Mixer, ids: list[int], shape: Shape, logits: Array | None, code: Callable[[int, int], int]
) -> None:
    """Code the ids step by step, of each step every stream that goes on; writes them back as coded."""
    short, longer = divmod(len(ids), shape.streams)
    starts = [stream * short + min(stream, longer) for stream in range(shape.streams + 1)]
    for step in range(short + 1):
        for stream in range(shape.streams):
            at = starts[stream] + step
            if at < starts[stream + 1]:
                rows: list[list[int]] = [] if logits is None else logits[:, stream, step].tolist()
                ids[at] = mixer.code_token(stream, [Prediction(row) for row in rows], code, ids[at])
