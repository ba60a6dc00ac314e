"""Events of one file one after another, events of different files at the same time.

A worker enters the file it is going to fire events about and leaves it afterwards. Who comes while
another is in waits in line. The way in and out with nobody else there is one dictionary operation
each, atomic under the interpreter's rules; only a conflict takes a lock.

Renaming a directory changes the paths of all that is below it. So it waits until no event about
anything below is under way, and holds up those that come meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cbfsconnect.engine.nodes import Directory, Node
    from cbfsconnect.engine.workers import Worker


class _Readers:
    """Stands for several workers that are in one file at once, none of which changes it."""

    __slots__ = ("count", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.count = 1


class _Ticket:
    """A place in the line of one file; its lock is released when the turn has come."""

    __slots__ = ("lock", "node", "owner", "shared")

    def __init__(self, owner: Worker, node: Node, shared: bool) -> None:
        self.owner = owner
        self.node = node
        self.shared = shared
        self.lock = threading.Lock()
        self.lock.acquire()


class FileOrder:
    """Who is in which file. Keys are node ids; negative ones stand for names without a node."""

    def __init__(self) -> None:
        self._inside: dict[int, Worker | _Readers] = {}
        self._take = self._inside.setdefault
        self._lines: dict[int, deque[_Ticket]] = {}
        self._mutex = threading.Lock()
        self._changed = threading.Condition(self._mutex)
        self._moving: list[Directory] = []

    def enter(self, key: int, node: Node, worker: Worker) -> None:
        """Wait until nobody else is in the file, and go in."""
        worker.node = node
        if self._take(key, worker) is not worker:
            self._wait_in_line(key, node, worker, shared=False)
        if self._moving:
            self._wait_for_moves(key, node, worker)

    def enter_within(self, key: int, node: Node, worker: Worker, seconds: float) -> bool:
        """Go in unless somebody stays there for longer than that; whether it was possible."""
        worker.node = node
        if self._take(key, worker) is worker:
            return True
        return self._wait_in_line(key, node, worker, shared=False, seconds=seconds)

    def leave(self, key: int) -> None:
        """Go out, and let the next one in."""
        del self._inside[key]
        if self._lines or self._moving:
            self._wake(key)

    def enter_shared(self, key: int, node: Node, worker: Worker) -> None:
        """Go in with others that only read; wait while somebody changes the file."""
        worker.node = node
        with self._mutex:
            holder = self._inside.get(key)
            if isinstance(holder, _Readers) and key not in self._lines:
                holder.count += 1
                return
        readers = _Readers(node)
        if self._take(key, readers) is not readers:
            self._wait_in_line(key, node, worker, shared=True)

    def leave_shared(self, key: int) -> None:
        """Go out; the last one lets the next in."""
        with self._mutex:
            holder = self._inside[key]
            if isinstance(holder, _Readers) and holder.count > 1:
                holder.count -= 1
                return
        self.leave(key)

    def begin_move(self, directory: Directory, worker: Worker) -> None:
        """Wait until nobody else is in anything at or below the directory, and keep it so."""
        with self._changed:
            self._moving.append(directory)
            self._changed.wait_for(lambda: not self._busy_below(directory, worker))

    def end_move(self, directory: Directory) -> None:
        """Let those go on who wait for the move."""
        with self._changed:
            self._moving.remove(directory)
            self._changed.notify_all()

    def _busy_below(self, directory: Directory, worker: Worker) -> bool:
        return any(
            holder is not worker and _is_below(holder.node, directory)
            for holder in list(self._inside.values())
            if holder.node is not None
        )

    def _wait_for_moves(self, key: int, node: Node, worker: Worker) -> None:
        """Step out of a file whose path is about to change, and in again when it has."""
        while any(_is_below(node, directory) for directory in list(self._moving)):
            self.leave(key)
            with self._changed:
                self._changed.wait_for(
                    lambda: not any(_is_below(node, directory) for directory in self._moving)
                )
            if self._take(key, worker) is not worker:
                self._wait_in_line(key, node, worker, shared=False)

    def _wait_in_line(
        self, key: int, node: Node, worker: Worker, *, shared: bool, seconds: float = -1
    ) -> bool:
        ticket = _Ticket(worker, node, shared)
        with self._mutex:
            self._lines.setdefault(key, deque()).append(ticket)
            # The holder may have gone before the line was there for it to see.
            if key not in self._inside:
                self._admit(key)
        if ticket.lock.acquire(timeout=seconds):
            return True
        with self._mutex:
            line = self._lines.get(key)
            if line is None or ticket not in line:
                return True  # let in at the last moment
            line.remove(ticket)
            if not line:
                del self._lines[key]
            return False

    def _wake(self, key: int) -> None:
        with self._changed:
            if key in self._lines and key not in self._inside:
                self._admit(key)
            if self._moving:
                self._changed.notify_all()

    def _admit(self, key: int) -> None:
        """Let the first of the line in, and with a reader those right behind it who read too."""
        line = self._lines[key]
        first = line[0]
        holder: Worker | _Readers = _Readers(first.node) if first.shared else first.owner
        if self._take(key, holder) is not holder:
            return  # somebody slipped in; their leave comes back here
        line.popleft().lock.release()
        while isinstance(holder, _Readers) and line and line[0].shared:
            holder.count += 1
            line.popleft().lock.release()
        if not line:
            del self._lines[key]


def _is_below(node: Node | None, directory: Directory) -> bool:
    if node is None:
        return False
    return any(parent.is_below(directory) for parent, _ in node.names) or node is directory
