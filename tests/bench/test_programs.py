import shutil
import sys

import pytest

from laconic.bench import commands
from laconic.bench.measure import Sample, measure
from laconic.bench.peers import PEERS, select_peers
from laconic.bench.programs import MIB, PROGRAMS, bzip3_block_mib
from laconic.cli import main
from laconic.coder.errors import LaconicError

NAMES = [program.name for program in PROGRAMS]
HEADINGS = [program.heading for program in PROGRAMS]
TEXT = b"a program restores what it was given, " * 300
CALLED = {
    "bzip3": ["-V", "-e -b 16 f p.zpaq", "-d p.zpaq r"],
    "zpaq": ["", "a p.zpaq f -m5 -noattributes -t1", "x p.zpaq f -to r -noattributes -t1"],
    "lpaq8": ["", "9 f p.zpaq", "d p.zpaq r"],
}
# Takes the arguments of all three programs, keeps them with the files that it found, and compresses by zlib.
STAND_IN = """
import os, sys, zlib
here, arguments = os.path.dirname(sys.argv[0]), sys.argv[1:]
with open(os.path.join(here, "log"), "a") as log:
    print(" ".join(arguments), *os.listdir() if arguments[1:] else [], sep="|", file=log)
if not arguments[1:]:
    print("stand-in v4.5.6 of 7.8", file=sys.stderr)
    sys.exit(1)
unpacks = arguments[0] in ("d", "-d", "x")
source, result = ("p.zpaq", "r") if unpacks else ("f", "p.zpaq")
with open(source, "rb") as file:
    data = (zlib.decompress if unpacks else zlib.compress)(file.read())
MISCHIEF
with open(result, "wb") as file:
    file.write(data)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A function that makes a program of a name the only one on PATH, and returns its log."""
    folder = tmp_path / "bin with space"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str, mischief: str = ""):
        (folder / f"{name}.py").write_text(STAND_IN.replace("MISCHIEF", mischief))
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$0.py" "$@"\n')
        (folder / name).chmod(0o755)
        return folder / "log"

    return make


@pytest.mark.parametrize("name", NAMES)
def test_a_program_is_called_in_a_folder_with_nothing_but_its_input(name, stand_in):
    log = stand_in(name)
    codec = PEERS[name]()
    blob = codec.compress(TEXT)
    assert codec.decompress(blob) == TEXT
    assert len(blob) < len(TEXT) / 20
    assert codec.version == f"{name} 4.5.6"
    version, packs, unpacks = CALLED[name]
    assert log.read_text().splitlines() == [version, f"{packs}|f", f"{unpacks}|p.zpaq"]


def test_programs_are_measured_beside_the_libraries(stand_in, tmp_path, capsys):
    for name in NAMES:
        stand_in(name)
    codecs, left_out = select_peers("all")
    assert [codec.name for codec in codecs][-3:] == HEADINGS == ["bzip3", "zpaq -m5", "lpaq8 9"]
    assert [codec.external for codec in codecs[-4:]] == [False, True, True, True]
    assert left_out == []
    (tmp_path / "text").write_bytes(TEXT)
    assert main(["bench", "-m", "none", "--peers", "lpaq8,gzip", str(tmp_path / "text")]) == 0
    out = capsys.readouterr().out
    assert "Programs, each in a process of its own: lpaq8 9. Their speeds include the start" in out
    (row,) = (line for line in out.splitlines() if line.endswith("lpaq8 4.5.6"))
    assert row.split()[-3] == "-"


def test_without_programs_nothing_is_said_of_them():
    report = commands.compare([Sample("f", TEXT)], "none", "gzip")
    assert "Programs" not in report.text()


def test_the_memory_of_a_program_is_not_ours(stand_in):
    stand_in("lpaq8")
    result = measure(PEERS["lpaq8"](), [Sample("f", TEXT), Sample("nothing", b"")])
    assert result.peak_bytes is None
    assert result.as_json()["external"]


def test_a_program_that_is_not_on_the_path_is_named_as_left_out(stand_in):
    stand_in("zpaq")
    codecs, left_out = select_peers("bzip3,zpaq,xz")
    assert [codec.name for codec in codecs] == ["zpaq -m5", "xz -9e"]
    assert left_out == [
        "bzip3: left out, no program of that name is on PATH (it is at https://github.com/kspalaiologos/bzip3)"
    ]


def test_a_path_may_be_relative(stand_in, tmp_path, monkeypatch):
    stand_in("lpaq8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "bin with space")
    codec = PEERS["lpaq8"]()
    assert codec.decompress(codec.compress(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("mischief", "message"),
    [
        ("print('no memory\\n\\n1 s'); sys.exit(3)", r"ended with status 3 and left f \(no memory; 1 s\)"),
        ("sys.exit()", r"ended with status 0 and left f \(it said nothing\)"),
        ("result = 'q'", r"ended with status 0 and left f, q \(it said nothing\)"),
    ],
)
def test_a_program_that_fails_stops_the_bench(stand_in, tmp_path, mischief, message):
    stand_in("lpaq8", mischief)
    codec = PEERS["lpaq8"]()
    with pytest.raises(
        LaconicError,
        match=rf"^'lpaq8 9 f p.zpaq' on 5 bytes {message}; 0 and p.zpaq are wanted: "
        r"mend .*lpaq8, or leave lpaq8 out of --peers$",
    ):
        codec.compress(b"bytes")


def test_a_program_that_restores_something_else_stops_the_bench(stand_in):
    stand_in("zpaq", "data = data[:-1] if unpacks else data")
    with pytest.raises(LaconicError, match="zpaq -m5 did not restore f: 2 of 3 bytes"):
        commands.compare([Sample("f", b"abc")], "none", "zpaq")


def test_a_program_that_cannot_be_run_is_one_line(stand_in, tmp_path, capsys):
    program = stand_in("bzip3").parent / "bzip3"
    program.write_bytes(b"\x7fELF of another machine")
    (tmp_path / "text").write_bytes(TEXT)
    assert main(["bench", "-m", "none", "--peers", "bzip3", str(tmp_path / "text")]) == 1
    error = capsys.readouterr().err
    assert f"{program} cannot be run (" in error
    assert error.endswith("): mend it, or leave bzip3 out of --peers\n")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("length", "mib"),
    [(0, 16), (16 * MIB, 16), (16 * MIB + 1, 17), (511 * MIB, 511), (1 << 40, 511)],
)
def test_blocks_of_bzip3(length, mib):
    assert bzip3_block_mib(length) == mib


@pytest.mark.parametrize("name", NAMES)
def test_a_real_program_restores(name):
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not on PATH")
    codec = PEERS[name]()
    for data in (b"", b"\0", b"\xff\xfe", bytes(range(256)) * 40, TEXT):
        assert codec.decompress(codec.compress(data)) == data
    assert len(codec.compress(TEXT)) < len(TEXT) / 5
    with pytest.raises(LaconicError, match=rf"^'{name} .*leave {name} out of --peers$"):
        codec.decompress(b"no archive")
