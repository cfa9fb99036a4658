"""Segments to coded segments and back: by what makes them the smallest, as far as samples tell."""

import math

from .classical import decode_lzma, encode_lzma
from .errors import LaconicError
from .limits import MEMORY_LIMIT
from .mixing.experts import DEFAULT_LEVEL
from .model import Model
from .reference import Reference, check_reference
from .report import Report
from .segment import BY_TABLE, ENTROPY, EXPERTS, LZMA, MIXED, RANS, RAW, Segment, pack_header

LEVELS = range(1, 10)  # 1: the model alone; from 2 on the mixer, with more experts
LZMA_IS_ENOUGH = 0.002  # of the original: a long segment that LZMA shrinks so far is left to it, for speed
REPETITIVE = 1 << 20  # bytes from which on a segment is long in that sense
SAMPLE = 1 << 16  # bytes by which it is decided whether a model helps
LARGER = 1 << 18  # bytes by which that is decided where the sample leaves it open, and the segment
LONG = 8 * LARGER  # is so long that both in full would cost much more
WINDOWS = 4  # places that a sample is taken from
SHARE = 0.85  # of the time that model and experts, and then experts alone, take
LOST = 0.035  # of the experts' size: what a model saves less, each time that a text doubles
LOST_BY_NGRAMS = 0.015  # the same, counted low: trying n-grams costs little, and is done unless in vain
TRUSTED = 0.85  # ratio to the experts alone, as it is expected, below which a model helps
TRUSTED_LARGER = 0.95  # the same by the larger sample, whose expectation is better
HOPELESS = 1.03  # ratio at best above which it does not help; where neither is so, both ways are tried
INCOMPRESSIBLE = 0.998  # of the original, on a sample


def check_level(level: int, model: Model | None) -> None:
    """Raises LaconicError for a level that there is not, or 1 with several checkpoints."""
    if type(level) is not int or level not in LEVELS:
        raise LaconicError(f"level {level!r}: choose from {LEVELS[0]} (fast) to {LEVELS[-1]} (small)")
    if level == 1 and model is not None and model.others:
        raise LaconicError("level 1 takes one checkpoint: name one by -m, or choose a level from 2 to 9")


def check_entropy(entropy: str, level: int | None, model: Model | None, streams: int | None) -> None:
    """Raises LaconicError for a coder that there is not, or that does not go with the rest."""
    if entropy not in ENTROPY:
        raise LaconicError(f"entropy coder {entropy!r}: choose from {', '.join(ENTROPY)}")
    if entropy == "range":
        return check_level(DEFAULT_LEVEL if level is None else level, model)
    backwards = entropy == "rans" and level == 1
    if level is not None and not backwards:
        raise LaconicError(
            f"{entropy} at level {level}: tables have no levels; leave the level out, or choose range "
            "(rans takes level 1 too, a model's predictions)"
        )
    if backwards and model is None:
        raise LaconicError(
            "rans at level 1 codes a model's predictions, and there is none: name a checkpoint by -m, or "
            "leave the level out"
        )
    if model is not None and model.others:
        raise LaconicError(f"{entropy} takes one checkpoint: name one by -m, or choose range")
    if streams is not None and not backwards:
        raise LaconicError(f"{entropy} with {streams} streams: tables have none; leave streams out")


def encode_segment(
    data: bytes,
    model: Model | None,
    streams: int | None = None,
    report: Report | None = None,
    level: int | None = None,
    entropy: str = "range",
) -> Segment:
    """The smallest coded form of `data`, at least one byte and at most MAX_SEGMENT, as far as samples tell.

    Args:
        model: None leaves experts, LZMA and raw.
        streams: 1..4096, or None for a number that suits the length.
        level: 1 for the model alone (or LZMA), 2 to 9 for more and more experts around it; None for the
            default.
        entropy: one of ENTROPY. What is not "range" is used as it was asked for, and no other method but raw,
            where that is smaller: rans at level 1 for the model's predictions; without a level, tables of
            tokens or, without a model, of bytes.
    """
    check_entropy(entropy, level, model, streams)
    best = Segment(RAW, len(data), data)
    if entropy != "range":
        return _smaller(best, _as_asked(data, model, streams, entropy, level, report))
    level = DEFAULT_LEVEL if level is None else level
    sign_of_life = _part(report, 0.0, 0.0)
    packed = encode_lzma(data, sign_of_life)
    if len(packed) < len(data):
        best = Segment(LZMA, len(data), packed)
    if len(packed) < LZMA_IS_ENOUGH * len(data) and len(data) >= REPETITIVE:
        return best
    if level == 1:
        return best if model is None else _smaller(best, _by_model_alone(data, model, streams, best, report))
    if best.method == RAW and _is_noise(data, level, sign_of_life):
        return best
    helps = model is not None and model_helps(data, model, level, streams, sign_of_life)
    share = 1.0 if helps else SHARE  # of the time, for what comes first where both are tried
    if model is not None and helps is not False:
        first = _part(report, 0.0, share)
        best = _smaller(best, _mixing().encode_mixed(data, model, level, streams, _stored_size(best), first))
    if not helps:
        rest = _part(report, share if helps is None else 0.0, 1.0)
        best = _smaller(best, _mixing().encode_experts(data, level, _stored_size(best), rest))
    return best


def _as_asked(
    data: bytes,
    model: Model | None,
    streams: int | None,
    entropy: str,
    level: int | None,
    report: Report | None,
) -> Segment:
    if level is None:
        from .tabled import encode_tabled

        return encode_tabled(data, model, entropy)
    from .backwards import encode_backwards

    assert model is not None
    return encode_backwards(data, model, streams, report)


def _part(report: Report | None, begin: float, end: float) -> Report | None:
    """What tells of a part of the whole."""
    return None if report is None else lambda done: report(begin + done * (end - begin))


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


def _sample(data: bytes, size: int) -> bytes:
    """Windows spread evenly over the segment, put end to end: `size` bytes."""
    length = size // WINDOWS
    step = (len(data) - length) // (WINDOWS - 1)
    return b"".join([data[at * step : at * step + length] for at in range(WINDOWS)])


def _is_noise(data: bytes, level: int, report: Report | None) -> bool:
    """Whether a sample of what LZMA cannot shorten is noise to the experts too."""
    if len(data) < 2 * SAMPLE:
        return False
    sample = _sample(data, SAMPLE)
    return _mixing().encode_experts(sample, level, int(INCOMPRESSIBLE * len(sample)), report) is None


def model_helps(
    data: bytes, model: Model, level: int, streams: int | None, report: Report | None
) -> bool | None:
    """Whether a sample is smaller with the model; None where that does not settle it, and both are tried."""
    if len(data) < 2 * SAMPLE or streams is not None:  # a sample tells nothing of streams that were asked for
        return None
    (ratio, at_best), trusted = _promised(data, model, level, SAMPLE, report), TRUSTED
    if trusted <= ratio and at_best <= HOPELESS and len(data) >= LONG:
        (ratio, at_best), trusted = _promised(data, model, level, LARGER, report), TRUSTED_LARGER
    return True if ratio < trusted else False if at_best > HOPELESS else None


def _promised(data: bytes, model: Model, level: int, size: int, report: Report | None) -> tuple[float, float]:
    """Bytes with the model to bytes by the experts alone, as a sample of `size` bytes promises; and at best.

    The longer a segment, the more the experts learn by themselves, and the less a model has to add.
    """
    sample = _sample(data, size)
    alone = _mixing().encode_experts(sample, level, len(sample), report)
    limit = len(sample) if alone is None else len(alone.payload)
    mixed = _mixing().encode_mixed(sample, model, level, None, limit, report)
    if mixed is None:
        return math.inf, math.inf
    ratio, doublings = len(mixed.payload) / limit, math.log2(len(data) / size)
    at_least = LOST if model.macs_per_token else LOST_BY_NGRAMS
    return ratio + LOST * doublings, ratio + at_least * doublings


def decode_segment(
    segment: Segment,
    model: Model | None,
    report: Report | None = None,
    memory: int = MEMORY_LIMIT,
    reference: Reference | None = None,
) -> bytes:
    """The original bytes; `model` is needed for the methods BY_MODEL only.

    Raises:
        DamageError: the payload is not what an encoder writes.
        LaconicError: the segment asks for more than `memory` bytes, or for another reference.
    """
    if segment.learned is not None:
        from .mixing.primed import decode_primed

        known = check_reference(segment.reference, reference)
        return decode_primed(segment, known.data, model, memory, report)
    if segment.method == RAW:
        return segment.payload
    if segment.method == LZMA:
        return decode_lzma(segment.payload, segment.original_length)
    if segment.method == EXPERTS:
        return _mixing().decode_experts(segment, memory, report)
    if segment.method in BY_TABLE:
        from .tabled import decode_tabled

        return decode_tabled(segment, model, memory)
    assert model is not None
    if segment.method == MIXED:
        return _mixing().decode_mixed(segment, model, memory, report)
    if segment.method == RANS:
        from .backwards import decode_backwards

        return decode_backwards(segment, model, memory, report)
    from .direct import decode_direct

    return decode_direct(segment, model, memory, report)
