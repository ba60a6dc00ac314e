"""Who may change reparse data: the kernel checks no rights for attributes named `system.…`."""

import errno
import os

import pytest

import cbfsconnect
from support.client import Client
from support.mounts import Mounting

_SETUP = """
os.chdir(at)
name, data = "system.ntfs_reparse_data", struct.pack("<IHH", 0x80000023, 0, 0)
os.chmod(".", 0o777)
with open("file", "w"):
    pass
os.chmod("file", 0o666)  # all may write, and yet
os.setxattr("file", name, data)

def as_stranger(call, *arguments):
    os.seteuid(4711)
    try:
        call(*arguments)
    finally:
        os.seteuid(0)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    "change", ["os.setxattr, 'file', name, data", "os.removexattr, 'file', name"]
)
def test_only_the_owner_and_root_change_reparse_data(
    mount: Mounting, client: Client, change: str
) -> None:
    drive = mount(cbfsconnect.MemoryDrive())
    client.run(_SETUP, at=drive.mountpoint)
    with pytest.raises(PermissionError) as refused:
        client.run(f"as_stranger({change})")
    assert refused.value.errno == errno.EPERM
    assert client.call("os.getxattr('file', name) == data")
    client.run(f"os.chown('file', 4711, -1); as_stranger({change})")
    client.run("os.chdir('/')")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_drive_that_checks_access_itself_decides(mount: Mounting, client: Client) -> None:
    drive = mount(cbfsconnect.MemoryDrive(), config={"DefaultPermissions": False})
    client.run(_SETUP, at=drive.mountpoint)
    client.run("as_stranger(os.setxattr, 'file', name, data); os.chdir('/')")
