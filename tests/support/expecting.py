"""Comparing all parameters of an event at once, and handlers that answer with a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support.recorder import Fired

TOKENS = {"handle_info", "file_info", "buffer", "buffer_view", "reparse_buffer"}
"""What is left out of a comparison unless it is named: tokens and addresses."""


def expect(fired: Fired, **given: Any) -> None:
    """Compare every parameter of an event with what its handler was given."""
    have = {k: v for k, v in fired.given.items() if k not in TOKENS - given.keys()}
    assert have == {"result_code": 0} | given


def answer(code: int) -> Callable[[Any], None]:
    """A handler that gives nothing but a result code."""

    def handler(p: Any) -> None:
        p.result_code = code

    return handler
