"""COPY_FILE_RANGE: a part of one file becomes a part of another, by a token of the drive's own.

The reply says how much was copied, which may be less than was asked for: the caller goes on from
there. Where the drive cannot do it the kernel reads and writes (EOPNOTSUPP), and without
`support_odx_read_write` it never asks again (ENOSYS).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cbfsconnect.engine.content import set_size, size_of
from cbfsconnect.engine.operations.table import Reply, serves
from cbfsconnect.events import CBFSOffloadReadFileEventParams, CBFSOffloadWriteFileEventParams
from cbfsconnect.fuse import wire
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.wire import Request

_TOKEN_SIZE = 512
"""STORAGE_OFFLOAD_MAX_TOKEN_LENGTH of Windows."""
_TIME_TO_LIVE_MS = 30_000
_LAST_TOKEN_TYPE = 0xFFFF0001
"""That of zeros; those above are reserved."""
_MOST_NARROW = 0xFFFFF000
"""What fits into the reply to COPY_FILE_RANGE, in whole pages."""


@serves(Opcode.COPY_FILE_RANGE, Opcode.COPY_FILE_RANGE_64)
def copy_file_range(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_offload_read_file` of the one, `on_offload_write_file` of the other."""
    if not engine.options.support_odx_read_write:
        return errno.ENOSYS
    if engine.on.on_offload_read_file is None or engine.on.on_offload_write_file is None:
        return errno.EOPNOTSUPP
    body = request.body
    source, target = engine.handles.get(body.fh_in), engine.handles.get(body.fh_out)
    if source is None or target is None:
        return errno.EBADF
    wide = request.opcode == Opcode.COPY_FILE_RANGE_64
    length = body.len if wide else min(body.len, _MOST_NARROW)
    items = {handle.node.id: handle.node for handle in (source, target)}
    engine.order.enter_all(items)
    try:
        done = _copy(engine, source, body.off_in, target, body.off_out, length)
        return -done if done < 0 else wire.copied(request.unique, done, wide=wide)
    finally:
        engine.order.leave_all(items)


def _copy(
    engine: Engine, source: Handle, start: int, target: Handle, position: int, length: int
) -> int:
    """The bytes copied, or an errno below 0."""
    token = _read(engine, source, start, length)
    if isinstance(token, int):
        return -token
    if not token.transfer_length:
        return 0
    before = _grow(engine, target, position + token.transfer_length)
    if before < 0:
        return before
    done = _write(engine, target, position, token)
    end = position + max(done, 0)
    if done < token.transfer_length and engine.options.fire_set_file_size_on_write:
        _shrink(engine, target, max(before, end))
    if target.state.size is not None:
        target.state.size = max(target.state.size, end)
    return done


def _read(
    engine: Engine, handle: Handle, position: int, length: int
) -> CBFSOffloadReadFileEventParams | int:
    """Get a token from `on_offload_read_file`, or an errno."""
    state = handle.state
    params = CBFSOffloadReadFileEventParams(
        handle.node.path,
        _TIME_TO_LIVE_MS,
        position,
        length,
        memoryview(bytearray(_TOKEN_SIZE)),
        _TOKEN_SIZE,
        handle.id,
        length,
        file_context=state.context,
        handle_context=handle.context,
    )
    error = engine.fire(engine.on.on_offload_read_file, params)
    state.context, handle.context = params.file_context, params.handle_context
    if error:
        return error
    limits = {"transfer_length": length, "token_length": _TOKEN_SIZE}
    limits["token_type"] = _LAST_TOKEN_TYPE
    for name, most in limits.items():
        value = getattr(params, name)
        if value.__class__ is not int or not 0 <= value <= most:
            problem = f"{name} is {value!r}, not one from 0 to {most}"
            return engine.nonsense("on_offload_read_file", handle.node.path, problem)
    return params


def _write(
    engine: Engine, handle: Handle, position: int, token: CBFSOffloadReadFileEventParams
) -> int:
    """Write what the token stands for: the bytes written, or an errno below 0 if there are none."""
    view = memoryview(bytearray(token.token_buffer_view[: token.token_length]))
    done, state = 0, handle.state
    if handle.node.told is not None:
        handle.node.told.overtaken = True
    while done < token.transfer_length:
        left = token.transfer_length - done
        params = CBFSOffloadWriteFileEventParams(
            handle.node.path,
            position + done,
            left,
            done,
            token.token_type,
            view,
            len(view),
            handle.id,
            left,
            file_context=state.context,
            handle_context=handle.context,
        )
        error = engine.fire(engine.on.on_offload_write_file, params)
        state.context, handle.context = params.file_context, params.handle_context
        count = params.transfer_length
        if not error and (count.__class__ is not int or not 0 < count <= left):
            problem = f"transfer_length is {count!r}, of {left}"
            error = engine.nonsense("on_offload_write_file", handle.node.path, problem)
        if error:
            return done or -error  # the caller comes back for the rest and hears of it then
        done += count
    return done


def _grow(engine: Engine, handle: Handle, end: int) -> int:
    """Announce by `on_set_file_size`, as for writes, that the copy goes past the end.

    The size before it, where it was asked for; an errno below 0.
    """
    if not engine.options.fire_set_file_size_on_write or engine.on.on_set_file_size is None:
        return 0
    size = size_of(engine, handle.node, handle)
    if size < 0 or end <= size:
        return size
    return -set_size(engine, handle.node, handle, end) or size


def _shrink(engine: Engine, handle: Handle, size: int) -> None:
    """Take back the part of the growth that nothing was written to."""
    known = handle.state.size
    if known is not None and known > size and engine.on.on_set_file_size is not None:
        set_size(engine, handle.node, handle, size)
