"""Whether a drive will route is seen in the code of its handlers, without running it."""

import functools
from typing import Any

import pytest

from cbfsconnect.routes import names

METHOD = "route_to_file"
cbfs: Any = None


def direct(p: Any) -> None:
    cbfs.route_to_file(p.file_info, "", 0)


def through_a_function(p: Any) -> None:
    if p:
        direct(p)


def inside(p: Any) -> None:
    def later() -> None:
        cbfs.route_to_file(p.file_info, "", 0)

    later()


@functools.wraps(direct)
def wrapped(*arguments: Any) -> None:
    pass


def recording(handler: Any) -> Any:
    def record(p: Any) -> None:
        handler(p)

    return record


def unrelated(p: Any) -> None:
    p.result_code = 0


def endless(p: Any) -> None:
    again(p)


def again(p: Any) -> None:
    endless(p)


class Drive:
    def method(self, p: Any) -> None:
        self._helper(p)

    def _helper(self, p: Any) -> None:
        cbfs.route_to_file(p.file_info, "", 0)

    @property
    def broken(self) -> Any:
        raise AssertionError("nothing is run")

    def other(self, p: Any) -> None:
        print(self.broken, p)


class Derived(Drive):
    def method(self, p: Any) -> None:
        super().method(p)


@pytest.mark.parametrize(
    "handler",
    [
        direct,
        through_a_function,
        inside,
        wrapped,
        recording(direct),
        recording(Drive().method),
        functools.partial(direct, None),
        Drive().method,
        lambda p: cbfs.route_to_file(p.file_info, "", 0),
    ],
)
def test_it_is_seen(handler: Any) -> None:
    assert names(handler, METHOD)


@pytest.mark.parametrize(
    "handler", [unrelated, endless, recording(unrelated), Drive().other, print, None, 5]
)
def test_it_is_not_there(handler: Any) -> None:
    assert not names(handler, METHOD)
