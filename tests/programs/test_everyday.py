"""find, du, df, stat, touch and their like, as everybody uses them every day."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from support.client import run

MIB = 1 << 20


def lines(*command: str | Path, cwd: Path) -> list[str]:
    """The sorted lines that a program prints."""
    return sorted(run(*command, cwd=cwd).splitlines())


@pytest.fixture
def items(drive: Path) -> Path:
    """A drive with a few items of different sizes and kinds."""
    (drive / "docs" / "old").mkdir(parents=True)
    (drive / "docs" / "long.txt").write_bytes(b"x" * 10_000)
    (drive / "docs" / "short.txt").write_bytes(b"x")
    (drive / "docs" / "old" / "empty.txt").touch()
    run("ln", drive / "docs" / "long.txt", drive / "same")
    run("ln", "-s", "docs", drive / "link")
    run("ln", "-s", "nowhere", drive / "broken")
    run("install", "-m", "4755", "/bin/true", drive / "docs" / "program")
    return drive


def test_find_by_everything(items: Path) -> None:
    def found(*expression: str) -> list[str]:
        return lines("find", ".", *expression, "-printf", "%P\n", cwd=items)

    assert found("-type", "d") == ["", "docs", "docs/old"]
    assert found("-name", "*.txt", "-size", "+8k") == ["docs/long.txt"]
    assert found("-type", "f", "-empty") == ["docs/old/empty.txt"]
    assert found("-samefile", "same") == ["docs/long.txt", "same"]
    assert found("-links", "2", "-type", "f") == ["docs/long.txt", "same"]
    assert found("-inum", str((items / "same").stat().st_ino)) == ["docs/long.txt", "same"]
    assert found("-perm", "-4000") == ["docs/program"]
    assert found("-xtype", "l") == ["broken"]
    assert found("-lname", "docs") == ["link"]
    run("touch", "-d", "2001-01-01", items / "docs" / "short.txt")
    assert found("-not", "-newermt", "2002-01-01") == ["docs/short.txt"]
    assert "docs/old" in found("-newer", "docs/short.txt")
    run("find", "-L", "link", "-name", "*.txt", "-delete", cwd=items)
    assert found("-name", "*.txt") == []


def test_du_counts_blocks_and_hard_links_once(items: Path) -> None:
    run("rm", items / "docs" / "program")
    total = int(run("du", "-s", "--block-size=1", items).split()[0])
    assert total == 3 * 4096 + 4096, "long.txt and same are one file; directories take nothing"
    apparent = run("du", "-s", "--block-size=1", "--apparent-size", items / "docs" / "long.txt")
    assert apparent.split()[0] == "10000"
    run("truncate", "-s", "1G", items / "sparse")
    assert run("du", "--block-size=1", items / "sparse").split()[0] == "0"


def test_df_follows_what_is_written_and_deleted(drive: Path) -> None:
    def space() -> tuple[int, int, int]:
        size, used, free = run("df", "-B1", "--output=size,used,avail", drive).split()[-3:]
        return int(size), int(used), int(free)

    empty = (512 * MIB, 0, 512 * MIB)
    assert space() == empty
    run("dd", "if=/dev/urandom", f"of={drive / 'data'}", "bs=1M", "count=8", "conv=fsync")
    size, used, free = space()
    assert size == used + free == 512 * MIB
    assert 8 * MIB <= used < 8 * MIB + 8192
    run("rm", drive / "data")
    # The drive hears of the last close some time after dd has ended.
    deadline = time.monotonic() + 20
    while space() != empty:
        assert time.monotonic() < deadline, f"never free: {space()}"
    target, kind = run("df", "--output=target,fstype", drive).split()[-2:]
    assert (target, kind) == (str(drive), "fuse.cbfs")


def test_stat_tells_all_about_an_item(items: Path) -> None:
    told = run("stat", "-c", "%F|%s|%b|%a|%h|%u|%g|%n", "docs/long.txt", "link", "docs", cwd=items)
    assert told.splitlines() == [
        "regular file|10000|24|644|2|0|0|docs/long.txt",
        "symbolic link|4|0|777|1|0|0|link",
        "directory|0|0|755|3|0|0|docs",
    ]
    born, written = run("stat", "-c", "%W %Y", items / "docs" / "long.txt").split()
    assert 0 < int(born) <= int(written)
    block, name_max = run("stat", "-f", "-c", "%S %l", items).split()
    assert (block, name_max) == ("4096", "255")


@pytest.mark.parametrize(
    "date",
    [
        "2001-02-03 04:05:06.123456789 +0000",
        "1969-12-31 23:59:58.500000001 +0000",
        "1901-01-01 00:00:00.000000000 +0000",
        "2500-06-07 08:09:10.987654321 +0000",
    ],
)
def test_touch_sets_any_date(drive: Path, date: str) -> None:
    run("ln", "-s", "file", drive / "link")
    run("touch", "-d", date, drive / "file")
    run("touch", "-h", "-d", date, drive / "link")
    for path in (drive / "file", drive / "link"):
        assert run("stat", "-c", "%x|%y", path, TZ="UTC").strip() == f"{date}|{date}"


def test_touch_sets_one_time_and_leaves_the_other(drive: Path) -> None:
    file = drive / "file"
    run("touch", "-d", "@1000.000000001", file)
    run("touch", "-a", "-d", "@2000", file)
    assert (file.stat().st_atime_ns, file.stat().st_mtime_ns) == (2000 * 10**9, 1000 * 10**9 + 1)
    run("touch", "-m", "-d", "@3000", file)
    run("touch", "-r", file, drive / "other")
    assert (drive / "other").stat().st_atime_ns == 2000 * 10**9
    assert (drive / "other").stat().st_mtime_ns == 3000 * 10**9
    run("touch", file)
    assert abs(file.stat().st_mtime - file.stat().st_ctime) < 1


def test_files_are_edited_in_place(drive: Path) -> None:
    file = drive / "file"
    file.write_text("".join(f"line {n}\n" for n in range(1000)))
    run("sed", "-i", "s/line 5/LINE 5/", file)
    run("sort", "-r", "-o", file, file)
    assert file.read_text().splitlines()[:2] == ["line 999", "line 998"]
    assert file.read_text().count("LINE") == 111
    run("dd", "if=/dev/zero", f"of={file}", "bs=1", "count=3", "seek=5", "conv=notrunc")
    assert file.read_bytes()[:10] == b"line \0\0\0\nl"
    run("truncate", "-s", "4", file)
    run("sh", "-c", f"echo more >> '{file}'")
    assert file.read_text() == "linemore\n"


def test_files_move_between_filesystems(drive: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"content")
    run("touch", "-d", "@1000.5", tmp_path / "outside")
    run("chmod", "640", tmp_path / "outside")
    run("mv", tmp_path / "outside", drive / "inside")
    assert ((drive / "inside").read_bytes(), (tmp_path / "outside").exists()) == (b"content", False)
    assert run("stat", "-c", "%a %.1Y", drive / "inside").strip() == "640 1000.5"
    run("mv", drive / "inside", tmp_path / "back")
    assert ((tmp_path / "back").read_bytes(), list(drive.iterdir())) == (b"content", [])


def test_rm_empties_a_large_directory(drive: Path) -> None:
    run("sh", "-c", "mkdir many && cd many && seq 3000 | xargs touch", cwd=drive)
    assert len(lines("ls", "-f", "many", cwd=drive)) == 3002
    run("rm", "-r", drive / "many")
    assert list(drive.iterdir()) == []


def test_flock_lets_one_in_at_a_time(drive: Path) -> None:
    (drive / "count").write_text("0\n")
    step = "n=$(cat count); echo $((n + 1)) > count"
    loop = f"for i in 1 2 3 4 5 6 7 8 9 10; do flock lock sh -c '{step}'; done"
    processes = [subprocess.Popen(["sh", "-c", loop], cwd=drive) for _ in range(3)]
    assert [p.wait(60) for p in processes] == [0, 0, 0]
    assert (drive / "count").read_text() == "30\n"
