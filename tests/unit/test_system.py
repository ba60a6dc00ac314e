"""The methods about the machine: they tell the truth, and install nothing."""

import os
from pathlib import Path

import pytest

import cbfsconnect
from cbfsconnect import (
    CBFS,
    MODULE_DRIVER,
    MODULE_HELPER_DLL,
    MODULE_PNP_BUS,
    MODULE_STATUS_NOT_PRESENT,
    MODULE_STATUS_RUNNING,
    CBFSConnectError,
)

GUID = "{0A7B4C1E-5E0D-4B52-9C55-5A0F4C6B7D21}"


@pytest.mark.proves("get_driver_status", "get_module_version")
def test_the_driver_is_the_kernels_fuse() -> None:
    drive = CBFS()
    assert drive.get_driver_status(GUID, MODULE_DRIVER) == MODULE_STATUS_RUNNING
    assert drive.get_driver_status(GUID, MODULE_PNP_BUS) == MODULE_STATUS_NOT_PRESENT
    major, minor = os.uname().release.split(".")[:2]
    version = drive.get_module_version(GUID, MODULE_DRIVER)
    assert (version >> 48, version >> 32 & 0xFFFF) == (int(major), int(minor))
    assert drive.get_module_version(GUID, MODULE_PNP_BUS) == 0


@pytest.mark.proves("get_module_version")
def test_the_helper_is_fusermount3() -> None:
    assert CBFS().get_module_version(GUID, MODULE_HELPER_DLL) >> 48 == 3


def test_what_is_no_module_is_refused() -> None:
    for call in (CBFS().get_driver_status, CBFS().get_module_version):
        with pytest.raises(CBFSConnectError) as refused:
            call(GUID, 0x1000)
        assert refused.value.code == cbfsconnect.ERROR_INVALID_PARAMETER


@pytest.mark.proves("install", "uninstall")
def test_installing_finds_everything_there() -> None:
    modules = MODULE_DRIVER | MODULE_HELPER_DLL
    assert CBFS().install(None, GUID, None, modules, 0) == 0
    assert CBFS().uninstall(None, GUID, None, 0) == 0


@pytest.mark.proves(
    "register_icon", "unregister_icon", "is_icon_registered", "set_icon", "reset_icon"
)
def test_icons_are_registered_chosen_and_forgotten(tmp_path: Path) -> None:
    icon = tmp_path / "drive.ico"
    icon.touch()
    drive = CBFS()
    with pytest.raises(CBFSConnectError):
        drive.set_icon("test-icon")
    assert drive.register_icon(str(icon), GUID, "test-icon") is False
    assert drive.is_icon_registered("test-icon")
    drive.set_icon("test-icon")
    drive.reset_icon()
    assert drive.unregister_icon(GUID, "test-icon") is False
    assert not drive.is_icon_registered("test-icon")
    with pytest.raises(CBFSConnectError):
        drive.register_icon(str(tmp_path / "none.ico"), GUID, "other")


def test_what_needs_root_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CBFSConnectError) as refused:
        CBFS().install(None, GUID, None, MODULE_DRIVER, 0)
    assert refused.value.code == cbfsconnect.ERROR_PRIVILEGE_NOT_HELD


class FakeShutdown:
    """A program that stands for shutdown(8), and is the only one there is."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told = folder / "told"
        self.program = folder / "shutdown"
        monkeypatch.setenv("PATH", str(folder))
        self.become("")

    def become(self, end: str) -> None:
        self.program.write_text(
            f'#!/bin/sh\nfor word in "$@"; do echo "$word"; done > {self.told}\n{end}\n'
        )
        self.program.chmod(0o755)

    def words(self) -> list[str]:
        return self.told.read_text().splitlines()


@pytest.fixture
def fake_shutdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeShutdown:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return FakeShutdown(tmp_path, monkeypatch)


@pytest.mark.proves("shutdown_system")
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("Going down", 0, False, False), ["-P", "--", "now", "Going down"]),
        (("-h me", 1, True, True), ["-r", "--", "+1", "-h me"]),
        (("", 61, False, True), ["-r", "--", "+2"]),
    ],
)
def test_the_machine_is_shut_down_by_its_own_program(
    fake_shutdown: FakeShutdown, given: tuple[str, int, bool, bool], words: list[str]
) -> None:
    assert CBFS().shutdown_system(*given) is True
    assert fake_shutdown.words() == words


def test_a_shutdown_that_is_refused_says_why(fake_shutdown: FakeShutdown) -> None:
    fake_shutdown.become("echo 'somebody is burning a disc' >&2; exit 1")
    with pytest.raises(CBFSConnectError, match="burning a disc") as refused:
        CBFS().shutdown_system("", 0, False, False)
    assert refused.value.code == cbfsconnect.ERROR_ACCESS_DENIED


def test_a_shutdown_needs_its_program(fake_shutdown: FakeShutdown) -> None:
    fake_shutdown.program.unlink()
    with pytest.raises(CBFSConnectError, match="shutdown") as refused:
        CBFS().shutdown_system("", 0, False, False)
    assert refused.value.code == cbfsconnect.ERROR_FILE_NOT_FOUND


def test_a_shutdown_needs_root_and_a_time_to_come(
    fake_shutdown: FakeShutdown, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CBFSConnectError) as refused:
        CBFS().shutdown_system("", -1, False, False)
    assert refused.value.code == cbfsconnect.ERROR_INVALID_PARAMETER
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CBFSConnectError) as refused:
        CBFS().shutdown_system("", 0, False, False)
    assert refused.value.code == cbfsconnect.ERROR_PRIVILEGE_NOT_HELD
    assert not fake_shutdown.told.exists()


@pytest.mark.proves("is_cbfs_volume")
def test_an_ordinary_directory_is_no_drive(tmp_path: Path) -> None:
    assert not CBFS.is_cbfs_volume(str(tmp_path))
