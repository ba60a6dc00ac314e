"""The threads that serve requests: one as long as handlers are quick, more when they block.

A worker reads a request, runs its handlers and answers, all on one thread. While every handler is
quick one worker is best: a second one would only fight for the interpreter. So the others sleep,
and are woken in two cases:

- a watchman sees that nobody reads while a request has been in its handler for a while;
- a request of a kind that was seen to block comes: then another reads before its handler runs.

The watchman costs nothing when the drive is idle, and a few wake-ups a millisecond apart else. It
also answers requests whose event has timed out.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from cbfsconnect.fuse.abi import WriteIn, layout
from cbfsconnect.fuse.wire import IN_HEADER_SIZE, OUT_HEADER_SIZE, data_in_place

if TYPE_CHECKING:
    from cbfsconnect.engine.nodes import Node
    from cbfsconnect.fuse.wire import Request

log = logging.getLogger("cbfsconnect")

REQUEST_BYTES = (1 << 20) + 4096
"""The largest request: 1 MiB of data behind its headers."""
_BEFORE_DATA_WRITTEN = IN_HEADER_SIZE + layout(WriteIn).size
MOST_WORKERS = 256
"""How many there may be when the program names no number."""

_TICK_S = 0.002
_CALM_TICK_S = 0.005
"""While nothing blocks. A look takes the interpreter and the CPU from the worker that is looked at:
at one every 2 ms that cost a busy drive 3 % of its speed."""
_IDLE_TICKS = 50
_FADING = 0.9
_BLOCKS_FROM = 3.0
_BLOCKS_TO = 0.5
"""Each look at which a kind of request is found blocked adds 1 to its score, and each look takes a
tenth of it away. So a kind counts as blocking when that happens at a third of the looks, and
until it has not happened for some twenty: not when a busy machine holds a quick one up at times."""
_SLEEP_S = 10.0
"""A worker that was not needed for so long ends."""


def _memory(size: int, before: int) -> memoryview:
    """Memory of which what follows the first bytes begins on a page boundary.

    The kernel copies page by page: it takes half as many steps when those of both sides match.
    """
    pages = mmap.mmap(-1, size + mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return memoryview(pages)[-before % mmap.PAGESIZE :]


class Worker:
    """Who serves a request: what operations and handlers may ask about it."""

    __slots__ = ("_answer", "late", "limit", "node", "request", "seen_at")

    def __init__(self) -> None:
        self._answer: memoryview | None = None
        self.request: Request | None = None
        self.node: Node | None = None
        self.late: Request | None = None
        """The request that was answered in the handler's place. Not a flag: it is set from another
        thread, and must not be taken for that of the next request."""
        self.limit: float | None = None
        self.seen_at = 0.0

    def restart_clock(self, limit: float) -> None:
        """Give the handler so many seconds from now on; 0: as long as it likes."""
        self.seen_at = time.monotonic()
        self.limit = limit

    def output(self, size: int) -> memoryview:
        """Memory for the data that answers a READ; it is this worker's until it has answered."""
        end = OUT_HEADER_SIZE + size
        if self._answer is None or end > len(self._answer):
            self._answer = self._allocate(end)
        return self._answer[OUT_HEADER_SIZE:end]

    def data_reply(self, unique: int, size: int) -> memoryview:
        """The answer to a READ with what was put into the beginning of `output`."""
        assert self._answer is not None
        return data_in_place(self._answer, unique, size)

    @staticmethod
    def _allocate(size: int) -> memoryview:
        return memoryview(bytearray(size))


class ThreadWorker(Worker):
    """One thread, with its buffers and the request it is at."""

    __slots__ = ("buffer", "flow", "seen", "wake")

    def __init__(self) -> None:
        super().__init__()
        self.buffer = _memory(REQUEST_BYTES, _BEFORE_DATA_WRITTEN)
        self.flow: Worker | None = None
        """The request that waits without a thread, while this one is lent to it."""
        self.seen: Request | None = None
        self.wake = threading.Semaphore(0)

    @staticmethod
    def _allocate(size: int) -> memoryview:
        return _memory(max(size, REQUEST_BYTES), OUT_HEADER_SIZE)


Visit: TypeAlias = "Callable[[ThreadWorker], object]"
"""A part of a request's way that needs a thread of its own; it must not raise."""


class Workers:
    """The workers of one session.

    `serve(worker)` reads one request and serves it; it returns False when the session is over.
    `late(request)` answers a request in the place of a handler that takes too long. `drained()` is
    called when the session is over and the last worker has ended.
    """

    def __init__(
        self,
        serve: Callable[[ThreadWorker], bool],
        late: Callable[[Request], None],
        *,
        least: int = 1,
        most: int = 0,
        timeout: float = 0.0,
        begin: Callable[[], None] = lambda: None,
        end: Callable[[], None] = lambda: None,
        drained: Callable[[], None] = lambda: None,
    ) -> None:
        self._serve = serve
        self._late = late
        self.configure(least, most, timeout)
        self._begin = begin
        self._end = end
        self._drained = drained
        self._mutex = threading.Lock()
        self._all: set[ThreadWorker] = set()
        self._threads: list[threading.Thread] = []
        """Of all workers, and of those that have left `_all` but not quite ended."""
        self._by_thread: dict[int, ThreadWorker] = {}
        self._asleep: list[ThreadWorker] = []
        self._visits: deque[Visit] = deque()
        self._stopping = False
        self._stopped = threading.Lock()
        self._stopped.acquire()
        self.reading: set[ThreadWorker] = set()
        self.blocking: set[int] = set()
        self._scores: dict[int, float] = {}
        self._watching = threading.Event()
        self._watched = False
        self.patience = 0.0
        """How long, in seconds, a request is in progress before it counts as blocked."""
        self.calm = False
        """Whether the watchman is awake and no kind of request blocks: `took` has nothing to do."""
        self._watchman = threading.Thread(target=self._watch, name="cbfs-watchman", daemon=True)

    def configure(self, least: int, most: int, timeout: float) -> None:
        """Set how many workers there may be (0: a choice by load), and the seconds (0: for ever)
        that a handler may take."""
        self._most = max(1, most or MOST_WORKERS)
        self._least = max(1, min(least, self._most))
        self._timeout = timeout

    def start(self) -> None:
        """Start the first workers and the watchman."""
        with self._mutex:
            for _ in range(self._least):
                self._new()
        self._watchman.start()

    def current(self) -> Worker | None:
        """Who serves the request that this thread is at, None on any thread but a worker's."""
        worker = self._by_thread.get(threading.get_ident())
        return worker if worker is None or worker.flow is None else worker.flow

    def count(self) -> int:
        """How many worker threads there are."""
        return len(self._all)

    def stop(self) -> None:
        """Tell all that the session is over."""
        with self._mutex:
            sleepers, self._asleep = self._asleep, []
            if not self._stopping:
                self._stopping = True
                self._stopped.release()
            visits, self._visits = self._visits, deque()
        for visit in visits:
            self._receive_apart(visit)
        for worker in sleepers:
            worker.wake.release()
        self._watching.set()

    def abandon(self) -> None:
        """In a forked child: the worker whose handler forked, if it returns here, shall end."""
        self._stopping = True

    def join(self, timeout: float) -> list[ThreadWorker]:
        """Wait until all threads have ended, for `timeout` seconds; those that have not.

        Not to be called by a worker.
        """
        deadline = time.monotonic() + timeout
        with self._mutex:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._watchman.ident is not None:
            self._watchman.join(max(0.1, deadline - time.monotonic()))
        return list(self._all)

    def took(self, opcode: int) -> None:
        """Called by a worker that has read a request and is about to serve it, unless all is calm.

        Wakes the watchman, and another reader when requests of this kind are known to block.
        """
        if not self._watched:
            self._watched = True
            self._watching.set()
        self.calm = not self.blocking
        if opcode in self.blocking and not self.reading:
            self.add_reader()

    def add_reader(self) -> None:
        """Have one more worker read: a sleeping one, or a new one while there may be more."""
        with self._mutex:
            if self._stopping or self.reading:
                return
            if self._asleep:
                self._asleep.pop().wake.release()
            elif len(self._all) < self._most:
                self._new()

    def visit(self, visit: Visit) -> None:
        """Have a worker do this soon, before it reads another request."""
        with self._mutex:
            if not self._stopping:
                self._visits.append(visit)
                if self._asleep:
                    self._asleep.pop().wake.release()
                elif len(self._all) <= self._most:  # one more than may read: all may be at that
                    self._new(reads=False)
                return
        self._receive_apart(visit)

    def _receive_apart(self, visit: Visit) -> None:
        """The session is over: what is under way still comes to its end."""

        def run() -> None:
            worker = ThreadWorker()
            self._by_thread[threading.get_ident()] = worker
            try:
                visit(worker)
            finally:
                del self._by_thread[threading.get_ident()]

        with contextlib.suppress(RuntimeError):  # the interpreter ends
            threading.Thread(target=run, name="cbfs-worker", daemon=True).start()

    def _new(self, reads: bool = True) -> None:
        worker = ThreadWorker()
        if reads:
            self.reading.add(worker)  # from now on: nobody shall start another in its place
        thread = threading.Thread(target=self._run, args=(worker,), name="cbfs-worker", daemon=True)
        self._all.add(worker)
        self._threads = [other for other in self._threads if other.is_alive()]
        try:
            thread.start()
            self._threads.append(thread)
        except RuntimeError:
            self._all.discard(worker)
            self.reading.discard(worker)
            log.warning("no more threads can be started; %d serve the drive", len(self._all))

    def _run(self, worker: ThreadWorker) -> None:
        self._by_thread[threading.get_ident()] = worker
        self._begin()
        has_served = is_lost = False
        try:
            serve, reading = self._serve, self.reading
            while not self._stopping:
                reading.discard(worker)
                if self._visits:
                    self._receive_visit(worker)
                    continue
                if reading:
                    if not self._sleep(worker):
                        break
                    continue
                reading.add(worker)
                if not serve(worker):
                    break
                has_served = True
        except BaseException:
            log.exception("a worker ended unexpectedly")
            is_lost = has_served  # else the next would only fail in the same way
        finally:
            self.reading.discard(worker)
            self._end()
            del self._by_thread[threading.get_ident()]
            self._all.discard(worker)
            if self._stopping and not self._all:
                self._drained()
            if is_lost:
                self.add_reader()

    def _receive_visit(self, worker: ThreadWorker) -> None:
        try:
            visit = self._visits.popleft()
        except IndexError:
            return  # another worker was quicker
        if not self._watched:
            self._watched = True
            self._watching.set()
        visit(worker)

    def _sleep(self, worker: ThreadWorker) -> bool:
        """Wait to be needed; False when it is time to end."""
        with self._mutex:
            if self._stopping:
                return False
            if self._visits or not self.reading:
                return True
            self._asleep.append(worker)
        if worker.wake.acquire(timeout=_SLEEP_S):
            return not self._stopping
        with self._mutex:
            if worker not in self._asleep:  # woken at this very moment
                return not self._stopping
            if len(self._all) <= self._least:
                self._asleep.remove(worker)
                return not self._stopping
            self._asleep.remove(worker)
            return False

    def _watch(self) -> None:
        idle = 0
        while not self._stopping:
            if self._stopped.acquire(timeout=_TICK_S if self._scores else _CALM_TICK_S):
                return  # a sleep that the end of the session cuts short
            busy = self._look(time.monotonic())
            idle = 0 if busy else idle + 1
            if idle >= _IDLE_TICKS:
                self._watching.clear()
                self._watched = self.calm = False
                # A request that came between the look and here is seen by the next look.
                if not self._look(time.monotonic()) and not self._stopping:
                    self._watching.wait()
                idle = 0

    def _look(self, now: float) -> bool:
        """One look at all workers; whether any of them is at a request."""
        busy = False
        blocked: set[int] = set()
        for worker in list(self._all):
            request = worker.request
            if request is None:
                continue
            busy = True
            if worker.seen is not request:
                worker.seen, worker.seen_at = request, now
                continue
            if now - worker.seen_at < self.patience:
                continue
            blocked.add(request.opcode)
            self._check_timeout(worker, request, now)
        if busy and not self.reading and self._all_are_stuck():
            self.add_reader()
        if blocked or self._scores:
            self._judge(blocked)
        return busy

    def _all_are_stuck(self) -> bool:
        """Whether every request in progress was there at the look before already."""
        since = time.monotonic() - self.patience
        return all(
            w.request is None or (w.request is w.seen and w.seen_at <= since)
            for w in list(self._all)
        )

    def _judge(self, blocked: set[int]) -> None:
        """Decide which kinds of requests block, by what the last looks have found."""
        for opcode in blocked | self._scores.keys():
            score = self._scores.get(opcode, 0.0) * _FADING + (opcode in blocked)
            self._scores[opcode] = score
            if score >= _BLOCKS_FROM:
                self.blocking.add(opcode)
                self.calm = False
            elif score < _BLOCKS_TO:
                del self._scores[opcode]
                self.blocking.discard(opcode)

    def _check_timeout(self, worker: ThreadWorker, request: Request, now: float) -> None:
        if worker.flow is not None:
            return  # it has a clock of its own
        limit = self._timeout if worker.limit is None else worker.limit
        if limit and worker.late is not request and now - worker.seen_at > limit:
            worker.late = request
            self._late(request)
