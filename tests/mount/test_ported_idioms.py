"""The ways in which programs for the 2020 edition get at buffers, contexts, names and times."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from cbfsconnect import ERROR_HANDLE_EOF, ERROR_NO_MORE_FILES, errno_from_win32
from support.client import Client
from support.linking import LinkingDrive
from support.mounts import Mounting
from support.plain import PlainDrive

DATA = bytes(range(256)) * 64

# Each takes the pointer, the size, and the data to fill the buffer with; None: what is in it.
Access = Callable[[Any, int, bytes | None], bytes | None]


def by_array(pointer: Any, size: int, data: bytes | None) -> bytes | None:
    target = bytearray(size)
    array = (ctypes.c_uint8 * size).from_buffer(target)
    if data is None:
        ctypes.memmove(array, pointer, size)
        return bytes(target)
    target[: len(data)] = data
    ctypes.memmove(pointer, array, len(data))
    return None


def by_bytes(pointer: Any, size: int, data: bytes | None) -> bytes | None:
    if data is None:
        return ctypes.string_at(pointer, size)
    ctypes.memmove(pointer, data, len(data))
    return None


def by_address(pointer: Any, size: int, data: bytes | None) -> bytes | None:
    array = (ctypes.c_char * size).from_address(pointer.value)
    if data is None:
        return array.raw
    array.raw = data.ljust(size, b"\0")
    return None


def by_cast(pointer: Any, size: int, data: bytes | None) -> bytes | None:
    bytes_of = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_ubyte))
    if data is None:
        return bytes(bytes_of[0:size])
    for index, value in enumerate(data):
        bytes_of[index] = value
    return None


def by_parts(pointer: Any, size: int, data: bytes | None) -> bytes | None:
    """The second half first, by the number of the address."""
    half = size // 2
    if data is None:
        first, second = ctypes.create_string_buffer(half), bytearray(size - half)
        ctypes.memmove(
            (ctypes.c_char * len(second)).from_buffer(second), pointer.value + half, len(second)
        )
        ctypes.memmove(ctypes.byref(first), pointer, half)
        return first.raw + second
    ctypes.memmove(pointer.value + len(data) // 2, data[len(data) // 2 :], -(-len(data) // 2))
    ctypes.memmove(pointer, ctypes.c_char_p(data), len(data) // 2)
    return None


@pytest.mark.parametrize("access", [by_array, by_bytes, by_address, by_cast, by_parts])
def test_buffers(mount: Mounting, client: Client, access: Access) -> None:
    class Drive(PlainDrive):
        def on_read_file(self, p: Any) -> None:
            part = bytes(self.items[p.file_name].data[p.position : p.position + p.bytes_to_read])
            if part:
                access(p.buffer, p.bytes_to_read, part)
            p.bytes_read = len(part)

        def on_write_file(self, p: Any) -> None:
            part = access(p.buffer, p.bytes_to_write, None)
            assert part is not None
            data = self.items[p.file_name].data
            data[p.position : p.position + len(part)] = part
            p.bytes_written = p.bytes_to_write

    drive = Drive(file=b"")
    at = mount(drive, file_cache=0).mountpoint
    client.run("Path(at, 'file').write_bytes(data)", at=at, data=DATA)
    assert drive.items["/file"].data == DATA
    assert client.call("Path(at, 'file').read_bytes()") == DATA


class Opened:
    """What a context stands for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reads = 0


class ById:
    """An object goes round as its `id`, and is kept alive beside."""

    def __init__(self) -> None:
        self.kept: dict[int, Opened] = {}

    def put(self, value: Opened) -> int:
        self.kept[id(value)] = value
        return id(value)

    def get(self, context: int) -> Opened:
        value = ctypes.cast(context, ctypes.py_object).value
        assert isinstance(value, Opened)
        return value

    def free(self, context: int) -> None:
        del self.kept[context]


class ByKey(ById):
    """It goes round as a key of a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.next = itertools.count(1)

    def put(self, value: Opened) -> int:
        key = next(self.next)
        self.kept[key] = value
        return key

    def get(self, context: int) -> Opened:
        return self.kept[context]


@pytest.mark.parametrize("fire_all", [False, True])
@pytest.mark.parametrize("kind", [ById, ByKey])
def test_contexts_are_integers(
    mount: Mounting, client: Client, kind: type[ById], fire_all: bool
) -> None:
    contexts, read = kind(), []

    class Drive(PlainDrive):
        def on_open_file(self, p: Any) -> None:
            if not p.file_context:
                p.file_context = contexts.put(Opened(p.file_name))

        def on_create_file(self, p: Any) -> None:
            super().on_create_file(p)
            self.on_open_file(p)

        def on_read_file(self, p: Any) -> None:
            opened = contexts.get(p.file_context)
            assert (type(p.file_context), opened.name) == (int, p.file_name)
            opened.reads += 1
            read.append(opened.reads)
            super().on_read_file(p)

        def on_delete_file(self, p: Any) -> None:
            contexts.free(p.file_context)
            super().on_delete_file(p)

        def on_close_file(self, p: Any) -> None:
            closed.append(p.file_name)
            if not fire_all and not p.delete_file:
                contexts.free(p.file_context)

    closed: list[str] = []
    drive = mount(Drive(one=b"1", two=b"2"), file_cache=0, fire_all_open_close_events=fire_all)
    client.run(
        """
        one, two = (os.open(Path(at, name), os.O_RDONLY) for name in ("one", "two"))
        for _ in range(3):
            os.pread(one, 1, 0), os.pread(two, 1, 0)
        os.close(one)
        os.close(two)
        """,
        at=drive.mountpoint,
    )
    assert sorted(read) == [1, 1, 2, 2, 3, 3]
    client.run("os.unlink(Path(at, 'one')); os.unlink(Path(at, 'two'))")
    drive.unmount()
    assert {"/one", "/two"} <= set(closed)
    if not fire_all:
        assert not contexts.kept


def test_no_more_files_is_the_end_of_a_listing(mount: Mounting, client: Client) -> None:
    """What `FindNextFile` says at the end, handed on as it is."""
    closed = []

    class Drive(PlainDrive):
        def on_enumerate_directory(self, p: Any) -> None:
            super().on_enumerate_directory(p)
            if not p.file_found:
                p.result_code = ERROR_NO_MORE_FILES

        def on_close_directory_enumeration(self, p: Any) -> None:
            closed.append(p.enumeration_context)

    drive = Drive(one=b"1", two=b"2")
    drive.add_directory("/empty")
    at = mount(drive).mountpoint
    assert sorted(client.call("os.listdir(at)", at=at)) == ["empty", "one", "two"]
    assert client.call("os.listdir(at + '/empty')") == []
    assert closed == [3, 0]


def test_end_of_file_is_the_end_of_other_lists(mount: Mounting, client: Client) -> None:
    """What `FindNextStreamW` and `FindNextFileNameW` say at the end."""
    closed = []

    class Drive(LinkingDrive):
        def on_enumerate_named_streams(self, p: Any) -> None:
            super().on_enumerate_named_streams(p)
            if not p.named_stream_found:
                p.result_code = ERROR_HANDLE_EOF

        def on_close_named_streams_enumeration(self, p: Any) -> None:
            closed.append("streams")

        def on_enumerate_hard_links(self, p: Any) -> None:
            super().on_enumerate_hard_links(p)
            if not p.link_found:
                p.result_code = ERROR_HANDLE_EOF

        def on_close_hard_links_enumeration(self, p: Any) -> None:
            closed.append("links")

    drive = Drive(file=b"x")
    drive.add("/file:one", b"1")
    at = mount(drive, use_alternate_data_streams=True, use_hard_links=True).mountpoint
    assert client.call("os.listxattr(at + '/file')", at=at) == ["user.one"]
    client.run("import cbfsconnect")
    assert client.call("cbfsconnect.enumerate_hard_links(at + '/file')") == [f"{at}/file"]
    assert closed == ["streams", "links"]


@pytest.mark.parametrize(
    "time",
    [
        datetime(2020, 5, 17, 12),
        datetime(2020, 5, 17, 14, tzinfo=timezone(timedelta(hours=2))),
        datetime(1970, 1, 1) + timedelta(seconds=1_589_716_800.0),
    ],
)
def test_times(mount: Mounting, client: Client, time: datetime) -> None:
    class Drive(PlainDrive):
        def on_get_file_info(self, p: Any) -> None:
            super().on_get_file_info(p)
            p.creation_time = p.last_access_time = p.last_write_time = time
            p.change_time = datetime(1970, 1, 1)  # none

    at = mount(Drive(file=b"")).mountpoint
    seen = client.call("os.stat(at + '/file')", at=at)
    assert (seen.st_atime, seen.st_mtime) == (1_589_716_800, 1_589_716_800)


def test_what_other_editions_have_is_ignored(mount: Mounting, client: Client) -> None:
    """Programs that were written for several editions set what only others have."""

    class Drive(PlainDrive):
        def on_get_file_info(self, p: Any) -> None:
            super().on_get_file_info(p)
            p.reparse_tag, p.ea_size = 0, 0

        def on_get_volume_label(self, p: Any) -> None:
            p.volume_label = "label"

        def on_open_file(self, p: Any) -> None:
            p.not_there = True

    at = mount(Drive(file=b"x")).mountpoint
    assert client.call("Path(at, 'file').read_bytes()", at=at) == b"x"


@pytest.mark.parametrize("code", [-1, 1, 2, 5, 32, 87, 112, 1314, 0xC0000022, 2**40])
def test_any_result_code(mount: Mounting, client: Client, code: int) -> None:
    class Drive(PlainDrive):
        def on_open_file(self, p: Any) -> None:
            if p.file_name != "/":
                p.result_code = code

    at = mount(Drive(file=b"x")).mountpoint
    with pytest.raises(OSError) as failed:  # noqa: PT011 - the errno says it
        client.run("os.open(at + '/file', os.O_RDONLY)", at=at)
    assert failed.value.errno == errno_from_win32(code)
