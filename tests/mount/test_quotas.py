"""The five quota events, by the functions that programs call.

`on_close_quotas_enumeration` fires exactly once for each request that asks or changes quotas.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

import cbfsconnect as c
from support.client import Client
from support.controlled import ControlledDrive
from support.failing import FAILURES, Failure, refused
from support.mounts import Mounting
from support.recorder import Recorder
from support.serving import read_only, serve

QUERY, SET, CLOSE = "on_query_quotas", "on_set_quotas", "on_close_quotas_enumeration"
GET_DEFAULT, SET_DEFAULT = "on_get_default_quota_info", "on_set_default_quota_info"
QUOTAS = (QUERY, SET, CLOSE, GET_DEFAULT, SET_DEFAULT)
SID = c.sid_of_uid(1000)
BINARY = c.sid_to_bytes(SID)
CALLS = [
    (QUERY, "c.query_quota(at, sid)"),
    (QUERY, "c.list_quotas(at)"),
    (SET, "c.set_quota(at, sid, limit=1)"),
    (SET, "c.remove_quota(at, sid)"),
    (GET_DEFAULT, "c.get_default_quota(at)"),
    (SET_DEFAULT, "c.set_default_quota(at, limit=1)"),
]
calls = pytest.mark.parametrize(("event", "call"), CALLS, ids=[call for _, call in CALLS])
ADDRESSES = {"sid", "sid_out"}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A client that has the functions."""
    with Client() as process:
        process.run("import cbfsconnect as c", sid=SID)
        yield process


def serve_quotas(mount: Mounting, client: Client, **options: Any) -> Recorder:
    record = Recorder(ControlledDrive(file=b""))
    record.handle("on_error", lambda p: None)
    serve(mount, client, record, **{"use_disk_quotas": True, **options})
    return record


def quotas_of(record: Recorder) -> dict[bytes, tuple[int, int, int]]:
    quotas: dict[bytes, tuple[int, int, int]] = record.handlers.quotas  # type: ignore[attr-defined]
    return quotas


def given(fired: Any) -> dict[str, Any]:
    return {k: v for k, v in fired.given.items() if k not in ADDRESSES}


# --- asking ---


@pytest.mark.proves("on_query_quotas", "on_close_quotas_enumeration", "use_disk_quotas")
@pytest.mark.parametrize("path", ["", "/file"])
def test_one_user(mount: Mounting, client: Client, path: str) -> None:
    record = serve_quotas(mount, client)
    quotas_of(record)[BINARY] = (7, -1, 1 << 62)

    def check(p: Any) -> None:
        read_only(p, "sid", "sid_length", "index", "sid_out", "sid_out_length")
        assert ctypes.string_at(p.sid, p.sid_length) == BINARY
        assert p.sid_out.value is None
        p.enumeration_context = 44

    record.before[QUERY] = check
    quota = client.call("c.query_quota(at + path, sid)", path=path)
    assert quota == c.Quota(SID, 7, -1, 1 << 62)
    assert given(record.one(QUERY)) == {
        "sid_view": BINARY,
        "sid_length": len(BINARY),
        "index": -1,
        "quota_found": False,
        "quota_used": 0,
        "quota_threshold": 0,
        "quota_limit": 0,
        "sid_out_view": None,
        "sid_out_length": 0,
        "enumeration_context": 0,
        "result_code": 0,
    }
    assert record.one(CLOSE).given == {"enumeration_context": 44, "result_code": 0}
    assert record.names(*QUOTAS) == [QUERY, CLOSE]


def test_a_user_without_one(mount: Mounting, client: Client) -> None:
    record = serve_quotas(mount, client)
    assert client.call("c.query_quota(at, sid)") is None
    assert record.names(*QUOTAS) == [QUERY, CLOSE]


@pytest.mark.proves("on_query_quotas")
def test_all_users(mount: Mounting, client: Client) -> None:
    record = serve_quotas(mount, client)
    sids = [SID, "S-1-5-32-544", "S-1-22-1-0", "S-1-5" + "-4294967295" * 15]
    for number, sid in enumerate(sids):
        quotas_of(record)[c.sid_to_bytes(sid)] = (number, 10, 20)

    def check(p: Any) -> None:
        assert p.sid.value is None
        assert p.sid_out.value
        p.enumeration_context += 1

    record.before[QUERY] = check
    assert client.call("c.list_quotas(at)") == [
        c.Quota(sid, number, 10, 20) for number, sid in enumerate(sids)
    ]
    fired = record.all(QUERY)
    assert [f.index for f in fired] == [f.enumeration_context for f in fired] == [0, 1, 2, 3, 4]
    assert given(fired[0]) == {
        "sid_view": None,
        "sid_length": 0,
        "index": 0,
        "quota_found": False,
        "quota_used": 0,
        "quota_threshold": 0,
        "quota_limit": 0,
        "sid_out_view": bytes(68),
        "sid_out_length": 68,
        "enumeration_context": 0,
        "result_code": 0,
    }
    assert record.one(CLOSE).enumeration_context == 5


@pytest.mark.parametrize("count", [0, 1, 20_000])
def test_any_number_of_users(mount: Mounting, client: Client, count: int) -> None:
    """What does not fit into one ioctl comes in parts; the enumeration is one."""
    record = serve_quotas(mount, client)

    def give(p: Any) -> None:
        p.quota_found = p.index < count
        p.quota_used = p.index
        p.sid_out_view[: len(BINARY)] = c.sid_to_bytes(c.sid_of_uid(p.index))

    record.instead[QUERY] = give
    got = client.call("c.list_quotas(at)")
    assert [q.used for q in got] == list(range(count))
    assert [c.uid_of_sid(q.sid) for q in got] == list(range(count))
    assert len(record.all(QUERY)) == count + 1
    assert len(record.all(CLOSE)) == 1


def test_an_endless_listing(mount: Mounting, client: Client) -> None:
    drive = ControlledDrive()
    numbers = itertools.count()

    def give(p: Any) -> None:
        next(numbers)
        p.quota_found = True
        p.sid_out_view[: len(BINARY)] = BINARY

    drive.on_query_quotas = give  # type: ignore[method-assign]
    closed: list[object] = []
    drive.on_close_quotas_enumeration = closed.append  # type: ignore[method-assign,assignment]
    mounted = mount(drive, use_disk_quotas=True)
    with refused(errno.E2BIG):
        client.call("c.list_quotas(at)", at=mounted.mountpoint)
    assert len(closed) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("quota_used", 1 << 63), ("quota_limit", "5"), ("quota_threshold", None), ("sid", b"")],
)
@pytest.mark.parametrize("call", ["c.query_quota(at, sid)", "c.list_quotas(at)"])
def test_a_quota_that_cannot_be(
    mount: Mounting, client: Client, name: str, value: object, call: str
) -> None:
    record = serve_quotas(mount, client)

    def give(p: Any) -> None:
        p.quota_found = True
        if name != "sid":
            setattr(p, name, value)
            if p.sid_out_length:
                p.sid_out_view[: len(BINARY)] = BINARY

    record.instead[QUERY] = give
    if name == "sid" and "query" in call:
        assert client.call(call) == c.Quota(SID, 0, 0, 0)
        return
    with refused(errno.EIO):
        client.call(call)
    assert QUERY in record.one("on_error").description
    assert record.names(*QUOTAS) == [QUERY, CLOSE]


# --- changing ---


@pytest.mark.proves("on_set_quotas", "on_close_quotas_enumeration")
def test_set_and_remove(mount: Mounting, client: Client) -> None:
    record = serve_quotas(mount, client)

    def check(p: Any) -> None:
        read_only(p, "sid", "sid_length", "remove_quota", "quota_used", "quota_limit")
        assert ctypes.string_at(p.sid, p.sid_length) == BINARY
        p.enumeration_context = 5

    record.before[SET] = check
    assert client.call("c.set_quota(at, sid, used=1, threshold=2, limit=3)") is False
    assert given(record.one(SET)) == {
        "sid_view": BINARY,
        "sid_length": len(BINARY),
        "remove_quota": False,
        "quota_used": 1,
        "quota_threshold": 2,
        "quota_limit": 3,
        "quota_found": False,
        "enumeration_context": 0,
        "result_code": 0,
    }
    assert record.one(CLOSE).enumeration_context == 5
    assert quotas_of(record) == {BINARY: (1, 2, 3)}
    assert client.call("c.set_quota(at, sid)") is True
    assert quotas_of(record) == {BINARY: (0, -1, -1)}
    assert client.call("c.remove_quota(at, sid)") is True
    assert client.call("c.remove_quota(at, sid)") is False
    assert [f.remove_quota for f in record.all(SET)] == [False, False, True, True]
    assert record.names(*QUOTAS) == [SET, CLOSE] * 4
    assert quotas_of(record) == {}


def test_several_users_at_once(mount: Mounting, client: Client) -> None:
    record = serve_quotas(mount, client)
    record.before[SET] = lambda p: setattr(p, "enumeration_context", p.enumeration_context + 1)
    quotas = [c.Quota(c.sid_of_uid(uid), limit=uid) for uid in (1000, 1001, 1000)]
    got = client.call("c.set_quotas(at, quotas)", quotas=quotas)
    assert got == [False, False, True]
    assert [f.enumeration_context for f in record.all(SET)] == [0, 1, 2]
    assert record.one(CLOSE).enumeration_context == 3
    assert record.names(*QUOTAS) == [SET, SET, SET, CLOSE]


def test_the_first_failure_ends_a_request(mount: Mounting, client: Client) -> None:
    record = serve_quotas(mount, client)
    results = iter([0, c.ERROR_DISK_FULL])
    record.before[SET] = lambda p: setattr(p, "result_code", next(results))
    quotas = [c.Quota(c.sid_of_uid(uid)) for uid in (1, 2, 3)]
    with refused(errno.ENOSPC):
        client.call("c.set_quotas(at, quotas)", quotas=quotas)
    assert record.names(*QUOTAS) == [SET, SET, CLOSE]


def test_no_quotas_no_event(mount: Mounting, client: Client) -> None:
    record = serve_quotas(mount, client)
    with refused(errno.EINVAL):
        client.call("c.set_quotas(at, [])")
    assert record.names(*QUOTAS) == []


@pytest.mark.parametrize(
    ("request_", "data"),
    [
        ("QUERY_QUOTA", b""),
        ("QUERY_QUOTA", BINARY + b"x"),
        ("SET_QUOTAS", bytes(23)),
        ("SET_QUOTAS", bytes(24) + BINARY[:-1]),
        ("REMOVE_QUOTAS", bytes(24)),
        ("SET_DEFAULT_QUOTA", bytes(19)),
    ],
)
def test_malformed_requests(mount: Mounting, client: Client, request_: str, data: bytes) -> None:
    record = serve_quotas(mount, client)
    with refused(errno.EINVAL):
        client.run(
            "from cbfsconnect.control import ask\n"
            "from cbfsconnect.control_layout import Request\n"
            "ask(os.open(at, 0), Request[request], data)",
            request=request_,
            data=data,
        )
    assert record.names(*QUOTAS) == []


def test_numbers_that_are_too_large() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        c.set_quota(os.open("/", os.O_RDONLY | os.O_CLOEXEC), SID, limit=1 << 63)


# --- defaults ---


@pytest.mark.proves("on_get_default_quota_info", "on_set_default_quota_info")
def test_defaults(mount: Mounting, client: Client) -> None:
    record = serve_quotas(mount, client)
    record.before[SET_DEFAULT] = lambda p: read_only(
        p, "default_quota_threshold", "default_quota_limit", "file_system_control_flags"
    )
    assert client.call("c.get_default_quota(at)") == c.DefaultQuota(-1, -1, 0)
    client.run("c.set_default_quota(at, threshold=1 << 40, limit=1 << 41, flags=0xFFFFFFFF)")
    assert record.one(SET_DEFAULT).given == {
        "default_quota_threshold": 1 << 40,
        "default_quota_limit": 1 << 41,
        "file_system_control_flags": 0xFFFFFFFF,
        "result_code": 0,
    }
    got = client.call("c.get_default_quota(at)")
    assert got == c.DefaultQuota(1 << 40, 1 << 41, 0xFFFFFFFF)
    assert record.all(GET_DEFAULT)[-1].given == {
        "default_quota_threshold": 0,
        "default_quota_limit": 0,
        "file_system_control_flags": 0,
        "result_code": 0,
    }
    assert not record.all(CLOSE)


@pytest.mark.parametrize("value", [None, "5", 1 << 63])
def test_a_default_that_cannot_be(mount: Mounting, client: Client, value: object) -> None:
    record = serve_quotas(mount, client)
    record.instead[GET_DEFAULT] = lambda p: setattr(p, "default_quota_limit", value)
    with refused(errno.EIO):
        client.call("c.get_default_quota(at)")
    assert GET_DEFAULT in record.one("on_error").description


# --- whatever a handler answers ---


@calls
@pytest.mark.parametrize("failure", FAILURES)
def test_failures(mount: Mounting, client: Client, event: str, call: str, failure: Failure) -> None:
    record = serve_quotas(mount, client)
    record.before[event] = lambda p: setattr(p, "enumeration_context", 3)
    record.instead[event] = failure
    with refused(failure.errno):
        client.call(call)
    assert len(record.all("on_error")) == failure.unexpected
    assert [f.enumeration_context for f in record.all(CLOSE)] == [3] * (event in (QUERY, SET))
    del record.instead[event]
    client.call(call)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("call", [call for event, call in CALLS if event in (QUERY, SET)])
def test_a_close_that_fails(mount: Mounting, client: Client, call: str, failure: Failure) -> None:
    record = serve_quotas(mount, client)
    record.instead[CLOSE] = failure
    with refused(failure.errno):
        client.call(call)
    assert len(record.all(CLOSE)) == 1


def test_a_listing_that_fails_in_the_middle(mount: Mounting, client: Client) -> None:
    record = serve_quotas(mount, client)
    for uid in range(3):
        quotas_of(record)[c.sid_to_bytes(c.sid_of_uid(uid))] = (0, 0, 0)

    def fail_late(p: Any) -> None:
        if p.index == 2:
            p.result_code = c.ERROR_CRC

    record.before[QUERY] = fail_late
    with refused(errno.EIO):
        client.call("c.list_quotas(at)")
    assert record.names(*QUOTAS) == [QUERY] * 3 + [CLOSE]


@calls
def test_without_the_property(mount: Mounting, client: Client, event: str, call: str) -> None:
    record = serve_quotas(mount, client, use_disk_quotas=False)
    with refused(errno.EOPNOTSUPP):
        client.call(call)
    assert record.names(*QUOTAS) == []


@calls
def test_without_the_handler(mount: Mounting, client: Client, event: str, call: str) -> None:
    record = Recorder(ControlledDrive())
    delattr(record, event)
    serve(mount, client, record, use_disk_quotas=True)
    with refused(errno.EOPNOTSUPP):
        client.call(call)
    assert record.names(*QUOTAS) == []


@pytest.mark.parametrize("call", [call for event, call in CALLS if event in (QUERY, SET)])
def test_without_a_handler_of_the_end(mount: Mounting, client: Client, call: str) -> None:
    record = Recorder(ControlledDrive())
    delattr(record, CLOSE)
    serve(mount, client, record, use_disk_quotas=True)
    client.call(call)


# --- who may ---

OWN = ["c.query_quota(at, c.sid_of_uid(4711))", "c.get_default_quota(at)"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("call", [*OWN, *(call for _, call in CALLS if "get_default" not in call)])
def test_who_may(mount: Mounting, client: Client, call: str) -> None:
    record = serve_quotas(mount, client)
    client.run("os.chdir(at); at = '.'; os.seteuid(4711)")
    try:
        if call in OWN:
            client.call(call)
            return
        with refused(errno.EPERM):
            client.call(call)
    finally:
        client.run("os.seteuid(0); os.chdir('/')")
    assert record.names(*QUOTAS) == []
