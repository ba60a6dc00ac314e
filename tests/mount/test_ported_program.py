"""A handler set as programs for the 2020 edition have it runs unchanged, in both modes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cbfsconnect import CBFS, ERROR_FILE_NOT_FOUND, STGMP_MOUNT_MANAGER, CBFSConnectError
from support.client import Client, run
from support.ported import PortedDrive

GUID = "{713CC6CE-B3E2-4fd9-838D-E28F558F6866}"


@pytest.fixture(params=[False, True], ids=["first and last", "all events"])
def ported(request: Any, tmp_path: Path) -> Iterator[tuple[PortedDrive, str]]:
    """The drive, mounted in the order of the vendor's samples; nothing is left open at its end."""
    folder, point = tmp_path / "folder", tmp_path / "point"
    folder.mkdir()
    point.mkdir()
    cbfs = CBFS()
    cbfs.initialize(GUID)
    cbfs.config("SectorSize=512")
    cbfs.config("PathSeparator=\\")
    cbfs.fire_all_open_close_events = request.param
    drive = PortedDrive(folder, cbfs)
    cbfs.create_storage()
    try:
        cbfs.mount_media(0)
        cbfs.add_mounting_point(str(point), STGMP_MOUNT_MANAGER, 0)
        yield drive, str(point)
        cbfs.remove_mounting_point(0, "", 0, 0)
    finally:
        cbfs.delete_storage(True)
    assert not drive.trouble
    assert not drive.open_files
    if request.param:  # else the first handle of a file may go without an event
        assert not drive.handles
    assert not drive.listings


def test_files_and_directories(ported: tuple[PortedDrive, str], client: Client) -> None:
    drive, at = ported
    client.run(
        """
        root = Path(at)
        (root / 'a/b/c').mkdir(parents=True)
        (root / 'a/b/file').write_bytes(bytes(range(256)) * 1000)
        with open(root / 'a/b/file', 'r+b') as file:
            file.seek(100000)
            file.write(b'in the middle')
            file.truncate(200000)
        with open(root / 'a/b/file', 'ab') as file:
            file.write(b'at the end')
        os.rename(root / 'a/b/file', root / 'a/moved')
        os.rename(root / 'a/b', root / 'renamed')
        (root / 'ümläut').write_text('names')
        """,
        at=at,
    )
    expected = bytearray((bytes(range(256)) * 1000)[:200000] + b"at the end")
    expected[100000:100013] = b"in the middle"
    assert (Path(drive.folder) / "a/moved").read_bytes() == expected
    assert client.call("(root / 'a/moved').read_bytes()") == expected
    assert client.call("sorted(str(p.relative_to(root)) for p in root.rglob('*'))") == [
        "a",
        "a/moved",
        "renamed",
        "renamed/c",
        "ümläut",
    ]
    client.run("os.unlink(root / 'a/moved'); os.rmdir(root / 'a')")
    assert sorted(p.name for p in Path(drive.folder).iterdir()) == ["renamed", "ümläut"]


def test_a_star_import_hides_nothing_of_the_program() -> None:
    program: dict[str, Any] = {}
    exec("from cbfsconnect import *", program)
    del program["__builtins__"]
    ours = re.compile(r"CBFS(ConnectError|\w+EventParams)?|[A-Z][A-Z0-9]*(_[A-Z0-9]+)+|fc[A-Z]\w+")
    more = {name for name in program if not ours.fullmatch(name)}
    assert more == {"errno_from_win32", "win32_from_errno"}
    assert program["CBFS"] is CBFS


@pytest.mark.parametrize(
    "name", ["Z:", "z:\\", r"\\server\share", "Z;server;share", ";server;share"]
)
def test_mounting_points_of_windows_are_recognised(name: str) -> None:
    cbfs = CBFS()
    cbfs.initialize(GUID)
    cbfs.create_storage()
    try:
        with pytest.raises(CBFSConnectError, match="is a name of Windows") as refused:
            cbfs.add_mounting_point(name, STGMP_MOUNT_MANAGER, 0)
        assert refused.value.code == ERROR_FILE_NOT_FOUND
    finally:
        cbfs.delete_storage(True)


def test_several_handles(ported: tuple[PortedDrive, str], client: Client) -> None:
    """The sequence of the contract's table, with a file that is deleted while it is open."""
    _, at = ported
    with Client() as other:
        client.run("a = os.open(at + '/x', os.O_RDWR | os.O_CREAT); os.write(a, b'1')", at=at)
        other.run("b = os.open(at + '/x', os.O_RDWR); os.write(b, b'22'); os.close(b)", at=at)
        other.run("c = os.open(at + '/x', os.O_RDONLY)")
        client.run("os.unlink(at + '/x'); os.pwrite(a, b'333', 2)")
        assert other.call("os.pread(c, 100, 0)") == b"22333"
        client.run("os.close(a)")
        other.run("Path(at, 'x').write_text('another')")
        assert other.call("os.pread(c, 100, 0)") == b"22333"
        other.run("os.close(c)")
        assert other.call("Path(at, 'x').read_text(), os.listdir(at)") == ("another", ["x"])


def test_errors(ported: tuple[PortedDrive, str], client: Client) -> None:
    _, at = ported
    client.run("(Path(at) / 'd').mkdir(); (Path(at) / 'd/file').write_text('')", at=at)
    with pytest.raises(FileNotFoundError):
        client.run("os.open(at + '/none', os.O_RDONLY)")
    with pytest.raises(FileExistsError):
        client.run("os.mkdir(at + '/d')")
    with pytest.raises(OSError, match="not empty"):
        client.run("os.rmdir(at + '/d')")
    with pytest.raises(NotADirectoryError):
        client.run("os.listdir(at + '/d/file')")
    with pytest.raises(OSError, match="Invalid argument"):
        client.run("os.mkdir(at + '/back\\\\slash')")
    with pytest.raises(PermissionError):
        client.run("os.symlink('target', at + '/link')")


def test_attributes(ported: tuple[PortedDrive, str], client: Client) -> None:
    drive, at = ported
    client.run("Path(at, 'file').write_bytes(b'x' * 1000)", at=at)
    client.run("os.utime(at + '/file', (1_000_000_000.5, 1_100_000_000.25))")
    client.run("os.chmod(at + '/file', 0o444)")
    behind = (Path(drive.folder) / "file").stat()
    assert (behind.st_atime, behind.st_mtime) == (1_000_000_000.5, 1_100_000_000.25)
    assert behind.st_mode & 0o777 == 0o444
    seen = client.call("os.stat(at + '/file')")
    assert (seen.st_atime, seen.st_mtime) == (1_000_000_000.5, 1_100_000_000.25)
    assert (seen.st_size, seen.st_blocks, seen.st_mode & 0o777) == (1000, 2, 0o444)
    assert client.call("os.statvfs(at).f_frsize * os.statvfs(at).f_blocks") == 1 << 30


def test_programs(ported: tuple[PortedDrive, str]) -> None:
    """cp, diff, tar and a long listing, in a tree of many files."""
    drive, at = ported
    source = Path(drive.folder).parent / "source"
    for number in range(150):
        file = source / f"d{number % 7}" / f"s{number % 11}" / f"f{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number % 256]) * (number * 37))
    run("cp", "-r", source, f"{at}/copy")
    run("diff", "-r", source, f"{at}/copy")
    run("tar", "-C", at, "-cf", f"{at}/all.tar", "copy")
    run("mkdir", f"{at}/out")
    run("tar", "-C", f"{at}/out", "-xf", f"{at}/all.tar", "--no-same-owner")
    run("diff", "-r", source, f"{at}/out/copy")
    run("rm", "-r", f"{at}/copy", f"{at}/out/copy")
    assert run("ls", "-A", at).split() == ["all.tar", "out"]
