import io
import os

import pytest
from fakes import fake_model, know_only, predictable

import laconic
from laconic import LaconicError


@pytest.fixture(autouse=True)
def model(tmp_path, monkeypatch):
    model = fake_model()
    know_only(model, tmp_path / "known", monkeypatch)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return model


def test_bytes():
    data = predictable(2000)
    blob = laconic.compress(data)
    assert len(blob) < len(data)
    assert laconic.decompress(blob) == data
    with pytest.raises(LaconicError):
        laconic.decompress(blob[:-1])


def test_names():
    assert laconic.__version__
    assert sorted(laconic.__all__) == [
        "Compressor",
        "LaconicError",
        "compress",
        "decompress",
        "generate",
        "open",
    ]
    with pytest.raises(AttributeError):
        laconic.nonsense  # noqa: B018


def test_records():
    records = [predictable(100 + i, seed=i) for i in range(20)]
    compressor = laconic.Compressor()
    blobs = compressor.compress_many(records)
    assert sum(map(len, blobs)) < sum(map(len, records))
    assert compressor.decompress_many(blobs) == records


@pytest.mark.parametrize("name", ["default", "none", None])
def test_open_bytes(name):
    data = predictable(5000)
    with laconic.open("a.lac", "wb", model=name, segment_size=1000) as file:
        for at in range(0, len(data), 333):
            assert file.write(data[at : at + 333]) == len(data[at : at + 333])
        assert not os.path.exists("a.lac")
    with laconic.open("a.lac", model=name) as file:
        assert file.read() == data
    with open("a.lac", "rb") as file:
        assert laconic.decompress(file.read()) == data


def test_what_is_written_equals_compress():
    data = predictable(2500)
    with laconic.open("a.lac", "wb", segment_size=1000) as file:
        file.write(data)
    with open("a.lac", "rb") as file:
        assert file.read() == laconic.compress(data, segment_size=1000)


def test_seek_decodes_one_segment(model):
    data = predictable(5000)
    with laconic.open("a.lac", "wb", segment_size=1000) as file:
        file.write(data)
    with laconic.open("a.lac") as file:
        before = model.engine.tokens_seen
        assert file.seek(3500) == 3500
        assert file.read(100) == data[3500:3600]
        assert model.engine.tokens_seen - before <= 1000
        assert file.tell() == 3600
        assert file.seek(-10, io.SEEK_END) == 4990
        assert file.read() == data[4990:]
        assert file.read() == b""
        file.seek(9999)
        assert file.read() == b""
        file.seek(0)
        assert file.read() == data
        assert file.seekable()
        assert not file.writable()
        with pytest.raises(ValueError, match="before"):
            file.seek(-1)


def test_text():
    lines = ["Grüße, 世界\n", "second\n"]
    with laconic.open("a.lac", "wt") as file:
        file.writelines(lines)
    with laconic.open("a.lac", "rt") as file:
        assert list(file) == lines
    assert laconic.decompress(open("a.lac", "rb").read()) == "".join(lines).encode()  # noqa: SIM115
    with laconic.open("b.lac", "wt", encoding="utf-16-le", newline="\r\n") as file:
        file.write("a\n")
    with laconic.open("b.lac", "rb") as file:
        assert file.read() == b"a\0\r\0\n\0"


@pytest.mark.parametrize("data", [b"", b"x"])
def test_little(data):
    with laconic.open("a.lac", "wb") as file:
        file.write(data)
    with laconic.open("a.lac") as file:
        assert file.read() == data


@pytest.mark.parametrize("mode", ["wb", "xb", "wt"])
def test_an_exception_inside_with_leaves_no_file(mode):
    def fail():
        with laconic.open("a.lac", mode, segment_size=10) as file:
            file.write("some text" * 5 if "t" in mode else b"some bytes" * 5)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert os.listdir() == []


@pytest.mark.parametrize("mode", ["wb", "wt"])
def test_a_file_never_closed_leaves_nothing(mode):
    file = laconic.open("a.lac", mode)
    file.write("text" if "t" in mode else b"bytes")
    del file
    assert os.listdir() == []


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_while_writing_is_not_published(threads, monkeypatch):
    file = laconic.open("a.lac", "wb", segment_size=10, threads=threads)
    monkeypatch.setattr("laconic.coder.codec.encode_segment", lambda *args, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        file.write(b"x" * 40)
    file.close()
    assert os.listdir() == []
    file = laconic.open("a.lac", "wb")
    file.write(b"x" * 20)
    with pytest.raises(ZeroDivisionError):
        file.close()
    assert file.closed
    assert os.listdir() == []


@pytest.mark.parametrize("level", [1, 2, 9])
def test_levels(level):
    data = predictable(2500)
    with laconic.open("a.lac", "wb", level=level, segment_size=1000) as file:
        file.write(data)
    with open("a.lac", "rb") as file:
        blob = file.read()
    assert blob == laconic.compress(data, level=level, segment_size=1000)
    assert laconic.decompress(blob) == data
    with laconic.open("a.lac") as file:
        assert file.read() == data


def test_levels_that_there_are_not():
    for level in (0, 10):
        with pytest.raises(LaconicError, match="choose from 1"):
            laconic.open("a.lac", "wb", level=level)
    assert os.listdir() == []


def test_several_checkpoints(model, tmp_path, monkeypatch):
    know_only(model, tmp_path / "more", monkeypatch, other=fake_model("other", 5))
    data = predictable(2500)
    with laconic.open("a.lac", "wb", model=["default", "other"], segment_size=1000) as file:
        file.write(data)
    with open("a.lac", "rb") as file:
        assert file.read() == laconic.compress(data, ["default", "other"], segment_size=1000)
    for extra in ("default", None, ["other", "default"]):
        with laconic.open("a.lac", model=extra) as file:
            assert file.read() == data
    with pytest.raises(LaconicError, match="level 1 takes one checkpoint"):
        laconic.open("b.lac", "wb", model=["default", "other"], level=1)
    assert os.listdir() == ["a.lac"]


def test_memory():
    data = predictable(2000)
    with laconic.open("a.lac", "wb") as file:
        file.write(data)
    with laconic.open("a.lac", memory=1 << 20) as file, pytest.raises(LaconicError, match="raise --memory"):
        file.read()
    with laconic.open("a.lac", memory=1 << 30) as file:
        assert file.read() == data


def test_replacing():
    for data in (b"old", b"new"):
        with laconic.open("a.lac", "wb") as file:
            file.write(data)
    with laconic.open("a.lac", "r") as file:
        assert file.read() == b"new"
    with pytest.raises(LaconicError, match="exists"):
        laconic.open("a.lac", "xb")


@pytest.mark.parametrize("mode", ["", "a", "rw", "rbt", "r+", "bb", "rr"])
def test_unknown_modes(mode):
    with pytest.raises(ValueError, match="choose rb"):
        laconic.open("a.lac", mode)


def test_what_cannot_be_read():
    with pytest.raises(FileNotFoundError):
        laconic.open("missing.lac")
    with pytest.raises(LaconicError, match="folder"):
        laconic.open(".")
    with open("bad.lac", "wb") as file:
        file.write(b"garbage")
    with pytest.raises(LaconicError, match=r"no \.lac file"):
        laconic.open("bad.lac")
    with pytest.raises(LaconicError, match="no checkpoint"):
        laconic.open("x.lac", "wb", model="nobody")
    assert not os.path.exists("x.lac")


def test_damage_is_noticed_while_reading():
    with laconic.open("a.lac", "wb", segment_size=1000) as file:
        file.write(predictable(3000))
    blob = bytearray(open("a.lac", "rb").read())  # noqa: SIM115
    blob[blob.find(b"\xb5SEG", 50) + 40] ^= 1
    with open("a.lac", "wb") as file:
        file.write(blob)
    with laconic.open("a.lac") as file:
        assert file.read(1000) == predictable(3000)[:1000]
        with pytest.raises(LaconicError):
            file.read()
