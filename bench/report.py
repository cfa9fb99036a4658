"""Measurements as text and JSON: the tables, and the account of what they do and do not say."""

import hashlib
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ..coder import segment
from .measure import CodecResult, Measurement, Sample

if TYPE_CHECKING:
    from ..coder.checkpoint import FrozenCheckpoint

NAME_WIDTH = 32
NOT_KNOWN = "not known"
BY_MODEL = {segment.METHOD_NAMES[method] for method in segment.BY_MODEL}


@dataclass(frozen=True)
class Report:
    """What one run of the bench found.

    Attributes:
        results: one a codec, all on the same samples; ours are those with a level.
        left_out: a line about each peer that is not installed.
        checkpoints: those that our codec used, together.
    """

    samples: Sequence[Sample]
    results: Sequence[CodecResult]
    left_out: Sequence[str] = ()
    checkpoints: Sequence["FrozenCheckpoint"] = ()

    @property
    def ours(self) -> list[CodecResult]:
        return [result for result in self.results if result.level is not None]

    @property
    def peers(self) -> list[CodecResult]:
        return [result for result in self.results if result.level is None]

    @property
    def checkpoint_bytes(self) -> int:
        """Of all of them."""
        return sum(checkpoint.size_bytes for checkpoint in self.checkpoints)

    @property
    def checkpoint_used(self) -> bool:
        """Whether the model coded any of what counts for the break-even: our smallest output."""
        return not BY_MODEL.isdisjoint(_smallest(self.ours).methods)

    def text(self) -> str:
        """Tables of bytes, bits per byte and speed, then the account."""
        return "\n\n".join([self.bytes_table(), self.bits_table(), self.speed_table(), self.account()])

    def bytes_table(self) -> str:
        """Compressed bytes: a row a file, and the total."""
        return self._size_table("compressed bytes", lambda x: f"{x.compressed_bytes:,}")

    def bits_table(self) -> str:
        """Bits per byte: a row a file, and the total."""
        return self._size_table("bits per byte", lambda x: f"{x.bits_per_byte:.3f}")

    def speed_table(self) -> str:
        """Speeds, the cost of the first use, memory and version of each codec."""
        rows = [
            [
                r.codec,
                rate(r.compress_kb_per_second),
                rate(r.decompress_kb_per_second),
                f"{r.ready_seconds:.2f}",
                "-" if r.peak_bytes is None else f"{r.peak_bytes / 1e6:.0f}",
                r.version,
            ]
            for r in self.results
        ]
        return table([["KB/s", "compress", "decompress", "ready s", "+MB", "version"], *rows])

    def account(self) -> str:
        """How it was measured, what the checkpoint weighs and has seen, and from where on it pays."""
        lines = [
            "Every round trip was compared and is equal. Each codec ran once, in this process, one after the",
            "other; 'ready' is its first use (checkpoint, engine), compilation was done before and is in no",
            "timing; '+MB' is the growth of memory.",
            *self._external_lines(),
            *self.left_out,
            *self._method_lines(),
        ]
        if self.checkpoints:
            lines += ["", *self._checkpoint_lines()]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """All of it, for json.dump."""
        return {
            "machine": {"platform": platform.platform(), "python": platform.python_version()},
            "files": [
                {
                    "name": s.name,
                    "bytes": len(s.data),
                    "sha256": _sha256(s.data),
                    "seen_in_training": self.seen(s),
                }
                for s in self.samples
            ],
            "codecs": [result.as_json() for result in self.results],
            "left_out": list(self.left_out),
            "checkpoint": {
                "members": [
                    {"id": member.id.hex(), "path": str(member.path), "bytes": member.size_bytes}
                    for member in self.checkpoints
                ],
                "bytes": self.checkpoint_bytes,
                "used": self.checkpoint_used,
                "break_even_bytes": self.break_even_bytes(),
            }
            if self.checkpoints
            else None,
        }

    def seen(self, sample: Sample) -> str:
        """Whether a checkpoint was trained on these bytes, as far as it can be known.

        The training summary holds digests of whole sources, so a match proves that the file was seen and
        its absence proves nothing: a source may hold the file among others.
        """
        if sample.note:
            return sample.note
        corpora = [entry for each in self.checkpoints for entry in each.summary.get("corpora") or []]
        digests = {entry.get("sha256") for entry in corpora}
        return "yes, it is one of the training sources" if _sha256(sample.data) in digests else NOT_KNOWN

    def break_even_bytes(self) -> int | None:
        """Bytes of such text from which checkpoints and output together are below the best peer's output.

        Ours is that of the level with the smallest output. None where there is no checkpoint or it was not
        used, no peer, or no gain a byte.
        """
        if not self.checkpoints or not self.peers or not self.checkpoint_used:
            return None
        gain_bits_per_byte = _smallest(self.peers).bits_per_byte - _smallest(self.ours).bits_per_byte
        if gain_bits_per_byte <= 0:
            return None
        return round(self.checkpoint_bytes / (gain_bits_per_byte / 8))

    def break_even_line(self) -> str:
        """The same, as a sentence."""
        ours, best, size = _smallest(self.ours), _smallest(self.peers), self.break_even_bytes()
        if not self.checkpoint_used:
            return f"none: {ours.codec} did not use the checkpoint, which makes nothing here smaller"
        if size is None:
            return f"never: {best.codec} makes these files no larger than {ours.codec} does"
        by = f" by {ours.codec}" if len(self.ours) > 1 else ""
        return (
            f"{size:,} bytes of such text{by}; beyond, output and checkpoint are below {best.codec}'s output"
        )

    def _external_lines(self) -> list[str]:
        """What the speeds of programs include."""
        names = ", ".join(result.codec for result in self.results if result.external)
        if not names:
            return []
        return [
            f"Programs, each in a process of its own: {names}. Their speeds include the start of the",
            "program and its files in a temporary folder; their memory is not measured.",
        ]

    def _method_lines(self) -> list[str]:
        """Which part of the files our codec's model coded, where it was not all."""
        if not self.checkpoints:
            return []
        lines: list[str] = []
        for result in self.ours:
            if set(result.methods) <= BY_MODEL:
                continue
            total = sum(result.methods.values())
            shares = ", ".join(f"{name} {size / total:.1%}" for name, size in result.methods.items())
            part = "none" if BY_MODEL.isdisjoint(result.methods) else "not all"
            who = f"{result.codec}: {part}" if len(self.ours) > 1 else part.capitalize()
            lines.append(f"{who} of it was coded by the model, but what is smallest: {shares} of the bytes.")
        return lines

    def _checkpoint_lines(self) -> list[str]:
        answers: dict[str, list[str]] = {}
        for sample in self.samples:
            answers.setdefault(self.seen(sample), []).append(sample.name)
        return [
            *(f"checkpoint   {each.path}, id {each.id.hex()[:16]}" for each in self.checkpoints),
            f"bytes        {self.checkpoint_bytes:,}, not counted in the tables",
            *(
                f"seen before  {answer}{'' if len(answers) == 1 else ': ' + ', '.join(short_names(names))}"
                for answer, names in answers.items()
            ),
            *([f"break-even   {self.break_even_line()}"] if self.peers else []),
        ]

    def _size_table(self, heading: str, cell: Callable[[Measurement | CodecResult], str]) -> str:
        names = short_names([sample.name for sample in self.samples])
        rows = [
            [name, f"{len(sample.data):,}", *(cell(r.measurements[i]) for r in self.results)]
            for i, (name, sample) in enumerate(zip(names, self.samples, strict=True))
        ]
        total = sum(len(sample.data) for sample in self.samples)
        foot = ["total", f"{total:,}", *(cell(r) for r in self.results)] if len(self.samples) > 1 else None
        return table([[heading, "bytes", *(r.codec for r in self.results)], *rows], foot)


def _smallest(results: Sequence[CodecResult]) -> CodecResult:
    return min(results, key=lambda result: result.compressed_bytes)


def short_names(names: Sequence[str]) -> list[str]:
    """Names for a column: without folders where that leaves them distinct, and cut from the left."""
    last = [PurePath(name).name for name in names]
    chosen = last if len(set(last)) == len(last) else names
    return [name if len(name) <= NAME_WIDTH else "..." + name[3 - NAME_WIDTH :] for name in chosen]


def table(rows: list[list[str]], foot: list[str] | None = None) -> str:
    """Aligned columns, the first to the left; rules under the head, which is rows[0], and over the foot."""
    everything = [*rows, *([foot] if foot else [])]
    widths = [max(len(row[i]) for row in everything) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in everything
    ]
    rule = "-" * len(lines[0])
    lines.insert(1, rule)
    if foot:
        lines.insert(-1, rule)
    return "\n".join(line.rstrip() for line in lines)


def rate(kb_per_second: float) -> str:
    return f"{kb_per_second:,.0f}" if kb_per_second >= 10 else f"{kb_per_second:.1f}"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
