"""Handlers that wait for the test, and clients that wait for handlers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.client import Client

DEADLINE_S = 20.0


class Gate:
    """To be called by a handler, which then stays in it until the gate is opened."""

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self._reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, p: Any) -> None:
        """Stop here; only for events about `path`, if one was given."""
        if self.path in (None, p.file_name):
            self._reached.set()
            assert self._open.wait(DEADLINE_S), "nobody opened the gate"

    def wait(self) -> None:
        """Wait until a handler is at the gate."""
        assert self._reached.wait(DEADLINE_S), "no handler came to the gate"

    @property
    def reached(self) -> bool:
        """Whether a handler has been at the gate."""
        return self._reached.is_set()

    def open(self) -> None:
        """Let the handler go on, and all that come later."""
        self._open.set()


class AsyncGate:
    """To be awaited by handlers, which then stay in it until the gate is opened."""

    def __init__(self) -> None:
        self.inside = 0
        self.cancelled = 0
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = asyncio.Event()

    async def wait(self) -> None:
        """Stop here; for handlers."""
        with self._changed:
            self._loop = asyncio.get_running_loop()
            self.inside += 1
            self._changed.notify_all()
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            with self._changed:
                self.cancelled += 1
                self._changed.notify_all()
            raise

    def wait_for(self, inside: int = 1, cancelled: int = 0) -> None:
        """Wait until so many handlers have come to the gate, and so many were cancelled there."""
        with self._changed:
            enough = self._changed.wait_for(
                lambda: self.inside >= inside and self.cancelled >= cancelled, DEADLINE_S
            )
        assert enough, f"{self.inside} handlers came to the gate, {self.cancelled} were cancelled"

    def open(self) -> None:
        """Let the handlers go on, and all that come later."""
        loop = self._loop
        assert loop is not None, "no handler came to the gate"
        loop.call_soon_threadsafe(self._open.set)


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for what another process does at some time."""
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def wait_until_blocked(client: Client) -> None:
    """Wait until the client is inside a call on a drive that is not answered yet."""
    deadline = time.monotonic() + DEADLINE_S
    while not (_is_blocked(client.pid) and _is_blocked(client.pid)):
        assert time.monotonic() < deadline, "the client does not wait for the drive"
        time.sleep(0.005)


def _is_blocked(process: int) -> bool:
    """Where in the kernel is it: waiting for a FUSE reply, or for a lock held by one who does?

    Between its calls a client reads a pipe.
    """
    place = Path(f"/proc/{process}/wchan").read_text()
    return place != "0" and "pipe" not in place
