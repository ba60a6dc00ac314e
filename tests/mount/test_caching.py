"""What the kernel may keep: written data, what was read, names and attributes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

import cbfsconnect as c
from support.client import Client, run
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder

WRITE_THROUGH: dict[str, object] = {"FileCachePolicyWriteThrough": True}
INTERNAL = (c.FC_INTERNAL_KERNEL_MODE, c.FC_INTERNAL_USER_MODE)


class Origin:
    """Who was the originator of each write."""

    def __init__(self, record: Recorder) -> None:
        self.cbfs: c.CBFS | None = None
        self.processes: list[int] = []
        record.before["on_write_file"] = self._ask

    def _ask(self, p: Any) -> None:
        assert self.cbfs is not None
        self.processes.append(self.cbfs.get_originator_process_id())


def writing(mount: Mounting, **options: Any) -> tuple[Recorder, Origin, str]:
    record = Recorder(PlainDrive(file=b""))
    record.before["on_open_file"] = lambda p: setattr(p, "file_context", 7)
    origin = Origin(record)
    drive = mount(record, fire_all_open_close_events=True, **options)
    origin.cbfs = drive.cbfs
    return record, origin, drive.mountpoint


# --- file data ---


@pytest.mark.proves("FC_SYSTEM", "FC_INTERNAL_KERNEL_MODE", "FC_INTERNAL_USER_MODE")
@pytest.mark.parametrize("file_cache", [c.FC_SYSTEM, *INTERNAL])
def test_cached_writes_come_later_and_from_nobody(
    mount: Mounting, client: Client, file_cache: int
) -> None:
    record, origin, at = writing(mount, file_cache=file_cache)
    client.run(
        """
        fd = os.open(at + '/file', os.O_RDWR)
        for n in range(100):
            os.write(fd, b'0123456789')
        """,
        at=at,
    )
    assert not record.all("on_write_file")
    assert client.call("os.pread(fd, 10, 990)") == b"0123456789"  # it is there for programs
    assert client.call("os.fstat(fd).st_size") == 1000
    assert not record.all("on_read_file")
    client.run("os.fsync(fd)")
    fired = record.one("on_write_file")  # merged
    assert (fired.position, fired.bytes_to_write) == (0, 1000)
    assert fired.buffer_view == b"0123456789" * 100
    assert (fired.handle_info, fired.handle_context, fired.file_context) == (0, None, 7)
    assert origin.processes == [0]
    assert record.names("on_write_file", "on_flush_file") == ["on_write_file", "on_flush_file"]


def test_the_drive_ends_up_with_the_times_that_the_kernel_shows(
    mount: Mounting, client: Client
) -> None:
    """The kernel does not tell times twice for what is changed within one tick of its clock."""
    memory = c.MemoryDrive()
    drive = mount(memory)
    shown = client.run(
        """
        import ctypes
        PUNCH_HOLE, KEEP_SIZE = 2, 1
        allocate = ctypes.CDLL(None).fallocate
        allocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
        for n in range(20):
            fd = os.open(f"{at}/{n}", os.O_RDWR | os.O_CREAT)
            os.write(fd, b"0123456789")
            os.fsync(fd)
            if allocate(fd, PUNCH_HOLE | KEEP_SIZE, 0, 8):
                raise OSError(ctypes.get_errno(), "fallocate")
            os.close(fd)
        result = [(s.st_mtime_ns, s.st_ctime_ns) for s in (os.stat(f"{at}/{n}") for n in range(20))]
        """,
        at=drive.mountpoint,
    )
    drive.unmount()
    client.run("", at=mount(memory).mountpoint)
    kept = "[(s.st_mtime_ns, s.st_ctime_ns) for s in (os.stat(f'{at}/{n}') for n in range(20))]"
    assert client.call(kept) == shown


def test_cached_writes_come_before_the_cleanup(mount: Mounting, client: Client) -> None:
    record, _, at = writing(mount)
    client.run("Path(at, 'file').write_bytes(b'x' * 10)", at=at)
    record.wait_for("on_close_file")
    events = ("on_write_file", "on_cleanup_file", "on_close_file")
    assert record.names(*events) == list(events)


def test_a_failing_cached_write_is_told_by_close(mount: Mounting, client: Client) -> None:
    record, _, at = writing(mount)

    def full(p: Any) -> None:
        p.result_code = c.ERROR_DISK_FULL

    record.instead["on_write_file"] = full
    client.run("fd = os.open(at + '/file', os.O_RDWR); os.write(fd, b'lost')", at=at)
    with pytest.raises(OSError, match=os.strerror(28)):
        client.run("os.fsync(fd)")


@pytest.mark.proves("FileCachePolicyWriteThrough", "file_cache")
@pytest.mark.parametrize("options", [{"file_cache": 0}, {"config": WRITE_THROUGH}])
def test_uncached_writes_come_at_once_with_their_process(
    mount: Mounting, client: Client, options: dict[str, Any]
) -> None:
    record, origin, at = writing(mount, **options)
    client.run("fd = os.open(at + '/file', os.O_RDWR)", at=at)
    for number in range(3):
        client.run("os.write(fd, b'0123456789')")
        fired = record.all("on_write_file")[-1]
        assert len(record.all("on_write_file")) == number + 1
        assert (fired.position, fired.bytes_to_write) == (number * 10, 10)
        assert fired.handle_info == record.one("on_open_file").handle_info
        assert (fired.file_context, fired.handle_context) == (7, 0)
    assert origin.processes == [client.pid] * 3


def test_write_through_keeps_what_was_written_for_readers(mount: Mounting, client: Client) -> None:
    record, _, at = writing(mount, config=WRITE_THROUGH)
    client.run("fd = os.open(at + '/file', os.O_RDWR); os.write(fd, b'x' * 4096)", at=at)
    assert client.call("os.pread(fd, 4096, 0)") == b"x" * 4096
    assert not record.all("on_read_file")


@pytest.mark.proves("file_cache")
def test_without_a_cache_every_read_is_asked(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=bytes(10000)))
    at = mount(record, file_cache=0).mountpoint
    client.run("fd = os.open(at + '/file', os.O_RDONLY)", at=at)
    for _ in range(3):
        client.run("os.pread(fd, 100, 50)")
    reads = record.all("on_read_file")
    assert [(f.position, f.bytes_to_read) for f in reads] == [(50, 100)] * 3


def test_with_a_cache_a_read_is_asked_once_in_pages(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=bytes(10000)))
    at = mount(record).mountpoint
    client.run("fd = os.open(at + '/file', os.O_RDONLY)", at=at)
    for _ in range(3):
        assert client.call("os.pread(fd, 100, 50)") == bytes(100)
    fired = record.one("on_read_file")
    assert fired.position == 0
    assert fired.bytes_to_read % 4096 == 0


@pytest.mark.parametrize(("timeout", "reads"), [(1.0, 2), (-1, 1)])
def test_data_is_kept_from_one_open_to_the_next_when_only_the_kernel_changes_it(
    mount: Mounting, client: Client, timeout: float, reads: int
) -> None:
    record = Recorder(PlainDrive(file=b"abc"))
    at = mount(record, config={"MetadataCacheTimeout": timeout}).mountpoint
    for count in range(2):
        assert client.call("Path(at, 'file').read_text()", at=at) == "abc"
        record.wait_for("on_close_file", count + 1)
    assert len(record.all("on_read_file")) == reads


@pytest.mark.parametrize("file_cache", [0, 1])
def test_mapped_memory(mount: Mounting, client: Client, file_cache: int) -> None:
    record = Recorder(PlainDrive(file=b"0123456789"))
    at = mount(record, file_cache=file_cache).mountpoint
    client.run(
        """
        fd = os.open(at + '/file', os.O_RDWR)
        memory = mmap.mmap(fd, 10)
        result = memory[2:5]
        memory[0:3] = b'abc'
        memory.flush()
        memory.close()
        os.close(fd)
        """,
        at=at,
    )
    record.wait_for("on_close_file")
    assert client.call("Path(at, 'file').read_bytes()") == b"abc3456789"
    fired = record.one("on_write_file")
    assert (fired.handle_info, fired.handle_context) == (0, None)


@pytest.mark.proves("file_cache", "FC_NONE")
def test_file_cache_changes_with_the_next_media(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b""))
    drive = mount(record)
    client.run("def write(): Path(at, 'file').open('r+b').write(b'x')", at=drive.mountpoint)
    drive.cbfs.file_cache = c.FC_NONE
    client.run("write()")
    record.wait_for("on_close_file")
    assert record.one("on_write_file").handle_info == 0
    drive.cbfs.unmount_media()
    drive.cbfs.mount_media(0)
    client.run("write()")
    assert record.all("on_write_file")[1].handle_info != 0
    with pytest.raises(c.CBFSConnectError):
        drive.cbfs.file_cache = 4


# --- names and attributes ---


def looks(record: Recorder, path: str) -> int:
    return len(record.all("on_get_file_info", path))


def test_attributes_are_kept(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(file=b""))
    options: dict[str, Any] = {"support_last_access_time_attribute": False}
    at = mount(record, config={"MetadataCacheTimeout": -1}, **options).mountpoint
    client.run("for n in range(5): os.stat(at + '/file')", at=at)
    client.run("os.close(os.open(at + '/file', os.O_RDONLY))")
    assert looks(record, "/file") == 1


@pytest.mark.proves("metadata_cache_enabled")
@pytest.mark.parametrize(
    ("enabled", "timeout"),
    [(False, 1), (True, 0)],
)
def test_attributes_are_asked_each_time_without_the_cache(
    mount: Mounting, client: Client, enabled: bool, timeout: float
) -> None:
    drive = PlainDrive(file=b"1")
    record = Recorder(drive)
    config = WRITE_THROUGH | {"MetadataCacheTimeout": timeout}
    at = mount(record, metadata_cache_enabled=enabled, config=config).mountpoint
    for size in range(3):
        drive.items["/file"].data[:] = bytes(size)
        before = looks(record, "/file")
        assert client.call("os.stat(at + '/file').st_size", at=at) == size
        assert looks(record, "/file") > before


@pytest.mark.proves("MetadataCacheTimeout")
def test_attributes_are_asked_again_after_a_while(mount: Mounting, client: Client) -> None:
    drive = PlainDrive(file=b"1")
    record = Recorder(drive)
    at = mount(record, config=WRITE_THROUGH | {"MetadataCacheTimeout": 0.05}).mountpoint
    assert client.call("os.stat(at + '/file').st_size", at=at) == 1
    drive.items["/file"].data[:] = b"123"
    client.run(
        """
        deadline = time.monotonic() + 10
        while os.stat(at + '/file').st_size != 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        """
    )
    assert looks(record, "/file") > 1


def test_a_listing_that_tells_all_spares_the_questions(mount: Mounting, client: Client) -> None:
    drive = PlainDrive(a=b"1", b=b"22", c=b"333")
    record = Recorder(drive)

    def tell(p: Any) -> None:
        drive.on_enumerate_directory(p)
        if p.file_found:
            item = drive.items["/" + p.file_name]
            p.attributes, p.size = item.attributes, len(item.data)

    record.instead["on_enumerate_directory"] = tell
    at = mount(record).mountpoint
    sizes = client.call("{e.name: e.stat().st_size for e in os.scandir(at)}", at=at)
    assert sizes == {"a": 1, "b": 2, "c": 3}
    assert not [f for f in record.all("on_get_file_info") if f.file_name != "/"]


def test_a_listing_of_names_leaves_the_questions(mount: Mounting, client: Client) -> None:
    record = Recorder(PlainDrive(a=b"1", b=b"22"))
    at = mount(record).mountpoint
    sizes = client.call("{e.name: e.stat().st_size for e in os.scandir(at)}", at=at)
    assert sizes == {"a": 1, "b": 2}
    assert looks(record, "/a") == looks(record, "/b") == 1


@pytest.mark.proves("non_existent_files_cache_enabled")
@pytest.mark.parametrize(("remembered", "asked"), [(True, 1), (False, 3)])
def test_names_that_do_not_exist(
    mount: Mounting, client: Client, remembered: bool, asked: int
) -> None:
    record = Recorder(PlainDrive())
    options = {"non_existent_files_cache_enabled": remembered}
    at = mount(record, config={"MetadataCacheTimeout": -1}, **options).mountpoint
    for _ in range(3):
        assert not client.call("os.path.exists(at + '/none')", at=at)
    assert looks(record, "/none") == asked
    client.run("Path(at, 'none').write_text('now it does')")  # creating it removes the entry
    assert client.call("Path(at, 'none').read_text()") == "now it does"


def test_own_changes_are_seen_at_once(mount: Mounting, client: Client) -> None:
    """With names and attributes kept for ever, what goes through the drive is never stale."""
    drive = PlainDrive(a=b"1")
    drive.add_directory("/d")
    at = mount(drive, config={"MetadataCacheTimeout": -1}).mountpoint
    with Client() as other:
        look = "sorted((e.name, e.stat().st_size) for e in os.scandir(at) if e.is_file())"
        assert other.call(look, at=at) == [("a", 1)]
        client.run("Path(at, 'a').write_text('12345'); Path(at, 'b').write_text('')", at=at)
        assert other.call(look) == [("a", 5), ("b", 0)]
        client.run("os.rename(at + '/a', at + '/d/a'); os.unlink(at + '/b')")
        assert other.call(look) == []
        assert other.call("os.stat(at + '/d/a').st_size") == 5


def test_a_killed_writers_data_is_not_lost(mount: Mounting) -> None:
    """What a program has written is the drive's, whatever becomes of the program."""
    drive = PlainDrive(file=b"")
    record = Recorder(drive)
    at = mount(record).mountpoint
    write = "os.write(os.open(sys.argv[1], os.O_RDWR), b'kept')"
    code = f"import os, sys; {write}; os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", code, f"{at}/file"], check=False)
    assert killed.returncode == -9
    record.wait_for("on_close_file")
    assert run("cat", f"{at}/file") == "kept"
