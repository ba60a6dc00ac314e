"""Events of one file one after another, events of different files at the same time.

A worker enters the file it is going to fire events about and leaves it afterwards. Who comes while
another is in waits in line. The way in and out with nobody else there is one dictionary operation
each, atomic under the interpreter's rules; only a conflict takes a lock.

Renaming a directory changes the paths of all that is below it. So it waits until no event about
anything below is under way, and holds up those that come meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from cbfsconnect.engine.nodes import Directory, Node
    from cbfsconnect.engine.workers import Worker


class Place:
    """Stands for a worker in one of the several items that it is in at once."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node: Node | None = node


Owner: TypeAlias = "Worker | Place"


class _Readers:
    """Stands for several workers that are in one file at once, none of which changes it."""

    __slots__ = ("count", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.count = 1


class Ticket:
    """A place in the line of one file; its lock is released when the turn has come."""

    __slots__ = ("lock", "node", "owner", "shared")

    def __init__(self, owner: Owner, node: Node, shared: bool) -> None:
        self.owner = owner
        self.node = node
        self.shared = shared
        self.lock = threading.Lock()
        self.lock.acquire()

    def admit(self) -> None:
        """The turn has come."""
        self.lock.release()


class FileOrder:
    """Who is in which file. Keys are node ids; negative ones stand for names without a node."""

    def __init__(self) -> None:
        self._inside: dict[int, Owner | _Readers] = {}
        self._take = self._inside.setdefault
        self._lines: dict[int, deque[Ticket]] = {}
        self._mutex = threading.Lock()
        self._changed = threading.Condition(self._mutex)
        self._moving: list[Directory] = []
        self.parked: list[Callable[[], object]] = []
        """Called once when a move begins or ends to be possible: who waits without a thread."""

    def enter(self, key: int, node: Node, worker: Worker) -> None:
        """Wait until nobody else is in the file, and go in."""
        worker.node = node
        if self._take(key, worker) is not worker:
            self._wait_in_line(key, node, worker, shared=False)
        while self._moving and self._moves_above((node,)):
            # Step out of a file whose path is about to change, and in again when it has.
            self.leave(key)
            self._wait_for_moves((node,))
            if self._take(key, worker) is not worker:
                self._wait_in_line(key, node, worker, shared=False)

    def enter_all(self, items: Mapping[int, Node]) -> list[Place]:
        """Wait until nobody else is in any of the items, and go into all of them.

        A name that is to be made counts as an item, with a key below 0 and its directory as node.
        """
        while True:
            places = []
            for key in sorted(items):
                place = Place(items[key])
                places.append(place)
                if self._take(key, place) is not place:
                    self._wait_in_line(key, items[key], place, shared=False)
            # Asked when all are entered: who waited for a move inside one of them would stop it.
            if not self._moving or not self._moves_above(items.values()):
                return places
            self.leave_all(items)
            self._wait_for_moves(items.values())

    def leave_all(self, keys: Iterable[int]) -> None:
        """Go out of all items."""
        for key in keys:
            self.leave(key)

    def enter_within(self, key: int, node: Node, worker: Worker, seconds: float) -> bool:
        """Go in unless somebody stays there for longer than that; whether it was possible."""
        worker.node = node
        deadline = time.monotonic() + seconds
        while True:
            if self._take(key, worker) is not worker and not self._wait_in_line(
                key, node, worker, shared=False, seconds=max(0.0, deadline - time.monotonic())
            ):
                return False
            if not self._moving or not self._moves_above((node,)):
                return True
            self.leave(key)
            if not self._wait_for_moves((node,), max(0.0, deadline - time.monotonic())):
                return False

    def leave(self, key: int) -> None:
        """Go out, and let the next one in."""
        del self._inside[key]
        if self._lines or self._moving:
            self._wake(key)

    def enter_shared(self, key: int, node: Node, worker: Worker) -> None:
        """Go in with others that only read; wait while somebody changes the file."""
        worker.node = node
        self._join_readers(key, node, worker)
        while self._moving and self._moves_above((node,)):
            self.leave_shared(key)
            self._wait_for_moves((node,))
            self._join_readers(key, node, worker)

    def leave_shared(self, key: int) -> None:
        """Go out; the last one lets the next in."""
        with self._changed:
            holder = self._inside[key]
            if isinstance(holder, _Readers) and holder.count > 1:
                holder.count -= 1
                return
            # Under the lock, so that nobody joins readers of whom the last has gone.
            del self._inside[key]
            self._let_in(key)

    def begin_move(self, directory: Directory, mine: Collection[Place]) -> None:
        """Wait until nobody else is in anything at or below the directory, and keep it so.

        `mine` are the places of who moves it.
        """
        with self._mutex:
            self._moving.append(directory)
        self._until(lambda: not self._busy_below(directory, mine))

    def end_move(self, directory: Directory) -> None:
        """Let those go on who wait for the move."""
        with self._changed:
            self._moving.remove(directory)
            self._notify()

    def _busy_below(self, directory: Directory, mine: Collection[Place]) -> bool:
        return any(
            holder not in mine and _is_below(holder.node, directory)
            for holder in list(self._inside.values())
            if holder.node is not None
        )

    def _moves_above(self, nodes: Iterable[Node]) -> bool:
        moving = list(self._moving)
        return any(_is_below(node, directory) for node in nodes for directory in moving)

    def _wait_for_moves(self, nodes: Collection[Node], seconds: float | None = None) -> bool:
        return self._until(lambda: not self._moves_above(nodes), seconds)

    def _until(self, holds: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until something holds that the end of a move or a leaving may bring about."""
        with self._changed:
            return self._changed.wait_for(holds, seconds)

    def _notify(self) -> None:
        """Have all look again who wait in `_until`; the lock is held."""
        self._changed.notify_all()
        parked, self.parked = self.parked, []
        for go_on in parked:
            go_on()

    def _join_readers(self, key: int, node: Node, worker: Worker) -> None:
        with self._mutex:
            holder = self._inside.get(key)
            if isinstance(holder, _Readers) and key not in self._lines:
                holder.count += 1
                return
        readers = _Readers(node)
        if self._take(key, readers) is not readers:
            self._wait_in_line(key, node, worker, shared=True)

    def _wait_in_line(
        self, key: int, node: Node, owner: Owner, *, shared: bool, seconds: float = -1
    ) -> bool:
        ticket = Ticket(owner, node, shared)
        self.line_up(key, ticket)
        return ticket.lock.acquire(timeout=seconds) or not self.withdraw(key, ticket)

    def line_up(self, key: int, ticket: Ticket) -> None:
        """Take the last place in the line of a file."""
        with self._mutex:
            self._lines.setdefault(key, deque()).append(ticket)
            # The holder may have gone before the line was there for it to see.
            if key not in self._inside:
                self._admit(key)

    def withdraw(self, key: int, ticket: Ticket) -> bool:
        """Go out of the line; False when the ticket was let in at the last moment."""
        with self._mutex:
            line = self._lines.get(key)
            if line is None or ticket not in line:
                return False
            line.remove(ticket)
            if not line:
                del self._lines[key]
            return True

    def _wake(self, key: int) -> None:
        with self._changed:
            self._let_in(key)

    def _let_in(self, key: int) -> None:
        if key in self._lines and key not in self._inside:
            self._admit(key)
        if self._moving:
            self._notify()

    def _admit(self, key: int) -> None:
        """Let the first of the line in, and with a reader those right behind it who read too."""
        line = self._lines[key]
        first = line[0]
        holder: Owner | _Readers = _Readers(first.node) if first.shared else first.owner
        if self._take(key, holder) is not holder:
            return  # somebody slipped in; their leave comes back here
        line.popleft().admit()
        while isinstance(holder, _Readers) and line and line[0].shared:
            holder.count += 1
            line.popleft().admit()
        if not line:
            del self._lines[key]


def _is_below(node: Node | None, directory: Directory) -> bool:
    if node is None:
        return False
    return any(parent.is_below(directory) for parent, _ in node.names) or node is directory
