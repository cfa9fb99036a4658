"""Compressing on a cluster of which machines are bad; by a stub of Ray, every day."""

import io
import os
import signal
import socket
import sys
import threading
import time
from contextlib import nullcontext

import pytest
from fakeray import Died, Ray

from laconic import cluster
from laconic.cli import main
from laconic.cluster import LOCAL, RETRIES, Cluster
from laconic.coder.encoder import Encoder
from laconic.coder.errors import LaconicError
from laconic.coder.pipeline import Job, compress_files, compress_stream
from laconic.coder.progress import Progress

SIZE = 1000  # of a segment
DATA = b"".join(b"%d is not %d. " % (i, i * i * 7919 % 1009) for i in range(900))[: 10 * SIZE]


class Worker(cluster.Worker):
    machine = ""  # the stub says

    def hello(self):
        return cluster.software(), self.machine, 1, self.machine

    def encode(self, position, data):
        time.sleep(0.01)  # the other machines come in between
        return super().encode(position, data)._replace(node=self.machine)


def worker(method, fault, machines="bad"):
    """One of which a method fails on some machines: it raises an error, or what a function returns."""

    def failing(self, *args):
        if self.machine in machines:
            return fault(self)
        return getattr(Worker, method)(self, *args)

    return type("Failing", (Worker,), {method: failing})


def raising(error):
    def fault(self):
        raise error

    return fault


def hanging(self):
    threading.Event().wait(20)


@pytest.fixture
def ray(monkeypatch):
    """Puts a stub there: machines, the class of workers, cores that others take."""

    def put(machines, kind=Worker, taken=0):
        stub = Ray(machines, taken)
        monkeypatch.setitem(sys.modules, "ray", stub)
        monkeypatch.setattr(cluster, "Worker", kind)
        return stub

    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.02)
    return put


def compress(threads=2, size=SIZE):
    """Of DATA: the job, the places that are left, and whether the bytes are those of one machine."""
    local = Encoder(None, level=1, threads=threads)
    compress_stream(io.BytesIO(DATA), expected := io.BytesIO(), local, size)
    with Cluster(LOCAL, local, None, len(DATA) // size) as workers:
        job = Job("", nullcontext((io.BytesIO(DATA), target := io.BytesIO())))
        assert list(compress_files([job], lambda: workers, size, Progress("", None, False))) == [job]
        return job, len(workers.places), target.getvalue() == expected.getvalue()


def nodes(job):
    return {part.coded.node for part in job.parts}


def retries(job):
    return sum(part.coded.retries for part in job.parts)


def test_sound_machines_share_the_work(ray, monkeypatch):
    monkeypatch.delenv(cluster.NICENESS, raising=False)
    ray({"one": 1, "two": 1})
    job, places, same = compress()
    assert (places, same, retries(job), nodes(job)) == (2, True, 0, {"one", "two"})
    assert os.environ[cluster.NICENESS] == "0"  # what Ray starts inherits it


@pytest.mark.parametrize(
    ("method", "fault", "why"),
    [
        ("__init__", Died(), "was lost: Its process was lost."),
        ("hello", Died(), "was lost: Its process was lost."),
        ("hello", OSError("no room"), "failed with OSError: no room"),
        ("load", Died(), "was lost: Its process was lost."),
        ("load", OSError("no room"), "failed with OSError: no room"),
        ("load", LaconicError("no engine"), "cannot be used: no engine"),
    ],
)
def test_a_machine_that_starts_no_worker_costs_no_segment(ray, recwarn, method, fault, why):
    ray({"bad": 1, "good": 1}, worker(method, raising(fault)))
    job, places, same = compress()
    assert (job.error, places, same, retries(job), nodes(job)) == (None, 1, True, 0, {"good"})
    (warning,) = recwarn
    assert str(warning.message).endswith(f" {why}; the other workers go on without it")


@pytest.mark.parametrize("fault", [Died(), MemoryError("no room")], ids=repr)
def test_a_machine_that_codes_nothing_fails_no_file(ray, fault):
    ray({"bad": 1, "good": 1}, worker("encode", raising(fault)))
    job, places, same = compress()
    assert (job.error, places, same, nodes(job)) == (None, 2, True, {"good"})
    assert {part.coded.retries for part in job.parts} == {0, 1}


def test_workers_that_die_do_not_end_up_on_a_bad_machine(ray):
    """It has a free core, for nothing runs there."""
    met = []

    class Dying(worker("load", raising(Died()))):
        def encode(self, position, data):
            met.append(position)
            if met.count(position) == 1:
                raise Died
            return super().encode(position, data)

    ray({"bad": 1, "good": 1}, Dying)
    with pytest.warns(UserWarning, match="the worker on bad was lost"):
        job, places, same = compress(size=2500)
    assert (job.error, places, same, retries(job)) == (None, 1, True, 4)


def test_a_machine_on_which_every_other_start_fails_is_kept(ray):
    """Failures count in a row."""
    loads, met = [], []

    class Moody(Worker):
        def load(self, *given):
            loads.append(None)
            if len(loads) % 2:
                raise Died
            super().load(*given)

        def encode(self, position, data):
            met.append(position)
            if met.count(position) == 1:
                raise Died
            return super().encode(position, data)

    ray({"one": 1}, Moody)
    job, places, same = compress(threads=1, size=5000)
    assert (job.error, places, same, retries(job), len(loads)) == (None, 1, True, 2, 6)


def test_a_worker_that_hangs_is_replaced(ray, monkeypatch):
    monkeypatch.setattr(cluster, "SILENT_SECONDS", 1.0)
    ray({"bad": 1, "good": 1}, worker("encode", hanging))
    job, places, same = compress(size=5000)
    assert (job.error, places, same, retries(job), nodes(job)) == (None, 2, True, 1, {"good"})


def test_a_worker_that_is_replaced_has_the_same_software(ray):
    """The machine gets another laconic while the command runs."""
    met = []

    class Updated(Worker):
        def hello(self):
            met.append(self.machine)
            theirs = "laconic 0123" if met.count("bad") > 1 else cluster.software()
            return theirs, self.machine, 1, self.machine

        def encode(self, position, data):
            if self.machine == "bad":
                raise Died if met.count("bad") == 1 else AssertionError("it has other software")
            return super().encode(position, data)

    ray({"bad": 1, "good": 1}, Updated)
    with pytest.warns(UserWarning, match=r"cannot be used: bad has laconic 0123, and here is laconic"):
        job, places, same = compress()
    assert (job.error, places, same, retries(job), nodes(job)) == (None, 1, True, 1, {"good"})


@pytest.mark.parametrize("seconds", [60.0, 1.0])
def test_places_for_which_there_is_no_room_are_not_waited_for(ray, monkeypatch, recwarn, seconds):
    monkeypatch.setattr(cluster, "START_SECONDS", seconds)
    ray({"good": 1}, type("Slow", (Worker,), {"encode": lambda *a: time.sleep(0.2) or Worker.encode(*a)}), 3)
    began = time.monotonic()
    job, places, same = compress(threads=3)
    assert (job.error, same, retries(job), nodes(job)) == (None, True, 0, {"good"})
    if seconds == 60:
        assert time.monotonic() < began + 30
        assert (places, list(recwarn)) == (3, [])
    else:
        assert places == 1
        why = "the worker on a machine that has not answered did not start within 1 seconds"
        assert {str(w.message) for w in recwarn} == {f"{why}; the other workers go on without it"}


def test_a_machine_that_is_slow_to_start_takes_part_later(ray):
    class Late(Worker):
        def hello(self):
            if self.machine == "late":
                time.sleep(0.5)
            return super().hello()

        def encode(self, position, data):
            time.sleep(0.2)
            return super().encode(position, data)

    ray({"good": 1, "late": 1}, Late)
    job, places, same = compress()
    assert (job.error, places, same, retries(job), nodes(job)) == (None, 2, True, 0, {"good", "late"})


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="CPU time of threads is not told")
def test_a_worker_that_computes_without_a_word_does_not_hang(ray, monkeypatch):
    monkeypatch.setattr(cluster, "SILENT_SECONDS", 1.5)
    met = []

    class Busy(Worker):
        def _watch(self):
            super()._watch()
            until = time.monotonic() + (3 if self._encoder and not met else 0)
            while time.monotonic() < until:
                met.append(self.machine)

    ray({"one": 1}, Busy)
    job, places, same = compress(threads=1, size=5000)
    assert (job.error, places, same, retries(job), set(met)) == (None, 1, True, 0, {"one"})


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, data in (("a", DATA[:500]), ("b", b"b" + DATA[:500])):
        (tmp_path / name).write_bytes(data)
    return ["compress", "-q", "-m", "none", "-1", "--ray", LOCAL, "-T", "2", "a", "b"]


@pytest.mark.parametrize(
    ("method", "fault", "why"),
    [
        ("load", raising(Died()), "the worker on bad was lost: Its process was lost."),
        ("load", raising(LaconicError("no engine")), "the worker on bad cannot be used: no engine"),
        ("hello", hanging, "the worker on a machine that has not answered did not start within 1 seconds"),
    ],
)
def test_no_worker_at_all(ray, files, capsys, monkeypatch, method, fault, why):
    monkeypatch.setattr(cluster, "START_SECONDS", 1.0)
    ray({"bad": 2}, worker(method, fault))
    assert main(files) == 1
    err = capsys.readouterr().err
    assert f"no worker of the cluster is left ({why}): look by ray status for free cores" in err
    assert "segment-size" not in err


def test_a_segment_that_fails_everywhere_fails_its_file_alone(ray, files, capsys, tmp_path):
    class Failing(Worker):
        def encode(self, position, data):
            if data[:1] == b"b":
                raise Died
            return super().encode(position, data)

    ray({"one": 1, "two": 1}, Failing)
    assert main(files) == 1
    err = capsys.readouterr().err
    times = f"the segment at byte 0 failed {RETRIES + 1} times on the cluster, at last because the worker on"
    assert err.startswith(f"laconic: error: b: {times}")
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "a.lac"}


def test_a_segment_that_is_refused_is_not_tried_again(ray, files, capsys):
    ray({"bad": 2}, worker("encode", raising(LaconicError("it is bad"))))
    assert main(files) == 1
    assert capsys.readouterr().err == "laconic: error: a: it is bad\nlaconic: error: b: it is bad\n"


def test_another_laconic_is_refused(ray, files, capsys, tmp_path):
    ray({"bad": 2}, worker("hello", lambda self: ("laconic 0123, tokenizers 0", "there", 1)))
    assert main([*files, "--manifest", "account.json"]) == 1
    why = "there has laconic 0123, tokenizers 0, and here is laconic "
    assert capsys.readouterr().err.startswith(f"laconic: error: {why}")
    assert (tmp_path / "account.json").read_text().count(f'"error": "{why}') == 2
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "account.json"}


def test_a_local_cluster_that_does_not_come_up(ray, files, capsys, monkeypatch):
    def init(*args, **options):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Exception("The current node timed out during startup.\nThe GCS may be overloaded.")

    monkeypatch.setattr(ray({"one": 2}), "init", init)
    before = signal.getsignal(signal.SIGTERM)
    assert main(files) == 1
    assert capsys.readouterr().err == (
        "laconic: error: no answer from a Ray cluster at local (The current node timed out during startup. "
        "The GCS may be overloaded.): try again, or leave out --ray: -T shares this machine's cores too\n"
    )
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("stop", "status"), [(KeyboardInterrupt(), 130), (SystemExit(15), 143), (SystemExit(129), 129)]
)
def test_a_stop_while_a_local_cluster_starts(ray, files, monkeypatch, tmp_path, stop, status):
    """Ray would crash when the interpreter ends: that is cut short."""
    at_exit, ended = [], []
    monkeypatch.setattr("atexit.register", at_exit.append)

    def init(*args, **options):
        raise stop

    monkeypatch.setattr(ray({"one": 2}), "init", init)
    try:
        said = main(files)
    except SystemExit as raised:
        said = raised.code
    assert said == status
    monkeypatch.setattr("os._exit", ended.append)
    (call,) = at_exit
    call()
    assert ended == [status]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_addresses_that_do_not_answer(ray, files, capsys, monkeypatch):
    stub = ray({"one": 2})
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{probe.getsockname()[1]}"  # nobody listens
    assert main([*files, "--ray", closed]) == 1
    assert f"no answer from a Ray cluster at {closed} (" in capsys.readouterr().err
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        assert main([*files, "--ray", address]) == 1
    assert f"no answer from a Ray cluster at {address} (timed out): start one" in capsys.readouterr().err
    assert main([*files, "--ray", "ray://head"]) == 1
    assert "--ray ray://head: give the head's HOST:PORT, auto" in capsys.readouterr().err
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(stub, "init", lambda *args, **more: time.sleep(1))
    assert main([*files, "--ray", "auto"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("laconic: error: no answer from a Ray cluster at auto (none in 0 seconds; where")
    assert err.count("\n") == 1
