"""Compressing on a Ray cluster: the bytes of one machine, whatever dies on the way; with Ray itself."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from laconic import cluster
from laconic.cli import main
from laconic.cluster import LOCAL, RETRIES, Cluster
from laconic.coder.encoder import Encoder
from laconic.coder.errors import LaconicError
from laconic.coder.pipeline import Job, compress_files, compress_stream
from laconic.coder.progress import Progress

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.slow


def text(length, seed=0):
    """Numbered sentences, which compress well and differ."""
    sentences = (
        b"Sentence %d of file %d says that %d. " % (i, seed, i * i * 7919 % 1009) for i in range(length)
    )
    return b"".join(sentences)[:length]


@pytest.fixture(scope="module")
def address():
    """The head of a cluster of two machines, both of them this one, with a core each."""
    from ray.cluster_utils import Cluster as Machines

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    os.environ.setdefault(cluster.NICENESS, "0")
    head = {"num_cpus": 1, "include_dashboard": False}
    machines = Machines(initialize_head=True, shutdown_at_exit=False, head_node_args=head)
    machines.add_node(num_cpus=1)
    yield f"127.0.0.1:{machines.address.rpartition(':')[2]}"
    machines.shutdown()


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lengths = {"a": 2500, "empty": 0, "b": 30, "c": 7000}
    for number, (name, length) in enumerate(lengths.items()):
        (tmp_path / name).write_bytes(text(length, number))
    return list(lengths)


@pytest.mark.parametrize("options", [["-m", "none", "-2"], ["-m", "english-nano", "-1"]])
def test_files_are_those_of_one_machine(address, files, options, tmp_path):
    command = ["compress", "-q", *options, "--segment-size", "1000"]
    assert main([*command, *files]) == 0
    expected = {name: (tmp_path / f"{name}.lac").read_bytes() for name in files}
    assert main([*command, "-f", "--ray", address, "--manifest", "account.json", *files]) == 0
    assert {name: (tmp_path / f"{name}.lac").read_bytes() for name in files} == expected
    account = json.loads((tmp_path / "account.json").read_text())["files"]
    assert [entry["file"] for entry in account] == files
    assert [len(entry["segments"]) for entry in account] == [3, 0, 1, 7]
    assert all(segment["node"] and not segment["retries"] for e in account for segment in e["segments"])


def test_workers_that_die_or_hang_are_replaced_and_nothing_is_lost_or_doubled(address, monkeypatch):
    monkeypatch.setattr(cluster, "SILENT_SECONDS", 8.0)
    local, data, met = Encoder(None, level=9), text(450_000), []
    compress_stream(io.BytesIO(data), expected := io.BytesIO(), local, 150_000)  # kernels are compiled now
    with Cluster(address, local, None, 3) as workers:
        assert len(workers.places) == 2
        job = Job("", nullcontext((io.BytesIO(data), target := io.BytesIO())))

        def meddle():
            """One is killed and the other stopped, as soon as each is in the middle of a segment."""
            for place, what in zip(workers.places, (signal.SIGKILL, signal.SIGSTOP), strict=True):
                while not (place.loaded and ray.get(place.worker.life.remote())[1]):
                    time.sleep(0.02)
                os.kill(place.process, what)
                met.append(place.process)

        thread = threading.Thread(target=meddle)
        thread.start()
        assert list(compress_files([job], lambda: workers, 150_000, Progress("", None, False))) == [job]
        thread.join()
        assert sum(part.coded.retries for part in job.parts) == 2
        assert not {place.process for place in workers.places if place.worker} & set(met)
    assert target.getvalue() == expected.getvalue()
    assert gone(lambda: [process for process in met if Path(f"/proc/{process}").exists()])  # what hung too


def gone(found):
    """Whether nothing is found any more, sooner or later."""
    until = time.monotonic() + 30
    while found() and time.monotonic() < until:
        time.sleep(0.2)
    return not found()


def by_value(worker):
    """Sent as it is, for workers cannot import the tests."""
    worker.__module__ = "__main__"
    return worker


def test_segments_that_fail_fail_their_files_alone(address, files, capsys, monkeypatch):
    @by_value
    class Failing(cluster.Worker):
        def encode(self, position, data):
            if b"file 3" in data:
                os.kill(os.getpid(), signal.SIGKILL)
            if b"file 0" in data:
                raise LaconicError("it is bad")
            return super().encode(position, data)

    monkeypatch.setattr(cluster, "Worker", Failing)
    command = ["compress", "-q", "-m", "none", "-2", "--ray", address, "--manifest", "account.json", *files]
    assert main(command) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert first == "laconic: error: a: it is bad"
    times = f"failed {RETRIES + 1} times on the cluster, at last because"
    lost = f"the worker on {os.uname().nodename} was lost: "
    assert last.startswith(f"laconic: error: c: the segment at byte 0 {times} {lost}")
    with open("account.json") as account:
        entries = json.load(account)["files"]
    assert [entry.get("error", "")[:35] for entry in entries] == [
        "it is bad",
        "",
        "",
        "the segment at byte 0 failed 4 time",
    ]
    assert sorted(os.listdir()) == sorted([*files, "b.lac", "empty.lac", "account.json"])


def of(mark):
    """Processes that have inherited `mark`."""

    def has(process):
        try:
            return mark.encode() in (process / "environ").read_bytes()
        except OSError:
            return False

    return [process.name for process in Path("/proc").iterdir() if process.name.isdecimal() and has(process)]


def titled(process, title):
    """Whether Ray calls it so."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().startswith(title)
    except OSError:
        return False


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_leaves_nothing(tmp_path, number, status):
    (tmp_path / "a").write_bytes(text(8_000_000))
    options = ["-m", "none", "-9", "--ray", LOCAL, "-T", "1", "--manifest", "account.json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "laconic", "compress", *options, "a"],
        cwd=tmp_path,
        env=os.environ | {"LACONIC_TEST": str(tmp_path)},
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not any(titled(one, b"ray::Worker") for one in of(str(tmp_path))):  # and not yet ray::IDLE
        assert process.poll() is None
        time.sleep(0.2)
    time.sleep(3)  # it compresses
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)  # a terminal interrupts all
    assert process.wait(60) == status
    assert process.stderr.read() == b""
    assert sorted(os.listdir(tmp_path)) == ["a", "account.json"]
    assert "stopped" in (tmp_path / "account.json").read_text()
    process.stderr.close()
    assert gone(lambda: of(str(tmp_path)))
