"""CREATE, MKNOD, MKDIR, SYMLINK, LINK, READLINK: new names, and what links point to."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from cbfsconnect.engine import access, reparse
from cbfsconnect.engine.attributes import (
    NONSENSE,
    TAG_OF_KIND,
    attributes_of_mode,
    nonsense_in,
)
from cbfsconnect.engine.deletion import is_hidden
from cbfsconnect.engine.handles import Handle, OpenState
from cbfsconnect.engine.nodes import Directory, Node
from cbfsconnect.engine.operations.opening import open_flags, routed_open, truncate
from cbfsconnect.engine.operations.table import Reply, serves, text
from cbfsconnect.engine.reparse import get_reparse_data, set_reparse_data
from cbfsconnect.events import (
    CBFSCreateFileEventParams,
    CBFSCreateHardLinkEventParams,
    CBFSGetFileInfoEventParams,
)
from cbfsconnect.fuse import wire
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.wire import Request


@serves(Opcode.CREATE)
def create(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_create_file` of a regular file that stays open."""
    parent = engine.nodes.get(request.nodeid)
    if not isinstance(parent, Directory):
        return errno.ESTALE
    name, body = text(request.name), request.body
    key = _enter_name(engine, worker, request, parent, name)
    try:
        handle = _make(engine, request, parent, name, body.mode, 0, body.flags)
        if handle == errno.EEXIST and not body.flags & os.O_EXCL:
            # Somebody made it since the kernel looked: then open(2) opens it.
            handle = _open_existing(engine, request, parent, name)
        if isinstance(handle, int):
            return handle
        handle.flags = body.flags
        return _created_reply(engine, request, parent, name, handle)
    finally:
        engine.order.leave(key)


@serves(Opcode.MKNOD, Opcode.MKDIR)
def make_node(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_create_file` of a directory, file or special file, closed again at once."""
    parent = engine.nodes.get(request.nodeid)
    if not isinstance(parent, Directory):
        return errno.ESTALE
    name, mode, rdev = text(request.name), request.body.mode, 0
    if request.opcode == Opcode.MKDIR:
        mode |= stat.S_IFDIR
    else:
        rdev = request.body.rdev
        if mode & 0o170000 in TAG_OF_KIND and not engine.options.use_reparse_points:
            return errno.EPERM
    key = _enter_name(engine, worker, request, parent, name)
    try:
        handle = _make(engine, request, parent, name, mode, rdev, os.O_EXCL)
        if isinstance(handle, int):
            return handle
        if mode & 0o170000 in TAG_OF_KIND and engine.on.on_set_reparse_point is not None:
            error = set_reparse_data(engine, handle, reparse.of_special(mode, rdev))
            if error:
                return _undo(engine, handle, error)
        return _entry_of_new(engine, request, parent, name, handle)
    finally:
        engine.order.leave(key)


@serves(Opcode.SYMLINK)
def symlink(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_create_file`, then `on_set_reparse_point` with the target."""
    parent = engine.nodes.get(request.nodeid)
    if not isinstance(parent, Directory):
        return errno.ESTALE
    if not engine.options.use_reparse_points or engine.on.on_set_reparse_point is None:
        return errno.EPERM
    name = text(request.name)
    key = _enter_name(engine, worker, request, parent, name)
    try:
        handle = _make(engine, request, parent, name, stat.S_IFLNK | 0o777, 0, os.O_EXCL)
        if isinstance(handle, int):
            return handle
        error = set_reparse_data(engine, handle, reparse.of_symlink(request.name2))
        if error:
            return _undo(engine, handle, error)
        return _entry_of_new(engine, request, parent, name, handle)
    finally:
        engine.order.leave(key)


@serves(Opcode.LINK)
def link(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_create_hard_link`."""
    node = engine.nodes.get(request.body.oldnodeid)
    parent = engine.nodes.get(request.nodeid)
    if node is None or not isinstance(parent, Directory) or is_hidden(node):
        return errno.ESTALE
    if not engine.options.use_hard_links or engine.on.on_create_hard_link is None:
        return errno.EPERM
    name = text(request.name)
    if engine.reserved and engine.cannot_be_named(name):
        return errno.EINVAL
    items = {node.id: node, -request.unique: parent}
    hidden = parent.children.get(name)
    if hidden is not None:
        items[hidden.id] = hidden
    engine.order.enter_all(items)
    try:
        error = engine.deletion.free_name(parent, name)
        if error:
            return error
        handle = engine.handles.open(node, access.WRITE_ATTRIBUTES[0], request)
        if isinstance(handle, int):
            return handle
        path = parent.prefix + name
        local = None if engine.routing is None else engine.routing.link(node, path)
        error = _fire_create_hard_link(engine, node, handle, path) if local is None else local
        engine.handles.close(handle)
        if error:
            return error
        params = engine.info(path, node)
        if isinstance(params, int):
            return params
        engine.nodes.add_name(node, parent, name)
        engine.made(parent, name)
        return engine.entry_reply(request.unique, parent, name, params)
    finally:
        engine.order.leave_all(items)


@serves(Opcode.READLINK)
def readlink(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_get_reparse_point`: the target of a symbolic link."""
    node = engine.nodes.get(request.nodeid)
    if node is None:
        return errno.ESTALE
    engine.order.enter(node.id, node, worker)
    try:
        data = get_reparse_data(engine, node, request)
        if isinstance(data, int):
            return data
        try:
            target = reparse.target_of(data)
        except ValueError as error:
            return engine.nonsense("on_get_reparse_point", node.path, str(error))
        if not target or b"\0" in target or len(target) > 4095:
            return engine.nonsense("on_get_reparse_point", node.path, "not the target of a link")
        return wire.data(request.unique, target)
    finally:
        engine.order.leave(node.id)


def _enter_name(
    engine: Engine, worker: Worker, request: Request, parent: Directory, name: str
) -> int:
    """Enter the order of a name that is to be made."""
    child = parent.children.get(name)
    key = -request.unique if child is None else child.id
    engine.order.enter(key, parent if child is None else child, worker)
    return key


def _make(
    engine: Engine,
    request: Request,
    parent: Directory,
    name: str,
    mode: int,
    rdev: int,
    flags: int,
) -> Handle | int:
    """Fire `on_create_file`: a handle that is not counted as open yet, or an errno."""
    handler = engine.on.on_create_file
    if handler is None:
        return errno.EROFS
    if len(request.name) > engine.options.max_file_name_length:
        return errno.ENAMETOOLONG
    if engine.reserved and engine.cannot_be_named(name):
        return errno.EINVAL
    error = engine.deletion.free_name(parent, name)
    if error:
        return error
    if parent.inherit_gid is not None and stat.S_ISDIR(mode):
        mode |= stat.S_ISGID
    # What kind of thing the drive makes of it is known when it is asked for information.
    kind = mode & 0o170000 or stat.S_IFREG
    handle = engine.handles.add(Node(0, parent, name, kind), OpenState(), request)
    wanted = access.of_create(flags, attributes_of_mode(mode))
    desired, attributes, disposition = wanted
    params = CBFSCreateFileEventParams(
        parent.prefix + name,
        desired,
        attributes,
        access.SHARE_ALL,
        disposition,
        desired,
        handle.id,
        handle.id,
        mode,
        request.uid,
        engine.new_item_gid(parent, request.gid),
        rdev,
    )
    error = engine.fire(handler, params)
    handle.state.context, handle.context = params.file_context, params.handle_context
    if error:
        engine.handles.discard(handle)
        return error
    handle.state.size = 0
    if engine.routing is not None:
        engine.routing.created(handle)
    engine.handles.count(handle)
    if engine.routing is not None and (error := engine.routing.refusal(handle, wanted)):
        engine.handles.close(handle)
        return error
    return handle


def _open_existing(engine: Engine, request: Request, parent: Directory, name: str) -> Handle | int:
    params = engine.info(parent.prefix + name, None)
    if isinstance(params, int):
        return params
    name = engine.spelling(parent, name, params)
    node, flags = engine.identify(parent, name, params), request.body.flags
    try:
        if node.kind != stat.S_IFREG:
            return errno.ESTALE  # the kernel expects a file; now it looks again
        handle = engine.handles.open(node, access.of_open(flags, False), request)
        if flags & os.O_TRUNC and not isinstance(handle, int):
            error = truncate(engine, node, handle, request.body.open_flags)
            if error:
                engine.handles.close(handle)
                return error
        return handle
    finally:
        engine.nodes.release(node)


def _adopt(
    engine: Engine, parent: Directory, name: str, handle: Handle
) -> CBFSGetFileInfoEventParams | int:
    """Ask for the new item's information, and give its handle the node that is told to the kernel.

    The node is counted as looked up. On failure the handle is closed.
    """
    path = parent.prefix + name
    params = engine.info(path, handle.node)
    if isinstance(params, int):
        engine.handles.close(handle)
        return params
    try:
        if engine.attributes.mode_of(params) & 0o170000 != handle.node.kind:
            raise ValueError("it is another kind of item than was made")
        if not handle.node.id:
            # What had the name is gone, whoever removed it: the drive could make a new item.
            engine.nodes.remove_name(parent, name)
            engine.made(parent, name)
        node = engine.identify(parent, _noted(engine, parent, name, params), params)
    except (TypeError, ValueError) as error:
        engine.handles.close(handle)
        return engine.nonsense("on_get_file_info", path, nonsense_in(params) or str(error))
    if handle.node is not node:
        handle.node = node
        node.open = handle.state
    return params


def _noted(engine: Engine, parent: Directory, name: str, params: CBFSGetFileInfoEventParams) -> str:
    """The name as the drive has stored it."""
    real = engine.spelling(parent, name, params)
    if real != name:
        parent.note_spelling(name, real)
    return real


def _created_reply(
    engine: Engine, request: Request, parent: Directory, name: str, handle: Handle
) -> Reply:
    params = _adopt(engine, parent, name, handle)
    if isinstance(params, int):
        return params
    node = handle.node
    s, ns = engine.valid_s, engine.valid_ns
    # Another spelling than the stored one is not remembered; see lookup.
    of_name = (s, ns) if parent.children.get(name) is node else (0, 0)
    try:
        attr = engine.attr(node, params)
        how = open_flags(engine, node), 0
        if engine.routing is not None:
            how = routed_open(engine.routing, handle, request.uid, how[0], new=True)
            s, ns = _validity(engine, handle)
        return wire.created(request.unique, node.id, 0, *of_name, s, ns, attr, handle.id, *how)
    except NONSENSE as error:
        engine.handles.close(handle)
        engine.nodes.release(node)
        problem = nonsense_in(params) or str(error)
        return engine.nonsense("on_get_file_info", parent.prefix + name, problem)


def _validity(engine: Engine, handle: Handle) -> tuple[int, int]:
    """How long attributes stay valid: those of a routed file may change at any time."""
    routed = engine.routing is not None and engine.routing.hides(handle.state)
    return (0, 0) if routed else (engine.valid_s, engine.valid_ns)


def _entry_of_new(
    engine: Engine, request: Request, parent: Directory, name: str, handle: Handle
) -> Reply:
    """Close what was made, and name it to the kernel."""
    params = _adopt(engine, parent, name, handle)
    if isinstance(params, int):
        return params
    node = handle.node
    keep = parent.children.get(name) is node
    engine.handles.close(handle)
    return engine.node_reply(request.unique, node, params, keep)


def _undo(engine: Engine, handle: Handle, error: int) -> int:
    """Take back an item that could not be finished."""
    handle.state.delete_on_close = True
    engine.handles.close(handle)
    return error


def _fire_create_hard_link(engine: Engine, node: Node, handle: Handle, link_name: str) -> int:
    state = handle.state
    params = CBFSCreateHardLinkEventParams(
        node.path, link_name, handle.id, state.context, handle.context
    )
    error = engine.fire(engine.on.on_create_hard_link, params)
    state.context, handle.context = params.file_context, params.handle_context
    return error
