"""A record of the events that a drive handles, made by wrapping its handlers.

The wrappers change nothing that handlers do. A handler that is a coroutine function is wrapped in
one. Where opening and closing are not handled, the record takes the place of the handler: an event
that nobody handles succeeds, and so does one that is only recorded.
"""

from __future__ import annotations

import inspect
import re
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cbfsconnect.cbfs import CBFS
from cbfsconnect.events import EVENTS, EventParams
from cbfsconnect.events.declare import Direction, event_name

SILENT = (
    "on_open_file",
    "on_cleanup_file",
    "on_close_file",
    "on_close_directory_enumeration",
    "on_error",
)
"""Events that are recorded even if the drive does not handle them."""

_HIDDEN = {
    "handle_info",
    "file_info",
    "share_mode",
    "desired_access",
    "nt_create_disposition",
    "nt_desired_access",
    "case_sensitive",
    "mask",
    "creation_time_ns",
    "change_time_ns",
    "allocation_size",
}
"""Parameters that explain little, or say what another one says too."""
_SKIPPED = {
    "buffer",
    "reparse_buffer",
    "creation_time",
    "last_access_time",
    "last_write_time",
    "change_time",
}
_ALWAYS = {"file_name", "position", "size", "bytes_to_read", "bytes_to_write"}
_ANSWERS = {"file_exists", "file_found", "bytes_read", "bytes_written"}
_FILLING = ("on_read_file", "on_get_reparse_point")
_INFORMING = ("on_get_file_info", "on_enumerate_directory")
_DETAILS = {
    "last_access_time_ns",
    "last_write_time_ns",
    "file_id",
    "attributes",
    "reparse_tag",
    "uid",
    "gid",
}
_OPENING = ("on_open_file", "on_create_file")
_MOST_DATA, _LONGEST, _LONGEST_PATH = 24, 60, 90


@dataclass(eq=False)
class Fired:
    """One event: `given` are the parameters its handler got, `left` what they were after it.

    `left` is None while the handler runs. Of buffers the first bytes are kept.
    """

    name: str
    given: dict[str, Any]
    thread: int
    handled: bool = True
    left: dict[str, Any] | None = None
    error: BaseException | None = None

    @property
    def path(self) -> str:
        """The item that it is about."""
        return str(self.given.get("file_name", self.given.get("directory_name", "")))

    @property
    def succeeded(self) -> bool:
        """Whether the handler has returned, with no error."""
        return self.left is not None and self.error is None and not self.left.get("result_code")

    def __str__(self) -> str:
        """In one line: what was asked, what came of it."""
        return self.text(everything=True)

    def text(self, *, everything: bool) -> str:
        """In one line; with `everything` False without times and numbers of items."""
        unsaid = set() if everything or self.name not in _INFORMING else _DETAILS
        return f"{self.name}({', '.join(self._asked())}) → {self._outcome(unsaid)}"

    def _asked(self) -> list[str]:
        words = []
        for name, direction in _fields_of(self.name).items():
            value = self.given.get(name)
            if direction is Direction.OUT or name in _HIDDEN:
                continue
            if isinstance(value, _Data) and self.name in _FILLING:
                continue
            if name in _ALWAYS or value not in (None, 0, "", False):
                words.append(_word(name, value))
        return words

    def _outcome(self, unsaid: set[str]) -> str:
        if self.error is not None:
            return f"raised {_short(repr(self.error), 100)}"
        if self.left is None:
            return "has not returned yet"
        words = []
        for name, direction in _fields_of(self.name).items():
            value = self.left.get(name)
            if isinstance(value, _Data) and self.left.get("bytes_read"):
                words.append(_word(name, _Data(value.start, self.left["bytes_read"])))
            changed = value != self.given.get(name) or name in _ANSWERS
            if direction is not Direction.IN and changed and name not in _HIDDEN | unsaid:
                words.append(_word(name, value))
        return ", ".join(words) or ("ok" if self.handled else "ok (no handler)")


def _word(name: str, value: Any) -> str:
    if isinstance(value, _Data):
        start = value.start[: value.length]
        more = "" if value.length <= len(start) else f"… ({value.length} bytes)"
        return f"data={start!r}{more}"
    if name == "mode" and isinstance(value, int):
        return f"mode=0o{value:o}"
    if name in ("attributes", "reparse_tag") and isinstance(value, int):
        return f"{name}=0x{value:X}"
    longest = _LONGEST_PATH if isinstance(value, str) else _LONGEST
    text = value if isinstance(value, str | bytes | int) else _plain(value)
    return f"{name}={_short(repr(text) if text is value else str(text), longest)}"


def _plain(value: Any) -> str:
    """An object as its author knows it, without the way to its module."""
    return re.sub(r"<(?:[\w<>]+\.)+(\w+ object at )0x\w*?(\w{4})>", r"<\1…\2>", repr(value))


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 20]}…{text[-19:]}"


@dataclass
class _Data:
    """The beginning of a buffer."""

    start: bytes
    length: int


def snapshot(params: EventParams) -> dict[str, Any]:
    """All parameters by name; of a buffer its beginning."""
    values: dict[str, Any] = {}
    for name in _fields_of(event_name(type(params))):
        value = getattr(params, name)
        if isinstance(value, memoryview):
            value = _Data(bytes(value[:_MOST_DATA]), len(value))
        values[name] = value
    return values


_known: dict[str, dict[str, Direction]] = {}


def _fields_of(event: str) -> dict[str, Direction]:
    """The parameters that are recorded. Addresses say nothing, and times in datetime say less than
    those in nanoseconds."""
    if event not in _known:
        parameters = EVENTS[event].parameters
        _known[event] = {p.name: p.direction for p in parameters if p.name not in _SKIPPED}
    return _known[event]


@dataclass
class Recording:
    """Every event since the mount, in the order in which handlers were called.

    While `paused` only the counts go on: so that what the record itself takes is not measured.
    """

    fired: list[Fired] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    paused: bool = False
    kept: bool = True
    """False if the drive is served by another process, so that nothing is recorded."""
    open: int = 0
    """So many open events succeeded that no close event has followed yet."""

    def __post_init__(self) -> None:
        self._mutex = threading.Lock()

    def wrap(self, cbfs: CBFS) -> None:
        """Record the events of a drive, whose handlers are assigned already."""
        for name in EVENTS:
            handler = getattr(cbfs, name)
            if handler is not None:
                setattr(cbfs, name, self._recording(name, handler))
            elif name in SILENT:
                setattr(cbfs, name, self._recording(name, None))

    def count(self, *names: str) -> int:
        """How often events have fired and were answered."""
        return sum(self.counts.get(name, 0) for name in names)

    def running(self) -> list[Fired]:
        """Events whose handlers have not returned."""
        return [f for f in list(self.fired) if f.left is None and f.error is None]

    def _begin(self, name: str, params: EventParams, *, handled: bool) -> Fired | None:
        if self.paused:
            return None
        fired = Fired(name, snapshot(params), threading.get_ident(), handled)
        self.fired.append(fired)
        return fired

    def _end(
        self,
        name: str,
        fired: Fired | None,
        params: EventParams,
        error: BaseException | None = None,
    ) -> None:
        if fired is not None:
            fired.left, fired.error = snapshot(params), error
        with self._mutex:
            self.counts[name] = self.counts.get(name, 0) + 1
            if name == "on_close_file":
                self.open -= 1
            elif name in _OPENING and error is None and not getattr(params, "result_code", 0):
                self.open += 1

    def _recording(self, name: str, handler: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
        if handler is None:

            def only_record(params: EventParams) -> None:
                self._end(name, self._begin(name, params, handled=False), params)

            only_record.__name__ = name
            return only_record
        if inspect.iscoroutinefunction(handler):

            async def record_coroutine(params: EventParams) -> Any:
                fired = self._begin(name, params, handled=True)
                try:
                    answer = await handler(params)
                except BaseException as error:
                    self._end(name, fired, params, error)
                    raise
                self._end(name, fired, params)
                return answer

            record_coroutine.__name__ = name
            return record_coroutine

        def record(params: EventParams) -> Any:
            fired = self._begin(name, params, handled=True)
            try:
                answer = handler(params)
            except BaseException as error:
                self._end(name, fired, params, error)
                raise
            self._end(name, fired, params)
            return answer

        record.__name__ = name  # which the library names in its log
        return record


def place_of(error: BaseException) -> str:
    """File, line and text of the line that raised, in the drive's own code."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    if not frames:
        return "?"
    last = frames[-1]
    return f"{last.filename}:{last.lineno}, in {last.name}: {last.line}"


def where_is(thread: int) -> str:
    """The lines at which a thread is now, the innermost last, outside of this module."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "in an event loop"
    stack = traceback.extract_stack(frame)
    # From the handler on: what called it is the library's.
    inner = next((i for i, f in enumerate(stack) if f.filename == __file__), -1)
    lines = stack[inner + 1 :] or stack[-1:]
    return "; ".join(f"{f.filename}:{f.lineno}, in {f.name}: {f.line}" for f in lines[-3:])
