"""Segments to coded segments and back: by whatever makes them the smallest."""

import math

from .classical import decode_lzma, encode_lzma
from .container import EXPERTS, LZMA, MIXED, RAW, Segment, pack_header
from .errors import LaconicError
from .mixing.experts import DEFAULT_LEVEL
from .model import Model
from .report import Report

LEVELS = range(1, 10)  # 1: the model alone; from 2 on the mixer, with more experts
LZMA_IS_ENOUGH = 0.002  # of the original: what LZMA shrinks so far is left to it, for speed
SAMPLE = 1 << 16  # bytes by which it is decided whether a model helps
LOST = 0.035  # of what a model saves, relative to the experts alone, each time that a text doubles
DOUBT = 0.03  # around the expected ratio: between, both are tried
INCOMPRESSIBLE = 0.998  # of the original, on a sample
MEMORY_LIMIT = 1 << 30  # bytes that a decoder takes for a segment's mixer, where nothing else is said


def check_level(level: int, model: Model | None) -> None:
    """Raises LaconicError for a level that there is not, or 1 with several checkpoints."""
    if level not in LEVELS:
        raise LaconicError(f"level {level}: choose from {LEVELS[0]} (fast) to {LEVELS[-1]} (small)")
    if level == 1 and model is not None and model.others:
        raise LaconicError("level 1 takes one checkpoint: name one by -m, or choose a level from 2 to 9")


def encode_segment(
    data: bytes,
    model: Model | None,
    streams: int | None = None,
    report: Report | None = None,
    level: int = DEFAULT_LEVEL,
) -> Segment:
    """The smallest coded form of `data`, at least one byte and at most MAX_SEGMENT.

    Args:
        model: None leaves experts, LZMA and raw.
        streams: 1..4096, or None for a number that suits the length.
        level: 1 for the model alone (or LZMA), 2 to 9 for more and more experts around it.
    """
    check_level(level, model)
    best = Segment(RAW, len(data), data)
    packed = encode_lzma(data)
    if len(packed) < len(data):
        best = Segment(LZMA, len(data), packed)
    if len(packed) < LZMA_IS_ENOUGH * len(data):
        return best
    if level == 1:
        return best if model is None else _smaller(best, _by_model_alone(data, model, streams, best, report))
    if best.method == RAW and _is_noise(data, level):
        return best
    helps = model is not None and _model_helps(data, model, level)
    if model is not None and helps is not False:
        mixed = _mixing().encode_mixed(data, model, level, streams, _stored_size(best), report)
        best = _smaller(best, mixed)
    if not helps:
        best = _smaller(best, _mixing().encode_experts(data, level, _stored_size(best), report))
    return best


def _mixing():
    """Loaded when first used: it brings numba."""
    from .mixing import coding

    return coding


def _by_model_alone(
    data: bytes, model: Model, streams: int | None, best: Segment, report: Report | None
) -> Segment | None:
    from .direct import encode_direct

    return encode_direct(data, model, streams, len(best.payload), report)


def _smaller(best: Segment, coded: Segment | None) -> Segment:
    return coded if coded is not None and _stored_size(coded) < _stored_size(best) else best


def _stored_size(segment: Segment) -> int:
    return len(pack_header(segment)) + len(segment.payload)


def _sample(data: bytes) -> bytes:
    """Half of it from the first third, half from the last."""
    half = SAMPLE // 2
    first, second = len(data) // 3 - half // 2, 2 * len(data) // 3 - half // 2
    return data[first : first + half] + data[second : second + half]


def _is_noise(data: bytes, level: int) -> bool:
    """Whether a sample of what LZMA cannot shorten is noise to the experts too."""
    if len(data) < 2 * SAMPLE:
        return False
    sample = _sample(data)
    return _mixing().encode_experts(sample, level, int(INCOMPRESSIBLE * len(sample))) is None


def _model_helps(data: bytes, model: Model, level: int) -> bool | None:
    """Whether a sample is smaller with the model; None where that does not settle it, and both are tried.

    The longer a segment, the more the experts learn by themselves, and the less a model has to add.
    """
    if len(data) < 2 * SAMPLE:
        return None
    sample = _sample(data)
    alone = _mixing().encode_experts(sample, level, len(sample))
    limit = len(sample) if alone is None else len(alone.payload)
    mixed = _mixing().encode_mixed(sample, model, level, None, limit)
    if mixed is None:
        return False
    ratio = len(mixed.payload) / limit + LOST * math.log2(len(data) / SAMPLE)
    return True if ratio < 1 - DOUBT else False if ratio > 1 + DOUBT else None


def decode_segment(
    segment: Segment, model: Model | None, report: Report | None = None, memory: int = MEMORY_LIMIT
) -> bytes:
    """The original bytes; `model` is needed for methods MODEL and MIXED only.

    Raises:
        DamageError: the payload is not what an encoder writes.
        LaconicError: the segment asks for more than `memory` bytes.
    """
    if segment.method == RAW:
        return segment.payload
    if segment.method == LZMA:
        return decode_lzma(segment.payload, segment.original_length)
    if segment.method == EXPERTS:
        return _mixing().decode_experts(segment, memory, report)
    assert model is not None
    if segment.method == MIXED:
        return _mixing().decode_mixed(segment, model, memory, report)
    from .direct import decode_direct

    return decode_direct(segment, model, report)
