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


def test_the_driver_is_the_kernels_fuse() -> None:
    drive = CBFS()
    assert drive.get_driver_status(GUID, MODULE_DRIVER) == MODULE_STATUS_RUNNING
    assert drive.get_driver_status(GUID, MODULE_PNP_BUS) == MODULE_STATUS_NOT_PRESENT
    major, minor = os.uname().release.split(".")[:2]
    version = drive.get_module_version(GUID, MODULE_DRIVER)
    assert (version >> 48, version >> 32 & 0xFFFF) == (int(major), int(minor))
    assert drive.get_module_version(GUID, MODULE_PNP_BUS) == 0


def test_the_helper_is_fusermount3() -> None:
    assert CBFS().get_module_version(GUID, MODULE_HELPER_DLL) >> 48 == 3


def test_what_is_no_module_is_refused() -> None:
    for call in (CBFS().get_driver_status, CBFS().get_module_version):
        with pytest.raises(CBFSConnectError) as refused:
            call(GUID, 0x1000)
        assert refused.value.code == cbfsconnect.ERROR_INVALID_PARAMETER


def test_installing_finds_everything_there() -> None:
    modules = MODULE_DRIVER | MODULE_HELPER_DLL
    assert CBFS().install(None, GUID, None, modules, 0) == 0
    assert CBFS().uninstall(None, GUID, None, 0) == 0


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


def test_an_ordinary_directory_is_no_drive(tmp_path: Path) -> None:
    assert not CBFS.is_cbfs_volume(str(tmp_path))
