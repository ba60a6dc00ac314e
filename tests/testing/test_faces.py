"""The ways to run the checks: a function, a command, test classes; and what the record is."""

from __future__ import annotations

import asyncio
import errno
import inspect
import subprocess
import sys
import threading
import unittest
from pathlib import Path
from typing import Any

import pytest

from cbfsconnect import CBFS, CBFSReadFileEventParams, MemoryDrive
from cbfsconnect.testing import CHECKS, DriveTests, Outcome, check_drive
from cbfsconnect.testing.client import Client, ClientTimeout
from cbfsconnect.testing.recording import Recording
from support.breakable import broken
from support.programs import REPOSITORY

FAILING = """
import cbfsconnect

class Silent(cbfsconnect.MemoryDrive):
    def on_write_file(self, e):
        e.bytes_written = e.bytes_to_write

class Deaf:
    on_nothing = None

number = 5
"""


def command(directory: Path, *arguments: str) -> tuple[int, str]:
    """The exit code of `python -m cbfsconnect.testing`, and what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "cbfsconnect.testing", *arguments],
        cwd=directory,
        env={"PYTHONPATH": str(REPOSITORY / "src"), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=100,
        check=False,
        text=True,
    )
    return done.returncode, done.stdout


# --- the command ---


def test_the_command_prints_what_passed_and_what_is_not_supported(tmp_path: Path) -> None:
    code, printed = command(
        tmp_path, "cbfsconnect:MemoryDrive", "--select", "names.rename*", "--select", "locks.*"
    )
    assert code == 0
    assert "passed         names.rename: a renamed file has its new name only" in printed
    assert "  it has no on_lock_file:\n      locks.of_others" in printed
    assert "MemoryDrive: 9 passed, 0 failed, 1 not supported" in printed


def test_the_command_explains_failures_and_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FAILING)
    options = ("--select", "files.write_and_read", "--set", "file_cache=0", "--quiet")
    for name in ("mine:Silent", "./mine.py:Silent"):
        code, printed = command(tmp_path, name, *options)
        assert code == 1
        assert "FAILED         files.write_and_read" in printed
        assert "    did       read('file')\n" in printed
        assert "    expected  b'Hello, drive.\\n'" in printed
        assert "on_write_file(file_name='/check" in printed
        assert "Python, run by another process" in printed


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["mine"], "MODULE:FACTORY"),
        (["mine:nothing"], "nothing"),
        (["nowhere:nothing"], "nowhere"),
        (["mine:number"], "no function or class that makes a drive"),
        (["mine:Silent", "--select", "nothing.*"], "no check is called 'nothing.*'"),
        (["mine:Silent", "--set", "file_cache"], "NAME=VALUE"),
        ([], "name the drive"),
    ],
)
def test_the_command_says_what_it_cannot_do(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    (tmp_path / "mine.py").write_text(FAILING)
    code, printed = command(tmp_path, *arguments)
    assert code == 2
    assert complaint in printed
    assert "Traceback" not in printed


def test_the_command_lists_the_checks(tmp_path: Path) -> None:
    code, printed = command(tmp_path, "--list")
    assert code == 0
    assert [line.split()[0] for line in printed.splitlines()] == list(CHECKS)


# --- test classes ---


class TestChosenChecksOfTheMemoryDrive(DriveTests):
    """Collected by pytest: this class is the test."""

    select = ("names.rename", "names.rename_over")

    def make(self) -> MemoryDrive:
        return MemoryDrive()


def test_a_test_class_has_a_test_for_each_check() -> None:
    class Mine(DriveTests):
        def make(self) -> MemoryDrive:
            return MemoryDrive()

    tests = [name for name in dir(Mine) if name.startswith("test_")]
    assert sorted(tests) == sorted("test_" + name.replace(".", "_") for name in CHECKS)


def test_unittest_runs_the_checks_too() -> None:
    class Broken(DriveTests, unittest.TestCase):
        select = ("files.append", "files.sync", "links.*")
        skip = ("links.hard_names",)
        options = {"file_cache": 0}  # noqa: RUF012

        def make(self) -> Any:
            return broken(on_flush_file=lambda drive, p, right: 1 / 0)()

    result = unittest.TestResult()
    loader = unittest.TestLoader()
    tests = [Broken(name) for name in loader.getTestCaseNames(Broken) if getattr(Broken, name)]
    unittest.TestSuite(tests).run(result)
    assert result.testsRun == 5
    assert [str(test).split()[0] for test, _ in result.failures] == ["test_files_sync"]
    text = result.failures[0][1]
    assert "ZeroDivisionError" in text
    assert "test_faces.py" in text, "the line of the handler"
    assert not result.errors


def test_what_the_drive_does_not_claim_is_skipped() -> None:
    class Lockless(DriveTests):
        select = ("locks.of_others",)

        def make(self) -> MemoryDrive:
            return MemoryDrive()

    test: Any = Lockless()
    with pytest.raises(unittest.SkipTest, match="not supported by this drive: it has no on_lock"):
        test.test_locks_of_others()


def test_a_class_that_makes_no_drive_says_so() -> None:
    class Nothing(DriveTests):
        select = ("names.rename",)

    test: Any = Nothing()
    with pytest.raises(TypeError, match=r"no method make\(self\)"):
        test.test_names_rename()


# --- what is special ---


def test_a_drive_that_cannot_be_mounted_fails_with_the_reason() -> None:
    class Half:
        def on_get_file_info(self, e: Any) -> None:
            e.file_exists = True

    result = check_drive(Half, select="reading.root")["reading.root"]
    assert result.outcome is Outcome.FAILED
    assert "cannot be mounted" in result.message
    assert "on_enumerate_directory" in result.message


def test_a_handler_that_does_not_return_is_shown_where_it_waits() -> None:
    never = threading.Event()

    def wait(drive: Any, p: Any, right: Any) -> None:
        never.wait()

    result = check_drive(broken(on_write_file=wait), select="files.sparse", timeout=1)[
        "files.sparse"
    ]
    never.set()
    assert result.outcome is Outcome.FAILED
    assert "none: no answer within 1 s" in result.message
    assert "waits in  on_write_file" in result.message
    assert "never.wait()" in result.message


@pytest.mark.parametrize("event", ["on_get_file_info", "on_create_file"])
def test_a_drive_that_hangs_before_a_check_begins_is_found_too(event: str) -> None:
    never = threading.Event()

    def wait(drive: Any, p: Any, right: Any) -> None:
        if p.file_name != "/":
            never.wait()
        right(p)

    changes: dict[str, Any] = {event: wait}
    result = check_drive(broken(**changes), select="files.sync", timeout=1)["files.sync"]
    never.set()
    assert result.outcome is Outcome.FAILED
    assert f"waits in  {event}('/check" in result.message
    assert "os.mkdir(name)" in result.message


def test_a_root_that_fails_later_is_explained() -> None:
    calls = iter(range(100))

    def fail(drive: Any, p: Any, right: Any) -> None:
        right(p)
        if p.file_name == "/" and next(calls) > 1:
            raise OSError(errno.EACCES, "no more")

    result = check_drive(broken(on_get_file_info=fail), select="files.sync")["files.sync"]
    assert result.outcome is Outcome.FAILED
    assert "EACCES" in result.message


def test_what_is_claimed_by_properties_counts_with_the_options() -> None:
    report = check_drive(
        MemoryDrive,
        select=["links.hard", "links.symbolic"],
        options={"use_hard_links": False, "use_reparse_points": False},
    )
    assert [r.message for r in report] == [
        "its property use_hard_links is False",
        "its property use_reparse_points is False",
    ]


def test_a_read_only_drive_is_not_written_to() -> None:
    report = check_drive(
        MemoryDrive, select=["files.append", "reading.root"], options={"storage_characteristics": 2}
    )
    assert report["files.append"].message == "it is read-only (STGC_READONLY_DEVICE)"
    assert report["reading.root"].outcome is Outcome.PASSED


def test_names_that_match_no_check_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no check is called 'nothing\.\*'"):
        check_drive(MemoryDrive, skip="nothing.*")


def test_a_coroutine_function_stays_one_in_the_record() -> None:
    async def read(params: CBFSReadFileEventParams) -> None:
        await asyncio.sleep(0)
        params.bytes_read = 3

    class Slots:
        """The attributes of class CBFS, without its rules."""

    cbfs: Any = Slots()
    for name in dir(CBFS):
        if name.startswith("on_"):
            setattr(cbfs, name, None)
    cbfs.on_read_file = read
    recording = Recording()
    recording.wrap(cbfs)
    assert inspect.iscoroutinefunction(cbfs.on_read_file)
    params = CBFSReadFileEventParams("/file", 0, memoryview(bytearray(9)), 9, 1)
    asyncio.run(cbfs.on_read_file(params))
    fired = recording.fired[0]
    assert (fired.name, fired.succeeded) == ("on_read_file", True)
    assert str(fired) == (
        "on_read_file(file_name='/file', position=0, bytes_to_read=9) → "
        r"data=b'\x00\x00\x00', bytes_read=3"
    )


def test_a_client_comes_back_from_its_fork_however_that_ends() -> None:
    with Client() as client:
        for kill in (False, True):
            client.begin()
            assert client.call("os.getpid()") == client.pid != client.process.pid
            client.end(kill=kill)
            assert client.call("os.getpid()") == client.process.pid
        client.begin()
        client.start("os.kill(os.getpid(), 9)")
        with pytest.raises(AssertionError, match="signal 9"):
            client.finish(20)
        client.start("time.sleep(60)")
        with pytest.raises(ClientTimeout):
            client.finish(0.05)
        client.kill()
