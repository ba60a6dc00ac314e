"""The attributes by which ntfs-3g and Samba show what only Windows has.

| attribute                    | value                                    | events               |
|------------------------------|------------------------------------------|----------------------|
| `system.ntfs_acl`            | self-relative security descriptor        | the two of security  |
| `system.ntfs_attrib`, `…_be` | Windows attributes, 32 bits              | info, set attributes |
| `system.ntfs_times`, `…_be`  | times of creation, write, access, change | info, set attributes |
| `system.ntfs_crtime`, `…_be` | time of creation                         | info, set attributes |
| `system.ntfs_dos_name`       | the short name                           | info                 |

Numbers are in the machine's byte order, those of `…_be` with the highest byte first. Times are
64-bit counts of 100 ns since 1601.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from cbfsconnect import constants as c
from cbfsconnect.engine import access
from cbfsconnect.engine.attributes import attributes_of_mode, nonsense_in
from cbfsconnect.engine.handles import which
from cbfsconnect.engine.operations.attributes import fire_set_attributes
from cbfsconnect.engine.rights import check_owner
from cbfsconnect.engine.security import get_security, set_security
from cbfsconnect.engine.streams import XATTR_CREATE
from cbfsconnect.fuse import wire

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.nodes import Node
    from cbfsconnect.engine.options import Options
    from cbfsconnect.events import CBFSGetFileInfoEventParams
    from cbfsconnect.fuse.wire import Request

_NATIVE = "<" if sys.byteorder == "little" else ">"
_BIG = ">"
_SETTABLE = (
    c.FILE_ATTRIBUTE_READONLY
    | c.FILE_ATTRIBUTE_HIDDEN
    | c.FILE_ATTRIBUTE_SYSTEM
    | c.FILE_ATTRIBUTE_ARCHIVE
    | c.FILE_ATTRIBUTE_TEMPORARY
    | c.FILE_ATTRIBUTE_OFFLINE
    | c.FILE_ATTRIBUTE_NOT_CONTENT_INDEXED
)
_TICK = 100
_EPOCH_TICKS = 11_644_473_600 * 10_000_000
"""1970 in 100-ns ticks since 1601."""
_UNCHANGED = (0, (1 << 64) - 1)
"""Times that stand for "leave it", as in FILE_BASIC_INFORMATION."""


class Special(NamedTuple):
    """One such attribute: whether the drive has it, and what reads and writes it."""

    enabled: Callable[[Options], bool]
    fetch: Callable[[Engine, Node, Request], bytes | int]
    store: Callable[[Engine, Node, Request, bytes], int] | None = None


def get_special(engine: Engine, node: Node, request: Request) -> bytes | int:
    """The value of such an attribute, or an errno."""
    special = SPECIAL[request.name]
    if not special.enabled(engine.options):
        return errno.EOPNOTSUPP
    return special.fetch(engine, node, request)


def set_special(engine: Engine, node: Node, request: Request, data: bytes) -> int:
    """Change what every item has: it can be neither made nor removed. 0 or an errno."""
    special = SPECIAL[request.name]
    if special.store is None or not special.enabled(engine.options):
        return errno.EOPNOTSUPP
    if request.body.flags & XATTR_CREATE:
        return errno.EEXIST
    return check_owner(engine, node, request) or special.store(engine, node, request, data)


def get_attrib(engine: Engine, node: Node, order: str) -> bytes | int:
    """The Windows attributes."""
    info = _info(engine, node)
    if isinstance(info, int):
        return info
    attributes = info.attributes or attributes_of_mode(engine.attributes.mode_of(info))
    try:
        return struct.pack(order + "I", attributes)
    except struct.error:
        return _nonsense(engine, node, info)


def set_attrib(engine: Engine, node: Node, request: Request, order: str, data: bytes) -> int:
    """Change those Windows attributes that can be changed, as ntfs-3g does."""
    if len(data) != 4:
        return errno.EINVAL
    info = _info(engine, node)
    if isinstance(info, int):
        return info
    before = info.attributes or attributes_of_mode(engine.attributes.mode_of(info))
    given = struct.unpack(order + "I", data)[0] & _SETTABLE
    after = before & ~(_SETTABLE | c.FILE_ATTRIBUTE_NORMAL) | given
    return _change(engine, node, request, attributes=after or c.FILE_ATTRIBUTE_NORMAL)


def get_times(engine: Engine, node: Node, order: str, count: int) -> bytes | int:
    """The first `count` times: of creation, last write, last access, last change."""
    info = _info(engine, node)
    if isinstance(info, int):
        return info
    written = info.last_write_time_ns
    if written is None:
        written = info.creation_time_ns
    if written is None:
        written = engine.started
    given = (info.creation_time_ns, written, info.last_access_time_ns, info.change_time_ns)
    try:
        ticks = [_ticks(written if time is None else time) for time in given]
        return struct.pack(f"{order}{count}Q", *ticks[:count])
    except (TypeError, struct.error):
        return _nonsense(engine, node, info)


def set_times(
    engine: Engine, node: Node, request: Request, order: str, most: int, data: bytes
) -> int:
    """Set up to `most` times, in the order in which they are read; 0 leaves one as it is."""
    count = len(data) // 8
    if len(data) % 8 or not 1 <= count <= most:
        return errno.EINVAL
    ticks = struct.unpack(f"{order}{count}Q", data)
    times = [None if t in _UNCHANGED else (t - _EPOCH_TICKS) * _TICK for t in ticks]
    created, written, read, changed = (*times, None, None, None)[:4]
    error = _change(
        engine, node, request, created=created, mtime=written, atime=read, ctime=changed
    )
    if not error and (written is not None or changed is not None):
        _renew(engine, node)
    return error


def get_dos_name(engine: Engine, node: Node, request: Request) -> bytes | int:
    """The short name that the drive gives; ENODATA when it gives none."""
    info = _info(engine, node)
    if isinstance(info, int):
        return info
    name: object = info.short_file_name
    if not isinstance(name, str):
        problem = f"short_file_name is {name!r}"
        return engine.nonsense("on_get_file_info", node.path, problem)
    return os.fsencode(name) or errno.ENODATA


def _info(engine: Engine, node: Node) -> CBFSGetFileInfoEventParams | int:
    return errno.ESTALE if node.is_gone else engine.info(node.path, node)


def _renew(engine: Engine, node: Node) -> None:
    """Have the kernel look a file up anew whose times have changed.

    While it writes data back later it takes its own times for the true ones, and would set them
    again. It does so for as long as it knows the inode, so the next look-up makes another one. A
    file that somebody has open keeps the kernel's times.
    """
    open_ = node.open is not None and node.open.unflushed > 0
    if open_ or not engine.options.write_back or node.kind != stat.S_IFREG:
        return
    node.told = None
    for parent, name in node.names:
        if parent.children.get(name) is node:
            engine.nodes.detach(parent, name)
            engine.notify([wire.inval_entry(parent.id, engine.fsencode(name))])


def _change(
    engine: Engine,
    node: Node,
    request: Request,
    *,
    attributes: int = 0,
    created: int | None = None,
    mtime: int | None = None,
    atime: int | None = None,
    ctime: int | None = None,
) -> int:
    if engine.on.on_set_file_attributes is None:
        return errno.EOPNOTSUPP
    handle = engine.handles.open(node, access.WRITE_ATTRIBUTES[which(node)], request)
    if isinstance(handle, int):
        return handle
    error = fire_set_attributes(
        engine,
        node,
        handle,
        attributes=attributes,
        created=created,
        mtime=mtime,
        atime=atime,
        ctime=ctime,
    )
    engine.handles.close(handle)
    return error


def _ticks(nanoseconds: int) -> int:
    return max(0, nanoseconds // _TICK + _EPOCH_TICKS)


def _nonsense(engine: Engine, node: Node, info: CBFSGetFileInfoEventParams) -> int:
    return engine.nonsense("on_get_file_info", node.path, nonsense_in(info) or "out of range")


def _always(options: Options) -> bool:
    return True


def _attrib(order: str) -> Special:
    return Special(
        _always,
        lambda engine, node, request: get_attrib(engine, node, order),
        lambda engine, node, request, data: set_attrib(engine, node, request, order, data),
    )


def _times(order: str, count: int) -> Special:
    return Special(
        _always,
        lambda engine, node, request: get_times(engine, node, order, count),
        lambda engine, node, request, data: set_times(engine, node, request, order, count, data),
    )


SPECIAL: dict[bytes, Special] = {
    b"system.ntfs_acl": Special(
        lambda options: options.use_windows_security, get_security, set_security
    ),
    b"system.ntfs_attrib": _attrib(_NATIVE),
    b"system.ntfs_attrib_be": _attrib(_BIG),
    b"system.ntfs_times": _times(_NATIVE, 4),
    b"system.ntfs_times_be": _times(_BIG, 4),
    b"system.ntfs_crtime": _times(_NATIVE, 1),
    b"system.ntfs_crtime_be": _times(_BIG, 1),
    b"system.ntfs_dos_name": Special(lambda options: options.use_short_file_names, get_dos_name),
}
"""Every attribute of this kind; for others see `xattrs`."""
