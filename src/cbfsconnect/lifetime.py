"""What happens to mounted drives when the process ends: by exit, by a signal, in a forked child.

A drive whose server is gone is a dead mount that fails every access. So every drive registers here
while it exists, and is deleted when the interpreter exits. SIGTERM and SIGHUP, which
would end the process with no exit, become one (setting HandleSignals).
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Protocol

log = logging.getLogger("cbfsconnect")


class Mountable(Protocol):
    """What is registered here."""

    def _end_of_process(self) -> None:
        """Unmount, whatever is open."""

    def _in_forked_child(self) -> None:
        """Let go of what belongs to the parent process."""


_drives: weakref.WeakSet[Mountable] = weakref.WeakSet()
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def register(drive: Mountable, *, handle_signals: bool) -> None:
    """A drive exists from now on; with `handle_signals` those that end the process delete it."""
    _drives.add(drive)
    if handle_signals and threading.current_thread() is threading.main_thread():
        for number in _ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _exit)


def unregister(drive: Mountable) -> None:
    """The drive is deleted."""
    _drives.discard(drive)


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Let the signals that end a program wait until the block is done.

    An exception that comes between the mount and the note that it was made would leave a mount
    behind that nobody knows of.
    """
    came: list[int] = []
    try:
        with contextlib.ExitStack() as restore:
            if threading.current_thread() is threading.main_thread():
                for ending in (signal.SIGINT, *_ENDING):
                    handler = signal.getsignal(ending)
                    if callable(handler):
                        restore.callback(signal.signal, ending, handler)
                        signal.signal(ending, lambda number, frame: came.append(number))
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


def _exit(number: int, frame: Any) -> None:
    """Turn a deadly signal into an orderly exit: `with` blocks and `finally` run, then atexit."""
    raise SystemExit(128 + number)


@atexit.register
def _delete_all() -> None:
    for drive in list(_drives):
        try:
            drive._end_of_process()
        except Exception:
            log.exception("a drive could not be unmounted at exit")


def _after_fork() -> None:
    for drive in list(_drives):
        drive._in_forked_child()
    _drives.clear()


os.register_at_fork(after_in_child=_after_fork)
