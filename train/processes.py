"""Processes that train together: whether the machine has room for them, and starting them."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from ..coder.errors import LaconicError
from .configuration import dump_recipe
from .rank import rank_and_world
from .recipe import TrainingRecipe
from .run import Run, write_whole

POLL_SECONDS, GRACE_SECONDS = 0.1, 5.0
PACKAGE = __name__.partition(".train.")[0]


class Unanswered(LaconicError):
    """The other ranks did not answer, or ended."""


class Interrupted(LaconicError):
    """Training was stopped from outside; the same command goes on."""


def check_room(recipe: TrainingRecipe) -> None:
    """See that this machine can run what the recipe asks for.

    Raises:
        LaconicError: too few devices, DeepSpeed is missing, or other processes were started than it says.
    """
    if recipe.zero_stage and importlib.util.find_spec("deepspeed") is None:
        raise LaconicError(
            f"training.strategy is {recipe.strategy}, which needs deepspeed: "
            "pip install 'laconic[deepspeed]', or set training.strategy to ddp or fsdp"
        )
    place, wanted = rank_and_world(), recipe.devices * recipe.nodes
    if place is not None and place[1] != wanted:
        raise LaconicError(
            f"training.devices times training.nodes is {wanted}, and {place[1]} processes were started: "
            "make both the same"
        )
    if place is None and recipe.nodes > 1:
        raise LaconicError(
            f"training.nodes is {recipe.nodes}: more than one machine takes torchrun on each, for "
            "`laconic pretrain` and `laconic distill` (docs/cluster.md); or set it to 1"
        )
    if recipe.offload and device_type(recipe.accelerator) == "cpu":
        raise LaconicError("training.offload is true, and there is no GPU to take load from: set it to false")
    there, what = _devices(recipe.accelerator)
    if recipe.devices > there:
        remedy = f"give at most {there}" if there else "set training.accelerator to cpu"
        raise LaconicError(f"training.devices is {recipe.devices}, this machine has {there} {what}: {remedy}")


def device_type(accelerator: str) -> str:
    """ "cuda" or "cpu", for processes that train together."""
    return "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def _devices(accelerator: str) -> tuple[int, str]:
    if accelerator == "gpu" or device_type(accelerator) == "cuda":
        return torch.cuda.device_count() or int(torch.backends.mps.is_available()), "GPUs"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores, "processor cores"


def must_launch(recipe: TrainingRecipe) -> bool:
    """Whether this process is to start those that train."""
    return recipe.together and rank_and_world() is None


def launch(run: Run, stage: str, training: TrainingRecipe, distilled: bool) -> None:
    """Train one stage of a run in `training.devices` processes of this machine, and wait for them.

    What they print, the first one's progress apart, is in rank-N.log of the stage's folder, which is kept
    where one of them failed.

    Raises:
        Interrupted: this process was, and ended them.
        LaconicError: one of them failed, or did not answer in time; names it. The others are ended.
    """
    check_room(training)
    logs = [run.stage(stage) / f"rank-{rank}.log" for rank in range(training.devices)]
    with tempfile.TemporaryDirectory(prefix="laconic-") as notes:
        recipe = Path(notes) / "recipe.yaml"
        write_whole(recipe, dump_recipe(replace(run.recipe, training=training)))
        words = [str(run.folder), stage, "distilled" if distilled else "from-text", str(recipe)]
        try:
            with _started([sys.executable, "-m", f"{PACKAGE}.train.worker", *words], logs) as ranks:
                failed, silent = _wait(ranks)
        except (KeyboardInterrupt, SystemExit):
            raise Interrupted("interrupted: the same command goes on from the last checkpoint") from None
        if failed:
            raise LaconicError(_verdict(failed, silent, Path(notes), logs, training))
    for log in logs:
        log.unlink()


def note_of(recipe: Path, rank: int) -> Path:
    """Where a rank says why it failed: JSON of `message`, `kind` (mistake, unanswered, defect), `trace`."""
    return recipe.with_name(f"rank-{rank}.json")


@contextmanager
def _started(command: list[str], logs: list[Path]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The ranks, which end with the block at the latest."""
    meeting = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # on a port that is ours
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": meeting.port, "TORCHELASTIC_USE_AGENT_STORE": True}
    place |= {"WORLD_SIZE": len(logs), "GROUP_RANK": 0}
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        for rank, log in enumerate(logs):
            own = {**place, "LOCAL_WORLD_SIZE": len(logs), "RANK": rank, "LOCAL_RANK": rank}
            quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR", "PYTHONUNBUFFERED": "1"}
            with log.open("wb") as file:
                ranks.append(
                    subprocess.Popen(
                        command,
                        env={**os.environ, **quiet, **{name: str(value) for name, value in own.items()}},
                        stdin=subprocess.PIPE,  # closes when this process ends, whatever ends it
                        stdout=file,
                        stderr=None if rank == 0 else file,
                    )
                )
        yield ranks
    finally:
        _end(ranks)


def _end(ranks: list[subprocess.Popen[bytes]]) -> None:
    for rank in ranks:
        if rank.poll() is None:
            rank.terminate()
    until = time.monotonic() + GRACE_SECONDS
    for rank in ranks:
        try:
            rank.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()
        if rank.stdin:
            rank.stdin.close()


def _wait(ranks: list[subprocess.Popen[bytes]]) -> tuple[dict[int, int], list[int]]:
    """Wait until all have ended, or one has failed and the others had a moment to notice.

    Returns:
        (rank -> its status, of those that failed; those that still run).
    """
    until = None
    while True:
        statuses = [rank.poll() for rank in ranks]
        if until is None and any(statuses):
            until = time.monotonic() + GRACE_SECONDS
        if None not in statuses or (until is not None and time.monotonic() > until):
            failed = {rank: status for rank, status in enumerate(statuses) if status}
            return failed, [rank for rank, status in enumerate(statuses) if status is None]
        time.sleep(POLL_SECONDS)


def _verdict(
    failed: dict[int, int], silent: list[int], notes: Path, logs: list[Path], training: TrainingRecipe
) -> str:
    """Which rank was the first cause, and of what."""
    told: dict[int, dict[str, str]] = {}
    for rank in failed:
        note = note_of(notes / "recipe.yaml", rank)
        if note.is_file():
            told[rank] = json.loads(note.read_text())
            with suppress(OSError), logs[rank].open("a") as log:  # a full disk may be the cause
                log.write(told[rank]["trace"])
    causes: list[tuple[int, str]] = []  # the nearer to 0, the less likely a mere consequence
    for rank, status in failed.items():
        who, note = f"rank {rank} of {len(logs)}", told.get(rank)
        see = f"; see {logs[rank]}" if logs[rank].is_file() and logs[rank].stat().st_size else ""
        if note is None:
            signalled = f"was ended by {signal.Signals(-status).name}" if status < 0 else None
            how = signalled or f"ended with status {status}"
            causes.append((1, f"{who} {how}, and the others with it{see}"))
        elif note["kind"] == "mistake":
            causes.append((0, f"{who}: {note['message']}"))
        elif note["kind"] == "defect":
            causes.append((2, f"{who} failed: {note['message']}{see}"))
    if causes:
        return min(causes, key=lambda cause: cause[0])[1]
    missing = f"rank {', '.join(map(str, silent))}" if silent else "a rank"
    return (
        f"{missing} of {len(logs)} did not answer within {training.timeout_minutes:g} minutes "
        f"(training.timeout_minutes), and the others ended; see {logs[0].parent}/rank-*.log"
    )
