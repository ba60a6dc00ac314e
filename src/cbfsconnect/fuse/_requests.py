"""Bytes to typed requests: one half of :mod:`.wire`.

:func:`decode` reads one request of protocol 7.31 to 7.45; the table :data:`FORMS` says what each
opcode carries. Whatever bytes it is given, it returns a :class:`Request` or raises a
:class:`ProtocolError`.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

from . import abi
from .abi import Opcode, layout

Buffer: TypeAlias = bytes | bytearray | memoryview

IN_HEADER_SIZE: Final = layout(abi.InHeader).size
"""Bytes before the body of every request (40)."""

NO_REPLY: Final = frozenset(
    map(int, (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY))
)
"""Opcodes that the kernel wants no answer to. (INTERRUPT may be answered with EAGAIN.)"""


class ProtocolError(Exception):
    """The kernel sent what the protocol does not allow."""


class MalformedMessage(ProtocolError):
    """A message that cannot be decoded.

    ``unique`` and ``opcode`` are 0 when not even the header could be read; otherwise the
    request can still be answered with an error.
    """

    def __init__(self, unique: int, opcode: int, reason: str) -> None:
        """Describe the message by its header and by what is wrong with it."""
        super().__init__(f"{opcode_name(opcode)} request {unique}: {reason}")
        self.unique = unique
        self.opcode = opcode
        self.reason = reason


class UnknownOpcode(MalformedMessage):
    """A request of a kind that this module does not know; ENOSYS is the answer."""


def opcode_name(opcode: int) -> str:
    """Return the opcode's name for messages to people; total."""
    try:
        return Opcode(opcode).name
    except ValueError:
        return f"opcode {opcode}"


class Extensions(NamedTuple):
    """What follows a creating request when CREATE_SUPP_GROUP or SECURITY_CTX is negotiated."""

    groups: tuple[int, ...] = ()
    """Supplementary groups of the caller that matter (the parent's group, at present)."""
    security: tuple[tuple[bytes, bytes], ...] = ()
    """Pairs of attribute name and label for the new item."""


class Request:
    """One decoded request: the header's fields, and what the opcode carries besides.

    ``pid`` is the caller's thread id, 0 when no process is behind the request. ``fields`` are the
    values of the fixed part in the order of the opcode's ``…In`` class, or tuples of items; None
    when there is none. ``data`` is a view into the buffer that was decoded: copy it before that
    buffer is used again.
    """

    __slots__ = (
        "data",
        "extensions",
        "fields",
        "gid",
        "name",
        "name2",
        "nodeid",
        "opcode",
        "pid",
        "uid",
        "unique",
    )
    opcode: int
    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int
    fields: Any
    name: bytes
    name2: bytes
    data: memoryview | None
    extensions: Extensions | None

    @property
    def body(self) -> Any:
        """The fixed part as the ``…In`` tuple of the opcode, or a tuple of its items.

        It is made when it is asked for: what is done a million times takes ``fields`` apart.
        """
        return None if self.fields is None else _BODIES[self.opcode](self.fields)

    def __repr__(self) -> str:
        """Show what a log needs; the payload only by its size."""
        parts = [opcode_name(self.opcode), f"unique={self.unique}", f"nodeid={self.nodeid}"]
        parts += [repr(name) for name in (self.name, self.name2) if name]
        if self.body is not None:
            parts.append(repr(self.body))
        if self.data is not None:
            parts.append(f"data={len(self.data)} bytes")
        return f"<Request {' '.join(parts)}>"


# --- requests: the table ---------------------------------------------------------------------


class NameKind(enum.Enum):
    """What a NUL-terminated string of a request may be; it is never empty."""

    COMPONENT = enum.auto()
    """A name of a directory entry: no slash, neither ``.`` nor ``..``."""
    LOOKUP = enum.auto()
    """The same, but an exported filesystem is also asked for ``.`` and ``..``."""
    TEXT = enum.auto()
    """Anything: a symbolic link's target, the name of an attribute."""


class Form(NamedTuple):
    """What follows the header of a request."""

    body: type[tuple[Any, ...]] | None = None
    """The fixed part."""
    names: tuple[NameKind, ...] = ()
    """Strings after the fixed part."""
    data: str = ""
    """Field of the fixed part that counts the bytes which end the message; empty: no such bytes."""
    items: type[tuple[Any, ...]] | None = None
    """Struct that repeats ``body.count`` times; the request's body is then a tuple of these."""


_NAME: Final = (NameKind.COMPONENT,)
_TWO_NAMES: Final = (NameKind.COMPONENT, NameKind.COMPONENT)
_TEXT: Final = (NameKind.TEXT,)

FORMS: Final[dict[Opcode, Form]] = {
    Opcode.LOOKUP: Form(names=(NameKind.LOOKUP,)),
    Opcode.FORGET: Form(abi.ForgetIn),
    Opcode.GETATTR: Form(abi.GetattrIn),
    Opcode.SETATTR: Form(abi.SetattrIn),
    Opcode.READLINK: Form(),
    Opcode.SYMLINK: Form(names=(NameKind.COMPONENT, NameKind.TEXT)),
    Opcode.MKNOD: Form(abi.MknodIn, names=_NAME),
    Opcode.MKDIR: Form(abi.MkdirIn, names=_NAME),
    Opcode.UNLINK: Form(names=_NAME),
    Opcode.RMDIR: Form(names=_NAME),
    Opcode.RENAME: Form(abi.RenameIn, names=_TWO_NAMES),
    Opcode.LINK: Form(abi.LinkIn, names=_NAME),
    Opcode.OPEN: Form(abi.OpenIn),
    Opcode.READ: Form(abi.ReadIn),
    Opcode.WRITE: Form(abi.WriteIn, data="size"),
    Opcode.STATFS: Form(),
    Opcode.RELEASE: Form(abi.ReleaseIn),
    Opcode.FSYNC: Form(abi.FsyncIn),
    # The 16-byte form needs SETXATTR_EXT, which this package never asks for.
    Opcode.SETXATTR: Form(abi.SetxattrInCompat, names=_TEXT, data="size"),
    Opcode.GETXATTR: Form(abi.GetxattrIn, names=_TEXT),
    Opcode.LISTXATTR: Form(abi.GetxattrIn),
    Opcode.REMOVEXATTR: Form(names=_TEXT),
    Opcode.FLUSH: Form(abi.FlushIn),
    Opcode.INIT: Form(abi.InitIn),
    Opcode.OPENDIR: Form(abi.OpenIn),
    Opcode.READDIR: Form(abi.ReadIn),
    Opcode.RELEASEDIR: Form(abi.ReleaseIn),
    Opcode.FSYNCDIR: Form(abi.FsyncIn),
    Opcode.GETLK: Form(abi.LkIn),
    Opcode.SETLK: Form(abi.LkIn),
    Opcode.SETLKW: Form(abi.LkIn),
    Opcode.ACCESS: Form(abi.AccessIn),
    Opcode.CREATE: Form(abi.CreateIn, names=_NAME),
    Opcode.INTERRUPT: Form(abi.InterruptIn),
    Opcode.BMAP: Form(abi.BmapIn),
    Opcode.DESTROY: Form(),
    Opcode.IOCTL: Form(abi.IoctlIn, data="in_size"),
    Opcode.POLL: Form(abi.PollIn),
    Opcode.NOTIFY_REPLY: Form(abi.NotifyRetrieveIn, data="size"),
    Opcode.BATCH_FORGET: Form(abi.BatchForgetIn, items=abi.ForgetOne),
    Opcode.FALLOCATE: Form(abi.FallocateIn),
    Opcode.READDIRPLUS: Form(abi.ReadIn),
    Opcode.RENAME2: Form(abi.Rename2In, names=_TWO_NAMES),
    Opcode.LSEEK: Form(abi.LseekIn),
    Opcode.COPY_FILE_RANGE: Form(abi.CopyFileRangeIn),
    Opcode.SETUPMAPPING: Form(abi.SetupmappingIn),
    Opcode.REMOVEMAPPING: Form(abi.RemovemappingIn, items=abi.RemovemappingOne),
    Opcode.SYNCFS: Form(abi.SyncfsIn),
    # The kernel names a file that has no name "/" or "#" and a number.
    Opcode.TMPFILE: Form(abi.CreateIn, names=_TEXT),
    Opcode.STATX: Form(abi.StatxIn),
    Opcode.COPY_FILE_RANGE_64: Form(abi.CopyFileRangeIn),
}
"""Every request that Linux sends a filesystem, as sent by protocols 7.31 to 7.45."""


# --- requests: decoding ----------------------------------------------------------------------

# Decodes what follows the fixed part, up to the given end of the message.
_Decoder: TypeAlias = Callable[[Request, Buffer, int], None]

_START: Final = IN_HEADER_SIZE
_unpack_header: Final = layout(abi.InHeader).unpack_from


def decode(buffer: Buffer, length: int) -> Request:
    """Decode the request in the first *length* bytes of *buffer* (a view must be flat bytes).

    The payload of WRITE, SETXATTR, IOCTL and NOTIFY_REPLY is not copied. Raises
    :class:`UnknownOpcode` or :class:`MalformedMessage`, and nothing else.
    """
    if length < _START or length > len(buffer):
        raise MalformedMessage(0, 0, f"{length} bytes are not a whole request")
    size, opcode, unique, nodeid, uid, gid, pid, extlen, _ = _unpack_header(buffer)
    plan = _PLANS.get(opcode)
    if plan is None:
        raise UnknownOpcode(unique, opcode, "not an opcode of this protocol version")
    start, unpack, decode_rest = plan
    request = Request()  # with an __init__ it would take twice as long
    request.opcode = opcode
    request.unique = unique
    request.nodeid = nodeid
    request.uid = uid
    request.gid = gid
    request.pid = pid
    request.fields = request.data = request.extensions = None
    request.name = request.name2 = b""
    if size != length:
        raise _malformed(request, f"header says {size} bytes, {length} were sent")
    if extlen:
        length = _cut_extensions(request, buffer, length, extlen * 8)
    if length != start and (decode_rest is None or length < start):
        raise _wrong_size(request, start, length)
    if unpack is not None:
        request.fields = unpack(buffer, _START)
    if decode_rest is not None:
        decode_rest(request, buffer, length)
    return request


def decode_header(buffer: Buffer, length: int) -> abi.InHeader:
    """Decode only the header of a request; :class:`MalformedMessage` when there is no whole one."""
    if not _START <= length <= len(buffer):
        raise MalformedMessage(0, 0, f"{length} bytes are not a whole request")
    return abi.InHeader._make(_unpack_header(buffer))


def _malformed(request: Request, reason: str) -> MalformedMessage:
    return MalformedMessage(request.unique, request.opcode, reason)


def _wrong_size(request: Request, expected: int, end: int) -> MalformedMessage:
    reason = f"body of {end - _START} bytes, the fixed part has {expected - _START}"
    return _malformed(request, reason)


def _start_of_rest(form: Form) -> int:
    """Return where the variable part begins."""
    return _START if form.body is None else _START + layout(form.body).size


_FORBIDDEN: Final[dict[NameKind, tuple[bytes, ...]]] = {
    NameKind.COMPONENT: (b".", b".."),
    NameKind.LOOKUP: (),
    NameKind.TEXT: (),
}

# One string and the byte after it, by the string's length: twice as fast as slicing a view.
_STRINGS: Final = [struct.Struct(f"={length}sB").unpack_from for length in range(256)]


def _one_name(form: Form) -> _Decoder:
    start = _start_of_rest(form)
    (kind,) = form.names
    is_text, dots = kind is NameKind.TEXT, _FORBIDDEN[kind]

    def decode_one_name(request: Request, buffer: Buffer, end: int) -> None:
        length = end - start - 1
        if 0 < length < 256:
            name, terminator = _STRINGS[length](buffer, start)
        else:
            name, terminator = bytes(buffer[start : end - 1]), buffer[end - 1]
        if terminator or 0 in name:
            raise _malformed(request, "name is not one NUL-terminated string")
        if not name or (not is_text and 47 in name) or name in dots:
            raise _bad_name(request, name)
        request.name = name

    return decode_one_name


def _two_names(form: Form) -> _Decoder:
    start = _start_of_rest(form)
    kind, kind2 = form.names

    def decode_two_names(request: Request, buffer: Buffer, end: int) -> None:
        strings = bytes(buffer[start:end]).split(b"\0")
        if len(strings) != 3 or strings[2]:
            raise _malformed(request, "names are not two NUL-terminated strings")
        request.name = _checked(request, strings[0], kind)
        request.name2 = _checked(request, strings[1], kind2)

    return decode_two_names


def _checked(request: Request, name: bytes, kind: NameKind) -> bytes:
    slash = kind is not NameKind.TEXT and b"/" in name
    if not name or slash or name in _FORBIDDEN[kind]:
        raise _bad_name(request, name)
    return name


def _bad_name(request: Request, name: bytes) -> MalformedMessage:
    return _malformed(request, f"{name!r} cannot be a name" if name else "empty name")


def _payload(form: Form) -> _Decoder:
    start = _start_of_rest(form)
    assert form.body is not None
    counter = _index(form.body, form.data)
    text = form.data

    def decode_payload(request: Request, buffer: Buffer, end: int) -> None:
        told = request.fields[counter]
        if told != end - start:
            raise _malformed(request, f"{end - start} bytes of data, {text} says {told}")
        view = buffer if buffer.__class__ is memoryview else memoryview(buffer)
        request.data = view[start:end]

    return decode_payload


def _index(cls: type[tuple[Any, ...]], field: str) -> int:
    return list(cls.__annotations__).index(field)


def _named_payload(form: Form) -> _Decoder:
    start = _start_of_rest(form)
    (kind,) = form.names
    assert form.body is not None
    counter = _index(form.body, form.data)

    def decode_named_payload(request: Request, buffer: Buffer, end: int) -> None:
        size = request.fields[counter]
        name_end = end - size - 1
        if name_end < start or buffer[name_end] != 0:
            raise _malformed(request, f"no NUL-terminated name before {size} bytes of value")
        name = bytes(buffer[start:name_end])
        if b"\0" in name:
            raise _malformed(request, "name ends before the value begins")
        request.name = _checked(request, name, kind)
        request.data = memoryview(buffer)[name_end + 1 : end]

    return decode_named_payload


def _array(form: Form) -> _Decoder:
    start = _start_of_rest(form)
    assert form.body is not None
    assert form.items is not None
    counter, item = _index(form.body, "count"), layout(form.items)

    def decode_array(request: Request, buffer: Buffer, end: int) -> None:
        count = request.fields[counter]
        if count * item.size != end - start:
            raise _malformed(request, f"{end - start} bytes of items, count says {count}")
        request.fields = tuple(item.iter_unpack(memoryview(buffer)[start:end]))

    return decode_array


_INIT: Final = layout(abi.InitIn)
_INIT_SIZES: Final = (8, abi.COMPAT_INIT_IN_SIZE, _INIT.size)


def _decode_init(request: Request, buffer: Buffer, end: int) -> None:
    """INIT: the version in its first words tells how much of the rest there is."""
    size = end - _START
    if size not in _INIT_SIZES and size < _INIT.size:
        expected = " or ".join(map(str, _INIT_SIZES))
        raise _malformed(request, f"body of {size} bytes instead of {expected}")
    request.fields = _INIT.unpack(bytes(buffer[_START:end])[: _INIT.size].ljust(_INIT.size, b"\0"))


# Where the fixed part ends, what decodes it, and what decodes the rest; None: nothing may follow.
# A plain tuple, because that is taken apart faster than a named one.
_Plan: TypeAlias = tuple[int, Callable[[Buffer, int], tuple[Any, ...]] | None, _Decoder | None]


def _plan(opcode: Opcode, form: Form) -> _Plan:
    if opcode is Opcode.INIT:
        return _START, None, _decode_init
    unpack = None if form.body is None else layout(form.body).unpack_from
    rest = None
    if form.items is not None:
        rest = _array(form)
    elif form.data:
        rest = _named_payload(form) if form.names else _payload(form)
    elif form.names:
        rest = _one_name(form) if len(form.names) == 1 else _two_names(form)
    return _start_of_rest(form), unpack, rest


_PLANS: Final = {int(opcode): _plan(opcode, form) for opcode, form in FORMS.items()}


def _body(form: Form) -> Callable[[tuple[Any, ...]], Any]:
    if form.items is not None:
        make_item = form.items._make  # type: ignore[attr-defined]
        return lambda fields: tuple(map(make_item, fields))
    return form.body._make if form.body is not None else tuple  # type: ignore[attr-defined]


_BODIES: Final = {int(opcode): _body(form) for opcode, form in FORMS.items()}


# --- requests: extensions --------------------------------------------------------------------

_EXT_HEADER: Final = layout(abi.ExtHeader)
_SECCTX: Final = layout(abi.Secctx)
_GROUPS: Final = layout(abi.SuppGroups)


def _cut_extensions(request: Request, buffer: Buffer, end: int, size: int) -> int:
    """Fill in the request's extensions and return where the rest of the message ends."""
    start = end - size
    if start < _START:
        raise _malformed(request, f"extensions of {size} bytes in {end}")
    groups: tuple[int, ...] = ()
    security: tuple[tuple[bytes, bytes], ...] = ()
    rest = bytes(buffer[start:end])
    while rest:
        length, kind = _EXT_HEADER.unpack_from(rest)  # sizes are multiples of 8: it is whole
        if not _EXT_HEADER.size <= length <= len(rest) or length % 8:
            raise _malformed(request, f"extension of {length} bytes in {len(rest)}")
        content, rest = rest[_EXT_HEADER.size : length], rest[length:]
        if kind <= abi.MAX_NR_SECCTX:
            security += _security_contexts(request, content, kind)
        elif kind == abi.EXT_GROUPS:
            groups += _groups(request, content)
        # Any other kind is of a newer protocol; being told more than it knows harms nobody.
    request.extensions = Extensions(groups, security)
    return start


def _groups(request: Request, content: bytes) -> tuple[int, ...]:
    if len(content) < _GROUPS.size:
        raise _malformed(request, "supplementary groups without their number")
    (count,) = _GROUPS.unpack_from(content)
    words = memoryview(content).cast("I")
    if count >= len(words):
        raise _malformed(request, f"{count} supplementary groups in {len(content)} bytes")
    return tuple(words[1 : 1 + count])


def _security_contexts(
    request: Request, content: bytes, count: int
) -> tuple[tuple[bytes, bytes], ...]:
    contexts = []
    for _ in range(count):
        if len(content) < _SECCTX.size:
            raise _malformed(request, f"fewer security contexts than {count}")
        size, _padding = _SECCTX.unpack_from(content)
        name_end = content.find(0, _SECCTX.size)
        end = name_end + 1 + size
        if name_end < 0 or end > len(content):
            raise _malformed(request, "security context exceeds its extension")
        contexts.append((content[_SECCTX.size : name_end], content[name_end + 1 : end]))
        content = content[_aligned(end) :]
    return tuple(contexts)


def _aligned(size: int) -> int:
    return (size + 7) & ~7
