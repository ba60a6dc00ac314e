"""What other processes ask of a mounted drive beyond what files can do."""

from __future__ import annotations

import ctypes
import errno
import os

from cbfsconnect.fuse import mountinfo

_ATTRIBUTE = "system.cbfs.hard_links"
_MOST_BYTES = 64 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


def enumerate_hard_links(path: str | os.PathLike[str]) -> list[str]:
    """Every path of a file on a mounted drive, as absolute paths.

    Any process may call it that may look the file up, but not the one that serves the drive. The
    drive's `on_enumerate_hard_links` and `on_close_hard_links_enumeration` fire. Raises `OSError`:
    EOPNOTSUPP when the file is on no such drive or the drive has no hard links, EISDIR for a
    directory. Names outside of a partial bind mount are left out.
    """
    directory, name = os.path.split(os.path.abspath(os.fspath(path)))
    real = os.path.join(os.path.realpath(directory), name)
    entry = mountinfo.entry_for(real)
    links: list[str] = []
    attribute = _ATTRIBUTE
    while attribute:
        value = _get_attribute(real, attribute)
        attribute = ""
        for item in value.split(b"\0")[:-1]:
            if item.startswith(b"+"):
                attribute = f"{_ATTRIBUTE}.{item[1:].decode()}"
            else:
                links.append(os.fsdecode(item))
    root = entry.root.rstrip("/") if entry is not None else ""
    point = entry.mount_point.rstrip("/") if entry is not None else ""
    return [point + link[len(root) :] for link in links if link.startswith(root + "/")]


def _get_attribute(path: str, name: str) -> bytes:
    """Read it with one call, so that the drive enumerates once; `os.getxattr` may need two."""
    buffer = ctypes.create_string_buffer(_MOST_BYTES)
    size = _libc.lgetxattr(os.fsencode(path), name.encode(), buffer, ctypes.c_size_t(_MOST_BYTES))
    if size < 0:
        number = ctypes.get_errno()
        if number == errno.ENODATA:
            number = errno.EOPNOTSUPP
        raise OSError(number, os.strerror(number), path)
    return buffer.raw[:size]
