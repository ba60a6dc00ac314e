"""The node table: names, look-up counts and paths agree whatever the kernel and the drive do."""

from __future__ import annotations

import stat
import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from cbfsconnect.engine.handles import OpenState
from cbfsconnect.engine.nodes import Directory, Node, NodeTable

FILE, DIRECTORY, LINK = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK
INVENTED = 1 << 63


@pytest.fixture
def nodes() -> NodeTable:
    return NodeTable("/")


def directory(nodes: NodeTable, name: str, parent: Directory | None = None) -> Directory:
    node = nodes.take(parent or nodes.root, name, DIRECTORY, 0)
    assert isinstance(node, Directory)
    return node


def test_a_name_that_is_looked_up_again_is_the_same_node(nodes: NodeTable) -> None:
    first = nodes.take(nodes.root, "a", FILE, 0)
    assert nodes.take(nodes.root, "a", FILE, 0) is first
    assert first.lookups == 2
    assert first.path == "/a"
    assert first.id > INVENTED


def test_look_ups_are_taken_back_exactly(nodes: NodeTable) -> None:
    node = nodes.take(nodes.root, "a", FILE, 0)
    nodes.hold(node)
    nodes.hold(node)
    nodes.forget(node.id, 2)
    assert nodes.get(node.id) is node
    nodes.forget(node.id, 1)
    assert nodes.get(node.id) is None
    assert not nodes.root.children
    nodes.forget(node.id, 1)  # of a node that is gone: nothing happens
    assert len(nodes) == 1


def test_the_root_is_never_forgotten(nodes: NodeTable) -> None:
    nodes.forget(nodes.root.id, 1 << 40)
    assert nodes.get(1) is nodes.root


def test_a_directory_stays_as_long_as_something_in_it_is_known(nodes: NodeTable) -> None:
    d = directory(nodes, "d")
    f = nodes.take(d, "f", FILE, 0)
    nodes.forget(d.id, 1)
    assert f.path == "/d/f"
    assert nodes.get(d.id) is d
    nodes.forget(f.id, 1)
    assert len(nodes) == 1


def test_an_open_item_stays_without_look_ups(nodes: NodeTable) -> None:
    node = nodes.take(nodes.root, "a", FILE, 0)
    node.open = OpenState()
    nodes.forget(node.id, 1)
    assert nodes.get(node.id) is node
    node.open = None
    nodes.drop_unused(node)
    assert len(nodes) == 1


def test_another_kind_of_item_is_another_node(nodes: NodeTable) -> None:
    file = nodes.take(nodes.root, "a", FILE, 0)
    link = nodes.take(nodes.root, "a", LINK, 0)
    assert link.id != file.id
    assert nodes.root.children["a"] is link
    assert nodes.get(file.id) is file  # the kernel has it still


def test_the_drives_ids_are_the_node_ids(nodes: NodeTable) -> None:
    assert nodes.take(nodes.root, "a", FILE, 42).id == 42
    other = nodes.take(nodes.root, "a", FILE, 43)  # replaced behind our back
    assert other.id == 43
    assert nodes.root.children["a"] is other


@pytest.mark.parametrize("file_id", [0, 1, 0x7FFFFFFFFFFFFFFF, INVENTED, INVENTED + 5, -3])
def test_ids_that_cannot_be_node_ids_are_replaced(nodes: NodeTable, file_id: int) -> None:
    node = nodes.take(nodes.root, "a", FILE, file_id)
    assert node.id > INVENTED or node.id == 0x7FFFFFFFFFFFFFFF == file_id
    assert nodes.get(node.id) is node


def test_a_file_known_by_another_name_gets_one_more(nodes: NodeTable) -> None:
    d = directory(nodes, "d")
    node = nodes.take(nodes.root, "a", FILE, 42)
    assert nodes.take(d, "b", FILE, 42) is node
    paths = [node.path]
    nodes.prefer(node, d, "b")
    paths.append(node.path)
    nodes.remove_name(d, "b")
    paths.append(node.path)
    nodes.remove_name(nodes.root, "a")
    assert [*paths, node.path] == ["/a", "/d/b", "/a", "/a"]
    assert not node.has_path
    nodes.forget(42, 2)
    assert nodes.get(42) is None


def test_directories_have_one_name_whatever_ids_they_have(nodes: NodeTable) -> None:
    one = nodes.take(nodes.root, "a", DIRECTORY, 42)
    other = nodes.take(nodes.root, "b", DIRECTORY, 42)
    assert other is not one
    assert other.id > INVENTED


def test_an_id_that_is_used_again_after_deletion_is_a_new_node(nodes: NodeTable) -> None:
    old = nodes.take(nodes.root, "a", FILE, 42)
    old.open = OpenState()
    nodes.remove_name(nodes.root, "a")
    new = nodes.take(nodes.root, "b", FILE, 42)
    assert new is not old
    assert new.id > INVENTED
    assert nodes.take(nodes.root, "b", FILE, 42) is new
    old.open = None
    nodes.forget(42, 1)
    assert nodes.get(42) is None
    assert nodes.take(nodes.root, "c", FILE, 42).id == 42


def test_an_id_of_an_item_that_is_deleted_for_the_kernel_is_free(nodes: NodeTable) -> None:
    old = nodes.take(nodes.root, "a", FILE, 42)
    old.open = OpenState()
    old.open.deleted = True
    assert nodes.take(nodes.root, "b", FILE, 42) is not old


def test_a_file_with_links_that_nobody_looked_up_keeps_its_id(nodes: NodeTable) -> None:
    node = nodes.take(nodes.root, "a", FILE, 42)
    node.links = 2
    nodes.remove_name(nodes.root, "a")
    assert nodes.take(nodes.root, "b", FILE, 42) is node
    nodes.remove_name(nodes.root, "b")
    assert nodes.take(nodes.root, "c", FILE, 42) is not node


def test_a_detached_name_is_a_new_node_next_time(nodes: NodeTable) -> None:
    node = nodes.take(nodes.root, "a", FILE, 42)
    node.links = 5
    nodes.detach(nodes.root, "a")
    nodes.detach(nodes.root, "nothing")
    assert nodes.take(nodes.root, "a", FILE, 42) is not node


def test_a_rename_moves_all_that_is_below(nodes: NodeTable) -> None:
    d, e = directory(nodes, "d"), directory(nodes, "e")
    f = nodes.take(directory(nodes, "sub", d), "f", FILE, 0)
    nodes.rename(nodes.root, "d", e, "moved")
    assert f.path == "/e/moved/sub/f"
    assert d.path == "/e/moved"
    assert f.parent.is_below(e)
    assert not e.is_below(f.parent)


def test_a_rename_takes_the_name_of_what_is_there(nodes: NodeTable) -> None:
    old, new = (nodes.take(nodes.root, name, FILE, 0) for name in "ab")
    nodes.rename(nodes.root, "a", nodes.root, "b")
    assert nodes.root.children == {"b": old}
    assert not new.is_named
    assert new.path == "/b"
    nodes.forget(new.id, 1)
    assert nodes.root.children == {"b": old}


def test_an_exchange_swaps_files_and_directories(nodes: NodeTable) -> None:
    d, e = directory(nodes, "d"), directory(nodes, "e")
    inner = nodes.take(d, "inner", FILE, 0)
    f = nodes.take(e, "f", FILE, 0)
    nodes.exchange((nodes.root, "d"), (e, "f"))
    assert (d.path, inner.path, f.path) == ("/e/f", "/e/f/inner", "/d")


def test_one_of_many_names_is_renamed_and_exchanged(nodes: NodeTable) -> None:
    node = nodes.take(nodes.root, "a", FILE, 42)
    nodes.take(nodes.root, "b", FILE, 42)
    other = nodes.take(nodes.root, "x", FILE, 7)
    nodes.rename(nodes.root, "b", nodes.root, "c")
    assert sorted(name for _, name in node.names) == ["a", "c"]
    nodes.exchange((nodes.root, "c"), (nodes.root, "x"))
    assert sorted(name for _, name in node.names) == ["a", "x"]
    assert other.path == "/c"
    assert nodes.root.children == {"a": node, "x": node, "c": other}


def test_deep_trees_are_renamed_and_forgotten(nodes: NodeTable) -> None:
    """Deeper than Python recurses."""
    chain = [directory(nodes, "top")]
    for _ in range(3000):
        chain.append(directory(nodes, "d", chain[-1]))
    nodes.rename(nodes.root, "top", nodes.root, "t")
    assert chain[-1].path == "/t" + "/d" * 3000
    for node in chain[:-1]:
        nodes.forget(node.id, 1)
    assert len(nodes) == 3002
    nodes.forget(chain[-1].id, 1)
    assert len(nodes) == 1


def test_counts_are_exact_when_many_threads_look_up_and_forget(nodes: NodeTable) -> None:
    together = threading.Barrier(4)

    def work() -> None:
        together.wait(10)
        for number in range(300):
            node = nodes.take(nodes.root, f"{number % 3}", FILE, 0)
            assert nodes.get(node.id) is node
            nodes.forget(node.id, 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(nodes) == 1


NAMES = st.sampled_from("abc")
IDS = st.sampled_from([0, 0, 5, 6, 7])
INDEX = st.integers(0, 30)


class Tables(RuleBasedStateMachine):
    """Any sequence of look-ups, removals, moves and forgetting, as kernel and drive cause them."""

    @initialize()
    def begin(self) -> None:
        self.nodes = NodeTable("/")
        self.told: dict[int, int] = {}
        self.seen: dict[int, Node] = {}

    # --- what the kernel knows -------------------------------------------------------------------

    def directories(self) -> list[Directory]:
        known = [self.nodes.root, *self.seen.values()]
        return [node for node in known if isinstance(node, Directory) and self.is_attached(node)]

    def names(self) -> list[tuple[Directory, str]]:
        return [(d, name) for d in self.directories() for name in sorted(d.children)]

    @rule(where=INDEX, name=NAMES, kind=st.sampled_from([FILE, FILE, DIRECTORY]), file_id=IDS)
    def look_up(self, where: int, name: str, kind: int, file_id: int) -> None:
        places = self.directories()
        parent = places[where % len(places)]
        node = self.nodes.take(parent, name, kind, 0 if kind == DIRECTORY else file_id)
        assert node.kind == kind
        assert parent.children[name] is node
        self.told[node.id] = self.told.get(node.id, 0) + 1
        assert self.seen.setdefault(node.id, node) is node

    @precondition(lambda self: self.told)
    @rule(which=INDEX, count=st.integers(1, 3))
    def forget(self, which: int, count: int) -> None:
        node_id = list(self.told)[which % len(self.told)]
        count = min(count, self.told[node_id])
        self.nodes.forget(node_id, count)
        self.told[node_id] -= count
        if not self.told[node_id]:
            del self.told[node_id]
            if self.seen[node_id].open is None:
                self._forget_unused()

    @precondition(lambda self: self.names())
    @rule(which=INDEX)
    def remove(self, which: int) -> None:
        names = self.names()
        parent, name = names[which % len(names)]
        node = parent.children[name]
        if isinstance(node, Directory) and node.children:
            return
        self.nodes.remove_name(parent, name)
        assert name not in parent.children
        self._forget_unused()

    @precondition(lambda self: self.names())
    @rule(which=INDEX, where=INDEX, name=NAMES)
    def rename(self, which: int, where: int, name: str) -> None:
        names, places = self.names(), self.directories()
        parent, old = names[which % len(names)]
        target = places[where % len(places)]
        node, there = parent.children[old], target.children.get(name)
        if isinstance(node, Directory) and target.is_below(node):
            return
        if there is node or (isinstance(there, Directory) and there.children):
            return
        if isinstance(there, Directory) and parent.is_below(there):
            return
        self.nodes.prefer(node, parent, old)
        self.nodes.rename(parent, old, target, name)
        assert target.children[name] is node
        assert (parent, old) == (target, name) or parent.children.get(old) is None
        assert node.path == target.prefix + name
        self._forget_unused()

    @precondition(lambda self: len(self.names()) > 1)
    @rule(which=INDEX, other=INDEX)
    def exchange(self, which: int, other: int) -> None:
        names = self.names()
        one, two = names[which % len(names)], names[other % len(names)]
        first, second = one[0].children[one[1]], two[0].children[two[1]]
        if first is second or _holds(first, two[0]) or _holds(second, one[0]):
            return
        self.nodes.exchange(one, two)
        assert one[0].children[one[1]] is second
        assert two[0].children[two[1]] is first

    @precondition(lambda self: self.seen)
    @rule(which=INDEX)
    def open_or_close(self, which: int) -> None:
        node = list(self.seen.values())[which % len(self.seen)]
        if node.open is None:
            node.open = OpenState()
            return
        node.open = None
        self.nodes.drop_unused(node)
        self._forget_unused()

    def _forget_unused(self) -> None:
        """The kernel knows it no more; whether the table does is for the invariant."""
        for node_id in [i for i in self.seen if self.nodes.get(i) is None]:
            assert node_id not in self.told
            del self.seen[node_id]

    @staticmethod
    def is_attached(node: Node) -> bool:
        """Whether the path leads there: that of a deleted directory stays as it was."""
        while node.parent is not node and node.has_path:
            node = node.parent
        return node.parent is node

    # --- what holds ------------------------------------------------------------------------------

    @invariant()
    def names_and_nodes_agree(self) -> None:
        for node in self.nodes:
            for parent, name in node.names:
                if parent.children.get(name) is node:
                    assert parent.prefix + name in (node.path, *_others(node))
            if isinstance(node, Directory):
                for name, child in node.children.items():
                    assert self.nodes.get(child.id) is child
                    assert (node, name) in child.names
                if node.parent is not node and self.is_attached(node):
                    assert node.prefix == f"{node.parent.prefix}{node.name}/"

    @invariant()
    def counts_are_exact(self) -> None:
        for node in self.nodes:
            if node is not self.nodes.root:
                assert node.lookups == self.told.get(node.id, 0)
                children = isinstance(node, Directory) and node.children
                assert node.lookups or node.open is not None or children

    @invariant()
    def a_name_is_noted_once(self) -> None:
        for node in self.nodes:
            assert len(set(node.names)) == len(node.names)
            if node.is_named:
                assert all(parent.children.get(name) is node for parent, name in node.names)

    def teardown(self) -> None:
        for node in list(self.seen.values()):
            node.open = None
            self.nodes.drop_unused(node)
        for node_id, count in list(self.told.items()):
            self.nodes.forget(node_id, count)
        assert [node.id for node in self.nodes] == [1]


def _holds(node: Node, directory: Directory) -> bool:
    return isinstance(node, Directory) and directory.is_below(node)


def _others(node: Node) -> list[str]:
    return [parent.prefix + name for parent, name in node.further or ()]


TestTables = Tables.TestCase
TestTables.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
