"""Runs `laconic` in processes that kill themselves at a given moment; test_killed.py speaks to it.

Reads requests, one JSON object a line, and answers each with one: every request is a process forked from
this one, which has imported everything once. Ranks that train together are forked likewise, in place of
being started anew. Going on is made hard: the loss is multiplied by noise from torch's generator, and each
look at the clock takes 100 seconds, so that every step is logged and every third one saved.

A request is {"arguments": [...], "notes": a folder, "kill": null or [who, moment, which time]}. Who is ""
(the command), "0" or "1" (a rank). The notes are, of each of them, moments-WHO (a line for each) and
losses-WHO (batch number, loss).
"""

import functools
import io
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import ClassVar

import torch

from laconic.cli import main
from laconic.data.datamodule import TokenDataModule
from laconic.data.tokenshard import ShardWriter
from laconic.train import callbacks, export, pipeline, processes, publish, tokenizer, worker
from laconic.train.language import LanguageModule
from laconic.train.optimizer import MuonAdamW

SECONDS_A_LOOK = 100.0


class Moments:
    """Notes every moment of one process, and ends it at one of them."""

    def __init__(self, request: dict, who: str) -> None:
        notes, kill = Path(request["notes"]), request["kill"]
        self.run = request["arguments"][request["arguments"].index("-o") + 1]
        self.moments, self.losses = (
            os.open(notes / f"{name}-{who}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for name in ("moments", "losses")
        )
        self.fatal, self.left = (kill[1], kill[2]) if kill and kill[0] == who else (None, 0)
        self.process = os.getpid()

    def pass_(self, moment: str, last_words=lambda: None) -> None:
        if os.getpid() != self.process:  # a rank, which has moments of its own
            return
        os.write(self.moments, f"{moment}\n".encode())
        if moment == self.fatal:
            self.left -= 1
            if self.left == 0:
                last_words()
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner, name: str) -> None:
        inner = getattr(owner, name)

        @functools.wraps(inner)
        def watched(*args, **kwargs):
            self.pass_(f"before {name}")
            result = inner(*args, **kwargs)
            self.pass_(f"after {name}")
            return result

        setattr(owner, name, watched)

    def renaming(self, name: str) -> None:
        inner = getattr(os, name)

        def watched(source, target, *args, **kwargs):
            ours = os.fspath(target).startswith(self.run)
            what = f"naming {Path(target).name}"
            if ours:
                self.pass_(f"before {what}")
            inner(source, target, *args, **kwargs)
            if ours:
                self.pass_(f"after {what}")

        setattr(os, name, watched)

    def flushing(self) -> None:
        inner = os.fsync

        def watched(descriptor):
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            if path.endswith(".partial"):
                torn = functools.partial(os.truncate, path, os.path.getsize(path) // 2)
                self.pass_(f"torn {Path(path).name}", torn)
            inner(descriptor)

        os.fsync = watched

    def watch(self) -> None:
        for owner, name in (
            (tokenizer, "train_tokenizer"),
            (ShardWriter, "add"),
            (ShardWriter, "close"),
            (LanguageModule, "validation_step"),
            (MuonAdamW, "step"),
            (publish, "with_prior"),
            (publish, "shipped"),
            (export, "publish"),
            (processes.time, "sleep"),
        ):
            self.around(owner, name)
        self.renaming("replace")
        self.renaming("rename")
        self.flushing()
        training_step = LanguageModule.training_step

        def noted(module, batch, batch_idx):
            self.pass_("before training_step")
            result = training_step(module, batch, batch_idx)
            if os.getpid() == self.process:
                os.write(self.losses, f"{batch_idx} {result.item().hex()}\n".encode())
            self.pass_("after training_step")
            return result

        LanguageModule.training_step = noted


def make_hard() -> None:
    loss = LanguageModule.loss

    def noisy(module, inputs, targets):
        minimised, nats = loss(module, inputs, targets)
        return minimised * (0.9 + 0.2 * torch.rand(())), nats

    def tick(module):
        module.elapsed_seconds += SECONDS_A_LOOK

    LanguageModule.loss, LanguageModule.tick = noisy, tick
    # What the machine gave differs from run to run.
    callbacks.peak_rate, callbacks.peak_bytes = lambda *_: 1e9, lambda _: None
    TokenDataModule.waiting_seconds = property(lambda _: 0.0, lambda *_: None)


class ForkedRank:
    """What `processes` needs of subprocess.Popen, without the seconds that importing takes."""

    request: dict
    others: ClassVar[list["ForkedRank"]] = []

    def __init__(self, command: list[str], env: dict[str, str], stdin, stdout, stderr) -> None:
        theirs, ours = os.pipe()
        self.stdin = os.fdopen(ours, "wb")
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            for rank in ForkedRank.others:
                rank.stdin.close()
            self.stdin.close()
            os.dup2(theirs, 0)
            os.dup2(stdout.fileno(), 1)
            if stderr is not None:
                os.dup2(stderr.fileno(), 2)
            os.environ.update(env)
            Moments(ForkedRank.request, env["RANK"]).watch()
            os._exit(worker.main(*command[3:]))
        os.close(theirs)
        ForkedRank.others.append(self)

    def poll(self) -> int | None:
        if self.status is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.status = os.waitstatus_to_exitcode(ended[1])
        return self.status

    def wait(self, timeout: float = 60.0) -> None:
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("rank", timeout)
            select.select([], [], [], 0.01)  # for sleep is a moment

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def child(request: dict, said: int) -> None:
    """The command itself."""
    os.dup2(said, 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", 0), write_through=True)
    Moments(request, "").watch()
    ForkedRank.request = request
    processes.subprocess.Popen = ForkedRank
    os._exit(main(request["arguments"]))


def answer(request: dict) -> dict:
    """The status of a request's process (negative: the signal that ended it), and what it said."""
    hear, say = os.pipe()  # which all of its processes have, so that the end of it is the end of them all
    process = os.fork()
    if process == 0:
        os.close(hear)
        try:
            child(request, say)
        except BaseException:
            traceback.print_exc()
        os._exit(3)
    os.close(say)
    with os.fdopen(hear, "rb") as heard:
        said = heard.read().decode()
    return {"status": os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), "said": said}


if __name__ == "__main__":
    assert pipeline  # imported for all
    make_hard()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
    os._exit(0)
