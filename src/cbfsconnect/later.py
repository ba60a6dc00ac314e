"""Methods of class CBFS that only the later editions of the product are known to have.

Programs for the 2020 edition do not need them, but some are written for both.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import TYPE_CHECKING

from cbfsconnect.engine import changes
from cbfsconnect.engine.engine import Engine
from cbfsconnect.errors import (
    ERROR_FILE_NOT_FOUND,
    ERROR_INVALID_PARAMETER,
    ERROR_INVALID_STATE,
    CBFSConnectError,
)
from cbfsconnect.events.asynchronous import AsyncHandler

if TYPE_CHECKING:
    from cbfsconnect.engine.notifier import Notifier
    from cbfsconnect.engine.session import Session
    from cbfsconnect.events import EventParams

_NAMES = ("directory_name", "file_name")  # a listing gives `file_name` as its answer


class LaterEditions:
    """What class CBFS has of them."""

    if TYPE_CHECKING:
        _engine: Engine | None
        _session: Session | None
        _notifier: Notifier

        def _in_event(self) -> bool: ...
        def _need_media(self, method: str) -> None: ...

    def flush_file(self, file_name: str, offset: int, length: int, wait: bool) -> None:
        """Have the kernel write out what it caches of a part of a file, and drop it.

        `length` 0 or less: to the end. `wait` returns when `on_write_file` has fired for all of it;
        inside a handler it cannot be waited for. Raises ERROR_FILE_NOT_FOUND for what the kernel
        does not know; then it caches nothing of it either.
        """
        self._need_media("flush_file")
        if offset < 0:
            raise CBFSConnectError(ERROR_INVALID_PARAMETER, f"offset is {offset}, below 0")
        engine, session = self._engine, self._session
        told = changes.flushes(engine, file_name, offset, length) if engine is not None else []
        if not told or session is None:
            raise CBFSConnectError(ERROR_FILE_NOT_FOUND, f"nothing of {file_name!r} is cached")
        if wait and not self._in_event():
            for message in told:
                session.send(message)
        else:
            self._notifier.put(told)

    def get_event_file_name(self) -> str:
        """The path that the current event is about; "" for events of the drive as a whole.

        Raises ERROR_INVALID_STATE outside of a handler.
        """
        if not self._in_event():
            raise CBFSConnectError(
                ERROR_INVALID_STATE, "get_event_file_name may only be called inside an event"
            )
        params = _params_of(sys._getframe(1))
        for name in _NAMES:
            path = getattr(params, name, None)
            if isinstance(path, str):
                return path
        return ""

    def dispatch_events(self) -> None:
        """Do nothing: handlers run on threads of the library, and nothing has to be pumped."""


def _params_of(frame: FrameType | None) -> EventParams | None:
    """The parameters of the event whose handler has called; found by the stack, so that events
    need not keep a note of themselves for a question that is hardly ever asked."""
    firing = (Engine.fire.__code__, AsyncHandler.coroutine.__code__)
    while frame is not None:
        if frame.f_code in firing:
            params: EventParams = frame.f_locals["params"]
            return params
        frame = frame.f_back
    return None
