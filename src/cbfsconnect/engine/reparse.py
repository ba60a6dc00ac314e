"""Reparse data: how links and special files of Linux are stored in a Windows-style drive.

The layout is REPARSE_DATA_BUFFER: tag, length of the data, two reserved bytes, the data. The tags
are those of WSL; the data of a symbolic link is the number 2 and the target, that of a device its
major and minor number.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import TYPE_CHECKING

from cbfsconnect import constants as c
from cbfsconnect.engine import access
from cbfsconnect.engine.attributes import TAG_OF_KIND
from cbfsconnect.engine.handles import which
from cbfsconnect.errors import ERROR_MORE_DATA, errno_from_win32
from cbfsconnect.events import (
    CBFSDeleteReparsePointEventParams,
    CBFSGetReparsePointEventParams,
    CBFSSetReparsePointEventParams,
)

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.nodes import Node
    from cbfsconnect.fuse.wire import Request

HEADER = struct.Struct("<IHH")
MAX_SIZE = 16 * 1024
"""MAXIMUM_REPARSE_DATA_BUFFER_SIZE of Windows."""

_LX_VERSION = struct.Struct("<I")
_DEVICE = struct.Struct("<II")
_SYMLINK = struct.Struct("<HHHHI")
_MOUNT_POINT = struct.Struct("<HHHH")


def of_symlink(target: bytes) -> bytes:
    """The reparse data of a symbolic link of Linux."""
    return _buffer(c.IO_REPARSE_TAG_LX_SYMLINK, _LX_VERSION.pack(2) + target)


def of_special(mode: int, rdev: int) -> bytes:
    """The reparse data of a FIFO, socket or device node."""
    kind = mode & 0o170000
    device = kind in (stat.S_IFCHR, stat.S_IFBLK)
    data = _DEVICE.pack(os.major(rdev), os.minor(rdev)) if device else b""
    return _buffer(TAG_OF_KIND[kind], data)


def target_of(data: bytes) -> bytes:
    """The target of a link that is stored as WSL does or as Windows does.

    Raises `ValueError` when it is no link.
    """
    if len(data) < HEADER.size:
        raise ValueError("reparse data without a header")
    tag, length, _ = HEADER.unpack_from(data)
    body = data[HEADER.size : HEADER.size + length]
    if tag == c.IO_REPARSE_TAG_LX_SYMLINK:
        return body[_LX_VERSION.size :]
    if tag == c.IO_REPARSE_TAG_SYMLINK:
        return _windows_target(body, _SYMLINK)
    if tag == c.IO_REPARSE_TAG_MOUNT_POINT:
        return _windows_target(body, _MOUNT_POINT)
    raise ValueError(f"reparse tag {tag:#x} is no link")


def get_reparse_data(engine: Engine, node: Node, request: Request) -> bytes | int:
    """Fire `on_get_reparse_point` on the item, opened if need be; an errno when it has none."""
    handle = engine.handles.open(node, access.READ_ATTRIBUTES[which(node)], request)
    if isinstance(handle, int):
        return handle
    try:
        handler = engine.on.on_get_reparse_point
        if handler is None:
            return errno.EINVAL
        view = memoryview(bytearray(MAX_SIZE))
        params = CBFSGetReparsePointEventParams(
            node.path, view, handle.id, MAX_SIZE, handle.state.context, handle.context
        )
        error = engine.fire(handler, params)
        handle.state.context, handle.context = params.file_context, params.handle_context
        length = params.reparse_buffer_length
        if error and error != errno_from_win32(ERROR_MORE_DATA):
            return error
        if length.__class__ is not int or not HEADER.size <= length <= MAX_SIZE:
            problem = f"reparse_buffer_length is {length!r}"
            return engine.nonsense("on_get_reparse_point", node.path, problem)
        return bytes(view[:length])
    finally:
        engine.handles.close(handle)


def set_reparse_data(engine: Engine, handle: Handle, data: bytes) -> int:
    """Fire `on_set_reparse_point` on an open item; 0 or an errno."""
    handler = engine.on.on_set_reparse_point
    if handler is None:
        return errno.EOPNOTSUPP
    if not HEADER.size <= len(data) <= MAX_SIZE:
        return errno.EINVAL
    state = handle.state
    params = CBFSSetReparsePointEventParams(
        handle.node.path,
        HEADER.unpack_from(data)[0],
        memoryview(bytearray(data)),
        len(data),
        handle.id,
        state.context,
        handle.context,
    )
    error = engine.fire(handler, params)
    state.context, handle.context = params.file_context, params.handle_context
    return error


def delete_reparse_data(engine: Engine, handle: Handle, data: bytes) -> int:
    """Fire `on_delete_reparse_point` on an open item with the data it has; 0 or an errno."""
    handler = engine.on.on_delete_reparse_point
    if handler is None:
        return errno.EOPNOTSUPP
    state = handle.state
    params = CBFSDeleteReparsePointEventParams(
        handle.node.path,
        memoryview(bytearray(data)),
        len(data),
        handle.id,
        state.context,
        handle.context,
    )
    error = engine.fire(handler, params)
    state.context, handle.context = params.file_context, params.handle_context
    return error


def _windows_target(body: bytes, layout: struct.Struct) -> bytes:
    if len(body) < layout.size:
        raise ValueError("reparse data that end too early")
    offset, length, *_ = layout.unpack_from(body)
    name = body[layout.size + offset : layout.size + offset + length].decode("utf-16-le")
    return os.fsencode(name.removeprefix("\\??\\").replace("\\", "/"))


def _buffer(tag: int, data: bytes) -> bytes:
    return HEADER.pack(tag, len(data), 0) + data
