"""A stub of Ray in this process: its failures at will, and in no time.

Actors are objects, and each call of theirs a thread. An actor waits for a core of the machine that it is
bound to, or of the first one that has one free; it finds the machine's name in `machine`.
"""

import threading
import time
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import wait as wait_for
from contextlib import suppress
from functools import partial
from types import SimpleNamespace


class RayError(Exception):
    pass


class RayTaskError(RayError):
    """A method of an actor raised `cause`."""

    def __init__(self, cause):
        super().__init__(f"a traceback\n{cause}")
        self.cause = cause


class Died(BaseException):
    """Raised by an actor, of which nothing is left then."""


class Actor:
    def __init__(self, kind, home, release):
        self.home = home
        self._kind, self._release = kind, release
        self._object, self._calls = None, []
        self._placed, self._dead = threading.Event(), False

    def __getattr__(self, name):
        return SimpleNamespace(remote=partial(self._call, name))

    def start(self, machine):
        time.sleep(0.02)  # actors that are asked for at the same time are spread
        self._object = object.__new__(self._kind)
        self._object.machine = machine
        try:
            self._object.__init__()
        except Died:
            self.die()
        self._placed.set()

    def die(self):
        dead, self._dead = self._dead, True
        self._placed.set()
        for call in self._calls.copy():
            _settle(call, RayError("The actor died.\n\tmachine: one\nIts process was lost."))
        if not dead:
            self._release(self)

    def _call(self, name, *args):
        call = Future()
        self._calls.append(call)
        threading.Thread(target=self._run, args=(call, name, args), daemon=True).start()
        return call

    def _run(self, call, name, args):
        self._placed.wait()
        try:
            if self._dead:
                raise Died
            result = getattr(self._object, name)(*map(get, args))
        except Died:
            self.die()
        except Exception as error:
            _settle(call, RayTaskError(error))
        else:
            with suppress(InvalidStateError):
                call.set_result(result)


class Ray:
    """What `import ray` would give, with `machines` as names and free cores; others use `taken` cores."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
    util = SimpleNamespace(
        scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=lambda name, soft: name)
    )

    def __init__(self, machines, taken=0):
        self._free, self._taken = dict(machines), taken
        self._total = sum(machines.values()) + taken
        self._homes, self._waiting = {}, []
        self._lock = threading.RLock()

    def init(self, address, **options):
        pass

    def shutdown(self):
        pass

    def cluster_resources(self):
        return {"CPU": float(self._total)}

    def available_resources(self):
        return {"CPU": float(sum(self._free.values()))}

    def put(self, value):
        stored = Future()
        stored.set_result(value)
        return stored

    def get(self, call):
        return get(call)

    def wait(self, calls, timeout):
        done, rest = wait_for(calls, timeout)
        return list(done), list(rest)

    def kill(self, actor):
        actor.die()

    def remote(self, **options):
        def make(kind, scheduling_strategy=None):
            begin = partial(self._begin, kind, scheduling_strategy)
            return SimpleNamespace(remote=begin, options=partial(make, kind))

        return make

    def _begin(self, kind, home):
        actor = Actor(kind, home, self._release)
        with self._lock:
            self._waiting.append(actor)
            self._place()
        return actor

    def _release(self, actor):
        with self._lock:
            if actor in self._waiting:
                self._waiting.remove(actor)
            if actor in self._homes:
                self._free[self._homes.pop(actor)] += 1
            self._place()

    def _place(self):
        for actor in self._waiting.copy():
            wanted = self._free if actor.home is None else [actor.home]
            machine = next((name for name in wanted if self._free[name]), None)
            if machine is not None:
                self._waiting.remove(actor)
                self._free[machine] -= 1
                self._homes[actor] = machine
                threading.Thread(target=actor.start, args=(machine,), daemon=True).start()


def get(value):
    return value.result() if isinstance(value, Future) else value


def _settle(call, error):
    with suppress(InvalidStateError):
        call.set_exception(error)
