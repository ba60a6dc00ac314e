"""copy_file_range(2): `on_offload_read_file` and `on_offload_write_file`."""

import ctypes
import errno
import os
from typing import Any

import pytest

from cbfsconnect import ERROR_OFFLOAD_READ_FILE_NOT_SUPPORTED
from cbfsconnect.errors import ERROR_OFFLOAD_WRITE_FILE_NOT_SUPPORTED
from support.client import Client, run
from support.failing import FAILURES, Complaints, Failure, refused
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder
from support.serving import both_settings, creator, creator_of, read_only, serve, set_contexts

READ, WRITE = "on_offload_read_file", "on_offload_write_file"
OPEN = """
source = os.open(at + '/f', os.O_RDONLY)
target = os.open(at + '/g', os.O_RDWR | os.O_CREAT)
"""
COPY = "os.copy_file_range(source, target, {}, {}, {})"
CONTENT = bytes(range(256)) * 40
ZEROS = 0xFFFF0001


class OffloadDrive(PlainDrive):
    """Its tokens are numbers of 8 bytes, each for a snapshot of what was read."""

    def __init__(self, **files: bytes) -> None:
        super().__init__(**files)
        self.tokens: list[bytes] = []
        self.read_most = self.write_most = 1 << 40

    def on_offload_read_file(self, p: Any) -> None:
        data = bytes(self.items[p.file_name].data[p.position : p.position + p.copy_length])
        data = data[: self.read_most]
        p.transfer_length, p.token_type = len(data), 7
        token = len(self.tokens).to_bytes(8, "big")
        self.tokens.append(data)
        ctypes.memmove(p.token_buffer, token, len(token))
        p.token_length = len(token)

    def on_offload_write_file(self, p: Any) -> None:
        if p.token_type == ZEROS:
            data = bytes(p.copy_length)
        else:
            token = ctypes.string_at(p.token, p.token_length)
            data = self.tokens[int.from_bytes(token, "big")]
            data = data[p.transfer_offset : p.transfer_offset + p.copy_length]
        data = data[: self.write_most]
        content = self.items[p.file_name].data
        content.extend(bytes(max(0, p.position + len(data) - len(content))))
        content[p.position : p.position + len(data)] = data
        p.transfer_length = len(data)


def offload(mount: Mounting, client: Client, **options: Any) -> tuple[Recorder, OffloadDrive, Any]:
    """A drive with the file /f, which the client has open, and the new file /g."""
    drive = OffloadDrive(f=CONTENT)
    recorder = Recorder(drive)
    recorder.handle("on_error", lambda params: None)
    record, cbfs = serve(mount, client, recorder, support_odx_read_write=True, **options)
    client.run(OPEN)
    return record, drive, cbfs


def read_write(record: Recorder) -> list[str]:
    return record.names("on_read_file", "on_write_file")


# --- Parameters -------------------------------------------------------------------------


@pytest.mark.proves("on_offload_read_file", "on_offload_write_file", "support_odx_read_write")
@both_settings
def test_every_parameter(mount: Mounting, client: Client, fire_all: bool) -> None:
    drive = OffloadDrive(f=CONTENT)
    record = Recorder(drive)
    set_contexts(record, on_open_file=("the source", "s"), on_create_file=("the target", "t"))
    _, cbfs = serve(mount, client, record, support_odx_read_write=True, fire_all=fire_all)
    client.run(OPEN)
    creators = []

    def look(params: Any) -> None:
        read_only(params, "file_name", "position", "copy_length", "handle_info")
        creators.append(creator(cbfs, params.handle_info))

    def look_at_read(params: Any) -> None:
        look(params)
        read_only(params, "token_time_to_live", "token_buffer_view", "token_buffer")
        read_only(params, "buffer_length")

    def look_at_write(params: Any) -> None:
        look(params)
        read_only(params, "transfer_offset", "token_type", "token_view", "token", "token_length")

    record.before.update({READ: look_at_read, WRITE: look_at_write})
    assert client.call(COPY.format(5000, 96, 5)) == 5000
    assert drive.items["/g"].data == bytes(5) + CONTENT[96:5096]
    assert read_write(record) == []
    read, write = record.one(READ), record.one(WRITE)
    assert read.error is write.error is None
    given = dict(read.given)
    assert given.pop("token_buffer").value
    assert given == {
        "file_name": "/f",
        "token_time_to_live": 30_000,
        "position": 96,
        "copy_length": 5000,
        "transfer_length": 5000,
        "token_type": 0,
        "token_buffer_view": bytes(512),
        "buffer_length": 512,
        "token_length": 0,
        "result_flags": 0,
        "handle_info": record.one("on_open_file").handle_info,
        "file_context": "the source",
        "handle_context": "s",
        "result_code": 0,
    }
    given = dict(write.given)
    assert given.pop("token").value
    assert given == {
        "file_name": "/g",
        "position": 5,
        "copy_length": 5000,
        "transfer_offset": 0,
        "transfer_length": 5000,
        "token_type": 7,
        "token_view": bytes(8),
        "token_length": 8,
        "result_flags": 0,
        "handle_info": record.one("on_create_file").handle_info,
        "file_context": "the target",
        "handle_context": "t",
        "result_code": 0,
    }
    assert creators == [creator_of(client)] * 2


def test_contexts_are_kept(mount: Mounting, client: Client) -> None:
    record, _, _ = offload(mount, client)
    set_contexts(record, **{READ: ("read", "reader"), WRITE: ("written", "writer")})
    client.call(COPY.format(10, 0, 0))
    client.run("os.close(source); os.close(target)")
    record.wait_for("on_close_file", 2)
    for path, contexts in (("/f", ("read", "reader")), ("/g", ("written", "writer"))):
        (closed,) = record.all("on_close_file", path)
        assert (closed.file_context, closed.handle_context) == contexts


# --- What is copied ---------------------------------------------------------------------


def test_the_size_is_announced_as_for_writes(mount: Mounting, client: Client) -> None:
    record, _, _ = offload(mount, client)
    client.call(COPY.format(100, 0, 0))
    client.call(COPY.format(50, 0, 20))
    assert [fired.size for fired in record.all("on_set_file_size")] == [100]
    assert record.names("on_set_file_size", WRITE) == ["on_set_file_size", WRITE, WRITE]
    assert client.call("os.fstat(target).st_size") == 100


def test_a_drive_that_grows_by_itself(mount: Mounting, client: Client) -> None:
    config = {"FireSetFileSizeOnWrite": False}
    record, drive, _ = offload(mount, client, config=config)
    client.call(COPY.format(100, 0, 7))
    assert record.all("on_set_file_size") == []
    assert drive.items["/g"].data == bytes(7) + CONTENT[:100]
    assert client.call("os.fstat(target).st_size") == 107


@pytest.mark.parametrize("cache", [0, 1], ids=["uncached", "cached"])
def test_what_was_written_before_is_copied(mount: Mounting, client: Client, cache: int) -> None:
    _, drive, _ = offload(mount, client, file_cache=cache)
    client.run("os.pwrite(target, b'new', 100)")
    assert client.call("os.copy_file_range(target, target, 3, 100, 200)") == 3
    assert client.call("os.pread(target, 3, 200)") == b"new"
    client.run("os.close(target)")
    assert drive.items["/g"].data[200:] == b"new"


def test_what_was_cached_of_the_target_is_gone(mount: Mounting, client: Client) -> None:
    offload(mount, client)
    client.run("os.pwrite(target, b'x' * 9000, 0); os.pread(target, 9000, 0)")
    assert client.call(COPY.format(6000, 0, 1000)) == 6000
    expected = b"x" * 1000 + CONTENT[:6000] + b"x" * 2000
    assert client.call("os.pread(target, 9000, 0)") == expected


def test_a_token_may_stand_for_less(mount: Mounting, client: Client) -> None:
    record, drive, _ = offload(mount, client)
    drive.read_most = 300
    assert client.call(COPY.format(1000, 0, 0)) == 300
    assert drive.items["/g"].data == CONTENT[:300]
    assert [fired.size for fired in record.all("on_set_file_size")] == [300]


def test_the_rest_of_a_short_write_is_written_too(mount: Mounting, client: Client) -> None:
    record, drive, _ = offload(mount, client)
    drive.write_most = 400
    assert client.call(COPY.format(1000, 50, 10)) == 1000
    assert drive.items["/g"].data == bytes(10) + CONTENT[50:1050]
    steps = [(f.transfer_offset, f.position, f.copy_length) for f in record.all(WRITE)]
    assert steps == [(0, 10, 1000), (400, 410, 600), (800, 810, 200)]
    assert len(record.all(READ)) == 1


def test_zeros_need_no_token(mount: Mounting, client: Client) -> None:
    record, drive, _ = offload(mount, client)

    def zeros(params: Any) -> None:
        params.token_type = ZEROS

    record.instead[READ] = zeros
    assert client.call(COPY.format(1000, 0, 0)) == 1000
    assert drive.items["/g"].data == bytes(1000)
    write = record.one(WRITE)
    assert (write.token_type, write.token_length, write.token_view) == (ZEROS, 0, b"")
    assert write.token.value is None


def test_a_token_for_nothing_is_the_end(mount: Mounting, client: Client) -> None:
    record, drive, _ = offload(mount, client)
    drive.read_most = 0
    assert client.call(COPY.format(1000, 0, 0)) == 0
    assert record.names(WRITE, "on_set_file_size") == []


@pytest.mark.proves("on_offload_read_file", "on_offload_write_file")
def test_cp_copies_without_reading(mount: Mounting, client: Client) -> None:
    record, drive, _ = offload(mount, client)
    at = client.call("at")
    run("cp", "--reflink=auto", "--sparse=never", f"{at}/f", f"{at}/copy")
    assert drive.items["/copy"].data == CONTENT
    assert record.all(READ)
    assert read_write(record) == []


def test_two_files_copied_into_each_other_at_once(mount: Mounting, client: Client) -> None:
    _, drive, _ = offload(mount, client)
    drive.add("/h", CONTENT[::-1])
    drive.items["/g"].data[:] = CONTENT
    code = """
import threading
one, two = os.open(at + '/h', os.O_RDWR), os.open(at + '/g', os.O_RDWR)
def copy(source, target):
    for _ in range(50):
        os.copy_file_range(source, target, 4096, 0, 4096)
threads = [threading.Thread(target=copy, args=pair) for pair in ((one, two), (two, one))]
for thread in threads: thread.start()
for thread in threads: thread.join(60)
result = any(thread.is_alive() for thread in threads)
"""
    assert client.run(code) is False


# --- What fails -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (READ, ERROR_OFFLOAD_READ_FILE_NOT_SUPPORTED),
        (WRITE, ERROR_OFFLOAD_WRITE_FILE_NOT_SUPPORTED),
    ],
)
def test_what_cannot_be_offloaded_is_read_and_written(
    mount: Mounting, client: Client, event: str, code: int
) -> None:
    record, drive, _ = offload(mount, client)

    def refuse(params: Any) -> None:
        params.result_code = code

    record.instead[event] = refuse
    assert client.call(COPY.format(1000, 0, 0)) == 1000
    client.run("os.fsync(target)")
    assert drive.items["/g"].data == CONTENT[:1000]
    assert record.names("on_read_file")
    assert client.call("os.fstat(target).st_size") == 1000
    del record.instead[event]
    assert client.call(COPY.format(1000, 0, 1000)) == 1000  # asked again
    assert len(record.all(READ)) == 2


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(("event", "path"), [(READ, "/f"), (WRITE, "/g")])
def test_a_handler_that_fails(
    mount: Mounting,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    failure: Failure,
    event: str,
    path: str,
) -> None:
    drive = OffloadDrive(f=CONTENT)
    record = Recorder(drive)
    complaints = Complaints(record, caplog)
    serve(mount, client, record, support_odx_read_write=True)
    client.run(OPEN)
    record.instead[event] = failure
    with refused(failure.errno):
        client.call(COPY.format(1000, 0, 0))
    complaints.check(failure, event, path)
    assert drive.items["/g"].data == b""
    del record.instead[event]
    assert client.call(COPY.format(1000, 0, 0)) == 1000


def test_an_error_after_a_part_comes_later(mount: Mounting, client: Client) -> None:
    record, drive, _ = offload(mount, client)
    drive.write_most = 400

    def fail_then(params: Any) -> None:
        if params.transfer_offset:
            raise OSError(errno.ENOSPC, "full")
        drive.on_offload_write_file(params)

    record.instead[WRITE] = fail_then
    assert client.call(COPY.format(1000, 0, 0)) == 400
    assert drive.items["/g"].data == CONTENT[:400]
    assert client.call("os.fstat(target).st_size") == 400


NONSENSE = [
    (READ, "transfer_length", 1001),
    (READ, "transfer_length", -1),
    (READ, "transfer_length", None),
    (READ, "token_length", 513),
    (READ, "token_type", 0xFFFF0002),
    (READ, "token_type", "7"),
    (WRITE, "transfer_length", 0),
    (WRITE, "transfer_length", 1001),
    (WRITE, "transfer_length", 1.5),
]


@pytest.mark.parametrize(("event", "name", "value"), NONSENSE)
def test_nonsense_is_refused(
    mount: Mounting,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    event: str,
    name: str,
    value: Any,
) -> None:
    record, drive, _ = offload(mount, client)
    record.instead[event] = lambda params: setattr(params, name, value)
    with refused(errno.EIO):
        client.call(COPY.format(1000, 0, 0))
    path = "/f" if event == READ else "/g"
    assert f"{event} for {path!r}: {name} is {value!r}" in caplog.text
    assert drive.items["/g"].data == b""


# --- Switched off -----------------------------------------------------------------------


def test_without_the_property_the_kernel_copies(mount: Mounting, client: Client) -> None:
    drive = OffloadDrive(f=CONTENT)
    record, _ = serve(mount, client, drive)
    client.run(OPEN)
    for position in (0, 1000):
        assert client.call(COPY.format(1000, position, position)) == 1000
    client.run("os.fsync(target)")
    assert drive.items["/g"].data == CONTENT[:2000]
    assert record.names(READ, WRITE) == []


@pytest.mark.parametrize("event", [READ, WRITE])
def test_both_handlers_are_needed(mount: Mounting, client: Client, event: str) -> None:
    record = Recorder(OffloadDrive(f=CONTENT))
    delattr(record, event)
    serve(mount, client, record, support_odx_read_write=True)
    client.run(OPEN)
    assert client.call(COPY.format(os.sysconf("SC_PAGE_SIZE"), 0, 0)) == 4096
    assert record.names(READ, WRITE) == []
