"""Access rules: which processes may use a drive, and for what."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from abc import abstractmethod
from collections.abc import Callable

from cbfsconnect import constants as c
from cbfsconnect.errors import ERROR_INVALID_PARAMETER, ERROR_INVALID_STATE, CBFSConnectError
from cbfsconnect.lineage import Lineage
from cbfsconnect.originators import Originators
from cbfsconnect.processes import (
    Executable,
    PinnedProcess,
    ProcessFacts,
    Unseen,
    facts_of,
    identity_of,
    is_at_home,
    running,
)

EVERYBODY = -1
"""The process id of a rule about all processes."""

_ALL = c.STG_DACCESS_READWRITE
_REMEMBERED = 64
"""Processes of which is kept what they may do: each takes a descriptor."""
_REMEMBERED_S = 1.0
"""So long, where rules name programs: their files may be replaced."""


class AccessRule:
    """One rule, as it was added."""

    def __init__(
        self, name: str, process_id: int, children: bool, access: int, is_denial: bool
    ) -> None:
        self.name = name
        self.process_id = process_id
        self.include_children = children
        self.desired_access = access
        self.is_denial = is_denial
        self.is_own: Callable[[str], bool] = lambda path: False
        self._real = os.path.realpath(name) if name else ""
        self._process = PinnedProcess(process_id) if process_id > 0 else None

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the program's file, as given and with links followed."""
        return (self.name, self._real) if self.name else ()

    def close(self) -> None:
        """Let go of the process."""
        if self._process is not None:
            self._process.close()

    def is_about_process(self, process: int) -> bool:
        """Whether it names this very process, not an earlier one with the same number."""
        pinned = self._process
        return pinned is not None and pinned.id == process and pinned.is_alive()

    def is_about_program(self, thread: int) -> bool | None:
        """Whether it names what the thread's process runs; raises `Unseen`."""
        return self.is_run_by(thread, running(thread)) if self.name else False

    def is_run_by(self, thread: int, file: Executable) -> bool | None:
        """Whether it names the file that the thread's process says it runs. A grant wants proof
        that it does."""
        found = self.is_about_file(file)
        return None if found and not self.is_denial and not is_at_home(thread) else found

    def is_about_file(self, file: Executable) -> bool | None:
        """Whether it names this file. None: one of the same path only, which is no proof. It may
        have been replaced, or the process has another view of the tree."""
        if not self.is_own(self._real):
            # Links are not followed now: they could lead to the drive, which would ask itself.
            with contextlib.suppress(OSError):
                if identity_of(self._real, follow=False) == (file.device, file.inode):
                    return True
        path = file.path.removesuffix(" (deleted)")
        return None if path in (self.name, self._real) else False


class _Verdict:
    """What one process may do, for as long as nothing changes."""

    def __init__(self, who: ProcessFacts, access: int, file: Executable | None, at: int) -> None:
        self._process = PinnedProcess(who.process)
        self.access = access
        self._file = file
        self._changes = at
        self._until = time.monotonic() + _REMEMBERED_S

    def holds(self, changes: int, by_name: bool) -> bool:
        """Whether it is the same process, running the same program, under the same rules."""
        if self._changes != changes or not self._process.is_alive():
            return False
        if not by_name:
            return True
        if self._file is None or time.monotonic() > self._until:
            return False
        try:
            file = self._file
            link = f"/proc/{self._process.id}/exe"
            return identity_of(link) == (file.device, file.inode)
        except OSError:
            return False

    def close(self) -> None:
        """Let go of the process."""
        self._process.close()


class AccessRules:
    """The rules of one drive, and what they say of a process.

    A denial beats a grant. Once there has been a grant, who is granted nothing may do nothing;
    otherwise who is denied nothing may do everything. What is not known of a process counts for
    denials and not for grants.
    """

    def __init__(self) -> None:
        self.granted: list[AccessRule] = []
        self.denied: list[AccessRule] = []
        self.helpers: set[int] = set()
        """Processes that the library has started itself, for the drive's own needs."""
        self._only_granted = False
        self._by_name = False
        self._changes = 0
        self._lock = threading.RLock()
        self._lineage = Lineage(self._lock)
        self._verdicts: dict[int, _Verdict] = {}

    def add(self, rule: AccessRule) -> None:
        """Have a rule hold from now on."""
        with self._lock:
            if rule.include_children and rule.process_id != EVERYBODY:
                self._lineage.add(rule)
            (self.denied if rule.is_denial else self.granted).append(rule)
            self._only_granted = self._only_granted or not rule.is_denial
            self._changed()

    def remove(self, rules: list[AccessRule], name: str, process_id: int) -> bool:
        """Take away all of `rules` with this target; False when there is none."""
        with self._lock:
            found = [r for r in rules if (r.name, r.process_id) == (name, process_id)]
            for rule in found:
                rules.remove(rule)
                self._lineage.remove(rule)
                rule.close()
            self._changed()
            return bool(found)

    def clear(self) -> None:
        """Forget all rules: the drive is gone."""
        with self._lock:
            for rule in [*self.granted, *self.denied]:
                rule.close()
            self.granted.clear()
            self.denied.clear()
            self._only_granted = False
            self._lineage.close()
            self._changed()

    def abandon(self) -> None:
        """In a forked child: the rules are the parent's."""
        for rule in [*self.granted, *self.denied]:
            rule.close()
        for verdict in self._verdicts.values():
            verdict.close()
        self._lineage.abandon()

    def access_of(self, thread: int) -> int:
        """What the process may do that waits for an answer on this thread: STG_DACCESS_…, or 0.

        `thread` is 0 when the kernel cannot name it.
        """
        with self._lock:
            self._lineage.update()
            changes = self._changes + self._lineage.changes
            known = self._verdicts.get(thread)
            if known is not None:
                if known.holds(changes, self._by_name):
                    return known.access
                del self._verdicts[thread]
                known.close()
            who = facts_of(thread) if thread > 0 else None
            if who is None or who.is_kernel:
                return self._unknown()
            if who.process == os.getpid() or who.process in self.helpers:
                return _ALL
            file = self._file_of(who)
            access = self._judge(who, file)
            if who.thread == who.process:
                self._remember(who, access, file)
            return access

    def is_nobody(self, thread: int) -> bool:
        """Whether a request comes from the kernel itself, or from where no number reaches."""
        who = facts_of(thread) if thread > 0 else None
        return thread <= 0 or (who is not None and who.is_kernel)

    # --- judging -------------------------------------------------------------------------------

    def _judge(self, who: ProcessFacts, file: Executable | None) -> int:
        mark = self._lineage.of(who)
        granted = 0 if self._only_granted else _ALL
        for rule in self.granted:
            if rule in mark.sure or self._matches(rule, who, file):
                granted |= rule.desired_access
        for rule in self.denied:
            doubtful = rule in mark.sure or rule in mark.perhaps
            if doubtful or self._matches(rule, who, file) is not False:
                granted &= ~rule.desired_access
        return granted

    def _unknown(self) -> int:
        """What those may do of whom nothing is known."""
        access = 0 if self._only_granted else _ALL
        for rule in self.granted:
            if rule.process_id == EVERYBODY:
                access |= rule.desired_access
        for rule in self.denied:
            access &= ~rule.desired_access
        return access

    @staticmethod
    def _matches(rule: AccessRule, who: ProcessFacts, file: Executable | None) -> bool | None:
        """Whether a rule is about the process itself; None when that cannot be told."""
        if rule.process_id == EVERYBODY:
            return True
        if rule.process_id:
            return rule.is_about_process(who.process)
        return rule.is_run_by(who.thread, file) if file is not None else None

    def _file_of(self, who: ProcessFacts) -> Executable | None:
        if not self._by_name:
            return None
        try:
            return running(who.thread)
        except Unseen:
            return None

    def _remember(self, who: ProcessFacts, access: int, file: Executable | None) -> None:
        changes = self._changes + self._lineage.changes
        with contextlib.suppress(OSError):
            self._verdicts[who.thread] = _Verdict(who, access, file, changes)
        if len(self._verdicts) > _REMEMBERED:
            self._verdicts.pop(next(iter(self._verdicts))).close()

    def _changed(self) -> None:
        self._changes += 1
        self._by_name = any(rule.name for rule in [*self.granted, *self.denied])
        for verdict in self._verdicts.values():
            verdict.close()
        self._verdicts.clear()


class AccessRuleMembers(Originators):
    """The members of class CBFS that are about access rules.

    Like the vendor's they are not for use by several threads at once; requests may be under way.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rules = AccessRules()

    @abstractmethod
    def _need_media(self, method: str) -> None: ...

    @abstractmethod
    def _is_own(self, path: str) -> bool:
        """Whether a path lies on the drive itself."""

    def add_granted_process(
        self, process_file_name: str, process_id: int, child_processes: bool, desired_access: int
    ) -> None:
        """Let a process use the drive; once there is such a rule, nobody else may.

        A running process is named by `process_id` with an empty name, a program by the full name of
        its file with id 0, everybody by an empty name with id -1. `desired_access` is one of
        STG_DACCESS_READ, STG_DACCESS_WRITE, STG_DACCESS_READWRITE. With `child_processes` the rule
        holds for those, too, that it starts, and that these start. Needs mounted media and
        `process_restrictions_enabled`.
        """
        self._add_rule(
            "add_granted_process", process_file_name, process_id, child_processes, desired_access
        )

    def add_denied_process(
        self, process_file_name: str, process_id: int, child_processes: bool, desired_access: int
    ) -> None:
        """Keep a process from using the drive, whatever else grants it; see
        `add_granted_process`."""
        self._add_rule(
            "add_denied_process", process_file_name, process_id, child_processes, desired_access
        )

    def remove_granted_process(self, process_file_name: str, process_id: int) -> None:
        """Take back what was granted under this name and id.

        Who is granted nothing then may do nothing, also if it was the last rule.
        """
        self._remove_rule(
            "remove_granted_process", self._rules.granted, process_file_name, process_id
        )

    def remove_denied_process(self, process_file_name: str, process_id: int) -> None:
        """Take back what was denied under this name and id."""
        self._remove_rule(
            "remove_denied_process", self._rules.denied, process_file_name, process_id
        )

    # --- getters -------------------------------------------------------------------------------

    @property
    def access_denied_process_count(self) -> int:
        """How many rules deny access."""
        return len(self._rules.denied)

    @property
    def access_granted_process_count(self) -> int:
        """How many rules grant access."""
        return len(self._rules.granted)

    def get_access_denied_process_count(self) -> int:
        """How many rules deny access; see `access_denied_process_count`."""
        return self.access_denied_process_count

    def get_access_granted_process_count(self) -> int:
        """How many rules grant access; see `access_granted_process_count`."""
        return self.access_granted_process_count

    def get_access_denied_process_desired_access(self, access_denied_process_index: int) -> int:
        """Which access a rule denies: STG_DACCESS_…."""
        return _rule(self._rules.denied, access_denied_process_index).desired_access

    def get_access_denied_process_include_children(self, access_denied_process_index: int) -> bool:
        """Whether a rule that denies holds for child processes, too."""
        return _rule(self._rules.denied, access_denied_process_index).include_children

    def get_access_denied_process_id(self, access_denied_process_index: int) -> int:
        """The process that a rule denies access to; 0: it names a program, -1: everybody."""
        return _rule(self._rules.denied, access_denied_process_index).process_id

    def get_access_denied_process_name(self, access_denied_process_index: int) -> str:
        """The program that a rule denies access to; "" when it names a process or everybody."""
        return _rule(self._rules.denied, access_denied_process_index).name

    def get_access_granted_process_desired_access(self, access_granted_process_index: int) -> int:
        """Which access a rule grants: STG_DACCESS_…."""
        return _rule(self._rules.granted, access_granted_process_index).desired_access

    def get_access_granted_process_include_children(
        self, access_granted_process_index: int
    ) -> bool:
        """Whether a rule that grants holds for child processes, too."""
        return _rule(self._rules.granted, access_granted_process_index).include_children

    def get_access_granted_process_id(self, access_granted_process_index: int) -> int:
        """The process that a rule grants access to; 0: it names a program, -1: everybody."""
        return _rule(self._rules.granted, access_granted_process_index).process_id

    def get_access_granted_process_name(self, access_granted_process_index: int) -> str:
        """The program that a rule grants access to; "" when it names a process or everybody."""
        return _rule(self._rules.granted, access_granted_process_index).name

    # --- helpers -------------------------------------------------------------------------------

    def _add_rule(self, method: str, name: str, process: int, children: bool, access: int) -> None:
        self._may_change_rules(method)
        _check_target(name, process)
        if children not in (0, 1):
            raise _bad(f"child_processes is True or False, not {children!r}")
        if isinstance(access, bool) or access not in (1, 2, 3):
            raise _bad(f"desired_access is one of STG_DACCESS_…, 1 to 3, not {access!r}")
        if name and (self._is_own(name) or self._is_own(os.path.realpath(name))):
            raise _bad(f"{name!r} is on the drive itself: a rule cannot name it")
        try:
            rule = AccessRule(name, process, bool(children), access, method == "add_denied_process")
        except (OSError, OverflowError) as error:
            raise _bad(f"there is no process {process}: {error}") from error
        if process > 0 and not rule.is_about_process(process):
            rule.close()
            raise _bad(f"process {process} has ended")
        rule.is_own = self._is_own
        self._rules.add(rule)

    def _remove_rule(
        self, method: str, rules: list[AccessRule], name: str, process_id: int
    ) -> None:
        self._may_change_rules(method)
        _check_target(name, process_id)
        if not self._rules.remove(rules, name, process_id):
            raise _bad(f"there is no such rule: {method}({name!r}, {process_id})")

    def _may_change_rules(self, method: str) -> None:
        self._refuse_in_event(f"call {method}")
        self._need_media(method)
        if not self.process_restrictions_enabled:
            raise CBFSConnectError(
                ERROR_INVALID_STATE,
                f"{method} needs process_restrictions_enabled: set it True before mount_media",
            )


def _check_target(name: str, process: int) -> None:
    if not isinstance(name, str):
        raise _bad(f"process_file_name is a string, not {name!r}")
    if not isinstance(process, int) or isinstance(process, bool) or process < EVERYBODY:
        raise _bad(f"process_id is the id of a process, 0 or -1, not {process!r}")
    if name and process:
        raise _bad("give a name with process_id 0, or a process_id with an empty name")
    if not name and not process:
        raise _bad("name a process: by the file of its program, by its id, or -1 for all")
    if name and (not os.path.isabs(name) or "\0" in name):
        raise _bad(f"process_file_name is the full name of a program's file, not {name!r}")


def _rule(rules: list[AccessRule], index: int) -> AccessRule:
    if not 0 <= index < len(rules):
        raise _bad(f"there is no access rule {index}: there are {len(rules)}")
    return rules[index]


def _bad(message: str) -> CBFSConnectError:
    return CBFSConnectError(ERROR_INVALID_PARAMETER, message)
