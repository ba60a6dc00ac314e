"""Drives that are right pass the checks of `cbfsconnect.testing`, as far as they claim."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from dictionary import DictionaryDrive
from hello import Hello
from mirror import Mirror
from tutorial import Notes

from cbfsconnect import CBFS, MemoryDrive
from cbfsconnect.testing import CHECKS, Outcome, check_drive
from support.breakable import LockingDrive, LockingMirror, StoredDictionary, broken

OF_MEMORY = {
    "durability.fsync",
    *(name for name in CHECKS if name.startswith("locks.")),
    "reading.sizes",
    "reading.pieces",
}
"""Not supported by the memory drive: it leaves locks to the library, and is empty at first."""

SETTINGS: dict[str, dict[str, Any]] = {
    "as_it_is": {},
    "fire_all": {"fire_all_open_close_events": True},
    "no_cache": {"file_cache": 0},
    "fire_all_no_cache": {"fire_all_open_close_events": True, "file_cache": 0},
}


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS.keys())
def test_the_memory_drive_passes_whole(options: dict[str, Any]) -> None:
    report = check_drive(MemoryDrive, options=options)
    report.raise_failures()
    assert {result.name for result in report.not_supported} == OF_MEMORY
    assert [result.name for result in report] == list(CHECKS)


def test_the_memory_drive_passes_as_windows_programs_delete_and_with_write_through() -> None:
    config = {
        "PosixDelete": False,
        "FireSetFileSizeOnWrite": True,
        "FileCachePolicyWriteThrough": True,
        "MetadataCacheTimeout": 0,
    }
    check_drive(MemoryDrive, config=config).raise_failures()


@contextmanager
def dictionary() -> Iterator[DictionaryDrive]:
    """The factory may be a context manager."""
    yield DictionaryDrive({"docs": {"readme": b"hello\n" * 1000}, "empty": b""})


@pytest.mark.parametrize("factory", [dictionary, Mirror, Notes, Hello])
def test_the_examples_pass_what_they_claim(factory: Any) -> None:
    report = check_drive(factory)
    report.raise_failures()
    names = {result.name for result in report.passed}
    if factory is Hello:
        assert not any(name.startswith("files.") for name in names)
        assert {"reading.sizes", "contexts.nothing_left_of_files"} <= names
    else:
        assert {"files.every_byte", "names.rename_over"} <= names
    assert ("durability.fsync" in names) == (factory is Mirror)


@pytest.mark.parametrize("factory", [LockingDrive, LockingMirror])
def test_drives_that_handle_locks_pass_their_checks(factory: Any) -> None:
    report = check_drive(factory, select="locks.*")
    report.raise_failures()
    assert {r.name for r in report.not_supported} <= {"locks.of_others"}
    assert report["locks.of_others"].outcome is (
        Outcome.PASSED if factory is LockingMirror else Outcome.NOT_SUPPORTED
    )


def test_a_drive_that_stores_at_fsync_is_durable() -> None:
    report = check_drive(StoredDictionary, select="durability.*")
    assert [result.outcome for result in report] == [Outcome.PASSED] * 2, str(report)


def test_the_drives_that_are_broken_elsewhere_are_right_by_themselves() -> None:
    check_drive(broken(), skip=["contexts.*", "locks.*", "directories.big"]).raise_failures()


def test_an_object_of_class_cbfs_may_be_checked() -> None:
    def make() -> CBFS:
        notes: Any = Notes()  # type: ignore[no-untyped-call]
        drive = CBFS()
        drive.on_get_file_info = notes.on_get_file_info
        drive.on_enumerate_directory = notes.on_enumerate_directory
        drive.on_open_file = notes.on_open_file
        drive.on_read_file = notes.on_read_file
        return drive

    report = check_drive(make)
    report.raise_failures()
    assert report["reading.sizes"].outcome is Outcome.PASSED
    assert report["files.append"].message == "it has no on_create_file"
