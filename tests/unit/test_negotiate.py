"""What the answer to INIT says, for kernels of every kind."""

from __future__ import annotations

import errno
import mmap
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbfsconnect.fuse import abi
from cbfsconnect.fuse.abi import InitFlag
from cbfsconnect.fuse.negotiate import Negotiated, Refused, negotiate

MIB = 1 << 20
LOW = (1 << 32) - 1
ALL = (1 << 43) - 1


def init_in(
    minor: int = 45, offered: int = ALL, major: int = 7, readahead: int = MIB
) -> abi.InitIn:
    return abi.InitIn(major, minor, readahead, offered & LOW, offered >> 32)


def agree(kernel: abi.InitIn, wanted: int, **options: Any) -> Negotiated:
    result = negotiate(kernel, InitFlag(wanted), **options)
    assert isinstance(result, Negotiated)
    return result


def refuse(kernel: abi.InitIn) -> Refused:
    result = negotiate(kernel, InitFlag(0))
    assert isinstance(result, Refused)
    return result


@pytest.mark.parametrize(("kernel", "expected"), [(31, 31), (38, 38), (45, 45), (46, 45), (99, 45)])
def test_the_smaller_minor_version_counts(kernel: int, expected: int) -> None:
    assert agree(init_in(kernel), 0).minor == expected


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (7, 0), (6, 99), (0, 0)])
def test_old_kernels_are_refused(major: int, minor: int) -> None:
    refused = refuse(init_in(minor, major=major))
    assert not refused.retry
    assert f"{major}.{minor}" in refused.reason
    assert "Linux 5.4" in refused.reason
    assert refused.reply(5) == struct.pack("=IiQ", 16, -errno.EPROTO, 5)


def test_a_newer_major_version_is_told_ours() -> None:
    refused = refuse(init_in(3, major=8))
    assert refused.retry
    assert refused.reply(5) == struct.pack("=IiQII56x", 80, 0, 5, 7, 45)


def test_the_whole_reply() -> None:
    wanted = InitFlag.ASYNC_READ | InitFlag.PASSTHROUGH
    agreed = agree(
        init_in(40),
        wanted,
        max_write=MIB,
        max_readahead=65536,
        max_background=20,
        congestion_threshold=10,
        time_gran=1000,
        max_stack_depth=1,
    )
    flags = 1 | 1 << 22 | 1 << 30
    body = (7, 40, 65536, flags, 20, 10, MIB, 1000, MIB // mmap.PAGESIZE, 0, 1 << 5, 1, 0)
    assert agreed.reply(5) == struct.pack("=IiQ4IHHIIHHIIH22x", 80, 0, 5, *body)


def test_only_what_is_offered_and_wanted() -> None:
    offered = InitFlag.ASYNC_READ | InitFlag.POSIX_LOCKS
    wanted = InitFlag.POSIX_LOCKS | InitFlag.FLOCK_LOCKS
    assert agree(init_in(offered=int(offered)), wanted).flags == InitFlag.POSIX_LOCKS


@pytest.mark.parametrize("flag", [InitFlag.HAS_EXPIRE_ONLY, InitFlag.HAS_RESEND])
def test_upper_flags_need_the_extended_init(flag: InitFlag) -> None:
    with_ext = agree(init_in(offered=flag | InitFlag.INIT_EXT), flag)
    assert with_ext.flags == flag | InitFlag.INIT_EXT
    assert agree(init_in(offered=flag), flag).flags == InitFlag(0)


def test_the_extended_init_is_always_echoed() -> None:
    assert InitFlag.INIT_EXT in agree(init_in(), 0).flags


def test_passthrough_needs_a_stack_depth() -> None:
    agreed = agree(init_in(), InitFlag.PASSTHROUGH)
    assert InitFlag.PASSTHROUGH not in agreed.flags
    assert agreed.max_stack_depth == 0
    not_offered = agree(init_in(offered=0), InitFlag.PASSTHROUGH, max_stack_depth=1)
    assert not_offered.max_stack_depth == 0


@pytest.mark.parametrize(("minor", "allowed"), [(36, False), (37, False), (38, True)])
def test_security_contexts_only_where_their_length_is_known(minor: int, allowed: bool) -> None:
    agreed = agree(init_in(minor), InitFlag.SECURITY_CTX)
    assert (InitFlag.SECURITY_CTX in agreed.flags) is allowed


@pytest.mark.parametrize(("max_write", "pages"), [(4096, 1), (MIB, MIB // mmap.PAGESIZE)])
def test_pages_follow_from_the_size_of_writes(max_write: int, pages: int) -> None:
    agreed = agree(init_in(), 0, max_write=max_write)
    assert (agreed.max_write, agreed.max_pages) == (max_write, pages)
    assert InitFlag.MAX_PAGES in agreed.flags


def test_without_max_pages_requests_stay_small() -> None:
    agreed = agree(init_in(offered=0), 0, max_write=MIB)
    assert (agreed.max_write, agreed.max_pages) == (32 * mmap.PAGESIZE, 0)
    assert agree(init_in(offered=0), 0, max_write=8192).max_write == 8192


@pytest.mark.parametrize(("kernel", "expected"), [(4096, 4096), (16 * MIB, MIB)])
def test_readahead_is_the_smaller_one(kernel: int, expected: int) -> None:
    assert agree(init_in(readahead=kernel), 0, max_readahead=MIB).max_readahead == expected


@pytest.mark.parametrize("flag", [InitFlag.SETXATTR_EXT, InitFlag.INIT_RESERVED])
def test_flags_that_the_wire_cannot_honour(flag: InitFlag) -> None:
    with pytest.raises(ValueError, match=str(flag.name)):
        negotiate(init_in(), flag)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_write", 4095),
        ("max_write", 1 << 32),
        ("max_background", 70000),
        ("max_background", 47),
        ("congestion_threshold", -1),
    ],
)
def test_sizes_that_cannot_be_expressed(option: str, value: int) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(ValueError, match=option):
        negotiate(init_in(), InitFlag(0), **options)


NUMBER = st.integers(0, LOW)


@given(st.builds(abi.InitIn, st.integers(0, 9), st.integers(0, 60), NUMBER, NUMBER, NUMBER))
def test_any_init_gets_an_answer(kernel: abi.InitIn) -> None:
    wanted = InitFlag(ALL) & ~(InitFlag.SETXATTR_EXT | InitFlag.INIT_RESERVED)
    result = negotiate(kernel, wanted)
    assert struct.unpack_from("=I", result.reply(1))[0] == len(result.reply(1))
    if isinstance(result, Negotiated):
        assert result.flags in InitFlag(kernel.flags | kernel.flags2 << 32)
