"""What the tests of real programs share: a drive served as its user serves it, and a tree of files.

The server is a program of its own here, so nothing that a test does can wait for itself.
"""

from __future__ import annotations

import os
import shutil
import stat
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.programs import Program

SIZE_MIB = 512
TIME_NS = 1_234_567_890_123_456_789


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Path]:
    """The mountpoint of an empty memory drive. The server must have nothing to complain of."""
    point = tmp_path / "drive"
    server = Program(
        "-m", "cbfsconnect", "--size", str(SIZE_MIB), str(point), mountpoint=point, cwd=tmp_path
    )
    with server:
        yield point
        printed = server.end()
    complaints = [line for line in printed.splitlines() if line.startswith(("ERROR", "WARNING"))]
    assert not complaints, printed


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the standard library's sources and compiled modules, without its own tests."""
    copy = tmp_path_factory.mktemp("library") / "python"
    ignored = shutil.ignore_patterns(
        *("site-packages", "dist-packages", "__pycache__", "test", "tests", "config-*")
    )
    shutil.copytree(sysconfig.get_path("stdlib"), copy, symlinks=True, ignore=ignored)
    return copy


@pytest.fixture(scope="session")
def curiosities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of what programs that copy trees trip over. `special` is in it."""
    top = tmp_path_factory.mktemp("curiosities") / "top"
    (top / "special").mkdir(parents=True)
    _make_files(top)
    _make_links(top)
    _make_special(top / "special")
    for path in sorted(top.rglob("*"), reverse=True):
        os.utime(path, ns=(TIME_NS, TIME_NS + len(path.parts)), follow_symlinks=False)
    os.utime(top / "ancient", ns=(-5_000_000_001, -1))
    return top


def _make_files(top: Path) -> None:
    (top / "ancient").write_bytes(b"from before 1970")
    (top / "empty").touch()
    (top / "empty directory").mkdir(mode=0o700)
    with open(top / "sparse", "wb") as file:
        file.seek(20 << 20)
        file.write(b"the end")
    (top / "deep" / "/".join("d" * 8 for _ in range(40))).mkdir(parents=True)
    for name in (b"n" * 255, b"not utf-8 \xff\xfe", b"two\nlines", b"-rf", b"  ", b"a:b*?\\"):
        with open(os.path.join(os.fsencode(top), name), "wb") as named:
            named.write(name * 100)
    (top / "owned").write_bytes(b"of somebody else")
    os.chown(top / "owned", 1234, 5678)
    for number, mode in enumerate((0o4755, 0o2755, 0o6511, 0o000, 0o444)):
        (top / f"mode{number}").write_bytes(b"x")
        (top / f"mode{number}").chmod(mode)
    (top / "sticky").mkdir()
    (top / "sticky").chmod(0o3777)
    for path in (top / "empty", top / "sticky"):
        os.setxattr(path, "user.comment", b"bytes \0 \xff")
        os.setxattr(path, "user.empty", b"")


def _make_links(top: Path) -> None:
    os.link(top / "owned", top / "sticky" / "second name")
    os.link(top / "owned", top / "third name")
    os.symlink("owned", top / "link")
    os.symlink("nowhere/at all", top / "broken link")
    os.symlink(b"\xff\xfe", os.path.join(os.fsencode(top), b"link \xfe"))
    os.symlink("../sticky", top / "empty directory" / "link to a directory")
    os.lchown(top / "broken link", 3, 4)


def _make_special(directory: Path) -> None:
    os.mkfifo(directory / "fifo", 0o640)
    os.mknod(directory / "socket", stat.S_IFSOCK | 0o600)
    os.mknod(directory / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(directory / "block", stat.S_IFBLK | 0o600, os.makedev(250, 70_000))
    os.link(directory / "fifo", directory / "fifo's second name")
