"""Who descends from whom, told in every order that the kernel may tell it in."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from cbfsconnect import lineage
from cbfsconnect.lineage import Lineage
from cbfsconnect.process_events import EventsLost, Executed, Started
from cbfsconnect.processes import Executable, ProcessFacts
from cbfsconnect.program_events import Opened

FOO = Executable("/bin/foo", (8, 1), 77)


class Root:
    """A rule, about a process or about the program foo."""

    def __init__(self, process_id: int = 0, *, is_denial: bool = False) -> None:
        self.process_id = process_id
        self.is_denial = is_denial
        self.files = () if process_id else (FOO.path,)

    def is_about_process(self, process: int) -> bool:
        """Whether it is this one."""
        return process == self.process_id

    def is_about_program(self, thread: int) -> bool:
        """Whether the fake machine says so."""
        return bool(self.files) and machine.programs.get(thread) == "foo"

    def is_about_file(self, file: Executable) -> bool:
        """Whether it is foo."""
        return bool(self.files) and file == FOO


class Machine:
    """Processes that are there only for these tests, and what the kernel tells of them."""

    def __init__(self) -> None:
        self.parents: dict[int, int] = {}
        self.programs: dict[int, str] = {}
        self.starts: dict[int, int] = {}
        self.news: list[list[Started | Executed] | EventsLost] = []
        self.openings: list[Opened] = []
        self._reader, self._writer = os.pipe()

    def facts(self, process: int) -> ProcessFacts | None:
        """As `processes.facts_of`."""
        if process not in self.parents:
            return None
        start = self.starts.get(process, 1)
        return ProcessFacts(process, process, self.parents[process], 0, 0, start, False)

    def all(self) -> list[ProcessFacts]:
        """As `processes.all_processes`."""
        return [facts for process in sorted(self.parents) if (facts := self.facts(process))]

    # as ProcessEvents and ProgramEvents

    def fileno(self) -> int:
        """Never readable: nobody hears but who asks."""
        return self._reader

    def read(self) -> Iterator[Started | Executed]:
        """The next news."""
        news = self.news.pop(0) if self.news else []
        if isinstance(news, EventsLost):
            raise news
        return iter(news)

    def watch(self, path: str) -> None:
        """Programs are told of by the tests."""
        assert path == FOO.path

    def close(self) -> None:
        """At the end."""
        if self._reader >= 0:
            os.close(self._reader)
            os.close(self._writer)
            self._reader = -1


machine = Machine()


class _Openings:
    def watch(self, path: str) -> None:
        machine.watch(path)

    def read(self) -> Iterator[Opened]:
        openings, machine.openings = machine.openings, []
        return iter(openings)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _faked(monkeypatch: pytest.MonkeyPatch) -> None:
    global machine
    machine = Machine()
    monkeypatch.setattr(lineage, "ProcessEvents", lambda: machine)
    monkeypatch.setattr(lineage, "ProgramEvents", _Openings)
    monkeypatch.setattr(lineage, "facts_of", lambda process: machine.facts(process))
    monkeypatch.setattr(lineage, "all_processes", lambda: machine.all())


@pytest.fixture
def tree() -> Iterator[Lineage]:
    """What is followed, on a machine with init (1), a shell (10) and its job (20)."""
    machine.parents.update({1: 0, 10: 1, 20: 10})
    found = Lineage(threading.RLock())
    yield found
    found.close()


def descends(tree: Lineage, process: int, root: Root) -> bool | None:
    """True: for sure; None: perhaps."""
    facts = machine.facts(process)
    if facts is None:
        facts = ProcessFacts(process, process, 1, 0, 0, 1, False)
    tree.update()
    mark = tree.of(facts)
    return True if root in mark.sure else None if root in mark.perhaps else False


def ran(process: int) -> Executed:
    """A process has just begun another program."""
    return Executed(process, time.monotonic_ns())


def test_those_that_are_there_descend_as_can_be_seen(tree: Lineage) -> None:
    machine.parents.update({30: 20, 40: 30, 50: 10})
    root = Root(20)
    tree.add(root)
    assert [descends(tree, n, root) for n in (20, 30, 40)] == [True] * 3
    assert [descends(tree, n, root) for n in (1, 10, 50)] == [False] * 3


def test_all_that_are_started_descend_whoever_has_ended_by_then(tree: Lineage) -> None:
    root = Root(20)
    tree.add(root)
    machine.news = [[Started(20, 30), Started(30, 40)], [], [Started(40, 50), Started(10, 60)]]
    assert [descends(tree, n, root) for n in (30, 40, 50, 60)] == [True, True, True, False]


def test_a_number_that_is_used_again_is_somebody_else(tree: Lineage) -> None:
    root = Root(20)
    tree.add(root)
    machine.news = [[Started(20, 30), Started(10, 30)]]
    assert descends(tree, 30, root) is False


def test_who_is_started_while_a_rule_is_added_is_found(tree: Lineage) -> None:
    root = Root(20)
    machine.news = [[], [Started(20, 30), Started(30, 40)]]
    tree.add(root)
    assert descends(tree, 40, root) is True


@pytest.mark.parametrize("is_denial", [False, True])
def test_children_of_a_program_are_those_started_while_it_runs(
    tree: Lineage, is_denial: bool
) -> None:
    root = Root(is_denial=is_denial)
    tree.add(root)
    machine.programs[20] = "foo"
    machine.news = [[Started(20, 30), ran(20), Started(20, 40), Started(40, 50)]]
    assert [descends(tree, n, root) for n in (30, 40, 50)] == [False, True, True]


def test_what_a_program_becomes_is_denied_and_not_granted(tree: Lineage) -> None:
    grant, denial = Root(), Root(is_denial=True)
    tree.add(grant)
    tree.add(denial)
    machine.programs[20] = "foo"
    machine.news = [[ran(20)]]
    assert descends(tree, 20, denial) is True
    machine.programs[20] = "bar"
    machine.news = [[ran(20), Started(20, 30)]]
    assert [descends(tree, n, grant) for n in (20, 30)] == [False, False]
    assert [descends(tree, n, denial) for n in (20, 30)] == [True, True]


def test_no_grant_comes_of_a_program_that_was_begun_too_late(tree: Lineage) -> None:
    """20 starts 30 as some other program and becomes foo before anybody looks."""
    root = Root()
    tree.add(root)
    machine.programs[20] = "foo"
    machine.news = [[ran(20), Started(20, 30)], [ran(20), Started(20, 40)]]
    assert [descends(tree, n, root) for n in (30, 40)] == [False, True]


def test_no_grant_comes_of_a_later_process_with_the_number(tree: Lineage) -> None:
    root = Root()
    tree.add(root)
    machine.programs[20] = "foo"
    machine.starts[20] = 1 << 40
    machine.news = [[ran(20), Started(20, 30)]]
    assert descends(tree, 30, root) is False


def test_a_denied_program_is_heard_of_that_nobody_could_see(tree: Lineage) -> None:
    root = Root(is_denial=True)
    tree.add(root)
    machine.openings = [Opened(60, FOO), Opened(61, FOO._replace(inode=1))]
    machine.news = [[Started(10, 60), ran(60), Started(60, 70), Started(10, 61), Started(61, 71)]]
    assert [descends(tree, n, root) for n in (60, 70, 61, 71)] == [True, True, False, False]


def test_news_of_a_program_may_come_before_that_of_its_process(tree: Lineage) -> None:
    root = Root(is_denial=True)
    tree.add(root)
    machine.openings = [Opened(60, FOO)]
    machine.news = [[ran(10)], [], [Started(10, 60), Started(60, 70)]]
    tree.update()
    assert [descends(tree, n, root) for n in (60, 70)] == [True, True]


def test_what_was_not_heard_is_in_doubt_for_denials_and_nothing_for_grants(tree: Lineage) -> None:
    grant, denial = Root(20), Root(20, is_denial=True)
    tree.add(grant)
    tree.add(denial)
    machine.news = [[Started(20, 30), Started(20, 35)]]
    tree.update()
    machine.parents.update({30: 1, 40: 1, 50: 20})  # 30 and 40 have no parent any more
    machine.starts.update({40: 1 << 60, 50: 1 << 60})
    machine.news = [EventsLost(), EventsLost(), []]
    tree.update()
    assert [descends(tree, n, denial) for n in (10, 20, 30, 40, 50)] == [
        False,
        True,
        True,
        None,
        True,
    ]
    assert [descends(tree, n, grant) for n in (10, 20, 30, 40, 50)] == [
        False,
        True,
        True,
        False,
        True,
    ]
    assert descends(tree, 35, denial) is False  # it has ended


def test_a_rule_that_is_gone_marks_nobody(tree: Lineage) -> None:
    one, other = Root(20), Root(10)
    tree.add(one)
    tree.add(other)
    tree.remove(one)
    assert descends(tree, 20, one) is False
    assert descends(tree, 20, other) is True


def test_marks_of_processes_that_have_ended_are_let_go(
    tree: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage, "_MANY", 10)
    root = Root(20)
    tree.add(root)
    machine.news = [[Started(20, n) for n in range(100, 200)]]
    machine.parents[150] = 20
    tree.update()
    assert descends(tree, 150, root) is True
    assert len(tree._marks) == 2
