"""Security identifiers (SIDs): the names that Windows gives to users, and Linux users among them.

A SID has a text form, `S-1-22-1-1000`, and a binary one, which events carry. The users and groups
of Linux are S-1-22-1-UID and S-1-22-2-GID, as in Samba.
"""

from __future__ import annotations

import re
import struct

MOST_BYTES = 68
"""SECURITY_MAX_SID_SIZE: a binary SID with 15 numbers."""

_FORM = re.compile(r"S-1-(\d{1,15})((?:-\d{1,10}){1,15})", re.IGNORECASE | re.ASCII)
_USERS = "S-1-22-1-"
_HEAD = 8
_MOST_NUMBERS = 15


def sid_of_uid(uid: int) -> str:
    """The SID of a Linux user. Raises `ValueError` for what cannot be a user id."""
    if not 0 <= uid < 0xFFFFFFFF:
        raise ValueError(f"{uid} is no user id")
    return f"{_USERS}{uid}"


def uid_of_sid(sid: str | bytes) -> int | None:
    """The user id of a SID that `sid_of_uid` made; None for any other."""
    text = sid_to_text(sid) if isinstance(sid, bytes) else sid
    tail = text[len(_USERS) :]
    return int(tail) if text.upper().startswith(_USERS) and tail.isdecimal() else None


def sid_to_bytes(text: str) -> bytes:
    """The binary form of a SID. Raises `ValueError` when it is none."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no SID, such as S-1-22-1-1000")
    authority = int(match[1])
    numbers = [int(number) for number in match[2][1:].split("-")]
    try:
        head = struct.pack(">BBHI", 1, len(numbers), authority >> 32, authority & 0xFFFFFFFF)
        return head + struct.pack(f"<{len(numbers)}I", *numbers)
    except struct.error as error:
        raise ValueError(f"{text!r} has a number that is too large for a SID") from error


def sid_to_text(sid: bytes) -> str:
    """The text form of a binary SID. Raises `ValueError` when it is none."""
    if len(sid) < _HEAD or sid_length(sid) != len(sid):
        raise ValueError(f"{sid.hex()} is no SID")
    _, count, high, low = struct.unpack_from(">BBHI", sid)
    numbers = struct.unpack_from(f"<{count}I", sid, _HEAD)
    return "-".join(["S-1", str(high << 32 | low), *map(str, numbers)])


def sid_length(data: bytes | memoryview) -> int:
    """How many bytes the SID has with which the data begin; 0 when they begin with none."""
    if len(data) < _HEAD or data[0] != 1 or not 1 <= data[1] <= _MOST_NUMBERS:
        return 0
    length = _HEAD + 4 * data[1]
    return length if length <= len(data) else 0
