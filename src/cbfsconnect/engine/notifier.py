"""Sending notifications from a thread that answers nothing.

The kernel may hold a directory's lock while it waits for the answer to a request; a notification
about that directory then waits for the lock. Sent by the thread that has to answer, it would wait
for ever.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Notifier:
    """Sends messages in order, on a thread that starts with the first of them."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send
        self._messages: queue.SimpleQueue[bytes | threading.Event | None] = queue.SimpleQueue()
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, messages: list[bytes]) -> None:
        """Send them soon."""
        with self._mutex:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cbfs-notifier", daemon=True)
                self._thread.start()
        for message in messages:
            self._messages.put(message)

    def wait(self, within: float) -> bool:
        """Wait until all is sent; False when the kernel has not taken it after so many seconds."""
        reached = threading.Event()
        with self._mutex:
            if self._thread is None:
                return True
            self._messages.put(reached)
        return reached.wait(within)

    def stop(self) -> None:
        """End the thread when it has sent what it was given."""
        with self._mutex:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._messages.put(None)
            if thread is not threading.current_thread():
                thread.join(5)

    def _run(self) -> None:
        while (message := self._messages.get()) is not None:
            if isinstance(message, threading.Event):
                message.set()
            else:
                self._send(message)
