"""Handlers that answer nonsense: the client gets an error or an answer, and the drive lives on.

Every parameter that a handler may set, of every event, gets values of wrong types and sizes, while
a client does all that can be done to a filesystem.
"""

import itertools
import logging
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cbfsconnect
from cbfsconnect import EVENTS, MemoryDrive
from cbfsconnect.events.declare import Direction
from support.client import Client
from support.mounts import Mounting
from support.recorder import Recorder

NONSENSE: tuple[Any, ...] = (None, "text/with\0all", b"bytes", 1.5, -1, 1 << 63, [])

EXERCISE = """
import contextlib, itertools

def attempt(function, *arguments, **more):
    with contextlib.suppress(OSError, ValueError, OverflowError):
        return function(*arguments, **more)

def names(path):
    with os.scandir(path) as entries:  # a listing may never end
        return [entry.name for entry in itertools.islice(entries, 20)]

def exercise(at, n):
    d = f"{at}/d{n}"
    attempt(os.statvfs, at)
    attempt(os.mkdir, d)
    fd = attempt(os.open, f"{d}/f", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    if fd is not None:
        attempt(os.write, fd, b"hello")
        attempt(os.pread, fd, 5, 0)
        attempt(fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10)
        attempt(os.ftruncate, fd, 3)
        attempt(os.posix_fallocate, fd, 0, 100)
        attempt(os.fsync, fd)
        attempt(os.fstat, fd)
        attempt(fcntl.lockf, fd, fcntl.LOCK_UN)
        attempt(os.close, fd)
    fd = attempt(os.open, f"{d}/f", os.O_RDONLY)
    if fd is not None:
        attempt(os.read, fd, 5)
        attempt(os.close, fd)
    attempt(names, d)
    attempt(names, at)
    attempt(os.stat, f"{d}/f")
    attempt(os.chmod, f"{d}/f", 0o600)
    attempt(os.utime, f"{d}/f", (1, 2))
    attempt(os.truncate, f"{d}/f", 1)
    attempt(os.setxattr, f"{d}/f", "user.stream", b"value")
    attempt(os.getxattr, f"{d}/f", "user.stream")
    attempt(os.listxattr, f"{d}/f")
    attempt(os.link, f"{d}/f", f"{d}/g")
    attempt(os.symlink, "f", f"{d}/s")
    attempt(os.readlink, f"{d}/s")
    attempt(os.mkfifo, f"{d}/p")
    attempt(os.rename, f"{d}/f", f"{d}/h")
    attempt(os.getxattr, f"{d}/h", "system.cbfs.hard_links")
    for name in ("g", "h", "s", "p", "f"):
        attempt(os.unlink, f"{d}/{name}")
    attempt(os.rmdir, d)
"""

HEALTHY = """
def healthy(at, n):
    d = f"{at}/healthy{n}"
    os.mkdir(d)
    with open(f"{d}/f", "wb") as file:
        file.write(b"x" * 10000)
    with open(f"{d}/f", "rb") as file:
        assert file.read() == b"x" * 10000
    assert os.stat(f"{d}/f").st_size == 10000
    os.rename(f"{d}/f", f"{d}/g")
    assert os.listdir(d) == ["g"]
    os.unlink(f"{d}/g")
    os.rmdir(d)
"""


class AllEvents(MemoryDrive):
    """Handles the events that a drive in memory has no need of."""

    def on_cleanup_file(self, p: Any) -> None:
        pass

    def on_lock_file(self, p: Any) -> None:
        pass

    def on_unlock_file(self, p: Any) -> None:
        pass

    def on_error(self, p: Any) -> None:
        pass


OUTSIDE_A_MOUNT = {
    "on_mount",
    "on_unmount",
    "on_ejected",
    "on_get_volume_label",
    "on_get_volume_id",
    "on_worker_thread_creation",
    "on_worker_thread_termination",
}
HANDLED = {name for name in dir(AllEvents) if name in EVENTS} - OUTSIDE_A_MOUNT


@pytest.fixture
def record() -> Recorder:
    logging.getLogger("cbfsconnect").setLevel(logging.CRITICAL)
    return Recorder(AllEvents())


@pytest.fixture
def drive(mount: Mounting, record: Recorder, client: Client) -> Iterator[cbfsconnect.Drive]:
    """A mounted drive; at the end no handle may be left open in it."""
    drive = mount(record, fire_all_open_close_events=True, config={"MetadataCacheTimeout": 0})
    client.run(EXERCISE + HEALTHY, at=drive.mountpoint)
    yield drive
    record.instead.clear()
    client.run("healthy(at, 'last')")
    drive.cbfs.unmount_media(False)
    drive.cbfs.mount_media(0)
    client.run("healthy(at, 'again')")
    logging.getLogger("cbfsconnect").setLevel(logging.NOTSET)


def settable(event: str) -> list[str]:
    return [p.name for p in EVENTS[event].parameters if p.direction is not Direction.IN]


def after(handler: Callable[[Any], object], name: str, value: object) -> Callable[[Any], None]:
    """A handler that sets one parameter after all is done rightly."""

    def nonsense(params: Any) -> None:
        handler(params)
        setattr(params, name, value)

    return nonsense


@pytest.mark.parametrize("event", sorted(HANDLED))
def test_nonsense_of_every_kind_is_survived(
    drive: cbfsconnect.Drive, record: Recorder, client: Client, event: str
) -> None:
    handler = getattr(record.handlers, event)
    number = 0
    for name in settable(event):
        # What is found for ever is asked for up to a bound, which takes its time.
        for value in NONSENSE[:2] if name.endswith("_found") else NONSENSE:
            record.instead[event] = after(handler, name, value)
            number += 1
            client.run(f"exercise(at, {number})")
            record.instead.clear()
    client.run("healthy(at, 1)")


EXCEPTIONS = [
    KeyboardInterrupt(),
    SystemExit(3),
    StopIteration(),
    MemoryError(),
    OSError("no number"),
    OSError(-5, "below"),
    OSError(1 << 20, "above"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "never"),
]


def test_exceptions_of_every_kind_are_survived(
    drive: cbfsconnect.Drive, record: Recorder, client: Client
) -> None:
    errors = itertools.cycle(EXCEPTIONS)

    def fail(params: Any) -> None:
        raise next(errors)

    for number, event in enumerate(sorted(HANDLED) * len(EXCEPTIONS)):
        record.instead[event] = fail
        client.run(f"exercise(at, {number})")
        record.instead.clear()
    client.run("healthy(at, 1)")


# --- what the client sees ---------------------------------------------------------------


def check_eio(client: Client, code: str) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        client.run(textwrap.dedent(code))


@pytest.mark.parametrize("event", ["on_read_file", "on_write_file"])
def test_a_count_that_cannot_be_is_an_error(
    drive: cbfsconnect.Drive, record: Recorder, client: Client, event: str
) -> None:
    client.run("fd = os.open(at + '/f', os.O_RDWR | os.O_CREAT); os.write(fd, b'hello')")
    client.run("os.fsync(fd); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)")
    name = "bytes_read" if event == "on_read_file" else "bytes_written"
    # The kernel reads and writes pages where a program does so with 5 bytes.
    for count in (-1, 1 << 13, 1 << 40, None, 5.0, True, "5"):
        record.clear()
        record.instead[event] = after(getattr(record.handlers, event), name, count)
        if event == "on_read_file":
            check_eio(client, "os.pread(fd, 5, 0)")
        else:
            check_eio(client, "os.pwrite(fd, b'HELLO', 0); os.fsync(fd)")
        record.instead.clear()
        assert f"{name} is {count!r}" in record.all("on_error")[0].description
    client.run("os.pwrite(fd, b'again', 0); os.fsync(fd)")
    assert client.call("os.pread(fd, 9, 0)") == b"again"
    client.run("os.close(fd)")


BAD_NAMES = ["", "a/b", "/", "a\0b", "x" * 256, "é" * 128, "\ud800", b"bytes", 5, None, ["list"]]


def test_a_name_that_cannot_be_is_left_out_of_the_listing(
    drive: cbfsconnect.Drive, record: Recorder, client: Client
) -> None:
    client.run("for name in ('a', 'bad', 'c'): open(f'{at}/{name}', 'w').close()")

    names = iter(BAD_NAMES)

    def rename(params: Any) -> None:
        AllEvents.on_enumerate_directory(record.handlers, params)  # type: ignore[arg-type]
        if params.file_name == "bad":
            params.file_name = next(names)

    record.instead["on_enumerate_directory"] = rename
    for _ in BAD_NAMES:
        record.clear()
        assert sorted(client.call("os.listdir(at)")) == ["a", "c"]
        assert "on_error" in record.names()
    record.instead.clear()
    assert sorted(client.call("os.listdir(at)")) == ["a", "bad", "c"]


def test_the_dots_are_the_librarys_own(
    drive: cbfsconnect.Drive, record: Recorder, client: Client
) -> None:
    given = iter([".", "real", ".."])

    def enumerate_(params: Any) -> None:
        params.file_name = next(given, "")
        params.file_found = bool(params.file_name)

    record.instead["on_enumerate_directory"] = enumerate_
    listed = client.run("import subprocess; result = subprocess.check_output(['ls', '-aU', at])")
    assert sorted(listed.split()) == [b".", b"..", b"real"]


def test_a_handler_that_knows_only_bad_names_is_not_asked_for_ever(
    drive: cbfsconnect.Drive, record: Recorder, client: Client
) -> None:
    def enumerate_(params: Any) -> None:
        params.file_found, params.file_name = True, "a/b"

    record.instead["on_enumerate_directory"] = enumerate_
    check_eio(client, "os.listdir(at)")
    assert len(record.all("on_enumerate_directory")) < 5000


def test_information_that_cannot_be_is_an_error_and_told(
    drive: cbfsconnect.Drive, record: Recorder, client: Client
) -> None:
    client.run("open(at + '/f', 'w').close()")
    handler = AllEvents.on_get_file_info.__get__(record.handlers)
    for name, value in (("size", -1), ("size", "5"), ("mode", 1 << 40), ("uid", "x")):

        def of_file(params: Any, name: str = name, value: object = value) -> None:
            (after(handler, name, value) if params.file_name == "/f" else handler)(params)

        record.instead["on_get_file_info"] = of_file
        record.clear()
        check_eio(client, "os.stat(at + '/f')")
        assert name in record.all("on_error")[0].description
        check_eio(client, "open(at + '/f')")
    record.instead.clear()
    client.run("os.stat(at + '/f')")
