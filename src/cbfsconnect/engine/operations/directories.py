"""READDIR, READDIRPLUS: listings, with what the handler said of each entry."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from cbfsconnect import constants as c
from cbfsconnect.engine.attributes import nonsense_in
from cbfsconnect.engine.deletion import is_hidden
from cbfsconnect.engine.listing import Entry, Listing
from cbfsconnect.engine.nodes import Directory
from cbfsconnect.engine.operations.table import Reply, serves
from cbfsconnect.fuse import wire
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.wire import DirectoryBuffer, Request

_DOTS = ((b".", 1), (b"..", 2))
_DIRECTORY_TYPE = 4
_MOST_NONSENSE = 1000
"""A handler that gives nothing but entries that cannot be used is not asked for ever."""
_UNKNOWN_INODE = 0xFFFFFFFF
"""What stands for the inode number of an entry that has no node; 0 would mean "no entry"."""


@serves(Opcode.READDIR, Opcode.READDIRPLUS)
def readdir(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_enumerate_directory` until the reply is full."""
    body = request.body
    handle = engine.handles.get(body.fh)
    if handle is None or not isinstance(handle.node, Directory):
        return errno.EBADF
    node = handle.node
    plus = request.opcode == Opcode.READDIRPLUS
    engine.order.enter(node.id, node, worker)
    try:
        listing = handle.listing
        if listing is None:
            listing = handle.listing = Listing(engine, handle)
        buffer = wire.DirectoryBuffer(body.size)
        error = listing.take_error() or _go_to(node, listing, body.offset)
        if not error:
            _add_dots(buffer, node, listing, plus)
            error = _fill(engine, node, listing, buffer, plus)
        if error and not len(buffer):
            return error
        listing.error = error  # told after what was listed before it
        return buffer.message(request.unique)
    finally:
        engine.order.leave(node.id)


def _go_to(node: Directory, listing: Listing, offset: int) -> int:
    """Bring the listing to where the reader wants to go on; 0 or an errno."""
    if listing.return_to(offset):
        return 0
    if offset < listing.position or offset == 0:
        listing.rewind()
    error = 0
    listing.position = max(listing.position, min(offset, 2))
    while listing.position < offset:
        error = 0 if listing.held else _advance(node, listing)
        if error or not listing.found:
            break
        listing.held = False
        listing.position += 1
    listing.recent_start = listing.position
    return error


def _advance(node: Directory, listing: Listing) -> int:
    """Get the next entry that is not deleted for the kernel already; 0 or an errno."""
    children = node.children
    while True:
        error = listing.advance()
        if error or not listing.found:
            return error
        if not children or not is_hidden(children.get(listing.params.file_name)):
            return 0


def _add_dots(buffer: DirectoryBuffer, node: Directory, listing: Listing, plus: bool) -> None:
    for name, after in _DOTS:
        if listing.position >= after:
            continue
        number = node.id if after == 1 else node.parent.id
        if not _add_plain(buffer, (number, _DIRECTORY_TYPE, name), after, plus):
            return
        listing.position = listing.recent_start = after


def _fill(
    engine: Engine, node: Directory, listing: Listing, buffer: DirectoryBuffer, plus: bool
) -> int:
    """Add entries until the buffer is full, or there are no more; 0 or an errno."""
    for entry in listing.recent:
        if not _add_plain(buffer, entry, listing.position + 1, plus):
            return 0
        listing.position += 1
    nonsense = 0
    while nonsense < _MOST_NONSENSE:
        if not listing.held:
            error = _advance(node, listing)
            if error or not listing.found:
                return error
        listing.held = True
        try:
            added = _add(engine, node, listing, buffer, plus)
        except (struct.error, TypeError, ValueError) as error:
            problem = nonsense_in(listing.params) or str(error)
            engine.nonsense(
                "on_enumerate_directory", node.prefix + listing.params.file_name, problem
            )
            listing.held = False
            nonsense += 1
            continue
        if added is None:
            return 0
        listing.recent.append(added)
        listing.held = False
        listing.position += 1
    return errno.EIO


def _add(
    engine: Engine, node: Directory, listing: Listing, buffer: DirectoryBuffer, plus: bool
) -> Entry | None:
    """Add the current entry, with its attributes if they are known; None when it does not fit."""
    info, after = listing.params, listing.position + 1
    number = info.file_id or _UNKNOWN_INODE
    if info.mode is None and not info.attributes:
        entry = (number, 0, listing.name)
        return entry if _add_plain(buffer, entry, after, plus) else None
    given, mode = info.mode, engine.attributes.mode_of(info)
    links = info.hard_link_count
    known = links or not engine.options.use_hard_links
    if given is None and info.attributes & c.FILE_ATTRIBUTE_REPARSE_POINT:
        known = known and bool(info.reparse_tag)
    entry = (number, mode >> 12 if known else 0, listing.name)
    if not plus or not known:
        return entry if _add_plain(buffer, entry, after, plus) else None
    info.mode = mode
    child = engine.identify(node, info.file_name, info)
    try:
        attr = engine.attributes.pack(info.file_id or child.id, mode, links or 1, info)
        child.accessed = info.last_access_time_ns
        s, ns = engine.valid_s, engine.valid_ns
        number, kind = info.file_id or child.id, mode >> 12
        added = buffer.add_plus(child.id, 0, s, ns, s, ns, attr, number, after, kind, listing.name)
        if isinstance(child, Directory):
            engine.note_group(child, mode, info.gid)
    except BaseException:
        engine.nodes.release(child)
        raise
    if not added:
        engine.nodes.release(child)
    return entry if added else None


def _add_plain(buffer: DirectoryBuffer, entry: Entry, after: int, plus: bool) -> bool:
    """Add a name without attributes: the kernel asks for them when it wants them."""
    number, kind, name = entry
    if plus:
        attr = wire.attributes(number, *(0,) * 15)
        return buffer.add_plus(0, 0, 0, 0, 0, 0, attr, number, after, kind, name)
    return buffer.add(number, after, kind, name)
