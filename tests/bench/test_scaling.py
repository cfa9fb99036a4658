"""How cost grows: texts that are cut, processes that are measured, what is made of their figures."""

import json
import signal

import pytest

from laconic.bench import scaling
from laconic.bench.plots import plot_growth
from laconic.bench.scaling import Cost, Growth, read_sizes, write_text
from laconic.cli import main
from laconic.coder.errors import LaconicError


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words"
    path.write_bytes(b"a word in a line\n" * 20_000)
    return path


@pytest.mark.parametrize("text", ["", "1,ten", "0,1", "1,,2", "2000000"])
def test_sizes_that_are_none_are_one_line(text):
    assert read_sizes("100,1,10,1") == [1, 10, 100]
    with pytest.raises(LaconicError, match="give megabytes from 1 to 1000000, such as 1,10,100"):
        read_sizes(text)


def test_a_text_longer_than_its_files_repeats_them_with_other_vowels(tmp_path):
    (tmp_path / "a").write_bytes(b"one ")
    (tmp_path / "b").write_bytes(b"two ")
    files, out = [str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "out"
    write_text(files, 20, out)
    assert out.read_bytes() == b"one two uni twu ano "
    (tmp_path / "empty").touch()
    with pytest.raises(LaconicError, match="not one byte"):
        write_text([str(tmp_path / "empty")], 1, out)


def test_a_process_is_measured_and_its_failure_is_named(tmp_path):
    here = b"x" * 80_000_000  # which is not the stage's
    cost = scaling._cost("version", 1, ["--version"], tmp_path)
    assert 0 < cost.cpu_seconds < 60
    assert 5e6 < cost.peak_bytes < 60e6 < len(here)
    with pytest.raises(LaconicError, match=r"laconic abacus on 1 MB: .*no command 'abacus'"):
        scaling._cost("none", 1, ["abacus"], tmp_path)


def test_a_stage_ends_with_the_command(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "stage.py").write_text(
        "import fcntl, pathlib, sys, time\n"
        "fcntl.flock(lock := open(sys.argv[1], 'w'), fcntl.LOCK_EX)\n"
        "pathlib.Path(sys.argv[2]).touch()\n"
        "time.sleep(60)\n"
    )
    lock, begun = tmp_path / "lock", tmp_path / "begun"

    def stop(number, frame):  # as the command does when it is told to end
        if begun.exists():
            raise SystemExit(128 + number)

    monkeypatch.setattr(scaling, "PACKAGE", "stage")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        with pytest.raises(SystemExit):
            scaling._cost("stage", 1, [lock, begun], tmp_path)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # or raises, while the stage holds it


def test_the_table_says_what_a_further_megabyte_takes(tmp_path):
    growth = Growth([Cost("shards", size, 2.0 + size / 4, 1.0, 50_000_000) for size in (1, 9, 100)])
    head, _, *rows = (line.split() for line in growth.as_text().splitlines())
    assert head[:4] == ["stage", "MB", "CPU", "s"]
    assert [row[3] for row in rows] == ["-", "0.250", "0.250"]
    plot_growth(growth, tmp_path / "out.png")
    assert 5_000 < (tmp_path / "out.png").stat().st_size < 100_000


def test_options_of_other_measurements_are_refused(words, capsys):
    for options in (["--speed"], ["--levels", "1,2"], ["--peers", "xz"]):
        assert main(["bench", str(words), "--scaling", "1", *options]) == 1
        assert "--scaling measures stages" in capsys.readouterr().err


@pytest.mark.slow
def test_every_stage_is_measured(words, tmp_path, capsys):
    out = tmp_path / "out.json"
    text = b"".join(f"line {i} of {i * i % 9973} words\n".encode() for i in range(40_000))
    words.write_bytes(text)
    command = ["bench", str(words), "--scaling", "1,2", "-m", "none", "--levels", "1", "--json", str(out)]
    settings = scaling.RECIPE
    settings += ["--tokenizer.vocab_size", "400", "--data.validation_share", "0.1"]
    try:
        assert main(command) == 0
    finally:
        del settings[-4:]
    costs = [Cost(**cost) for cost in json.loads(out.read_text())["costs"]]
    stages = ["tokenizer", "shards", "train"]
    assert [cost.stage for cost in costs] == 2 * stages + 2 * ["compress", "decompress"]
    assert all(cost.cpu_seconds > 0 and cost.peak_bytes > 10_000_000 for cost in costs)
    assert "CPU s a further MB" in capsys.readouterr().out
