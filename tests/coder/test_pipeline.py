"""Several files through the same lanes: order, failures of one of them, and the account."""

import hashlib
import io
import json
import os
import threading
from contextlib import contextmanager, nullcontext

import pytest
from fakes import predictable

from laconic.cli import main
from laconic.coder.encoder import Encoder
from laconic.coder.errors import LaconicError
from laconic.coder.files import compress, decompress
from laconic.coder.pipeline import Job, compress_files
from laconic.coder.progress import Progress

QUIET = Progress("", None, False)


class Watched:
    """An encoder that counts the segments in work at the same time, and fails where it is told to."""

    reference_name = None

    def __init__(self, model, **settings):
        self.encoder = Encoder(model, **settings)
        self.lanes, self.prefixes = self.encoder.lanes, self.encoder.prefixes
        self.lock, self.all_busy = threading.Lock(), threading.Event()
        self.working = self.most_working = 0

    def __call__(self, position, data, report):
        with self.lock:
            self.working += 1
            self.most_working = max(self.most_working, self.working)
        if self.most_working == self.lanes:
            self.all_busy.set()
        self.all_busy.wait(10)
        try:
            if b"bad" in data:
                raise LaconicError("it is bad")
            return self.encoder(position, data, report)
        finally:
            with self.lock:
                self.working -= 1


def run(contents, encoder, size=1000):
    """The jobs in the order in which they are over, and what was written for each."""
    targets = {str(number): io.BytesIO() for number in range(len(contents))}
    jobs = [Job(name, nullcontext((io.BytesIO(contents[int(name)]), targets[name]))) for name in targets]
    over = list(compress_files(iter(jobs), lambda: encoder, size, QUIET))
    return over, [target.getvalue() for target in targets.values()]


def test_short_files_are_worked_on_at_the_same_time():
    contents = [predictable(500, seed) for seed in range(6)]
    watched = Watched(None, level=2, threads=2)
    over, written = run(contents, watched)
    assert watched.most_working == 2
    assert [job.name for job in over] == [str(number) for number in range(6)]
    assert written == [compress(data, None, level=2) for data in contents]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_one_that_fails_stops_no_other(threads, model):
    contents = [b"", predictable(2500), predictable(900) + b"bad" + predictable(2500), b"", predictable(1)]
    over, written = run(contents, Watched(model, threads=threads))
    assert [job.name for job in over] == ["0", "1", "2", "3", "4"]
    assert [str(job.error) for job in over] == ["None", "None", "it is bad", "None", "None"]
    for number in (0, 1, 3, 4):
        assert decompress(written[number], model) == contents[number]
        original, coded = over[number].sha256
        assert original == hashlib.sha256(contents[number]).hexdigest()
        assert coded == hashlib.sha256(written[number]).hexdigest()
        assert over[number].totals == (len(contents[number]), len(written[number]))
    assert [len(job.parts) for job in over] == [0, 3, 0, 0, 1]


def test_files_are_opened_one_after_another_and_closed_whatever_happens():
    events = []

    @contextmanager
    def opened(name):
        events.append(f"open {name}")
        try:
            yield io.BytesIO(predictable(50)), io.BytesIO()
            events.append(f"done {name}")
        except BaseException as error:
            events.append(f"{type(error).__name__} {name}")
            raise

    def encoder():
        events.append("encoder")
        return Encoder(None, level=2, threads=1)

    jobs = (Job(name, opened(name)) for name in "abc")
    for job in (over := compress_files(jobs, encoder, 100, QUIET)):
        if job.name == "b":
            over.close()
    assert events[:4] == ["open a", "encoder", "done a", "open b"]
    assert sorted(events[4:]) in (["done b"], ["CancelledError c", "done b", "open c"])


def test_without_anything_to_code_there_is_no_encoder():
    job = Job("", nullcontext((io.BytesIO(), target := io.BytesIO())))
    assert list(compress_files([job], lambda: pytest.fail("called"), 1000, QUIET)) == [job]
    assert target.getvalue() == compress(b"", None)


def stopped(*args):
    raise KeyboardInterrupt


def test_manifest(known, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    contents = {"a": predictable(2500), "b": b""}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    command = ["compress", "-q", "--segment-size", "1000", "--manifest", "account.json"]
    assert main([*command, "a", "missing", "b"]) == 1
    account = json.loads((tmp_path / "account.json").read_text())
    first, second, third = account["files"]
    assert second == {"file": "missing", "error": "missing: No such file or directory: check the path"}
    for entry in (first, third):
        coded = (tmp_path / entry["output"]).read_bytes()
        assert entry["output"] == f"{entry['file']}.lac"
        assert (entry["bytes"], entry["output_bytes"]) == (len(contents[entry["file"]]), len(coded))
        assert entry["output_sha256"] == hashlib.sha256(coded).hexdigest()
        assert entry["sha256"] == hashlib.sha256(contents[entry["file"]]).hexdigest()
    assert [(part["position"], part["bytes"]) for part in first["segments"]] == [
        (0, 1000),
        (1000, 1000),
        (2000, 500),
    ]
    assert {part["method"] for part in first["segments"]} == {"mixed"}
    assert sum(part["coded_bytes"] for part in first["segments"]) < first["output_bytes"]
    assert third["segments"] == []
    os.remove("a.lac")
    assert main([*command, "a"]) == 1
    assert "account.json exists" in capsys.readouterr().err
    assert not os.path.exists("a.lac")
    monkeypatch.setattr("laconic.coder.encoder.Encoder.__call__", stopped)
    assert main(["compress", "-q", "--manifest", "other.json", "a", "b.lac"]) == 130
    assert json.loads((tmp_path / "other.json").read_text())["files"] == [
        {"file": name, "error": "the command was stopped before"} for name in ("a", "b.lac")
    ]
    assert sorted(os.listdir()) == ["a", "account.json", "b", "b.lac", "known", "other.json"]


@pytest.mark.parametrize(
    ("manifest", "more"),
    [("a", ["-f"]), ("./a.lac", []), ("out", ["-o", "out"]), ("link", ["-f"]), ("v1", ["-f"])],
)
def test_a_manifest_takes_the_place_of_no_file(manifest, more, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "v1"):
        (tmp_path / name).write_bytes(b"text")
    os.symlink("a", "link")
    command = ["compress", "-q", "-m", "none", "--reference", "v1", "--manifest", manifest]
    assert main([*command, *more, "a"]) == 1
    assert f"--manifest {manifest} is an input, an output or the reference" in capsys.readouterr().err
    assert [(tmp_path / name).read_bytes() for name in ("a", "v1")] == [b"text"] * 2
    assert sorted(os.listdir()) == ["a", "link", "v1"]
