"""Windows security descriptors: what `on_get_file_security` and `on_set_file_security` carry.

A self-relative SECURITY_DESCRIPTOR is a header (revision, a reserved byte, control flags, and the
offsets of owner, group, SACL and DACL) with the parts behind it. Only as much of it is understood
here as tells which parts there are, and that they lie inside.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from cbfsconnect.engine import access
from cbfsconnect.engine.handles import which
from cbfsconnect.errors import ERROR_INSUFFICIENT_BUFFER, errno_from_win32
from cbfsconnect.events import CBFSGetFileSecurityEventParams, CBFSSetFileSecurityEventParams

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.nodes import Node
    from cbfsconnect.fuse.wire import Request

OWNER, GROUP, DACL, SACL = 1, 2, 4, 8
"""The parts, as SECURITY_INFORMATION numbers them."""

_HEADER = struct.Struct("<BBHIIII")
_DACL_PRESENT, _SACL_PRESENT, _SELF_RELATIVE = 0x0004, 0x0010, 0x8000
_SMALLEST_SID = 8
_ACL_HEADER = struct.Struct("<BBHHH")
_FIRST_BUFFER = 1024
_MOST_BYTES = 64 * 1024
"""XATTR_SIZE_MAX of the kernel."""
_MOST_TRIES = 4
"""A descriptor that grows while it is asked for is not asked for ever."""
_TOO_SMALL = errno_from_win32(ERROR_INSUFFICIENT_BUFFER)


def parts_of(descriptor: bytes) -> int:
    """Which parts a descriptor has; `ValueError` when it is none, or not a self-relative one."""
    if len(descriptor) < _HEADER.size:
        raise ValueError("shorter than its header")
    revision, _, control, owner, group, sacl, dacl = _HEADER.unpack_from(descriptor)
    if revision != 1 or not control & _SELF_RELATIVE:
        raise ValueError("no self-relative security descriptor of revision 1")
    parts = 0
    for part, offset in ((OWNER, owner), (GROUP, group)):
        if offset:
            _check_sid(descriptor, offset)
            parts |= part
    for part, offset, flag in ((DACL, dacl, _DACL_PRESENT), (SACL, sacl, _SACL_PRESENT)):
        if control & flag:
            if offset:  # without one the list is there and empty of rules: everybody may
                _check_acl(descriptor, offset)
            parts |= part
    return parts


def get_security(engine: Engine, node: Node, request: Request) -> bytes | int:
    """Fire `on_get_file_security` on the item, opened if need be; an errno when there is none."""
    if engine.on.on_get_file_security is None:
        return errno.EOPNOTSUPP
    handle = engine.handles.open(node, access.READ_CONTROL[which(node)], request)
    if isinstance(handle, int):
        return handle
    try:
        return _get(engine, handle)
    finally:
        engine.handles.close(handle)


def set_security(engine: Engine, node: Node, request: Request, data: bytes) -> int:
    """Fire `on_set_file_security` with the parts that the descriptor has; 0 or an errno."""
    handler = engine.on.on_set_file_security
    if handler is None:
        return errno.EOPNOTSUPP
    try:
        parts = parts_of(data)
    except ValueError:
        return errno.EINVAL
    if not parts:
        return errno.EINVAL
    handle = engine.handles.open(node, access.of_security(parts, which(node)), request)
    if isinstance(handle, int):
        return handle
    state = handle.state
    params = CBFSSetFileSecurityEventParams(
        node.path,
        parts,
        memoryview(bytearray(data)),
        len(data),
        handle.id,
        state.context,
        handle.context,
    )
    error = engine.fire(handler, params)
    state.context, handle.context = params.file_context, params.handle_context
    engine.handles.close(handle)
    return error


def _get(engine: Engine, handle: Handle) -> bytes | int:
    path, state = handle.node.path, handle.state
    room = _FIRST_BUFFER
    for _ in range(_MOST_TRIES):
        view = memoryview(bytearray(room))
        params = CBFSGetFileSecurityEventParams(
            path,
            OWNER | GROUP | DACL,
            view,
            room,
            handle.id,
            file_context=state.context,
            handle_context=handle.context,
        )
        error = engine.fire(engine.on.on_get_file_security, params)
        state.context, handle.context = params.file_context, params.handle_context
        length = params.descriptor_length
        if error and error != _TOO_SMALL:
            return error
        if length.__class__ is not int or length < 0 or (error and length <= room):
            return _nonsense(engine, path, f"descriptor_length is {length!r}, of {room}")
        if length > _MOST_BYTES:
            return errno.E2BIG
        if length <= room:
            return bytes(view[:length]) or errno.ENODATA
        room = length
    return _nonsense(engine, path, f"never fits: now it needs {room} bytes")


def _nonsense(engine: Engine, path: str, problem: str) -> int:
    return engine.nonsense("on_get_file_security", path, problem)


def _check_sid(descriptor: bytes, offset: int) -> None:
    if offset + _SMALLEST_SID <= len(descriptor):
        revision, count = descriptor[offset], descriptor[offset + 1]
        if revision == 1 and offset + _SMALLEST_SID + 4 * count <= len(descriptor):
            return
    raise ValueError(f"no SID at {offset}")


def _check_acl(descriptor: bytes, offset: int) -> None:
    if offset + _ACL_HEADER.size <= len(descriptor):
        size = _ACL_HEADER.unpack_from(descriptor, offset)[2]
        if size >= _ACL_HEADER.size and offset + size <= len(descriptor):
            return
    raise ValueError(f"no access control list at {offset}")
