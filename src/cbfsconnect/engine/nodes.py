"""What the kernel knows of the drive: nodes, their names, and how often they were looked up.

A node stands for one file or directory from the first reply that names it until the kernel has
forgotten it. Directories keep their own path with the separator at its end, so the path of an item
is one concatenation; renaming a directory renews those of the directories below it.
"""

from __future__ import annotations

import itertools
import stat
import threading
from typing import TYPE_CHECKING

from cbfsconnect.constants import ROOT_FILE_ID
from cbfsconnect.fuse.abi import ROOT_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cbfsconnect.engine.handles import OpenState

_MOST_SPELLINGS = 1000
_INVENTED = 1 << 63
"""Node ids that the engine invents start here, above all ids that drives give."""


class Told:
    """The times that the kernel, which keeps those of what it caches, has told the drive last.

    `overtaken`: data were changed since, so the drive may have set others.
    """

    __slots__ = ("ctime", "mtime", "overtaken")

    def __init__(self, mtime: int | None, ctime: int | None) -> None:
        self.mtime = mtime
        self.ctime = ctime
        self.overtaken = False


class Node:
    """One item. `open` is there while it has handles; `further` are hard-linked names.

    `accessed` is the time of last access that the drive gave last, None where it gives none.
    `links` is how many names the drive said it has, less those that were removed since: the kernel
    need not have looked up all of them.
    """

    __slots__ = (
        "accessed",
        "further",
        "id",
        "kind",
        "links",
        "lookups",
        "name",
        "open",
        "parent",
        "told",
    )

    def __init__(self, node_id: int, parent: Directory, name: str, kind: int) -> None:
        self.id = node_id
        self.parent = parent
        self.name = name
        self.kind = kind
        self.lookups = 0
        self.links = 1
        self.accessed: int | None = None
        self.open: OpenState | None = None
        self.further: list[tuple[Directory, str]] | None = None
        self.told: Told | None = None

    @property
    def path(self) -> str:
        """The absolute path inside the drive; for a removed item its last one."""
        return self.parent.prefix + self.name

    @property
    def has_path(self) -> bool:
        """Whether `path` leads to the item still; that of a deleted one may lead to another."""
        return self.parent.children.get(self.name) is self or self.parent is self

    @property
    def is_named(self) -> bool:
        """Whether the item has a name still; an id whose item has none may belong to a new one."""
        if self.open is not None and self.open.deleted:
            return False
        return self.parent.children.get(self.name) is self

    @property
    def is_linked(self) -> bool:
        """The same of a file, which may have names that the kernel has not looked up."""
        if self.open is not None and self.open.deleted:
            return False
        return self.links > 0 or self.is_named

    @property
    def is_gone(self) -> bool:
        """Whether the item is deleted and nobody has it open: its path may be another's now.

        The kernel knows it a little longer, and may even set the times of what it cached of it.
        """
        if self.open is not None or self.parent.children.get(self.name) is self:
            return False
        return self.parent is not self

    @property
    def names(self) -> list[tuple[Directory, str]]:
        """Every directory and name under which the kernel knows the item."""
        return [(self.parent, self.name), *(self.further or ())]


class Directory(Node):
    """A node that has children.

    `prefix` is its path with a separator at the end. `inherit_gid` is its group when new items
    shall belong to it (the set-group-ID bit), else None. `spellings` are other ways to write the
    names of children that somebody has used, with the stored ones; `shorts` are long names by the
    folded form of the short ones; `absent` are the names, by their
    folded form, of which the kernel may remember that they do not exist.
    """

    __slots__ = ("absent", "children", "inherit_gid", "prefix", "shorts", "spellings")

    def __init__(self, node_id: int, parent: Directory | None, name: str, separator: str) -> None:
        super().__init__(node_id, parent or self, name, stat.S_IFDIR)
        self.children: dict[str, Node] = {}
        self.inherit_gid: int | None = None
        self.spellings: dict[str, str] | None = None
        self.shorts: dict[str, str] | None = None
        self.absent: dict[str, set[str]] | None = None
        self.prefix: str = parent.prefix + name + separator if parent else separator

    @property
    def path(self) -> str:
        """The absolute path inside the drive."""
        return self.prefix if self.parent is self else self.prefix[:-1]

    def spelled(self, name: str) -> str:
        """The stored spelling of a child's name, the name itself where nothing else is known."""
        if self.spellings is None or name in self.children:
            return name
        real = self.spellings.get(name, name)
        return real if real in self.children else name

    def note_spelling(self, name: str, real: str) -> None:
        """Somebody has written a child's name in another way."""
        if self.spellings is None or len(self.spellings) >= _MOST_SPELLINGS:
            self.spellings = {}
        self.spellings[name] = real

    def note_short(self, folded: str, name: str) -> None:
        """A child has a short name, given in its folded form."""
        if self.shorts is None or len(self.shorts) >= _MOST_SPELLINGS:
            self.shorts = {}
        self.shorts[folded] = name

    def note_absent(self, name: str) -> bool:
        """The kernel shall remember that a name does not exist; False when these are too many."""
        if self.absent is None:
            self.absent = {}
        folded = name.casefold()
        if folded not in self.absent and len(self.absent) >= _MOST_SPELLINGS:
            return False
        self.absent.setdefault(folded, set()).add(name)
        return True

    def take_absent(self, name: str) -> set[str]:
        """The other spellings of a name that now exists, of which the kernel thinks otherwise."""
        if self.absent is None:
            return set()
        return self.absent.pop(name.casefold(), set()) - {name}

    def renew_prefix(self, separator: str) -> None:
        """Work out the prefix anew, here and below."""
        todo = [self]  # no recursion: a tree may be deeper than Python calls
        while todo:
            directory = todo.pop()
            directory.prefix = directory.parent.prefix + directory.name + separator
            todo += [child for child in directory.children.values() if isinstance(child, Directory)]

    def is_below(self, other: Node) -> bool:
        """Whether this is `other` or lies somewhere under it."""
        here: Directory = self
        while here is not other:
            if here.parent is here:
                return False
            here = here.parent
        return True


class NodeTable:
    """All nodes by id, with the rules of naming and forgetting.

    Several workers look names up and forget them at the same time, so whatever changes the table
    or a count of look-ups does it under one lock. `take` counts what it gives: a node that is about
    to be named to the kernel cannot be dropped by a FORGET that comes meanwhile.
    """

    def __init__(self, separator: str) -> None:
        self.separator = separator
        self.root = Directory(ROOT_ID, None, "", separator)
        self.root.lookups = 1
        self._nodes: dict[int, Node] = {ROOT_ID: self.root}
        self._mutex = threading.Lock()
        self.get = self._nodes.get

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._nodes.values()))

    def take(self, parent: Directory, name: str, kind: int, file_id: int) -> Node:
        """The node of a name, looked up once more; a new one when another item has the name now.

        `file_id` 0: the drive has none (or its ids are not to be trusted), one is invented. A file
        whose id is known already gets one more name.
        """
        self._mutex.acquire()  # each look-up does it: `with` takes twice as long
        try:
            node = parent.children.get(name)
            if node is None or node.kind != kind or (file_id and not _may_have_id(node, file_id)):
                node = self._add(parent, name, kind, file_id)
            node.lookups += 1
            return node
        finally:
            self._mutex.release()

    def hold(self, node: Node) -> Node:
        """Look a node up once more, for the time of a request."""
        with self._mutex:
            node.lookups += 1
        return node

    def release(self, node: Node, count: int = 1) -> None:
        """Take look-ups back: at none, an unused node goes."""
        if node is self.root:
            return
        with self._mutex:
            node.lookups -= count
            self._drop_unused(node)

    def forget(self, node_id: int, count: int) -> None:
        """The kernel has forgotten `count` look-ups."""
        node = self._nodes.get(node_id)
        if node is not None:
            self.release(node, count)

    def drop_unused(self, node: Node) -> None:
        """Let a node go that neither the kernel nor a handle needs."""
        with self._mutex:
            self._drop_unused(node)

    def add_name(self, node: Node, parent: Directory, name: str) -> None:
        """Give the node one more name."""
        with self._mutex:
            self._add_name(node, parent, name)

    def prefer(self, node: Node, parent: Directory, name: str) -> None:
        """Make this name the one that the node's path shows."""
        with self._mutex:
            if node.further and (parent, name) in node.further:
                rest = [n for n in node.further if n != (parent, name)]
                node.further = [(node.parent, node.name), *rest]
                node.parent, node.name = parent, name

    def remove_name(self, parent: Directory, name: str) -> None:
        """Take the name off its node. The node keeps its last name for its path."""
        with self._mutex:
            self._remove_name(parent, name)
            self._drop_unused(parent)

    def detach(self, parent: Directory, name: str) -> None:
        """Have the next look-up of the name make a new node, even if the file has the same id."""
        with self._mutex:
            node = parent.children.get(name)
            if node is not None:
                node.links = 1
                self._remove_name(parent, name)
                self._drop_unused(parent)

    def rename(self, parent: Directory, name: str, new_parent: Directory, new_name: str) -> None:
        """Move a name; whatever had the new name loses it."""
        with self._mutex:
            node = parent.children.pop(name, None)
            if node is None:
                return
            if (node.parent, node.name) == (parent, name):
                node.parent, node.name = new_parent, new_name
            else:
                others = [n for n in node.further or () if n != (parent, name)]
                node.further = [*others, (new_parent, new_name)]
            self._take_name(node, new_parent, new_name)
            if isinstance(node, Directory):
                node.renew_prefix(self.separator)
            self._drop_unused(parent)

    def exchange(self, one: tuple[Directory, str], other: tuple[Directory, str]) -> None:
        """Swap what two names stand for."""
        with self._mutex:
            for_one, for_other = other[0].children.pop(other[1]), one[0].children.pop(one[1])
            for node, old, new in ((for_one, other, one), (for_other, one, other)):
                if (node.parent, node.name) == old:
                    node.parent, node.name = new
                else:
                    node.further = [new if n == old else n for n in node.further or ()]
                new[0].children[new[1]] = node
            for node in (for_one, for_other):
                if isinstance(node, Directory):
                    node.renew_prefix(self.separator)

    # --- with the lock held --------------------------------------------------------------------

    def _add(self, parent: Directory, name: str, kind: int, file_id: int) -> Node:
        node_id = file_id if 0 < file_id < _INVENTED and file_id not in _RESERVED else _invent()
        known = self._nodes.get(node_id)
        if known is not None and known.kind == kind and kind != stat.S_IFDIR and known.is_linked:
            self._add_name(known, parent, name)
            return known
        if known is not None:
            node_id = _invent()
        node = (
            Directory(node_id, parent, name, self.separator)
            if kind == stat.S_IFDIR
            else Node(node_id, parent, name, kind)
        )
        self._nodes[node_id] = node
        self._take_name(node, parent, name)
        return node

    def _add_name(self, node: Node, parent: Directory, name: str) -> None:
        if parent.children.get(name) is node:
            return
        if node.parent.children.get(node.name) is not node:
            node.parent, node.name = parent, name
        else:
            node.further = [*(node.further or ()), (parent, name)]
        self._take_name(node, parent, name)

    def _take_name(self, node: Node, parent: Directory, name: str) -> None:
        before = parent.children.get(name)
        if before is not None and before is not node:
            self._remove_name(parent, name)
        parent.children[name] = node

    def _remove_name(self, parent: Directory, name: str) -> None:
        node = parent.children.pop(name, None)
        if node is None:
            return
        node.links -= 1
        if (node.parent, node.name) != (parent, name):
            node.further = [n for n in node.further or () if n != (parent, name)] or None
        elif node.further:
            (node.parent, node.name), *rest = node.further
            node.further = rest or None
        self._drop_unused(node)

    def _drop_unused(self, node: Node) -> None:
        """Drop the node if nothing needs it, and the directories above that were there for it."""
        todo = [node]
        while todo:
            node = todo.pop()
            if node.lookups > 0 or node.open is not None or node is self.root:
                continue
            if isinstance(node, Directory) and node.children:
                continue
            if self._nodes.get(node.id) is node:
                del self._nodes[node.id]
            for parent, name in node.names:
                if parent.children.get(name) is node:
                    del parent.children[name]
                    todo.append(parent)


_RESERVED = (ROOT_ID, ROOT_FILE_ID)
_invent = itertools.count(_INVENTED + 1).__next__
"""Invented ids are never used twice in a process, not even by another drive: the kernel may still
ask for an item of media that is out."""


def _may_have_id(node: Node, file_id: int) -> bool:
    """Whether the item that the drive calls `file_id` can be the one that the node stands for."""
    return node.id == file_id or node.id >= _INVENTED or node.id == ROOT_ID
