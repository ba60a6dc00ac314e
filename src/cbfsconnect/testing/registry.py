"""The list of checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Body = Callable[[Any], None]


@dataclass(frozen=True)
class Check:
    """One check: what it is called, what the drive must claim for it, why it is right.

    `rule` is where the expectation comes from, `hint` what a handler that fails it usually does
    wrong; steps of the check may have their own.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    rule: str
    hint: str
    body: Body
    mounts: bool = True
    """Whether it gets a mounted drive; else it mounts for itself."""


CHECKS: dict[str, Check] = {}
"""All checks by name, in the order in which they run."""


def check(
    name: str, title: str, *needs: str, rule: str = "", hint: str = "", mounts: bool = True
) -> Callable[[Body], Body]:
    """Enter a function into the list."""

    def enter(body: Body) -> Body:
        assert name not in CHECKS, name
        CHECKS[name] = Check(name, title, needs, rule, hint, body, mounts)
        return body

    return enter
