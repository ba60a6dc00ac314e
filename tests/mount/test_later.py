"""The methods of later editions: flush_file, get_event_file_name, dispatch_events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import cbfsconnect as c
from support.client import Client
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder
from support.serving import serve

WRITE = "fd = os.open(at + '/file', os.O_RDWR); os.pwrite(fd, b'x' * 8192, 0)"


def refused(code: int, call: Any) -> None:
    with pytest.raises(c.CBFSConnectError) as caught:
        call()
    assert caught.value.code == code


@pytest.fixture
def served(mount: Mounting, client: Client) -> tuple[Recorder, c.CBFS]:
    return serve(mount, client, PlainDrive(file=b""))


Served = tuple[Recorder, c.CBFS]


@pytest.mark.proves("flush_file")
def test_what_is_cached_is_written_when_asked_for(served: Served, client: Client) -> None:
    record, cbfs = served
    client.run(WRITE)
    assert not record.all("on_write_file")
    cbfs.flush_file("/file", 0, 4096, True)
    fired = record.one("on_write_file")
    assert (fired.position, fired.bytes_to_write) == (0, 4096)
    cbfs.flush_file("/file", 0, 0, True)
    assert sum(f.bytes_to_write for f in record.all("on_write_file")) == 8192
    record.clear()
    assert client.call("os.pread(fd, 9000, 0)") == b"x" * 8192
    assert record.all("on_read_file")  # nothing is cached any more


def test_flushing_need_not_be_waited_for(served: Served, client: Client) -> None:
    record, cbfs = served
    client.run(WRITE)
    cbfs.flush_file("/file", 0, 0, False)
    record.wait_for("on_write_file")


def test_a_handler_may_flush_without_waiting(served: Served, client: Client) -> None:
    record, cbfs = served
    client.run(WRITE)
    record.before["on_get_file_info"] = lambda p: cbfs.flush_file("/file", 0, 0, True)
    client.run("os.path.lexists(at + '/none')")
    record.wait_for("on_write_file")


def test_what_cannot_be_flushed(served: Served) -> None:
    _, cbfs = served
    refused(c.ERROR_FILE_NOT_FOUND, lambda: cbfs.flush_file("/none", 0, 0, True))
    refused(c.ERROR_FILE_NOT_FOUND, lambda: cbfs.flush_file("/", 0, 0, True))
    refused(c.ERROR_INVALID_PARAMETER, lambda: cbfs.flush_file("/file", -1, 0, True))
    refused(c.ERROR_INVALID_STATE, lambda: c.CBFS().flush_file("/file", 0, 0, True))


@pytest.mark.proves("get_event_file_name")
def test_a_handler_may_ask_what_its_event_is_about(served: Served, client: Client) -> None:
    record, cbfs = served
    names: dict[str, str] = {}

    def ask(event: str) -> Any:
        return lambda p: names.setdefault(event, cbfs.get_event_file_name())

    for event in ("on_open_file", "on_enumerate_directory", "on_get_volume_size"):
        record.before[event] = ask(event)
    client.run("open(at + '/file').close(); os.listdir(at); os.statvfs(at)")
    assert names == {
        "on_open_file": "/file",
        "on_enumerate_directory": "/",
        "on_get_volume_size": "",
    }
    refused(c.ERROR_INVALID_STATE, cbfs.get_event_file_name)


@pytest.mark.proves("get_event_file_name")
def test_an_async_handler_may_ask_too(mount: Mounting, client: Client) -> None:
    names: list[str] = []

    class Asking(PlainDrive):
        async def on_open_file(self, p: Any) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            names.append(cbfs.get_event_file_name())

    drive = mount(Asking(file=b""))
    cbfs = drive.cbfs
    client.run("os.close(os.open(at + '/file', os.O_RDONLY))", at=drive.mountpoint)
    assert names == ["/file"]


@pytest.mark.proves("dispatch_events")
def test_there_is_nothing_to_dispatch(served: Served) -> None:
    record, cbfs = served
    record.clear()
    cbfs.dispatch_events()
    assert record.fired == []
