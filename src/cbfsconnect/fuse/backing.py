"""Backing files: local files whose data the kernel itself reads and writes (FUSE_PASSTHROUGH).

A local file is registered with the connection, which gives a number for it; an open that is
answered with that number goes straight to the file. It needs CAP_SYS_ADMIN.
"""

from __future__ import annotations

import errno
import fcntl
import struct
from collections.abc import Callable

_MAP = struct.Struct("=iIQ")
"""`struct fuse_backing_map`: descriptor, flags, padding."""
_NUMBER = struct.Struct("=I")


def _iow(number: int, size: int) -> int:
    """The number of an ioctl of /dev/fuse that takes `size` bytes."""
    return 1 << 30 | size << 16 | 229 << 8 | number


_OPEN = _iow(1, _MAP.size)
_CLOSE = _iow(2, _NUMBER.size)

_NEVER = (errno.EPERM, errno.ENOTTY)
"""What it will say to every file: no right to it, or a kernel that does not know how."""


class BackingFiles:
    """The backing files of one connection. `descriptor()` is that of /dev/fuse, below 0 if gone."""

    def __init__(self, descriptor: Callable[[], int]) -> None:
        self._descriptor = descriptor
        self._useless = False

    def open(self, fd: int) -> int:
        """Register the file of a descriptor: its number, or 0 where the kernel cannot serve it.

        So it is without CAP_SYS_ADMIN, and with files of filesystems that are made of others.
        """
        connection = self._descriptor()
        if self._useless or connection < 0:
            return 0
        try:
            # A mutable buffer: what the call returns is the number.
            return int(fcntl.ioctl(connection, _OPEN, bytearray(_MAP.pack(fd, 0, 0)), True))
        except OSError as error:
            self._useless = error.errno in _NEVER
            return 0

    def close(self, number: int) -> None:
        """Take a file back. Opens that go to it already keep it."""
        connection = self._descriptor()
        if connection < 0:
            return
        try:
            fcntl.ioctl(connection, _CLOSE, bytearray(_NUMBER.pack(number)), True)
        except OSError:  # the connection is gone, and the file with it
            return
