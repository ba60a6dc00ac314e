"""Typed replies and notifications to bytes: the other half of :mod:`.wire`.

Every encoder returns a complete message, ready for one write(2), by one call of ``struct``. They
run once per request and trust their callers: a number that does not fit its field lets
:class:`struct.error` out, so callers validate what handlers gave them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from . import abi
from ._requests import Buffer
from .abi import NotifyCode, layout

OUT_HEADER_SIZE: Final = layout(abi.OutHeader).size
"""Bytes before the body of every reply and notification (16)."""

ERRNO_MAX: Final = 511
"""The kernel refuses larger error numbers in replies: from 512 on they are its own affair."""

NAME_MAX: Final = 1024
"""The longest name that kernels take in a directory listing (FUSE_NAME_MAX before Linux 6.15)."""


def _message(*parts: type[tuple[Any, ...]]) -> tuple[int, Callable[..., bytes]]:
    """Return size and packer of a message that is the out header followed by *parts*."""
    formats = [layout(part).format.removeprefix("=") for part in (abi.OutHeader, *parts)]
    packer = struct.Struct("=" + "".join(formats))
    return packer.size, packer.pack


# --- replies ---------------------------------------------------------------------------------

_HEADER_SIZE, _pack_header = _message()
_pack_header_into: Final = layout(abi.OutHeader).pack_into


def error(unique: int, errno: int) -> bytes:
    """Refuse a request with a positive error number; ValueError when it is not in 1 to 511."""
    if not 1 <= errno <= ERRNO_MAX:
        raise ValueError(f"errno must be 1 to {ERRNO_MAX}, not {errno}")
    return _pack_header(_HEADER_SIZE, -errno, unique)


def empty(unique: int) -> bytes:
    """Report success where nothing is returned (UNLINK, FLUSH, SETLK, …)."""
    return _pack_header(_HEADER_SIZE, 0, unique)


def data_in_place(buffer: memoryview, unique: int, n: int) -> memoryview:
    """Answer READ with the *n* bytes that lie in *buffer* behind room for the header."""
    end = _HEADER_SIZE + n
    _pack_header_into(buffer, 0, end, 0, unique)
    return buffer[:end]


def data(unique: int, payload: Buffer) -> bytes:
    """Answer READ, READLINK, READDIR, GETXATTR or LISTXATTR with bytes."""
    return b"".join((_pack_header(_HEADER_SIZE + len(payload), 0, unique), payload))


_ATTRIBUTES: Final = layout(abi.Attr)

attributes: Final[Callable[..., bytes]] = _ATTRIBUTES.pack
"""Pack the 16 values of :class:`.abi.Attr`, in its order, for the replies that carry attributes."""


def attribute_values(packed: bytes) -> abi.Attr:
    """Return what :func:`attributes` has packed."""
    return abi.Attr._make(_ATTRIBUTES.unpack(packed))


def _message_before_attributes(part: type[tuple[Any, ...]]) -> tuple[int, Callable[..., bytes]]:
    """Return size of a message that ends with attributes, and packer of all that is before them."""
    before = layout(part).format.removeprefix("=").removesuffix(_ATTRIBUTES.format[1:])
    packer = struct.Struct(layout(abi.OutHeader).format + before)
    return packer.size + _ATTRIBUTES.size, packer.pack


_ATTR_SIZE, _pack_attr = _message_before_attributes(abi.AttrOut)


def attr(unique: int, valid_s: int, valid_ns: int, attributes: bytes) -> bytes:
    """Answer GETATTR or SETATTR; the attributes stay valid for the given time."""
    return _pack_attr(_ATTR_SIZE, 0, unique, valid_s, valid_ns, 0) + attributes


_ENTRY_SIZE, _pack_entry = _message_before_attributes(abi.EntryOut)


def entry(
    unique: int,
    nodeid: int,
    generation: int,
    entry_s: int,
    entry_ns: int,
    attr_s: int,
    attr_ns: int,
    attributes: bytes,
) -> bytes:
    """Answer LOOKUP, MKNOD, MKDIR, SYMLINK or LINK.

    *entry_s* and *entry_ns* say how long the name stays valid. Node id 0 in a reply to LOOKUP is a
    negative entry: "no such name" that the kernel may remember for that time.
    """
    before = _pack_entry(
        _ENTRY_SIZE, 0, unique, nodeid, generation, entry_s, attr_s, entry_ns, attr_ns
    )
    return before + attributes


_OPEN_SIZE, _pack_open = _message(abi.OpenOut)


def opened(unique: int, fh: int, open_flags: int = 0, backing_id: int = 0) -> bytes:
    """Answer OPEN or OPENDIR; *open_flags* are ``abi.FOPEN_…``."""
    return _pack_open(_OPEN_SIZE, 0, unique, fh, open_flags, backing_id)


_CREATED_SIZE: Final = _ENTRY_SIZE + layout(abi.OpenOut).size
_pack_open_part: Final = layout(abi.OpenOut).pack


def created(
    unique: int,
    nodeid: int,
    generation: int,
    entry_s: int,
    entry_ns: int,
    attr_s: int,
    attr_ns: int,
    attributes: bytes,
    fh: int,
    open_flags: int = 0,
    backing_id: int = 0,
) -> bytes:
    """Answer CREATE or TMPFILE: an entry, and the file opened."""
    before = _pack_entry(
        _CREATED_SIZE, 0, unique, nodeid, generation, entry_s, attr_s, entry_ns, attr_ns
    )
    return before + attributes + _pack_open_part(fh, open_flags, backing_id)


_WRITTEN_SIZE, _pack_written = _message(abi.WriteOut)


def written(unique: int, size: int) -> bytes:
    """Answer WRITE with the number of bytes that were written."""
    return _pack_written(_WRITTEN_SIZE, 0, unique, size, 0)


_COPIED_SIZE, _pack_copied = _message(abi.CopyFileRangeOut)


def copied(unique: int, n: int, *, wide: bool = False) -> bytes:
    """Answer COPY_FILE_RANGE (with *wide*: COPY_FILE_RANGE_64) with the number of bytes copied."""
    if wide:
        return _pack_copied(_COPIED_SIZE, 0, unique, n)
    return written(unique, n)


_STATFS_SIZE, _pack_statfs = _message(abi.StatfsOut)


def statfs(
    unique: int,
    blocks: int,
    bfree: int,
    bavail: int,
    files: int,
    ffree: int,
    bsize: int,
    namelen: int,
    frsize: int,
) -> bytes:
    """Answer STATFS; block counts are in units of *frsize* bytes."""
    return _pack_statfs(
        _STATFS_SIZE, 0, unique, blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, 0
    )


_XATTR_SIZE, _pack_xattr = _message(abi.GetxattrOut)


def xattr_size(unique: int, size: int) -> bytes:
    """Answer a GETXATTR or LISTXATTR that asked with size 0 how many bytes there are."""
    return _pack_xattr(_XATTR_SIZE, 0, unique, size, 0)


_LOCK_SIZE, _pack_lock = _message(abi.LkOut)


def lock(unique: int, start: int, end: int, type: int, pid: int) -> bytes:
    """Answer GETLK; *end* is inclusive, *type* is ``F_RDLCK``, ``F_WRLCK`` or ``F_UNLCK``."""
    return _pack_lock(_LOCK_SIZE, 0, unique, start, end, type, pid)


_STATX_SIZE, _pack_statx = _message(abi.StatxOut)


def statx(
    unique: int, valid_s: int, valid_ns: int, statx_tuple: Sequence[int], flags: int = 0
) -> bytes:
    """Answer STATX with the 23 values of :class:`.abi.Statx`, in its order."""
    return _pack_statx(_STATX_SIZE, 0, unique, valid_s, valid_ns, flags, *statx_tuple)


_LSEEK_SIZE, _pack_lseek = _message(abi.LseekOut)


def lseek(unique: int, offset: int) -> bytes:
    """Answer LSEEK (SEEK_DATA, SEEK_HOLE)."""
    return _pack_lseek(_LSEEK_SIZE, 0, unique, offset)


_BMAP_SIZE, _pack_bmap = _message(abi.BmapOut)


def bmap(unique: int, block: int) -> bytes:
    """Answer BMAP."""
    return _pack_bmap(_BMAP_SIZE, 0, unique, block)


_POLL_SIZE, _pack_poll = _message(abi.PollOut)


def poll(unique: int, revents: int) -> bytes:
    """Answer POLL with the events that are ready now."""
    return _pack_poll(_POLL_SIZE, 0, unique, revents, 0)


_IOCTL_SIZE, _pack_ioctl = _message(abi.IoctlOut)


def ioctl(
    unique: int,
    result: int,
    flags: int = 0,
    in_iovs: int = 0,
    out_iovs: int = 0,
    payload: Buffer = b"",
) -> bytes:
    """Answer IOCTL; *result* is what ioctl(2) returns, *payload* what it writes to its argument."""
    size = _IOCTL_SIZE + len(payload)
    return b"".join((_pack_ioctl(size, 0, unique, result, flags, in_iovs, out_iovs), payload))


_INIT_SIZE, _pack_init = _message(abi.InitOut)


def init(unique: int, out: abi.InitOut) -> bytes:
    """Answer INIT."""
    return _pack_init(_INIT_SIZE, 0, unique, *out)


# --- directories -----------------------------------------------------------------------------


def _records(fixed: str) -> list[Callable[..., None]]:
    """Return what packs a fixed part and a name, by the number of 8-byte words of the name.

    ``struct`` fills a name up with zeros itself, which makes the alignment cost nothing.
    """
    return [struct.Struct(f"{fixed}{8 * words}s").pack_into for words in range(NAME_MAX // 8 + 1)]


_pack_dirent: Final = _records(layout(abi.Dirent).format)
_pack_direntplus: Final = _records(
    layout(abi.Direntplus).format.replace(_ATTRIBUTES.format[1:], f"{_ATTRIBUTES.size}s")
)
_DIRENT_SIZE: Final = layout(abi.Dirent).size
_DIRENTPLUS_SIZE: Final = layout(abi.Direntplus).size


class DirectoryBuffer:
    """The reply to one READDIR or READDIRPLUS, filled entry by entry.

    *size* is what the request allows (``body.size``). Names are trusted to hold neither a slash nor
    a NUL: the kernel answers such a listing with EIO.
    """

    __slots__ = ("_buffer", "_end", "_limit")

    def __init__(self, size: int) -> None:
        """Make room for *size* bytes of entries."""
        self._limit = OUT_HEADER_SIZE + size
        self._buffer = bytearray(self._limit)
        self._end = OUT_HEADER_SIZE

    def __len__(self) -> int:
        """Return how many bytes the entries take so far."""
        return self._end - OUT_HEADER_SIZE

    def add(self, ino: int, off: int, type: int, name: bytes) -> bool:
        """Append an entry of READDIR; False, and nothing added, when it does not fit any more.

        *off* is what a later READDIR begins with to go on after this entry; *type* is the item's
        ``DT_…``, that is ``mode >> 12``. ValueError for a name that is empty or over NAME_MAX.
        """
        length = len(name)
        if not 0 < length <= NAME_MAX:
            raise ValueError(f"directory entry with a name of {length} bytes")
        words = (length + 7) >> 3
        start = self._end
        end = start + _DIRENT_SIZE + (words << 3)
        if end > self._limit:
            return False
        _pack_dirent[words](self._buffer, start, ino, off, length, type, name)
        self._end = end
        return True

    def add_plus(
        self,
        nodeid: int,
        generation: int,
        entry_s: int,
        entry_ns: int,
        attr_s: int,
        attr_ns: int,
        attributes: bytes,
        ino: int,
        off: int,
        type: int,
        name: bytes,
    ) -> bool:
        """Append an entry of READDIRPLUS; False, and nothing added, when it does not fit any more.

        The first arguments are those of :func:`entry`, and *ino* is the number in *attributes*. An
        entry with a node id counts as looked up once; node id 0 gives only inode number and type,
        as for ``.`` and ``..``.
        """
        length = len(name)
        if not 0 < length <= NAME_MAX:
            raise ValueError(f"directory entry with a name of {length} bytes")
        words = (length + 7) >> 3
        start = self._end
        end = start + _DIRENTPLUS_SIZE + (words << 3)
        if end > self._limit:
            return False
        _pack_direntplus[words](
            self._buffer,
            start,
            nodeid,
            generation,
            entry_s,
            attr_s,
            entry_ns,
            attr_ns,
            attributes,
            ino,
            off,
            length,
            type,
            name,
        )
        self._end = end
        return True

    def message(self, unique: int) -> memoryview:
        """Return the whole reply, a view that holds until the buffer is filled again."""
        self._buffer[:OUT_HEADER_SIZE] = _pack_header(self._end, 0, unique)
        return memoryview(self._buffer)[: self._end]

    def clear(self) -> None:
        """Forget all entries, so that the buffer can serve another request of the same size."""
        self._end = OUT_HEADER_SIZE


# --- notifications ---------------------------------------------------------------------------
# They have unique 0 and their code where a reply has its error.


def inval_inode(ino: int, off: int = 0, length: int = 0) -> bytes:
    """Drop cached attributes of node *ino*, and its cached data from *off* on.

    *length* 0 or less means to the end; a negative *off* leaves the data alone.
    """
    size, pack = _INVAL_INODE
    return pack(size, NotifyCode.INVAL_INODE, 0, ino, off, length)


def inval_entry(parent: int, name: bytes, flags: int = 0) -> bytes:
    """Drop a cached name of a directory; with ``abi.EXPIRE_ONLY`` only look it up again on use."""
    size, pack = _INVAL_ENTRY
    fixed = pack(size + len(name) + 1, NotifyCode.INVAL_ENTRY, 0, parent, len(name), flags)
    return b"".join((fixed, name, b"\0"))


def delete(parent: int, child: int, name: bytes) -> bytes:
    """Tell that *name*, which was node *child*, was removed; who watches the item is told."""
    size, pack = _DELETE
    fixed = pack(size + len(name) + 1, NotifyCode.DELETE, 0, parent, child, len(name), 0)
    return b"".join((fixed, name, b"\0"))


def store(nodeid: int, offset: int, payload: Buffer) -> bytes:
    """Put *payload* into the kernel's cache of a file."""
    size, pack = _STORE
    n = len(payload)
    return b"".join((pack(size + n, NotifyCode.STORE, 0, nodeid, offset, n, 0), payload))


def retrieve(notify_unique: int, nodeid: int, offset: int, size: int) -> bytes:
    """Ask for cached data of a file; a NOTIFY_REPLY with this unique number brings it."""
    total, pack = _RETRIEVE
    return pack(total, NotifyCode.RETRIEVE, 0, notify_unique, nodeid, offset, size, 0)


def poll_wakeup(kh: int) -> bytes:
    """Wake those who poll the file whose POLL request carried *kh*."""
    size, pack = _POLL_WAKEUP
    return pack(size, NotifyCode.POLL, 0, kh)


def resend() -> bytes:
    """Have all requests that await a reply sent again, marked with ``abi.UNIQUE_RESEND``."""
    return _pack_header(_HEADER_SIZE, NotifyCode.RESEND, 0)


def inc_epoch() -> bytes:
    """Make every cached name of the filesystem invalid."""
    return _pack_header(_HEADER_SIZE, NotifyCode.INC_EPOCH, 0)


def prune(nodeids: Sequence[int]) -> bytes:
    """Ask the kernel to forget these nodes where nobody uses them."""
    size, pack = _PRUNE
    ids = struct.pack(f"={len(nodeids)}Q", *nodeids)
    return pack(size + len(ids), NotifyCode.PRUNE, 0, len(nodeids), 0, 0) + ids


_INVAL_INODE: Final = _message(abi.NotifyInvalInodeOut)
_INVAL_ENTRY: Final = _message(abi.NotifyInvalEntryOut)
_DELETE: Final = _message(abi.NotifyDeleteOut)
_STORE: Final = _message(abi.NotifyStoreOut)
_RETRIEVE: Final = _message(abi.NotifyRetrieveOut)
_POLL_WAKEUP: Final = _message(abi.NotifyPollWakeupOut)
_PRUNE: Final = _message(abi.NotifyPruneOut)
