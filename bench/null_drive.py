"""The null filesystem of `null_lowlevel.c` as a drive: ordinary event handlers on the public API.

It holds /f (1 GiB of zeros, writes are thrown away) and, once created, /n, which is empty. Nothing
is cached. Contexts are used as a real drive uses them: the item is found by name once, when it is
opened.

    python bench/null_drive.py MOUNTPOINT
"""

from __future__ import annotations

import sys

import cbfsconnect
from cbfsconnect import (
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_NORMAL,
    CBFSCleanupFileEventParams,
    CBFSCloseFileEventParams,
    CBFSCreateFileEventParams,
    CBFSDeleteFileEventParams,
    CBFSEnumerateDirectoryEventParams,
    CBFSGetFileInfoEventParams,
    CBFSOpenFileEventParams,
    CBFSReadFileEventParams,
    CBFSSetFileSizeEventParams,
    CBFSWriteFileEventParams,
)
from cbfsconnect.errors import ERROR_FILE_NOT_FOUND

ZEROS = memoryview(bytes(1 << 20))


class Item:
    """What the drive knows of a file or directory."""

    def __init__(self, size: int, attributes: int) -> None:
        self.size = size
        self.attributes = attributes
        self.users = 0


class NullDrive:
    """The handlers."""

    def __init__(self) -> None:
        self.items = {
            "/": Item(0, FILE_ATTRIBUTE_DIRECTORY),
            "/f": Item(1 << 30, FILE_ATTRIBUTE_NORMAL),
        }

    def on_get_file_info(self, p: CBFSGetFileInfoEventParams) -> None:
        item = self.items.get(p.file_name)
        if item is not None:
            p.file_exists = True
            p.size = item.size
            p.attributes = item.attributes

    def on_enumerate_directory(self, p: CBFSEnumerateDirectoryEventParams) -> None:
        names = sorted(path[1:] for path in self.items if path != "/")
        position = 0 if p.restart else p.enumeration_context
        p.file_found = position < len(names)
        if p.file_found:
            item = self.items["/" + names[position]]
            p.file_name = names[position]
            p.size = item.size
            p.attributes = item.attributes
            p.enumeration_context = position + 1

    def on_create_file(self, p: CBFSCreateFileEventParams) -> None:
        item = self.items[p.file_name] = Item(0, p.attributes & 0xFFFF)
        item.users = 1
        p.file_context = item

    def on_open_file(self, p: CBFSOpenFileEventParams) -> None:
        item = self.items.get(p.file_name)
        if item is None:
            p.result_code = ERROR_FILE_NOT_FOUND
            return
        item.users += 1
        p.file_context = item

    def on_cleanup_file(self, p: CBFSCleanupFileEventParams) -> None:
        p.file_context.users -= 1

    def on_close_file(self, p: CBFSCloseFileEventParams) -> None:
        assert p.file_context.users == 0

    def on_read_file(self, p: CBFSReadFileEventParams) -> None:
        size = min(p.bytes_to_read, p.file_context.size - p.position)
        p.buffer_view[:size] = ZEROS[:size]
        p.bytes_read = size

    def on_write_file(self, p: CBFSWriteFileEventParams) -> None:
        p.bytes_written = p.bytes_to_write

    def on_set_file_size(self, p: CBFSSetFileSizeEventParams) -> None:
        p.file_context.size = p.size

    def on_delete_file(self, p: CBFSDeleteFileEventParams) -> None:
        del self.items[p.file_name]


if __name__ == "__main__":
    cbfsconnect.run(
        NullDrive(),
        sys.argv[1],
        file_cache=0,
        metadata_cache_enabled=False,
    )
