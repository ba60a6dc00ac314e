"""A drive without any state but its items: contexts, times and owners are free for the tests."""

from __future__ import annotations

import itertools
import stat
from dataclasses import dataclass, field
from typing import Any

from cbfsconnect import (
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_NORMAL,
    FILE_ATTRIBUTE_REPARSE_POINT,
    ROOT_FILE_ID,
)
from cbfsconnect.errors import ERROR_FILE_NOT_FOUND, ERROR_NOT_A_REPARSE_POINT

SECOND = 1_000_000_000
BORN, READ, WRITTEN, CHANGED = (
    number * SECOND + nanoseconds
    for number, nanoseconds in ((10**9, 1), (1_100_000_000, 22), (1_200_000_000, 333), (13**8, 4))
)
"""The times of every item: of creation, last access, last write, change."""


@dataclass
class Item:
    """A file, directory, stream or reparse point."""

    data: bytearray = field(default_factory=bytearray)
    attributes: int = FILE_ATTRIBUTE_NORMAL
    mode: int | None = None
    file_id: int = 0
    reparse: bytes | None = None


class PlainDrive:
    """Items by path; a stream is under `/file:stream`. The handlers never look at a context.

    Listings are in the order of `items`, with the position as the enumeration context. They tell
    names and ids only, so that each `stat` of a client asks for itself.
    """

    def __init__(self, **files: bytes) -> None:
        self.ids = itertools.count(100)
        self.items: dict[str, Item] = {}
        for name, data in files.items():
            self.add(f"/{name}", data)

    def configure(self, cbfs: Any) -> None:
        """Every item has four times."""
        cbfs.support_change_time_attribute = True

    def add(self, path: str, data: bytes = b"", **more: Any) -> Item:
        """Put a file there."""
        self.items[path] = Item(bytearray(data), file_id=next(self.ids), **more)
        return self.items[path]

    def add_directory(self, path: str) -> Item:
        """Put a directory there."""
        return self.add(path, attributes=FILE_ATTRIBUTE_DIRECTORY)

    def children(self, directory: str) -> list[str]:
        """The names of what is in a directory."""
        prefix = directory.rstrip("/") + "/"
        below = (p.removeprefix(prefix) for p in list(self.items) if p.startswith(prefix))
        return [name for name in below if "/" not in name and ":" not in name]

    # --- information ---

    def on_get_file_info(self, p: Any) -> None:
        root = p.file_name == "/"
        item = (
            Item(attributes=FILE_ATTRIBUTE_DIRECTORY, file_id=ROOT_FILE_ID)
            if root
            else self.items.get(p.file_name)
        )
        if item is None:
            return
        p.file_exists = True
        p.attributes, p.mode, p.file_id = item.attributes, item.mode, item.file_id
        p.size = p.allocation_size = len(item.data)
        p.creation_time_ns, p.last_access_time_ns = BORN, READ
        p.last_write_time_ns, p.change_time_ns = WRITTEN, CHANGED
        if item.reparse is not None:
            p.reparse_tag = int.from_bytes(item.reparse[:4], "little")

    def on_get_file_name_by_file_id(self, p: Any) -> None:
        for path, item in list(self.items.items()):
            if item.file_id == p.file_id:
                p.file_path = path
                return
        p.result_code = ERROR_FILE_NOT_FOUND

    def on_get_volume_size(self, p: Any) -> None:
        p.total_sectors, p.available_sectors = 8192, 4096

    def on_get_volume_label(self, p: Any) -> None:
        p.buffer = "plain"

    def on_get_volume_id(self, p: Any) -> None:
        p.volume_id = 0x1234

    # --- opening and closing ---

    def on_create_file(self, p: Any) -> None:
        item = self.add(p.file_name, attributes=p.attributes & 0xFFFF)
        if p.mode & 0o170000 not in (stat.S_IFREG, stat.S_IFDIR):
            item.mode = p.mode

    def on_open_file(self, p: Any) -> None:
        pass

    def on_cleanup_file(self, p: Any) -> None:
        pass

    def on_close_file(self, p: Any) -> None:
        pass

    # --- data ---

    def on_read_file(self, p: Any) -> None:
        part = self.items[p.file_name].data[p.position : p.position + p.bytes_to_read]
        p.buffer_view[: len(part)] = part
        p.bytes_read = len(part)

    def on_write_file(self, p: Any) -> None:
        data, end = self.items[p.file_name].data, p.position + p.bytes_to_write
        data.extend(bytes(max(0, end - len(data))))
        data[p.position : end] = p.buffer_view
        p.bytes_written = p.bytes_to_write

    def on_flush_file(self, p: Any) -> None:
        pass

    def on_set_file_size(self, p: Any) -> None:
        data = self.items[p.file_name].data
        del data[p.size :]
        data.extend(bytes(p.size - len(data)))

    def on_set_allocation_size(self, p: Any) -> None:
        pass

    def on_set_file_attributes(self, p: Any) -> None:
        if p.attributes and p.file_name in self.items:
            self.items[p.file_name].attributes = p.attributes

    # --- names ---

    def on_can_file_be_deleted(self, p: Any) -> None:
        pass

    def on_is_directory_empty(self, p: Any) -> None:
        p.is_empty = not self.children(p.directory_name)

    def on_delete_file(self, p: Any) -> None:
        del self.items[p.file_name]

    def on_rename_or_move_file(self, p: Any) -> None:
        old, new = p.file_name, p.new_file_name
        for path in [k for k in self.items if k == old or k.startswith((f"{old}/", f"{old}:"))]:
            self.items[new + path.removeprefix(old)] = self.items.pop(path)

    # --- directories ---

    def on_enumerate_directory(self, p: Any) -> None:
        if p.restart:
            p.enumeration_context = 0
        names, prefix = self.children(p.directory_name), p.directory_name.rstrip("/")
        if p.enumeration_context < len(names):
            name = p.file_name = names[p.enumeration_context]
            p.file_found, p.file_id = True, self.items[f"{prefix}/{name}"].file_id
            p.enumeration_context += 1

    def on_close_directory_enumeration(self, p: Any) -> None:
        pass

    # --- reparse points and streams ---

    def on_set_reparse_point(self, p: Any) -> None:
        item = self.items[p.file_name]
        item.reparse = bytes(p.reparse_buffer_view)
        item.attributes |= FILE_ATTRIBUTE_REPARSE_POINT

    def on_get_reparse_point(self, p: Any) -> None:
        data = self.items[p.file_name].reparse
        if data is None:
            p.result_code = ERROR_NOT_A_REPARSE_POINT
            return
        p.reparse_buffer_view[: len(data)] = data
        p.reparse_buffer_length = len(data)

    def on_delete_reparse_point(self, p: Any) -> None:
        item = self.items[p.file_name]
        item.reparse = None
        item.attributes &= ~FILE_ATTRIBUTE_REPARSE_POINT

    def on_enumerate_named_streams(self, p: Any) -> None:
        prefix = p.file_name + ":"
        streams = [path for path in list(self.items) if path.startswith(prefix)]
        if p.enumeration_context < len(streams):
            path = streams[p.enumeration_context]
            p.named_stream_found, p.stream_name = True, ":" + path.removeprefix(prefix)
            p.stream_size = p.stream_allocation_size = len(self.items[path].data)
            p.enumeration_context += 1

    def on_close_named_streams_enumeration(self, p: Any) -> None:
        pass


class LockingDrive(PlainDrive):
    """A plain drive that hears of locks."""

    def on_lock_file(self, p: Any) -> None:
        pass

    def on_unlock_file(self, p: Any) -> None:
        pass
