"""From what a handler says of an item to the attributes that the kernel wants.

Windows attributes and Linux modes are two views of one thing. A handler that gives `mode` is taken
at its word; else the mode is made of the attributes, the reparse tag and customary permissions.
"""

from __future__ import annotations

import stat
import struct
from typing import TYPE_CHECKING, Any, Protocol

from cbfsconnect import constants as c
from cbfsconnect.fuse.wire import attributes as pack_attributes

if TYPE_CHECKING:
    from cbfsconnect.engine.options import Options

SECOND = 1_000_000_000
BLOCK = 512
"""The unit of `st_blocks`."""
NONSENSE = (struct.error, TypeError, ValueError)
"""What a handler's answer raises here when there are no attributes in it."""

_DECISIVE = c.FILE_ATTRIBUTE_DIRECTORY | c.FILE_ATTRIBUTE_REPARSE_POINT | c.FILE_ATTRIBUTE_READONLY
_USUAL_MODES = {0: stat.S_IFREG | 0o644, c.FILE_ATTRIBUTE_DIRECTORY: stat.S_IFDIR | 0o755}

_KIND_OF_TAG = {
    c.IO_REPARSE_TAG_SYMLINK: stat.S_IFLNK,
    c.IO_REPARSE_TAG_LX_SYMLINK: stat.S_IFLNK,
    c.IO_REPARSE_TAG_MOUNT_POINT: stat.S_IFLNK,
    c.IO_REPARSE_TAG_AF_UNIX: stat.S_IFSOCK,
    c.IO_REPARSE_TAG_LX_FIFO: stat.S_IFIFO,
    c.IO_REPARSE_TAG_LX_CHR: stat.S_IFCHR,
    c.IO_REPARSE_TAG_LX_BLK: stat.S_IFBLK,
}
TAG_OF_KIND = {
    stat.S_IFLNK: c.IO_REPARSE_TAG_LX_SYMLINK,
    stat.S_IFSOCK: c.IO_REPARSE_TAG_AF_UNIX,
    stat.S_IFIFO: c.IO_REPARSE_TAG_LX_FIFO,
    stat.S_IFCHR: c.IO_REPARSE_TAG_LX_CHR,
    stat.S_IFBLK: c.IO_REPARSE_TAG_LX_BLK,
}

_KINDS = frozenset({stat.S_IFREG, stat.S_IFDIR, *TAG_OF_KIND})


class Information(Protocol):
    """What `on_get_file_info` and `on_enumerate_directory` have in common."""

    creation_time_ns: int | None
    last_access_time_ns: int | None
    last_write_time_ns: int | None
    change_time_ns: int | None
    size: int
    allocation_size: int | None
    file_id: int
    attributes: int
    hard_link_count: int
    reparse_tag: int
    mode: int | None
    uid: int | None
    gid: int | None
    rdev: int


class Attributes:
    """Makes the kernel's attributes by the rules of one mounted drive.

    `started` is the time, in nanoseconds, that items have for which no time is given.
    """

    def __init__(self, options: Options, started: int) -> None:
        self._uid = options.uid
        self._gid = options.gid
        self._started = divmod(started, SECOND)
        self._change_times = options.support_change_time_attribute
        self._block_size = options.cluster_size or options.sector_size

    def mode_of(self, info: Information) -> int:
        """Type and permissions of the item; TypeError or ValueError when they are nonsense."""
        mode, attributes = info.mode, info.attributes
        if mode is None:
            usual = _USUAL_MODES.get(attributes & _DECISIVE)
            if usual is not None:
                return usual
        elif mode & 0o170000:
            if mode & 0o170000 not in _KINDS:
                raise ValueError(f"mode is {mode:#o}, of no kind of item")
            return mode
        kind = kind_of(attributes, info.reparse_tag)
        if mode is None:
            mode = 0o755 if kind == stat.S_IFDIR else 0o777 if kind == stat.S_IFLNK else 0o644
            if attributes & c.FILE_ATTRIBUTE_READONLY and kind == stat.S_IFREG:
                mode = 0o444
        return kind | mode

    def pack(self, number: int, mode: int, links: int, info: Information) -> bytes:
        """The attributes of inode `number` for a reply; raises `NONSENSE`."""
        written = info.last_write_time_ns
        if written is None:
            written = info.creation_time_ns
        if written is None:
            seconds, rest = self._started
        else:
            seconds, rest = divmod(written, SECOND)
            # The kernel takes the seconds as two's complement: before 1970 they are negative.
            seconds &= 0xFFFFFFFFFFFFFFFF
        changed_s, changed_ns, accessed_s, accessed_ns = seconds, rest, seconds, rest
        if self._change_times:
            changed = info.change_time_ns
            if changed is not None and changed != written:
                changed_s, changed_ns = divmod(changed, SECOND)
                changed_s &= 0xFFFFFFFFFFFFFFFF
        accessed = info.last_access_time_ns
        if accessed is not None and accessed != written:
            accessed_s, accessed_ns = divmod(accessed, SECOND)
            accessed_s &= 0xFFFFFFFFFFFFFFFF
        size = info.size
        if size >> 63:  # the kernel would take the whole item for broken
            raise ValueError(f"size is {size}, out of range")
        allocated = info.allocation_size
        uid, gid = info.uid, info.gid
        return pack_attributes(
            number,
            size,
            ((size if allocated is None else allocated) + 511) // BLOCK,
            accessed_s,
            seconds,
            changed_s,
            accessed_ns,
            rest,
            changed_ns,
            mode,
            links,
            self._uid if uid is None else uid,
            self._gid if gid is None else gid,
            info.rdev,
            self._block_size,
            0,
        )


def kind_of(attributes: int, reparse_tag: int) -> int:
    """The type bits of a mode. A reparse point without a known tag is taken for a symbolic link."""
    if attributes & c.FILE_ATTRIBUTE_REPARSE_POINT:
        kind = _KIND_OF_TAG.get(reparse_tag)
        if kind is not None:
            return kind
        if not reparse_tag:
            return stat.S_IFLNK
    return stat.S_IFDIR if attributes & c.FILE_ATTRIBUTE_DIRECTORY else stat.S_IFREG


def attributes_of_mode(mode: int) -> int:
    """The Windows attributes of an item that is created with this mode."""
    kind = mode & 0o170000
    if kind == stat.S_IFDIR:
        return c.FILE_ATTRIBUTE_DIRECTORY
    attributes = 0
    if not mode & 0o222:
        attributes |= c.FILE_ATTRIBUTE_READONLY
    if kind in TAG_OF_KIND:
        attributes |= c.FILE_ATTRIBUTE_REPARSE_POINT
    return attributes or c.FILE_ATTRIBUTE_NORMAL


def without_privileges(mode: int) -> int:
    """The mode that a file has after somebody wrote to it or gave it away (set-ID bits gone)."""
    mode &= ~stat.S_ISUID
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode


def nonsense_in(info: Any) -> str | None:
    """Say what is wrong with the numbers of an answer that could not be packed."""
    for name in ("size", "allocation_size", "file_id", "attributes"):
        if (problem := _problem(name, getattr(info, name, None), 0, 1 << 63)) is not None:
            return problem
    for name in ("hard_link_count", "mode", "uid", "gid", "rdev"):
        if (problem := _problem(name, getattr(info, name, None), 0, 1 << 32)) is not None:
            return problem
    for name in ("creation", "last_access", "last_write", "change"):
        name = f"{name}_time_ns"
        if (problem := _problem(name, getattr(info, name, None), -(1 << 90), 1 << 90)) is not None:
            return problem
    return None


def _problem(name: str, value: object, low: int, limit: int) -> str | None:
    if value is None:
        return None
    if not isinstance(value, int):
        return f"{name} is {value!r}, not an int"
    if not low <= value < limit:
        return f"{name} is {value}, out of range"
    return None
