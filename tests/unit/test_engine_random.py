"""Any sequence of requests that a kernel may send, against a model of a filesystem in Python.

The kernel of the tests keeps to the real one's rules: it asks about nodes that it was told and has
not forgotten, uses handles until it has released them, and checks what the real one checks before
it asks. The drive is the memory drive, so that all of the package works together.
"""

from __future__ import annotations

import errno
import random
import threading
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cbfsconnect.drives.memory import MemoryDrive
from support.kernel import ROOT, Entry, Kernel, fails

EXCHANGE, NOREPLACE = 2, 1
SIZE = 8
"""FATTR_SIZE."""
NAMES = st.sampled_from(["a", "b", "c"])
INDEX = st.integers(0, 50)


class Inode:
    """What is at a name: a file with data, or a directory with children."""

    def __init__(self, directory: bool) -> None:
        self.children: dict[str, Inode] | None = {} if directory else None
        self.data = bytearray()
        self.links = 0
        self.nodeid = 0
        self.parent: Inode | None = None


class Filesystem(RuleBasedStateMachine):
    """On a drive that deletes open items at once."""

    config: dict[str, object] = {}  # noqa: RUF012
    properties: dict[str, Any] = {}  # noqa: RUF012

    @initialize()
    def begin(self) -> None:
        self.kernel = Kernel(MemoryDrive(), config=dict(self.config), **self.properties)
        self.kernel.session.start()
        self.kernel.init()
        self.root = Inode(True)
        self.root.nodeid = ROOT
        self.root.parent = self.root
        self.known: dict[int, Inode] = {ROOT: self.root}
        self.open: list[tuple[Inode, int]] = []

    # --- choosing --------------------------------------------------------------------------------

    def directories(self) -> list[Inode]:
        """Those that the kernel knows and that are not removed."""
        return [i for i in self.known.values() if i.children is not None and i.parent is not None]

    def files(self) -> list[Inode]:
        """Those that a program can reach: open, or found by a name."""
        return [i for i in self.known.values() if i.children is None and self.reach(i)]

    def reach(self, inode: Inode) -> tuple[Inode, str] | bool:
        """A name of a file in a directory that the kernel knows, else whether it is open."""
        for directory in self.directories():
            for name, other in self.names(directory).items():
                if other is inode:
                    return directory, name
        return any(other is inode for other, _ in self.open)

    def file(self, index: int) -> Inode:
        """A file, looked up by a name if it has one."""
        inode = self.files()[index % len(self.files())]
        found = self.reach(inode)
        if not isinstance(found, bool):
            self.known_at(*found)
        return inode

    def place(self, index: int) -> Inode:
        places = self.directories()
        return places[index % len(places)]

    def names(self, directory: Inode) -> dict[str, Inode]:
        assert directory.children is not None
        return directory.children

    def told(self, inode: Inode, entry: Entry) -> None:
        """The kernel was told of an inode: always by the same number, and by one of its own."""
        if inode.nodeid:
            assert entry.nodeid == inode.nodeid
        else:
            assert entry.nodeid not in self.known
            inode.nodeid = entry.nodeid
            self.known[inode.nodeid] = inode
        assert (entry.attr.mode & 0o170000 == 0o40000) == (inode.children is not None)
        if inode.children is None:
            assert entry.attr.size == len(inode.data)
            assert entry.attr.nlink == inode.links

    def known_at(self, directory: Inode, name: str) -> Inode | None:
        """What the kernel finds at a name: it looks up before it asks for anything else."""
        inode = self.names(directory).get(name)
        if inode is not None:
            self.told(inode, self.kernel.lookup(name, directory.nodeid))
        else:
            with fails(errno.ENOENT):
                self.kernel.lookup(name, directory.nodeid)
        return inode

    # --- requests --------------------------------------------------------------------------------

    @rule(where=INDEX, name=NAMES)
    def lookup(self, where: int, name: str) -> None:
        self.known_at(self.place(where), name)

    @rule(where=INDEX, name=NAMES)
    def create(self, where: int, name: str) -> None:
        parent = self.place(where)
        if name in self.names(parent):
            return
        inode = self.names(parent)[name] = Inode(False)
        inode.links, inode.parent = 1, parent
        entry = self.kernel.create(name, parent.nodeid)
        self.told(inode, entry)
        self.open.append((inode, entry.fh))

    @rule(where=INDEX, name=NAMES)
    def mkdir(self, where: int, name: str) -> None:
        parent = self.place(where)
        if name in self.names(parent):
            return
        inode = self.names(parent)[name] = Inode(True)
        inode.parent = parent
        self.told(inode, self.kernel.mkdir(name, parent.nodeid))

    @precondition(lambda self: self.files())
    @rule(which=INDEX, where=INDEX, name=NAMES)
    def link(self, which: int, where: int, name: str) -> None:
        inode, parent = self.file(which), self.place(where)
        if name in self.names(parent) or not inode.links or not self.kernel.options.use_hard_links:
            return
        self.names(parent)[name] = inode
        inode.links += 1
        self.told(inode, self.kernel.link(inode.nodeid, name, parent.nodeid))

    @rule(where=INDEX, name=NAMES)
    def remove(self, where: int, name: str) -> None:
        parent = self.place(where)
        inode = self.known_at(parent, name)
        if inode is None:
            return
        if inode.children:
            with fails(errno.ENOTEMPTY):
                self.kernel.rmdir(name, parent.nodeid)
        elif inode.children is not None:
            self.kernel.rmdir(name, parent.nodeid)
            self.gone(parent, name)
        else:
            self.kernel.unlink(name, parent.nodeid)
            self.gone(parent, name)

    def gone(self, parent: Inode, name: str) -> None:
        inode = self.names(parent).pop(name)
        if inode.children is None:
            inode.links -= 1
        else:
            inode.parent = None

    @rule(one=INDEX, name=NAMES, other=INDEX, new=NAMES, flags=st.sampled_from([0, 0, 0, 1, 2]))
    def rename(self, one: int, name: str, other: int, new: str, flags: int) -> None:
        parent, new_parent = self.place(one), self.place(other)
        inode, target = self.known_at(parent, name), self.known_at(new_parent, new)
        if inode is None or inode is target or _is_in(inode, new_parent):
            return
        if target is not None and _is_in(target, parent):
            return
        arguments = (name, new, parent.nodeid, new_parent.nodeid, flags)
        if flags == EXCHANGE:
            if target is not None and self.kernel.options.support_exchange:
                self.kernel.rename(*arguments)
                self.put(new_parent, new, inode)
                self.put(parent, name, target)
            return
        if target is not None and flags == NOREPLACE:
            with fails(errno.EEXIST):
                self.kernel.rename(*arguments)
            return
        if target is not None and (target.children is None) != (inode.children is None):
            return
        if target is not None and target.children:
            with fails(errno.ENOTEMPTY):
                self.kernel.rename(*arguments)
            return
        self.kernel.rename(*arguments)
        if target is not None:
            self.gone(new_parent, new)
        del self.names(parent)[name]
        self.put(new_parent, new, inode)

    def put(self, parent: Inode, name: str, inode: Inode) -> None:
        self.names(parent)[name] = inode
        inode.parent = parent

    @precondition(lambda self: self.files())
    @rule(which=INDEX)
    def open_file(self, which: int) -> None:
        inode = self.file(which)
        if inode.links:
            self.open.append((inode, self.kernel.open(inode.nodeid)))

    @precondition(lambda self: self.open)
    @rule(which=INDEX, data=st.binary(min_size=1, max_size=9), offset=st.integers(0, 20))
    def write(self, which: int, data: bytes, offset: int) -> None:
        inode, fh = self.open[which % len(self.open)]
        assert self.kernel.write(inode.nodeid, fh, data, offset) == len(data)
        inode.data.extend(bytes(max(0, offset - len(inode.data))))
        inode.data[offset : offset + len(data)] = data

    @precondition(lambda self: self.open)
    @rule(which=INDEX)
    def read(self, which: int) -> None:
        inode, fh = self.open[which % len(self.open)]
        assert self.kernel.read(inode.nodeid, fh) == inode.data

    @precondition(lambda self: self.files())
    @rule(which=INDEX, size=st.integers(0, 30))
    def truncate(self, which: int, size: int) -> None:
        inode = self.file(which)
        handles = [fh for other, fh in self.open if other is inode]
        if not inode.links and not handles:
            return
        del inode.data[size:]
        inode.data.extend(bytes(size - len(inode.data)))
        if handles:
            attr = self.kernel.setattr(inode.nodeid, SIZE | 64, fh=handles[0], size=size)
        else:
            attr = self.kernel.setattr(inode.nodeid, SIZE, size=size)
        assert attr.size == size

    @rule(which=INDEX)
    def stat(self, which: int) -> None:
        known = [*self.directories(), *self.files()]
        inode = known[which % len(known)]
        attr = self.kernel.getattr(inode.nodeid)
        if inode.children is None:
            assert (attr.size, attr.nlink) == (len(inode.data), inode.links)

    @rule(where=INDEX, plus=st.booleans(), size=st.sampled_from([200, 4096]))
    def list(self, where: int, plus: bool, size: int) -> None:
        directory = self.place(where)
        found = self.kernel.list(directory.nodeid, plus=plus, size=size)
        names = {entry.name.decode(): entry for entry in found}
        assert len(names) == len(found)
        assert names.keys() == self.names(directory).keys()
        for name, entry in names.items():
            if entry.nodeid and entry.attr is not None:
                self.told(self.names(directory)[name], Entry(entry.nodeid, 0, 0, entry.attr))

    @precondition(lambda self: self.open)
    @rule(which=INDEX)
    def close(self, which: int) -> None:
        inode, fh = self.open.pop(which % len(self.open))
        self.kernel.close(inode.nodeid, fh)

    @rule(which=INDEX)
    def forget(self, which: int) -> None:
        """The kernel drops what it needs for nothing: no file open, nothing known below."""
        inode = list(self.known.values())[which % len(self.known)]
        if inode is self.root or any(other is inode for other, _ in self.open):
            return
        if inode.children and any(child.nodeid for child in inode.children.values()):
            return
        self.kernel.forget(inode.nodeid, self.kernel.told[inode.nodeid])
        del self.known[inode.nodeid]
        inode.nodeid = 0

    # --- what holds ------------------------------------------------------------------------------

    @invariant()
    def the_engine_knows_what_the_kernel_knows(self) -> None:
        self.kernel.sync()
        engine = self.kernel.engine
        assert not self.kernel.transport.asked
        assert not self.kernel.transport.answers
        assert len(engine.handles) == len(self.open)
        for nodeid in self.known:
            node = engine.nodes.get(nodeid)
            assert node is not None
            assert nodeid == ROOT or node.lookups == self.kernel.told[nodeid]
        for node in engine.nodes:
            assert node.id in self.known or getattr(node, "children", None)

    def teardown(self) -> None:
        try:
            self.kernel.let_go()
        finally:
            self.kernel.end()
        assert not self.kernel.transport.wrong


def _is_in(outer: Inode, inner: Inode) -> bool:
    """Whether a directory is another one or somewhere below it."""
    here: Inode | None = inner
    while here is not None:
        if here is outer:
            return True
        here = here.parent if here.parent is not here else None
    return False


class Deferring(Filesystem):
    """On a drive that deletes open items when they are closed."""

    config = {"PosixDelete": False}  # noqa: RUF012


class Anonymous(Filesystem):
    """On a drive whose file ids mean nothing."""

    config = {"PosixDelete": False, "UseFileIds": False}  # noqa: RUF012
    properties = {"use_hard_links": False, "fire_all_open_close_events": True}  # noqa: RUF012


TestFilesystem = Filesystem.TestCase
TestDeferring = Deferring.TestCase
TestAnonymous = Anonymous.TestCase
TestFilesystem.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestDeferring.settings = TestAnonymous.settings = TestFilesystem.settings


@pytest.mark.parametrize("posix", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_directories_move_while_programs_work_below_them(posix: bool, seed: int) -> None:
    """No path is stale in any handler, nobody waits for ever, and everything is there at the end.

    What runs at once here may do so in the kernel too: it locks the directories of the names.
    """
    failures: list[BaseException] = []
    done = threading.Event()

    def work(kernel: Kernel, directory: int, chance: random.Random) -> None:
        for _ in range(40):
            name, other = f"f{chance.randrange(3)}", f"f{chance.randrange(3)}"
            entry = kernel.create(name, directory)
            kernel.write(entry.nodeid, entry.fh, name.encode())
            if name != other:
                target = kernel.create(other, directory)
                kernel.rename(name, other, directory, directory)
                assert kernel.read(entry.nodeid, entry.fh) == name.encode()
                kernel.close(target.nodeid, target.fh)
            assert kernel.link(entry.nodeid, "link", directory).nodeid == entry.nodeid
            kernel.unlink(other, directory)
            kernel.close(entry.nodeid, entry.fh)
            assert [e.name for e in kernel.list(directory, plus=True)] == [b"link"]
            kernel.unlink("link", directory)

    def move(kernel: Kernel, chance: random.Random) -> None:
        names = ["d0", "d1", "d2"]
        while not done.is_set():
            one, other = chance.sample(range(3), 2)
            if chance.random() < 0.5:
                kernel.rename(names[one], names[other], flags=EXCHANGE)
            else:
                new = names[one] + "x" if len(names[one]) < 5 else f"d{one}"
                kernel.rename(names[one], new, flags=NOREPLACE)
                names[one] = new

    def run(action: Any, *arguments: Any) -> None:
        try:
            action(*arguments)
        except BaseException as error:
            failures.append(error)

    with Kernel(MemoryDrive(), config={"PosixDelete": posix}, least=4) as kernel:
        nodes = [kernel.mkdir(f"d{number}").nodeid for number in range(3)]
        threads = [
            threading.Thread(
                target=run,
                args=(work, kernel, kernel.mkdir("in", node).nodeid, random.Random(seed)),
            )
            for node in nodes
        ]
        mover = threading.Thread(target=run, args=(move, kernel, random.Random(seed)))
        for thread in (*threads, mover):
            thread.start()
        for thread in threads:
            thread.join(60)
        done.set()
        mover.join(20)
        assert not failures
        kernel.let_go()
