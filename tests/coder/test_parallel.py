"""Several segments at the same time: the same bytes and the same errors as one after another."""

import io
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError

import pytest
from fakes import fake_model, predictable

import laconic
from laconic.coder import parallel
from laconic.coder.encoder import Encoder
from laconic.coder.errors import LaconicError
from laconic.coder.files import compress, compress_stream, decompress, decompress_stream
from laconic.coder.parallel import MAX_THREADS, Lanes, check_threads, in_order, share
from laconic.coder.registry import Decoder
from laconic.coder.segment import DamageError

DATA = predictable(6500)
THREADS = [1, 2, 3]


class Live:
    """Work that takes a moment and counts what is alive: handed out, and not yet given back."""

    def __init__(self):
        self.lock = threading.Lock()
        self.alive = self.most_alive = self.working = self.most_working = 0

    def items(self, count):
        for number in range(count):
            with self.lock:
                self.alive += 1
                self.most_alive = max(self.most_alive, self.alive)
            yield number

    def work(self, number, check):
        with self.lock:
            self.working += 1
            self.most_working = max(self.most_working, self.working)
        time.sleep(0.03 if number % 3 == 0 else 0.001)
        check()
        with self.lock:
            self.working -= 1
        return number

    def back(self):
        with self.lock:
            self.alive -= 1


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_order_and_how_many_are_alive(threads):
    live, found = Live(), []
    for result in in_order(live.work, live.items(20), threads):
        found.append(result)
        live.back()
    assert found == list(range(20))
    assert live.most_working <= threads
    assert live.most_alive <= (threads + 1 if threads > 1 else 1)
    assert threads == 1 or live.most_working > 1


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("model", [None, fake_model()])
def test_bytes_do_not_depend_on_threads(threads, model, tmp_path):
    blob = compress(DATA, model, segment_size=1000, threads=1)
    assert compress(DATA, model, segment_size=1000, threads=threads) == blob
    assert decompress(blob, model, threads=threads) == DATA
    with laconic.open(tmp_path / "a", "wb", model, segment_size=1000, threads=threads) as file:
        for begin in range(0, len(DATA), 700):
            file.write(DATA[begin : begin + 700])
    assert (tmp_path / "a").read_bytes() == blob
    assert decompress(compress(b"", model, threads=threads), model, threads=threads) == b""


@pytest.mark.parametrize("threads", THREADS)
def test_the_first_failure_of_the_file_is_reported_and_what_is_before_it_written(threads, model):
    blob = compress(DATA, model, segment_size=1000, threads=1)
    marks = [found.start() for found in re.finditer(b"\xb5SEG", blob)]
    broken = bytearray(blob)
    broken[marks[4] + 40] ^= 1  # does not match its checksum: found while reading

    class Wrong(Decoder):
        """Decodes the segment at 2000 to something else, when the reader has met the damage."""

        def __call__(self, segment, checkpoint, report=None):
            data = super().__call__(segment, checkpoint, report)
            if data == DATA[2000:3000]:
                time.sleep(0.2)
                return data[::-1]
            return data

    for wanted, decoder, message in (
        (4000, Decoder(model, threads=threads), "does not match its checksum"),
        (2000, Wrong(model, threads=threads), "from 2000 on decode to something else"),
    ):
        target = io.BytesIO()
        with pytest.raises(DamageError, match=message):
            decompress_stream(io.BytesIO(broken), target, decoder)
        assert target.getvalue() == DATA[:wanted]


@pytest.mark.parametrize("threads", THREADS)
def test_a_source_that_fails(threads, model):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() >= 4000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    whole, target = io.BytesIO(), io.BytesIO()
    compress_stream(io.BytesIO(DATA), whole, Encoder(model, threads=1), 1000)
    with pytest.raises(OSError, match="Input/output"):
        compress_stream(Failing(DATA), target, Encoder(model, threads=threads), 1000)
    third = [found.start() for found in re.finditer(b"\xb5SEG", whole.getvalue())][3]
    assert target.getvalue() == whole.getvalue()[:third]  # of the four that were read, one is held back


@pytest.mark.parametrize("threads", THREADS)
def test_a_target_that_fails_stops_the_rest(threads, model):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    before = threading.active_count()
    with pytest.raises(OSError, match="No space"):
        compress_stream(io.BytesIO(DATA), Full(), Encoder(model, threads=threads), 500)
    assert threading.active_count() == before


def test_an_interruption_stops_what_is_in_work():
    begun, ended = threading.Semaphore(0), []

    def work(number, check):
        begun.release()
        try:
            for _ in range(10_000):
                check()
                time.sleep(0.001)
        except CancelledError:
            ended.append(number)
            raise

    def items():
        yield from range(2)
        begun.acquire()
        begun.acquire()
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        list(in_order(work, items(), 2))
    assert sorted(ended) == [0, 1]
    assert threading.active_count() == before
    assert share(8) == 8


def test_where_no_thread_can_be_had(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert list(in_order(lambda number, check: number * 2, range(5), 3)) == [0, 2, 4, 6, 8]


def test_threads_of_an_engine_are_shared():
    assert [share(threads) for threads in (1, 2, 8)] == [1, 2, 8]
    together = threading.Barrier(3)

    def work(number, check):
        together.wait(10)
        found = share(8), share(2)
        together.wait(10)
        return found

    assert list(in_order(work, range(3), 3)) == [(2, 1)] * 3
    assert share(8) == 8


@pytest.mark.parametrize("threads", [0, -1, MAX_THREADS + 1, 1.5, "2", True])
def test_threads_out_of_range(threads, tmp_path):
    blob = compress(b"abc", None)
    for action in (
        lambda: compress(b"abc", None, threads=threads),
        lambda: decompress(blob, threads=threads),
        lambda: laconic.open(tmp_path / "a", "wb", None, threads=threads),
    ):
        with pytest.raises(LaconicError, match=f"choose from 1 to {MAX_THREADS}"):
            action()
    assert os.listdir(tmp_path) == []


def test_the_default_is_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 3, 5}, raising=False)
    assert check_threads(None) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert check_threads(None) == 1


def test_a_checkpoint_is_opened_once(known, model, monkeypatch):
    blob, opened = compress(DATA, segment_size=500), []

    def open_model(listing, engine=None, threads=None):
        opened.append(listing.name)
        time.sleep(0.05)
        return model

    monkeypatch.setattr("laconic.coder.registry.open_model", open_model)
    assert decompress(blob, threads=3) == DATA
    assert opened == ["default"]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes cannot be asked there")
@pytest.mark.parametrize("threads", THREADS)
def test_a_pipe_that_pauses_gets_what_is_finished(threads, model):
    blob = compress(DATA, model, segment_size=1000, threads=1)
    third = [found.start() for found in re.finditer(b"\xb5SEG", blob)][3]
    (source, feed), (drain, target) = os.pipe(), os.pipe()
    with open(feed, "wb", 0) as feed, open(drain, "rb", 0) as drain:

        def decode():
            with open(source, "rb") as compressed, open(target, "wb", 0) as restored:
                decompress_stream(compressed, restored, Decoder(model, threads=threads))

        thread = threading.Thread(target=decode)
        thread.start()
        feed.write(blob[:third])
        found = b""
        while len(found) < 3000 and select.select([drain], [], [], 20)[0]:
            found += drain.read(3000)
        assert found == DATA[:3000]
        feed.write(blob[third:])
        feed.close()
        while piece := drain.read(9000):
            found += piece
        thread.join()
    assert found == DATA


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ there")
@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + 15)])
def test_a_signal_ends_it_at_once_and_leaves_no_file(threads, number, status, tmp_path):
    rest = os.urandom(1 << 16).hex().encode()
    compress(rest, threads=1, model=None)  # compiles what the command would: no signal gets through meanwhile
    (tmp_path / "a").write_bytes(rest * 128)
    command = [sys.executable, "-m", "laconic", "compress", "-m", "none", "-T", threads]
    process = subprocess.Popen(
        [*command, "--segment-size", "1M", "a"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        # What runs in the background ignores SIGINT, and would hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not any(name.endswith(".part") for name in os.listdir(tmp_path)):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(15) == status
    assert process.stderr.read() == b""
    process.stderr.close()
    assert os.listdir(tmp_path) == ["a"]


def test_lanes_hold_failures_until_their_turn():
    def work(number, check):
        if number != 1:
            return number
        raise ValueError(number)

    with Lanes(work, 4) as lanes:
        for number in range(3):
            lanes.put(number)
        assert not lanes.full
        assert lanes.take() == 0
        with pytest.raises(ValueError, match="1"):
            lanes.take()
        assert lanes.take() == 2
        assert len(lanes) == 0


def test_what_is_no_pipe_is_never_idle(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    with open(tmp_path / "a", "rb") as file:
        assert not parallel.is_idle(file)
    assert not parallel.is_idle(io.BytesIO())


def test_an_item_is_done_once_where_no_more_threads_can_be_had(monkeypatch):
    """A pool queues an item, and then finds that it cannot start a thread for it."""
    start, started = threading.Thread.start, []

    def one_only(thread):
        if started and thread.name.startswith("laconic"):
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", one_only)
    done = []
    results = in_order(lambda item, check: done.append(item) or item, range(8), 3)
    assert list(results) == list(range(8))
    assert sorted(done) == list(range(8))
