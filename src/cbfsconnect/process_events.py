"""The kernel's news of processes: who started whom, and who runs another program (proc connector).

The kernel puts each event into this socket before the new process runs. So whoever reads all that
is there, and then looks at a request, knows of every process that could have made it. Hearing of
them takes a kernel that offers it (CONFIG_PROC_EVENTS), and a server in the machine's own pid and
network namespaces; kernels before 6.6 want CAP_NET_ADMIN too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = _CN_VAL_PROC = 1
_LISTEN, _IGNORE = 1, 2
_NETLINK = struct.Struct("=IHHII")
_CONNECTOR = struct.Struct("=IIIIHH")
_EVENT = struct.Struct("=IIQ")
_PIDS = struct.Struct("=IIII")
_OPERATION = struct.Struct("=I")
_CONNECTOR_AT = _NETLINK.size
_EVENT_AT = _CONNECTOR_AT + _CONNECTOR.size
_DATA_AT = _EVENT_AT + _EVENT.size
_NONE, _FORK, _EXEC = 0, 1, 2
_NLMSG_DONE = 3
_SO_RCVBUFFORCE = 33
_MACHINES_PIDS = "pid:[4026531836]"
"""The first pid namespace: its number is fixed in the kernel (PROC_PID_INIT_INO)."""
_ROOM = 16 << 20
"""Bytes of events that may wait: some ten thousand."""
_ANSWER_WITHIN_S = 1.0


class Started(NamedTuple):
    """A process was started by another one (threads are not told of)."""

    parent: int
    process: int


class Executed(NamedTuple):
    """A process runs another program. `at` is in nanoseconds of `time.monotonic_ns`."""

    process: int
    at: int


class EventsLost(Exception):
    """The kernel had no room for events: what is known of processes has holes."""


class ProcessEvents:
    """A socket that hears of processes; `OSError` when the kernel does not tell."""

    def __init__(self) -> None:
        if os.readlink("/proc/self/ns/pid") != _MACHINES_PIDS:
            # Kernels from 6.6 on tell everybody, but in numbers that mean nothing here.
            raise OSError(errno.EOPNOTSUPP, "this process is in a pid namespace of its own")
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _NETLINK_CONNECTOR
        )
        self._sequences: dict[int, int] = {}
        try:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
            self._socket.bind((0, _CN_IDX_PROC))
            self._send(_LISTEN)
            self._wait_for_answer()
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor, to wait for events."""
        return self._socket.fileno()

    def read(self) -> Iterator[Started | Executed]:
        """All events that are there now; raises `EventsLost` when some were lost before."""
        while True:
            try:
                message = self._socket.recv(4096)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self._sequences.clear()
                    raise EventsLost from None
                raise
            what, cpu, at = _EVENT.unpack_from(message, _EVENT_AT)
            self._check_sequence(message, cpu)
            if what == _FORK:
                _, parent, thread, process = _PIDS.unpack_from(message, _DATA_AT)
                if thread == process:
                    yield Started(parent, process)
            elif what == _EXEC:
                yield Executed(_PIDS.unpack_from(message, _DATA_AT)[1], at)

    def close(self) -> None:
        """Hear no more."""
        with contextlib.suppress(OSError):
            self._send(_IGNORE)
        self._socket.close()

    def abandon(self) -> None:
        """In a forked child: let go of the socket, which stays the parent's."""
        self._socket.close()

    def _check_sequence(self, message: bytes, cpu: int) -> None:
        """Each processor numbers its events, answers to other listeners among them. Not all losses
        are told otherwise."""
        sequence = _CONNECTOR.unpack_from(message, _CONNECTOR_AT)[2]
        expected = self._sequences.get(cpu)
        self._sequences[cpu] = (sequence + 1) & 0xFFFFFFFF
        if expected is not None and sequence != expected:
            raise EventsLost

    def _send(self, operation: int) -> None:
        content = _OPERATION.pack(operation)
        message = _CONNECTOR.pack(_CN_IDX_PROC, _CN_VAL_PROC, 0, 0, len(content), 0) + content
        header = _NETLINK.pack(_NETLINK.size + len(message), _NLMSG_DONE, 0, 0, os.getpid())
        self._socket.send(header + message)

    def _wait_for_answer(self) -> None:
        """A kernel that will not tell this process of others does not say so: it is silent."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while poll.poll(_ANSWER_WITHIN_S * 1000):
            message = self._socket.recv(4096)
            if _EVENT.unpack_from(message, _EVENT_AT)[0] == _NONE:
                error = _OPERATION.unpack_from(message, _DATA_AT)[0]
                if error:
                    raise OSError(error, os.strerror(error))
                return
        raise OSError(errno.EOPNOTSUPP, "the kernel tells nothing of processes")
