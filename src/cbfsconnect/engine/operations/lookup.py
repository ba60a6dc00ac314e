"""LOOKUP, FORGET, BATCH_FORGET: names to nodes, and what the kernel has forgotten."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from cbfsconnect.engine.deletion import is_hidden
from cbfsconnect.engine.engine import HAS_EPOCHS
from cbfsconnect.engine.ids import path_of_id
from cbfsconnect.engine.nodes import Directory, Node
from cbfsconnect.engine.operations.table import Reply, serves, text
from cbfsconnect.fuse import wire
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.events import CBFSGetFileInfoEventParams
    from cbfsconnect.fuse.wire import Request

_SHORT = re.compile(r"[^.]{1,8}(\.[^.]{1,3})?")
"""What a short name looks like."""
_NO_ATTRIBUTES = wire.attributes(*(0,) * 16)


@serves(Opcode.LOOKUP)
def lookup(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_get_file_info` of a name, and its node."""
    if request.name in (b".", b".."):
        return _lookup_by_handle(engine, worker, request)
    parent = engine.nodes.get(request.nodeid)
    if parent.__class__ is not Directory:
        return errno.ESTALE if parent is None else errno.ENOTDIR
    if len(request.name) > engine.options.max_file_name_length:
        return errno.ENAMETOOLONG
    name = text(request.name)
    if engine.reserved and engine.cannot_be_named(name):
        return errno.ENOENT
    child = parent.children.get(name)
    if child is None and parent.spellings is not None:
        child = parent.children.get(parent.spelled(name))
    key = -request.unique if child is None else child.id
    engine.order.enter(key, parent if child is None else child, worker)
    try:
        if is_hidden(child):
            return _missing(engine, request.unique, parent, name)
        if parent.shorts is not None and (found := engine.info_by_short_name(parent, name)):
            known, real = found
            return _other_spelling(engine, request.unique, parent, name, real, known)
        params = engine.info(parent.prefix + name, child)
        if isinstance(params, int):
            if params != errno.ENOENT:
                return params
            if child is not None and parent.children.get(name) is child:
                engine.nodes.remove_name(parent, name)  # the drive removed it by itself
            return _missing(engine, request.unique, parent, name)
        if params.real_file_name or engine.respells:
            real = engine.spelling(parent, name, params)
            if engine.options.use_short_file_names:
                engine.note_short_name(parent, real, params.short_file_name)
            if real != name:
                return _other_spelling(engine, request.unique, parent, name, real, params)
        return engine.entry_reply(request.unique, parent, name, params)
    finally:
        engine.order.leave(key)


@serves(Opcode.FORGET)
def forget(engine: Engine, worker: Worker, request: Request) -> Reply:
    """The kernel dropped an inode."""
    engine.nodes.forget(request.nodeid, request.fields[0])
    return None


@serves(Opcode.BATCH_FORGET)
def batch_forget(engine: Engine, worker: Worker, request: Request) -> Reply:
    """The kernel dropped several inodes."""
    forget_one = engine.nodes.forget
    for node_id, count in request.fields:
        forget_one(node_id, count)
    return None


def _missing(engine: Engine, unique: int, parent: Directory, name: str) -> Reply:
    if not engine.options.nonexistent_cache:
        return errno.ENOENT
    if engine.options.use_short_file_names and _SHORT.fullmatch(name):
        return errno.ENOENT  # any new item may have it for its short name
    # Made under another spelling it exists, and the kernel must be told in time.
    exact = engine.options.use_case_sensitive_file_names
    if not exact and not (HAS_EPOCHS and parent.note_absent(name)):
        return errno.ENOENT
    if engine.absent_bound is not None:
        engine.absent_bound.note((parent.id, engine.fsencode(name)))
    s, ns = engine.valid_s, engine.valid_ns
    return wire.entry(unique, 0, 0, s, ns, 0, 0, _NO_ATTRIBUTES)


def _other_spelling(
    engine: Engine,
    unique: int,
    parent: Directory,
    name: str,
    real: str,
    params: CBFSGetFileInfoEventParams,
) -> Reply:
    """The item of the stored name. The kernel asks each time when somebody uses another spelling,
    since it does not know that a change of the one is a change of the other."""
    parent.note_spelling(name, real)
    if is_hidden(parent.children.get(real)):
        return _missing(engine, unique, parent, name)
    if name in parent.children:
        engine.nodes.rename(parent, name, parent, real)  # the drive changed the spelling itself
    return engine.entry_reply(unique, parent, real, params, keep=False)


def _lookup_by_handle(engine: Engine, worker: Worker, request: Request) -> Reply:
    """open_by_handle_at(2) and NFS: the item of a file id that the kernel knew once ("."), or the
    directory it is in ("..")."""
    node = engine.nodes.get(request.nodeid)
    taken: list[Node] = []
    if node is None:
        node = _resolve_id(engine, request.nodeid, taken)
    if node is None:
        _release(engine, taken)
        return errno.ESTALE
    if request.name == b"..":
        node = node.parent
    engine.order.enter(node.id, node, worker)
    try:
        params = engine.info(node.path, node)
        if isinstance(params, int):
            return errno.ESTALE if params == errno.ENOENT else params
        if node is engine.nodes.root:
            return engine.node_reply(request.unique, node, params)
        return engine.entry_reply(request.unique, node.parent, node.name, params)
    finally:
        engine.order.leave(node.id)
        _release(engine, taken)


def _resolve_id(engine: Engine, node_id: int, taken: list[Node]) -> Node | None:
    """Find the item of an id by its path; the nodes that this makes are `taken` until released."""
    path = path_of_id(engine, node_id) if engine.options.stable_ids else None
    if path is None:
        return None
    node: Node = engine.nodes.root
    for name in path.split(engine.options.separator):
        if not name:
            continue
        if not isinstance(node, Directory):
            return None
        params = engine.info(node.prefix + name, node.children.get(name))
        if isinstance(params, int):
            return None
        node = engine.identify(node, name, params)
        taken.append(node)
    return node if node.id == node_id else None


def _release(engine: Engine, taken: list[Node]) -> None:
    for node in reversed(taken):
        engine.nodes.release(node)
