"""laconic bench --tokenizing: what it measures, and what it refuses."""

import argparse
import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from laconic.bench import tokenizing
from laconic.bench.tokenizing import Cost, Tokenizing, measure_tokenizing
from laconic.cli import main
from laconic.coder.errors import LaconicError

TEXT = Path(argparse.__file__).read_bytes()


def test_the_command_measures_both_on_the_same_documents(tmp_path, capsys):
    (tmp_path / "text").write_bytes(TEXT)
    figures = tmp_path / "figures.json"
    assert main(["bench", "--tokenizing", str(tmp_path / "text"), "--json", str(figures)]) == 0
    report = json.loads(figures.read_text())
    assert report["bytes"] == len(TEXT)
    assert report["documents"] > 50
    assert min(seconds for way in ("library", "shards") for seconds in report[way].values()) > 0
    assert f"{len(TEXT):,} bytes, {report['documents']} documents" in capsys.readouterr().out


def test_shares_are_those_of_rates():
    report = Tokenizing(10**6, 3, library=Cost(1.0, 2.0), shards=Cost(2.0, 2.5))
    assert report.shares == (0.5, 0.8)
    assert report.as_text().splitlines()[-1].split() == ["share", "50%", "80%"]


def test_what_measures_nothing_is_refused(tmp_path, capsys):
    (tmp_path / "text").write_bytes(TEXT)
    with pytest.raises(LaconicError, match="'none' has no tokenizer of the library"):
        measure_tokenizing([str(tmp_path)], "none")
    assert main(["bench", "--tokenizing", "--speed", str(tmp_path / "text")]) == 1
    assert "leave out all but FILE, -m and --json" in capsys.readouterr().err


def test_rows_that_are_none_are_one_line(tmp_path, monkeypatch):
    (tmp_path / "empty").touch()
    checkpoint = SimpleNamespace(tokenizer=SimpleNamespace(kind="bpe"))
    monkeypatch.setattr(tokenizing, "load_checkpoints", lambda _: [checkpoint])
    with pytest.raises(LaconicError, match="the corpus is empty, at least 20,000 bytes are needed"):
        measure_tokenizing([f"datasets:json:{tmp_path}/empty:text"], "a checkpoint")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_bench_begins_where_the_system_counts_no_resources(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # Windows
    assert runpy.run_module("laconic.bench.tokenizing")["measure_tokenizing"]
