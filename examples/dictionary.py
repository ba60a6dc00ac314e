"""A dictionary as a drive, read and write.

A value that is a `dict` is a directory, `bytes` are a file. What programs change on the drive is
changed in the dictionary, and the other way round:

    tree = {"docs": {"readme": b"hello"}}
    with cbfsconnect.mount(DictionaryDrive(tree), "drive"):
        ...

`python examples/dictionary.py MOUNTPOINT [FILE.json]` mounts the objects of a JSON file and prints
what they have become when the drive is unmounted.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from collections.abc import Iterator

import cbfsconnect
from cbfsconnect import (
    CBFS,
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_NORMAL,
    CBFSCloseFileEventParams,
    CBFSCreateFileEventParams,
    CBFSDeleteFileEventParams,
    CBFSEnumerateDirectoryEventParams,
    CBFSFlushFileEventParams,
    CBFSGetFileInfoEventParams,
    CBFSOpenFileEventParams,
    CBFSReadFileEventParams,
    CBFSRenameOrMoveFileEventParams,
    CBFSSetFileSizeEventParams,
    CBFSWriteFileEventParams,
)

Tree = dict[str, "bytes | Tree"]


class OpenFile:
    """The content of a file while it is open: what the handlers keep as the file's context."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.changed = False


class DictionaryDrive:
    """The handlers. The dictionary gets the content of a file when it is closed or synced."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.open: dict[str, OpenFile] = {}
        # Events of one file come one after another, those of different files do not.
        self.lock = threading.RLock()

    def configure(self, cbfs: CBFS) -> None:
        """Dictionaries tell upper case from lower case."""
        cbfs.use_case_sensitive_file_names = True
        # The program may change the dictionary behind the kernel's back: nothing is cached.
        cbfs.metadata_cache_enabled = False
        cbfs.file_cache = 0

    # --- what is there ---

    def on_get_file_info(self, e: CBFSGetFileInfoEventParams) -> None:
        """Says whether there is such an item, and what it is."""
        with self.lock:
            value = self.find(e.file_name)
            e.file_exists = value is not None
            if isinstance(value, dict):
                e.attributes = FILE_ATTRIBUTE_DIRECTORY
            elif value is not None:
                e.attributes = FILE_ATTRIBUTE_NORMAL
                opened = self.open.get(e.file_name)
                e.size = len(value if opened is None else opened.content)

    def on_enumerate_directory(self, e: CBFSEnumerateDirectoryEventParams) -> None:
        """Gives the next name; the kernel asks `on_get_file_info` for the rest."""
        with self.lock:
            if e.restart:
                directory = self.find(e.directory_name)
                names = list(directory) if isinstance(directory, dict) else []
                e.enumeration_context = iter(names)
        names_left: Iterator[str] = e.enumeration_context
        name = next(names_left, None)
        e.file_found = name is not None
        e.file_name = name or ""

    # --- opening and closing ---

    def on_create_file(self, e: CBFSCreateFileEventParams) -> None:
        """Makes a directory, or an empty file that is open."""
        with self.lock:
            parent, name = self.place(e.file_name)
            if e.attributes & FILE_ATTRIBUTE_DIRECTORY:
                parent[name] = {}
            else:
                parent[name] = b""
                e.file_context = self.open[e.file_name] = OpenFile(b"")

    def on_open_file(self, e: CBFSOpenFileEventParams) -> None:
        """Takes the content of a file out of the dictionary."""
        with self.lock:
            value = self.find(e.file_name)
            if value is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), e.file_name)
            if isinstance(value, bytes):
                e.file_context = self.open[e.file_name] = OpenFile(value)

    def on_flush_file(self, e: CBFSFlushFileEventParams) -> None:
        """Puts the content into the dictionary now; with no name that of every open file."""
        with self.lock:
            for path in [e.file_name] if e.file_name else list(self.open):
                self.store(path)

    def on_close_file(self, e: CBFSCloseFileEventParams) -> None:
        """Puts the content into the dictionary and forgets the open file."""
        with self.lock:
            self.store(e.file_name)
            self.open.pop(e.file_name, None)

    # --- data ---

    def on_read_file(self, e: CBFSReadFileEventParams) -> None:
        """Copies a part of the content."""
        data = e.file_context.content[e.position : e.position + e.bytes_to_read]
        e.buffer_view[: len(data)] = data
        e.bytes_read = len(data)

    def on_write_file(self, e: CBFSWriteFileEventParams) -> None:
        """Changes a part of the content; on_set_file_size has made room for it already."""
        opened: OpenFile = e.file_context
        opened.content[e.position : e.position + e.bytes_to_write] = e.buffer_view
        opened.changed = True
        e.bytes_written = e.bytes_to_write

    def on_set_file_size(self, e: CBFSSetFileSizeEventParams) -> None:
        """Cuts the content, or fills it up with zeros."""
        opened: OpenFile = e.file_context
        opened.content[e.size :] = bytes(max(0, e.size - len(opened.content)))
        opened.changed = True

    # --- names ---

    def on_delete_file(self, e: CBFSDeleteFileEventParams) -> None:
        """Takes the item out of the dictionary; a directory is empty, the library has looked."""
        with self.lock:
            parent, name = self.place(e.file_name)
            del parent[name]

    def on_rename_or_move_file(self, e: CBFSRenameOrMoveFileEventParams) -> None:
        """Gives the item, and open files in it, another place."""
        with self.lock:
            old_parent, old_name = self.place(e.file_name)
            new_parent, new_name = self.place(e.new_file_name)
            new_parent[new_name] = old_parent.pop(old_name)
            for path in list(self.open):
                if path == e.file_name or path.startswith(e.file_name + "/"):
                    moved = e.new_file_name + path.removeprefix(e.file_name)
                    self.open[moved] = self.open.pop(path)

    # --- the dictionary ---

    def find(self, path: str) -> bytes | Tree | None:
        """The value at a path, None when there is none."""
        value: bytes | Tree | None = self.tree
        for name in path.split("/"):
            if name:
                value = value.get(name) if isinstance(value, dict) else None
        return value

    def place(self, path: str) -> tuple[Tree, str]:
        """The dictionary that holds a path's last name, and this name."""
        directory, _, name = path.rpartition("/")
        parent = self.find(directory)
        if not isinstance(parent, dict):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory)
        return parent, name

    def store(self, path: str) -> None:
        """Put the content of an open file into the dictionary."""
        opened = self.open.get(path)
        if opened is not None and opened.changed:
            parent, name = self.place(path)
            parent[name] = bytes(opened.content)
            opened.changed = False


def from_json(value: object) -> bytes | Tree:
    """Objects of JSON are directories, everything else a file with its text."""
    if isinstance(value, dict):
        return {str(name): from_json(below) for name, below in value.items()}
    return (value if isinstance(value, str) else json.dumps(value)).encode()


def to_json(value: bytes | Tree) -> object:
    """The other way round."""
    if isinstance(value, dict):
        return {name: to_json(below) for name, below in value.items()}
    return value.decode(errors="backslashreplace")


def main(mountpoint: str, source: str | None = None) -> None:
    """Mount the objects of a JSON file, and print what has become of them."""
    tree = from_json({"readme": "A dictionary.\n"})
    if source is not None:
        with open(source, encoding="utf-8") as file:
            tree = from_json(json.load(file))
    if not isinstance(tree, dict):
        sys.exit(f"{source} holds no JSON object")
    cbfsconnect.run(DictionaryDrive(tree), mountpoint)
    print(json.dumps(to_json(tree), indent=2))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python dictionary.py MOUNTPOINT [FILE.json]")
    main(*sys.argv[1:])
