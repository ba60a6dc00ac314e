"""How long contexts live, by the contract's topic "Contexts", and who is behind a handle."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import cbfsconnect as c
from support.client import Client
from support.gates import Gate
from support.mounts import Mounting
from support.plain import LockingDrive, PlainDrive
from support.recorder import Recorder

Clients = Callable[[], Client]

OPENING = ("on_create_file", "on_open_file")
CLOSING = ("on_cleanup_file", "on_close_file")


@pytest.fixture
def clients() -> Iterator[Clients]:
    """A function that starts one more client process."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Client())


class Contexts(Recorder):
    """Gives each file (F1, F2, …) and each handle (H1, H2, …) a context when it is opened."""

    def __init__(self, handlers: object) -> None:
        super().__init__(handlers)
        self.files = self.handles = 0
        for event in OPENING:
            self.before[event] = self._opened

    def _opened(self, p: Any) -> None:
        if not p.file_context:
            self.files += 1
            p.file_context = f"F{self.files}"
        assert p.handle_context == 0
        self.handles += 1
        p.handle_context = f"H{self.handles}"

    def story(self, path: str) -> list[tuple[str, Any, Any]]:
        """The opening and closing of a file: event, file context and handle context after it."""
        return [
            (f.name, f.left["file_context"], f.left["handle_context"])
            for f in list(self.fired)
            if f.name in (*OPENING, *CLOSING) and f.given["file_name"] == path
        ]


def _three_processes(at: str, clients: Clients) -> Iterator[str]:
    """The contract's table: A opens, B opens, B closes, C opens, A closes, C closes."""
    a, b, third = clients(), clients(), clients()
    for client in (a, b, third):
        client.run("def open_(): return os.open(at + '/x', os.O_RDWR)", at=at)
    a.run("fd = open_()")
    yield "A opens"
    b.run("fd = open_()")
    yield "B opens"
    b.run("os.close(fd)")
    yield "B closes"
    third.run("fd = open_()")
    yield "C opens"
    a.run("os.close(fd)")
    yield "A closes"
    third.run("os.close(fd)")
    yield "C closes"


@pytest.mark.proves("fire_all_open_close_events")
def test_the_table_with_every_event(mount: Mounting, clients: Clients) -> None:
    record = Contexts(PlainDrive(x=b""))
    at = mount(record, fire_all_open_close_events=True).mountpoint
    expected = {
        "A opens": [("on_open_file", "F1", "H1")],
        "B opens": [("on_open_file", "F1", "H2")],
        "B closes": [("on_cleanup_file", "F1", "H2"), ("on_close_file", "F1", "H2")],
        "C opens": [("on_open_file", "F1", "H3")],
        "A closes": [("on_cleanup_file", "F1", "H1"), ("on_close_file", "F1", "H1")],
        "C closes": [("on_cleanup_file", "F1", "H3"), ("on_close_file", "F1", "H3")],
    }
    for step in _three_processes(at, clients):
        if step.endswith("closes"):
            record.wait_for("on_close_file")
        assert record.story("/x") == expected[step], step
        record.clear()
    assert record.files == 1


def test_the_table_with_first_and_last_event(mount: Mounting, clients: Clients) -> None:
    record = Contexts(PlainDrive(x=b""))
    at = mount(record, fire_all_open_close_events=False).mountpoint
    steps: dict[str, list[tuple[str, Any, Any]]] = {}
    for step in _three_processes(at, clients):
        if step == "C closes":
            record.wait_for("on_close_file")
        steps[step] = record.story("/x")
        record.clear()
    # The handle of C was not told of, so it has no context: only A's could be given one.
    assert steps == {
        "A opens": [("on_open_file", "F1", "H1")],
        "B opens": [],
        "B closes": [],
        "C opens": [],
        "A closes": [],
        "C closes": [("on_cleanup_file", "F1", 0), ("on_close_file", "F1", 0)],
    }


def wait_until(condition: Callable[[], bool]) -> None:
    """RELEASE comes a moment after close(2)."""
    done = threading.Event()
    for _ in range(4000):
        if condition():
            return
        done.wait(0.005)
    raise AssertionError("it never came to be")


@pytest.mark.parametrize("fire_all", [True, False])
def test_contexts_die_with_the_last_handle(mount: Mounting, client: Client, fire_all: bool) -> None:
    record = Contexts(PlainDrive(x=b""))
    at = mount(record, fire_all_open_close_events=fire_all).mountpoint
    for count in (1, 2):
        client.run("os.close(os.open(at + '/x', os.O_RDONLY))", at=at)
        record.wait_for("on_close_file", count)
    opened = record.all("on_open_file", "/x")
    assert [f.given["file_context"] for f in opened] == [0, 0]
    assert [f.left["file_context"] for f in opened] == ["F1", "F2"]
    assert [f.file_context for f in record.all("on_close_file", "/x")] == ["F1", "F2"]


@pytest.mark.parametrize("fire_all", [True, False])
def test_a_created_file_has_contexts_from_the_beginning(
    mount: Mounting, clients: Clients, fire_all: bool
) -> None:
    record = Contexts(PlainDrive())
    at = mount(record, fire_all_open_close_events=fire_all, file_cache=0).mountpoint
    one, two = clients(), clients()
    one.run("fd = os.open(at + '/new', os.O_RDWR | os.O_CREAT)", at=at)
    two.run("fd = os.open(at + '/new', os.O_RDWR); os.write(fd, b'2')", at=at)
    one.run("os.write(fd, b'1')")
    by_two, by_one = record.all("on_write_file")
    assert (by_one.file_context, by_one.handle_context) == ("F1", "H1")
    assert (by_two.file_context, by_two.handle_context) == ("F1", "H2" if fire_all else 0)
    assert len(record.all("on_open_file", "/new")) == int(fire_all)


CHANGES = {
    "on_read_file": "os.pread(fd, 1, 0)",
    "on_write_file": "os.pwrite(fd, b'x', 0)",
    "on_set_file_size": "os.ftruncate(fd, 5)",
    "on_set_allocation_size": "os.posix_fallocate(fd, 0, 100)",
    "on_set_file_attributes": "os.utime(fd)",
    "on_lock_file": "fcntl.lockf(fd, fcntl.LOCK_EX)",
    "on_unlock_file": "fcntl.lockf(fd, fcntl.LOCK_EX); fcntl.lockf(fd, fcntl.LOCK_UN)",
}


@pytest.mark.parametrize("event", CHANGES)
def test_what_a_handler_changes_is_kept(mount: Mounting, client: Client, event: str) -> None:
    """The next event of the handle and of the file sees it, whichever event it was changed in."""
    record = Contexts(LockingDrive(x=b"0123456789"))
    at = mount(record, fire_all_open_close_events=True, file_cache=0).mountpoint
    client.run("fd = os.open(at + '/x', os.O_RDWR); other = os.open(at + '/x', os.O_RDWR)", at=at)

    def change(p: Any) -> None:
        p.file_context, p.handle_context = "new F", "new H"

    record.before[event] = change
    client.run(CHANGES[event])
    del record.before[event]
    if event != "on_set_file_attributes":  # utimensat names no handle to the drive
        client.run("os.pread(fd, 1, 1)")
        read = record.all("on_read_file")[-1]
        assert (read.file_context, read.handle_context) == ("new F", "new H")
    client.run("os.pread(other, 1, 1)")
    read = record.all("on_read_file")[-1]
    assert (read.file_context, read.handle_context) == ("new F", "H2")


def test_what_a_reader_changes_is_kept_though_another_ends_later(
    mount: Mounting, clients: Clients
) -> None:
    """With serialize_access off a reader that changed nothing must not put the old back."""
    record = Contexts(PlainDrive(x=b"0123456789"))
    gate = Gate()

    def change_or_wait(p: Any) -> None:
        if p.position == 0:
            gate(p)
        elif p.position == 5:
            p.file_context, p.handle_context = "new F", "new H"

    record.before["on_read_file"] = change_or_wait
    at = mount(record, file_cache=0, serialize_access=False).mountpoint
    slow, quick = clients(), clients()
    slow.run("fd = os.open(at + '/x', os.O_RDONLY)", at=at)
    child = "os.fork() or (os.pread(fd, 1, 0), os._exit(0))"
    slow.run(f"child = {child}")  # the same handle, in another process
    gate.wait()
    slow.run("os.pread(fd, 1, 5)")
    gate.open()
    slow.run("assert os.waitpid(child, 0)[1] == 0; os.pread(fd, 1, 7)")
    last = record.all("on_read_file")[-1]
    assert (last.position, last.file_context, last.handle_context) == (7, "new F", "new H")
    quick.run("os.pread(os.open(at + '/x', os.O_RDONLY), 1, 8)", at=at)
    assert record.all("on_read_file")[-1].file_context == "new F"


def test_contexts_changed_in_a_listing_are_kept(mount: Mounting, client: Client) -> None:
    drive = PlainDrive()
    drive.add_directory("/d")
    for number in range(300):
        drive.add(f"/d/{number:0200}")
    record = Contexts(drive)
    at = mount(record).mountpoint
    client.run("fd = os.open(at + '/d', os.O_RDONLY); listing = os.scandir(fd)", at=at)
    client.run("next(listing)")

    def change(p: Any) -> None:
        p.directory_context, p.handle_context = "new F", "new H"
        del record.before["on_enumerate_directory"]

    record.before["on_enumerate_directory"] = change
    client.run("for _ in listing: pass")
    last = record.all("on_enumerate_directory")[-1]
    assert (last.directory_context, last.handle_context) == ("new F", "new H")
    client.run("listing.close(); os.close(fd)")
    (closed,) = record.wait_for("on_close_file")
    assert (closed.file_context, closed.handle_context) == ("new F", "new H")


def test_contexts_of_closing_events_are_read_only(mount: Mounting, client: Client) -> None:
    record = Contexts(PlainDrive(x=b""))
    refused: list[str] = []

    def assign(p: Any) -> None:
        for name in ("file_context", "handle_context"):
            with pytest.raises(AttributeError):
                setattr(p, name, 1)
            refused.append(name)

    record.before["on_cleanup_file"] = record.before["on_close_file"] = assign
    at = mount(record).mountpoint
    client.run("os.close(os.open(at + '/x', os.O_RDONLY))", at=at)
    record.wait_for("on_close_file")
    assert len(refused) == 4


def test_a_directory_has_the_same_contexts(mount: Mounting, client: Client) -> None:
    drive = PlainDrive()
    drive.add_directory("/d")
    record = Contexts(drive)
    record.before["on_is_directory_empty"] = lambda p: setattr(p, "directory_context", "new F")
    at = mount(record).mountpoint
    client.run("os.listdir(at + '/d')", at=at)
    record.wait_for("on_close_file")
    for fired in record.all("on_enumerate_directory"):
        assert (fired.directory_context, fired.handle_context) == ("F1", "H1")
    assert record.one("on_close_directory_enumeration").directory_context == "F1"
    client.run("os.rmdir(at + '/d')")
    assert record.one("on_can_file_be_deleted").file_context == "F2"
    assert record.one("on_is_directory_empty").directory_context == "F2"
    assert record.one("on_delete_file").file_context == "new F"


def test_a_refused_open_leaves_no_context(mount: Mounting, client: Client) -> None:
    record = Contexts(PlainDrive(x=b""))

    def refuse(p: Any) -> None:
        p.result_code = c.ERROR_ACCESS_DENIED

    record.instead["on_open_file"] = refuse
    at = mount(record).mountpoint
    with pytest.raises(PermissionError):
        client.run("os.open(at + '/x', os.O_RDONLY)", at=at)
    del record.instead["on_open_file"]
    client.run("os.open(at + '/x', os.O_RDONLY)")
    assert [f.given["file_context"] for f in record.all("on_open_file")] == [0, 0]


def test_on_delete_file_still_has_the_files_context(mount: Mounting, client: Client) -> None:
    record = Contexts(PlainDrive(x=b""))
    config = {"FileCachePolicyWriteThrough": True}  # else the kernel sets times at the close
    at = mount(record, fire_all_open_close_events=True, config=config).mountpoint
    client.run("fd = os.open(at + '/x', os.O_RDONLY); os.unlink(at + '/x'); os.close(fd)", at=at)
    record.wait_for("on_delete_file")
    assert record.one("on_delete_file").file_context == "F1"
    assert [(f.delete_file, f.handle_context) for f in record.all("on_close_file", "/x")] == [
        (False, "H2"),
        (True, "H1"),
    ]


# --- enumerations ---


def test_two_listings_at_once_have_a_context_each(mount: Mounting, client: Client) -> None:
    drive = PlainDrive()
    for number in range(2000):
        drive.add(f"/a-rather-long-name-{number:0100}")
    record = Recorder(drive)
    names = drive.children("/")
    began = iter(range(100, 200, 50))
    states: dict[int, int] = {}

    def enumerate_(p: Any) -> None:
        if p.restart:
            assert p.enumeration_context == 0
            p.enumeration_context = next(began)
            states[p.enumeration_context] = 0
        key = p.enumeration_context
        if states[key] < len(names):
            p.file_found, p.file_name = True, names[states[key]]
            states[key] += 1

    record.instead["on_enumerate_directory"] = enumerate_
    record.instead["on_close_directory_enumeration"] = lambda p: states.pop(p.enumeration_context)
    at = mount(record).mountpoint
    client.run("one = os.scandir(at); two = os.scandir(at)", at=at)
    client.run("a = [next(one).name for n in range(3)]; b = [next(two).name for n in range(5)]")
    assert sorted(states) == [100, 150]
    assert client.call("len(a + [e.name for e in one]), len(b + [e.name for e in two])") == (
        2000,
        2000,
    )
    wait_until(lambda: not states)
    assert sorted(f.enumeration_context for f in record.all("on_close_directory_enumeration")) == [
        100,
        150,
    ]


def test_an_enumeration_context_ends_with_its_enumeration(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(a=b""))
    counter = iter(range(1, 100))

    def enumerate_(p: Any) -> None:
        assert bool(p.enumeration_context) is not p.restart
        if p.restart:
            p.enumeration_context = next(counter)
            p.file_found, p.file_name = True, "a"

    record.instead["on_enumerate_directory"] = enumerate_
    at = mount(record).mountpoint
    for _ in range(3):
        assert client.call("os.listdir(at)", at=at) == ["a"]
    closed = record.wait_for("on_close_directory_enumeration", 3)
    assert [f.enumeration_context for f in closed] == [1, 2, 3]
    assert {f.error for f in record.fired} == {None}


# --- who is behind it ---


class Asking(PlainDrive):
    """Asks in every event that has a handle who opened it, and whose request it is."""

    cbfs: c.CBFS

    def __init__(self, **files: bytes) -> None:
        super().__init__(**files)
        self.creators: dict[str, tuple[int, str, int]] = {}
        self.originators: dict[str, tuple[int, str, int]] = {}
        self.tokens: dict[str, tuple[int, int]] = {}

    def configure(self, cbfs: c.CBFS) -> None:
        self.cbfs = cbfs

    def ask(self, name: str, p: Any) -> None:
        cbfs, info = self.cbfs, p.handle_info
        self.creators[name] = (
            cbfs.get_handle_creator_process_id(info),
            cbfs.get_handle_creator_process_name(info),
            cbfs.get_handle_creator_thread_id(info),
        )
        self.originators[name] = (
            cbfs.get_originator_process_id(),
            cbfs.get_originator_process_name(),
            cbfs.get_originator_thread_id(),
        )
        tokens = cbfs.get_handle_creator_token(info), cbfs.get_originator_token()
        self.tokens[name] = (process_of_token(tokens[0]), process_of_token(tokens[1]))
        for token in tokens:
            if token >= 0:
                os.close(token)


def process_of_token(token: int) -> int:
    """Which process a pidfd stands for; -1 when it is none."""
    if token < 0:
        return token
    with open(f"/proc/self/fdinfo/{token}") as info:
        return next(int(line.split()[1]) for line in info if line.startswith("Pid:"))


def asking(drive: Asking, *events: str) -> Recorder:
    record = Recorder(drive)
    for event in events:
        record.before[event] = functools.partial(drive.ask, event)
    return record


THREADED = """
import threading
def in_thread(f):
    answer = []
    thread = threading.Thread(target=lambda: answer.extend([threading.get_native_id(), f()]))
    thread.start(); thread.join()
    return answer
"""


@pytest.mark.proves(
    "get_originator_process_id",
    "get_originator_process_name",
    "get_originator_thread_id",
    "get_originator_token",
    "get_handle_creator_process_id",
    "get_handle_creator_process_name",
    "get_handle_creator_thread_id",
    "get_handle_creator_token",
)
def test_originator_and_creator_of_a_handle(mount: Mounting, clients: Clients) -> None:
    drive = Asking(x=b"data")
    record = asking(drive, "on_create_file", "on_open_file", "on_read_file", "on_write_file")
    at = mount(record, fire_all_open_close_events=True, file_cache=0).mountpoint
    client = clients()
    client.run(THREADED)
    opener, fd = client.call("in_thread(lambda: os.open(at + '/x', os.O_RDWR))", at=at)
    reader, _ = client.call("in_thread(lambda: os.pread(fd, 4, 0))", fd=fd)
    python = os.path.realpath(sys.executable)
    process = client.pid
    assert drive.creators["on_open_file"] == (process, python, opener)
    assert drive.originators["on_open_file"] == (process, python, opener)
    assert drive.creators["on_read_file"] == (process, python, opener)
    assert drive.originators["on_read_file"] == (process, python, reader)
    assert drive.tokens["on_read_file"] == (process, process)
    client.run("os.close(os.open(at + '/new', os.O_CREAT | os.O_WRONLY))")
    assert drive.creators["on_create_file"] == (process, python, process)


def test_the_creator_is_not_who_uses_an_inherited_handle(mount: Mounting, client: Client) -> None:
    drive = Asking(x=b"data")
    record = asking(drive, "on_read_file")
    at = mount(record, fire_all_open_close_events=True, file_cache=0).mountpoint
    child = client.run(
        """
        fd = os.open(at + '/x', os.O_RDONLY)
        result = os.fork()
        if not result:
            os.pread(fd, 4, 0)
            os._exit(0)
        assert os.waitpid(result, 0)[1] == 0
        """,
        at=at,
    )
    assert drive.creators["on_read_file"][0] == client.pid
    assert drive.originators["on_read_file"][0] == child


@pytest.mark.proves("get_originator_process_id")
def test_a_write_from_the_cache_is_nobodys(mount: Mounting, client: Client) -> None:
    drive = Asking(x=b"")
    record = asking(drive, "on_write_file")
    at = mount(record, fire_all_open_close_events=True).mountpoint
    client.run("fd = os.open(at + '/x', os.O_RDWR); os.write(fd, b'abc'); os.fsync(fd)", at=at)
    assert drive.creators["on_write_file"] == (0, "", 0)
    assert drive.originators["on_write_file"] == (0, "", 0)
    assert drive.tokens["on_write_file"] == (-1, -1)


def test_a_process_may_be_refused(mount: Mounting, clients: Clients) -> None:
    """The vendor's advice for access by process: look at the originator when it opens."""
    drive = Asking(x=b"data")
    record = Recorder(drive)
    friend, stranger = clients(), clients()

    def check(p: Any) -> None:
        if drive.cbfs.get_originator_process_id() != friend.pid:
            p.result_code = c.ERROR_ACCESS_DENIED

    record.before["on_open_file"] = check
    at = mount(record, fire_all_open_close_events=True).mountpoint
    assert friend.call("Path(at, 'x').read_text()", at=at) == "data"
    with pytest.raises(PermissionError):
        stranger.call("Path(at, 'x').read_text()", at=at)


def test_it_may_only_be_asked_inside_handlers(mount: Mounting, client: Client) -> None:
    drive = Asking(x=b"data")
    record = Recorder(drive)
    found: list[c.CBFSConnectError] = []

    def elsewhere(p: Any) -> None:
        def ask() -> None:
            for call in (
                drive.cbfs.get_originator_process_id,
                drive.cbfs.get_originator_process_name,
                drive.cbfs.get_originator_thread_id,
                drive.cbfs.get_originator_token,
                lambda: drive.cbfs.get_handle_creator_process_id(p.handle_info),
                lambda: drive.cbfs.get_handle_creator_process_name(p.handle_info),
                lambda: drive.cbfs.get_handle_creator_thread_id(p.handle_info),
                lambda: drive.cbfs.get_handle_creator_token(p.handle_info),
            ):
                try:
                    call()
                except c.CBFSConnectError as error:
                    found.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()

    record.before["on_open_file"] = elsewhere
    at = mount(record).mountpoint
    client.run("os.open(at + '/x', os.O_RDONLY)", at=at)
    assert [error.code for error in found] == [c.ERROR_INVALID_STATE] * 8


@pytest.mark.skipif(os.geteuid() != 0, reason="only root says which number comes next")
def test_a_later_process_with_its_number_is_not_the_creator(
    mount: Mounting, clients: Clients, tmp_path: Path
) -> None:
    """The creator hands its descriptor over and ends; then somebody else gets its number."""
    drive = Asking(x=b"data")
    record = Recorder(drive)
    record.before["on_cleanup_file"] = lambda p: drive.ask("on_cleanup_file", p)
    at = mount(record, fire_all_open_close_events=True).mountpoint
    opener, heir = clients(), clients()
    path = str(tmp_path / "socket")
    opener.start(
        """
        import socket
        server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen()
        socket.send_fds(server.accept()[0], [b'x'], [os.open(at + '/x', os.O_RDONLY)])
        """,
        at=at,
        path=path,
    )
    heir.run(
        """
        import socket
        while not os.path.exists(path): time.sleep(0.01)
        peer = socket.socket(socket.AF_UNIX); peer.connect(path)
        fd = socket.recv_fds(peer, 1, 1)[1][0]
        """,
        path=path,
    )
    opener.finish()
    opener.kill()
    time.sleep(0.02)  # the kernel tells when a process has started to a hundredth of a second
    for _ in range(200):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(opener.pid - 1))
        with subprocess.Popen(["sleep", "100"]) as later:
            try:
                if later.pid == opener.pid:
                    heir.run("os.close(fd)")
                    break
            finally:
                later.kill()
    else:
        pytest.skip("other processes took the number each time")
    record.wait_for("on_close_file")
    assert drive.creators["on_cleanup_file"] == (opener.pid, "", opener.pid)
    assert drive.tokens["on_cleanup_file"][0] == -1
    assert drive.originators["on_cleanup_file"][0] == heir.pid


def test_a_handle_that_is_none(mount: Mounting, client: Client) -> None:
    drive = Asking(x=b"data")
    answers: list[object] = []
    record = Recorder(drive)

    def ask(p: Any) -> None:
        answers.append(drive.cbfs.get_handle_creator_process_id(0))
        answers.append(drive.cbfs.get_handle_creator_process_name(123456789))
        answers.append(drive.cbfs.get_handle_creator_thread_id(-1))
        answers.append(drive.cbfs.get_handle_creator_token(0))

    record.before["on_open_file"] = ask
    at = mount(record).mountpoint
    client.run("os.open(at + '/x', os.O_RDONLY)", at=at)
    assert answers == [0, "", 0, -1]


def test_methods_that_are_forbidden_in_handlers(mount: Mounting, client: Client) -> None:
    drive = Asking(x=b"data")
    record = Recorder(drive)
    refused: list[int] = []

    def misbehave(p: Any) -> None:
        cbfs = drive.cbfs
        calls: list[Callable[[], object]] = [
            cbfs.create_storage,
            lambda: cbfs.mount_media(0),
            lambda: cbfs.unmount_media(True),
            lambda: cbfs.delete_storage(True),
            lambda: cbfs.add_mounting_point("/nowhere"),
            lambda: cbfs.remove_mounting_point(0),
            lambda: setattr(cbfs, "use_hard_links", True),
            lambda: setattr(cbfs, "file_cache", 0),
            cbfs.wait,
        ]
        for call in calls:
            with pytest.raises(c.CBFSConnectError) as failure:
                call()
            refused.append(failure.value.code)

    record.before["on_open_file"] = misbehave
    at = mount(record).mountpoint
    assert client.call("Path(at, 'x').read_text()", at=at) == "data"
    assert refused == [c.ERROR_INVALID_STATE] * 9
