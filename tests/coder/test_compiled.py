"""The cache of compiled kernels: whatever happens to it, kernels work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from laconic.coder import compiled

KERNEL = """
import numpy as np
from laconic.coder.kernels import code_lengths
print(round(float(code_lengths(np.zeros((1, 4), np.int32), np.zeros(1, np.int32))[0]), 6))
"""


def run(**environment):
    """Bits of one of four equal symbols, in a process of its own."""
    kept = {
        key: value for key, value in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    }
    done = subprocess.run(
        [sys.executable, "-c", KERNEL],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def cached(folder):
    return [path for path in Path(folder).rglob("*") if path.suffix in (".nbi", ".nbc")]


def test_machine_code_is_kept_and_damage_to_it_is_a_miss(tmp_path):
    assert run(XDG_CACHE_HOME=str(tmp_path)) == 2.0
    kept = cached(tmp_path)
    assert kept
    for suffix in (".nbi", ".nbc"):
        for path in cached(tmp_path):
            if path.suffix == suffix:
                path.write_bytes(b"")
        assert run(XDG_CACHE_HOME=str(tmp_path)) == 2.0
    assert all(path.stat().st_size for path in cached(tmp_path) if path.suffix == ".nbi")


def test_a_folder_that_cannot_be_made_is_no_failure(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert run(XDG_CACHE_HOME=str(tmp_path / "file")) == 2.0


def test_a_full_disk_is_no_failure(monkeypatch):
    class Full:
        def save_overload(self, sig, data):
            raise OSError(28, "No space left on device")

        def load_overload(self, sig, context):
            raise EOFError("Ran out of input")

        def flush(self):
            raise OSError(28, "No space left on device")

    told = []
    monkeypatch.setattr("laconic.coder.report.on_wait", told.append)
    forgiving = compiled._Forgiving(Full())
    forgiving.save_overload(None, None)
    for _ in range(2):
        assert forgiving.load_overload(None, None) is None
    assert told == ["compiling for this processor, once: some 20 seconds"]


def test_without_a_home_there_is_no_cache(monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(compiled, "cache_root", nowhere)
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert compiled._cache_folder.__wrapped__() is None


def test_few_versions_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "cache_root", lambda: tmp_path)
    for number in range(9):
        (tmp_path / f"old{number}").mkdir()
        os.utime(tmp_path / f"old{number}", (number, number))
    mine = compiled._cache_folder.__wrapped__()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert Path(mine).name in left
    assert left == sorted([Path(mine).name, "old5", "old6", "old7", "old8"])


def test_the_digest_is_of_every_source(monkeypatch):
    before = compiled.source_digest.__wrapped__()
    original = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda self: original(self) + (b"#" if self.name == "tree.py" else b"")
    )
    assert compiled.source_digest.__wrapped__() != before
