"""A session: how it begins, what it answers without media, and that it answers everything once."""

from __future__ import annotations

import errno
import logging
import queue
import random
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbfsconnect.drives.memory import MemoryDrive
from cbfsconnect.engine.session import Session
from cbfsconnect.fuse.abi import InitFlag, Opcode
from cbfsconnect.fuse.transport import SESSION_ENDED
from support.kernel import ROOT, SILENT, FakeKernel, Kernel, eventually, fails
from support.plain import LockingDrive, PlainDrive


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(MemoryDrive()) as kernel:
        yield kernel


# --- the beginning --------------------------------------------------------------------------------


class Beginning:
    """A session that has not been asked INIT yet."""

    def __init__(self) -> None:
        self.kernel = Kernel(MemoryDrive())
        self.session = self.kernel.session

    def __enter__(self) -> Kernel:
        self.session.start()
        return self.kernel

    def __exit__(self, *_: object) -> None:
        self.kernel.end()


@pytest.mark.parametrize("minor", range(31, 46))
def test_the_smaller_minor_version_is_spoken(minor: int) -> None:
    with Beginning() as kernel:
        answer = kernel.init(minor=minor)
        assert answer[:2] == (7, minor)
        assert kernel.session.wait_until_ready(10) is None
        assert kernel.mkdir("d").attr.mode == 0o40755


def test_a_newer_minor_version_gets_ours() -> None:
    with Beginning() as kernel:
        assert kernel.init(minor=99)[:2] == (7, 45)


def test_a_kernel_of_a_newer_major_version_is_told_ours_and_asks_again() -> None:
    with Beginning() as kernel:
        assert kernel.init(major=8, minor=0)[:2] == (7, 45)
        assert not kernel.session._ready.is_set()
        assert kernel.init(major=7)[:2] == (7, 45)
        assert kernel.session.wait_until_ready(10) is None


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (7, 8), (6, 45)])
def test_a_kernel_that_is_too_old_is_refused_with_a_reason(major: int, minor: int) -> None:
    with Beginning() as kernel:
        with fails(errno.EPROTO):
            kernel.init(major, minor)
        assert f"FUSE {major}.{minor}" in (kernel.session.wait_until_ready(10) or "")


def test_a_drive_that_is_unmounted_before_init_says_so() -> None:
    with Beginning() as kernel:
        kernel.transport.end()
        assert kernel.session.wait_until_ready(10) == "the drive was unmounted at once"


def test_a_kernel_that_says_nothing_is_given_up() -> None:
    with Beginning() as kernel:
        assert "did not begin" in (kernel.session.wait_until_ready(0.01) or "")


def test_only_what_was_offered_is_agreed_on() -> None:
    with Beginning() as kernel:
        *_, flags, _, _, _, _, _, _, flags2 = kernel.init(flags=InitFlag.BIG_WRITES)
        assert (flags, flags2) == (InitFlag.BIG_WRITES, 0)


@pytest.mark.parametrize(
    ("drive", "properties", "flags"),
    [
        (PlainDrive(), {"file_cache": 0}, 0),
        (PlainDrive(), {"file_cache": 1}, InitFlag.WRITEBACK_CACHE),
        (LockingDrive(), {"file_cache": 0}, InitFlag.POSIX_LOCKS | InitFlag.FLOCK_LOCKS),
        (PlainDrive(), {"file_cache": 0, "use_hard_links": True}, InitFlag.EXPORT_SUPPORT),
    ],
)
def test_features_follow_from_what_is_handled(
    drive: object, properties: dict[str, Any], flags: int
) -> None:
    optional = (
        InitFlag.WRITEBACK_CACHE
        | InitFlag.POSIX_LOCKS
        | InitFlag.FLOCK_LOCKS
        | InitFlag.EXPORT_SUPPORT
    )
    kernel = Kernel(drive, **properties)
    kernel.session.start()
    try:
        assert kernel.init()[3] & optional == flags
    finally:
        kernel.end()


# --- no media, and the end ------------------------------------------------------------------------


def body_of(opcode: int) -> bytes:
    """A well-formed body with zeros where numbers stand."""
    sizes = {
        Opcode.FORGET: 8,
        Opcode.GETATTR: 16,
        Opcode.SETATTR: 88,
        Opcode.OPEN: 8,
        Opcode.READ: 40,
        Opcode.RELEASE: 24,
        Opcode.FSYNC: 16,
        Opcode.LISTXATTR: 8,
        Opcode.FLUSH: 24,
        Opcode.OPENDIR: 8,
        Opcode.READDIR: 40,
        Opcode.RELEASEDIR: 24,
        Opcode.FSYNCDIR: 16,
        Opcode.GETLK: 48,
        Opcode.SETLK: 48,
        Opcode.SETLKW: 48,
        Opcode.ACCESS: 8,
        Opcode.INTERRUPT: 8,
        Opcode.BMAP: 16,
        Opcode.POLL: 24,
        Opcode.FALLOCATE: 32,
        Opcode.READDIRPLUS: 40,
        Opcode.LSEEK: 24,
        Opcode.COPY_FILE_RANGE: 56,
        Opcode.COPY_FILE_RANGE_64: 56,
        Opcode.SETUPMAPPING: 40,
        Opcode.SYNCFS: 8,
        Opcode.STATX: 24,
        Opcode.WRITE: 40,
        Opcode.IOCTL: 32,
        Opcode.NOTIFY_REPLY: 40,
        Opcode.BATCH_FORGET: 8,
        Opcode.REMOVEMAPPING: 4,
    }
    named = {
        Opcode.LOOKUP: 0,
        Opcode.MKNOD: 16,
        Opcode.MKDIR: 8,
        Opcode.UNLINK: 0,
        Opcode.RMDIR: 0,
        Opcode.LINK: 8,
        Opcode.GETXATTR: 8,
        Opcode.REMOVEXATTR: 0,
        Opcode.CREATE: 16,
        Opcode.TMPFILE: 16,
        Opcode.SETXATTR: 8,
    }
    twice = {Opcode.SYMLINK: 0, Opcode.RENAME: 8, Opcode.RENAME2: 16}
    if opcode == Opcode.INIT:
        return struct.pack("=IIIII44x", 7, 45, 0, 0, 0)
    if opcode in named:
        return bytes(named[Opcode(opcode)]) + b"a\0"
    if opcode in twice:
        return bytes(twice[Opcode(opcode)]) + b"a\0b\0"
    return bytes(sizes.get(Opcode(opcode), 0))


EVERY = [opcode for opcode in Opcode if opcode < Opcode.CUSE_INIT]


@pytest.mark.parametrize("media", [True, False])
@pytest.mark.parametrize("opcode", EVERY, ids=lambda opcode: opcode.name)
def test_every_kind_of_request_is_answered_once(opcode: Opcode, media: bool) -> None:
    with Kernel(MemoryDrive(), media=media) as kernel:
        unique = kernel.start(opcode, ROOT, body_of(opcode))
        if opcode not in SILENT:
            reply = kernel.wait(unique)
            if reply.error == errno.EIO:
                pytest.fail(f"{opcode.name} is not understood")
            assert (
                media
                or opcode not in (Opcode.LOOKUP, Opcode.STATFS)
                or reply.error == errno.ENOMEDIUM
            )
        kernel.sync()
        assert not kernel.transport.asked
        assert not kernel.transport.answers


def test_without_media_everything_fails_with_enomedium() -> None:
    with Kernel(MemoryDrive(), media=False) as kernel:
        for call in (
            lambda: kernel.lookup("a"),
            lambda: kernel.getattr(ROOT),
            lambda: kernel.mkdir("a"),
            lambda: kernel.opendir(),
            lambda: kernel.read(5, 5),
        ):
            with fails(errno.ENOMEDIUM):
                call()
        kernel.handles[9] = (5, Opcode.RELEASE)
        kernel.flush(5, 9)  # what was open before can be closed
        kernel.release(5, 9)
        kernel.session.engine = kernel.engine
        assert kernel.mkdir("a").nodeid


def test_the_end_closes_what_is_open() -> None:
    drive = LockingDrive(f=b"")
    closed: list[str] = []
    drive.on_close_file = lambda p: closed.append(p.file_name)  # type: ignore[method-assign]
    kernel = Kernel(drive)
    with kernel:
        nodeid = kernel.lookup("f").nodeid
        kernel.lock(nodeid, kernel.open(nodeid), 1)
        kernel.opendir()
    assert sorted(closed) == ["/", "/f"]
    assert len(kernel.engine.handles) == 0
    assert not kernel.engine.locks._held


def test_a_broken_connection_ends_the_session(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeKernel):
        def receive(self, buffer: memoryview) -> int:
            raise OSError(errno.EPERM, "no")

    ended = threading.Event()
    session = Session(Broken(), InitFlag(0), ended=lambda session: ended.set())
    with caplog.at_level(logging.ERROR, "cbfsconnect"):
        session.start()
        assert session.wait_until_over(10)
    assert ended.wait(10)
    assert session.close(10)
    assert "cannot read" in caplog.text


# --- messages that are wrong ----------------------------------------------------------------------


@pytest.mark.parametrize("opcode", EVERY, ids=lambda opcode: opcode.name)
def test_a_body_of_the_wrong_size_is_answered_with_eio(
    kernel: Kernel, opcode: Opcode, caplog: pytest.LogCaptureFixture
) -> None:
    body = body_of(opcode)
    unique = kernel.start(opcode, ROOT, body + bytes(3) if body else b"xyz")
    if opcode not in SILENT:
        reply = kernel.wait(unique)
        assert reply.error == errno.EIO or opcode in (
            Opcode.INIT,  # longer ones are those of later kernels
            Opcode.SETATTR,
        )
    kernel.sync()
    assert kernel.lookup("..").nodeid == ROOT


def test_an_unknown_opcode_gets_enosys(kernel: Kernel) -> None:
    for opcode in (7, 63, 200, 4095, 0xFFFFFFFF):
        assert kernel.wait(kernel.start(opcode, ROOT, b"whatever")).error == errno.ENOSYS


def test_a_message_that_is_no_request_is_survived(kernel: Kernel) -> None:
    for junk in (b"x", bytes(39), struct.pack("=IIQQIIIHH", 999, 1, 0, 1, 0, 0, 0, 0, 0)):
        kernel.transport.put(junk)
    kernel.sync()


@settings(max_examples=60, deadline=None)
@given(
    messages=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 5), st.binary(max_size=120)), max_size=8
    )
)
def test_arbitrary_bodies_never_kill_the_session(messages: list[tuple[int, int, bytes]]) -> None:
    logging.getLogger("cbfsconnect").setLevel(logging.CRITICAL + 1)
    try:
        with Kernel(MemoryDrive()) as kernel:
            asked = [
                (opcode, kernel.start(opcode, nodeid, body))
                for opcode, nodeid, body in messages
                if opcode != Opcode.INTERRUPT
            ]
            kernel.sync()
            for opcode, unique in asked:
                if opcode not in SILENT:
                    kernel.wait(unique, 5)
            assert not kernel.transport.asked
            assert kernel.getattr(ROOT).mode
    finally:
        logging.getLogger("cbfsconnect").setLevel(logging.NOTSET)


@pytest.mark.parametrize("seed", range(3))
def test_many_requests_at_once_are_each_answered_once(seed: int) -> None:
    """With several workers, in any order."""
    chance = random.Random(seed)
    with Kernel(MemoryDrive(), least=4, most=8) as kernel:
        files = [kernel.create(f"f{number}") for number in range(4)]
        asked = []
        for _ in range(300):
            entry = chance.choice(files)
            body = struct.pack("=QQIIQII", entry.fh, chance.randrange(9), 10, 0, 0, 0, 0)
            if chance.random() < 0.5:
                asked.append(kernel.start(Opcode.WRITE, entry.nodeid, body + b"0123456789"))
            else:
                asked.append(kernel.start(Opcode.READ, entry.nodeid, body))
        assert all(kernel.wait(unique).error == 0 for unique in asked)
        with pytest.raises(queue.Empty):
            kernel.wait(asked[0], 0.01)
        kernel.let_go()


def test_a_reply_that_the_kernel_refuses_becomes_eio(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    transport = kernel.transport
    refused: list[object] = []
    send = transport.send

    def refuse(message: Any) -> object:
        if len(message) > 16 and not refused:
            refused.append(message)
            raise OSError(errno.EINVAL, "cannot take that")
        return send(message)

    kernel.session._send = refuse
    with fails(errno.EIO):
        kernel.getattr(ROOT)
    kernel.getattr(ROOT)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_nodes_and_handles_of_a_reply_that_nobody_took_are_given_up(
    kernel: Kernel, number: int
) -> None:
    entry = kernel.create("f")
    kernel.close(entry.nodeid, entry.fh)
    kernel.mkdir("d")
    send, vanished = kernel.session._send, []

    def vanish(message: Any) -> object:
        vanished.append(message)
        raise OSError(number, "the client was killed")

    kernel.session._send = vanish
    name = struct.pack("=IIII", 2, 0o100644, 0, 0) + b"new\0"
    for opcode, nodeid, body in (
        (Opcode.LOOKUP, ROOT, b"f\0"),
        (Opcode.CREATE, ROOT, name),
        (Opcode.OPENDIR, ROOT, bytes(8)),
        (Opcode.MKDIR, ROOT, bytes(8) + b"dir\0"),
        (Opcode.OPEN, entry.nodeid, bytes(8)),
        (Opcode.SYMLINK, ROOT, b"link\0target\0"),
    ):
        kernel.start(opcode, nodeid, body)
    eventually(lambda: len(vanished) == 6)
    kernel.session._send = send
    kernel.let_go()


def test_the_transport_in_memory_ends_for_every_reader() -> None:
    transport = FakeKernel()
    transport.end()
    for _ in range(3):
        with pytest.raises(OSError, match="ended") as failure:
            transport.receive(memoryview(bytearray(8)))
        assert failure.value.errno in SESSION_ENDED
