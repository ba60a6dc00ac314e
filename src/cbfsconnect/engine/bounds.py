"""Bounds on what the kernel keeps: `metadata_cache_size` and `non_existent_files_cache_size`.

The kernel keeps what it was told for as long as it was told, whatever that is in number. A bound
has it forget the oldest, in batches: a notification for every new item would cost as much as it
saves. Notifications go out from a thread that answers nothing (see `notifier`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

from cbfsconnect.engine.nodes import Directory, NodeTable
from cbfsconnect.fuse import abi, wire

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.nodes import Node

K = TypeVar("K", bound=Hashable)

_ATTRIBUTES_ONLY = -1


class Bound(Generic[K]):
    """The last `most` keys that were noted. `forget` gets those that are too many, oldest first;
    `is_kept` says whether the kernel can still know one."""

    def __init__(
        self,
        most: int,
        forget: Callable[[list[K]], None],
        is_kept: Callable[[K], bool] = lambda key: True,
    ) -> None:
        self._most = most
        self._forget = forget
        self._is_kept = is_kept
        self._batch = max(1, most // 8)
        self._keys: dict[K, None] = {}
        self._mutex = threading.Lock()

    def __len__(self) -> int:
        return len(self._keys)

    def note(self, key: K) -> None:
        """The kernel is told of this one (again)."""
        with self._mutex:
            self._keys.pop(key, None)
            self._keys[key] = None
            if len(self._keys) <= self._most:
                return
            self._keys = {key: None for key in self._keys if self._is_kept(key)}
            # A batch at least, so that this is not done for each of the next ones.
            surplus = len(self._keys) - self._most + self._batch - 1
            oldest = list(self._keys)[: max(0, surplus)]
            for old in oldest:
                del self._keys[old]
        if oldest:
            self._forget(oldest)


class BoundedNodeTable(NodeTable):
    """A table that notes which of its nodes the kernel was told of."""

    def __init__(self, separator: str, bound: Bound[int]) -> None:
        super().__init__(separator)
        self._bound = bound

    def take(self, parent: Directory, name: str, kind: int, file_id: int) -> Node:
        """As in any table; the node is one of the last from now on."""
        node = super().take(parent, name, kind, file_id)
        self._bound.note(node.id)
        return node


def bound_of_nodes(engine: Engine, most: int) -> Bound[int]:
    """Have the kernel know names and attributes of so many items at most."""

    def forget(oldest: list[int]) -> None:
        # Taking a name away takes away what is mounted there, too.
        gently = engine.mounts_inside()
        told: list[bytes] = []
        for node_id in oldest:
            node = engine.nodes.get(node_id)
            if node is not None:
                told += _forgetting(engine, node, gently)
        engine.notify(told)

    return Bound(most, forget, lambda node_id: engine.nodes.get(node_id) is not None)


def bound_of_absent(engine: Engine, most: int) -> Bound[tuple[int, bytes]]:
    """Have the kernel remember so many names at most that do not exist."""

    def forget(oldest: list[tuple[int, bytes]]) -> None:
        # One of them may exist by now: it must not be taken from those who use it.
        engine.notify([wire.inval_entry(parent, name, abi.EXPIRE_ONLY) for parent, name in oldest])

    return Bound(most, forget, lambda key: engine.nodes.get(key[0]) is not None)


def _forgetting(engine: Engine, node: Node, gently: bool) -> list[bytes]:
    """Have the kernel drop a file that nobody uses; ask anew about any other item."""
    gently = gently or node.open is not None or isinstance(node, Directory)
    flags = abi.EXPIRE_ONLY if gently else 0
    told = [
        wire.inval_entry(parent.id, engine.fsencode(name), flags) for parent, name in node.names
    ]
    return [*told, wire.inval_inode(node.id, _ATTRIBUTES_ONLY)]
