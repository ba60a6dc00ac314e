"""What other processes ask of a mounted drive beyond what files can do."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from cbfsconnect.fuse import mountinfo

_ATTRIBUTE = "system.cbfs.hard_links"
_MOST_BYTES = 64 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


def enumerate_hard_links(path: str | os.PathLike[str]) -> list[str]:
    """Every path of a file on a mounted drive, as absolute paths.

    Any process may call it that may look the file up, but not the one that serves the drive. The
    drive's `on_enumerate_hard_links` and `on_close_hard_links_enumeration` fire. The paths are
    those of the mount through which the file was reached; names that lie outside of it (a bind
    mount of a directory) or are covered by another mount are left out. A symbolic link is not
    followed: it may have hard links itself.

    Raises `OSError`: EOPNOTSUPP when the file is on no such drive or the drive has no hard links,
    EISDIR for a directory, ESTALE when the listing was so long ago begun that the drive has dropped
    the rest of it, and whatever the drive's handlers report.
    """
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        links = _read_links(f"/proc/self/fd/{descriptor}")
        mount_id = _mount_id(descriptor)
    except OSError as error:
        error.filename = os.fspath(path)
        raise
    finally:
        os.close(descriptor)
    mounts = mountinfo.entries()
    entry = next((entry for entry in mounts if entry.mount_id == mount_id), None)
    return [] if entry is None else _visible(links, entry, mounts)


def _read_links(path: str) -> list[str]:
    """The paths inside the drive, page by page."""
    links: list[str] = []
    attribute = _ATTRIBUTE
    while attribute:
        value = _get_attribute(path, attribute)
        attribute = ""
        for item in value.split(b"\0")[:-1]:
            if item.startswith(b"+"):
                attribute = f"{_ATTRIBUTE}.{item[1:].decode()}"
            else:
                links.append(os.fsdecode(item))
    return links


def _get_attribute(path: str, name: str) -> bytes:
    """Read it with one call, so that the drive enumerates once; `os.getxattr` may need two."""
    buffer = ctypes.create_string_buffer(_MOST_BYTES)
    size = _libc.getxattr(os.fsencode(path), name.encode(), buffer, ctypes.c_size_t(_MOST_BYTES))
    if size < 0:
        number = ctypes.get_errno()
        if number == errno.ENODATA:
            number = errno.EOPNOTSUPP if name == _ATTRIBUTE else errno.ESTALE
        raise OSError(number, os.strerror(number), path)
    return buffer.raw[:size]


def _mount_id(descriptor: int) -> int:
    """The mount through which a descriptor was opened."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "mnt_id":
            return int(value)
    return -1


def _visible(
    links: list[str], entry: mountinfo.MountEntry, mounts: list[mountinfo.MountEntry]
) -> list[str]:
    """Paths inside the drive as this process can use them through one of its mounts."""
    root, point = entry.root.rstrip("/"), entry.mount_point.rstrip("/")
    paths = [
        point + link[len(root) :] for link in links if link == root or link.startswith(f"{root}/")
    ]
    if mountinfo.entries_below(entry.mount_point, mounts):
        return [p for p in paths if mountinfo.entry_for(p, mounts) == entry]
    return paths
