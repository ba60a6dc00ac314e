"""Tests that prove members of the contract, and the check that they really do.

A test says `@pytest.mark.proves("on_read_file", "use_hard_links")`. While it runs, what happens in
this process is noted: an event was fired, a method was called, a property got another value than
its default (or was read, where it can only be read), a setting was set. A test that passes without
what it says it proves fails after all. Of tests with parameters all together have to do it.

docs/reference/conformance.md names these tests; see tools/conformance.py.
"""

from __future__ import annotations

import functools
import inspect
import tomllib
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from cbfsconnect import CBFS, EVENTS, constants, volume
from cbfsconnect.engine.engine import Engine
from cbfsconnect.properties import Property
from cbfsconnect.settings import SETTINGS, Settings

CONTRACT = tomllib.loads(
    (Path(__file__).parents[2] / "tools" / "contract.toml").read_text(encoding="utf-8")
)
TOGETHER = ("every constant", "every error code")
"""What tests say that compare them all with a list of their own."""

seen: set[str] = set()
"""What has happened since the current test began."""

_NAMES = {event.params: event.name for event in EVENTS.values()}


def knows(name: str) -> bool:
    """Whether this is something that a test can prove."""
    return name in NOTED or name in constants.__all__ or name in TOGETHER


# --- noting ---


def _note_events() -> None:
    fire, tell_error, fire_quietly = Engine.fire, Engine.tell_error, volume._fire_quietly

    def noting_fire(self: Engine, handler: Callable[[Any], object], params: Any) -> int:
        seen.add(_NAMES.get(type(params), ""))
        return fire(self, handler, params)

    def noting_tell_error(self: Engine, code: int, description: str) -> None:
        if self.on.on_error is not None:
            seen.add("on_error")
        tell_error(self, code, description)

    def noting_fire_quietly(handler: Any, params: Any) -> None:
        if handler is not None:
            seen.add(_NAMES[type(params)])
        fire_quietly(handler, params)

    setattr(Engine, "fire", noting_fire)  # noqa: B010 - a checker does not like it as a statement
    setattr(Engine, "tell_error", noting_tell_error)  # noqa: B010
    setattr(volume, "_fire_quietly", noting_fire_quietly)  # noqa: B010


def _note_calls(name: str) -> None:
    """Note calls of a method, or reads of a property that can only be read."""
    owner = next((c for c in CBFS.__mro__ if name in vars(c)), None)
    if owner is None:
        return
    member = vars(owner)[name]
    if isinstance(member, property):
        assert member.fget is not None
        noting_get, change = _noting(name, member.fget), member.fset
        noting_change = None if change is None else _noting(name, change)
        setattr(owner, name, property(noting_get, noting_change, doc=member.__doc__))
    elif isinstance(member, staticmethod):
        setattr(owner, name, staticmethod(_noting(name, member.__func__)))
    elif inspect.isfunction(member):
        setattr(owner, name, _noting(name, member))


def _noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        seen.add(name)
        return function(*arguments, **named)

    return call


def _note_properties() -> None:
    change = Property.__set__

    def noting_set(self: Property[Any], instance: Any, value: Any) -> None:
        change(self, instance, value)
        if value != self.default:
            seen.add(self.name)

    setattr(Property, "__set__", noting_set)  # noqa: B010


def _note_settings() -> None:
    change = Settings.set

    def noting_set(self: Settings, name: str, value: str, **state: bool) -> None:
        change(self, name, value, **state)
        setting = next(s for s in SETTINGS.values() if s.name.lower() == name.lower())
        if getattr(self, setting.attribute) != setting.default:
            seen.add(setting.name)

    setattr(Settings, "set", noting_set)  # noqa: B010


NOTED = {
    *EVENTS,
    *SETTINGS,
    *(n for n in dir(CBFS) if isinstance(getattr(CBFS, n), Property)),
    *CONTRACT["properties"],
    *CONTRACT["methods"],
    "event_loop",  # which is ours
}
_note_events()
_note_properties()
_note_settings()
for _name in (*CONTRACT["properties"], *CONTRACT["methods"], "event_loop"):
    _note_calls(_name)


# --- checking ---


def proven_by(item: pytest.Item) -> set[str]:
    """What a test says that it proves."""
    return {name for mark in item.iter_markers("proves") for name in mark.args}


class Proofs:
    """The plugin."""

    def __init__(self) -> None:
        self._left: Counter[str] = Counter()
        self._partly: set[str] = set()
        self._seen: dict[str, set[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Count the tests that prove something together."""
        for item in items:
            if names := proven_by(item):
                self._left[_function(item)] += 1
                unknown = sorted(name for name in names if not knows(name))
                if unknown:
                    raise pytest.UsageError(f"{item.nodeid} proves what is not there: {unknown}")

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Some of them do not run."""
        self._partly |= {_function(item) for item in items}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """A test begins."""
        seen.clear()
        if any("[" in argument for argument in item.config.args):
            self._partly.add(_function(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """A test runs, and passes."""
        result = yield
        self._check(item)
        return result

    def _check(self, item: pytest.Item) -> None:
        names, function = proven_by(item), _function(item)
        if not names:
            return
        done = self._seen.setdefault(function, set())
        done |= seen
        self._left[function] -= 1
        if self._left[function] or function in self._partly:
            return
        missing = sorted(name for name in names & NOTED if name not in done)
        if missing:
            pytest.fail(f"proves {', '.join(missing)}, it says, but that did not happen")


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]
