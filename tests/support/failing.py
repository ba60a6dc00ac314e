"""The three ways in which a handler can fail, and what must become of them."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from cbfsconnect import ERROR_DISK_FULL
from support.recorder import Recorder


@dataclass(frozen=True)
class Failure:
    """Call it as a handler, or after one: it fails. `errno` is what the client must see."""

    way: str
    errno: int
    unexpected: bool = False

    def __call__(self, params: Any) -> None:
        if self.way == "result_code":
            params.result_code = ERROR_DISK_FULL
        elif self.way == "OSError":
            raise OSError(self.errno, "from the handler")
        else:
            raise LookupError("from the handler")


FAILURES = [
    pytest.param(Failure("result_code", errno.ENOSPC), id="result_code"),
    pytest.param(Failure("OSError", errno.EDQUOT), id="OSError"),
    pytest.param(Failure("LookupError", errno.EIO, unexpected=True), id="unexpected"),
]
"""For `pytest.mark.parametrize("failure", FAILURES)`."""


class Complaints:
    """What the library logged and told `on_error` about handlers."""

    def __init__(self, record: Recorder, caplog: pytest.LogCaptureFixture) -> None:
        self._record, self._caplog = record, caplog
        caplog.set_level(logging.WARNING, "cbfsconnect")
        record.handle("on_error", lambda params: None)

    def check(self, failure: Failure, event: str, path: str, times: int = 1) -> None:
        """An unexpected exception was told once each time; nothing else was told."""
        logged = [r for r in self._caplog.records if r.name == "cbfsconnect"]
        told = self._record.all("on_error")
        if not failure.unexpected:
            assert not logged
            assert not told
            return
        assert len(logged) == len(told) == times
        for line in logged:
            assert line.levelno == logging.ERROR
            assert event in line.getMessage()
            assert repr(path) in line.getMessage()
            assert line.exc_info
            assert line.exc_info[0] is LookupError
        for fired in told:
            assert fired.error_code != 0
            assert event in fired.description
            assert "from the handler" in fired.description


@contextmanager
def refused(number: int) -> Iterator[None]:
    """Expect that a call fails with this errno."""
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as raised:
        yield
    assert raised.value.errno == number
