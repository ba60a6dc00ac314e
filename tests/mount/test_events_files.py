"""Every event of files, fired by a program's request through a mount, each parameter checked."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

import cbfsconnect as c
from support.client import Client, run
from support.expecting import answer, expect
from support.mounts import Mounting
from support.plain import BORN, CHANGED, READ, WRITTEN, PlainDrive
from support.recorder import Recorder

GENERIC_READ = c.DESIRED_ACCESS_FILE_GENERIC_READ
GENERIC_WRITE = c.DESIRED_ACCESS_FILE_GENERIC_WRITE
ON_ITEM = c.FILE_FLAG_OPEN_REPARSE_POINT | c.FILE_FLAG_BACKUP_SEMANTICS
EPOCH = datetime(1970, 1, 1)
NO_CACHE = {"FileCachePolicyWriteThrough": True}


# --- creating and opening ---


@pytest.mark.proves("on_create_file")
@pytest.mark.parametrize(
    ("flags", "access", "disposition"),
    [
        (os.O_RDONLY, GENERIC_READ, c.FILE_OPEN_IF),
        (os.O_WRONLY, GENERIC_WRITE, c.FILE_OPEN_IF),
        (os.O_RDWR | os.O_EXCL, GENERIC_READ | GENERIC_WRITE, c.FILE_CREATE),
    ],
)
def test_create_file(
    mount: Mounting, client: Client, flags: int, access: int, disposition: int
) -> None:
    record = Recorder(PlainDrive())
    at = mount(record).mountpoint
    client.run(
        "os.umask(0o027); os.open(at + '/new', flags | os.O_CREAT, 0o666)", **locals_(at, flags)
    )
    fired = record.one("on_create_file")
    expect(
        fired,
        file_name="/new",
        desired_access=access,
        nt_desired_access=access,
        attributes=c.FILE_ATTRIBUTE_NORMAL,
        share_mode=7,
        nt_create_disposition=disposition,
        mode=stat.S_IFREG | 0o640,
        uid=os.getuid(),
        gid=os.getgid(),
        rdev=0,
        file_context=0,
        handle_context=0,
    )
    assert fired.handle_info > 0
    assert fired.file_info > 0
    assert record.names("on_get_file_info", "on_create_file", "on_open_file")[-3:-1] == [
        "on_get_file_info",  # is there such a name?
        "on_create_file",
    ]
    assert not record.all("on_open_file")


def locals_(at: str, flags: int) -> dict[str, Any]:
    return {"at": at, "flags": flags}


def test_create_file_read_only_is_an_attribute(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive())
    at = mount(record).mountpoint
    client.run("os.close(os.open(at + '/ro', os.O_CREAT | os.O_WRONLY, 0o444))", at=at)
    assert record.one("on_create_file").attributes == c.FILE_ATTRIBUTE_READONLY
    assert client.call("os.stat(at + '/ro').st_mode") == stat.S_IFREG | 0o444


@pytest.mark.proves("on_create_file")
def test_mknod_creates_and_closes(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive())
    at = mount(record).mountpoint
    client.run("os.mknod(at + '/made', 0o600 | stat.S_IFREG)", at=at)
    events = ("on_create_file", "on_cleanup_file", "on_close_file")
    assert record.names(*events) == list(events)
    created = record.one("on_create_file")
    assert created.nt_create_disposition == c.FILE_CREATE
    assert created.mode == stat.S_IFREG | 0o600
    assert record.one("on_close_file").handle_info == created.handle_info


@pytest.mark.proves("on_open_file")
@pytest.mark.parametrize(
    ("flags", "access", "attributes", "disposition"),
    [
        (os.O_RDONLY, GENERIC_READ, 0, c.FILE_OPEN),
        (os.O_WRONLY | os.O_TRUNC, GENERIC_WRITE, 0, c.FILE_OVERWRITE),
        (os.O_RDWR, GENERIC_READ | GENERIC_WRITE, 0, c.FILE_OPEN),
        (os.O_WRONLY | os.O_SYNC, GENERIC_WRITE, c.FILE_FLAG_WRITE_THROUGH, c.FILE_OPEN),
        (os.O_WRONLY | os.O_DSYNC, GENERIC_WRITE, c.FILE_FLAG_WRITE_THROUGH, c.FILE_OPEN),
        (os.O_RDONLY | os.O_DIRECT, GENERIC_READ, 0x20000000, c.FILE_OPEN),
    ],
)
def test_open_file(
    mount: Mounting, client: Client, flags: int, access: int, attributes: int, disposition: int
) -> None:
    record = Recorder(PlainDrive(file=b"data"))
    at = mount(record, config=NO_CACHE).mountpoint
    client.run("os.open(at + '/file', flags)", **locals_(at, flags))
    fired = record.one("on_open_file")
    expect(
        fired,
        file_name="/file",
        desired_access=access,
        nt_desired_access=access,
        attributes=c.FILE_ATTRIBUTE_NORMAL | attributes,
        share_mode=7,
        nt_create_disposition=disposition,
        file_context=0,
        handle_context=0,
    )
    assert fired.handle_info > 0
    assert fired.file_info > 0
    truncated = record.all("on_set_file_size")
    assert [t.size for t in truncated] == ([0] if flags & os.O_TRUNC else [])
    assert all(t.handle_info == fired.handle_info for t in truncated)


def test_open_that_is_refused_opens_nothing(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b""))
    record.instead["on_open_file"] = answer(c.ERROR_ACCESS_DENIED)
    drive = mount(record, fire_all_open_close_events=True)
    with pytest.raises(PermissionError):
        client.call("os.open(at + '/file', 0)", at=drive.mountpoint)
    assert not record.all("on_close_file")
    drive.cbfs.unmount_media(False)  # nothing is open


@pytest.mark.proves("on_close_file")
def test_close_file(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b""))
    at = mount(record).mountpoint
    client.run("os.close(os.open(at + '/file', os.O_RDONLY))", at=at)
    (fired,) = record.wait_for("on_close_file")
    expect(fired, file_name="/file", delete_file=False, file_context=0, handle_context=0)
    assert fired.handle_info == record.one("on_open_file").handle_info


def test_an_error_of_close_file_is_nobodys(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b"still there"))
    record.instead["on_close_file"] = answer(c.ERROR_DISK_FULL)
    at = mount(record).mountpoint
    client.run("os.close(os.open(at + '/file', os.O_RDONLY))", at=at)
    record.wait_for("on_close_file")
    assert client.call("Path(at, 'file').read_text()", at=at) == "still there"
    record.wait_for("on_close_file", 2)


# --- data ---


@pytest.mark.proves("on_read_file")
def test_read_file(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=bytes(range(256)) * 40))

    def read(p: Any) -> None:
        assert isinstance(p.buffer, ctypes.c_void_p)
        assert p.buffer.value
        assert len(p.buffer_view) == p.bytes_to_read
        source = (ctypes.c_uint8 * p.bytes_to_read).from_buffer(bytearray(b"x" * p.bytes_to_read))
        ctypes.memmove(p.buffer, source, p.bytes_to_read)
        p.bytes_read = p.bytes_to_read

    record.instead["on_read_file"] = read
    at = mount(record, file_cache=0).mountpoint
    client.run("fd = os.open(at + '/file', os.O_RDONLY)", at=at)
    assert client.call("os.pread(fd, 1000, 77)") == b"x" * 1000
    fired = record.one("on_read_file")
    expect(
        fired,
        file_name="/file",
        position=77,
        bytes_to_read=1000,
        bytes_read=0,
        file_context=0,
        handle_context=0,
    )
    assert fired.handle_info == record.one("on_open_file").handle_info


def test_short_reads_and_the_end(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b"0123456789"))
    at = mount(record, file_cache=0).mountpoint
    client.run("fd = os.open(at + '/file', os.O_RDONLY)", at=at)
    assert client.call("os.pread(fd, 100, 4)") == b"456789"
    assert client.call("os.pread(fd, 100, 10)") == b""
    record.instead["on_read_file"] = answer(c.ERROR_HANDLE_EOF)
    assert client.call("os.pread(fd, 100, 20)") == b""


@pytest.mark.parametrize("count", [-1, 11, None, "3", 2.0])
def test_a_count_of_bytes_read_that_cannot_be(
    mount: Mounting, client: Client, count: object
) -> None:
    record = Recorder(PlainDrive(file=b"0123456789"))
    errors: list[Any] = []
    record.handle("on_error", errors.append)

    def lie(p: Any) -> None:
        p.bytes_read = count

    record.instead["on_read_file"] = lie
    at = mount(record, file_cache=0).mountpoint
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        client.run("os.pread(os.open(at + '/file', 0), 10, 0)", at=at)
    assert "bytes_read" in errors[0].description
    del record.instead["on_read_file"]
    assert client.call("Path(at, 'file').read_bytes()", at=at) == b"0123456789"


@pytest.mark.proves("on_flush_file")
@pytest.mark.parametrize("call", ["os.fsync(fd)", "os.fdatasync(fd)"])
def test_flush_file(mount: Mounting, client: Client, call: str) -> None:
    record = Recorder(PlainDrive(file=b""))
    record.before["on_open_file"] = lambda p: setattr(p, "file_context", 5)
    at = mount(record).mountpoint
    client.run(f"fd = os.open(at + '/file', os.O_RDWR); {call}", at=at)
    expect(record.one("on_flush_file"), file_name="/file", file_context=5)
    record.instead["on_flush_file"] = answer(c.ERROR_DISK_FULL)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        client.run(call)


# --- sizes ---


@pytest.mark.proves("on_set_file_size")
def test_set_file_size_of_an_open_file(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b"0123456789"))
    at = mount(record).mountpoint
    client.run("fd = os.open(at + '/file', os.O_RDWR); os.ftruncate(fd, 4)", at=at)
    fired = record.one("on_set_file_size")
    expect(fired, file_name="/file", size=4, file_context=0, handle_context=0)
    assert fired.handle_info == record.one("on_open_file").handle_info
    client.run("os.ftruncate(fd, 6)")
    assert client.call("os.pread(fd, 100, 0)") == b"0123\0\0"


def test_set_file_size_by_name_opens_the_file(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b"0123456789"))
    at = mount(record).mountpoint
    client.run("os.truncate(at + '/file', 3)", at=at)
    events = ("on_open_file", "on_set_file_size", "on_cleanup_file", "on_close_file")
    assert record.names(*events) == list(events)
    opened = record.one("on_open_file")
    assert opened.desired_access == c.DESIRED_ACCESS_FILE_WRITE_DATA
    assert opened.attributes == c.FILE_ATTRIBUTE_NORMAL | ON_ITEM
    assert opened.nt_create_disposition == c.FILE_OPEN
    assert record.one("on_set_file_size").handle_info == opened.handle_info
    assert client.call("os.stat(at + '/file').st_size", at=at) == 3


@pytest.mark.proves("FireSetFileSizeOnWrite", "on_set_file_size")
@pytest.mark.parametrize("announced", [True, False])
def test_set_file_size_before_a_write_past_the_end(
    mount: Mounting, client: Client, announced: bool
) -> None:
    record = Recorder(PlainDrive(file=b"0123"))
    config = NO_CACHE | {"FireSetFileSizeOnWrite": announced}
    at = mount(record, config=config).mountpoint
    client.run("fd = os.open(at + '/file', os.O_RDWR)", at=at)
    client.run("os.pwrite(fd, b'ab', 1); os.pwrite(fd, b'ABC', 5); os.pwrite(fd, b'xy', 7)")
    writing = record.names("on_set_file_size", "on_write_file")
    size, write = "on_set_file_size", "on_write_file"
    assert writing == ([write, size, write, size, write] if announced else [write] * 3)
    assert [f.size for f in record.all(size)] == ([8, 9] if announced else [])
    assert all(f.handle_info for f in record.all(size))
    assert client.call("os.pread(fd, 100, 0)") == b"0ab3\0ABxy"


def test_set_file_size_of_a_cached_write_has_no_handle(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b""))
    record.before["on_open_file"] = lambda p: setattr(p, "handle_context", 9)
    at = mount(record).mountpoint
    client.run("fd = os.open(at + '/file', os.O_RDWR); os.write(fd, b'abc'); os.fsync(fd)", at=at)
    for event in ("on_set_file_size", "on_write_file"):
        fired = record.one(event)
        assert fired.handle_info == 0
        assert fired.handle_context is None


@pytest.mark.proves("on_set_allocation_size")
def test_set_allocation_size(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b"0123"))
    at = mount(record).mountpoint
    client.run("fd = os.open(at + '/file', os.O_RDWR); os.posix_fallocate(fd, 0, 10000)", at=at)
    fired = record.one("on_set_allocation_size")
    expect(fired, file_name="/file", allocation_size=10000, file_context=0, handle_context=0)
    assert fired.handle_info == record.one("on_open_file").handle_info
    assert record.one("on_set_file_size").size == 10000
    assert client.call("os.fstat(fd).st_size") == 10000


def test_set_allocation_size_alone_keeps_the_size(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b"0123"))
    drive = mount(record)
    path = f"{drive.mountpoint}/file"
    run("fallocate", "--keep-size", "--offset", "4096", "--length", "8192", path)
    assert record.one("on_set_allocation_size").allocation_size == 12288
    assert not record.all("on_set_file_size")
    assert client.call("os.stat(path).st_size", path=path) == 4
    record.instead["on_set_allocation_size"] = answer(c.ERROR_DISK_FULL)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        client.run("os.posix_fallocate(os.open(path, os.O_RDWR), 0, 1 << 20)", path=path)


def test_a_hole_is_written_as_zeros(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b"0123456789"))
    at = mount(record, config=NO_CACHE).mountpoint
    run("fallocate", "--punch-hole", "--offset", "2", "--length", "3", f"{at}/file")
    assert not record.all("on_set_allocation_size")
    assert record.one("on_write_file").position == 2
    assert client.call("Path(at, 'file').read_bytes()", at=at) == b"01\0\0\x0056789"


# --- attributes and information ---


@pytest.mark.proves("on_set_file_attributes")
def test_set_file_attributes_times(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b""))
    at = mount(record, config=NO_CACHE).mountpoint  # else the kernel sets the time of change too
    accessed, written = -1_500_000_000, 1_234_567_890_123_456_789
    client.run("os.utime(at + '/file', ns=(a, w))", at=at, a=accessed, w=written)
    fired = record.one("on_set_file_attributes")
    expect(
        fired,
        file_name="/file",
        creation_time_ns=None,
        creation_time=EPOCH,
        last_access_time_ns=accessed,
        last_access_time=datetime(1969, 12, 31, 23, 59, 58, 500000),
        last_write_time_ns=written,
        last_write_time=datetime(2009, 2, 13, 23, 31, 30, 123456),
        change_time_ns=None,
        change_time=EPOCH,
        attributes=0,
        mode=None,
        uid=None,
        gid=None,
        file_context=0,
        handle_context=0,
    )
    assert fired.handle_info == record.one("on_open_file").handle_info
    assert record.one("on_open_file").desired_access == c.DESIRED_ACCESS_FILE_WRITE_ATTRIBUTES


def test_set_file_attributes_one_time_only(mount: Mounting) -> None:
    record = Recorder(PlainDrive(file=b""))
    at = mount(record).mountpoint
    run("touch", "-m", "-d", "2001-02-03T04:05:06.5Z", f"{at}/file")
    fired = record.one("on_set_file_attributes")
    assert fired.last_write_time == datetime(2001, 2, 3, 4, 5, 6, 500000)
    assert fired.last_access_time == EPOCH
    assert fired.last_access_time_ns is None


@pytest.mark.proves("on_set_file_attributes")
@pytest.mark.parametrize(
    ("mode", "attributes"), [(0o400, c.FILE_ATTRIBUTE_READONLY), (0o4755, 0), (0o600, 0)]
)
def test_set_file_attributes_mode(
    mount: Mounting, client: Client, mode: int, attributes: int
) -> None:
    record = Recorder(PlainDrive(file=b""))
    at = mount(record).mountpoint
    client.run("os.chmod(at + '/file', mode)", at=at, mode=mode)
    fired = record.one("on_set_file_attributes")
    assert (fired.mode, fired.uid, fired.gid) == (mode, None, None)
    assert fired.attributes == attributes
    assert fired.last_write_time_ns is None


def test_set_file_attributes_makes_writable_again(mount: Mounting, client: Client) -> None:
    drive = PlainDrive()
    drive.add("/file", attributes=c.FILE_ATTRIBUTE_READONLY)
    drive.add("/hidden", attributes=c.FILE_ATTRIBUTE_READONLY | c.FILE_ATTRIBUTE_HIDDEN)
    record = Recorder(drive)
    at = mount(record).mountpoint
    client.run("os.chmod(at + '/file', 0o644); os.chmod(at + '/hidden', 0o644)", at=at)
    file, hidden = record.all("on_set_file_attributes")
    assert file.attributes == c.FILE_ATTRIBUTE_NORMAL  # clear all
    assert hidden.attributes == c.FILE_ATTRIBUTE_HIDDEN


@pytest.mark.parametrize("owner", [(12, 34), (12, -1), (-1, 34)])
def test_set_file_attributes_owner(mount: Mounting, client: Client, owner: tuple[int, int]) -> None:
    record = Recorder(PlainDrive(file=b""))
    at = mount(record).mountpoint
    client.run("os.chown(at + '/file', *owner)", at=at, owner=owner)
    fired = record.one("on_set_file_attributes")
    assert (fired.uid, fired.gid) == tuple(None if i < 0 else i for i in owner)


@pytest.mark.proves("on_get_file_info")
def test_get_file_info(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive())

    def info(p: Any) -> None:
        p.file_exists = True
        if p.file_name == "/":
            p.attributes = c.FILE_ATTRIBUTE_DIRECTORY
            return
        p.attributes, p.size, p.allocation_size = c.FILE_ATTRIBUTE_READONLY, 5000, 8192
        p.file_id, p.hard_link_count, p.uid, p.gid = 4711, 3, 55, 66
        p.creation_time = datetime(2000, 1, 1, 0, 0, 1)
        p.last_access_time = datetime(2000, 1, 1, 0, 0, 2, 500)
        p.last_write_time = datetime(2000, 1, 1, 0, 0, 3)
        p.change_time = datetime(2000, 1, 1, 0, 0, 4)
        p.short_file_name = "A~1"

    record.instead["on_get_file_info"] = info
    at = mount(record, config={"UseFileIds": True}).mountpoint
    record.clear()
    seen = client.call("os.stat(at + '/anything')", at=at)
    expect(
        record.one("on_get_file_info", "/anything"),
        file_name="/anything",
        file_context=0,
        file_exists=False,
        size=0,
        allocation_size=None,
        file_id=0,
        attributes=0,
        hard_link_count=1,
        reparse_tag=0,
        short_file_name="",
        real_file_name="",
        mode=None,
        uid=None,
        gid=None,
        rdev=0,
        **{f"{t}_time": EPOCH for t in ("creation", "last_access", "last_write", "change")},
        **{f"{t}_time_ns": None for t in ("creation", "last_access", "last_write", "change")},
    )
    second = 946684800
    assert (seen.st_mode, seen.st_size, seen.st_blocks) == (stat.S_IFREG | 0o444, 5000, 16)
    assert (seen.st_ino, seen.st_nlink, seen.st_uid, seen.st_gid) == (4711, 3, 55, 66)
    assert seen.st_atime_ns == (second + 2) * 10**9 + 500_000
    assert (seen.st_mtime, seen.st_ctime) == (second + 3, second + 4)
    assert run("stat", "--cached=never", "-c", "%W", f"{at}/anything").strip() == str(second + 1)


def test_get_file_info_to_the_nanosecond(mount: Mounting, client: Client) -> None:
    at = mount(PlainDrive(file=b"1234567")).mountpoint
    seen = client.call("os.stat(at + '/file')", at=at)
    assert (seen.st_atime_ns, seen.st_mtime_ns, seen.st_ctime_ns) == (READ, WRITTEN, CHANGED)
    born = run("stat", "-c", "%.9W", f"{at}/file").strip()
    assert born.replace(".", "") == str(BORN)


def test_get_file_info_defaults(mount: Mounting, client: Client) -> None:
    """Only existence is told: a file with customary permissions, of who serves the drive."""
    record = Recorder(PlainDrive())

    def info(p: Any) -> None:
        p.file_exists = True
        p.attributes = c.FILE_ATTRIBUTE_DIRECTORY if p.file_name.endswith("/") else 0

    record.instead["on_get_file_info"] = info
    at = mount(record).mountpoint
    seen = client.call("os.stat(at + '/x')", at=at)
    assert seen.st_mode == stat.S_IFREG | 0o644
    assert (seen.st_uid, seen.st_gid, seen.st_nlink, seen.st_size) == (
        os.getuid(),
        os.getgid(),
        1,
        0,
    )
    assert client.call("os.stat(at).st_mode", at=at) == stat.S_IFDIR | 0o755


@pytest.mark.proves("on_get_file_info")
def test_get_file_info_says_no(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive())
    at = mount(record).mountpoint
    with pytest.raises(FileNotFoundError):
        client.call("os.stat(at + '/missing')", at=at)
    assert record.all("on_get_file_info", "/missing")
    record.instead["on_get_file_info"] = answer(c.ERROR_CRC)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        client.call("os.stat(at + '/broken')", at=at)


def test_get_file_info_gives_the_stored_spelling(mount: Mounting, client: Client) -> None:
    """A drive whose names differ in case only from what is asked: one file, one identity."""
    drive = PlainDrive()
    drive.add("/ReadMe", b"text")
    record = Recorder(drive)

    def info(p: Any) -> None:
        for path in drive.items:
            if path.casefold() == p.file_name.casefold():
                p.file_exists, p.real_file_name, p.size = True, path[1:], 4
                return
        drive.on_get_file_info(p)

    record.instead["on_get_file_info"] = info
    at = mount(record).mountpoint
    assert client.call("Path(at, 'README').read_text()", at=at) == "text"
    assert record.one("on_open_file").file_name == "/ReadMe"
    assert client.call("os.path.samefile(at + '/readme', at + '/ReadMe')", at=at)


# --- deleting and renaming ---


@pytest.mark.proves("on_delete_file")
def test_delete_file(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b""))

    def opened_as(p: Any) -> None:
        p.file_context, p.handle_context = 3, 4

    record.before["on_open_file"] = opened_as
    at = mount(record).mountpoint
    client.run("os.unlink(at + '/file')", at=at)
    events = (
        "on_open_file",
        "on_can_file_be_deleted",
        "on_cleanup_file",
        "on_close_file",
        "on_delete_file",
    )
    assert record.names(*events) == list(events)
    opened = record.one("on_open_file")
    assert opened.desired_access == 0x10000  # DELETE
    asked = record.one("on_can_file_be_deleted")
    expect(asked, file_name="/file", file_context=3, handle_context=4, can_be_deleted=True)
    assert asked.handle_info == opened.handle_info
    closed = record.one("on_close_file")
    expect(closed, file_name="/file", delete_file=True, file_context=3, handle_context=4)
    expect(record.one("on_delete_file"), file_name="/file", file_context=3)
    assert not client.call("os.path.exists(at + '/file')", at=at)


def test_delete_of_an_open_file_waits_for_its_last_handle(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b"still readable"))
    at = mount(record).mountpoint
    client.run("fd = os.open(at + '/file', os.O_RDONLY); os.unlink(at + '/file')", at=at)
    assert record.one("on_can_file_be_deleted")
    assert not record.all("on_delete_file")
    assert client.call("os.listdir(at)", at=at) == []
    assert client.call("os.pread(fd, 100, 0)") == b"still readable"
    client.run("os.close(fd)")
    record.wait_for("on_delete_file")
    assert record.one("on_close_file", "/file").delete_file is True
    assert record.names()[-2:] == ["on_close_file", "on_delete_file"]


def test_the_name_of_a_deleted_open_file_is_free(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b"old"))
    at = mount(record).mountpoint
    client.run("fd = os.open(at + '/file', os.O_RDONLY); os.unlink(at + '/file')", at=at)
    client.run("Path(at, 'file').write_text('new')")
    assert client.call("Path(at, 'file').read_text()") == "new"
    assert client.call("os.pread(fd, 100, 0)") == b"old"
    moved = record.one("on_rename_or_move_file")
    assert moved.file_name == "/file"
    client.run("os.close(fd)")
    (deleted,) = record.wait_for("on_delete_file")
    assert deleted.file_name == moved.new_file_name
    assert client.call("os.listdir(at)") == ["file"]


@pytest.mark.proves("PosixDelete")
def test_delete_of_an_open_file_with_posix_delete(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b""))
    record.before["on_open_file"] = lambda p: setattr(p, "file_context", 3)
    at = mount(record, config={"PosixDelete": True} | NO_CACHE).mountpoint
    client.run("fd = os.open(at + '/file', os.O_RDONLY); os.unlink(at + '/file')", at=at)
    expect(record.one("on_delete_file"), file_name="/file", file_context=3)
    assert not record.all("on_close_file")
    client.run("os.close(fd)")
    (closed,) = record.wait_for("on_close_file")
    assert closed.delete_file is False


def test_a_deleted_file_is_left_alone(mount: Mounting, client: Client) -> None:
    """The kernel writes a time of change to what it has just deleted; the name may be another's."""
    record = Recorder(PlainDrive(file=b""))
    drive = mount(record)
    client.run("os.unlink(at + '/file')", at=drive.mountpoint)
    drive.unmount()
    assert not record.all("on_set_file_attributes")
    assert len(record.all("on_open_file", "/file")) == 1


@pytest.mark.proves("on_can_file_be_deleted")
@pytest.mark.parametrize(
    ("allowed", "code", "number"),
    [
        (False, 0, errno.EACCES),
        (False, c.ERROR_WRITE_PROTECT, errno.EROFS),
        (True, c.ERROR_SHARING_VIOLATION, errno.EBUSY),
    ],
)
def test_deletion_that_is_refused(
    mount: Mounting, client: Client, allowed: bool, code: int, number: int
) -> None:
    record = Recorder(PlainDrive(file=b"stays"))

    def refuse(p: Any) -> None:
        p.can_be_deleted, p.result_code = allowed, code

    record.instead["on_can_file_be_deleted"] = refuse
    at = mount(record).mountpoint
    with pytest.raises(OSError, match=os.strerror(number)):
        client.run("os.unlink(at + '/file')", at=at)
    assert record.one("on_close_file").delete_file is False
    assert not record.all("on_delete_file")
    assert client.call("Path(at, 'file').read_text()", at=at) == "stays"


@pytest.mark.proves("on_rename_or_move_file")
def test_rename_file(mount: Mounting, client: Client) -> None:
    drive = PlainDrive(file=b"moved")
    drive.add_directory("/there")
    record = Recorder(drive)
    record.before["on_open_file"] = lambda p: setattr(p, "file_context", 8)
    record.before["on_rename_or_move_file"] = lambda p: setattr(p, "file_context", 9)
    at = mount(record).mountpoint
    client.run("fd = os.open(at + '/file', os.O_RDONLY)", at=at)
    client.run("os.rename(at + '/file', at + '/there/new')")
    fired = record.one("on_rename_or_move_file")
    expect(fired, file_name="/file", new_file_name="/there/new", exchange=False, file_context=8)
    assert client.call("os.pread(fd, 100, 0)") == b"moved"
    read = record.one("on_read_file")
    assert (read.file_name, read.file_context) == ("/there/new", 9)
    assert not client.call("os.path.exists(at + '/file')")


def test_rename_of_a_closed_file_has_no_context(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b""))
    at = mount(record).mountpoint
    client.run("os.rename(at + '/file', at + '/other')", at=at)
    assert record.one("on_rename_or_move_file").file_context == 0
    assert client.call("os.listdir(at)") == ["other"]


def test_rename_over_a_file(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(a=b"A", b=b"B"))
    at = mount(record).mountpoint
    client.run("os.rename(at + '/a', at + '/b')", at=at)
    record.one("on_rename_or_move_file")
    assert not record.all("on_delete_file")  # the handler replaces what is there
    assert client.call("Path(at, 'b').read_text()", at=at) == "A"
    record.instead["on_rename_or_move_file"] = answer(c.ERROR_ALREADY_EXISTS)
    with pytest.raises(FileExistsError):
        client.run("os.rename(at + '/b', at + '/c')")
    assert client.call("os.listdir(at)") == ["b"]


RENAMEAT2 = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def renameat2(old, new, flags):
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
"""


def test_rename_that_may_not_replace(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(a=b"A", b=b"B"))
    at = mount(record).mountpoint
    client.run(RENAMEAT2)
    with pytest.raises(FileExistsError):
        client.run("renameat2(at + '/a', at + '/b', 1)", at=at)
    assert not record.all("on_rename_or_move_file")
    client.run("renameat2(at + '/a', at + '/c', 1)")
    assert record.one("on_rename_or_move_file").new_file_name == "/c"


@pytest.mark.proves("on_rename_or_move_file", "SupportExchange")
def test_rename_that_swaps(mount: Mounting, client: Client) -> None:
    drive = PlainDrive(a=b"A", b=b"B")
    record = Recorder(drive)

    def swap(p: Any) -> None:
        old, new = p.file_name, p.new_file_name
        drive.items[old], drive.items[new] = drive.items[new], drive.items[old]

    record.instead["on_rename_or_move_file"] = swap
    at = mount(record, config={"SupportExchange": True}).mountpoint
    client.run(RENAMEAT2)
    client.run("renameat2(at + '/a', at + '/b', 2)", at=at)
    assert record.one("on_rename_or_move_file").exchange is True
    assert client.call("Path(at, 'a').read_text() + Path(at, 'b').read_text()") == "BA"


def test_rename_that_swaps_is_refused_by_other_drives(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(a=b"A", b=b"B"))
    at = mount(record).mountpoint
    client.run(RENAMEAT2)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        client.run("renameat2(at + '/a', at + '/b', 2)", at=at)
    assert not record.all("on_rename_or_move_file")


@pytest.mark.proves("FastRenameMove")
def test_slow_rename_closes_and_opens_again(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b"data"))
    at = mount(record, config={"FastRenameMove": False}).mountpoint
    client.run("fd = os.open(at + '/file', os.O_RDONLY)", at=at)
    client.run("os.rename(at + '/file', at + '/new')")
    around = ("on_open_file", "on_cleanup_file", "on_close_file", "on_rename_or_move_file")
    assert record.names(*around) == [*around, "on_open_file"]
    assert [f.file_name for f in record.all("on_open_file")] == ["/file", "/new"]
    assert client.call("os.pread(fd, 100, 0)") == b"data"


# --- whatever a handler answers ---


def _raise(kind: type[BaseException], *args: object) -> Callable[[Any], None]:
    def handler(p: Any) -> None:
        raise kind(*args)

    return handler


REQUESTS = {
    "on_get_file_info": "os.stat(at + '/other')",
    "on_create_file": "os.open(at + '/new', os.O_CREAT | os.O_RDWR)",
    "on_open_file": "os.open(at + '/other', os.O_RDONLY)",
    "on_read_file": "os.pread(fd, 10, 0)",
    "on_flush_file": "os.fsync(fd)",
    "on_set_file_size": "os.ftruncate(fd, 2)",
    "on_set_allocation_size": "os.posix_fallocate(fd, 0, 99999)",
    "on_set_file_attributes": "os.chmod(at + '/file', 0o600)",
    "on_can_file_be_deleted": "os.unlink(at + '/file')",
    "on_delete_file": "os.unlink(at + '/file')",
    "on_is_directory_empty": "os.rmdir(at + '/directory')",
    "on_rename_or_move_file": "os.rename(at + '/file', at + '/moved')",
    "on_enumerate_directory": "os.listdir(at)",
    "on_get_volume_size": "os.statvfs(at)",
    "on_lock_file": "fcntl.lockf(fd, fcntl.LOCK_EX)",
    "on_set_reparse_point": "os.symlink('target', at + '/symlink')",
    "on_get_reparse_point": "os.readlink(at + '/link')",
    "on_delete_reparse_point": "os.removexattr(at + '/point', 'system.ntfs_reparse_data')",
    "on_enumerate_named_streams": "os.listxattr(at + '/file')",
}
ANSWERS = [
    (answer(c.ERROR_DISK_QUOTA_EXCEEDED), errno.EDQUOT, None),
    (answer(c.win32_from_errno(errno.ENOTUNIQ)), errno.ENOTUNIQ, None),
    (answer(-1), errno.EIO, None),
    (_raise(OSError, errno.EDQUOT, "quota"), errno.EDQUOT, None),
    (_raise(OSError, "no number"), errno.EIO, "OSError: no number"),
    (_raise(ZeroDivisionError, "oh"), errno.EIO, "ZeroDivisionError: oh"),
    (_raise(KeyboardInterrupt), errno.EIO, "KeyboardInterrupt: "),
]


@pytest.mark.parametrize("event", REQUESTS)
def test_failing_handlers(mount: Mounting, client: Client, event: str) -> None:
    """A result code, an OSError and any other exception reach the client; the mount lives on."""
    drive = PlainDrive(file=b"0123456789", other=b"")
    drive.add_directory("/directory")
    tag = (c.IO_REPARSE_TAG_LX_SYMLINK).to_bytes(4, "little")
    drive.add("/link", mode=stat.S_IFLNK | 0o777, attributes=0x400, reparse=tag + b"\4\0\0\0....")
    drive.add("/point", mode=stat.S_IFREG | 0o600, attributes=0x400, reparse=b"\1\0\0\0\0\0\0\0")
    record = Recorder(drive)
    if event == "on_lock_file":
        record.handle("on_lock_file", answer(0))
        record.handle("on_unlock_file", answer(0))
    errors: list[tuple[int, str]] = []
    record.handle("on_error", lambda p: errors.append((p.error_code, p.description)))
    options = {"use_reparse_points": True, "use_alternate_data_streams": True}
    at = mount(record, file_cache=0, metadata_cache_enabled=False, **options).mountpoint
    client.run("fd = os.open(at + '/file', os.O_RDWR)", at=at)
    for handler, number, description in ANSWERS:
        errors.clear()
        if event == "on_delete_file":  # a failing deletion is told when it is done at once
            client.run("os.close(fd)")
            record.wait_for("on_close_file")
        record.instead[event] = handler
        with pytest.raises(OSError) as failure:  # noqa: PT011 - the number is checked below
            client.run(REQUESTS[event])
        del record.instead[event]
        assert failure.value.errno == number
        told = [] if description is None else [(c.ERROR_IO_DEVICE, f"{event}: {description}")]
        assert errors == told
        if event == "on_delete_file":
            record.clear()
            client.run("fd = os.open(at + '/file', os.O_RDWR)")
    assert client.call("os.pread(fd, 4, 0)") == b"0123"


def test_a_failing_on_error_is_only_logged(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b"works"))
    record.handle("on_error", _raise(ZeroDivisionError))
    record.instead["on_open_file"] = _raise(ZeroDivisionError)
    at = mount(record).mountpoint
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        client.run("os.open(at + '/file', 0)", at=at)
    assert len(record.all("on_error")) == 1
    del record.instead["on_open_file"]
    assert client.call("Path(at, 'file').read_text()", at=at) == "works"
