"""Which processes descend from those that an access rule with children is about.

A process whose parent has ended is init's child for everybody who asks. So descent is followed as
it happens: the kernel tells of each new process before that can ask for anything
(`process_events`). Where it does not tell, descent is read from /proc when a process asks, and
remembered; a process that is first seen after its parent has ended is then nobody's descendant.

Where programs are named, the children of a program are those that a process starts while it runs
it. A denial also holds for what such a process becomes (exec): else `sh -c COMMAND` would lead
around it. For denials the kernel tells who is about to run the program (`program_events`); for
grants a program counts when it was seen to run.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from cbfsconnect.process_events import EventsLost, Executed, ProcessEvents, Started
from cbfsconnect.processes import (
    Executable,
    ProcessFacts,
    Unseen,
    all_processes,
    facts_of,
    ticks_of,
)
from cbfsconnect.program_events import ProgramEvents

log = logging.getLogger("cbfsconnect")

_DEEPEST = 1000
_BATCH_S = 0.005
_MANY = 4096
"""From so many marks on those of ended processes are looked for."""


class Root(Protocol):
    """What is followed: a rule about one process, or about a program."""

    @property
    def is_denial(self) -> bool:
        """Whether doubt counts as descent, too."""

    def is_about_process(self, process: int) -> bool:
        """Whether it is this very process."""

    def is_about_program(self, thread: int) -> bool | None:
        """Whether the thread's process runs it; None when that cannot be told for sure.

        Raises `Unseen`.
        """

    def is_about_file(self, file: Executable) -> bool | None:
        """The same of a file that is run."""

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the program's file, links followed and not; none for a process."""

    @property
    def process_id(self) -> int:
        """The process; 0 for a program."""


class Mark(NamedTuple):
    """What a process descends from: `sure`, or `perhaps`. `start` is 0 where events tell of the end
    of processes, as numbers are used again."""

    sure: frozenset[Root]
    perhaps: frozenset[Root]
    start: int = 0

    def joined(self, sure: Iterable[Root], perhaps: Iterable[Root] = ()) -> Mark:
        """With more of both."""
        return Mark(self.sure.union(sure), self.perhaps.union(perhaps), self.start)


NOTHING = Mark(frozenset(), frozenset())


class Lineage:
    """Follows the descendants of roots. The caller lets in one thread at a time with `lock`."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._roots: list[Root] = []
        self._marks: dict[int, Mark] = {}
        self._runs: dict[int, frozenset[Root]] = {}
        self._opened: dict[int, set[Root]] = {}
        self._events: ProcessEvents | None = None
        self._programs: ProgramEvents | None = None
        self._tried = False
        self._stop: _Stop | None = None
        self._complete_until = 0
        self.changes = 0
        """Grows when processes that were known are found to descend from something."""

    @property
    def is_told(self) -> bool:
        """Whether the kernel tells of new processes."""
        return self._events is not None

    def add(self, root: Root) -> None:
        """Follow a root from now on, with those descendants that are there and can be seen."""
        if not self._tried:
            self._begin()
        self.update()
        self._roots.append(root)
        if root.is_denial and self._events is not None:
            self._watch(root)
        marked = self._scan([root])
        if self._events is not None:
            self._hear(marked)
        self._changed()

    def remove(self, root: Root) -> None:
        """Follow a root no more."""
        if root not in self._roots:
            return
        self._roots.remove(root)
        gone = {root}
        for process, mark in list(self._marks.items()):
            self._mark(process, Mark(mark.sure - gone, mark.perhaps - gone, mark.start))
        self._runs = {process: runs - gone for process, runs in self._runs.items() if runs - gone}
        self._changed()
        if not self._roots:
            self.close()

    def of(self, who: ProcessFacts) -> Mark:
        """What a process descends from. Call `update` before."""
        if not self._roots:
            return NOTHING
        if self._events is not None:
            return self._marks.get(who.process, NOTHING)
        return self._with_parents(who, _DEEPEST)[0]

    def update(self) -> None:
        """Hear what the kernel has told so far."""
        if self._events is not None:
            self._hear(set())

    def close(self) -> None:
        """Follow nothing more."""
        self._events, self._tried = None, False
        self._roots.clear()
        self._marks.clear()
        self._runs.clear()
        self._opened.clear()
        programs, self._programs = self._programs, None
        if programs is not None:
            programs.close()
        if self._stop is not None:
            self._stop.set()
            self._stop = None

    def abandon(self) -> None:
        """In a forked child: what is followed is followed by the parent."""
        events, self._events = self._events, None
        programs, self._programs = self._programs, None
        self._roots.clear()
        if events is not None:
            events.abandon()
        if programs is not None:
            programs.close()

    # --- told by the kernel --------------------------------------------------------------------

    def _begin(self) -> None:
        self._tried = True
        try:
            self._events = ProcessEvents()
        except OSError as error:
            log.warning(
                "the kernel does not tell of new processes (%s): access rules do not know the "
                "children of a process that has ended before they asked for anything",
                error,
            )
            return
        self._complete_until = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._stop = _Stop()
        threading.Thread(
            target=self._follow, args=(self._events, self._stop), daemon=True, name="cbfs-rules"
        ).start()

    def _follow(self, events: ProcessEvents, stop: _Stop) -> None:
        """Hear events while nobody asks: there is no room for all of them, and what a process runs
        can be seen only as long as it lives."""
        while stop.wait_for(events):
            with self._lock:
                if self._events is not events:
                    break
                self.update()
                programs = any(root.files for root in self._roots)
            if not programs:
                stop.wait(_BATCH_S)
        events.close()
        stop.close()

    def _hear(self, scanned: set[int]) -> None:
        try:
            self._read(scanned)
        except EventsLost:
            self._after_loss()

    def _read(self, scanned: set[int]) -> None:
        """Take in what the kernel has told. Marks of those who were `scanned` meanwhile stay."""
        events = self._events
        assert events is not None
        while True:
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            batch = list(events.read())
            if not batch:
                self._complete_until = now
                break
            self._take_in(batch, scanned)
        if len(self._marks) + len(self._runs) > _MANY:
            self._forget_ended()

    def _take_in(self, batch: list[Started | Executed], scanned: set[int]) -> None:
        events, marks, runs = self._events, self._marks, self._runs
        assert events is not None
        seen = self._look(batch)
        while ahead := list(events.read()):
            # Who has begun yet another program was perhaps seen with that one already.
            for event in ahead:
                seen.pop(event.process, None)
            seen.update(self._look(ahead))
            batch += ahead
        before, self._opened = self._opened, self._openings()
        for event in batch:
            process = event.process
            if isinstance(event, Executed):
                runs.pop(process, None)
                if event is seen.get(process, (None,))[0]:
                    self._has_run(process, seen[process][1])
                continue
            runs_of_parent = runs.get(event.parent)
            mark = marks.get(event.parent)
            if runs_of_parent:
                mark = (mark or NOTHING).joined(runs_of_parent)
                runs[process] = runs_of_parent
            elif runs:
                runs.pop(process, None)
            if process in scanned:
                mark = (mark or NOTHING).joined(*marks.get(process, NOTHING)[:2])
            for opened in (before, self._opened):
                if process in opened:
                    mark = (mark or NOTHING).joined(opened[process])
            if mark is not None:
                marks[process] = mark
            elif marks:
                marks.pop(process, None)

    def _look(self, batch: list[Started | Executed]) -> dict[int, tuple[Executed, set[Root]]]:
        """Which of the programs the processes run that have begun another one, by the last event
        of each."""
        roots = [root for root in self._roots if root.files]
        if not roots:
            return {}
        offset = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        seen = {}
        for event in batch:
            if isinstance(event, Executed):
                facts = facts_of(event.process)
                # A later process may have the number of one that has ended.
                if facts is not None and facts.start <= ticks_of(event.at + offset) + 1:
                    seen[event.process] = (event, self._running(event.process, roots)[0])
                else:
                    seen.pop(event.process, None)
        return seen

    def _has_run(self, process: int, roots: set[Root]) -> None:
        """A process was seen to run programs."""
        grants = frozenset(root for root in roots if not root.is_denial)
        if grants:
            self._runs[process] = grants
        self._join(process, roots - grants)

    def _openings(self) -> dict[int, set[Root]]:
        """Who was about to run a program that is denied. All this was before what comes now."""
        opened: dict[int, set[Root]] = {}
        if self._programs is not None:
            denials = [root for root in self._roots if root.is_denial and root.files]
            for process, file in self._programs.read():
                found = {root for root in denials if root.is_about_file(file) is not False}
                if found:
                    opened.setdefault(process, set()).update(found)
        for process, roots in opened.items():
            self._join(process, roots)
        return opened

    def _join(self, process: int, roots: Iterable[Root]) -> None:
        before = self._marks.get(process, NOTHING)
        mark = before.joined(roots)
        if mark != before:
            self._marks[process] = mark
            self._changed()

    def _watch(self, root: Root) -> None:
        if self._programs is None and root.files:
            try:
                self._programs = ProgramEvents()
            except OSError as error:
                log.warning(
                    "the kernel does not tell who runs a program (%s): a denial with children may "
                    "miss a program that is run for a moment only",
                    error,
                )
                return
        for name in root.files:
            assert self._programs is not None
            self._programs.watch(name)

    def _running(self, thread: int, roots: Iterable[Root]) -> tuple[set[Root], set[Root]]:
        """Which of these programs a thread's process runs, for sure and perhaps."""
        sure: set[Root] = set()
        perhaps: set[Root] = set()
        for root in roots:
            try:
                runs = root.is_about_program(thread)
            except Unseen:
                continue  # if that were a doubt, init would be anything for who may not look at it
            if runs:
                sure.add(root)
            elif runs is None and root.is_denial:
                perhaps.add(root)
        return sure, perhaps

    def _after_loss(self) -> None:
        """Events were lost. Nobody is granted anything by what is not known, and everybody who
        has started since then may be what denials are about."""
        log.warning("the kernel had no room to tell of new processes: access rules are in doubt")
        since = ticks_of(self._complete_until) - 1
        while True:
            started = {facts.process: facts.start for facts in all_processes()}
            for process in list(self._marks):
                if started.get(process, since) >= since:
                    del self._marks[process]  # it has ended, and its number may be another's
            self._runs.clear()
            try:
                self._read(self._scan(self._roots, doubt_since=since))
                break
            except EventsLost:
                continue
        self._changed()

    def _forget_ended(self) -> None:
        alive = {facts.process for facts in all_processes()}
        for known in (self._marks, self._runs):
            for process in known.keys() - alive:
                known.pop(process, None)

    # --- read from /proc -----------------------------------------------------------------------

    def _scan(self, roots: list[Root], doubt_since: int | None = None) -> set[int]:
        """Mark the processes that are there: what these roots are about, and who descends from it
        as far as can be seen. The ids of those that were marked."""
        found = all_processes()
        children: dict[int, list[ProcessFacts]] = {}
        for facts in found:
            children.setdefault(facts.parent, []).append(facts)
        denials = [root for root in roots if root.is_denial]
        marked: set[int] = set()
        for facts in found:
            if facts.is_kernel:
                continue
            sure, perhaps, runs = self._own(facts, roots)
            if runs:
                if self._events is not None:
                    self._runs[facts.process] = self._runs.get(facts.process, frozenset()) | runs
                for child in children.get(facts.process, []):
                    self._hand_down(child, children, runs, set(), marked)
            if doubt_since is not None and facts.start >= doubt_since:
                perhaps.update(denials)
            if sure or perhaps:
                self._hand_down(facts, children, sure, perhaps, marked)
        return marked

    def _own(
        self, facts: ProcessFacts, roots: list[Root]
    ) -> tuple[set[Root], set[Root], set[Root]]:
        """What a process is itself, for sure and perhaps, and what it is while it runs a program
        that is granted."""
        sure, perhaps = self._running(facts.thread, [root for root in roots if root.files])
        runs = {root for root in sure if not root.is_denial}
        sure -= runs
        for root in roots:
            process = root.process_id
            if not process:
                continue
            if root.is_about_process(facts.process) or (
                root.is_denial
                and process in (facts.group, facts.session)
                and (root.is_about_process(process) or facts_of(process) is None)
            ):
                # Of the same job or session: its parent may have ended and cannot be seen.
                sure.add(root)
        return sure, perhaps, runs

    def _hand_down(
        self,
        first: ProcessFacts,
        children: dict[int, list[ProcessFacts]],
        sure: set[Root],
        perhaps: set[Root],
        marked: set[int],
    ) -> None:
        waiting = [first]
        while waiting:
            facts = waiting.pop()
            before = self._remembered(facts)
            mark = before.joined(sure, perhaps)
            if mark != before or facts is first:
                self._mark(facts.process, mark._replace(start=self._start_of(facts)))
                marked.add(facts.process)
                waiting += children.get(facts.process, [])

    def _with_parents(self, who: ProcessFacts, depth: int) -> tuple[Mark, set[Root]]:
        sure, perhaps, runs = self._own(who, self._roots)
        mark = self._remembered(who).joined(sure, perhaps)
        if who.parent and depth:
            parent = facts_of(who.parent)
            again = facts_of(who.thread)
            # If it is its parent still, it was so all the time: the parent's number was not free.
            if parent is not None and again is not None and again.parent == who.parent:
                inherited, run_by_parent = self._with_parents(parent, depth - 1)
                mark = mark.joined(inherited.sure | run_by_parent, inherited.perhaps)
        self._mark(who.process, mark._replace(start=self._start_of(who)))
        if len(self._marks) > _MANY:
            self._forget_ended()
        return mark, runs

    def _remembered(self, facts: ProcessFacts) -> Mark:
        mark = self._marks.get(facts.process, NOTHING)
        return mark if mark.start == self._start_of(facts) else NOTHING

    def _start_of(self, facts: ProcessFacts) -> int:
        """By what a later process with the same number is told from this one."""
        if self._events is not None:
            return 0
        if facts.thread == facts.process:
            return facts.start
        first = facts_of(facts.process)
        return first.start if first is not None else -1

    def _mark(self, process: int, mark: Mark) -> None:
        if mark.sure or mark.perhaps:
            self._marks[process] = mark
        else:
            self._marks.pop(process, None)

    def _changed(self) -> None:
        self.changes += 1


class _Stop:
    """Ends the thread that follows events, at once."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def set(self) -> None:
        """Have it end."""
        os.eventfd_write(self._descriptor, 1)

    def wait_for(self, events: ProcessEvents) -> bool:
        """Wait for events; False when it shall end."""
        both = select.poll()
        both.register(self._descriptor, select.POLLIN)
        both.register(events.fileno(), select.POLLIN)
        return all(descriptor != self._descriptor for descriptor, _ in both.poll())

    def wait(self, seconds: float) -> None:
        """Wait so long, or until it shall end."""
        self._poll.poll(seconds * 1000)

    def close(self) -> None:
        """Let go of the descriptor; only its thread may."""
        os.close(self._descriptor)
