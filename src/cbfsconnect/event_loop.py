"""Where `async def` handlers run: an event loop on a thread of its own, or the program's loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio  # imported where it is needed: it takes a third of the time of a mount

log = logging.getLogger("cbfsconnect")

R = TypeVar("R")


class HandlerLoop:
    """The loop of one drive's handlers. Without the program's own, one is started when needed."""

    def __init__(self) -> None:
        self._own: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._mutex = threading.Lock()
        self._thread_id = 0

    @property
    def programs_own(self) -> asyncio.AbstractEventLoop | None:
        """The program's loop, when it has named one."""
        return self._own

    @programs_own.setter
    def programs_own(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._own = loop

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on the loop's thread, so that it must not wait for the loop."""
        return threading.get_ident() == self._thread_id

    @property
    def would_block(self) -> bool:
        """Whether the caller runs on the program's own loop, which it would hold up."""
        if self._own is None:
            return False
        import asyncio

        try:
            return asyncio.get_running_loop() is self._own
        except RuntimeError:
            return False

    def start(self) -> asyncio.AbstractEventLoop:
        """The loop; it runs from now on."""
        loop = self._loop
        if loop is not None:
            return loop
        with self._mutex:
            if self._loop is None:
                self._loop = self._started()
            return self._loop

    def call(self, action: Callable[..., object], *arguments: object) -> None:
        """Have something run on the loop soon."""
        self.start().call_soon_threadsafe(action, *arguments)

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the loop and wait for it, on any thread but the loop's own."""
        if self.is_current:
            coroutine.close()
            raise RuntimeError(
                "an async handler cannot be waited for on the event loop's own thread"
            )
        import asyncio

        return asyncio.run_coroutine_threadsafe(coroutine, self.start()).result()

    def stop(self, within: float) -> None:
        """End the loop, unless it is the program's; what still runs on it is cancelled."""
        with self._mutex:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
            self._thread_id = 0
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(within)

    def abandon(self) -> None:
        """In a forked child, where the loop's thread is not."""
        self._loop = self._thread = None
        self._thread_id = 0
        self._mutex = threading.Lock()

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._own is not None:
            self._own.call_soon_threadsafe(self._note_thread)
            return self._own
        import asyncio

        loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._serve, args=(loop,), name="cbfs-async", daemon=True
        )
        self._thread.start()
        return loop

    def _note_thread(self) -> None:
        self._thread_id = threading.get_ident()

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        self._note_thread()
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            _close(loop)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left and close, as `asyncio.run` does."""
    import asyncio

    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    try:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    except Exception:
        log.exception("the event loop of the handlers did not end well")
    finally:
        asyncio.set_event_loop(None)
        loop.close()
