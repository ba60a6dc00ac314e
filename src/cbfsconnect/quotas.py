"""Disk quotas of a mounted drive, for programs on its client side.

`target` is the drive's root, any other item of it, or a descriptor of one. Users are named by SIDs:
`sid_of_uid` makes that of a Linux user. The drive must have `use_disk_quotas`. All functions raise
`OSError`: EOPNOTSUPP when it has no quotas, EPERM for what only root and the owner of the drive's
root may do, and whatever the drive's handlers report.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cbfsconnect.control import Target, ask, opened
from cbfsconnect.control_layout import DEFAULT_QUOTA, QUOTA, Request
from cbfsconnect.sids import sid_length, sid_to_bytes, sid_to_text

NO_LIMIT = -1
"""Stands for "no limit", as in Windows."""


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a user may store, in bytes; -1: no limit."""

    sid: str
    used: int = 0
    """What the user stores already, as far as the drive keeps count."""
    threshold: int = NO_LIMIT
    """From here on the user is warned."""
    limit: int = NO_LIMIT


@dataclass(frozen=True, slots=True)
class DefaultQuota:
    """The quota of users who have none of their own."""

    threshold: int = NO_LIMIT
    limit: int = NO_LIMIT
    flags: int = 0
    """FileSystemControlFlags of FILE_FS_CONTROL_INFORMATION, such as 1: quotas are tracked."""


def query_quota(target: Target, sid: str) -> Quota | None:
    """The quota of one user, None without one (`on_query_quotas`). Anybody may ask for the own."""
    with opened(target) as descriptor:
        found = _unpack(ask(descriptor, Request.QUERY_QUOTA, sid_to_bytes(sid)))
    return found[0] if found else None


def list_quotas(target: Target) -> list[Quota]:
    """The quotas of all users (`on_query_quotas` for each one, once more for the end)."""
    with opened(target) as descriptor:
        return _unpack(ask(descriptor, Request.LIST_QUOTAS))


def set_quota(
    target: Target, sid: str, *, threshold: int = NO_LIMIT, limit: int = NO_LIMIT, used: int = 0
) -> bool:
    """Store a user's quota (`on_set_quotas`); whether there was one, if the drive says so."""
    return set_quotas(target, [Quota(sid, used, threshold, limit)])[0]


def set_quotas(target: Target, quotas: list[Quota]) -> list[bool]:
    """Store the quotas of several users in one request; at most some hundreds.

    Ends with the first that fails; those before it are stored.
    """
    with opened(target) as descriptor:
        return [*map(bool, ask(descriptor, Request.SET_QUOTAS, _pack(quotas)))]


def remove_quota(target: Target, sid: str) -> bool:
    """Forget a user's quota (`on_set_quotas` with `remove_quota`); whether there was one."""
    with opened(target) as descriptor:
        return ask(descriptor, Request.REMOVE_QUOTAS, _pack([Quota(sid)])) == b"\1"


def get_default_quota(target: Target) -> DefaultQuota:
    """The quota of users without one (`on_get_default_quota_info`)."""
    with opened(target) as descriptor:
        return DefaultQuota(*DEFAULT_QUOTA.unpack(ask(descriptor, Request.GET_DEFAULT_QUOTA)))


def set_default_quota(
    target: Target, *, threshold: int = NO_LIMIT, limit: int = NO_LIMIT, flags: int = 0
) -> None:
    """Store the quota of users without one (`on_set_default_quota_info`)."""
    with opened(target) as descriptor:
        ask(descriptor, Request.SET_DEFAULT_QUOTA, DEFAULT_QUOTA.pack(threshold, limit, flags))


def _pack(quotas: list[Quota]) -> bytes:
    try:
        numbers = [QUOTA.pack(q.used, q.threshold, q.limit) for q in quotas]
    except struct.error as error:
        raise ValueError(f"a quota has numbers of 64 bits: {error}") from error
    return b"".join(n + sid_to_bytes(q.sid) for n, q in zip(numbers, quotas, strict=True))


def _unpack(data: bytes) -> list[Quota]:
    quotas, at, rest = [], 0, memoryview(data)
    while at < len(data):
        numbers = QUOTA.unpack_from(data, at)
        at += QUOTA.size
        end = at + sid_length(rest[at:])
        quotas.append(Quota(sid_to_text(data[at:end]), *numbers))
        at = end
    return quotas
