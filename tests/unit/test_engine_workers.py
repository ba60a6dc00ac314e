"""Workers: one while handlers are quick, more when they block, none when the session is over."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cbfsconnect.engine import workers as module
from cbfsconnect.fuse.abi import Opcode
from support.kernel import ROOT, Kernel, eventually, fails
from support.plain import PlainDrive


class Blocking(PlainDrive):
    """Reading waits until `go` is set; `inside` counts those who wait."""

    def __init__(self, files: int = 12) -> None:
        super().__init__(**{f"f{number}": b"data" for number in range(files)})
        self.go = threading.Event()
        self.inside = threading.Semaphore(0)

    def on_read_file(self, p: Any) -> None:
        self.inside.release()
        assert self.go.wait(20)
        super().on_read_file(p)


@contextmanager
def blocked(count: int, **options: Any) -> Iterator[tuple[Kernel, Blocking, list[int]]]:
    """A drive with `count` reads under way, each of a file of its own."""
    drive = Blocking()
    with Kernel(drive, **options) as kernel:
        files = [kernel.lookup(f"f{number}").nodeid for number in range(count)]
        handles = [kernel.open(nodeid) for nodeid in files]
        asked = [kernel.start_read(*file) for file in zip(files, handles, strict=True)]
        try:
            yield kernel, drive, asked
        finally:
            drive.go.set()
        for unique in asked:
            kernel.wait(unique)
        kernel.let_go()


def test_quick_handlers_have_one_worker() -> None:
    with Kernel(PlainDrive(a=b"A")) as kernel:
        for _ in range(300):
            kernel.getattr(ROOT)
        assert kernel.session.workers.count() <= 2


def test_workers_come_when_handlers_block() -> None:
    with blocked(8) as (kernel, drive, _):
        for _ in range(8):
            assert drive.inside.acquire(timeout=10)
        assert kernel.getattr(ROOT).mode  # and somebody is left for the rest
        assert kernel.session.workers.count() >= 9


def test_there_are_never_more_than_allowed() -> None:
    with blocked(6, most=3) as (kernel, drive, asked):
        for _ in range(3):
            assert drive.inside.acquire(timeout=10)
        assert not drive.inside.acquire(timeout=0.05)
        assert kernel.session.workers.count() == 3
        assert not any(kernel.answered(unique) for unique in asked)
        drive.go.set()
        for _ in range(3):
            assert drive.inside.acquire(timeout=10)


def test_as_many_as_asked_for_begin() -> None:
    with Kernel(PlainDrive(), least=4) as kernel:
        assert kernel.session.workers.count() == 4


def test_workers_that_are_not_needed_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLEEP_S", 0.05)
    with blocked(6) as (kernel, drive, asked):
        for _ in range(6):
            assert drive.inside.acquire(timeout=10)
        drive.go.set()
        for unique in asked:
            assert kernel.wait(unique).error == 0
        asked.clear()
        eventually(lambda: kernel.session.workers.count() <= 2)
        kernel.getattr(ROOT)


def test_a_worker_that_slept_serves_again() -> None:
    with blocked(3) as (_, drive, asked):
        for _ in range(3):
            assert drive.inside.acquire(timeout=10)
        del asked
    with blocked(3) as (kernel, drive, asked):
        for _ in range(3):
            assert drive.inside.acquire(timeout=10)
        drive.go.set()
        for unique in asked:
            kernel.wait(unique)
        drive.go.clear()
        asked[:] = [
            kernel.start_read(nodeid, fh) for fh, (nodeid, _) in list(kernel.handles.items())
        ]
        for _ in range(3):
            assert drive.inside.acquire(timeout=10)


def test_requests_of_one_file_wait_in_their_workers() -> None:
    """They hold a worker each, and others still find one."""
    drive = Blocking(1)
    with Kernel(drive) as kernel:
        node = kernel.lookup("f0").nodeid
        fh = kernel.open(node)
        asked = [kernel.start_read(node, fh) for _ in range(5)]
        assert drive.inside.acquire(timeout=10)
        assert kernel.getattr(ROOT).mode
        assert not drive.inside.acquire(timeout=0.02)  # only one event of a file at a time
        drive.go.set()
        for unique in asked:
            assert kernel.wait(unique).data == b"data"
        kernel.let_go()


def test_events_of_one_file_overlap_only_where_that_is_allowed() -> None:
    drive = Blocking(1)
    with Kernel(drive, serialize_access=False) as kernel:
        node = kernel.lookup("f0").nodeid
        fh = kernel.open(node)
        asked = [kernel.start_read(node, fh) for _ in range(5)]
        for _ in range(5):
            assert drive.inside.acquire(timeout=10)
        drive.go.set()
        for unique in asked:
            kernel.wait(unique)
        kernel.let_go()


def test_a_handler_that_takes_too_long_is_answered_for(caplog: pytest.LogCaptureFixture) -> None:
    with blocked(1, timeout=0.05) as (kernel, drive, asked):
        assert kernel.wait(asked.pop()).error == errno.ETIMEDOUT
        assert "timed out" in caplog.text
        drive.go.set()
    assert not kernel.transport.wrong


def test_what_a_late_handler_gave_is_taken_back() -> None:
    """Its handle would stay open for ever: the kernel knows only that the open failed."""
    drive = PlainDrive(a=b"A")
    go, closed = threading.Event(), threading.Event()

    class Late(PlainDrive):
        def on_open_file(self, p: Any) -> None:
            assert go.wait(20)

        def on_close_file(self, p: Any) -> None:
            closed.set()

    drive = Late(a=b"A")
    with Kernel(drive, timeout=0.05) as kernel:
        node = kernel.lookup("a").nodeid
        with fails(errno.ETIMEDOUT):
            kernel.open(node)
        go.set()
        assert closed.wait(10)
        kernel.let_go()


def test_a_stuck_handler_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    drive = Blocking(1)
    kernel = Kernel(drive)
    kernel.session.start()
    kernel.init()
    node = kernel.lookup("f0").nodeid
    kernel.start_read(node, kernel.open(node))
    assert drive.inside.acquire(timeout=10)
    kernel.transport.end()
    assert kernel.session.wait_until_over(10)
    assert not kernel.session.close(0.05)
    assert "did not return" in caplog.text
    drive.go.set()
    eventually(lambda: kernel.session.workers.count() == 0)


def test_begin_and_end_of_each_worker_are_told() -> None:
    seen: list[str] = []
    drive = Blocking()
    kernel = Kernel(drive)
    kernel.session.workers._begin = lambda: seen.append("begin")
    kernel.session.workers._end = lambda: seen.append("end")
    with kernel:
        files = [kernel.lookup(f"f{number}").nodeid for number in range(3)]
        asked = [kernel.start_read(nodeid, kernel.open(nodeid)) for nodeid in files]
        for _ in asked:
            assert drive.inside.acquire(timeout=10)
        drive.go.set()
        for unique in asked:
            kernel.wait(unique)
    assert seen.count("begin") == seen.count("end") >= 3


def test_starting_and_stopping_leaves_no_thread() -> None:
    before = threading.active_count()
    for _ in range(30):
        kernel = Kernel(PlainDrive(), least=3)
        kernel.session.start()
        kernel.end()
    assert threading.active_count() <= before


def test_a_worker_that_is_lost_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a mistake in the package itself may raise."""
    with Kernel(PlainDrive(a=b"A")) as kernel:
        send = kernel.session._send

        def fail(message: Any) -> object:
            kernel.session._send = send
            raise RuntimeError("a mistake")

        kernel.session._send = fail
        lost = kernel.start(Opcode.STATFS, ROOT)
        assert kernel.getattr(ROOT).mode
        assert not kernel.answered(lost)
        kernel.transport.asked.clear()
    assert "ended unexpectedly" in caplog.text
