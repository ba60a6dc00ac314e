"""The kernel's list of mounts, read from ``/proc/self/mountinfo`` (see proc_pid_mountinfo(5)).

Nothing here touches a mounted filesystem: a path is compared with the list as text, so a drive
whose server hangs cannot make the caller hang. Paths given to the lookups must therefore be
absolute and free of symbolic links and of ``..``.

Names are ``str`` with ``surrogateescape``, as everywhere in Python's ``os`` module.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "MountEntry",
    "entries",
    "entries_below",
    "entry_at",
    "entry_for",
    "mount_points_of",
    "parse",
]

MOUNTINFO = Path("/proc/self/mountinfo")

_OCTAL = re.compile(rb"\\([0-7]{3})")
_FIXED_FIELDS = 6


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One line of mountinfo, its escapes decoded."""

    mount_id: int
    """Number of this mount in its namespace (may be used again after an unmount)."""
    parent_id: int
    """The mount that this one is mounted on; of the topmost mount one that is not listed."""
    device: str
    """``major:minor`` of the filesystem, as ``st_dev`` of its files."""
    root: str
    """The filesystem's directory seen at the mount point: ``/``, or another by a bind mount."""
    mount_point: str
    """Absolute path of the mount point, as seen from this process's root."""
    options: tuple[str, ...]
    """Options of this mount: ``rw``, ``nosuid``, ``relatime``, …"""
    optional_fields: tuple[str, ...]
    """Propagation: ``shared:N``, ``master:N``, ``propagate_from:N``, ``unbindable``."""
    fstype: str
    """Type, with subtype: ``ext4``, ``fuse.cbfs``."""
    source: str
    """What was given as source: a device, or any text."""
    super_options: tuple[str, ...]
    """Options of the filesystem: ``rw``, ``user_id=0``, ``allow_other``, …"""

    @property
    def is_fuse(self) -> bool:
        """Whether a FUSE server answers for this mount."""
        return self.fstype in ("fuse", "fuseblk") or self.fstype.startswith(("fuse.", "fuseblk."))

    def super_option(self, name: str) -> str | None:
        """The value of the filesystem's option *name*: ``""`` for a bare one, None when not set."""
        for option in self.super_options:
            key, _, value = option.partition("=")
            if key == name:
                return value
        return None


def parse(text: str | bytes) -> list[MountEntry]:
    """The entries of a whole mountinfo file, in its order.

    Raises ValueError, naming the line, when a line is not of the documented form.
    """
    data = os.fsencode(text) if isinstance(text, str) else text
    # Not splitlines(): the kernel escapes blanks, tabs, newlines, backslashes and '#', so that a
    # name may hold a carriage return or a form feed.
    return [_parse_line(line) for line in data.split(b"\n") if line]


def entries() -> list[MountEntry]:
    """The mounts that this process sees now."""
    return parse(MOUNTINFO.read_bytes())


def entry_at(path: str, mounts: Sequence[MountEntry] | None = None) -> MountEntry | None:
    """The topmost mount at exactly *path*, or None when nothing visible is mounted there.

    A mount that another one hides (stacked on it, or mounted over one of its parent directories)
    is not visible.  *mounts* is what to search, by default :func:`entries`.
    """
    found = entry_for(path, mounts)
    return found if found is not None and found.mount_point == _normal(path) else None


def entry_for(path: str, mounts: Sequence[MountEntry] | None = None) -> MountEntry | None:
    """The mount that *path* is on, or None when the list does not tell (a chroot without mounts).

    *mounts* is what to search, by default :func:`entries`.
    """
    known = entries() if mounts is None else mounts
    path = _normal(path)
    candidates = [entry for entry in known if _is_below(path, entry.mount_point)]
    ids = {entry.mount_id for entry in known}
    step = _first_step(e for e in candidates if e.parent_id not in ids or e.parent_id == e.mount_id)
    # Walk as the kernel does: from mount to the mount on it, taking the first one met on the way
    # down the path. The last entry with the longest prefix would be wrong where a mount is hidden.
    found = None
    while step is not None:
        found = step
        candidates.remove(found)
        step = _first_step(e for e in candidates if e.parent_id == found.mount_id)
    return found


def entries_below(path: str, mounts: Sequence[MountEntry] | None = None) -> list[MountEntry]:
    """The mounts inside *path*, without those at *path* itself."""
    known = entries() if mounts is None else mounts
    path = _normal(path)
    return [e for e in known if e.mount_point != path and _is_below(e.mount_point, path)]


def mount_points_of(device: str, mounts: Sequence[MountEntry] | None = None) -> list[str]:
    """Every path at which the filesystem *device* is mounted, bind mounts of it included."""
    known = entries() if mounts is None else mounts
    return [entry.mount_point for entry in known if entry.device == device]


def _parse_line(line: bytes) -> MountEntry:
    fields = line.split(b" ")
    try:
        separator = fields.index(b"-", _FIXED_FIELDS)
        fstype, source, super_options = fields[separator + 1 : separator + 4]
        return MountEntry(
            mount_id=int(fields[0]),
            parent_id=int(fields[1]),
            device=_text(fields[2]),
            root=_text(fields[3]),
            mount_point=_text(fields[4]),
            options=_words(fields[5]),
            optional_fields=tuple(_text(field) for field in fields[_FIXED_FIELDS:separator]),
            fstype=_text(fstype),
            source=_text(source),
            super_options=_words(super_options),
        )
    except ValueError:
        raise ValueError(f"not a line of mountinfo: {os.fsdecode(line)!r}") from None


def _words(field: bytes) -> tuple[str, ...]:
    return tuple(_text(word) for word in field.split(b","))


def _text(field: bytes) -> str:
    if b"\\" in field:
        field = _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field)
    return os.fsdecode(field)


def _normal(path: str) -> str:
    return path.rstrip("/") or "/"


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _first_step(mounts: Iterable[MountEntry]) -> MountEntry | None:
    """The mount nearest to the root; of several at one place the one mounted last."""
    best: MountEntry | None = None
    for entry in mounts:
        if best is None or len(entry.mount_point) <= len(best.mount_point):
            best = entry
    return best
