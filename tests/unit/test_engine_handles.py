"""Contexts and the events of opening and closing, against the rules of the vendor's topic page."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cbfsconnect.engine.engine import Engine
from cbfsconnect.errors import ERROR_ACCESS_DENIED
from support.kernel import ROOT, Kernel, fails
from support.plain import PlainDrive

CACHED = 1
"""FUSE_WRITE_CACHE."""


class ContextDrive(PlainDrive):
    """Numbers every file and every handle that it sees, and checks what it is given back."""

    def __init__(self) -> None:
        super().__init__(a=b"A", b=b"B")
        self.last = 0
        self.files: dict[str, int] = {}
        self.handles: dict[int, int] = {}
        self.wrong: list[str] = []
        self.log: list[tuple[str, int]] = []

    def number(self) -> int:
        self.last += 1
        return self.last

    def check(self, event: str, params: Any) -> None:
        file, handle = params.file_context, params.handle_context
        if file != self.files.get(params.file_name):
            self.wrong.append(f"{event}: file context {file!r} of {params.file_name}")
        if params.handle_info and handle != self.handles.get(params.handle_info, 0):
            self.wrong.append(f"{event}: handle context {handle!r}")
        if not params.handle_info and handle is not None:
            self.wrong.append(f"{event}: handle context {handle!r} without a handle")
        self.log.append((event, params.handle_info))

    def begin(self, event: str, params: Any) -> None:
        if params.file_context != self.files.get(params.file_name, 0) or params.handle_context:
            self.wrong.append(f"{event}: {params.file_context!r}, {params.handle_context!r}")
        self.log.append((event, params.handle_info))
        params.file_context = self.files.setdefault(params.file_name, self.number())
        params.handle_context = self.handles[params.handle_info] = self.number()

    def on_create_file(self, p: Any) -> None:
        super().on_create_file(p)
        self.begin("create", p)

    def on_open_file(self, p: Any) -> None:
        self.begin("open", p)

    def on_cleanup_file(self, p: Any) -> None:
        self.check("cleanup", p)

    def on_close_file(self, p: Any) -> None:
        self.check("close", p)
        self.handles.pop(p.handle_info, None)

    def on_read_file(self, p: Any) -> None:
        self.check("read", p)
        super().on_read_file(p)

    def on_write_file(self, p: Any) -> None:
        self.check("write", p)
        super().on_write_file(p)
        p.file_context = self.files[p.file_name] = self.number()  # a handler may change it

    def on_set_file_size(self, p: Any) -> None:
        self.check("size", p)
        super().on_set_file_size(p)

    def on_set_file_attributes(self, p: Any) -> None:
        self.check("attributes", p)


class Opening(RuleBasedStateMachine):
    """Any number of handles of two files, used and closed in any order."""

    fire_all = False

    @initialize()
    def begin(self) -> None:
        self.drive = ContextDrive()
        properties: dict[str, Any] = {"fire_all_open_close_events": self.fire_all}
        self.kernel = Kernel(self.drive, **properties)
        self.kernel.session.start()
        self.kernel.init()
        self.nodes = {name: self.kernel.lookup(name).nodeid for name in ("a", "b")}
        self.open: list[tuple[str, int]] = []
        self.flushed: dict[int, bool] = {}

    def count(self, name: str) -> int:
        return sum(1 for other, _ in self.open if other == name)

    def expect(self, name: str, *events: str) -> None:
        """These have fired since the last look, with nothing wrong in them."""
        assert not self.drive.wrong
        assert [event for event, _ in self.drive.log] == list(events), name
        self.drive.log.clear()

    def clear_when_closed(self, name: str) -> None:
        if not self.count(name):
            self.drive.files.pop(f"/{name}", None)

    @rule(name=st.sampled_from("ab"))
    def open_file(self, name: str) -> None:
        first = not self.count(name)
        fh = self.kernel.open(self.nodes[name])
        self.open.append((name, fh))
        self.flushed[fh] = False
        self.expect("open", *["open"] * (first or self.fire_all))

    @precondition(lambda self: self.open)
    @rule(index=st.integers(0, 20), kind=st.sampled_from(["read", "write", "cached"]))
    def use(self, index: int, kind: str) -> None:
        name, fh = self.open[index % len(self.open)]
        if not self.fire_all:
            self.drive.handles.setdefault(fh, 0)
        if kind == "read":
            self.kernel.read(self.nodes[name], fh)
            self.expect("use", "read")
        else:
            flags = CACHED if kind == "cached" else 0
            self.kernel.write(self.nodes[name], fh, b"x", 0, flags)
            self.expect("use", "write")

    @precondition(lambda self: self.open)
    @rule(index=st.integers(0, 20))
    def close_descriptor(self, index: int) -> None:
        name, fh = self.open[index % len(self.open)]
        self.flushed[fh] = True
        due = self.fire_all or all(self.flushed[h] for n, h in self.open if n == name)
        if not self.fire_all:
            self.drive.handles.setdefault(fh, 0)
        self.kernel.flush(self.nodes[name], fh)
        self.expect("flush", *["cleanup"] * due)

    @precondition(lambda self: self.open)
    @rule(index=st.integers(0, 20))
    def release(self, index: int) -> None:
        name, fh = self.open.pop(index % len(self.open))
        last = not self.count(name)
        if not self.fire_all:
            self.drive.handles.setdefault(fh, 0)
        self.kernel.release(self.nodes[name], fh)
        events = [event for event, _ in self.drive.log if event == "cleanup"]
        assert len(events) <= 1
        if self.flushed[fh]:
            assert not (events and self.fire_all)
        elif self.fire_all:
            assert events
        self.expect("release", *events, *["close"] * (last or self.fire_all))
        self.clear_when_closed(name)

    @rule(name=st.sampled_from("ab"))
    def change(self, name: str) -> None:
        """truncate(2) and chmod(2) open the item for themselves."""
        first = not self.count(name)
        self.kernel.setattr(self.nodes[name], 8 | 16, size=1)
        if self.fire_all or first:
            self.expect("change", "open", "size", "attributes", "cleanup", "close")
        else:
            events = [event for event, _ in self.drive.log if event != "cleanup"]
            assert events == ["size", "attributes"]
            self.drive.log.clear()
        self.clear_when_closed(name)

    def teardown(self) -> None:
        self.kernel.let_go()
        self.kernel.end()
        assert not self.drive.wrong


class OpeningWithAllEvents(Opening):
    """Every open and close fires."""

    fire_all = True


TestOpening = Opening.TestCase
TestOpeningWithAllEvents = OpeningWithAllEvents.TestCase
TestOpening.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestOpeningWithAllEvents.settings = TestOpening.settings


def test_a_refused_open_leaves_nothing() -> None:
    class Refusing(PlainDrive):
        def on_open_file(self, p: Any) -> None:
            p.file_context = p.handle_context = "kept?"
            p.result_code = ERROR_ACCESS_DENIED

    with Kernel(Refusing(a=b"A")) as kernel:
        node = kernel.lookup("a").nodeid
        for call in (kernel.open, kernel.opendir):
            with fails(errno.EACCES):
                call(node)
        with fails(errno.EACCES):
            kernel.setattr(node, 8, size=0)
        with fails(errno.EACCES):
            kernel.unlink("a")
        kernel.let_go()


def test_handles_that_do_not_exist() -> None:
    with Kernel(PlainDrive(a=b"A")) as kernel:
        node = kernel.lookup("a").nodeid
        for call in (
            lambda: kernel.read(node, 99),
            lambda: kernel.write(node, 99, b"x"),
            lambda: kernel.flush(node, 99),
            lambda: kernel.fsync(node, 99),
            lambda: kernel.readdir(ROOT, 99),
            lambda: kernel.fallocate(node, 99, 0, 1),
            lambda: kernel.lock(node, 99, 1),
            lambda: kernel.getlk(node, 99, 1, 0, 1),
        ):
            with fails(errno.EBADF):
                call()
        kernel.handles[99] = (node, 18)
        kernel.release(node, 99)
        with fails(errno.EBADF):
            kernel.readdir(node, kernel.open(node))
        kernel.let_go()


def test_nodes_that_do_not_exist() -> None:
    with Kernel(PlainDrive(a=b"A"), use_hard_links=True) as kernel:
        for call in (
            lambda: kernel.lookup("x", 99),
            lambda: kernel.getattr(99),
            lambda: kernel.statx(99),
            lambda: kernel.setattr(99, 8),
            lambda: kernel.open(99),
            lambda: kernel.opendir(99),
            lambda: kernel.mkdir("x", 99),
            lambda: kernel.mknod("x", 0o100644, 0, 99),
            lambda: kernel.create("x", 99),
            lambda: kernel.symlink("x", "y", 99),
            lambda: kernel.readlink(99),
            lambda: kernel.link(99, "x"),
            lambda: kernel.unlink("x", 99),
            lambda: kernel.rename("x", "y", 99),
            lambda: kernel.rename("a", "y", ROOT, 99),
            lambda: kernel.getxattr(99, "user.x"),
            lambda: kernel.listxattr(99),
            lambda: kernel.removexattr(99, "user.x"),
        ):
            with fails(errno.ESTALE):
                call()
        with fails(errno.ENOTDIR):
            kernel.lookup("x", kernel.lookup("a").nodeid)
        kernel.let_go()


@pytest.mark.parametrize(
    ("given", "number"),
    [
        (OSError(errno.EPERM, "x"), errno.EPERM),
        (OSError("no", "number"), errno.EIO),
        (OSError(), errno.EIO),
        (OSError(4711, "too large"), errno.EIO),
        (OSError(-5, "negative"), errno.EIO),
        (OSError(errno.ENOSYS, "only here"), errno.EOPNOTSUPP),
        (ValueError("x"), errno.EIO),
        (KeyboardInterrupt(), errno.EIO),
        (SystemExit(0), errno.EIO),
        (5, errno.EACCES),
        (-1, errno.EIO),
        (1 << 80, errno.EIO),
        ("text", errno.EIO),
        (1.5, errno.EIO),
        ([], 0),
    ],
)
def test_whatever_a_handler_answers_is_an_errno(given: Any, number: int) -> None:
    drive = PlainDrive(a=b"A")
    with Kernel(drive) as kernel:
        engine: Engine = kernel.engine

        class Params:
            result_code: Any = 0

            def __repr__(self) -> str:
                return "params"

        def handler(params: Any) -> None:
            if isinstance(given, BaseException):
                raise given
            params.result_code = given

        assert engine.fire(handler, Params()) == number


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_ACCMODE])
def test_open_takes_any_mode(flags: int) -> None:
    with Kernel(PlainDrive(a=b"A")) as kernel:
        kernel.open(kernel.lookup("a").nodeid, flags | os.O_APPEND | os.O_NONBLOCK)
        kernel.let_go()
