"""How messages reach the kernel and come from it: `/dev/fuse`, and a kernel in memory for tests.

A transport moves whole messages: one read is one request, one write one reply or notification.
"""

from __future__ import annotations

import errno
import io
import os
import queue
import threading
from collections.abc import Callable
from typing import Protocol

Buffer = bytes | bytearray | memoryview

READ_AGAIN = frozenset((errno.ENOENT, errno.EINTR, errno.EAGAIN))
"""Errors of `receive` after which it is called again. ENOENT: the request was taken back; the
others: nothing was read."""
SESSION_ENDED = frozenset((errno.ENODEV, errno.ECONNABORTED, errno.EBADF))
"""Errors of `receive` that end the session. ENODEV: the drive was unmounted; ECONNABORTED: its
connection was aborted; EBADF: we have closed it ourselves."""


class Transport(Protocol):
    """What a session needs of a connection to the kernel."""

    @property
    def fd(self) -> int:
        """The descriptor of the connection, below 0 if there is none."""

    @property
    def receive(self) -> Callable[[memoryview], int | None]:
        """Read one request into the buffer; its length, nothing or None: try again. Waits for one.

        Raises `OSError`: see `READ_AGAIN` and `SESSION_ENDED`.
        """

    @property
    def send(self) -> Callable[[Buffer], object]:
        """Write one message. Raises `OSError`, and `ValueError` after `close`."""

    def cut(self) -> None:
        """End the connection. Calls that come later do nothing, and read nothing."""

    def close(self) -> None:
        """Let go of what is left of it, when nobody calls any more."""

    def abandon(self) -> None:
        """`close` in a forked child, whatever the parent's threads were at."""


class DeviceTransport:
    """`/dev/fuse`, by the descriptor that the mount gave.

    `receive` and `send` are the methods of a raw file: a Python function around them, or
    `os.readv`, would take a good part of what a request takes altogether.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._file = io.FileIO(fd, "r+", closefd=False)
        self.receive = self._file.readinto
        self.send = self._file.write
        self._mutex = threading.Lock()

    def cut(self) -> None:
        """Let `/dev/fuse` go: what the kernel still wants to ask fails with ENOTCONN.

        The number stays taken: a handler that returns later writes its reply to it, and that must
        not end up in a file that was opened meanwhile. A thread that is reading keeps the
        connection alive until it has read something.
        """
        try:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # no descriptor is left: then the connection ends with `close`
            return
        with self._mutex:
            if self.fd >= 0:
                os.dup2(null, self.fd, inheritable=False)
        os.close(null)

    def close(self) -> None:
        """Close the descriptor."""
        with self._mutex:
            self._file.close()
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)

    def abandon(self) -> None:
        """Close the descriptor in a forked child; see `Transport`."""
        self._mutex = threading.Lock()  # a thread that the child does not have may hold the old one
        self.close()


class MemoryTransport:
    """A connection to nobody: a test is the kernel.

    `put` hands a request to the session, `take` gives what the session has sent, `end` unmounts.
    """

    fd = -1

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._sent: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def receive(self, buffer: memoryview) -> int:
        """Wait for the next `put`; see `Transport`."""
        request = self._requests.get()
        if request is None:
            self._requests.put(None)
            raise OSError(errno.ENODEV, "the test has ended the session")
        buffer[: len(request)] = request
        return len(request)

    def send(self, message: Buffer) -> object:
        """Keep a message for `take`; see `Transport`."""
        self._sent.put(bytes(message))
        return len(message)

    def cut(self) -> None:
        """End it."""
        self.end()

    def close(self) -> None:
        """Nothing is left to let go of."""

    def abandon(self) -> None:
        """Nothing is left to let go of."""

    def put(self, request: bytes) -> None:
        """Send a request to the session."""
        self._requests.put(request)

    def take(self, timeout: float = 10.0) -> bytes:
        """The next message that the session has sent; `queue.Empty` after `timeout` seconds."""
        return self._sent.get(timeout=timeout)

    def end(self) -> None:
        """Have the next read say that the drive was unmounted."""
        self._requests.put(None)
