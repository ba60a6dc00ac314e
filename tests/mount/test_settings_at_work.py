"""What settings and properties do to a mounted drive, where no test of an event shows it."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

import cbfsconnect as c
from cbfsconnect.engine.ids import path_of_id
from support.client import Client
from support.failing import refused
from support.mounts import Mounting
from support.plain import PlainDrive
from support.serving import serve

WITHOUT_EFFECT: dict[str, object] = {
    "AllowOriginatorBufferMapping": False,
    "AsyncDeleteStorageNotifications": False,
    "CorrectAllocationSizes": True,
    "DeviceChangeBroadcastsEnabled": False,
    "LoggingEnabled": True,
    "UserModeFileCacheSize": 1 << 20,
}
WORK = """
with open(at + '/new', 'w') as new:
    new.write('data')
os.rename(at + '/new', at + '/other')
result = open(at + '/other').read(), sorted(os.listdir(at))
"""


@pytest.fixture(autouse=True)
def one_user() -> Iterator[None]:
    """Signal handlers as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.proves(
    "AllowOriginatorBufferMapping",
    "AsyncDeleteStorageNotifications",
    "CorrectAllocationSizes",
    "DeviceChangeBroadcastsEnabled",
    "LoggingEnabled",
    "UserModeFileCacheSize",
    "file_system_name",
    "max_file_size",
    "tag",
    "config",
)
def test_what_is_accepted_for_ported_programs_changes_nothing(
    mount: Mounting, client: Client
) -> None:
    properties: dict[str, Any] = {"file_system_name": "NTFS", "max_file_size": 1, "tag": 7}
    record, cbfs = serve(mount, client, PlainDrive(file=b""), config=WITHOUT_EFFECT, **properties)
    assert client.run(WORK) == ("data", ["file", "other"])
    with_them = record.names("on_create_file", "on_write_file", "on_rename_or_move_file")
    for name, value in WITHOUT_EFFECT.items():
        assert cbfs.config(name) == str(value)
    for name, value in properties.items():
        assert getattr(cbfs, name) == value
    record, _ = serve(mount, client, PlainDrive(file=b""))
    assert client.run(WORK) == ("data", ["file", "other"])
    assert record.names("on_create_file", "on_write_file", "on_rename_or_move_file") == with_them


@pytest.mark.proves("AllowReadOutsideEof")
@pytest.mark.parametrize("allowed", [True, False])
def test_reads_past_the_end(mount: Mounting, client: Client, allowed: bool) -> None:
    config = {"AllowReadOutsideEof": allowed}
    record, _ = serve(mount, client, PlainDrive(file=b"data"), file_cache=0, config=config)
    client.run("fd = os.open(at + '/file', os.O_RDONLY)")
    assert client.call("os.pread(fd, 100, 2), os.pread(fd, 100, 50)") == (b"ta", b"")
    asked = [(f.position, f.bytes_to_read) for f in record.all("on_read_file")]
    assert asked == ([(2, 100), (50, 100)] if allowed else [(2, 2)])


@pytest.mark.proves("max_file_path_length")
def test_a_path_that_is_too_long_leads_to_no_id(mount: Mounting, client: Client) -> None:
    drive = PlainDrive(file=b"")
    _, cbfs = serve(mount, client, drive, max_file_path_length=4, use_hard_links=True)
    engine = cbfs._engine
    assert engine is not None
    assert path_of_id(engine, drive.items["/file"].file_id) is None
    drive.items["/fil"] = drive.items.pop("/file")
    assert path_of_id(engine, drive.items["/fil"].file_id) == "/fil"


@pytest.mark.proves("AllowOther")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize("allowed", [True, False])
def test_other_users(mount: Mounting, client: Client, allowed: bool) -> None:
    serve(mount, client, PlainDrive(file=b"data"), config={"AllowOther": allowed})
    # The way to the mountpoint is for root alone; who stands in it needs no way.
    client.run("os.chdir(at)")
    client.run("os.setresuid(1000, 1000, 1000)")
    if allowed:
        assert client.call("os.stat('file').st_size") == 4
    else:
        with refused(errno.EACCES):
            client.run("os.stat('file')")


@pytest.mark.proves("DefaultPermissions")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize("checked", [True, False])
def test_who_checks_access(mount: Mounting, client: Client, checked: bool) -> None:
    drive = PlainDrive()
    drive.add("/secret", b"data", mode=0o100600)
    serve(mount, client, drive, config={"DefaultPermissions": checked})
    client.run("os.chdir(at); os.setresuid(1000, 1000, 1000)")
    if checked:
        with refused(errno.EACCES):
            client.run("open('secret')")
    else:
        assert client.call("open('secret').read()") == "data"


@pytest.mark.proves("ReadAhead")
def test_how_far_the_kernel_reads_ahead(mount: Mounting, client: Client) -> None:
    serve(mount, client, PlainDrive(), config={"ReadAhead": 64 * 1024})
    device = client.call("os.stat(at).st_dev")
    path = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    assert client.call("open(path).read()", path=path).strip() == "64"


@pytest.mark.proves("MountSource")
def test_what_mounts_are_shown_with(mount: Mounting, client: Client) -> None:
    serve(mount, client, PlainDrive(), config={"MountSource": "my drive"})
    at = client.call("at")
    shown = client.call("[line for line in open('/proc/mounts') if at in line][0]")
    assert shown.startswith(f"my\\040drive {at} fuse.cbfs ")


@pytest.mark.proves("HandleSignals")
@pytest.mark.parametrize("handled", [True, False])
def test_signals_that_end_a_program(mount: Mounting, client: Client, handled: bool) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    serve(mount, client, PlainDrive(), config={"HandleSignals": handled})
    assert (signal.getsignal(signal.SIGTERM) is signal.SIG_DFL) is not handled


@pytest.mark.proves("StreamsInterface", "use_alternate_data_streams")
@pytest.mark.parametrize("interface", ["xattr", "windows", "both"])
def test_how_streams_are_reached(mount: Mounting, client: Client, interface: str) -> None:
    drive = PlainDrive(file=b"data")
    drive.add("/file:stream", b"more")
    config = {"StreamsInterface": interface}
    serve(mount, client, drive, use_alternate_data_streams=True, config=config)
    by_name = client.call("os.path.lexists(at + '/file:stream')")
    try:
        by_attribute = client.call("os.getxattr(at + '/file', 'user.stream')") == b"more"
    except OSError as error:
        by_attribute = error.errno != errno.EOPNOTSUPP
    assert (by_attribute, by_name) == (interface != "windows", interface != "xattr")


@pytest.mark.proves("is_cbfs_volume")
def test_a_drive_is_known_as_one(mount: Mounting, client: Client) -> None:
    _, cbfs = serve(mount, client, PlainDrive())
    at = client.call("at")
    assert cbfs.is_cbfs_volume(at)
    assert cbfs.is_cbfs_volume(f"{at}/below/it")
    assert not cbfs.is_cbfs_volume("/")


@pytest.mark.proves("NtfsAttributes")
@pytest.mark.parametrize("enabled", [True, False])
def test_attributes_of_windows(mount: Mounting, client: Client, enabled: bool) -> None:
    serve(mount, client, PlainDrive(file=b""), config={"NtfsAttributes": enabled})
    if enabled:
        found = client.call("os.getxattr(at + '/file', 'system.ntfs_attrib')")
        assert int.from_bytes(found, "little") == c.FILE_ATTRIBUTE_NORMAL
    else:
        with refused(errno.EOPNOTSUPP):
            client.run("os.getxattr(at + '/file', 'system.ntfs_attrib')")


@pytest.mark.proves("max_file_name_length")
def test_the_longest_name(mount: Mounting, client: Client) -> None:
    serve(mount, client, PlainDrive(), max_file_name_length=5)
    client.run("open(at + '/12345', 'w').close()")
    with refused(errno.ENAMETOOLONG):
        client.run("open(at + '/123456', 'w')")
    assert client.call("os.listdir(at)") == ["12345"]
