"""`metadata_cache_size`, `non_existent_files_cache_size`: the oldest make room, none is stale."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from support.client import Client, run
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder
from support.serving import serve

FOREVER = {"MetadataCacheTimeout": -1}
NAMES = [f"file{n:02}" for n in range(40)]
STAT_ALL = "for name in names: os.stat(at + '/' + name)"
MISS_ALL = "for name in names: assert not os.path.lexists(at + '/' + name)"


def asked_for(record: Recorder, names: list[str]) -> list[str]:
    """Which of these names the kernel has asked for."""
    asked = {fired.file_name for fired in record.all("on_get_file_info")}
    return [name for name in names if f"/{name}" in asked]


def still_known(record: Recorder, client: Client, code: str, names: list[str]) -> list[str]:
    """Which of these names the kernel does not ask for. To look makes each of them a new one."""
    known = []
    for name in reversed(names):
        record.clear()
        client.run(code, names=[name])
        if not asked_for(record, [name]):
            known.append(name)
    return known[::-1]


def wait_until_few(
    record: Recorder, client: Client, code: str, names: list[str], most: int
) -> list[str]:
    """Look at the names in order until the kernel knows the last ones alone, so many at most."""
    deadline = time.monotonic() + 20
    while True:
        client.run(code, names=names)
        known = still_known(record, client, code, names)
        if len(known) <= most and known == names[len(names) - len(known) :]:
            return known
        assert time.monotonic() < deadline, known


@pytest.mark.proves("metadata_cache_size")
@pytest.mark.parametrize("kind", ["files", "directories"])
def test_the_kernel_knows_so_many_items_at_most(mount: Mounting, client: Client, kind: str) -> None:
    drive = PlainDrive()
    for name in NAMES:
        drive.add(f"/{name}") if kind == "files" else drive.add_directory(f"/{name}")
    record, _ = serve(mount, client, drive, metadata_cache_size=16, config=FOREVER)
    assert len(wait_until_few(record, client, STAT_ALL, NAMES, 16)) >= 4


def test_without_a_size_it_knows_them_all(mount: Mounting, client: Client) -> None:
    record, _ = serve(mount, client, PlainDrive(**dict.fromkeys(NAMES, b"")), config=FOREVER)
    client.run(STAT_ALL, names=NAMES)
    record.clear()
    client.run(STAT_ALL, names=NAMES)
    assert record.fired == []


def test_files_that_make_room_are_forgotten_altogether(mount: Mounting, client: Client) -> None:
    drive = PlainDrive(**dict.fromkeys(NAMES, b"data"))
    _, cbfs = serve(mount, client, drive, metadata_cache_size=16, config=FOREVER)
    client.run(STAT_ALL, names=NAMES)
    engine = cbfs._engine
    assert engine is not None
    deadline = time.monotonic() + 20
    while len(engine.nodes) > 17:  # the root is always there
        assert time.monotonic() < deadline, len(engine.nodes)
        time.sleep(0.01)


def test_what_is_in_use_goes_on_working(mount: Mounting, client: Client) -> None:
    drive = PlainDrive(**dict.fromkeys(NAMES, b"data"))
    drive.add_directory("/directory")
    drive.add("/directory/below", b"below")
    serve(mount, client, drive, metadata_cache_size=2, config=FOREVER)
    client.run("os.chdir(at + '/directory'); fd = os.open('below', os.O_RDWR)")
    client.run(STAT_ALL, names=NAMES)
    assert client.call("os.getcwd() == at + '/directory' and os.listdir()") == ["below"]
    assert client.call("os.pread(fd, 9, 0)") == b"below"
    assert client.call("open('below').read()") == "below"
    client.run("os.close(fd); os.chdir('/')")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount there")
def test_what_is_mounted_inside_stays(mount: Mounting, client: Client) -> None:
    drive = PlainDrive(**dict.fromkeys(NAMES, b"data"))
    drive.add("/covered")
    serve(mount, client, drive, metadata_cache_size=2, config=FOREVER)
    at = client.call("at")
    run("mount", "--bind", "/etc/passwd", f"{at}/covered")
    try:
        for _ in range(3):
            client.run(STAT_ALL, names=NAMES)
        assert client.call("os.path.getsize(at + '/covered')") > 0
    finally:
        run("umount", f"{at}/covered")


def test_listings_with_attributes_count_too(mount: Mounting, client: Client) -> None:
    class Telling(PlainDrive):
        def on_enumerate_directory(self, p: Any) -> None:
            super().on_enumerate_directory(p)
            if p.file_found:
                p.mode = 0o100644

    _, cbfs = serve(
        mount,
        client,
        Telling(**dict.fromkeys(NAMES, b"")),
        metadata_cache_size=16,
        config=FOREVER,
    )
    client.run("[e.stat() for e in os.scandir(at)]")
    engine = cbfs._engine
    assert engine is not None
    deadline = time.monotonic() + 20
    while len(engine.nodes) > 17:
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- names that do not exist ---


@pytest.mark.proves("non_existent_files_cache_size", "non_existent_files_cache_enabled")
def test_so_many_names_are_known_not_to_exist(mount: Mounting, client: Client) -> None:
    record, _ = serve(
        mount,
        client,
        PlainDrive(),
        non_existent_files_cache_enabled=True,
        non_existent_files_cache_size=16,
        config=FOREVER,
    )
    assert len(wait_until_few(record, client, MISS_ALL, NAMES, 16)) >= 4


def test_without_a_size_all_of_them_are(mount: Mounting, client: Client) -> None:
    record, _ = serve(
        mount, client, PlainDrive(), non_existent_files_cache_enabled=True, config=FOREVER
    )
    client.run(MISS_ALL, names=NAMES)
    record.clear()
    client.run(MISS_ALL, names=NAMES)
    assert record.fired == []


def test_a_name_that_made_room_may_exist_by_now(mount: Mounting, client: Client) -> None:
    serve(
        mount,
        client,
        PlainDrive(),
        non_existent_files_cache_enabled=True,
        non_existent_files_cache_size=2,
        config=FOREVER,
    )
    for name in NAMES:
        client.run(
            """
            assert not os.path.lexists(at + '/' + name)
            open(at + '/' + name, 'w').write(name)
            """,
            name=name,
        )
    client.run("for name in names: assert open(at + '/' + name).read() == name", names=NAMES)
