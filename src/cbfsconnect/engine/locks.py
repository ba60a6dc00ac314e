"""Byte-range locks of a drive whose handlers want to know of them.

Without `on_lock_file` the kernel keeps all locks itself, at its own speed, and nothing of this is
used. With it every lock comes here: the table decides between the clients of this drive, then the
handler may pass the lock on to others. POSIX, open-file-description and flock locks are kept apart
as the kernel does: the first two exclude each other, flock locks only one another.

A request that has to wait is not answered until the lock is granted or the client interrupts it;
no thread waits with it. The caller is inside the file's order.
"""

from __future__ import annotations

import errno
import fcntl
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cbfsconnect.events import CBFSLockFileEventParams, CBFSUnlockFileEventParams
from cbfsconnect.fuse import wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.nodes import Node

_MOST_INTERRUPTED = 256
"""So many interrupted requests are remembered, in case one of them begins to wait later."""


@dataclass(frozen=True, slots=True)
class Lock:
    """A range (`end` is inclusive) that an owner holds or wants through a handle."""

    start: int
    end: int
    kind: int
    owner: int
    process: int
    flock: bool
    handle: Handle

    @property
    def length(self) -> int:
        """Bytes in the range."""
        return self.end - self.start + 1

    def overlaps(self, other: Lock) -> bool:
        """Whether the ranges have a byte in common, in the same world of locks."""
        return self.flock == other.flock and self.start <= other.end and other.start <= self.end

    def conflicts(self, other: Lock) -> bool:
        """Whether the two cannot be held at the same time."""
        return (
            self.owner != other.owner
            and self.overlaps(other)
            and fcntl.F_WRLCK in (self.kind, other.kind)
        )


class LockTable:
    """All locks of one drive, and who waits for which."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held: dict[Node, list[Lock]] = {}
        self._waiting: dict[int, Lock] = {}
        self._interrupted: deque[int] = deque(maxlen=_MOST_INTERRUPTED)
        self._mutex = threading.Lock()

    def conflict(self, wanted: Lock) -> Lock | None:
        """The first lock that stands in the way, as F_GETLK reports it."""
        for lock in self._held.get(wanted.handle.node, ()):
            if lock.conflicts(wanted):
                return lock
        return None

    def lock(self, wanted: Lock, unique: int, *, wait: bool) -> int | None:
        """Lock a range: 0, an errno, or None when the answer comes later."""
        node, own = wanted.handle.node, [k for k in self._own(wanted) if k.overlaps(wanted)]
        if wanted.flock and any(k.kind == wanted.kind for k in own):
            return 0
        if wanted.flock and wait:
            # A flock that is converted is given up first, so that two of them cannot deadlock.
            self._release(node, own)
        if self.conflict(wanted) is None:
            error = self._take(wanted, wait=wait)
            if not error and own and wanted.kind == fcntl.F_RDLCK:
                self._grant(node)  # what was locked for writing may be read by others now
            return error
        return self._wait(wanted, unique) if wait else errno.EAGAIN

    def _wait(self, wanted: Lock, unique: int) -> int | None:
        # Noted first: of two that begin to wait at the same moment, one sees the other.
        self._waiting[unique] = wanted
        error = 0
        if self._was_interrupted(unique):
            error = errno.EINTR
        elif not wanted.flock and self._would_deadlock(wanted):
            error = errno.EDEADLK
        if not error:
            return None
        del self._waiting[unique]
        return error

    def unlock(self, wanted: Lock) -> None:
        """Unlock a range of the owner."""
        node = wanted.handle.node
        if any(lock.overlaps(wanted) for lock in self._own(wanted)):
            self._fire_unlock(wanted, wanted.start, wanted.length)
            self._cut(node, wanted)
            self._grant(node)

    def any_on(self, path: str) -> bool:
        """Whether ranges of a file are locked."""
        return any(node.path == path for node in list(self._held))

    def interrupt(self, unique: int) -> Lock | None:
        """The lock that an interrupted request waits for. If it comes later, it will not wait."""
        with self._mutex:
            self._interrupted.append(unique)
        return self._waiting.get(unique)

    def _was_interrupted(self, unique: int) -> bool:
        with self._mutex:
            return unique in self._interrupted

    def cancel(self, unique: int) -> Lock | None:
        """Take back a request that waits; None when it waits no more."""
        return self._waiting.pop(unique, None)

    def release_owner(self, handle: Handle, owner: int) -> None:
        """A process closed a descriptor: all its POSIX locks on the file go."""
        held = self._held.get(handle.node)
        if held:
            self._release_all(handle.node, [k for k in held if k.owner == owner and not k.flock])

    def release_handle(self, handle: Handle) -> None:
        """The last reference to a handle is gone: what was locked through it goes."""
        held = self._held.get(handle.node)
        if held:
            self._release_all(handle.node, [lock for lock in held if lock.handle is handle])
        for unique in [u for u, lock in self._waiting.items() if lock.handle is handle]:
            del self._waiting[unique]
            self._engine.send(wire.error(unique, errno.EINTR))

    def _is_routed(self, handle: Handle) -> bool:
        """Whether the item is a local file: then only the clients' own locks count."""
        routing = self._engine.routing
        return routing is not None and routing.hides(handle.state)

    def _own(self, wanted: Lock) -> list[Lock]:
        held = self._held.get(wanted.handle.node, ())
        return [k for k in held if k.owner == wanted.owner and k.flock == wanted.flock]

    def _take(self, wanted: Lock, *, wait: bool) -> int:
        handler = self._engine.on.on_lock_file
        handle = wanted.handle
        if handler is not None and not self._is_routed(handle):
            params = CBFSLockFileEventParams(
                handle.node.path,
                wanted.start,
                wanted.length,
                wanted.kind == fcntl.F_WRLCK,
                not wait,
                handle.id,
                handle.state.context,
                handle.context,
            )
            error = self._engine.fire(handler, params)
            handle.state.context, handle.context = params.file_context, params.handle_context
            if error:
                return error
        self._cut(handle.node, wanted)
        self._held.setdefault(handle.node, []).append(wanted)
        return 0

    def _cut(self, node: Node, gone: Lock) -> None:
        """Take a range out of what its owner holds; what lies around it stays."""
        kept: list[Lock] = []
        for lock in self._held.get(node, ()):
            if lock.owner != gone.owner or not lock.overlaps(gone):
                kept.append(lock)
                continue
            if lock.start < gone.start:
                kept.append(replace(lock, end=gone.start - 1))
            if lock.end > gone.end:
                kept.append(replace(lock, start=gone.end + 1))
        if kept:
            self._held[node] = kept
        else:
            self._held.pop(node, None)

    def _release_all(self, node: Node, locks: list[Lock]) -> None:
        """A closing process gives everything up: one event for all, where the drive wants that.

        That event speaks of all that is locked through a handle. What stays locked through it, by
        another process or with flock, makes the ranges be told one by one.
        """
        if not self._engine.options.unlock_all:
            self._release(node, locks)
            return
        held = self._held.get(node, ())
        for handle in dict.fromkeys(lock.handle for lock in locks):
            going = [lock for lock in locks if lock.handle is handle]
            if any(lock.handle is handle and lock not in going for lock in held):
                self._release(node, going, grant=False)
                continue
            self._fire_unlock(going[0], -1, -1)
            for lock in going:
                self._cut(node, lock)
        if locks:
            self._grant(node)

    def _release(self, node: Node, locks: Iterable[Lock], *, grant: bool = True) -> None:
        released = False
        for lock in locks:
            self._fire_unlock(lock, lock.start, lock.length)
            self._cut(node, lock)
            released = True
        if released and grant:
            self._grant(node)

    def _fire_unlock(self, lock: Lock, start: int, length: int) -> None:
        handler = self._engine.on.on_unlock_file
        handle = lock.handle
        if handler is None or self._is_routed(handle):
            return
        params = CBFSUnlockFileEventParams(
            handle.node.path, start, length, handle.id, handle.state.context, handle.context
        )
        self._engine.fire(handler, params)  # an unlock cannot fail
        handle.state.context, handle.context = params.file_context, params.handle_context

    def _grant(self, node: Node) -> None:
        """Give those who wait what has become free, in the order in which they came."""
        for unique, wanted in list(self._waiting.items()):
            if wanted.handle.node is not node or self.conflict(wanted) is not None:
                continue
            # What it replaces may be what somebody before it waits for.
            again = wanted.kind == fcntl.F_RDLCK and bool(self._own(wanted))
            del self._waiting[unique]
            error = self._take(wanted, wait=True)
            self._engine.send(wire.error(unique, error) if error else wire.empty(unique))
            if again:
                self._grant(node)
                return

    def _would_deadlock(self, wanted: Lock) -> bool:
        """Whether an owner that stands in the way waits, over any number of others, for us."""
        seen: set[int] = set()
        todo = self._in_the_way(wanted)
        while todo:
            owner = todo.pop()
            if owner == wanted.owner:
                return True
            if owner in seen:
                continue
            seen.add(owner)
            for waiting in list(self._waiting.values()):
                if waiting.owner == owner and not waiting.flock:
                    todo |= self._in_the_way(waiting)
        return False

    def _in_the_way(self, wanted: Lock) -> set[int]:
        held = self._held.get(wanted.handle.node, ())
        return {lock.owner for lock in held if lock.conflicts(wanted)}
