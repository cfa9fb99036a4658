"""Every engine under every instruction set that libraries can be told to use, one process for each of these.

A process evaluates the conformance cases in every batch and chunking with every engine and number of
threads. Each of these settings codes a text, and restores what the setting before it wrote, in the process
before where it is the first. All are held to the logits and files of the process that starts the others.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..engine import build_engine
from ..errors import LaconicError
from .conformance import generate, load_cases
from .selftest import (
    CODINGS,
    HERE,
    REFERENCE,
    Tally,
    check_case,
    check_vectors,
    drawn_text,
    read_files,
    shipped_model,
    write_files,
)

BATCHES = (1, 3, 64, 257)
THREADS = {"torch": (1, 2)}  # of the engine that takes more than one
WORK = 60_000_000  # multiply-accumulates of one evaluation
CODER = "english-nano"  # codes it: the smallest that ships, for shapes are the cases' business
DRAWN = (48, 16)  # streams and steps of the text that is coded
_AVX2 = "+avx,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe,+popcnt,+sse3,+sse4.1,+sse4.2,+ssse3"
_AVX512 = f"{_AVX2},+avx512bw,+avx512cd,+avx512dq,+avx512f,+avx512vl"


class Environment(NamedTuple):
    """Variables of a process, and the processor's features without which it could not run."""

    variables: dict[str, str]
    needs: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        shown = (f"{name}={value}" for name, value in self.variables.items() if name not in _UNSHOWN)
        return " ".join(shown) or "as it is"


_UNSHOWN = ("NUMBA_CPU_FEATURES", "OPENBLAS_NUM_THREADS")  # they follow from others, or have a column
# NumPy's threads are given to a process, so they alternate.
ENVIRONMENTS = (
    Environment({"OPENBLAS_NUM_THREADS": "1"}),
    Environment(
        {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OPENBLAS_NUM_THREADS": "2"}, ("avx2",)
    ),
    Environment({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "OPENBLAS_NUM_THREADS": "2"}),
    Environment({"MKL_ENABLE_INSTRUCTIONS": "AVX2", "OPENBLAS_NUM_THREADS": "1"}),
    Environment(
        {
            "ATEN_CPU_CAPABILITY": "default",
            "NUMBA_CPU_NAME": "generic",
            "OPENBLAS_CORETYPE": "Haswell",
            "OPENBLAS_NUM_THREADS": "1",
        },
        ("avx2",),
    ),
    Environment(
        {
            "NUMBA_CPU_NAME": "haswell",
            "NUMBA_CPU_FEATURES": _AVX2,
            "OPENBLAS_CORETYPE": "Haswell",
            "OPENBLAS_NUM_THREADS": "2",
        },
        ("avx2", "bmi2", "fma"),
    ),
    Environment(
        {
            "NUMBA_CPU_NAME": "alderlake",
            "NUMBA_CPU_FEATURES": f"{_AVX2},+avxvnni",
            "OPENBLAS_NUM_THREADS": "1",
        },
        ("avxvnni", "bmi2", "fma"),
    ),
    Environment(
        {
            "NUMBA_CPU_NAME": "skylake-avx512",
            "NUMBA_CPU_FEATURES": _AVX512,
            "OPENBLAS_CORETYPE": "SkylakeX",
            "OPENBLAS_NUM_THREADS": "2",
        },
        ("avx512bw", "avx512cd", "avx512dq", "avx512vl", "bmi2", "fma"),
    ),
)


def runnable() -> list[Environment]:
    """The environments that this processor has the features for."""
    from llvmlite.binding import get_host_cpu_features  # pyright: ignore[reportMissingTypeStubs]

    features: dict[str, bool] = dict(get_host_cpu_features())
    return [e for e in ENVIRONMENTS if all(features.get(name, False) for name in e.needs)]


def run_matrix(
    names: Sequence[str], environments: Sequence[Environment], show: Callable[[Tally], None]
) -> list[Tally]:
    """Engines x threads x batches x chunkings x environments, in logits and in files.

    Args:
        show: told each tally when it is there.

    Returns:
        A tally for each engine, number of threads and environment.
    """
    tallies: list[Tally] = []
    with tempfile.TemporaryDirectory(prefix="laconic-selftest-") as temporary:
        folder = Path(temporary)
        tallies.append(_prepare(folder))
        show(tallies[0])
        for number, environment in enumerate(environments):
            task = {"names": list(names), "number": number, "label": environment.label}
            (folder / "task.json").write_text(json.dumps(task))
            done = subprocess.run(
                [sys.executable, "-m", __name__, str(folder)],
                env={**os.environ, **environment.variables},
                capture_output=True,
                text=True,
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                found = [Tally(name, environment=environment.label) for name in names]
                for tally in found:
                    tally.fault(1, f"{environment.label}: the process ended with {done.returncode}: {last}")
            else:
                entries: list[dict[str, Any]] = json.loads((folder / f"{number}.json").read_text())
                found = [Tally(**entry) for entry in entries]
            for tally in found:
                show(tally)
            tallies += found
    return tallies


def _prepare(folder: Path) -> Tally:
    """Put the reference's logits, a text and its coded files where the processes find them."""
    tally = Tally("numpy", [REFERENCE], environment=HERE)
    logits = {case.name: check_vectors(tally, case) for case in load_cases()}
    np.savez(folder / "logits.npz", **{name: tensor for name, tensor in logits.items()})  # pyright: ignore[reportArgumentType]
    model = shipped_model("numpy", name=CODER)
    text = drawn_text(model, *DRAWN)
    (folder / "text").write_bytes(text)
    files = write_files(tally, model, text, None)
    _put(folder, "reference", files)
    _put(folder, "previous", files)
    return tally


def _put(folder: Path, name: str, files: list[bytes]) -> None:
    for number, blob in enumerate(files):
        (folder / f"{name}.{number}").write_bytes(blob)


def _get(folder: Path, name: str) -> list[bytes]:
    return [(folder / f"{name}.{number}").read_bytes() for number in range(len(CODINGS))]


def _work(folder: Path) -> None:
    """What one process does."""
    task: dict[str, Any] = json.loads((folder / "task.json").read_text())
    blas = int(os.environ["OPENBLAS_NUM_THREADS"])
    tallies: dict[tuple[str, int], Tally] = {
        (name, threads): Tally(name, threads=threads, environment=task["label"])
        for name in task["names"]
        for threads in ((blas,) if name == "numpy" else THREADS.get(name, (1,)))
    }
    with np.load(folder / "logits.npz") as logits:
        for case in load_cases():
            checkpoint, ids = generate(case)
            for (name, threads), tally in tallies.items():
                engine = build_engine(checkpoint, name, threads)
                tally.ran(engine)
                check_case(tally, engine, case, ids, logits[case.name], BATCHES, WORK)
    text = (folder / "text").read_bytes()
    reference, previous = _get(folder, "reference"), _get(folder, "previous")
    writer = "the setting before"
    for (name, threads), tally in tallies.items():
        model = shipped_model(name, threads, CODER)
        read_files(tally, model, text, previous, writer)
        files = write_files(tally, model, text, reference)
        if files == reference:  # else it is this setting's fault alone
            previous, writer = files, f"engine {name} with {threads} threads"
    _put(folder, "previous", previous)
    report = json.dumps([asdict(tally) for tally in tallies.values()])
    (folder / f"{task['number']}.json").write_text(report)


if __name__ == "__main__":
    try:
        _work(Path(sys.argv[1]))
    except LaconicError as error:
        sys.exit(str(error))
