"""IOCTL: control codes, requests of the library, the label, and ioctls of Linux.

The layout of the library's own ioctls is in `cbfsconnect.control_layout`.
"""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from cbfsconnect import control_layout as layout
from cbfsconnect.constants import CBFS_ROUTE_SET_VALID_DATA_LENGTH_EVENT
from cbfsconnect.engine.content import size_of
from cbfsconnect.engine.nodes import Directory
from cbfsconnect.engine.operations.table import Reply, serves
from cbfsconnect.engine.quotas import QUOTA_REQUESTS, serve_quotas
from cbfsconnect.engine.rights import check_handle
from cbfsconnect.engine.volume_names import (
    FS_IOC_GETFSLABEL,
    FS_IOC_SETFSLABEL,
    get_label,
    set_label,
)
from cbfsconnect.errors import ERROR_INVALID_FUNCTION
from cbfsconnect.events import (
    CBFSFsctlEventParams,
    CBFSIoctlEventParams,
    CBFSSetValidDataLengthEventParams,
)
from cbfsconnect.fuse import wire
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.wire import Request

Result: TypeAlias = bytes | int
"""An answer, or an errno."""
Serve: TypeAlias = "Callable[[Engine, Request, Handle, int, memoryview, int], Result]"

_APPLICATION_FUNCTIONS = range(2400, 4097)
_TERMINALS = 0x5400
"""The ioctls of terminals, 0x5400 to 0x54FF: every open(2) of some runtimes is followed by one."""
_WHOLE_ANSWER = (0x80086601, 0x801C581F)
"""FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR: the kernel asks for itself and wants its own size back."""
_KEPT = 4
"""Answers that a handle keeps for clients which have not fetched them whole."""
_keeping = threading.Lock()
_next_token = itertools.count(1).__next__


@serves(Opcode.IOCTL)
def ioctl(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_fsctl`, `on_ioctl`, `on_set_valid_data_length`, the label's and the quotas' events."""
    body = request.body
    handle = engine.handles.get(body.fh)
    if handle is None:
        return errno.EBADF
    cmd = body.cmd
    if cmd & 0xFFFFFF00 == _TERMINALS:
        return errno.ENOTTY
    if layout.is_ours(cmd, layout.NR_CONTROL):
        answer = _in_order(engine, worker, handle, lambda: _ours(engine, request, handle, _code))
    elif layout.is_ours(cmd, layout.NR_LIBRARY):
        answer = _library(engine, worker, request, handle)
    elif cmd == FS_IOC_GETFSLABEL:
        answer = get_label(engine)
    elif cmd == FS_IOC_SETFSLABEL:
        answer = set_label(engine, request, bytes(request.data or b"")) or b""
    else:
        answer = _in_order(engine, worker, handle, lambda: _native(engine, request, handle))
    if isinstance(answer, int):
        return answer
    return wire.ioctl(request.unique, 0, payload=answer)


def _in_order(
    engine: Engine, worker: Worker, handle: Handle, serve: Callable[[], Result]
) -> Result:
    """Serve in the order of the item's other events."""
    node = handle.node
    engine.order.enter(node.id, node, worker)
    try:
        return serve()
    finally:
        engine.order.leave(node.id)


def _library(engine: Engine, worker: Worker, request: Request, handle: Handle) -> Result:
    data = request.data
    if data is None or len(data) < layout.HEADER.size:
        return errno.EINVAL
    code = layout.HEADER.unpack_from(data)[0]
    if code in QUOTA_REQUESTS:  # about the drive: no item's events need to wait for it
        return _ours(engine, request, handle, _quotas)
    if code == layout.Request.SET_VALID_DATA_LENGTH:
        return _in_order(
            engine, worker, handle, lambda: _ours(engine, request, handle, _valid_data_length)
        )
    return errno.ENOTTY


def _ours(engine: Engine, request: Request, handle: Handle, serve: Serve) -> Result:
    """A call of the library's own layout: its new content, or an errno."""
    data, size = request.data, layout.HEADER.size
    if data is None or len(data) < size or request.body.out_size != len(data):
        return errno.EINVAL
    code, given, wanted, offset, token = layout.HEADER.unpack_from(data)
    room = len(data) - size
    if given > room or wanted > layout.MOST_OUTPUT:
        return errno.EINVAL
    if token:
        kept = (handle.answers or {}).get(token)
        if kept is None:
            return errno.ESTALE
        answer: Result = kept
    else:
        offset = 0
        answer = serve(engine, request, handle, code, data[size : size + given], wanted)
    if isinstance(answer, int):
        return answer
    part = answer[offset : offset + room]
    token = _keep(handle, token, answer, offset + len(part) < len(answer))
    return layout.HEADER.pack(code, given, len(answer), offset, token) + part


def _keep(handle: Handle, token: int, answer: bytes, more: bool) -> int:
    """Keep an answer of which there is more, let one go that was fetched; the token to tell."""
    if not more and not token:
        return 0
    with _keeping:
        answers = handle.answers
        if answers is None:
            answers = handle.answers = {}
        answers.pop(token, None)
        if not more:
            return 0
        token = token or _next_token()
        answers[token] = answer
        while len(answers) > _KEPT:
            del answers[next(iter(answers))]
        return token


# --- what is asked for -------------------------------------------------------------------------


def _code(
    engine: Engine, request: Request, handle: Handle, code: int, data: memoryview, wanted: int
) -> Result:
    """A Windows control code: `on_fsctl` or `on_ioctl`."""
    access = layout.required_access(code)
    error = check_handle(engine, handle, request, bool(access & 1), bool(access & 2))
    if error:
        return error
    if layout.device_type(code) != layout.FILE_SYSTEM:
        return _fire_ioctl(engine, handle, code, data, wanted)
    in_range = layout.function(code) in _APPLICATION_FUNCTIONS
    if not in_range and not engine.options.handle_all_fsctls:
        return errno.ENOTTY
    handler = engine.on.on_fsctl
    if handler is None:
        return errno.ENOTTY
    out = memoryview(bytearray(wanted)) if wanted else None
    params = CBFSFsctlEventParams(
        handle.node.path,
        code,
        data or None,
        len(data),
        out,
        wanted,
        file_context=handle.state.context,
    )
    error = engine.fire(handler, params)
    handle.state.context = params.file_context
    return _outcome(engine, "on_fsctl", params, error)


def _native(engine: Engine, request: Request, handle: Handle) -> Result:
    """An ioctl of Linux: `on_ioctl`, with as much in and out as its number says."""
    body = request.body
    data = request.data if request.data is not None else memoryview(b"")
    answer = _fire_ioctl(engine, handle, body.cmd, data, body.out_size)
    if isinstance(answer, bytes) and body.cmd in _WHOLE_ANSWER:
        return answer.ljust(body.out_size, b"\0")
    return answer


def _fire_ioctl(engine: Engine, handle: Handle, code: int, data: memoryview, wanted: int) -> Result:
    handler = engine.on.on_ioctl
    if handler is None:
        return errno.ENOTTY
    out = memoryview(bytearray(wanted)) if wanted else None
    params = CBFSIoctlEventParams(handle.node.path, code, data or None, len(data), out, wanted)
    return _outcome(engine, "on_ioctl", params, engine.fire(handler, params))


def _outcome(
    engine: Engine, event: str, params: CBFSFsctlEventParams | CBFSIoctlEventParams, error: int
) -> Result:
    """What the handler has put into the output buffer, or an errno."""
    if error == errno.EOPNOTSUPP and params.result_code == ERROR_INVALID_FUNCTION:
        return errno.ENOTTY
    if error:
        return error
    done, room = params.bytes_returned, params.output_buffer_length
    if done.__class__ is not int or not 0 <= done <= room:
        problem = f"bytes_returned is {done!r}, of {room}"
        return engine.nonsense(event, params.file_name, problem)
    out = params.output_buffer_view
    return bytes(out[:done]) if out is not None else b""


def _valid_data_length(
    engine: Engine, request: Request, handle: Handle, code: int, data: memoryview, wanted: int
) -> Result:
    if isinstance(handle.node, Directory):
        return errno.EISDIR
    if len(data) != layout.NUMBER.size:
        return errno.EINVAL
    if check_handle(engine, handle, request, False, True):
        return errno.EBADF
    (length,) = layout.NUMBER.unpack(data)
    size = size_of(engine, handle.node, handle)
    if size < 0:
        return -size
    if length > size:
        return errno.EINVAL
    handler = engine.on.on_set_valid_data_length
    routing, flag = engine.routing, CBFS_ROUTE_SET_VALID_DATA_LENGTH_EVENT
    routed = routing is not None and not routing.is_due(handle.state, flag)
    if handler is None or routed:
        return b""  # a drive without that notion has zeros there, which is as good
    state = handle.state
    params = CBFSSetValidDataLengthEventParams(
        handle.node.path, length, handle.id, state.context, handle.context
    )
    error = engine.fire(handler, params)
    state.context, handle.context = params.file_context, params.handle_context
    return error or b""


def _quotas(
    engine: Engine, request: Request, handle: Handle, code: int, data: memoryview, wanted: int
) -> Result:
    return serve_quotas(engine, request, code, bytes(data))
