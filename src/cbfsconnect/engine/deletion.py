"""Deleting items: who may, when, and what happens to those that are still open.

On Windows a deleted item goes with its last handle; on Linux its name is free at once while those
who have it open go on. Between the two the engine keeps the promise of both sides: the kernel sees
the name vanish, and the handlers see `on_close_file` with `delete_file` and then `on_delete_file`
when the last handle is gone. Until then the name is hidden; if somebody wants it for a new item,
the hidden one is renamed out of the way first.

Drives that can do what Linux does say so with the setting PosixDelete: for them `on_delete_file`
fires at once, and later events of the open item carry its context and its last name.
"""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING

from cbfsconnect.engine import access
from cbfsconnect.engine.handles import which
from cbfsconnect.engine.listing import Listing
from cbfsconnect.engine.nodes import Directory
from cbfsconnect.events import (
    CBFSCanFileBeDeletedEventParams,
    CBFSDeleteFileEventParams,
    CBFSIsDirectoryEmptyEventParams,
    CBFSRenameOrMoveFileEventParams,
)

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.nodes import Node
    from cbfsconnect.engine.routing import Routing
    from cbfsconnect.fuse.wire import Request


_serial = itertools.count(1)
"""Makes the names of hidden items unique."""


def is_hidden(node: Node | None) -> bool:
    """Whether the item is deleted for the kernel while the drive still has it."""
    return node is not None and node.open is not None and node.open.deleted


class Deletion:
    """The deletion of one drive's items."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._on = engine.on
        self._options = engine.options

    def take_away(self, node: Node, parent: Directory, name: str, request: Request) -> int:
        """Delete the item under one of its names, as UNLINK and RMDIR ask; 0 or an errno."""
        engine = self._engine
        engine.nodes.prefer(node, parent, name)
        handle = engine.handles.open(node, access.DELETE[which(node)], request)
        if isinstance(handle, int):
            return handle
        if engine.routing is not None and engine.routing.removes_locally(node):
            return self._remove_local(engine.routing, node, parent, name, handle)
        error = self._may_be_deleted(node, handle)
        if not error and isinstance(node, Directory):
            error = self._move_hidden_out(node)
        if error:
            engine.handles.close(handle)
            return error
        if handle.state.handles == 1:
            return self._remove_closed(node, parent, name, handle)
        return self._remove_open(node, parent, name, handle)

    def finish(self, node: Node, context: object) -> int:
        """Fire `on_delete_file` after the last close; 0 or an errno."""
        error = self._fire_delete(node.path, context)
        if not error:
            self._engine.nodes.remove_name(node.parent, node.name)
        return error

    def free_name(self, parent: Directory, name: str) -> int:
        """Rename a hidden item away whose name is wanted; 0 or an errno."""
        node = parent.children.get(parent.spelled(name))
        if node is None or not is_hidden(node):
            return 0
        return self._rename_away(node, parent)

    def hide(self, node: Node) -> int:
        """Hide an open item that another one is about to replace; 0 or an errno."""
        state = node.open
        if state is None or self._options.posix_delete or self._has_other_links(node, node.path):
            return 0
        if self._engine.routing is not None and self._engine.routing.replaces_locally(node):
            return 0
        error = self._rename_away(node, node.parent)
        if not error:
            state.deleted = state.delete_on_close = True
        return error

    def show(self, node: Node, parent: Directory, name: str) -> None:
        """Give an item its name back that was hidden for nothing."""
        state = node.open
        if state is not None and state.deleted and not self._rename(node, parent, name):
            state.deleted = state.delete_on_close = False

    def _remove_local(
        self, routing: Routing, node: Node, parent: Directory, name: str, handle: Handle
    ) -> int:
        """The local file of a routed item is deleted at once; who has it open goes on."""
        error = 0
        if isinstance(node, Directory) and self._options.use_directory_empty_check:
            error = self._is_empty(node, handle)
        error = error or routing.remove(node)
        self._engine.handles.close(handle)
        if not error:
            self._engine.nodes.remove_name(parent, name)
        return error

    def _remove_closed(self, node: Node, parent: Directory, name: str, handle: Handle) -> int:
        """Nobody else has it open: closing the request's own handle deletes it."""
        handle.state.delete_on_close = True
        return self._engine.handles.close(handle)

    def _remove_open(self, node: Node, parent: Directory, name: str, handle: Handle) -> int:
        engine = self._engine
        path = node.path
        if self._options.posix_delete or self._has_other_links(node, path):
            error = self._fire_delete(path, handle.state.context)
            engine.handles.close(handle)
            if not error:
                engine.nodes.remove_name(parent, name)
            return error
        engine.handles.close(handle)
        handle.state.deleted = handle.state.delete_on_close = True
        return 0

    def _has_other_links(self, node: Node, path: str) -> bool:
        if not self._options.use_hard_links or isinstance(node, Directory):
            return False
        params = self._engine.info(path, node)
        links = 1 if isinstance(params, int) else params.hard_link_count
        return isinstance(links, int) and links > 1

    def _fire_delete(self, path: str, context: object) -> int:
        handler = self._on.on_delete_file
        if handler is None:
            return errno.EROFS
        return self._engine.fire(handler, CBFSDeleteFileEventParams(path, context))

    def _may_be_deleted(self, node: Node, handle: Handle) -> int:
        if self._on.on_delete_file is None:
            return errno.EROFS
        handler = self._on.on_can_file_be_deleted
        if handler is not None:
            state = handle.state
            params = CBFSCanFileBeDeletedEventParams(
                node.path, handle.id, state.context, handle.context
            )
            error = self._engine.fire(handler, params)
            state.context, handle.context = params.file_context, params.handle_context
            if error:
                return error
            if not params.can_be_deleted:
                return errno.EACCES  # ERROR_ACCESS_DENIED, as Windows answers
        if isinstance(node, Directory) and self._options.use_directory_empty_check:
            return self._is_empty(node, handle)
        return 0

    def _is_empty(self, node: Directory, handle: Handle) -> int:
        routing = self._engine.routing
        local = None if routing is None else routing.is_empty(node)
        if local is not None:
            return local
        handler = self._on.on_is_directory_empty
        if handler is None:
            return self._has_no_entry(handle)
        params = CBFSIsDirectoryEmptyEventParams(node.path, handle.state.context)
        error = self._engine.fire(handler, params)
        handle.state.context = params.directory_context
        if error:
            return error
        if params.is_empty or self._only_hidden_inside(node, handle):
            return 0
        return errno.ENOTEMPTY

    def _only_hidden_inside(self, node: Directory, handle: Handle) -> bool:
        """Whether what the drive still has in there is deleted already for everybody else."""
        hidden = any(is_hidden(child) for child in node.children.values())
        return hidden and self._has_no_entry(handle) == 0

    def _has_no_entry(self, handle: Handle) -> int:
        listing, node = Listing(self._engine, handle), handle.node
        assert isinstance(node, Directory)
        try:
            while True:
                error = listing.advance()
                if error or not listing.found:
                    return error
                if not is_hidden(node.children.get(listing.params.file_name)):
                    return errno.ENOTEMPTY
        finally:
            listing.close()

    def _move_hidden_out(self, directory: Directory) -> int:
        """Move hidden items of a directory that is to be deleted to the root."""
        for child in list(directory.children.values()):
            if is_hidden(child):
                error = self._rename_away(child, self._engine.nodes.root)
                if error:
                    return error
        return 0

    def _rename_away(self, node: Node, parent: Directory) -> int:
        return self._rename(node, parent, f".cbfs-deleted-{node.id:x}-{next(_serial):x}")

    def _rename(self, node: Node, parent: Directory, name: str) -> int:
        handler = self._on.on_rename_or_move_file
        if handler is None:
            return errno.EBUSY
        context = node.open.context if node.open is not None else 0
        params = CBFSRenameOrMoveFileEventParams(
            node.path, parent.prefix + name, file_context=context
        )
        error = self._engine.fire(handler, params)
        if not error:
            if node.open is not None:
                node.open.context = params.file_context
            self._engine.nodes.rename(node.parent, node.name, parent, name)
        return error
