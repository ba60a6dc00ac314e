"""The life of a drive: what each method of class CBFS does, when, and what it refuses."""

import contextlib
import errno
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cbfsconnect
from cbfsconnect import (
    CBFS,
    STGC_REMOVABLE_MEDIA,
    STGMP_DRIVE_LETTER_NOTIFY_ASYNC,
    STGMP_LOCAL,
    STGMP_MOUNT_MANAGER,
    STGMP_NETWORK,
    STGMP_SIMPLE,
    STGT_DISK_PNP,
    CBFSConnectError,
    MemoryDrive,
)
from cbfsconnect.errors import (
    ERROR_ACCESS_DENIED,
    ERROR_BUSY,
    ERROR_IMPLEMENTATION_LIMIT,
    ERROR_INVALID_PARAMETER,
    ERROR_INVALID_STATE,
)
from cbfsconnect.fuse import mountinfo
from support.client import Client, run
from support.recorder import Recorder

GUID = "{4B64E2A1-2D0C-4B5E-9A38-5E0D7C5F8A11}"


@pytest.fixture
def record() -> Recorder:
    record = Recorder(MemoryDrive())
    for name in ("on_mount", "on_unmount", "on_ejected", "on_cleanup_file"):
        record.handle(name, lambda params: None)
    return record


@pytest.fixture
def cbfs(record: Recorder) -> Iterator[CBFS]:
    """An object with handlers, nothing else done; nothing of it is left afterwards."""
    before = set(threading.enumerate())
    cbfs = CBFS()
    cbfs.set_handlers(record)
    cbfs.initialize(GUID)
    yield cbfs
    if cbfs.storage_present:
        cbfs.delete_storage(True)
    threads = [t for t in set(threading.enumerate()) - before if t.name.startswith("cbfs")]
    for thread in threads:
        thread.join(5)  # after an umount by others it may just be about to end
    assert not [thread.name for thread in threads if thread.is_alive()]


@pytest.fixture
def point(tmp_path: Path) -> Path:
    return directory(tmp_path, "point")


def directory(parent: Path, name: str) -> Path:
    path = parent / name
    path.mkdir()
    return path


def mounted(cbfs: CBFS, point: Path, timeout: int = 0) -> CBFS:
    cbfs.create_storage()
    cbfs.mount_media(timeout)
    cbfs.add_mounting_point(str(point), 0, 0)
    return cbfs


def is_mounted(point: Path) -> bool:
    return mountinfo.entry_at(str(point)) is not None


def refused(code: int, action: Callable[..., object], *arguments: Any) -> str:
    """Check that a call raises this code; its message."""
    with pytest.raises(CBFSConnectError) as caught:
        action(*arguments)
    assert caught.value.code == code, caught.value
    return caught.value.message


def os_error(number: int, client: Client, code: str, **names: Any) -> None:
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as caught:
        client.run(code, **names)
    assert caught.value.errno == number, caught.value


# --- initialize and create_storage ------------------------------------------------------


def test_a_drive_is_created_after_initialize_only() -> None:
    program = f"""
import cbfsconnect
first, second = cbfsconnect.CBFS(), cbfsconnect.CBFS()
try:
    second.create_storage()
except cbfsconnect.CBFSConnectError as error:
    print(error.code)
first.initialize("{GUID}")
second.create_storage()
second.delete_storage(False)
"""
    assert run(sys.executable, "-c", program) == f"{ERROR_INVALID_STATE}\n"


@pytest.mark.parametrize("guid", ["", None, 5])
@pytest.mark.proves("initialize")
def test_initialize_wants_a_guid(cbfs: CBFS, guid: Any) -> None:
    refused(ERROR_INVALID_PARAMETER, cbfs.initialize, guid)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("mount_media", (0,)),
        ("add_mounting_point", ("/nowhere", 0, 0)),
        ("remove_mounting_point", (0, "", 0, 0)),
        ("unmount_media", (True,)),
        ("delete_storage", (True,)),
    ],
)
def test_without_a_drive_nothing_else_can_be_called(
    cbfs: CBFS, method: str, arguments: tuple[Any, ...]
) -> None:
    assert "create_storage" in refused(ERROR_INVALID_STATE, getattr(cbfs, method), *arguments)


@pytest.mark.proves("create_storage", "delete_storage")
def test_a_drive_is_created_once_and_again_after_its_deletion(cbfs: CBFS) -> None:
    assert not cbfs.get_storage_present()
    for _ in range(2):
        cbfs.create_storage()
        assert cbfs.storage_present
        assert cbfs.get_storage_present()
        refused(ERROR_INVALID_STATE, cbfs.create_storage)
        cbfs.delete_storage(False)
        assert not cbfs.storage_present


@pytest.mark.proves("storage_type", "storage_guid", "storage_characteristics", "unmount_media")
def test_a_pnp_drive_needs_a_guid_and_keeps_media_that_is_not_removable(cbfs: CBFS) -> None:
    cbfs.storage_type = STGT_DISK_PNP
    refused(ERROR_INVALID_PARAMETER, cbfs.create_storage)
    cbfs.storage_guid = GUID
    cbfs.storage_characteristics &= ~STGC_REMOVABLE_MEDIA
    cbfs.create_storage()
    cbfs.mount_media(0)
    refused(ERROR_ACCESS_DENIED, cbfs.unmount_media, True)
    assert cbfs.active
    cbfs.delete_storage(False)


# --- mount_media ------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [1, 2999, -1])
def test_a_timeout_is_none_or_three_seconds_at_least(cbfs: CBFS, timeout: int) -> None:
    cbfs.create_storage()
    refused(ERROR_IMPLEMENTATION_LIMIT, cbfs.mount_media, timeout)
    assert ERROR_IMPLEMENTATION_LIMIT == 1292
    assert not cbfs.active


@pytest.mark.proves("active", "mount_media", "on_mount")
@pytest.mark.parametrize("timeout", [0, 3000])
def test_mounting_media_makes_the_drive_active_and_fires_on_mount(
    cbfs: CBFS, record: Recorder, timeout: int
) -> None:
    cbfs.create_storage()
    assert not cbfs.get_active()
    assert not record.fired
    cbfs.mount_media(timeout)
    assert cbfs.active
    assert cbfs.get_active()
    assert record.names()[-1] == "on_mount"
    assert all(fired.thread != threading.get_ident() for fired in record.fired)
    refused(ERROR_INVALID_STATE, cbfs.mount_media, timeout)
    cbfs.unmount_media(False)
    assert not cbfs.get_active()
    assert record.names()[-1] == "on_unmount"
    refused(ERROR_INVALID_STATE, cbfs.unmount_media, False)


def test_every_drive_needs_two_handlers(cbfs: CBFS) -> None:
    bare = CBFS()
    bare.create_storage()
    assert "on_get_file_info" in refused(ERROR_INVALID_STATE, bare.mount_media, 0)
    bare.on_get_file_info = cbfs.on_get_file_info
    assert "on_enumerate_directory" in refused(ERROR_INVALID_STATE, bare.mount_media, 0)
    bare.on_enumerate_directory = cbfs.on_enumerate_directory
    bare.mount_media(0)
    bare.delete_storage(False)


def answer_code(params: Any) -> None:
    params.result_code = ERROR_ACCESS_DENIED


def answer_file(params: Any) -> None:
    params.file_exists = True


def answer_nothing(params: Any) -> None:
    pass


def fail(params: Any) -> None:
    raise RuntimeError("out of order")


@pytest.mark.parametrize(
    ("event", "handler"),
    [
        ("on_get_volume_size", fail),
        ("on_get_volume_label", answer_code),
        ("on_get_volume_id", answer_code),
        ("on_get_file_info", fail),
        ("on_get_file_info", answer_nothing),
        ("on_get_file_info", answer_file),
    ],
)
def test_media_whose_handlers_misbehave_is_not_mounted(
    cbfs: CBFS, record: Recorder, event: str, handler: Callable[[Any], None]
) -> None:
    cbfs.create_storage()
    record.instead[event] = handler
    with pytest.raises(CBFSConnectError, match=event):
        cbfs.mount_media(0)
    assert not cbfs.active
    assert not record.all("on_mount")
    del record.instead[event]
    cbfs.mount_media(0)
    assert cbfs.active


# --- mounting points --------------------------------------------------------------------


@pytest.mark.proves(
    "add_mounting_point",
    "get_mounting_point_authentication_id",
    "get_mounting_point_flags",
    "get_mounting_point_name",
    "mounting_point_count",
)
def test_points_are_listed_with_what_they_were_added_with(cbfs: CBFS, tmp_path: Path) -> None:
    names = [str(directory(tmp_path, name)) for name in "abc"]
    cbfs.create_storage()
    assert cbfs.mounting_point_count == 0
    cbfs.add_mounting_point(names[0], 0, 0)
    cbfs.add_mounting_point(names[1], STGMP_NETWORK, 0)
    cbfs.add_mounting_point(names[2] + "/", STGMP_LOCAL, 7)
    assert cbfs.mounting_point_count == cbfs.get_mounting_point_count() == 3
    listed = [
        (
            cbfs.get_mounting_point_name(n),
            cbfs.get_mounting_point_flags(n),
            cbfs.get_mounting_point_authentication_id(n),
        )
        for n in range(3)
    ]
    assert listed == [
        (names[0], STGMP_SIMPLE, 0),
        (names[1], STGMP_NETWORK, 0),
        (names[2] + "/", STGMP_SIMPLE | STGMP_LOCAL, 7),
    ]
    for index in (3, -1):
        refused(ERROR_INVALID_PARAMETER, cbfs.get_mounting_point_name, index)
        refused(ERROR_INVALID_PARAMETER, cbfs.get_mounting_point_flags, index)
        refused(ERROR_INVALID_PARAMETER, cbfs.get_mounting_point_authentication_id, index)


@pytest.mark.parametrize(
    "flags",
    [
        STGMP_SIMPLE | STGMP_NETWORK,
        STGMP_NETWORK | STGMP_MOUNT_MANAGER,
        STGMP_LOCAL | STGMP_MOUNT_MANAGER,
        0x08000000,
    ],
)
@pytest.mark.proves("STGMP_SIMPLE", "STGMP_MOUNT_MANAGER", "STGMP_NETWORK")
def test_flags_that_exclude_one_another_are_refused(cbfs: CBFS, point: Path, flags: int) -> None:
    cbfs.create_storage()
    refused(ERROR_INVALID_PARAMETER, cbfs.add_mounting_point, str(point), flags, 0)
    assert cbfs.mounting_point_count == 0
    assert not is_mounted(point)


def test_the_mount_manager_has_one_point_only(cbfs: CBFS, tmp_path: Path) -> None:
    cbfs.create_storage()
    cbfs.add_mounting_point(str(directory(tmp_path, "a")), STGMP_MOUNT_MANAGER, 0)
    other = str(directory(tmp_path, "b"))
    refused(ERROR_INVALID_PARAMETER, cbfs.add_mounting_point, other, STGMP_MOUNT_MANAGER, 0)
    cbfs.add_mounting_point(other, STGMP_SIMPLE, 0)


def test_a_point_that_cannot_be_used_is_explained(cbfs: CBFS, tmp_path: Path) -> None:
    cbfs.create_storage()
    (tmp_path / "file").touch()
    full = directory(tmp_path, "full")
    (full / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file", full):
        with pytest.raises(CBFSConnectError, match=path.name):
            cbfs.add_mounting_point(str(path), 0, 0)
    assert cbfs.mounting_point_count == 0


@pytest.mark.proves("remove_mounting_point")
def test_a_point_is_removed_by_its_index(cbfs: CBFS, tmp_path: Path) -> None:
    a, b = directory(tmp_path, "a"), directory(tmp_path, "b")
    mounted(cbfs, a).add_mounting_point(str(b), 0, 0)
    refused(ERROR_INVALID_PARAMETER, cbfs.remove_mounting_point, 2, "", 0, 0)
    refused(ERROR_INVALID_PARAMETER, cbfs.remove_mounting_point, -2, "", 0, 0)
    cbfs.remove_mounting_point(0, "dummy", 99, 99)
    assert not is_mounted(a)
    assert is_mounted(b)
    assert cbfs.get_mounting_point_name(0) == str(b)
    cbfs.remove_mounting_point(0, "", 0, 0)
    assert not is_mounted(b)
    assert cbfs.mounting_point_count == 0
    assert cbfs.active


def test_a_point_is_removed_by_the_values_it_was_added_with(cbfs: CBFS, point: Path) -> None:
    name = str(point)
    cbfs.create_storage()
    cbfs.add_mounting_point(name, STGMP_LOCAL, 7)
    for wrong in [(name, 0, 7), (name, STGMP_LOCAL, 0), (name + "/", STGMP_LOCAL, 7)]:
        refused(ERROR_INVALID_PARAMETER, cbfs.remove_mounting_point, -1, *wrong)
    assert is_mounted(point)
    flags = STGMP_LOCAL | STGMP_DRIVE_LETTER_NOTIFY_ASYNC
    cbfs.remove_mounting_point(-1, name, flags, 7)
    assert not is_mounted(point)


def test_a_point_in_use_stays_and_its_user_is_named(
    cbfs: CBFS, point: Path, client: Client
) -> None:
    mounted(cbfs, point)
    client.run("os.chdir(at)", at=str(point))
    message = refused(ERROR_BUSY, cbfs.remove_mounting_point, 0, "", 0, 0)
    assert str(client.pid) in message
    assert cbfs.mounting_point_count == 1
    assert client.call("os.listdir('.')") == []
    client.run("os.chdir('/')")
    cbfs.remove_mounting_point(0, "", 0, 0)


@pytest.mark.proves("add_mounting_point")
def test_several_points_show_the_same_drive(cbfs: CBFS, tmp_path: Path, client: Client) -> None:
    a, b, c = (directory(tmp_path, name) for name in "abc")
    mounted(cbfs, a).add_mounting_point(str(b), 0, 0)
    client.run("(a / 'f').write_text('seen'); file = open(b / 'f')", a=a, b=b)
    assert client.call("file.read()") == "seen"
    assert client.call("os.path.samefile(a / 'f', b / 'f')")
    cbfs.remove_mounting_point(0, "", 0, 0)
    cbfs.add_mounting_point(str(c), 0, 0)
    assert client.call("(c / 'f').read_text()", c=c) == "seen"
    client.run("file.close()")
    cbfs.delete_storage(False)
    assert not any(map(is_mounted, (a, b, c)))


def test_media_stays_in_while_there_is_no_point(
    cbfs: CBFS, record: Recorder, point: Path, client: Client
) -> None:
    mounted(cbfs, point)
    client.run("(at / 'f').write_text('kept')", at=point)
    cbfs.remove_mounting_point(0, "", 0, 0)
    assert cbfs.active
    cbfs.add_mounting_point(str(point), 0, 0)
    assert client.call("(at / 'f').read_text()") == "kept"
    assert "on_unmount" not in record.names()


def test_only_the_own_mount_is_removed(cbfs: CBFS, tmp_path: Path) -> None:
    """What others mounted at the point, after they took ours away, is theirs."""
    a, b = directory(tmp_path, "a"), directory(tmp_path, "b")
    mounted(cbfs, a).add_mounting_point(str(b), 0, 0)
    subprocess.run(["umount", str(b)], check=True)
    other = CBFS()
    other.set_handlers(MemoryDrive())
    mounted(other, b)
    try:
        cbfs.remove_mounting_point(1, "", 0, 0)
        assert cbfs.mounting_point_count == 1
        assert is_mounted(b)
    finally:
        other.delete_storage(False)


# --- media in and out -------------------------------------------------------------------


def test_without_media_everything_is_answered_with_enomedium(
    cbfs: CBFS, record: Recorder, point: Path, client: Client
) -> None:
    cbfs.create_storage()
    cbfs.add_mounting_point(str(point), 0, 0)
    for _ in range(2):
        for code in ("os.listdir(at)", "os.stat(at + '/f')", "open(at + '/f', 'w')"):
            os_error(errno.ENOMEDIUM, client, code, at=str(point))
        assert not record.fired
        cbfs.mount_media(0)
        client.run("Path(at, 'f').write_text('x'); result = os.listdir(at)")
        assert client.call("os.listdir(at)") == ["f"]
        client.run("os.unlink(at + '/f')")
        cbfs.unmount_media(False)
        record.clear()
    assert cbfs.storage_present
    assert cbfs.mounting_point_count == 1


@pytest.mark.proves("unmount_media")
def test_media_with_open_files_goes_by_force_only(
    cbfs: CBFS, record: Recorder, point: Path, client: Client
) -> None:
    mounted(cbfs, point)
    client.run("file = open(at + '/f', 'wb+', 0); file.write(b'old')", at=str(point))
    assert "/f" in refused(ERROR_BUSY, cbfs.unmount_media, False)
    assert cbfs.active
    client.run("file.write(b'er')")
    record.clear()
    cbfs.unmount_media(True)
    assert not cbfs.get_active()
    seen = [f.name for f in record.fired if f.given.get("file_name", "/f") == "/f"]
    closing = ["on_write_file", "on_cleanup_file", "on_close_file", "on_unmount"]
    assert [name for name in seen if name in closing] == closing, "what was cached is written first"
    os_error(errno.ENOMEDIUM, client, "os.pread(file.fileno(), 5, 0)")
    cbfs.mount_media(0)
    # The old descriptor must not reach an item of the new media.
    with pytest.raises(OSError, match=r"Bad file descriptor|Stale file handle"):
        client.run("os.pread(file.fileno(), 5, 0)")
    with contextlib.suppress(OSError):
        client.run("file.close()")
    assert client.call("Path(at, 'f').stat().st_size") == 5
    cbfs.unmount_media(False)


def test_an_answer_that_comes_after_media_is_out_opens_nothing(
    cbfs: CBFS, record: Recorder, point: Path, client: Client
) -> None:
    mounted(cbfs, point)
    client.run("Path(at, 'f').write_text('x')", at=str(point))
    inside = threading.Event()

    def wait(params: Any) -> None:
        inside.set()
        deadline = time.monotonic() + 20
        while params.file_name == "/f" and cbfs.active and time.monotonic() < deadline:
            time.sleep(0.001)

    record.before["on_open_file"] = wait
    client.start("os.open(at + '/f', os.O_RDONLY)")
    assert inside.wait(20)
    record.clear()
    cbfs.unmount_media(True)
    with pytest.raises(OSError, match="No medium") as caught:
        client.finish()
    assert caught.value.errno == errno.ENOMEDIUM
    record.wait_for("on_close_file")


# --- delete_storage ---------------------------------------------------------------------


@pytest.mark.proves("storage_present", "delete_storage")
def test_a_drive_in_use_is_deleted_by_force_only(
    cbfs: CBFS, record: Recorder, point: Path, client: Client
) -> None:
    mounted(cbfs, point)
    client.run("file = open(at + '/f', 'wb', 0); file.write(b'x')", at=str(point))
    assert str(client.pid) in refused(ERROR_BUSY, cbfs.delete_storage, False)
    assert cbfs.storage_present
    assert cbfs.active
    client.run("file.write(b'y')")
    record.clear()
    cbfs.delete_storage(True)
    assert not is_mounted(point)
    assert not cbfs.get_storage_present()
    assert not cbfs.get_active()
    assert cbfs.mounting_point_count == 0
    last = ["on_write_file", "on_close_file", "on_unmount"]
    assert list(dict.fromkeys(record.names(*last))) == last, "what was cached is written first"
    assert not record.all("on_ejected")
    os_error(errno.ENOTCONN, client, "file.write(b'z'); os.fsync(file.fileno())")


@pytest.mark.proves("delete_storage")
def test_deleting_a_drive_unmounts_its_media_and_its_points(
    cbfs: CBFS, record: Recorder, tmp_path: Path
) -> None:
    points = [directory(tmp_path, name) for name in "ab"]
    mounted(cbfs, points[0]).add_mounting_point(str(points[1]), 0, 0)
    cbfs.delete_storage(False)
    assert not any(map(is_mounted, points))
    assert record.names()[-1] == "on_unmount"
    assert cbfs.wait(0)


def test_waiting_ends_with_the_drive(cbfs: CBFS, point: Path) -> None:
    mounted(cbfs, point)
    assert not cbfs.wait(0.01)
    threading.Timer(0.05, cbfs.delete_storage, [True]).start()
    assert cbfs.wait(20)


# --- inside handlers --------------------------------------------------------------------

FORBIDDEN: dict[str, Callable[[CBFS], object]] = {
    "initialize": lambda cbfs: cbfs.initialize(GUID),
    "create_storage": lambda cbfs: cbfs.create_storage(),
    "mount_media": lambda cbfs: cbfs.mount_media(0),
    "add_mounting_point": lambda cbfs: cbfs.add_mounting_point("/nowhere", 0, 0),
    "remove_mounting_point": lambda cbfs: cbfs.remove_mounting_point(0, "", 0, 0),
    "unmount_media": lambda cbfs: cbfs.unmount_media(True),
    "delete_storage": lambda cbfs: cbfs.delete_storage(True),
    "wait": lambda cbfs: cbfs.wait(0),
    "a property": lambda cbfs: setattr(cbfs, "tag", 1),
}


@pytest.mark.parametrize("event", ["on_get_file_info", "on_mount", "on_unmount", "on_ejected"])
def test_what_would_wait_for_the_handler_is_refused_in_it(
    cbfs: CBFS, record: Recorder, point: Path, client: Client, event: str
) -> None:
    codes: dict[str, int] = {}

    def try_all(params: Any) -> None:
        for name, call in FORBIDDEN.items():
            try:
                call(cbfs)
                codes[name] = 0
            except CBFSConnectError as error:
                codes[name] = error.code

    record.before[event] = try_all
    mounted(cbfs, point)
    client.run("os.path.exists(at + '/f')", at=str(point))
    if event == "on_ejected":
        subprocess.run(["umount", str(point)], check=True)
        assert cbfs.wait(20)
    else:
        cbfs.unmount_media(True)
    assert codes == dict.fromkeys(FORBIDDEN, ERROR_INVALID_STATE)


def test_methods_for_handlers_are_refused_outside(cbfs: CBFS, point: Path) -> None:
    mounted(cbfs, point)
    refused(ERROR_INVALID_STATE, cbfs.get_originator_process_id)
    refused(ERROR_INVALID_STATE, cbfs.get_handle_creator_process_id, 1)
    refused(ERROR_INVALID_STATE, cbfs.reset_timeout, 3000)


# --- the end from outside ---------------------------------------------------------------


def test_an_umount_by_others_ends_the_drive(
    cbfs: CBFS, record: Recorder, point: Path, client: Client
) -> None:
    mounted(cbfs, point)
    client.run("Path(at, 'f').write_text('x')", at=str(point))
    subprocess.run(["umount", str(point)], check=True)
    assert cbfs.wait(20)
    assert record.names()[-2:] == ["on_unmount", "on_ejected"]
    assert not cbfs.active
    assert not cbfs.storage_present
    assert cbfs.mounting_point_count == 0
    refused(ERROR_INVALID_STATE, cbfs.delete_storage, True)
    # The object can be used for another drive.
    mounted(cbfs, point)
    assert client.call("Path(at, 'f').read_text()") == "x"


def test_a_drive_goes_on_until_its_last_point_is_unmounted(
    cbfs: CBFS, record: Recorder, tmp_path: Path
) -> None:
    a, b = directory(tmp_path, "a"), directory(tmp_path, "b")
    mounted(cbfs, a).add_mounting_point(str(b), 0, 0)
    subprocess.run(["umount", str(a)], check=True)
    assert run("ls", b) == ""
    assert cbfs.active
    subprocess.run(["umount", str(b)], check=True)
    assert cbfs.wait(20)
    assert record.one("on_ejected")


# --- the short way ----------------------------------------------------------------------


class Configuring(MemoryDrive):
    """Says what it needs, before the caller's own options."""

    def configure(self, cbfs: Any) -> None:
        super().configure(cbfs)
        cbfs.tag = 5
        cbfs.max_file_name_length = 100
        cbfs.config("ReadAhead=4096")
        assert not cbfs.storage_present


def test_the_short_way_mounts_configures_and_unmounts(point: Path, client: Client) -> None:
    with cbfsconnect.mount(
        Configuring(), point, tag=6, config={"MountSource": "here", "LoggingEnabled": True}
    ) as drive:
        assert drive.mountpoint == str(point)
        assert (drive.cbfs.tag, drive.cbfs.max_file_name_length) == (6, 100)
        assert drive.cbfs.config("ReadAhead") == "4096"
        assert drive.cbfs.config("loggingenabled") == "True"
        entry = mountinfo.entry_at(str(point))
        assert entry is not None
        assert entry.source == "here"
        assert not drive.wait(0.01)
        client.run("file = open(at + '/f', 'w')", at=str(point))
        refused(ERROR_BUSY, drive.unmount)
    assert not is_mounted(point)
    assert drive.wait(0)
    drive.unmount()


@pytest.mark.parametrize("options", [{"no_such": 1}, {"active": True}, {"on_mount": 1}])
def test_options_that_do_not_exist_are_refused(point: Path, options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        cbfsconnect.mount(MemoryDrive(), point, **options)
    assert not is_mounted(point)


def test_a_mount_that_fails_leaves_nothing(tmp_path: Path, record: Recorder) -> None:
    before = set(threading.enumerate()), os.listdir("/proc/self/fd")
    with pytest.raises(CBFSConnectError, match="missing"):
        cbfsconnect.mount(record, tmp_path / "missing")
    assert record.names("on_mount", "on_unmount") == ["on_mount", "on_unmount"]
    assert (set(threading.enumerate()), os.listdir("/proc/self/fd")) == before


def test_a_drive_that_is_unmounted_while_it_is_mounted_says_so(
    point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmounted(self: CBFS, *arguments: Any) -> None:
        self.delete_storage(True)  # as the umount of somebody else does
        raise CBFSConnectError(ERROR_BUSY, "it was unmounted at once")

    monkeypatch.setattr(CBFS, "add_mounting_point", unmounted)
    with pytest.raises(CBFSConnectError, match="at once"):
        cbfsconnect.mount(MemoryDrive(), point)


def test_handlers_without_events_are_refused(point: Path) -> None:
    with pytest.raises(TypeError, match="no on_"):
        cbfsconnect.mount(object(), point)


def test_a_relative_mountpoint_stays_what_it_was(
    tmp_path: Path, point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with cbfsconnect.mount(MemoryDrive(), "point") as drive:
        monkeypatch.chdir("/")
        assert drive.mountpoint == str(point)
        assert is_mounted(point)
    assert not is_mounted(point)


def test_run_serves_until_the_drive_is_unmounted(point: Path, record: Recorder) -> None:
    running = threading.Thread(target=cbfsconnect.run, args=(record, point))
    running.start()
    record.wait_for("on_mount")
    # The mount comes after the event: umount(8) says when it is there.
    command = f"until umount {point} 2>/dev/null; do read -t 0.01 < <(:); done"
    subprocess.run(["timeout", "20", "bash", "-c", command], check=True)
    running.join(20)
    assert not running.is_alive()
    record.wait_for("on_ejected")
