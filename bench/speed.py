"""`laconic bench --speed`: where the time goes, part by part, beside what the machine can do.

Each part is the codec's own code, timed alone: the engine, whose logits are thrown away, and the coders,
behind an engine that only hands out logits computed before. A coder uses one core; the engine is measured on
one thread and on all.
"""

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..coder.codec import LEVELS
from ..coder.container import MIXED, MODEL, Segment
from ..coder.errors import LaconicError
from ..coder.files import SEGMENT_SIZE, open_model
from ..coder.lockstep import chunk_steps, fed_before, in_lockstep, num_streams
from ..coder.model import Model
from ..coder.parallel import cores
from .machine import GEMM_SIZE, gemm_macs_per_second, load_before, processor
from .report import rate, table
from .subject import compile_kernels

if TYPE_CHECKING:
    from ..coder.engine import Engine

SAMPLE_BYTES = 1 << 19  # of the text that is looked at
MEASURED = 1 << 17  # tokens that a repetition codes, or bytes without a model: no more
LOGITS_BYTES = 1 << 28  # that are held at once
REPETITIONS = 5
ENOUGH_SECONDS = 10.0  # of repetitions of one thing
NO_LIMIT = 1 << 62

Logits = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Pace:
    """Seconds that a part takes to encode and to decode `tokens` tokens (0: it codes bytes) of `bytes` bytes.

    Attributes:
        level: of a coder; None for what all levels share.
        threads: that it may use.
    """

    part: str
    level: int | None
    threads: int
    tokens: int
    bytes: int
    encode_seconds: float
    decode_seconds: float

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        for way, seconds in (("encode", self.encode_seconds), ("decode", self.decode_seconds)):
            found[f"{way}_kb_per_second"] = self.bytes / 1e3 / seconds
            if self.tokens:
                found[f"{way}_tokens_per_second"] = self.tokens / seconds
        return found


@dataclass(frozen=True)
class Work:
    """What the checkpoint asks for, and what the machine gives.

    Attributes:
        gemm_macs_per_second: threads -> float32 multiply-accumulates of a large product.
        kernel: what multiplies in the engine, in words.
    """

    macs_per_token: int
    bytes_per_token: float
    gemm_macs_per_second: dict[int, float]
    kernel: str

    def share(self, pace: Pace, seconds: float) -> float | None:
        """The part of the peak on as many threads that an engine reaches; None where nobody knows it."""
        peak = self.gemm_macs_per_second.get(pace.threads)
        return None if peak is None else pace.tokens * self.macs_per_token / seconds / peak

    def as_json(self, engines: Iterable[Pace]) -> dict[str, Any]:
        return {
            **asdict(self),
            "macs_per_byte": self.macs_per_token / self.bytes_per_token,
            "share_of_gemm": [
                {
                    "threads": pace.threads,
                    "encode": self.share(pace, pace.encode_seconds),
                    "decode": self.share(pace, pace.decode_seconds),
                }
                for pace in engines
            ],
        }


@dataclass(frozen=True)
class Speed:
    """What one run found.

    Attributes:
        text: what was measured, in words.
        work: None without a model.
    """

    text: str
    streams: int
    paces: Sequence[Pace]
    work: Work | None
    load: float | None  # processes that wanted a core in the minute before, where the system tells

    @property
    def engines(self) -> list[Pace]:
        return [pace for pace in self.paces if pace.part.startswith("engine")]

    def as_text(self) -> str:
        """The table, and the account beneath."""
        with_tokens = self.work is not None
        units = ["tokens/s", "KB/s"] if with_tokens else ["KB/s"]
        head = [f"{way} {unit}" for way in ("encode", "decode") for unit in units]
        rows = [["alone", *head, *(["of decoding"] if with_tokens else [])]]
        for pace in self.paces:
            row = [pace.part]
            for seconds in (pace.encode_seconds, pace.decode_seconds):
                row += [f"{pace.tokens / seconds:,.0f}"] if with_tokens else []
                row.append(rate(pace.bytes / 1e3 / seconds))
            rows.append([*row, self._share_of_decoding(pace)] if with_tokens else row)
        return table(rows) + "\n\n" + "\n".join(self._account())

    def as_json(self) -> dict[str, Any]:
        """All of it, for json.dump."""
        return {
            "machine": {
                "platform": platform.platform(),
                "python": platform.python_version(),
                "processor": processor(),
                "cores": cores(),
                "load_before": self.load,
            },
            "text": self.text,
            "streams": self.streams,
            "parts": [pace.as_json() for pace in self.paces],
            "work": self.work and self.work.as_json(self.engines),
        }

    def _share_of_decoding(self, pace: Pace) -> str:
        """A coder's part of the time that it takes together with the engine on one thread."""
        if pace.level is None:
            return ""
        engine = self.engines[0]
        return f"{pace.decode_seconds / (pace.decode_seconds + engine.decode_seconds):.0%}"

    def _load(self) -> str:
        return "" if self.load is None else f"; load {self.load:.1f} in the minute before"

    def _account(self) -> list[str]:
        lines = [
            f"text         {self.text}",
            f"machine      {_count(cores(), 'core')}, {processor()}{self._load()}",
            f"timing       compiled before, median of {REPETITIONS}; one core where nothing else is said",
        ]
        if self.work is None:
            return lines
        work, peaks = self.work, self.work.gemm_macs_per_second
        gemm = ", ".join(f"{peak / 1e9:.1f} G/s on {_threads(n)}" for n, peak in peaks.items())
        shares = [
            f"{encode:.1%} encoding and {decode:.1%} decoding on {_threads(pace.threads)}"
            for pace in self.engines
            if (encode := work.share(pace, pace.encode_seconds)) is not None
            and (decode := work.share(pace, pace.decode_seconds)) is not None
        ]
        return [
            *lines,
            f"work         {work.macs_per_token / work.bytes_per_token / 1e6:.3f} M multiply-accumulates "
            f"a byte, {work.macs_per_token / 1e6:.3f} M a token of {work.bytes_per_token:.2f} bytes",
            f"kernel       {work.kernel}",
            f"float32 GEMM {gemm} (multiply-accumulates, {GEMM_SIZE}^3)",
            *([f"engine       of that {'; '.join(shares)}"] if shares else []),
        ]


class Replay:
    """An engine that hands out logits computed before, piece after piece, int32 [S, T, V] each."""

    name = "replay"
    kernel = "none"

    def __init__(self, pieces: list[Logits]) -> None:
        self.pieces = pieces
        self.vocab_size: int = pieces[0].shape[2]

    def start(self, num_streams: int) -> list[Logits]:
        return self.pieces[::-1]

    def advance(self, state: list[Logits], ids: npt.NDArray[np.int32]) -> Logits:
        logits = state.pop()
        assert logits.shape[:2] == ids.shape
        return logits

    def in_steps(self) -> "Replay":
        """The same, a step at a time, as a decoder asks; the pieces here are given up to save memory."""
        steps: list[Logits] = []
        self.pieces.reverse()
        while self.pieces:
            piece = self.pieces.pop()
            steps += [np.ascontiguousarray(piece[:, t : t + 1]) for t in range(piece.shape[1])]
        return Replay(steps)


def measure_speed(data: bytes, model: str, levels: Sequence[int] = LEVELS) -> Speed:
    """Time the parts on a sample of `data`.

    Args:
        model: a checkpoint's name, path or id, or "none".
        levels: of the coders.

    Raises:
        LaconicError: no bytes, no checkpoint of that name, or level 1 alone without a model.
    """
    if not data:
        raise LaconicError("there is not one byte to measure; give files that are not empty")
    opened = open_model(model, threads=1)
    compile_kernels()
    load = load_before()
    if opened is None:
        return _without_model(data, levels, load)
    return _with_model(data, opened, model, levels, load)


def _without_model(data: bytes, levels: Sequence[int], load: float | None) -> Speed:
    from ..coder.mixing.coding import decode_experts, encode_experts

    levels = [level for level in levels if level > 1]
    if not levels:
        raise LaconicError("level 1 without a model leaves nothing to measure: choose levels from 2 to 9")
    sample, paces = data[:MEASURED], list[Pace]()
    for level in levels:
        encode_seconds, segment = _median(lambda level=level: encode_experts(sample, level, NO_LIMIT))
        assert segment is not None
        decode_seconds, restored = _median(lambda segment=segment: decode_experts(segment, NO_LIMIT))
        assert restored == sample
        paces.append(
            Pace(f"experts of level {level}", level, 1, 0, len(sample), encode_seconds, decode_seconds)
        )
    return Speed(f"the first {len(sample):,} of {len(data):,} bytes", 1, paces, None, load)


def _with_model(data: bytes, model: Model, name: str, levels: Sequence[int], load: float | None) -> Speed:
    from ..coder.mixing.coding import DEFAULT_STREAMS

    sample = data[:SAMPLE_BYTES]
    tokenize_seconds, ids = _median(lambda: model.tokenize(sample))
    join_seconds, _ = _median(lambda: model.join(ids))
    paces = [Pace("tokenizer", None, 1, len(ids), len(sample), tokenize_seconds, join_seconds)]

    vocab, whole = model.engine.vocab_size, min(len(data), SEGMENT_SIZE)
    streams = min(num_streams(len(ids) * whole // len(sample), None, DEFAULT_STREAMS), len(ids))
    steps = min(len(ids) // streams, MEASURED // streams, LOGITS_BYTES // (4 * vocab * streams))
    targets = np.ascontiguousarray(in_lockstep(ids, streams)[0][:, : max(1, steps)])
    fed, chunk = fed_before(targets, vocab), chunk_steps(streams, vocab)
    measured = len(model.join(targets.reshape(-1)))

    threads = {1, cores()} if model.engine.name == "torch" else {1}
    for number in sorted(threads):
        engine = model.engine if number == 1 else _engine(name, number)
        _feed(engine, fed[:, :chunk], chunk)
        _feed(engine, fed[:, :4], 1)
        encode_seconds, _ = _median(lambda engine=engine: _feed(engine, fed, chunk))
        decode_seconds, _ = _median(lambda engine=engine: _feed(engine, fed, 1))
        part = f"engine, {model.engine.name}, {_threads(number)}"
        paces.append(Pace(part, None, number, targets.size, measured, encode_seconds, decode_seconds))

    paces += _coders(model, targets, chunk, whole, measured, levels)
    config = model.checkpoint.config
    work = Work(config.macs_per_token(), len(sample) / len(ids), gemm_macs_per_second(), model.engine.kernel)
    text = (
        f"{measured:,} bytes, {targets.shape[1]:,} steps of {_count(streams, 'stream')}, of the first "
        f"{len(sample):,} of {len(data):,} bytes"
    )
    return Speed(text, streams, paces, work, load)


def _coders(
    model: Model, targets: npt.NDArray[np.int32], chunk: int, whole: int, measured: int, levels: Sequence[int]
) -> list[Pace]:
    """The coders behind logits that are there; their tables are those for a segment of `whole` bytes, new."""
    from ..coder.direct import decode_direct
    from ..coder.mixing.coding import decode_mixed, mix_tokens
    from ..coder.mixing.state import shape_for

    streams, ids = len(targets), targets.reshape(-1)
    state, fed = model.engine.start(streams), fed_before(targets, model.engine.vocab_size)
    pieces = [
        np.ascontiguousarray(model.engine.advance(state, fed[:, begin : begin + chunk]))
        for begin in range(0, targets.shape[1], chunk)
    ]
    ahead = Replay(pieces)
    replayed = Model(model.checkpoint, ahead)
    assert replayed.tree is not None  # built before it is timed

    encode_seconds: dict[int, float] = {}
    segments: dict[int, Segment] = {}
    for level in levels:
        if level == 1:
            encode_seconds[1], payload = _median(lambda: _encode_direct(ahead, targets, chunk))
            segments[1] = Segment(MODEL, measured, payload, ids.size, streams)
            continue
        slot_bits = shape_for(whole, level, streams, 1).slot_bits
        shape = shape_for(measured, level, streams, 1, slot_bits)
        encode_seconds[level], (mixed, _) = _median(
            lambda shape=shape: mix_tokens(ids, replayed, shape, NO_LIMIT)
        )
        assert mixed is not None
        segments[level] = Segment(MIXED, measured, mixed, ids.size, streams, shape.profile)

    stepwise = Model(model.checkpoint, ahead.in_steps())
    assert stepwise.tree is not None
    expected, paces = model.join(ids), list[Pace]()
    for level, segment in segments.items():
        decode_seconds, restored = _median(
            lambda level=level, segment=segment: (
                decode_direct(segment, stepwise, NO_LIMIT)
                if level == 1
                else decode_mixed(segment, stepwise, NO_LIMIT)
            )
        )
        assert restored == expected
        part = "coder of level 1" if level == 1 else f"mixer of level {level}"
        paces.append(Pace(part, level, 1, ids.size, measured, encode_seconds[level], decode_seconds))
    return paces


def _encode_direct(engine: Replay, targets: npt.NDArray[np.int32], chunk: int) -> bytes:
    """As coder/direct.py encodes, without the estimate that asks an engine for something else first."""
    from ..coder import kernels

    state, coder, out = engine.start(len(targets)), kernels.encoder_state(), np.zeros(0, dtype=np.uint8)
    for begin in range(0, targets.shape[1], chunk):
        coded = np.ascontiguousarray(targets[:, begin : begin + chunk])
        alive = np.full(coded.shape[1], len(targets), dtype=np.int32)
        out = kernels.with_room(out, coder, kernels.MAX_BYTES_PER_TOKEN * coded.size)
        kernels.encode_tokens(engine.advance(state, coded), coded, alive, coder, out)
    return out[: kernels.finish_encoding(coder, out)].tobytes()


def _feed(engine: "Engine", fed: npt.NDArray[np.int32], chunk: int) -> None:
    state = engine.start(len(fed))
    for begin in range(0, fed.shape[1], chunk):
        engine.advance(state, fed[:, begin : begin + chunk])


def _engine(name: str, threads: int) -> "Engine":
    opened = open_model(name, threads=threads)
    assert opened is not None
    return opened.engine


def _median(action: Callable[[], Any]) -> tuple[float, Any]:
    """(median seconds, the last result) of a few repetitions: fewer, where they take long."""
    seconds: list[float] = []
    while True:
        start = time.perf_counter()
        result = action()
        seconds.append(max(time.perf_counter() - start, 1e-9))
        if len(seconds) == REPETITIONS or sum(seconds) > ENOUGH_SECONDS:
            return statistics.median(seconds), result


def _threads(number: int) -> str:
    return _count(number, "thread")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
