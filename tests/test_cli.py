import os
import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest

from laconic import cli
from laconic.cli import COMMANDS, Command, main
from laconic.coder.errors import LaconicError

QUIET = "import sys; sys.stdout.write(str(sorted({'numpy', 'numba', 'torch'} & set(sys.modules))))"


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)
    assert main([]) == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["compress", "decompress", "test", "info", "cat", "generate", "models"])
def test_help_of_a_command(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert f"usage: laconic {name}" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"laconic {version('laconic')}\n"


def test_wrong_usage(capsys):
    assert main(["frobnicate"]) == 2
    assert "no command 'frobnicate': choose one of compress" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["compress", "--frobnicate"])
    expected = "laconic: error: unrecognized arguments: --frobnicate; see laconic compress --help\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["info", "/nowhere"]])
def test_what_needs_no_numbers_imports_none(arguments):
    code = f"from laconic.cli import main; main({arguments!r}); {QUIET}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]")


def test_python_dash_m():
    done = subprocess.run(
        [sys.executable, "-m", "laconic", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"laconic {version('laconic')}\n"


@pytest.mark.skipif(os.name != "posix", reason="closes descriptors by the shell")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("decompress <&-", "(stdin): standard input is closed: name a file"),
        ("models >&-", "standard output is closed: send it to a file, or to /dev/null"),
    ],
)
def test_closed_standard_streams(words, message):
    command = f"{shlex.quote(sys.executable)} -m laconic {words}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"laconic: error: {message}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress", "-T", "0", "a"], "'0' is not a whole number above 0"),
        (["compress", "--streams", "x", "a"], "'x' is not a whole number above 0"),
        (["cat", "--range", "4:3", "a"], "'4:3' ends before it begins"),
        (["cat", "--range", "4", "a"], "'4' is not A:B"),
    ],
)
def test_wrong_values_are_told_what_is_allowed(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def raising(error):
    """A module of a command that fails."""

    class Module:
        @staticmethod
        def add_arguments(parser):
            pass

        @staticmethod
        def run(args):
            raise error

    return Module


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (LaconicError("what, where, what to do"), 1, "laconic: error: what, where, what to do\n"),
        (
            FileNotFoundError(2, "No such file or directory", "x"),
            1,
            "laconic: error: x: No such file or directory: check the path\n",
        ),
        (OSError("odd"), 1, "laconic: error: odd\n"),
        (MemoryError(), 1, "laconic: error: out of memory: "),
        (KeyboardInterrupt(), 130, ""),
        (
            ModuleNotFoundError("", name="torch.nn"),
            1,
            "needs torch, which is not installed: pip install 'laconic[train]'",
        ),
        (ModuleNotFoundError("", name="matplotlib"), 1, "pip install 'laconic[bench]'"),
    ],
)
def test_failures_are_one_line(error, status, message, monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "fail", Command("x", "fail"))
    monkeypatch.setattr(cli, "import_module", lambda name, package: raising(error))
    assert main(["fail"]) == status
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == (1 if message else 0)


@pytest.mark.parametrize(
    "error", [AssertionError("a defect"), ModuleNotFoundError("", name="laconic.nonsense")]
)
def test_defects_are_not_hidden(error, monkeypatch):
    monkeypatch.setitem(COMMANDS, "fail", Command("x", "fail"))
    monkeypatch.setattr(cli, "import_module", lambda name, package: raising(error))
    with pytest.raises(type(error)):
        main(["fail"])


@pytest.mark.parametrize("command", ["bench", "eval"])
@pytest.mark.parametrize("names", [("default", "other"), ("none", "none")])
def test_one_model_where_one_is_taken(command, names, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "-m", names[0], "-m", names[1], __file__])
    assert stopped.value.code == 2
    assert "-m is given twice" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="a shell closes what is inherited")
def test_with_stderr_closed_no_error_goes_to_stdout(tmp_path):
    (tmp_path / "bad.lac").write_bytes(b"x")
    command = f'"{sys.executable}" -m laconic cat bad.lac 2>&-'
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
