"""GETXATTR, SETXATTR, LISTXATTR, REMOVEXATTR: what Windows has and Linux shows as attributes.

| attribute                   | events                                     |
|-----------------------------|--------------------------------------------|
| `user.NAME`                 | the named stream NAME of the item          |
| `system.ntfs_reparse_data`  | the three reparse point events             |
| `system.cbfs.hard_links`    | the two hard link enumeration events       |
| `system.ntfs_object_id`     | of the root: the volume object id events   |
| `system.ntfs_…`             | see `ntfs`                                 |
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from cbfsconnect.engine import access
from cbfsconnect.engine.handles import which
from cbfsconnect.engine.links import HARD_LINKS, hard_links_page
from cbfsconnect.engine.operations.ntfs import SPECIAL, get_special, set_special
from cbfsconnect.engine.operations.table import Reply, serves
from cbfsconnect.engine.reparse import delete_reparse_data, get_reparse_data, set_reparse_data
from cbfsconnect.engine.rights import check_owner
from cbfsconnect.engine.streams import Streams
from cbfsconnect.engine.volume_names import OBJECT_ID, get_object_id, set_object_id
from cbfsconnect.fuse import wire
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.nodes import Node
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.wire import Request

_STREAM = b"user."
_REPARSE = b"system.ntfs_reparse_data"


@serves(Opcode.GETXATTR)
def get(engine: Engine, worker: Worker, request: Request) -> Reply:
    """The value of an attribute, or its size."""
    node = engine.nodes.get(request.nodeid)
    if node is None:
        return errno.ESTALE
    if not _any_use(engine):
        return errno.ENOSYS  # the kernel asks no more
    name, limit = request.name, request.body.size
    engine.order.enter(node.id, node, worker)
    try:
        value: bytes | int = errno.EOPNOTSUPP
        if name.startswith(_STREAM) and engine.options.stream_xattrs:
            value = Streams(engine, node, request).fetch(name[len(_STREAM) :], limit)
        elif name.startswith(HARD_LINKS) and engine.options.use_hard_links:
            value = hard_links_page(engine, node, request, name)
        elif name == _REPARSE and engine.options.use_reparse_points:
            value = get_reparse_data(engine, node, request)
            if value == errno.EINVAL:
                value = errno.ENODATA
        elif name == OBJECT_ID and node is engine.nodes.root:
            value = get_object_id(engine)
        elif name in SPECIAL:
            value = get_special(engine, node, request)
        return _sized(request.unique, value, limit)
    finally:
        engine.order.leave(node.id)


@serves(Opcode.SETXATTR)
def set_(engine: Engine, worker: Worker, request: Request) -> Reply:
    """Store an attribute."""
    node = engine.nodes.get(request.nodeid)
    if node is None:
        return errno.ESTALE
    if not _any_use(engine):
        return errno.ENOSYS
    name, data = request.name, request.data
    assert data is not None  # the decoder gives every SETXATTR its data
    engine.order.enter(node.id, node, worker)
    try:
        error = errno.EOPNOTSUPP
        if name.startswith(_STREAM) and engine.options.stream_xattrs:
            streams = Streams(engine, node, request)
            error = streams.store(name[len(_STREAM) :], data, request.body.flags)
        elif name == _REPARSE and engine.options.use_reparse_points:
            error = check_owner(engine, node, request) or _on_opened(
                engine, node, request, set_reparse_data, bytes(data)
            )
        elif name == OBJECT_ID and node is engine.nodes.root:
            error = set_object_id(engine, request, bytes(data))
        elif name in SPECIAL:
            error = set_special(engine, node, request, bytes(data))
        return error or wire.empty(request.unique)
    finally:
        engine.order.leave(node.id)


@serves(Opcode.LISTXATTR)
def list_(engine: Engine, worker: Worker, request: Request) -> Reply:
    """The names of the attributes that hold data of the user: the named streams."""
    node = engine.nodes.get(request.nodeid)
    if node is None:
        return errno.ESTALE
    if not engine.options.stream_xattrs:
        return _sized(request.unique, b"", request.body.size) if _any_use(engine) else errno.ENOSYS
    engine.order.enter(node.id, node, worker)
    try:
        names = Streams(engine, node, request).list_names()
        if isinstance(names, int):
            return names
        value = b"".join(_STREAM + name + b"\0" for name in names)
        return _sized(request.unique, value, request.body.size)
    finally:
        engine.order.leave(node.id)


@serves(Opcode.REMOVEXATTR)
def remove(engine: Engine, worker: Worker, request: Request) -> Reply:
    """Remove an attribute."""
    node = engine.nodes.get(request.nodeid)
    if node is None:
        return errno.ESTALE
    if not _any_use(engine):
        return errno.ENOSYS
    name = request.name
    engine.order.enter(node.id, node, worker)
    try:
        error = errno.EOPNOTSUPP
        if name.startswith(_STREAM) and engine.options.stream_xattrs:
            error = Streams(engine, node, request).delete(name[len(_STREAM) :])
        elif name == _REPARSE and engine.options.use_reparse_points:
            error = check_owner(engine, node, request)
            error = error or _remove_reparse_data(engine, node, request)
        return error or wire.empty(request.unique)
    finally:
        engine.order.leave(node.id)


def _remove_reparse_data(engine: Engine, node: Node, request: Request) -> int:
    data = get_reparse_data(engine, node, request)
    if isinstance(data, int):
        return errno.ENODATA if data == errno.EINVAL else data
    return _on_opened(engine, node, request, delete_reparse_data, data)


def _on_opened(
    engine: Engine,
    node: Node,
    request: Request,
    action: Callable[[Engine, Handle, bytes], int],
    data: bytes,
) -> int:
    handle = engine.handles.open(node, access.WRITE_ATTRIBUTES[which(node)], request)
    if isinstance(handle, int):
        return handle
    error = action(engine, handle, data)
    engine.handles.close(handle)
    return error


def _any_use(engine: Engine) -> bool:
    on = engine.on
    return (
        engine.options.extended_attributes
        or on.on_get_volume_object_id is not None
        or on.on_set_volume_object_id is not None
    )


def _sized(unique: int, value: bytes | int, limit: int) -> Reply:
    """Answer with the value, or its size when the client asked with no room for it."""
    if isinstance(value, int):
        return value
    if not limit:
        return wire.xattr_size(unique, len(value))
    return errno.ERANGE if len(value) > limit else wire.data(unique, value)
