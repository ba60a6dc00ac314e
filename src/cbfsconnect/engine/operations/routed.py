"""The operations of a drive that routes: requests about routed items go to their local files.

They take the place of the usual ones from the first routing on. What is not routed, and what is not
about data, names or extended attributes, is served as on any other drive.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from cbfsconnect import constants as c
from cbfsconnect.engine.content import set_size, size_of
from cbfsconnect.engine.local_files import fallocate as fallocate_local
from cbfsconnect.engine.nodes import Directory
from cbfsconnect.engine.operations.attributes import kill_privileges
from cbfsconnect.engine.operations.data import allocate
from cbfsconnect.engine.operations.table import OPERATIONS, Operation, Reply
from cbfsconnect.fuse import abi, wire
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.routing import Route
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.wire import Request

_Serve: TypeAlias = "Callable[[Engine, Worker, Request, Handle, Route], Reply]"

_USER = b"user."
_SECURITY = b"system.ntfs_acl"
_KEEP_SIZE = 1
_PUNCH_HOLE = 2
_ZERO_RANGE = 16

_NUMBER = struct.Struct("=Q")
_HALF = struct.Struct("=I")
_ATTR_VALID_AT, _ATTR_VALID_NS_AT = 24, 36
"""In `struct fuse_entry_out`, which begins with the number of the node."""
_PLUS = abi.layout(abi.Direntplus)

ROUTED_OPERATIONS: dict[int, Operation] = dict(OPERATIONS)
"""The table, in the place of `OPERATIONS`."""


def _serves(*opcodes: Opcode) -> Callable[[Operation], Operation]:
    def enter(function: Operation) -> Operation:
        for opcode in opcodes:
            ROUTED_OPERATIONS[opcode] = function
        return function

    return enter


class _OnRouted:
    """Has a function serve requests about routed files that begin with the handle.

    It runs in the order of the file's events, `shared` with others of this kind.
    """

    _usual: Callable[[Engine, Worker, Request], Reply]
    _serve: Callable[[Engine, Worker, Request, Handle, Route], Reply]

    def __init__(self, opcode: Opcode, serve: _Serve, shared: bool) -> None:
        self._usual = OPERATIONS[opcode]
        self._serve = serve
        self._shared = shared

    def __call__(self, engine: Engine, worker: Worker, request: Request) -> Reply:
        """Serve one request."""
        handle = engine.handles.get(request.fields[0])
        routing = engine.routing
        if routing is None or handle is None:
            return self._usual(engine, worker, request)
        if routing.is_ending(handle):
            _end(engine, worker, handle)
        if not routing.hides(handle.state):
            return self._usual(engine, worker, request)
        node, order = handle.node, engine.order
        begin, end = (
            (order.enter_shared, order.leave_shared) if self._shared else (order.enter, order.leave)
        )
        begin(node.id, node, worker)
        try:
            route = routing.of(node)
            if route is not None:
                return self._serve(engine, worker, request, handle, route)
        except OSError as error:
            return error.errno or errno.EIO
        finally:
            end(node.id)
        return self._usual(engine, worker, request)


def _on_routed(opcode: Opcode, shared: bool = False) -> Callable[[_Serve], _Serve]:
    """Have the decorated function serve such requests about routed files."""

    def enter(serve: _Serve) -> _Serve:
        ROUTED_OPERATIONS[opcode] = _OnRouted(opcode, serve, shared)
        return serve

    return enter


def _end(engine: Engine, worker: Worker, handle: Handle) -> None:
    """End a routing, alone with the item."""
    node, routing = handle.node, engine.routing
    engine.order.enter(node.id, node, worker)
    try:
        if routing is not None:
            routing.current(handle)
    finally:
        engine.order.leave(node.id)


# --- data ----------------------------------------------------------------------------------------


@_on_routed(Opcode.READ, shared=True)
def read(engine: Engine, worker: Worker, request: Request, handle: Handle, route: Route) -> Reply:
    """Data of the local file, straight into the reply."""
    _, position, size, _, _, _, _ = request.fields
    done = os.preadv(route.fd, [worker.output(size)], position)
    return worker.data_reply(request.unique, done)


@_on_routed(Opcode.WRITE, shared=True)
def write(engine: Engine, worker: Worker, request: Request, handle: Handle, route: Route) -> Reply:
    """Data for the local file, straight from the request."""
    if route.unwritable:
        return route.unwritable
    _, position, _, flags, _, _, _ = request.fields
    data = request.data
    assert data is not None  # the decoder gives every WRITE its data
    done = os.pwrite(route.fd, data, position)
    while done < len(data) and flags & abi.WRITE_CACHE:
        # The kernel takes a short write of what it had cached for a whole one.
        done += os.pwrite(route.fd, data[done:], position + done)
    told = handle.node.told
    if told is not None:
        told.overtaken = True
    if flags & abi.WRITE_KILL_SUIDGID:
        error = kill_privileges(engine, handle.node, handle)
        if error:
            return error
    return wire.written(request.unique, done)


@_on_routed(Opcode.FSYNC)
def fsync(engine: Engine, worker: Worker, request: Request, handle: Handle, route: Route) -> Reply:
    """The local file's data to its disk."""
    (os.fdatasync if request.body.fsync_flags & 1 else os.fsync)(route.fd)
    return wire.empty(request.unique)


ROUTED_OPERATIONS[Opcode.FSYNCDIR] = ROUTED_OPERATIONS[Opcode.FSYNC]


@_on_routed(Opcode.FALLOCATE)
def fallocate(
    engine: Engine, worker: Worker, request: Request, handle: Handle, route: Route
) -> Reply:
    """Space and holes of the local file, unless the drive wants to hear of new sizes."""
    body = request.body
    if route.unwritable:
        return route.unwritable
    if body.mode & ~(_KEEP_SIZE | _PUNCH_HOLE | _ZERO_RANGE):
        return errno.EOPNOTSUPP
    if not route.fires(c.CBFS_ROUTE_SET_FILE_SIZES_EVENT):
        fallocate_local(route.fd, body.mode, body.offset, body.length)
        return wire.empty(request.unique)
    size, end = os.fstat(route.fd).st_size, body.offset + body.length
    if body.mode & (_PUNCH_HOLE | _ZERO_RANGE):
        fallocate_local(route.fd, body.mode | _KEEP_SIZE, body.offset, body.length)
        grows = end > size and not body.mode & _KEEP_SIZE
        error = set_size(engine, handle.node, handle, end) if grows else 0
    else:
        error = allocate(engine, handle.node, handle, body, size)
    return error or wire.empty(request.unique)


@_serves(Opcode.LSEEK)
def lseek(engine: Engine, worker: Worker, request: Request) -> Reply:
    """Holes of the local file; other files have none, which the kernel would else conclude of all
    of them for ever."""
    body = request.body
    handle, routing = engine.handles.get(body.fh), engine.routing
    if handle is None or body.whence not in (os.SEEK_DATA, os.SEEK_HOLE):
        return errno.EINVAL
    node = handle.node
    engine.order.enter(node.id, node, worker)
    try:
        route = None if routing is None else routing.current(handle)
        if route is not None:
            found = os.lseek(route.fd, body.offset, body.whence)
            return wire.lseek(request.unique, found)
        size = size_of(engine, node, handle)
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        engine.order.leave(node.id)
    if size < 0:
        return -size
    if body.offset >= size:
        return errno.ENXIO
    return wire.lseek(request.unique, body.offset if body.whence == os.SEEK_DATA else size)


@_serves(Opcode.COPY_FILE_RANGE, Opcode.COPY_FILE_RANGE_64)
def copy_file_range(engine: Engine, worker: Worker, request: Request) -> Reply:
    """Between two local files; where one is not routed, the kernel reads and writes."""
    body, routing = request.body, engine.routing
    source, target = engine.handles.get(body.fh_in), engine.handles.get(body.fh_out)
    if routing is None or source is None or target is None:
        return OPERATIONS[request.opcode](engine, worker, request)
    items = {handle.node.id: handle.node for handle in (source, target)}
    engine.order.enter_all(items)
    try:
        ends = routing.current(source), routing.current(target)
        if ends[0] is not None and ends[1] is not None:
            return _copy(request, ends[0], ends[1])
    except OSError as error:
        return errno.EOPNOTSUPP if error.errno == errno.EXDEV else error.errno or errno.EIO
    finally:
        engine.order.leave_all(items)
    if ends != (None, None):
        return errno.EOPNOTSUPP
    return _some_day(OPERATIONS[request.opcode](engine, worker, request))


def _copy(request: Request, source: Route, target: Route) -> Reply:
    body = request.body
    if target.unwritable:
        return target.unwritable
    wide = request.opcode == Opcode.COPY_FILE_RANGE_64
    length = min(body.len, 1 << 30)  # the caller comes back for the rest
    done = os.copy_file_range(source.fd, target.fd, length, body.off_in, body.off_out)
    return wire.copied(request.unique, done, wide=wide)


# --- information ---------------------------------------------------------------------------------


def _routed(engine: Engine, node_id: int) -> bool:
    node, routing = engine.nodes.get(node_id), engine.routing
    if node is None or routing is None or isinstance(node, Directory):
        return False
    return routing.of(node) is not None


@_serves(Opcode.GETATTR, Opcode.STATX, Opcode.SETATTR)
def attributes(engine: Engine, worker: Worker, request: Request) -> Reply:
    """As usual; but what is said of a routed file holds for this moment only, since others may use
    the local file meanwhile."""
    reply = OPERATIONS[request.opcode](engine, worker, request)
    if isinstance(reply, bytes) and _routed(engine, request.nodeid):
        at = wire.OUT_HEADER_SIZE
        return reply[:at] + bytes(12) + reply[at + 12 :]
    return reply


@_serves(Opcode.LOOKUP, Opcode.LINK)
def entry(engine: Engine, worker: Worker, request: Request) -> Reply:
    """As `attributes`, of a name. The name itself may be remembered as long as any other."""
    reply = OPERATIONS[request.opcode](engine, worker, request)
    at = wire.OUT_HEADER_SIZE
    if isinstance(reply, bytes) and _routed(engine, _NUMBER.unpack_from(reply, at)[0]):
        changed = bytearray(reply)
        _NUMBER.pack_into(changed, at + _ATTR_VALID_AT, 0)
        _HALF.pack_into(changed, at + _ATTR_VALID_NS_AT, 0)
        return bytes(changed)
    return reply


@_serves(Opcode.READDIR, Opcode.READDIRPLUS)
def readdir(engine: Engine, worker: Worker, request: Request) -> Reply:
    """The names in the local directory, or as usual, but nothing about routed files: a listing
    does not know their size."""
    handle, routing = engine.handles.get(request.body.fh), engine.routing
    if handle is not None and routing is not None and handle.listing is None:
        node = handle.node
        engine.order.enter(node.id, node, worker)
        try:
            if handle.listing is None and routing.current(handle) is not None:
                handle.listing = routing.listing(handle)
        finally:
            engine.order.leave(node.id)
    reply = OPERATIONS[request.opcode](engine, worker, request)
    if request.opcode == Opcode.READDIRPLUS and isinstance(reply, bytes | memoryview):
        return _without_routed(engine, reply)
    return reply


def _without_routed(engine: Engine, reply: bytes | memoryview) -> Reply:
    """The same listing with the names only of routed files."""
    changed: bytearray | None = None
    at = wire.OUT_HEADER_SIZE
    while at < len(reply):
        fields = _PLUS.unpack_from(reply, at)
        if fields[0] and _routed(engine, fields[0]):
            changed = changed or bytearray(reply)
            _NUMBER.pack_into(changed, at, 0)
            engine.nodes.forget(fields[0], 1)
        at += (_PLUS.size + fields[-2] + 7) & ~7
    return reply if changed is None else bytes(changed)


# --- extended attributes -------------------------------------------------------------------------


def _xattr_flag(name: bytes, change: bool) -> int:
    if name.startswith(_USER):
        return c.CBFS_ROUTE_SET_EA_EVENT if change else c.CBFS_ROUTE_QUERY_EA_EVENT
    if name == _SECURITY:
        return c.CBFS_ROUTE_SET_SECURITY_EVENT if change else c.CBFS_ROUTE_GET_SECURITY_EVENT
    return 0


def _some_day(reply: Reply) -> Reply:
    """Not "never ask again", which would hold for routed items, too."""
    return errno.EOPNOTSUPP if reply == errno.ENOSYS else reply


def _local_xattr(
    engine: Engine,
    worker: Worker,
    request: Request,
    flag: int,
    serve: Callable[[Route], Reply],
) -> Reply:
    """Serve by the local file, unless the item is not routed or the event of `flag` fires."""
    node, routing = engine.nodes.get(request.nodeid), engine.routing
    usual = OPERATIONS[request.opcode]
    if node is None or routing is None or not flag:
        return _some_day(usual(engine, worker, request))
    engine.order.enter(node.id, node, worker)
    try:
        route = routing.of(node)
        if route is not None and not route.fires(flag):
            return serve(route)
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        engine.order.leave(node.id)
    return _some_day(usual(engine, worker, request))


@_serves(Opcode.GETXATTR)
def get_xattr(engine: Engine, worker: Worker, request: Request) -> Reply:
    """An attribute `user.…`, or the security descriptor, of the local file."""
    return _local_xattr(
        engine,
        worker,
        request,
        _xattr_flag(request.name, False),
        lambda route: _sized(request, os.getxattr(route.fd, request.name)),
    )


@_serves(Opcode.LISTXATTR)
def list_xattrs(engine: Engine, worker: Worker, request: Request) -> Reply:
    """The names `user.…` that the local file has."""

    def names(route: Route) -> Reply:
        found = [os.fsencode(name) for name in os.listxattr(route.fd)]
        return _sized(request, b"".join(n + b"\0" for n in found if n.startswith(_USER)))

    return _local_xattr(engine, worker, request, c.CBFS_ROUTE_QUERY_EA_EVENT, names)


@_serves(Opcode.SETXATTR, Opcode.REMOVEXATTR)
def change_xattr(engine: Engine, worker: Worker, request: Request) -> Reply:
    """Set or remove such an attribute of the local file."""

    def change(route: Route) -> Reply:
        if route.refusal:
            return route.refusal
        if request.opcode == Opcode.REMOVEXATTR:
            os.removexattr(route.fd, request.name)
        else:
            os.setxattr(route.fd, request.name, bytes(request.data or b""), request.body.flags)
        return wire.empty(request.unique)

    return _local_xattr(engine, worker, request, _xattr_flag(request.name, True), change)


def _sized(request: Request, value: bytes) -> Reply:
    limit = request.body.size
    if not limit:
        return wire.xattr_size(request.unique, len(value))
    return errno.ERANGE if len(value) > limit else wire.data(request.unique, value)


__all__ = ["ROUTED_OPERATIONS"]
