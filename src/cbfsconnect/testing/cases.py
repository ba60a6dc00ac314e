"""The checks as tests of pytest or unittest, without needing either."""

from __future__ import annotations

import inspect
import unittest
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from cbfsconnect.testing.registry import CHECKS
from cbfsconnect.testing.report import LEGEND, Outcome
from cbfsconnect.testing.running import choose, run_check
from cbfsconnect.testing.serving import Source


class DriveTests:
    """One test for each check: derive from it, and say how the drive is made.

        class TestMyDrive(DriveTests):
            def make(self):
                return MyDrive()

    With `def make(self, directory)` the drive keeps things in a directory and is durable; see
    `check_drive`, also for what may be returned and what the attributes mean. What the drive does
    not claim is skipped. For unittest derive from `unittest.TestCase` too.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    config: ClassVar[Mapping[str, object]] = {}
    durable: ClassVar[bool | None] = None
    timeout: ClassVar[float] = 30.0
    select: ClassVar[tuple[str, ...]] = ()
    skip: ClassVar[tuple[str, ...]] = ()

    make: Callable[..., Any]
    """Makes the drive; to be defined."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        chosen = choose(cls.select, cls.skip)
        for name in CHECKS:
            test = "test_" + name.replace(".", "_")
            setattr(cls, test, _test_of(name) if name in chosen else None)


def _test_of(name: str) -> Callable[[DriveTests], None]:
    def test(self: DriveTests) -> None:
        if not inspect.ismethod(getattr(self, "make", None)):
            raise TypeError(f"{type(self).__name__} has no method make(self) that makes a drive")
        source = Source(self.make, self.options, self.config, self.durable, self.timeout)
        result = run_check(CHECKS[name], source)
        if result.outcome is Outcome.NOT_SUPPORTED:
            raise unittest.SkipTest(f"not supported by this drive: {result.message}")
        if result.outcome is Outcome.FAILED:
            raise AssertionError(f"{result.title}\n{result.message}\n{LEGEND}") from None

    test.__doc__ = CHECKS[name].title
    test.__name__ = "test_" + name.replace(".", "_")
    return test
