"""The kernel's news of programs that are about to be run (fanotify): by whom, and which file.

A process may run one program for a moment only and then another (exec), or end. Who looks for it in
/proc may come too late; this news is there before the program begins. It needs CAP_SYS_ADMIN.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from cbfsconnect.processes import Executable

_CLOEXEC, _NONBLOCK, _UNLIMITED_QUEUE = 0x1, 0x2, 0x10
_MARK_ADD, _MARK_ONLYDIR = 0x1, 0x8
_OPEN_EXEC, _EVENT_ON_CHILD = 0x1000, 0x0800_0000
_AT_FDCWD = -100
_EVENT = struct.Struct("=IBBHQii")


class Opened(NamedTuple):
    """A process has opened a file to run it. (It may fail to, after all.)"""

    process: int
    file: Executable


class ProgramEvents:
    """Hears of programs in watched directories; `OSError` when the kernel does not tell."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        flags = _CLOEXEC | _NONBLOCK | _UNLIMITED_QUEUE
        self._descriptor = self._libc.fanotify_init(flags, os.O_RDONLY | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def watch(self, path: str) -> None:
        """Hear of a program: of the file by whatever name, and of what gets its name later."""
        with contextlib.suppress(OSError):
            self._mark(_MARK_ADD, _OPEN_EXEC, path)
        with contextlib.suppress(OSError):
            directory = os.path.dirname(path)
            self._mark(_MARK_ADD | _MARK_ONLYDIR, _OPEN_EXEC | _EVENT_ON_CHILD, directory)

    def read(self) -> Iterator[Opened]:
        """All that is there now."""
        while True:
            try:
                data = os.read(self._descriptor, 8192)
            except OSError:  # there is no more, or the file may not be opened to tell of it
                return
            at = 0
            while at < len(data):
                length, _, _, _, _, descriptor, process = _EVENT.unpack_from(data, at)
                at += length
                if descriptor < 0:
                    continue
                try:
                    path, seen = os.readlink(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor)
                finally:
                    os.close(descriptor)
                device = (os.major(seen.st_dev), os.minor(seen.st_dev))
                yield Opened(process, Executable(path, device, seen.st_ino))

    def close(self) -> None:
        """Hear no more."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _mark(self, flags: int, mask: int, path: str) -> None:
        name = os.fsencode(path)
        made = self._libc.fanotify_mark(
            self._descriptor, flags, ctypes.c_uint64(mask), _AT_FDCWD, name
        )
        if made < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
