import errno
import io
import os
import stat
import subprocess
import sys
from contextlib import suppress

import pytest
from fakes import predictable

from laconic.cli import main
from laconic.coder.commands import info, shared
from laconic.coder.files import compress

PYTHON = [sys.executable, "-m", "laconic"]


@pytest.fixture(autouse=True)
def inside(known, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def put(name, data):
    with open(name, "wb") as file:
        file.write(data)
    return name


def get(name):
    with open(name, "rb") as file:
        return file.read()


def pipe(monkeypatch, data):
    """`data` as standard input that cannot seek."""

    class Unseekable(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *args):
            raise OSError("cannot seek")

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Unseekable(data)))


def test_there_and_back(capsys):
    data = predictable(6000)
    put("a", data)
    os.chmod("a", 0o600)
    os.utime("a", ns=(10**18, 10**18))
    assert main(["compress", "a"]) == 0
    err = capsys.readouterr().err
    size = os.path.getsize("a.lac")
    assert err == f"a: 6,000 -> {size:,} bytes, {8 * size / 6000:.3f} bits per byte\n"
    assert get("a") == data
    os.remove("a")
    assert main(["decompress", "a.lac"]) == 0
    assert get("a") == data
    assert stat.S_IMODE(os.stat("a").st_mode) == 0o600
    assert os.stat("a").st_mtime_ns == 10**18
    assert main(["test", "a.lac"]) == 0
    assert capsys.readouterr().err == "a.lac: ok, 6,000 bytes\n"
    assert main(["test", "-q", "a.lac"]) == 0
    assert capsys.readouterr().err == ""
    assert sorted(os.listdir()) == ["a", "a.lac"]


@pytest.mark.parametrize(
    "options", [[], ["-m", "none"], ["--streams", "7"], ["--segment-size", "1K", "-T", "1"]]
)
def test_options_restore_the_same_bytes(options):
    data = predictable(5000)
    put("a", data)
    assert main(["compress", "-q", "-k", *options, "a", "-o", "b"]) == 0
    assert main(["decompress", "b", "-o", "c"]) == 0
    assert get("c") == data


def test_pipes(monkeypatch, capsysbinary):
    data = predictable(2500)
    pipe(monkeypatch, data)
    assert main(["compress", "--segment-size", "1000"]) == 0
    blob = capsysbinary.readouterr().out
    for arguments in (["decompress"], ["decompress", "-"], ["cat", "-"], ["decompress", "--recover", "-"]):
        pipe(monkeypatch, blob)
        assert main(arguments) == 0
        assert capsysbinary.readouterr().out == data
    pipe(monkeypatch, blob)
    assert main(["info"]) == 0
    assert b"(stdin)" in capsysbinary.readouterr().out
    pipe(monkeypatch, blob)
    assert main(["test"]) == 0
    pipe(monkeypatch, data)
    assert main(["compress", "-", "-o", "out.lac"]) == 0
    assert main(["cat", "out.lac"]) == 0
    assert capsysbinary.readouterr().out == data


def test_several_files_go_on_after_a_failure(capsys):
    put("a", b"first")
    put("c", b"third")
    os.mkdir("folder")
    assert main(["compress", "a", "missing", "folder", "c"]) == 1
    err = capsys.readouterr().err
    assert "error: missing: No such file" in err
    assert "error: folder is a folder: pack it first (tar" in err
    assert sorted(os.listdir()) == ["a", "a.lac", "c", "c.lac", "folder"]
    for command in ("info", "test", "cat", "decompress"):
        assert main([command, "folder"]) == 1
        assert "error: folder is a folder: name the .lac files in it" in capsys.readouterr().err
    os.remove("a")
    os.remove("c")
    put("b.lac", b"garbage")
    assert main(["decompress", "a.lac", "b.lac", "c.lac"]) == 1
    assert (get("a"), get("c")) == (b"first", b"third")
    assert "error: b.lac: this is no .lac file" in capsys.readouterr().err
    assert not os.path.exists("b")


def test_joined_output_of_several(capsysbinary):
    for name in "ab":
        put(name, name.encode() * 5)
        main(["compress", name])
    assert main(["decompress", "-c", "a.lac", "b.lac"]) == 0
    assert capsysbinary.readouterr().out == b"aaaaabbbbb"


def test_one_output_for_several_files_is_wrong_usage(capsys):
    for arguments in (
        ["compress", "-c", "a", "b"],
        ["compress", "-o", "x", "a", "b"],
        ["decompress", "-o", "x", "a", "b"],
    ):
        assert main(arguments) == 2
        assert "error:" in capsys.readouterr().err


def test_nothing_is_replaced_without_force(capsys):
    put("a", b"new")
    put("a.lac", b"precious")
    assert main(["compress", "a"]) == 1
    assert "a.lac exists" in capsys.readouterr().err
    assert get("a.lac") == b"precious"
    assert main(["compress", "-f", "a"]) == 0
    put("a", b"precious")
    assert main(["decompress", "a.lac"]) == 1
    assert get("a") == b"precious"
    assert main(["decompress", "-f", "a.lac"]) == 0
    assert get("a") == b"new"


def test_names(capsys):
    put("a.lac", b"text")
    put("plain", compress(b"text", None))
    put(".lac", compress(b"text", None))
    assert main(["compress", "a.lac"]) == 1
    assert "ends in .lac already" in capsys.readouterr().err
    assert main(["compress", "-f", "a.lac"]) == 0
    assert os.path.exists("a.lac.lac")
    for name in ("plain", ".lac"):
        assert main(["decompress", name]) == 1
        assert "does not end in .lac" in capsys.readouterr().err
    for command in ("compress", "decompress"):
        assert main([command, "-f", "plain", "-o", "plain"]) == 1
        assert "both the source and the output" in capsys.readouterr().err
    assert main(["decompress", "plain", "-o", "no/where"]) == 1
    assert "folder no does not exist" in capsys.readouterr().err


def test_no_binary_on_a_terminal(monkeypatch, capsysbinary):
    put("a", b"text")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["compress", "-c", "a"]) == 1
    assert b"not written to a terminal" in capsysbinary.readouterr().err
    assert main(["compress", "-c", "-f", "a"]) == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert main(["decompress"]) == 1
    assert b"not read from a terminal" in capsysbinary.readouterr().err


def test_an_unknown_model_is_reported_once(capsys):
    put("a", b"1")
    put("b", b"2")
    assert main(["compress", "-m", "nobody", "a", "b"]) == 1
    assert capsys.readouterr().err.count("error:") == 1
    assert sorted(os.listdir()) == ["a", "b"]


def test_a_checkpoint_that_is_not_here(known, capsys, model):
    put("a", predictable(3000))
    assert main(["compress", "a"]) == 0
    (known / "default").rename(known.parent / "moved")
    os.remove("a")
    capsys.readouterr()
    assert main(["decompress", "a.lac"]) == 1
    err = capsys.readouterr().err
    assert model.checkpoint.id[:8].hex() in err
    assert "-m PATH" in err
    assert os.listdir() == ["a.lac"]
    assert main(["decompress", "-m", str(known.parent / "moved"), "a.lac"]) == 0
    assert get("a") == predictable(3000)


@pytest.mark.parametrize("segment_size", ["1000", "100000"])
def test_damage_leaves_no_output(segment_size, capsys):
    put("a", predictable(2500))
    main(["compress", "--segment-size", segment_size, "a"])
    blob = get("a.lac")
    capsys.readouterr()
    for at in range(0, len(blob), 31):
        for broken in (blob[:at], blob[:at] + bytes([blob[at] ^ 4]) + blob[at + 1 :]):
            put("b.lac", broken)
            assert main(["decompress", "b.lac"]) == 1
            assert not os.path.exists("b")
            assert main(["test", "b.lac"]) == 1
            err = capsys.readouterr().err
            assert err.count("\n") == 2
            assert err.count("laconic: error: b.lac: ") == 2
    assert sorted(os.listdir()) == ["a", "a.lac", "b.lac"]


def test_recover(capsys):
    data = predictable(3500)
    put("a", data)
    main(["compress", "--segment-size", "1000", "a"])
    blob = bytearray(get("a.lac"))
    second = blob.find(b"\xb5SEG", 20)
    blob[second + 30] ^= 1
    put("b.lac", blob)
    capsys.readouterr()
    assert main(["decompress", "--recover", "b.lac"]) == 1
    assert get("b") == data[:1000] + data[2000:]
    assert capsys.readouterr().err == "b.lac: lost are 1,000 bytes, from 1,000 up to 2,000\n"
    put("c.lac", blob[:-1])
    assert main(["decompress", "--recover", "c.lac"]) == 1
    expected = "nothing sound says how long the original was: whatever followed the first 3,500 bytes is lost"
    assert capsys.readouterr().err.splitlines()[1] == f"c.lac: {expected}"
    put("d.lac", b"garbage")
    assert main(["decompress", "--recover", "d.lac"]) == 1
    assert not os.path.exists("d")


def test_a_full_disk_leaves_nothing(monkeypatch, capsys):
    put("a", predictable(3000))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["compress", "a"]) == 1
    assert capsys.readouterr().err == "laconic: error: a.lac: No space left on device\n"
    assert os.listdir() == ["a"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, MemoryError])
def test_interruption_leaves_nothing(interruption, monkeypatch, capsys):
    put("a", predictable(3000))

    def interrupt(*args):
        raise interruption

    monkeypatch.setattr("laconic.coder.codec.encode_segment", interrupt)
    if interruption is SystemExit:
        with pytest.raises(SystemExit):
            main(["compress", "a"])
    else:
        assert main(["compress", "a"]) == (130 if interruption is KeyboardInterrupt else 1)
    assert os.listdir() == ["a"]


def test_cat_ranges(capsysbinary):
    data = predictable(3500)
    put("a", data)
    main(["compress", "--segment-size", "1000", "a"])
    for text, expected in (
        ("0:10", data[:10]),
        ("995:2005", data[995:2005]),
        (":3", data[:3]),
        ("3400:", data[3400:]),
        (":", data),
        ("9999:99999", b""),
        ("5:5", b""),
    ):
        capsysbinary.readouterr()
        assert main(["cat", "a.lac", "--range", text]) == 0
        assert capsysbinary.readouterr().out == expected


@pytest.mark.parametrize("text", ["5", "a:b", "-3:4", "4:3", "", "1:2:3"])
def test_ranges_that_are_none(text):
    with pytest.raises(SystemExit, match="2"):
        main(["cat", "a.lac", f"--range={text}"])


def test_info(capsys, model):
    put("a", predictable(2000) + os.urandom(1000))
    main(["compress", "--segment-size", "1000", "a"])
    put("b", b"")
    main(["compress", "b"])
    capsys.readouterr()
    assert main(["info", "a.lac", "b.lac"]) == 0
    out = capsys.readouterr().out
    size = os.path.getsize("a.lac")
    assert f"checkpoint      {model.checkpoint.id[:8].hex()} (default)" in out
    assert "segments        3 (1 raw, 2 mixed)" in out
    assert "level           6" in out
    assert "original        3,000 bytes" in out
    assert f"compressed      {size:,} bytes" in out
    assert f"ratio           {3000 / size:.3f}" in out
    assert f"bits per byte   {8 * size / 3000:.3f}" in out
    assert "segments        1 (1 raw)" in out
    assert "checkpoint      none" in out
    put("c.lac", get("a.lac")[:-1])
    assert main(["info", "c.lac"]) == 1
    assert info.METHOD_NAMES[:5] == ("raw", "model", "lzma", "mixed", "experts")


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("64K", 65536), ("2m", 2 << 20)])
def test_sizes(text, value):
    assert shared.size(text) == value


@pytest.mark.parametrize(
    "arguments", [["--segment-size", "0"], ["--segment-size", "x"], ["--streams", "-1"], ["-T", "0"]]
)
def test_numbers_that_are_none(arguments):
    with pytest.raises(SystemExit, match="2"):
        main(["compress", *arguments, "a"])


@pytest.mark.parametrize("arguments", [["--streams", "5000"], ["--segment-size", "257M"]])
def test_numbers_that_the_format_does_not_allow(arguments, capsys):
    put("a", b"text")
    assert main(["compress", *arguments, "a"]) == 1
    assert "choose from 1 to" in capsys.readouterr().err


def test_a_pipe_that_closes():
    put("a", bytes(5_000_000))
    assert main(["compress", "-q", "-m", "none", "a"]) == 0
    process = subprocess.Popen([*PYTHON, "cat", "a.lac"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert len(process.stdout.read(10)) == 10
    process.stdout.close()
    assert process.wait(30) == 1
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_standard_output_on_a_full_disk():
    put("a", b"text" * 1000)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PYTHON, "compress", "-m", "none", "-c", "a"], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr == b"laconic: error: a: (stdout): No space left on device\n"


def test_a_termination_removes_the_temporary_file():
    os.mkfifo("source")
    process = subprocess.Popen(
        [*PYTHON, "compress", "-m", "none", "source", "-o", "out"], stderr=subprocess.PIPE
    )
    with open("source", "wb") as fifo:
        fifo.write(b"x" * 10)
        fifo.flush()
        while not any(name.endswith(".part") for name in os.listdir()):
            assert process.poll() is None
        # A signal between Python's last look at signals and the read that waits is seen after the read: send
        # it again, as a person would.
        for _ in range(30):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
                break
        assert process.returncode == 128 + 15
    process.stderr.close()
    assert os.listdir() == ["source"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
def test_unbuffered_standard_output_is_written_whole_or_refused(tmp_path):
    """A raw write may take only a part; under a limit on file sizes the rest must not be lost in silence."""
    (tmp_path / "zeros").write_bytes(bytes(300_000))
    assert main(["compress", "-q", "-m", "none", str(tmp_path / "zeros")]) == 0
    command = f"{sys.executable} -m laconic decompress -qc {tmp_path / 'zeros.lac'} > {tmp_path / 'out'}"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    limited = f"trap '' XFSZ; ulimit -f 200; {command}"
    run = subprocess.run(["bash", "-c", limited], env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert "(stdout)" in run.stderr
    run = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
    assert run.returncode == 0
    assert (tmp_path / "out").read_bytes() == bytes(300_000)
