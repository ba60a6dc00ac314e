"""The methods of class CBFS that are about the machine: driver, helper, icons.

On Windows they install and inspect the product's kernel driver. On Linux the driver is the kernel's
own FUSE, and what stands for the helper DLL is `fusermount3`: so they tell the truth about those,
and install nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cbfsconnect import constants as c
from cbfsconnect.errors import (
    ERROR_ACCESS_DENIED,
    ERROR_FILE_NOT_FOUND,
    ERROR_INVALID_PARAMETER,
    ERROR_PRIVILEGE_NOT_HELD,
    CBFSConnectError,
)
from cbfsconnect.fuse import mountinfo

_MODULES = (c.MODULE_PNP_BUS, c.MODULE_DRIVER, c.MODULE_HELPER_DLL)
_HELPER_ANSWERS_WITHIN_S = 5.0
_SHUTDOWN_ANSWERS_WITHIN_S = 30.0


class System:
    """What class CBFS knows of the machine. The arguments `product_guid` are not needed here."""

    if TYPE_CHECKING:

        def _refuse_in_event(self, what: str) -> None: ...

    _icons: ClassVar[dict[str, str]] = {}
    _icon: str | None = None

    def install(
        self,
        cab_file_name: str | None,
        product_guid: str,
        path_to_install: str | None,
        modules_to_install: int,
        flags: int,
    ) -> int:
        """Make sure that the modules are there; 0, since no restart is ever needed.

        Nothing is installed: FUSE comes with the kernel, `fusermount3` with the distribution.
        Raises ERROR_PRIVILEGE_NOT_HELD for users other than root, ERROR_FILE_NOT_FOUND with what
        to do when a module is missing.
        """
        self._refuse_in_event("call install")
        self._need_root("install")
        if modules_to_install & c.MODULE_DRIVER and not _driver_runs():
            raise CBFSConnectError(
                ERROR_FILE_NOT_FOUND, "the kernel has no FUSE: load it with modprobe fuse"
            )
        if modules_to_install & c.MODULE_HELPER_DLL and shutil.which("fusermount3") is None:
            raise CBFSConnectError(
                ERROR_FILE_NOT_FOUND, "there is no fusermount3: install the package fuse3"
            )
        return 0

    def uninstall(
        self, cab_file_name: str | None, product_guid: str, installed_path: str | None, flags: int
    ) -> int:
        """Do nothing, and return 0: the kernel's FUSE is not ours to remove. Needs root."""
        self._refuse_in_event("call uninstall")
        self._need_root("uninstall")
        return 0

    def get_driver_status(self, product_guid: str, module: int) -> int:
        """MODULE_STATUS_RUNNING when the kernel serves FUSE, STOPPED when its module is not loaded,
        NOT_PRESENT when there is none. There is never a PnP bus."""
        if module not in (c.MODULE_PNP_BUS, c.MODULE_DRIVER):
            raise CBFSConnectError(ERROR_INVALID_PARAMETER, f"{module:#x} is no driver")
        if module == c.MODULE_PNP_BUS:
            return c.MODULE_STATUS_NOT_PRESENT
        if _driver_runs():
            return c.MODULE_STATUS_RUNNING
        folder = Path("/lib/modules", os.uname().release, "kernel/fs/fuse")
        return c.MODULE_STATUS_STOPPED if folder.is_dir() else c.MODULE_STATUS_NOT_PRESENT

    def get_module_version(self, product_guid: str, module: int) -> int:
        """Four 16-bit parts, highest first: of the kernel, or of `fusermount3`; 0: not there."""
        if module not in _MODULES:
            raise CBFSConnectError(ERROR_INVALID_PARAMETER, f"{module:#x} is no module")
        if module == c.MODULE_DRIVER and _driver_runs():
            return _version(os.uname().release)
        if module == c.MODULE_HELPER_DLL:
            return _version(_helper_version())
        return 0

    def register_icon(self, icon_path: str, product_guid: str, icon_id: str) -> bool:
        """Remember an icon file under an id; False, since no restart is needed. Needs root."""
        self._need_root("register_icon")
        if not os.path.isfile(icon_path):
            raise CBFSConnectError(ERROR_FILE_NOT_FOUND, f"there is no icon file {icon_path!r}")
        self._icons[icon_id] = icon_path
        return False

    def unregister_icon(self, product_guid: str, icon_id: str) -> bool:
        """Forget an icon; False, since no restart is needed. Needs root."""
        self._need_root("unregister_icon")
        if self._icons.pop(icon_id, None) is None:
            raise CBFSConnectError(ERROR_FILE_NOT_FOUND, f"no icon is registered as {icon_id!r}")
        return False

    def is_icon_registered(self, icon_id: str) -> bool:
        """Whether an icon was registered under the id, in this process."""
        return icon_id in self._icons

    def set_icon(self, icon_id: str) -> None:
        """Choose a registered icon for the drive. No Linux desktop asks a filesystem for one."""
        if icon_id not in self._icons:
            raise CBFSConnectError(ERROR_FILE_NOT_FOUND, f"no icon is registered as {icon_id!r}")
        self._icon = icon_id

    def reset_icon(self) -> None:
        """Go back to the default icon."""
        self._icon = None

    @staticmethod
    def is_cbfs_volume(volume_path: str) -> bool:
        """Whether the path is on a drive of this library. The drive is not asked."""
        entry = mountinfo.entry_for(os.path.abspath(volume_path))
        return entry is not None and entry.fstype == "fuse.cbfs"

    def shutdown_system(
        self, shutdown_prompt: str, timeout: int, force_close_apps: bool, reboot: bool
    ) -> bool:
        """Shut the machine down, or restart it, by shutdown(8); True when that is under way.

        `shutdown_prompt` is shown to everybody who is logged in. `timeout` are seconds until then;
        shutdown(8) counts minutes, so they are rounded up to whole ones. Programs are always told
        to end and then ended: `force_close_apps` changes nothing. Who regrets runs `shutdown -c`.

        Raises ERROR_PRIVILEGE_NOT_HELD for users other than root, ERROR_FILE_NOT_FOUND without
        shutdown(8), ERROR_ACCESS_DENIED with its complaint when it refuses.
        """
        if timeout < 0:
            raise CBFSConnectError(ERROR_INVALID_PARAMETER, f"timeout is {timeout} s, below 0")
        self._need_root("shutdown_system")
        command = shutil.which("shutdown")
        if command is None:
            raise CBFSConnectError(
                ERROR_FILE_NOT_FOUND, "there is no shutdown(8): no machine to shut down from here"
            )
        when = f"+{-(-timeout // 60)}" if timeout else "now"
        words = [command, "-r" if reboot else "-P", "--", when]
        try:
            done = subprocess.run(
                [*words, shutdown_prompt] if shutdown_prompt else words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SHUTDOWN_ANSWERS_WITHIN_S,
                check=False,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise CBFSConnectError(ERROR_ACCESS_DENIED, f"shutdown(8) failed: {error}") from error
        if done.returncode:
            complaint = done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}"
            raise CBFSConnectError(ERROR_ACCESS_DENIED, f"shutdown(8) refused: {complaint}")
        return True

    @staticmethod
    def _need_root(what: str) -> None:
        if os.geteuid() != 0:
            raise CBFSConnectError(ERROR_PRIVILEGE_NOT_HELD, f"{what} needs root")


def _driver_runs() -> bool:
    try:
        kinds = Path("/proc/filesystems").read_text(encoding="ascii").split()
    except OSError:
        kinds = []
    return "fuse" in kinds and os.path.exists("/dev/fuse")


def _helper_version() -> str:
    helper = shutil.which("fusermount3")
    if helper is None:
        return ""
    try:
        return subprocess.run(
            [helper, "-V"],
            capture_output=True,
            text=True,
            timeout=_HELPER_ANSWERS_WITHIN_S,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _version(text: str) -> int:
    """The first dotted number in a text as four 16-bit parts."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    parts = [int(part) & 0xFFFF for part in found.group().split(".")[:4]] if found else []
    version = 0
    for part in [*parts, 0, 0, 0, 0][:4]:
        version = version << 16 | part
    return version
