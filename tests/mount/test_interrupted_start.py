"""A start that is broken off leaves nothing behind."""

from pathlib import Path

import pytest

import cbfsconnect
from cbfsconnect.fuse import mount as fuse_mount
from cbfsconnect.fuse import mountinfo
from support.mounts import Mounting


def test_ctrl_c_while_the_drive_is_being_mounted(
    mount: Mounting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(device: str, kib: int) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fuse_mount, "set_read_ahead", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mount(cbfsconnect.MemoryDrive())
    # The fixture looks for threads; another drive can be mounted at the same place at once.
    assert mountinfo.entry_at(str(tmp_path / "mnt0")) is None
    cbfsconnect.mount(cbfsconnect.MemoryDrive(), tmp_path / "mnt0").unmount()


def test_ctrl_c_during_the_start_of_run_is_an_orderly_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(device: str, kib: int) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(fuse_mount, "set_read_ahead", interrupted)
    cbfsconnect.run(cbfsconnect.MemoryDrive(), tmp_path)
    assert mountinfo.entry_at(str(tmp_path)) is None
