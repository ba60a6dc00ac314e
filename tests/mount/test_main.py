"""`python -m cbfsconnect`, which `make mount` runs: on nothing, on a dead mount, on a folder."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from support.client import Client
from support.programs import Program

LIST_WHEN_ALIVE = """
deadline = time.monotonic() + 30
while True:
    try:
        result = os.listdir(at)
        break
    except OSError as error:
        if error.errno != errno.ENOTCONN or time.monotonic() > deadline:
            raise
    time.sleep(0.01)
"""


def test_the_directory_is_made_and_taken_away_again(tmp_path: Path, client: Client) -> None:
    point = tmp_path / "drive"
    with Program("-m", "cbfsconnect", mountpoint=point, cwd=tmp_path) as program:
        client.run("Path(at, 'greeting').write_text('hello')", at=str(point))
        output = program.end()
    assert str(point) in output
    assert "umount" in output
    assert not point.exists()


def test_a_directory_that_was_there_stays(tmp_path: Path) -> None:
    point = tmp_path / "drive"
    point.mkdir()
    with Program("-m", "cbfsconnect", str(point), mountpoint=point):
        pass
    assert list(point.iterdir()) == []


def test_the_mount_of_a_killed_server_is_replaced(tmp_path: Path, client: Client) -> None:
    point = tmp_path / "drive"
    with Program("-m", "cbfsconnect", str(point), mountpoint=point) as first:
        first.kill()
        with pytest.raises(OSError, match="not connected") as dead:
            client.call("os.listdir(at)", at=str(point))
        assert dead.value.errno == errno.ENOTCONN
        with Program("-m", "cbfsconnect", str(point), mountpoint=point):
            assert client.run(LIST_WHEN_ALIVE) == []


def test_what_cannot_be_mounted_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for point in ("full", "full/file", "missing/drive"):
        done = subprocess.run(
            [sys.executable, "-m", "cbfsconnect", str(tmp_path / point)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("cbfsconnect: ")
        assert done.stderr.count("\n") == 1
