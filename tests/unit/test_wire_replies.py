"""Encoding of replies, directory listings and notifications, checked byte by byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbfsconnect.fuse import abi, wire

U = 0x0102030405060708
ATTR = tuple(range(101, 117))
ATTR_FORMAT = "6Q10I"
PACKED = struct.pack("=" + ATTR_FORMAT, *ATTR)


def reply(form: str, *values: int, tail: bytes = b"") -> bytes:
    body = struct.pack("=" + form, *values) + tail
    return struct.pack("=IiQ", 16 + len(body), 0, U) + body


def notification(code: int, form: str, *values: int, tail: bytes = b"") -> bytes:
    body = struct.pack("=" + form, *values) + tail
    return struct.pack("=IiQ", 16 + len(body), code, 0) + body


ENTRY_FORMAT = "4QII" + ATTR_FORMAT
ENTRY = (9, 3, 60, 61, 62, 63, *ATTR)
STATX = (*range(1, 11), 11, -5, 1, -6, 2, 7, 3, 8, 4, 20, 21, 22, 23)

REPLIES = {
    "empty": (wire.empty(U), reply("")),
    "data": (wire.data(U, b"payload"), reply("", tail=b"payload")),
    "data-view": (wire.data(U, memoryview(b"payload")), reply("", tail=b"payload")),
    "data-in-place": (
        wire.data_in_place(memoryview(bytearray(16) + b"bytes, others"), U, 5),
        struct.pack("=IiQ", 21, 0, U) + b"bytes",
    ),
    "attr": (wire.attr(U, 60, 62, PACKED), reply("QII" + ATTR_FORMAT, 60, 62, 0, *ATTR)),
    "entry": (wire.entry(U, 9, 3, 60, 62, 61, 63, PACKED), reply(ENTRY_FORMAT, *ENTRY)),
    "opened": (wire.opened(U, 5, 2), reply("QIi", 5, 2, 0)),
    "opened-passthrough": (wire.opened(U, 5, 128, 7), reply("QIi", 5, 128, 7)),
    "created": (
        wire.created(U, 9, 3, 60, 62, 61, 63, PACKED, 5, 2, 7),
        reply(ENTRY_FORMAT + "QIi", *ENTRY, 5, 2, 7),
    ),
    "written": (wire.written(U, 4096), reply("II", 4096, 0)),
    "copied": (wire.copied(U, 4096), reply("II", 4096, 0)),
    "copied-64": (wire.copied(U, 1 << 40, wide=True), reply("Q", 1 << 40)),
    "statfs": (
        wire.statfs(U, 1, 2, 3, 4, 5, 6, 7, 8),
        reply("5Q4I24x", 1, 2, 3, 4, 5, 6, 7, 8, 0),
    ),
    "xattr-size": (wire.xattr_size(U, 99), reply("II", 99, 0)),
    "lock": (wire.lock(U, 1, 2**63 - 1, 0, 42), reply("QQII", 1, 2**63 - 1, 0, 42)),
    "statx": (
        wire.statx(U, 60, 62, STATX, 1),
        reply("QII16x" + "IIQIIIH2xQQQQ" + "qI4x" * 4 + "4I112x", 60, 62, 1, *STATX),
    ),
    "lseek": (wire.lseek(U, 12345), reply("Q", 12345)),
    "bmap": (wire.bmap(U, 12345), reply("Q", 12345)),
    "poll": (wire.poll(U, 5), reply("II", 5, 0)),
    "ioctl": (
        wire.ioctl(U, -1, 4, 1, 2, b"out"),
        reply("iIII", -1, 4, 1, 2, tail=b"out"),
    ),
    "init": (
        wire.init(U, abi.InitOut(*range(7, 20))),
        reply("4IHHIIHHIIH22x", *range(7, 20)),
    ),
}

NOTIFICATIONS = {
    "poll": (wire.poll_wakeup(8), notification(1, "Q", 8)),
    "inode": (wire.inval_inode(8, 4096, -1), notification(2, "Qqq", 8, 4096, -1)),
    "inode-attr": (wire.inval_inode(8, -1), notification(2, "Qqq", 8, -1, 0)),
    "entry": (
        wire.inval_entry(8, b"name"),
        notification(3, "QII", 8, 4, 0, tail=b"name\0"),
    ),
    "expire": (
        wire.inval_entry(8, b"name", abi.EXPIRE_ONLY),
        notification(3, "QII", 8, 4, 1, tail=b"name\0"),
    ),
    "store": (
        wire.store(8, 4096, b"data"),
        notification(4, "QQII", 8, 4096, 4, 0, tail=b"data"),
    ),
    "retrieve": (
        wire.retrieve(77, 8, 4096, 512),
        notification(5, "QQQII", 77, 8, 4096, 512, 0),
    ),
    "delete": (
        wire.delete(8, 9, b"name"),
        notification(6, "QQII", 8, 9, 4, 0, tail=b"name\0"),
    ),
    "resend": (wire.resend(), notification(7, "")),
    "inc-epoch": (wire.inc_epoch(), notification(8, "")),
    "prune": (wire.prune([5, 6, 7]), notification(9, "IIQ3Q", 3, 0, 0, 5, 6, 7)),
    "prune-none": (wire.prune([]), notification(9, "IIQ", 0, 0, 0)),
}


@pytest.mark.parametrize("case", REPLIES)
def test_replies(case: str) -> None:
    actual, expected = REPLIES[case]
    assert actual == expected


@pytest.mark.parametrize("case", NOTIFICATIONS)
def test_notifications(case: str) -> None:
    actual, expected = NOTIFICATIONS[case]
    assert actual == expected


def test_errors_are_negative_on_the_wire() -> None:
    assert wire.error(U, 2) == struct.pack("=IiQ", 16, -2, U)
    assert wire.error(U, 511) == struct.pack("=IiQ", 16, -511, U)


@pytest.mark.parametrize("errno", [0, -2, 512, 1 << 40])
def test_error_numbers_that_the_kernel_refuses(errno: int) -> None:
    with pytest.raises(ValueError, match="errno must be 1 to 511"):
        wire.error(U, errno)


def test_values_out_of_range_are_the_callers_to_check() -> None:
    with pytest.raises(struct.error):
        wire.attributes(-1, *ATTR[1:])
    with pytest.raises(struct.error):
        wire.attr(U, -1, 0, PACKED)


def test_attributes_are_those_of_the_kernel() -> None:
    assert wire.attributes(*ATTR) == PACKED
    assert wire.attribute_values(PACKED) == ATTR


# --- directories -----------------------------------------------------------------------------

Entry = tuple[int, int, int, bytes]
entry_names = st.binary(min_size=1, max_size=255)
entries = st.lists(
    st.tuples(
        st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 15), entry_names
    ),
    max_size=30,
)


def read_entries(content: bytes, skip: int = 0) -> list[Entry]:
    """Read a listing as the kernel does; *skip* bytes before every entry."""
    found = []
    while content:
        ino, off, namelen, kind = struct.unpack_from("=QQII", content, skip)
        end = skip + 24 + namelen
        found.append((ino, off, kind, content[skip + 24 : end]))
        record = (end + 7) & ~7
        assert len(content) >= record
        assert not any(content[end:record]), "padding must be zero"
        content = content[record:]
    return found


def body_of(message: bytes | memoryview) -> bytes:
    length, error, unique = struct.unpack_from("=IiQ", message)
    assert (length, error, unique) == (len(message), 0, U)
    return bytes(message[16:])


@given(entries, st.integers(0, 2000))
def test_listing_round_trip(items: list[Entry], size: int) -> None:
    buffer = wire.DirectoryBuffer(size)
    fitting = 0
    for ino, off, kind, name in items:
        before = len(buffer)
        if not buffer.add(ino, off, kind, name):
            assert before + 24 + len(name) + (-len(name) % 8) > size
            assert len(buffer) == before
            break
        fitting += 1
    content = body_of(buffer.message(U))
    assert len(content) == len(buffer) <= size
    assert read_entries(content) == items[:fitting]


@given(entries)
def test_listing_with_attributes_round_trip(items: list[Entry]) -> None:
    buffer = wire.DirectoryBuffer(1 << 16)
    for ino, off, kind, name in items:
        assert buffer.add_plus(9, 3, 60, 62, 61, 63, PACKED, ino, off, kind, name)
    assert read_entries(body_of(buffer.message(U)), 128) == items


def test_entry_part_of_a_listing_is_that_of_lookup() -> None:
    buffer = wire.DirectoryBuffer(4096)
    arguments = (9, 3, 60, 62, 61, 63, PACKED)
    assert buffer.add_plus(*arguments, ATTR[0], 1, 8, b"name")
    content = body_of(buffer.message(U))
    assert content[:128] == wire.entry(U, *arguments)[16:]
    assert content[128:] == struct.pack("=QQII4s4x", ATTR[0], 1, 4, 8, b"name")


def test_an_entry_fits_to_the_byte() -> None:
    assert wire.DirectoryBuffer(32).add(1, 1, 8, b"12345678")
    assert not wire.DirectoryBuffer(31).add(1, 1, 8, b"12345678")
    assert not wire.DirectoryBuffer(32).add(1, 1, 8, b"123456789")
    arguments = (9, 3, 60, 62, 61, 63, PACKED, 1, 1, 8)
    assert wire.DirectoryBuffer(160).add_plus(*arguments, b"12345678")
    assert not wire.DirectoryBuffer(159).add_plus(*arguments, b"12345678")


def test_end_of_a_listing_is_an_empty_reply() -> None:
    assert bytes(wire.DirectoryBuffer(4096).message(U)) == wire.empty(U)


def test_a_buffer_can_be_used_again() -> None:
    buffer = wire.DirectoryBuffer(4096)
    buffer.add(1, 1, 8, b"\xff" * 255)
    buffer.message(U)
    buffer.clear()
    assert len(buffer) == 0
    buffer.add(2, 2, 4, b"a")
    assert read_entries(body_of(buffer.message(U))) == [(2, 2, 4, b"a")]


@pytest.mark.parametrize("name", [b"", b"n" * 1025])
def test_names_that_no_kernel_lists(name: bytes) -> None:
    buffer = wire.DirectoryBuffer(1 << 16)
    with pytest.raises(ValueError, match="directory entry with a name of"):
        buffer.add(1, 1, 8, name)
    with pytest.raises(ValueError, match="directory entry with a name of"):
        buffer.add_plus(9, 3, 60, 62, 61, 63, PACKED, 1, 1, 8, name)
    assert len(buffer) == 0


def test_the_longest_name() -> None:
    buffer = wire.DirectoryBuffer(4096)
    assert buffer.add(1, 1, 8, b"n" * wire.NAME_MAX)
    assert read_entries(body_of(buffer.message(U))) == [(1, 1, 8, b"n" * 1024)]
