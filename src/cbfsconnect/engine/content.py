"""Reading, writing and resizing an open item through its handlers, with every answer checked."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from cbfsconnect.events import (
    CBFSReadFileEventParams,
    CBFSSetFileSizeEventParams,
    CBFSWriteFileEventParams,
)

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.nodes import Node


def read_into(engine: Engine, node: Node, handle: Handle, position: int, out: memoryview) -> int:
    """Fire `on_read_file`: the bytes read, or an errno below 0."""
    handler = engine.on.on_read_file
    if handler is None:
        return -errno.EOPNOTSUPP
    state, size = handle.state, len(out)
    of_file, of_handle = state.context, handle.context
    params = CBFSReadFileEventParams(node.path, position, out, size, handle.id, of_file, of_handle)
    error = engine.fire(handler, params)
    # Others may read the file meanwhile: what they changed must not be undone.
    if params.file_context is not of_file:
        state.context = params.file_context
    if params.handle_context is not of_handle:
        handle.context = params.handle_context
    if error and error != errno.ENODATA:  # ERROR_HANDLE_EOF: nothing more to read
        return -error
    done = params.bytes_read
    if done.__class__ is not int or not 0 <= done <= size:
        problem = f"bytes_read is {done!r}, of {size} wanted"
        return -engine.nonsense("on_read_file", node.path, problem)
    return done


def write_from(
    engine: Engine, node: Node, handle: Handle, position: int, data: memoryview, cached: bool
) -> int:
    """Fire `on_write_file`: the bytes written, or an errno below 0.

    `cached`: the kernel writes for no process in particular, through a handle it has picked.
    """
    handler = engine.on.on_write_file
    if handler is None:
        return -errno.EROFS
    size = len(data)
    if engine.options.fire_set_file_size_on_write:
        error = _grow(engine, node, handle, position + size, cached)
        if error:
            return -error
    state = handle.state
    params = CBFSWriteFileEventParams(
        node.path,
        position,
        data,
        size,
        0 if cached else handle.id,
        state.context,
        None if cached else handle.context,
    )
    error = engine.fire(handler, params)
    state.context = params.file_context
    if not cached:
        handle.context = params.handle_context
    if error:
        return -error
    done = params.bytes_written
    if done.__class__ is not int or not 0 <= done <= size or (size and not done):
        problem = f"bytes_written is {done!r}, of {size} given"
        return -engine.nonsense("on_write_file", node.path, problem)
    if state.size is not None and position + done > state.size:
        state.size = position + done
    if node.told is not None:
        node.told.overtaken = True
    return done


def write_cached(
    engine: Engine, node: Node, handle: Handle, position: int, data: memoryview
) -> int:
    """Write out what the kernel had cached: the bytes written, or an errno below 0.

    The kernel takes a short write for a whole one here and would lose the rest, so that is given
    to the handler again, as a program would do it.
    """
    total = 0
    while total < len(data):
        done = write_from(engine, node, handle, position + total, data[total:], True)
        if done < 0:
            return done
        total += done
    return total


def set_size(engine: Engine, node: Node, handle: Handle, size: int, cached: bool = False) -> int:
    """Fire `on_set_file_size`; 0 or an errno. `cached` as in `write_from`."""
    if engine.routing is not None and (local := engine.routing.set_size(handle, size)) is not None:
        return local
    handler = engine.on.on_set_file_size
    if handler is None:
        return errno.EROFS if engine.on.on_write_file is None else errno.EOPNOTSUPP
    state = handle.state
    params = CBFSSetFileSizeEventParams(
        node.path,
        size,
        0 if cached else handle.id,
        state.context,
        None if cached else handle.context,
    )
    error = engine.fire(handler, params)
    state.context = params.file_context
    if not cached:
        handle.context = params.handle_context
    if not error:
        state.size = size
        if node.told is not None:
            node.told.overtaken = True
    return error


def size_of(engine: Engine, node: Node, handle: Handle) -> int:
    """The file's size as the drive has it; an errno below 0."""
    state = handle.state
    if state.size is None or (engine.routing is not None and engine.routing.hides(state)):
        params = engine.info(node.path, node)
        if isinstance(params, int):
            return -params
        if params.size.__class__ is not int or params.size < 0:
            return -engine.nonsense("on_get_file_info", node.path, f"size is {params.size!r}")
        state.size = params.size
    return state.size


def _grow(engine: Engine, node: Node, handle: Handle, end: int, cached: bool) -> int:
    """Announce by `on_set_file_size` that a write goes past the end, as the contract has it."""
    if engine.on.on_set_file_size is None:
        return 0
    size = size_of(engine, node, handle)
    if size < 0:
        return -size
    return set_size(engine, node, handle, end, cached) if end > size else 0
