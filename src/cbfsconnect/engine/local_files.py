"""Opening files of this machine that stand for files of the drive.

Two things must not happen. A path must not lead to the drive itself: the drive would wait for its
own answer. And inside a mirror directory no name may lead out of it, by a symbolic link, by "..",
or by somebody who swaps directories meanwhile. The kernel sees to both with openat2(2) where that
suffices; else each component is opened by itself and looked at before the next.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_SYS_OPENAT2 = 437  # the same on all architectures
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 1, 2, 4, 8
_HOW = struct.Struct("=QQQ")

_AT_EMPTY_PATH, _AT_STATX_DONT_SYNC = 0x1000, 0x4000
_STATX_SIZE, _STATX_DEVICE = 256, struct.Struct("=II")
_DEVICE_AT = 136

_MOST_LINKS = 40
_PATH_ONLY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_size_t,
)
_fallocate = getattr(_libc, "fallocate64", None) or _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class OnOwnDrive(OSError):
    """The path leads to the drive that would be served by it."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EDEADLK, "it is on the drive itself", path)


def find(path: str, own: int) -> int:
    """A descriptor (O_PATH) of what an absolute path leads to. `own` is the drive's `st_dev`."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            relative = path.lstrip("/") or "."
            return _openat2(root, relative, os.O_PATH | os.O_CLOEXEC, _NO_XDEV)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOSYS):
                raise
        return _walk(os.dup(root), path, own, follow=True)
    finally:
        os.close(root)


def reopen(fd: int, flags: int) -> int:
    """Open what an O_PATH descriptor stands for."""
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC | os.O_NOCTTY)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    if _fallocate(fd, mode, offset, length):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Mirror:
    """A directory whose items have the same names as those of the drive, or of a part of it.

    Paths are relative to it, with "/" between names, and never leave it. The descriptor lives as
    long as the object. `own()` is the drive's `st_dev`: the drive may be mounted in it later.
    """

    def __init__(self, path: str, own: Callable[[], int]) -> None:
        self.path = path
        self._own = own
        fd = find(path, own())
        try:
            self._fd = reopen(fd, os.O_RDONLY | os.O_DIRECTORY)
        finally:
            os.close(fd)
        weakref.finalize(self, os.close, self._fd)

    def find(self, relative: str) -> int:
        """A descriptor (O_PATH) of the item of that name; symbolic links are not followed."""
        if not relative:
            return os.dup(self._fd)
        inside = _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
        try:
            return _openat2(self._fd, relative, _PATH_ONLY, inside)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOSYS):
                raise
        return _walk(os.dup(self._fd), relative, self._own(), follow=False)

    def rename(self, old: str, new: str) -> None:
        """Move an item inside the mirror; directories above the new name are made."""
        self._make_parents(new)
        with self._parent(old) as (source, old_name), self._parent(new) as (target, new_name):
            os.rename(old_name, new_name, src_dir_fd=source, dst_dir_fd=target)

    def link(self, old: str, new: str) -> None:
        """Give a file a further name; directories above it are made."""
        self._make_parents(new)
        with self._parent(old) as (source, old_name), self._parent(new) as (target, new_name):
            os.link(old_name, new_name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)

    def remove(self, relative: str, directory: bool) -> None:
        """Delete a file or an empty directory."""
        with self._parent(relative) as (parent, name):
            if directory:
                os.rmdir(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)

    def is_at(self, relative: str, fd: int) -> bool:
        """Whether the name stands for the item that is open as `fd`."""
        try:
            found = self.find(relative)
        except OSError:
            return False
        try:
            return os.path.samestat(os.fstat(found), os.fstat(fd))
        finally:
            os.close(found)

    @contextmanager
    def _parent(self, relative: str) -> Iterator[tuple[int, str]]:
        """The directory that has an item, and the item's name in it."""
        above, _, name = relative.rpartition("/")
        if not name:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        fd = self.find(above)
        try:
            yield fd, name
        finally:
            os.close(fd)

    def _make_parents(self, relative: str) -> None:
        parts = relative.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            with (
                self._parent("/".join(parts[:count])) as (parent, name),
                suppress(FileExistsError),
            ):
                os.mkdir(name, dir_fd=parent)


def _openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    if "\0" in path:  # where the call would take it to end
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
    how, encoded = _HOW.pack(flags, 0, resolve), os.fsencode(path)
    while True:
        fd: int = _syscall(_SYS_OPENAT2, directory, encoded, how, len(how))
        number = ctypes.get_errno()
        if fd >= 0:
            return fd
        # EAGAIN: somebody moved a directory meanwhile, and the kernel could not tell where to.
        if number not in (errno.EINTR, errno.EAGAIN):
            raise OSError(number, os.strerror(number), path)


def _walk(current: int, path: str, own: int, *, follow: bool) -> int:
    """Open component by component, beginning at a descriptor that is consumed."""
    todo = path.split("/")[::-1]
    links = 0
    try:
        while todo:
            name = todo.pop()
            if name in ("", ".") or (name == ".." and not follow):
                continue
            found = os.open(name, _PATH_ONLY, dir_fd=current)
            try:
                if _device(found) == own:
                    raise OnOwnDrive(path)
                if stat.S_ISLNK(os.fstat(found).st_mode):
                    links += 1
                    if not follow or links > _MOST_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                    target = os.readlink("", dir_fd=found)
                    todo += target.split("/")[::-1]
                    if not target.startswith("/"):
                        continue
                    root = os.open("/", _PATH_ONLY)
                    os.close(found)
                    found = root
                current, found = found, current
            finally:
                os.close(found)
    except BaseException:
        os.close(current)
        raise
    return current


def _device(fd: int) -> int:
    """`st_dev` of an open item, without asking the server of its filesystem for anything."""
    if not hasattr(_libc, "statx"):
        return os.fstat(fd).st_dev
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    if _libc.statx(fd, b"", _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC, 0, buffer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return os.makedev(*_STATX_DEVICE.unpack_from(buffer, _DEVICE_AT))
