"""Whether engines give what docs/frozen.md says: in the conformance cases, and in coded files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from ..checkpoint import FrozenCheckpoint
from ..engine import ENGINES, Engine, build_engine
from ..errors import LaconicError
from ..files import compress, decompress
from ..fixedpoint import Array, exp2_weights
from ..model import Model
from ..registry import find
from .conformance import Case, SplitMix64, digest, generate, trace

SHORT_WORK = 200_000_000  # multiply-accumulates of a case that the short form takes
CODINGS = ((1, 1), (1, 64), (2, 64), (6, 7))  # level and streams
HERE = "this process"
REFERENCE = "reference, every tensor"  # in place of a kernel
CODER = "english-small"  # a transformer that ships, with all that engines compute; codes the files
DRAWN = (48, 24)  # streams and steps of the text that is coded


@dataclass
class Tally:
    """What one engine was found to do."""

    engine: str
    kernels: list[str] = field(default_factory=list[str])  # what multiplied, in words
    threads: int | None = None
    environment: str = ""
    cases: int = 0
    compared: int = 0  # integers
    mismatches: int = 0  # integers that differ, and files that differ or were not restored
    coded: int = 0  # files written
    restored: int = 0  # files decoded, all of them other engines' where there are any
    faults: list[str] = field(default_factory=list[str])

    def ran(self, engine: Engine) -> None:
        """Note what multiplies."""
        if engine.kernel not in self.kernels:
            self.kernels.append(engine.kernel)

    def fault(self, count: int, text: str) -> None:
        self.mismatches += count
        self.faults.append(f"engine {self.engine}, {text}")

    def compare(self, where: str, got: Array, expected: Array) -> None:
        """Count the integers of two arrays [S, T, V], and note the first that differs."""
        self.compared += expected.size
        if got.shape != expected.shape:
            self.fault(expected.size, f"{where}: logits are {list(got.shape)}, not {list(expected.shape)}")
            return
        different = got != expected
        count = int(np.count_nonzero(different))
        if count:
            at: Any = np.unravel_index(int(different.argmax()), different.shape)
            stream, step, token = map(int, at)
            self.fault(
                count,
                f"{where}: logit of stream {stream}, step {step}, token {token} is {got[at]}, "
                f"it must be {expected[at]} ({count:,} of {expected.size:,} differ)",
            )


def evaluate(engine: Engine, ids: Array, cuts: Iterable[int]) -> Array:
    """Logits [S, T, V] of ids [S, T] that are fed in pieces, which end at `cuts` and at T."""
    state = engine.start(len(ids))
    edges = [0, *cuts, ids.shape[1]]
    return np.concatenate([engine.advance(state, ids[:, a:b]) for a, b in pairwise(edges)], axis=1)


def chunkings(steps: int) -> dict[str, list[int]]:
    """Where ids of `steps` are cut."""
    uneven = sorted({1, 2, steps // 2 + 1} & set(range(1, steps)))
    return {"as one": [], "in uneven pieces": uneven, "one at a time": list(range(1, steps))}


def check_vectors(tally: Tally, case: Case) -> Array:
    """Hold every tensor of the reference to the vectors; returns its logits, int32 [S, T, V]."""
    found = trace(*generate(case))
    for name, tensor in found.items():
        tally.compared += tensor.size
        if digest(tensor) != case.digests.get(name):
            tally.fault(tensor.size, f"case {case.name}: tensor {name} is not that of the vectors")
    for name in sorted(set(case.digests) - set(found)):
        tally.fault(1, f"case {case.name}: tensor {name} is missing")
    tally.cases += 1
    return found["logits"]


def check_case(
    tally: Tally, engine: Engine, case: Case, ids: Array, logits: Array, batches: Sequence[int], work: int
) -> None:
    """Hold an engine to logits [S, T, V] of ids [S, T] for every batch and chunking.

    Args:
        batches: streams at once; beyond S they are repeated.
        work: multiply-accumulates of one evaluation; steps are left out at the end to stay below, and what
            two steps exceed is left out.
    """
    for batch in batches:
        steps = min(ids.shape[1], work // (case.config.macs_per_token() * batch))
        if steps < min(2, ids.shape[1]):
            continue
        rows = np.arange(batch) % len(ids)
        fed, expected = ids[rows, :steps], logits[rows, :steps]
        for how, cuts in chunkings(steps).items():
            tally.compare(
                f"case {case.name}, batch {batch}, fed {how}", evaluate(engine, fed, cuts), expected
            )
    tally.cases += 1


def check_digest(tally: Tally, engine: Engine, case: Case, ids: Array) -> None:
    """Hold an engine to the vectors themselves, where the reference's logits are wrong."""
    got = evaluate(engine, ids, [])
    tally.compared += got.size
    tally.cases += 1
    if digest(got) != case.digests["logits"]:
        tally.fault(got.size, f"case {case.name}: the logits are not those of the vectors")


def installed(wanted: str | None) -> tuple[list[str], dict[str, str]]:
    """Engines that are here, in the order of ENGINES, and why the others are not.

    Args:
        wanted: the only engine to look for, or None for all.

    Raises:
        LaconicError: `wanted` does not exist, or is not here.
    """
    here: list[str] = []
    missing: dict[str, str] = {}
    for name in ENGINES if wanted is None else (wanted,):
        try:
            shipped_model(name)
            here.append(name)
        except LaconicError as error:
            if wanted is not None:
                raise
            missing[name] = str(error)
    return here, missing


def drawn_text(model: Model, streams: int, steps: int) -> bytes:
    """Text drawn from a model, and every byte once: no other text is as sure to be coded by the model."""
    engine, generator = model.engine, SplitMix64(0)
    state, ids = engine.start(streams), np.full((streams, 1), engine.vocab_size, dtype=np.int32)
    drawn: list[Array] = []
    for _ in range(steps):
        logits = engine.advance(state, ids)[:, -1].astype(np.int64)
        sums = exp2_weights(logits.max(axis=1, keepdims=True) - logits).cumsum(axis=1)
        chosen = (generator.draw(streams) >> np.uint64(1)).astype(np.int64) % sums[:, -1]
        ids = (sums <= chosen[:, None]).sum(axis=1, keepdims=True).astype(np.int32)
        drawn.append(ids)
    return model.join(np.concatenate(drawn, axis=1).ravel()) + bytes(range(256))


def write_files(tally: Tally, model: Model, text: bytes, expected: list[bytes] | None) -> list[bytes]:
    """Code a text at every level of CODINGS, and compare with what another engine wrote."""
    files = [compress(text, model, level=level, streams=streams) for level, streams in CODINGS]
    tally.coded += len(files)
    for (level, streams), got, other in zip(CODINGS, files, expected or files, strict=True):
        if got != other:
            tally.fault(1, f"level {level}, streams {streams}: the coded file is not that of other engines")
    return files


def read_files(tally: Tally, model: Model, text: bytes, files: list[bytes], writer: str) -> None:
    """Restore the files that `writer` wrote."""
    for (level, streams), blob in zip(CODINGS, files, strict=True):
        tally.restored += 1
        try:
            same = decompress(blob, model) == text
        except LaconicError:
            same = False
        if not same:
            tally.fault(1, f"level {level}, streams {streams}: the file that {writer} wrote is not restored")


def shipped_model(engine: str, threads: int | None = None, name: str = CODER) -> Model:
    """A checkpoint that ships, and an engine whether it is exact here or not."""
    checkpoint = FrozenCheckpoint.load(find(name).path)
    return Model(checkpoint, build_engine(checkpoint, engine, threads))


def run_short(names: Sequence[str], cases: Sequence[Case], work: int) -> list[Tally]:
    """Every engine against the vectors, then every engine's files through every other engine.

    Args:
        work: multiply-accumulates of one evaluation (see `check_case`).

    Returns:
        A tally of the reference, whose every tensor is compared, and one of each engine.
    """
    reference = Tally("numpy", [REFERENCE], environment=HERE)
    tallies = {name: Tally(name, environment=HERE) for name in names}
    for case in cases:
        checkpoint, ids = generate(case)
        logits = check_vectors(reference, case)
        for name, tally in tallies.items():
            engine = build_engine(checkpoint, name)
            tally.ran(engine)
            if digest(logits) == case.digests["logits"]:
                check_case(tally, engine, case, ids, logits, (1, 3), work)
            else:
                check_digest(tally, engine, case, ids)
    # What the others' files are compared with: the reference's, or those of an engine without mismatches.
    order = sorted(names, key=lambda name: (tallies[name].mismatches > 0, name != "numpy"))
    models = {name: shipped_model(name) for name in order}
    text: bytes | None = None
    written: dict[str, list[bytes]] = {}
    for name, model in models.items():
        text = drawn_text(model, *DRAWN) if text is None else text
        written[name] = write_files(tallies[name], model, text, next(iter(written.values()), None))
    sound = {name for name in names if not tallies[name].mismatches}
    for name, model in models.items():
        assert text is not None, "the first engine has drawn it"
        for other, files in written.items():
            if len(models) == 1 or (other != name and other in sound):
                read_files(tallies[name], model, text, files, f"engine {other}")
    return [reference, *tallies.values()]
