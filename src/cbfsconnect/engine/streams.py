"""Named streams of an item, which Linux programs see as `user.*` extended attributes.

A stream is addressed as `file:stream` (setting StreamSeparator). It is opened, read, written and
deleted by the same events as a file, for the time of one request.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cbfsconnect import constants as c
from cbfsconnect.engine import access
from cbfsconnect.engine.content import read_into, set_size, write_from
from cbfsconnect.engine.handles import Handle, OpenState, which
from cbfsconnect.engine.nodes import Node
from cbfsconnect.events import (
    CBFSCloseNamedStreamsEnumerationEventParams,
    CBFSCreateFileEventParams,
    CBFSEnumerateNamedStreamsEventParams,
)

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.fuse.wire import Request

XATTR_CREATE = 1
XATTR_REPLACE = 2
_MOST_BYTES = 64 * 1024
"""XATTR_SIZE_MAX and XATTR_LIST_MAX of the kernel."""
_REGULAR = 0o100000


class Streams:
    """The streams of one item, for one request."""

    def __init__(self, engine: Engine, node: Node, request: Request) -> None:
        self._engine = engine
        self._node = node
        self._request = request

    def fetch(self, name: bytes, limit: int) -> bytes | int:
        """The content of a stream; an errno, ENODATA when there is none.

        With `limit` 0 only the length counts, and zeros stand for the content.
        """
        if not self._can_be_named(name):
            return errno.ENODATA
        node = self._stream(name)
        size = self._size(node)
        if size < 0:
            return -size
        if size > _MOST_BYTES:
            return errno.E2BIG
        if not limit:
            return bytes(size)
        handle = self._engine.handles.open(node, access.of_open(os.O_RDONLY, False), self._request)
        if isinstance(handle, int):
            return handle
        try:
            return self._read(node, handle, size)
        finally:
            self._engine.handles.close(handle)

    def store(self, name: bytes, value: memoryview, flags: int) -> int:
        """Write a stream, whole; 0 or an errno."""
        if not self._can_be_named(name):
            return errno.EINVAL
        node = self._stream(name)
        size = self._size(node)
        missing = size == -errno.ENODATA
        if size < 0 and not missing:
            return -size
        if missing and flags & XATTR_REPLACE:
            return errno.ENODATA
        if not missing and flags & XATTR_CREATE:
            return errno.EEXIST
        handle = self._create(node) if missing else self._open_to_overwrite(node)
        if isinstance(handle, int):
            return handle
        error = self._write(node, handle, value)
        if error and missing:
            handle.state.delete_on_close = True
        self._engine.handles.close(handle)
        return error

    def delete(self, name: bytes) -> int:
        """Delete a stream; 0 or an errno."""
        if not self._can_be_named(name):
            return errno.ENODATA
        node = self._stream(name)
        size = self._size(node)
        if size < 0:
            return -size
        return self._engine.deletion.take_away(node, node.parent, node.name, self._request)

    def list_names(self) -> list[bytes] | int:
        """The names of all streams, from `on_enumerate_named_streams`; or an errno."""
        engine, node = self._engine, self._node
        if engine.on.on_enumerate_named_streams is None:
            return []
        handle = engine.handles.open(node, access.READ_ATTRIBUTES[which(node)], self._request)
        if isinstance(handle, int):
            return handle
        try:
            return self._enumerate(handle)
        finally:
            engine.handles.close(handle)

    def _can_be_named(self, name: bytes) -> bool:
        """Whether a name stays one in a path: attributes may have slashes in theirs."""
        separator = os.fsencode(self._engine.options.separator)
        return bool(name) and b"/" not in name and separator not in name

    def _stream(self, name: bytes) -> Node:
        """A node of the stream that the kernel never hears of."""
        node = self._node
        full = node.name + self._engine.options.stream_separator + os.fsdecode(name)
        return Node(0, node.parent, full, _REGULAR)

    def _size(self, node: Node) -> int:
        if not self._node.has_path:
            return -errno.EOPNOTSUPP  # deleted but open: its streams' paths may be another's
        params = self._engine.info(node.path, node)
        if isinstance(params, int):
            return -(errno.ENODATA if params == errno.ENOENT else params)
        if params.size.__class__ is not int or params.size < 0:
            return -self._engine.nonsense("on_get_file_info", node.path, f"size is {params.size!r}")
        return params.size

    def _read(self, node: Node, handle: Handle, size: int) -> bytes | int:
        content = memoryview(bytearray(size))
        done = 0
        while done < size:
            count = read_into(self._engine, node, handle, done, content[done:])
            if count < 0:
                return -count
            if count == 0:
                break
            done += count
        return bytes(content[:done])

    def _write(self, node: Node, handle: Handle, value: memoryview) -> int:
        if self._engine.on.on_set_file_size is not None:
            error = set_size(self._engine, node, handle, len(value))
            if error:
                return error
        done = 0
        while done < len(value):
            count = write_from(self._engine, node, handle, done, value[done:], False)
            if count < 0:
                return -count
            done += count
        return 0

    def _open_to_overwrite(self, node: Node) -> Handle | int:
        wanted = access.of_open(os.O_WRONLY | os.O_TRUNC, False)
        return self._engine.handles.open(node, wanted, self._request)

    def _create(self, node: Node) -> Handle | int:
        engine, request = self._engine, self._request
        handler = engine.on.on_create_file
        if handler is None:
            return errno.EROFS
        handle = engine.handles.add(node, OpenState(), request)
        desired, attributes, disposition = access.of_create(
            os.O_WRONLY | os.O_EXCL, c.FILE_ATTRIBUTE_NORMAL
        )
        params = CBFSCreateFileEventParams(
            node.path,
            desired,
            attributes,
            access.SHARE_ALL,
            disposition,
            desired,
            handle.id,
            handle.id,
            _REGULAR | 0o644,
            request.uid,
            request.gid,
        )
        error = engine.fire(handler, params)
        handle.state.context, handle.context = params.file_context, params.handle_context
        if error:
            engine.handles.discard(handle)
            return error
        handle.state.size = 0
        engine.handles.count(handle)
        return handle

    def _enumerate(self, handle: Handle) -> list[bytes] | int:
        engine, state = self._engine, handle.state
        names: list[bytes] = []
        room = _MOST_BYTES
        context: object = 0
        error = 0
        while not error:
            params = CBFSEnumerateNamedStreamsEventParams(
                handle.node.path,
                handle.id,
                file_context=state.context,
                handle_context=handle.context,
                enumeration_context=context,
            )
            error = engine.fire(engine.on.on_enumerate_named_streams, params)
            state.context, handle.context = params.file_context, params.handle_context
            context = params.enumeration_context
            if error == errno.ENODATA:  # ERROR_HANDLE_EOF, as FindNextStream says it
                error = 0
                break
            if error or not params.named_stream_found:
                break
            name = self._stream_name(params.stream_name)
            if name:
                names.append(name)
            # Counted without a name too: a handler that never ends is not asked for ever.
            room -= len(name) + len("user.") + 1
            if room < 0:
                error = errno.E2BIG
        self._close_enumeration(handle, context)
        return error or names

    def _stream_name(self, given: object) -> bytes:
        """The name in `:NAME` or `:NAME:$DATA`; empty for the unnamed stream and for nonsense."""
        name = given.removeprefix(":").removesuffix(":$DATA") if isinstance(given, str) else "\0"
        try:
            encoded = os.fsencode(name)
        except UnicodeError:
            encoded = b"\0"
        if b"\0" in encoded or len(encoded) > 250:
            problem = f"{given!r} cannot be the name of a stream"
            self._engine.nonsense("on_enumerate_named_streams", self._node.path, problem)
            return b""
        return encoded

    def _close_enumeration(self, handle: Handle, context: object) -> None:
        handler = self._engine.on.on_close_named_streams_enumeration
        if handler is None:
            return
        state = handle.state
        params = CBFSCloseNamedStreamsEnumerationEventParams(
            handle.node.path, handle.id, context, state.context, handle.context
        )
        self._engine.fire(handler, params)
        state.context, handle.context = params.file_context, params.handle_context
