"""GETLK, SETLK, SETLKW, INTERRUPT: byte-range locks, and giving up waiting for one."""

from __future__ import annotations

import errno
import fcntl
from typing import TYPE_CHECKING

from cbfsconnect.engine.locks import Lock
from cbfsconnect.engine.operations.table import Reply, serves
from cbfsconnect.fuse import abi, wire
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.wire import Request


@serves(Opcode.GETLK)
def get_lock(engine: Engine, worker: Worker, request: Request) -> Reply:
    """Which lock stands in the way, if any?"""
    handle = engine.handles.get(request.body.fh)
    if handle is None:
        return errno.EBADF
    node = handle.node
    engine.order.enter(node.id, node, worker)
    try:
        found = engine.locks.conflict(_wanted(handle, request))
        if found is None:
            return wire.lock(request.unique, 0, 0, fcntl.F_UNLCK, 0)
        return wire.lock(request.unique, found.start, found.end, found.kind, found.process)
    finally:
        engine.order.leave(node.id)


@serves(Opcode.SETLK, Opcode.SETLKW)
def set_lock(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_lock_file` or `on_unlock_file`; a lock that must be waited for is answered later."""
    handle = engine.handles.get(request.body.fh)
    if handle is None:
        return errno.EBADF
    node = handle.node
    engine.order.enter(node.id, node, worker)
    try:
        wanted = _wanted(handle, request)
        if wanted.kind == fcntl.F_UNLCK:
            engine.locks.unlock(wanted)
            return wire.empty(request.unique)
        wait = request.opcode == Opcode.SETLKW
        error = engine.locks.lock(wanted, request.unique, wait=wait)
        if error is None:
            return None
        return error or wire.empty(request.unique)
    finally:
        engine.order.leave(node.id)


@serves(Opcode.INTERRUPT)
def interrupt(engine: Engine, worker: Worker, request: Request) -> Reply:
    """A client was interrupted: it waits no more for its lock. Other requests run to their end."""
    unique = request.body.unique
    waiting = engine.locks.interrupt(unique)
    if waiting is None:
        return None
    node = waiting.handle.node
    engine.order.enter(node.id, node, worker)
    try:
        if engine.locks.cancel(unique) is not None:
            engine.send(wire.error(unique, errno.EINTR))
    finally:
        engine.order.leave(node.id)
    return None


def _wanted(handle: Handle, request: Request) -> Lock:
    body = request.body
    flock = bool(body.lk_flags & abi.LK_FLOCK)
    return Lock(body.start, body.end, body.type, body.owner, body.pid, flock, handle)
