"""A drive with one file: `python examples/hello.py MOUNTPOINT`, then `cat MOUNTPOINT/hello.txt`."""

import sys

import cbfsconnect
from cbfsconnect import (
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_NORMAL,
    CBFSEnumerateDirectoryEventParams,
    CBFSGetFileInfoEventParams,
    CBFSOpenFileEventParams,
    CBFSReadFileEventParams,
)

TEXT = b"Hello from Python.\n"


class Hello:
    """The handlers: one method for each event."""

    def on_get_file_info(self, e: CBFSGetFileInfoEventParams) -> None:
        """Says what is there: the root directory and the file."""
        e.file_exists = e.file_name in ("/", "/hello.txt")
        if e.file_name == "/":
            e.attributes = FILE_ATTRIBUTE_DIRECTORY
        else:
            e.attributes = FILE_ATTRIBUTE_NORMAL
            e.size = len(TEXT)

    def on_enumerate_directory(self, e: CBFSEnumerateDirectoryEventParams) -> None:
        """Gives one entry each time it is asked, and then says that there is no more."""
        if e.restart:
            e.enumeration_context = 0
        e.file_found = e.enumeration_context == 0
        if e.file_found:
            e.enumeration_context = 1
            e.file_name = "hello.txt"
            e.attributes = FILE_ATTRIBUTE_NORMAL
            e.size = len(TEXT)

    def on_open_file(self, e: CBFSOpenFileEventParams) -> None:
        """Nothing needs to be prepared."""

    def on_read_file(self, e: CBFSReadFileEventParams) -> None:
        """Copies the part that is asked for."""
        data = TEXT[e.position : e.position + e.bytes_to_read]
        e.buffer_view[: len(data)] = data
        e.bytes_read = len(data)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python hello.py MOUNTPOINT")
    cbfsconnect.run(Hello(), sys.argv[1])
