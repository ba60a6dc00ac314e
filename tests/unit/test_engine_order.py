"""The order of events: one at a time in a file, readers together, moves of directories alone."""

from __future__ import annotations

import random
import stat
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from cbfsconnect.engine.nodes import Directory, Node, NodeTable
from cbfsconnect.engine.order import FileOrder
from cbfsconnect.engine.workers import Worker
from support.kernel import eventually

SOON_S = 0.05
"""How long a thread is given to do what it must not do."""


class Thread:
    """A worker on a thread of its own; `go` runs something there and tells when it is done."""

    def __init__(self, action: Callable[[Worker], object]) -> None:
        self.done = threading.Event()
        self.result: object = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(action,), daemon=True)
        self.thread.start()

    def _run(self, action: Callable[[Worker], object]) -> None:
        try:
            self.result = action(Worker())
        except BaseException as error:
            self.error = error
        self.done.set()

    def join(self) -> object:
        assert self.done.wait(10), "it waits for ever"
        if self.error is not None:
            raise self.error
        return self.result

    def waits(self) -> bool:
        return not self.done.wait(SOON_S)


class Tree:
    """`/d/e/f`, `/d/g` and `/x`, all of which the kernel knows."""

    def __init__(self) -> None:
        self.nodes = NodeTable("/")
        self.root = self.nodes.root
        self.d = self.directory(self.root, "d")
        self.e = self.directory(self.d, "e")
        self.f = self.file(self.e, "f")
        self.g = self.file(self.d, "g")
        self.x = self.file(self.root, "x")

    def directory(self, parent: Directory, name: str) -> Directory:
        node = self.nodes.take(parent, name, stat.S_IFDIR, 0)
        assert isinstance(node, Directory)
        return node

    def file(self, parent: Directory, name: str) -> Node:
        return self.nodes.take(parent, name, stat.S_IFREG, 0)


@pytest.fixture
def tree() -> Tree:
    return Tree()


@pytest.fixture
def order() -> Iterator[FileOrder]:
    order = FileOrder()
    yield order
    assert not order._inside
    assert not order._lines
    assert not order._moving


def test_a_file_is_entered_by_one_at_a_time(order: FileOrder, tree: Tree) -> None:
    x = tree.x
    order.enter(x.id, x, Worker())
    other = Thread(lambda worker: order.enter(x.id, x, worker))
    assert other.waits()
    order.leave(x.id)
    other.join()
    order.leave(x.id)


def test_different_files_do_not_wait_for_each_other(order: FileOrder, tree: Tree) -> None:
    order.enter(tree.x.id, tree.x, Worker())
    Thread(lambda worker: order.enter(tree.g.id, tree.g, worker)).join()
    order.leave(tree.x.id)
    order.leave(tree.g.id)


def test_who_waits_is_let_in_in_the_order_of_coming(order: FileOrder, tree: Tree) -> None:
    x, came = tree.x, list(range(8))
    got_in: list[int] = []
    order.enter(x.id, x, Worker())
    threads = []
    for number in came:

        def enter(worker: Worker, number: int = number) -> None:
            order.enter(x.id, x, worker)
            got_in.append(number)
            order.leave(x.id)

        threads.append(Thread(enter))
        eventually(lambda number=number: len(order._lines.get(x.id, ())) == number + 1)
    order.leave(x.id)
    for thread in threads:
        thread.join()
    assert got_in == came


def test_readers_are_in_together_and_a_writer_alone(order: FileOrder, tree: Tree) -> None:
    x = tree.x
    order.enter_shared(x.id, x, Worker())
    Thread(lambda worker: order.enter_shared(x.id, x, worker)).join()
    writer = Thread(lambda worker: order.enter(x.id, x, worker))
    assert writer.waits()
    order.leave_shared(x.id)
    assert writer.waits()
    order.leave_shared(x.id)
    writer.join()
    reader = Thread(lambda worker: order.enter_shared(x.id, x, worker))
    assert reader.waits()
    order.leave(x.id)
    reader.join()
    order.leave_shared(x.id)


def test_readers_do_not_overtake_a_writer_for_ever(order: FileOrder, tree: Tree) -> None:
    x = tree.x
    order.enter_shared(x.id, x, Worker())
    writer = Thread(lambda worker: order.enter(x.id, x, worker))
    assert writer.waits()
    late = Thread(lambda worker: order.enter_shared(x.id, x, worker))
    assert late.waits()
    order.leave_shared(x.id)
    writer.join()
    assert not late.done.is_set()
    order.leave(x.id)
    late.join()
    order.leave_shared(x.id)


def test_readers_behind_each_other_are_let_in_together(order: FileOrder, tree: Tree) -> None:
    x = tree.x
    order.enter(x.id, x, Worker())
    readers = [Thread(lambda worker: order.enter_shared(x.id, x, worker)) for _ in range(4)]
    eventually(lambda: len(order._lines.get(x.id, ())) == 4)
    order.leave(x.id)
    for reader in readers:
        reader.join()  # nobody has left yet
    for _ in readers:
        order.leave_shared(x.id)


def test_enter_within_gives_up_and_leaves_no_trace(order: FileOrder, tree: Tree) -> None:
    x, worker = tree.x, Worker()
    order.enter(x.id, x, worker)
    assert not order.enter_within(x.id, x, Worker(), 0.01)
    assert not order.enter_within(x.id, x, Worker(), 0.0)
    assert order._lines == {}
    patient = Thread(lambda worker: order.enter_within(x.id, x, worker, 10))
    assert patient.waits()
    order.leave(x.id)
    assert patient.join() is True
    order.leave(x.id)
    assert order.enter_within(x.id, x, worker, 0.0)
    order.leave(x.id)


def test_who_gave_up_does_not_hold_up_those_behind(order: FileOrder, tree: Tree) -> None:
    x = tree.x
    order.enter(x.id, x, Worker())
    hasty = Thread(lambda worker: order.enter_within(x.id, x, worker, 0.1))
    eventually(lambda: x.id in order._lines)
    patient = Thread(lambda worker: order.enter(x.id, x, worker))
    assert hasty.join() is False
    order.leave(x.id)
    patient.join()
    order.leave(x.id)


# --- moves of directories -------------------------------------------------------------------------


class Move:
    """A worker that moves a directory to another name in the root."""

    def __init__(self, order: FileOrder, node: Directory, root: Directory, key: int = -1) -> None:
        self.order, self.node = order, node
        self.items = {node.id: node, key: root}

    def begin(self, worker: Worker | None = None) -> None:
        places = self.order.enter_all(self.items)
        self.order.begin_move(self.node, places)

    def end(self) -> None:
        self.order.end_move(self.node)
        self.order.leave_all(self.items)


def test_a_move_waits_for_those_below_and_holds_up_the_next(order: FileOrder, tree: Tree) -> None:
    order.enter(tree.f.id, tree.f, Worker())
    move = Move(order, tree.d, tree.root)
    mover = Thread(move.begin)
    assert mover.waits()
    below = Thread(lambda worker: order.enter(tree.g.id, tree.g, worker))
    assert below.waits()
    order.leave(tree.f.id)
    mover.join()
    assert not below.done.is_set()
    Thread(lambda worker: order.enter(tree.x.id, tree.x, worker)).join()  # it is elsewhere
    move.end()
    below.join()
    order.leave(tree.g.id)
    order.leave(tree.x.id)


@pytest.mark.parametrize("name", ["d", "e", "f", "new"])
def test_everything_at_and_below_waits_for_a_move(order: FileOrder, tree: Tree, name: str) -> None:
    move = Move(order, tree.d, tree.root)
    move.begin()
    key, node = (-7, tree.e) if name == "new" else (getattr(tree, name).id, getattr(tree, name))
    other = Thread(lambda worker: order.enter(key, node, worker))
    assert other.waits()
    move.end()
    other.join()
    order.leave(key)


def test_readers_wait_for_a_move_and_a_move_for_readers(order: FileOrder, tree: Tree) -> None:
    f, move = tree.f, Move(order, tree.d, tree.root)
    order.enter_shared(f.id, f, Worker())
    mover = Thread(move.begin)
    assert mover.waits()
    reader = Thread(lambda worker: order.enter_shared(f.id, f, worker))
    assert reader.waits()
    order.leave_shared(f.id)
    mover.join()
    assert reader.waits()
    move.end()
    reader.join()
    order.leave_shared(f.id)


def test_a_move_and_a_rename_below_do_not_wait_for_each_other(order: FileOrder, tree: Tree) -> None:
    """The rename has one of its two files already when the move begins to wait for it."""
    first, second = sorted((tree.f.id, tree.g.id))
    order.enter(second, tree.g if second == tree.g.id else tree.f, Worker())
    rename = Thread(lambda worker: order.enter_all({tree.f.id: tree.f, tree.g.id: tree.g}))
    eventually(lambda: second in order._lines)
    assert first in order._inside
    move = Move(order, tree.d, tree.root)
    mover = Thread(move.begin)
    assert mover.waits()
    order.leave(second)
    mover.join()
    assert rename.waits()
    move.end()
    rename.join()
    order.leave_all((tree.f.id, tree.g.id))


def test_a_move_waits_for_a_rename_into_the_directory(order: FileOrder, tree: Tree) -> None:
    """`mv /x /d/new`: its new path would be stale although `/x` is elsewhere."""
    items: dict[int, Node] = {tree.x.id: tree.x, -9: tree.d}
    order.enter_all(items)
    move = Move(order, tree.d, tree.root)
    mover = Thread(move.begin)
    assert mover.waits()
    order.leave_all(items)
    mover.join()
    move.end()


def test_a_move_waits_for_every_file_that_another_worker_is_in(
    order: FileOrder, tree: Tree
) -> None:
    items: dict[int, Node] = {tree.f.id: tree.f, tree.x.id: tree.x}
    order.enter_all(items)
    move = Move(order, tree.d, tree.root)
    mover = Thread(move.begin)
    assert mover.waits()
    order.leave_all(items)
    mover.join()
    move.end()


def test_a_file_with_a_further_name_below_waits_too(order: FileOrder, tree: Tree) -> None:
    tree.nodes.add_name(tree.x, tree.e, "link")
    move = Move(order, tree.d, tree.root)
    move.begin()
    other = Thread(lambda worker: order.enter(tree.x.id, tree.x, worker))
    assert other.waits()
    move.end()
    other.join()
    order.leave(tree.x.id)


def test_closing_all_waits_for_a_move_no_longer_than_it_may(order: FileOrder, tree: Tree) -> None:
    move = Move(order, tree.d, tree.root)
    move.begin()
    assert not order.enter_within(tree.f.id, tree.f, Worker(), 0.02)
    assert order.enter_within(tree.x.id, tree.x, Worker(), 0.0)
    patient = Thread(lambda worker: order.enter_within(tree.f.id, tree.f, worker, 10))
    assert patient.waits()
    move.end()
    assert patient.join() is True
    order.leave(tree.f.id)
    order.leave(tree.x.id)


# --- many threads ---------------------------------------------------------------------------------


class Books:
    """Who is in what, kept by the threads themselves: no two changes of it may overlap."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.writers: dict[int, int] = {}
        self.readers: dict[int, int] = {}
        self.moving = False
        self.wrong: list[str] = []

    def come(self, key: int, shared: bool, below: bool) -> None:
        with self.mutex:
            if self.moving and below:
                self.wrong.append(f"{key} during a move")
            if self.writers.get(key) or (not shared and self.readers.get(key)):
                self.wrong.append(f"{key} is not alone")
            into = self.readers if shared else self.writers
            into[key] = into.get(key, 0) + 1

    def go(self, key: int, shared: bool) -> None:
        with self.mutex:
            (self.readers if shared else self.writers)[key] -= 1

    def move(self, begin: bool, below: set[int]) -> None:
        with self.mutex:
            self.moving = begin
            for key in below:
                if begin and (self.writers.get(key) or self.readers.get(key)):
                    self.wrong.append(f"a move with {key} inside")


class Restless:
    """A lock around which the threads change places."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.release = self.lock.release
        self.chance = random.Random(0)

    def acquire(self, *arguments: Any) -> bool:
        self.pause()
        return self.lock.acquire(*arguments)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
        self.pause()

    def pause(self) -> None:
        if self.chance.random() < 0.3:
            time.sleep(1e-6)


@pytest.fixture
def restless(order: FileOrder) -> None:
    """The interpreter changes threads where it hurts most."""
    lock = Restless()
    order._mutex = lock  # type: ignore[assignment]
    order._changed = threading.Condition(lock)  # type: ignore[arg-type]
    take = order._take

    def slowly(*arguments: Any) -> Any:
        lock.pause()
        taken = take(*arguments)
        lock.pause()
        return taken

    order._take = slowly


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("seed", range(3))
def test_nobody_is_where_another_is(order: FileOrder, tree: Tree, seed: int) -> None:
    """Writers, readers, hasty ones, renames of two files and moves, all at once."""
    files = [tree.f, tree.g, tree.x]
    below = {tree.f.id, tree.g.id}
    books = Books()

    def visit(worker: Worker, node: Node, chance: random.Random) -> None:
        shared = chance.random() < 0.5
        if shared:
            order.enter_shared(node.id, node, worker)
        elif chance.random() < 0.3:
            if not order.enter_within(node.id, node, worker, chance.random() / 1000):
                return
        else:
            order.enter(node.id, node, worker)
        books.come(node.id, shared, node.id in below)
        if chance.random() < 0.2:
            time.sleep(0)
        books.go(node.id, shared)
        (order.leave_shared if shared else order.leave)(node.id)

    def rename(chance: random.Random) -> None:
        nodes: dict[int, Node] = {n.id: n for n in chance.sample(files, 2)}
        order.enter_all(nodes)
        for key in nodes:
            books.come(key, False, key in below)
        for key in nodes:
            books.go(key, False)
        order.leave_all(nodes)

    together = threading.Barrier(6)

    def work(number: int, worker: Worker) -> None:
        chance = random.Random(f"{seed} {number}")
        together.wait(10)
        for _ in range(100):
            if number == 0:
                move = Move(order, tree.d, tree.root)
                move.begin()
                books.move(True, below)
                books.move(False, below)
                move.end()
            elif number == 1:
                rename(chance)
            else:
                visit(worker, chance.choice(files), chance)

    threads = [Thread(partial(work, number)) for number in range(6)]
    for thread in threads:
        thread.join()
    assert not books.wrong


@pytest.mark.usefixtures("restless")
def test_readers_that_come_and_go_keep_writers_out(order: FileOrder, tree: Tree) -> None:
    """The last reader leaves while another one joins."""
    x, books, together = tree.x, Books(), threading.Barrier(4)

    def visit(shared: bool, worker: Worker) -> None:
        together.wait(10)
        for _ in range(300):
            (order.enter_shared if shared else order.enter)(x.id, x, worker)
            books.come(x.id, shared, False)
            books.go(x.id, shared)
            (order.leave_shared if shared else order.leave)(x.id)

    threads = [Thread(partial(visit, number > 0)) for number in range(4)]
    for thread in threads:
        thread.join()
    assert not books.wrong
