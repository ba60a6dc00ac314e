"""Which events may be under way at the same time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from support.client import Client
from support.gates import Gate, wait_until_blocked
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder

Clients = Callable[[], Client]


@pytest.fixture
def clients() -> Iterator[Clients]:
    """A function that starts one more client process."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Client())


class Together:
    """Counts how many handlers are under way, at most, by file and in all.

    Wraps every handler of files; each takes a moment, so that others have time to come.
    """

    def __init__(self, record: Recorder) -> None:
        self.most: Counter[str] = Counter()
        self.broken: list[str] = []
        self._now: dict[str, list[str]] = {}
        self._mutex = threading.Lock()
        for name in dir(record.handlers):
            if name.startswith("on_"):
                record.instead[name] = self._counting(name, getattr(record.handlers, name))

    def _counting(self, name: str, handler: Callable[[Any], None]) -> Callable[[Any], None]:
        def count(p: Any) -> None:
            path: str = getattr(p, "file_name", "") or getattr(p, "directory_name", "")
            with self._mutex:
                inside = self._now.setdefault(path, [])
                if inside:
                    self.broken.append(f"{name} during {inside} of {path}")
                inside.append(name)
                self.most[path] = max(self.most[path], len(inside))
                self.most["all"] = max(self.most["all"], sum(map(len, self._now.values())))
            try:
                time.sleep(0.0005)
                handler(p)
            finally:
                with self._mutex:
                    inside.remove(name)

        return count


WORK = """
for n in range(25):
    fd = os.open(at + path, os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"x" * 10, 3)
    os.pread(fd, 10, 3)
    os.stat(at + path)
    os.ftruncate(fd, 100)
    os.utime(at + path)
    os.close(fd)
"""


def test_events_of_one_file_never_overlap(mount: Mounting, clients: Clients) -> None:
    record = Recorder(PlainDrive(one=b"", two=b""))
    together = Together(record)
    at = mount(record, file_cache=0, metadata_cache_enabled=False).mountpoint
    workers = [clients() for _ in range(4)]
    for number, worker in enumerate(workers):
        worker.start(WORK, at=at, path=("/one", "/two")[number % 2])
    for worker in workers:
        worker.finish()
    assert not together.broken
    assert together.most["all"] > 1


def test_a_file_waits_for_its_handler(mount: Mounting, clients: Clients) -> None:
    record = Recorder(PlainDrive(file=b"abc", other=b"abc"))
    record.before["on_read_file"] = gate = Gate("/file")
    at = mount(record, file_cache=0, metadata_cache_enabled=False).mountpoint
    one, two, three = clients(), clients(), clients()
    for client in (one, two, three):
        client.run("fd = os.open(at + '/file', os.O_RDWR)", at=at)
    one.start("os.pread(fd, 3, 0)")
    gate.wait()
    two.start("os.pwrite(fd, b'x', 0)")
    wait_until_blocked(two)
    assert three.call("Path(at, 'other').read_text()") == "abc"  # another file does not wait
    assert not record.all("on_write_file")
    gate.open()
    one.finish()
    two.finish()
    assert record.one("on_write_file")


def test_different_files_are_served_at_the_same_time(mount: Mounting, clients: Clients) -> None:
    record = Recorder(PlainDrive(one=b"1", two=b"2"))
    both = threading.Barrier(2, timeout=20)
    record.before["on_read_file"] = lambda p: both.wait()
    at = mount(record).mountpoint
    one, two = clients(), clients()
    one.start("result = Path(at, 'one').read_text()", at=at)
    two.start("result = Path(at, 'two').read_text()", at=at)
    assert one.finish() + two.finish() == "12"
    assert len({f.thread for f in record.all("on_read_file")}) == 2


@pytest.mark.proves("serialize_access")
def test_serialize_access_off_reads_one_file_at_the_same_time(
    mount: Mounting, clients: Clients
) -> None:
    record = Recorder(PlainDrive(file=b"abcdef"))
    both = threading.Barrier(2, timeout=20)
    record.before["on_read_file"] = lambda p: both.wait()
    at = mount(record, file_cache=0, serialize_access=False).mountpoint
    one, two = clients(), clients()
    for client in (one, two):
        client.run("fd = os.open(at + '/file', os.O_RDONLY)", at=at)
    for client, position in ((one, 0), (two, 3)):
        client.start("result = os.pread(fd, 3, position)", position=position)
    assert one.finish() + two.finish() == b"abcdef"


def test_serialize_access_off_keeps_changes_apart(mount: Mounting, clients: Clients) -> None:
    record = Recorder(PlainDrive(file=b"abc"))
    record.before["on_read_file"] = gate = Gate()
    at = mount(record, file_cache=0, serialize_access=False).mountpoint
    one, two, three = clients(), clients(), clients()
    for client in (one, two, three):
        client.run("fd = os.open(at + '/file', os.O_RDWR)", at=at)
    one.start("result = os.pread(fd, 3, 0)")
    gate.wait()
    two.start("os.pwrite(fd, b'x', 0)")
    wait_until_blocked(two)
    three.start("result = os.pread(fd, 3, 0)")  # who came first changes first
    wait_until_blocked(three)
    assert not record.all("on_write_file")
    gate.open()
    assert one.finish() == b"abc"
    two.finish()
    assert three.finish() == b"xbc"


def test_serialize_access_off_under_load(mount: Mounting, clients: Clients) -> None:
    record = Recorder(PlainDrive(file=bytes(100)))
    reading, broken = [0], []
    mutex = threading.Lock()

    def read(p: Any) -> None:
        with mutex:
            reading[0] += 1
        record.handlers.on_read_file(p)  # type: ignore[attr-defined]
        with mutex:
            reading[0] -= 1

    def write(p: Any) -> None:
        before = reading[0]
        record.handlers.on_write_file(p)  # type: ignore[attr-defined]
        broken.extend([1] * (before or reading[0]))

    record.instead |= {"on_read_file": read, "on_write_file": write}
    at = mount(record, file_cache=0, serialize_access=False).mountpoint
    workers = [clients() for _ in range(4)]
    for worker in workers:
        worker.run("fd = os.open(at + '/file', os.O_RDWR)", at=at)
    for worker in workers[:3]:
        worker.start("for n in range(1500): os.pread(fd, 10, n % 90)")
    workers[3].start("for n in range(1500): os.pwrite(fd, b'0123456789', n % 90)")
    for worker in workers:
        worker.finish()
    assert not broken


@pytest.mark.proves("serialize_events")
def test_serialize_events_on_one_thread(mount: Mounting, clients: Clients) -> None:
    record = Recorder(PlainDrive(one=b"1", two=b"2"))
    record.before["on_read_file"] = gate = Gate("/one")
    at = mount(record, serialize_events=True).mountpoint
    record.clear()
    one, two = clients(), clients()
    one.start("result = Path(at, 'one').read_text()", at=at)
    gate.wait()
    two.start("result = Path(at, 'two').read_text()", at=at)
    wait_until_blocked(two)
    assert not [f for f in record.fired if f.given.get("file_name") == "/two"]
    gate.open()
    assert one.finish() + two.finish() == "12"
    assert len({f.thread for f in record.fired}) == 1


@pytest.mark.proves(
    "on_worker_thread_creation",
    "on_worker_thread_termination",
    "MinWorkerThreadCount",
    "MaxWorkerThreadCount",
)
def test_worker_threads_are_told_and_not_the_creators(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b"abc"))
    record.handle("on_worker_thread_creation", lambda p: None)
    record.handle("on_worker_thread_termination", lambda p: None)
    drive = mount(record, config={"MinWorkerThreadCount": 3, "MaxWorkerThreadCount": 3})
    assert client.call("Path(at, 'file').read_text()", at=drive.mountpoint) == "abc"
    drive.unmount()
    began = [f.thread for f in record.all("on_worker_thread_creation")]
    ended = [f.thread for f in record.all("on_worker_thread_termination")]
    assert Counter(began) == Counter(ended)
    served = {f.thread for f in record.fired}
    assert served == set(began)
    assert threading.get_ident() not in served


# --- directories that move ---


def tree(**files: bytes) -> PlainDrive:
    """A drive with the directories /d and /z; `files` are in /d, but for those called z_…."""
    drive = PlainDrive()
    drive.add_directory("/d")
    drive.add_directory("/z")
    drive.add("/other", b"other")
    for name, data in files.items():
        drive.add(f"/z/{name[2:]}" if name.startswith("z_") else f"/d/{name}", data)
    return drive


MOVE = "os.rename(at + '/d', at + '/e')"


@pytest.mark.parametrize("serialize_access", [True, False])
def test_a_directory_moves_after_the_events_below_it(
    mount: Mounting, clients: Clients, serialize_access: bool
) -> None:
    record = Recorder(tree(file=b"abc"))
    record.before["on_read_file"] = gate = Gate("/d/file")
    at = mount(record, serialize_access=serialize_access).mountpoint
    one, two, three = clients(), clients(), clients()
    three.run("fd = os.open(at + '/other', os.O_RDONLY)", at=at)
    one.start("result = Path(at, 'd/file').read_text()", at=at)
    gate.wait()
    two.start(MOVE, at=at)
    wait_until_blocked(two)
    assert three.call("os.pread(fd, 10, 0)") == b"other"
    assert not record.all("on_rename_or_move_file")
    gate.open()
    assert one.finish() == "abc"
    two.finish()
    assert record.one("on_rename_or_move_file").new_file_name == "/e"


@pytest.mark.parametrize("serialize_access", [True, False])
def test_events_below_a_moving_directory_wait_for_its_new_name(
    mount: Mounting, clients: Clients, serialize_access: bool
) -> None:
    record = Recorder(tree(file=b"abc"))
    record.before["on_rename_or_move_file"] = gate = Gate()
    at = mount(record, file_cache=0, serialize_access=serialize_access).mountpoint
    one, two = clients(), clients()
    one.run("fd = os.open(at + '/d/file', os.O_RDWR)", at=at)
    two.start(MOVE, at=at)
    gate.wait()
    one.start("result = os.pread(fd, 3, 0)")
    wait_until_blocked(one)
    assert not record.all("on_read_file")
    gate.open()
    two.finish()
    assert one.finish() == b"abc"
    assert record.one("on_read_file").file_name == "/e/file"
    one.run("os.pwrite(fd, b'A', 0); os.close(fd)")
    assert record.wait_for("on_close_file")[0].file_name == "/e/file"


UNDER_WAY = {
    "a new name in it": ("on_create_file", "os.open(at + '/d/new', os.O_CREAT)"),
    "a directory in it": ("on_create_file", "os.mkdir(at + '/d/new')"),
    "a rename in it": ("on_rename_or_move_file", "os.rename(at + '/d/a', at + '/d/b')"),
    "a rename into it": ("on_rename_or_move_file", "os.rename(at + '/other', at + '/d/new')"),
    "a rename out of it": ("on_rename_or_move_file", "os.rename(at + '/d/a', at + '/z/new')"),
    "a replacement in it": ("on_rename_or_move_file", "os.rename(at + '/z/b', at + '/d/b')"),
    "a replacement from it": ("on_rename_or_move_file", "os.rename(at + '/d/a', at + '/z/b')"),
    "a link into it": ("on_create_hard_link", "os.link(at + '/other', at + '/d/new')"),
    "a deletion in it": ("on_delete_file", "os.unlink(at + '/d/a')"),
    "a listing": ("on_enumerate_directory", "os.listdir(at + '/d')"),
}


@pytest.mark.parametrize("name", UNDER_WAY)
def test_what_a_moving_directory_waits_for(mount: Mounting, clients: Clients, name: str) -> None:
    event, request = UNDER_WAY[name]
    drive = tree(a=b"a", b=b"b", z_b=b"zb")
    record = Recorder(drive)
    record.handle("on_create_hard_link", lambda p: drive.add(p.link_name, b"other") and None)
    at = mount(record, use_hard_links=True).mountpoint
    one, two = clients(), clients()
    # Known in this order, so that what replaces has the lower id.
    one.run("for p in ('/d/a', '/other', '/z/b', '/d/b'): os.stat(at + p)", at=at)
    gate = Gate()
    record.before[event] = lambda p: None if getattr(p, "new_file_name", "") == "/e" else gate(p)
    one.start(request)
    gate.wait()
    moves = len(record.all("on_rename_or_move_file"))
    two.start(MOVE, at=at)
    wait_until_blocked(two)
    assert len(record.all("on_rename_or_move_file")) == moves
    gate.open()
    one.finish()
    two.finish()
    assert record.all("on_rename_or_move_file")[-1].new_file_name == "/e"
    below = [p for p in drive.items if p.startswith("/d")]
    assert not below, "a path was used that had moved away"


def test_a_rename_and_the_move_of_its_directory_do_not_wait_for_each_other(
    mount: Mounting, clients: Clients
) -> None:
    """The rename holds one of its files and waits for the other when the move begins."""
    drive = tree(a=b"a", b=b"b")
    record = Recorder(drive)
    record.before["on_read_file"] = gate = Gate("/d/b")
    at = mount(record, file_cache=0).mountpoint
    one, two, three = clients(), clients(), clients()
    one.run("os.stat(at + '/d/a'); fd = os.open(at + '/d/b', os.O_RDONLY)", at=at)

    def read_meanwhile(p: Any) -> None:
        """The kernel looks the target up once more before it asks for the rename."""
        if p.file_name == "/d/b":
            del record.before["on_get_file_info"]
            one.start("result = os.pread(fd, 3, 0)")
            wait_until_blocked(one)

    record.before["on_get_file_info"] = read_meanwhile
    two.start("os.rename(at + '/d/a', at + '/d/b')", at=at)
    gate.wait()
    wait_until_blocked(two)
    three.start(MOVE, at=at)
    wait_until_blocked(three)
    gate.open()
    assert one.finish() == b"b"
    two.finish()
    three.finish()
    assert bytes(drive.items["/e/b"].data) == b"a"


def test_a_rename_waits_for_the_file_it_replaces(mount: Mounting, clients: Clients) -> None:
    record = Recorder(tree(a=b"a", b=b"b"))
    record.before["on_read_file"] = gate = Gate("/d/b")
    at = mount(record).mountpoint
    one, two = clients(), clients()
    one.start("result = Path(at, 'd/b').read_text()", at=at)
    gate.wait()
    two.start("os.rename(at + '/d/a', at + '/d/b')", at=at)
    wait_until_blocked(two)
    assert not record.all("on_rename_or_move_file")
    gate.open()
    assert one.finish() == "b"
    two.finish()


@pytest.mark.parametrize(
    "request_", ["Path(at, 'd/file').write_text('new')", "os.link(at + '/other', at + '/d/file')"]
)
def test_a_deleted_open_file_is_moved_away_between_its_events(
    mount: Mounting, clients: Clients, request_: str
) -> None:
    """Somebody wants the name of a file that was deleted while it was open."""
    drive = tree(file=b"old")
    record = Recorder(drive)
    record.handle("on_create_hard_link", lambda p: drive.add(p.link_name, b"other") and None)
    record.before["on_read_file"] = gate = Gate("/d/file")
    at = mount(record, file_cache=0, use_hard_links=True).mountpoint
    one, two = clients(), clients()
    one.run("fd = os.open(at + '/d/file', os.O_RDONLY); os.unlink(at + '/d/file')", at=at)
    one.start("result = os.pread(fd, 3, 0)")
    gate.wait()
    two.start(request_, at=at)
    wait_until_blocked(two)
    assert not record.all("on_rename_or_move_file")
    gate.open()
    assert one.finish() == b"old"
    two.finish()
    assert one.call("os.pread(fd, 3, 0)") == b"old"


def test_a_directory_goes_when_nobody_is_at_what_was_deleted_in_it(
    mount: Mounting, clients: Clients
) -> None:
    record = Recorder(tree(file=b"old"))
    record.before["on_read_file"] = gate = Gate("/d/file")
    at = mount(record, file_cache=0).mountpoint
    one, two = clients(), clients()
    one.run("fd = os.open(at + '/d/file', os.O_RDONLY); os.unlink(at + '/d/file')", at=at)
    one.start("result = os.pread(fd, 3, 0)")
    gate.wait()
    two.start("os.rmdir(at + '/d')", at=at)
    wait_until_blocked(two)
    assert not record.all("on_rename_or_move_file")
    gate.open()
    assert one.finish() == b"old"
    two.finish()
    assert one.call("os.pread(fd, 3, 0)") == b"old"
    assert two.call("sorted(os.listdir(at))") == ["other", "z"]


def test_moves_under_load(mount: Mounting, clients: Clients) -> None:
    """A file is read and written by an open descriptor and by name while its directory moves."""
    drive = tree(file=b"abc", a=b"a")
    record = Recorder(drive)
    at = mount(record, file_cache=0, serialize_access=False).mountpoint
    users = [clients() for _ in range(3)]
    mover, renamer = clients(), clients()
    for user in users:
        user.run("fd = os.open(at + '/d/file', os.O_RDWR)", at=at)
        user.start(
            "for n in range(200): os.pread(fd, 3, 0); os.fsync(fd); os.pwrite(fd, b'abc', 0)"
        )
    mover.start(
        "for n in range(100): os.rename(at + '/d', at + '/e'); os.rename(at + '/e', at + '/d')",
        at=at,
    )
    renamer.run("d = os.open(at + '/d', os.O_DIRECTORY)", at=at)
    renamer.start(
        """
        for n in range(200):
            os.rename('a', 'b', src_dir_fd=d, dst_dir_fd=d)
            os.rename('b', 'a', src_dir_fd=d, dst_dir_fd=d)
        """
    )
    for process in (*users, mover, renamer):
        process.finish()
    assert {f.error for f in record.fired} == {None}
    assert set(drive.items) == {"/d", "/z", "/other", "/d/file", "/d/a"}
