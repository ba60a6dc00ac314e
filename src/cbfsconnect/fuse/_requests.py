"""Bytes to typed requests: one half of :mod:`.wire`.

:func:`decode` reads one request of protocol 7.31 to 7.45; the table :data:`FORMS` says what each
opcode carries. Whatever bytes it is given, it returns a :class:`Request` or raises a
:class:`ProtocolError`.
"""

from __future__ import annotations

import enum
import functools
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
    """One decoded request.

    ``pid`` is the caller's thread id, 0 when no process is behind the request. ``data`` is a view
    into the buffer that was decoded: copy it before that buffer is used again.
    """

    __slots__ = (
        "body",
        "data",
        "extensions",
        "gid",
        "name",
        "name2",
        "nodeid",
        "opcode",
        "pid",
        "uid",
        "unique",
    )

    def __init__(
        self,
        opcode: int,
        unique: int,
        nodeid: int,
        uid: int = 0,
        gid: int = 0,
        pid: int = 0,
        body: Any = None,
        name: bytes = b"",
        name2: bytes = b"",
        data: memoryview | None = None,
        extensions: Extensions | None = None,
    ) -> None:
        """Hold the header's fields, the ``…In`` tuple of the opcode, names and payload."""
        self.opcode = opcode
        self.unique = unique
        self.nodeid = nodeid
        self.uid = uid
        self.gid = gid
        self.pid = pid
        self.body = body
        self.name = name
        self.name2 = name2
        self.data = data
        self.extensions = extensions

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

# What a form is made into: fills in the request from the buffer up to the given end.
_Decoder: TypeAlias = Callable[[Request, Buffer, int], None]

_START: Final = IN_HEADER_SIZE
_new: Final = object.__new__
_unpack_header: Final = layout(abi.InHeader).unpack_from


def decode(buffer: Buffer, length: int) -> Request:
    """Decode the request in the first *length* bytes of *buffer* (a view must be flat bytes).

    The payload of WRITE, SETXATTR, IOCTL and NOTIFY_REPLY is not copied. Raises
    :class:`UnknownOpcode` or :class:`MalformedMessage`, and nothing else.
    """
    if not _START <= length <= len(buffer):
        raise MalformedMessage(0, 0, f"{length} bytes are not a whole request")
    size, opcode, unique, nodeid, uid, gid, pid, extlen, _ = _unpack_header(buffer)
    decoder = _DECODERS.get(opcode)
    if decoder is None:
        raise UnknownOpcode(unique, opcode, "not an opcode of this protocol version")
    # Field by field: the call of its __init__ would take longer than all else here.
    request = _new(Request)
    request.opcode = opcode
    request.unique = unique
    request.nodeid = nodeid
    request.uid = uid
    request.gid = gid
    request.pid = pid
    request.body = request.data = request.extensions = None
    request.name = request.name2 = b""
    if size != length:
        raise _malformed(request, f"header says {size} bytes, {length} were sent")
    if extlen:
        length = _cut_extensions(request, buffer, length, extlen * 8)
    decoder(request, buffer, length)
    return request


def decode_header(buffer: Buffer, length: int) -> abi.InHeader:
    """Decode only the header of a request; :class:`MalformedMessage` when there is no whole one."""
    if not _START <= length <= len(buffer):
        raise MalformedMessage(0, 0, f"{length} bytes are not a whole request")
    return abi.InHeader._make(_unpack_header(buffer))


def _malformed(request: Request, reason: str) -> MalformedMessage:
    return MalformedMessage(request.unique, request.opcode, reason)


def _wrong_size(request: Request, expected: str, end: int) -> MalformedMessage:
    return _malformed(request, f"body of {end - _START} bytes instead of {expected}")


def _maker(cls: type[tuple[Any, ...]]) -> Callable[[tuple[Any, ...]], Any]:
    # Not cls._make: this one makes no Python call.
    return functools.partial(tuple.__new__, cls)


def _bodiless(request: Request, buffer: Buffer, end: int) -> None:
    if end != _START:
        raise _wrong_size(request, "0", end)


def _fixed(form: Form) -> _Decoder:
    assert form.body is not None
    make, unpack = _maker(form.body), layout(form.body).unpack_from
    size = layout(form.body).size
    exact = _START + size

    def decode_fixed(request: Request, buffer: Buffer, end: int) -> None:
        if end != exact:
            raise _wrong_size(request, str(size), end)
        request.body = make(unpack(buffer, _START))

    return decode_fixed


def _prefix(form: Form) -> tuple[int, _Decoder]:
    """Return where the variable part begins and a decoder of the fixed part before it."""
    if form.body is None:
        return _START, lambda request, buffer, end: None
    make, unpack = _maker(form.body), layout(form.body).unpack_from
    size = layout(form.body).size
    start = _START + size

    def decode_prefix(request: Request, buffer: Buffer, end: int) -> None:
        if end < start:
            raise _wrong_size(request, f"{size} or more", end)
        request.body = make(unpack(buffer, _START))

    return start, decode_prefix


_FORBIDDEN: Final[dict[NameKind, tuple[bytes, ...]]] = {
    NameKind.COMPONENT: (b".", b".."),
    NameKind.LOOKUP: (),
    NameKind.TEXT: (),
}

# One string and the byte after it, by the string's length: twice as fast as slicing a view.
_STRINGS: Final = [struct.Struct(f"={length}sB").unpack_from for length in range(256)]


def _one_name(form: Form) -> _Decoder:
    start, decode_prefix = _prefix(form)
    (kind,) = form.names
    has_body, is_text, dots = form.body is not None, kind is NameKind.TEXT, _FORBIDDEN[kind]

    def decode_one_name(request: Request, buffer: Buffer, end: int) -> None:
        if has_body:
            decode_prefix(request, buffer, end)
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
    start, decode_prefix = _prefix(form)
    kind, kind2 = form.names

    def decode_two_names(request: Request, buffer: Buffer, end: int) -> None:
        decode_prefix(request, buffer, end)
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
    start, decode_prefix = _prefix(form)
    assert form.body is not None
    counter = _index(form.body, form.data)
    text = form.data

    def decode_payload(request: Request, buffer: Buffer, end: int) -> None:
        decode_prefix(request, buffer, end)
        told = request.body[counter]
        if told != end - start:
            raise _malformed(request, f"{end - start} bytes of data, {text} says {told}")
        view = buffer if buffer.__class__ is memoryview else memoryview(buffer)
        request.data = view[start:end]

    return decode_payload


def _index(cls: type[tuple[Any, ...]], field: str) -> int:
    return list(cls.__annotations__).index(field)


def _named_payload(form: Form) -> _Decoder:
    start, decode_prefix = _prefix(form)
    (kind,) = form.names

    def decode_named_payload(request: Request, buffer: Buffer, end: int) -> None:
        decode_prefix(request, buffer, end)
        size = request.body.size
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
    start, decode_prefix = _prefix(form)
    assert form.items is not None
    make, item = _maker(form.items), layout(form.items)

    def decode_array(request: Request, buffer: Buffer, end: int) -> None:
        decode_prefix(request, buffer, end)
        if request.body.count * item.size != end - start:
            raise _malformed(
                request, f"{end - start} bytes of items, count says {request.body.count}"
            )
        request.body = tuple(map(make, item.iter_unpack(memoryview(buffer)[start:end])))

    return decode_array


def _init(form: Form) -> _Decoder:
    """INIT: the version in its first words tells how much of the rest there is."""
    whole = layout(abi.InitIn)
    sizes = (8, abi.COMPAT_INIT_IN_SIZE, whole.size)

    def decode_init(request: Request, buffer: Buffer, end: int) -> None:
        size = end - _START
        if size not in sizes and size < whole.size:
            raise _wrong_size(request, " or ".join(map(str, sizes)), end)
        body = bytes(buffer[_START:end])[: whole.size].ljust(whole.size, b"\0")
        request.body = abi.InitIn._make(whole.unpack(body))

    return decode_init


def _decoder(opcode: Opcode, form: Form) -> _Decoder:
    if opcode is Opcode.INIT:
        return _init(form)
    if form.items is not None:
        return _array(form)
    if form.data:
        return _named_payload(form) if form.names else _payload(form)
    if form.names:
        return _one_name(form) if len(form.names) == 1 else _two_names(form)
    return _bodiless if form.body is None else _fixed(form)


_DECODERS: Final[dict[int, _Decoder]] = {
    int(opcode): _decoder(opcode, form) for opcode, form in FORMS.items()
}


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
