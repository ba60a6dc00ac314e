"""The thread on which events fire that no request of the kernel causes.

The contract has it that handlers never run on the program's own thread. So a drive with media has
this thread for `on_mount`, `on_unmount` and the closing of what is open when media goes. It stays
until media is out: when the interpreter exits, no new thread could be started (Python 3.12).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

R = TypeVar("R")


class _Task(Generic[R]):
    """Something to run, and how it went."""

    def __init__(self, action: Callable[[], R]) -> None:
        self._action = action
        self._outcome: list[R] = []
        self._failure: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        """Run it; nothing is raised here."""
        try:
            self._outcome.append(self._action())
        except BaseException as error:
            self._failure = error
        self.done.set()

    def result(self) -> R:
        """What it returned; what it raised is raised."""
        if self._failure is not None:
            raise self._failure
        return self._outcome[0]


class EventThread:
    """Runs one thing after another. `begins` and `ends` are called on the thread itself."""

    def __init__(self, begins: Callable[[], None], ends: Callable[[], None]) -> None:
        self._begins = begins
        self._ends = ends
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="cbfs-events", daemon=True)
        self._thread.start()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on it."""
        return threading.current_thread() is self._thread

    def run(self, action: Callable[[], R], within: float | None = None) -> R:
        """Run something there and wait for it; `TimeoutError` after `within` seconds."""
        task = _Task(action)
        self._tasks.put(task.run)
        if not task.done.wait(within):
            raise TimeoutError
        return task.result()

    def start(self, action: Callable[[], None]) -> None:
        """Have something run there without waiting for it; it must not raise."""
        self._tasks.put(action)

    def stop(self, within: float | None = None) -> None:
        """End it when it has done what it was given, and wait for that."""
        self._tasks.put(None)
        if not self.is_current:
            self._thread.join(within)

    def _loop(self) -> None:
        self._begins()
        try:
            while (action := self._tasks.get()) is not None:
                action()
        finally:
            self._ends()
