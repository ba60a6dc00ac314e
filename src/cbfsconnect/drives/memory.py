"""A drive in memory: a handler set with the semantics that programs expect of a Linux filesystem.

Modes, owners, times in nanoseconds, hard and symbolic links, special files, sparse files, extended
attributes (as named streams), unlinked open files, atomic replacing and swapping of names; all
within a size given at the start. Three modules: `memory_data` holds bytes and counts the space,
`memory_tree` holds items and finds them by path, and this one answers the events.

- One lock guards all of it. Copying holds the interpreter's own lock anyway, so finer locks would
  cost more than they could let run in parallel.
- `file_context` is the inode, or the stream; it serves an open item that has lost its name.
- The size bounds contents in blocks of 4 KiB, and each item and name with a fixed amount, so that
  empty files cannot fill the machine's memory either.
- Reading by itself leaves the access time alone; the library sets it when a file is closed.
- Windows attributes other than "directory" and "reparse point" are not stored, and byte-range locks
  are left to the library.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from threading import Lock
from time import time_ns
from typing import Protocol

from cbfsconnect.constants import (
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_NORMAL,
    FILE_ATTRIBUTE_REPARSE_POINT,
    IO_REPARSE_TAG_LX_SYMLINK,
)
from cbfsconnect.drives.memory_data import Space, failure
from cbfsconnect.drives.memory_tree import STREAM_SEPARATOR, Inode, Item, Stream, Tree, set_reparse
from cbfsconnect.errors import ERROR_MORE_DATA
from cbfsconnect.events import (
    CBFSCanFileBeDeletedEventParams,
    CBFSCloseDirectoryEnumerationEventParams,
    CBFSCloseFileEventParams,
    CBFSCloseHardLinksEnumerationEventParams,
    CBFSCloseNamedStreamsEnumerationEventParams,
    CBFSCreateFileEventParams,
    CBFSCreateHardLinkEventParams,
    CBFSDeleteFileEventParams,
    CBFSDeleteReparsePointEventParams,
    CBFSEnumerateDirectoryEventParams,
    CBFSEnumerateHardLinksEventParams,
    CBFSEnumerateNamedStreamsEventParams,
    CBFSFlushFileEventParams,
    CBFSGetFileInfoEventParams,
    CBFSGetFileNameByFileIdEventParams,
    CBFSGetReparsePointEventParams,
    CBFSGetVolumeIdEventParams,
    CBFSGetVolumeLabelEventParams,
    CBFSGetVolumeSizeEventParams,
    CBFSIsDirectoryEmptyEventParams,
    CBFSOpenFileEventParams,
    CBFSReadFileEventParams,
    CBFSRenameOrMoveFileEventParams,
    CBFSSetAllocationSizeEventParams,
    CBFSSetFileAttributesEventParams,
    CBFSSetFileSizeEventParams,
    CBFSSetReparsePointEventParams,
    CBFSWriteFileEventParams,
)

SECTOR = 512
"""Bytes of a sector, the unit of the volume's size: the default of the setting SectorSize."""

LABEL_MAX = 32
"""Longest volume label, in characters (`on_get_volume_label`)."""

_REPARSE_HEADER = struct.Struct("<IHH")
_SYMLINK_OVERHEAD = _REPARSE_HEADER.size + 4
"""Bytes before the target in the reparse data of a symbolic link."""

_SETTINGS = (
    "UseFileIds=True",
    "PosixDelete=True",
    "SupportExchange=True",
    "FireSetFileSizeOnWrite=False",
    f"StreamSeparator={STREAM_SEPARATOR}",
    "MetadataCacheTimeout=-1",  # nobody but the kernel changes anything here
)


class Configurable(Protocol):
    """The part of class CBFS that `MemoryDrive.configure` uses."""

    use_hard_links: bool
    use_reparse_points: bool
    use_alternate_data_streams: bool
    use_case_sensitive_file_names: bool
    support_change_time_attribute: bool
    fire_all_open_close_events: bool
    serialize_access: bool

    def config(self, configuration_string: str, /) -> str:
        """Reads ("Name") or changes ("Name=Value") a setting."""


class MemoryDrive:
    """A drive of at most `size` bytes, empty at first; its handlers are the `on_…` methods.

    `label` has at most 32 characters. The root belongs to the user who runs the program. Handlers
    raise OSError with the errno that the caller shall see. Call `configure` with the CBFS object
    before `create_storage`.
    """

    def __init__(self, size: int = 1 << 30, label: str = "memory") -> None:
        if size <= 0:
            raise ValueError(f"size is a number of bytes above 0, not {size}")
        if len(label) > LABEL_MAX:
            raise ValueError(f"label has {len(label)} characters, at most {LABEL_MAX} fit")
        self.label = label
        self.volume_id = int.from_bytes(os.urandom(4), "little") | 1
        self._lock = Lock()
        self._space = Space(size)
        self._tree = Tree(self._space, os.getuid(), os.getgid())

    def configure(self, cbfs: Configurable) -> None:
        """Sets the properties and settings of `cbfs` that this drive relies on."""
        cbfs.use_hard_links = True
        cbfs.use_reparse_points = True
        cbfs.use_alternate_data_streams = True
        cbfs.use_case_sensitive_file_names = True
        cbfs.support_change_time_attribute = True
        cbfs.fire_all_open_close_events = False
        cbfs.serialize_access = False  # the drive has a lock of its own
        for setting in _SETTINGS:
            cbfs.config(setting)

    # --- the volume ---

    def on_get_volume_size(self, p: CBFSGetVolumeSizeEventParams) -> None:
        """Gives the size of the drive and what of it is free."""
        p.total_sectors = self._space.total // SECTOR
        p.available_sectors = self._space.free // SECTOR

    def on_get_volume_label(self, p: CBFSGetVolumeLabelEventParams) -> None:
        """Gives the label."""
        p.buffer = self.label

    def on_get_volume_id(self, p: CBFSGetVolumeIdEventParams) -> None:
        """Gives the id, drawn anew for each drive."""
        p.volume_id = self.volume_id

    # --- opening, closing, creating ---

    def on_create_file(self, p: CBFSCreateFileEventParams) -> None:
        """Makes and opens an item of any kind, or a stream. EEXIST, ENOENT, ENOSPC."""
        path = p.file_name
        with self._lock:
            item: Item
            if STREAM_SEPARATOR in path:
                item = self._tree.create_stream(path)
            else:
                mode = p.mode
                if p.attributes & FILE_ATTRIBUTE_DIRECTORY:
                    mode = stat.S_IFDIR | stat.S_IMODE(mode)
                item = self._tree.create(path, mode, p.uid, p.gid, p.rdev)
            item.opens = 1
            p.file_context = item

    def on_open_file(self, p: CBFSOpenFileEventParams) -> None:
        """Makes the item the file's context."""
        with self._lock:
            item: Item = p.file_context or self._tree.get(p.file_name)
            item.opens += 1
            p.file_context = item

    def on_close_file(self, p: CBFSCloseFileEventParams) -> None:
        """Frees the item if it has lost its last name meanwhile."""
        item: Item = p.file_context
        if not item:
            return
        with self._lock:
            item.opens -= 1
            self._tree.settle(item)

    # --- information ---

    def on_get_file_info(self, p: CBFSGetFileInfoEventParams) -> None:
        """Says whether an item is there, and all about it."""
        with self._lock:
            item: Item | None = p.file_context or self._tree.find(p.file_name)
            if item is None:
                p.file_exists = False
                return
            p.file_exists = True
            if isinstance(item, Stream):
                _describe_stream(p, item)
            else:
                _describe(p, item)

    def on_set_file_attributes(self, p: CBFSSetFileAttributesEventParams) -> None:
        """Changes times, mode and owner, as far as given."""
        with self._lock:
            item: Item = p.file_context or self._tree.get(p.file_name)
            inode = item.owner if isinstance(item, Stream) else item
            if p.mode is not None:
                inode.mode = stat.S_IFMT(inode.mode) | stat.S_IMODE(p.mode)
            if p.uid is not None:
                inode.uid = p.uid
            if p.gid is not None:
                inode.gid = p.gid
            if p.creation_time_ns is not None:
                inode.btime = p.creation_time_ns
            if p.last_access_time_ns is not None:
                inode.atime = p.last_access_time_ns
            if p.last_write_time_ns is not None:
                inode.mtime = p.last_write_time_ns
            inode.ctime = time_ns() if p.change_time_ns is None else p.change_time_ns

    def on_get_file_name_by_file_id(self, p: CBFSGetFileNameByFileIdEventParams) -> None:
        """Gives a path of the item with this id, ENOENT if it has none."""
        with self._lock:
            path = self._tree.path_of(p.file_id)
        if path is None:
            raise failure(errno.ENOENT)
        p.file_path = path

    # --- data ---

    def on_read_file(self, p: CBFSReadFileEventParams) -> None:
        """Copies what is there; holes are zeros, and 0 bytes say that the file ends."""
        view = p.buffer_view
        if len(view) != p.bytes_to_read:
            view = view[: p.bytes_to_read]
        with self._lock:
            item: Item = p.file_context or self._tree.get(p.file_name)
            p.bytes_read = item.read(p.position, view)

    def on_write_file(self, p: CBFSWriteFileEventParams) -> None:
        """Stores what the space allows; ENOSPC when that is nothing."""
        view = p.buffer_view
        if len(view) != p.bytes_to_write:
            view = view[: p.bytes_to_write]
        with self._lock:
            item: Item = p.file_context or self._tree.get(p.file_name)
            written = item.write(self._space, p.position, view)
            if not written and len(view):
                raise failure(errno.ENOSPC)
            p.bytes_written = written
            item.touch(time_ns())

    def on_flush_file(self, p: CBFSFlushFileEventParams) -> None:
        """There is no storage that data could be flushed to."""

    def on_set_file_size(self, p: CBFSSetFileSizeEventParams) -> None:
        """Cuts or extends the file."""
        with self._lock:
            item: Item = p.file_context or self._tree.get(p.file_name)
            item.truncate(self._space, p.size)
            item.touch(time_ns())

    def on_set_allocation_size(self, p: CBFSSetAllocationSizeEventParams) -> None:
        """Promises space, or raises ENOSPC."""
        with self._lock:
            item: Item = p.file_context or self._tree.get(p.file_name)
            item.reserve(self._space, p.allocation_size)

    # --- deleting, renaming ---

    def on_can_file_be_deleted(self, p: CBFSCanFileBeDeletedEventParams) -> None:
        """Permissions are the kernel's matter, so this says yes."""
        p.can_be_deleted = True

    def on_delete_file(self, p: CBFSDeleteFileEventParams) -> None:
        """Removes a name; who has the item open keeps it."""
        with self._lock:
            self._tree.remove(p.file_name)

    def on_rename_or_move_file(self, p: CBFSRenameOrMoveFileEventParams) -> None:
        """Moves a name, replacing what is there, or swaps two."""
        with self._lock:
            if p.exchange:
                self._tree.exchange(p.file_name, p.new_file_name)
            else:
                self._tree.move(p.file_name, p.new_file_name)

    # --- directories ---

    def on_enumerate_directory(self, p: CBFSEnumerateDirectoryEventParams) -> None:
        """Gives the next entry, with all its attributes."""
        with self._lock:
            listing = p.enumeration_context
            if p.restart or not listing:
                directory = p.directory_context or self._tree.directory(p.directory_name)
                p.enumeration_context = listing = directory.listing()
            for name, inode in listing:
                p.file_found = True
                p.file_name = name
                _describe(p, inode)
                return
            p.file_found = False

    def on_close_directory_enumeration(self, p: CBFSCloseDirectoryEnumerationEventParams) -> None:
        """The listing is freed with its context."""

    def on_is_directory_empty(self, p: CBFSIsDirectoryEmptyEventParams) -> None:
        """Looks whether there is any entry."""
        with self._lock:
            directory = p.directory_context or self._tree.directory(p.directory_name)
            p.is_empty = not directory.children

    # --- hard links ---

    def on_create_hard_link(self, p: CBFSCreateHardLinkEventParams) -> None:
        """Gives a file a further name."""
        with self._lock:
            inode = p.file_context or self._tree.inode(p.file_name)
            self._tree.link(inode, p.link_name)

    def on_enumerate_hard_links(self, p: CBFSEnumerateHardLinksEventParams) -> None:
        """Gives the next of the names that the file had when the enumeration began."""
        with self._lock:
            names = p.enumeration_context
            if not names:
                inode = p.file_context or self._tree.inode(p.file_name)
                p.enumeration_context = names = iter(inode.names())
            for directory, name in names:
                p.link_found = True
                p.link_name = name
                p.parent_id = directory.file_id
                return
            p.link_found = False

    def on_close_hard_links_enumeration(self, p: CBFSCloseHardLinksEnumerationEventParams) -> None:
        """The names are freed with their context."""

    # --- symbolic links and other reparse points ---

    def on_set_reparse_point(self, p: CBFSSetReparsePointEventParams) -> None:
        """Stores the reparse data as they are; those of a symbolic link give its size."""
        data = bytes(p.reparse_buffer_view[: p.reparse_buffer_length])
        if len(data) < _REPARSE_HEADER.size:
            raise failure(errno.EINVAL)
        with self._lock:
            inode = p.file_context or self._tree.inode(p.file_name)
            set_reparse(self._space, inode, data)
            if stat.S_ISLNK(inode.mode):
                inode.size = max(0, len(data) - _SYMLINK_OVERHEAD)
            inode.attributes |= FILE_ATTRIBUTE_REPARSE_POINT
            inode.ctime = time_ns()

    def on_get_reparse_point(self, p: CBFSGetReparsePointEventParams) -> None:
        """Gives the reparse data; ERROR_MORE_DATA if they do not fit, EINVAL if there are none."""
        with self._lock:
            inode = p.file_context or self._tree.inode(p.file_name)
            data = inode.reparse
        if data is None:
            raise failure(errno.EINVAL)
        count = min(len(data), p.reparse_buffer_length, len(p.reparse_buffer_view))
        p.reparse_buffer_view[:count] = data[:count]
        p.reparse_buffer_length = count
        if count < len(data):
            p.result_code = ERROR_MORE_DATA

    def on_delete_reparse_point(self, p: CBFSDeleteReparsePointEventParams) -> None:
        """Forgets the reparse data. A symbolic link is nothing without them: EINVAL."""
        with self._lock:
            inode = p.file_context or self._tree.inode(p.file_name)
            if inode.reparse is None or stat.S_ISLNK(inode.mode):
                raise failure(errno.EINVAL)
            set_reparse(self._space, inode, None)
            inode.attributes &= ~FILE_ATTRIBUTE_REPARSE_POINT
            inode.ctime = time_ns()

    # --- named streams ---

    def on_enumerate_named_streams(self, p: CBFSEnumerateNamedStreamsEventParams) -> None:
        """Gives the next of the streams that the item had when the enumeration began."""
        with self._lock:
            streams = p.enumeration_context
            if not streams:
                inode = p.file_context or self._tree.inode(p.file_name)
                p.enumeration_context = streams = iter(list((inode.streams or {}).items()))
            for name, stream in streams:
                if not stream.links:
                    continue
                p.named_stream_found = True
                p.stream_name = ":" + name
                p.stream_size = stream.size
                p.stream_allocation_size = stream.allocated
                return
            p.named_stream_found = False

    def on_close_named_streams_enumeration(
        self, p: CBFSCloseNamedStreamsEnumerationEventParams
    ) -> None:
        """The streams' names are freed with their context."""


def _describe(
    p: CBFSGetFileInfoEventParams | CBFSEnumerateDirectoryEventParams, inode: Inode
) -> None:
    """Sets what both events tell about an item. The busiest function of a drive: no detours."""
    p.mode = inode.mode
    p.uid = inode.uid
    p.gid = inode.gid
    p.rdev = inode.rdev
    p.size = inode.size
    p.allocation_size = inode.held if inode.held > inode.reserved else inode.reserved
    p.creation_time_ns = inode.btime
    p.last_access_time_ns = inode.atime
    p.last_write_time_ns = inode.mtime
    p.change_time_ns = inode.ctime
    p.file_id = inode.file_id
    p.hard_link_count = inode.links
    p.attributes = inode.attributes
    if inode.attributes & FILE_ATTRIBUTE_REPARSE_POINT:
        p.reparse_tag = _reparse_tag(inode)


def _describe_stream(p: CBFSGetFileInfoEventParams, stream: Stream) -> None:
    owner = stream.owner
    _describe(p, owner)
    p.mode = stat.S_IFREG | stat.S_IMODE(owner.mode)
    p.attributes = FILE_ATTRIBUTE_NORMAL
    p.reparse_tag = 0
    p.size = stream.size
    p.allocation_size = stream.allocated


def _reparse_tag(inode: Inode) -> int:
    if inode.reparse is None:
        return IO_REPARSE_TAG_LX_SYMLINK  # a symbolic link that is just being made
    tag: int = _REPARSE_HEADER.unpack_from(inode.reparse)[0]
    return tag
