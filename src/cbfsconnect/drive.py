"""The short way: an object with `on_…` methods, mounted for as long as a `with` block runs."""

from __future__ import annotations

import contextlib
import os
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from cbfsconnect.cbfs import CBFS
from cbfsconnect.errors import ERROR_INVALID_PARAMETER, CBFSConnectError
from cbfsconnect.properties import Change, Property

PRODUCT_GUID = "{6C1F9B5E-3B5D-4E0B-9B62-4C6D5C2A7F10}"
"""What `initialize` is told when the program names no GUID of its own."""


@runtime_checkable
class Configures(Protocol):
    """A handler object that knows which properties and settings it needs."""

    def configure(self, cbfs: CBFS) -> None:
        """Set properties and settings; called before the drive is created."""


class Drive:
    """A mounted drive: a context manager that unmounts at its end.

    `cbfs` is the object behind it, for all that is not here.
    """

    def __init__(self, cbfs: CBFS, mountpoint: str) -> None:
        self.cbfs = cbfs
        self.mountpoint = mountpoint

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until somebody unmounts the drive; False when `timeout` seconds ran out."""
        return self.cbfs.wait(timeout)

    def unmount(self, force: bool = False) -> None:
        """Unmount the drive, if it is mounted still.

        Raises `CBFSConnectError` (ERROR_BUSY) while programs use it, unless forced.
        """
        if self.cbfs.storage_present:
            self.cbfs.delete_storage(force)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.unmount(force=True)


def mount(
    handlers: object,
    mountpoint: str | os.PathLike[str],
    *,
    timeout: int = 0,
    config: dict[str, object] | None = None,
    **properties: bool | int | str,
) -> Drive:
    """Mount a drive whose events are the `on_…` methods of `handlers`, and return.

    `timeout` as in `CBFS.mount_media`, in milliseconds. `config` are settings by name,
    `properties` properties of class `CBFS`. If `handlers` has a method `configure(cbfs)`, it is
    called before those are set. Raises `CBFSConnectError` when the drive cannot be mounted, with a
    message that says what to do, and `TypeError` for names that do not exist.
    """
    cbfs = CBFS()
    cbfs.set_handlers(handlers)
    if isinstance(handlers, Configures):
        handlers.configure(cbfs)
    for name, value in properties.items():
        _set_property(cbfs, name, value)
    for name, setting in (config or {}).items():
        cbfs.config(f"{name}={setting}")
    cbfs.initialize(PRODUCT_GUID)
    cbfs.create_storage()
    try:
        cbfs.mount_media(timeout)
        cbfs.add_mounting_point(os.fspath(mountpoint))
    except BaseException:
        if cbfs.storage_present:  # else somebody has unmounted it at once
            cbfs.delete_storage(True)
        raise
    return Drive(cbfs, os.path.abspath(mountpoint))


def run(handlers: object, mountpoint: str | os.PathLike[str], **options: object) -> None:
    """Mount a drive and serve it until it is unmounted, or the process is told to end.

    Options as in `mount`. Ctrl-C returns; SIGTERM raises `SystemExit`. Both unmount.
    """
    # The first of the two also meets a Ctrl-C that comes while the drive is being mounted.
    with (
        contextlib.suppress(KeyboardInterrupt),
        mount(handlers, mountpoint, **options) as drive,  # type: ignore[arg-type]
    ):
        drive.wait()


def _set_property(cbfs: CBFS, name: str, value: bool | int | str) -> None:
    declared = getattr(CBFS, name, None)
    if not isinstance(declared, Property) or declared.change is Change.NEVER:
        raise TypeError(f"class CBFS has no property {name!r} that can be set")
    if value is None:
        raise CBFSConnectError(ERROR_INVALID_PARAMETER, f"{name} cannot be None")
    setattr(cbfs, name, value)
