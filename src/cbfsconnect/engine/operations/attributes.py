"""GETATTR, STATX, SETATTR: information about items, and changing it."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import TYPE_CHECKING, Any

from cbfsconnect import constants as c
from cbfsconnect.engine import access
from cbfsconnect.engine.attributes import NONSENSE, SECOND, nonsense_in, without_privileges
from cbfsconnect.engine.content import set_size
from cbfsconnect.engine.handles import which
from cbfsconnect.engine.nodes import Told
from cbfsconnect.engine.operations.table import Reply, serves
from cbfsconnect.events import CBFSSetFileAttributesEventParams
from cbfsconnect.fuse import abi, wire
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.nodes import Node
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.wire import Request

_STATX_BASIC = 0x7FF
_STATX_BTIME = 0x800
_OWNER = abi.FATTR_UID | abi.FATTR_GID
_TIMES = abi.FATTR_ATIME | abi.FATTR_MTIME | abi.FATTR_CTIME
_CHANGES = abi.FATTR_MTIME | abi.FATTR_CTIME
_ATTRIBUTES = abi.FATTR_MODE | _OWNER | _TIMES


@serves(Opcode.GETATTR)
def getattr_(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_get_file_info` of a node."""
    node = engine.nodes.get(request.nodeid)
    if node is None:
        return errno.ESTALE
    engine.order.enter(node.id, node, worker)
    try:
        if node.is_gone:
            return errno.ESTALE
        return engine.attr_reply(request.unique, node, node.path)
    finally:
        engine.order.leave(node.id)


@serves(Opcode.STATX)
def statx(engine: Engine, worker: Worker, request: Request) -> Reply:
    """The same with the time of creation."""
    node = engine.nodes.get(request.nodeid)
    if node is None:
        return errno.ESTALE
    engine.order.enter(node.id, node, worker)
    try:
        if node.is_gone:
            return errno.ESTALE
        params = engine.info(node.path, node)
        if isinstance(params, int):
            return params
        try:
            attr = wire.attribute_values(engine.attr(node, params))
            if attr.mode & 0o170000 != node.kind:
                return errno.ESTALE
            fields = _statx_fields(attr, params.creation_time_ns)
            return wire.statx(request.unique, engine.valid_s, engine.valid_ns, fields)
        except NONSENSE as error:
            problem = nonsense_in(params) or str(error)
            return engine.nonsense("on_get_file_info", node.path, problem)
    finally:
        engine.order.leave(node.id)


@serves(Opcode.SETATTR)
def setattr_(engine: Engine, worker: Worker, request: Request) -> Reply:
    """truncate, chmod, chown, utimens: `on_set_file_size`, `on_set_file_attributes`."""
    node = engine.nodes.get(request.nodeid)
    if node is None:
        return errno.ESTALE
    engine.order.enter(node.id, node, worker)
    try:
        body = request.body
        handle = engine.handles.get(body.fh) if body.valid & abi.FATTR_FH else None
        if node.open is not None and body.valid & abi.FATTR_ATIME:
            node.open.access_is_set = True
        done = (
            _set(engine, node, handle, body)
            if handle is not None
            else _set_unopened(engine, node, request)
        )
        if not done and body.valid & _CHANGES and engine.options.write_back:
            _note_told(node, body)
        return done or engine.attr_reply(request.unique, node, node.path)
    finally:
        engine.order.leave(node.id)


def repeat_times(engine: Engine, node: Node, handle: Handle) -> None:
    """Say the times once more that the kernel has told, if data were changed after that.

    With a write-back cache the times of a file are the kernel's. It tells them when it writes out,
    and not again for what still comes on the same tick of its clock, or is under way.
    """
    told = node.told
    if told is not None and told.overtaken:
        told.overtaken = False
        fire_set_attributes(engine, node, handle, mtime=told.mtime, ctime=told.ctime)


def kill_privileges(engine: Engine, node: Node, handle: Handle) -> int:
    """Take the set-ID bits from a file that was written to (FUSE_HANDLE_KILLPRIV_V2)."""
    params = engine.info(node.path, node)
    if isinstance(params, int):
        return params
    mode = engine.attributes.mode_of(params)
    if without_privileges(mode) == mode:
        return 0
    return fire_set_attributes(engine, node, handle, mode=without_privileges(mode) & 0o7777)


def _set_unopened(engine: Engine, node: Node, request: Request) -> int | bytes:
    """The events of a change happen on an open item: open it for the time of the request.

    The reply, where only the open item can tell what has become of it; else 0 or an errno.
    """
    body = request.body
    wanted = access.WRITE_DATA if body.valid & abi.FATTR_SIZE else access.WRITE_ATTRIBUTES
    handle = engine.handles.open(node, wanted[which(node)], request)
    if isinstance(handle, int):
        return handle
    done: int | bytes = _set(engine, node, handle, body)
    if not done and engine.routing is not None and engine.routing.hides(handle.state):
        done = engine.attr_reply(request.unique, node, node.path)
    engine.handles.close(handle)
    return done


def _set(engine: Engine, node: Node, handle: Handle, body: Any) -> int:
    valid = body.valid
    if valid & abi.FATTR_SIZE:
        error = set_size(engine, node, handle, body.size)
        if not error and valid & abi.FATTR_KILL_SUIDGID:
            error = kill_privileges(engine, node, handle)
        if error:
            return error
    if valid & _ATTRIBUTES:
        return _set_attributes(engine, node, handle, body)
    return 0


def _set_attributes(engine: Engine, node: Node, handle: Handle, body: Any) -> int:
    valid = body.valid
    mode = body.mode & 0o7777 if valid & abi.FATTR_MODE else None
    attributes = 0
    if mode is not None or (valid & _OWNER and node.kind != stat.S_IFDIR):
        params = engine.info(node.path, node, complete=False)
        if isinstance(params, int):
            return params
        if mode is None:
            # chown(2) takes the set-ID bits of all but directories away, whoever does it.
            before = engine.attributes.mode_of(params)
            after = without_privileges(before)
            mode = after & 0o7777 if after != before else None
        elif params.mode is None:
            attributes = _changed_attributes(params.attributes, mode)
    return fire_set_attributes(
        engine,
        node,
        handle,
        attributes=attributes,
        mode=mode,
        uid=body.uid if valid & abi.FATTR_UID else None,
        gid=body.gid if valid & abi.FATTR_GID else None,
        atime=_time(valid, abi.FATTR_ATIME, abi.FATTR_ATIME_NOW, body.atime, body.atimensec),
        mtime=_time(valid, abi.FATTR_MTIME, abi.FATTR_MTIME_NOW, body.mtime, body.mtimensec),
        ctime=_time(valid, abi.FATTR_CTIME, 0, body.ctime, body.ctimensec),
    )


def fire_set_attributes(
    engine: Engine,
    node: Node,
    handle: Handle,
    *,
    attributes: int = 0,
    mode: int | None = None,
    uid: int | None = None,
    gid: int | None = None,
    created: int | None = None,
    atime: int | None = None,
    mtime: int | None = None,
    ctime: int | None = None,
) -> int:
    """Fire `on_set_file_attributes` on an open item; 0 or an errno."""
    routing = engine.routing
    route = None if routing is None else routing.current(handle)
    if routing is not None and route is not None and route.keeps_attributes:
        return routing.set_attributes(route, mode=mode, uid=uid, gid=gid, atime=atime, mtime=mtime)
    handler = engine.on.on_set_file_attributes
    if handler is None:
        # Times are also set by the kernel itself, when it writes cached data: they may be lost.
        return errno.EPERM if mode is not None or uid is not None or gid is not None else 0
    options = engine.options
    if not options.support_change_time_attribute:
        ctime = None
    if mtime is None and not options.support_last_access_time_attribute:
        atime = None
    if not attributes and {mode, uid, gid, created, atime, mtime, ctime} == {None}:
        return 0
    state = handle.state
    params = CBFSSetFileAttributesEventParams(
        node.path,
        handle.id,
        created,
        atime,
        mtime,
        ctime,
        attributes,
        mode,
        uid,
        gid,
        state.context,
        handle.context,
    )
    error = engine.fire(handler, params)
    state.context, handle.context = params.file_context, params.handle_context
    return error


def _note_told(node: Node, body: Any) -> None:
    """Keep the times that the kernel has set of a file."""
    if node.kind != stat.S_IFREG:
        return
    before = node.told
    mtime, ctime = (before.mtime, before.ctime) if before is not None else (None, None)
    if body.valid & abi.FATTR_MTIME_NOW:
        mtime = None  # ours, then, which the kernel takes over
    elif body.valid & abi.FATTR_MTIME:
        mtime = _time(body.valid, abi.FATTR_MTIME, 0, body.mtime, body.mtimensec)
    if body.valid & abi.FATTR_CTIME:
        ctime = _time(body.valid, abi.FATTR_CTIME, 0, body.ctime, body.ctimensec)
    node.told = Told(mtime, ctime)


def _changed_attributes(attributes: int, mode: int) -> int:
    """The Windows attributes after chmod, 0 when they stay: write permission is READONLY there."""
    read_only = 0 if mode & 0o222 else c.FILE_ATTRIBUTE_READONLY
    if attributes & c.FILE_ATTRIBUTE_READONLY == read_only:
        return 0
    settable = attributes & ~(c.FILE_ATTRIBUTE_READONLY | c.FILE_ATTRIBUTE_NORMAL)
    return settable | read_only or c.FILE_ATTRIBUTE_NORMAL


def _time(valid: int, given: int, now: int, seconds: int, nanoseconds: int) -> int | None:
    if not valid & given:
        return None
    if valid & now:
        return time.time_ns()
    if seconds >> 63:
        seconds -= 1 << 64  # the kernel's time64_t in an unsigned field
    return seconds * SECOND + nanoseconds


def _statx_fields(attr: abi.Attr, created: int | None) -> tuple[int, ...]:
    ino, size, blocks, atime, mtime, ctime, atime_ns, mtime_ns, ctime_ns = attr[:9]
    mode, links, uid, gid, rdev, block_size, _ = attr[9:]
    born_s, born_ns = divmod(created, SECOND) if created is not None else (0, 0)
    mask = _STATX_BASIC | (_STATX_BTIME if created is not None else 0)
    fields = (mask, block_size, 0, links, uid, gid, mode, ino, size, blocks, 0)
    read_born = (_signed(atime), atime_ns, born_s, born_ns)
    changed_written = (_signed(ctime), ctime_ns, _signed(mtime), mtime_ns)
    return (*fields, *read_born, *changed_written, os.major(rdev), os.minor(rdev), 0, 0)


def _signed(seconds: int) -> int:
    return seconds - (1 << 64) if seconds >> 63 else seconds
