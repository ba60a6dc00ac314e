"""Disk quotas: requests of the library's ioctl, answered by the five quota events.

Everything that asks for quotas or changes them is one enumeration with one context; its end is
told exactly once, whatever the outcome. Nothing is enforced here.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from cbfsconnect.control_layout import DEFAULT_QUOTA, QUOTA, Request
from cbfsconnect.engine.rights import check_administrator
from cbfsconnect.events import (
    CBFSCloseQuotasEnumerationEventParams,
    CBFSGetDefaultQuotaInfoEventParams,
    CBFSQueryQuotasEventParams,
    CBFSSetDefaultQuotaInfoEventParams,
    CBFSSetQuotasEventParams,
)
from cbfsconnect.sids import MOST_BYTES, sid_length, uid_of_sid

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.fuse import wire

_MOST_QUOTAS = 100_000
_CHANGES = {Request.SET_QUOTAS, Request.REMOVE_QUOTAS, Request.SET_DEFAULT_QUOTA}
Result = bytes | int
"""An answer, or an errno."""


def serve_quotas(engine: Engine, request: wire.Request, code: int, data: bytes) -> Result:
    """Answer one of the quota requests."""
    if not engine.options.use_disk_quotas:
        return errno.EOPNOTSUPP
    if engine.options.read_only and code in _CHANGES:
        return errno.EROFS
    if not _is_about_the_caller(request, code, data):
        error = check_administrator(engine, request)
        if error:
            return error
    return _SERVED[code](engine, data)


def _is_about_the_caller(request: wire.Request, code: int, data: bytes) -> bool:
    """Whether it is a question that every user may ask."""
    if code == Request.QUERY_QUOTA and data and sid_length(data) == len(data):
        return uid_of_sid(data) == request.uid
    return code == Request.GET_DEFAULT_QUOTA


def _query(engine: Engine, sid: bytes) -> Result:
    handler = engine.on.on_query_quotas
    if handler is None:
        return errno.EOPNOTSUPP
    if not sid or sid_length(sid) != len(sid):
        return errno.EINVAL
    view = memoryview(bytearray(sid))
    params = CBFSQueryQuotasEventParams(view, len(sid), -1, None, 0)
    result: Result = engine.fire(handler, params)
    if not result:
        result = _packed(engine, params, sid) if params.quota_found else b""
    return _closed(engine, params.enumeration_context, result)


def _list(engine: Engine, _: bytes) -> Result:
    handler = engine.on.on_query_quotas
    if handler is None:
        return errno.EOPNOTSUPP
    found: list[bytes] = []
    result: Result = 0
    context: object = 0
    while not result:
        out = memoryview(bytearray(MOST_BYTES))
        params = CBFSQueryQuotasEventParams(
            None, 0, len(found), out, MOST_BYTES, enumeration_context=context
        )
        result = engine.fire(handler, params)
        context = params.enumeration_context
        if result or not params.quota_found:
            break
        entry = _packed(engine, params, bytes(out[: sid_length(out)]))
        if isinstance(entry, int):
            result = entry
            break
        found.append(entry)
        if len(found) > _MOST_QUOTAS:
            result = errno.E2BIG
    return _closed(engine, context, result or b"".join(found))


def _set(engine: Engine, data: bytes) -> Result:
    return _change(engine, data, False)


def _remove(engine: Engine, data: bytes) -> Result:
    return _change(engine, data, True)


def _change(engine: Engine, data: bytes, remove: bool) -> Result:
    handler = engine.on.on_set_quotas
    if handler is None:
        return errno.EOPNOTSUPP
    quotas = _unpacked(data)
    if not quotas:
        return errno.EINVAL
    found = bytearray()
    error = 0
    context: object = 0
    for (used, threshold, limit), sid in quotas:
        view = memoryview(bytearray(sid))
        params = CBFSSetQuotasEventParams(
            view, len(sid), remove, used, threshold, limit, enumeration_context=context
        )
        error = engine.fire(handler, params)
        context = params.enumeration_context
        if error:
            break
        found.append(bool(params.quota_found))
    return _closed(engine, context, error or bytes(found))


def _closed(engine: Engine, context: object, result: Result) -> Result:
    """Tell that the enumeration is over; its result, or what goes wrong here."""
    handler = engine.on.on_close_quotas_enumeration
    error = 0
    if handler is not None:
        error = engine.fire(handler, CBFSCloseQuotasEnumerationEventParams(context))
    return error if error and not isinstance(result, int) else result


def _get_default(engine: Engine, _: bytes) -> Result:
    handler = engine.on.on_get_default_quota_info
    if handler is None:
        return errno.EOPNOTSUPP
    params = CBFSGetDefaultQuotaInfoEventParams()
    error = engine.fire(handler, params)
    if error:
        return error
    try:
        return DEFAULT_QUOTA.pack(
            params.default_quota_threshold,
            params.default_quota_limit,
            params.file_system_control_flags,
        )
    except struct.error:
        return engine.nonsense("on_get_default_quota_info", "the drive", repr(params))


def _set_default(engine: Engine, data: bytes) -> Result:
    handler = engine.on.on_set_default_quota_info
    if handler is None:
        return errno.EOPNOTSUPP
    if len(data) != DEFAULT_QUOTA.size:
        return errno.EINVAL
    params = CBFSSetDefaultQuotaInfoEventParams(*DEFAULT_QUOTA.unpack(data))
    return engine.fire(handler, params) or b""


def _packed(engine: Engine, params: CBFSQueryQuotasEventParams, sid: bytes) -> Result:
    """One entry of an answer; an errno when what the handler gave cannot be."""
    numbers = params.quota_used, params.quota_threshold, params.quota_limit
    try:
        if not sid:
            raise ValueError("sid_out holds no SID")
        return QUOTA.pack(*numbers) + sid
    except (struct.error, ValueError) as error:
        return engine.nonsense("on_query_quotas", "the drive", f"{error} in {params!r}")


def _unpacked(data: bytes) -> list[tuple[tuple[int, int, int], bytes]]:
    """The entries of a request; none when it is malformed."""
    entries, at = [], 0
    while at < len(data):
        if len(data) - at < QUOTA.size:
            return []
        used, threshold, limit = QUOTA.unpack_from(data, at)
        at += QUOTA.size
        length = sid_length(data[at : at + MOST_BYTES])
        if not length:
            return []
        entries.append(((used, threshold, limit), data[at : at + length]))
        at += length
    return entries


_SERVED: dict[int, Callable[[Engine, bytes], Result]] = {
    Request.QUERY_QUOTA: _query,
    Request.LIST_QUOTAS: _list,
    Request.SET_QUOTAS: _set,
    Request.REMOVE_QUOTAS: _remove,
    Request.GET_DEFAULT_QUOTA: _get_default,
    Request.SET_DEFAULT_QUOTA: _set_default,
}
QUOTA_REQUESTS = frozenset(_SERVED)
"""The requests that `serve_quotas` answers."""
