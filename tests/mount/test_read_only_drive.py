"""STGC_READONLY_DEVICE: nothing on the drive can be changed, by whatever way."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cbfsconnect as c
from support.client import Client, run
from support.failing import refused
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder
from support.serving import serve

WAYS = {
    "create": "open(at + '/new', 'w')",
    "mkdir": "os.mkdir(at + '/new')",
    "mknod": "os.mknod(at + '/new')",
    "mkfifo": "os.mkfifo(at + '/new')",
    "symlink": "os.symlink('x', at + '/new')",
    "link": "os.link(at + '/file', at + '/new')",
    "write": "os.open(at + '/file', os.O_WRONLY)",
    "append": "os.open(at + '/file', os.O_WRONLY | os.O_APPEND)",
    "map": "mmap.mmap(os.open(at + '/file', os.O_RDWR), 4)",
    "overwrite": "os.open(at + '/file', os.O_RDONLY | os.O_TRUNC)",
    "truncate": "os.truncate(at + '/file', 1)",
    "chmod": "os.chmod(at + '/file', 0o600)",
    "chown": "os.chown(at + '/file', 1, 1)",
    "utime": "os.utime(at + '/file')",
    "rename": "os.rename(at + '/file', at + '/new')",
    "unlink": "os.unlink(at + '/file')",
    "rmdir": "os.rmdir(at + '/directory')",
    "setxattr": "os.setxattr(at + '/file', 'user.x', b'1')",
    "removexattr": "os.removexattr(at + '/file', 'user.x')",
    "label": "cbfsconnect.set_volume_label(at, 'new')",
    "control code": "cbfsconnect.send_fsctl(at, cbfsconnect.ctl_code(9, 2500, access=2))",
    "quota": "cbfsconnect.set_default_quota(at, limit=1)",
}
QUESTIONS = {
    "on_get_file_info",
    "on_open_file",
    "on_cleanup_file",
    "on_close_file",
    "on_get_volume_size",
    "on_get_volume_label",
    "on_get_volume_id",
}


class Changing(PlainDrive):
    """Would let the drive as a whole be changed."""

    def on_set_volume_label(self, p: Any) -> None:
        pass

    def on_set_default_quota_info(self, p: Any) -> None:
        pass

    def on_fsctl(self, p: Any) -> None:
        pass


@pytest.fixture
def record(mount: Mounting, client: Client) -> Iterator[Recorder]:
    drive = Changing(file=b"data")
    drive.add_directory("/directory")
    record, _ = serve(
        mount,
        client,
        drive,
        storage_characteristics=c.STGC_READONLY_DEVICE | c.STGC_REMOVABLE_MEDIA,
        use_hard_links=True,
        use_reparse_points=True,
        use_alternate_data_streams=True,
        use_disk_quotas=True,
    )
    client.run("import cbfsconnect")
    yield record
    assert set(record.names()) <= QUESTIONS


@pytest.mark.proves("storage_characteristics", "STGC_READONLY_DEVICE")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_is_refused(record: Recorder, client: Client, way: str) -> None:
    with refused(errno.EROFS):
        client.run(WAYS[way])


def test_reading_works_and_programs_see_why_writing_does_not(
    record: Recorder, client: Client
) -> None:
    assert client.call("os.listdir(at)") == ["file", "directory"]
    record.fired[:] = [f for f in record.fired if "directory" not in f.name]
    assert client.call("os.statvfs(at).f_flag & os.ST_RDONLY") == os.ST_RDONLY
    assert client.call("os.access(at + '/file', os.W_OK)") is False
    at = client.call("at")
    assert "ro" in run("findmnt", "-n", "-o", "OPTIONS", at).strip().split(",")


@pytest.mark.skipif(os.geteuid() != 0, reason="a further mounting point needs root")
def test_a_further_mounting_point_is_read_only_too(
    mount: Mounting, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "further").mkdir()
    _, cbfs = serve(
        mount, client, PlainDrive(file=b""), storage_characteristics=c.STGC_READONLY_DEVICE
    )
    cbfs.add_mounting_point(str(tmp_path / "further"), 0, 0)
    with refused(errno.EROFS):
        client.run("os.unlink(further + '/file')", further=str(tmp_path / "further"))
