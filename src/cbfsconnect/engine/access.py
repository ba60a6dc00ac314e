"""What an open(2) asks for, in the numbers of CreateFile that the events carry."""

from __future__ import annotations

import os
from typing import NamedTuple

from cbfsconnect import constants as c

SHARE_ALL = 7
"""Linux has no share modes: every open shares reading, writing and deletion."""

_DELETE = 0x10000
_WRITE_DAC = 0x40000
_WRITE_OWNER = 0x80000
_ACCESS_SYSTEM_SECURITY = 0x1000000
_NO_BUFFERING = 0x20000000
_NORMAL = 0x80
_BY_MODE = {
    os.O_RDONLY: c.DESIRED_ACCESS_FILE_GENERIC_READ,
    os.O_WRONLY: c.DESIRED_ACCESS_FILE_GENERIC_WRITE,
    os.O_RDWR: c.DESIRED_ACCESS_FILE_GENERIC_READ | c.DESIRED_ACCESS_FILE_GENERIC_WRITE,
    os.O_ACCMODE: c.DESIRED_ACCESS_FILE_READ_ATTRIBUTES,
}


class Access(NamedTuple):
    """The arguments of `on_open_file` and `on_create_file` that describe the request."""

    desired: int
    attributes: int
    disposition: int


def of_open(flags: int, directory: bool) -> Access:
    """The access that the flags of OPEN or OPENDIR stand for."""
    attributes = c.FILE_ATTRIBUTE_DIRECTORY | c.FILE_FLAG_BACKUP_SEMANTICS if directory else _NORMAL
    if flags & (os.O_SYNC | os.O_DSYNC):
        attributes |= c.FILE_FLAG_WRITE_THROUGH
    if flags & os.O_DIRECT:
        attributes |= _NO_BUFFERING
    disposition = c.FILE_OVERWRITE if flags & os.O_TRUNC else c.FILE_OPEN
    return Access(_BY_MODE[flags & os.O_ACCMODE], attributes, disposition)


def of_create(flags: int, attributes: int) -> Access:
    """The access of a CREATE with these open flags."""
    disposition = c.FILE_CREATE if flags & os.O_EXCL else c.FILE_OPEN_IF
    return Access(_BY_MODE[flags & os.O_ACCMODE], attributes, disposition)


def _on_item(desired: int, directory: bool) -> Access:
    """Of a request that opens the item itself, whatever it is, for one purpose."""
    kind = c.FILE_ATTRIBUTE_DIRECTORY if directory else _NORMAL
    flags = c.FILE_FLAG_OPEN_REPARSE_POINT | c.FILE_FLAG_BACKUP_SEMANTICS
    return Access(desired, kind | flags, c.FILE_OPEN)


DELETE = (_on_item(_DELETE, False), _on_item(_DELETE, True))
WRITE_ATTRIBUTES = (
    _on_item(c.DESIRED_ACCESS_FILE_WRITE_ATTRIBUTES, False),
    _on_item(c.DESIRED_ACCESS_FILE_WRITE_ATTRIBUTES, True),
)
READ_ATTRIBUTES = (
    _on_item(c.DESIRED_ACCESS_FILE_READ_ATTRIBUTES, False),
    _on_item(c.DESIRED_ACCESS_FILE_READ_ATTRIBUTES, True),
)
WRITE_DATA = (
    _on_item(c.DESIRED_ACCESS_FILE_WRITE_DATA, False),
    _on_item(c.DESIRED_ACCESS_FILE_WRITE_DATA, True),
)
READ_CONTROL = (
    _on_item(c.DESIRED_ACCESS_READ_CONTROL, False),
    _on_item(c.DESIRED_ACCESS_READ_CONTROL, True),
)
"""Each for a file and for a directory."""


def of_security(parts: int, directory: int) -> Access:
    """What changing these parts of a security descriptor needs: owner and group, DACL, SACL."""
    desired = _WRITE_OWNER if parts & 3 else 0
    desired |= _WRITE_DAC if parts & 4 else 0
    desired |= _ACCESS_SYSTEM_SECURITY if parts & 8 else 0
    return _on_item(desired, bool(directory))
