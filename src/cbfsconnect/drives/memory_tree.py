"""The items of a memory drive: inodes, directories, named streams, and the paths that lead to them.

Directories hold their entries in dicts by name. Paths of directories are remembered, so that a
look-up costs two dict accesses however deep it goes; the memory is dropped when a directory moves.

Nothing here locks: the drive calls it under its own lock.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from time import time_ns

from cbfsconnect.constants import (
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_NORMAL,
    FILE_ATTRIBUTE_REPARSE_POINT,
    ROOT_FILE_ID,
)
from cbfsconnect.drives.memory_data import Content, Space, failure

STREAM_SEPARATOR = "\0"
"""Between a file's path and the name of a stream: the one character that no file name has."""

INODE_COST = 512
"""Bytes charged for an inode or a stream: about what one takes."""

NAME_COST = 512
"""Bytes charged for a directory entry: about what one takes when its name is long."""

NAME_MAX = 255
"""Longest name, in bytes: that of Linux."""


class Inode(Content):
    """A file, symbolic link or special file, and what all of them share with directories."""

    __slots__ = (
        "atime",
        "attributes",
        "btime",
        "ctime",
        "file_id",
        "gid",
        "mode",
        "more_names",
        "mtime",
        "name",
        "parent",
        "rdev",
        "reparse",
        "streams",
        "uid",
    )

    def __init__(
        self, file_id: int, mode: int, uid: int, gid: int, rdev: int = 0, now: int = 0
    ) -> None:
        # The fields of Content are set here: a call of its constructor would cost as much again.
        self.size = 0
        self.held = 0
        self.reserved = 0
        self.chunks = None
        self.links = 0
        self.opens = 0
        self.file_id = file_id
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.rdev = rdev
        self.atime = self.mtime = self.ctime = self.btime = now
        self.attributes = FILE_ATTRIBUTE_NORMAL
        self.parent: Directory | None = None
        self.name = ""
        self.more_names: dict[tuple[Directory, str], None] | None = None
        """Names beside the first: most inodes have none, so most pay for none."""
        self.reparse: bytes | None = None
        """Reparse data with their header, as they were set."""
        self.streams: dict[str, Stream] | None = None

    def touch(self, now: int) -> None:
        """Notes that the bytes, or the entries, changed at `now`."""
        self.mtime = self.ctime = now

    def names(self) -> list[tuple[Directory, str]]:
        """All names: the directory and the last component of each."""
        if self.parent is None:
            return []
        return [(self.parent, self.name), *(self.more_names or ())]

    def add_name(self, parent: Directory, name: str) -> None:
        """Notes a name. The entry in the directory is the caller's."""
        if self.parent is None:
            self.parent, self.name = parent, name
        elif self.more_names is None:
            self.more_names = {(parent, name): None}
        else:
            self.more_names[parent, name] = None

    def drop_name(self, parent: Directory, name: str) -> None:
        """Forgets a name that `add_name` noted."""
        more = self.more_names
        if self.parent is not parent or self.name != name:
            assert more is not None
            del more[parent, name]
        elif more:
            self.parent, self.name = more.popitem()[0]
        else:
            self.parent, self.name = None, ""


class Directory(Inode):
    """A directory. Its link count is 2 and one for each directory in it, as usual on Linux."""

    __slots__ = ("children",)

    def __init__(
        self, file_id: int, mode: int, uid: int, gid: int, rdev: int = 0, now: int = 0
    ) -> None:
        super().__init__(file_id, mode, uid, gid, 0, now)
        self.attributes = FILE_ATTRIBUTE_DIRECTORY
        self.children: dict[str, Inode] = {}

    def listing(self) -> Iterator[tuple[str, Inode]]:
        """The entries as they are now, without those that go before their turn comes."""
        children = self.children
        for name in list(children):
            inode = children.get(name)
            if inode is not None:
                yield name, inode


class Stream(Content):
    """A named stream of an item, which lends it owner, mode and times."""

    __slots__ = ("owner",)

    def __init__(self, owner: Inode) -> None:
        super().__init__()
        self.owner = owner

    def touch(self, now: int) -> None:
        """Streams are extended attributes to Linux, whose change shows in the ctime only."""
        self.owner.ctime = now


Item = Inode | Stream


def check_name(name: str) -> None:
    """Raises OSError for a name that no file can have."""
    # The quick test first: a character has four bytes at most.
    if len(name) > NAME_MAX // 4 and len(os.fsencode(name)) > NAME_MAX:
        raise failure(errno.ENAMETOOLONG)
    if not name or STREAM_SEPARATOR in name:
        raise failure(errno.EINVAL)


class Tree:
    """All items of a drive by path and by id. Paths are absolute, with `/`; the root is `/`."""

    def __init__(self, space: Space, uid: int, gid: int) -> None:
        self.space = space
        self.root = Directory(ROOT_FILE_ID, stat.S_IFDIR | 0o755, uid, gid, 0, time_ns())
        self.root.links = 2
        self._ids = itertools.count(2)
        self._by_id: dict[int, Inode] = {ROOT_FILE_ID: self.root}
        self._directories: dict[str, Directory] = {"": self.root}
        """Directories by path without the last slash, as far as they were asked for."""

    # --- looking up ---

    def find(self, path: str) -> Item | None:
        """What a path leads to, None if there is nothing."""
        head, _, name = path.rpartition("/")
        directory = self._directories.get(head) or self._walk(head)
        if directory is not None:
            inode = directory.children.get(name)
            if inode is not None:
                return inode
        if path == "/":
            return self.root
        return self._find_stream(path) if STREAM_SEPARATOR in path else None

    def get(self, path: str) -> Item:
        """What a path leads to. Raises OSError(ENOENT) if there is nothing."""
        item = self.find(path)
        if item is None:
            raise failure(errno.ENOENT)
        return item

    def inode(self, path: str) -> Inode:
        """The inode that a path leads to; ENOENT if there is none."""
        item = self.find(path)
        if not isinstance(item, Inode):
            raise failure(errno.ENOENT)
        return item

    def directory(self, path: str) -> Directory:
        """The directory that a path leads to; ENOENT, or ENOTDIR if it is something else."""
        inode = self.inode(path)
        if not isinstance(inode, Directory):
            raise failure(errno.ENOTDIR)
        return inode

    def path_of(self, file_id: int) -> str | None:
        """A path of the inode with this id; None if there is none, or it has lost its names."""
        inode: Inode | None = self._by_id.get(file_id)
        names: list[str] = []
        while inode is not None and inode is not self.root:
            names.append(inode.name)
            inode = inode.parent
        return None if inode is None else "/" + "/".join(reversed(names))

    def _place(self, path: str) -> tuple[Directory, str]:
        """The directory that holds, or would hold, the entry of a path, and the entry's name."""
        head, _, name = path.rpartition("/")
        directory = self._directories.get(head) or self._walk(head)
        if directory is None:
            raise failure(errno.ENOENT)
        return directory, name

    def _walk(self, head: str) -> Directory | None:
        directory = self.root
        path = ""
        for name in head.split("/")[1:]:
            child = directory.children.get(name)
            if not isinstance(child, Directory):
                return None
            path = f"{path}/{name}"
            self._directories[path] = directory = child
        return directory

    def _find_stream(self, path: str) -> Stream | None:
        owner_path, _, name = path.partition(STREAM_SEPARATOR)
        owner = self.find(owner_path)
        if not isinstance(owner, Inode) or owner.streams is None:
            return None
        return owner.streams.get(name)

    # --- creating and removing ---

    def create(self, path: str, mode: int, uid: int, gid: int, rdev: int) -> Inode:
        """Makes an item; the type bits of `mode` say of which kind."""
        parent, name = self._place(path)
        if name in parent.children or path == "/":
            raise failure(errno.EEXIST)
        check_name(name)
        self.space.take(INODE_COST + NAME_COST)
        now = time_ns()
        kind = Directory if stat.S_ISDIR(mode) else Inode
        inode = kind(next(self._ids), mode, uid, gid, rdev, now)
        if stat.S_ISLNK(mode):
            inode.attributes = FILE_ATTRIBUTE_REPARSE_POINT
        if kind is Directory:
            inode.links = 1
        self._by_id[inode.file_id] = inode
        self._enter(parent, name, inode)
        parent.mtime = parent.ctime = now
        return inode

    def create_stream(self, path: str) -> Stream:
        """Makes the named stream that a path with a separator names."""
        owner_path, _, name = path.partition(STREAM_SEPARATOR)
        owner = self.inode(owner_path)
        if owner.streams is None:
            owner.streams = {}
        if name in owner.streams:
            raise failure(errno.EEXIST)
        self.space.take(INODE_COST)
        owner.streams[name] = stream = Stream(owner)
        owner.ctime = time_ns()
        return stream

    def remove(self, path: str) -> None:
        """Removes a name; the item goes with its last name, or when it is closed after that."""
        if STREAM_SEPARATOR in path:
            self._remove_stream(path)
            return
        parent, name = self._place(path)
        inode = parent.children.get(name)
        if inode is None:
            raise failure(errno.EBUSY if path == "/" else errno.ENOENT)
        if isinstance(inode, Directory) and inode.children:
            raise failure(errno.ENOTEMPTY)
        parent.mtime = parent.ctime = time_ns()
        self._discard(parent, name, inode, path)

    def link(self, inode: Inode, path: str) -> None:
        """Gives an inode a further name."""
        if isinstance(inode, Directory):
            raise failure(errno.EPERM)
        if not inode.links:
            raise failure(errno.ENOENT)
        parent, name = self._place(path)
        if name in parent.children:
            raise failure(errno.EEXIST)
        check_name(name)
        self.space.take(NAME_COST)
        self._enter(parent, name, inode)
        now = time_ns()
        parent.mtime = parent.ctime = inode.ctime = now

    def _enter(self, parent: Directory, name: str, inode: Inode) -> None:
        parent.children[name] = inode
        inode.add_name(parent, name)
        inode.links += 1
        if isinstance(inode, Directory):
            parent.links += 1

    def _leave(self, parent: Directory, name: str, inode: Inode) -> None:
        """Undoes `_enter`."""
        del parent.children[name]
        inode.drop_name(parent, name)
        inode.links -= 1
        if isinstance(inode, Directory):
            parent.links -= 1

    def _discard(self, parent: Directory, name: str, inode: Inode, path: str) -> None:
        """Removes an entry for good."""
        self._leave(parent, name, inode)
        self.space.free += NAME_COST
        inode.ctime = parent.ctime
        if isinstance(inode, Directory):
            inode.links = 0
            # It is empty, so no path beneath it can be remembered.
            self._directories.pop(path, None)
        self.settle(inode)

    def _remove_stream(self, path: str) -> None:
        stream = self._find_stream(path)
        if stream is None or stream.owner.streams is None:
            raise failure(errno.ENOENT)
        del stream.owner.streams[path.partition(STREAM_SEPARATOR)[2]]
        stream.links = 0
        stream.owner.ctime = time_ns()
        self.settle(stream)

    # --- moving ---

    def move(self, path: str, new_path: str) -> None:
        """Gives the item another path; an item that is there already is replaced."""
        parent, name = self._place(path)
        new_parent, new_name = self._place(new_path)
        inode = parent.children.get(name)
        if inode is None:
            raise failure(errno.ENOENT)
        check_name(new_name)
        target = new_parent.children.get(new_name)
        if target is inode:
            return
        self._check_not_beneath(inode, new_parent)
        if target is not None:
            _check_replaceable(inode, target)
        new_parent.mtime = new_parent.ctime = now = time_ns()
        if target is not None:
            self._discard(new_parent, new_name, target, new_path)
        self._leave(parent, name, inode)
        self._enter(new_parent, new_name, inode)
        parent.mtime = parent.ctime = inode.ctime = now
        self._forget_paths(inode)

    def exchange(self, path: str, new_path: str) -> None:
        """Swaps two items that both exist."""
        one, other = self._place(path), self._place(new_path)
        first, second = one[0].children.get(one[1]), other[0].children.get(other[1])
        if first is None or second is None:
            raise failure(errno.ENOENT)
        if first is second:
            return
        self._check_not_beneath(first, other[0])
        self._check_not_beneath(second, one[0])
        self._leave(*one, first)
        self._leave(*other, second)
        self._enter(*one, second)
        self._enter(*other, first)
        now = time_ns()
        one[0].touch(now)
        other[0].touch(now)
        first.ctime = second.ctime = now
        self._forget_paths(first, second)

    def _check_not_beneath(self, inode: Inode, directory: Directory | None) -> None:
        """Refuses to move a directory into itself, which the kernel does not ask for."""
        while directory is not None and isinstance(inode, Directory):
            if directory is inode:
                raise failure(errno.EINVAL)
            directory = directory.parent

    def _forget_paths(self, *moved: Inode) -> None:
        if any(isinstance(inode, Directory) for inode in moved):
            self._directories.clear()
            self._directories[""] = self.root

    # --- the end of an item ---

    def settle(self, item: Item) -> None:
        """Frees an item that has neither a name nor an opening left."""
        if item.links or item.opens:
            return
        item.clear(self.space)
        self.space.free += INODE_COST
        if isinstance(item, Stream):
            return
        del self._by_id[item.file_id]
        set_reparse(self.space, item, None)
        streams, item.streams = item.streams, None
        for stream in (streams or {}).values():
            stream.links = 0
            self.settle(stream)


def set_reparse(space: Space, inode: Inode, data: bytes | None) -> None:
    """Stores reparse data with an inode in place of what it had, or forgets them (None)."""
    space.take((len(data) if data else 0) - (len(inode.reparse) if inode.reparse else 0))
    inode.reparse = data


def _check_replaceable(inode: Inode, target: Inode) -> None:
    if isinstance(target, Directory):
        if not isinstance(inode, Directory):
            raise failure(errno.EISDIR)
        if target.children:
            raise failure(errno.ENOTEMPTY)
    elif isinstance(inode, Directory):
        raise failure(errno.ENOTDIR)
