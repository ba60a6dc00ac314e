"""Control requests: `on_fsctl`, `on_ioctl`, `on_set_valid_data_length`, by ioctls of a client."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from typing import Any

import pytest

import cbfsconnect as c
from cbfsconnect import control_layout as layout
from support.client import Client, run
from support.controlled import ControlledDrive
from support.expecting import answer, expect
from support.failing import FAILURES, Complaints, Failure, refused
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder
from support.serving import read_only, serve, set_contexts

OURS = c.ctl_code(9, 2400)
DEVICE = c.ctl_code(0x8000, 2048)
LINUX = 0xC0087842
"""_IOWR('x', 0x42, 8 bytes)."""
EVENT = {OURS: "on_fsctl", DEVICE: "on_ioctl"}
SEND = {OURS: "c.send_fsctl", DEVICE: "c.send_ioctl"}
BUFFERS = {"input_buffer", "output_buffer"}

both = pytest.mark.parametrize("code", [OURS, DEVICE], ids=["fsctl", "ioctl"])


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A client that has the functions."""
    with Client() as process:
        process.run("import cbfsconnect as c")
        yield process


def serve_file(mount: Mounting, client: Client, **options: Any) -> Recorder:
    record = Recorder(ControlledDrive(file=b"0123456789"))
    record.handle("on_error", lambda p: None)
    serve(mount, client, record, **options)
    client.run("path = at + '/file'")
    return record


def send(client: Client, code: int, *arguments: Any, on: str = "path") -> Any:
    return client.call(
        f"{SEND[code]}({on}, control, *arguments)", control=code, arguments=arguments
    )


def parameters(fired: Any) -> dict[str, Any]:
    return {k: v for k, v in fired.given.items() if k not in BUFFERS}


# --- control codes ---


@pytest.mark.proves("on_fsctl", "on_ioctl")
@both
def test_every_parameter(mount: Mounting, client: Client, code: int) -> None:
    record = serve_file(mount, client)
    event = EVENT[code]

    def check(p: Any) -> None:
        read_only(p, "file_name", "code", "input_buffer", "input_buffer_length", "output_buffer")
        assert ctypes.string_at(p.input_buffer, p.input_buffer_length) == b"abc"
        ctypes.memmove(p.output_buffer, b"answer", 6)
        assert p.bytes_returned == 0
        p.bytes_returned = 5

    record.instead[event] = check
    assert send(client, code, b"abc", 100) == b"answe"
    given = parameters(record.one(event))
    assert given == {
        "file_name": "/file",
        "code": code,
        "input_buffer_view": b"abc",
        "input_buffer_length": 3,
        "output_buffer_view": bytes(100),
        "output_buffer_length": 100,
        "bytes_returned": 0,
        "result_code": 0,
    } | ({"file_context": 0} if code == OURS else {})


@both
def test_no_data(mount: Mounting, client: Client, code: int) -> None:
    record = serve_file(mount, client)
    assert send(client, code, b"", 0) == b""
    fired = record.one(EVENT[code])
    assert fired.input_buffer_view is fired.output_buffer_view is None
    assert fired.input_buffer.value is fired.output_buffer.value is None
    assert fired.input_buffer_length == fired.output_buffer_length == 0


def test_the_file_context_is_kept(mount: Mounting, client: Client) -> None:
    record = serve_file(mount, client)
    record.before["on_open_file"] = lambda p: setattr(p, "file_context", 17)
    record.before["on_fsctl"] = lambda p: setattr(p, "file_context", p.file_context + 1)
    client.run("fd = os.open(path, os.O_RDONLY)")
    send(client, OURS, on="fd")
    send(client, OURS, on="fd")
    assert [f.file_context for f in record.all("on_fsctl")] == [17, 18]
    client.run("os.close(fd)")
    assert record.wait_for("on_close_file")[0].file_context == 19


@both
def test_a_path_is_opened_for_it(mount: Mounting, client: Client, code: int) -> None:
    record = serve_file(mount, client)
    send(client, code)
    record.wait_for("on_close_file")
    around = ("on_open_file", EVENT[code], "on_cleanup_file", "on_close_file")
    assert record.names(*around) == list(around)


@both
def test_the_root(mount: Mounting, client: Client, code: int) -> None:
    record = serve_file(mount, client)
    assert send(client, code, b"x", 10, on="at") == b"xx"
    assert record.one(EVENT[code]).file_name == "/"


@both
@pytest.mark.parametrize("size", [1, 16358, 16359, 16360, 40_000, 1 << 20])
def test_long_answers_come_in_parts(mount: Mounting, client: Client, code: int, size: int) -> None:
    record = serve_file(mount, client)
    content = os.urandom(size)

    def give(p: Any) -> None:
        p.output_buffer_view[:] = content
        p.bytes_returned = len(content)

    record.instead[EVENT[code]] = give
    assert send(client, code, b"", size) == content
    assert record.one(EVENT[code]).output_buffer_length == size


@both
def test_the_largest_input(mount: Mounting, client: Client, code: int) -> None:
    record = serve_file(mount, client)
    data = os.urandom(layout.MOST_DATA)
    assert send(client, code, data, 1 << 20) == data * 2
    assert record.one(EVENT[code]).input_buffer_view == data
    with refused(errno.E2BIG):
        send(client, code, bytes(layout.MOST_DATA + 1))


@both
def test_parts_that_are_never_fetched(mount: Mounting, client: Client, code: int) -> None:
    """A descriptor keeps the last few answers; a token of an older one is ESTALE."""
    serve_file(mount, client)
    tokens = client.run(
        """
        from cbfsconnect import control_layout as layout
        def ask(token):
            argument = bytearray(layout.HEADER.size + 100)
            layout.HEADER.pack_into(argument, 0, control, 0 if token else 100, 200, 100, token)
            number = layout.number_of(layout.NR_CONTROL, len(argument))
            fcntl.ioctl(fd, number, argument)
            return layout.HEADER.unpack_from(argument)[4]
        fd = os.open(path, os.O_RDONLY)
        result = [ask(0) for i in range(5)]
        """,
        control=code,
    )
    assert len(set(tokens)) == 5
    for token in tokens[1:]:
        assert client.call("ask(token)", token=token) == 0
        with refused(errno.ESTALE):
            client.call("ask(token)")
    for token in (tokens[0], 1 << 60):
        with refused(errno.ESTALE):
            client.call("ask(token)", token=token)
    client.run("os.close(fd)")


@pytest.mark.parametrize("nr", [layout.NR_CONTROL, layout.NR_LIBRARY])
@pytest.mark.parametrize("header", [(OURS, 5, 0, 0, 0), (OURS, 0, (1 << 20) + 1, 0, 0), None])
def test_a_malformed_call(
    mount: Mounting, client: Client, nr: int, header: tuple[int, ...] | None
) -> None:
    record = serve_file(mount, client)
    argument = bytearray(layout.HEADER.pack(*header) + b"1234" if header else bytes(23))
    if header and nr == layout.NR_LIBRARY:
        layout.HEADER.pack_into(argument, 0, layout.Request.SET_VALID_DATA_LENGTH, *header[1:])
    with refused(errno.EINVAL):
        client.run(
            "fcntl.ioctl(os.open(path, os.O_RDWR), number, argument)",
            number=layout.number_of(nr, len(argument)),
            argument=argument,
        )
    assert not record.all("on_fsctl")
    assert not record.all("on_ioctl")


def test_an_unknown_request_of_the_library(mount: Mounting, client: Client) -> None:
    record = serve_file(mount, client)
    argument = bytearray(layout.HEADER.pack(999, 0, 0, 0, 0))
    with refused(errno.ENOTTY):
        client.run(
            "fcntl.ioctl(os.open(path, os.O_RDWR), number, argument)",
            number=layout.number_of(layout.NR_LIBRARY, len(argument)),
            argument=argument,
        )
    assert not record.all("on_ioctl")


@both
@pytest.mark.parametrize("failure", FAILURES)
def test_failures(
    mount: Mounting,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    failure: Failure,
    code: int,
) -> None:
    record = Recorder(ControlledDrive(file=b""))
    complaints = Complaints(record, caplog)
    serve(mount, client, record)
    client.run("path = at + '/file'")
    record.instead[EVENT[code]] = failure
    with refused(failure.errno):
        send(client, code, b"data")
    complaints.check(failure, EVENT[code], "/file")
    del record.instead[EVENT[code]]
    assert send(client, code, b"ab") == b"abab"


@both
def test_an_unknown_code(mount: Mounting, client: Client, code: int) -> None:
    record = serve_file(mount, client)
    record.instead[EVENT[code]] = answer(c.ERROR_INVALID_FUNCTION)
    with refused(errno.ENOTTY):
        send(client, code)


@both
@pytest.mark.parametrize("count", [-1, 101, "7", None, 1.0])
def test_a_count_that_cannot_be(mount: Mounting, client: Client, code: int, count: object) -> None:
    record = serve_file(mount, client)
    record.instead[EVENT[code]] = lambda p: setattr(p, "bytes_returned", count)
    with refused(errno.EIO):
        send(client, code, b"", 100)
    assert "bytes_returned" in record.one("on_error").description


@both
def test_a_drive_without_the_handler(mount: Mounting, client: Client, code: int) -> None:
    serve(mount, client, PlainDrive(file=b"works"))
    client.run("path = at + '/file'")
    with refused(errno.ENOTTY):
        send(client, code)
    assert client.call("Path(path).read_text()") == "works"


def test_not_a_drive(client: Client) -> None:
    with refused(errno.ENOTTY):
        send(client, OURS, on="'/proc'")


def test_the_functions_tell_codes_apart() -> None:
    with pytest.raises(ValueError, match="see send_ioctl"):
        c.send_fsctl(0, DEVICE)
    with pytest.raises(ValueError, match="see send_fsctl"):
        c.send_ioctl(0, OURS)
    for code in (-1, 1 << 32):
        with pytest.raises(ValueError, match=f"{code:#x}"):
            c.send_ioctl(0, code)
    with pytest.raises(ValueError, match="output_size"):
        c.send_fsctl(0, OURS, b"", (1 << 20) + 1)


@pytest.mark.proves("handle_all_fsctls", "on_fsctl")
@pytest.mark.parametrize("function", [0, 42, 2399])
def test_handle_all_fsctls(mount: Mounting, client: Client, function: int) -> None:
    code = c.ctl_code(9, function)
    record = serve_file(mount, client)
    with refused(errno.ENOTTY):
        client.call("c.send_fsctl(path, control)", control=code)
    assert not record.all("on_fsctl")
    record = serve_file(mount, client, handle_all_fsctls=True)
    assert client.call("c.send_fsctl(path, control, b'a')") == b"aa"
    assert record.one("on_fsctl").code == code


@pytest.mark.parametrize("function", [2400, 4095])
def test_the_range_of_applications(mount: Mounting, client: Client, function: int) -> None:
    record = serve_file(mount, client)
    client.call("c.send_fsctl(path, control)", control=c.ctl_code(9, function, 3, 0))
    assert record.one("on_fsctl").code == c.ctl_code(9, function, 3, 0)


@pytest.mark.parametrize(
    ("access", "flags"),
    [
        (1, "os.O_WRONLY"),
        (2, "os.O_RDONLY"),
        (3, "os.O_RDONLY"),
        (3, "os.O_WRONLY"),
    ],
)
@both
def test_the_access_that_a_code_asks_for(
    mount: Mounting, client: Client, code: int, access: int, flags: str
) -> None:
    record = serve_file(mount, client)
    asking = code | access << 14
    call = f"{SEND[code]}(target, asking, b'x')"
    with refused(errno.EACCES):
        client.run(f"target = os.open(path, {flags})\n{call}", asking=asking)
    assert not record.all(EVENT[code])
    client.run("os.close(target)")
    assert client.run(f"target = path\nresult = {call}") == b"xx"
    assert client.run(f"target = os.open(path, os.O_RDWR)\nresult = {call}") == b"xx"
    client.run("os.close(target)")
    assert client.run(f"target = at\nresult = {call}") == b"xx"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_directory_has_its_owner_to_write(mount: Mounting, client: Client) -> None:
    record = serve_file(mount, client)
    writing = c.ctl_code(9, 2400, 0, 2)
    client.run("fd = os.open(at, os.O_RDONLY); os.seteuid(4711)")
    try:
        with refused(errno.EPERM):
            client.run("c.send_fsctl(fd, control)", control=writing)
        client.run("c.send_fsctl(fd, control)", control=OURS)
    finally:
        client.run("os.seteuid(0); os.close(fd)")
    assert [f.code for f in record.all("on_fsctl")] == [OURS]


# --- ioctls of Linux ---


@pytest.mark.proves("on_ioctl")
def test_linux_ioctls_pass_through(mount: Mounting, client: Client) -> None:
    record = serve_file(mount, client)

    def give(p: Any) -> None:
        p.output_buffer_view[:3] = b"out"
        p.bytes_returned = 3

    record.instead["on_ioctl"] = give
    client.run("argument = bytearray(b'inputabc')\nfd = os.open(path, os.O_RDONLY)")
    assert client.call("fcntl.ioctl(fd, number, argument)", number=LINUX) == 0
    assert client.call("argument") == b"oututabc"  # only what was returned is written
    fired = record.one("on_ioctl")
    assert parameters(fired) == {
        "file_name": "/file",
        "code": LINUX,
        "input_buffer_view": b"inputabc",
        "input_buffer_length": 8,
        "output_buffer_view": bytes(8),
        "output_buffer_length": 8,
        "bytes_returned": 0,
        "result_code": 0,
    }
    client.run("os.close(fd)")


@pytest.mark.parametrize(
    ("number", "given", "room"),
    [(0x7842, 0, 0), (0x40087842, 8, 0), (0x80087842, 0, 8), (0xFFFF7842, 16383, 16383)],
)
def test_their_number_tells_the_sizes(
    mount: Mounting, client: Client, number: int, given: int, room: int
) -> None:
    record = serve_file(mount, client)
    client.run("fcntl.ioctl(os.open(at, 0), number, bytearray(16383))", number=number)
    fired = record.one("on_ioctl")
    assert (fired.file_name, fired.code) == ("/", number)
    assert (fired.input_buffer_length, fired.output_buffer_length) == (given, room)


def test_unknown_ones_are_enotty(mount: Mounting, client: Client) -> None:
    record = serve_file(mount, client)
    record.instead["on_ioctl"] = answer(c.ERROR_INVALID_FUNCTION)
    client.run("fd = os.open(path, os.O_RDONLY)")
    with refused(errno.ENOTTY):
        client.run("fcntl.ioctl(fd, number, bytearray(8))", number=LINUX)
    record.instead["on_ioctl"] = answer(c.win32_from_errno(errno.ENOSYS))
    with refused(errno.EOPNOTSUPP):
        client.run("fcntl.ioctl(fd, number, bytearray(8))")
    record.instead["on_ioctl"] = answer(0)
    client.run("fcntl.ioctl(fd, number, bytearray(8))\nos.close(fd)")


def test_a_file_is_no_terminal(mount: Mounting, client: Client) -> None:
    """Python asks for every file it opens; a handler that answers everything must not say yes."""
    record = serve_file(mount, client)
    assert client.call("open(path).isatty()") is False
    assert not record.all("on_ioctl")


def test_lsattr(mount: Mounting, client: Client) -> None:
    """The kernel asks for these flags itself, and takes nothing but a whole answer."""
    record = serve_file(mount, client)

    def flags(p: Any) -> None:
        p.output_buffer_view[0] = 0x10  # FS_IMMUTABLE_FL
        p.bytes_returned = 1

    record.instead["on_ioctl"] = flags
    assert run("lsattr", client.call("path")).split()[0].strip("-") == "i"
    assert {f.code for f in record.all("on_ioctl")} == {0x80086601}


# --- valid data length ---

VALID = "on_set_valid_data_length"


@pytest.mark.proves("on_set_valid_data_length")
def test_set_valid_data_length(mount: Mounting, client: Client) -> None:
    record = serve_file(mount, client)
    set_contexts(record, on_open_file=(3, 4))

    def check(p: Any) -> None:
        read_only(p, "file_name", "valid_data_length", "handle_info")
        p.file_context, p.handle_context = 5, 6

    record.before[VALID] = check
    client.run("fd = os.open(path, os.O_RDWR); os.ftruncate(fd, 5000)")
    client.run("c.set_valid_data_length(fd, 4000)")
    fired = record.one(VALID)
    expect(fired, file_name="/file", valid_data_length=4000, file_context=3, handle_context=4)
    assert fired.handle_info == record.one("on_open_file").handle_info
    client.run("os.close(fd)")
    closed = record.wait_for("on_close_file")[0]
    assert (closed.file_context, closed.handle_context) == (5, 6)


@pytest.mark.parametrize("length", [0, 10])
def test_a_valid_data_length_by_path(mount: Mounting, client: Client, length: int) -> None:
    record = serve_file(mount, client)
    client.run("c.set_valid_data_length(path, length)", length=length)
    assert record.one(VALID).valid_data_length == length


@pytest.mark.parametrize("length", [-1, 11, 1 << 63])
def test_no_valid_data_beyond_the_end(mount: Mounting, client: Client, length: int) -> None:
    record = serve_file(mount, client)
    with refused(errno.EINVAL):
        client.run("c.set_valid_data_length(path, length)", length=length)
    assert not record.all(VALID)


def test_valid_data_need_a_writer(mount: Mounting, client: Client) -> None:
    record = serve_file(mount, client)
    with refused(errno.EBADF):
        client.run("c.set_valid_data_length(os.open(path, os.O_RDONLY), 1)")
    with refused(errno.EISDIR):
        client.run("c.set_valid_data_length(os.open(at, os.O_RDONLY), 0)")
    assert not record.all(VALID)


@pytest.mark.parametrize("failure", FAILURES)
def test_valid_data_length_fails(
    mount: Mounting, client: Client, caplog: pytest.LogCaptureFixture, failure: Failure
) -> None:
    record = Recorder(ControlledDrive(file=b"0123456789"))
    complaints = Complaints(record, caplog)
    serve(mount, client, record)
    record.instead[VALID] = failure
    with refused(failure.errno):
        client.run("c.set_valid_data_length(at + '/file', 5)")
    complaints.check(failure, VALID, "/file")


def test_a_drive_without_valid_data_length(mount: Mounting, client: Client) -> None:
    serve(mount, client, PlainDrive(file=b"0123456789"))
    client.run("c.set_valid_data_length(at + '/file', 5)")
    with refused(errno.EINVAL):
        client.run("c.set_valid_data_length(at + '/file', 11)")
