"""How cost grows with the text: each stage on ever larger cuts of it, a command in a process of its own."""

import filecmp
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ..coder.errors import LaconicError
from .report import table

PACKAGE = __name__.partition(".bench.")[0]
MB = 10**6
MOST_CODED = 30  # MB that are compressed and restored
READ_BYTES = 1 << 20
VOWELS = b"aeiou"
STEPS = 20
# Runs a command, and prints a last line of what it took. On Linux no peak is below that of the process which
# started the command: so a small one does.
STARTER = r"""
import json, os, sys
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
took = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss
print("\n" + json.dumps(took))
"""
RECIPE = [
    *("--tier", "nano", "--training.minutes", "null", "--training.max_steps", str(STEPS)),
    *("--training.batch_size", "8", "--training.validations", "1", "--data.validation_tokens", "10000"),
]


@dataclass(frozen=True)
class Cost:
    """What a stage took on a text of `megabytes`: of its process and all its threads, its start included."""

    stage: str
    megabytes: int
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Growth:
    """Every stage at every size."""

    costs: list[Cost]

    def stages(self) -> dict[str, list[Cost]]:
        """Stage -> its costs by size."""
        found: dict[str, list[Cost]] = {}
        for cost in self.costs:
            found.setdefault(cost.stage, []).append(cost)
        return found

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        """A table; what a further megabyte takes is the difference to the size before."""
        rows = [["stage", "MB", "CPU s", "CPU s a further MB", "wall s", "peak MB"]]
        for stage, costs in self.stages().items():
            for before, cost in zip([None, *costs], costs, strict=False):
                further = "-"
                if before:
                    more = cost.megabytes - before.megabytes
                    further = f"{(cost.cpu_seconds - before.cpu_seconds) / more:.3f}"
                seconds = f"{cost.cpu_seconds:,.1f}", further, f"{cost.wall_seconds:,.1f}"
                rows.append([stage, f"{cost.megabytes:,}", *seconds, f"{cost.peak_bytes / MB:,.0f}"])
        return table(rows)


def read_sizes(text: str) -> list[int]:
    """ "1,10,100" -> megabytes, ascending.

    Raises:
        LaconicError: it is no such list.
    """
    try:
        sizes = sorted({int(word) for word in text.split(",")})
    except ValueError:
        sizes = [0]
    if sizes[0] < 1 or sizes[-1] > 1_000_000:
        raise LaconicError(f"--scaling {text}: give megabytes from 1 to 1000000, such as 1,10,100")
    return sizes


def measure_growth(files: Sequence[str], sizes: Sequence[int], model: str, level: int) -> Growth:
    """Run the stages on texts of `sizes` MB, cut from files; compressing up to `MOST_CODED` of them.

    tokenizer    laconic tokenizer: the tokenizer, and the shards
    shards       the same with a tokenizer that is there already: the shards alone
    train        laconic pretrain: `STEPS` steps, of which a larger text asks no more
    compress     laconic compress with `model` at `level`, on one thread
    decompress   and back; the bytes are compared

    Raises:
        LaconicError: there is no text, or a command failed.
    """
    if not hasattr(os, "wait4"):
        raise LaconicError("this system does not say what another process took: measure on Linux or macOS")
    costs: list[Cost] = []
    with tempfile.TemporaryDirectory(prefix="laconic-") as name:
        folder = Path(name)
        for size in sizes:
            text, run = folder / f"{size}.txt", folder / str(size)
            write_text(files, size * MB, text)
            for stage, words in (
                ("tokenizer", ["tokenizer", text, "-o", run, *RECIPE]),
                ("shards", ["tokenizer", text, "-o", f"{run}-shards", *RECIPE, "--tokenizer.source", run]),
                ("train", ["pretrain", "-o", run]),
            ):
                costs.append(_cost(stage, size, words, folder))
        for size in sorted({min(size, MOST_CODED) for size in sizes}):
            text, coded, restored = (folder / f"{size}.{ending}" for ending in ("txt", "lac", "restored"))
            write_text(files, size * MB, text)
            words = ["compress", "-m", model, f"-{level}", "-T", "1", text, "-o", coded]
            costs.append(_cost("compress", size, words, folder))
            words = ["decompress", "-T", "1", coded, "-o", restored]
            costs.append(_cost("decompress", size, words, folder))
            if not filecmp.cmp(restored, text, shallow=False):
                raise LaconicError(f"{size} MB came back different: please report it with the files")
    return Growth(costs)


def write_text(files: Sequence[str], num_bytes: int, out: Path) -> None:
    """Files put end to end; from the start again where they end, each time with other vowels.

    Raises:
        LaconicError: there is not one byte.
    """
    with out.open("wb") as file:
        for block in _blocks(files):
            file.write(block[: num_bytes - file.tell()])
            if file.tell() == num_bytes:
                return


def _blocks(files: Sequence[str]) -> Iterator[bytes]:
    for turn in count():
        rotated = VOWELS[turn % len(VOWELS) :] + VOWELS[: turn % len(VOWELS)]
        other, empty = bytes.maketrans(VOWELS, rotated), True
        for name in files:
            with open(name, "rb") as file:
                while block := file.read(READ_BYTES):
                    empty = False
                    yield block.translate(other)
        if empty:
            raise LaconicError("there is not one byte to measure; give files that are not empty")


def _cost(stage: str, size: int, words: Sequence[str | Path], folder: Path) -> Cost:
    command = [sys.executable, "-S", "-c", STARTER, sys.executable, "-m", PACKAGE, *map(str, words)]
    with (folder / "stderr").open("w+b") as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, start_new_session=True)
        try:
            printed, _ = process.communicate()
        except BaseException:  # such as SIGTERM: the stage ends too
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        seconds = time.perf_counter() - began
        status, cpu_seconds, peak = process.returncode, 0.0, 0
        if not status:
            status, cpu_seconds, peak = json.loads(printed.splitlines()[-1])
        if status:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise LaconicError(f"laconic {words[0]} on {size} MB: {last or f'status {status}'}")
    print(f"{stage}, {size} MB: {cpu_seconds:.1f} CPU s", file=sys.stderr, flush=True)
    return Cost(stage, size, cpu_seconds, seconds, peak * (1 if sys.platform == "darwin" else 1024))
