"""Changes behind the kernel's back: what it must forget when the program tells of one.

While the kernel writes data back later, it trusts its own size and times of a file more than the
drive's for as long as it knows the inode. So a file that changed, and that nobody has open, becomes
a new inode: its node loses the name, and the next look-up makes another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cbfsconnect import constants as c
from cbfsconnect.engine.nodes import Directory
from cbfsconnect.fuse import abi, wire

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.nodes import Node

ACTIONS = {
    c.CBFS_NOTIFY_FLAG_ADDED,
    c.CBFS_NOTIFY_FLAG_REMOVED,
    c.CBFS_NOTIFY_FLAG_MODIFIED,
    c.CBFS_NOTIFY_FLAG_METADATA_MODIFIED,
    c.CBFS_NOTIFY_FLAG_ALLOCATION_SIZE_MODIFIED,
    c.CBFS_NOTIFY_FLAG_MODIFIED_NOT_INVALIDATE,
    c.CBFS_NOTIFY_FLAG_RENAMED,
}
_OF_DATA = (c.CBFS_NOTIFY_FLAG_MODIFIED, c.CBFS_NOTIFY_FLAG_MODIFIED_NOT_INVALIDATE)
_ATTRIBUTES_ONLY = -1


def notices(engine: Engine, path: str, action: int) -> list[bytes]:
    """The notifications that a change calls for; none when the kernel knows nothing of the item."""
    found = _find(engine, path)
    if found is None:
        return []
    parent, name = found
    child = parent.children.get(name)
    encoded = engine.fsencode(name)
    if not name:
        return [wire.inval_inode(parent.id, _ATTRIBUTES_ONLY)]
    if action in (c.CBFS_NOTIFY_FLAG_ADDED, c.CBFS_NOTIFY_FLAG_RENAMED) or child is None:
        names = {name} | parent.take_absent(name)
        told = [wire.inval_entry(parent.id, engine.fsencode(one)) for one in names]
    elif action == c.CBFS_NOTIFY_FLAG_REMOVED:
        told = [wire.delete(parent.id, child.id, encoded)]
        engine.nodes.remove_name(parent, name)
    else:
        return _of_modified(engine, parent, name, child, action in _OF_DATA)
    return [*told, wire.inval_inode(parent.id, _ATTRIBUTES_ONLY)]


def flushes(engine: Engine, path: str, offset: int, length: int) -> list[bytes]:
    """The notifications that write out what is cached of a part of a file; none when nothing is."""
    found = _find(engine, path)
    node = found[0].children.get(found[1]) if found is not None else None
    if node is None or isinstance(node, Directory):
        return []
    return [wire.inval_inode(node.id, offset, max(length, 0))]


def releases(engine: Engine) -> list[bytes]:
    """The notifications by which the kernel lets go of all items that are not open."""
    told = []
    for node in engine.nodes:
        if node is engine.nodes.root or _is_in_use(node):
            continue
        if not isinstance(node, Directory):
            told.append(wire.inval_inode(node.id, 0))
        told.extend(
            wire.inval_entry(parent.id, engine.fsencode(name), abi.EXPIRE_ONLY)
            for parent, name in node.names
        )
    return told


def _of_modified(
    engine: Engine, parent: Directory, name: str, child: Node, data: bool
) -> list[bytes]:
    told = [wire.inval_inode(child.id, 0 if data else _ATTRIBUTES_ONLY)]
    if child.open is not None:
        child.open.size = None
    if not _is_in_use(child) and engine.options.write_back and not isinstance(child, Directory):
        engine.nodes.detach(parent, name)
        told.append(wire.inval_entry(parent.id, engine.fsencode(name)))
    return told


def _is_in_use(node: Node) -> bool:
    """Whether a process has it open; the kernel tells of the last close a moment later."""
    return node.open is not None and node.open.unflushed > 0


def _find(engine: Engine, path: str) -> tuple[Directory, str] | None:
    """The directory that has the item, and the item's name in it ("" for the root)."""
    *parents, name = path.split(engine.options.separator)
    node: Node | None = engine.nodes.root
    for part in parents:
        if part:
            node = node.children.get(_stored(node, part)) if isinstance(node, Directory) else None
    return (node, _stored(node, name)) if isinstance(node, Directory) else None


def _stored(directory: Directory, name: str) -> str:
    """The name that the kernel knows, for any spelling of it."""
    if directory.shorts is not None and name not in directory.children:
        name = directory.shorts.get(name.casefold(), name)
    return directory.spelled(name)
