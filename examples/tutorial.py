"""The drive of docs/tutorial.md: notes in memory. `python examples/tutorial.py MOUNTPOINT`."""
# ruff: noqa: D101, D102
# mypy: ignore-errors

import errno
import sys

import cbfsconnect
from cbfsconnect import FILE_ATTRIBUTE_DIRECTORY, FILE_ATTRIBUTE_NORMAL


class Notes:
    def __init__(self):
        self.notes = {"/welcome": bytearray(b"Write me.\n")}

    def on_get_file_info(self, e):
        e.file_exists = e.file_name == "/" or e.file_name in self.notes
        if e.file_name == "/":
            e.attributes = FILE_ATTRIBUTE_DIRECTORY
        elif e.file_exists:
            e.attributes = FILE_ATTRIBUTE_NORMAL
            e.size = len(self.notes[e.file_name])

    def on_enumerate_directory(self, e):
        if e.restart:
            e.enumeration_context = iter(list(self.notes))
        path = next(e.enumeration_context, None)
        e.file_found = path is not None
        e.file_name = path.removeprefix("/") if path else ""

    def on_open_file(self, e):
        e.file_context = self.notes.get(e.file_name)

    def on_read_file(self, e):
        data = e.file_context[e.position : e.position + e.bytes_to_read]
        e.buffer_view[: len(data)] = data
        e.bytes_read = len(data)

    def on_create_file(self, e):
        if e.attributes & FILE_ATTRIBUTE_DIRECTORY:
            raise OSError(errno.EPERM, "only notes here")
        e.file_context = self.notes[e.file_name] = bytearray()

    def on_set_file_size(self, e):
        note = e.file_context
        note[e.size :] = bytes(max(0, e.size - len(note)))

    def on_write_file(self, e):
        e.file_context[e.position : e.position + e.bytes_to_write] = e.buffer_view
        e.bytes_written = e.bytes_to_write

    def on_delete_file(self, e):
        del self.notes[e.file_name]

    def on_rename_or_move_file(self, e):
        self.notes[e.new_file_name] = self.notes.pop(e.file_name)


if __name__ == "__main__":
    cbfsconnect.run(Notes(), sys.argv[1])
