"""`on_write_file`: positions, buffers, short writes, and what is unknown of cached writes."""

import ctypes
import errno
import logging
import os
from typing import Any

import pytest

from support.client import Client
from support.failing import FAILURES, Complaints, Failure, refused
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder
from support.serving import both_settings, creator, creator_of, read_only, serve, set_contexts

EVENT = "on_write_file"
MIB = 1 << 20

DIRECT: dict[str, Any] = {"file_cache": 0}
THROUGH: dict[str, Any] = {"config": {"FileCachePolicyWriteThrough": True}}
BACK: dict[str, Any] = {}

at_once = pytest.mark.parametrize("how", [DIRECT, THROUGH], ids=["no_cache", "write_through"])
"""The two ways in which a write reaches the handler before write(2) returns."""


class Sink(PlainDrive):
    """A drive with the file /f that takes whatever is written at whatever position, and drops it:
    what counts is what was recorded."""

    def __init__(self) -> None:
        super().__init__(f=b"")

    def on_write_file(self, p: Any) -> None:
        p.bytes_written = p.bytes_to_write

    def on_set_file_size(self, p: Any) -> None:
        pass


def written(record: Recorder) -> list[tuple[int, bytes]]:
    """Position and data of every event."""
    return [(fired.position, fired.buffer_view) for fired in record.all(EVENT)]


def data_of(record: Recorder) -> bytes:
    """What a file that was empty holds after the events."""
    data = bytearray()
    for position, part in written(record):
        data.extend(bytes(max(0, position - len(data))))
        data[position : position + len(part)] = part
    return bytes(data)


# --- Parameters -------------------------------------------------------------------------


@pytest.mark.proves("on_write_file")
@at_once
@both_settings
def test_every_parameter(mount: Mounting, client: Client, how: Any, fire_all: bool) -> None:
    drive = PlainDrive(f=b"0123456789")
    record, cbfs = serve(mount, client, drive, fire_all=fire_all, **how)
    set_contexts(record, on_open_file=("the file", "the handle"))
    processes = []

    def look(params: Any) -> None:
        read_only(
            params,
            "file_name",
            "position",
            "buffer",
            "buffer_view",
            "bytes_to_write",
            "handle_info",
        )
        processes.append((creator(cbfs, params.handle_info), cbfs.get_originator_process_id()))

    record.before[EVENT] = look
    client.run("fd = os.open(at + '/f', os.O_RDWR)")
    assert client.call("os.pwrite(fd, b'abc', 5)") == 3
    fired = record.one(EVENT)
    assert fired.error is None
    buffer = fired.given.pop("buffer")
    assert isinstance(buffer, ctypes.c_void_p)
    assert buffer.value
    assert fired.given == {
        "file_name": "/f",
        "position": 5,
        "buffer_view": b"abc",
        "bytes_to_write": 3,
        "bytes_written": 0,
        "handle_info": record.one("on_open_file").handle_info,
        "file_context": "the file",
        "handle_context": "the handle",
        "result_code": 0,
    }
    assert processes == [(creator_of(client), client.pid)]
    assert drive.items["/f"].data == b"01234abc89"
    assert client.call("os.pread(fd, 99, 0)") == b"01234abc89"


@pytest.mark.parametrize("way", ["memmove", "array", "view"])
@pytest.mark.parametrize("how", [DIRECT, BACK], ids=["no_cache", "cached"])
def test_the_ways_to_take_the_data(mount: Mounting, client: Client, way: str, how: Any) -> None:
    taken: dict[int, bytes] = {}

    def take(params: Any) -> None:
        size = params.bytes_to_write
        if way == "memmove":
            target = ctypes.create_string_buffer(size)
            ctypes.memmove(target, params.buffer, size)
            taken[params.position] = target.raw
        elif way == "array":  # as the vendor's samples do
            array = bytearray(size)
            ctypes.memmove((ctypes.c_uint8 * size).from_buffer(array), params.buffer, size)
            taken[params.position] = bytes(array)
        else:
            assert isinstance(params.buffer_view, memoryview)
            assert (params.buffer_view.nbytes, params.buffer_view.format) == (size, "B")
            taken[params.position] = bytes(params.buffer_view)
        params.bytes_written = size

    record, _ = serve(mount, client, Sink(), **how)
    record.instead[EVENT] = take
    data = os.urandom(200_001)
    client.run("fd = os.open(at + '/f', os.O_WRONLY); os.write(fd, data); os.close(fd)", data=data)
    assert b"".join(taken[position] for position in sorted(taken)) == data


@at_once
def test_large_writes_come_in_pieces_of_a_mebibyte(
    mount: Mounting, client: Client, how: Any
) -> None:
    record, _ = serve(mount, client, Sink(), **how)
    """If they begin at a page of the program's memory: the kernel passes on at most 256 pages."""
    data = os.urandom(4096) * 640  # 2.5 MiB
    client.run("memory = mmap.mmap(-1, len(data)); memory[:] = data", data=data)
    assert client.call("os.write(os.open(at + '/f', os.O_WRONLY), memory)") == len(data)
    assert [(p, len(part)) for p, part in written(record)] == [
        (0, MIB),
        (MIB, MIB),
        (2 * MIB, MIB // 2),
    ]
    assert data_of(record) == data


@pytest.mark.parametrize("how", [DIRECT, THROUGH, BACK], ids=["no_cache", "through", "cached"])
def test_positions_beyond_4_gib(mount: Mounting, client: Client, how: Any) -> None:
    record, _ = serve(mount, client, Sink(), **how)
    place = (1 << 40) + 4096
    client.run("fd = os.open(at + '/f', os.O_WRONLY)\nos.pwrite(fd, b'far', place)", place=place)
    client.run("os.close(fd)")
    assert written(record) == [(place, b"far")]


@at_once
def test_appending(mount: Mounting, client: Client, how: Any) -> None:
    record, _ = serve(mount, client, PlainDrive(f=b"begin"), **how)
    client.run("fd = os.open(at + '/f', os.O_WRONLY | os.O_APPEND)")
    client.run("os.write(fd, b'one'); os.write(fd, b'two')")
    assert written(record) == [(5, b"one"), (8, b"two")]


@at_once
def test_vectored_writes_are_joined(mount: Mounting, client: Client, how: Any) -> None:
    record, _ = serve(mount, client, Sink(), **how)
    client.run("fd = os.open(at + '/f', os.O_WRONLY)")
    assert client.call("os.pwritev(fd, [b'ab', b'', b'cde'], 7)") == 5
    assert written(record) == [(7, b"abcde")]


@pytest.mark.parametrize("how", [DIRECT, THROUGH, BACK], ids=["no_cache", "through", "cached"])
def test_nothing_is_no_event(mount: Mounting, client: Client, how: Any) -> None:
    record, _ = serve(mount, client, Sink(), **how)
    client.run("fd = os.open(at + '/f', os.O_WRONLY); done = os.write(fd, b''); os.close(fd)")
    assert client.call("done") == 0
    assert not record.all(EVENT)


def test_without_a_handler_nothing_can_be_written(mount: Mounting, client: Client) -> None:
    handlers = Recorder(PlainDrive(f=b"data"))
    del handlers.on_write_file  # type: ignore[attr-defined]
    serve(mount, client, handlers)
    with refused(errno.EROFS):
        client.run("fd = os.open(at + '/f', os.O_WRONLY)\nos.write(fd, b'x'); os.fsync(fd)")
    assert client.call("Path(at, 'f').read_bytes()") == b"data"


# --- Growing ----------------------------------------------------------------------------


@at_once
def test_a_write_past_the_end_is_announced(mount: Mounting, client: Client, how: Any) -> None:
    drive = PlainDrive(f=b"0123456789")
    record, _ = serve(mount, client, drive, **how)
    client.run("fd = os.open(at + '/f', os.O_WRONLY); os.pwrite(fd, b'ab', 8)")
    assert not record.all("on_set_file_size")
    client.run("os.pwrite(fd, b'abc', 12)")
    assert record.one("on_set_file_size").size == 15
    assert record.names("on_set_file_size", EVENT) == [EVENT, "on_set_file_size", EVENT]
    assert drive.items["/f"].data == b"01234567ab\0\0abc"


@at_once
def test_a_write_past_the_end_may_be_refused_there(
    mount: Mounting, client: Client, how: Any
) -> None:
    record, _ = serve(mount, client, PlainDrive(f=b"data"), **how)
    record.instead["on_set_file_size"] = Failure("OSError", errno.EFBIG)
    client.run("fd = os.open(at + '/f', os.O_WRONLY)")
    with refused(errno.EFBIG):
        client.run("os.pwrite(fd, b'abc', 12)")
    assert not record.all(EVENT)


@at_once
def test_the_announcement_can_be_turned_off(mount: Mounting, client: Client, how: Any) -> None:
    config = {"FireSetFileSizeOnWrite": False} | how.get("config", {})
    record, _ = serve(mount, client, PlainDrive(f=b"data"), **(how | {"config": config}))
    client.run("fd = os.open(at + '/f', os.O_RDWR); os.pwrite(fd, b'abc', 12)")
    assert not record.all("on_set_file_size")
    assert client.call("os.pread(fd, 99, 0)") == b"data" + bytes(8) + b"abc"


# --- Short writes and nonsense ----------------------------------------------------------


def at_most(count: int) -> Any:
    """A handler that takes no more than so many bytes."""

    def take(params: Any) -> None:
        params.bytes_written = min(count, params.bytes_to_write)

    return take


@at_once
def test_a_short_write_is_what_write_returns(mount: Mounting, client: Client, how: Any) -> None:
    record, _ = serve(mount, client, Sink(), **how)
    record.instead[EVENT] = at_most(3)
    client.run("fd = os.open(at + '/f', os.O_WRONLY)")
    assert client.call("os.write(fd, b'0123456789')") == 3
    assert client.call("os.write(fd, b'3456789')") == 3
    assert [position for position, _ in written(record)] == [0, 3]
    assert record.all(EVENT)[0].left["bytes_written"] == 3


def test_a_short_cached_write_is_continued(mount: Mounting, client: Client) -> None:
    """The kernel would lose the rest without a word."""
    record, _ = serve(mount, client, Sink(), **BACK)
    record.instead[EVENT] = at_most(4000)
    data = os.urandom(10_000)
    client.run("fd = os.open(at + '/f', os.O_WRONLY)\nos.write(fd, data); os.close(fd)", data=data)
    parts = written(record)
    taken = {position: part[:4000] for position, part in parts}
    assert b"".join(taken[position] for position in sorted(taken)) == data
    assert {(f.handle_info, f.handle_context) for f in record.all(EVENT)} == {(0, None)}


def test_a_full_drive_is_told_of_a_short_cached_write(mount: Mounting, client: Client) -> None:
    record, _ = serve(mount, client, Sink(), **BACK)

    def take_until_full(params: Any) -> None:
        room = max(0, 5000 - params.position)
        if not room:
            raise OSError(errno.ENOSPC, "full")
        params.bytes_written = min(room, params.bytes_to_write)

    record.instead[EVENT] = take_until_full
    client.run("fd = os.open(at + '/f', os.O_WRONLY)\nos.write(fd, bytes(10_000))")
    with refused(errno.ENOSPC):
        client.run("os.fsync(fd)")


@at_once
@pytest.mark.parametrize("answer", [0, -1, 4, 1 << 70, None, "3", 3.0])
def test_what_cannot_have_been_written(
    mount: Mounting, client: Client, caplog: pytest.LogCaptureFixture, how: Any, answer: object
) -> None:
    caplog.set_level(logging.WARNING, "cbfsconnect")
    handlers = Recorder(PlainDrive(f=b"0123456789"))
    handlers.handle("on_error", lambda params: None)
    record, _ = serve(mount, client, handlers, **how)
    record.instead[EVENT] = lambda params: setattr(params, "bytes_written", answer)
    client.run("fd = os.open(at + '/f', os.O_RDWR)")
    with refused(errno.EIO):
        client.run("os.write(fd, b'abc')")
    (line,) = caplog.records
    told = record.one("on_error")
    for text in (line.getMessage(), told.description):
        assert EVENT in text
        assert "'/f'" in text
        assert repr(answer) in text
    del record.instead[EVENT]
    assert client.call("os.pwrite(fd, b'abc', 0)") == 3


# --- Contexts ---------------------------------------------------------------------------


@at_once
@both_settings
def test_what_it_leaves_in_the_contexts_is_kept(
    mount: Mounting, client: Client, how: Any, fire_all: bool
) -> None:
    record, _ = serve(mount, client, PlainDrive(f=b"data"), fire_all=fire_all, **how)
    set_contexts(record, on_open_file=("file", "handle"), on_write_file=("written", "writer"))
    client.run("fd = os.open(at + '/f', os.O_WRONLY); os.pwrite(fd, b'1', 0)")
    record.before.clear()
    client.run("os.pwrite(fd, b'2', 0); os.close(fd)")
    closed = record.wait_for("on_close_file")[0]
    for fired in (record.all(EVENT)[1], record.one("on_cleanup_file"), closed):
        assert (fired.file_context, fired.handle_context) == ("written", "writer")
    client.run("fd = os.open(at + '/f', os.O_WRONLY); os.pwrite(fd, b'3', 0)")
    fired = record.all(EVENT)[2]
    assert (fired.file_context, fired.handle_context) == (0, 0), "they ended with the last close"


@at_once
@both_settings
def test_two_handles_share_the_file_context_only(
    mount: Mounting, client: Client, how: Any, fire_all: bool
) -> None:
    record, _ = serve(mount, client, PlainDrive(f=b"data"), fire_all=fire_all, **how)

    def count(params: Any) -> None:
        params.file_context += 1
        params.handle_context += 1

    record.before[EVENT] = count
    client.run("a, b = (os.open(at + '/f', os.O_WRONLY) for _ in range(2))")
    client.run("for fd in (a, a, b, a): os.pwrite(fd, b'x', 0)")
    assert [f.left["file_context"] for f in record.all(EVENT)] == [1, 2, 3, 4]
    assert [f.left["handle_context"] for f in record.all(EVENT)] == [1, 2, 1, 3]
    infos = [f.handle_info for f in record.all(EVENT)]
    assert infos[0] == infos[1] == infos[3] != infos[2]


# --- Cached writes ----------------------------------------------------------------------


@both_settings
def test_a_cached_write_comes_later_and_from_nobody(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    drive = PlainDrive(f=bytes(10))
    record, cbfs = serve(mount, client, drive, fire_all=fire_all, **BACK)
    set_contexts(record, on_open_file=("the file", "the handle"))
    seen: list[object] = []

    def look(params: Any) -> None:
        seen.append(creator(cbfs, params.handle_info))
        seen.append((cbfs.get_originator_process_id(), cbfs.get_originator_process_name()))
        seen.append((cbfs.get_originator_thread_id(), cbfs.get_originator_token()))
        params.file_context, params.handle_context = "changed", "dropped"

    record.before[EVENT] = look
    client.run("fd = os.open(at + '/f', os.O_RDWR)")
    assert client.call("os.pwrite(fd, b'abc', 5)") == 3
    assert not record.all(EVENT), "write(2) has returned, and nothing was written yet"
    assert client.call("os.pread(fd, 99, 0)") == bytes(5) + b"abc" + bytes(2)
    client.run("os.fsync(fd)")
    fired = record.one(EVENT)
    assert fired.error is None
    assert (fired.handle_info, fired.handle_context) == (0, None)
    assert fired.file_context == "the file"
    assert seen == [(0, "", 0, False), (0, ""), (0, -1)]
    end = fired.position + fired.bytes_to_write
    assert fired.buffer_view[5 - fired.position : 8 - fired.position] == b"abc"
    assert end <= 10, "no more than the file holds"
    assert drive.items["/f"].data == bytes(5) + b"abc" + bytes(2)
    client.run("os.close(fd)")
    closed = record.wait_for("on_close_file")[0]
    assert (closed.file_context, closed.handle_context) == ("changed", "the handle")


def test_small_cached_writes_are_merged(mount: Mounting, client: Client) -> None:
    record, _ = serve(mount, client, Sink(), **BACK)
    data = os.urandom(5000)
    client.run(
        """
        with open(at + "/f", "wb", buffering=0) as file:
            for byte in data:
                file.write(bytes([byte]))
        """,
        data=data,
    )
    assert data_of(record) == data
    assert len(record.all(EVENT)) < 10


@pytest.mark.parametrize("how", [THROUGH, BACK], ids=["write_through", "cached"])
def test_a_mapping_is_written_by_nobody(mount: Mounting, client: Client, how: Any) -> None:
    """Pages of a mapping always come from the cache, whatever its policy."""
    record, cbfs = serve(mount, client, PlainDrive(f=bytes(8192)), **how)
    originators = []
    record.before[EVENT] = lambda p: originators.append(cbfs.get_originator_process_id())
    client.run(
        """
        fd = os.open(at + "/f", os.O_RDWR)
        memory = mmap.mmap(fd, 8192)
        memory[4096:4101] = b"hello"
        memory.flush()
        """
    )
    fired = record.one(EVENT)
    assert (fired.position, fired.buffer_view) == (4096, b"hello" + bytes(4091))
    assert (fired.handle_info, fired.handle_context) == (0, None)
    assert originators == [0]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_cached_write_that_fails_is_told_by_fsync(
    mount: Mounting, client: Client, caplog: pytest.LogCaptureFixture, failure: Failure
) -> None:
    """Once, as Linux does; the write(2) itself has succeeded long before."""
    handlers = Recorder(PlainDrive(f=bytes(10)))
    complaints = Complaints(handlers, caplog)
    record, _ = serve(mount, client, handlers, **BACK)
    record.instead[EVENT] = failure
    client.run("fd = os.open(at + '/f', os.O_WRONLY)")
    assert client.call("os.write(fd, b'abc')") == 3
    with refused(failure.errno):
        client.run("os.fsync(fd)")
    complaints.check(failure, EVENT, "/f")
    del record.instead[EVENT]
    client.run("os.pwrite(fd, b'x', 0); os.fsync(fd)")


# --- Failures ---------------------------------------------------------------------------


@at_once
@both_settings
@pytest.mark.parametrize("failure", FAILURES)
def test_failures_are_what_write_returns(
    mount: Mounting,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    how: Any,
    failure: Failure,
    fire_all: bool,
) -> None:
    drive = PlainDrive(f=b"0123456789")
    handlers = Recorder(drive)
    complaints = Complaints(handlers, caplog)
    record, _ = serve(mount, client, handlers, fire_all=fire_all, **how)
    record.instead[EVENT] = failure
    client.run("fd = os.open(at + '/f', os.O_RDWR)")
    with refused(failure.errno):
        client.run("os.pwrite(fd, b'abc', 5)")
    complaints.check(failure, EVENT, "/f")
    assert client.call("os.pread(fd, 99, 0)") == b"0123456789"
    del record.instead[EVENT]
    assert client.call("os.pwrite(fd, b'abc', 5)") == 3
    client.run("os.close(fd)")
    assert drive.items["/f"].data == b"01234abc89"


@at_once
def test_a_failure_counts_even_when_bytes_were_written(
    mount: Mounting, client: Client, how: Any
) -> None:
    record, _ = serve(mount, client, PlainDrive(f=b"0123456789"), **how)

    def write_and_fail(params: Any) -> None:
        params.bytes_written = params.bytes_to_write
        params.result_code = 5  # ERROR_ACCESS_DENIED

    record.instead[EVENT] = write_and_fail
    with refused(errno.EACCES):
        client.run("fd = os.open(at + '/f', os.O_WRONLY); os.write(fd, b'abc')")


@pytest.mark.parametrize("how", [DIRECT, THROUGH], ids=["no_cache", "write_through"])
def test_a_later_piece_that_fails_leaves_what_was_written(
    mount: Mounting, client: Client, how: Any
) -> None:
    record, _ = serve(mount, client, Sink(), **how)

    def only_the_first(params: Any) -> None:
        if params.position >= MIB:
            raise OSError(errno.ENOSPC, "full")
        params.bytes_written = params.bytes_to_write

    record.instead[EVENT] = only_the_first
    client.run("fd = os.open(at + '/f', os.O_WRONLY)")
    assert client.call("os.write(fd, mmap.mmap(-1, 2 * size))", size=MIB) == MIB
    with refused(errno.ENOSPC):
        client.run("os.write(fd, b'x')")
