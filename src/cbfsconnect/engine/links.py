"""Enumerating the hard links of a file, for `cbfsconnect.enumerate_hard_links`.

The client reads the extended attribute `system.cbfs.hard_links`. Its value is the paths inside the
drive, each ended by NUL. What does not fit into one attribute value is kept for a while: the value
then ends with `+TOKEN`, and the rest is under `system.cbfs.hard_links.TOKEN`. The enumeration
itself is over, and its end told to the drive, before the first page is answered; so a reader that
stops early leaves nothing open.
"""

from __future__ import annotations

import errno
import os
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
_MOST_PAGES = 64


class LinkPages:
    """Pages that a client has not fetched yet; the oldest go when there are too many."""

    def __init__(self) -> None:
        self._pages: dict[bytes, list[bytes]] = {}
        self._last = 0

    def keep(self, paths: list[bytes]) -> bytes:
        """Keep the rest of a listing; its token."""
        self._last += 1
        token = b"%d" % self._last
        self._pages[token] = paths
        while len(self._pages) > _MOST_PAGES:
            self._pages.pop(next(iter(self._pages)), None)
        return token

    def take(self, token: bytes) -> list[bytes] | None:
        """The rest that a token stands for, None when it is not kept any more."""
        return self._pages.get(token)


def hard_links_page(engine: Engine, node: Node, request: Request, name: bytes) -> bytes | int:
    """One value of the attribute, or an errno."""
    token = name[len(HARD_LINKS) + 1 :]
    paths = engine.link_pages.take(token) if token else _enumerate(engine, node, request)
    if paths is None:
        return errno.ENODATA
    if isinstance(paths, int):
        return paths
    page, size = [], 0
    for count, path in enumerate(paths):
        size += len(path) + 1
        if size > _PAGE:
            page.append(b"+" + engine.link_pages.keep(paths[count:]))
            break
        page.append(path)
    return b"".join(entry + b"\0" for entry in page)


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
        paths.append(os.fsencode(directory.replace(engine.options.separator, "/") + name))
    return paths


def _links(engine: Engine, handle: Handle) -> list[tuple[str, int]] | int:
    """Name and parent of every link; the enumeration is closed whatever happens."""
    state = handle.state
    found: list[tuple[str, int]] = []
    context: object = 0
    error = 0
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
        if error or not params.link_found:
            break
        name, parent = params.link_name, params.parent_id
        if not isinstance(name, str) or not name or "/" in name or parent.__class__ is not int:
            problem = f"link_name {name!r} with parent_id {parent!r}"
            error = engine.nonsense("on_enumerate_hard_links", handle.node.path, problem)
            break
        found.append((name, parent))
        if len(found) > _MOST_LINKS:
            error = errno.E2BIG
            break
    _close(engine, handle, context)
    return error or found


def _close(engine: Engine, handle: Handle, context: object) -> None:
    handler = engine.on.on_close_hard_links_enumeration
    if handler is None:
        return
    state = handle.state
    params = CBFSCloseHardLinksEnumerationEventParams(
        handle.node.path, handle.id, context, state.context, handle.context
    )
    engine.fire(handler, params)
    state.context, handle.context = params.file_context, params.handle_context


def _directory_path(engine: Engine, file_id: int) -> str | None:
    """The path of a directory with a separator at its end, None when the id is unknown."""
    separator = engine.options.separator
    if file_id == ROOT_FILE_ID:
        return separator
    node = engine.nodes.get(file_id)
    if isinstance(node, Directory):
        return node.prefix
    path = path_of_id(engine, file_id)
    return None if path is None else path.rstrip(separator) + separator
