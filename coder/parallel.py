"""Several segments at the same time, on threads, with the results in the order of the file.

The compiled kernels, the engines, LZMA and hashes let other threads run while they work. The main thread
reads and writes, so that an interruption meets it where it can be stopped; the others only compute.
"""

import os
import select
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from threading import Event, Lock
from types import TracebackType
from typing import Any, Generic, TypeVar

from .errors import LaconicError
from .report import Report

MAX_THREADS = 1024
USUAL_THREADS = 16  # at most, where nothing is said: each segment in work takes memory of its own
_POLL = 0.1  # seconds between two looks at what may have changed

Item = TypeVar("Item")
Result = TypeVar("Result")
Check = Callable[[], None]  # raises CancelledError where the result is not wanted any more

_lock = Lock()
_in_work = 0  # items that are worked on in this process


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(threads: int | None) -> int:
    """How many segments are worked on at the same time: as many as cores, up to 16, where nothing is said.

    Raises:
        LaconicError: it is no whole number from 1 to MAX_THREADS.
    """
    if threads is None:
        return min(cores(), USUAL_THREADS)
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise LaconicError(
            f"{threads!r} threads: choose from 1 to {MAX_THREADS}, or leave it out for one for each core"
        )
    return threads


def share(threads: int) -> int:
    """Of `threads` for the process, those that each of the segments now in work may use; at least 1."""
    return max(1, threads // max(1, _in_work))


class Lanes(Generic[Item, Result]):
    """Items go in one by one, and their results come out in the same order.

    Up to `threads` are worked on, and one more waits for its turn; whoever puts takes when it is full. With
    one thread the work is done by whoever puts. As a context manager it stops what is still in work.
    """

    def __init__(self, work: Callable[[Item, Check], Result], threads: int) -> None:
        """`work` calls its second argument now and then."""
        self._work = work
        self._pool = ThreadPoolExecutor(threads, "laconic") if threads > 1 else None
        self._room = threads + 1 if threads > 1 else 1
        self._pending: deque[Future[Result]] = deque()
        self._stopped = Event()

    def __len__(self) -> int:
        """Results that have not been taken, finished or not."""
        return len(self._pending)

    @property
    def full(self) -> bool:
        return len(self._pending) >= self._room

    def put(self, item: Item) -> None:
        future: Future[Result] = Future()
        free = Lock()

        def run() -> None:
            if free.acquire(blocking=False):
                self._fulfil(future, item)

        try:
            if self._pool is not None:
                self._pool.submit(run)
        except RuntimeError:  # no thread can be had, though the item may be queued for those that there are
            run()
        if self._pool is None:
            run()
        self._pending.append(future)

    def first_is_done(self) -> bool:
        """Whether `take` would not wait; allows a moment for it."""
        return bool(wait([self._pending[0]], _POLL).done)

    def take(self) -> Result:
        """The result of the oldest item, or the exception that its work raised."""
        while not self.first_is_done():  # some systems do not interrupt a wait that has no end
            pass
        return self._pending.popleft().result()

    def close(self) -> None:
        """Stop what is in work, and wait until it has stopped."""
        self._stopped.set()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pending.clear()

    def _fulfil(self, future: "Future[Result]", item: Item) -> None:
        try:
            future.set_result(self._do(item))
        except BaseException as error:  # for whoever takes it
            future.set_exception(error)

    def _do(self, item: Item) -> Result:
        global _in_work
        with _lock:
            _in_work += 1
        try:
            self._check()
            return self._work(item, self._check)
        finally:
            with _lock:
                _in_work -= 1

    def _check(self) -> None:
        if self._stopped.is_set():
            raise CancelledError

    def __enter__(self) -> "Lanes[Item, Result]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def in_order(
    work: Callable[[Item, Check], Result],
    items: Iterable[Item],
    threads: int,
    idle: Callable[[], bool] = lambda: False,
) -> Generator[Result, None, None]:
    """The result of each item, in order, as soon as may be; close it to stop.

    What `items` or `work` raise comes after the results before it, as if all had been done one by one.

    Args:
        idle: whether the next item would have to be waited for; finished results do not wait with it.
    """
    source, failure = iter(items), None
    with Lanes(work, threads) as lanes:
        while failure is None:
            while lanes and (lanes.full or idle()):
                if lanes.full or lanes.first_is_done():
                    yield lanes.take()
            try:
                lanes.put(next(source))
            except StopIteration:
                break
            except Exception as error:
                failure = error
        while lanes:
            yield lanes.take()
    if failure is not None:
        raise failure


def checked(check: Check, report: Report) -> Report:
    """A report by which work that nobody waits for any more ends."""

    def both(part: float) -> None:
        check()
        report(part)

    return both


def is_idle(stream: Any) -> bool:
    """Whether nothing lies ready in a pipe; False for what is no pipe, and where systems do not tell."""
    try:
        return not select.select([stream], [], [], 0)[0]
    except (OSError, ValueError, TypeError):
        return False
