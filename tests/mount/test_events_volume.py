"""Every event of the drive as a whole: media, its size and names, ejection, errors."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import cbfsconnect as c
from support.client import Client, run
from support.expecting import answer, expect
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder

NEWS = ("on_mount", "on_unmount", "on_ejected", "on_error")


def telling(drive: PlainDrive) -> Recorder:
    """A recorder that handles the events that only tell something, too."""
    record = Recorder(drive)
    for event in NEWS:
        record.handle(event, lambda p: None)
    return record


@contextmanager
def media(record: Recorder, **settings: object) -> Iterator[c.CBFS]:
    """A drive with media and no mounting point."""
    cbfs = c.CBFS()
    cbfs.set_handlers(record)
    for name, value in settings.items():
        cbfs.config(f"{name}={value}")
    cbfs.initialize("{test}")
    cbfs.create_storage()
    try:
        cbfs.mount_media(0)
        yield cbfs
    finally:
        if cbfs.storage_present:
            cbfs.delete_storage(True)


# --- media ---


@pytest.mark.proves("on_mount", "on_unmount", "mount_media", "unmount_media")
def test_mount_and_unmount() -> None:
    record = telling(PlainDrive())
    with media(record) as cbfs:
        asked = ["on_get_volume_size", "on_get_volume_label", "on_get_volume_id"]
        assert record.names() == [*asked, "on_get_file_info", "on_mount"]
        expect(record.one("on_mount"))
        cbfs.unmount_media()
        assert record.names()[-1] == "on_unmount"
        expect(record.one("on_unmount"))
        cbfs.mount_media(0)
        assert len(record.all("on_mount")) == 2
        cbfs.delete_storage()  # takes the media out itself
        assert len(record.all("on_unmount")) == 2
    assert not record.all("on_ejected")
    assert threading.get_ident() not in {f.thread for f in record.fired}


def test_their_result_is_ignored(mount: Mounting, client: Client) -> None:
    record = telling(PlainDrive(file=b"works"))
    for event in ("on_mount", "on_unmount", "on_ejected"):
        record.instead[event] = answer(c.ERROR_ACCESS_DENIED)
    drive = mount(record)
    assert client.call("Path(at, 'file').read_text()", at=drive.mountpoint) == "works"
    drive.unmount()
    assert record.one("on_unmount")


def test_on_unmount_comes_when_the_volume_is_gone(mount: Mounting, tmp_path: Path) -> None:
    record = telling(PlainDrive())
    seen: list[bool] = []
    drive = mount(record)
    at = drive.mountpoint
    record.before["on_unmount"] = lambda p: seen.append(at in Path("/proc/mounts").read_text())
    drive.unmount()
    assert seen == [False]


def test_on_unmount_comes_after_the_closing_of_files(mount: Mounting, client: Client) -> None:
    record = telling(PlainDrive(file=b""))
    drive = mount(record)
    client.run("fd = os.open(at + '/file', os.O_RDONLY)", at=drive.mountpoint)
    drive.cbfs.unmount_media(True)
    closing = [f.name for f in record.fired if f.given.get("file_name") == "/file"]
    assert closing[-2:] == ["on_cleanup_file", "on_close_file"]
    assert record.names()[-1] == "on_unmount"
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEDIUM)):
        client.call("os.stat(at + '/file')")


# --- ejection ---


@pytest.mark.proves("on_ejected", "on_unmount")
@pytest.mark.parametrize("lazy", [False, True])
def test_ejected(mount: Mounting, client: Client, lazy: bool) -> None:
    record = telling(PlainDrive(file=b""))
    states: list[object] = []

    def ejected(p: Any) -> None:
        cbfs = drive.cbfs
        states.extend([cbfs.active, cbfs.storage_present, cbfs.mounting_point_count])
        for call in (cbfs.unmount_media, cbfs.delete_storage):
            with pytest.raises(c.CBFSConnectError):
                call(True)

    record.before["on_ejected"] = ejected
    drive = mount(record)
    client.run("os.stat(at + '/file')", at=drive.mountpoint)
    run("umount", *(["-l"] if lazy else []), drive.mountpoint)
    assert drive.wait(20)
    assert record.names(*NEWS) == ["on_mount", "on_unmount", "on_ejected"]
    expect(record.one("on_ejected"))
    assert record.one("on_ejected").error is None
    assert states == [False, False, 0]
    assert not drive.cbfs.active
    assert not drive.cbfs.storage_present


def test_ejected_closes_what_is_open(mount: Mounting, client: Client) -> None:
    record = telling(PlainDrive(file=b""))
    drive = mount(record)
    client.run("fd = os.open(at + '/file', os.O_RDONLY)", at=drive.mountpoint)
    run("umount", "-f", "-l", drive.mountpoint)
    client.close()
    assert drive.wait(20)
    names = ("on_close_file", "on_unmount", "on_ejected")
    assert record.names(*names) == list(names)


def test_a_busy_drive_is_not_ejected(mount: Mounting, client: Client) -> None:
    record = telling(PlainDrive(file=b"still there"))
    drive = mount(record)
    client.run("fd = os.open(at + '/file', os.O_RDONLY)", at=drive.mountpoint)
    with pytest.raises(AssertionError, match="busy"):
        run("umount", drive.mountpoint)
    assert client.call("os.read(fd, 100)") == b"still there"
    assert not record.all("on_ejected")


def test_one_of_two_mounting_points_is_no_ejection(
    mount: Mounting, client: Client, tmp_path: Path
) -> None:
    record = telling(PlainDrive(file=b"still there"))
    drive = mount(record)
    second = tmp_path / "second"
    second.mkdir()
    drive.cbfs.add_mounting_point(str(second))
    run("umount", second)
    assert client.call("Path(at, 'file').read_text()", at=drive.mountpoint) == "still there"
    assert not record.all("on_ejected")


# --- errors ---


@pytest.mark.proves("on_error")
def test_error(mount: Mounting, client: Client) -> None:
    record = telling(PlainDrive(file=b""))

    def fail(p: Any) -> None:
        raise ZeroDivisionError("what went wrong")

    record.instead["on_open_file"] = fail
    at = mount(record).mountpoint
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        client.run("os.open(at + '/file', os.O_RDONLY)", at=at)
    fired = record.one("on_error")
    assert fired.given == {
        "error_code": c.ERROR_IO_DEVICE,
        "description": "on_open_file: ZeroDivisionError: what went wrong",
    }
    assert fired.thread == record.one("on_open_file").thread


def test_error_is_for_nonsense_too(mount: Mounting, client: Client) -> None:
    record = telling(PlainDrive(file=b""))
    original = record.handlers.on_get_file_info  # type: ignore[attr-defined]

    def nonsense(p: Any) -> None:
        original(p)
        if p.file_name == "/file":
            p.size = "large"

    record.instead["on_get_file_info"] = nonsense
    at = mount(record).mountpoint
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        client.run("os.stat(at + '/file')", at=at)
    assert record.one("on_error").description == (
        "on_get_file_info for '/file': size is 'large', not an int"
    )


def test_refusals_are_no_errors(mount: Mounting, client: Client) -> None:
    record = telling(PlainDrive(file=b""))
    record.instead["on_open_file"] = answer(c.ERROR_ACCESS_DENIED)
    at = mount(record).mountpoint
    with pytest.raises(PermissionError):
        client.run("os.open(at + '/file', os.O_RDONLY)", at=at)
    assert not record.all("on_error")


# --- size and names of the volume ---


@pytest.mark.proves("on_get_volume_size", "SectorSize", "ClusterSize")
@pytest.mark.parametrize(
    ("sector", "cluster", "block"), [(512, 4096, 4096), (4096, 4096, 4096), (512, 0, 512)]
)
def test_get_volume_size(
    mount: Mounting, client: Client, sector: int, cluster: int, block: int
) -> None:
    record = telling(PlainDrive())
    config = {"SectorSize": sector, "ClusterSize": cluster}
    at = mount(record, config=config).mountpoint
    seen = client.call("os.statvfs(at)", at=at)
    expect(record.all("on_get_volume_size")[-1], total_sectors=0, available_sectors=0)
    assert seen.f_blocks * seen.f_frsize == 8192 * sector
    assert seen.f_bavail * seen.f_frsize == seen.f_bfree * seen.f_frsize == 4096 * sector
    assert seen.f_frsize == seen.f_bsize == block
    assert seen.f_namemax == 255
    table = run("df", "--output=size,avail", "-B1", at).split()
    assert table[2:] == [str(8192 * sector), str(4096 * sector)]


@pytest.mark.parametrize("value", [-1, "8192", None, 1 << 80])
def test_a_volume_size_that_cannot_be(mount: Mounting, client: Client, value: object) -> None:
    record = telling(PlainDrive())
    at = mount(record).mountpoint
    record.instead["on_get_volume_size"] = lambda p: setattr(p, "total_sectors", value)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        client.call("os.statvfs(at)", at=at)
    assert "total_sectors" in record.one("on_error").description


@pytest.mark.proves("on_get_volume_id", "on_get_volume_label")
def test_volume_label_and_id() -> None:
    record = telling(PlainDrive())
    with media(record):
        expect(record.one("on_get_volume_label"), buffer="")
        expect(record.one("on_get_volume_id"), volume_id=0)


def test_a_label_by_the_name_of_later_editions() -> None:
    record = telling(PlainDrive())
    record.instead["on_get_volume_label"] = lambda p: setattr(p, "volume_label", "LABEL")
    with media(record) as cbfs:
        assert cbfs.active


@pytest.mark.parametrize(
    "event", ["on_get_volume_size", "on_get_volume_label", "on_get_volume_id", "on_get_file_info"]
)
def test_media_that_cannot_say_what_it_is_is_not_mounted(event: str) -> None:
    record = telling(PlainDrive())
    record.instead[event] = answer(c.ERROR_CRC)
    with pytest.raises(c.CBFSConnectError, match=event), media(record):
        raise AssertionError("it was mounted")
    assert not record.all("on_mount")
