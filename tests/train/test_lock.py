"""One command writes into a run at a time, and one that was killed keeps nobody out."""

import os
import subprocess
import sys

import pytest
from tiny import TINY

from laconic.cli import main
from laconic.coder.errors import LaconicError
from laconic.train.configuration import build_recipe
from laconic.train.lock import LOCK, locked
from laconic.train.run import Run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
HOLD = """
import sys
from pathlib import Path
from laconic.train.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_whoever_holds_a_folder_is_named_until_it_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LaconicError, match=f"in use by process {holder.pid} on "), locked(tmp_path):
            pass
        holder.kill()
    assert (tmp_path / LOCK).is_file()
    for _ in range(2):
        with locked(tmp_path):
            pass


def test_every_command_that_writes_is_refused_in_one_line_and_writes_nothing(tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    Run(out, build_recipe(TINY)).keep_recipe()
    (out / "recipe.yaml").write_text(text := "# by hand\n" + (out / "recipe.yaml").read_text())
    stages = [["pretrain"], ["distill"], ["export"], ["consolidate"]]
    corpus = [["train", str(tmp_path)], ["tokenizer", str(tmp_path)]]
    sweep = ["sweep", "nothing.txt", "--over", "training.seed=0,1"]
    with locked(out):
        for command in (*stages, *corpus, sweep):
            assert main([*command, "-o", str(out)]) == 1
            error = capsys.readouterr().err
            assert f"{out} is in use by process {os.getpid()} on " in error
            assert error.count("\n") == 1
        for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        with Run.open(out, None) as this:  # beside the first rank, which has it
            assert this.recipe == build_recipe(TINY)
    assert (out / "recipe.yaml").read_text() == text
    assert not list(out.glob("*.partial"))
