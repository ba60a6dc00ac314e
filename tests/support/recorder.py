"""Handlers that keep a record of every event: its parameters before and after the handler ran."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cbfsconnect import EVENTS, EventParams


@dataclass(frozen=True)
class Fired:
    """One event: `given` are the parameters the handler got, `left` what they were after it."""

    name: str
    given: dict[str, Any]
    left: dict[str, Any]
    thread: int
    error: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return self.given[name]
        except KeyError:
            raise AttributeError(name) from None


class Recorder:
    """Wraps a handler object: `cbfsconnect.mount(Recorder(handlers), …)`.

    `before[event]` is called instead of nothing before the handler, `instead[event]` in its place.
    Buffers are recorded as bytes.
    """

    def __init__(self, handlers: object) -> None:
        self.handlers = handlers
        self.fired: list[Fired] = []
        self.before: dict[str, Callable[[Any], object]] = {}
        self.instead: dict[str, Callable[[Any], object]] = {}
        self._changed = threading.Condition()
        for name in dir(handlers):
            if name in EVENTS:
                setattr(self, name, self._recording(name, getattr(handlers, name)))

    def configure(self, cbfs: Any) -> None:
        """Pass on to the handlers."""
        configure = getattr(self.handlers, "configure", None)
        if configure is not None:
            configure(cbfs)

    def handle(self, name: str, handler: Callable[[Any], object]) -> None:
        """Handle one more event, recorded."""
        assert name in EVENTS
        setattr(self, name, self._recording(name, handler))

    def names(self, *only: str) -> list[str]:
        """The names of the events that fired, in order; `only` these, if any are given."""
        return [f.name for f in list(self.fired) if not only or f.name in only]

    def all(self, name: str, path: str | None = None) -> list[Fired]:
        """Every firing of an event, of one path if it is given."""
        return [
            f
            for f in list(self.fired)
            if f.name == name
            and path in (None, f.given.get("file_name", f.given.get("directory_name")))
        ]

    def one(self, name: str, path: str | None = None) -> Fired:
        """The only firing of an event."""
        found = self.all(name, path)
        assert len(found) == 1, f"{name} fired {len(found)} times: {self.names()}"
        return found[0]

    def wait_for(self, name: str, count: int = 1, timeout: float = 20) -> list[Fired]:
        """Wait until an event has fired so often: RELEASE and the like come after close(2)."""
        with self._changed:
            done = self._changed.wait_for(lambda: len(self.all(name)) >= count, timeout)
        assert done, f"{name} fired {len(self.all(name))} times, not {count}: {self.names()}"
        return self.all(name)

    def clear(self) -> None:
        """Forget what was recorded."""
        self.fired.clear()

    def _recording(self, name: str, handler: Callable[[Any], object]) -> Callable[[Any], None]:
        def record(params: EventParams) -> None:
            given, failure = snapshot(params), None
            try:
                if name in self.before:
                    self.before[name](params)
                self.instead.get(name, handler)(params)
            except BaseException as error:
                failure = error
                raise
            finally:
                with self._changed:
                    thread = threading.get_ident()
                    self.fired.append(Fired(name, given, snapshot(params), thread, failure))
                    self._changed.notify_all()

        record.__name__ = name
        return record


def snapshot(params: EventParams) -> dict[str, Any]:
    """All parameters by name; buffers as bytes."""
    event = next(e for e in EVENTS.values() if e.params is type(params))
    values = {p.name: getattr(params, p.name) for p in event.parameters}
    return {n: bytes(v) if isinstance(v, memoryview) else v for n, v in values.items()}
