"""Deleting and replacing items that are open: what clients see, and what handlers are told."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cbfsconnect.drives.memory import MemoryDrive
from cbfsconnect.errors import ERROR_ACCESS_DENIED
from support.kernel import ROOT, Kernel, fails
from support.plain import PlainDrive
from support.recorder import Recorder

EXCHANGE, NOREPLACE = 2, 1
GONE = ["on_close_file", "on_delete_file"]


@contextmanager
def plain(**properties: Any) -> Iterator[tuple[Kernel, Recorder, PlainDrive]]:
    drive = PlainDrive(a=b"A", b=b"B")
    drive.add_directory("/d")
    drive.add("/d/inner", b"I")
    record = Recorder(drive)
    with Kernel(record, **properties) as kernel:
        yield kernel, record, drive
        kernel.let_go()


def test_a_closed_item_is_deleted_when_its_own_handle_closes() -> None:
    with plain() as (kernel, record, drive):
        kernel.lookup("a")
        kernel.unlink("a")
        assert record.names("on_open_file", "on_can_file_be_deleted", *GONE) == [
            "on_open_file",
            "on_can_file_be_deleted",
            *GONE,
        ]
        assert record.one("on_close_file").delete_file is True
        assert "/a" not in drive.items


def test_an_open_item_vanishes_at_once_and_is_deleted_with_its_last_handle() -> None:
    with plain() as (kernel, record, drive):
        node = kernel.lookup("a").nodeid
        one, two = kernel.open(node), kernel.open(node)
        kernel.unlink("a")
        with fails(errno.ENOENT):
            kernel.lookup("a")
        with fails(errno.ENOENT):
            kernel.unlink("a")
        assert b"a" not in [entry.name for entry in kernel.list()]
        assert kernel.read(node, one) == b"A"
        assert kernel.getattr(node).nlink == 0
        kernel.close(node, one)
        assert kernel.read(node, two) == b"A"
        assert not record.all("on_delete_file")
        kernel.close(node, two)
        assert record.one("on_delete_file").file_name == "/a"
        assert "/a" not in drive.items


def test_the_name_of_a_deleted_open_item_is_free() -> None:
    with plain() as (kernel, record, drive):
        node = kernel.lookup("a").nodeid
        fh = kernel.open(node)
        kernel.unlink("a")
        new = kernel.create("a")
        assert new.nodeid != node
        aside = record.one("on_rename_or_move_file").new_file_name
        assert drive.items[aside].data == b"A"
        kernel.write(new.nodeid, new.fh, b"new")
        assert kernel.read(node, fh) == b"A"
        assert [entry.name for entry in kernel.list() if b"a" in entry.name] == [b"a"]
        kernel.close(node, fh)
        assert record.one("on_delete_file").file_name == aside
        assert drive.items["/a"].data == b"new"


def test_a_rename_over_an_open_item_keeps_its_data_for_those_who_have_it() -> None:
    with plain() as (kernel, record, drive):
        node = kernel.lookup("b").nodeid
        fh = kernel.open(node)
        kernel.rename("a", "b")
        assert kernel.read(node, fh) == b"B"
        assert drive.items["/b"].data == b"A"
        kernel.close(node, fh)
        assert drive.items["/b"].data == b"A"
        assert len(record.all("on_delete_file")) == 1


def test_a_rename_that_fails_leaves_the_open_target_as_it_was() -> None:
    with plain() as (kernel, record, drive):
        node = kernel.lookup("b").nodeid
        fh = kernel.open(node)

        def refuse(params: Any) -> None:
            if params.new_file_name == "/b" and params.file_name == "/a":
                params.result_code = ERROR_ACCESS_DENIED
            else:
                drive.on_rename_or_move_file(params)

        record.instead["on_rename_or_move_file"] = refuse
        with fails(errno.EACCES):
            kernel.rename("a", "b")
        assert kernel.lookup("b").nodeid == node
        assert kernel.read(node, fh) == b"B"
        kernel.close(node, fh)
        assert drive.items["/b"].data == b"B"
        assert not record.all("on_delete_file")


def test_a_rename_that_fails_does_not_bring_a_deleted_target_back() -> None:
    with plain() as (kernel, record, drive):
        node = kernel.lookup("b").nodeid
        fh = kernel.open(node)
        kernel.unlink("b")

        def refuse(params: Any) -> None:
            if params.file_name == "/a":
                params.result_code = ERROR_ACCESS_DENIED
            else:
                drive.on_rename_or_move_file(params)

        record.instead["on_rename_or_move_file"] = refuse
        with fails(errno.EACCES):
            kernel.rename("a", "b")
        with fails(errno.ENOENT):
            kernel.lookup("b")
        kernel.close(node, fh)
        assert sorted(drive.items) == ["/a", "/d", "/d/inner"]


def test_a_directory_with_deleted_open_items_can_be_removed() -> None:
    with plain() as (kernel, _record, drive):
        directory = kernel.lookup("d").nodeid
        inner = kernel.lookup("inner", directory).nodeid
        fh = kernel.open(inner)
        kernel.unlink("inner", directory)
        kernel.rmdir("d")
        assert kernel.read(inner, fh) == b"I"
        kernel.close(inner, fh)
        assert sorted(drive.items) == ["/a", "/b"]


def test_a_directory_that_has_entries_is_not_removed() -> None:
    with plain() as (kernel, _record, drive):
        with fails(errno.ENOTEMPTY):
            kernel.rmdir("d")
        assert "/d" in drive.items


@pytest.mark.parametrize("open_", [False, True])
def test_a_deletion_can_be_refused(open_: bool) -> None:
    with plain() as (kernel, record, drive):

        def keep(params: Any) -> None:
            params.can_be_deleted = False

        record.instead["on_can_file_be_deleted"] = keep
        node = kernel.lookup("a").nodeid
        fh = kernel.open(node) if open_ else 0
        with fails(errno.EACCES):
            kernel.unlink("a")
        if open_:
            kernel.close(node, fh)
        assert kernel.lookup("a").nodeid == node
        assert "/a" in drive.items


def test_a_deletion_that_fails_at_the_end_leaves_the_item() -> None:
    with plain() as (kernel, record, _drive):

        def fail(params: Any) -> None:
            raise OSError(errno.EROFS, "no")

        record.instead["on_delete_file"] = fail
        with fails(errno.EROFS):
            kernel.unlink("a")
        assert kernel.lookup("a").attr.size == 1


def test_the_end_of_the_drive_finishes_deletions() -> None:
    drive = PlainDrive(a=b"A")
    with Kernel(drive) as kernel:
        kernel.open(kernel.lookup("a").nodeid)
        kernel.unlink("a")
        assert "/a" in drive.items
    assert not drive.items


@pytest.fixture
def memory() -> Iterator[Kernel]:
    with Kernel(MemoryDrive()) as kernel:
        yield kernel
        kernel.let_go()


def test_a_drive_that_can_delete_open_items_is_told_at_once(memory: Kernel) -> None:
    entry = memory.create("f")
    memory.write(entry.nodeid, entry.fh, b"data")
    memory.unlink("f")
    new = memory.create("f")
    assert memory.read(entry.nodeid, entry.fh) == b"data"
    assert memory.read(new.nodeid, new.fh) == b""
    assert memory.getattr(entry.nodeid).nlink == 0
    assert new.nodeid != entry.nodeid


def test_other_links_stay_when_one_is_deleted_or_replaced() -> None:
    drive = MemoryDrive()
    with Kernel(drive, config={"PosixDelete": False}) as kernel:
        entry = kernel.create("one")
        kernel.write(entry.nodeid, entry.fh, b"data")
        for name in ("two", "three"):
            assert kernel.link(entry.nodeid, name).nodeid == entry.nodeid
        kernel.unlink("one")
        assert kernel.lookup("two").attr.nlink == 2
        kernel.create("new")
        kernel.rename("new", "two")
        found = kernel.lookup("three")
        assert (found.nodeid, found.attr.nlink) == (entry.nodeid, 1)
        assert kernel.read(entry.nodeid, entry.fh) == b"data"
        kernel.close(entry.nodeid, entry.fh)
        assert kernel.lookup("three").attr.size == 4
        kernel.let_go()


@pytest.mark.parametrize("posix", [True, False])
def test_a_link_that_was_not_looked_up_is_the_same_file_still(posix: bool) -> None:
    """Another node would be another inode of the kernel, with a cache of its own."""
    with Kernel(MemoryDrive(), config={"PosixDelete": posix}) as kernel:
        made = kernel.create("one")
        kernel.link(made.nodeid, "two")
        kernel.close(made.nodeid, made.fh)
        kernel.forget(made.nodeid, kernel.told[made.nodeid])
        node = kernel.lookup("one").nodeid
        fh = kernel.open(node)
        kernel.unlink("one")
        assert kernel.lookup("two").nodeid == node
        kernel.write(node, fh, b"data")
        kernel.unlink("two")
        assert kernel.create("three").nodeid != node
        kernel.let_go()


# --- renaming -------------------------------------------------------------------------------------


def test_flags_of_renames(memory: Kernel) -> None:
    one = memory.mknod("one", 0o100644).nodeid
    memory.mknod("two", 0o100644)
    with fails(errno.EEXIST):
        memory.rename("one", "two", flags=NOREPLACE)
    with fails(errno.ENOENT):
        memory.rename("one", "nothing", flags=EXCHANGE)
    for flags in (4, EXCHANGE | 4):
        with fails(errno.EINVAL):
            memory.rename("one", "two", flags=flags)
    memory.rename("one", "three", flags=NOREPLACE)
    memory.rename("three", "two", flags=EXCHANGE)
    assert memory.lookup("two").nodeid == one
    with fails(errno.ENOENT):
        memory.rename("nothing", "two")


def test_a_directory_is_not_moved_into_itself(memory: Kernel) -> None:
    outer = memory.mkdir("outer").nodeid
    inner = memory.mkdir("inner", outer).nodeid
    for target in (outer, inner):
        with fails(errno.EINVAL):
            memory.rename("outer", "x", ROOT, target)


def test_paths_below_a_renamed_directory_are_the_new_ones() -> None:
    with plain() as (kernel, record, _drive):
        directory = kernel.lookup("d").nodeid
        inner = kernel.lookup("inner", directory).nodeid
        fh = kernel.open(inner)
        kernel.rename("d", "moved")
        kernel.write(inner, fh, b"new")
        assert record.one("on_write_file").file_name == "/moved/inner"


@pytest.mark.parametrize("fire_all", [False, True])
def test_handles_are_closed_and_opened_around_a_slow_rename(fire_all: bool) -> None:
    options = {"config": {"FastRenameMove": False}, "fire_all_open_close_events": fire_all}
    with plain(**options) as (kernel, record, _drive):
        node = kernel.lookup("a").nodeid
        handles = [kernel.open(node) for _ in range(2)]
        record.clear()
        kernel.rename("a", "c")
        each = 2 if fire_all else 1
        assert record.names() == [
            *["on_cleanup_file", "on_close_file"] * each,
            "on_rename_or_move_file",
            *["on_open_file"] * each,
            *record.names()[each * 3 + 1 :],
        ]
        assert kernel.read(node, handles[0]) == b"A"


@pytest.mark.parametrize("fire_all", [False, True])
@pytest.mark.parametrize("refused", [0, 1])
def test_all_handles_are_closed_when_one_cannot_be_opened_after_a_rename(
    fire_all: bool, refused: int
) -> None:
    options = {"config": {"FastRenameMove": False}, "fire_all_open_close_events": fire_all}
    with plain(**options) as (kernel, record, _drive):
        node = kernel.lookup("a").nodeid
        handles = [kernel.open(node) for _ in range(2)]
        opened: list[Any] = []

        def refuse(params: Any) -> None:
            opened.append(params)
            if len(opened) > refused:
                params.result_code = ERROR_ACCESS_DENIED

        record.instead["on_open_file"] = refuse
        kernel.rename("a", "c")
        record.instead.clear()
        closed = len(record.all("on_close_file"))
        if fire_all or not refused:
            for fh in handles:
                with fails(errno.EBADF):
                    kernel.read(node, fh)
                kernel.release(node, fh)
            assert len(record.all("on_close_file")) == closed
        assert kernel.lookup("c").nodeid == node
        fh = kernel.open(node)
        assert kernel.read(node, fh) == b"A"


# --- a drive that changes by itself ---------------------------------------------------------------


def test_an_item_that_the_drive_removed_is_another_when_it_is_made_again() -> None:
    with plain(use_hard_links=False) as (kernel, _record, drive):
        old = kernel.lookup("a").nodeid
        fh = kernel.open(old)
        del drive.items["/a"]
        with fails(errno.ENOENT):
            kernel.lookup("a")
        new = kernel.create("a")
        assert new.nodeid != old
        kernel.release(old, fh)
        kernel.unlink("a")
        assert kernel.getattr(new.nodeid).nlink == 0


def test_a_file_that_became_a_directory_is_stale() -> None:
    with plain() as (kernel, _record, drive):
        old = kernel.lookup("a").nodeid
        del drive.items["/a"]
        drive.add_directory("/a")
        for call in (kernel.getattr, kernel.statx):
            with fails(errno.ESTALE):
                call(old)
        assert kernel.lookup("a").nodeid != old


def test_a_file_made_by_somebody_else_meanwhile_is_opened_and_cut() -> None:
    with plain() as (kernel, record, _drive):

        def exists(params: Any) -> None:
            raise OSError(errno.EEXIST, "there")

        record.instead["on_create_file"] = exists
        entry = kernel.create("a", flags=os.O_RDWR | os.O_TRUNC)
        assert entry.attr.size == 0
        assert record.one("on_set_file_size").size == 0
        kernel.close(entry.nodeid, entry.fh)
        with fails(errno.EEXIST):
            kernel.create("a", flags=os.O_RDWR | os.O_EXCL)
        with fails(errno.ESTALE):
            kernel.create("d")


class CaselessDrive(PlainDrive):
    """Takes any spelling of a name and tells the stored one."""

    def on_get_file_info(self, p: Any) -> None:
        stored = {path.casefold(): path for path in self.items}.get(p.file_name.casefold())
        if stored is not None:
            p.real_file_name = stored.rpartition("/")[2]
            p.file_exists, p.attributes, p.mode = True, 0x80, 0o100644
        elif p.file_name == "/":
            super().on_get_file_info(p)


def test_any_spelling_deletes_and_renames_the_one_item() -> None:
    record = Recorder(CaselessDrive(a=b"A", b=b"B"))
    with Kernel(record) as kernel:
        node = kernel.lookup("A").nodeid
        assert kernel.lookup("a").nodeid == node
        fh = kernel.open(node)
        kernel.rename("A", "c")
        assert record.one("on_rename_or_move_file").file_name == "/a"
        kernel.unlink("C")
        assert not record.all("on_delete_file")  # it is open
        kernel.close(node, fh)
        assert record.one("on_delete_file").file_name == "/c"
        kernel.let_go()
