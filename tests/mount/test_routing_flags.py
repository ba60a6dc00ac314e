"""Routed items: what each CBFS_ROUTE_… flag makes fire, and what happens locally without it."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

import cbfsconnect as c
from cbfsconnect import CBFSConnectError
from cbfsconnect.errors import ERROR_INVALID_STATE
from support.client import Client
from support.mounts import Mounting
from support.plain import LockingDrive
from support.recorder import Recorder
from support.routed import (
    LOCAL,
    PASSTHROUGH,
    POSITIONED,
    Routed,
    Router,
    Transport,
    coherent_transports,
    descriptors_on,
    route,
)

OPEN_F = "f = os.open(at + '/f', os.O_RDWR)"
IGNORED = ("on_get_file_info", "on_enumerate_directory", "on_close_directory_enumeration")


def fired(routed: Routed) -> list[str]:
    names = (n for n in routed.record.names() if not n.startswith("on_get_volume"))
    return [name for name in names if name not in IGNORED]


class Mirrored(Router):
    """Everything is routed to what has the same path below `folder`, with `flags`."""

    folder = ""
    flags = 0

    def _route(self, p: Any) -> None:
        self.answers.append(
            self.call(p.file_info, self.folder + p.file_name.rstrip("/"), self.flags)
        )

    def on_get_file_info(self, p: Any) -> None:
        """As a drive whose items are the local ones."""
        try:
            status = os.stat(self.folder + p.file_name)
        except FileNotFoundError:
            return
        p.file_exists, p.mode, p.size = True, status.st_mode, status.st_size
        p.hard_link_count, p.file_id = status.st_nlink, status.st_ino

    def children(self, directory: str) -> list[str]:
        return [name for name in os.listdir(self.folder + directory) if name != "secret"]


def mirrored(
    mount: Mounting, client: Client, tmp_path: Path, flags: int, **options: Any
) -> tuple[Routed, Path]:
    """A drive of local items with a file /d/f, routed with flags; and the local directory."""
    folder = tmp_path / "folder"
    (folder / "d").mkdir(parents=True)
    (folder / "d/f").write_bytes(LOCAL)
    handlers = Mirrored()
    handlers.folder, handlers.flags = str(folder), flags
    handlers.add("/d/f")
    return route(mount, client, tmp_path, PASSTHROUGH, handlers=handlers, **options), folder


# --- opening and closing -------------------------------------------------------------------------

OPEN, CLOSE = "on_open_file", "on_close_file"


@pytest.mark.proves("CBFS_ROUTE_OPEN_EVENT", "CBFS_ROUTE_CLOSE_EVENT", "CBFS_ROUTE_CLEANUP_EVENT")
@coherent_transports
@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (0, [OPEN]),
        (c.CBFS_ROUTE_OPEN_EVENT, [OPEN, OPEN, CLOSE, CLOSE]),
        (c.CBFS_ROUTE_CLOSE_EVENT, [OPEN, OPEN, CLOSE, CLOSE]),
        (c.CBFS_ROUTE_RENAME_EVENT, [OPEN, OPEN, CLOSE, CLOSE]),
        (
            c.CBFS_ROUTE_CLEANUP_EVENT,
            [OPEN, OPEN, "on_cleanup_file", CLOSE, "on_cleanup_file", CLOSE],
        ),
    ],
)
def test_opening_and_closing(
    mount: Mounting,
    client: Client,
    tmp_path: Path,
    transport: Transport,
    flags: int,
    wanted: list[str],
) -> None:
    routed = route(mount, client, tmp_path, transport, flags, fire_all_open_close_events=True)
    client.run(OPEN_F + "; g = os.open(at + '/f', os.O_RDONLY); os.read(g, 9)")
    for name in "fg":
        client.run(f"os.close({name})")
        if flags:
            routed.record.wait_for(CLOSE, 1 + (name == "g"))
    if not flags:
        client.run("os.stat(at + '/g')")
    assert fired(routed) == wanted


@pytest.mark.proves("CBFS_ROUTE_FILE_READ_ONLY")
@coherent_transports
def test_read_only(mount: Mounting, client: Client, tmp_path: Path, transport: Transport) -> None:
    flags = c.CBFS_ROUTE_FILE_READ_ONLY
    routed = route(mount, client, tmp_path, transport, flags)
    for how in ("os.O_WRONLY", "os.O_RDWR", "os.O_RDWR | os.O_TRUNC", "os.O_RDONLY | os.O_TRUNC"):
        with pytest.raises(PermissionError):
            client.run(f"os.open(at + '/f', {how})")
    client.run("f = os.open(at + '/f', os.O_RDONLY)")
    assert client.call("os.read(f, 100)") == LOCAL
    for change in (
        "os.truncate(at + '/f', 1)",
        "os.open(at + '/f', os.O_RDWR)",
        "os.chmod(at + '/f', 0o600)",
        "os.utime(at + '/f')",
        "os.setxattr(at + '/f', 'user.x', b'')",
    ):
        with pytest.raises(OSError, match="Permission denied") as caught:
            client.run(change)
        assert caught.value.errno == errno.EACCES, change
    assert routed.local.read_bytes() == LOCAL
    client.run("os.close(f)")
    assert "on_close_file" not in routed.record.names()


def test_a_refused_open_lets_the_local_file_go(
    mount: Mounting, client: Client, tmp_path: Path
) -> None:
    flags = c.CBFS_ROUTE_FILE_READ_ONLY | c.CBFS_ROUTE_CLOSE_EVENT
    routed = route(mount, client, tmp_path, PASSTHROUGH, flags)
    with pytest.raises(PermissionError):
        client.run(OPEN_F)
    assert fired(routed) == [OPEN, CLOSE]
    assert descriptors_on(routed.local) == 0


# --- sizes and attributes ------------------------------------------------------------------------


@pytest.mark.proves("CBFS_ROUTE_SET_FILE_SIZES_EVENT")
@coherent_transports
def test_sizes(mount: Mounting, client: Client, tmp_path: Path, transport: Transport) -> None:
    routed = route(mount, client, tmp_path, transport, c.CBFS_ROUTE_SET_FILE_SIZES_EVENT)
    sizes: list[int] = []

    def resize(p: Any) -> None:
        sizes.append(p.size)
        os.truncate(routed.local, p.size)

    routed.record.instead["on_set_file_size"] = resize
    client.run(OPEN_F)
    routed.record.clear()
    client.run("os.ftruncate(f, 4)")
    client.run("os.pwrite(f, b'!', 100); os.fsync(f)")
    client.run("os.posix_fallocate(f, 0, 200)")
    client.run("os.close(os.open(at + '/f', os.O_WRONLY | os.O_TRUNC))")
    assert sizes == [4, 200, 0]
    assert fired(routed) == [
        "on_set_file_size",
        "on_set_allocation_size",
        "on_set_file_size",
        "on_set_file_size",
    ]
    assert client.call("os.fstat(f).st_size") == routed.local.stat().st_size == 0


@pytest.mark.proves("CBFS_ROUTE_SET_FILE_ATTRIBUTES_EVENT")
@coherent_transports
def test_attributes(mount: Mounting, client: Client, tmp_path: Path, transport: Transport) -> None:
    flags = c.CBFS_ROUTE_SET_FILE_ATTRIBUTES_EVENT
    routed = route(mount, client, tmp_path, transport, flags)
    modes: list[int] = []
    routed.record.instead["on_set_file_attributes"] = lambda p: modes.append(p.mode)
    mode = (tmp_path / "local").stat().st_mode
    client.run(OPEN_F + "; os.fchmod(f, 0o611)")
    assert modes == [0o611]
    assert routed.local.stat().st_mode == mode
    assert client.call("os.fstat(f).st_size") == len(LOCAL)
    assert client.call("os.fstat(f).st_mtime") == 1_200_000_000.0000002  # the drive's


@pytest.mark.proves("CBFS_ROUTE_SET_VALID_DATA_LENGTH_EVENT")
def test_valid_data_length(mount: Mounting, client: Client, tmp_path: Path) -> None:
    call = "import cbfsconnect; cbfsconnect.set_valid_data_length(f, 2)"
    for flags in (0, c.CBFS_ROUTE_SET_VALID_DATA_LENGTH_EVENT):
        record = Router(f=b"?")
        record.targets["/f"] = str(tmp_path / "local"), flags
        routed = route(mount, client, tmp_path, PASSTHROUGH, handlers=record)
        calls: list[int] = []
        routed.cbfs.on_set_valid_data_length = lambda p, calls=calls: calls.append(
            p.valid_data_length
        )
        client.run(OPEN_F + "; " + call)
        assert calls == ([2] if flags else [])


@pytest.mark.proves("CBFS_ROUTE_SET_EA_EVENT", "CBFS_ROUTE_QUERY_EA_EVENT")
@pytest.mark.parametrize("flags", [0, c.CBFS_ROUTE_SET_EA_EVENT | c.CBFS_ROUTE_QUERY_EA_EVENT])
def test_extended_attributes(mount: Mounting, client: Client, tmp_path: Path, flags: int) -> None:
    routed = route(mount, client, tmp_path, PASSTHROUGH, flags, use_alternate_data_streams=True)
    client.run(OPEN_F + "; os.setxattr(f, 'user.x', b'value')")
    assert client.call("os.listxattr(f)") == ["user.x"]
    assert client.call("os.getxattr(f, 'user.x')") == b"value"
    assert os.listxattr(routed.local) == ([] if flags else ["user.x"])
    assert ("/f:x" in routed.handlers.items) is bool(flags)


@pytest.mark.proves("CBFS_ROUTE_SET_SECURITY_EVENT", "CBFS_ROUTE_GET_SECURITY_EVENT")
@pytest.mark.parametrize(
    "flags", [0, c.CBFS_ROUTE_SET_SECURITY_EVENT | c.CBFS_ROUTE_GET_SECURITY_EVENT]
)
def test_security(mount: Mounting, client: Client, tmp_path: Path, flags: int) -> None:
    routed = route(mount, client, tmp_path, PASSTHROUGH, flags, use_windows_security=True)
    asked: list[str] = []

    def give(p: Any) -> None:
        asked.append(p.file_name)
        p.descriptor_length = 0

    routed.cbfs.on_get_file_security = give
    client.run(OPEN_F)
    with pytest.raises(OSError, match=r"supported|data") as caught:
        client.run("os.getxattr(f, 'system.ntfs_acl')")
    assert caught.value.errno == (errno.ENODATA if flags else errno.EOPNOTSUPP)
    assert asked == (["/f"] if flags else [])


@pytest.mark.proves("CBFS_ROUTE_QUERY_QUOTA_EVENT", "CBFS_ROUTE_SET_QUOTA_EVENT")
def test_quotas_are_the_drives(mount: Mounting, client: Client, tmp_path: Path) -> None:
    flags = c.CBFS_ROUTE_QUERY_QUOTA_EVENT | c.CBFS_ROUTE_SET_QUOTA_EVENT
    for given in (0, flags):
        handlers = Router(f=b"?")
        handlers.targets["/f"] = str(tmp_path / "local"), given
        routed = route(
            mount, client, tmp_path, PASSTHROUGH, handlers=handlers, use_disk_quotas=True
        )
        asked: list[object] = []
        routed.cbfs.on_query_quotas = lambda p, asked=asked: asked.append(p)
        client.run(OPEN_F + "; import cbfsconnect; cbfsconnect.list_quotas(at)")
        assert len(asked) == 1


def test_locks_count_among_the_clients(mount: Mounting, client: Client, tmp_path: Path) -> None:
    class Locking(Router, LockingDrive):
        pass

    handlers = Locking(f=b"?")
    handlers.targets["/f"] = str(tmp_path / "local"), 0
    routed = route(mount, client, tmp_path, PASSTHROUGH, handlers=handlers)
    client.run(OPEN_F + "; fcntl.lockf(f, fcntl.LOCK_EX)")
    with Client() as other:
        other.run(OPEN_F, at=routed.at)
        with pytest.raises(OSError, match=os.strerror(errno.EAGAIN)):
            other.run("fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)")
        client.run("fcntl.lockf(f, fcntl.LOCK_UN)")
        other.run("fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)")
    assert fired(routed) == [OPEN]


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.proves("CBFS_ROUTE_RENAME_EVENT")
@pytest.mark.parametrize("flags", [0, c.CBFS_ROUTE_RENAME_EVENT])
def test_renaming(mount: Mounting, client: Client, tmp_path: Path, flags: int) -> None:
    routed, folder = mirrored(mount, client, tmp_path, flags)
    new: list[str] = []

    def rename(p: Any) -> None:
        new.append(p.new_file_name)
        os.makedirs(f"{folder}/e", exist_ok=True)
        os.rename(f"{folder}{p.file_name}", f"{folder}{p.new_file_name}")

    routed.record.instead["on_rename_or_move_file"] = rename
    (folder / "e").mkdir()
    client.run("f = os.open(at + '/d/f', os.O_RDWR); os.rename(at + '/d/f', at + '/e/g')")
    assert new == (["/e/g"] if flags else [])
    assert (folder / "e/g").read_bytes() == LOCAL
    client.run("os.pwrite(f, b'WHAT', 0); os.rename(at + '/e/g', at + '/d/h')")
    assert new == (["/e/g", "/d/h"] if flags else [])
    assert client.call("open(at + '/d/h', 'rb').read()") == b"WHAT" + LOCAL[4:]
    assert client.call("os.listdir(at + '/d')") == ["h"]


@pytest.mark.proves("CBFS_ROUTE_CAN_FILE_BE_DELETED_EVENT")
@pytest.mark.parametrize("flags", [0, c.CBFS_ROUTE_CAN_FILE_BE_DELETED_EVENT])
@pytest.mark.parametrize("is_open", [False, True])
def test_deleting(
    mount: Mounting, client: Client, tmp_path: Path, flags: int, is_open: bool
) -> None:
    routed, folder = mirrored(mount, client, tmp_path, flags)
    routed.record.instead["on_delete_file"] = lambda p: os.unlink(f"{folder}{p.file_name}")
    if is_open:
        client.run("f = os.open(at + '/d/f', os.O_RDWR)")
    client.run("os.unlink(at + '/d/f')")
    assert client.call("os.path.exists(at + '/d/f')") is False
    if is_open:
        client.run("os.pwrite(f, b'WHAT', 0)")
        assert client.call("os.pread(f, 100, 0)") == b"WHAT" + LOCAL[4:]
        assert client.call("os.fstat(f).st_nlink") == 0
        client.run("os.close(f)")
    asked = ("on_can_file_be_deleted", "on_delete_file")
    if flags:
        routed.record.wait_for("on_delete_file")
    assert routed.record.names(*asked) == (list(asked) if flags else [])
    assert not (folder / "d/f").exists()


def test_a_read_only_file_is_not_deleted(mount: Mounting, client: Client, tmp_path: Path) -> None:
    _, folder = mirrored(mount, client, tmp_path, c.CBFS_ROUTE_FILE_READ_ONLY)
    for change in ("os.unlink(at + '/d/f')", "os.rename(at + '/d/f', at + '/d/g')"):
        with pytest.raises(PermissionError):
            client.run(f"f = os.open(at + '/d/f', os.O_RDONLY); {change}")
    assert (folder / "d/f").read_bytes() == LOCAL


@pytest.mark.proves("CBFS_ROUTE_CREATE_HARD_LINK_EVENT")
@pytest.mark.parametrize("flags", [0, c.CBFS_ROUTE_CREATE_HARD_LINK_EVENT])
def test_linking(mount: Mounting, client: Client, tmp_path: Path, flags: int) -> None:
    routed, folder = mirrored(mount, client, tmp_path, flags, use_hard_links=True)
    linked: list[str] = []

    def link(p: Any) -> None:
        linked.append(p.link_name)
        os.link(f"{folder}{p.file_name}", f"{folder}{p.link_name}")

    routed.cbfs.on_create_hard_link = link
    client.run("f = os.open(at + '/d/f', os.O_RDWR); os.link(at + '/d/f', at + '/d/g')")
    assert linked == (["/d/g"] if flags else [])
    assert (folder / "d/g").stat().st_nlink == client.call("os.fstat(f).st_nlink") == 2
    assert client.call("os.stat(at + '/d/g').st_ino == os.fstat(f).st_ino")
    client.run("os.unlink(at + '/d/f')")
    assert client.call("os.pread(f, 100, 0)") == (folder / "d/g").read_bytes() == LOCAL


# --- directories ---------------------------------------------------------------------------------


@pytest.mark.proves("CBFS_ROUTE_ENUMERATE_DIRECTORY_EVENT")
@pytest.mark.parametrize("flags", [0, c.CBFS_ROUTE_ENUMERATE_DIRECTORY_EVENT])
def test_listing(mount: Mounting, client: Client, tmp_path: Path, flags: int) -> None:
    routed, folder = mirrored(mount, client, tmp_path, flags)
    for number in range(3000):
        (folder / f"d/{number}").touch()
    (folder / "d/secret").touch()  # the handlers do not list it
    routed.handlers.items |= {f"/d/{name}": routed.handlers.items["/d/f"] for name in range(3000)}
    found = client.call("os.listdir(at + '/d')")
    assert ("secret" in found) is not bool(flags)
    assert len(found) == len(set(found)) == 3001 + (not flags)
    assert ("on_enumerate_directory" in routed.record.names()) is bool(flags)
    assert client.call("sum(e.is_file() for e in os.scandir(at + '/d'))") == len(found)


@pytest.mark.proves("CBFS_ROUTE_IS_DIRECTORY_EMPTY_EVENT")
@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (0, []),
        (c.CBFS_ROUTE_IS_DIRECTORY_EMPTY_EVENT, ["on_is_directory_empty"]),
        (c.CBFS_ROUTE_CAN_FILE_BE_DELETED_EVENT, ["on_can_file_be_deleted"]),
    ],
)
def test_removing_a_directory(
    mount: Mounting, client: Client, tmp_path: Path, flags: int, wanted: list[str]
) -> None:
    routed, folder = mirrored(mount, client, tmp_path, flags)
    routed.record.instead["on_delete_file"] = lambda p: os.rmdir(f"{folder}{p.file_name}")
    with pytest.raises(OSError, match=os.strerror(errno.ENOTEMPTY)):
        client.run("os.rmdir(at + '/d')")
    assert routed.record.names("on_is_directory_empty", "on_can_file_be_deleted") == wanted
    (folder / "d/f").unlink()
    client.run("os.rmdir(at + '/d')")
    assert not (folder / "d").exists()


# --- the route cache -----------------------------------------------------------------------------


def cached(
    mount: Mounting,
    client: Client,
    tmp_path: Path,
    transport: Transport = PASSTHROUGH,
    flags: int = 0,
    **options: Any,
) -> tuple[Routed, Path]:
    """A drive with /f, /g and /d/h, of which /f and /d/h are in the route cache."""
    folder = tmp_path / "cache"
    (folder / "d").mkdir(parents=True)
    for name in ("f", "d/h"):
        (folder / name).write_bytes(LOCAL)
    handlers = Router(f=b"own", g=b"the drive's own")
    handlers.add_directory("/d")
    handlers.add("/d/h", b"own")
    record = Recorder(handlers)
    method = {"RouteMethod": transport.method}
    drive = mount(record, config=method, **options)
    drive.cbfs.enable_route_cache(str(folder), flags)
    drive.cbfs.remove_mounting_point(0)
    drive.cbfs.add_mounting_point(drive.mountpoint)
    client.run("", at=drive.mountpoint)
    record.clear()
    return Routed(record, handlers, drive.cbfs, str(drive.mountpoint), folder), folder


@pytest.mark.proves("enable_route_cache")
@coherent_transports
def test_what_the_cache_has_fires_nothing(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport
) -> None:
    routed, folder = cached(mount, client, tmp_path, transport)
    for path in ("f", "d/h"):
        client.run(
            "f = os.open(at + '/' + path, os.O_RDWR); os.pwrite(f, b'WHAT', 0); os.fsync(f)",
            path=path,
        )
        assert client.call("os.pread(f, 100, 0)") == b"WHAT" + LOCAL[4:]
        client.run("os.close(f)")
        assert (folder / path).read_bytes() == b"WHAT" + LOCAL[4:]
    assert fired(routed) == []


@coherent_transports
def test_what_it_does_not_have_is_served_by_the_handlers(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport
) -> None:
    routed, _ = cached(mount, client, tmp_path, transport)
    assert client.call("open(at + '/g', 'rb').read()") == b"the drive's own"
    assert {"on_open_file", "on_read_file"} <= set(routed.record.names())


def test_its_open_and_close_events(mount: Mounting, client: Client, tmp_path: Path) -> None:
    routed, _ = cached(mount, client, tmp_path, flags=c.CBFS_ROUTE_CLOSE_EVENT)
    client.run("f = os.open(at + '/f', os.O_RDWR); os.read(f, 10); os.close(f)")
    routed.record.wait_for("on_close_file")
    assert fired(routed) == ["on_open_file", "on_close_file"]


def test_no_name_leads_out_of_it(mount: Mounting, client: Client, tmp_path: Path) -> None:
    routed, folder = cached(mount, client, tmp_path)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/h").write_bytes(b"not for you")
    (folder / "g").symlink_to(tmp_path / "outside/h")
    (folder / "d/h").unlink()
    (folder / "d").rmdir()
    (folder / "d").symlink_to(tmp_path / "outside")
    assert client.call("open(at + '/g', 'rb').read()") == b"the drive's own"
    assert client.call("open(at + '/d/h', 'rb').read()") == b"own"
    assert "on_read_file" in routed.record.names()


def test_a_new_file_of_it_is_routed_and_empty(
    mount: Mounting, client: Client, tmp_path: Path
) -> None:
    routed, folder = cached(mount, client, tmp_path)
    (folder / "new").write_bytes(b"of a file that is no more")
    client.run("f = os.open(at + '/new', os.O_RDWR | os.O_CREAT); os.write(f, b'data')")
    assert client.call("os.fstat(f).st_size") == 4
    assert (folder / "new").read_bytes() == b"data"
    assert fired(routed) == ["on_create_file"]


def test_a_closed_file_is_renamed_in_it(mount: Mounting, client: Client, tmp_path: Path) -> None:
    routed, folder = cached(mount, client, tmp_path)
    client.run("os.rename(at + '/f', at + '/e')")
    assert (folder / "e").read_bytes() == LOCAL
    assert fired(routed) == []


def test_what_is_replaced_is_not_kept_in_it(
    mount: Mounting, client: Client, tmp_path: Path
) -> None:
    routed, folder = cached(mount, client, tmp_path)
    client.run("os.rename(at + '/g', at + '/f')")
    assert not (folder / "f").exists()
    assert fired(routed) == ["on_rename_or_move_file"]
    assert client.call("open(at + '/f', 'rb').read()") == b"the drive's own"


@pytest.mark.proves("disable_route_cache", "enable_route_cache")
@coherent_transports
@pytest.mark.parametrize("invalidate", [False, True])
def test_disabling_it(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport, invalidate: bool
) -> None:
    routed, _ = cached(mount, client, tmp_path, transport)
    client.run("f = os.open(at + '/f', os.O_RDWR); assert os.read(f, 4) == b'what'")
    routed.cbfs.disable_route_cache(invalidate)
    client.run("os.pwrite(f, b'WHAT', 0); os.fsync(f)")
    to_handlers = invalidate and transport is POSITIONED
    assert (routed.handlers.items["/f"].data == b"WHAT") is to_handlers
    client.run("os.close(f)")
    if to_handlers:
        routed.record.wait_for("on_close_file")
        assert routed.record.names("on_open_file", "on_write_file", "on_close_file") == [
            "on_open_file",
            "on_write_file",
            "on_close_file",
        ]
    else:
        assert fired(routed) == []
    deadline = 100
    while descriptors_on(routed.folder / "f") and deadline:
        client.run("time.sleep(0.05)")
        deadline -= 1
    client.run("f = os.open(at + '/f', os.O_RDWR)")
    assert client.call("os.pread(f, 4, 0)") == (b"WHAT" if to_handlers else b"own")


def test_the_drive_may_be_mounted_inside_it(
    mount: Mounting, client: Client, tmp_path: Path
) -> None:
    class Caching(Router):
        def configure(self, cbfs: Any) -> None:
            cbfs.enable_route_cache(str(tmp_path), 0)

    handlers = Caching(f=b"own")
    handlers.add_directory("/mnt0")
    handlers.add("/mnt0/f", b"not the drive's own file")
    drive = mount(handlers, serialize_events=True)
    client.run("", at=drive.mountpoint)
    assert client.call("open(at + '/mnt0/f', 'rb').read()") == b"not the drive's own file"


def test_a_cache_that_is_no_directory(mount: Mounting, client: Client, tmp_path: Path) -> None:
    cbfs = c.CBFS()
    (tmp_path / "file").touch()
    for path in ("missing", "file"):
        with pytest.raises(CBFSConnectError):
            cbfs.enable_route_cache(str(tmp_path / path), 0)
    cbfs.disable_route_cache(True)
    with pytest.raises(CBFSConnectError) as caught:
        cbfs.route_to_file(1, str(tmp_path), 0)
    assert caught.value.code == ERROR_INVALID_STATE


# --- programs from Windows -----------------------------------------------------------------------


def test_handlers_in_the_way_of_windows(mount: Mounting, client: Client, tmp_path: Path) -> None:
    """Paths with backslashes, integer contexts, no flags: a folder shown by routing."""

    class Folder(Mirrored):
        def on_get_file_info(self, p: Any) -> None:
            try:
                status = os.stat(self.local(p.file_name))
            except FileNotFoundError:
                return
            p.file_exists, p.size, p.mode = True, status.st_size, status.st_mode

        def on_create_file(self, p: Any) -> None:
            open(self.local(p.file_name), "xb").close()
            self._route(p)

        def on_rename_or_move_file(self, p: Any) -> None:
            os.rename(self.local(p.file_name), self.local(p.new_file_name))

        def _route(self, p: Any) -> None:
            p.file_context = 7
            self.answers.append(self.call(p.file_info, self.local(p.file_name), 0))

        def local(self, path: str) -> str:
            return (self.folder + path.replace("\\", "/")).rstrip("/")

    handlers = Folder()
    handlers.folder = str(tmp_path / "folder")
    os.makedirs(tmp_path / "folder/sub")
    config = {"PathSeparator": "\\"}
    routed = route(mount, client, tmp_path, PASSTHROUGH, handlers=handlers, config=config)
    client.run("""
        os.chdir(at + '/sub')
        with open('a', 'w') as file: file.write('text')
        with open('a', 'a') as file: file.write(' and more')
        os.rename('a', '../b')
        with open('new', 'w') as file: file.write('saved')
        os.replace('new', '../b')
        with open('gone', 'w') as file: os.unlink('gone')
        result = open('../b').read(), os.listdir('.'), os.listdir('..')
        os.chdir('/')
    """)
    assert client.call("open(at + '/b').read()") == "saved"
    assert (tmp_path / "folder/b").read_text() == "saved"
    assert sorted(os.listdir(tmp_path / "folder")) == ["b", "sub"]
    assert os.listdir(tmp_path / "folder/sub") == []
    assert False not in routed.handlers.answers
    assert set(fired(routed)) == {"on_open_file", "on_create_file", "on_rename_or_move_file"}


# --- hard cases ----------------------------------------------------------------------------------


def test_replacing_an_open_file(mount: Mounting, client: Client, tmp_path: Path) -> None:
    _, folder = mirrored(mount, client, tmp_path, 0)
    (folder / "d/new").write_bytes(b"new")
    client.run("f = os.open(at + '/d/f', os.O_RDWR); n = os.open(at + '/d/new', os.O_RDWR)")
    client.run("os.rename(at + '/d/new', at + '/d/f')")
    assert client.call("os.pread(f, 100, 0)") == LOCAL
    assert client.call("os.pread(n, 100, 0)") == b"new"
    assert client.call("open(at + '/d/f', 'rb').read()") == (folder / "d/f").read_bytes() == b"new"
    assert client.call("os.listdir(at + '/d')") == ["f"]


def test_a_new_file_that_is_read_only(mount: Mounting, client: Client, tmp_path: Path) -> None:
    (tmp_path / "born").write_bytes(b"template")
    handlers = Router(f=b"")
    handlers.targets["/new"] = str(tmp_path / "born"), c.CBFS_ROUTE_FILE_READ_ONLY
    route(mount, client, tmp_path, PASSTHROUGH, handlers=handlers)
    with pytest.raises(PermissionError):
        client.run("os.open(at + '/new', os.O_RDWR | os.O_CREAT)")
    assert client.call("open(at + '/new', 'rb').read()") == b"template"


def test_set_id_bits_go_when_another_opens_it_to_write(
    mount: Mounting, client: Client, tmp_path: Path
) -> None:
    class Open(Router):
        def on_get_file_info(self, p: Any) -> None:
            super().on_get_file_info(p)
            if p.file_name == "/f":
                p.mode = 0o6777

    handlers = Open(f=b"?")
    handlers.targets["/f"] = str(tmp_path / "local"), 0
    (tmp_path / "local").write_bytes(LOCAL)
    (tmp_path / "local").chmod(0o6777)
    routed = route(mount, client, tmp_path, PASSTHROUGH, handlers=handlers)
    with Client() as other:
        other.run("os.chdir(at); os.setgid(1234); os.setuid(1234)", at=routed.at)
        other.run("f = os.open('f', os.O_RDONLY)")
        assert routed.local.stat().st_mode & 0o7777 == 0o6777
        other.run("f = os.open('f', os.O_WRONLY); os.write(f, b'WHAT')")
    assert routed.local.stat().st_mode & 0o7777 == 0o777


@coherent_transports
@pytest.mark.parametrize("fire_all", [False, True])
def test_many_at_once(
    mount: Mounting, client: Client, tmp_path: Path, transport: Transport, fire_all: bool
) -> None:
    """Opens that are routed, opens that are not, and changes by name: nobody gets an error."""
    turns = iter(range(1 << 30))

    class Sometimes(Router):
        def on_open_file(self, p: Any) -> None:
            if next(turns) % 3:
                super().on_open_file(p)

    handlers = Sometimes(f=LOCAL)
    handlers.targets["/f"] = str(tmp_path / "local"), c.CBFS_ROUTE_OPEN_EVENT
    routed = route(
        mount,
        client,
        tmp_path,
        transport,
        handlers=handlers,
        fire_all_open_close_events=fire_all,
    )
    clients = [Client() for _ in range(4)]
    try:
        for one in clients:
            one.run("", at=routed.at)
            one.start("""
                for turn in range(150):
                    f = os.open(at + '/f', os.O_RDWR)
                    assert len(os.pread(f, 100, 0)) == 23
                    os.pwrite(f, b'w', turn % 23)
                    if turn % 10 == 0: os.chmod(at + '/f', 0o600 + turn % 8)
                    assert os.stat(at + '/f').st_size == 23
                    os.close(f)
            """)
        for one in clients:
            one.finish()
    finally:
        for one in clients:
            one.close()
