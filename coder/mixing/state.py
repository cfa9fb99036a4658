"""What a segment's mixer begins with."""

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import LaconicError
from ..kernels import BLOCK
from . import layout as k
from .experts import EXPERTS, LEVELS, experts_of
from .histories import histories
from .prior import INPUTS, MAPS, Prior
from .tables import log2_table, rate_table, squash_table, stretch_table
from .tree import TokenTree

RATE, EXTRA_RATE, FINAL_RATE = 16, 100, 10
FIRST_WEIGHT, MODEL_WEIGHT = 9175, 32768  # of experts, 0.14, and of all models together, 0.5
SLOT_BITS = (10, 22)
RING_BITS = (13, 28)
RING_TOTAL_BITS = 28  # of all streams together


@dataclass(frozen=True)
class Shape:
    """What decides the size of a mixer's state.

    Attributes:
        level: 2..9.
        streams: coded in lockstep.
        models: that predict, 0 and up.
        slot_bits: log2 of the slots of each expert.
        ring_bits: log2 of the bytes that are remembered of each stream.
    """

    level: int
    streams: int
    models: int
    slot_bits: int
    ring_bits: int

    @property
    def profile(self) -> int:
        """Level and slots in one byte, as a segment's header has them."""
        return self.level << 4 | self.slot_bits - SLOT_BITS[0]

    @staticmethod
    def unpack_profile(profile: int) -> tuple[int, int]:
        """(level, slot_bits)."""
        return profile >> 4, SLOT_BITS[0] + (profile & 15)

    @property
    def memory(self) -> int:
        """Bytes of the state, nearly."""
        experts = experts_of(self.level)
        return (
            (experts << (self.slot_bits + 4))
            + (self.streams << self.ring_bits)
            + 8 * (2 << self.match_bits)
            + 4 * k.SET_STARTS[-1] * self.inputs
            + 8 * k.APM_CONTEXTS * k.APM_STEPS
            + self.streams * 8 * (256 + k.COLUMNS)
            + (1 << 19)  # order 1, ends, followers, maps and the rest
        )

    @property
    def match_bits(self) -> int:
        return min(self.slot_bits, 20)

    @property
    def inputs(self) -> int:
        used = k.FIRST_EXPERT + 2 * experts_of(self.level) + 2 * self.models
        return -(-used // k.INPUT_GROUP) * k.INPUT_GROUP


def shape_for(length: int, level: int, streams: int, models: int, slot_bits: int | None = None) -> Shape:
    """The shape for a segment of `length` bytes."""
    if level not in LEVELS:
        raise LaconicError(f"level {level}: choose from {LEVELS[0]} to {LEVELS[-1]}")
    bits = max(1, length - 1).bit_length()
    low, high = RING_BITS
    # Streams differ in bytes though not in tokens: two to four times the average holds nearly all of one.
    ring = bits if streams == 1 else (2 * length // streams).bit_length()
    ring = max(low, min(high, ring, RING_TOTAL_BITS - max(0, streams - 1).bit_length()))
    if slot_bits is None:
        slot_bits = max(SLOT_BITS[0], min(21 if level == 9 else 20, bits + 1))
    return Shape(level, streams, models, slot_bits, ring)


def tree_arrays(tree: TokenTree) -> k.Tree:
    """A tree as the kernels take it."""
    return k.Tree(tree.nodes, tree.token_bytes, tree.token_ends)


@cache
def default_prior() -> Prior:
    """Where no checkpoint gives one: all experts alike, and histories at their word."""
    states = histories()
    zeros, ones = states.zeros.astype(np.int64), states.ones.astype(np.int64)
    chance = ((2 * ones + 1) << 16) // (2 * (zeros + ones) + 2)
    doubt = (1 << 22) // (np.arange(k.MATCH_LENGTHS, dtype=np.int64) + 3)
    matches = np.tile(np.stack([doubt, (1 << 22) - doubt], axis=1).reshape(-1), 2)
    weights = np.zeros((k.SETS, INPUTS), dtype=np.int32)
    weights[:, k.MATCHES : k.ORDER_1 + 1] = FIRST_WEIGHT
    weights[:, k.FIRST_EXPERT :: 2] = FIRST_WEIGHT
    weights[:, -2] = MODEL_WEIGHT
    rates = np.array([RATE, EXTRA_RATE, FINAL_RATE], dtype=np.int32)
    return Prior(weights, np.tile(chance, (MAPS, 1)).astype(np.uint16), matches.astype(np.int32), rates)


def _zeros(shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """An array that begins where a line of the processor's caches does: vectors and slots lie in one each."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.zeros(size + k.LINE_BYTES, dtype=np.uint8)
    begin = -room.ctypes.data % k.LINE_BYTES
    return room[begin : begin + size].view(dtype).reshape(shape)


def fresh(shape: Shape, vocab_size: int = 256, prior: Prior | None = None) -> k.Mixing:
    """The state before the first token."""
    experts, inputs = experts_of(shape.level), shape.inputs
    states, prior = histories(), prior or default_prior()
    used = k.FIRST_EXPERT + 2 * experts
    weights = _zeros((k.SET_STARTS[-1], inputs), np.int32)
    for number, (begin, end) in enumerate(pairwise(k.SET_STARTS)):
        weights[begin:end, :used] = prior.weights[number, :used]
        for model in range(shape.models):
            at = used + 2 * model
            weights[begin:end, at : at + 2] = prior.weights[number, -2:] // shape.models
    rows = [*range(experts), *range(len(EXPERTS), MAPS)]
    maps = (prior.maps[rows].astype(np.int64) << 16 | prior.count).astype(np.uint32).reshape(-1)
    squash = squash_table()
    sets = k.SETS if shape.models else k.SETS - 1
    steps = (np.arange(k.APM_STEPS) - 16) * k.APM_WIDTH + 4096
    blocks = vocab_size // BLOCK + 1
    parameters = [experts, inputs, shape.slot_bits, shape.ring_bits, shape.match_bits]
    return k.Mixing(
        slots=_zeros((experts << (shape.slot_bits + 4),), np.uint8),
        order_1=np.zeros(1 << 16, dtype=np.uint8),
        ends=np.zeros(k.ENDS, dtype=np.uint8),
        maps=maps,
        match_maps=prior.matches.copy(),
        weights=weights,
        final=np.full(256 * k.SETS, 65536 // sets, dtype=np.int32),
        apm=np.tile(squash[steps] * 64, 2 * k.APM_CONTEXTS).astype(np.int32),
        history=np.zeros(shape.streams << shape.ring_bits, dtype=np.uint8),
        matches=np.zeros(2 << shape.match_bits, dtype=np.int64),
        followers=np.zeros(256 + 65536, dtype=np.int32),
        last_seen=np.full(shape.streams * 256, -(1 << 40), dtype=np.int64),
        records=np.zeros(k.RECORD_MAX, dtype=np.int32),
        streams=np.zeros((shape.streams, k.COLUMNS), dtype=np.int64),
        counts=np.zeros(2, dtype=np.int64),
        parameters=np.array([*parameters, *prior.rates.tolist()], dtype=np.int64),
        following=states.following,
        zeros=states.zeros,
        ones=states.ones,
        squash=squash,
        stretch=stretch_table(),
        log2=log2_table(),
        rates=rate_table(),
        inputs=_zeros((inputs,), np.int32),
        scratch=_zeros((7, 32), np.int64),
        places=_zeros((4, 32), np.uint32),
        token_weights=_zeros((shape.models, blocks * BLOCK), np.uint32),
        token_sums=_zeros((shape.models, blocks), np.int64),
    )
