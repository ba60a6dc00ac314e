"""READ, WRITE, FSYNC, FSYNCDIR, SYNCFS, FALLOCATE: the data of open files."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from cbfsconnect.engine.content import read_into, set_size, size_of, write_cached, write_from
from cbfsconnect.engine.operations.attributes import kill_privileges, repeat_times
from cbfsconnect.engine.operations.table import Reply, serves
from cbfsconnect.events import CBFSFlushFileEventParams, CBFSSetAllocationSizeEventParams
from cbfsconnect.fuse import abi, wire
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.nodes import Node
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.wire import Request

_KEEP_SIZE = 1
_PUNCH_HOLE = 2
_ZERO_RANGE = 16
_ZEROS = memoryview(bytearray(1 << 20))


@serves(Opcode.READ)
def read(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_read_file` into the worker's buffer."""
    handle_id, position, size, _, _, _, _ = request.fields
    handle = engine.handles.get(handle_id)
    if handle is None:
        return errno.EBADF
    node = handle.node
    if engine.options.serialize_access:
        enter, leave = engine.order.enter, engine.order.leave
    else:
        enter, leave = engine.order.enter_shared, engine.order.leave_shared
    enter(node.id, node, worker)
    try:
        if not engine.options.read_outside_eof:
            size = _inside(engine, node, handle, position, size)
            if not size:
                return wire.empty(request.unique)
        done = read_into(engine, node, handle, position, worker.output(size))
        return worker.data_reply(request.unique, done) if done >= 0 else -done
    finally:
        leave(node.id)


@serves(Opcode.WRITE)
def write(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_write_file` from the request's own buffer."""
    handle_id, position, _, flags, _, _, _ = request.fields
    handle = engine.handles.get(handle_id)
    if handle is None:
        return errno.EBADF
    node = handle.node
    engine.order.enter(node.id, node, worker)
    try:
        data = request.data
        assert data is not None  # the decoder gives every WRITE its data
        if flags & abi.WRITE_CACHE:
            done = write_cached(engine, node, handle, position, data)
        else:
            done = write_from(engine, node, handle, position, data, False)
        if done < 0:
            return -done
        if flags & abi.WRITE_KILL_SUIDGID:
            error = kill_privileges(engine, node, handle)
            if error:
                return error
        return wire.written(request.unique, done)
    finally:
        engine.order.leave(node.id)


@serves(Opcode.FSYNC, Opcode.FSYNCDIR)
def fsync(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_flush_file`: what was written must be safe before the answer."""
    handle = engine.handles.get(request.body.fh)
    if handle is None:
        return errno.EBADF
    node = handle.node
    engine.order.enter(node.id, node, worker)
    try:
        repeat_times(engine, node, handle)
        error = _flush(engine, node.path, handle.state.context)
        return error or wire.empty(request.unique)
    finally:
        engine.order.leave(node.id)


@serves(Opcode.SYNCFS)
def syncfs(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_flush_file` of the whole drive."""
    return _flush(engine, "", 0) or wire.empty(request.unique)


@serves(Opcode.FALLOCATE)
def fallocate(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_set_allocation_size`, `on_set_file_size` for more size; holes as writes of zeros."""
    body = request.body
    handle = engine.handles.get(body.fh)
    if handle is None:
        return errno.EBADF
    if body.mode & ~(_KEEP_SIZE | _PUNCH_HOLE | _ZERO_RANGE):
        return errno.EOPNOTSUPP
    node = handle.node
    engine.order.enter(node.id, node, worker)
    try:
        size = size_of(engine, node, handle)
        if size < 0:
            return -size
        error = allocate(engine, node, handle, body, size)
        return error or wire.empty(request.unique)
    finally:
        engine.order.leave(node.id)


def _inside(engine: Engine, node: Node, handle: Handle, position: int, size: int) -> int:
    """How much of a read lies inside the file."""
    known = size_of(engine, node, handle)
    return size if known < 0 else max(0, min(size, known - position))


def _flush(engine: Engine, path: str, context: object) -> int:
    handler = engine.on.on_flush_file
    if handler is None:
        return 0
    return engine.fire(handler, CBFSFlushFileEventParams(path, context))


def allocate(engine: Engine, node: Node, handle: Handle, body: Any, size: int) -> int:
    """Do what a FALLOCATE asks of a file of this size; 0 or an errno."""
    end = body.offset + body.length
    if body.mode & (_PUNCH_HOLE | _ZERO_RANGE):
        error = _write_zeros(engine, node, handle, body.offset, min(end, size))
        if error or body.mode & _PUNCH_HOLE:
            return error
    elif engine.on.on_set_allocation_size is not None:
        state = handle.state
        params = CBFSSetAllocationSizeEventParams(
            node.path, end, handle.id, state.context, handle.context
        )
        error = engine.fire(engine.on.on_set_allocation_size, params)
        state.context, handle.context = params.file_context, params.handle_context
        if error:
            return error
    if end > size and not body.mode & _KEEP_SIZE:
        return set_size(engine, node, handle, end)
    return 0


def _write_zeros(engine: Engine, node: Node, handle: Handle, start: int, end: int) -> int:
    while start < end:
        step = min(end - start, len(_ZEROS))
        done = write_from(engine, node, handle, start, _ZEROS[:step], False)
        if done < 0:
            return -done
        start += done
    return 0
