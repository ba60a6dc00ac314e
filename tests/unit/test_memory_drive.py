"""MemoryDrive, called as the library calls it: one params object per event."""

from __future__ import annotations

import errno
import stat
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbfsconnect.constants import IO_REPARSE_TAG_LX_SYMLINK, ROOT_FILE_ID
from cbfsconnect.drives import MemoryDrive
from cbfsconnect.errors import ERROR_MORE_DATA
from cbfsconnect.events import (
    EVENTS,
    CBFSCanFileBeDeletedEventParams,
    CBFSCloseFileEventParams,
    CBFSCreateFileEventParams,
    CBFSCreateHardLinkEventParams,
    CBFSDeleteFileEventParams,
    CBFSDeleteReparsePointEventParams,
    CBFSEnumerateDirectoryEventParams,
    CBFSEnumerateHardLinksEventParams,
    CBFSEnumerateNamedStreamsEventParams,
    CBFSGetFileInfoEventParams,
    CBFSGetFileNameByFileIdEventParams,
    CBFSGetReparsePointEventParams,
    CBFSGetVolumeIdEventParams,
    CBFSGetVolumeLabelEventParams,
    CBFSGetVolumeSizeEventParams,
    CBFSIsDirectoryEmptyEventParams,
    CBFSOpenFileEventParams,
    CBFSReadFileEventParams,
    CBFSRenameOrMoveFileEventParams,
    CBFSSetAllocationSizeEventParams,
    CBFSSetFileAttributesEventParams,
    CBFSSetFileSizeEventParams,
    CBFSSetReparsePointEventParams,
    CBFSWriteFileEventParams,
)

MIB = 1 << 20
OPENING = {
    "desired_access": 0,
    "share_mode": 0,
    "nt_create_disposition": 0,
    "nt_desired_access": 0,
    "file_info": 0,
    "handle_info": 0,
}


class Driver:
    """Fires events at a drive with few words."""

    def __init__(self, size: int = 64 * MIB) -> None:
        self.drive = MemoryDrive(size)

    def create(self, path: str, mode: int = stat.S_IFREG | 0o644, rdev: int = 0) -> Any:
        attributes = 0x10 if stat.S_ISDIR(mode) else 0x80
        p = CBFSCreateFileEventParams(
            path, attributes=attributes, mode=mode, uid=7, gid=8, rdev=rdev, **OPENING
        )
        self.drive.on_create_file(p)
        return p.file_context

    def close(self, context: Any) -> None:
        self.drive.on_close_file(CBFSCloseFileEventParams("", False, 0, context, 0))

    def open(self, path: str) -> Any:
        p = CBFSOpenFileEventParams(path, attributes=0, **OPENING)
        self.drive.on_open_file(p)
        return p.file_context

    def make(self, path: str, data: bytes = b"", mode: int = stat.S_IFREG | 0o644) -> None:
        context = self.create(path, mode)
        if data:
            self.write(context, 0, data)
        self.close(context)

    def mkdir(self, path: str) -> None:
        self.make(path, mode=stat.S_IFDIR | 0o755)

    def write(self, context: Any, position: int, data: bytes) -> int:
        view = memoryview(bytearray(data + b"?"))
        p = CBFSWriteFileEventParams("", position, view, len(data), 0, context)
        self.drive.on_write_file(p)
        return p.bytes_written

    def read(self, context: Any, position: int, count: int) -> bytes:
        buffer = bytearray(b"?" * (count + 1))
        p = CBFSReadFileEventParams("", position, memoryview(buffer), count, 0, context)
        self.drive.on_read_file(p)
        assert buffer[count:] == b"?"
        return bytes(buffer[: p.bytes_read])

    def content(self, path: str) -> bytes:
        context = self.open(path)
        data = self.read(context, 0, MIB)
        self.close(context)
        return data

    def truncate(self, context: Any, size: int) -> None:
        self.drive.on_set_file_size(CBFSSetFileSizeEventParams("", size, 0, context))

    def reserve(self, context: Any, size: int) -> None:
        self.drive.on_set_allocation_size(CBFSSetAllocationSizeEventParams("", size, 0, context))

    def info(self, path: str, context: Any = 0) -> CBFSGetFileInfoEventParams:
        p = CBFSGetFileInfoEventParams(path, context)
        self.drive.on_get_file_info(p)
        return p

    def exists(self, path: str) -> bool:
        return self.info(path).file_exists

    def delete(self, path: str) -> None:
        self.drive.on_delete_file(CBFSDeleteFileEventParams(path))

    def rename(self, path: str, new_path: str, exchange: bool = False) -> None:
        p = CBFSRenameOrMoveFileEventParams(path, new_path, exchange)
        self.drive.on_rename_or_move_file(p)

    def link(self, path: str, new_path: str, context: Any = 0) -> None:
        self.drive.on_create_hard_link(CBFSCreateHardLinkEventParams(path, new_path, 0, context))

    def entries(self, path: str) -> list[CBFSEnumerateDirectoryEventParams]:
        """The entries, each in a params object of its own."""
        found = []
        p = CBFSEnumerateDirectoryEventParams(path, 0)
        while self.next_entry(p):
            found.append(p)
            p = CBFSEnumerateDirectoryEventParams(
                path, 0, enumeration_context=p.enumeration_context
            )
        return found

    def next_entry(self, p: CBFSEnumerateDirectoryEventParams) -> str:
        self.drive.on_enumerate_directory(p)
        return p.file_name if p.file_found else ""

    def is_empty(self, path: str) -> bool:
        p = CBFSIsDirectoryEmptyEventParams(path)
        self.drive.on_is_directory_empty(p)
        return p.is_empty

    def names(self, path: str) -> list[str]:
        return [entry.file_name for entry in self.entries(path)]

    def links(self, path: str) -> list[tuple[str, str]]:
        """The directory's path and the name of each link."""
        found = []
        p = CBFSEnumerateHardLinksEventParams(path, 0)
        self.drive.on_enumerate_hard_links(p)
        while p.link_found:
            found.append((self.path_of(p.parent_id), p.link_name))
            self.drive.on_enumerate_hard_links(p)
        return sorted(found)

    def path_of(self, file_id: int) -> str:
        p = CBFSGetFileNameByFileIdEventParams(file_id)
        self.drive.on_get_file_name_by_file_id(p)
        return p.file_path

    def streams(self, path: str) -> dict[str, int]:
        found = {}
        p = CBFSEnumerateNamedStreamsEventParams(path, 0)
        self.drive.on_enumerate_named_streams(p)
        while p.named_stream_found:
            found[p.stream_name] = p.stream_size
            self.drive.on_enumerate_named_streams(p)
        return found

    def set(self, path: str, **changes: int) -> None:
        self.drive.on_set_file_attributes(CBFSSetFileAttributesEventParams(path, 0, **changes))

    def set_reparse(self, path: str, data: bytes) -> None:
        view = memoryview(data + b"?")
        p = CBFSSetReparsePointEventParams(path, 0, view, len(data), 0)
        self.drive.on_set_reparse_point(p)

    def symlink(self, path: str, target: bytes) -> None:
        context = self.create(path, stat.S_IFLNK | 0o777)
        self.set_reparse(path, symlink_data(target))
        self.close(context)

    def reparse(self, path: str, room: int = 16384) -> tuple[bytes, int]:
        """The data given and the result code."""
        buffer = bytearray(room)
        p = CBFSGetReparsePointEventParams(path, memoryview(buffer), 0, room)
        self.drive.on_get_reparse_point(p)
        return bytes(buffer[: p.reparse_buffer_length]), p.result_code

    def free(self) -> int:
        """Free space in bytes, in whole sectors."""
        p = CBFSGetVolumeSizeEventParams()
        self.drive.on_get_volume_size(p)
        return p.available_sectors * 512


def symlink_data(target: bytes) -> bytes:
    return struct.pack("<IHHI", IO_REPARSE_TAG_LX_SYMLINK, 4 + len(target), 0, 2) + target


@pytest.fixture
def driver() -> Driver:
    return Driver()


def fails(number: int, action: Callable[..., object], *arguments: Any) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is checked
        action(*arguments)
    assert caught.value.errno == number


# --- the drive as a whole ---


class FakeCBFS:
    use_hard_links = False
    use_reparse_points = False
    use_alternate_data_streams = False
    use_case_sensitive_file_names = False
    support_change_time_attribute = False
    fire_all_open_close_events = True
    serialize_access = True

    def __init__(self) -> None:
        self.settings: list[str] = []

    def config(self, configuration_string: str, /) -> str:
        self.settings.append(configuration_string)
        return ""


def test_configure_declares_what_the_drive_relies_on() -> None:
    cbfs = FakeCBFS()
    MemoryDrive().configure(cbfs)
    assert cbfs.use_hard_links
    assert cbfs.use_reparse_points
    assert cbfs.use_alternate_data_streams
    assert cbfs.use_case_sensitive_file_names
    assert cbfs.support_change_time_attribute
    assert not cbfs.fire_all_open_close_events
    assert "PosixDelete=True" in cbfs.settings
    assert "StreamSeparator=\0" in cbfs.settings


def test_every_handler_names_an_event() -> None:
    handlers = {name for name in dir(MemoryDrive) if name.startswith("on_")}
    assert handlers <= EVENTS.keys()
    assert {"on_open_file", "on_read_file", "on_get_file_info"} <= handlers


def test_volume_tells_size_label_and_id() -> None:
    drive = MemoryDrive(8 * MIB, "scratch")
    size, label, volume = (
        CBFSGetVolumeSizeEventParams(),
        CBFSGetVolumeLabelEventParams(),
        CBFSGetVolumeIdEventParams(),
    )
    drive.on_get_volume_size(size)
    drive.on_get_volume_label(label)
    drive.on_get_volume_id(volume)
    assert (size.total_sectors, size.available_sectors) == (16384, 16384)
    assert label.buffer == "scratch"
    assert 0 < volume.volume_id < 1 << 32


@pytest.mark.parametrize(("size", "label"), [(0, ""), (-1, ""), (MIB, "x" * 33)])
def test_bad_sizes_and_labels_are_refused(size: int, label: str) -> None:
    with pytest.raises(ValueError, match=r"size|label"):
        MemoryDrive(size, label)


# --- creating and information ---


def test_root_is_a_directory(driver: Driver) -> None:
    root = driver.info("/")
    assert root.file_exists
    assert root.mode == stat.S_IFDIR | 0o755
    assert (root.file_id, root.hard_link_count, root.attributes) == (ROOT_FILE_ID, 2, 0x10)


def test_a_new_file_has_mode_owner_and_one_time(driver: Driver) -> None:
    driver.make("/f", mode=stat.S_IFREG | 0o4751)
    f = driver.info("/f")
    assert (f.mode, f.uid, f.gid, f.size, f.hard_link_count) == (0o104751, 7, 8, 0, 1)
    assert f.allocation_size == 0
    assert f.attributes == 0x80
    times = {f.creation_time_ns, f.last_access_time_ns, f.last_write_time_ns, f.change_time_ns}
    assert len(times) == 1
    assert times == {driver.info("/").last_write_time_ns}


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
def test_special_files_keep_kind_and_device(driver: Driver, kind: int) -> None:
    driver.close(driver.create("/special", kind | 0o600, rdev=0x501))
    item = driver.info("/special")
    assert (item.mode, item.rdev) == (kind | 0o600, 0x501)


def test_what_is_not_there_does_not_exist(driver: Driver) -> None:
    driver.make("/f")
    assert not driver.exists("/g")
    assert not driver.exists("/f/below")
    assert not driver.exists("/no/such")
    fails(errno.ENOENT, driver.open, "/g")
    fails(errno.ENOENT, driver.create, "/no/such")
    fails(errno.ENOENT, driver.delete, "/g")
    fails(errno.EEXIST, driver.create, "/f")


def test_ids_are_never_used_again(driver: Driver) -> None:
    seen = set()
    for _ in range(10):
        driver.make("/f")
        seen.add(driver.info("/f").file_id)
        driver.delete("/f")
    assert len(seen) == 10


def test_names_are_limited_in_bytes_not_characters(driver: Driver) -> None:
    driver.make("/" + "n" * 255)
    driver.make("/" + "é" * 127)
    driver.make("/\udcff" + "n" * 254)
    fails(errno.ENAMETOOLONG, driver.create, "/" + "n" * 256)
    fails(errno.ENAMETOOLONG, driver.create, "/" + "é" * 128)
    fails(errno.ENAMETOOLONG, driver.rename, "/" + "n" * 255, "/" + "é" * 128)
    fails(errno.ENAMETOOLONG, driver.link, "/" + "n" * 255, "/" + "é" * 128)


def test_attributes_change_only_as_given(driver: Driver) -> None:
    driver.make("/f")
    before = driver.info("/f")
    driver.set("/f", mode=0o2700, last_write_time_ns=5, change_time_ns=9)
    after = driver.info("/f")
    assert after.mode == stat.S_IFREG | 0o2700
    assert (after.last_write_time_ns, after.change_time_ns) == (5, 9)
    assert (after.uid, after.last_access_time_ns) == (7, before.last_access_time_ns)
    driver.set("/f", uid=1, gid=2, last_access_time_ns=0, creation_time_ns=3)
    last = driver.info("/f")
    assert (last.uid, last.gid, last.mode) == (1, 2, after.mode)
    assert (last.last_access_time_ns, last.creation_time_ns) == (0, 3)
    assert last.change_time_ns is not None
    assert last.change_time_ns > 9


def test_times_follow_what_happens(driver: Driver) -> None:
    def named() -> list[str]:
        return ["/" + name for name in driver.names("/")]

    def stamp() -> None:
        for path in ("/", *named()):
            driver.set(path, last_write_time_ns=1, change_time_ns=1)

    def moved() -> tuple[bool, bool, bool, bool]:
        root, f = driver.info("/"), driver.info(named()[0])
        times = (root.last_write_time_ns, root.change_time_ns)
        a, b, c, d = (t != 1 for t in (*times, f.last_write_time_ns, f.change_time_ns))
        return a, b, c, d

    driver.make("/f", b"data")
    context = driver.open("/f")
    steps: list[tuple[Callable[[], object], tuple[bool, bool, bool, bool]]] = [
        (lambda: driver.read(context, 0, 4), (False, False, False, False)),
        (lambda: driver.write(context, 0, b"x"), (False, False, True, True)),
        (lambda: driver.truncate(context, 1), (False, False, True, True)),
        (lambda: driver.set("/f", mode=0o600), (False, False, False, True)),
        (lambda: driver.link("/f", "/g"), (True, True, False, True)),
        (lambda: driver.delete("/g"), (True, True, False, True)),
        (lambda: driver.rename("/f", "/f2"), (True, True, False, True)),
    ]
    for action, expected in steps:
        stamp()
        action()
        assert moved() == expected


# --- data ---


def test_reading_ends_with_the_file(driver: Driver) -> None:
    driver.make("/f", b"hello")
    context = driver.open("/f")
    assert driver.read(context, 1, 100) == b"ello"
    assert driver.read(context, 5, 100) == b""
    assert driver.read(context, 1 << 50, 100) == b""


def test_what_was_cut_off_or_skipped_reads_as_zeros(driver: Driver) -> None:
    context = driver.create("/f")
    driver.write(context, 0, b"a" * 100)
    driver.truncate(context, 10)
    driver.truncate(context, 20)
    driver.write(context, 30, b"b" * 10)
    assert driver.read(context, 0, 99) == b"a" * 10 + bytes(20) + b"b" * 10


def test_a_sparse_file_costs_what_is_written(driver: Driver) -> None:
    context = driver.create("/f")
    free = driver.free()
    driver.truncate(context, 1 << 40)
    assert driver.free() == free
    assert driver.info("/f").allocation_size == 0
    driver.write(context, 1 << 39, b"island")
    f = driver.info("/f")
    assert (f.size, f.allocation_size) == (1 << 40, 4096)
    assert driver.read(context, (1 << 39) - 2, 10) == b"\0\0island\0\0"
    driver.truncate(context, 3)
    assert driver.read(context, 0, 10) == b"\0\0\0"
    assert driver.free() == free


def test_zeros_within_the_file_punch_holes_and_appended_ones_are_stored(driver: Driver) -> None:
    context = driver.create("/f")
    driver.write(context, 0, bytes(MIB))
    assert driver.info("/f").allocation_size == MIB
    driver.write(context, 0, bytes(MIB))
    f = driver.info("/f")
    assert (f.size, f.allocation_size) == (MIB, 0)
    driver.write(context, 10, bytes(5000))
    assert driver.info("/f").allocation_size == 0
    assert driver.read(context, 0, MIB) == bytes(MIB)


def test_reserved_space_counts_until_it_is_cut_off(driver: Driver) -> None:
    context = driver.create("/f")
    free = driver.free()
    driver.reserve(context, MIB - 1)
    assert (driver.info("/f").size, driver.free()) == (0, free - MIB)
    driver.write(context, 0, b"a" * 5000)
    assert (driver.info("/f").allocation_size, driver.free()) == (MIB, free - MIB)
    fails(errno.ENOSPC, driver.reserve, context, 1 << 40)
    driver.truncate(context, 4096)
    assert driver.free() == free - 4096


def test_reserved_space_is_there_when_all_else_is_taken() -> None:
    driver = Driver(MIB)
    promised, greedy = driver.create("/promised"), driver.create("/greedy")
    driver.reserve(promised, MIB // 2)
    fill(driver, greedy)
    assert driver.write(promised, 0, b"x" * (MIB // 2)) == MIB // 2
    fails(errno.ENOSPC, driver.write, promised, MIB // 2, b"x")


def until_full(action: Callable[[int], int]) -> int:
    """Repeats an action on what its results add up to until there is ENOSPC; returns the sum."""
    total = 0
    while True:
        try:
            total += action(total)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return total


def fill(driver: Driver, context: Any) -> int:
    """Writes until the drive is full; returns how many bytes went in."""
    return until_full(lambda position: driver.write(context, position, b"x" * 300_000))


def test_a_full_drive_takes_what_fits_and_then_nothing() -> None:
    driver = Driver(MIB)
    empty = driver.free()
    context = driver.create("/f")
    written = fill(driver, context)
    assert MIB - 8192 <= written <= MIB
    f = driver.info("/f")
    assert f.size == f.allocation_size == written
    assert driver.write(context, 100, b"y" * 1000) == 1000
    fails(errno.ENOSPC, driver.write, context, 1 << 30, b"far away")
    assert driver.info("/f").size == written
    driver.truncate(context, 0)
    assert driver.write(context, 0, b"z" * 5000) == 5000
    driver.close(context)
    driver.delete("/f")
    assert driver.free() == empty


def test_empty_files_and_names_fill_a_drive_too() -> None:
    driver = Driver(MIB)

    def make(number: int) -> int:
        driver.make(f"/{number}")
        return 1

    def link(number: int) -> int:
        driver.link("/1", f"/link{number}")
        return 1

    count = until_full(make)
    assert 500 < count < 2000
    assert not driver.exists(f"/{count}")
    driver.delete("/0")
    assert 0 < until_full(link) < 10


# Near each other, so that operations meet; and at the edges of what is stored in one piece.
OFFSETS = st.one_of(
    st.integers(0, 20_000),
    st.integers(0, 300_000),
    st.sampled_from([65535, 65536, 131072, 262144]),
)
LENGTHS = st.one_of(
    st.integers(1, 9_000), st.integers(0, 200_000), st.sampled_from([4096, 65536, 131072])
)
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), OFFSETS, LENGTHS, st.integers(0, 3)),
    st.tuples(st.just("truncate"), OFFSETS, st.just(0), st.just(0)),
    st.tuples(st.just("reserve"), OFFSETS, st.just(0), st.just(0)),
    st.tuples(st.just("read"), OFFSETS, LENGTHS, st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(OPERATIONS, min_size=2, max_size=12), st.sampled_from([20_000, 100_000, 16 * MIB]))
def test_contents_behave_as_plain_bytes(
    operations: list[tuple[str, int, int, int]], size: int
) -> None:
    driver = Driver(size)
    empty = driver.free()
    context = driver.create("/f")
    with_file = driver.free()
    model = bytearray()
    for name, position, length, fill_byte in operations:
        if name == "write":
            apply_write(driver, context, model, position, bytes([fill_byte]) * length)
        elif name == "truncate":
            driver.truncate(context, position)
            model[position:] = bytes(max(0, position - len(model)))
        elif name == "reserve":
            if driver.free() >= position + 4096:
                driver.reserve(context, position)
        else:
            expected = bytes(model[position : position + length])
            assert driver.read(context, position, length) == expected
        f = driver.info("/f")
        assert f.size == len(model)
        assert f.allocation_size == with_file - driver.free()
    assert driver.read(context, 0, len(model) + 1) == model
    driver.delete("/f")
    driver.close(context)
    assert driver.free() == empty


def apply_write(driver: Driver, context: Any, model: bytearray, at: int, data: bytes) -> None:
    try:
        written = driver.write(context, at, data)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        assert driver.free() < at + len(data) + 4096
        return
    if written:
        model.extend(bytes(max(0, at - len(model))))
        model[at : at + written] = data[:written]
    if written < len(data):
        assert driver.free() < 4096


# --- deleting and renaming ---


def test_an_unlinked_open_file_lives_until_it_is_closed(driver: Driver) -> None:
    empty = driver.free()
    driver.make("/f", b"data")
    context = driver.open("/f")
    file_id = driver.info("/f").file_id
    driver.delete("/f")
    assert not driver.exists("/f")
    fails(errno.ENOENT, driver.path_of, file_id)
    driver.make("/f", b"other")
    assert driver.write(context, 4, b"more") == 4
    assert driver.read(context, 0, 10) == b"datamore"
    gone = driver.info("/f", context)
    assert (gone.file_exists, gone.hard_link_count, gone.size) == (True, 0, 8)
    fails(errno.ENOENT, driver.link, "/f", "/g", context)
    driver.close(context)
    assert driver.content("/f") == b"other"
    driver.delete("/f")
    assert driver.free() == empty


def test_directories_count_their_directories_and_go_only_when_empty(driver: Driver) -> None:
    driver.mkdir("/d")
    driver.mkdir("/d/e")
    driver.make("/d/f")
    assert driver.info("/d").hard_link_count == 3
    assert driver.info("/").hard_link_count == 3
    assert not driver.is_empty("/d")
    fails(errno.ENOTEMPTY, driver.delete, "/d")
    fails(errno.EBUSY, driver.delete, "/")
    driver.delete("/d/e")
    driver.delete("/d/f")
    assert driver.info("/d").hard_link_count == 2
    assert driver.is_empty("/d")
    driver.delete("/d")
    assert driver.info("/").hard_link_count == 2


def test_deletion_is_always_allowed(driver: Driver) -> None:
    p = CBFSCanFileBeDeletedEventParams("/f", 0)
    p.can_be_deleted = False
    driver.drive.on_can_file_be_deleted(p)
    assert p.can_be_deleted


def test_a_directory_made_anew_is_not_the_old_one(driver: Driver) -> None:
    driver.mkdir("/d")
    driver.make("/d/f")
    driver.delete("/d/f")
    driver.delete("/d")
    assert not driver.exists("/d/f")
    driver.mkdir("/d")
    driver.make("/d/g")
    assert driver.names("/d") == ["g"]


def test_rename_replaces_and_open_targets_stay_usable(driver: Driver) -> None:
    empty = driver.free()
    driver.make("/new", b"new")
    driver.make("/old", b"old")
    old = driver.open("/old")
    driver.rename("/new", "/old")
    assert driver.names("/") == ["old"]
    assert driver.content("/old") == b"new"
    assert driver.read(old, 0, 9) == b"old"
    driver.close(old)
    driver.delete("/old")
    assert driver.free() == empty


def test_a_renamed_directory_takes_its_paths_along(driver: Driver) -> None:
    driver.mkdir("/a")
    driver.mkdir("/a/b")
    driver.make("/a/b/f", b"x")
    driver.mkdir("/z")
    file_id = driver.info("/a/b/f").file_id
    driver.rename("/a", "/z/c")
    assert not driver.exists("/a/b/f")
    assert driver.content("/z/c/b/f") == b"x"
    assert driver.path_of(file_id) == "/z/c/b/f"
    assert (driver.info("/").hard_link_count, driver.info("/z").hard_link_count) == (3, 3)


def test_rename_obeys_the_kinds(driver: Driver) -> None:
    driver.mkdir("/d")
    driver.mkdir("/d/e")
    driver.mkdir("/empty")
    driver.make("/f")
    fails(errno.EISDIR, driver.rename, "/f", "/empty")
    fails(errno.ENOTDIR, driver.rename, "/d", "/f")
    fails(errno.ENOTEMPTY, driver.rename, "/empty", "/d")
    fails(errno.EINVAL, driver.rename, "/d", "/d/e/d")
    fails(errno.ENOENT, driver.rename, "/none", "/f")
    driver.rename("/d", "/empty")
    assert sorted(driver.names("/")) == ["empty", "f"]
    assert driver.names("/empty") == ["e"]
    assert driver.info("/").hard_link_count == 3


def test_exchange_swaps_a_file_and_a_directory(driver: Driver) -> None:
    driver.mkdir("/x")
    driver.mkdir("/x/d")
    driver.make("/x/d/inside")
    driver.make("/f", b"file")
    driver.rename("/f", "/x/d", True)
    assert driver.content("/x/d") == b"file"
    assert driver.exists("/f/inside")
    assert driver.info("/x").hard_link_count == 2
    assert driver.info("/").hard_link_count == 4
    fails(errno.ENOENT, driver.rename, "/f", "/none", True)
    driver.mkdir("/f/sub")
    fails(errno.EINVAL, driver.rename, "/f", "/f/sub", True)


def test_renaming_onto_another_name_of_the_same_file_does_nothing(driver: Driver) -> None:
    driver.make("/f")
    driver.link("/f", "/g")
    driver.rename("/f", "/g")
    assert driver.names("/") == ["f", "g"]


# --- directories ---


def test_an_entry_tells_all_that_file_info_tells(driver: Driver) -> None:
    driver.make("/f", b"12345")
    driver.symlink("/l", b"f")
    driver.mkdir("/d")
    for entry in driver.entries("/"):
        info = driver.info("/" + entry.file_name)
        for field in (
            *("mode", "uid", "gid", "rdev", "size", "allocation_size", "file_id", "attributes"),
            *("hard_link_count", "reparse_tag", "creation_time_ns", "last_access_time_ns"),
            *("last_write_time_ns", "change_time_ns"),
        ):
            assert getattr(entry, field) == getattr(info, field), field


def test_a_listing_survives_changes_and_restarts(driver: Driver) -> None:
    for number in range(10):
        driver.make(f"/{number}")
    p = CBFSEnumerateDirectoryEventParams("/", 0)
    seen = [driver.next_entry(p) for _ in range(3)]
    driver.delete("/1")
    driver.delete("/5")
    driver.make("/late")
    driver.rename("/7", "/seven")
    while name := driver.next_entry(p):
        seen.append(name)
    lasting = [name for name in seen if name in set("0234689")]
    assert sorted(lasting) == list("0234689")
    assert "5" not in seen
    again = CBFSEnumerateDirectoryEventParams(
        "/", 0, restart=True, enumeration_context=p.enumeration_context
    )
    assert driver.next_entry(again) == "0"


def test_a_listing_needs_a_directory(driver: Driver) -> None:
    driver.make("/f")
    fails(errno.ENOTDIR, driver.entries, "/f")
    fails(errno.ENOENT, driver.entries, "/g")


def test_a_large_directory() -> None:
    driver = Driver(1 << 30)
    empty = driver.free()
    count = 20_000
    for number in range(count):
        driver.make(f"/file{number}")
    p = CBFSEnumerateDirectoryEventParams("/", 0)
    names = set(iter(lambda: driver.next_entry(p), ""))
    assert len(names) == count
    for name in names:
        driver.delete("/" + name)
    assert driver.free() == empty


# --- hard links ---


def test_hard_links_are_names_of_one_file(driver: Driver) -> None:
    empty = driver.free()
    driver.mkdir("/d")
    driver.make("/f", b"x")
    driver.link("/f", "/d/g")
    driver.link("/d/g", "/h")
    assert driver.info("/d/g").file_id == driver.info("/f").file_id
    assert driver.info("/h").hard_link_count == 3
    assert driver.links("/f") == [("/", "f"), ("/", "h"), ("/d", "g")]
    driver.delete("/f")
    assert driver.links("/h") == [("/", "h"), ("/d", "g")]
    driver.rename("/d", "/e")
    driver.rename("/h", "/e/i")
    assert driver.links("/e/g") == [("/e", "g"), ("/e", "i")]
    assert driver.path_of(driver.info("/e/g").file_id) in {"/e/g", "/e/i"}
    driver.delete("/e/g")
    assert driver.content("/e/i") == b"x"
    driver.delete("/e/i")
    driver.delete("/e")
    assert driver.free() == empty


def test_hard_links_are_refused_where_linux_refuses_them(driver: Driver) -> None:
    driver.mkdir("/d")
    driver.make("/f")
    fails(errno.EPERM, driver.link, "/d", "/e")
    fails(errno.EEXIST, driver.link, "/f", "/d")
    fails(errno.ENOENT, driver.link, "/f", "/none/f")
    fails(errno.ENOENT, driver.path_of, 999_999)
    assert driver.path_of(ROOT_FILE_ID) == "/"


# --- reparse points ---


def test_a_symbolic_link_keeps_its_data(driver: Driver) -> None:
    empty = driver.free()
    driver.symlink("/l", b"some/target\xff")
    link = driver.info("/l")
    assert (link.mode, link.size) == (stat.S_IFLNK | 0o777, 12)
    assert (link.attributes, link.reparse_tag) == (0x400, IO_REPARSE_TAG_LX_SYMLINK)
    data = symlink_data(b"some/target\xff")
    assert driver.reparse("/l") == (data, 0)
    assert driver.reparse("/l", 10) == (data[:10], ERROR_MORE_DATA)
    fails(errno.EINVAL, delete_reparse, driver, "/l")
    driver.delete("/l")
    assert driver.free() == empty


def delete_reparse(driver: Driver, path: str) -> None:
    p = CBFSDeleteReparsePointEventParams(path, memoryview(b""), 0, 0)
    driver.drive.on_delete_reparse_point(p)


def test_other_reparse_data_come_and_go(driver: Driver) -> None:
    driver.make("/f", b"content")
    fails(errno.EINVAL, driver.reparse, "/f")
    fails(errno.EINVAL, driver.set_reparse, "/f", b"short")
    data = struct.pack("<IHH", 0x1234, 3, 0) + b"abc"
    driver.set_reparse("/f", data)
    f = driver.info("/f")
    assert (f.attributes & 0x400, f.reparse_tag, f.size) == (0x400, 0x1234, 7)
    assert driver.reparse("/f") == (data, 0)
    delete_reparse(driver, "/f")
    assert (driver.info("/f").attributes, driver.content("/f")) == (0x80, b"content")
    fails(errno.EINVAL, delete_reparse, driver, "/f")


# --- named streams ---


def test_streams_have_contents_of_their_own(driver: Driver) -> None:
    empty = driver.free()
    driver.mkdir("/d")
    driver.make("/d/f", b"main")
    driver.make("/d/f\0one", b"first")
    driver.make("/d/f\0with/slash", b"second")
    driver.make("/d\0of the directory", b"third")
    assert driver.streams("/d/f") == {":one": 5, ":with/slash": 6}
    assert driver.streams("/d") == {":of the directory": 5}
    assert driver.content("/d/f\0with/slash") == b"second"
    assert driver.content("/d/f") == b"main"
    one = driver.info("/d/f\0one")
    assert (one.file_exists, one.size, one.mode) == (True, 5, stat.S_IFREG | 0o644)
    assert not driver.exists("/d/f\0two")
    assert driver.names("/d") == ["f"]
    fails(errno.EEXIST, driver.create, "/d/f\0one")
    fails(errno.ENOENT, driver.create, "/none\0one")
    driver.delete("/d/f\0one")
    fails(errno.ENOENT, driver.delete, "/d/f\0one")
    assert driver.streams("/d/f") == {":with/slash": 6}
    driver.delete("/d/f")
    driver.delete("/d")
    assert driver.free() == empty


def test_streams_follow_their_file_and_change_its_ctime(driver: Driver) -> None:
    driver.make("/f")
    driver.set("/f", last_write_time_ns=1, change_time_ns=1)
    driver.make("/f\0s", b"v")
    f = driver.info("/f")
    assert f.last_write_time_ns == 1
    assert f.change_time_ns != 1
    driver.rename("/f", "/g")
    assert driver.content("/g\0s") == b"v"


def test_an_open_stream_outlives_its_name_and_its_file(driver: Driver) -> None:
    empty = driver.free()
    driver.make("/f")
    driver.make("/f\0a", b"a")
    driver.make("/f\0b", b"b")
    a, b = driver.open("/f\0a"), driver.open("/f\0b")
    driver.delete("/f\0a")
    driver.delete("/f")
    assert (driver.read(a, 0, 9), driver.read(b, 0, 9)) == (b"a", b"b")
    driver.close(a)
    driver.close(b)
    assert driver.free() == empty


def test_streams_count_against_the_size() -> None:
    driver = Driver(MIB)
    driver.make("/f")
    context = driver.create("/f\0s")
    assert fill(driver, context) < MIB


# --- several threads ---


def test_threads_leave_the_tree_whole(driver: Driver) -> None:
    empty = driver.free()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(150):
                directory = f"/d{number}.{turn % 3}"
                driver.mkdir(directory)
                driver.make(directory + "/f", b"x" * 100)
                driver.rename(directory, directory + "new")
                driver.link(directory + "new/f", f"/link{number}")
                driver.names("/")
                assert driver.content(f"/link{number}") == b"x" * 100
                for path in (directory + "new/f", f"/link{number}", directory + "new"):
                    driver.delete(path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert driver.names("/") == []
    assert driver.free() == empty
    assert driver.info("/").hard_link_count == 2
