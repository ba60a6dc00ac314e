"""Open items: handles, contexts, and when the events of opening and closing fire.

The rules are those of the vendor's "Contexts" topic. A file's context lives from its first open to
its last close, a handle's as long as the handle. With `fire_all_open_close_events` False only the
first open and the last close of a file fire events.

Linux says two things where Windows says cleanup and close: FLUSH, when a process closes a
descriptor (several times for one handle after dup or fork), and RELEASE, when the last reference is
gone. They are `on_cleanup_file` and `on_close_file`.
"""

from __future__ import annotations

import errno
import itertools
import os
import time
from typing import TYPE_CHECKING, Any

from cbfsconnect import constants as c
from cbfsconnect.engine.access import SHARE_ALL, Access
from cbfsconnect.engine.nodes import Directory
from cbfsconnect.events import (
    CBFSCleanupFileEventParams,
    CBFSCloseFileEventParams,
    CBFSOpenFileEventParams,
)

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.listing import Listing
    from cbfsconnect.engine.nodes import Node
    from cbfsconnect.engine.routing import Routing
    from cbfsconnect.fuse.wire import Request


class OpenState:
    """What all handles of one item share, there while it is open.

    `unflushed` counts handles that no process has closed yet. `size` is the file's size where the
    engine needs to know it, else None. `deleted`: the item is deleted for the kernel already while
    the drive has it still. `delete_on_close`: the last close deletes it. `access_is_set`: a program
    has set the time of last access, which closing leaves alone then.
    """

    __slots__ = (
        "access_is_set",
        "cleaned",
        "context",
        "delete_on_close",
        "deleted",
        "handles",
        "size",
        "unflushed",
    )

    def __init__(self) -> None:
        self.context: Any = 0
        self.handles = 0
        self.unflushed = 0
        self.cleaned = False
        self.deleted = False
        self.delete_on_close = False
        self.access_is_set = False
        self.size: int | None = None


class Handle:
    """One open of an item, by a thread of a process. `process` is 0 where nobody asked in time;
    `opened` is then 0 too, else nanoseconds since the machine started.

    `flags` are those of open(2); O_PATH for a handle that the library opened for a request.
    `offered`: a handler is deciding about the open, and may route it.
    """

    __slots__ = (
        "answers",
        "cleaned",
        "context",
        "flags",
        "flushed",
        "id",
        "listing",
        "locks",
        "node",
        "offered",
        "opened",
        "process",
        "state",
        "thread",
        "uid",
    )

    def __init__(self, handle_id: int, node: Node, state: OpenState, request: Request) -> None:
        self.id = handle_id
        self.node = node
        self.state = state
        self.context: Any = 0
        self.flags = os.O_PATH
        self.flushed = False
        self.cleaned = False
        self.listing: Listing | None = None
        self.locks: set[int] | None = None
        self.offered = True
        self.answers: dict[int, bytes] | None = None
        self.thread = request.pid
        self.process = 0
        self.opened = 0
        self.uid = request.uid


_next_id = itertools.count(1).__next__
"""No id is used twice in a process: a program may still use a handle of media that is out."""


class HandleTable:
    """All handles by id, and the firing of open, cleanup and close."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._on = engine.on
        self._fire_all = engine.options.fire_all_open_close_events
        self.routing: Routing | None = None
        self._handles: dict[int, Handle] = {}
        self.get = self._handles.get

    def __len__(self) -> int:
        return len(self._handles)

    def all(self) -> list[Handle]:
        """Every open handle."""
        return list(self._handles.values())

    def open(self, node: Node, access: Access, request: Request) -> Handle | int:
        """Open an existing item, with `on_open_file` where it is due; an errno when refused."""
        state = node.open
        first = state is None
        if first and node.id and node.is_gone:
            return errno.ESTALE  # open(2) then looks the name up anew
        handle = self.add(node, OpenState() if state is None else state, request)
        routing = self.routing
        due = first or self._fire_all if routing is None else routing.open_is_due(handle, first)
        if due:
            error = self.fire_open(handle, access)
            if error:
                self.discard(handle)
                return error
        self.count(handle)
        if self.routing is not None and (error := self.routing.refusal(handle, access)):
            self.close(handle)
            return error
        return handle

    def suspend(self, handle: Handle) -> None:
        """Close a handle for the handlers only: its file is about to be renamed."""
        state = handle.state
        state.handles -= 1
        if self._fire_all or state.handles == 0:
            self._cleanup(handle)
            self._fire_close(handle, False)
            handle.context = 0
        if state.handles == 0:
            state.context = 0

    def resume(self, handle: Handle, access: Access) -> int:
        """Open a suspended handle again; 0 or the errno of the handler that refused it."""
        state = handle.state
        fires = self.routing is None or self.routing.is_due(state, c.CBFS_ROUTE_OPEN_EVENT)
        if fires and (self._fire_all or state.handles == 0):
            handle.offered = True
            error = self.fire_open(handle, access)
            handle.offered = False
            if error:
                return error
        state.handles += 1
        state.cleaned = handle.cleaned = False
        return 0

    def add(self, node: Node, state: OpenState, request: Request) -> Handle:
        """Make a handle that is not counted as open yet, for the event that may refuse it."""
        handle = Handle(_next_id(), node, state, request)
        self._handles[handle.id] = handle
        if self._fire_all:
            # Asked later, the process may be gone and its id with it.
            handle.process = self._engine.process_of(request.pid)
            handle.opened = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return handle

    def count(self, handle: Handle) -> None:
        """Count the handle as open from now on."""
        state = handle.state
        handle.offered = False
        state.handles += 1
        state.unflushed += 1
        state.cleaned = False
        handle.node.open = state

    def discard(self, handle: Handle) -> None:
        """Forget a handle that was refused."""
        self._handles.pop(handle.id, None)
        if self.routing is not None and handle.node.open is not handle.state:
            self.routing.drop(handle.state)

    def flush(self, handle: Handle) -> int:
        """A process has closed a descriptor of the handle: an errno is what close(2) returns."""
        state = handle.state
        if not handle.flushed:
            handle.flushed = True
            state.unflushed -= 1
        if self._fire_all or state.unflushed == 0:
            return self._cleanup(handle)
        return 0

    def close(self, handle: Handle) -> int:
        """The last reference to the handle is gone; the errno of a deletion that this completes."""
        state, node = handle.state, handle.node
        if handle.listing is not None:
            handle.listing.close()
        if not handle.flushed:
            handle.flushed = True
            state.unflushed -= 1
        state.handles -= 1
        last = state.handles <= 0
        due = self._fire_all or last
        if due and not (handle.cleaned if self._fire_all else state.cleaned):
            self._cleanup(handle)
        delete = last and state.delete_on_close
        if due:
            self._fire_close(handle, delete)
        self._handles.pop(handle.id, None)
        if not last:
            return 0
        if self.routing is not None:
            self.routing.drop(state)
        if node.open is state:
            node.open = None
        error = self._engine.deletion.finish(node, state.context) if delete else 0
        self._engine.nodes.drop_unused(node)
        return error

    def fire_open(self, handle: Handle, access: Access) -> int:
        """Fire `on_open_file`; 0 or an errno."""
        handler = self._on.on_open_file
        if handler is None:
            return 0
        state = handle.state
        desired, attributes, disposition = access
        params = CBFSOpenFileEventParams(
            handle.node.path,
            desired,
            attributes,
            SHARE_ALL,
            disposition,
            desired,
            handle.id,
            handle.id,
            state.context,
            handle.context,
        )
        error = self._engine.fire(handler, params)
        state.context, handle.context = params.file_context, params.handle_context
        return error

    def _cleanup(self, handle: Handle) -> int:
        handle.cleaned = handle.state.cleaned = True
        handler = self._on.on_cleanup_file
        if handler is None or not self._is_due(handle, c.CBFS_ROUTE_CLEANUP_EVENT):
            return 0
        params = CBFSCleanupFileEventParams(
            handle.node.path, handle.id, handle.state.context, handle.context
        )
        return self._engine.fire(handler, params)

    def _fire_close(self, handle: Handle, delete: bool) -> None:
        handler = self._on.on_close_file
        if handler is not None and self._is_due(handle, c.CBFS_ROUTE_CLOSE_EVENT):
            params = CBFSCloseFileEventParams(
                handle.node.path, delete, handle.id, handle.state.context, handle.context
            )
            self._engine.fire(handler, params)

    def _is_due(self, handle: Handle, event: int) -> bool:
        """Whether an event fires for the item: not if it is routed and the flag is not set."""
        return self.routing is None or self.routing.is_due(handle.state, event)


def which(node: Node) -> int:
    """Index into the pairs of `access`: 0 for a file, 1 for a directory."""
    return isinstance(node, Directory)
