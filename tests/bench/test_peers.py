import bz2
import gzip
import lzma
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.bench.peers import LENGTH_BYTES, PEERS, covering_window_log, select_peers
from laconic.bench.programs import PROGRAMS
from laconic.coder.errors import LaconicError

LIBRARIES = [name for name in PEERS if name not in {program.name for program in PROGRAMS}]
TEXT = b"a peer restores what it was given, " * 300


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_library_is_installed_and_restores(name):
    codec = PEERS[name]()
    for data in (b"", b"\0", b"\xff\xfe", bytes(100_000), bytes(range(256)) * 40, TEXT):
        assert codec.decompress(codec.compress(data)) == data
    assert len(codec.compress(TEXT)) < len(TEXT) / 20
    assert codec.version.split()[-1][0].isdigit()


@given(data=st.binary(max_size=2000), name=st.sampled_from(LIBRARIES))
def test_every_library_restores_any_bytes(data, name):
    codec = PEERS[name]()
    assert codec.decompress(codec.compress(data)) == data


def test_formats_are_those_of_the_tools():
    assert gzip.decompress(PEERS["gzip"]().compress(TEXT)) == TEXT
    assert bz2.decompress(PEERS["bzip2"]().compress(TEXT)) == TEXT
    assert lzma.decompress(PEERS["xz"]().compress(TEXT), format=lzma.FORMAT_XZ) == TEXT
    assert PEERS["zstd"]().compress(TEXT)[:4] == b"\x28\xb5\x2f\xfd"
    assert PEERS["ppmd"]().compress(TEXT)[:LENGTH_BYTES] == len(TEXT).to_bytes(LENGTH_BYTES, "little")


def test_zstd_ultra_looks_back_over_the_whole_file():
    noise = os.urandom(1 << 16)
    data = noise + bytes(9 << 20) + noise  # 8 MiB are the window of level 19
    near, far = PEERS["zstd"](), PEERS["zstd22"]()
    blob = far.compress(data)
    assert far.decompress(blob) == data
    assert len(near.compress(data)) > 2 * len(noise)
    assert len(noise) < len(blob) < 1.1 * len(noise)


@pytest.mark.parametrize(
    ("length", "log"),
    [
        (0, 10),
        (1, 10),
        (1025, 11),
        (1 << 27, 27),
        ((1 << 27) + 1, 28),
        (1 << 31, 31),
        (1 << 40, 31),
    ],
)
def test_windows_of_zstd_ultra(length, log):
    assert covering_window_log(length) == log


def test_selection(monkeypatch):
    monkeypatch.setenv("PATH", "")
    codecs, left_out = select_peers("all")
    assert [codec.name for codec in codecs] == [
        "gzip -9",
        "bzip2 -9",
        "xz -9e",
        "zstd -19",
        "zstd -22",
        "brotli -11",
        "PPMd o6",
    ]
    assert [line.partition(":")[0] for line in left_out] == [program.name for program in PROGRAMS]
    assert select_peers("none") == ([], [])
    assert [codec.name for codec in select_peers("xz,gzip")[0]] == ["xz -9e", "gzip -9"]


def test_an_unknown_peer_is_named_with_those_that_exist():
    with pytest.raises(
        LaconicError, match=r"no peer is called 'rar', 'arj'; give all, none, or some of gzip,"
    ):
        select_peers("xz,rar,arj")


def test_a_peer_that_is_not_installed_is_named_as_left_out(monkeypatch):
    def missing():
        raise ImportError("No module named 'brotli'", name="brotli")

    monkeypatch.setitem(PEERS, "brotli", missing)
    codecs, left_out = select_peers("xz,brotli")
    assert [codec.name for codec in codecs] == ["xz -9e"]
    assert left_out == ["brotli: left out, brotli is not installed (pip install 'laconic[bench]')"]
