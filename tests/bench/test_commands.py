import json
from pathlib import Path

import pytest
from fakes import fake_model, know_only, predictable

from laconic.bench import commands
from laconic.bench.measure import Sample
from laconic.bench.peers import Codec
from laconic.bench.report import Report
from laconic.cli import main
from laconic.coder.errors import LaconicError


@pytest.fixture
def files(tmp_path):
    (tmp_path / "words").write_bytes(b"in the beginning was the word, and " * 200)
    (tmp_path / "empty").write_bytes(b"")
    return [str(tmp_path / "words"), str(tmp_path / "empty")]


def test_without_a_model(files, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    figures, picture = tmp_path / "figures.json", tmp_path / "picture.png"
    command = [
        "bench",
        *files,
        "-m",
        "none",
        "--peers",
        "xz,gzip",
        "--json",
        str(figures),
        "--plot",
        str(picture),
    ]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert " ".join(out.splitlines()[0].split()) == "compressed bytes bytes laconic xz -9e gzip -9"
    assert "Every round trip was compared" in out
    read = json.loads(figures.read_text())
    assert [codec["codec"] for codec in read["codecs"]] == ["laconic", "xz -9e", "gzip -9"]
    assert read["codecs"][0]["measurements"][0]["compressed_bytes"] < 200
    assert picture.read_bytes()[1:4] == b"PNG"


def test_levels_are_rows_beside_the_peers(files, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    command = [
        "bench",
        files[0],
        "-m",
        "none",
        "--levels",
        "1,4,2,4",
        "--peers",
        "xz",
        "--json",
        str(figures),
    ]
    assert main(command) == 0
    head = "compressed bytes bytes laconic -1 laconic -4 laconic -2 xz -9e"
    assert " ".join(capsys.readouterr().out.splitlines()[0].split()) == head
    codecs = json.loads(figures.read_text())["codecs"]
    assert [codec["level"] for codec in codecs] == [1, 4, 2, None]
    assert [codec["codec"] for codec in codecs[:2]] == ["laconic -1", "laconic -4"]


def test_laconic_is_measured_through_its_front_door(tmp_path, monkeypatch):
    model = fake_model()
    model.checkpoint.path, model.checkpoint.summary, model.checkpoint.size_bytes = tmp_path, {}, 500
    know_only(model, tmp_path / "known", monkeypatch)
    monkeypatch.setattr("laconic.coder.checkpoint.FrozenCheckpoint.load", lambda path: model.checkpoint)
    report = commands.compare([Sample("f", predictable(20_000))], "default", "xz")
    ours, xz = report.results
    assert model.engine.tokens_seen > 0
    assert ours.compressed_bytes < xz.compressed_bytes
    assert ours.methods == {"mixed": 20_000}
    assert report.break_even_bytes() == pytest.approx(
        500 * 8 / (xz.bits_per_byte - ours.bits_per_byte), abs=1
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: No such file"),
        (["{words}", "--peers", "arj"], "no peer is called 'arj'"),
        (["{words}", "--levels", "6,10"], "--levels 6,10: '10' is no level"),
        (["{words}", "--levels", "fast"], "'fast' is no level"),
        (["{empty}", "--speed"], "not one byte to measure"),
        (["{words}", "--speed", "-m", "none", "--levels", "1"], "nothing to measure"),
        (["{words}", "--speed", "--peers", "xz"], "leave out --plot and --peers"),
        (["{words}", "--engine", "numpy"], "add --speed"),
        (["{words}", "--streams", "4"], "add --speed"),
        (["{words}", "--speed", "--streams", "5000"], "5000 streams: choose from 1 to 4096"),
        (["{words}", "--speed", "--engine", "abacus"], "no engine 'abacus'"),
        (["{empty}"], "not one byte to measure"),
        (["{words}", "-m", "nowhere"], "there is no checkpoint 'nowhere'"),
    ],
)
def test_faults_are_one_line(files, arguments, message, capsys):
    words, empty = files
    assert main(["bench", *(word.format(words=words, empty=empty) for word in arguments)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_codec_that_breaks_its_word_stops_the_bench(monkeypatch):
    broken = Codec("broken", "1", bytes, lambda blob: blob[:-1])
    monkeypatch.setattr(commands, "laconic_codec", lambda *arguments: broken)
    with pytest.raises(LaconicError, match="broken did not restore f"):
        commands.compare([Sample("f", b"abc")], "none", "none")


def test_a_report_without_peers_is_whole():
    report = commands.compare([Sample("f", b"abc" * 100)], "none", "none")
    assert isinstance(report, Report)
    assert "break-even" not in report.text()


def test_outputs_do_not_replace_what_is_measured(files, tmp_path, capsys):
    before = Path(files[0]).read_bytes()
    for arguments in (["--json", files[0]], ["--plot", files[0]], ["--plot", str(tmp_path / "o.xyz")]):
        assert main(["bench", files[0], "-m", "none", "--peers", "none", *map(str, arguments)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("laconic: error:")
        assert error.count("\n") == 1
    assert Path(files[0]).read_bytes() == before
    assert main(["bench", files[0], "-m", "none", "--json", str(tmp_path / "no" / "o.json")]) == 1
    assert "folder that exists" in capsys.readouterr().err
    both = str(tmp_path / "o.png")
    assert main(["bench", files[0], "-m", "none", "--json", both, "--plot", both]) == 1
    assert "name two files" in capsys.readouterr().err
    assert main(["eval", files[0], "--json", files[0]]) == 1
    assert "is one of the files to measure" in capsys.readouterr().err
    assert Path(files[0]).read_bytes() == before


def test_outputs_are_checked_before_anything_is_measured(files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "compare", lambda *arguments: pytest.fail("it was measured"))
    assert main(["bench", files[0], "--plot", str(tmp_path / "o.xyz")]) == 1
    assert "must end in .png" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["bench", files[0], "--plot", str(tmp_path / "o.png")]) == 1
    assert "pictures need matplotlib" in capsys.readouterr().err


def test_an_earlier_output_is_replaced_whole(files, tmp_path, monkeypatch):
    figures = tmp_path / "figures.json"
    figures.write_text("earlier")
    command = ["bench", files[0], "-m", "none", "--peers", "none", "--json", str(figures)]
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("interrupted")))
        assert main(command) == 1
    assert figures.read_text() == "earlier"
    assert main(command) == 0
    assert json.loads(figures.read_text())["codecs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "figures.json", "words"]


def test_faults_of_eval(files, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["eval", files[0], "-T", "0"])
    assert "'0' is not a whole number above 0" in capsys.readouterr().err
    assert main(["eval", files[0], "-m", "none"]) == 1
    error = capsys.readouterr().err
    assert "eval is of a model" in error
    assert error.count("\n") == 1
