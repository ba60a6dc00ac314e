"""Handlers that are `async def`: what stands for them in the table of handlers."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cbfsconnect.event_loop import HandlerLoop

log = logging.getLogger("cbfsconnect")


def is_async(handler: object) -> bool:
    """Whether a call of it makes a coroutine: a function, a method, a partial, an object."""
    if inspect.iscoroutinefunction(handler):
        return True
    return callable(handler) and inspect.iscoroutinefunction(type(handler).__call__)


class AsyncHandler:
    """An `async def` handler with the loop that it runs on.

    Called like a plain handler, it waits on the caller's thread until the coroutine is done: right
    where there is a thread to wait, as for the events of the volume. Requests wait without one.
    """

    __slots__ = ("function", "loop")

    def __init__(self, function: Callable[[Any], Awaitable[object]], loop: HandlerLoop) -> None:
        self.function = function
        self.loop = loop

    @property
    def __name__(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))

    def __call__(self, params: Any) -> None:
        """Run it and wait; what it raises is raised."""
        self.loop.run(self.coroutine(params))

    def start(self, params: Any) -> None:
        """Have it run without waiting for it; what escapes is logged."""
        self.loop.call(self._start, params)

    def _start(self, params: Any) -> None:
        task = self.loop.start().create_task(self._logged(params))
        _running.add(task)
        task.add_done_callback(_running.discard)

    async def coroutine(self, params: Any) -> None:
        """The handler's work."""
        await self.function(params)

    async def _logged(self, params: Any) -> None:
        try:
            await self.function(params)
        except Exception:
            log.exception("%s failed", self.__name__)


_running: set[object] = set()
"""A loop keeps only weak references to its tasks."""
