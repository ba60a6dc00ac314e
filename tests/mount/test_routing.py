"""Routed files: read, written, truncated and mapped with no event, whoever moves the data."""

import errno
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import cbfsconnect
from cbfsconnect import CBFSConnectError
from cbfsconnect.engine.operations import OPERATIONS
from cbfsconnect.errors import ERROR_INVALID_STATE, ERROR_POSSIBLE_DEADLOCK
from cbfsconnect.fuse.abi import Opcode
from support.apart import become_user, run_apart
from support.client import Client, run
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder
from support.routed import (
    LOCAL,
    PASSTHROUGH,
    POSITIONED,
    WRITE_BACK,
    Routed,
    Router,
    Transport,
    coherent_transports,
    count_requests,
    descriptors_on,
    every_transport,
    route,
)

DATA = (Opcode.READ, Opcode.WRITE)


@pytest.fixture
def routed(mount: Mounting, client: Client, tmp_path: Path, transport: Transport) -> Routed:
    """A drive with /f routed to a local file, open as `f`; what fired so far is forgotten."""
    return opened(mount, client, tmp_path, transport)


def opened(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport, **options: Any
) -> Routed:
    found = route(mount, client, tmp_path, transport, **options)
    client.run("f = os.open(at + '/f', os.O_RDWR)")
    assert found.handlers.answers == [True]
    found.record.clear()
    return found


def gone(routed: Routed) -> bool:
    """Whether the library lets the local file go, a moment after the last close."""
    deadline = time.monotonic() + 10
    while descriptors_on(routed.local) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not descriptors_on(routed.local)


# --- data ----------------------------------------------------------------------------------------


@pytest.mark.proves("route_to_file", "RouteMethod")
@every_transport
def test_reading_and_writing_fire_nothing(routed: Routed, client: Client) -> None:
    assert client.call("os.pread(f, 100, 0)") == LOCAL
    client.run("os.pwrite(f, b'WHAT', 0); os.pwrite(f, b' and more', 23); os.fsync(f)")
    assert routed.local.read_bytes() == b"WHAT" + LOCAL[4:] + b" and more"
    assert client.call("os.pread(f, 100, 0)") == routed.local.read_bytes()
    assert routed.record.names() == []


@every_transport
def test_closing_fires_nothing_and_lets_the_file_go(routed: Routed, client: Client) -> None:
    client.run("os.close(f)")
    assert gone(routed)
    assert routed.record.names() == []


@pytest.mark.proves("route_to_file")
def test_as_root_the_kernel_moves_the_data_itself(
    mount: Mounting, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = count_requests(monkeypatch, *DATA)
    opened(mount, client, tmp_path, PASSTHROUGH)
    client.run("""
        os.pwrite(f, b'x' * 3_000_000, 0)
        assert os.pread(f, 3_000_000, 0) == b'x' * 3_000_000
        page = mmap.mmap(f, 4096); page[:3] = b'abc'; page.flush(); del page
    """)
    assert (tmp_path / "local").read_bytes() == b"abc" + b"x" * 2_999_997
    assert requests == []


@pytest.mark.parametrize("transport", [POSITIONED, WRITE_BACK], ids=lambda t: t.name)
def test_otherwise_the_library_does(
    mount: Mounting,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    transport: Transport,
) -> None:
    requests = count_requests(monkeypatch, *DATA)
    opened(mount, client, tmp_path, transport)
    client.run("assert os.pread(f, 9, 0); os.pwrite(f, b'x', 0); os.fsync(f)")
    assert set(requests) == set(DATA)


@every_transport
def test_appending(routed: Routed, client: Client) -> None:
    client.run("""
        a = os.open(at + '/f', os.O_WRONLY | os.O_APPEND)
        os.write(a, b', one'); os.write(a, b', two'); os.close(a)
    """)
    assert routed.local.read_bytes() == LOCAL + b", one, two"
    assert routed.record.names() == []


@every_transport
def test_truncating(routed: Routed, client: Client) -> None:
    client.run("os.ftruncate(f, 4)")
    assert (routed.local.read_bytes(), client.call("os.fstat(f).st_size")) == (b"what", 4)
    client.run("os.truncate(at + '/f', 6)")
    assert (routed.local.read_bytes(), client.call("os.pread(f, 9, 0)")) == (b"what\0\0",) * 2
    client.run("os.close(os.open(at + '/f', os.O_WRONLY | os.O_TRUNC))")
    assert routed.local.read_bytes() == b""
    assert client.call("os.pread(f, 9, 0)") == b""
    assert routed.record.names() == []


@every_transport
def test_truncating_with_the_first_open(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport
) -> None:
    routed = route(mount, client, tmp_path, transport)
    client.run("f = os.open(at + '/f', os.O_RDWR | os.O_TRUNC); os.write(f, b'new'); os.fsync(f)")
    assert routed.local.read_bytes() == b"new"
    assert "on_set_file_size" not in routed.record.names()


@coherent_transports
def test_truncating_a_closed_file(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport
) -> None:
    routed = route(mount, client, tmp_path, transport)
    client.run("os.truncate(at + '/f', 4)")
    assert routed.local.read_bytes() == b"what"
    assert "on_set_file_size" not in routed.record.names()


@every_transport
def test_mapping(routed: Routed, client: Client) -> None:
    client.run(
        "m = mmap.mmap(f, 0); assert m[:] == os.pread(f, 100, 0); m[:4] = b'WHAT'; m.flush()"
    )
    assert routed.local.read_bytes() == b"WHAT" + LOCAL[4:]
    client.run("m.close()")
    assert routed.record.names() == []


@every_transport
def test_programs_use_it_as_any_file(routed: Routed, client: Client) -> None:
    assert run("cat", f"{routed.at}/f").encode() == LOCAL
    run("sh", "-c", f"seq 30000 > '{routed.at}/f'")
    assert run("md5sum", routed.local).split()[0] == run("md5sum", f"{routed.at}/f").split()[0]
    assert routed.record.names() == []


@every_transport
def test_space_and_holes(routed: Routed, client: Client) -> None:
    client.run("os.ftruncate(f, 1 << 20); os.pwrite(f, b'end', 1 << 20); os.fsync(f)")
    assert client.call("os.lseek(f, 4096, os.SEEK_DATA)") == 1 << 20
    assert client.call("os.lseek(f, 0, os.SEEK_HOLE)") == 4096
    client.run("os.posix_fallocate(f, 0, 3 << 20)")
    assert routed.local.stat().st_size == client.call("os.fstat(f).st_size") == 3 << 20
    run("fallocate", "-p", "-o", "0", "-l", "4096", f"{routed.at}/f")
    assert routed.local.read_bytes()[:4096] == bytes(4096)
    assert routed.record.names() == []


def test_other_files_have_no_holes(mount: Mounting, client: Client, tmp_path: Path) -> None:
    opened(mount, client, tmp_path, PASSTHROUGH)
    client.run("g = os.open(at + '/g', os.O_RDONLY)")
    assert client.call("os.lseek(g, 3, os.SEEK_DATA)") == 3
    assert client.call("os.lseek(g, 3, os.SEEK_HOLE)") == 15
    with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
        client.run("os.lseek(g, 15, os.SEEK_DATA)")


@coherent_transports
def test_copying_between_routed_files(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"")
    handlers = Router(f=b"", g=b"", own=b"the drive's")
    handlers.targets = {"/f": (str(tmp_path / "local"), 0), "/g": (str(other), 0)}
    routed = route(mount, client, tmp_path, transport, handlers=handlers)
    client.run("""
        f, g, own = (os.open(at + '/' + name, os.O_RDWR) for name in ('f', 'g', 'own'))
        assert os.fstat(f).st_size == 23  # the kernel copies as much as it knows of
        assert os.copy_file_range(f, g, 100, 0, 0) == 23
    """)
    assert other.read_bytes() == LOCAL
    routed.record.clear()
    client.run("assert os.copy_file_range(own, g, 100, 0, 0) == 11")
    assert other.read_bytes() == b"the drive's" + LOCAL[11:]
    assert "on_write_file" not in routed.record.names()


# --- attributes ----------------------------------------------------------------------------------


@coherent_transports
def test_size_and_times_are_those_of_the_local_file(routed: Routed, client: Client) -> None:
    found, local = client.call("os.fstat(f)"), routed.local.stat()
    for name in ("st_size", "st_blocks", "st_mtime_ns", "st_atime_ns"):
        assert getattr(found, name) == getattr(local, name), name
    assert routed.record.names() == []


@coherent_transports
def test_changes_are_seen_both_ways_at_once(routed: Routed, client: Client) -> None:
    for size in (1, 5000, 0, 77):
        routed.local.write_bytes(b"z" * size)
        assert client.call("os.stat(at + '/f').st_size") == size
        assert client.call("os.pread(f, 9999, 0)") == b"z" * size
        client.run("os.pwrite(f, b'yy', 100)")
        assert client.call("os.fstat(f).st_size") == routed.local.stat().st_size == max(size, 102)
        assert client.call("os.lseek(f, 0, os.SEEK_END)") == max(size, 102)
    assert routed.record.names() == []


def test_a_listing_does_not_bring_old_sizes_back(
    mount: Mounting, client: Client, tmp_path: Path
) -> None:
    class Telling(Router):
        def on_enumerate_directory(self, p: Any) -> None:
            super().on_enumerate_directory(p)
            p.attributes, p.size = 0x80, 1

    handlers = Telling(f=b"?")
    handlers.targets["/f"] = str(tmp_path / "local"), 0
    opened(mount, client, tmp_path, PASSTHROUGH, handlers=handlers)
    client.run("os.pwrite(f, b'x' * 5000, 0)")
    assert "f" in run("ls", "-l", str(client.call("at")))
    assert client.call("os.stat(at + '/f').st_size") == 5000


@coherent_transports
def test_mode_and_owner_are_the_drives_until_they_are_changed(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport
) -> None:
    (tmp_path / "local").write_bytes(LOCAL)
    (tmp_path / "local").chmod(0o600)
    routed = opened(mount, client, tmp_path, transport)
    assert client.call("os.fstat(f).st_mode & 0o7777") == 0o644
    client.run("os.fchmod(f, 0o640); os.utime(f, ns=(10**18 + 1, 10**18 + 2))")
    local = routed.local.stat()
    assert local.st_mode & 0o7777 == client.call("os.fstat(f).st_mode & 0o7777") == 0o640
    assert (local.st_atime_ns, local.st_mtime_ns) == (10**18 + 1, 10**18 + 2)
    assert client.call("os.stat(at + '/f').st_mtime_ns") == 10**18 + 2
    client.run("os.chown(at + '/f', 1234, 4321)")
    assert (routed.local.stat().st_uid, client.call("os.fstat(f).st_gid")) == (1234, 4321)
    assert routed.record.names() == []


def test_set_id_bits_are_for_the_owner_of_the_local_file_only(
    mount: Mounting, client: Client, tmp_path: Path
) -> None:
    class OwnedByOther(Router):
        def on_get_file_info(self, p: Any) -> None:
            super().on_get_file_info(p)
            p.uid = 1234

    handlers = OwnedByOther(f=b"?")
    handlers.targets["/f"] = str(tmp_path / "local"), 0
    routed = opened(mount, client, tmp_path, PASSTHROUGH, handlers=handlers)
    client.run("os.fchmod(f, 0o6755)")
    assert routed.local.stat().st_mode & 0o7777 == 0o755


@coherent_transports
def test_the_inode_number_stays(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport
) -> None:
    route(mount, client, tmp_path, transport)
    before = client.call("os.stat(at + '/f').st_ino")
    client.run("f = os.open(at + '/f', os.O_RDWR)")
    assert client.call("os.fstat(f).st_ino") == client.call("os.stat(at + '/f').st_ino") == before


@every_transport
def test_extended_attributes_are_the_local_files(routed: Routed, client: Client) -> None:
    client.run("os.setxattr(f, 'user.colour', b'red')")
    assert os.getxattr(routed.local, "user.colour") == b"red"
    assert client.call("os.getxattr(at + '/f', 'user.colour')") == b"red"
    assert client.call("os.listxattr(f)") == ["user.colour"]
    client.run("os.removexattr(f, 'user.colour')")
    assert client.call("os.listxattr(f)") == []
    assert routed.record.names() == []


# --- several opens, and what happens meanwhile ---------------------------------------------------


@every_transport
@pytest.mark.parametrize("fire_all", [False, True])
def test_a_second_open_goes_to_the_same_file(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport, fire_all: bool
) -> None:
    routed = opened(mount, client, tmp_path, transport, fire_all_open_close_events=fire_all)
    routed.handlers.targets.clear()
    client.run("g = os.open(at + '/f', os.O_RDWR); os.pwrite(g, b'WHAT', 0); os.close(f)")
    assert client.call("os.pread(g, 100, 0)") == b"WHAT" + LOCAL[4:]
    client.run("os.close(g)")
    assert routed.local.read_bytes() == b"WHAT" + LOCAL[4:]
    assert routed.record.names() == []


@every_transport
def test_what_is_open_unrouted_stays_so(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport
) -> None:
    routed = route(mount, client, tmp_path, transport, fire_all_open_close_events=True)
    target = routed.handlers.targets.pop("/f")
    routed.handlers.items["/f"].data[:4] = b"mine"
    client.run("f = os.open(at + '/f', os.O_RDWR)")
    routed.handlers.targets["/f"] = target
    client.run("g = os.open(at + '/f', os.O_RDWR)")
    assert routed.handlers.answers == [False]
    assert client.call("os.pread(g, 4, 0)") == client.call("os.pread(f, 4, 0)") == b"mine"


@every_transport
def test_each_routing_ends_with_the_last_close(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport
) -> None:
    routed = route(mount, client, tmp_path, transport)
    own = routed.handlers.items["/f"].data
    own[:] = own.replace(b"?", b"!")
    for turn in range(4):
        routed.handlers.targets = {"/f": (str(routed.local), 0)} if turn % 2 else {}
        client.run("f = os.open(at + '/f', os.O_RDWR)")
        wanted = LOCAL[:9] if turn % 2 else b"!" * 9
        assert client.call("os.pread(f, 9, 0)") == wanted, turn
        client.run("os.close(f)")
        routed.record.wait_for("on_close_file", turn // 2 + 1)
        assert gone(routed)


@every_transport
def test_routing_to_the_same_file_again_succeeds_to_another_not(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport
) -> None:
    routed = route(mount, client, tmp_path, transport, flags=0x20, fire_all_open_close_events=True)
    client.run("f = os.open(at + '/f', os.O_RDWR); g = os.open(at + '/f', os.O_RDWR)")
    (tmp_path / "other").write_bytes(b"")
    routed.handlers.targets["/f"] = str(tmp_path / "other"), 0
    client.run("h = os.open(at + '/f', os.O_RDWR)")
    assert routed.handlers.answers == [True, True, False]
    assert client.call("os.pread(h, 100, 0)") == LOCAL


@every_transport
def test_renaming_while_it_is_open(routed: Routed, client: Client) -> None:
    client.run("os.rename(at + '/f', at + '/new'); os.pwrite(f, b'WHAT', 0); os.fsync(f)")
    # The local name is another: this is for the drive. It is asked about the new name before.
    assert routed.record.names() == ["on_get_file_info", "on_rename_or_move_file"]
    assert routed.local.read_bytes() == b"WHAT" + LOCAL[4:]
    assert client.call("os.stat(at + '/new').st_size") == len(LOCAL)
    assert client.call("os.listdir(at)") == ["g", "new"]


@every_transport
@pytest.mark.parametrize("posix", [False, True])
def test_deleting_while_it_is_open(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport, posix: bool
) -> None:
    routed = opened(mount, client, tmp_path, transport, config={"PosixDelete": posix})
    client.run("os.unlink(at + '/f'); os.pwrite(f, b'WHAT', 0); os.fsync(f)")
    assert client.call("os.pread(f, 100, 0)") == b"WHAT" + LOCAL[4:]
    assert client.call("os.fstat(f).st_size") == len(LOCAL)
    client.run("os.close(f)")
    routed.record.wait_for("on_delete_file")
    assert gone(routed)
    assert routed.local.exists()  # it has a name of its own
    assert "/f" not in routed.handlers.items


@every_transport
def test_the_local_file_is_deleted_meanwhile(routed: Routed, client: Client) -> None:
    routed.local.unlink()
    client.run("os.pwrite(f, b'WHAT', 0); os.fsync(f); os.ftruncate(f, 10)")
    assert client.call("os.pread(f, 100, 0)") == b"WHAT" + LOCAL[4:10]


@every_transport
def test_a_remount_begins_anew(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport
) -> None:
    routed = route(mount, client, tmp_path, transport)
    for _ in range(2):
        client.run("f = os.open(at + '/f', os.O_RDWR); os.pwrite(f, b'WHAT', 0); os.close(f)")
        routed.cbfs.remove_mounting_point(0)
        routed.cbfs.add_mounting_point(routed.at)
    assert routed.handlers.answers == [True, True]
    assert client.call("open(at + '/f', 'rb').read(4)") == b"WHAT"
    assert routed.local.read_bytes() == b"WHAT" + LOCAL[4:]


@every_transport
def test_a_forced_end_lets_all_go(routed: Routed, client: Client) -> None:
    routed.cbfs.delete_storage(True)
    assert descriptors_on(routed.local) == 0
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        client.run("os.close(f)")


@every_transport
def test_a_full_disk_is_told(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small)
    try:
        handlers = Router(f=b"")
        handlers.targets["/f"] = str(small / "local"), 0
        (small / "local").write_bytes(b"")
        route(mount, client, tmp_path, transport, handlers=handlers)
        client.run("f = os.open(at + '/f', os.O_RDWR)")
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            client.run("""
                data = b'x' * 65536
                while os.write(f, data): os.fsync(f)
            """)
        client.run("os.ftruncate(f, 0); os.pwrite(f, b'again', 0); os.close(f)")
        assert (small / "local").read_bytes() == b"again"
    finally:
        client.run("os.chdir('/')")
        for drive in (small,):
            run("umount", "-l", drive)


# --- creating ------------------------------------------------------------------------------------


@every_transport
def test_a_new_file_can_be_routed(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport
) -> None:
    (tmp_path / "born").write_bytes(b"template")
    handlers = Router(f=b"")
    handlers.targets["/new"] = str(tmp_path / "born"), 0
    routed = route(mount, client, tmp_path, transport, handlers=handlers)
    client.run("new = os.open(at + '/new', os.O_RDWR | os.O_CREAT | os.O_EXCL)")
    assert client.call("os.fstat(new).st_size") == 8
    routed.record.clear()
    client.run("os.pwrite(new, b'T', 0); os.fsync(new)")
    assert client.call("os.pread(new, 100, 0)") == (tmp_path / "born").read_bytes() == b"Template"
    assert routed.record.names() == []


def test_a_handler_that_routes_and_then_refuses(
    mount: Mounting, client: Client, tmp_path: Path
) -> None:
    class Refusing(Router):
        def on_open_file(self, p: Any) -> None:
            super().on_open_file(p)
            raise PermissionError(errno.EPERM, "no")

    handlers = Refusing(f=b"")
    handlers.targets["/f"] = str(tmp_path / "local"), 0
    routed = route(mount, client, tmp_path, PASSTHROUGH, handlers=handlers)
    with pytest.raises(PermissionError):
        client.run("os.open(at + '/f', os.O_RDWR)")
    assert descriptors_on(routed.local) == 0


# --- route_to_file -------------------------------------------------------------------------------


def test_what_cannot_be_routed_is_served_by_the_handlers(
    mount: Mounting, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    handlers = Router(**dict.fromkeys("abcd", b"the drive's"))
    handlers.targets = {
        "/a": (str(tmp_path / "missing"), 0),
        "/b": (str(tmp_path / "fifo"), 0),
        "/c": (str(tmp_path / "folder"), 0),
        "/d": (os.devnull, 0),
    }
    route(mount, client, tmp_path, PASSTHROUGH, handlers=handlers)
    for name in "abcd":
        assert client.call("open(at + '/' + name, 'rb').read()", name=name) == b"the drive's"
    assert handlers.answers == [False] * 4
    assert "cannot be routed" in caplog.text


def test_a_file_that_cannot_be_written_is_routed_for_reading(
    mount: Mounting, client: Client, tmp_path: Path
) -> None:
    program = tmp_path / "running"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    handlers = Router(f=b"?")
    handlers.targets["/f"] = str(program), 0
    route(mount, client, tmp_path, PASSTHROUGH, handlers=handlers)
    with subprocess.Popen([str(program), "60"]) as sleeping:
        try:
            assert client.call("open(at + '/f', 'rb').read(4)") == b"\x7fELF"
            with pytest.raises(OSError, match=os.strerror(errno.ETXTBSY)):
                client.run("os.open(at + '/f', os.O_WRONLY)")
        finally:
            sleeping.kill()


def test_the_drive_itself_is_refused(mount: Mounting, client: Client, tmp_path: Path) -> None:
    handlers = Router(f=b"one", g=b"two", h=b"three")
    errors: list[int] = []

    class Keeping(Recorder):
        pass

    record = Keeping(handlers)

    def refused(p: Any) -> None:
        if p.file_name in handlers.targets:
            with pytest.raises(CBFSConnectError) as caught:
                handlers.cbfs.route_to_file(p.file_info, *handlers.targets[p.file_name])
            errors.append(caught.value.code)

    record.instead["on_open_file"] = refused
    drive = mount(record, serialize_events=True)
    (tmp_path / "link").symlink_to(drive.mountpoint)
    handlers.targets = {
        "/f": (f"{drive.mountpoint}/g", 0),
        "/g": (f"{drive.mountpoint}/", 0),
        "/h": (f"{tmp_path}/link/../mnt0/./f", 0),
    }
    client.run("", at=drive.mountpoint)
    for name in "fgh":
        client.run("os.close(os.open(at + '/' + name, os.O_RDONLY))", name=name)
    assert errors == [ERROR_POSSIBLE_DEADLOCK] * 3
    with pytest.raises(CBFSConnectError) as caught:
        drive.cbfs.enable_route_cache(str(tmp_path / "link"), 0)
    assert caught.value.code == ERROR_POSSIBLE_DEADLOCK


def test_only_inside_the_event_and_with_its_number(
    mount: Mounting, client: Client, tmp_path: Path
) -> None:
    routed = route(mount, client, tmp_path, PASSTHROUGH)
    routed.handlers.targets.clear()
    codes: list[int] = []

    def attempt(number: int) -> None:
        with pytest.raises(CBFSConnectError) as caught:
            routed.cbfs.route_to_file(number, str(routed.local), 0)
        codes.append(caught.value.code)

    routed.record.before["on_open_file"] = lambda p: attempt(p.file_info + 1000)
    routed.record.before["on_read_file"] = lambda p: attempt(p.handle_info)
    client.run("f = os.open(at + '/g', os.O_RDONLY); os.read(f, 10)")
    attempt(routed.record.one("on_open_file").file_info)
    assert codes == [ERROR_INVALID_STATE] * 3


def test_negative_flags_are_refused(mount: Mounting, client: Client, tmp_path: Path) -> None:
    routed = route(mount, client, tmp_path, PASSTHROUGH)
    with pytest.raises(CBFSConnectError):
        routed.cbfs.enable_route_cache(str(tmp_path), -1)


# --- transports ----------------------------------------------------------------------------------


def test_an_ordinary_user_routes_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    area = tmp_path / "area"
    area.mkdir(mode=0o777)
    area.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o005 != 0o005 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)

    def action() -> list[object]:
        become_user(area)
        (area / "local").write_bytes(LOCAL)
        handlers = Router(f=b"?")
        handlers.targets["/f"] = str(area / "local"), 0
        record = Recorder(handlers)
        (area / "mnt").mkdir()
        with cbfsconnect.mount(record, area / "mnt") as drive:
            seen = run_apart(lambda: use(f"{drive.mountpoint}/f"))
        return [*seen, (area / "local").read_bytes(), record.names("on_read_file", "on_write_file")]

    def use(path: str) -> list[object]:
        file = os.open(path, os.O_RDWR)
        os.pwrite(file, b"WHAT", 0)
        os.ftruncate(file, 6)
        return [os.pread(file, 100, 0), os.fstat(file).st_size]

    assert run_apart(action) == [b"WHAT" + LOCAL[4:6], 6, b"WHAT" + LOCAL[4:6], []]


def test_drives_that_do_not_route_ask_for_nothing(mount: Mounting, client: Client) -> None:
    drive = mount(PlainDrive(f=b"x"))
    session, engine = drive.cbfs._session, drive.cbfs._engine
    assert session is not None
    assert engine is not None
    assert (session.backing, engine.routing) == (None, None)
    assert engine.operation_of(Opcode.READ) is OPERATIONS[Opcode.READ]
