"""What `laconic bench --speed` found: tables, JSON, and the account beneath."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..coder.mixing.experts import DEFAULT_LEVEL
from ..coder.parallel import cores
from .machine import Peaks, processor
from .report import rate, table
from .shares import Step
from .timing import REPETITIONS, Pace, count
from .whole import Whole, whole_table

WAYS = ("encode", "decode")


@dataclass(frozen=True)
class Work:
    """What the checkpoint asks for, what evaluates it, and what the machine gives.

    Attributes:
        cache_bytes_per_token: of keys and values that are read.
        kernel: what the engine's products are made of, in its own words.
        step: where the engine tells.
    """

    macs_per_token: int
    cache_bytes_per_token: int
    bytes_per_token: float
    peaks: Peaks
    engine: str
    kernel: str
    step: Step | None = None

    def operations_per_second(self, pace: Pace, seconds: float) -> float:
        """Two a multiply-accumulate."""
        return 2 * self.macs_per_token * pace.tokens / seconds

    def shares(self, pace: Pace, seconds: float) -> dict[str, float]:
        """The part of each peak on as many threads that an engine reaches, where the peak is known."""
        reached = self.operations_per_second(pace, seconds)
        return {
            peak.kind: reached / peak.operations_per_second[pace.threads]
            for peak in self.peaks.known
            if pace.threads in peak.operations_per_second
        }

    def as_json(self, engines: Sequence[Pace]) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "kernel": self.kernel,
            "macs_per_token": self.macs_per_token,
            "macs_per_byte": self.macs_per_token / self.bytes_per_token,
            "cache_bytes_per_token": self.cache_bytes_per_token,
            "bytes_per_token": self.bytes_per_token,
            "peaks": self.peaks.as_json(),
            "reached": [
                {
                    "part": pace.part,
                    "threads": pace.threads,
                    "streams": pace.streams,
                    **{
                        way: {
                            "operations_per_second": self.operations_per_second(pace, seconds),
                            "share_of": self.shares(pace, seconds),
                        }
                        for way, seconds in zip(WAYS, (pace.encode_seconds, pace.decode_seconds), strict=True)
                    },
                }
                for pace in engines
            ],
            "step": self.step and self.step.as_json(),
        }


@dataclass(frozen=True)
class Speed:
    """What one run found.

    Attributes:
        text: what the parts were measured on, in words.
        streams: that the highest level chooses.
        work: None without a model.
    """

    text: str
    streams: int
    whole: Sequence[Whole]
    paces: Sequence[Pace]
    work: Work | None
    load: float | None  # processes that wanted a core in the minute before, where the system tells

    @property
    def engines(self) -> list[Pace]:
        return [pace for pace in self.paces if pace.is_engine]

    def as_text(self) -> str:
        """The tables, and the account beneath."""
        parts = [whole_table(self.whole), self._parts_table()]
        if self.work is not None:
            parts += [self._operations_table(self.work)] if self.work.macs_per_token else []
            parts += [self.work.step.as_text()] if self.work.step else []
        return "\n\n".join([*parts, "\n".join(self._account())])

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
            "whole": [whole.as_json() for whole in self.whole],
            "text": self.text,
            "streams": self.streams,
            "parts": [
                {**pace.as_json(), "share_of_decoding": self._share_of_decoding(pace)} for pace in self.paces
            ],
            "work": self.work and self.work.as_json(self.engines),
        }

    def _parts_table(self) -> str:
        with_tokens = self.work is not None
        units = ["tokens/s", "KB/s"] if with_tokens else ["KB/s"]
        head = [f"{way} {unit}" for way in WAYS for unit in units]
        rows = [["alone", *head, *(["of decoding"] if with_tokens else [])]]
        for pace in self.paces:
            row = [pace.part]
            for seconds in (pace.encode_seconds, pace.decode_seconds):
                row += [f"{pace.tokens / seconds:,.0f}"] if with_tokens else []
                row.append(rate(pace.bytes / 1e3 / seconds))
            share = self._share_of_decoding(pace)
            rows.append([*row, "" if share is None else f"{share:.0%}"] if with_tokens else row)
        return table(rows)

    def _share_of_decoding(self, pace: Pace) -> float | None:
        """A coder's part of the time that it takes together with the engine on one thread."""
        if pace.level is None or pace.streams is None:
            return None
        engine = next(e for e in self.engines if (e.streams, e.threads) == (pace.streams, 1))
        return pace.decode_seconds / (
            pace.decode_seconds + engine.decode_seconds * pace.tokens / engine.tokens
        )

    def _operations_table(self, work: Work) -> str:
        """GOPS of the engine and of large products, and the first as parts of the second."""
        kinds = [peak.kind for peak in work.peaks.known]
        rows = [["GOPS", *(word for way in WAYS for word in (way, *(f"of {kind}" for kind in kinds)))]]
        for pace in self.engines:
            row = [pace.part]
            for seconds in (pace.encode_seconds, pace.decode_seconds):
                shares = work.shares(pace, seconds)
                row.append(f"{work.operations_per_second(pace, seconds) / 1e9:,.1f}")
                row += [f"{shares[kind]:.1%}" if kind in shares else "" for kind in kinds]
            rows.append(row)
        for peak in work.peaks.known:
            for threads, reached in peak.operations_per_second.items():
                name = f"{peak.kind} GEMM, {peak.size}^3, {count(threads, 'thread')}"
                row = [name, *[""] * (len(rows[0]) - 1)]
                row[1] = row[2 + len(kinds)] = f"{reached / 1e9:,.1f}"
                rows.append(row)
        return table(rows) + (f"\n{work.peaks.without_int8}" if work.peaks.without_int8 else "")

    def _account(self) -> list[str]:
        load = "" if self.load is None else f"; load {self.load:.1f} in the minute before"
        lines = [
            f"text         {self.text}",
            f"machine      {count(cores(), 'core')}, {processor()}{load}",
            f"timing       compiled before, median of up to {REPETITIONS}; one core unless a row says more",
        ]
        if self.work is None:
            return lines
        work = self.work
        decoding = [
            f"level {pace.level} {1 - share:.0%} engine and {share:.0%} {pace.part.partition(' ')[0]}"
            for pace in self.paces
            if pace.level in (1, DEFAULT_LEVEL) and (share := self._share_of_decoding(pace)) is not None
        ]
        lines += [
            f"engine       {work.engine}",
            f"kernel       {work.kernel}",
            *([f"decoding     {'; '.join(decoding)}, alone, on one core"] if decoding else []),
        ]
        if not work.macs_per_token:
            return lines
        return [
            *lines,
            f"work         {work.macs_per_token / work.bytes_per_token / 1e6:.3f} M multiply-accumulates "
            f"a byte, {work.macs_per_token / 1e6:.3f} M a token of {work.bytes_per_token:.2f} bytes; "
            f"{work.cache_bytes_per_token / 1e3:,.1f} KB of keys and values read a token",
            "GOPS         10^9 operations a second: two a multiply-accumulate",
        ]
