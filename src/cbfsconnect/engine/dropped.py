"""Replies that do not reach the kernel: what they gave it is taken back.

A handler that returns after its event has timed out, or after media was taken out, has a reply that
nobody wants any more. The handle in it would stay open for ever, and the nodes it names would never
be forgotten, since the kernel knows of neither.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cbfsconnect.fuse import abi, wire
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.operations import Reply
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.wire import Request

_NUMBER = struct.Struct("=Q")
_ENTRY_SIZE = abi.layout(abi.EntryOut).size
_PLUS = abi.layout(abi.Direntplus)

_OPENS = {
    Opcode.OPEN: wire.OUT_HEADER_SIZE,
    Opcode.OPENDIR: wire.OUT_HEADER_SIZE,
    Opcode.CREATE: wire.OUT_HEADER_SIZE + _ENTRY_SIZE,
}
"""Where the reply has the handle."""

_NAMES = {Opcode.LOOKUP, Opcode.MKNOD, Opcode.MKDIR, Opcode.SYMLINK, Opcode.LINK, Opcode.CREATE}
"""Whose replies begin with the node that they name."""


def take_back(engine: Engine, worker: Worker, request: Request, reply: Reply) -> None:
    """Close the handle, and forget the nodes, of a reply that was not sent."""
    if not isinstance(reply, bytes | memoryview):
        return
    at = _OPENS.get(Opcode(request.opcode))
    if at is not None:
        _close(engine, worker, _NUMBER.unpack_from(reply, at)[0])
    for node_id in _nodes_in(Opcode(request.opcode), reply):
        engine.nodes.forget(node_id, 1)


def _close(engine: Engine, worker: Worker, handle_id: int) -> None:
    handle = engine.handles.get(handle_id)
    if handle is None:
        return
    node = handle.node
    engine.order.enter(node.id, node, worker)
    try:
        engine.handles.close(handle)
    finally:
        engine.order.leave(node.id)


def _nodes_in(opcode: Opcode, reply: bytes | memoryview) -> Iterator[int]:
    at = wire.OUT_HEADER_SIZE
    if opcode in _NAMES:
        yield _NUMBER.unpack_from(reply, at)[0]
    if opcode != Opcode.READDIRPLUS:
        return
    while at < len(reply):
        fields = _PLUS.unpack_from(reply, at)
        yield fields[0]
        name_length = fields[-2]
        at += (_PLUS.size + name_length + 7) & ~7
