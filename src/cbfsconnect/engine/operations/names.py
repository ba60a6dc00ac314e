"""UNLINK, RMDIR, RENAME, RENAME2: names go and move."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cbfsconnect.engine import access
from cbfsconnect.engine.deletion import is_hidden
from cbfsconnect.engine.handles import which
from cbfsconnect.engine.nodes import Directory, Node
from cbfsconnect.engine.operations.table import Reply, serves, text
from cbfsconnect.events import CBFSRenameOrMoveFileEventParams
from cbfsconnect.fuse import wire
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.routing import Routing
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.wire import Request

_NOREPLACE = 1
_EXCHANGE = 2


@serves(Opcode.UNLINK, Opcode.RMDIR)
def remove(engine: Engine, worker: Worker, request: Request) -> Reply:
    """May it be deleted? Then delete it, at once or with its last handle."""
    parent = engine.nodes.get(request.nodeid)
    if not isinstance(parent, Directory):
        return errno.ESTALE
    found = _child(engine, parent, text(request.name))
    if isinstance(found, int):
        return found
    child, name = found
    items = {child.id: child}
    if isinstance(child, Directory):
        # Those deleted in it while they were open are moved out of its way.
        items |= {node.id: node for node in list(child.children.values()) if is_hidden(node)}
    engine.order.enter_all(items)
    try:
        if is_hidden(child):
            return errno.ENOENT
        error = engine.deletion.take_away(child, parent, name, request)
        if not error and name != text(request.name):
            engine.forget_spellings(parent, name)
        return error or wire.empty(request.unique)
    finally:
        engine.order.leave_all(items)
        engine.nodes.release(child)


@serves(Opcode.RENAME, Opcode.RENAME2)
def rename(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_rename_or_move_file`; an existing target is replaced, or swapped."""
    flags = request.body.flags if request.opcode == Opcode.RENAME2 else 0
    parent = engine.nodes.get(request.nodeid)
    new_parent = engine.nodes.get(request.body.newdir)
    if not isinstance(parent, Directory) or not isinstance(new_parent, Directory):
        return errno.ESTALE
    if engine.on.on_rename_or_move_file is None:
        return errno.EROFS
    if flags & ~(_NOREPLACE | _EXCHANGE):
        return errno.EINVAL
    if flags & _EXCHANGE and not engine.options.support_exchange:
        return errno.EINVAL
    if len(request.name2) > engine.options.max_file_name_length:
        return errno.ENAMETOOLONG
    name, new_name = text(request.name), text(request.name2)
    if engine.reserved and engine.cannot_be_named(new_name):
        return errno.EINVAL
    found = _child(engine, parent, name)
    if isinstance(found, int):
        return found
    node, name = found
    try:
        if is_hidden(node):
            return errno.ENOENT
        if isinstance(node, Directory) and new_parent.is_below(node):
            return errno.EINVAL
        # The kernel has looked the target up: what has no node does not exist.
        real = new_parent.spelled(new_name)
        target = new_parent.children.get(real)
        if target is node and real != new_name:
            target = None  # another spelling is wanted
        elif target is not None and not is_hidden(target):
            new_name = real
        if flags & _EXCHANGE and (target is None or is_hidden(target)):
            return errno.ENOENT
        if flags & _NOREPLACE and target is not None and not is_hidden(target):
            return errno.EEXIST
        move = _Move(engine, request, node, parent, name, new_parent, new_name, target)
        error = _in_order(engine, move, bool(flags & _EXCHANGE))
        return error or wire.empty(request.unique)
    finally:
        engine.nodes.release(node)


class _Move:
    """One rename with all that is known of it."""

    def __init__(
        self,
        engine: Engine,
        request: Request,
        node: Node,
        parent: Directory,
        name: str,
        new_parent: Directory,
        new_name: str,
        target: Node | None,
    ) -> None:
        self.engine = engine
        self.request = request
        self.node = node
        self.old = (parent, name)
        self.new = (new_parent, new_name)
        self.target = target

    def items(self) -> dict[int, Node]:
        """What nobody else may be in meanwhile: the new name counts, target or not."""
        nodes = {self.node.id: self.node, -self.request.unique: self.new[0]}
        if self.target is not None:
            nodes[self.target.id] = self.target
        return nodes

    def directories(self) -> list[Directory]:
        """The directories whose paths change."""
        return [n for n in (self.node, self.target) if isinstance(n, Directory)]

    def run(self, exchange: bool) -> int:
        """Make way, fire the event, and note the new names; 0 or an errno."""
        engine = self.engine
        engine.nodes.prefer(self.node, *self.old)
        if exchange:
            error = self._fire(exchange=True)
            if not error:
                engine.nodes.exchange(self.old, self.new)
            return error
        replaced = None if is_hidden(self.target) else self.target
        error = engine.deletion.free_name(*self.new) or self._make_way()
        if error:
            return error
        closed = [] if engine.options.fast_rename else self._close_handles()
        error = self._fire(exchange=False)
        if not error:
            engine.nodes.rename(*self.old, *self.new)
        elif replaced is not None:
            engine.deletion.show(replaced, *self.new)
        self._reopen(closed)
        return error

    def _make_way(self) -> int:
        """Deal with a target that the drive may not be able to replace while it is there."""
        target, engine = self.target, self.engine
        if target is None or is_hidden(target) or engine.options.posix_delete:
            return 0
        engine.nodes.prefer(target, *self.new)
        if isinstance(target, Directory):
            return engine.deletion.take_away(target, *self.new, self.request)
        return engine.deletion.hide(target)

    def _fire(self, *, exchange: bool) -> int:
        engine = self.engine
        if engine.routing is not None and not exchange:
            return self._fire_or_route(engine.routing)
        return self._fire_event(exchange)

    def _fire_or_route(self, routing: Routing) -> int:
        path = self.new[0].prefix + self.new[1]
        local = routing.rename(self.node, path)
        if local is not None:
            return local
        cached = routing.cached_at(path)
        if cached is None:
            return self._fire_event(False)
        try:
            error = self._fire_event(False)
            if not error:
                routing.forget_cached(path, cached)
            return error
        finally:
            os.close(cached)

    def _fire_event(self, exchange: bool) -> int:
        engine = self.engine
        handler = engine.on.on_rename_or_move_file
        state = self.node.open
        new_parent, new_name = self.new
        params = CBFSRenameOrMoveFileEventParams(
            self.node.path,
            new_parent.prefix + new_name,
            exchange,
            0 if state is None else state.context,
        )
        error = engine.fire(handler, params)
        if state is not None:
            state.context = params.file_context
        return error

    def _close_handles(self) -> list[Handle]:
        """With FastRenameMove off the handlers see the file closed while it is renamed."""
        handles = [h for h in self.engine.handles.all() if h.node is self.node]
        for handle in handles:
            self.engine.handles.suspend(handle)
        return handles

    def _reopen(self, handles: list[Handle]) -> None:
        engine, wanted = self.engine, access.WRITE_DATA[which(self.node)]
        for count, handle in enumerate(handles):
            if engine.handles.resume(handle, wanted):
                # The contract: when one cannot be opened again, all are closed.
                for before in handles[:count]:
                    engine.handles.suspend(before)
                for closed in handles:
                    engine.locks.release_handle(closed)
                    if closed.listing is not None:
                        closed.listing.close()
                    engine.handles.discard(closed)
                self.node.open = None
                return


def _in_order(engine: Engine, move: _Move, exchange: bool) -> int:
    """Run a move when nobody else is in the items whose names or paths it changes."""
    items = move.items()
    places = engine.order.enter_all(items)
    moving: list[Directory] = []
    try:
        for directory in move.directories():
            moving.append(directory)
            engine.order.begin_move(directory, places)
        error = move.run(exchange)
        if not error:
            _tell_spellings(engine, move)
        return error
    finally:
        for directory in moving:
            engine.order.end_move(directory)
        engine.order.leave_all(items)


def _tell_spellings(engine: Engine, move: _Move) -> None:
    """The kernel knows what was moved by the names in the request; there may be other spellings."""
    named = (text(move.request.name), text(move.request.name2))
    if named != (move.old[1], move.new[1]):
        engine.forget_spellings(*move.old)
        engine.forget_spellings(*move.new)
    engine.made(*move.new)


def _child(engine: Engine, parent: Directory, name: str) -> tuple[Node, str] | int:
    """The node of a name, held until it is released, and the name as the drive spells it; an errno
    when there is none."""
    real = parent.spelled(name)
    child = parent.children.get(real)
    if child is not None:
        return engine.nodes.hold(child), real
    params = engine.info(parent.prefix + name, None)
    if isinstance(params, int):
        return params
    real = engine.spelling(parent, name, params)
    return engine.identify(parent, real, params), real
