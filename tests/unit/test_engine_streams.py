"""Named streams as extended attributes, and the other attributes of the drive."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from cbfsconnect.drives.memory import MemoryDrive
from support.kernel import ROOT, Kernel, fails
from support.plain import PlainDrive
from support.recorder import Recorder

CREATE, REPLACE = 1, 2


@pytest.fixture
def record() -> Recorder:
    drive = PlainDrive(f=b"content")
    drive.items["/f:old"] = drive.add("/f:old", b"value")
    return Recorder(drive)


@pytest.fixture
def kernel(record: Recorder) -> Iterator[Kernel]:
    with Kernel(record, use_alternate_data_streams=True, use_reparse_points=True) as kernel:
        yield kernel
        kernel.let_go()


@pytest.fixture
def node(kernel: Kernel) -> int:
    return kernel.lookup("f").nodeid


def test_a_stream_is_read_whole_and_its_size_told(kernel: Kernel, node: int) -> None:
    assert kernel.getxattr(node, "user.old") == b"value"
    assert kernel.getxattr(node, "user.old", 0) == bytes([5, 0, 0, 0, 0, 0, 0, 0])
    assert kernel.getxattr(node, "user.old", 5) == b"value"
    with fails(errno.ERANGE):
        kernel.getxattr(node, "user.old", 4)
    with fails(errno.ENODATA):
        kernel.getxattr(node, "user.missing")
    for name in ("security.capability", "trusted.x", "system.posix_acl_access", "user"):
        with fails(errno.EOPNOTSUPP):
            kernel.getxattr(node, name)


@pytest.mark.parametrize("value", [b"", b"x", b"longer than before", bytes(65536)])
def test_a_stream_is_written_whole(kernel: Kernel, node: int, value: bytes) -> None:
    for name in ("user.old", "user.new"):
        kernel.setxattr(node, name, value)
        assert kernel.getxattr(node, name) == value


def test_flags_of_setxattr(kernel: Kernel, node: int) -> None:
    with fails(errno.EEXIST):
        kernel.setxattr(node, "user.old", b"x", CREATE)
    with fails(errno.ENODATA):
        kernel.setxattr(node, "user.new", b"x", REPLACE)
    kernel.setxattr(node, "user.new", b"x", CREATE)
    kernel.setxattr(node, "user.new", b"y", REPLACE)
    assert kernel.getxattr(node, "user.new") == b"y"


def test_streams_are_listed_and_removed(kernel: Kernel, node: int, record: Recorder) -> None:
    kernel.setxattr(node, "user.ü", b"")
    assert kernel.listxattr(node) == "user.old\0user.ü\0".encode()
    assert kernel.listxattr(node, 0)[0] == 17
    with fails(errno.ERANGE):
        kernel.listxattr(node, 16)
    kernel.removexattr(node, "user.old")
    with fails(errno.ENODATA):
        kernel.removexattr(node, "user.old")
    assert kernel.listxattr(node) == "user.ü\0".encode()
    begun = [f for f in record.all("on_enumerate_named_streams") if f.enumeration_context == 0]
    assert len(record.all("on_close_named_streams_enumeration")) == len(begun)


@pytest.mark.parametrize("name", ["user.a/b", "user./../../etc/passwd"])
def test_names_that_would_be_paths_are_refused(kernel: Kernel, node: int, name: str) -> None:
    with fails(errno.EINVAL):
        kernel.setxattr(node, name, b"x")
    for call in (kernel.getxattr, kernel.removexattr):
        with fails(errno.ENODATA):
            call(node, name)


@pytest.mark.parametrize("given", [None, 5, "nul\0", ":" + "x" * 251, "\ud800"])
def test_names_of_streams_that_cannot_be_are_left_out(
    kernel: Kernel, node: int, record: Recorder, given: Any
) -> None:
    def give(params: Any) -> None:
        names = [":a", given, ":b:$DATA", "::$DATA"]
        if params.enumeration_context < len(names):
            params.named_stream_found = True
            params.stream_name = names[params.enumeration_context]
            params.enumeration_context += 1

    record.instead["on_enumerate_named_streams"] = give
    assert kernel.listxattr(node) == b"user.a\0user.b\0"


def test_more_names_than_the_kernel_takes(kernel: Kernel, node: int, record: Recorder) -> None:
    def endless(params: Any) -> None:
        params.named_stream_found, params.stream_name = True, ":" + "x" * 200

    record.instead["on_enumerate_named_streams"] = endless
    with fails(errno.E2BIG):
        kernel.listxattr(node)
    assert len(record.all("on_close_named_streams_enumeration")) == 1


def test_a_stream_that_is_too_large_for_an_attribute(
    kernel: Kernel, node: int, record: Recorder
) -> None:
    record.handlers.items["/f:old"].data = bytearray(65537)  # type: ignore[attr-defined]
    with fails(errno.E2BIG):
        kernel.getxattr(node, "user.old")


@pytest.mark.parametrize("feature", ["use_hard_links", "use_reparse_points"])
def test_a_drive_without_streams_lists_nothing(feature: str) -> None:
    properties: dict[str, Any] = {feature: True}
    with Kernel(PlainDrive(f=b""), **properties) as kernel:
        node = kernel.lookup("f").nodeid
        assert kernel.listxattr(node, 0) == bytes(8)
        assert kernel.listxattr(node, 256) == b""
        with fails(errno.EOPNOTSUPP):
            kernel.setxattr(node, "user.x", b"")


def test_a_drive_with_no_attributes_at_all_is_not_asked_again() -> None:
    with Kernel(PlainDrive(f=b"")) as kernel:
        node = kernel.lookup("f").nodeid
        for call in (
            lambda: kernel.listxattr(node),
            lambda: kernel.getxattr(node, "user.x"),
            lambda: kernel.setxattr(node, "user.x", b""),
            lambda: kernel.removexattr(node, "user.x"),
        ):
            with fails(errno.ENOSYS):
                call()


@pytest.mark.parametrize(
    ("mode", "rdev"),
    [(stat.S_IFIFO, 0), (stat.S_IFSOCK, 0), (stat.S_IFCHR, 0x103), (stat.S_IFBLK, 0x801)],
)
def test_special_files_keep_their_kind(mode: int, rdev: int) -> None:
    with Kernel(MemoryDrive()) as kernel:
        made = kernel.mknod("special", mode | 0o640, rdev)
        assert (made.attr.mode, made.attr.rdev) == (mode | 0o640, rdev)
        assert kernel.lookup("special").attr == made.attr
        with fails(errno.EIO):
            kernel.readlink(made.nodeid)
        kernel.let_go()


def test_links_and_their_reparse_data(kernel: Kernel) -> None:
    made = kernel.symlink("link", "../somewhere/ü")
    assert stat.S_ISLNK(made.attr.mode)
    assert kernel.readlink(made.nodeid) == "../somewhere/ü".encode()
    data = kernel.getxattr(made.nodeid, "system.ntfs_reparse_data")
    assert data[:4] == (0xA000001D).to_bytes(4, "little")
    file = kernel.lookup("f").nodeid
    with fails(errno.ENODATA):
        kernel.getxattr(file, "system.ntfs_reparse_data")
    with fails(errno.EINVAL):
        kernel.setxattr(file, "system.ntfs_reparse_data", b"short")
    with fails(errno.ENODATA):
        kernel.removexattr(file, "system.ntfs_reparse_data")
    assert kernel.getattr(ROOT).nlink
