"""`support_change_time_attribute` and `support_last_access_time_attribute`."""

from __future__ import annotations

import time
from typing import Any

import pytest

from support.client import Client
from support.mounts import Mounting
from support.plain import CHANGED, READ, WRITTEN, PlainDrive
from support.recorder import Recorder
from support.serving import both_settings, serve

TIMES = "(s := os.stat(at + '/file')).st_atime_ns, s.st_mtime_ns, s.st_ctime_ns"
READ_IT = "fd = os.open(at + '/file', os.O_RDONLY); os.read(fd, 9); os.close(fd)"
MINUTE = 60 * 10**9


class Times(PlainDrive):
    """Keeps the time of last access."""

    accessed: int | None = READ

    def configure(self, cbfs: Any) -> None:
        pass  # the defaults

    def on_get_file_info(self, p: Any) -> None:
        super().on_get_file_info(p)
        p.last_access_time_ns = self.accessed

    def on_set_file_attributes(self, p: Any) -> None:
        if p.last_access_time_ns is not None:
            self.accessed = p.last_access_time_ns


def served(mount: Mounting, client: Client, **options: Any) -> tuple[Recorder, Times]:
    drive = Times(file=b"data")
    record, _ = serve(mount, client, drive, **options)
    return record, drive


def test_without_support_the_change_time_is_that_of_the_last_write(
    mount: Mounting, client: Client
) -> None:
    served(mount, client)
    assert client.call(TIMES) == (READ, WRITTEN, WRITTEN)


@pytest.mark.proves("support_change_time_attribute")
def test_with_support_it_is_the_drives(mount: Mounting, client: Client) -> None:
    served(mount, client, support_change_time_attribute=True)
    assert client.call(TIMES) == (READ, WRITTEN, CHANGED)


@pytest.mark.proves("support_change_time_attribute")
@pytest.mark.parametrize("supported", [False, True])
def test_a_change_time_is_set_only_with_support(
    mount: Mounting, client: Client, supported: bool
) -> None:
    record, _ = served(
        mount,
        client,
        support_change_time_attribute=supported,
        config={"NtfsAttributes": True},
    )
    ticks = (11_644_473_600 * 10_000_000 + 10_000_000).to_bytes(8, "little")
    client.run("os.setxattr(at + '/file', 'system.ntfs_times', value * 4)", value=ticks)
    fired = record.one("on_set_file_attributes")
    assert fired.change_time_ns == (10**9 if supported else None)
    assert fired.last_write_time_ns == 10**9


# --- last access ---


@pytest.mark.proves("on_set_file_attributes")
@both_settings
def test_closing_what_was_read_sets_the_time(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    record, _ = served(mount, client, fire_all=fire_all, config={"MetadataCacheTimeout": -1})
    assert client.call(TIMES)[0] == READ
    before = time.time_ns()
    client.run(READ_IT)
    fired = record.one("on_set_file_attributes")
    assert before <= fired.last_access_time_ns <= time.time_ns()
    given = ("creation_time_ns", "last_write_time_ns", "change_time_ns", "mode", "uid", "gid")
    assert [fired.given[name] for name in given] == [None] * 6
    assert fired.attributes == 0
    order = record.names("on_open_file", "on_set_file_attributes", "on_cleanup_file")
    assert order == ["on_open_file", "on_set_file_attributes", "on_cleanup_file"]
    deadline = time.monotonic() + 20
    while client.call(TIMES)[0] != fired.last_access_time_ns:  # the kernel hears it a moment later
        assert time.monotonic() < deadline
    client.run(READ_IT)
    assert len(record.all("on_set_file_attributes")) == 1  # less than a minute has passed


def test_with_change_times_access_is_no_change(mount: Mounting, client: Client) -> None:
    record, _ = served(mount, client, support_change_time_attribute=True)
    client.run(READ_IT)
    assert record.one("on_set_file_attributes").change_time_ns == CHANGED


@pytest.mark.parametrize(("age", "count"), [(MINUTE - 10 * 10**9, 0), (MINUTE + 10**9, 1)])
def test_a_time_younger_than_a_minute_stays(
    mount: Mounting, client: Client, age: int, count: int
) -> None:
    record, drive = served(mount, client)
    drive.accessed = time.time_ns() - age
    client.run(READ_IT)
    assert len(record.all("on_set_file_attributes")) == count


@pytest.mark.parametrize(
    "code",
    [
        "os.close(os.open(at + '/file', os.O_WRONLY))",
        "os.close(os.open(at + '/file', os.O_RDWR))",
        "os.close(os.open(at + '/file', os.O_RDONLY | os.O_NOATIME))",
        "fd = os.open(at + '/file', os.O_RDONLY); os.rename(at + '/file', at + '/x'); "
        "os.unlink(at + '/x'); os.close(fd)",
        "os.listdir(at); os.stat(at + '/file')",
    ],
)
def test_what_is_not_reading_leaves_it(mount: Mounting, client: Client, code: str) -> None:
    record, drive = served(mount, client)
    client.run(code)
    assert drive.accessed == READ
    assert all(f.last_access_time_ns is None for f in record.all("on_set_file_attributes"))


def test_what_a_program_sets_stays(mount: Mounting, client: Client) -> None:
    _, drive = served(mount, client)
    client.run("fd = os.open(at + '/file', os.O_RDONLY)")
    client.run("os.utime(fd, ns=(5, 6)); os.close(fd)")
    assert drive.accessed == 5


def test_a_drive_without_such_times_is_left_alone(mount: Mounting, client: Client) -> None:
    record, drive = served(mount, client)
    drive.accessed = None
    client.run(READ_IT)
    assert not record.all("on_set_file_attributes")


def test_a_failure_is_nobodys(mount: Mounting, client: Client) -> None:
    record, _ = served(mount, client)

    def refuse(p: Any) -> None:
        raise PermissionError(1, "no")

    record.instead["on_set_file_attributes"] = refuse
    client.run(READ_IT)
    record.one("on_set_file_attributes")


def test_a_drive_that_cannot_be_changed_keeps_its_times(mount: Mounting, client: Client) -> None:
    record, _ = served(mount, client, storage_characteristics=2)
    client.run(READ_IT)
    assert not record.all("on_set_file_attributes")


@pytest.mark.proves("support_last_access_time_attribute")
def test_without_support_it_is_set_with_the_last_write_only(
    mount: Mounting, client: Client
) -> None:
    record, _ = served(mount, client, support_last_access_time_attribute=False)
    client.run(READ_IT)
    client.run("os.system('touch -a ' + at + '/file')")
    assert not record.all("on_set_file_attributes")
    client.run("os.utime(at + '/file', ns=(5, 6))")
    fired = record.one("on_set_file_attributes")
    assert (fired.last_access_time_ns, fired.last_write_time_ns) == (5, 6)
