"""What handlers may ask about the request they serve, and which thread they run on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from cbfsconnect.engine.current import CURRENT
from cbfsconnect.engine.engine import Engine
from cbfsconnect.errors import ERROR_INVALID_STATE, CBFSConnectError
from cbfsconnect.event_thread import EventThread
from cbfsconnect.fuse.abi import WRITE_CACHE, Opcode
from cbfsconnect.processes import INVALID_HANDLE, executable_of, token_of, was_there
from cbfsconnect.public_properties import PublicProperties

if TYPE_CHECKING:
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.session import Session
    from cbfsconnect.engine.workers import Worker

R = TypeVar("R")


class Originators(PublicProperties):
    """The methods of class CBFS that belong inside handlers.

    They must run on the thread on which the event was fired. On any other they raise
    ERROR_INVALID_STATE.
    """

    def __init__(self) -> None:
        super().__init__()
        self._session: Session | None = None
        self._engine: Engine | None = None
        self._event_threads: set[int] = set()
        self._event_thread: EventThread | None = None

    def get_originator_process_id(self) -> int:
        """The process whose request this is; 0 when it is nobody's (writes from the cache)."""
        thread = self._originator()
        return Engine.process_of(thread) if thread else 0

    def get_originator_process_name(self) -> str:
        """The full path of the program it runs; "" when that cannot be found out."""
        process = self.get_originator_process_id()
        return executable_of(process) if process else ""

    def get_originator_thread_id(self) -> int:
        """The thread whose request this is; 0 when it is nobody's."""
        return self._originator()

    def get_originator_token(self) -> int:
        """A descriptor of the process (pidfd), the caller's to close; -1 when there is none."""
        process = self.get_originator_process_id()
        return token_of(process) if process else INVALID_HANDLE

    def get_handle_creator_process_id(self, handle_info: int) -> int:
        """The process that opened the handle; 0 when `handle_info` stands for none."""
        handle = self._creator(handle_info)
        if handle is None:
            return 0
        return handle.process or Engine.process_of(handle.thread)

    def get_handle_creator_process_name(self, handle_info: int) -> str:
        """The program that opened the handle; "" when that cannot be found out."""
        process = self.get_handle_creator_process_id(handle_info)
        name = executable_of(process) if process else ""
        return name if name and self._is_creator(handle_info, process) else ""

    def get_handle_creator_thread_id(self, handle_info: int) -> int:
        """The thread that opened the handle; 0 when `handle_info` stands for none."""
        handle = self._creator(handle_info)
        return 0 if handle is None else handle.thread

    def get_handle_creator_token(self, handle_info: int) -> int:
        """A pidfd of the process that opened the handle, the caller's to close; -1: none."""
        process = self.get_handle_creator_process_id(handle_info)
        token = token_of(process) if process else INVALID_HANDLE
        if token == INVALID_HANDLE or self._is_creator(handle_info, process):
            return token
        os.close(token)
        return INVALID_HANDLE

    def reset_timeout(self, timeout: int) -> bool:
        """Give the current handler `timeout` milliseconds from now on; 0: as long as it likes."""
        worker = self._current_worker()
        if worker is None:
            raise CBFSConnectError(
                ERROR_INVALID_STATE, "reset_timeout may only be called inside an event handler"
            )
        if timeout < 0 or (worker.request is not None and worker.late is worker.request):
            return False
        worker.restart_clock(timeout / 1000)
        return True

    def _originator(self) -> int:
        worker = self._current_worker()
        request = worker.request if worker is not None else None
        if request is None:
            if threading.get_ident() in self._event_threads or worker is not None:
                return 0
            raise CBFSConnectError(
                ERROR_INVALID_STATE, "originators are known only inside an event handler"
            )
        if request.opcode == Opcode.WRITE and request.body.write_flags & WRITE_CACHE:
            return 0
        return request.pid

    def _creator(self, handle_info: int) -> Handle | None:
        if not self._in_event():
            raise CBFSConnectError(
                ERROR_INVALID_STATE, "handle creators are known only inside an event handler"
            )
        engine = self._engine
        return engine.handles.get(handle_info) if engine is not None else None

    def _is_creator(self, handle_info: int, process: int) -> bool:
        """Whether the process with this number is still the one that opened the handle."""
        handle = self._creator(handle_info)
        return handle is not None and (not handle.opened or was_there(process, handle.opened))

    # --- threads -------------------------------------------------------------------------------

    def _current_worker(self) -> Worker | None:
        session = self._session
        if session is None:
            return None
        flow = CURRENT.get(None)
        if flow is not None and flow.session is session:
            return flow
        return session.workers.current()

    def _in_event(self) -> bool:
        return (
            threading.get_ident() in self._event_threads
            or self._current_worker() is not None
            or self._handler_loop.is_current
        )

    def _refuse_in_event(self, what: str) -> None:
        if self._handler_loop.would_block:
            raise CBFSConnectError(
                ERROR_INVALID_STATE,
                f"async handlers need this event loop: {what} from another thread, for instance "
                "with asyncio.to_thread",
            )
        if self._in_event():
            raise CBFSConnectError(
                ERROR_INVALID_STATE, f"a handler may not {what}: the drive waits for the handler"
            )

    def _on_event_thread(self, action: Callable[[], R], within: float | None = None) -> R:
        """Run something that fires events on the thread that is there for it.

        `TimeoutError` after `within` seconds: a handler is stuck, and the thread is left to it.
        """
        if self._event_thread is None:
            self._event_thread = EventThread(self._event_thread_begins, self._event_thread_ends)
        try:
            return self._event_thread.run(action, within)
        except TimeoutError:
            self._stop_event_thread(within=0)
            raise

    def _stop_event_thread(self, within: float | None = None) -> None:
        thread, self._event_thread = self._event_thread, None
        if thread is not None:
            thread.stop(within)

    def _event_thread_begins(self) -> None:
        self._event_threads.add(threading.get_ident())
        self._worker_begins()

    def _event_thread_ends(self) -> None:
        self._worker_ends()
        self._event_threads.discard(threading.get_ident())

    def _worker_begins(self) -> None:
        from cbfsconnect.volume import fire_worker_begins

        fire_worker_begins(self._handlers)

    def _worker_ends(self) -> None:
        from cbfsconnect.volume import fire_worker_ends

        fire_worker_ends(self._handlers)
