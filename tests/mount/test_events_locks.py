"""`on_lock_file` and what the library does about locks: POSIX, open file description, flock."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest

import cbfsconnect as c
from support.client import Client
from support.expecting import answer, expect
from support.gates import Gate, wait_until_blocked
from support.mounts import Mounting
from support.plain import LockingDrive, PlainDrive
from support.recorder import Recorder

Clients = Callable[[], Client]
TO_THE_END = (1 << 63) - 1
"""The last byte of a range that goes on for ever."""

LOCKS = """
OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38
def flock_(kind, start, length):
    return struct.pack('hhqqi4x', kind, 0, start, length, 0)
def posix(kind, start=0, length=0, command=fcntl.F_SETLK, fd=None):
    answer = fcntl.fcntl(file if fd is None else fd, command, flock_(kind, start, length))
    return struct.unpack('hhqqi4x', answer)
def ofd(kind, start=0, length=0, command=OFD_SETLK, fd=None):
    return posix(kind, start, length, command, fd)
WRITE, READ, NONE, WAIT = fcntl.F_WRLCK, fcntl.F_RDLCK, fcntl.F_UNLCK, fcntl.F_SETLKW
file = os.open(at + '/file', os.O_RDWR)
"""


@pytest.fixture
def clients() -> Iterator[Clients]:
    """A function that starts one more client process."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Client())


def locking(
    mount: Mounting, clients: Clients, count: int, **options: Any
) -> tuple[Recorder, list[Client]]:
    """A drive that hears of locks, and clients that have its file open."""
    record = Recorder(LockingDrive(file=bytes(1000), other=bytes(1000)))
    record.handle("on_error", lambda p: None)
    at = mount(record, **options).mountpoint
    users = [clients() for _ in range(count)]
    for user in users:
        user.run(LOCKS, at=at)
    return record, users


# --- the event ---


@pytest.mark.proves("on_lock_file")
@pytest.mark.parametrize("fire_all", [True, False])
@pytest.mark.parametrize(
    ("code", "offset", "length", "exclusive", "immediately"),
    [
        ("posix(WRITE, 10, 20)", 10, 20, True, True),
        ("posix(READ, 10, 20)", 10, 20, False, True),
        ("posix(WRITE, 10, 20, WAIT)", 10, 20, True, False),
        ("posix(WRITE)", 0, TO_THE_END + 1, True, True),
        ("posix(READ, 5)", 5, TO_THE_END + 1 - 5, False, True),
        ("posix(READ, 1 << 62, 1)", 1 << 62, 1, False, True),
        ("ofd(WRITE, 1, 2)", 1, 2, True, True),
        ("ofd(READ, 1, 2, OFD_SETLKW)", 1, 2, False, False),
        ("fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", 0, TO_THE_END + 1, True, True),
        ("fcntl.flock(file, fcntl.LOCK_SH)", 0, TO_THE_END + 1, False, False),
        ("os.lockf(file, os.F_TLOCK, 7)", 0, 7, True, True),
    ],
)
def test_lock_file(
    mount: Mounting,
    clients: Clients,
    fire_all: bool,
    code: str,
    offset: int,
    length: int,
    exclusive: bool,
    immediately: bool,
) -> None:
    record = Recorder(LockingDrive(file=bytes(1000)))

    def opened_as(p: Any) -> None:
        p.file_context, p.handle_context = 3, 4

    record.before["on_open_file"] = opened_as
    at = mount(record, fire_all_open_close_events=fire_all).mountpoint
    client = clients()
    client.run(LOCKS, at=at)
    client.run(code)
    fired = record.one("on_lock_file")
    expect(
        fired,
        file_name="/file",
        byte_offset=offset,
        length=length,
        exclusive_lock=exclusive,
        fail_immediately=immediately,
        file_context=3,
        handle_context=4,
    )
    assert fired.handle_info == record.one("on_open_file").handle_info


@pytest.mark.parametrize(
    ("handler", "number", "told"),
    [
        (answer(c.ERROR_LOCK_VIOLATION), errno.EAGAIN, False),
        (answer(c.ERROR_DISK_QUOTA_EXCEEDED), errno.EDQUOT, False),
        (lambda p: os.stat("/there/is/no/such/thing"), errno.ENOENT, False),
        (lambda p: 1 / 0, errno.EIO, True),
    ],
)
def test_a_lock_that_the_drive_refuses_is_not_held(
    mount: Mounting, clients: Clients, handler: Callable[[Any], Any], number: int, told: bool
) -> None:
    record, (one, two) = locking(mount, clients, 2)
    record.instead["on_lock_file"] = handler
    with pytest.raises(OSError, match=os.strerror(number)):
        one.run("posix(WRITE)")
    assert bool(record.all("on_error")) is told
    del record.instead["on_lock_file"]
    two.run("posix(WRITE)")
    assert not record.all("on_unlock_file")


def test_without_the_event_locks_are_the_kernels(mount: Mounting, clients: Clients) -> None:
    record = Recorder(PlainDrive(file=b""))
    at = mount(record).mountpoint
    one, two = clients(), clients()
    for client in (one, two):
        client.run(LOCKS, at=at)
    one.run("posix(WRITE)")
    with pytest.raises(BlockingIOError):
        two.run("posix(WRITE)")
    assert two.call("posix(WRITE, command=fcntl.F_GETLK)[4]") == one.pid


# --- what excludes what ---

SHARED = "fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)"
EXCLUSIVE = "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)"


@pytest.mark.parametrize(
    ("first", "second", "granted"),
    [
        ("posix(WRITE, 0, 10)", "posix(WRITE, 9, 1)", False),
        ("posix(WRITE, 0, 10)", "posix(WRITE, 10, 1)", True),
        ("posix(WRITE, 0, 10)", "posix(READ, 0, 1)", False),
        ("posix(READ, 0, 10)", "posix(WRITE, 0, 1)", False),
        ("posix(READ)", "posix(READ)", True),
        ("posix(WRITE, 100)", "posix(WRITE, 1 << 62, 1)", False),
        ("posix(WRITE)", "ofd(WRITE)", False),
        ("ofd(WRITE)", "posix(READ)", False),
        ("ofd(READ)", "ofd(READ)", True),
        ("ofd(WRITE, 0, 5)", "ofd(WRITE, 5, 5)", True),
        (EXCLUSIVE, SHARED, False),
        (SHARED, EXCLUSIVE, False),
        (SHARED, SHARED, True),
        (EXCLUSIVE, "posix(WRITE)", True),
        ("ofd(WRITE)", EXCLUSIVE, True),
    ],
)
def test_two_processes(
    mount: Mounting, clients: Clients, first: str, second: str, granted: bool
) -> None:
    record, (one, two) = locking(mount, clients, 2)
    one.run(first)
    if granted:
        two.run(second)
    else:
        with pytest.raises(BlockingIOError):
            two.run(second)
    # What the library refuses itself is no matter of the drive.
    assert len(record.all("on_lock_file")) == 1 + granted


def test_two_descriptors_of_one_process(mount: Mounting, clients: Clients) -> None:
    """One owner for POSIX locks, two for the others."""
    _, (one,) = locking(mount, clients, 1)
    one.run("second = os.open(at + '/file', os.O_RDWR)")
    one.run("posix(WRITE); posix(WRITE, fd=second); posix(NONE)")
    one.run("ofd(WRITE)")
    with pytest.raises(BlockingIOError):
        one.run("ofd(READ, fd=second)")
    one.run("ofd(NONE)")
    one.run(EXCLUSIVE)
    with pytest.raises(BlockingIOError):
        one.run("fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)")


def test_a_duplicated_descriptor_shares_its_lock(mount: Mounting, clients: Clients) -> None:
    record, (one,) = locking(mount, clients, 1)
    one.run("ofd(WRITE); copy = os.dup(file); ofd(WRITE, fd=copy)")
    one.run("os.close(file)")
    with pytest.raises(BlockingIOError):
        one.run("other = os.open(at + '/file', os.O_RDWR); ofd(READ, fd=other)")
    one.run("os.close(copy)")
    record.wait_for("on_unlock_file")
    one.run("ofd(READ, fd=other)")


def test_ranges_are_split_and_joined(mount: Mounting, clients: Clients) -> None:
    _, (one, two) = locking(mount, clients, 2)
    one.run("posix(WRITE, 0, 100); posix(NONE, 40, 20); posix(READ, 0, 10)")
    for start, length, kind in (
        (0, 10, "READ"),
        (40, 20, "WRITE"),
        (100, 1, "WRITE"),
    ):
        two.run(f"posix({kind}, {start}, {length}); posix(NONE, {start}, {length})")
    for start, kind in ((0, "WRITE"), (10, "READ"), (39, "READ"), (60, "READ"), (99, "READ")):
        with pytest.raises(BlockingIOError):
            two.run(f"posix({kind}, {start}, 1)")


def test_a_lock_on_another_file_is_another_lock(mount: Mounting, clients: Clients) -> None:
    _, (one, two) = locking(mount, clients, 2)
    one.run("posix(WRITE)")
    two.run("posix(WRITE, fd=os.open(at + '/other', os.O_RDWR))")


def test_locks_follow_a_renamed_file(mount: Mounting, clients: Clients) -> None:
    record, (one, two) = locking(mount, clients, 2)
    one.run("posix(WRITE, 0, 5); os.rename(at + '/file', at + '/new')")
    with pytest.raises(BlockingIOError):
        two.run("posix(WRITE, 0, 5)")
    one.run("posix(WRITE, 5, 5)")
    assert [f.file_name for f in record.all("on_lock_file")] == ["/file", "/new"]


# --- asking ---


def test_getlk(mount: Mounting, clients: Clients) -> None:
    record, (one, two) = locking(mount, clients, 2)
    ask = "posix(WRITE, {}, {}, fcntl.F_GETLK)"
    one.run("posix(WRITE, 10, 5); posix(READ, 100)")
    kind, whence, start, length, process = two.call(ask.format(0, 50))
    assert (kind, whence, start, length, process) == (1, 0, 10, 5, one.pid)
    assert two.call(ask.format(50, 100)) == (0, 0, 100, 0, one.pid)
    assert two.call(ask.format(50, 10))[0] == 2  # F_UNLCK: nothing in the way
    assert two.call("posix(READ, 50, 100, fcntl.F_GETLK)")[0] == 2
    assert one.call(ask.format(0, 0))[0] == 2  # one's own locks are not
    assert len(record.all("on_lock_file")) == 2


def test_getlk_of_an_open_file_descriptions_lock(mount: Mounting, clients: Clients) -> None:
    _, (one, two) = locking(mount, clients, 2)
    one.run("ofd(WRITE, 10, 5)")
    assert two.call("ofd(WRITE, 0, 50, OFD_GETLK)")[:4] == (1, 0, 10, 5)
    assert one.call("ofd(WRITE, 0, 50, OFD_GETLK)")[0] == 2


# --- waiting ---

WAITS = {
    "posix": ("posix(WRITE)", "posix(WRITE, command=WAIT)", "posix(NONE)"),
    "ofd": ("ofd(WRITE)", "ofd(WRITE, command=OFD_SETLKW)", "ofd(NONE)"),
    "flock": (EXCLUSIVE, "fcntl.flock(file, fcntl.LOCK_EX)", "fcntl.flock(file, fcntl.LOCK_UN)"),
}


@pytest.mark.parametrize("kind", WAITS)
def test_waiting_for_a_lock(mount: Mounting, clients: Clients, kind: str) -> None:
    take, wait, leave = WAITS[kind]
    record, (one, two) = locking(mount, clients, 2)
    one.run(take)
    two.start(wait)
    wait_until_blocked(two)
    assert len(record.all("on_lock_file")) == 1
    assert one.call("os.pread(file, 1, 0)") == b"\0"  # the file itself does not wait
    one.run(leave)
    two.finish()
    assert [f.fail_immediately for f in record.all("on_lock_file")] == [True, False]
    assert record.names("on_lock_file", "on_unlock_file") == [
        "on_lock_file",
        "on_unlock_file",
        "on_lock_file",
    ]
    with pytest.raises(BlockingIOError):
        one.run(take)


@pytest.mark.parametrize("kind", WAITS)
def test_waiting_for_a_process_that_ends(mount: Mounting, clients: Clients, kind: str) -> None:
    take, wait, _ = WAITS[kind]
    _, (one, two) = locking(mount, clients, 2)
    one.run(take)
    two.start(wait)
    wait_until_blocked(two)
    one.kill()
    two.finish()


def test_who_waits_longest_is_first(mount: Mounting, clients: Clients) -> None:
    record, users = locking(mount, clients, 4)
    users[0].run("posix(WRITE)")
    for user in users[1:]:
        user.start("posix(WRITE, command=WAIT)")
        wait_until_blocked(user)
    for user, following in pairwise(users):
        user.run("posix(NONE)")
        following.finish()
    assert len(record.all("on_lock_file")) == 4


def test_readers_are_let_in_together(mount: Mounting, clients: Clients) -> None:
    _, (writer, one, two) = locking(mount, clients, 3)
    writer.run("posix(WRITE)")
    for reader in (one, two):
        reader.start("posix(READ, command=WAIT)")
        wait_until_blocked(reader)
    writer.run("posix(NONE)")
    one.finish()
    two.finish()


def test_a_part_that_becomes_free(mount: Mounting, clients: Clients) -> None:
    _, (one, two) = locking(mount, clients, 2)
    one.run("posix(WRITE, 0, 100)")
    two.start("posix(WRITE, 10, 10, WAIT)")
    wait_until_blocked(two)
    one.run("posix(NONE, 0, 15)")
    wait_until_blocked(two)
    one.run("posix(READ, 15, 85)")  # a lesser lock is not enough
    wait_until_blocked(two)
    one.run("posix(NONE, 15, 5)")
    two.finish()


def test_a_lock_that_becomes_shared_lets_readers_in(mount: Mounting, clients: Clients) -> None:
    _, (one, two) = locking(mount, clients, 2)
    one.run("posix(WRITE)")
    two.start("posix(READ, command=WAIT)")
    wait_until_blocked(two)
    one.run("posix(READ)")
    two.finish()


@pytest.mark.parametrize("nonblocking", ["", " | fcntl.LOCK_NB"])
def test_a_flock_that_becomes_shared_lets_readers_in(
    mount: Mounting, clients: Clients, nonblocking: str
) -> None:
    _, (one, two) = locking(mount, clients, 2)
    one.run(EXCLUSIVE)
    two.start("fcntl.flock(file, fcntl.LOCK_SH)")
    wait_until_blocked(two)
    one.run(f"fcntl.flock(file, fcntl.LOCK_SH{nonblocking})")
    two.finish()


def test_a_waiting_lock_that_the_drive_refuses(mount: Mounting, clients: Clients) -> None:
    record, (one, two) = locking(mount, clients, 2)
    one.run("posix(WRITE)")
    record.instead["on_lock_file"] = answer(c.ERROR_ACCESS_DENIED)
    two.start("posix(WRITE, command=WAIT)")
    wait_until_blocked(two)
    one.run("posix(NONE)")
    with pytest.raises(PermissionError):
        two.finish()


# --- giving up ---

INTERRUPTED = """
import signal
class Interrupted(Exception):
    pass
def interrupted(*_):
    raise Interrupted
signal.signal(signal.SIGUSR1, interrupted)
"""


@pytest.mark.parametrize("kind", WAITS)
def test_an_interrupted_client_waits_no_more(mount: Mounting, clients: Clients, kind: str) -> None:
    take, wait, leave = WAITS[kind]
    record, (one, two, three) = locking(mount, clients, 3)
    one.run(take)
    two.run(INTERRUPTED)
    two.start(f"try:\n    {wait}\nexcept Interrupted:\n    result = 'interrupted'")
    wait_until_blocked(two)
    os.kill(two.pid, signal.SIGUSR1)
    assert two.finish() == "interrupted"
    one.run(leave)
    three.run(take)  # nobody else has got it
    assert len(record.all("on_lock_file")) == 2


@pytest.mark.parametrize("kind", WAITS)
def test_a_killed_client_waits_no_more(mount: Mounting, clients: Clients, kind: str) -> None:
    take, wait, leave = WAITS[kind]
    record, (one, two, three) = locking(mount, clients, 3)
    one.run(take)
    two.start(wait)
    wait_until_blocked(two)
    two.kill()
    one.run(leave)
    three.run(take)
    assert len(record.all("on_lock_file")) == 2


def test_an_interrupt_that_overtakes_its_request(mount: Mounting, clients: Clients) -> None:
    """The lock's request still waits in the file's line when its client is interrupted."""
    record, (one, two, three) = locking(mount, clients, 3, file_cache=0)
    one.run("posix(WRITE)")
    record.before["on_read_file"] = gate = Gate()
    three.start("os.pread(file, 1, 0)")
    gate.wait()
    two.run(INTERRUPTED)
    two.start(
        """
        try:
            posix(WRITE, command=WAIT)
        except Interrupted:
            result = 'interrupted'
        """
    )
    wait_until_blocked(two)
    os.kill(two.pid, signal.SIGUSR1)
    # A request that comes after the interrupt, so the interrupt has been read.
    one.run("os.statvfs(at)")
    gate.open()
    three.finish()
    assert two.finish() == "interrupted"
    one.run("posix(NONE)")
    three.run("posix(WRITE)")


def test_deadlock(mount: Mounting, clients: Clients) -> None:
    _, (one, two) = locking(mount, clients, 2)
    one.run("posix(WRITE, 0, 1)")
    two.run("posix(WRITE, 1, 1)")
    one.start("posix(WRITE, 1, 1, WAIT)")
    wait_until_blocked(one)
    with pytest.raises(OSError, match=os.strerror(errno.EDEADLK)):
        two.run("posix(WRITE, 0, 1, WAIT)")
    two.run("posix(NONE, 1, 1)")
    one.finish()


def test_deadlock_over_two_files_and_three_processes(mount: Mounting, clients: Clients) -> None:
    _, users = locking(mount, clients, 3)
    for user in users:
        user.run("other = os.open(at + '/other', os.O_RDWR)")
    one, two, three = users
    one.run("posix(WRITE, 0, 1)")
    two.run("posix(WRITE, 0, 1, fd=other)")
    three.run("posix(WRITE, 5, 1)")
    one.start("posix(WRITE, 0, 1, WAIT, other)")
    two.start("posix(WRITE, 5, 1, WAIT)")
    for user in (one, two):
        wait_until_blocked(user)
    with pytest.raises(OSError, match=os.strerror(errno.EDEADLK)):
        three.run("posix(WRITE, 0, 1, WAIT)")
    three.run("posix(NONE)")
    two.finish()
    two.run("posix(NONE, fd=other)")
    one.finish()


def test_waiting_twice_for_one_holder_is_no_deadlock(mount: Mounting, clients: Clients) -> None:
    _, (one, two, three) = locking(mount, clients, 3)
    one.run("posix(WRITE, 0, 2)")
    two.start("posix(WRITE, 0, 1, WAIT)")
    three.start("posix(WRITE, 1, 1, WAIT)")
    for user in (two, three):
        wait_until_blocked(user)
    one.run("posix(NONE)")
    two.finish()
    three.finish()


def test_flocks_that_are_converted_do_not_deadlock(mount: Mounting, clients: Clients) -> None:
    """flock(2): a conversion gives the old lock up first."""
    _, (one, two) = locking(mount, clients, 2)
    one.run(SHARED)
    two.run(SHARED)
    one.start("fcntl.flock(file, fcntl.LOCK_EX)")
    wait_until_blocked(one)
    two.start("fcntl.flock(file, fcntl.LOCK_EX)")
    one.finish()
    wait_until_blocked(two)
    one.run("fcntl.flock(file, fcntl.LOCK_UN)")
    two.finish()


def test_many_clients_take_turns(mount: Mounting, clients: Clients) -> None:
    """A counter in the file is right in the end, whatever kind of lock guards it."""
    record, users = locking(mount, clients, 4, file_cache=0)
    users[0].run("os.pwrite(file, b'%8d' % 0, 0)")
    for number, user in enumerate(users):
        lock, wait = ("ofd", "OFD_SETLKW") if number % 2 else ("posix", "WAIT")
        user.start(
            f"""
            for n in range(50):
                {lock}(WRITE, 0, 8, {wait})
                os.pwrite(file, b'%8d' % (int(os.pread(file, 8, 0)) + 1), 0)
                {lock}(NONE, 0, 8)
            """
        )
    for user in users:
        user.finish()
    assert users[0].call("int(os.pread(file, 8, 0))") == 200
    assert len(record.all("on_lock_file")) == len(record.all("on_unlock_file")) == 200
