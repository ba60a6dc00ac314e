"""Requests that wait for `async def` handlers, and for each other, without a thread.

A flow is one request on its way as a coroutine. It begins on the thread of the worker that has read
it, as any other request. When it has to wait it leaves that thread; when the wait is over it goes
on, on the event loop's thread, or on a worker's where a plain handler comes next. A flow that need
not wait is over before the worker reads again.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import threading
import time
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from cbfsconnect.engine.current import CURRENT
from cbfsconnect.engine.resumable import Form, find_form, make_forms
from cbfsconnect.engine.waiting import Interrupted, Wait
from cbfsconnect.engine.workers import ThreadWorker, Worker
from cbfsconnect.fuse.abi import Opcode
from cbfsconnect.processes import wants_to_end

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.operations import Operation, Reply
    from cbfsconnect.engine.session import Session
    from cbfsconnect.event_loop import HandlerLoop
    from cbfsconnect.fuse.wire import Request

_TICK_S = 0.05
"""How often timeouts and interrupted clients are looked at, while requests wait."""

_WITHDRAWABLE = {
    Opcode.LOOKUP,
    Opcode.GETATTR,
    Opcode.STATX,
    Opcode.READLINK,
    Opcode.OPEN,
    Opcode.OPENDIR,
    Opcode.READ,
    Opcode.WRITE,
    Opcode.FSYNC,
    Opcode.READDIR,
    Opcode.READDIRPLUS,
    Opcode.GETXATTR,
    Opcode.LISTXATTR,
}
"""Requests that stand in one line only, before anything has happened."""


class _Suspended:
    """Stands for the reply of a request that waits."""


_SUSPENDED = _Suspended()


class Flow(Worker):
    """One request on its way."""

    __slots__ = (
        "_coroutine",
        "_engine",
        "_flows",
        "_unique",
        "_wait",
        "context",
        "interrupted",
        "is_over",
        "may_withdraw",
    )

    def __init__(self, flows: Flows, engine: Engine, request: Request) -> None:
        super().__init__()
        self.request = request
        self.seen_at = time.monotonic()
        self.may_withdraw = request.opcode in _WITHDRAWABLE
        self.interrupted = False
        self.is_over = False
        self.context = contextvars.copy_context()
        self.context.run(CURRENT.set, self)
        self._flows = flows
        self._engine = engine
        self._unique = request.unique
        self._wait: Wait | None = None
        self._coroutine: Coroutine[Any, Any, Reply] | None = None

    def __repr__(self) -> str:
        return f"<flow of {self.request!r}>"

    @property
    def session(self) -> Session:
        """Whose request it is."""
        return self._flows.session

    @property
    def on_loop(self) -> bool:
        """Whether the caller runs on the event loop's thread."""
        return self._flows.on_loop

    def begin(self, form: Form, worker: ThreadWorker) -> Reply:
        """Go as far as possible; the reply, or None when it comes later."""
        self._coroutine = form(self._engine, self, self.request)
        self._flows.enter(self, self._unique)
        worker.flow = self
        try:
            reply = self._run()
        finally:
            worker.flow = None
        return None if isinstance(reply, _Suspended) else reply

    def restart_clock(self, limit: float) -> None:
        """Give the handler so many seconds from now on; 0: as long as it likes."""
        super().restart_clock(limit)
        self._flows.watch()

    def go_on(self) -> None:
        """The wait is over; called from a callback of the event loop, or on a visited worker."""
        request = self.request
        assert request is not None
        session, engine = self._flows.session, self._engine
        try:
            reply = self._run()
        except Exception as error:
            reply = session.failed(engine, request, error)
        if not isinstance(reply, _Suspended):
            session.finish(engine, self, request, reply)
            self.request = None

    def go_on_soon(self) -> None:
        """The wait is over; called on any thread, with locks held."""
        self._flows.loop.call(self.go_on)

    def visit(self) -> None:
        """Go on, on a worker's thread."""
        self._flows.session.workers.visit(self._visit)

    def interrupt(self) -> None:
        """The client does not want the result any more. Runs on the event loop's thread."""
        self.interrupted = True
        if self._wait is not None:
            self._wait.interrupt(self)

    def expire(self) -> None:
        """The handler takes too long: its answer will be dropped."""
        request = self.request
        if request is not None and self.late is not request:
            self.late = request
            self._flows.session.answer_late(request)
            self.interrupt()

    def _run(self) -> Reply | _Suspended:
        """Until the next wait. Once that has begun, the flow may go on elsewhere at any moment."""
        coroutine = self._coroutine
        assert coroutine is not None
        while True:
            self._wait = None
            try:
                self._wait = wait = coroutine.send(None)
            except StopIteration as done:
                self._end()
                reply: Reply = done.value
                return reply
            except Interrupted:
                self._end()
                return errno.EINTR
            except BaseException:
                self._end()
                raise
            if wait.begin(self):
                return _SUSPENDED

    def _visit(self, worker: ThreadWorker) -> None:
        worker.flow, worker.request = self, self.request
        try:
            self.go_on()
        finally:
            worker.flow = worker.request = None

    def _end(self) -> None:
        self.is_over = True
        self._flows.leave(self._unique)


class Flows:
    """The flows of one session. `timeout` in seconds bounds how long one may take; 0: none."""

    def __init__(self, session: Session, loop: HandlerLoop, timeout: float) -> None:
        make_forms()
        self.session = session
        self.loop = loop
        self.timeout = timeout
        self._all: dict[int, Flow] = {}
        self._interrupted: set[Flow] = set()
        self._is_ticking = False
        self._none_left = threading.Event()

    @property
    def on_loop(self) -> bool:
        """Whether the caller runs on the event loop's thread."""
        return self.loop.is_current

    def resuming(self, operations: Mapping[int, Operation]) -> Mapping[int, Operation]:
        """The table of operations that begin a flow each."""
        return {
            opcode: self._operation(opcode, operation) for opcode, operation in operations.items()
        }

    def enter(self, flow: Flow, unique: int) -> None:
        """A flow begins."""
        self._all[unique] = flow
        if self.timeout:
            self.watch()

    def watch(self) -> None:
        """Look at the time from now on, while requests wait."""
        if not self._is_ticking:
            self._is_ticking = True
            self.loop.call(self._tick)

    def leave(self, unique: int) -> None:
        """A flow is over."""
        self._all.pop(unique, None)
        if not self._all:
            self._none_left.set()

    def interrupt_all(self) -> None:
        """Nobody is there any more for whom they run."""
        if self._all:
            self.loop.call(self._interrupt_all)

    def join(self, timeout: float) -> list[Flow]:
        """When no more can begin: wait until all are over; those that are not."""
        self._none_left.clear()
        if self._all:
            self._none_left.wait(timeout)
        return list(self._all.values())

    def _operation(self, opcode: int, operation: Operation) -> Operation:
        form = find_form(operation)
        if form is None or opcode == Opcode.BATCH_FORGET:  # which fires nothing, many times over
            return operation
        begins: Form = form

        def begin(engine: Engine, worker: Worker, request: Request) -> Reply:
            if request.data is not None:
                # The worker reads the next request into its buffer while this one waits.
                request.data = memoryview(bytearray(request.data))
            assert isinstance(worker, ThreadWorker)  # who has read it
            return Flow(self, engine, request).begin(begins, worker)

        def interrupt(engine: Engine, worker: Worker, request: Request) -> Reply:
            flow = self._all.get(request.body.unique)
            if flow is None:
                return begin(engine, worker, request)
            self.loop.call(self._note_interrupted, flow)
            return None

        return interrupt if opcode == Opcode.INTERRUPT else begin

    # --- on the event loop's thread ------------------------------------------------------------

    def _note_interrupted(self, flow: Flow) -> None:
        self._interrupted.add(flow)
        self._look_at_interrupted()
        if self._interrupted:
            self.watch()

    def _look_at_interrupted(self) -> None:
        for flow in list(self._interrupted):
            request = flow.request
            if flow.is_over or request is None:
                self._interrupted.discard(flow)
            elif wants_to_end(request.pid):
                self._interrupted.discard(flow)
                flow.interrupt()

    def _tick(self) -> None:
        self._look_at_interrupted()
        now = time.monotonic()
        for flow in list(self._all.values()):
            limit = self.timeout if flow.limit is None else flow.limit
            if limit and now - flow.seen_at > limit:
                flow.expire()
        if not self._has_clocks():
            self._is_ticking = False
            if not self._has_clocks():  # none has come just now
                return
            self._is_ticking = True
        asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _has_clocks(self) -> bool:
        if self._interrupted or (self.timeout and self._all):
            return True
        return any(flow.limit for flow in list(self._all.values()))

    def _interrupt_all(self) -> None:
        for flow in list(self._all.values()):
            flow.interrupt()
