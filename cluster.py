"""Segments coded by the workers of a Ray cluster: the same bytes as on one machine.

The machine that is asked reads and writes the files, and hands segments out; a worker is one process on one
core, which has loaded the checkpoint once. The checkpoint is sent to each machine, so that nothing but
laconic itself, the very same, has to be there.
"""

import atexit
import os
import platform
import signal
import socket
import threading
import time
import warnings
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from types import TracebackType
from typing import Any

import numpy as np

from .coder.checkpoint import FrozenCheckpoint
from .coder.compiled import source_digest
from .coder.encoder import Coded, Encoder
from .coder.engine import load_engine
from .coder.errors import LaconicError
from .coder.model import Model, ensemble
from .coder.parallel import cores
from .coder.reference import Reference
from .coder.report import Report

AUTO = "auto"  # an address: the cluster that this machine belongs to
LOCAL = "local"  # another: a cluster of this machine alone, for as long as the command runs
NICENESS = "RAY_worker_niceness"  # of workers on machines that Ray starts; 15 if not said: they would starve
MAX_WORKERS = 256
SPARE = 16  # segments beyond one for each worker that are read ahead, at most
RETRIES = 3  # of a segment whose worker died, failed or hung while it was coded
ATTEMPTS = 2  # in a row to start and load a worker; then the others do its work
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # what gRPC begins with
CONNECT_SECONDS = 5.0  # in which a port must be found open and say something, and
ANSWER_SECONDS = 20.0  # a cluster must answer there
START_SECONDS = 120.0  # in which a worker must have started; otherwise the others do its work
SILENT_SECONDS = 600.0  # after which a worker that shows no sign of life is taken for dead
POLL_SECONDS = 0.5
NOBODY = "a machine that has not answered"


class _Lost(Exception):
    """A worker died, failed, hung or did not start; why, in one line. Nothing is to be left of it."""


class Worker:
    """What runs on the machines of a cluster; it answers `life` while it is busy."""

    def __init__(self) -> None:
        self._encoder: Encoder | None = None
        self._signs, self._part = 0, 0.0
        self._clock: int | None = None  # of the CPU time of the thread that works

    def hello(self) -> tuple[str, str, int, str]:
        """What decides about bytes here, the machine's name, the process, and Ray's name of the machine."""
        ray: Any = import_module("ray")
        return software(), platform.node(), os.getpid(), ray.get_runtime_context().get_node_id()

    def load(
        self,
        checkpoints: list[FrozenCheckpoint],
        engine: str | None,
        reference: Reference | None,
        how: dict[str, Any],
    ) -> None:
        """Get ready; `how` is what else an encoder is told."""
        self._watch()
        # Ray's own arrays cannot be written to, which kernels are compiled for.
        own = [
            replace(given, tensors={name: np.array(t) for name, t in given.tensors.items()})
            for given in checkpoints
        ]
        models = [Model(checkpoint, load_engine(checkpoint, engine, 1)) for checkpoint in own]
        self._encoder = Encoder(ensemble(models) if models else None, reference=reference, threads=1, **how)

    def encode(self, position: int, data: bytes) -> Coded:
        assert self._encoder is not None
        self._watch()
        self._part = 0.0
        return self._encoder(position, data, self._tell)

    def life(self) -> tuple[float, float]:
        """A number that changes while there is work, and the part of the segment in work that is done."""
        spent = 0.0
        if self._clock is not None:
            with suppress(OSError):  # that thread has ended
                spent = time.clock_gettime(self._clock)
        return self._signs + spent, self._part

    def _watch(self) -> None:
        """Have `life` count this thread's CPU time: loading, compiling and tokenising tell nothing."""
        if hasattr(time, "pthread_getcpuclockid"):
            self._clock = time.pthread_getcpuclockid(threading.get_ident())

    def _tell(self, part: float) -> None:
        self._signs, self._part = self._signs + 1, part


def software() -> str:
    """What decides about bytes: machines that agree in it write the same."""
    return f"laconic {source_digest()}, tokenizers {version('tokenizers')}"


class _Place:
    """Room for a worker, which may die and be replaced."""

    def __init__(self) -> None:
        self.worker: Any = None
        self.begun = 0.0  # when its process was asked for
        self.hello: Any = None  # its first answer, until that is read
        self.loaded = False
        self.failures = 0  # to start or load, since one was loaded
        self.home: str | None = None  # Ray's name of the machine where it got ready
        self.node, self.process = NOBODY, 0


class Cluster:
    """Codes segments as an encoder does, on the workers of a cluster; `coder.encoder.Encodes`.

    As a context manager it ends its workers, and the connection.
    """

    def __init__(self, address: str, encoder: Encoder, engine: str | None, segments: int | None) -> None:
        """Connect, and start the workers; in the main thread.

        Args:
            address: HOST:PORT of the cluster's head; "auto", or "local" for this machine alone.
            encoder: what does the same here; its threads are the number of workers.
            engine: of the workers.
            segments: how many there are to code, where that is known.

        Raises:
            ModuleNotFoundError: there is no Ray here.
            LaconicError: the cluster does not answer, no worker starts, or the first has another laconic.
        """
        ray: Any = import_module("ray")
        if engine == "cuda":
            raise LaconicError("engine cuda with --ray: workers have one core each; leave one of both out")
        self.prefixes, self.reference_name = encoder.prefixes, encoder.reference_name
        most = MAX_WORKERS if segments is None else min(MAX_WORKERS, max(1, segments))
        wanted = encoder.threads
        self._ray = ray
        self.places: list[_Place] = []
        self._free: list[_Place] = []  # those whose workers have nothing to do
        self._changed = threading.Condition()  # held to change either; told when a place is free or given up
        self._why = ""  # the last place was given up
        _connect(ray, address, min(wanted or cores(), most))
        try:
            there, free = (
                int(found().get("CPU", 0)) for found in (ray.cluster_resources, ray.available_resources)
            )
            self.places += [_Place() for _ in range(max(1, min(wanted or free, there, most)))]
            members = () if encoder.model is None else encoder.model.members
            how = {"streams": encoder.streams, "level": encoder.level, "entropy": encoder.entropy}
            # `replace` leaves behind what has been derived from the tensors.
            checkpoints = ray.put([replace(member.checkpoint) for member in members])
            self._load = checkpoints, engine, ray.put(encoder.reference), how
            self._actor: Any = ray.remote(num_cpus=1, max_restarts=0, max_concurrency=2)(Worker)
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def lanes(self) -> int:
        return len(self.places) + min(len(self.places), SPARE)

    def __call__(self, position: int, data: bytes, report: Report) -> Coded:
        reasons: list[str] = []
        shunned: set[str] = set()  # machines that have failed it
        while len(reasons) <= RETRIES:
            place = self._take(shunned, report)
            try:
                if self._prepare(place, report):
                    coded: Coded = self._wait(place, place.worker.encode.remote(position, data), report)
                    return coded._replace(retries=len(reasons))
            except _Lost as why:
                self._kill(place)
                reasons.append(f"the worker on {place.node} {why}")
                shunned.add(place.node)
            finally:
                self._give_back(place)
        raise LaconicError(
            f"the segment at byte {position} failed {len(reasons)} times on the cluster, at last because "
            f"{reasons[-1]}: try a smaller --segment-size, or without --ray"
        )

    def close(self) -> None:
        for place in self.places:
            self._kill(place)
        self._ray.shutdown()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        """Have all of them begin at the same time, and go on with the first one that answers."""
        for place in self.places:
            self._begin(place)
        self._free += self.places
        while not any(place.home for place in self.places):
            place = self._take(set(), lambda part: None)
            try:
                self._greet(place, lambda part: None)
            except _Lost as why:
                self._failed(place, why)
            finally:
                self._give_back(place)

    def _check_any(self) -> None:
        if not self.places:
            raise LaconicError(
                f"no worker of the cluster is left ({self._why}): look by ray status for free cores and "
                "sound machines, or leave out --ray"
            )

    def _take(self, shunned: set[str], report: Report) -> _Place:
        """A place whose worker has nothing to do, on a machine that is not shunned if there is one."""
        while True:
            with self._changed:
                self._check_any()
                anywhere = all(place.node in shunned for place in self.places)
                free = [p for p in self._free if (anywhere or p.node not in shunned) and self._is_ready(p)]
                if free:
                    place = min(free, key=lambda place: not place.loaded)
                    self._free.remove(place)
                    return place
                self._changed.wait(POLL_SECONDS)
            report(0.0)

    def _is_ready(self, place: _Place) -> bool:
        """Whether nothing is to be waited for: its worker has answered, or had time enough."""
        waiting = place.hello is not None and time.monotonic() < place.begun + START_SECONDS
        return not waiting or bool(self._ray.wait([place.hello], timeout=0)[0])

    def _give_back(self, place: _Place) -> None:
        with self._changed:
            if place in self.places:
                self._free.append(place)
            self._changed.notify_all()

    def _prepare(self, place: _Place, report: Report) -> bool:
        """Have a worker there that is loaded, another one where it died; whether there is one now."""
        try:
            self._greet(place, report)
            if not place.loaded:
                worker: Any = place.worker
                self._wait(place, worker.load.remote(*self._load), report)
                place.loaded, place.failures = True, 0
        except _Lost as why:
            self._failed(place, why)
        except LaconicError as error:
            self._failed(place, f"cannot be used: {error}")
        return place.loaded

    def _failed(self, place: _Place, why: object) -> None:
        """A worker did not get ready: give its place up if that is so again and again."""
        self._kill(place)
        place.home = None
        place.failures += 1
        if place.failures >= ATTEMPTS:
            with self._changed:
                self.places.remove(place)
                self._why = f"the worker on {place.node} {why}"
            if self.places:
                warnings.warn(f"{self._why}; the other workers go on without it", stacklevel=2)

    def _begin(self, place: _Place) -> None:
        """Ask for a process; where one died, on the same machine: an idle one may be idle for it is bad."""
        actor = self._actor
        if place.home is None:
            place.node = NOBODY
        else:
            on = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(place.home, soft=True)
            actor = actor.options(scheduling_strategy=on)
        place.worker, place.begun = actor.remote(), time.monotonic()
        place.hello = place.worker.hello.remote()

    def _greet(self, place: _Place, report: Report) -> None:
        """Have a worker there whose software is ours."""
        if place.worker is None:
            self._begin(place)
        if place.hello is None:
            return
        hello = self._wait(place, place.hello, report, place.begun + START_SECONDS)
        place.hello = None
        theirs, place.node, place.process, *more = hello  # another laconic may tell less
        if theirs != software():
            raise LaconicError(
                f"{place.node} has {theirs}, and here is {software()}, so that bytes may differ: install the "
                "same on every machine"
            )
        (place.home,) = more

    def _wait(self, place: _Place, call: Any, report: Report, until: float | None = None) -> Any:
        """What a worker's method returns.

        Args:
            until: when a worker must have started; otherwise there is no room for it.

        Raises:
            LaconicError: the method did.
            _Lost: the worker died, failed, or showed no sign of life.
        """
        errors, life = self._ray.exceptions, place.worker.life.remote()
        signs, part, heard = 0, 0.0, time.monotonic()
        try:
            while not self._ray.wait([call], timeout=POLL_SECONDS)[0]:
                if self._ray.wait([life], timeout=0)[0]:
                    before = signs
                    (signs, part), life = self._ray.get(life), place.worker.life.remote()
                    heard = heard if signs == before else time.monotonic()
                report(part)
                now = time.monotonic()
                if until is not None and now > until:
                    place.failures = ATTEMPTS
                    raise _Lost(f"did not start within {START_SECONDS:.0f} seconds")
                if until is None and now > heard + SILENT_SECONDS:
                    raise _Lost(f"showed no sign of life for {SILENT_SECONDS:.0f} seconds")
            return self._ray.get(call)
        except errors.RayTaskError as error:
            if isinstance(error.cause, LaconicError):
                raise error.cause from None
            raise _Lost(f"failed with {type(error.cause).__name__}: {error.cause}") from None
        except errors.RayError as error:
            last = str(error).strip().rpartition("\n")[2]
            raise _Lost(f"was lost: {last.strip()}") from None

    def _kill(self, place: _Place) -> None:
        worker, place.worker, place.hello, place.loaded = place.worker, None, None, False
        if worker is not None:
            self._ray.kill(worker)


def _connect(ray: Any, address: str, workers: int) -> None:
    """Raises LaconicError where no cluster answers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    host, _, port = address.rpartition(":")
    if address not in (AUTO, LOCAL) and not (host and port.isdecimal()):
        raise LaconicError(
            f"--ray {address}: give the head's HOST:PORT, {AUTO} for the cluster that this machine belongs "
            f"to, or {LOCAL} for this machine alone"
        )
    why: list[str] = []

    def ask(**options: Any) -> None:
        try:
            if address not in (AUTO, LOCAL):  # where nobody speaks, Ray asks for minutes
                with socket.create_connection((host, int(port)), CONNECT_SECONDS) as there:
                    there.sendall(HTTP2)
                    there.recv(1)
            ray.init(address, **options, **quiet)
        except Exception as error:
            why.append(" ".join(str(error).split()))

    if address == LOCAL:
        # In this thread, for what Ray starts ends with the thread that started it.
        stop, ending = signal.getsignal(signal.SIGTERM), list[int]()
        # Half begun, Ray would crash as the interpreter ends. This comes after what Ray registers from here
        # on, which ends the processes it has started.
        atexit.register(lambda: os._exit(ending[0]) if ending else None)
        os.environ.setdefault(NICENESS, "0")
        try:
            ask(num_cpus=workers, include_dashboard=False)
        except KeyboardInterrupt:
            ending.append(128 + signal.SIGINT)
            raise
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 1
            ending.append(128 + code if code == signal.SIGTERM else code)  # Ray's own handler says 15
            raise SystemExit(ending[0]) from None
        finally:
            signal.signal(signal.SIGTERM, stop)
        remedy = "try again, or leave out --ray: -T shares this machine's cores too"
    else:
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(ANSWER_SECONDS)
        if asking.is_alive():
            token = "where it wants a token, set RAY_AUTH_MODE=token"
            why.append(f"none in {ANSWER_SECONDS:.0f} seconds; {token}")
        remedy = f"start one by ray start --head, or give {LOCAL} for this machine alone"
    if why:
        raise LaconicError(f"no answer from a Ray cluster at {address} ({why[0]}): {remedy}")
