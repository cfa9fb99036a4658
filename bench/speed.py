"""`laconic bench --speed`: the whole codec, its parts alone, and what the machine can do, in one run.

Each part is the codec's own code, timed alone: the engine, whose logits are thrown away, and the coders,
behind an engine that only hands out logits computed before. A coder uses one core. The engine is measured on
one, at each number of streams that a level chooses and at one stream, and on all. The parts are called step
by step when they decode; the whole codec decodes by one kernel of both where the engine is numba.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..coder.codec import LEVELS
from ..coder.encoder import check_streams
from ..coder.errors import LaconicError
from ..coder.files import SEGMENT_SIZE, open_model
from ..coder.lockstep import TOKENS_PER_STREAM, chunk_steps, fed_before, in_lockstep, num_streams
from ..coder.model import Model
from ..coder.parallel import cores, in_order
from .coders import coder_paces, experts_pace
from .machine import load_before, peaks
from .shares import take_apart
from .speed_report import Speed, Work
from .subject import compile_kernels
from .timing import Pace, count, median, once
from .whole import measure_whole

if TYPE_CHECKING:
    from ..coder.engine import Engine

SAMPLE_BYTES = 1 << 19  # of the text that is looked at, and a core of what the whole codec codes
MEASURED = 1 << 17  # tokens that a repetition codes, or bytes without a model: no more
LOGITS_BYTES = 1 << 28  # that are held at once
TRIED = 16  # steps that tell how fast an engine is
LONGEST_SECONDS = 10.0  # of a repetition: a slow engine is given fewer tokens

Ids = npt.NDArray[np.int32]


def measure_speed(
    data: bytes,
    model: str,
    levels: Sequence[int] = LEVELS,
    engine: str | None = None,
    streams: int | None = None,
) -> Speed:
    """Time whole and parts on a sample of `data`.

    Args:
        model: a checkpoint's name, path or id, or "none".
        levels: of the coders; the whole codec is measured at level 1 too, where there is a model.
        engine: None for the fastest.
        streams: 1..4096, or None for the number that each level chooses.

    Raises:
        LaconicError: no bytes, no checkpoint or engine of that name, a number out of range, level 1 alone
            without a model, or other bytes that came back.
    """
    if not data:
        raise LaconicError("there is not one byte to measure; give files that are not empty")
    check_streams(streams)
    opened = open_model(model, engine, threads=1)
    compile_kernels(opened)
    load = load_before()
    if opened is None:
        return _without_model(data, levels, load)
    if opened.others:
        raise LaconicError(
            f"{model} means several checkpoints, and speeds are measured of one: name one of them"
        )
    on_all = open_model(model, engine, threads=cores())
    assert on_all is not None
    return _with_model(data, opened, on_all, levels, streams, load)


def _without_model(data: bytes, levels: Sequence[int], load: float | None) -> Speed:
    levels = [level for level in levels if level > 1]
    if not levels:
        raise LaconicError("level 1 without a model leaves nothing to measure: choose levels from 2 to 9")
    sample = data[:MEASURED]
    return Speed(
        f"the first {len(sample):,} of {len(data):,} bytes",
        1,
        measure_whole(data[: cores() * SAMPLE_BYTES], None, levels),
        [experts_pace(sample, level) for level in levels],
        None,
        load,
    )


def _with_model(
    data: bytes, model: Model, on_all: Model, levels: Sequence[int], streams: int | None, load: float | None
) -> Speed:
    whole = measure_whole(data[: cores() * SAMPLE_BYTES], on_all, sorted({1, *levels}), streams)
    sample = data[:SAMPLE_BYTES]
    tokenize_seconds, ids = median(lambda: model.tokenize(sample))
    join_seconds, _ = median(lambda: model.join(ids))
    paces = [Pace("tokenizer", None, 1, None, len(ids), len(sample), tokenize_seconds, join_seconds)]

    segment_bytes = min(len(data), SEGMENT_SIZE)
    groups = _by_streams(levels, len(ids) * segment_bytes // len(sample), len(ids), streams)
    chosen = next(number for number, its in groups.items() if max(levels) in its)
    targets = {number: _targets(ids, number, model.engine) for number in groups}
    small = _targets(ids[:TOKENS_PER_STREAM], 1, model.engine)  # what has one stream unless told otherwise
    for number, its in {1: small, **targets}.items():
        paces += _engine_paces(model, on_all, its, number == chosen)
    for number, its in groups.items():
        paces += coder_paces(model, targets[number], segment_bytes, its)

    config, coded = model.checkpoint.config, targets[chosen]
    work = Work(
        config.macs_per_token(),
        config.cache_bytes_per_token(),
        len(sample) / len(ids),
        peaks(),
        model.engine.name,
        model.engine.kernel,
        take_apart(model.engine, fed_before(coded, model.engine.vocab_size)),
    )
    text = (
        f"{len(model.join(coded.reshape(-1))):,} bytes, {coded.shape[1]:,} steps of "
        f"{count(chosen, 'stream')}, of the first {len(sample):,} of {len(data):,} bytes"
    )
    return Speed(text, chosen, whole, paces, work, load)


def _by_streams(levels: Sequence[int], tokens: int, most: int, wanted: int | None) -> dict[int, list[int]]:
    """The levels by the number of streams that they choose for a segment of `tokens`, at most `most`."""
    from ..coder import direct
    from ..coder.mixing import coding

    groups: dict[int, list[int]] = {}
    for level in levels:
        usual = direct.DEFAULT_STREAMS if level == 1 else coding.DEFAULT_STREAMS
        groups.setdefault(min(num_streams(tokens, wanted, usual), most), []).append(level)
    return groups


def _targets(ids: Ids, streams: int, engine: "Engine") -> Ids:
    """The first tokens of each stream [S, T], as many as can be held and do not take too long."""
    room = LOGITS_BYTES // (4 * engine.vocab_size * streams)
    steps = max(1, min(len(ids) // streams, MEASURED // streams, room))
    return np.ascontiguousarray(in_lockstep(ids, streams)[0][:, : _steps(engine, streams, steps)])


def _steps(engine: "Engine", streams: int, most: int) -> int:
    """Steps that do not take the engine too long."""
    fed = np.zeros((streams, TRIED), dtype=np.int32)
    _feed(engine, fed[:, :4], 1)
    seconds, _ = once(lambda: _feed(engine, fed, 1))
    return max(1, min(most, int(LONGEST_SECONDS / seconds * TRIED)))


def _engine_paces(model: Model, on_all: Model, targets: Ids, is_chosen: bool) -> list[Pace]:
    """The engine on one core, and for the chosen number of streams on all, a segment each."""
    engine, streams, paces = model.engine, len(targets), list[Pace]()
    fed, chunk = fed_before(targets, engine.vocab_size), chunk_steps(streams, engine.vocab_size)
    length = len(model.join(targets.reshape(-1)))

    def add(where: str, threads: int, segments: int, feed: Callable[[int], None]) -> None:
        encode_seconds, _ = median(lambda: feed(chunk))
        decode_seconds, _ = median(lambda: feed(1))
        part = f"engine {engine.name}, {count(streams, 'stream')}, {where}"
        tokens, size = segments * targets.size, segments * length
        paces.append(Pace(part, None, threads, streams, tokens, size, encode_seconds, decode_seconds))

    _feed(engine, fed[:, :chunk], chunk)
    add("1 thread", 1, 1, partial(_feed, engine, fed))
    if is_chosen and cores() > 1:
        if engine.name == "torch":
            add(count(cores(), "thread"), cores(), 1, partial(_feed, on_all.engine, fed))
        add(count(cores(), "segment"), cores(), cores(), partial(_feed_at_once, on_all.engine, fed))
    return paces


def _feed(engine: "Engine", fed: Ids, chunk: int) -> None:
    state = engine.start(len(fed))
    for begin in range(0, fed.shape[1], chunk):
        engine.advance(state, fed[:, begin : begin + chunk])


def _feed_at_once(engine: "Engine", fed: Ids, chunk: int) -> None:
    """The same on every core at the same time, as segments are worked on."""
    for _ in in_order(lambda ids, check: _feed(engine, ids, chunk), [fed] * cores(), cores()):
        pass
