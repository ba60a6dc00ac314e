"""Every event of directories, fired by a program's request through a mount."""

from __future__ import annotations

import errno
import os
import stat
from datetime import datetime
from typing import Any

import pytest

import cbfsconnect as c
from support.client import Client, run
from support.expecting import answer, expect
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder

EPOCH = datetime(1970, 1, 1)
TIMES = ("creation", "last_access", "last_write", "change")
ON_ITEM = c.FILE_FLAG_OPEN_REPARSE_POINT | c.FILE_FLAG_BACKUP_SEMANTICS


def with_directory(*names: str) -> PlainDrive:
    drive = PlainDrive()
    drive.add_directory("/d")
    for name in names:
        drive.add(f"/d/{name}")
    return drive


# --- listing ---


@pytest.mark.proves("on_enumerate_directory")
def test_enumerate_directory(mount: Mounting, client: Client) -> None:
    record = Recorder(with_directory("one", "two"))
    at = mount(record).mountpoint
    assert client.call("os.listdir(at + '/d')", at=at) == ["one", "two"]
    record.wait_for("on_close_file")
    opened = record.one("on_open_file")
    fired = record.all("on_enumerate_directory")
    assert len(fired) == 3
    for number, event in enumerate(fired):
        expect(
            event,
            directory_name="/d",
            mask="*",
            case_sensitive=False,
            restart=number == 0,
            file_found=False,
            file_name="",
            short_file_name="",
            size=0,
            allocation_size=None,
            file_id=0,
            attributes=0,
            hard_link_count=0,
            reparse_tag=0,
            mode=None,
            uid=None,
            gid=None,
            rdev=0,
            directory_context=0,
            handle_context=0,
            enumeration_context=number,
            **{f"{t}_time": EPOCH for t in TIMES},
            **{f"{t}_time_ns": None for t in TIMES},
        )
        assert event.handle_info == opened.handle_info
    assert [event.left["file_found"] for event in fired] == [True, True, False]
    assert record.names("on_open_file", "on_enumerate_directory", "on_close_file")[0] == opened.name


def test_open_of_a_directory(mount: Mounting, client: Client) -> None:
    record = Recorder(with_directory())
    at = mount(record).mountpoint
    client.run("os.listdir(at + '/d')", at=at)
    record.wait_for("on_close_file")
    expect(
        record.one("on_open_file"),
        file_name="/d",
        desired_access=c.DESIRED_ACCESS_FILE_GENERIC_READ,
        nt_desired_access=c.DESIRED_ACCESS_FILE_GENERIC_READ,
        attributes=c.FILE_ATTRIBUTE_DIRECTORY | c.FILE_FLAG_BACKUP_SEMANTICS,
        share_mode=7,
        nt_create_disposition=c.FILE_OPEN,
        file_context=0,
        handle_context=0,
    )
    expect(
        record.one("on_close_file"),
        file_name="/d",
        delete_file=False,
        file_context=0,
        handle_context=0,
    )
    assert len(record.all("on_cleanup_file")) == 1


def test_case_sensitive_is_passed_on(mount: Mounting, client: Client) -> None:
    record = Recorder(with_directory())
    at = mount(record, use_case_sensitive_file_names=True).mountpoint
    client.run("os.listdir(at + '/d')", at=at)
    assert record.one("on_enumerate_directory").case_sensitive is True


def test_what_is_told_with_a_name_reaches_stat(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive())

    def tell(p: Any) -> None:
        p.file_found, p.enumeration_context = p.restart, 1
        p.file_name, p.short_file_name = "told", "TOLD~1"
        p.attributes, p.size, p.allocation_size = c.FILE_ATTRIBUTE_READONLY, 5000, 8192
        p.file_id, p.hard_link_count, p.uid, p.gid = 4711, 2, 33, 44
        p.last_access_time = datetime(2001, 1, 1)
        p.last_write_time = datetime(2002, 1, 1, 0, 0, 0, 7)
        p.change_time_ns = 3

    record.instead["on_enumerate_directory"] = tell
    at = mount(record, use_hard_links=True).mountpoint
    seen = client.run("entry, = os.scandir(at); result = entry.name, entry.stat()", at=at)
    assert seen[0] == "told"
    told = seen[1]
    assert (told.st_mode, told.st_size, told.st_blocks) == (stat.S_IFREG | 0o444, 5000, 16)
    assert (told.st_ino, told.st_nlink, told.st_uid, told.st_gid) == (4711, 2, 33, 44)
    assert told.st_atime == 978307200
    assert told.st_mtime_ns == 1009843200_000007000
    assert told.st_ctime_ns == 3
    assert not record.all("on_get_file_info", "/told")


@pytest.mark.parametrize(
    ("mode", "attributes", "tag", "kind"),
    [
        (None, c.FILE_ATTRIBUTE_DIRECTORY, 0, stat.S_IFDIR),
        (None, c.FILE_ATTRIBUTE_NORMAL, 0, stat.S_IFREG),
        (stat.S_IFIFO | 0o600, 0, 0, stat.S_IFIFO),
        (stat.S_IFSOCK | 0o600, 0, 0, stat.S_IFSOCK),
        (None, c.FILE_ATTRIBUTE_REPARSE_POINT, c.IO_REPARSE_TAG_LX_FIFO, stat.S_IFIFO),
        (None, c.FILE_ATTRIBUTE_REPARSE_POINT, c.IO_REPARSE_TAG_SYMLINK, stat.S_IFLNK),
        (None, 0x410, c.IO_REPARSE_TAG_MOUNT_POINT, stat.S_IFLNK),
        (None, 0x410, 0xA0000099, stat.S_IFDIR),
    ],
)
def test_types_of_entries(
    mount: Mounting, client: Client, mode: int | None, attributes: int, tag: int, kind: int
) -> None:
    record = Recorder(PlainDrive())

    def tell(p: Any) -> None:
        p.file_found, p.file_name = p.restart, "x"
        p.mode, p.attributes, p.reparse_tag = mode, attributes, tag

    record.instead["on_enumerate_directory"] = tell
    at = mount(record).mountpoint
    code = "entry, = os.scandir(at); result = entry.stat(follow_symlinks=False).st_mode"
    assert stat.S_IFMT(client.run(code, at=at)) == kind
    is_directory = client.call("entry.is_dir(follow_symlinks=False)")
    assert is_directory == (kind == stat.S_IFDIR)


def test_a_listing_may_be_read_again(mount: Mounting, client: Client) -> None:
    record = Recorder(with_directory("one", "two"))
    at = mount(record).mountpoint
    client.run(
        """
        import ctypes
        libc = ctypes.CDLL(None)
        libc.fdopendir.restype = libc.readdir64.restype = ctypes.c_void_p
        def names():
            found = []
            while entry := libc.readdir64(ctypes.c_void_p(directory)):
                found.append(ctypes.string_at(entry + 19))
            return found
        directory = libc.fdopendir(os.open(at + '/d', os.O_RDONLY))
        """,
        at=at,
    )
    expected = [b".", b"..", b"one", b"two"]
    assert client.call("names()") == expected
    assert len(record.all("on_close_directory_enumeration")) == 1  # at its end, before it is closed
    client.run("libc.rewinddir(ctypes.c_void_p(directory))")
    assert client.call("names()") == expected
    assert [f.restart for f in record.all("on_enumerate_directory")] == [True, False, False] * 2
    client.run("libc.closedir(ctypes.c_void_p(directory))")
    record.wait_for("on_close_file")
    assert len(record.all("on_close_directory_enumeration")) == 2
    assert len(record.all("on_open_file")) == 1


@pytest.mark.proves("on_close_directory_enumeration")
def test_close_directory_enumeration(mount: Mounting, client: Client) -> None:
    record = Recorder(with_directory("one"))
    record.before["on_open_file"] = lambda p: setattr(p, "file_context", 5)
    record.before["on_enumerate_directory"] = lambda p: setattr(p, "directory_context", 6)
    record.before["on_close_directory_enumeration"] = lambda p: setattr(p, "directory_context", 7)
    at = mount(record).mountpoint
    client.run("os.listdir(at + '/d')", at=at)
    (closed,) = record.wait_for("on_close_file")
    expect(
        record.one("on_close_directory_enumeration"),
        directory_name="/d",
        directory_context=6,
        enumeration_context=1,
    )
    assert closed.file_context == 7


def many_names() -> list[str]:
    return [f"{number:0200}" for number in range(300)]


def test_a_reader_that_stops_early_ends_the_enumeration_too(
    mount: Mounting, client: Client
) -> None:
    record = Recorder(with_directory(*many_names()))
    at = mount(record).mountpoint
    client.run("listing = os.scandir(at + '/d'); next(listing)", at=at)
    assert not record.all("on_close_directory_enumeration")
    assert record.all("on_enumerate_directory")[-1].left["file_found"]
    client.run("listing.close()")
    record.wait_for("on_close_file")
    assert record.one("on_close_directory_enumeration")


def test_a_long_listing_is_whole(mount: Mounting, client: Client) -> None:
    record = Recorder(with_directory(*many_names()))
    at = mount(record).mountpoint
    assert client.call("os.listdir(at + '/d')", at=at) == many_names()
    assert len(record.all("on_enumerate_directory")) == 301  # each entry once
    assert run("ls", "-U", f"{at}/d").split() == many_names()


def test_seeking_in_a_listing(mount: Mounting, client: Client) -> None:
    at = mount(with_directory(*many_names())).mountpoint
    client.run(
        """
        import ctypes
        libc = ctypes.CDLL(None)
        libc.fdopendir.restype = libc.readdir64.restype = ctypes.c_void_p
        libc.telldir.restype = ctypes.c_long
        directory = ctypes.c_void_p(libc.fdopendir(os.open(at + '/d', os.O_RDONLY)))
        def name():
            return ctypes.string_at(libc.readdir64(directory) + 19)
        places = []
        for n in range(302):
            places.append((libc.telldir(directory), name()))
        def there(n):
            libc.seekdir(directory, ctypes.c_long(places[n][0]))
            return name() == places[n][1]
        """,
        at=at,
    )
    assert client.call("[there(n) for n in (250, 3, 301, 0, 150, 151, 149, 2)]") == [True] * 8


def test_an_error_comes_after_the_names_before_it(mount: Mounting, client: Client) -> None:
    record = Recorder(with_directory("one", "two"))

    def break_off(p: Any) -> None:
        if p.enumeration_context == 1:
            p.result_code = c.ERROR_CRC

    record.before["on_enumerate_directory"] = break_off
    at = mount(record).mountpoint
    client.run("names = []; listing = os.scandir(at + '/d')", at=at)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        client.run("names.extend(e.name for e in listing)")
    assert client.call("names") == ["one"]
    assert len(record.all("on_enumerate_directory")) == 2  # it was not asked again
    client.run("listing.close()")
    record.wait_for("on_close_file")
    assert record.one("on_close_directory_enumeration")
    del record.before["on_enumerate_directory"]
    assert client.call("os.listdir(at + '/d')") == ["one", "two"]


@pytest.mark.parametrize("name", ["a/b", "", "x" * 256, "nul\0", 5, None, b"bytes/"])
def test_a_name_that_cannot_be(mount: Mounting, client: Client, name: object) -> None:
    """It is left out and told to on_error; the others are listed."""
    record = Recorder(with_directory("one", "bad", "two"))
    record.handle("on_error", lambda p: None)

    def spoil(p: Any) -> None:
        record.handlers.on_enumerate_directory(p)  # type: ignore[attr-defined]
        if p.file_name == "bad":
            p.file_name = name

    record.instead["on_enumerate_directory"] = spoil
    at = mount(record).mountpoint
    assert client.call("os.listdir(at + '/d')", at=at) == ["one", "two"]
    assert repr(name) in record.one("on_error").description


def test_dots_are_the_librarys(mount: Mounting, client: Client) -> None:
    drive = with_directory("one")
    drive.items = {"/d": drive.items["/d"], "/d/.": drive.items["/d/one"]} | drive.items
    drive.add("/d/..")
    record = Recorder(drive)
    record.handle("on_error", lambda p: None)
    at = mount(record).mountpoint
    assert run("ls", "-aU", f"{at}/d").split() == [".", "..", "one"]
    assert not record.all("on_error")


def test_nonsense_about_an_entry(mount: Mounting, client: Client) -> None:
    """Attributes that cannot be: the entry is left out and told to on_error."""
    record = Recorder(with_directory("one", "bad", "two"))
    record.handle("on_error", lambda p: None)

    def spoil(p: Any) -> None:
        record.handlers.on_enumerate_directory(p)  # type: ignore[attr-defined]
        if p.file_name == "bad":
            p.attributes, p.size = c.FILE_ATTRIBUTE_NORMAL, -1

    record.instead["on_enumerate_directory"] = spoil
    at = mount(record).mountpoint
    assert client.call("os.listdir(at + '/d')", at=at) == ["one", "two"]
    assert "size is -1" in record.one("on_error").description


# --- making and removing ---


def test_create_of_a_directory(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive())
    at = mount(record).mountpoint
    client.run("os.umask(0o022); os.mkdir(at + '/new', 0o775)", at=at)
    expect(
        record.one("on_create_file"),
        file_name="/new",
        desired_access=c.DESIRED_ACCESS_FILE_GENERIC_READ,
        nt_desired_access=c.DESIRED_ACCESS_FILE_GENERIC_READ,
        attributes=c.FILE_ATTRIBUTE_DIRECTORY,
        share_mode=7,
        nt_create_disposition=c.FILE_CREATE,
        mode=stat.S_IFDIR | 0o755,
        uid=os.getuid(),
        gid=os.getgid(),
        rdev=0,
        file_context=0,
        handle_context=0,
    )
    events = ("on_create_file", "on_cleanup_file", "on_close_file", "on_open_file")
    assert record.names(*events) == list(events[:3])
    assert client.call("os.listdir(at)") == ["new"]
    with pytest.raises(FileExistsError):
        client.run("os.mkdir(at + '/new')")


@pytest.mark.proves("on_can_file_be_deleted", "on_is_directory_empty")
def test_delete_of_a_directory(mount: Mounting, client: Client) -> None:
    record = Recorder(with_directory())
    record.before["on_open_file"] = lambda p: setattr(p, "file_context", 5)
    at = mount(record).mountpoint
    client.run("os.rmdir(at + '/d')", at=at)
    events = (
        "on_open_file",
        "on_can_file_be_deleted",
        "on_is_directory_empty",
        "on_cleanup_file",
        "on_close_file",
        "on_delete_file",
    )
    assert record.names(*events) == list(events)
    opened = record.one("on_open_file")
    assert opened.attributes == c.FILE_ATTRIBUTE_DIRECTORY | ON_ITEM
    assert opened.desired_access == 0x10000  # DELETE
    expect(
        record.one("on_can_file_be_deleted"),
        file_name="/d",
        file_context=5,
        handle_context=0,
        can_be_deleted=True,
    )
    expect(
        record.one("on_is_directory_empty"),
        directory_name="/d",
        directory_context=5,
        is_empty=True,
    )
    assert record.one("on_close_file").delete_file is True
    expect(record.one("on_delete_file"), file_name="/d", file_context=5)
    assert client.call("os.listdir(at)") == []


@pytest.mark.proves("on_is_directory_empty")
def test_is_directory_empty_says_no(mount: Mounting, client: Client) -> None:
    record = Recorder(with_directory("file"))
    at = mount(record).mountpoint
    with pytest.raises(OSError, match=os.strerror(errno.ENOTEMPTY)):
        client.run("os.rmdir(at + '/d')", at=at)
    assert record.one("on_is_directory_empty").left["is_empty"] is False
    assert record.one("on_close_file").delete_file is False
    assert not record.all("on_delete_file")


def test_is_directory_empty_fails(mount: Mounting, client: Client) -> None:
    record = Recorder(with_directory())
    record.instead["on_is_directory_empty"] = answer(c.ERROR_ACCESS_DENIED)
    at = mount(record).mountpoint
    with pytest.raises(PermissionError):
        client.run("os.rmdir(at + '/d')", at=at)
    assert not record.all("on_delete_file")


@pytest.mark.proves("use_directory_empty_check")
def test_is_directory_empty_is_not_asked_without_the_check(mount: Mounting, client: Client) -> None:
    """Then it is on_can_file_be_deleted that says no, with the code of its choice."""
    record = Recorder(with_directory("file"))

    def judge(p: Any) -> None:
        if record.handlers.children(p.file_name):  # type: ignore[attr-defined]
            p.can_be_deleted, p.result_code = False, c.ERROR_DIR_NOT_EMPTY

    record.instead["on_can_file_be_deleted"] = judge
    at = mount(record, use_directory_empty_check=False).mountpoint
    with pytest.raises(OSError, match=os.strerror(errno.ENOTEMPTY)):
        client.run("os.rmdir(at + '/d')", at=at)
    client.run("os.unlink(at + '/d/file'); os.rmdir(at + '/d')")
    assert not record.all("on_is_directory_empty")
    assert client.call("os.listdir(at)") == []


def test_without_a_handler_the_listing_tells_whether_it_is_empty(
    mount: Mounting, client: Client
) -> None:
    record = Recorder(with_directory("file"))
    del record.on_is_directory_empty  # type: ignore[attr-defined]
    at = mount(record).mountpoint
    with pytest.raises(OSError, match=os.strerror(errno.ENOTEMPTY)):
        client.run("os.rmdir(at + '/d')", at=at)
    assert len(record.all("on_enumerate_directory")) == 1
    assert len(record.all("on_close_directory_enumeration")) == 1
    client.run("os.unlink(at + '/d/file'); os.rmdir(at + '/d')")
    assert client.call("os.listdir(at)") == []


def test_flush_of_a_directory(mount: Mounting, client: Client) -> None:
    record = Recorder(with_directory())
    at = mount(record).mountpoint
    client.run("os.fsync(os.open(at + '/d', os.O_RDONLY))", at=at)
    expect(record.one("on_flush_file"), file_name="/d", file_context=0)


def test_attributes_of_a_directory(mount: Mounting, client: Client) -> None:
    record = Recorder(with_directory())
    at = mount(record).mountpoint
    client.run("os.chmod(at + '/d', 0o500); os.chown(at + '/d', 1, 2)", at=at)
    mode, owner = record.all("on_set_file_attributes")
    assert (mode.file_name, mode.mode) == ("/d", 0o500)
    assert (owner.uid, owner.gid) == (1, 2)
    assert record.all("on_open_file")[0].attributes == c.FILE_ATTRIBUTE_DIRECTORY | ON_ITEM


def test_rename_of_a_directory(mount: Mounting, client: Client) -> None:
    record = Recorder(with_directory("file"))
    at = mount(record).mountpoint
    client.run("os.stat(at + '/d/file'); os.rename(at + '/d', at + '/e')", at=at)
    expect(
        record.one("on_rename_or_move_file"),
        file_name="/d",
        new_file_name="/e",
        exchange=False,
        file_context=0,
    )
    record.clear()
    assert client.call("Path(at, 'e/file').read_bytes()") == b""
    assert record.one("on_open_file").file_name == "/e/file"


def test_rename_over_an_empty_directory(mount: Mounting, client: Client) -> None:
    """It is deleted first: no handler of Windows replaces a directory."""
    drive = with_directory("file")
    drive.add_directory("/empty")
    record = Recorder(drive)
    at = mount(record).mountpoint
    client.run("os.rename(at + '/d', at + '/empty')", at=at)
    events = ("on_is_directory_empty", "on_delete_file", "on_rename_or_move_file")
    assert record.names(*events) == list(events)
    assert client.call("os.listdir(at + '/empty')") == ["file"]
    drive.add_directory("/full")
    drive.add("/full/file")
    with pytest.raises(OSError, match=os.strerror(errno.ENOTEMPTY)):
        client.run("os.rename(at + '/empty', at + '/full')")
    assert len(record.all("on_rename_or_move_file")) == 1
