"""Reparse points, named streams and file ids, as programs on Linux reach them."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cbfsconnect as c
from support.client import Client, run
from support.expecting import answer, expect
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder

ON_ITEM = c.FILE_FLAG_OPEN_REPARSE_POINT | c.FILE_FLAG_BACKUP_SEMANTICS
REPARSE = {"use_reparse_points": True}
STREAMS = {"use_alternate_data_streams": True}
NO_CACHE: dict[str, object] = {"FileCachePolicyWriteThrough": True}
"""Else the kernel itself sets the time of change of what a program changes, a little later."""
ATTRIBUTE = "system.ntfs_reparse_data"


def reparse_data(tag: int, data: bytes) -> bytes:
    """REPARSE_DATA_BUFFER."""
    return tag.to_bytes(4, "little") + len(data).to_bytes(2, "little") + bytes(2) + data


def with_point(tag: int, data: bytes, **more: Any) -> PlainDrive:
    drive = PlainDrive()
    item = drive.add("/point", attributes=c.FILE_ATTRIBUTE_REPARSE_POINT, **more)
    item.reparse = reparse_data(tag, data)
    return drive


# --- reparse points: symbolic links ---


@pytest.mark.proves("on_set_reparse_point", "use_reparse_points")
@pytest.mark.parametrize("target", ["target", "/absolute/äöü", "x" * 4095, "\udcff"])
def test_set_reparse_point_of_a_symbolic_link(mount: Mounting, client: Client, target: str) -> None:
    record = Recorder(PlainDrive())
    at = mount(record, **REPARSE).mountpoint
    client.run("os.symlink(target, at + '/link')", at=at, target=target)
    created = record.one("on_create_file")
    expect(
        created,
        file_name="/link",
        desired_access=c.DESIRED_ACCESS_FILE_GENERIC_READ,
        nt_desired_access=c.DESIRED_ACCESS_FILE_GENERIC_READ,
        attributes=c.FILE_ATTRIBUTE_REPARSE_POINT,
        share_mode=7,
        nt_create_disposition=c.FILE_CREATE,
        mode=stat.S_IFLNK | 0o777,
        uid=os.getuid(),
        gid=os.getgid(),
        rdev=0,
        file_context=0,
        handle_context=0,
    )
    fired = record.one("on_set_reparse_point")
    data = reparse_data(0xA000001D, b"\2\0\0\0" + os.fsencode(target))
    expect(
        fired,
        file_name="/link",
        reparse_tag=c.IO_REPARSE_TAG_LX_SYMLINK,
        reparse_buffer_view=data,
        reparse_buffer_length=len(data),
        file_context=0,
        handle_context=0,
    )
    assert fired.handle_info == created.handle_info
    events = ("on_create_file", "on_set_reparse_point", "on_cleanup_file", "on_close_file")
    assert record.names(*events) == list(events)
    assert client.call("os.readlink(at + '/link')") == target


def test_reparse_data_by_address(mount: Mounting, client: Client) -> None:
    """As ported handlers do it: memmove from and to the address in the parameters."""
    record = Recorder(PlainDrive())
    stored: list[ctypes.Array[ctypes.c_char]] = []

    def set_(p: Any) -> None:
        stored.append(ctypes.create_string_buffer(p.reparse_buffer_length))
        ctypes.memmove(stored[0], p.reparse_buffer, p.reparse_buffer_length)

    def get(p: Any) -> None:
        assert p.reparse_buffer_length >= len(stored[0])
        ctypes.memmove(p.reparse_buffer, stored[0], len(stored[0]))
        p.reparse_buffer_length = len(stored[0])

    record.instead |= {"on_set_reparse_point": set_, "on_get_reparse_point": get}
    at = mount(record, **REPARSE).mountpoint
    client.run("os.symlink('some target', at + '/link')", at=at)
    assert stored[0].raw == reparse_data(0xA000001D, b"\2\0\0\0some target")
    assert client.call("os.readlink(at + '/link')") == "some target"


@pytest.mark.proves("on_get_reparse_point")
def test_get_reparse_point(mount: Mounting, client: Client) -> None:
    record = Recorder(with_point(c.IO_REPARSE_TAG_LX_SYMLINK, b"\2\0\0\0target"))

    def opened_as(p: Any) -> None:
        p.file_context, p.handle_context = 3, 4

    record.before["on_open_file"] = opened_as
    at = mount(record, **REPARSE).mountpoint
    assert client.call("os.readlink(at + '/point')", at=at) == "target"
    opened = record.one("on_open_file")
    assert opened.desired_access == c.DESIRED_ACCESS_FILE_READ_ATTRIBUTES
    assert opened.attributes == c.FILE_ATTRIBUTE_NORMAL | ON_ITEM
    fired = record.one("on_get_reparse_point")
    expect(
        fired,
        file_name="/point",
        reparse_buffer_view=bytes(16384),
        reparse_buffer_length=16384,
        file_context=3,
        handle_context=4,
    )
    assert fired.handle_info == opened.handle_info
    assert len(record.all("on_close_file")) == 1


@pytest.mark.parametrize(
    ("tag", "flags", "stored", "target"),
    [
        (c.IO_REPARSE_TAG_SYMLINK, bytes(4), "dir\\name", "dir/name"),
        (c.IO_REPARSE_TAG_MOUNT_POINT, b"", "\\??\\C:\\dir", "C:/dir"),
    ],
)
def test_links_of_windows_are_understood(
    mount: Mounting, client: Client, tag: int, flags: bytes, stored: str, target: str
) -> None:
    name = stored.encode("utf-16-le")
    shown = "shown".encode("utf-16-le")
    head = [len(shown), len(name), 0, len(shown)]
    body = b"".join(n.to_bytes(2, "little") for n in head) + flags + shown + name
    record = Recorder(with_point(tag, body))
    at = mount(record, **REPARSE).mountpoint
    assert client.call("os.readlink(at + '/point')", at=at) == target


def test_the_tag_is_asked_for_where_the_information_has_none(
    mount: Mounting, client: Client
) -> None:
    """The 2020 edition's file information has no tag: on_get_reparse_point tells it."""
    record = Recorder(with_point(c.IO_REPARSE_TAG_LX_FIFO, b""))
    original = record.handlers.on_get_file_info  # type: ignore[attr-defined]

    def without_tag(p: Any) -> None:
        original(p)
        p.reparse_tag = 0

    record.instead["on_get_file_info"] = without_tag
    at = mount(record, **REPARSE).mountpoint
    assert stat.S_ISFIFO(client.call("os.stat(at + '/point').st_mode", at=at))
    assert record.all("on_get_reparse_point")[0].handle_info == 0
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        client.call("os.readlink(at + '/point')")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        reparse_data(c.IO_REPARSE_TAG_LX_SYMLINK, b"\2\0\0\0"),
        reparse_data(c.IO_REPARSE_TAG_LX_SYMLINK, b"\2\0\0\0with\0nul"),
        reparse_data(c.IO_REPARSE_TAG_LX_SYMLINK, b"\2\0\0\0" + b"x" * 4096),
        reparse_data(0xA0000099, b"what is this?"),
        reparse_data(c.IO_REPARSE_TAG_SYMLINK, b"\0"),
    ],
)
def test_a_link_whose_data_are_nonsense(mount: Mounting, client: Client, data: bytes) -> None:
    drive = PlainDrive()
    drive.add("/point", attributes=0x400, mode=stat.S_IFLNK | 0o777).reparse = data
    record = Recorder(drive)
    record.handle("on_error", lambda p: None)
    at = mount(record, **REPARSE).mountpoint
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        client.call("os.readlink(at + '/point')", at=at)
    assert "on_get_reparse_point" in record.one("on_error").description


@pytest.mark.parametrize("length", [-1, 16385, "8", None])
def test_a_length_of_reparse_data_that_cannot_be(
    mount: Mounting, client: Client, length: object
) -> None:
    record = Recorder(with_point(c.IO_REPARSE_TAG_LX_SYMLINK, b"\2\0\0\0target"))
    record.handle("on_error", lambda p: None)
    record.instead["on_get_reparse_point"] = lambda p: setattr(p, "reparse_buffer_length", length)
    at = mount(record, **REPARSE).mountpoint
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        client.call("os.readlink(at + '/point')", at=at)
    assert "reparse_buffer_length" in record.one("on_error").description


def test_a_link_that_cannot_be_finished_is_taken_back(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive())
    record.instead["on_set_reparse_point"] = answer(c.ERROR_DISK_FULL)
    at = mount(record, **REPARSE).mountpoint
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        client.run("os.symlink('target', at + '/link')", at=at)
    assert record.one("on_close_file").delete_file is True
    assert record.one("on_delete_file").file_name == "/link"
    assert not client.call("os.path.lexists(at + '/link')")


def test_no_links_without_the_property(mount: Mounting, client: Client) -> None:
    record = Recorder(with_point(1, b""))
    at = mount(record).mountpoint
    for code in ("os.symlink('x', at + '/link')", "os.mkfifo(at + '/fifo')"):
        with pytest.raises(PermissionError):
            client.run(code, at=at)
    for code in (f"os.getxattr(at + '/point', '{ATTRIBUTE}')", "os.listxattr(at + '/point')"):
        with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
            client.run(code)
    assert not record.names("on_create_file", "on_set_reparse_point", "on_get_reparse_point")


# --- reparse points: special files, and the attribute ---


@pytest.mark.parametrize(
    ("kind", "rdev", "tag", "data"),
    [
        (stat.S_IFIFO, 0, c.IO_REPARSE_TAG_LX_FIFO, b""),
        (stat.S_IFSOCK, 0, c.IO_REPARSE_TAG_AF_UNIX, b""),
        (stat.S_IFCHR, os.makedev(1, 3), c.IO_REPARSE_TAG_LX_CHR, b"\1\0\0\0\3\0\0\0"),
        (stat.S_IFBLK, os.makedev(7, 300), c.IO_REPARSE_TAG_LX_BLK, b"\7\0\0\0\x2c\1\0\0"),
    ],
)
def test_special_files(
    mount: Mounting, client: Client, kind: int, rdev: int, tag: int, data: bytes
) -> None:
    record = Recorder(PlainDrive())
    at = mount(record, **REPARSE).mountpoint
    client.run("os.mknod(at + '/x', kind | 0o640, rdev)", at=at, kind=kind, rdev=rdev)
    created = record.one("on_create_file")
    assert (created.mode, created.rdev) == (kind | 0o640, rdev)
    assert created.attributes == c.FILE_ATTRIBUTE_REPARSE_POINT
    fired = record.one("on_set_reparse_point")
    assert fired.reparse_tag == tag
    assert fired.reparse_buffer_view == reparse_data(tag, data)
    assert client.call("os.lstat(at + '/x').st_mode") == kind | 0o640


def test_fifos_and_sockets_work(mount: Mounting, client: Client) -> None:
    at = mount(PlainDrive(), **REPARSE).mountpoint
    got = client.run(
        """
        import socket, threading
        os.mkfifo(at + '/fifo')
        writer = threading.Thread(target=lambda: Path(at, 'fifo').write_text('through'))
        writer.start()
        result = [Path(at, 'fifo').read_text()]
        writer.join()
        server = socket.socket(socket.AF_UNIX)
        os.chdir(at)
        server.bind('socket')
        server.listen()
        one = socket.socket(socket.AF_UNIX)
        one.connect('socket')
        other, _ = server.accept()
        one.sendall(b'hello')
        result.append(other.recv(10))
        for s in (one, other, server):
            s.close()
        os.chdir('/')
        """,
        at=at,
    )
    assert got == ["through", b"hello"]


@pytest.mark.proves("on_delete_reparse_point", "on_set_reparse_point", "on_get_reparse_point")
def test_reparse_data_as_an_attribute(mount: Mounting, client: Client) -> None:
    """Any tag, on files and directories: set, get, remove."""
    drive = PlainDrive(file=b"content")
    drive.add_directory("/d")
    record = Recorder(drive)
    at = mount(record, config=NO_CACHE, **REPARSE).mountpoint
    data = reparse_data(0x80000099, b"opaque")
    for path, access in (("/file", 0x80), ("/d", 0x10)):
        record.clear()
        code = f"os.setxattr(at + path, '{ATTRIBUTE}', data)"
        client.run(code, at=at, path=path, data=data)
        fired = record.one("on_set_reparse_point")
        expect(
            fired,
            file_name=path,
            reparse_tag=0x80000099,
            reparse_buffer_view=data,
            reparse_buffer_length=len(data),
            file_context=0,
            handle_context=0,
        )
        opened = record.one("on_open_file")
        assert opened.attributes == access | ON_ITEM
        assert opened.desired_access == c.DESIRED_ACCESS_FILE_WRITE_ATTRIBUTES
        assert fired.handle_info == opened.handle_info
        assert client.call(f"os.getxattr(at + path, '{ATTRIBUTE}')") == data
        client.run(f"os.removexattr(at + path, '{ATTRIBUTE}')")
        removed = record.one("on_delete_reparse_point")
        expect(
            removed,
            file_name=path,
            reparse_buffer_view=data,
            reparse_buffer_length=len(data),
            file_context=0,
            handle_context=0,
        )
        assert removed.given["reparse_buffer"].value
        with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
            client.call(f"os.getxattr(at + path, '{ATTRIBUTE}')")
        with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
            client.run(f"os.removexattr(at + path, '{ATTRIBUTE}')")
        assert len(record.all("on_delete_reparse_point")) == 1
    assert client.call("Path(at, 'file').read_text()") == "content"  # the item itself stays


@pytest.mark.parametrize("data", [b"", b"1234567", bytes(16385)])
def test_reparse_data_that_cannot_be(mount: Mounting, client: Client, data: bytes) -> None:
    record = Recorder(PlainDrive(file=b""))
    at = mount(record, **REPARSE).mountpoint
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        client.run(f"os.setxattr(at + '/file', '{ATTRIBUTE}', data)", at=at, data=data)
    assert not record.all("on_set_reparse_point")


# --- named streams ---


def with_streams() -> PlainDrive:
    drive = PlainDrive(file=b"main")
    drive.add("/file:one", b"1")
    drive.add("/file:two words", b"22")
    return drive


@pytest.mark.proves(
    "on_enumerate_named_streams", "on_close_named_streams_enumeration", "use_alternate_data_streams"
)
def test_enumerate_named_streams(mount: Mounting, client: Client) -> None:
    record = Recorder(with_streams())

    def opened_as(p: Any) -> None:
        p.file_context, p.handle_context = 3, 4

    record.before["on_open_file"] = opened_as
    at = mount(record, **STREAMS).mountpoint
    assert list_once(client, at) == ["user.one", "user.two words"]
    fired = record.all("on_enumerate_named_streams")
    opened = record.one("on_open_file")
    assert opened.attributes == c.FILE_ATTRIBUTE_NORMAL | ON_ITEM
    assert len(fired) == 3
    for number, event in enumerate(fired):
        expect(
            event,
            file_name="/file",
            named_stream_found=False,
            stream_name="",
            stream_size=0,
            stream_allocation_size=0,
            file_context=3,
            handle_context=4,
            enumeration_context=number,
        )
        assert event.handle_info == opened.handle_info
    closed = record.one("on_close_named_streams_enumeration")
    expect(closed, file_name="/file", file_context=3, handle_context=4, enumeration_context=2)
    assert closed.handle_info == opened.handle_info
    assert record.names()[-3:] == [
        "on_close_named_streams_enumeration",
        "on_cleanup_file",
        "on_close_file",
    ]


def list_once(client: Client, at: str) -> list[str]:
    """One listxattr(2); that of Python asks for the size first."""
    names: list[str] = client.run(
        """
        import ctypes
        buffer = ctypes.create_string_buffer(65536)
        size = ctypes.CDLL(None).listxattr(os.fsencode(at + '/file'), buffer, 65536)
        result = buffer.raw[:size].decode().split('\\0')[:-1]
        """,
        at=at,
    )
    return names


def test_contexts_changed_in_the_enumeration_of_streams(mount: Mounting, client: Client) -> None:
    record = Recorder(with_streams())

    def next_context(p: Any) -> None:
        p.file_context += 1
        p.handle_context += 10

    record.before["on_enumerate_named_streams"] = next_context
    record.before["on_close_named_streams_enumeration"] = next_context
    at = mount(record, **STREAMS).mountpoint
    list_once(client, at)
    closed = record.one("on_close_file")
    assert (closed.file_context, closed.handle_context) == (4, 40)


@pytest.mark.parametrize("full_form", [False, True])
def test_stream_names_in_both_forms(mount: Mounting, client: Client, full_form: bool) -> None:
    record = Recorder(with_streams())
    original = record.handlers.on_enumerate_named_streams  # type: ignore[attr-defined]

    def name(p: Any) -> None:
        if full_form and p.enumeration_context == 0:
            p.enumeration_context, p.named_stream_found, p.stream_name = 0.5, True, "::$DATA"
            return
        p.enumeration_context = int(p.enumeration_context)
        original(p)
        if p.named_stream_found:
            p.stream_name = p.stream_name + ":$DATA" if full_form else p.stream_name[1:]

    record.instead["on_enumerate_named_streams"] = name
    at = mount(record, **STREAMS).mountpoint
    assert client.call("os.listxattr(at + '/file')", at=at) == ["user.one", "user.two words"]


@pytest.mark.parametrize("name", [None, 5, ":nul\0", ":" + "x" * 251])
def test_a_stream_name_that_cannot_be(mount: Mounting, client: Client, name: object) -> None:
    record = Recorder(with_streams())
    record.handle("on_error", lambda p: None)
    original = record.handlers.on_enumerate_named_streams  # type: ignore[attr-defined]

    def spoil(p: Any) -> None:
        original(p)
        if p.stream_name == ":one":
            p.stream_name = name

    record.instead["on_enumerate_named_streams"] = spoil
    at = mount(record, **STREAMS).mountpoint
    assert client.call("os.listxattr(at + '/file')", at=at) == ["user.two words"]
    assert repr(name) in record.all("on_error")[0].description


def test_the_enumeration_of_streams_ends_when_it_fails(mount: Mounting, client: Client) -> None:
    record = Recorder(with_streams())

    def fail(p: Any) -> None:
        p.enumeration_context = 77
        p.result_code = c.ERROR_CRC

    record.instead["on_enumerate_named_streams"] = fail
    at = mount(record, **STREAMS).mountpoint
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        client.call("os.listxattr(at + '/file')", at=at)
    closed = record.one("on_close_named_streams_enumeration")
    assert closed.enumeration_context == 77
    assert len(record.all("on_close_file")) == 1


def test_a_new_stream(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b"main"))
    at = mount(record, **STREAMS).mountpoint
    client.run("os.setxattr(at + '/file', 'user.new', b'value')", at=at)
    created = record.one("on_create_file")
    expect(
        created,
        file_name="/file:new",
        desired_access=c.DESIRED_ACCESS_FILE_GENERIC_WRITE,
        nt_desired_access=c.DESIRED_ACCESS_FILE_GENERIC_WRITE,
        attributes=c.FILE_ATTRIBUTE_NORMAL,
        share_mode=7,
        nt_create_disposition=c.FILE_CREATE,
        mode=stat.S_IFREG | 0o644,
        uid=os.getuid(),
        gid=os.getgid(),
        rdev=0,
        file_context=0,
        handle_context=0,
    )
    written = record.one("on_write_file")
    assert (written.file_name, written.position) == ("/file:new", 0)
    assert (written.buffer_view, written.handle_info) == (b"value", created.handle_info)
    of_stream = [f.name for f in record.fired if f.given.get("file_name") == "/file:new"]
    assert of_stream == [
        "on_get_file_info",
        "on_create_file",
        "on_set_file_size",
        "on_write_file",
        "on_cleanup_file",
        "on_close_file",
    ]
    assert client.call("os.getxattr(at + '/file', 'user.new')") == b"value"
    assert client.call("os.listdir(at)") == ["file"]


def test_a_stream_is_replaced(mount: Mounting, client: Client) -> None:
    drive = with_streams()
    record = Recorder(drive)
    at = mount(record, config=NO_CACHE, **STREAMS).mountpoint
    client.run("os.setxattr(at + '/file', 'user.two words', b'x')", at=at)
    opened = record.one("on_open_file")
    assert opened.file_name == "/file:two words"
    assert opened.nt_create_disposition == c.FILE_OVERWRITE
    assert opened.desired_access == c.DESIRED_ACCESS_FILE_GENERIC_WRITE
    assert record.all("on_set_file_size")[0].size == 1
    assert drive.items["/file:two words"].data == b"x"
    assert drive.items["/file"].data == b"main"


def test_a_stream_is_read(mount: Mounting, client: Client) -> None:
    record = Recorder(with_streams())
    at = mount(record, **STREAMS).mountpoint
    assert client.call("os.getxattr(at + '/file', 'user.two words')", at=at) == b"22"
    read = record.one("on_read_file")
    assert (read.file_name, read.position, read.bytes_to_read) == ("/file:two words", 0, 2)
    assert record.one("on_open_file").desired_access == c.DESIRED_ACCESS_FILE_GENERIC_READ
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        client.call("os.getxattr(at + '/file', 'user.none')")


def test_a_stream_is_deleted(mount: Mounting, client: Client) -> None:
    drive = with_streams()
    record = Recorder(drive)
    at = mount(record, config=NO_CACHE, **STREAMS).mountpoint
    client.run("os.removexattr(at + '/file', 'user.one')", at=at)
    events = ("on_open_file", "on_can_file_be_deleted", "on_close_file", "on_delete_file")
    assert record.names(*events) == list(events)
    assert record.one("on_delete_file").file_name == "/file:one"
    assert client.call("os.listxattr(at + '/file')") == ["user.two words"]
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        client.run("os.removexattr(at + '/file', 'user.one')")


def test_flags_of_setxattr(mount: Mounting, client: Client) -> None:
    record = Recorder(with_streams())
    at = mount(record, **STREAMS).mountpoint
    with pytest.raises(FileExistsError):
        client.run("os.setxattr(at + '/file', 'user.one', b'', os.XATTR_CREATE)", at=at)
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        client.run("os.setxattr(at + '/file', 'user.none', b'', os.XATTR_REPLACE)")
    assert not record.names("on_create_file", "on_write_file", "on_set_file_size")
    client.run("os.setxattr(at + '/file', 'user.empty', b'', os.XATTR_CREATE)")
    assert client.call("os.getxattr(at + '/file', 'user.empty')") == b""


def test_a_new_stream_that_cannot_be_written_is_taken_back(mount: Mounting, client: Client) -> None:
    drive = PlainDrive(file=b"")
    record = Recorder(drive)
    record.instead["on_write_file"] = answer(c.ERROR_DISK_FULL)
    at = mount(record, **STREAMS).mountpoint
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        client.run("os.setxattr(at + '/file', 'user.new', b'value')", at=at)
    assert record.one("on_delete_file").file_name == "/file:new"
    assert list(drive.items) == ["/file"]


def test_streams_of_a_directory(mount: Mounting, client: Client) -> None:
    drive = PlainDrive()
    drive.add_directory("/d")
    record = Recorder(drive)
    at = mount(record, **STREAMS).mountpoint
    client.run("os.setxattr(at + '/d', 'user.s', b'v')", at=at)
    assert record.one("on_create_file").file_name == "/d:s"
    assert client.call("os.listxattr(at + '/d'), os.getxattr(at + '/d', 'user.s')") == (
        ["user.s"],
        b"v",
    )


def test_other_attributes_are_no_streams(mount: Mounting, client: Client) -> None:
    record = Recorder(with_streams())
    at = mount(record, **STREAMS).mountpoint
    record.clear()
    for name in ("trusted.x", "security.x", "system.x", "user.one"):
        code = f"os.getxattr(at + '/file', '{name}')"
        if name == "user.one":
            assert client.call(code, at=at) == b"1"
            continue
        with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
            client.call(code, at=at)


def test_the_streams_separator_cannot_be_in_names(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b""))
    at = mount(record, **STREAMS).mountpoint
    for code in (
        "os.close(os.open(at + '/a:b', os.O_CREAT))",
        "os.mkdir(at + '/a:b')",
        "os.rename(at + '/file', at + '/a:b')",
    ):
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            client.run(code, at=at)
    assert not client.call("os.path.exists(at + '/file:one')")
    assert not [f for f in record.fired if ":" in f.given.get("file_name", "")]


@pytest.mark.proves("StreamSeparator")
def test_the_streams_separator_may_be_another(mount: Mounting, client: Client) -> None:
    drive = PlainDrive(file=b"")
    record = Recorder(drive)
    at = mount(record, config={"StreamSeparator": "|"}, **STREAMS).mountpoint
    client.run("os.setxattr(at + '/file', 'user.s', b'v'); os.mkdir(at + '/a:b')", at=at)
    created = [f.file_name for f in record.all("on_create_file")]
    assert created == ["/file|s", "/a:b"]


def test_streams_are_off_by_default(mount: Mounting, client: Client) -> None:
    record = Recorder(with_streams())
    at = mount(record).mountpoint
    with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
        client.call("os.getxattr(at + '/file', 'user.one')", at=at)
    assert not record.names("on_enumerate_named_streams", "on_open_file")


# --- file ids ---

HANDLES = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [('bytes', ctypes.c_uint), ('type', ctypes.c_int), ('data', ctypes.c_char * 128)]
def check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
def handle_of(path):
    handle, mount = Handle(128), ctypes.c_int()
    check(libc.name_to_handle_at(-100, os.fsencode(path), ctypes.byref(handle),
                                 ctypes.byref(mount), 0))
    return bytes(handle)
def open_handle(data, flags=os.O_RDONLY):
    handle = Handle.from_buffer_copy(data)
    return check(libc.open_by_handle_at(root, ctypes.byref(handle), flags))
root = os.open(at, os.O_RDONLY)
"""
IDS = {"UseFileIds": True}


def can_forget() -> bool:
    """Whether the kernel may be told to drop names and inodes that nobody uses."""
    return os.access("/proc/sys/vm/drop_caches", os.W_OK)


def open_forgotten(
    client: Client, handle: str, is_found: Callable[[], object] = lambda: False
) -> None:
    """Have the kernel forget an item, then open it by its handle, as `fd` in the client.

    The kernel drops what it likes: so this is tried until `is_found`, or an OSError.
    """
    for _ in range(50):
        Path("/proc/sys/vm/drop_caches").write_text("2")
        client.run(f"fd = open_handle({handle})")
        if is_found():
            return
        client.run("os.close(fd)")
    raise AssertionError("the kernel does not forget")


def with_tree() -> PlainDrive:
    drive = PlainDrive()
    drive.add_directory("/d")
    drive.add_directory("/d/sub")
    drive.add("/d/sub/file", b"by id")
    return drive


def test_file_ids_are_inode_numbers(mount: Mounting, client: Client) -> None:
    drive = with_tree()
    at = mount(drive, config=IDS).mountpoint
    for path, item in drive.items.items():
        assert client.call("os.stat(at + path).st_ino", at=at, path=path) == item.file_id
    assert client.call("os.stat(at).st_ino") == c.ROOT_FILE_ID


def test_open_by_handle(mount: Mounting, client: Client) -> None:
    at = mount(with_tree(), config=IDS).mountpoint
    client.run(HANDLES, at=at)
    assert client.call("os.read(open_handle(handle_of(at + '/d/sub/file')), 100)") == b"by id"


@pytest.mark.proves("on_get_file_name_by_file_id", "UseFileIds")
def test_get_file_name_by_file_id(mount: Mounting, client: Client) -> None:
    """What the kernel has forgotten is found again by its id, and then opened by its path."""
    drive = with_tree()
    record = Recorder(drive)
    at = mount(record, config=IDS).mountpoint
    client.run(HANDLES, at=at)
    client.run("file = handle_of(at + '/d/sub/file')")
    if not can_forget():
        return
    record.clear()
    open_forgotten(client, "file", lambda: record.all("on_get_file_name_by_file_id"))
    assert client.call("os.read(fd, 100)") == b"by id"
    fired = record.one("on_get_file_name_by_file_id")
    expect(fired, file_id=drive.items["/d/sub/file"].file_id, file_path="")
    assert {f.file_name for f in record.all("on_open_file")} == {"/d/sub/file"}
    after = record.names()[record.names().index("on_get_file_name_by_file_id") :]
    assert after[1] == "on_get_file_info"
    assert "on_open_file" in after


def test_a_directory_is_found_by_its_id(mount: Mounting, client: Client) -> None:
    record = Recorder(with_tree())
    at = mount(record, config=IDS).mountpoint
    client.run(HANDLES, at=at)
    client.run("directory = handle_of(at + '/d/sub')")
    if not can_forget():
        return
    open_forgotten(client, "directory", lambda: record.all("on_get_file_name_by_file_id"))
    assert client.call("os.listdir(fd)") == ["file"]
    assert client.call("os.readlink(f'/proc/self/fd/{fd}')") == f"{at}/d/sub"


def test_an_id_that_the_drive_does_not_know(mount: Mounting, client: Client) -> None:
    record = Recorder(with_tree())
    record.instead["on_get_file_name_by_file_id"] = answer(c.ERROR_FILE_NOT_FOUND)
    at = mount(record, config=IDS).mountpoint
    client.run(HANDLES, at=at)
    client.run("file = handle_of(at + '/d/sub/file')")
    if not can_forget():
        return
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        open_forgotten(client, "file")


def test_a_handle_of_a_moved_file(mount: Mounting, client: Client) -> None:
    record = Recorder(with_tree())
    at = mount(record, config=IDS).mountpoint
    client.run(HANDLES, at=at)
    client.run("file = handle_of(at + '/d/sub/file'); os.rename(at + '/d/sub/file', at + '/moved')")
    assert client.call("os.read(open_handle(file), 100)") == b"by id"


def test_a_handle_of_a_deleted_file(mount: Mounting, client: Client) -> None:
    at = mount(with_tree(), config=IDS).mountpoint
    client.run(HANDLES, at=at)
    client.run("file = handle_of(at + '/d/sub/file'); os.unlink(at + '/d/sub/file')")
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        client.run("open_handle(file)")


@pytest.mark.parametrize("path", ["", "relative", None, "/d/none", "/d/sub"])
def test_a_path_that_is_not_the_ids(mount: Mounting, client: Client, path: object) -> None:
    record = Recorder(with_tree())
    record.handle("on_error", lambda p: None)
    at = mount(record, config=IDS).mountpoint
    client.run(HANDLES, at=at)
    client.run("file = handle_of(at + '/d/sub/file')")
    record.instead["on_get_file_name_by_file_id"] = lambda p: setattr(p, "file_path", path)
    if not can_forget():
        return
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        open_forgotten(client, "file")
    nonsense = not (isinstance(path, str) and path.startswith("/"))
    assert bool(record.all("on_error")) is nonsense


def test_without_file_ids_nothing_is_found_by_them(mount: Mounting, client: Client) -> None:
    """Ids that the library invents end with what the kernel remembers."""
    record = Recorder(with_tree())
    at = mount(record).mountpoint
    client.run(HANDLES, at=at)
    client.run("file = handle_of(at + '/d/sub/file')")
    if not can_forget():
        return
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        open_forgotten(client, "file")
    assert not record.all("on_get_file_name_by_file_id")


def test_two_names_with_one_id_are_one_file(mount: Mounting, client: Client) -> None:
    drive = PlainDrive(a=b"shared")
    drive.items["/b"] = drive.items["/a"]
    record = Recorder(drive)
    at = mount(record, config=IDS).mountpoint
    assert client.call("os.path.samefile(at + '/a', at + '/b')", at=at)
    assert run("stat", "-c", "%i", f"{at}/a", f"{at}/b").split() == ["100", "100"]
