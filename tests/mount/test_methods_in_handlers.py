"""Which methods may be called inside handlers: as tools/conformance.toml says."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

import cbfsconnect as c
from support.client import Client
from support.mounts import Mounting
from support.plain import PlainDrive
from support.proving import CONTRACT
from support.serving import serve

RULES = tomllib.loads(
    (Path(__file__).parents[2] / "tools" / "conformance.toml").read_text(encoding="utf-8")
)["methods"]
GUID = "{0A7B4C1E-5E0D-4B52-9C55-5A0F4C6B7D21}"
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "add_denied_process": ("", 1, False, 3),
    "add_granted_process": ("", 1, False, 3),
    "add_mounting_point": ("/nowhere", 0, 0),
    "config": ("SectorSize",),
    "delete_storage": (True,),
    "disable_route_cache": (False,),
    "enable_route_cache": ("/nowhere", 0),
    "file_matches_mask": ("*", "x", False),
    "flush_file": ("/file", 0, 0, True),
    "get_driver_status": (GUID, c.MODULE_DRIVER),
    "get_handle_creator_process_id": (0,),
    "get_handle_creator_process_name": (0,),
    "get_handle_creator_thread_id": (0,),
    "get_handle_creator_token": (0,),
    "get_module_version": (GUID, c.MODULE_PNP_BUS),
    "initialize": (GUID,),
    "install": (None, GUID, None, 0, 0),
    "is_cbfs_volume": ("/",),
    "is_icon_registered": ("none",),
    "mount_media": (0,),
    "notify_directory_change": ("/file", c.CBFS_NOTIFY_FLAG_MODIFIED, True),
    "register_icon": ("/nowhere", GUID, "none"),
    "remove_denied_process": ("", 1),
    "remove_granted_process": ("", 1),
    "remove_mounting_point": (0, "", 0, 0),
    "reset_timeout": (5000,),
    "route_to_file": (0, "/nowhere", 0),
    "set_icon": ("none",),
    "uninstall": (None, GUID, None, 0),
    "unmount_media": (True,),
    "unregister_icon": (GUID, "none"),
}
METHODS = [n for n in CONTRACT["methods"] if n != "shutdown_system"]
"""That one is tried with a program in place of shutdown(8), in tests/unit/test_system.py."""


def code_of(cbfs: c.CBFS, name: str, file_info: int = 0) -> int:
    """What a call raises; 0: nothing."""
    arguments = ARGUMENTS.get(name, ())
    if name == "route_to_file":
        arguments = (file_info, *arguments[1:])
    try:
        result = getattr(cbfs, name)(*arguments)
    except c.CBFSConnectError as error:
        return error.code
    if name.endswith("_token") and result >= 0:
        os.close(result)
    return 0


@pytest.mark.parametrize("name", METHODS)
def test_inside_and_outside(mount: Mounting, client: Client, name: str) -> None:
    record, cbfs = serve(mount, client, PlainDrive(file=b""), process_restrictions_enabled=True)
    client.run("os.stat(at + '/file')")
    codes: list[int] = []
    record.before["on_open_file"] = lambda p: codes.append(code_of(cbfs, name, p.file_info))
    client.run("os.close(os.open(at + '/file', os.O_RDONLY))")
    assert len(codes) == 1
    if name in RULES["refused"]:
        assert codes == [c.ERROR_INVALID_STATE]
        assert cbfs.active
    else:
        assert codes != [c.ERROR_INVALID_STATE]
    if name in RULES["only"]:
        assert code_of(cbfs, name) == c.ERROR_INVALID_STATE


NEEDS = [
    (state, name)
    for state in ("drive", "media")
    for name in RULES[f"needs_{state}"]
    if name not in RULES["only"]  # they say first that they are not inside a handler
]


@pytest.mark.parametrize(("state", "name"), NEEDS)
def test_what_must_be_there_before_a_call(state: str, name: str) -> None:
    cbfs = c.CBFS()
    cbfs.initialize(GUID)
    cbfs.process_restrictions_enabled = True
    if state == "media":
        cbfs.create_storage()
    try:
        with pytest.raises(c.CBFSConnectError, match=r"before|no media") as refused:
            getattr(cbfs, name)(*ARGUMENTS.get(name, ()))
        assert refused.value.code == c.ERROR_INVALID_STATE
    finally:
        if cbfs.storage_present:
            cbfs.delete_storage(True)
