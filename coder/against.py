"""Segments against a reference: what of it they learn from, and whether it helps at all."""

from collections.abc import Callable, Sequence
from functools import partial

from .codec import DEFAULT_LEVEL, SAMPLE, encode_segment, model_helps
from .copies import Copy, find_copies, gaps_between
from .errors import LaconicError
from .model import Model
from .reference import Reference
from .report import Report
from .segment import ENTROPY, RAW, Segment, pack_header

LEARNED = 1 << 23  # bytes of the reference, at most, that a segment learns from
LEARNED_AT_LEAST = 1 << 20  # of a longer one, and
LEARNED_PER_BYTE = 8  # for each byte that is no copy: what copies leave of a segment must not cost too much
COPIED = 16  # one byte in so many, in copies, is worth a try: the sample may lie beside them
HELPFUL = 0.98  # size of a sample with the reference, relative to without, from which on it is used

_Job = Callable[[int, Report | None], Segment | None]  # from a limit of its size


def check_against(
    reference: Reference | None, level: int | None, streams: int | None, entropy: str = ENTROPY[0]
) -> None:
    """Raises LaconicError for what does not go with a reference."""
    if reference is None:
        return
    if entropy != ENTROPY[0]:
        raise LaconicError(f"{entropy} takes no reference: experts learn from it; leave --entropy out")
    if level == 1:
        raise LaconicError("level 1 takes no reference: experts learn from it; choose a level from 2 to 9")
    if streams is not None and streams != 1:
        raise LaconicError(
            f"{streams} streams with a reference: one stream learns from it; leave streams out"
        )


def encode_against(
    data: bytes,
    model: Model | None,
    reference: Reference,
    position: int = 0,
    report: Report | None = None,
    level: int | None = None,
) -> Segment:
    """As `encode_segment`, or smaller, where the reference helps.

    Args:
        position: of the segment in the original: the reference is expected to be like it there.
        level: 2 to 9, or None for the default.
    """
    level = DEFAULT_LEVEL if level is None else level
    copies = find_copies(data, reference.data, reference.index)
    best, plain = Segment(RAW, len(data), data), True
    jobs = list[_Job]()
    left = len(data) - sum(copy.length for copy in copies)
    if helpful := 2 * left <= len(data):
        plain = len(data) - left > 2 * _covered(copies)  # what repeats the reference repeats itself as well
    elif len(data) >= 2 * SAMPLE:
        plain = not _helps(data, reference, position, level, report)
        helpful = not plain or COPIED * (len(data) - left) >= len(data)
    learned = _learned(len(data), reference, copies, position)
    if helpful or len(data) < 2 * SAMPLE:
        helps = False if model is None else model_helps(data, model, level, None, _alive(report))
        predictors = [model] * (helps is not False) + [None] * (not helps)
        ways: list[Sequence[Copy]] = [copies]
        if copies and len(data) < 2 * SAMPLE:
            ways.append([])
        for way in ways:
            place = learned if way is copies else _learned(len(data), reference, way, position)
            for predictor in predictors:
                jobs.append(partial(_primed, data, reference, place, way, predictor, level))
    if plain:
        jobs.append(lambda limit, report: encode_segment(data, model, None, report, level))
    for number, job in enumerate(jobs):
        coded = job(len(best.payload), _part(report, number, len(jobs)))
        if coded is not None and _stored_size(coded) < _stored_size(best):
            best = coded
    return best


def _covered(copies: Sequence[Copy]) -> int:
    """Bytes of the reference that are copied, each counted once."""
    covered = end = 0
    for source, length in sorted((copy.source, copy.length) for copy in copies):
        covered += max(0, source + length - max(source, end))
        end = max(end, source + length)
    return covered


def _primed(
    data: bytes, reference: Reference, learned: tuple[int, int], copies: Sequence[Copy], model: Model | None,
    level: int, limit: int, report: Report | None,
) -> Segment | None:  # fmt: skip
    from .mixing.primed import encode_primed

    return encode_primed(data, reference.data, learned, copies, model, level, limit, report)


def _learned(length: int, reference: Reference, copies: Sequence[Copy], position: int) -> tuple[int, int]:
    """Place and length of what a segment of `length` bytes learns from: around what is like its gaps."""
    gaps = [(end - begin, copy) for begin, end, copy in gaps_between(copies, length)]
    left, seen, middle = sum(size for size, _ in gaps), 0, position + length // 2
    for size, copy in gaps:
        seen += size
        if copies and 2 * seen >= left:
            middle = copies[-1].source + copies[-1].length if copy is None else copy.source
            break
    size = min(len(reference.data), LEARNED, max(LEARNED_AT_LEAST, LEARNED_PER_BYTE * left)) if left else 0
    return max(0, min(middle - size // 2, len(reference.data) - size)) if size else 0, size


def _helps(data: bytes, reference: Reference, position: int, level: int, report: Report | None) -> bool:
    """Whether a sample, taken from the middle, is smaller after a part of the reference."""
    from .mixing.coding import encode_experts

    begin = (len(data) - SAMPLE) // 2
    sample, alive = data[begin : begin + SAMPLE], _alive(report)
    alone = encode_experts(sample, level, len(sample), alive)
    limit = int(HELPFUL * (len(sample) if alone is None else len(alone.payload)))
    learned = _learned(len(sample), reference, [], position + begin)
    return _primed(sample, reference, learned, [], None, level, limit, alive) is not None


def _alive(report: Report | None) -> Report | None:
    """What tells that nothing is done yet."""
    return None if report is None else lambda done: report(0.0)


def _part(report: Report | None, number: int, total: int) -> Report | None:
    return None if report is None else lambda done: report((number + done) / total)


def _stored_size(segment: Segment) -> int:
    return len(pack_header(segment)) + len(segment.payload)
