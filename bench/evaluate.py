"""`laconic eval`: the code length of files under a checkpoint, without coding, and where the bits go.

The weights are those that the coder uses; only their logarithms are taken in float64, for the report.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..coder.checkpoint import FrozenCheckpoint
from ..coder.commands.shared import Once, count
from ..coder.engine import ENGINES, Engine, load_engine
from ..coder.errors import LaconicError
from ..coder.registry import find
from .measure import Sample, read_samples
from .outputs import check_output, write_output

CHUNK_LOGITS = 1 << 20  # logits held at once
CHUNK_TOKENS = 512
TOP = 10
CONTEXT_BYTES = 24
CLASSES = ("letters", "digits", "whitespace", "punctuation", "control", "high bytes")


@dataclass(frozen=True)
class CodeLength:
    """The code length of one byte string, token by token.

    Attributes:
        ids: int32 [N].
        starts: int64 [N], the offset of each token in bytes.
        token_bits: float64 [N], -log2 of the coded probability of each.
    """

    num_bytes: int
    ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    token_bits: npt.NDArray[np.float64]

    @property
    def bits(self) -> float:
        return float(self.token_bits.sum())

    @property
    def bits_per_byte(self) -> float:
        return self.bits / self.num_bytes if self.num_bytes else 0.0


def code_length(checkpoint: FrozenCheckpoint, engine: Engine, data: bytes) -> CodeLength:
    """Predict `data` as one stream from a fresh state.

    A compressed file is a little longer: its streams start anew, and it has a container.
    """
    from ..coder.kernels import code_lengths

    ids = checkpoint.tokenizer.encode(data)
    fed = np.concatenate(([engine.vocab_size], ids[:-1])).astype(np.int32)  # the begin token comes first
    chunk = max(1, min(CHUNK_TOKENS, CHUNK_LOGITS // engine.vocab_size))
    state = engine.start(1)
    bits = np.zeros(len(ids))
    for start in range(0, len(ids), chunk):
        logits = engine.advance(state, fed[None, start : start + chunk])[0]
        targets = np.ascontiguousarray(ids[start : start + chunk], dtype=np.int32)
        bits[start : start + chunk] = code_lengths(np.ascontiguousarray(logits), targets)
    lengths = np.array([len(token) for token in checkpoint.token_bytes], dtype=np.int64)[ids]
    return CodeLength(len(data), ids, np.cumsum(lengths) - lengths, bits)


def code_length_bits(checkpoint: FrozenCheckpoint, engine: Engine, data: bytes) -> float:
    """The code length of `data` in bits, as one stream."""
    return code_length(checkpoint, engine, data).bits


def byte_class(first: int) -> str:
    """The class of a token by its first byte, one of CLASSES."""
    character = chr(first)
    if first >= 0x80:
        return "high bytes"
    if character.isalpha():
        return "letters"
    if character.isdigit():
        return "digits"
    if character.isspace():
        return "whitespace"
    return "punctuation" if character.isprintable() else "control"


def bits_by_class(length: CodeLength, token_bytes: list[bytes]) -> list[tuple[str, int, int, float]]:
    """(class, tokens, bytes, bits) of each class that occurs, the most bits first."""
    class_of_id = np.array([CLASSES.index(byte_class(token[0])) for token in token_bytes])
    bytes_of_id = np.array([len(token) for token in token_bytes])
    classes, count = class_of_id[length.ids], len(CLASSES)
    tokens = np.bincount(classes, minlength=count)
    sizes = np.bincount(classes, weights=bytes_of_id[length.ids], minlength=count)
    bits = np.bincount(classes, weights=length.token_bits, minlength=count)
    rows = [(CLASSES[i], int(tokens[i]), int(sizes[i]), float(bits[i])) for i in range(count) if tokens[i]]
    return sorted(rows, key=lambda row: -row[3])


def costliest_tokens(length: CodeLength, token_bytes: list[bytes]) -> list[tuple[bytes, int, float]]:
    """(token, times, bits) of the ten tokens that took most bits in all."""
    size = len(token_bytes)
    bits = np.bincount(length.ids, weights=length.token_bits, minlength=size)
    times = np.bincount(length.ids, minlength=size)
    order = [int(i) for i in np.argsort(-bits, kind="stable")[:TOP] if times[i]]
    return [(token_bytes[i], int(times[i]), float(bits[i])) for i in order]


def costliest_places(
    length: CodeLength, data: bytes, token_bytes: list[bytes]
) -> list[tuple[int, float, bytes, bytes]]:
    """(offset, bits, what stood before, token) of the ten dearest single tokens."""
    order = np.argsort(-length.token_bits, kind="stable")[:TOP]
    places = [
        (int(length.starts[i]), float(length.token_bits[i]), token_bytes[int(length.ids[i])]) for i in order
    ]
    return [(at, bits, data[max(0, at - CONTEXT_BYTES) : at], token) for at, bits, token in places]


def summarise(sample: Sample, length: CodeLength) -> dict[str, Any]:
    """One file's figures, for json.dump."""
    tokens = len(length.ids)
    return {
        "file": sample.name,
        "bytes": length.num_bytes,
        "tokens": tokens,
        "bytes_per_token": length.num_bytes / tokens if tokens else 0.0,
        "code_bits": length.bits,
        "bits_per_byte": length.bits_per_byte,
    }


def describe(sample: Sample, length: CodeLength, token_bytes: list[bytes]) -> str:
    """One file's figures, classes, tokens and places, as text."""
    figures = summarise(sample, length)
    lines = [
        f"{sample.name}: {figures['bytes']:,} bytes, {figures['tokens']:,} tokens, "
        f"{figures['bytes_per_token']:.3f} bytes per token",
        f"  {length.bits_per_byte:.4f} bits per byte, {length.bits / 8:,.0f} bytes without container",
    ]
    if not length.num_bytes:
        return lines[0]
    lines.append("  where the bits go, by the class of a token's first byte")
    lines.append(f"    {'class':<12}{'share':>8}{'bits':>14}{'tokens':>12}{'bytes':>12}{'bits/byte':>11}")
    for name, tokens, size, bits in bits_by_class(length, token_bytes):
        share = bits / max(length.bits, 1e-9)
        lines.append(f"    {name:<12}{share:>8.1%}{bits:>14,.0f}{tokens:>12,}{size:>12,}{bits / size:>11.3f}")
    lines.append("  tokens that took most")
    for token, times, bits in costliest_tokens(length, token_bytes):
        lines.append(f"    {_show(token):<24}{times:>10,} times{bits:>14,.0f} bits")
    lines.append("  costliest places")
    for at, bits, before, token in costliest_places(length, sample.data, token_bytes):
        lines.append(f"    byte {at:<10,}{bits:>6.1f} bits  {_show(before)} -> {_show(token)}")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `laconic eval`."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="what to evaluate")
    parser.add_argument(
        "-m",
        "--model",
        action=Once,
        default="default",
        metavar="CHECKPOINT",
        help="a name or a folder (default: %(default)s)",
    )
    parser.add_argument("--engine", help=f"{', '.join(ENGINES)} (default: {ENGINES[0]})")
    parser.add_argument("-T", "--threads", type=count, help="threads of the torch engine")
    parser.add_argument("--json", metavar="OUT", type=Path, help="write the figures there, replacing what is")


def run(args: argparse.Namespace) -> int:
    """Evaluate each file."""
    check_output(args.json, args.files)
    samples = read_samples(args.files)
    if args.model == "none":
        raise LaconicError("eval is of a model: name a checkpoint by -m (`laconic models` lists those here)")
    checkpoint = FrozenCheckpoint.load(find(args.model).path)
    engine = load_engine(checkpoint, args.engine, args.threads)
    head = f"checkpoint {checkpoint.id.hex()[:16]}, {checkpoint.size_bytes:,} bytes"
    print(f"{head}, engine {engine.name}: {engine.kernel}")
    figures: list[dict[str, Any]] = []
    for sample in samples:
        length = code_length(checkpoint, engine, sample.data)
        print("\n" + describe(sample, length, checkpoint.token_bytes))
        figures.append(summarise(sample, length))
    size, bits = sum(f["bytes"] for f in figures), sum(f["code_bits"] for f in figures)
    if len(figures) > 1 and size:
        print(f"\ntotal: {size:,} bytes, {bits / size:.4f} bits per byte")
    if args.json:
        write_output(
            args.json,
            json.dumps({"checkpoint": checkpoint.id.hex(), "files": figures}, indent=1).encode() + b"\n",
        )
    return 0


def _show(text: bytes) -> str:
    return repr(text)[1:]
