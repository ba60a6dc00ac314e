"""The page docs/reference/conformance.md: what becomes of each member of the contract on Linux.

Facts come from where they belong: names from `contract.toml` and the code's declarations, what a
member does and what makes it fire from its declaration, the tests that prove it from the marks
`@pytest.mark.proves(…)` in tests/, differences from Windows from `conformance.toml`. A member
without a proof or without a word on differences is a `Gap`; tests/unit/test_conformance.py wants
none. That the tests do what their marks say is checked as they run (tests/support/proving.py).
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbfsconnect import CBFS, EVENTS, constants, errors
from cbfsconnect.properties import Change, Property
from cbfsconnect.settings import SETTINGS, ChangeRule

ROOT = Path(__file__).resolve().parent.parent
EVERY_CONSTANT = "every constant"
EVERY_ERROR = "every error code"
KINDS = ("events", "properties", "methods", "settings", "constants")

_CHANGES = {
    Change.ANY: "assigned at any time",
    Change.INACTIVE: "assigned while no media is mounted",
    Change.BEFORE_STORAGE: "assigned before `create_storage`",
    Change.NEVER: "read",
}
_ERRORS = (
    "Win32 error codes, for `result_code` and of `CBFSConnectError`: "
    "[what each becomes](errors.md)."
)
_RULES = {
    ChangeRule.ANY: "`config` at any time",
    ChangeRule.ACTIVE: "`config` while no media is mounted",
    ChangeRule.STORAGE: "`config` before `create_storage`",
}


@dataclass(frozen=True)
class Member:
    """One member: what it does, what makes it act, how it differs, what proves it."""

    kind: str
    name: str
    does: str
    trigger: str
    differs: str
    proofs: tuple[str, ...]


@dataclass(frozen=True)
class Gap:
    """Something that is missing on the page."""

    name: str
    what: str


class Contract:
    """All facts. `tests` is the folder whose marks count."""

    def __init__(self, tests: Path = ROOT / "tests") -> None:
        self.names: dict[str, list[str]] = _toml("contract.toml")
        more = _toml("conformance.toml")
        self.differs: dict[str, str] = more["differs"]
        self.of_groups: dict[str, str] = more["constants"]
        self.methods: dict[str, list[str]] = more["methods"]
        self.proofs = proofs(tests)
        self._root = tests.parent

    def members(self) -> Iterator[Member]:
        """Every member of the contract and every declared one beside it, by kind and name."""
        for name in sorted({*self.names["events"], *EVENTS}):
            yield self._event(name)
        declared = {n for n in dir(CBFS) if isinstance(getattr(CBFS, n), Property | property)}
        for name in sorted({*self.names["properties"], *declared}):
            yield self._property(name)
        for name in sorted(self.names["methods"]):
            yield self._method(name)
        for name in sorted({*self.names["settings"], *SETTINGS}):
            yield self._setting(name)
        groups = constant_groups()
        errors_ = [name for name in errors.__all__ if name.startswith("ERROR_")]
        for name in dict.fromkeys([*constants.__all__, *self.names["constants"], *errors_]):
            does = _ERRORS if name in errors_ else groups.get(name, "")
            yield self._member("constants", name, does, "")

    def gaps(self) -> Iterator[Gap]:
        """What is wrong."""
        known = set()
        for member in self.members():
            known.add(member.name)
            if not member.does:
                yield Gap(member.name, "is not there, or does not say what it does")
            if not member.proofs:
                yield Gap(member.name, "is proven by no test")
            if not self.difference(member):
                yield Gap(member.name, "does not say how it differs from Windows")
        told = {
            *self.differs,
            *self.of_groups,
            *(n for names in self.methods.values() for n in names),
        }
        for name in told - known:
            yield Gap(name, "is in conformance.toml, but no member")
        for name, tests in self.proofs.items():
            if name not in {*known, EVERY_CONSTANT, EVERY_ERROR}:
                yield Gap(name, f"is proven by {tests}, but no member")
            if name in constants.__all__:
                for test in tests:
                    yield from self._unused(name, test)

    def difference(self, member: Member) -> str:
        """Of constants the first one of their group says it for all."""
        if member.kind != "constants":
            return member.differs
        first = next(
            (n for n, comment in constant_groups().items() if comment == member.does), member.name
        )
        return self.of_groups.get("ERROR_SUCCESS" if member.does == _ERRORS else first, "")

    def _unused(self, name: str, test: str) -> Iterator[Gap]:
        """That a constant is used cannot be seen as the test runs: its file must use it."""
        path = self._root / test.partition("::")[0]
        names = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        used = {n.id for n in names if isinstance(n, ast.Name)}
        used |= {n.attr for n in names if isinstance(n, ast.Attribute)}
        if name not in used:
            yield Gap(name, f"is not used in {path.name}, which proves it")

    def _event(self, name: str) -> Member:
        event = EVENTS.get(name)
        if event is None:
            return self._member("events", name, "", "")
        trigger = event.kernel
        if event.enabled_by:
            trigger += f"; with `{event.enabled_by}`"
        return self._member("events", name, _beginning(event.params.__doc__), trigger)

    def _property(self, name: str) -> Member:
        declared = getattr(CBFS, name, None)
        if isinstance(declared, Property):
            trigger = _CHANGES[declared.change]
            return self._member("properties", name, declared.__doc__ or "", trigger)
        return self._member("properties", name, _beginning(declared.__doc__), "read")

    def _method(self, name: str) -> Member:
        method = getattr(CBFS, name, None)
        trigger = "called"
        if name in self.methods["needs_media"]:
            trigger += " while media is mounted"
        elif name in self.methods["needs_drive"]:
            trigger += " while there is a drive"
        if name in self.methods["refused"]:
            trigger += "; refused inside handlers"
        elif name in self.methods["only"]:
            trigger += "; inside handlers only"
        does = _beginning(method.__doc__) if method is not None else ""
        return self._member("methods", name, does, trigger)

    def _setting(self, name: str) -> Member:
        setting = SETTINGS.get(name)
        if setting is None:
            return self._member("settings", name, "", "")
        does = setting.doc
        if does.startswith("Linux. "):
            own = "There is no such setting on Windows: it is the library's own."
            return self._member("settings", name, does[7:], _RULES[setting.rule], own)
        return self._member("settings", name, does, _RULES[setting.rule])

    def _member(self, kind: str, name: str, does: str, trigger: str, differs: str = "") -> Member:
        found = self.proofs.get(name, [])
        if kind == "constants":
            found = [*self.proofs.get(_common_proof(name), []), *found]
        return Member(kind, name, does, trigger, self.differs.get(name, differs), tuple(found))


def _common_proof(constant: str) -> str:
    return EVERY_ERROR if constant.startswith("ERROR_") else EVERY_CONSTANT


def proofs(tests: Path) -> dict[str, list[str]]:
    """The tests, as `path::name`, that say they prove something, by what it is."""
    found: dict[str, list[str]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.proves" not in text:
            continue
        for function in ast.walk(ast.parse(text)):
            if not isinstance(function, ast.FunctionDef) or not function.name.startswith("test_"):
                continue
            for name in _marked(function):
                test = f"{path.relative_to(tests.parent)}::{function.name}"
                found.setdefault(name, []).append(test)
    return found


def _marked(function: ast.FunctionDef) -> Iterator[str]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.proves":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def constant_groups() -> dict[str, str]:
    """What the comment above each constant's group says."""
    groups: dict[str, str] = {}
    comment: list[str] = []
    for line in inspect.getsource(constants).splitlines():
        if line.startswith("# "):
            comment.append(line[2:])
        elif match := re.match(r"(\w+): Final = ", line):
            groups[match[1]] = " ".join(comment)
        elif not line:
            comment = []
    return groups


def _beginning(docstring: str | None) -> str:
    """The first paragraph."""
    return inspect.cleandoc(docstring or "").partition("\n\n")[0].replace("\n", " ")


def _toml(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / "tools" / name).read_text(encoding="utf-8"))


# --- the page -------------------------------------------------------------------------------------


def sections(contract: Contract) -> Iterator[str]:
    """The parts of the page, one for each kind."""
    members = list(contract.members())
    for kind in KINDS:
        of_kind = [member for member in members if member.kind == kind]
        own = sum(member.name not in contract.names[kind] for member in of_kind)
        count = f"{len(of_kind) - own} of the contract" + (f", {own} beside it" if own else "")
        if kind == "constants":
            yield f"## Constants\n\n{count}.\n\n{_constants(contract, of_kind)}"
            continue
        rows = [
            (f"`{m.name}`", m.does, m.trigger, _tests(m.proofs), m.differs or "?") for m in of_kind
        ]
        header = ("", "what it does on Linux", "trigger", "proven by", "differs from Windows")
        yield f"## {kind.capitalize()}\n\n{count}.\n\n{_table(header, rows)}"


def _constants(contract: Contract, members: list[Member]) -> str:
    """By group: the values of all are proven together, the meaning of some one by one."""
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(member.does, []).append(member)
    header = ("what they are", "constants", "values proven by", "meaning proven by", "differ")
    rows = []
    for does, group in groups.items():
        common = contract.proofs.get(_common_proof(group[0].name), [])
        names = ", ".join(f"`{m.name}`" for m in group)
        own = [(m.name, [test for test in m.proofs if test not in common]) for m in group]
        meanings = "<br>".join(f"`{name}`: {_tests(tests)}" for name, tests in own if tests)
        rows.append((does, names, _tests(common), meanings, contract.difference(group[0]) or "?"))
    return _table(header, rows)


def _tests(tests: Iterable[str]) -> str:
    return "<br>".join(f"`{test}`" for test in tests) or "nothing"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(header)]
    lines.append(["---"] * len(lines[0]))
    lines += [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
