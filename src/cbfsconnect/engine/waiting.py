"""The waits that all others come down to, without a thread: for a handler, for a turn, for a move.

A request that runs as a coroutine (`resumable.py`) hands out what it waits for; its `Flow` begins
the wait and goes on when it is over.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol

from cbfsconnect.engine.engine import Engine
from cbfsconnect.engine.order import FileOrder, Owner, Ticket
from cbfsconnect.engine.resumable import written
from cbfsconnect.events import (
    CBFSCleanupFileEventParams,
    CBFSCloseDirectoryEnumerationEventParams,
    CBFSCloseFileEventParams,
    CBFSCloseHardLinksEnumerationEventParams,
    CBFSCloseNamedStreamsEnumerationEventParams,
    CBFSCloseQuotasEnumerationEventParams,
    CBFSDeleteFileEventParams,
    CBFSUnlockFileEventParams,
)
from cbfsconnect.events.asynchronous import AsyncHandler

if TYPE_CHECKING:
    from contextvars import Context

    from cbfsconnect.engine.nodes import Node

_TO_THE_END = {
    CBFSCleanupFileEventParams,
    CBFSCloseDirectoryEnumerationEventParams,
    CBFSCloseFileEventParams,
    CBFSCloseHardLinksEnumerationEventParams,
    CBFSCloseNamedStreamsEnumerationEventParams,
    CBFSCloseQuotasEnumerationEventParams,
    CBFSDeleteFileEventParams,
    CBFSUnlockFileEventParams,
}
"""Events that happen also when the client is gone: a killed process, too, closes its files."""


class Waiter(Protocol):
    """The request that waits."""

    interrupted: bool
    context: Context
    may_withdraw: bool
    """Whether nothing has happened yet that would have to be undone."""

    @property
    def on_loop(self) -> bool:
        """Whether it runs on the event loop's thread now."""

    def go_on(self) -> None:
        """The wait is over; called on the event loop's thread, from its own callback."""

    def go_on_soon(self) -> None:
        """The wait is over; called on any thread, with locks held."""

    def visit(self) -> None:
        """Go on, on a worker's thread."""


class Wait:
    """Something that a request waits for."""

    __slots__ = ()

    def __await__(self) -> Generator[Wait, None, None]:
        yield self

    def begin(self, waiter: Waiter) -> bool:
        """Begin to wait; False when there is nothing to wait for. Called by the request's flow."""
        raise NotImplementedError

    def interrupt(self, waiter: Waiter) -> None:
        """The client does not want the result any more: end the wait, if that may be."""


class _OffLoop(Wait):
    """A plain handler may block, so it must not run on the event loop's thread."""

    __slots__ = ()

    def begin(self, waiter: Waiter) -> bool:
        waiter.may_withdraw = False
        if waiter.on_loop:
            waiter.visit()
            return True
        return False


_OFF_LOOP = _OffLoop()


class _Handling(Wait):
    """An async handler at work."""

    __slots__ = ("_handler", "_params", "_task", "_waiter", "failure")

    def __init__(self, handler: AsyncHandler, params: Any) -> None:
        self._handler = handler
        self._params = params
        self._waiter: Waiter | None = None
        self._task: asyncio.Task[None] | None = None
        self.failure: BaseException | None = None

    def begin(self, waiter: Waiter) -> bool:
        if waiter.interrupted and self._may_end:
            self.failure = _interruption()
            return False
        self._waiter = waiter
        waiter.may_withdraw = False
        if waiter.on_loop:
            self._start()
        else:
            self._handler.loop.call(self._start)
        return True

    def interrupt(self, waiter: Waiter) -> None:
        if self._task is not None and self._may_end:
            self._task.cancel()

    @property
    def _may_end(self) -> bool:
        return self._params.__class__ not in _TO_THE_END

    def _start(self) -> None:
        waiter = self._waiter
        assert waiter is not None
        loop = self._handler.loop.start()
        coroutine = self._handler.coroutine(self._params)
        self._task = loop.create_task(coroutine, context=waiter.context)
        self._task.add_done_callback(self._done)
        if waiter.interrupted:
            self.interrupt(waiter)

    def _done(self, task: asyncio.Task[None]) -> None:
        waiter = self._waiter
        assert waiter is not None
        if not task.cancelled():
            self.failure = task.exception()
        elif waiter.interrupted:
            self.failure = _interruption()
        else:
            self.failure = asyncio.CancelledError("the handler was cancelled by the program")
        waiter.go_on()


def _interruption() -> OSError:
    return OSError(errno.EINTR, "the client was interrupted")


class _Outcome:
    """A handler that has run: its outcome is judged as if it ran now."""

    __slots__ = ("__name__", "_failure")

    def __init__(self, name: str, failure: BaseException | None) -> None:
        self.__name__ = name
        self._failure = failure

    def __call__(self, params: Any) -> None:
        if self._failure is not None:
            raise self._failure


class Turn(Wait):
    """Until somebody says so, which may be before the wait begins."""

    __slots__ = ("_first", "_waiter")

    def __init__(self) -> None:
        self._first = threading.Lock()
        self._waiter: Waiter | None = None

    def begin(self, waiter: Waiter) -> bool:
        """False when it has been said already."""
        self._waiter = waiter
        return self._first.acquire(blocking=False)

    def give(self) -> None:
        """End the wait."""
        if not self._first.acquire(blocking=False):
            assert self._waiter is not None
            self._waiter.go_on_soon()


class _TurnAt(Turn):
    """In the line of a file. Who has not begun yet leaves it when the client is interrupted."""

    __slots__ = ("key", "order", "ticket", "withdrawn")

    def __init__(self, order: FileOrder, key: int, node: Node, owner: Owner, shared: bool) -> None:
        super().__init__()
        self.order = order
        self.key = key
        self.ticket = _Ticket(self, owner, node, shared)
        self.withdrawn = False

    def interrupt(self, waiter: Waiter) -> None:
        if waiter.may_withdraw and self.order.withdraw(self.key, self.ticket):
            self.withdrawn = True
            self.give()


class _Ticket(Ticket):
    """A place in a line that nobody's thread waits in."""

    __slots__ = ("_turn",)

    def __init__(self, turn: Turn, owner: Owner, node: Node, shared: bool) -> None:
        super().__init__(owner, node, shared)
        self._turn = turn

    def admit(self) -> None:
        self._turn.give()


class Interrupted(Exception):
    """The client was interrupted before the request's turn had come: nothing has happened yet."""


@written(Engine, "fire")
async def _fire(engine: Engine, handler: Callable[[Any], object], params: Any) -> int:
    if not isinstance(handler, AsyncHandler):
        await _OFF_LOOP
        return engine.fire(handler, params)
    handling = _Handling(handler, params)
    await handling
    return engine.fire(_Outcome(handler.__name__, handling.failure), params)


@written(FileOrder, "_wait_in_line")
async def _wait_in_line(
    order: FileOrder, key: int, node: Node, owner: Owner, *, shared: bool, seconds: float = -1
) -> bool:
    turn = _TurnAt(order, key, node, owner, shared)
    order.line_up(key, turn.ticket)
    await turn
    if turn.withdrawn:
        raise Interrupted
    return True


@written(FileOrder, "_until")
async def _until(order: FileOrder, holds: Callable[[], bool], seconds: float | None = None) -> bool:
    while True:
        with order._mutex:
            if holds():
                return True
            turn = Turn()
            order.parked.append(turn.give)
        await turn
