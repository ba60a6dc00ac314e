"""The coroutines that are made of the operations' source."""

from __future__ import annotations

import asyncio
import dis
import inspect
import traceback
from collections.abc import Iterator
from types import CodeType
from typing import Any

import pytest

from cbfsconnect.engine import resumable
from cbfsconnect.engine.engine import Engine
from cbfsconnect.engine.operations import OPERATIONS
from cbfsconnect.fuse.abi import Opcode

QUIET = {Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.DESTROY}
"""Requests that come to no event."""


@pytest.fixture(autouse=True)
def _made() -> None:
    resumable.make_forms()


def test_every_request_that_comes_to_events_has_a_form() -> None:
    without = {opcode for opcode, operation in OPERATIONS.items() if _form(operation) is None}
    assert without <= QUIET


def test_forms_are_coroutine_functions_that_look_like_their_source() -> None:
    for function, form in resumable.FORMS.items():
        assert inspect.iscoroutinefunction(form)
        if inspect.isfunction(function) and form.__module__ != "cbfsconnect.engine.waiting":
            assert form.__qualname__ == function.__qualname__
            assert form.__code__.co_filename == function.__code__.co_filename
            assert (
                form.__code__.co_varnames[: form.__code__.co_argcount]
                == (function.__code__.co_varnames[: function.__code__.co_argcount])
            )


def test_no_function_inside_another_fires_an_event() -> None:
    """It would wait on whatever thread it runs, that of the event loop among them."""
    firing = {
        function.__qualname__
        for function in resumable.FORMS
        if inspect.isfunction(function)
        for inner in _codes_inside(function.__code__)
        if inner.co_name != "<lambda>" and "fire" in inner.co_names
    }
    assert not firing


def test_no_property_of_the_engine_fires_an_event() -> None:
    getters = {p.fget for p in vars(Engine).values() if isinstance(p, property)}
    assert not getters & resumable.FORMS.keys()


def test_a_failing_form_shows_the_lines_of_the_source() -> None:
    form = _form(OPERATIONS[Opcode.READ])
    assert form is not None
    with pytest.raises(AttributeError) as caught:
        asyncio.run(form(None, None, _Request()))
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert last.name == "read"
    assert "engine.handles.get(handle_id)" in (last.line or "")


def test_a_form_awaits_where_the_source_calls() -> None:
    form = _form(OPERATIONS[Opcode.READ])
    assert form is not None
    awaits = [i for i in dis.get_instructions(form) if i.opname == "GET_AWAITABLE"]
    assert len(awaits) >= 3  # entering the file, its size, the handler


class _Request:
    fields = (1, 0, 4096, 0, 0, 0, 0)


def _form(function: Any) -> Any:
    return resumable.FORMS.get(function)


def _codes_inside(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes_inside(constant)
