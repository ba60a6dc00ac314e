"""A start that is broken off leaves nothing behind."""

import signal
from pathlib import Path

import pytest

import cbfsconnect
from cbfsconnect.fuse import mount as fuse_mount
from cbfsconnect.fuse import mountinfo
from support.mounts import Mounting
from support.server import Server


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


def test_signals_wait_until_the_drive_is_mounted(tmp_path: Path) -> None:
    """They come right between the mount and the first request; by then nothing is noted of it."""
    code = """
from cbfsconnect.fuse import mount as fuse_mount
real = fuse_mount.mount
def interrupted(*given):
    mounted = real(*given)
    os.kill(os.getpid(), NUMBER)
    for _ in range(1000): pass
    say("went on")
    return mounted
fuse_mount.mount = interrupted
cbfsconnect.run(Handlers(), point)
"""
    for number, status in ((signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        with Server(tmp_path, code.replace("NUMBER", str(int(number)))) as server:
            assert server.finish() == (status, ["mounted", "went on", "unmounted"], "")
        assert mountinfo.entry_at(str(tmp_path)) is None
