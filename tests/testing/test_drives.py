"""Drives that are right pass the checks of `cbfsconnect.testing`, as far as they claim."""

from __future__ import annotations

import importlib.util
import sys
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
    "locks.of_others",
    "reading.sizes",
    "reading.pieces",
}
"""Not supported by the memory drive: nobody else has its storage, and it is empty at first."""

SETTINGS: dict[str, dict[str, Any]] = {
    "as_it_is": {},
    "fire_all": {"options": {"fire_all_open_close_events": True}},
    "no_cache": {"options": {"file_cache": 0}},
    "as_windows_programs": {
        "options": {"fire_all_open_close_events": True},
        "config": {
            "PosixDelete": False,
            "FireSetFileSizeOnWrite": True,
            "FileCachePolicyWriteThrough": True,
            "MetadataCacheTimeout": 0,
        },
    },
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_the_memory_drive_passes_whole(settings: dict[str, Any]) -> None:
    report = check_drive(MemoryDrive, **settings)
    report.raise_failures()
    assert {result.name for result in report.not_supported} == OF_MEMORY
    assert [result.name for result in report] == list(CHECKS)


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


def ported(directory: str) -> CBFS:
    """The folder mirror in the Windows way: a module, which has one drive."""
    specification = importlib.util.find_spec("ported_folder_mirror")
    assert specification is not None
    assert specification.loader is not None
    program: Any = importlib.util.module_from_spec(specification)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ported_folder_mirror", program)  # its dataclasses want that
        specification.loader.exec_module(program)
    program.folder = directory
    program.assign_handlers(True)
    drive: CBFS = program.drive
    drive.config(f"SectorSize={program.SECTOR_SIZE}")
    return drive


@pytest.mark.parametrize("fire_all", [False, True])
def test_the_worked_port_passes_what_it_claims(fire_all: bool) -> None:
    skip = () if fire_all else ("contexts.*", "directories.big")
    report = check_drive(ported, options={"fire_all_open_close_events": fire_all}, skip=skip)
    report.raise_failures()
    names = {result.name for result in report.passed}
    assert {"durability.fsync", "locks.of_others", "files.every_byte"} <= names


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
    check_drive(broken(), select=["reading.*", "names.*", "links.*"]).raise_failures()


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
