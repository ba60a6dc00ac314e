"""The table of operations: which function serves which kernel request."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.abi import Opcode
    from cbfsconnect.fuse.wire import Request

Reply: TypeAlias = bytes | memoryview | int | None
"""A whole message; an errno; None where no answer is due (yet)."""

Operation: TypeAlias = "Callable[[Engine, Worker, Request], Reply]"

_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

OPERATIONS: dict[int, Operation] = {}


def serves(*opcodes: Opcode) -> Callable[[Operation], Operation]:
    """Enter the decorated function into the table."""

    def enter(function: Operation) -> Operation:
        for opcode in opcodes:
            OPERATIONS[opcode] = function
        return function

    return enter


def text(name: bytes) -> str:
    """A name as Python programs see it; bytes that are not UTF-8 survive as surrogates."""
    return name.decode(_ENCODING, _ERRORS)
