"""Mounting points: where a drive is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cbfsconnect import constants as c
from cbfsconnect.errors import ERROR_INVALID_PARAMETER, CBFSConnectError

if TYPE_CHECKING:
    from collections.abc import Iterable

_KINDS = c.STGMP_SIMPLE | c.STGMP_MOUNT_MANAGER | c.STGMP_NETWORK
_FLAGS = (
    _KINDS
    | c.STGMP_LOCAL
    | c.STGMP_NETWORK_ALLOW_MAP_AS_DRIVE
    | c.STGMP_NETWORK_HIDDEN_SHARE
    | c.STGMP_NETWORK_READ_ACCESS
    | c.STGMP_NETWORK_WRITE_ACCESS
    | c.STGMP_NETWORK_CLAIM_SERVER_NAME
    | c.STGMP_DRIVE_LETTER_NOTIFY_ASYNC
    | c.STGMP_AUTOCREATE_DRIVE_LETTER
)


@dataclass(frozen=True, slots=True)
class MountingPoint:
    """One place where the drive is seen: as it was added, and the real path it has."""

    name: str
    flags: int
    authentication_id: int
    path: str


def check_flags(flags: int, others: Iterable[int]) -> int:
    """The flags with the default kind filled in; `others` are those of the drive's other points.

    Raises ERROR_INVALID_PARAMETER for kinds that exclude one another. On Linux every kind is a
    directory; the flags are kept, not interpreted.
    """
    kinds = [kind for kind in _bits(_KINDS) if flags & kind]
    if len(kinds) > 1:
        problem = "STGMP_SIMPLE, STGMP_MOUNT_MANAGER and STGMP_NETWORK exclude one another"
    elif flags & ~_FLAGS:
        problem = f"{flags & ~_FLAGS:#x} is no STGMP_… flag"
    elif flags & c.STGMP_MOUNT_MANAGER and flags & c.STGMP_LOCAL:
        problem = "STGMP_MOUNT_MANAGER does not go with STGMP_LOCAL"
    elif flags & c.STGMP_MOUNT_MANAGER and any(o & c.STGMP_MOUNT_MANAGER for o in others):
        problem = "a drive has one mounting point with STGMP_MOUNT_MANAGER at most"
    else:
        return flags if kinds else flags | c.STGMP_SIMPLE
    raise CBFSConnectError(ERROR_INVALID_PARAMETER, problem)


def _bits(mask: int) -> list[int]:
    return [1 << n for n in range(mask.bit_length()) if mask >> n & 1]
