"""Drives that are right, and ways to break one handler of them at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import struct
from collections.abc import Callable, Mapping
from typing import Any

from dictionary import DictionaryDrive
from mirror import Mirror

import cbfsconnect
from cbfsconnect import CBFS, MemoryDrive

Change = Callable[..., Any]
"""Called with the drive, the params and the right handler: in place of this handler."""


def broken(
    kind: Callable[..., Any] = MemoryDrive,
    *,
    stored: bool = False,
    config: Mapping[str, object] | None = None,
    properties: Mapping[str, object] | None = None,
    **changes: Change,
) -> Callable[..., Any]:
    """A factory of drives of which some handlers are replaced.

    `stored`: the drive keeps things in a directory. What the kernel would hide by its caches is
    not cached.
    """

    def make(*arguments: Any) -> Any:
        drive = kind(*arguments)
        for event, change in changes.items():
            setattr(drive, event, _changed(drive, getattr(drive, event, None), change))
        configure = getattr(drive, "configure", None)

        def configure_too(cbfs: CBFS) -> None:
            if configure is not None:
                configure(cbfs)
            cbfs.file_cache = 0
            cbfs.config("MetadataCacheTimeout=0")
            for name, value in (properties or {}).items():
                setattr(cbfs, name, value)
            for name, value in (config or {}).items():
                cbfs.config(f"{name}={value}")

        drive.configure = configure_too
        return drive

    if stored:
        return lambda directory: make(directory)
    return lambda: make()


def _changed(drive: Any, right: Change | None, change: Change) -> Change:
    return lambda p: change(drive, p, right)


def refusing(number: int, when: Callable[[Any], bool] = lambda p: True) -> Change:
    """A handler that fails with an errno."""

    def handler(drive: Any, p: Any, right: Change | None) -> None:
        if when(p):
            raise OSError(number, os.strerror(number))
        if right is not None:
            right(p)

    return handler


def after(action: Callable[[Any], object]) -> Change:
    """The right handler, and then something that spoils its answer."""

    def handler(drive: Any, p: Any, right: Change) -> None:
        right(p)
        action(p)

    return handler


def nothing(drive: Any, p: Any, right: Change) -> None:
    """A handler that does nothing and says that all is well."""


def unless(when: Callable[[Any], bool]) -> Change:
    """The right handler, but nothing in some cases."""

    def handler(drive: Any, p: Any, right: Change) -> None:
        if not when(p):
            right(p)

    return handler


def leaking(drive: Any, p: Any, right: Change | None) -> None:
    """The right handler, which also keeps something for ever."""
    if right is not None:
        right(p)
    vars(drive).setdefault("leaked", []).append([p, object()])


def with_params(**values: Any) -> Change:
    """The right handler, with other parameters: given as functions of drive and params."""

    def handler(drive: Any, p: Any, right: Change) -> None:
        for name, value in values.items():
            setattr(p, f"_{name}", value(drive, p))
        right(p)

    return handler


class LockingDrive(MemoryDrive):
    """A memory drive that keeps a table of locks: path, handle, first and last byte, exclusive."""

    def __init__(self) -> None:
        super().__init__()
        self.locks: list[tuple[str, int, int, int, bool]] = []

    def on_lock_file(self, p: cbfsconnect.CBFSLockFileEventParams) -> None:
        """Refuse what conflicts with the lock of another handle."""
        wanted = (p.byte_offset, p.byte_offset + p.length - 1)
        for path, handle, first, last, exclusive in self.locks:
            overlap = first <= wanted[1] and wanted[0] <= last
            other = path == p.file_name and handle != p.handle_info
            if other and overlap and (exclusive or p.exclusive_lock):
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.locks.append((p.file_name, p.handle_info, *wanted, p.exclusive_lock))

    def on_unlock_file(self, p: cbfsconnect.CBFSUnlockFileEventParams) -> None:
        """Cut the range out of what the handle has."""
        start, end = p.byte_offset, p.byte_offset + p.length - 1
        kept = []
        for lock in self.locks:
            path, handle, first, last, exclusive = lock
            if (path, handle) != (p.file_name, p.handle_info) or last < start or end < first:
                kept.append(lock)
                continue
            if first < start:
                kept.append((path, handle, first, start - 1, exclusive))
            if last > end:
                kept.append((path, handle, end + 1, last, exclusive))
        self.locks = kept


class LockingMirror(Mirror):
    """A mirror that passes locks on to the folder, where other programs see them."""

    def on_lock_file(self, p: cbfsconnect.CBFSLockFileEventParams) -> None:
        """Lock by open file description."""
        self._lock(p, fcntl.F_WRLCK if p.exclusive_lock else fcntl.F_RDLCK)

    def on_unlock_file(self, p: cbfsconnect.CBFSUnlockFileEventParams) -> None:
        """Unlock in the same way."""
        self._lock(p, fcntl.F_UNLCK)

    def _lock(self, p: Any, kind: int) -> None:
        length = 0 if p.byte_offset + p.length > 2**63 - 1 else p.length
        lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, p.byte_offset, length, 0)
        fcntl.fcntl(p.file_context.data(writing=True), _F_OFD_SETLK, lock)


_F_OFD_SETLK = 37


class StoredDictionary(DictionaryDrive):
    """A dictionary that lives in a file of a directory."""

    def __init__(self, directory: str) -> None:
        self.file = os.path.join(directory, "tree.pickle")
        super().__init__({})
        if os.path.exists(self.file):
            with open(self.file, "rb") as file:
                self.tree = pickle.load(file)

    def save(self) -> None:
        """Replace the file."""
        with self.lock:
            with open(self.file + ".new", "wb") as file:
                pickle.dump(self.tree, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(self.file + ".new", self.file)

    def on_flush_file(self, e: cbfsconnect.CBFSFlushFileEventParams) -> None:
        """Store all."""
        super().on_flush_file(e)
        self.save()

    def on_unmount(self, e: cbfsconnect.CBFSUnmountEventParams) -> None:
        """Store all."""
        self.save()
