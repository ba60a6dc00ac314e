"""The lock table against a model that keeps one entry per byte."""

from __future__ import annotations

import errno
import fcntl
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cbfsconnect.errors import ERROR_LOCK_VIOLATION
from cbfsconnect.fuse.abi import Opcode
from support.kernel import Kernel, eventually, fails
from support.plain import LockingDrive
from support.recorder import Recorder

READ, WRITE, UNLOCK = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
BYTES = 8
OWNERS = (1, 2, 3)
Waiting = tuple[int, int, int, int]


class Model:
    """POSIX locks of a file of a few bytes: by byte, who has it locked how."""

    def __init__(self) -> None:
        self.bytes: list[dict[int, int]] = [{} for _ in range(BYTES)]
        self.waiting: dict[int, Waiting] = {}

    def in_the_way(self, owner: int, kind: int, start: int, end: int) -> set[int]:
        return {
            other
            for byte in self.bytes[start : end + 1]
            for other, held in byte.items()
            if other != owner and WRITE in (kind, held)
        }

    def set(self, owner: int, kind: int, start: int, end: int) -> None:
        for byte in self.bytes[start : end + 1]:
            byte.pop(owner, None)
            if kind != UNLOCK:
                byte[owner] = kind

    def deadlocks(self, wanted: Waiting) -> bool:
        seen, todo = set(), self.in_the_way(*wanted)
        while todo:
            owner = todo.pop()
            if owner == wanted[0]:
                return True
            if owner not in seen:
                seen.add(owner)
                for other in self.waiting.values():
                    if other[0] == owner:
                        todo |= self.in_the_way(*other)
        return False

    def settle(self) -> list[int]:
        """Give those who wait what is free now; who got it."""
        granted: list[int] = []
        progress = True
        while progress:
            progress = False
            for unique, wanted in list(self.waiting.items()):
                if not self.in_the_way(*wanted):
                    self.set(*wanted)
                    del self.waiting[unique]
                    granted.append(unique)
                    progress = True
                    break
        return granted


RANGE = st.tuples(st.integers(0, BYTES - 1), st.integers(0, BYTES - 1)).map(
    lambda pair: (min(pair), max(pair))
)


class Locks(RuleBasedStateMachine):
    """Three processes lock, wait, are interrupted and go, in any order."""

    @initialize()
    def begin(self) -> None:
        self.model = Model()
        self.kernel = Kernel(LockingDrive(f=b""))
        self.kernel.session.start()
        self.kernel.init()
        self.node = self.kernel.lookup("f").nodeid
        self.handles = {owner: self.kernel.open(self.node) for owner in OWNERS}

    def check_granted(self) -> None:
        for unique in self.model.settle():
            assert self.kernel.wait(unique).error == 0
        for unique in self.model.waiting:
            assert not self.kernel.answered(unique)

    @rule(owner=st.sampled_from(OWNERS), kind=st.sampled_from([READ, WRITE]), where=RANGE)
    def lock(self, owner: int, kind: int, where: tuple[int, int]) -> None:
        busy = self.model.in_the_way(owner, kind, *where)
        unique = self.kernel.start_lock(self.node, self.handles[owner], kind, *where, owner=owner)
        assert self.kernel.wait(unique).error == (errno.EAGAIN if busy else 0)
        if not busy:
            self.model.set(owner, kind, *where)
        self.check_granted()

    @rule(owner=st.sampled_from(OWNERS), kind=st.sampled_from([READ, WRITE]), where=RANGE)
    def wait(self, owner: int, kind: int, where: tuple[int, int]) -> None:
        wanted = (owner, kind, *where)
        unique = self.kernel.start_lock(
            self.node, self.handles[owner], kind, *where, owner=owner, wait=True
        )
        if not self.model.in_the_way(*wanted):
            assert self.kernel.wait(unique).error == 0
            self.model.set(*wanted)
        elif self.model.deadlocks(wanted):
            assert self.kernel.wait(unique).error == errno.EDEADLK
        else:
            self.kernel.sync()
            self.model.waiting[unique] = wanted
        self.check_granted()

    @rule(owner=st.sampled_from(OWNERS), where=RANGE)
    def unlock(self, owner: int, where: tuple[int, int]) -> None:
        self.kernel.lock(self.node, self.handles[owner], UNLOCK, *where, owner=owner)
        self.model.set(owner, UNLOCK, *where)
        self.check_granted()

    @rule(owner=st.sampled_from(OWNERS), reopen=st.booleans())
    def close(self, owner: int, reopen: bool) -> None:
        """Closing any descriptor of the file takes all of the process's locks."""
        mine = [u for u, wanted in self.model.waiting.items() if wanted[0] == owner]
        other = self.kernel.open(self.node) if reopen else self.handles[owner]
        self.kernel.flush(self.node, other, owner)
        self.model.set(owner, UNLOCK, 0, BYTES - 1)
        self.check_granted()
        if reopen:
            self.kernel.release(self.node, other)
        elif not mine:
            self.kernel.release(self.node, self.handles[owner])
            self.handles[owner] = self.kernel.open(self.node)
            self.model.set(owner, UNLOCK, 0, BYTES - 1)
            self.check_granted()

    @precondition(lambda self: self.model.waiting)
    @rule(index=st.integers(0, 9))
    def interrupt(self, index: int) -> None:
        unique = list(self.model.waiting)[index % len(self.model.waiting)]
        self.kernel.interrupt(unique)
        assert self.kernel.wait(unique).error == errno.EINTR
        del self.model.waiting[unique]
        self.check_granted()

    @invariant()
    def tests_agree(self) -> None:
        """F_GETLK of every byte."""
        for byte in range(BYTES):
            for owner in OWNERS:
                busy = self.model.in_the_way(owner, WRITE, byte, byte)
                start, end, kind, pid = self.kernel.getlk(
                    self.node, self.handles[owner], WRITE, byte, byte, owner
                )
                if not busy:
                    assert kind == UNLOCK
                else:
                    assert pid - 1000 in busy
                    assert kind == self.model.bytes[byte][pid - 1000]
                    assert start <= byte <= end

    def teardown(self) -> None:
        for unique in list(self.model.waiting):
            self.kernel.interrupt(unique)
            assert self.kernel.wait(unique).error == errno.EINTR
        for owner, fh in self.handles.items():
            self.kernel.flush(self.node, fh, owner)
        self.kernel.let_go()
        self.kernel.end()


TestLocks = Locks.TestCase
TestLocks.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


@pytest.fixture
def record() -> Recorder:
    return Recorder(LockingDrive(f=b"", g=b""))


@pytest.fixture
def kernel(record: Recorder) -> Iterator[Kernel]:
    with Kernel(record) as kernel:
        yield kernel
        kernel.let_go()


@pytest.fixture
def file(kernel: Kernel) -> tuple[int, int, int]:
    """A node and two handles of it."""
    node = kernel.lookup("f").nodeid
    return node, kernel.open(node), kernel.open(node)


def test_whole_files_are_kept_apart_from_ranges(kernel: Kernel, file: tuple[int, int, int]) -> None:
    node, one, two = file
    kernel.lock(node, one, WRITE, owner=1, flock=True)
    kernel.lock(node, two, WRITE, owner=2)
    with fails(errno.EAGAIN):
        kernel.lock(node, two, READ, owner=2, flock=True)
    kernel.release(node, one)
    kernel.lock(node, two, READ, owner=2, flock=True)


def test_a_flock_that_is_held_already_is_not_given_up(
    kernel: Kernel, file: tuple[int, int, int]
) -> None:
    node, one, two = file
    kernel.lock(node, one, READ, owner=1, flock=True)
    writer = kernel.start_lock(node, two, WRITE, owner=2, flock=True, wait=True)
    kernel.sync()
    kernel.lock(node, one, READ, owner=1, flock=True, wait=True)
    assert not kernel.answered(writer)
    kernel.lock(node, one, UNLOCK, owner=1, flock=True)
    assert kernel.wait(writer).error == 0


def test_a_flock_that_is_converted_lets_those_go_first_who_waited(
    kernel: Kernel, file: tuple[int, int, int]
) -> None:
    node, one, two = file
    kernel.lock(node, one, READ, owner=1, flock=True)
    writer = kernel.start_lock(node, two, WRITE, owner=2, flock=True, wait=True)
    again = kernel.start_lock(node, one, WRITE, owner=1, flock=True, wait=True)
    assert kernel.wait(writer).error == 0
    assert not kernel.answered(again)
    kernel.lock(node, two, UNLOCK, owner=2, flock=True)
    assert kernel.wait(again).error == 0


def test_what_becomes_readable_is_read(kernel: Kernel, file: tuple[int, int, int]) -> None:
    node, one, two = file
    kernel.lock(node, one, WRITE, owner=1)
    reader = kernel.start_lock(node, two, READ, owner=2, wait=True)
    kernel.sync()
    kernel.lock(node, one, READ, owner=1)
    assert kernel.wait(reader).error == 0


def test_two_files_deadlock_too(kernel: Kernel, file: tuple[int, int, int]) -> None:
    node, one, two = file
    other = kernel.lookup("g").nodeid
    third, fourth = kernel.open(other), kernel.open(other)
    kernel.lock(node, one, WRITE, owner=1)
    kernel.lock(other, fourth, WRITE, owner=2)
    waiting = kernel.start_lock(other, third, WRITE, owner=1, wait=True)
    kernel.sync()
    with fails(errno.EDEADLK):
        kernel.lock(node, two, WRITE, owner=2, wait=True)
    kernel.flush(other, fourth, 2)
    assert kernel.wait(waiting).error == 0


def test_an_interrupt_that_overtakes_its_request(
    kernel: Kernel, file: tuple[int, int, int]
) -> None:
    """With several workers either may come first; the client must not wait for ever."""
    node, one, two = file
    kernel.lock(node, one, WRITE, owner=1)
    body = struct.pack("=QQQQIIII", two, 2, 0, 9, WRITE, 0, 0, 0)
    message = kernel.message(Opcode.SETLKW, node, body)
    unique = struct.unpack_from("=Q", message, 8)[0]
    kernel.interrupt(unique)
    kernel.put(message)
    assert kernel.wait(unique).error == errno.EINTR


def test_an_interrupt_of_what_is_not_waiting_is_ignored(kernel: Kernel) -> None:
    for unique in (2, 4, 4711):
        kernel.interrupt(unique)
    kernel.sync()
    assert not kernel.transport.answers


def test_releasing_a_handle_ends_its_waiting(kernel: Kernel, file: tuple[int, int, int]) -> None:
    node, one, two = file
    kernel.lock(node, one, WRITE, owner=1)
    waiting = kernel.start_lock(node, two, WRITE, owner=2, wait=True)
    kernel.sync()
    kernel.release(node, two)
    assert kernel.wait(waiting).error == errno.EINTR


def test_a_refused_lock_is_not_held(
    kernel: Kernel, record: Recorder, file: tuple[int, int, int]
) -> None:
    node, one, two = file

    def refuse(params: Any) -> None:
        params.result_code = ERROR_LOCK_VIOLATION

    record.instead["on_lock_file"] = refuse
    unique = kernel.start_lock(node, one, WRITE, owner=1)
    assert kernel.wait(unique).error
    record.instead.clear()
    kernel.lock(node, two, WRITE, owner=2)


def test_a_lock_that_is_granted_later_and_then_refused(
    kernel: Kernel, record: Recorder, file: tuple[int, int, int]
) -> None:
    node, one, two = file
    kernel.lock(node, one, WRITE, owner=1)
    waiting = kernel.start_lock(node, two, WRITE, owner=2, wait=True)
    kernel.sync()

    def refuse(params: Any) -> None:
        raise OSError(errno.ENOLCK, "no")

    record.instead["on_lock_file"] = refuse
    kernel.flush(node, one, 1)
    assert kernel.wait(waiting).error == errno.ENOLCK
    record.instead.clear()
    kernel.lock(node, one, WRITE, owner=1)


def test_nobody_waits_with_a_thread(kernel: Kernel, file: tuple[int, int, int]) -> None:
    node, one, two = file
    kernel.lock(node, one, WRITE, owner=1)
    waiting = [
        kernel.start_lock(node, two, WRITE, owner=owner, wait=True) for owner in range(2, 60)
    ]
    kernel.sync()
    eventually(lambda: kernel.session.workers.count() <= 2)
    for unique, owner in zip(waiting, range(2, 60), strict=True):
        kernel.lock(node, two, UNLOCK, owner=owner - 1)
        assert kernel.wait(unique).error == 0  # in the order in which they came
    kernel.lock(node, two, UNLOCK, owner=59)
