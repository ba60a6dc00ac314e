"""Mounting for the time of a test, and checking that nothing of it is left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cbfsconnect
from cbfsconnect.fuse import mountinfo
from support.asynchronous import made_async

Mounting = Callable[..., "cbfsconnect.Drive"]


@contextmanager
def mounting(directory: Path, as_async: bool = False) -> Iterator[Mounting]:
    """Give a function that mounts handlers at a new directory below `directory`.

    `as_async` makes `async def` handlers of them. All is unmounted at the end; a thread or a mount
    that stays fails the test.
    """
    before = set(threading.enumerate())
    drives: list[cbfsconnect.Drive] = []

    def mount(handlers: object, **options: Any) -> cbfsconnect.Drive:
        point = directory / f"mnt{len(drives)}"
        point.mkdir()
        if as_async:
            handlers = made_async(handlers)
        drives.append(cbfsconnect.mount(handlers, point, **options))
        return drives[-1]

    try:
        yield mount
    finally:
        for drive in drives:
            drive.unmount(force=True)
        left = [
            m.mount_point for m in mountinfo.entries() if m.mount_point.startswith(f"{directory}/")
        ]
        assert not left, f"still mounted: {left}"
        threads = [
            t for t in threading.enumerate() if t not in before and t.name.startswith("cbfs")
        ]
        for thread in threads:
            thread.join(5)
        alive = [t.name for t in threads if t.is_alive()]
        assert not alive, f"threads are left: {alive}"
