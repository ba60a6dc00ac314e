"""One listing of a directory: `on_enumerate_directory` per entry, and its end exactly once."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cbfsconnect.engine.nodes import Directory
from cbfsconnect.errors import ERROR_NO_MORE_FILES
from cbfsconnect.events import (
    CBFSCloseDirectoryEnumerationEventParams,
    CBFSEnumerateDirectoryEventParams,
)

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle

Entry = tuple[int, int, bytes]
"""What a listing says of an item at least: inode number, type, encoded name."""

_MOST_BAD_NAMES = 1000
"""A handler that gives nothing but names that cannot be used is not asked for ever."""


class Listing:
    """A listing in progress.

    `params` holds the current entry, when `found`; `name` is its encoded name. `position` counts
    the entries that were handed on, "." and ".." among them; `held` says that the current entry
    did not fit into the last reply and comes first in the next. `error` is an errno that came after
    entries which had to be handed on first.

    `recent` are the entries of the last reply, the first of them at position `recent_start`: a
    reader whose own buffer was full comes back for some of them. A new enumeration would not find
    them in the same places when items have been deleted meanwhile.
    """

    __slots__ = (
        "_context",
        "_engine",
        "_handle",
        "_over",
        "_restart",
        "_running",
        "error",
        "found",
        "held",
        "name",
        "params",
        "position",
        "recent",
        "recent_start",
    )

    def __init__(self, engine: Engine, handle: Handle) -> None:
        self._engine = engine
        self._handle = handle
        self._running = False
        self._over = False
        self._restart = True
        self.params = CBFSEnumerateDirectoryEventParams(
            handle.node.path,
            handle.id,
            "*",
            engine.options.use_case_sensitive_file_names,
            handle_context=handle.context,
        )
        self.error = 0
        self.found = False
        self.held = False
        self.name = b""
        self.position = 0
        self.recent: list[Entry] = []
        self.recent_start = 0

    def return_to(self, position: int) -> bool:
        """Go to an entry of the last reply, or right after it; False when that is elsewhere."""
        passed = position - self.recent_start
        if 0 <= passed <= len(self.recent):
            del self.recent[:passed]
            self.recent_start = self.position = position
            return True
        self.recent_start = self.position = self.recent_start + len(self.recent)
        self.recent.clear()
        return False

    def rewind(self) -> None:
        """Begin anew with the next entry."""
        self._restart = True
        self._over = False
        self.held = False
        self.position = self.recent_start = 0

    def take_error(self) -> int:
        """The errno that is due, once; the next request asks the handler again."""
        error, self.error = self.error, 0
        return error

    def advance(self) -> int:
        """Get the next entry from the handler: `found` says whether there is one. 0 or an errno."""
        self.found = False
        if self._over:
            return 0
        for _ in range(_MOST_BAD_NAMES):
            error = self._fire()
            if error and self.params.result_code != ERROR_NO_MORE_FILES:
                return error
            if error or not self.params.file_found:
                self._over = True
                self.close()
                return 0
            if self._name_is_good():
                self.found = True
                if self._engine.options.use_short_file_names:
                    self._note_short_name()
                return 0
        return errno.EIO

    def close(self) -> None:
        """End the enumeration: `on_close_directory_enumeration`, if it ever began."""
        if not self._running:
            return
        self._running = False
        self._restart = True
        params, state = self.params, self._handle.state
        context, params.enumeration_context = params.enumeration_context, 0
        handler = self._engine.on.on_close_directory_enumeration
        if handler is not None:
            closing = CBFSCloseDirectoryEnumerationEventParams(
                self._handle.node.path, context, state.context
            )
            self._engine.fire(handler, closing)
            state.context = closing.directory_context

    def _fire(self) -> int:
        handler = self._engine.on.on_enumerate_directory
        if handler is None:
            return errno.ENOSYS
        params, state = self.params, self._handle.state
        params.renew(self._handle.node.path, self._restart)
        params.directory_context = state.context
        self._running = True
        self._restart = False
        error = self._engine.fire(handler, params)
        state.context = params.directory_context
        self._handle.context = params.handle_context
        return error

    def _note_short_name(self) -> None:
        directory, params = self._handle.node, self.params
        if isinstance(directory, Directory):
            self._engine.note_short_name(directory, params.file_name, params.short_file_name)

    def _name_is_good(self) -> bool:
        """Whether the kernel would take the name; it refuses a whole listing for a bad one."""
        name = self.params.file_name
        try:
            self.name = encoded = self._engine.fsencode(name) if isinstance(name, str) else b""
        except UnicodeError:
            encoded = b""
        limit = self._engine.options.max_file_name_length
        if encoded in (b".", b".."):
            return False
        if not 0 < len(encoded) <= limit or b"/" in encoded or b"\0" in encoded:
            problem = f"{name!r} cannot be the name of a file"
            self._engine.nonsense("on_enumerate_directory", self._handle.node.path, problem)
            return False
        return True
