"""OPEN, OPENDIR, FLUSH, RELEASE, RELEASEDIR: handles come and go."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cbfsconnect.engine import access, access_time
from cbfsconnect.engine.content import set_size
from cbfsconnect.engine.deletion import is_hidden
from cbfsconnect.engine.nodes import Directory
from cbfsconnect.engine.operations.attributes import kill_privileges, repeat_times
from cbfsconnect.engine.operations.table import Reply, serves
from cbfsconnect.fuse import abi, wire
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.nodes import Node
    from cbfsconnect.engine.routing import Routing
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.wire import Request


@serves(Opcode.OPEN, Opcode.OPENDIR)
def open_(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_open_file`, and with O_TRUNC `on_set_file_size`."""
    node = engine.nodes.get(request.nodeid)
    if node is None or is_hidden(node):
        return errno.ESTALE
    flags, more_flags = request.fields
    engine.order.enter(node.id, node, worker)
    try:
        wanted = access.of_open(flags, node.__class__ is Directory)
        handle = engine.handles.open(node, wanted, request)
        if isinstance(handle, int):
            return handle
        handle.flags = flags
        if flags & os.O_TRUNC:
            error = truncate(engine, node, handle, more_flags)
            if error:
                engine.handles.close(handle)
                return error
        if engine.routing is not None:
            how = routed_open(engine.routing, handle, request.uid, open_flags(engine, node))
            return wire.opened(request.unique, handle.id, *how)
        return wire.opened(request.unique, handle.id, open_flags(engine, node))
    finally:
        engine.order.leave(node.id)


@serves(Opcode.FLUSH)
def flush(engine: Engine, worker: Worker, request: Request) -> Reply:
    """A process closed a descriptor: `on_cleanup_file`, whose error close(2) returns."""
    handle_id, _, _, lock_owner = request.fields
    handle = engine.handles.get(handle_id)
    if handle is None:
        return errno.EBADF
    node = handle.node
    engine.order.enter(node.id, node, worker)
    try:
        engine.locks.release_owner(handle, lock_owner)
        if node.told is not None:
            repeat_times(engine, node, handle)
        if node.accessed is not None and not handle.flags & access_time.NOT_READ:
            access_time.note_access(engine, node, handle)
        return engine.handles.flush(handle) or wire.empty(request.unique)
    finally:
        engine.order.leave(node.id)


@serves(Opcode.RELEASE, Opcode.RELEASEDIR)
def release(engine: Engine, worker: Worker, request: Request) -> Reply:
    """The last reference is gone: `on_close_file`, and what was waiting for it."""
    handle = engine.handles.get(request.fields[0])
    if handle is None:
        return wire.empty(request.unique)
    node = handle.node
    engine.order.enter(node.id, node, worker)
    try:
        engine.locks.release_handle(handle)
        if node.told is not None:
            repeat_times(engine, node, handle)
        engine.handles.close(handle)
        return wire.empty(request.unique)  # nobody waits for a release: errors cannot be told
    finally:
        engine.order.leave(node.id)


def open_flags(engine: Engine, node: Node) -> int:
    """How the kernel shall treat the data of a file that was just opened (FOPEN_…)."""
    if node.__class__ is Directory:
        return 0
    options = engine.options
    if not options.kernel_cache:
        return abi.FOPEN_DIRECT_IO
    # With write-back the kernel does not notice that the drive's data changed: unless the drive
    # says that only the kernel changes them, each open begins with what the handlers give.
    if options.write_back and options.metadata_timeout >= 0:
        return 0
    return abi.FOPEN_KEEP_CACHE


def routed_open(
    routing: Routing, handle: Handle, uid: int, flags: int, new: bool = False
) -> tuple[int, int]:
    """The same on a drive that routes: the flags, and the number of the backing file.

    `flags` are those of an item that is not routed; `new`: the kernel has not known it so far.
    """
    how = routing.opened(handle, uid, new)
    if how is not None:
        return how
    if routing.forgets_cache(handle.node):
        flags &= ~abi.FOPEN_KEEP_CACHE
    return flags, 0


def truncate(engine: Engine, node: Node, handle: Handle, open_flags: int) -> int:
    """What O_TRUNC does to a file that was just opened; 0 or an errno."""
    error = set_size(engine, node, handle, 0)
    if not error and open_flags & abi.OPEN_KILL_SUIDGID:
        error = kill_privileges(engine, node, handle)
    return error
