"""Decoding of requests: every opcode, everything that can be wrong, and arbitrary bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbfsconnect.fuse import abi, wire
from cbfsconnect.fuse.abi import Opcode

UNIQUE, NODEID, UID, GID, PID = 0x1122334455667788, 77, 1000, 1001, 4242


def message(opcode: int, content: bytes, extensions: bytes = b"") -> bytes:
    header = struct.pack(
        "=IIQQIIIHH",
        40 + len(content) + len(extensions),
        opcode,
        UNIQUE,
        NODEID,
        UID,
        GID,
        PID,
        len(extensions) // 8,
        0,
    )
    return header + content + extensions


def decode(raw: bytes) -> wire.Request:
    """Decode as a reader does: from a larger buffer, with old bytes behind the message."""
    buffer = memoryview(bytearray(raw + b"\xee" * 64))
    return wire.decode(buffer, len(raw))


@dataclass(frozen=True)
class Sample:
    opcode: Opcode
    format: str = "="
    values: tuple[int, ...] = ()
    tail: bytes = b""
    # what the tail decodes to
    expected: dict[str, Any] = field(default_factory=dict)
    body: Any = None

    @property
    def raw(self) -> bytes:
        return message(self.opcode, struct.pack(self.format, *self.values) + self.tail)


def name(value: bytes = b"caf\xc3\xa9 \xff") -> dict[str, Any]:
    return {"tail": value + b"\0", "expected": {"name": value}}


def names(first: bytes, second: bytes) -> dict[str, Any]:
    expected = {"name": first, "name2": second}
    return {"tail": first + b"\0" + second + b"\0", "expected": expected}


N = tuple(range(1, 20))
SAMPLES = [
    Sample(Opcode.LOOKUP, **name()),
    Sample(Opcode.FORGET, "=Q", N[:1]),
    Sample(Opcode.GETATTR, "=IIQ", N[:3]),
    Sample(Opcode.SETATTR, "=II6Q8I", N[:16]),
    Sample(Opcode.READLINK),
    Sample(Opcode.SYMLINK, **names(b"link", b"../to/somewhere")),
    Sample(Opcode.MKNOD, "=IIII", N[:4], **name()),
    Sample(Opcode.MKDIR, "=II", N[:2], **name()),
    Sample(Opcode.UNLINK, **name()),
    Sample(Opcode.RMDIR, **name()),
    Sample(Opcode.RENAME, "=Q", N[:1], **names(b"old", b"new")),
    Sample(Opcode.LINK, "=Q", N[:1], **name()),
    Sample(Opcode.OPEN, "=II", N[:2]),
    Sample(Opcode.READ, "=QQIIQII", N[:7]),
    Sample(Opcode.WRITE, "=QQIIQII", (1, 2, 5, 4, 5, 6, 7), b"hel\0o", {"data": b"hel\0o"}),
    Sample(Opcode.STATFS),
    Sample(Opcode.RELEASE, "=QIIQ", N[:4]),
    Sample(Opcode.FSYNC, "=QII", N[:3]),
    Sample(
        Opcode.SETXATTR, "=II", (3, 2), b"user.a/b\0v\0w", {"name": b"user.a/b", "data": b"v\0w"}
    ),
    Sample(Opcode.GETXATTR, "=II", N[:2], **name(b"user.a/b")),
    Sample(Opcode.LISTXATTR, "=II", N[:2]),
    Sample(Opcode.REMOVEXATTR, **name(b"user.a/b")),
    Sample(Opcode.FLUSH, "=QIIQ", N[:4]),
    Sample(Opcode.INIT, "=IIIII44x", N[:5]),
    Sample(Opcode.OPENDIR, "=II", N[:2]),
    Sample(Opcode.READDIR, "=QQIIQII", N[:7]),
    Sample(Opcode.RELEASEDIR, "=QIIQ", N[:4]),
    Sample(Opcode.FSYNCDIR, "=QII", N[:3]),
    Sample(Opcode.GETLK, "=QQQQIIII", N[:8]),
    Sample(Opcode.SETLK, "=QQQQIIII", N[:8]),
    Sample(Opcode.SETLKW, "=QQQQIIII", N[:8]),
    Sample(Opcode.ACCESS, "=II", N[:2]),
    Sample(Opcode.CREATE, "=IIII", N[:4], **name()),
    Sample(Opcode.INTERRUPT, "=Q", N[:1]),
    Sample(Opcode.BMAP, "=QII", N[:3]),
    Sample(Opcode.DESTROY),
    Sample(Opcode.IOCTL, "=QIIQII", (1, 2, 3, 4, 2, 6), b"\0x", {"data": b"\0x"}),
    Sample(Opcode.POLL, "=QQII", N[:4]),
    Sample(Opcode.NOTIFY_REPLY, "=QQIIQQ", (1, 2, 3, 4, 5, 6), b"abc", {"data": b"abc"}),
    Sample(
        Opcode.BATCH_FORGET,
        "=II",
        (2, 0),
        struct.pack("=QQQQ", 5, 1, 6, 2),
        body=(abi.ForgetOne(5, 1), abi.ForgetOne(6, 2)),
    ),
    Sample(Opcode.FALLOCATE, "=QQQII", N[:5]),
    Sample(Opcode.READDIRPLUS, "=QQIIQII", N[:7]),
    Sample(Opcode.RENAME2, "=QII", N[:3], **names(b"old", b"new")),
    Sample(Opcode.LSEEK, "=QQII", N[:4]),
    Sample(Opcode.COPY_FILE_RANGE, "=7Q", N[:7]),
    Sample(Opcode.SETUPMAPPING, "=5Q", N[:5]),
    Sample(
        Opcode.REMOVEMAPPING,
        "=I",
        (1,),
        struct.pack("=QQ", 4096, 8192),
        body=(abi.RemovemappingOne(4096, 8192),),
    ),
    Sample(Opcode.SYNCFS, "=Q", N[:1]),
    Sample(Opcode.TMPFILE, "=IIII", N[:4], **name(b"/")),
    Sample(Opcode.STATX, "=IIQII", N[:5]),
    Sample(Opcode.COPY_FILE_RANGE_64, "=7Q", N[:7]),
]
BY_OPCODE = {sample.opcode: sample for sample in SAMPLES}
IDS = [sample.opcode.name for sample in SAMPLES]


def test_the_samples_cover_every_request_of_a_filesystem() -> None:
    not_for_us = {
        Opcode.CUSE_INIT,
        Opcode.CUSE_INIT_BSWAP_RESERVED,
        Opcode.INIT_BSWAP_RESERVED,
    }
    assert set(BY_OPCODE) == set(Opcode) - not_for_us


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_every_request(sample: Sample) -> None:
    request = decode(sample.raw)
    assert request.opcode == sample.opcode
    assert (request.unique, request.nodeid) == (UNIQUE, NODEID)
    assert (request.uid, request.gid, request.pid) == (UID, GID, PID)
    if sample.body is not None:
        assert request.body == sample.body
    elif sample.values:
        assert tuple(request.body) == sample.values
    else:
        assert request.body is None
    assert request.name == sample.expected.get("name", b"")
    assert request.name2 == sample.expected.get("name2", b"")
    assert request.data == sample.expected.get("data")
    assert request.extensions is None


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_bodies_have_names(sample: Sample) -> None:
    body = decode(sample.raw).body
    if body is not None and sample.body is None:
        assert type(body).__module__ == abi.__name__
        assert body == body._make(sample.values)


def test_fields_carry_the_names_of_the_header() -> None:
    write = decode(BY_OPCODE[Opcode.WRITE].raw).body
    assert (write.fh, write.offset, write.size, write.write_flags) == (1, 2, 5, 4)
    assert (write.lock_owner, write.flags) == (5, 6)
    lock = decode(BY_OPCODE[Opcode.SETLK].raw).body
    assert (lock.fh, lock.owner, lock.start, lock.end) == (1, 2, 3, 4)
    assert (lock.type, lock.pid, lock.lk_flags) == (5, 6, 7)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_any_buffer_will_do(sample: Sample, kind: type) -> None:
    raw = sample.raw
    request = wire.decode(kind(raw), len(raw))
    assert repr(request) == repr(decode(raw))


def test_payload_is_not_copied() -> None:
    raw = BY_OPCODE[Opcode.WRITE].raw
    buffer = bytearray(raw)
    request = wire.decode(memoryview(buffer), len(raw))
    buffer[80:85] = b"HELLO"
    assert request.data is not None
    assert request.data.obj is buffer
    assert request.data.tobytes() == b"HELLO"


def test_empty_write_and_empty_attribute() -> None:
    request = decode(message(Opcode.WRITE, bytes(40)))
    assert request.data is not None
    assert len(request.data) == 0
    request = decode(message(Opcode.SETXATTR, bytes(8) + b"user.x\0"))
    assert request.name == b"user.x"
    assert request.data is not None
    assert len(request.data) == 0


@pytest.mark.parametrize("length", [1, 254, 255, 256, 4000])
def test_names_of_any_length(length: int) -> None:
    assert decode(message(Opcode.LOOKUP, b"n" * length + b"\0")).name == b"n" * length
    created = decode(message(Opcode.CREATE, bytes(16) + b"n" * length + b"\0"))
    assert created.name == b"n" * length


def test_lookup_of_dots_for_exported_filesystems() -> None:
    assert decode(message(Opcode.LOOKUP, b"..\0")).name == b".."
    assert decode(message(Opcode.LOOKUP, b".\0")).name == b"."


def test_header_alone() -> None:
    raw = message(Opcode.LOOKUP, b"whatever")
    header = wire.decode_header(raw, len(raw))
    assert (header.opcode, header.unique, header.len) == (Opcode.LOOKUP, UNIQUE, len(raw))
    with pytest.raises(wire.MalformedMessage):
        wire.decode_header(raw, 39)


def test_repr_names_what_a_log_needs() -> None:
    text = repr(decode(BY_OPCODE[Opcode.SETXATTR].raw))
    assert "SETXATTR" in text
    assert "user.a/b" in text
    assert "data=3 bytes" in text


# --- INIT ------------------------------------------------------------------------------------


def test_init_before_the_extended_form() -> None:
    request = decode(message(Opcode.INIT, struct.pack("=IIII", 7, 31, 131072, 0xFFF)))
    assert request.body == abi.InitIn(7, 31, 131072, 0xFFF, 0)


def test_init_of_a_newer_major_version_may_be_longer() -> None:
    body = decode(message(Opcode.INIT, struct.pack("=II", 8, 0) + bytes(120))).body
    assert (body.major, body.minor) == (8, 0)


@pytest.mark.parametrize("size", [0, 4, 7, 12, 17, 63])
def test_init_of_any_other_size(size: int) -> None:
    with pytest.raises(wire.MalformedMessage, match="instead of 8 or 16 or 64"):
        decode(message(Opcode.INIT, bytes(size)))


# --- extensions ------------------------------------------------------------------------------


def extension(kind: int, content: bytes) -> bytes:
    content += bytes(-len(content) % 8)
    return struct.pack("=II", 8 + len(content), kind) + content


def security_context(label_name: bytes, label: bytes) -> bytes:
    context = struct.pack("=II", len(label), 0) + label_name + b"\0" + label
    return context + bytes(-len(context) % 8)


GROUPS = extension(32, struct.pack("=III", 2, 100, 200))
SECURITY = extension(1, security_context(b"selinux", b"u:r:t"))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (GROUPS, wire.Extensions(groups=(100, 200))),
        (SECURITY, wire.Extensions(security=((b"selinux", b"u:r:t"),))),
        (
            SECURITY + GROUPS,
            wire.Extensions((100, 200), ((b"selinux", b"u:r:t"),)),
        ),
        (
            extension(2, security_context(b"a", b"\0x") + security_context(b"bb", b"")),
            wire.Extensions(security=((b"a", b"\0x"), (b"bb", b""))),
        ),
        (extension(0, b""), wire.Extensions()),
        (extension(33, b"of the future") + GROUPS, wire.Extensions(groups=(100, 200))),
    ],
    ids=["groups", "security", "both", "two-contexts", "no-context", "unknown"],
)
def test_extensions(raw: bytes, expected: wire.Extensions) -> None:
    request = decode(message(Opcode.MKDIR, bytes(8) + b"dir\0", raw))
    assert request.name == b"dir"
    assert request.extensions == expected


@pytest.mark.parametrize(
    "raw",
    [
        bytes(8),
        struct.pack("=II", 16, 32),
        struct.pack("=II", 4, 32),
        struct.pack("=IIII", 12, 32, 0, 0),
        struct.pack("=II", 8, 32),
        struct.pack("=IIII", 16, 32, 2, 7),
        extension(1, b""),
        extension(1, struct.pack("=II", 0, 0) + b"no-end-x"),
        extension(1, struct.pack("=II", 100, 0) + b"name\0val"),
        extension(2, security_context(b"only-one", b"x")),
    ],
)
def test_malformed_extensions(raw: bytes) -> None:
    with pytest.raises(wire.MalformedMessage):
        decode(message(Opcode.MKDIR, bytes(8) + b"dir\0", raw))


def test_extensions_longer_than_the_message() -> None:
    raw = bytearray(message(Opcode.GETATTR, bytes(16)))
    struct.pack_into("=H", raw, 36, 3)
    with pytest.raises(wire.MalformedMessage):
        decode(bytes(raw))


# --- what is refused -------------------------------------------------------------------------

COMPONENTS = (Opcode.UNLINK, Opcode.RMDIR, Opcode.MKDIR, Opcode.MKNOD, Opcode.CREATE, Opcode.LINK)


def with_tail(opcode: Opcode, tail: bytes) -> bytes:
    sample = BY_OPCODE[opcode]
    return message(opcode, struct.pack(sample.format, *sample.values) + tail)


@pytest.mark.parametrize("tail", [b"", b"\0", b"a", b"a/b\0", b"/\0", b".\0", b"..\0", b"a\0b\0"])
@pytest.mark.parametrize("opcode", COMPONENTS)
def test_names_that_are_refused(opcode: Opcode, tail: bytes) -> None:
    with pytest.raises(wire.MalformedMessage) as caught:
        decode(with_tail(opcode, tail))
    assert (caught.value.unique, caught.value.opcode) == (UNIQUE, opcode)
    assert caught.value.reason in str(caught.value)
    assert opcode.name in str(caught.value)


@pytest.mark.parametrize(
    "tail",
    [b"", b"a\0", b"a\0b", b"a\0b\0c\0", b"a\0\0", b"\0b\0", b"a/x\0b\0", b"a\0b/x\0", b"a\0..\0"],
)
@pytest.mark.parametrize("opcode", [Opcode.RENAME, Opcode.RENAME2])
def test_pairs_of_names_that_are_refused(opcode: Opcode, tail: bytes) -> None:
    with pytest.raises(wire.MalformedMessage):
        decode(with_tail(opcode, tail))


@pytest.mark.parametrize(
    ("opcode", "content"),
    [
        (Opcode.WRITE, struct.pack("=QQIIQII", 1, 2, 6, 4, 5, 6, 7) + b"hello"),
        (Opcode.WRITE, struct.pack("=QQIIQII", 1, 2, 4, 4, 5, 6, 7) + b"hello"),
        (Opcode.IOCTL, struct.pack("=QIIQII", 1, 2, 3, 4, 2, 6) + b"x"),
        (Opcode.SETXATTR, struct.pack("=II", 9, 0) + b"user.x\0v"),
        (Opcode.SETXATTR, struct.pack("=II", 1, 0) + b"user.x\0vw"),
        (Opcode.SETXATTR, struct.pack("=II", 1, 0) + b"a\0b\0v"),
        (Opcode.SETXATTR, struct.pack("=II", 1, 0) + b"\0v"),
        (Opcode.SETXATTR, struct.pack("=II", 0xFFFFFFFF, 0) + b"user.x\0"),
        (Opcode.BATCH_FORGET, struct.pack("=II", 2, 0) + bytes(16)),
        (Opcode.BATCH_FORGET, struct.pack("=II", 0xFFFFFFFF, 0)),
        (Opcode.BATCH_FORGET, struct.pack("=II", 0, 0) + bytes(16)),
        (Opcode.STATFS, b"\0"),
    ],
)
def test_counts_that_do_not_match(opcode: Opcode, content: bytes) -> None:
    with pytest.raises(wire.MalformedMessage):
        decode(message(opcode, content))


@pytest.mark.parametrize("opcode", [0, 7, 19, 54, 4096, 1048576, 436207616, 0xFFFFFFFF])
def test_unknown_opcodes_can_be_answered(opcode: int) -> None:
    with pytest.raises(wire.UnknownOpcode) as caught:
        decode(message(opcode, b""))
    assert (caught.value.unique, caught.value.opcode) == (UNIQUE, opcode)


def test_length_in_the_header_must_be_true() -> None:
    raw = message(Opcode.GETATTR, bytes(16))
    with pytest.raises(wire.MalformedMessage, match="header says 56 bytes, 57 were sent"):
        wire.decode(raw + b"\0", 57)


@pytest.mark.parametrize("length", [-1, 0, 39, 57, 1 << 40])
def test_length_that_is_no_message(length: int) -> None:
    with pytest.raises(wire.MalformedMessage) as caught:
        wire.decode(message(Opcode.GETATTR, bytes(16)), length)
    assert caught.value.unique == 0


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_truncation_is_always_noticed(sample: Sample) -> None:
    whole = sample.raw
    for length in range(len(whole)):
        cut = bytearray(whole[:length])
        if length >= 40:
            struct.pack_into("=I", cut, 0, length)
        if sample.opcode is Opcode.INIT and length - 40 in (8, 16):
            continue  # older forms of INIT
        with pytest.raises(wire.ProtocolError):
            decode(bytes(cut))


@pytest.mark.parametrize("sample", SAMPLES, ids=IDS)
def test_surplus_is_always_noticed(sample: Sample) -> None:
    raw = bytearray(sample.raw + bytes(8))
    struct.pack_into("=I", raw, 0, len(raw))
    if sample.opcode is Opcode.INIT:
        assert decode(bytes(raw)).body == decode(sample.raw).body
    else:
        with pytest.raises(wire.MalformedMessage):
            decode(bytes(raw))


# --- anything at all -------------------------------------------------------------------------


def decodes_or_refuses(raw: bytes, length: int) -> None:
    try:
        request = wire.decode(memoryview(raw), length)
    except wire.ProtocolError:
        return
    assert request.opcode in BY_OPCODE
    assert b"\0" not in request.name + request.name2


@given(st.binary(max_size=200), st.integers(-10, 300))
def test_arbitrary_bytes(raw: bytes, length: int) -> None:
    decodes_or_refuses(raw, length)


@given(st.integers(0, 60), st.binary(max_size=120), st.integers(0, 20), st.booleans())
def test_arbitrary_bytes_under_a_true_header(
    opcode: int, content: bytes, extlen: int, true_length: bool
) -> None:
    raw = bytearray(message(opcode, content))
    struct.pack_into("=H", raw, 36, extlen)
    if not true_length:
        raw[0] ^= 1
    decodes_or_refuses(bytes(raw), len(raw))


@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 40),
)
def test_mutations_of_valid_messages(
    sample: Sample, changes: list[tuple[int, int]], cut: int
) -> None:
    raw = bytearray(sample.raw)
    raw = raw[: max(40, len(raw) - cut)]
    struct.pack_into("=I", raw, 0, len(raw))
    for position, value in changes:
        raw[4 + position % (len(raw) - 4)] = value
    decodes_or_refuses(bytes(raw), len(raw))


@given(st.binary(max_size=64).map(lambda b: b + bytes(-len(b) % 8)))
def test_arbitrary_extensions(raw: bytes) -> None:
    whole = message(Opcode.MKDIR, bytes(8) + b"dir\0", raw)
    decodes_or_refuses(whole, len(whole))
