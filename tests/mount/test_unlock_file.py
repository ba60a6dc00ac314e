"""`on_unlock_file`: ranges, everything at once, closing and dying; locks that nobody handles."""

import errno
import fcntl
import threading
from typing import Any

import pytest

from support.client import Client
from support.failing import FAILURES, Complaints, Failure, refused
from support.mounts import Mounting
from support.plain import LockingDrive, PlainDrive
from support.recorder import Recorder
from support.serving import both_settings, creator, creator_of, read_only, serve, set_contexts

EVENT = "on_unlock_file"
LOCK = "on_lock_file"
EVERYTHING: dict[str, Any] = {"config": {"SupportUnlockAllRequests": True}}
END = 1 << 63
"""Where a range ends that goes to the end of the file, however long that becomes."""

OPEN = "fd = os.open(at + '/f', os.O_RDWR)"
# Open file description locks, which Python 3.11 has no names for.
OFD = """
def ofd_lock(fd, kind, start, length):
    F_OFD_SETLK = 37
    fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("hhqqi4x", kind, 0, start, length, 0))
"""


@pytest.fixture
def other(client: Client) -> Any:
    """A second client."""
    with Client() as process:
        yield process


def locking(
    mount: Mounting, client: Client, *others: Client, **options: Any
) -> tuple[Recorder, Any]:
    """A drive that hears of locks, its file /f open as `fd` in each client."""
    record, cbfs = serve(mount, client, LockingDrive(f=bytes(100)), **options)
    for each in (client, *others):
        each.run(OFD + OPEN, at=cbfs.get_mounting_point_name(0))
    return record, cbfs


def ranges(record: Recorder) -> list[tuple[int, int]]:
    """Offset and length of every event."""
    return [(f.byte_offset, f.length) for f in record.all(EVENT)]


def lock(start: int, length: int, kind: str = "LOCK_EX") -> str:
    return f"fcntl.lockf(fd, fcntl.{kind} | fcntl.LOCK_NB, {length}, {start})\n"


def unlock(start: int, length: int) -> str:
    return f"fcntl.lockf(fd, fcntl.LOCK_UN, {length}, {start})\n"


# --- Parameters and contexts ------------------------------------------------------------


@pytest.mark.proves("on_unlock_file")
@both_settings
def test_every_parameter(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, cbfs = serve(mount, client, LockingDrive(f=bytes(100)), fire_all=fire_all)
    set_contexts(record, on_open_file=("the file", "the handle"))
    processes = []

    def look(params: Any) -> None:
        read_only(params, "file_name", "byte_offset", "length", "handle_info")
        processes.append((creator(cbfs, params.handle_info), cbfs.get_originator_process_id()))

    record.before[EVENT] = look
    client.run(OPEN + "\n" + lock(10, 20) + unlock(10, 20))
    fired = record.one(EVENT)
    assert fired.error is None
    assert fired.given == {
        "file_name": "/f",
        "byte_offset": 10,
        "length": 20,
        "handle_info": record.one("on_open_file").handle_info,
        "file_context": "the file",
        "handle_context": "the handle",
        "result_code": 0,
    }
    assert fired.handle_info != 0
    assert processes == [(creator_of(client), client.pid)]
    assert record.names(LOCK, EVENT) == [LOCK, EVENT]


@both_settings
def test_what_it_leaves_in_the_contexts_is_kept(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    record, _ = locking(mount, client, fire_all=fire_all)
    set_contexts(record, on_lock_file=("locked", "locker"), on_unlock_file=("unlocked", "opener"))
    client.run(lock(0, 1) + unlock(0, 1) + "os.close(fd)")
    fired = record.one(EVENT)
    assert (fired.file_context, fired.handle_context) == ("locked", "locker")
    closed = record.wait_for("on_close_file")[0]
    for last in (record.one("on_cleanup_file"), closed):
        assert (last.file_context, last.handle_context) == ("unlocked", "opener")


@both_settings
def test_each_handle_has_its_context(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, _ = locking(mount, client, fire_all=fire_all)
    client.run("first = fd\n" + OPEN)

    def count(params: Any) -> None:
        params.file_context += 1
        params.handle_context += 1

    record.before[LOCK] = count
    client.run(lock(0, 1) + "fd, first = first, fd\n" + lock(5, 1) + lock(7, 1))
    client.run(unlock(7, 1) + "fd = first\n" + unlock(0, 1))
    assert [(f.file_context, f.handle_context) for f in record.all(EVENT)] == [(3, 2), (3, 1)]


# --- Ranges -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("locked", "unlocked", "left"),
    [
        ([(0, 10)], (0, 10), []),
        ([(0, 10)], (2, 3), [(0, 2), (5, 5)]),
        ([(0, 10)], (0, 3), [(3, 7)]),
        ([(0, 10)], (7, 3), [(0, 7)]),
        ([(0, 10)], (5, 100), [(0, 5)]),
        ([(0, 5), (10, 5), (20, 5)], (12, 10), [(0, 5), (10, 2), (22, 3)]),
        ([(1 << 40, 1)], (0, 0), []),
        ([(5, 0)], (10, 0), [(5, 5)]),
        ([(5, 0)], (5, 5), [(10, END - 10)]),
    ],
)
def test_the_range_that_the_program_names(
    mount: Mounting,
    client: Client,
    locked: list[tuple[int, int]],
    unlocked: tuple[int, int],
    left: list[tuple[int, int]],
) -> None:
    """One event, whatever of it was locked; what is left is told when the file is closed."""
    record, _ = locking(mount, client)
    client.run("".join(lock(*place) for place in locked) + unlock(*unlocked))
    start, length = unlocked
    assert ranges(record) == [(start, length or END - start)]
    record.clear()
    client.run("os.close(fd)")
    assert sorted(ranges(record)) == left


def test_what_was_not_locked_is_no_event(mount: Mounting, client: Client, other: Client) -> None:
    record, _ = locking(mount, client, other)
    other.run(lock(50, 10))
    client.run(lock(0, 10) + unlock(10, 50) + unlock(0, 10) + unlock(0, 10))
    assert ranges(record) == [(0, 10)]


def test_ranges_from_the_end_and_backwards(mount: Mounting, client: Client) -> None:
    record, _ = locking(mount, client)
    client.run("fcntl.lockf(fd, fcntl.LOCK_EX, 10, -20, os.SEEK_END)")
    client.run("os.lseek(fd, 85, os.SEEK_SET); os.lockf(fd, os.F_ULOCK, -5)")
    assert ranges(record) == [(80, 5)]


def test_a_shared_lock(mount: Mounting, client: Client, other: Client) -> None:
    record, _ = locking(mount, client, other)
    for each in (client, other):
        each.run(lock(0, 10, "LOCK_SH"))
    client.run(unlock(0, 10))
    with refused(errno.EAGAIN):
        client.run(lock(0, 10))
    other.run(unlock(0, 10))
    client.run(lock(0, 10))
    assert ranges(record) == [(0, 10)] * 2
    infos = [f.handle_info for f in record.all(EVENT)]
    assert infos[0] != infos[1]


def test_a_lock_that_was_refused_is_not_unlocked(mount: Mounting, client: Client) -> None:
    record, _ = locking(mount, client)
    record.instead[LOCK] = Failure("OSError", errno.EAGAIN)
    with refused(errno.EAGAIN):
        client.run(lock(0, 10))
    client.run(unlock(0, 10) + "os.close(fd)")
    assert not record.all(EVENT)


def test_whoever_waits_gets_the_lock_after_the_event(
    mount: Mounting, client: Client, other: Client
) -> None:
    record, _ = locking(mount, client, other)
    client.run(lock(0, 10))
    inside, go_on = threading.Event(), threading.Event()

    def wait(params: Any) -> None:
        inside.set()
        assert go_on.wait(20)

    record.before[EVENT] = wait
    other.start("fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)")
    client.start(unlock(0, 10))
    assert inside.wait(20)
    assert record.names(LOCK) == [LOCK]
    go_on.set()
    client.finish()
    other.finish()
    assert record.names(LOCK, EVENT) == [LOCK, EVENT, LOCK]


# --- Closing and dying ------------------------------------------------------------------


@both_settings
def test_closing_unlocks_each_range(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, _ = locking(mount, client, fire_all=fire_all)
    set_contexts(record, on_lock_file=("locked", "locker"))
    client.run(lock(0, 10) + lock(20, 5) + "os.close(fd)")
    assert ranges(record) == [(0, 10), (20, 5)]
    assert {(f.file_context, f.handle_context) for f in record.all(EVENT)} == {("locked", "locker")}
    names = [EVENT, EVENT, "on_cleanup_file", "on_close_file"]
    record.wait_for("on_close_file")
    assert record.names(EVENT, "on_cleanup_file", "on_close_file") == names


def test_closing_any_descriptor_of_the_file_unlocks_all_of_the_process(
    mount: Mounting, client: Client, other: Client
) -> None:
    """A rule of POSIX, not ours."""
    record, _ = locking(mount, client, other)
    client.run(lock(0, 10) + "second = os.open(at + '/f', os.O_RDONLY)")
    other.run(lock(20, 5))
    client.run("os.close(second)")
    assert ranges(record) == [(0, 10)]
    assert record.one(EVENT).handle_info == record.all(LOCK)[0].handle_info
    with refused(errno.EAGAIN):
        client.run(lock(20, 5))


def test_a_forked_child_has_no_part_in_the_locks(mount: Mounting, client: Client) -> None:
    record, _ = locking(mount, client)
    client.run(
        lock(0, 10)
        + """
child = os.fork()
if not child:
    os.close(fd)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    )
    assert not record.all(EVENT)
    client.run(unlock(0, 10))
    assert ranges(record) == [(0, 10)]


@pytest.mark.parametrize("config", [{}, EVERYTHING], ids=["ranges", "everything"])
@both_settings
def test_a_killed_process(
    mount: Mounting, client: Client, other: Client, fire_all: bool, config: Any
) -> None:
    record, _ = locking(mount, client, other, fire_all=fire_all, **config)
    client.run(lock(0, 10) + lock(20, 5))
    other.start("fcntl.lockf(fd, fcntl.LOCK_EX, 30, 0)\n")
    client.kill()
    other.finish()
    assert ranges(record) == ([(-1, -1)] if config else [(0, 10), (20, 5)])
    assert record.all(LOCK)[-1].length == 30


def test_the_end_of_the_drive(mount: Mounting, client: Client) -> None:
    record, cbfs = locking(mount, client)
    client.run(lock(0, 10))
    cbfs.delete_storage(True)
    assert ranges(record) == [(0, 10)]
    events = [f.name for f in record.fired if f.given.get("file_name") == "/f"]
    assert events[-3:] == [EVENT, "on_cleanup_file", "on_close_file"]


# --- Everything at once -----------------------------------------------------------------


@pytest.mark.proves("SupportUnlockAllRequests", "on_unlock_file")
@both_settings
def test_closing_unlocks_everything_where_the_drive_wants_that(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    record, _ = locking(mount, client, fire_all=fire_all, **EVERYTHING)
    set_contexts(record, on_lock_file=("locked", "locker"))
    client.run(lock(0, 10) + lock(20, 5) + lock(40, 0) + "os.close(fd)")
    fired = record.one(EVENT)
    assert (fired.byte_offset, fired.length) == (-1, -1)
    assert (fired.file_name, fired.file_context, fired.handle_context) == (
        "/f",
        "locked",
        "locker",
    )
    assert fired.handle_info == record.one("on_open_file").handle_info


def test_what_a_program_unlocks_is_a_range_even_then(mount: Mounting, client: Client) -> None:
    record, _ = locking(mount, client, **EVERYTHING)
    client.run(lock(0, 10) + unlock(0, 10) + lock(0, 0) + unlock(0, 0))
    assert ranges(record) == [(0, 10), (0, END)]
    client.run("os.close(fd)")
    assert len(record.all(EVENT)) == 2, "there is nothing left to unlock"


def test_everything_is_told_for_each_handle(mount: Mounting, client: Client) -> None:
    record, _ = locking(mount, client, **EVERYTHING)
    client.run(lock(0, 10) + OPEN + "\n" + lock(20, 5) + "os.close(fd)")
    assert ranges(record) == [(-1, -1)] * 2
    assert [f.handle_info for f in record.all(EVENT)] == [f.handle_info for f in record.all(LOCK)]


def test_everything_is_not_told_while_something_stays_locked(
    mount: Mounting, client: Client
) -> None:
    """The parent has locked through the same handle: its lock must not seem to be gone."""
    record, _ = locking(mount, client, **EVERYTHING)
    child = """
child = os.fork()
if not child:
    fcntl.lockf(fd, fcntl.LOCK_EX, 5, 20)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    client.run(lock(0, 10) + child)
    assert ranges(record) == [(20, 5)]
    client.run("os.close(fd)")
    assert ranges(record) == [(20, 5), (-1, -1)]


# --- The other kinds of locks -----------------------------------------------------------


def test_flock(mount: Mounting, client: Client, other: Client) -> None:
    record, _ = locking(mount, client, other)
    client.run("fcntl.flock(fd, fcntl.LOCK_EX)")
    with refused(errno.EAGAIN):
        other.run("fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)")
    client.run("fcntl.flock(fd, fcntl.LOCK_UN)")
    assert ranges(record) == [(0, END)]
    other.run("fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)")


def test_a_flock_goes_with_the_last_descriptor(mount: Mounting, client: Client) -> None:
    record, _ = locking(mount, client)
    client.run("fcntl.flock(fd, fcntl.LOCK_SH); copy = os.dup(fd); os.close(fd)")
    assert not record.all(EVENT)
    client.run("os.close(copy)")
    record.wait_for("on_close_file")
    assert ranges(record) == [(0, END)]
    assert record.names(EVENT, "on_close_file") == [EVENT, "on_close_file"]


def test_locks_of_an_open_file_description(mount: Mounting, client: Client) -> None:
    """They belong to the handle: closing another one of the process does not unlock them."""
    record, _ = locking(mount, client)
    client.run(f"ofd_lock(fd, {fcntl.F_WRLCK}, 5, 10)\nos.close(os.open(at + '/f', os.O_RDWR))")
    assert not record.all(EVENT)
    client.run(f"ofd_lock(fd, {fcntl.F_UNLCK}, 5, 5)")
    assert ranges(record) == [(5, 5)]
    client.run("os.close(fd)")
    record.wait_for("on_close_file")
    assert ranges(record) == [(5, 5), (10, 5)]


def test_an_unlock_all_of_posix_locks_leaves_a_flock(mount: Mounting, client: Client) -> None:
    record, _ = locking(mount, client, **EVERYTHING)
    client.run("fcntl.flock(fd, fcntl.LOCK_EX); copy = os.dup(fd)\n" + lock(0, 10))
    client.run("os.close(copy)")
    assert ranges(record) == [(0, 10)]
    client.run("os.close(fd)")
    record.wait_for("on_close_file")
    assert ranges(record) == [(0, 10), (-1, -1)]


# --- Failures ---------------------------------------------------------------------------


@both_settings
@pytest.mark.parametrize("failure", FAILURES)
def test_an_unlock_cannot_fail(
    mount: Mounting,
    client: Client,
    other: Client,
    caplog: pytest.LogCaptureFixture,
    failure: Failure,
    fire_all: bool,
) -> None:
    handlers = Recorder(LockingDrive(f=bytes(100)))
    complaints = Complaints(handlers, caplog)
    record, cbfs = serve(mount, client, handlers, fire_all=fire_all)
    record.instead[EVENT] = failure
    client.run(OPEN + "\n" + lock(0, 10) + unlock(0, 10))
    complaints.check(failure, EVENT, "/f")
    other.run(OPEN + "\n" + lock(0, 10), at=cbfs.get_mounting_point_name(0))
    assert ranges(record) == [(0, 10)]


@pytest.mark.parametrize("config", [{}, EVERYTHING], ids=["ranges", "everything"])
@pytest.mark.parametrize("failure", FAILURES)
def test_close_does_not_fail_for_it(
    mount: Mounting,
    client: Client,
    other: Client,
    caplog: pytest.LogCaptureFixture,
    failure: Failure,
    config: Any,
) -> None:
    handlers = Recorder(LockingDrive(f=bytes(100)))
    complaints = Complaints(handlers, caplog)
    record, cbfs = serve(mount, client, handlers, **config)
    record.instead[EVENT] = failure
    client.run(OPEN + "\n" + lock(0, 10) + lock(20, 10) + "os.close(fd)")
    complaints.check(failure, EVENT, "/f", times=len(record.all(EVENT)))
    assert len(record.all(EVENT)) == (1 if config else 2)
    other.run(OPEN + "\n" + lock(0, 30), at=cbfs.get_mounting_point_name(0))


# --- Locks that nobody handles ----------------------------------------------------------


class UnlockingDrive(PlainDrive):
    """Handles one of the two events only, which the contract forbids."""

    def on_unlock_file(self, p: Any) -> None:
        pass


@pytest.mark.parametrize("handlers", [PlainDrive, UnlockingDrive])
@pytest.mark.parametrize("how", ["lockf", "flock", "ofd"])
def test_without_a_handler_locks_are_the_librarys_own(
    mount: Mounting, client: Client, other: Client, handlers: Any, how: str
) -> None:
    record, cbfs = serve(mount, client, handlers(f=bytes(100)), **EVERYTHING)
    take = {
        "lockf": "fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)",
        "flock": "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "ofd": f"ofd_lock(fd, {fcntl.F_WRLCK}, 0, 10)",
    }[how]
    for each in (client, other):
        each.run(OFD + OPEN, at=cbfs.get_mounting_point_name(0))
    client.run(take)
    with refused(errno.EAGAIN):
        other.run(take)
    if how == "lockf":
        other.run("fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)")
    client.kill()
    other.run(take)
    assert not record.all(EVENT)


def test_with_a_handler_for_locking_only_nothing_is_missed(
    mount: Mounting, client: Client, other: Client
) -> None:
    """The contract wants both; who has only one still gets a working table of locks."""
    handlers = Recorder(LockingDrive(f=bytes(100)))
    del handlers.on_unlock_file  # type: ignore[attr-defined]
    record, cbfs = serve(mount, client, handlers)
    for each in (client, other):
        each.run(OPEN, at=cbfs.get_mounting_point_name(0))
    client.run(lock(0, 10))
    with refused(errno.EAGAIN):
        other.run(lock(0, 10))
    client.run(unlock(0, 10))
    other.run(lock(0, 10))
    assert len(record.all(LOCK)) == 2
