"""The entropy coders on bytes and tokens: bits above what frequencies allow, and MB/s, beside a peer's."""

import importlib
import importlib.metadata
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..coder.entropy.coders import CODERS
from ..coder.entropy.frequencies import MAX_SYMBOLS, count_symbols
from ..coder.errors import LaconicError
from ..coder.files import open_model
from ..coder.parallel import cores
from .machine import processor
from .report import table

Symbols = npt.NDArray[np.int32]

ROUNDS = 7  # each coder once in each; the medians are told
PEER = "constriction"


@dataclass(frozen=True)
class Result:
    """A coder on a stream; its existence says that what was decoded is equal.

    Attributes:
        table_bytes: that are sent before the coded symbols; None for a peer, which sends none.
        words_bytes: the coded symbols.
    """

    coder: str
    table_bytes: int | None
    words_bytes: int
    encode_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class Stream:
    """Symbols of one kind, and what the coders made of them.

    Attributes:
        symbols, distinct: how many there are, and how many different ones.
        bound_bits: of all symbols, by their own frequencies.
        bytes: that they stand for.
    """

    kind: str
    symbols: int
    distinct: int
    bound_bits: float
    bytes: int
    results: list[Result]

    def above(self, coded_bytes: int) -> float:
        """Bits a symbol that so many bytes are above the bound."""
        return (8 * coded_bytes - self.bound_bits) / self.symbols

    def as_text(self) -> str:
        rows = [[self.kind, "without table", "with table", "table bytes", "encode MB/s", "decode MB/s"]]
        for result in self.results:
            sent = result.table_bytes
            rows.append(
                [
                    result.coder,
                    f"{self.above(result.words_bytes):+.5f}",
                    "-" if sent is None else f"{self.above(result.words_bytes + sent):+.5f}",
                    "-" if sent is None else f"{sent:,}",
                    f"{self.bytes / 1e6 / result.encode_seconds:.0f}",
                    f"{self.bytes / 1e6 / result.decode_seconds:.0f}",
                ]
            )
        bound = self.bound_bits / self.symbols
        return (
            f"{table(rows)}\n{self.symbols:,} {self.kind}, {self.distinct:,} different: at least "
            f"{bound:.4f} bits each, {self.bound_bits / 8:,.0f} bytes"
        )


@dataclass(frozen=True)
class Entropy:
    """What `laconic bench --entropy` found."""

    streams: list[Stream]

    def as_text(self) -> str:
        peer = _peer_version() or "not installed: pip install 'laconic[bench]'"
        machine = f"{processor()}, {cores()} cores, Python {platform.python_version()}"
        account = (
            "Every round trip was compared. MB/s are of the original, in processor time of one thread,\n"
            f"medians of {ROUNDS} rounds in turn: counting, tables and coding, without the tokenizer.\n"
            f"{PEER}  {peer}\nmachine       {machine}"
        )
        streams = [stream.as_text() for stream in self.streams]
        return "\n\n".join(["Bits a symbol above the bound", *streams, account])

    def as_json(self) -> dict[str, Any]:
        machine = {"processor": processor(), "cores": cores(), "python": platform.python_version()}
        return {"machine": machine, PEER: _peer_version(), "streams": [asdict(its) for its in self.streams]}


def measure_entropy(data: bytes, model: str) -> Entropy:
    """The coders on the bytes of `data`, and on its tokens, unless model is "none".

    Raises:
        LaconicError: there is nothing to measure, or more than a segment holds, or no such checkpoint.
    """
    if not 0 < len(data) <= MAX_SYMBOLS:
        raise LaconicError(f"{len(data):,} bytes to measure: give 1 to {MAX_SYMBOLS:,} in all")
    opened = open_model(model)
    symbols = np.frombuffer(data, dtype=np.uint8).astype(np.int32)
    streams = [measure_stream("bytes", symbols, 256, len(data))]
    if opened is not None:
        vocab = opened.engine.vocab_size
        streams.append(measure_stream("tokens", opened.tokenize(data), vocab, len(data)))
    return Entropy(streams)


def measure_stream(kind: str, symbols: Symbols, alphabet: int, length: int) -> Stream:
    """Each coder, and the peer's where it is installed, on the same symbols in turn.

    Args:
        length: bytes that the symbols stand for.
    """
    counts = count_symbols(symbols, alphabet)
    present = counts[counts > 0].astype(np.float64)
    bound = float((present * np.log2(len(symbols) / present)).sum())
    tried = [*_ours(symbols, alphabet), *_peers(symbols, counts)]
    seconds = {one.name: ([], []) for one in tried}
    sizes: dict[str, tuple[int | None, int]] = {}
    for number in range(ROUNDS + 1):
        for one in tried:
            encode_seconds, coded = _once(one.encode)
            decode_seconds, restored = _once(lambda one=one, coded=coded: one.decode(coded))
            if number == 0:  # which compiles
                sizes[one.name] = one.sizes(coded)
                if not np.array_equal(restored, one.expected):
                    raise LaconicError(f"{one.name} does not restore {kind}: nothing that it says is of use")
                continue
            seconds[one.name][0].append(encode_seconds)
            seconds[one.name][1].append(decode_seconds)
    results = [
        Result(name, *sizes[name], statistics.median(encoding), statistics.median(decoding))
        for name, (encoding, decoding) in seconds.items()
    ]
    return Stream(kind, len(symbols), len(present), bound, length, results)


@dataclass(frozen=True)
class _Tried:
    """sizes: what was coded -> bytes of the table, and of the symbols."""

    name: str
    encode: Callable[[], Any]
    decode: Callable[[Any], Symbols]
    sizes: Callable[[Any], tuple[int | None, int]]
    expected: Symbols


def _ours(symbols: Symbols, alphabet: int) -> list[_Tried]:
    return [
        _Tried(
            name,
            lambda coder=coder: coder.encode(symbols, alphabet),
            lambda coded, coder=coder: coder.decode(coded.blob, len(symbols), alphabet),
            lambda coded: (len(coded.table), len(coded.words)),
            symbols,
        )
        for name, coder in CODERS.items()
    ]


def _peers(symbols: Symbols, counts: npt.NDArray[np.int64]) -> Sequence[_Tried]:
    """The peer's coders, which make a model of the frequencies each time; symbols have no gaps."""
    if importlib.util.find_spec(PEER) is None or np.count_nonzero(counts) < 2:
        return []
    stream: Any = importlib.import_module(PEER).stream

    places = (np.cumsum(counts > 0) - 1).astype(np.int32)[symbols]
    parts = counts[counts > 0] / len(symbols)

    def tried(name: str, encoder: Any, decoder: Any, encode: str) -> _Tried:
        def write() -> Any:
            coder = encoder()
            getattr(coder, encode)(places, stream.model.Categorical(parts, perfect=False))
            return coder.get_compressed()

        def read(words: Any) -> Symbols:
            return decoder(words).decode(stream.model.Categorical(parts, perfect=False), len(places))

        return _Tried(name, write, read, lambda words: (None, words.nbytes), places)

    return [
        tried(f"range, {PEER}", stream.queue.RangeEncoder, stream.queue.RangeDecoder, "encode"),
        tried(f"rans, {PEER}", stream.stack.AnsCoder, stream.stack.AnsCoder, "encode_reverse"),
    ]


def _once(action: Callable[[], Any]) -> tuple[float, Any]:
    """(seconds of this thread on the processor, the result): what else runs counts for less so."""
    start = time.thread_time()
    result = action()
    return max(time.thread_time() - start, 1e-9), result


def _peer_version() -> str | None:
    return importlib.metadata.version(PEER) if importlib.util.find_spec(PEER) else None
