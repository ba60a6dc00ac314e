"""`system.ntfs_attrib`, `…_times`, `…_crtime`, `…_dos_name`: what ntfs-3g made customary."""

import errno
import os
import struct
import sys
from typing import Any

import pytest

from cbfsconnect import (
    FILE_ATTRIBUTE_ARCHIVE,
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_HIDDEN,
    FILE_ATTRIBUTE_NORMAL,
    FILE_ATTRIBUTE_READONLY,
    MemoryDrive,
)
from support.client import Client
from support.failing import FAILURES, Complaints, Failure, refused
from support.mounts import Mounting
from support.plain import BORN, CHANGED, READ, WRITTEN, PlainDrive
from support.recorder import Recorder
from support.serving import serve

EVENT = "on_set_file_attributes"
NATIVE = "<" if sys.byteorder == "little" else ">"
ORDERS = pytest.mark.parametrize(("ending", "order"), [("", NATIVE), ("_be", ">")])
UNTIL = """
deadline = time.monotonic() + 20
while os.stat(at + '/d/f').st_mtime_ns != expected:
    assert time.monotonic() < deadline, os.stat(at + '/d/f')
"""
STRANGER = """
os.chdir(at)
os.seteuid(1234)
try:
    os.getxattr('f', 'system.ntfs_attrib')
    os.setxattr('f', 'system.ntfs_attrib', bytes(4))
finally:
    os.seteuid(0)
    os.chdir('/')
"""
ON = {"NtfsAttributes": True}


def ticks(nanoseconds: int) -> int:
    return nanoseconds // 100 + 116444736000000000


def get(client: Client, name: str, path: str = "/f") -> bytes:
    value = client.call(f"os.getxattr(at + {path!r}, 'system.ntfs_{name}')")
    assert isinstance(value, bytes)
    return value


def put(client: Client, name: str, value: bytes, path: str = "/f") -> None:
    client.run(f"os.setxattr(at + {path!r}, 'system.ntfs_{name}', value)", value=value)


@pytest.fixture
def plain(mount: Mounting, client: Client) -> tuple[Recorder, PlainDrive]:
    drive = PlainDrive(f=b"data")
    drive.add_directory("/dir")
    # With a write-back cache the kernel would set the file's change time itself afterwards.
    config = ON | {"FileCachePolicyWriteThrough": True}
    record, _ = serve(mount, client, drive, config=config)
    return record, drive


Plain = tuple[Recorder, PlainDrive]


# --- Windows attributes -----------------------------------------------------------------


@ORDERS
def test_attributes_are_read(plain: Plain, client: Client, ending: str, order: str) -> None:
    record, drive = plain
    drive.items["/f"].attributes = FILE_ATTRIBUTE_HIDDEN | FILE_ATTRIBUTE_ARCHIVE
    assert get(client, "attrib" + ending) == struct.pack(order + "I", 0x22)
    assert get(client, "attrib" + ending, "/dir") == struct.pack(order + "I", 0x10)
    assert record.names("on_open_file", EVENT) == []


def test_attributes_of_a_drive_that_knows_modes_only(plain: Plain, client: Client) -> None:
    _, drive = plain
    drive.items["/f"].attributes, drive.items["/f"].mode = 0, 0o100444
    assert get(client, "attrib_be") == struct.pack(">I", FILE_ATTRIBUTE_READONLY)


@ORDERS
def test_attributes_are_set(plain: Plain, client: Client, ending: str, order: str) -> None:
    record, _ = plain
    put(client, "attrib" + ending, struct.pack(order + "I", 0x23))
    fired = record.one(EVENT)
    assert (fired.file_name, fired.attributes) == ("/f", 0x23)
    times = ("creation", "last_access", "last_write", "change")
    assert [fired.given[f"{name}_time_ns"] for name in times] == [None] * 4
    assert (fired.mode, fired.uid, fired.gid) == (None, None, None)
    assert fired.handle_info == record.one("on_open_file").handle_info
    assert record.names("on_cleanup_file", "on_close_file") == ["on_cleanup_file", "on_close_file"]


def test_only_what_can_change_changes(plain: Plain, client: Client) -> None:
    record, _ = plain
    put(client, "attrib_be", struct.pack(">I", 0xFFFFFFFF), "/dir")
    put(client, "attrib_be", struct.pack(">I", 0))
    put(client, "attrib_be", struct.pack(">I", FILE_ATTRIBUTE_DIRECTORY))
    given = [fired.attributes for fired in record.all(EVENT)]
    assert given[0] & FILE_ATTRIBUTE_DIRECTORY
    assert not given[0] & 0x4C80  # normal, reparse point, compressed, encrypted
    assert given[1:] == [FILE_ATTRIBUTE_NORMAL] * 2


def test_the_mode_follows_at_once(plain: Plain, client: Client) -> None:
    _, drive = plain
    record, _ = plain

    def store(params: Any) -> None:
        drive.items[params.file_name].attributes = params.attributes

    record.instead[EVENT] = store
    assert client.call("stat.S_IMODE(os.stat(at + '/f').st_mode)") == 0o644
    put(client, "attrib_be", struct.pack(">I", FILE_ATTRIBUTE_READONLY))
    assert client.call("stat.S_IMODE(os.stat(at + '/f').st_mode)") == 0o444


# --- Times ------------------------------------------------------------------------------


@ORDERS
def test_times_are_read(plain: Plain, client: Client, ending: str, order: str) -> None:
    expected = [ticks(t) for t in (BORN, WRITTEN, READ, CHANGED)]
    assert get(client, "times" + ending) == struct.pack(order + "4Q", *expected)
    assert get(client, "crtime" + ending) == struct.pack(order + "Q", expected[0])


def test_times_that_the_drive_does_not_give(plain: Plain, client: Client) -> None:
    record, drive = plain

    def without_times(params: Any) -> None:
        drive.on_get_file_info(params)
        params.creation_time_ns = params.last_access_time_ns = params.change_time_ns = None

    record.instead["on_get_file_info"] = without_times
    assert get(client, "times_be") == struct.pack(">4Q", *[ticks(WRITTEN)] * 4)


@ORDERS
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_times_are_set(plain: Plain, client: Client, ending: str, order: str, count: int) -> None:
    record, _ = plain
    times = [10**9 * n + 100 * n for n in (1, 2, 3, 4)]
    put(client, "times" + ending, struct.pack(f"{order}{count}Q", *map(ticks, times[:count])))
    fired = record.one(EVENT)
    names = ("creation", "last_write", "last_access", "change")
    expected = times[:count] + [None] * (4 - count)
    assert [fired.given[f"{name}_time_ns"] for name in names] == expected
    assert fired.attributes == 0


@ORDERS
def test_the_creation_time_is_set(plain: Plain, client: Client, ending: str, order: str) -> None:
    record, _ = plain
    put(client, "crtime" + ending, struct.pack(order + "Q", ticks(-(10**9))))
    fired = record.one(EVENT)
    assert fired.creation_time_ns == -(10**9)
    assert fired.last_write_time_ns is None


def test_zero_leaves_a_time_as_it_is(plain: Plain, client: Client) -> None:
    record, _ = plain
    put(client, "times_be", struct.pack(">3Q", 0, ticks(0), (1 << 64) - 1))
    fired = record.one(EVENT)
    assert fired.creation_time_ns is None
    assert fired.last_write_time_ns == 0
    assert fired.last_access_time_ns is None


# --- Both -------------------------------------------------------------------------------


LENGTHS = [("attrib", 3), ("attrib", 8), ("times", 0), ("times", 7), ("times", 40)]


@pytest.mark.parametrize(("name", "length"), [*LENGTHS, ("crtime", 16), ("crtime", 4)])
def test_values_of_another_length_are_invalid(
    plain: Plain, client: Client, name: str, length: int
) -> None:
    with refused(errno.EINVAL):
        put(client, name, bytes(length))
    assert plain[0].names(EVENT) == []


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("name", ["attrib", "crtime"])
def test_a_handler_that_fails(
    mount: Mounting,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    failure: Failure,
    name: str,
) -> None:
    record = Recorder(PlainDrive(f=b"data"))
    complaints = Complaints(record, caplog)
    serve(mount, client, record, config=ON)
    record.instead[EVENT] = failure
    with refused(failure.errno):
        put(client, name, b"\1" * (4 if name == "attrib" else 8))
    complaints.check(failure, EVENT, "/f")
    assert len(record.wait_for("on_close_file")) == 1


@pytest.mark.parametrize("name", ["attrib", "times", "crtime"])
def test_information_that_fails(plain: Plain, client: Client, name: str) -> None:
    record, drive = plain
    client.call("os.stat(at + '/f')")
    record.instead["on_get_file_info"] = Failure("OSError", errno.EDQUOT)
    with refused(errno.EDQUOT):
        get(client, name)
    record.instead["on_get_file_info"] = drive.on_get_file_info


def test_they_cannot_be_made_or_removed(plain: Plain, client: Client) -> None:
    with refused(errno.EEXIST):
        client.run("os.setxattr(at + '/f', 'system.ntfs_crtime', bytes(8), os.XATTR_CREATE)")
    with refused(errno.EOPNOTSUPP):
        client.run("os.removexattr(at + '/f', 'system.ntfs_crtime')")


def test_without_a_handler_they_are_read_only(mount: Mounting, client: Client) -> None:
    drive = PlainDrive(f=b"data")
    record = Recorder(drive)
    delattr(record, EVENT)
    serve(mount, client, record, config=ON)
    assert get(client, "attrib_be") == struct.pack(">I", FILE_ATTRIBUTE_NORMAL)
    with refused(errno.EOPNOTSUPP):
        put(client, "attrib_be", bytes(4))


def test_a_drive_without_extended_attributes_is_asked_for_none(
    mount: Mounting, client: Client
) -> None:
    serve(mount, client, PlainDrive(f=b"data"))
    with refused(errno.EOPNOTSUPP):
        get(client, "attrib")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_only_root_and_the_owner_may_set_them(plain: Plain, client: Client) -> None:
    record, _ = plain
    with refused(errno.EPERM):
        client.run(STRANGER)
    assert record.names(EVENT) == []


def test_the_memory_drive_keeps_the_time_of_creation(mount: Mounting, client: Client) -> None:
    serve(mount, client, MemoryDrive())
    client.run("open(at + '/f', 'w').close()")
    put(client, "crtime_be", struct.pack(">Q", ticks(86400 * 10**9)))
    assert get(client, "crtime_be") == struct.pack(">Q", ticks(86400 * 10**9))


def test_times_win_against_those_that_the_kernel_has_cached(
    mount: Mounting, client: Client
) -> None:
    serve(mount, client, MemoryDrive())
    client.run("os.mkdir(at + '/d')")
    client.run("open(at + '/d/f', 'w').write('data')")
    before = client.call("os.stat(at + '/d/f').st_ino")
    put(client, "times_be", struct.pack(">2Q", ticks(10**18), ticks(10**18 + 100)), "/d/f")
    # A notification tells the kernel, a moment later.
    client.run(UNTIL, expected=10**18 + 100)
    for _ in range(2):
        client.run("os.sync()")
        assert client.call("os.stat(at + '/d/f').st_mtime_ns") == 10**18 + 100
        assert client.call("os.stat(at + '/d/f').st_ino") == before
        assert client.call("open(at + '/d/f').read()") == "data"


# --- Short names ------------------------------------------------------------------------


class ShortNames(PlainDrive):
    def on_get_file_info(self, p: Any) -> None:
        super().on_get_file_info(p)
        if p.file_name == "/a long name.text":
            p.short_file_name = "ALONGN~1.TEX"


def test_the_short_name_is_read(mount: Mounting, client: Client) -> None:
    drive = ShortNames(f=b"", **{"a long name.text": b""})
    serve(mount, client, drive, use_short_file_names=True)
    assert get(client, "dos_name", "/a long name.text") == b"ALONGN~1.TEX"
    with refused(errno.ENODATA):
        get(client, "dos_name")
    with refused(errno.EOPNOTSUPP):
        put(client, "dos_name", b"OTHER")


def test_a_short_name_of_no_kind_is_refused(
    mount: Mounting, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    drive = PlainDrive(f=b"")
    record, _ = serve(mount, client, drive, use_short_file_names=True)
    client.call("os.stat(at + '/f')")

    def nonsense(params: Any) -> None:
        drive.on_get_file_info(params)
        params.short_file_name = 5

    record.instead["on_get_file_info"] = nonsense
    with refused(errno.EIO):
        get(client, "dos_name")
    assert "short_file_name is 5" in caplog.text


def test_without_the_property_there_is_no_short_name(mount: Mounting, client: Client) -> None:
    serve(mount, client, ShortNames(**{"a long name.text": b""}), config=ON)
    with refused(errno.EOPNOTSUPP):
        get(client, "dos_name", "/a long name.text")
