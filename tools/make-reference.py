#!/usr/bin/env python3
"""Writes docs/reference/ from the declarations in the code.

    tools/make-reference.py            write the pages
    tools/make-reference.py --check    only say which of them are out of date

The code says names, types, directions, defaults, rules and docstrings; `parameters.toml` beside
this file says in a line what each parameter of an event means.
"""

from __future__ import annotations

import errno
import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reference"
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools")]

import conformance  # noqa: E402 - it is found by the path above

import cbfsconnect  # noqa: E402 - it is found by the path above
from cbfsconnect import EVENTS, Event, errors  # noqa: E402
from cbfsconnect.events.declare import Direction, Parameter  # noqa: E402
from cbfsconnect.properties import Property  # noqa: E402
from cbfsconnect.settings import SETTINGS, ChangeRule  # noqa: E402

NOTE = "<!-- Made by tools/make-reference.py from the code: change the code, then run it. -->\n"

ARROWS = {Direction.IN: "in", Direction.OUT: "out", Direction.INOUT: "in, out"}


# --- Markdown -------------------------------------------------------------------------------------


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(header)]
    lines.append(["---"] * len(lines[0]))
    lines += [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def code(text: object) -> str:
    """Text as code, where there is any."""
    return f"`{text}`" if str(text) else ""


def paragraphs(docstring: str | None) -> str:
    """A docstring as Markdown."""
    return inspect.cleandoc(docstring or "") + "\n"


def page(title: str, introduction: str, *sections: str) -> str:
    """A whole page."""
    return "\n".join([f"# {title}\n", NOTE, introduction + "\n", *sections])


# --- events ---------------------------------------------------------------------------------------


class Meanings:
    """What parameters mean."""

    def __init__(self) -> None:
        text = (ROOT / "tools" / "parameters.toml").read_text(encoding="utf-8")
        self._texts: dict[str, dict[str, str]] = tomllib.loads(text)

    def of(self, event: str, parameter: Parameter) -> str:
        """The text for a parameter of an event."""
        if parameter.type == "c_void_p":
            return f"`{parameter.name}_view` as a `ctypes.c_void_p`, for `ctypes.memmove`."
        for section in (event, "common"):
            if parameter.name in self._texts.get(section, {}):
                return self._texts[section][parameter.name]
        raise SystemExit(f"tools/parameters.toml does not say what {event}.{parameter.name} means")


def default_of(event: Event, parameter: Parameter) -> str:
    """What the handler finds in a parameter that is its own to set."""
    if parameter.direction is not Direction.OUT:
        return ""
    argument = inspect.signature(event.params.__init__).parameters.get(parameter.name)
    return code(repr(argument.default)) if argument is not None else ""


def event_section(event: Event, meanings: Meanings) -> str:
    """One event."""
    rows = [
        (
            code(p.name),
            code("object" if p.type == "Any" else p.type),
            ARROWS[p.direction],
            default_of(event, p),
            meanings.of(event.name, p),
        )
        for p in event.parameters
    ]
    enabled = f"Enabled by: property `{event.enabled_by}`.  \n" if event.enabled_by else ""
    return (
        f"## {event.name}\n\n"
        f"{paragraphs(event.params.__doc__)}\n"
        f"Fired by: {event.kernel}.  \n{enabled}"
        f"Parameters: `{event.params.__name__}`.\n\n"
        + (table(("parameter", "type", "", "default", "meaning"), rows) if rows else "None.\n")
    )


def events_page() -> str:
    """Every event with its parameters."""
    meanings = Meanings()
    events = sorted(EVENTS.values(), key=lambda event: event.name)
    overview = table(
        ("event", "fired by", "enabled by"),
        [
            (
                f"[`{e.name}`](#{e.name})",
                e.kernel,
                code(e.enabled_by) if e.enabled_by else "",
            )
            for e in events
        ],
    )
    sections = [event_section(event, meanings) for event in events]
    return page(
        "Events",
        "A handler is a callable with one argument, the params object. Parameters marked *in* can "
        "be read; *out* are for the handler to set, and have the default shown until it does; "
        "*in, out* are both. What fires an event is named by the kernel's FUSE requests, in "
        "capitals; [semantics](../semantics.md) says when exactly. *Linux* marks extensions.",
        overview,
        *sections,
    )


# --- properties, settings -------------------------------------------------------------------------


def properties_page() -> str:
    """Every property of class CBFS."""
    declared = [p for p in _members(cbfsconnect.CBFS, Property) if isinstance(p[1], Property)]
    rows = [
        (
            code(name),
            code(type(p.default).__name__),
            code(repr(p.default)),
            p.change.value,
            p.__doc__,
        )
        for name, p in declared
    ]
    state = [
        (code(name), _result_of(p.fget), _one_line(p.__doc__))
        for name, p in _members(cbfsconnect.CBFS, property)
    ]
    return page(
        "Properties",
        "Properties of class `CBFS`. Each is also there as `get_NAME()` and, where it may be "
        "changed, `set_NAME(value)`. None may be changed inside a handler. A forbidden change "
        "raises `CBFSConnectError` with ERROR_INVALID_STATE, a bad value with "
        "ERROR_INVALID_PARAMETER. `cbfsconnect.mount` takes them as keywords.",
        table(
            ("property", "type", "default", "may be changed", ""),
            [(a, b, c, d, str(e)) for a, b, c, d, e in rows],
        ),
        "## State\n",
        "These can only be read, where it does not say otherwise.\n",
        table(("property", "type", ""), state),
    )


def _one_line(docstring: str | None) -> str:
    return " ".join(paragraphs(docstring).split())


def settings_page() -> str:
    """Every configuration setting."""
    rules = {
        ChangeRule.ANY: "at any time",
        ChangeRule.ACTIVE: "while no media is mounted",
        ChangeRule.STORAGE: "before `create_storage`",
    }
    rows = [
        (code(s.name), code(s.kind.__name__), _setting_default(s.name), rules[s.rule], s.doc)
        for s in sorted(SETTINGS.values(), key=lambda setting: setting.name)
    ]
    return page(
        "Settings",
        '`CBFS.config("Name")` reads a setting and `CBFS.config("Name=Value")` changes it; '
        "`cbfsconnect.mount` takes them as `config={...}`. Names may be written in any case; truth "
        "values are True/False, 1/0 or Yes/No. What is changed while media is mounted takes effect "
        "with the next `mount_media`. *Linux* marks those of this library alone.",
        table(("setting", "type", "default", "may be changed", ""), rows),
    )


def _setting_default(name: str) -> str:
    # The only default that depends on who asks; the pages must not.
    return (
        "root: `True`, else `False`" if name == "AllowOther" else code(repr(SETTINGS[name].default))
    )


# --- methods --------------------------------------------------------------------------------------


def methods_page() -> str:
    """The methods of class CBFS, and the functions beside it."""
    functions = [
        value
        for name, value in sorted(vars(cbfsconnect).items())
        if inspect.isfunction(value) and not name.startswith("_")
    ]
    return page(
        "Methods and functions",
        "Methods fail with `CBFSConnectError`: `code` is a Win32 error, `message` says what to do.",
        "## Functions\n",
        *(function_section(f.__name__, f) for f in functions),
        "## class Drive\n",
        paragraphs(cbfsconnect.Drive.__doc__),
        *class_sections(cbfsconnect.Drive),
        "## class CBFS\n",
        paragraphs(cbfsconnect.CBFS.__doc__),
        *class_sections(cbfsconnect.CBFS),
    )


def class_sections(cls: type) -> Iterator[str]:
    """The public methods of a class, those of its own first."""
    seen: set[str] = set()
    for owner in cls.__mro__[:-1]:
        for name, member in vars(owner).items():
            function = member.__func__ if isinstance(member, staticmethod) else member
            # Getters and setters of properties are made of lambdas: see properties.md.
            if name.startswith("_") or name in seen or not inspect.isfunction(function):
                continue
            seen.add(name)
            if function.__name__ != "<lambda>" and function.__doc__:
                yield function_section(name, function)


def function_section(name: str, function: Callable[..., Any]) -> str:
    """One method or function."""
    return f"### {name}\n\n```\n{name}{_signature(function)}\n```\n\n{paragraphs(function.__doc__)}"


def _signature(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    without_self = [p for p in signature.parameters.values() if p.name != "self"]
    text = str(signature.replace(parameters=without_self))
    return re.sub(r"'([^']*)'", r"\1", text)


def _result_of(function: Callable[..., Any] | None) -> str:
    return code(inspect.get_annotations(function)["return"]) if function is not None else ""


def _members(cls: type, kind: type) -> list[tuple[str, Any]]:
    found: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        for name, member in vars(owner).items():
            if isinstance(member, kind) and not name.startswith("_"):
                found[name] = member
    return sorted(found.items())


# --- constants, errors ----------------------------------------------------------------------------


def constants_page() -> str:
    """Every constant, in the groups and with the comments of the module."""
    sections: list[str] = []
    comment: list[str] = []
    rows: list[tuple[str, str]] = []

    def end_group() -> None:
        if rows:
            sections.append(" ".join(comment) + "\n\n" + table(("name", "value"), rows))
            rows.clear()
        comment.clear()

    source = (ROOT / "src" / "cbfsconnect" / "constants.py").read_text(encoding="utf-8")
    for line in source.partition("__all__")[0].splitlines():
        if line.startswith("# "):
            if rows:
                end_group()
            comment.append(line[2:])
        elif match := re.match(r"(\w+): Final = (.+)", line):
            rows.append((code(match[1]), match[2]))
        elif not line:
            end_group()
    end_group()
    return page(
        "Constants",
        "Plain integers, importable from `cbfsconnect`. Most are there so that ported programs "
        "find them; [semantics](../semantics.md) says which of them mean something on Linux.",
        *sections,
    )


def errors_page() -> str:
    """Win32 codes and the errno that each becomes."""
    codes = {
        value: name for name, value in sorted(vars(errors).items()) if name.startswith("ERROR_")
    }
    rows = [
        (
            code(name),
            str(value),
            code(_errno_name(value)),
            "yes" if errors.win32_from_errno(errors.errno_from_win32(value)) == value else "",
        )
        for value, name in sorted(codes.items())
    ]
    return page(
        "Errors",
        "What a handler puts into `result_code`, and what the program gets that made the request. "
        "*Back* marks the code that stands for the errno where the library itself makes a Win32 "
        "code of one. Any other number, -1 among them, is EIO; `APPLICATION_ERROR | errno` "
        f"(`{errors.APPLICATION_ERROR:#x}`) is exactly that errno. A handler may raise "
        "`OSError(errno)` just as well.",
        table(("code", "number", "errno", "back"), rows),
    )


def _errno_name(value: int) -> str:
    number = errors.errno_from_win32(value)
    # Python knows two names for some numbers, and gives the rarer one.
    names = {0: "success", errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EDEADLK: "EDEADLK"}
    return names.get(number) or errno.errorcode[number]


# --- conformance ----------------------------------------------------------------------------------


def conformance_page() -> str:
    """What becomes of each member of the contract, and which test proves it."""
    return page(
        "Conformance",
        "Every event, property, method, setting and constant of class `CBFS`: what it does on "
        "Linux, what makes it act, which tests prove it, and where it differs from Windows and "
        "why. A test fails when a member is missing here or proven by nothing; and a test that is "
        "named here fails when the event was not fired, the method not called, the property or "
        "setting not changed while it ran. Of the tests with parameters all together prove it. "
        "When methods may be called is tried in `tests/mount/test_methods_in_handlers.py`.",
        *conformance.sections(conformance.Contract()),
    )


# --- all pages ------------------------------------------------------------------------------------


def index_page() -> str:
    """The list of the pages."""
    return page(
        "Reference",
        "Made from the declarations in the code; a test fails when it is out of date.",
        "- [Events](events.md): parameters, types, directions, what fires them, what enables them\n"
        "- [Properties](properties.md) of class `CBFS`\n"
        "- [Settings](settings.md): what `CBFS.config` takes\n"
        "- [Methods and functions](methods.md)\n"
        "- [Constants](constants.md)\n"
        "- [Errors](errors.md): Win32 codes and errno\n"
        "- [Conformance](conformance.md): each member of the contract, its proof, and where it "
        "differs from Windows\n",
    )


def pages() -> dict[str, str]:
    """Every page by the name of its file."""
    return {
        "README.md": index_page(),
        "events.md": events_page(),
        "properties.md": properties_page(),
        "settings.md": settings_page(),
        "methods.md": methods_page(),
        "constants.md": constants_page(),
        "errors.md": errors_page(),
        "conformance.md": conformance_page(),
    }


def outdated(made: dict[str, str]) -> list[str]:
    """The names of the files that differ from what was made."""
    there = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    return sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))


def main(arguments: list[str]) -> int:
    """Write or check; the exit code."""
    made = pages()
    changed = outdated(made)
    if arguments == ["--check"]:
        for name in changed:
            print(f"docs/reference/{name} is out of date: run tools/make-reference.py")
        return bool(changed)
    PAGES.mkdir(parents=True, exist_ok=True)
    for name in changed:
        if name in made:
            (PAGES / name).write_text(made[name], encoding="utf-8")
        else:
            (PAGES / name).unlink()
        print(f"docs/reference/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
