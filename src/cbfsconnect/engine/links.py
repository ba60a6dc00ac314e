"""Enumerating the hard links of a file, for `cbfsconnect.enumerate_hard_links`.

The client reads the extended attribute `system.cbfs.hard_links`. Its value is the paths inside the
drive, each ended by NUL. What does not fit into one attribute value is kept for a while: the value
then ends with `+TOKEN`, and the rest is under `system.cbfs.hard_links.TOKEN` of the same file. The
enumeration itself is over, and its end told to the drive, before the first page is answered; so a
reader that stops early leaves nothing open.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from typing import TYPE_CHECKING

from cbfsconnect.constants import ROOT_FILE_ID
from cbfsconnect.engine import access
from cbfsconnect.engine.ids import path_of_id
from cbfsconnect.engine.nodes import Directory
from cbfsconnect.events import (
    CBFSCloseHardLinksEnumerationEventParams,
    CBFSEnumerateHardLinksEventParams,
)

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.nodes import Node
    from cbfsconnect.fuse.wire import Request

HARD_LINKS = b"system.cbfs.hard_links"
_PAGE = 60 * 1024
"""Below the 64 KiB that the kernel lets an attribute have."""
_MOST_LINKS = 100_000
_TOKEN = re.compile(rb"\.(\d{1,18})\.(\d{1,18})")


class LinkPages:
    """Listings of which clients have not fetched every page yet; the oldest go when it is much."""

    def __init__(self) -> None:
        self._listings: dict[int, tuple[Node, list[bytes]]] = {}
        self._last = 0
        self._mutex = threading.Lock()

    def keep(self, node: Node, paths: list[bytes]) -> int:
        """Keep a listing of the node; its number."""
        with self._mutex:
            self._last += 1
            self._listings[self._last] = node, paths
            kept = sum(len(listing) for _, listing in self._listings.values())
            for number in list(self._listings):
                if kept <= 2 * _MOST_LINKS:
                    break
                kept -= len(self._listings.pop(number)[1])
            return self._last

    def find(self, node: Node, number: int) -> list[bytes] | None:
        """The listing of this number, None when it is not kept any more or of another file."""
        of, paths = self._listings.get(number, (None, None))
        return paths if of is node else None

    def drop(self, number: int) -> None:
        """Everything was fetched."""
        with self._mutex:
            self._listings.pop(number, None)


def hard_links_page(engine: Engine, node: Node, request: Request, name: bytes) -> bytes | int:
    """One value of the attribute, or an errno."""
    token = name.removeprefix(HARD_LINKS)
    number = start = 0
    if token:
        match = _TOKEN.fullmatch(token)
        if match is None:
            return errno.ENODATA
        number, start = int(match[1]), int(match[2])
        paths: list[bytes] | int | None = engine.link_pages.find(node, number)
    else:
        paths = _enumerate(engine, node, request)
    if paths is None:
        return errno.ENODATA
    if isinstance(paths, int):
        return paths
    end = _page_end(paths, start)
    value = b"".join(path + b"\0" for path in paths[start:end])
    if end < len(paths):
        number = number or engine.link_pages.keep(node, paths)
        return b"%b+%d.%d\0" % (value, number, end)
    if number and len(value) <= request.body.size:
        engine.link_pages.drop(number)
    return value


def _page_end(paths: list[bytes], start: int) -> int:
    """How far the page reaches that begins with the path at `start`."""
    size = 0
    for count in range(start, len(paths)):
        size += len(paths[count]) + 1
        if size > _PAGE:
            return count
    return len(paths)


def _enumerate(engine: Engine, node: Node, request: Request) -> list[bytes] | int:
    """Fire the enumeration events: absolute paths, or an errno."""
    if isinstance(node, Directory):
        return errno.EISDIR
    if engine.on.on_enumerate_hard_links is None:
        return errno.EOPNOTSUPP
    handle = engine.handles.open(node, access.READ_ATTRIBUTES[0], request)
    if isinstance(handle, int):
        return handle
    try:
        found = _links(engine, handle)
    finally:
        engine.handles.close(handle)
    if isinstance(found, int):
        return found
    paths = []
    for name, parent_id in found:
        directory = _directory_path(engine, parent_id)
        if directory is None:
            problem = f"parent_id {parent_id} of {name!r} is no directory that the drive can name"
            return engine.nonsense("on_enumerate_hard_links", node.path, problem)
        path = os.fsencode(directory.replace(engine.options.separator, "/")) + name
        if len(path) >= _PAGE:
            return errno.ENAMETOOLONG  # far beyond what a Linux program can name at once
        paths.append(path)
    return paths


def _links(engine: Engine, handle: Handle) -> list[tuple[bytes, int]] | int:
    """Name and parent of every link, or an errno; the enumeration is closed whatever happens."""
    state = handle.state
    found: list[tuple[bytes, int]] = []
    context: object = 0
    while True:
        params = CBFSEnumerateHardLinksEventParams(
            handle.node.path,
            handle.id,
            file_context=state.context,
            handle_context=handle.context,
            enumeration_context=context,
        )
        error = engine.fire(engine.on.on_enumerate_hard_links, params)
        state.context, handle.context = params.file_context, params.handle_context
        context = params.enumeration_context
        if error == errno.ENODATA:  # ERROR_HANDLE_EOF, as FindNextFileName says it
            error = 0
            break
        if error or not params.link_found:
            break
        name, parent = _encoded(params.link_name), params.parent_id
        if not name or parent.__class__ is not int:
            problem = f"link_name {params.link_name!r} with parent_id {parent!r}"
            error = engine.nonsense("on_enumerate_hard_links", handle.node.path, problem)
            break
        found.append((name, parent))
        if len(found) > _MOST_LINKS:
            error = errno.E2BIG
            break
    closing = _close(engine, handle, context)
    return error or closing or found


def _encoded(name: object) -> bytes:
    """The last component of a path in bytes; empty for what cannot be one."""
    if not isinstance(name, str) or name in (".", "..") or "/" in name or "\0" in name:
        return b""
    try:
        return os.fsencode(name)
    except UnicodeEncodeError:
        return b""


def _close(engine: Engine, handle: Handle, context: object) -> int:
    handler = engine.on.on_close_hard_links_enumeration
    if handler is None:
        return 0
    state = handle.state
    params = CBFSCloseHardLinksEnumerationEventParams(
        handle.node.path, handle.id, context, state.context, handle.context
    )
    error = engine.fire(handler, params)
    state.context, handle.context = params.file_context, params.handle_context
    return error


def _directory_path(engine: Engine, file_id: int) -> str | None:
    """The path of a directory with a separator at its end, None when the id is unknown."""
    separator = engine.options.separator
    if file_id == ROOT_FILE_ID:
        return separator
    node = engine.nodes.get(file_id)
    if isinstance(node, Directory) and node.is_named:  # else the id belongs to a new one
        return node.prefix
    path = path_of_id(engine, file_id)
    return None if path is None else path.rstrip(separator) + separator
