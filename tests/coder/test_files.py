import errno
import io
import os
import re
import stat

import pytest
from fakes import fake_model, know_only, predictable
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.coder.encoder import Encoder
from laconic.coder.errors import LaconicError
from laconic.coder.files import PendingFile, compress, compress_stream, decompress, decompress_stream
from laconic.coder.model import ensemble
from laconic.coder.progress import Progress, clock, human
from laconic.coder.registry import Decoder

MODEL = fake_model()


PAIR = ensemble([fake_model("first"), fake_model("second", 5)])


@settings(max_examples=50)
@given(
    st.binary(max_size=600),
    st.integers(30, 300),
    st.sampled_from([None, 1, 7, 64]),
    st.sampled_from([None, MODEL, PAIR]),
    st.integers(1, 9),
)
def test_any_bytes_in_segments_of_any_size(data, segment_size, streams, model, level):
    level = 2 if model is PAIR and level == 1 else level
    blob = compress(data, model, level=level, streams=streams, segment_size=segment_size)
    assert decompress(blob, model) == data


@pytest.mark.parametrize("level", range(1, 10))
@pytest.mark.parametrize("model", [None, MODEL])
def test_every_level_restores_the_same_bytes(model, level):
    data = predictable(3000) + b"".join(b"%d bottles of beer\n" % number for number in range(200))
    blob = compress(data, model, level=level, segment_size=2500)
    assert decompress(blob, model) == data
    assert compress(data, model, level=level, segment_size=2500) == blob


@pytest.mark.parametrize("streams", [1, 7, 64])
@pytest.mark.parametrize("segment_size", [700, 5000, 1 << 20])
def test_streams_and_segments_restore_the_same_bytes(streams, segment_size, model):
    data = predictable(5000)
    blob = compress(data, model, streams=streams, segment_size=segment_size)
    assert decompress(blob, model) == data
    assert len(blob) < 0.8 * len(data)


def test_twice_is_equal(model):
    data = predictable(3000)
    assert compress(data, model, segment_size=1000) == compress(data, model, segment_size=1000)


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)), b"\xff" * 10, bytes(3_000_000)])
def test_special_content(data, known):
    assert decompress(compress(data)) == data
    assert decompress(compress(data, "none")) == data


def test_a_name_a_path_and_none(known, model):
    data = predictable(500)
    blob = compress(data)
    assert blob == compress(data, "default") == compress(data, known / "default") == compress(data, model)
    assert len(blob) < len(compress(data, None))
    assert compress(data, None) == compress(data, "none")


def test_totals(model):
    data, target = predictable(2500), io.BytesIO()
    totals = compress_stream(io.BytesIO(data), target, Encoder(model), 1000)
    assert totals == (2500, len(target.getvalue()))
    back = io.BytesIO()
    target.seek(0)
    assert decompress_stream(target, back, Decoder(model)) == totals
    assert back.getvalue() == data


@pytest.mark.parametrize(("streams", "size"), [(0, 1), (4097, 1), (-1, 1), (None, 0), (None, (1 << 28) + 1)])
def test_numbers_out_of_range(streams, size):
    with pytest.raises(LaconicError, match="choose from 1 to"):
        compress(b"abc", None, streams=streams, segment_size=size)


@pytest.mark.parametrize("level", [0, 10])
def test_levels_out_of_range(level):
    for data in (b"", b"abc"):
        with pytest.raises(LaconicError, match=r"choose from 1 \(fast\) to 9"):
            compress(data, None, level=level)


def test_several_names(model, tmp_path, monkeypatch):
    other = fake_model("other", 5)
    know_only(model, tmp_path, monkeypatch, other=other)
    data = predictable(2000)
    blob = compress(data, ["default", "other"])
    assert blob == compress(data, (tmp_path / "default", "other"))
    assert blob == compress(data, ensemble([model, other]))
    assert blob != compress(data, ["other", "default"])
    assert compress(data, ["other"]) == compress(data, "other")
    assert compress(data, ["none"]) == compress(data, None)
    for extra in (None, "default", "other", ["none", "default", "other"]):
        assert decompress(blob, extra) == data
    for wrong in (["none", "default"], []):
        with pytest.raises(LaconicError, match="stands alone"):
            compress(data, wrong)
    with pytest.raises(LaconicError, match="named twice"):
        compress(data, ["default", tmp_path / "default"])
    for content in (b"", bytes(9), data):
        with pytest.raises(LaconicError, match="level 1 takes one checkpoint"):
            compress(content, ["default", "other"], level=1)


def test_memory(known):
    data = predictable(2000)
    blob = compress(data)
    with pytest.raises(LaconicError, match="allowed are 1 MB: raise --memory"):
        decompress(blob, memory=1 << 20)
    assert decompress(blob, memory=1 << 30) == data


def test_an_unknown_checkpoint(known):
    with pytest.raises(LaconicError, match="no checkpoint 'nobody'"):
        compress(b"abc", "nobody")


def test_memory_is_bounded_by_segments(model):
    class Counting(io.BytesIO):
        largest = 0

        def read(self, size=-1):
            assert size >= 0
            self.largest = max(self.largest, size)
            return super().read(size)

    source = Counting(predictable(20_000))
    target = io.BytesIO()
    compress_stream(source, target, Encoder(None), 1000)
    assert source.largest <= 1000
    assert len(target.getvalue()) > 15_000


class TestPendingFile:
    def test_appears_when_committed(self, tmp_path):
        path = tmp_path / "out"
        with PendingFile(path, force=False) as pending:
            pending.file.write(b"abc")
            pending.file.flush()
            assert not path.exists()
            pending.commit()
        assert path.read_bytes() == b"abc"
        assert os.listdir(tmp_path) == ["out"]
        umask = os.umask(0)
        os.umask(umask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask

    def test_leaves_nothing_after_a_failure(self, tmp_path):
        pending = PendingFile(tmp_path / "out", force=False)
        with pytest.raises(KeyboardInterrupt), pending:
            raise KeyboardInterrupt
        assert os.listdir(tmp_path) == []

    def test_replaces_only_by_force(self, tmp_path):
        path = tmp_path / "out"
        path.write_bytes(b"old")
        with pytest.raises(LaconicError, match="exists"):
            PendingFile(path, force=False)
        with PendingFile(path, force=True) as pending:
            pending.file.write(b"new")
            assert path.read_bytes() == b"old"
            pending.commit()
        assert path.read_bytes() == b"new"

    def test_does_not_replace_what_came_meanwhile(self, tmp_path):
        path = tmp_path / "out"
        pending = PendingFile(path, force=False)
        path.write_bytes(b"another")
        with pytest.raises(LaconicError, match="exists"), pending:
            pending.commit()
        assert path.read_bytes() == b"another"
        assert os.listdir(tmp_path) == ["out"]

    def test_keeps_mode_and_time(self, tmp_path):
        source = tmp_path / "in"
        source.write_bytes(b"")
        source.chmod(0o640)
        os.utime(source, ns=(1_000_000_000, 2_000_000_000))
        with PendingFile(tmp_path / "out", False, source.stat()) as pending:
            pending.commit()
        status = (tmp_path / "out").stat()
        assert stat.S_IMODE(status.st_mode) == 0o640
        assert status.st_mtime_ns == 2_000_000_000

    def test_where_nothing_can_be_written(self, tmp_path):
        with pytest.raises(LaconicError, match="is a folder"):
            PendingFile(tmp_path, force=True)
        with pytest.raises(LaconicError, match="does not exist"):
            PendingFile(tmp_path / "no" / "out", force=True)

    def test_a_device_is_written_directly(self):
        with PendingFile("/dev/null", force=False) as pending:
            pending.file.write(b"abc")
            pending.commit()
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)

    def test_a_full_disk(self, tmp_path, monkeypatch):
        def full(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        pending = PendingFile(tmp_path / "out", force=False)
        with pytest.raises(OSError, match="No space"), pending:
            pending.commit()
        assert os.listdir(tmp_path) == []


class TestProgress:
    def test_says_nothing_where_nobody_looks(self, capsys):
        progress = Progress("x", 10, True)
        progress.last = 0
        progress.segment(5, 5)(1.0)
        progress.clear()
        assert capsys.readouterr().err == ""

    def test_on_a_terminal(self, capsys, monkeypatch):
        monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
        times = iter([0.0, 0.1, 10.0])
        monkeypatch.setattr("time.monotonic", lambda: next(times))
        progress = Progress("x", 4_000_000, True)
        report = progress.segment(1_000_000, 1_000_000)
        report(0.5)
        progress.known(1_000_000, 250_000)
        report(1.0)
        progress.clear()
        assert capsys.readouterr().err == (
            "\rx: 1.0 MB, 25%, 100.0 KB/s, ratio 4.00, 0:30 left\x1b[K\r\x1b[K"
        )

    def test_counts_segments_in_work_together_and_never_backwards(self, capsys, monkeypatch):
        monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
        times = iter(range(0, 1000, 10))
        monkeypatch.setattr("time.monotonic", lambda: next(times))
        progress = Progress("x", 100, True)
        first, second = progress.segment(50, 500_000_000), progress.segment(50, 500_000_000)
        for report, part in ((first, 0.0), (second, 0.5), (second, 0.2), (first, 0.5), (second, 1.0)):
            report(part)
        lines = re.findall("x: ([^\x1b]*)", capsys.readouterr().err)
        assert lines == [
            "0 B, 0%, 0 B/s",
            "250.0 MB, 25%, 12.5 MB/s, 1:00 left",
            "250.0 MB, 25%, 8.3 MB/s, 1:30 left",
            "500.0 MB, 50%, 12.5 MB/s, 0:40 left",
            "750.0 MB, 75%, 15.0 MB/s, 0:17 left",
        ]

    @pytest.mark.parametrize("threads", [1, 3])
    def test_ends_at_everything(self, threads, monkeypatch, model):
        monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
        data, blob = predictable(2500), io.BytesIO()
        progress = Progress("x", 2500, True)
        compress_stream(io.BytesIO(data), blob, Encoder(model, threads=threads), 400, progress)
        assert progress.done == progress.original == pytest.approx(2500)
        size = len(blob.getvalue())
        assert progress.finished[0] == 2500
        assert size / 2 < progress.finished[1] < size
        progress = Progress("x", size, True)
        blob.seek(0)
        decompress_stream(blob, None, Decoder(model, threads=threads), progress)
        assert progress.original == pytest.approx(2500)
        assert 0.8 * size < progress.done < size

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3599.5, "1:00:00"), (36061, "10:01:01")],
    )
    def test_clock(self, seconds, text):
        assert clock(seconds) == text

    @pytest.mark.parametrize(
        ("count", "text"),
        [(0, "0 B"), (999, "999 B"), (1500, "1.5 KB"), (2_500_000, "2.5 MB"), (3e9, "3.0 GB")],
    )
    def test_human(self, count, text):
        assert human(count) == text


@pytest.mark.parametrize("wrong", [None, 5, "text", [1]])
def test_what_is_no_bytes_is_refused(wrong):
    for function in (compress, decompress):
        with pytest.raises(LaconicError, match=f"data of type {type(wrong).__name__}: give bytes"):
            function(wrong)


def test_any_bytes_like_is_taken():
    for data in (b"abcdef", bytearray(b"abcdef"), memoryview(b"abcdef")[::2]):
        assert decompress(bytearray(compress(data, model=None))) == bytes(data)
