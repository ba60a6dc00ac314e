"""Listing directories: seeking, buffers of any size, names that cannot be, and one end each."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbfsconnect import FILE_ATTRIBUTE_DIRECTORY, FILE_ATTRIBUTE_NORMAL
from cbfsconnect.drives.memory import MemoryDrive
from support.kernel import ROOT, Dirent, Kernel, fails


class Shelf:
    """A root directory with these names; enumerations are counted by their context."""

    def __init__(self, *names: Any) -> None:
        self.names = list(names)
        self.begun = 0
        self.restarts = 0
        self.ended: Counter[int] = Counter()
        self.spoil: Callable[[Any], None] = lambda params: None

    def on_get_file_info(self, p: Any) -> None:
        p.file_exists = p.file_name == "/" or p.file_name[1:] in self.names
        root = p.file_name == "/"
        p.attributes = FILE_ATTRIBUTE_DIRECTORY if root else FILE_ATTRIBUTE_NORMAL

    def on_enumerate_directory(self, p: Any) -> None:
        if p.restart or not p.enumeration_context:
            self.restarts += 1
            if not p.enumeration_context:
                self.begun += 1
                p.enumeration_context = [self.begun, 0]
            p.enumeration_context[1] = 0
        at = p.enumeration_context[1]
        if at < len(self.names):
            p.enumeration_context[1] += 1
            p.file_found, p.file_name, p.file_id = True, self.names[at], 1000 + at
            p.attributes = FILE_ATTRIBUTE_NORMAL
            self.spoil(p)

    def on_close_directory_enumeration(self, p: Any) -> None:
        self.ended[p.enumeration_context[0]] += 1

    def check_ends(self) -> None:
        assert self.ended == dict.fromkeys(range(1, self.begun + 1), 1)


NAMES = [f"name{number:02}" for number in range(20)]
ENTRIES = [b".", b"..", *(name.encode() for name in NAMES)]


def listed(kernel: Kernel, plus: bool = False, size: int = 4096) -> list[str]:
    return [entry.name.decode() for entry in kernel.list(plus=plus, size=size)]


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("size", [180, 400, 4096])
def test_every_buffer_size_gives_all_names_once(plus: bool, size: int) -> None:
    shelf = Shelf(*NAMES)
    with Kernel(shelf) as kernel:
        assert listed(kernel, plus, size) == NAMES
        kernel.let_go()
    shelf.check_ends()
    assert shelf.begun == 1


def test_an_entry_is_as_long_as_its_name_needs() -> None:
    """Names of every length, in buffers that end anywhere."""
    names = ["x" * length for length in range(1, 60)]
    with Kernel(Shelf(*names)) as kernel:
        for size in range(216, 300, 8):
            assert listed(kernel, True, size) == names
        kernel.let_go()


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, len(ENTRIES)), st.sampled_from([180, 400, 4096]), st.booleans()),
        min_size=1,
        max_size=8,
    )
)
def test_a_listing_goes_on_wherever_the_reader_seeks(steps: list[tuple[int, int, bool]]) -> None:
    shelf = Shelf(*NAMES)
    with Kernel(shelf) as kernel:
        fh = kernel.opendir()
        offsets = [0]
        while part := kernel.readdir(ROOT, fh, offsets[-1]):
            offsets += [entry.offset for entry in part]
        assert len(offsets) == len(set(offsets)) == len(ENTRIES) + 1
        for index, size, plus in steps:
            part = kernel.readdir(ROOT, fh, offsets[index], size, plus)
            expected = ENTRIES[index : index + len(part)]
            assert [entry.name for entry in part] == expected
            assert part or index == len(ENTRIES)
        kernel.let_go()
    shelf.check_ends()


def test_a_rewound_listing_begins_anew() -> None:
    shelf = Shelf(*NAMES)
    with Kernel(shelf) as kernel:
        fh = kernel.opendir()
        kernel.readdir(ROOT, fh, 0, 400)
        shelf.names = ["other"]
        assert [e.name for e in kernel.readdir(ROOT, fh, 0)] == [b".", b"..", b"other"]
        kernel.let_go()
    shelf.check_ends()


def test_readers_of_one_directory_have_a_listing_each() -> None:
    shelf = Shelf(*NAMES)
    with Kernel(shelf) as kernel:
        one, two = kernel.opendir(), kernel.opendir()
        first = kernel.readdir(ROOT, one, 0, 200)
        assert kernel.readdir(ROOT, two, 0, 200) == first
        kernel.let_go()
    assert shelf.begun == 2
    shelf.check_ends()


@pytest.mark.parametrize("count", [0, 1])
def test_a_listing_that_never_began_does_not_end(count: int) -> None:
    shelf = Shelf(*NAMES)
    with Kernel(shelf) as kernel:
        fh = kernel.opendir()
        for _ in range(count):
            kernel.readdir(ROOT, fh)
        kernel.releasedir(ROOT, fh)
    assert shelf.begun == count
    shelf.check_ends()


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "nul\0", "x" * 256, "ä" * 128, "\ud800", None, 5, b"bytes", ["list"]],
)
@pytest.mark.parametrize("plus", [False, True])
def test_names_that_cannot_be_are_left_out(
    name: Any, plus: bool, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf("good", name, "better")
    with Kernel(shelf) as kernel:
        assert listed(kernel, plus) == ["good", "better"]
        kernel.let_go()
    if name not in (".", ".."):
        assert "cannot be the name of a file" in caplog.text


def test_names_that_are_not_utf_8_come_as_they_are() -> None:
    with Kernel(Shelf("\udcff\udc80", "ü")) as kernel:
        assert [entry.name for entry in kernel.list()] == [b"\xff\x80", "ü".encode()]


@pytest.mark.parametrize(
    ("name", "value"),
    [("mode", "x"), ("mode", 0o170000), ("size", -1), ("size", 1 << 63), ("uid", 1 << 40)],
)
def test_attributes_that_cannot_be_leave_the_entry_out(
    name: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf("good", "bad", "better")

    def spoil(params: Any) -> None:
        if params.file_name == "bad":
            setattr(params, name, value)

    shelf.spoil = spoil
    with Kernel(shelf) as kernel:
        assert listed(kernel, plus=True) == ["good", "better"]
        kernel.let_go()
    assert name in caplog.text


@pytest.mark.parametrize("bad", ["name", "attributes"])
def test_a_handler_that_gives_only_nonsense_is_not_asked_for_ever(bad: str) -> None:
    shelf = Shelf("x")

    def endless(params: Any) -> None:
        params.enumeration_context[1] = 0
        if bad == "name":
            params.file_name = "a/b"
        else:
            params.size = -1

    shelf.spoil = endless
    logging.getLogger("cbfsconnect").setLevel(logging.CRITICAL + 1)
    try:
        with Kernel(shelf) as kernel:
            fh = kernel.opendir()
            kernel.readdir(ROOT, fh, 0, plus=True)  # the dots come first
            with fails(errno.EIO):
                kernel.readdir(ROOT, fh, 2, plus=True)
            kernel.let_go()
    finally:
        logging.getLogger("cbfsconnect").setLevel(logging.NOTSET)
    shelf.check_ends()


def test_an_error_comes_after_the_names_before_it_and_only_once() -> None:
    shelf = Shelf(*NAMES)
    failing = True

    def fail(params: Any) -> None:
        if failing and params.file_name == "name05":
            raise OSError(errno.EACCES, "no")

    shelf.spoil = fail
    with Kernel(shelf) as kernel:
        fh = kernel.opendir()
        part = kernel.readdir(ROOT, fh)
        assert [entry.name for entry in part] == ENTRIES[:7]
        with fails(errno.EACCES):
            kernel.readdir(ROOT, fh, part[-1].offset)
        failing = False
        rest = kernel.readdir(ROOT, fh, part[-1].offset)
        assert rest[-1].name == b"name19"
        kernel.let_go()
    shelf.check_ends()


def test_attributes_in_a_listing_are_those_of_the_item() -> None:
    with Kernel(MemoryDrive()) as kernel:
        entry = kernel.create("f", mode=0o100640)
        kernel.write(entry.nodeid, entry.fh, b"12345")
        directory = kernel.mkdir("d").nodeid
        found: dict[bytes, Dirent] = {e.name: e for e in kernel.list(plus=True)}
        for name, nodeid in ((b"f", entry.nodeid), (b"d", directory)):
            assert found[name].nodeid == nodeid
            assert found[name].attr == kernel.getattr(nodeid)
            assert found[name].type == kernel.getattr(nodeid).mode >> 12
        kernel.let_go()


def test_entries_that_did_not_fit_are_not_counted() -> None:
    """A node of an entry that was not told would never be forgotten."""
    with Kernel(Shelf(*NAMES)) as kernel:
        fh = kernel.opendir()
        for _ in range(3):
            kernel.readdir(ROOT, fh, 0, 500, plus=True)
        kernel.let_go()
