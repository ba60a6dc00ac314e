"""Label and object id of the volume, read and changed through a mount."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from typing import Any

import pytest

from support.client import Client, run
from support.controlled import ControlledDrive
from support.failing import FAILURES, Failure, refused
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder
from support.serving import read_only, serve

NAME = "system.ntfs_object_id"
CALLS = {
    "on_get_volume_label": "c.get_volume_label(at)",
    "on_set_volume_label": "c.set_volume_label(at, 'x')",
    "on_get_volume_object_id": f"os.getxattr(at, '{NAME}')",
    "on_set_volume_object_id": f"os.setxattr(at, '{NAME}', bytes(64))",
}
each = pytest.mark.parametrize("event", CALLS)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A client that has the functions."""
    with Client() as process:
        process.run("import cbfsconnect as c")
        yield process


def serve_drive(mount: Mounting, client: Client, **options: Any) -> Recorder:
    record = Recorder(ControlledDrive(file=b""))
    record.handle("on_error", lambda p: None)
    serve(mount, client, record, **options)
    record.clear()  # of what mount_media asks
    return record


@pytest.mark.proves("on_set_volume_label", "on_get_volume_label")
@pytest.mark.parametrize("label", ["", "x", "A label with spaces", "ü" * 32, "a" * 32])
@pytest.mark.parametrize("path", ["", "/file"])
def test_a_new_label(mount: Mounting, client: Client, label: str, path: str) -> None:
    record = serve_drive(mount, client)
    assert client.call("c.get_volume_label(at + path)", path=path) == "plain"
    record.before["on_set_volume_label"] = lambda p: read_only(p, "volume_label")
    client.run("c.set_volume_label(at + path, label)", label=label)
    assert record.one("on_set_volume_label").given == {"volume_label": label, "result_code": 0}
    assert client.call("c.get_volume_label(at)") == label
    assert record.all("on_get_volume_label")[-1].given == {"buffer": "", "result_code": 0}


def test_a_label_by_descriptor_and_bare_ioctl(mount: Mounting, client: Client) -> None:
    serve_drive(mount, client)
    client.run("fd = os.open(at, os.O_RDONLY); c.set_volume_label(fd, 'by fd')")
    got = client.call("fcntl.ioctl(fd, 0x81009431, bytes(256))")
    assert got == b"by fd".ljust(256, b"\0")
    client.run("os.close(fd)")


@pytest.mark.parametrize("label", ["a" * 33, "a" * 256, "a\0b"])
def test_a_label_that_cannot_be(mount: Mounting, client: Client, label: str) -> None:
    record = serve_drive(mount, client)
    with refused(errno.EINVAL):
        client.run("c.set_volume_label(at, label)", label=label)
    with refused(errno.EINVAL):
        client.run("fcntl.ioctl(os.open(at, 0), 0x41009432, b'x' * 256)")
    assert not record.all("on_set_volume_label")


@pytest.mark.parametrize("label", ["a" * 256, None, b"bytes", "a\0b"])
def test_a_handler_gives_a_label_that_cannot_be(
    mount: Mounting, client: Client, label: object
) -> None:
    record = serve_drive(mount, client)
    record.instead["on_get_volume_label"] = lambda p: setattr(p, "buffer", label)
    if label is None:
        record.instead["on_get_volume_label"] = lambda p: setattr(p, "volume_label", 5)
    with refused(errno.EIO):
        client.call("c.get_volume_label(at)")
    assert "on_get_volume_label" in record.one("on_error").description


def test_the_name_of_later_editions(mount: Mounting, client: Client) -> None:
    record = serve_drive(mount, client)
    record.instead["on_get_volume_label"] = lambda p: setattr(p, "volume_label", "LATER")
    assert client.call("c.get_volume_label(at)") == "LATER"


@pytest.mark.proves("on_get_volume_object_id", "on_set_volume_object_id")
def test_object_id(mount: Mounting, client: Client) -> None:
    record = serve_drive(mount, client)
    value = bytes(range(64))

    def check(p: Any) -> None:
        read_only(p, "object_id", "object_id_length", "extended_information")
        assert ctypes.string_at(p.object_id, 16) == value[:16]
        assert ctypes.string_at(p.extended_information, 48) == value[16:]

    record.before["on_set_volume_object_id"] = check
    client.run(f"os.setxattr(at, '{NAME}', value)", value=value)
    fired = record.one("on_set_volume_object_id")
    assert (fired.object_id_length, fired.extended_information_length) == (16, 48)
    assert (fired.object_id_view, fired.extended_information_view) == (value[:16], value[16:])

    def give(p: Any) -> None:
        assert (p.object_id_length, p.extended_information_length) == (16, 48)
        ctypes.memmove(p.object_id, value[:16], 16)
        ctypes.memmove(p.extended_information, value[16:], 48)

    record.instead["on_get_volume_object_id"] = give
    assert client.call(f"os.getxattr(at, '{NAME}')") == value


def test_an_object_id_alone(mount: Mounting, client: Client) -> None:
    serve_drive(mount, client)
    client.run(f"os.setxattr(at, '{NAME}', b'i' * 16)")
    assert client.call(f"os.getxattr(at, '{NAME}')") == b"i" * 16 + bytes(48)


@pytest.mark.parametrize("size", [0, 15, 17, 63, 65])
def test_an_object_id_of_another_size(mount: Mounting, client: Client, size: int) -> None:
    record = serve_drive(mount, client)
    with refused(errno.EINVAL):
        client.run(f"os.setxattr(at, '{NAME}', bytes(size))", size=size)
    assert not record.all("on_set_volume_object_id")


def test_only_the_root_has_an_object_id(mount: Mounting, client: Client) -> None:
    record = serve_drive(mount, client)
    with refused(errno.EOPNOTSUPP):
        client.run(f"os.getxattr(at + '/file', '{NAME}')")
    with refused(errno.EOPNOTSUPP):
        client.run(f"os.setxattr(at + '/file', '{NAME}', bytes(64))")
    with refused(errno.EOPNOTSUPP):
        client.run(f"os.removexattr(at, '{NAME}')")
    assert not record.all("on_get_volume_object_id")


def test_no_object_id_yet(mount: Mounting, client: Client) -> None:
    record = serve_drive(mount, client)
    record.instead["on_get_volume_object_id"] = _missing
    with refused(errno.ENODATA):
        client.run(f"os.getxattr(at, '{NAME}')")


def _missing(p: Any) -> None:
    raise FileNotFoundError(errno.ENOENT, "no id")


@each
@pytest.mark.parametrize("failure", FAILURES)
def test_failures(mount: Mounting, client: Client, event: str, failure: Failure) -> None:
    record = serve_drive(mount, client)
    record.instead[event] = failure
    with refused(failure.errno):
        client.run(CALLS[event])
    assert len(record.all("on_error")) == failure.unexpected
    del record.instead[event]
    client.run(CALLS[event])


@each
def test_a_drive_without_the_handler(mount: Mounting, client: Client, event: str) -> None:
    drive: Any = PlainDrive()
    record = Recorder(drive)
    if event == "on_get_volume_label":
        del record.on_get_volume_label  # type: ignore[attr-defined]
    serve(mount, client, record)
    with refused(errno.ENOTTY if "label" in event else errno.EOPNOTSUPP):
        client.run(CALLS[event])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("event", [e for e in CALLS if "_set_" in e])
def test_others_may_not_change_them(mount: Mounting, client: Client, event: str) -> None:
    record = serve_drive(mount, client)
    client.run("os.chdir(at); at = '.'; os.seteuid(4711)")
    try:
        with refused(errno.EPERM):
            client.run(CALLS[event])
        client.run("c.get_volume_label(at)")
    finally:
        client.run("os.seteuid(0); os.chdir('/')")
    assert not record.all(event)


def test_a_program_reads_the_attribute(mount: Mounting, client: Client) -> None:
    serve_drive(mount, client)
    at = client.call("at")
    code = f"import os; print(len(os.getxattr({at!r}, {NAME!r})))"
    assert run("python3", "-c", code) == "64\n"
