"""What a checkpoint's mixer begins with, learned on text that the model was not trained on."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..coder.checkpoint import FrozenCheckpoint
from ..coder.engine import load_engine
from ..coder.mixing import layout as k
from ..coder.mixing.coding import mix_tokens
from ..coder.mixing.experts import DEFAULT_LEVEL, EXPERTS, LEVELS, experts_of
from ..coder.mixing.prior import LEARNED_COUNT, Prior
from ..coder.mixing.state import default_prior, fresh, shape_for
from ..coder.model import Model

LEAST_TEXT = 1 << 14  # bytes; from less there is nothing to learn
MOST_TEXT = 1 << 18
STREAMS = 8
RATES = ((16, 100), (8, 60), (32, 100))  # lasting and first learning rates that are tried


def with_prior(checkpoint: FrozenCheckpoint, text: bytes) -> FrozenCheckpoint:
    """The checkpoint with a prior learned on `text`; as it is where the text is too short."""
    if len(text) < LEAST_TEXT:
        return checkpoint
    fitted = fit_prior(checkpoint, text[:MOST_TEXT])
    return replace(checkpoint, tensors={**checkpoint.tensors, **fitted.tensors()}, path=None)


def fit_prior(checkpoint: FrozenCheckpoint, text: bytes) -> Prior:
    """Weights and maps from the first half of the text, learning rates from the second."""
    half = len(text) // 2
    plain = _without_prior(checkpoint)
    engine = load_engine(plain)
    ids = Model(plain, engine).tokenize(text[:half])
    mixed = {level: _run(Model(plain, engine), ids, half, level)[1] for level in (DEFAULT_LEVEL, LEVELS[-1])}
    learned = _collect(mixed)
    sizes: dict[int, Prior] = {}
    rest = Model(plain, engine).tokenize(text[half:])
    for rate, extra in RATES:
        tried = replace(learned, rates=np.array([rate, extra, learned.rates[2]], dtype=np.int32))
        model = Model(replace(plain, tensors={**plain.tensors, **tried.tensors()}), engine)
        payload, _ = _run(model, rest, len(text) - half, DEFAULT_LEVEL)
        sizes.setdefault(len(payload), tried)
    return sizes[min(sizes)]


def _without_prior(checkpoint: FrozenCheckpoint) -> FrozenCheckpoint:
    tensors = {name: value for name, value in checkpoint.tensors.items() if not name.startswith("mixer.")}
    return replace(checkpoint, tensors=tensors, path=None)


def _run(model: Model, ids: npt.NDArray[np.int32], length: int, level: int) -> tuple[bytes, k.Mixing]:
    payload, mixing = mix_tokens(ids, model, shape_for(length, level, STREAMS, 1), 8 * length)
    assert payload is not None
    return payload, mixing


def _collect(mixed: dict[int, k.Mixing]) -> Prior:
    """One prior for all levels: weights of the lower level where it has them, maps of the highest."""
    base = default_prior()
    weights = base.weights.copy()
    for level in sorted(mixed, reverse=True):
        average = _average_weights(mixed[level], level)
        used = k.FIRST_EXPERT + 2 * experts_of(level)
        weights[:, :used] = average[:, :used]
        weights[:, -2:] = average[:, used : used + 2]
    top = mixed[LEVELS[-1]]
    packed = top.maps.reshape(-1, 256)
    assert len(packed) == len(EXPERTS) + 4
    maps = np.where(packed & 1023, packed >> 16, base.maps).astype(np.uint16)
    return Prior(weights, maps, top.match_maps.copy(), base.rates, LEARNED_COUNT)


def _average_weights(mixing: k.Mixing, level: int) -> npt.NDArray[np.int32]:
    """The mean vector of each set, those that have learned most counting most."""
    shape = shape_for(1 << 10, level, 1, 1)
    first = fresh(shape, len(mixing.token_weights[0])).weights
    result = np.empty((k.SETS, mixing.weights.shape[1]), dtype=np.int32)
    for number, (begin, end) in enumerate(pairwise(k.SET_STARTS)):
        learned = mixing.weights[begin:end].astype(np.float64)
        moved = np.abs(learned - first[begin:end]).sum(axis=1) ** 2
        total = moved.sum()
        mean = (learned * moved[:, None]).sum(axis=0) / total if total else learned[0]
        result[number] = np.rint(mean).astype(np.int32)
    return result
