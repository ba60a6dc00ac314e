"""`system.ntfs_acl`: the events of Windows security, with `use_windows_security` only."""

import ctypes
import errno
import os
import struct
from typing import Any

import pytest

from cbfsconnect import ERROR_INSUFFICIENT_BUFFER
from support.client import Client
from support.failing import FAILURES, Complaints, Failure, refused
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder
from support.serving import both_settings, creator, creator_of, read_only, serve, set_contexts

GET, SET = "on_get_file_security", "on_set_file_security"
READ = "os.getxattr(at + '/f', 'system.ntfs_acl')"
WRITE = "os.setxattr(at + '/f', 'system.ntfs_acl', value)"
AS_STRANGER = """
os.chdir(at)
os.seteuid(1234)
try:
    os.setxattr('f', 'system.ntfs_acl', value)
finally:
    os.seteuid(0)
    os.chdir('/')
"""
OWNER, GROUP, DACL, SACL = 1, 2, 4, 8
SID = bytes([1, 2, 0, 0, 0, 0, 0, 5]) + struct.pack("<II", 32, 544)


def acl(rules: int = 0) -> bytes:
    """An access control list with so many rules of 20 bytes."""
    body = struct.pack("<BBHI", 0, 0, 8 + len(SID), 0x1F01FF) + SID
    return struct.pack("<BBHHH", 2, 0, 8 + rules * len(body), rules, 0) + rules * body


def descriptor(parts: int, rules: int = 1) -> bytes:
    """A self-relative security descriptor with these parts."""
    control, offsets, body = 0x8000, [0, 0, 0, 0], b""
    contents = ((OWNER, SID, 0), (GROUP, SID, 0), (SACL, acl(), 0x10), (DACL, acl(rules), 0x4))
    for place, (part, data, flag) in enumerate(contents):
        if parts & part:
            offsets[place] = 20 + len(body)
            control |= flag
            body += data
    return struct.pack("<BBH4I", 1, 0, control, *offsets) + body


class SecureDrive(PlainDrive):
    """Keeps one descriptor for each item; those without one have none."""

    def __init__(self, **files: bytes) -> None:
        super().__init__(**files)
        self.security: dict[str, bytes] = {}

    def on_get_file_security(self, p: Any) -> None:
        data = self.security.get(p.file_name, b"")
        p.descriptor_length = len(data)
        if len(data) > p.buffer_length:
            p.result_code = ERROR_INSUFFICIENT_BUFFER
        elif data:
            ctypes.memmove(p.security_descriptor, data, len(data))

    def on_set_file_security(self, p: Any) -> None:
        self.security[p.file_name] = ctypes.string_at(p.security_descriptor, p.length)


def secure(mount: Mounting, client: Client, **options: Any) -> tuple[Recorder, SecureDrive, Any]:
    drive = SecureDrive(f=b"data")
    drive.security["/f"] = descriptor(OWNER | GROUP | DACL)
    recorder = Recorder(drive)
    recorder.handle("on_error", lambda params: None)
    # With a write-back cache the kernel would set the file's change time itself afterwards.
    config = {"FileCachePolicyWriteThrough": True}
    record, cbfs = serve(
        mount, client, recorder, use_windows_security=True, config=config, **options
    )
    return record, drive, cbfs


# --- Reading ----------------------------------------------------------------------------


@pytest.mark.proves("on_get_file_security", "use_windows_security")
@both_settings
def test_every_parameter_of_get(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, drive, cbfs = secure(mount, client, fire_all=fire_all)
    set_contexts(record, on_open_file=("the file", "the handle"))
    creators = []

    def look(params: Any) -> None:
        read_only(params, "file_name", "security_information", "security_descriptor_view")
        read_only(params, "buffer_length", "handle_info", "security_descriptor")
        creators.append(creator(cbfs, params.handle_info))

    record.before[GET] = look
    assert client.call(READ) == drive.security["/f"]
    fired = record.one(GET)
    assert fired.error is None
    given = dict(fired.given)
    assert given.pop("security_descriptor").value
    assert given.pop("security_descriptor_view") == bytes(fired.buffer_length)
    assert given == {
        "file_name": "/f",
        "security_information": OWNER | GROUP | DACL,
        "buffer_length": fired.buffer_length,
        "descriptor_length": 0,
        "handle_info": record.one("on_open_file").handle_info,
        "file_context": "the file",
        "handle_context": "the handle",
        "result_code": 0,
    }
    assert creators == [creator_of(client)]
    around = ("on_open_file", GET, "on_cleanup_file", "on_close_file")
    assert record.names(*around) == list(around)
    assert record.one("on_open_file").desired_access == 0x20000


@pytest.mark.proves("on_get_file_security")
def test_a_buffer_that_is_too_small_is_replaced_by_one_that_fits(
    mount: Mounting, client: Client
) -> None:
    record, drive, _ = secure(mount, client)
    drive.security["/f"] = descriptor(OWNER | DACL, rules=2000)
    assert client.call(READ) == drive.security["/f"]
    # The program asks twice too: first with little room.
    size = len(drive.security["/f"])
    rooms = [fired.buffer_length for fired in record.all(GET)]
    assert rooms == [rooms[0], size] * 2
    assert rooms[0] < size
    assert record.names("on_open_file") == ["on_open_file"] * 2


def test_the_contexts_of_get_are_kept(mount: Mounting, client: Client) -> None:
    record, _, _ = secure(mount, client)
    set_contexts(record, on_get_file_security=("looked", "looker"))
    client.call(READ)
    closed = record.one("on_close_file")
    assert (closed.file_context, closed.handle_context) == ("looked", "looker")


def test_directories_and_the_root_have_it_too(mount: Mounting, client: Client) -> None:
    record, drive, _ = secure(mount, client)
    drive.add_directory("/dir")
    drive.security["/dir"] = drive.security["/"] = descriptor(OWNER)
    for name in ("/dir", ""):
        assert client.call(f"os.getxattr(at + {name!r}, 'system.ntfs_acl')") == descriptor(OWNER)
    assert [fired.file_name for fired in record.all(GET)] == ["/dir", "/"]


def test_no_descriptor_is_no_data(mount: Mounting, client: Client) -> None:
    _, drive, _ = secure(mount, client)
    drive.security.clear()
    with refused(errno.ENODATA):
        client.call(READ)


def test_one_that_linux_cannot_pass_on_is_too_big(mount: Mounting, client: Client) -> None:
    record, _, _ = secure(mount, client)

    def huge(params: Any) -> None:
        params.descriptor_length, params.result_code = 65537, ERROR_INSUFFICIENT_BUFFER

    record.instead[GET] = huge
    with refused(errno.E2BIG):
        client.call(READ)


@pytest.mark.parametrize(
    ("length", "code"),
    [(-1, 0), ("20", 0), (None, 0), (20, ERROR_INSUFFICIENT_BUFFER)],
    ids=["negative", "text", "nothing", "small"],
)
def test_nonsense_is_refused(
    mount: Mounting,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    length: Any,
    code: int,
) -> None:
    record, _, _ = secure(mount, client)

    def nonsense(params: Any) -> None:
        params.descriptor_length, params.result_code = length, code

    record.instead[GET] = nonsense
    with refused(errno.EIO):
        client.call(READ)
    assert "on_get_file_security for '/f': descriptor_length is" in caplog.text


def test_one_that_grows_all_the_time_is_given_up(
    mount: Mounting, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    record, _, _ = secure(mount, client)

    def growing(params: Any) -> None:
        params.descriptor_length = params.buffer_length + 1
        params.result_code = ERROR_INSUFFICIENT_BUFFER

    record.instead[GET] = growing
    with refused(errno.EIO):
        client.call(READ)
    assert "never fits" in caplog.text


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_get(
    mount: Mounting, client: Client, caplog: pytest.LogCaptureFixture, failure: Failure
) -> None:
    record, drive, _ = secure(mount, client)
    complaints = Complaints(record, caplog)
    record.instead[GET] = failure
    with refused(failure.errno):
        client.call(READ)
    complaints.check(failure, GET, "/f")
    del record.instead[GET]
    assert client.call(READ) == drive.security["/f"]


# --- Writing ----------------------------------------------------------------------------


@pytest.mark.proves("on_set_file_security")
@both_settings
def test_every_parameter_of_set(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, drive, cbfs = secure(mount, client, fire_all=fire_all)
    set_contexts(record, on_open_file=("the file", "the handle"))
    creators = []

    def look(params: Any) -> None:
        read_only(params, "file_name", "security_information", "security_descriptor_view")
        read_only(params, "length", "handle_info", "security_descriptor")
        creators.append(creator(cbfs, params.handle_info))
        params.file_context, params.handle_context = "changed", "changer"

    record.before[SET] = look
    value = descriptor(DACL)
    client.run(WRITE, value=value)
    assert drive.security["/f"] == value
    fired = record.one(SET)
    assert fired.error is None
    given = dict(fired.given)
    assert given.pop("security_descriptor").value
    assert given == {
        "file_name": "/f",
        "security_information": DACL,
        "security_descriptor_view": value,
        "length": len(value),
        "handle_info": record.one("on_open_file").handle_info,
        "file_context": "the file",
        "handle_context": "the handle",
        "result_code": 0,
    }
    assert creators == [creator_of(client)]
    closed = record.one("on_close_file")
    assert (closed.file_context, closed.handle_context) == ("changed", "changer")


@pytest.mark.parametrize("parts", range(1, 16))
def test_the_parts_that_are_there_are_set(mount: Mounting, client: Client, parts: int) -> None:
    record, _, _ = secure(mount, client)
    client.run(WRITE, value=descriptor(parts))
    assert record.one(SET).security_information == parts
    rights = 0x80000 if parts & (OWNER | GROUP) else 0
    rights |= (0x40000 if parts & DACL else 0) | (0x1000000 if parts & SACL else 0)
    assert record.one("on_open_file").desired_access == rights


def test_an_absent_list_that_is_present_allows_everything(mount: Mounting, client: Client) -> None:
    record, _, _ = secure(mount, client)
    client.run(WRITE, value=struct.pack("<BBH4I", 1, 0, 0x8004, 0, 0, 0, 0))
    assert record.one(SET).security_information == DACL


BROKEN = {
    "empty": b"",
    "short": descriptor(OWNER)[:19],
    "revision": b"\2" + descriptor(OWNER)[1:],
    "absolute": struct.pack("<BBH4I", 1, 0, 4, 0, 0, 0, 0),
    "nothing": descriptor(0),
    "sid outside": struct.pack("<BBH4I", 1, 0, 0x8000, 20, 0, 0, 0),
    "sid too long": descriptor(OWNER)[:-1],
    "sid of another kind": struct.pack("<BBH4I", 1, 0, 0x8000, 20, 0, 0, 0) + b"\2" + SID[1:],
    "list outside": struct.pack("<BBH4I", 1, 0, 0x8004, 0, 0, 0, 1 << 31),
    "list too long": descriptor(DACL)[:-1],
    "list too short": descriptor(DACL)[:22] + b"\1\0" + descriptor(DACL)[24:],
}


@pytest.mark.parametrize("value", BROKEN.values(), ids=BROKEN)
def test_what_is_no_descriptor_is_invalid(mount: Mounting, client: Client, value: bytes) -> None:
    record, _, _ = secure(mount, client)
    with refused(errno.EINVAL):
        client.run(WRITE, value=value)
    assert not record.all(SET)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_set(
    mount: Mounting, client: Client, caplog: pytest.LogCaptureFixture, failure: Failure
) -> None:
    record, drive, _ = secure(mount, client)
    complaints = Complaints(record, caplog)
    record.instead[SET] = failure
    with refused(failure.errno):
        client.run(WRITE, value=descriptor(OWNER))
    complaints.check(failure, SET, "/f")
    assert drive.security["/f"] == descriptor(OWNER | GROUP | DACL)
    assert len(record.wait_for("on_close_file")) == 1


def test_it_cannot_be_made_or_removed(mount: Mounting, client: Client) -> None:
    record, _, _ = secure(mount, client)
    with refused(errno.EEXIST):
        client.run(WRITE[:-1] + ", os.XATTR_CREATE)", value=descriptor(OWNER))
    with refused(errno.EOPNOTSUPP):
        client.run("os.removexattr(at + '/f', 'system.ntfs_acl')")
    assert not record.all(SET)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_only_root_and_the_owner_may_set_it(mount: Mounting, client: Client) -> None:
    record, drive, _ = secure(mount, client)
    with refused(errno.EPERM):
        client.run(AS_STRANGER, value=descriptor(DACL))
    assert not record.all(SET)

    def owned(params: Any) -> None:
        drive.on_get_file_info(params)
        params.uid = 1234

    record.instead["on_get_file_info"] = owned
    client.run(AS_STRANGER, value=descriptor(DACL))
    assert client.call(READ) == descriptor(DACL)


# --- Switched off -----------------------------------------------------------------------


@pytest.mark.parametrize("others", [False, True], ids=["no_attributes", "other_attributes"])
def test_without_the_property_nothing_fires(mount: Mounting, client: Client, others: bool) -> None:
    drive = SecureDrive(f=b"data")
    record, _ = serve(mount, client, drive, config={"NtfsAttributes": others})
    for code in (READ, WRITE):
        with refused(errno.EOPNOTSUPP):
            client.run(code, value=descriptor(OWNER))
    assert record.names(GET, SET, "on_open_file") == []


def test_without_handlers_there_is_none(mount: Mounting, client: Client) -> None:
    serve(mount, client, PlainDrive(f=b"data"), use_windows_security=True)
    for code in (READ, WRITE):
        with refused(errno.EOPNOTSUPP):
            client.run(code, value=descriptor(OWNER))
