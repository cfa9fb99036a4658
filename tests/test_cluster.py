"""Compressing on a Ray cluster: the bytes of one machine, whatever dies on the way."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, nullcontext

import pytest

from laconic import cluster
from laconic.cli import main
from laconic.cluster import LOCAL, RETRIES, Cluster
from laconic.coder.encoder import Encoder
from laconic.coder.pipeline import Job, compress_files, compress_stream
from laconic.coder.progress import Progress

ray = pytest.importorskip("ray", reason="Ray is not installed")
QUIET = Progress("", None, False)


def text(length, seed=0):
    """Numbered sentences, which compress well and differ."""
    sentences = (
        b"Sentence %d of file %d says that %d. " % (i, seed, i * i * 7919 % 1009) for i in range(length)
    )
    return b"".join(sentences)[:length]


@pytest.fixture(scope="module")
def running():
    """A Ray of two cores, in this process."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    stop = signal.getsignal(signal.SIGTERM)
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    signal.signal(signal.SIGTERM, stop)
    yield
    ray.shutdown()


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lengths = {"a": 2500, "empty": 0, "b": 30, "c": 7000}
    for number, (name, length) in enumerate(lengths.items()):
        (tmp_path / name).write_bytes(text(length, number))
    return list(lengths)


@pytest.mark.parametrize("options", [["-m", "none", "-2"], ["-m", "english-nano", "-1"]])
def test_files_are_those_of_one_machine(running, files, options, tmp_path):
    command = ["compress", "-q", *options, "--segment-size", "1000"]
    assert main([*command, *files]) == 0
    expected = {name: (tmp_path / f"{name}.lac").read_bytes() for name in files}
    assert main([*command, "-f", "--ray", "auto", "--manifest", "account.json", *files]) == 0
    assert {name: (tmp_path / f"{name}.lac").read_bytes() for name in files} == expected
    account = json.loads((tmp_path / "account.json").read_text())["files"]
    assert [entry["file"] for entry in account] == files
    assert [len(entry["segments"]) for entry in account] == [3, 0, 1, 7]
    assert all(segment["node"] and not segment["retries"] for e in account for segment in e["segments"])


def compress(coder, data, size):
    target = io.BytesIO()
    compress_stream(io.BytesIO(data), target, coder, size)
    return target.getvalue()


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost_or_doubled(running):
    local = Encoder(None, level=9)
    data = text(900_000)
    with Cluster("auto", local, None, 3) as workers:
        assert len(workers.places) == 2
        job = Job("", nullcontext((io.BytesIO(data), target := io.BytesIO())))
        killed = []

        def kill():
            """Both, one after the other, as soon as each has something to do."""
            for place in workers.places:
                while not (place.loaded and ray.get(place.worker.part.remote())):
                    time.sleep(0.02)
                os.kill(place.process, signal.SIGKILL)
                killed.append(place.process)

        thread = threading.Thread(target=kill)
        thread.start()
        with closing(compress_files([job], lambda: workers, 300_000, QUIET)) as over:
            assert list(over) == [job]
        thread.join()
        assert sum(part.coded.retries for part in job.parts) == 2
        assert not {place.process for place in workers.places} & set(killed)
    assert target.getvalue() == compress(local, data, 300_000)


def test_a_segment_that_kills_every_worker_fails_its_file_alone(
    running, files, capsys, tmp_path, monkeypatch
):
    class Dying(cluster.Worker):
        def encode(self, position, data):
            if b"file 3" in data:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().encode(position, data)

    Dying.__module__ = "__main__"  # sent as it is: workers cannot import the tests
    monkeypatch.setattr(cluster, "Worker", Dying)
    command = ["compress", "-q", "-m", "none", "-2", "--ray", "auto", "--manifest", "account.json", *files]
    assert main(command) == 1
    err = capsys.readouterr().err
    assert (
        f"error: c: the segment at byte 0 failed {RETRIES + 1} times on the cluster, at last because" in err
    )
    assert err.count("\n") == 1
    with open("account.json") as account:
        assert "the segment at byte 0 failed" in json.load(account)["files"][-1]["error"]
    assert sorted(os.listdir()) == sorted([*files, "a.lac", "b.lac", "empty.lac", "account.json"])


def test_another_laconic_is_refused(running, files, capsys, monkeypatch):
    class Other(cluster.Worker):
        def hello(self):
            return "laconic 0123, tokenizers 0", "there", 1

    Other.__module__ = "__main__"
    monkeypatch.setattr(cluster, "Worker", Other)
    assert main(["compress", "-q", "-m", "none", "--ray", "auto", *files]) == 1
    assert "error: there has laconic 0123, tokenizers 0, and here is laconic" in capsys.readouterr().err
    assert sorted(os.listdir()) == sorted(files)


def test_workers_for_which_there_is_no_room(running, files, capsys, monkeypatch):
    class Late(cluster.Worker):
        def hello(self):
            time.sleep(60)

    Late.__module__ = "__main__"
    monkeypatch.setattr(cluster, "Worker", Late)
    monkeypatch.setattr(cluster, "START_SECONDS", 1.0)
    assert main(["compress", "-q", "-m", "none", "--ray", "auto", *files]) == 1
    assert "error: no worker has started within 1 seconds: look by ray status" in capsys.readouterr().err
    assert sorted(os.listdir()) == sorted(files)


@pytest.fixture
def port():
    """One at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_addresses_that_do_not_answer(files, capsys, port, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert main(["compress", "-q", "-m", "none", "--ray", f"127.0.0.1:{port}", *files]) == 1
    assert f"no answer from a Ray cluster at '127.0.0.1:{port}' (" in capsys.readouterr().err
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(ray, "init", lambda *args, **more: time.sleep(1))
    assert main(["compress", "-q", "-m", "none", "--ray", "auto", *files]) == 1
    err = capsys.readouterr().err
    assert err.startswith("laconic: error: no answer from a Ray cluster at 'auto' (none in 0 seconds): ")
    assert err.count("\n") == 1
    assert sorted(os.listdir()) == sorted(files)


def test_an_interruption_ends_a_cluster_of_this_machine(tmp_path):
    (tmp_path / "a").write_bytes(text(3_000_000))
    command = [
        sys.executable,
        "-m",
        "laconic",
        "compress",
        "-m",
        "none",
        "-9",
        "--ray",
        LOCAL,
        "-T",
        "1",
        "a",
    ]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not any(name.endswith(".part") for name in os.listdir(tmp_path)):
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(6)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert os.listdir(tmp_path) == ["a"]
    process.stderr.close()
