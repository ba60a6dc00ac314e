"""`examples/ported_folder_mirror.py`: a program in the Windows way, used by ordinary programs.

Every test runs in both settings of `fire_all_open_close_events`. At its end the program's own
tables must be empty, it must have no descriptor open in the folder, and no handler may have failed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.client import Client, run
from support.programs import REPOSITORY, Program

EXAMPLE = REPOSITORY / "examples" / "ported_folder_mirror.py"
CLOSED = "Left open: 0 files, 0 handles, 0 listings.\n"
GIT = ("git", "-c", "user.name=A", "-c", "user.email=a@example.org")
Start = Callable[..., Program]


@pytest.fixture(params=[(), ("-all",)], ids=["first and last", "all events"])
def options(request: Any) -> tuple[str, ...]:
    return tuple(request.param)


@pytest.fixture
def drive(folder: Path, point: Path, options: tuple[str, ...]) -> Iterator[Path]:
    """The mounted drive; what is required of its end is looked at here."""
    yield from served(folder, point, *options)


@pytest.fixture
def locking_drive(folder: Path, point: Path, options: tuple[str, ...]) -> Iterator[Path]:
    """The same with the locks passed on."""
    yield from served(folder, point, "-locks", *options)


def served(folder: Path, point: Path, *options: str) -> Iterator[Path]:
    with Program(EXAMPLE, *options, folder, point, mountpoint=point) as program:
        yield point
        deadline = time.monotonic() + 20
        while in_folder := open_in(folder, program.pid):  # the last RELEASE comes a moment later
            assert time.monotonic() < deadline, f"left open: {in_folder}"
            time.sleep(0.01)
        printed = program.end("\n")
    greeting = f"{folder} is mounted at {point}.\nPress Enter to unmount and quit.\n"
    assert printed == greeting + CLOSED


def open_in(folder: Path, pid: int) -> list[str]:
    """What a process has open in a folder."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


def hidden_in(folder: Path) -> list[str]:
    """Items that were deleted while they were open, and should be gone by now."""
    return [name for name in os.listdir(folder) if name.startswith(".cbfs-deleted-")]


# --- the program ----------------------------------------------------------------------------------


def test_it_says_how_to_use_it(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE, "-what", folder, folder],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src")},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (
        2,
        "usage: ported_folder_mirror.py [-all] [-locks] FOLDER MOUNTING_POINT\n",
    )


def test_errors_of_the_library_are_reported(folder: Path, tmp_path: Path) -> None:
    inside = folder / "inside"
    inside.mkdir()
    with pytest.raises(AssertionError, match="must not lie in the folder"):
        run(sys.executable, EXAMPLE, folder, inside)
    with pytest.raises(AssertionError, match=r"Error 2: mountpoint .* does not exist"):
        run(sys.executable, EXAMPLE, folder, tmp_path / "none")


def test_control_c_ends_it(folder: Path, point: Path) -> None:
    with Program(EXAMPLE, folder, point, mountpoint=point) as program:
        run("touch", point / "file")
        assert program.end().endswith(CLOSED)


def test_a_drive_that_others_unmount_ends_it(folder: Path, point: Path) -> None:
    with Program(EXAMPLE, folder, point, mountpoint=point) as program:
        program.close_input()
        run("touch", point / "file")
        run("umount", point)
        printed = program.end_by_itself()
    assert printed.endswith("The drive was ejected.\n" + CLOSED)


# --- programs -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files and directories as they are everywhere, with the permissions that the drive shows."""
    copy = tmp_path_factory.mktemp("tree") / "email"
    run("cp", "-r", Path(sysconfig.get_path("stdlib"), "email"), copy)
    run("chmod", "-R", "u=rwX,go=rX", copy)
    (copy / "empty directory").mkdir()
    (copy / "ümläut and spaces").write_bytes(os.urandom(3_000_001))
    return copy


def test_cp_and_find_and_rm(drive: Path, folder: Path, tree: Path) -> None:
    run("cp", "-a", tree, drive / "copy")
    assert run("diff", "-r", tree, drive / "copy") == ""
    assert run("diff", "-r", tree, folder / "copy") == ""
    run("cp", "-a", drive / "copy", drive / "again")
    run("mv", drive / "again", drive / "copy" / "moved")
    assert run("diff", "-r", tree, folder / "copy" / "moved") == ""
    names = run("find", ".", "-name", "*.py", cwd=drive / "copy").splitlines()
    assert sorted(names) == sorted(
        f"./{path.relative_to(folder / 'copy')}" for path in (folder / "copy").rglob("*.py")
    )
    run("find", drive / "copy" / "moved", "-type", "f", "-delete")
    run("rm", "-rf", drive / "copy")
    assert os.listdir(folder) == []


def test_tar(drive: Path, folder: Path, tree: Path) -> None:
    run("tar", "-C", tree.parent, "-czf", drive / "tree.tgz", tree.name)
    run("tar", "-C", drive, "-xzf", drive / "tree.tgz")
    assert run("diff", "-r", tree, folder / tree.name) == ""
    assert run("tar", "-C", drive, "-dzf", drive / "tree.tgz") == ""


def test_rsync_finds_nothing_to_do_the_second_time(drive: Path, tree: Path) -> None:
    run("rsync", "-a", f"{tree}/", drive / "copy/")
    assert run("rsync", "-ani", "--delete", "--checksum", f"{tree}/", drive / "copy/") == ""
    (tree.parent / "changed").mkdir(exist_ok=True)
    run("rsync", "-a", "--delete", f"{tree.parent}/changed/", drive / "copy/")
    assert run("ls", "-A", drive / "copy") == ""


def test_git(drive: Path, folder: Path, tree: Path) -> None:
    project = drive / "project"
    run("git", "init", "--quiet", project)
    run("cp", "-a", tree, project / "source")
    run("git", "add", ".", cwd=project)
    run(*GIT, "commit", "--quiet", "-m", "first", cwd=project)
    assert run("git", "status", "--porcelain", cwd=project) == ""
    run("git", "switch", "--quiet", "-c", "branch", cwd=project)
    run("git", "mv", "source/mime", "mime", cwd=project)
    run(*GIT, "commit", "--quiet", "-am", "moved", cwd=project)
    run("git", "switch", "--quiet", "-", cwd=project)
    run("git", "gc", "--quiet", "--prune=now", cwd=project)
    assert "error" not in run("git", "fsck", "--full", cwd=project)
    assert run("git", "status", "--porcelain", cwd=project) == ""
    run("git", "clone", "--quiet", project, drive / "clone")
    copy = folder / "clone" / "source"
    assert run("diff", "-r", "-x", "empty directory", tree, copy) == ""
    run("rm", "-rf", project, drive / "clone")
    assert os.listdir(folder) == []


WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for number in range(40):
    database.execute("begin immediate")
    database.execute("insert into rows values (?, ?)", (number, "x" * 1000))
    database.execute("update total set rows = rows + 1")
    database.execute("commit")
"""


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_sqlite(drive: Path, folder: Path, journal: str) -> None:
    use_sqlite(drive, folder, journal)


def test_sqlite_with_locks_passed_on(locking_drive: Path, folder: Path) -> None:
    use_sqlite(locking_drive, folder, "delete")


def use_sqlite(drive: Path, folder: Path, journal: str) -> None:
    database = drive / "database"
    run(
        "sqlite3",
        database,
        f"pragma journal_mode = {journal}",
        "create table rows (number, text)",
        "create table total (rows)",
        "insert into total values (0)",
    )
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, database]) for _ in range(3)]
    assert [writer.wait(90) for writer in writers] == [0, 0, 0]
    assert run("sqlite3", database, "pragma integrity_check").strip() == "ok"
    assert run("sqlite3", database, "select rows from total", "select count(*) from rows") == (
        "120\n120\n"
    )
    run("sqlite3", database, "pragma wal_checkpoint(truncate)", "vacuum")
    wait_until(lambda: os.listdir(folder) == ["database"])
    assert run("sqlite3", folder / "database", "select rows from total") == "120\n"


def wait_until(condition: Callable[[], bool]) -> None:
    """What belongs to a last RELEASE comes a moment after `close`."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_editors_save(drive: Path, folder: Path, client: Client) -> None:
    (folder / "text").write_text("one\ntwo\n")
    # By renaming the old file away and writing a new one, as vim does it.
    save = ("-c", "set backup backupcopy=no backupskip=", "-c", "%s/two/2/", "-c", "wq")
    run("vim", "-u", "NONE", "-es", *save, drive / "text")
    assert (folder / "text").read_text() == "one\n2\n"
    assert (folder / "text~").read_text() == "one\ntwo\n"
    # By writing it over.
    run("sh", "-c", "printf '1s/one/1/\\nw\\nq\\n' | ed -s text", cwd=drive)
    # By renaming a new file over it, also while somebody reads the old one.
    client.run("f = open(at + '/text')", at=str(drive))
    run("sed", "-i", "s/2/two/", drive / "text")
    assert client.call("f.read()") == "1\n2\n"
    client.run("f.close()")
    assert run("cat", drive / "text") == "1\ntwo\n"
    wait_until(lambda: not hidden_in(folder))
    assert sorted(os.listdir(folder)) == ["text", "text~"]


STRESS = """
import contextlib, os, random, sys
at, chance = sys.argv[1], random.Random(int(sys.argv[2]))
names = [f"{at}/{d}{n}" for d in ("", "d0/", "d1/", "d0/d2/") for n in "abc"]
directories = [f"{at}/{d}" for d in ("d0", "d1", "d0/d2", "d3")]
open_files = []
def any_name(): return chance.choice(names)
def any_file(): return chance.choice(open_files)
def write(name):
    with open(name, "wb") as file: file.write(bytes(chance.randrange(20000)))
actions = [
    lambda: open_files.append(os.open(any_name(), os.O_RDWR | os.O_CREAT)),
    lambda: open_files.append(os.open(any_name(), os.O_RDONLY)),
    lambda: os.close(open_files.pop(chance.randrange(len(open_files)))),
    lambda: os.pwrite(any_file(), bytes(chance.randrange(9000)), chance.randrange(50000)),
    lambda: os.pread(any_file(), 10000, chance.randrange(50000)),
    lambda: os.unlink(any_name()),
    lambda: os.rename(any_name(), any_name()),
    lambda: os.mkdir(chance.choice(directories)),
    lambda: os.rmdir(chance.choice(directories)),
    lambda: os.rename(chance.choice(directories), chance.choice(directories)),
    lambda: [entry.stat() for entry in os.scandir(chance.choice(directories))],
    lambda: next(os.scandir(at)),
    lambda: os.truncate(any_name(), chance.randrange(30000)),
    lambda: os.chmod(any_name(), chance.choice([0o444, 0o644])),
    lambda: write(any_name()),
]
for _ in range(600):
    action = chance.choice(actions)
    with contextlib.suppress(OSError, IndexError, ValueError, StopIteration): action()
"""


def test_several_programs_at_once(drive: Path) -> None:
    """What is left open at the end, and what has failed, is seen by the fixture."""
    command = [sys.executable, "-W", "ignore", "-c", STRESS, str(drive)]
    programs = [subprocess.Popen([*command, str(seed)]) for seed in range(4)]
    assert [program.wait(90) for program in programs] == [0, 0, 0, 0]


# --- what the guide promises ----------------------------------------------------------------------


def test_a_file_that_is_deleted_while_it_is_open(drive: Path, folder: Path, client: Client) -> None:
    client.run("a = open(at + '/file', 'w+'); a.write('first '); a.flush()", at=str(drive))
    run("rm", drive / "file")
    run("sh", "-c", "echo another > file", cwd=drive)
    client.run("a.write('second'); a.flush(); a.seek(0)")
    assert client.call("a.read()") == "first second"
    assert (folder / "file").read_text() == "another\n"
    assert len(hidden_in(folder)) == 1
    client.run("a.close()")
    wait_until(lambda: not hidden_in(folder))


def test_permissions_are_read_only_or_nothing(drive: Path, folder: Path) -> None:
    run("sh", "-c", "echo x > file; chmod 0711 file; mkdir -m 0700 directory", cwd=drive)
    assert run("stat", "-c", "%a", "file", "directory", cwd=drive) == "644\n755\n"
    run("chmod", "a-w", drive / "file")
    assert run("stat", "-c", "%a", drive / "file") == "444\n"
    assert not (folder / "file").stat().st_mode & 0o222
    run("rm", "-f", drive / "file")
    assert os.listdir(folder) == ["directory"]


def test_times_are_kept_to_the_microsecond(drive: Path, folder: Path, client: Client) -> None:
    run("touch", drive / "file")
    client.run("os.utime(at + '/file', ns=(10**9 + 500, 2 * 10**18 + 1500))", at=str(drive))
    status = (folder / "file").stat()
    assert status.st_atime_ns == 10**9
    # Seconds in a float, as this program counts them, are a little coarser still.
    assert abs(status.st_mtime_ns - (2 * 10**18 + 1000)) < 1000


def test_links_of_the_folder_are_not_shown(drive: Path, folder: Path) -> None:
    os.symlink("/etc", folder / "link")
    os.mkfifo(folder / "fifo")
    (folder / "file").touch()
    assert run("ls", "-A", drive) == "file\n"
    with pytest.raises(AssertionError, match="No such file"):
        run("cat", drive / "link" / "passwd")


def test_errors_arrive_as_what_they_are(drive: Path, folder: Path, client: Client) -> None:
    client.run("os.makedirs(at + '/full/inner'); open(at + '/file', 'w').close()", at=str(drive))
    for call, number in [
        ("os.rmdir(at + '/full')", errno.ENOTEMPTY),
        ("os.mkdir(at + '/full')", errno.EEXIST),
        ("os.open(at + '/file', os.O_CREAT | os.O_EXCL)", errno.EEXIST),
        ("os.listdir(at + '/file')", errno.ENOTDIR),
        ("os.open(at + '/none', os.O_RDONLY)", errno.ENOENT),
        ("os.open(at + '/none/file', os.O_RDONLY | os.O_CREAT)", errno.ENOENT),
        ("os.rename(at + '/full', at + '/full/inner/x')", errno.EINVAL),
        ("os.symlink('x', at + '/link')", errno.EPERM),
        ("os.link(at + '/file', at + '/link')", errno.EPERM),
        ("os.getxattr(at + '/file', 'user.x')", errno.EOPNOTSUPP),
    ]:
        with pytest.raises(OSError) as failed:  # noqa: PT011 - the errno says it
            client.run(call)
        assert failed.value.errno == number, call


def test_locks_are_passed_on(locking_drive: Path, folder: Path, client: Client) -> None:
    (folder / "file").write_bytes(b"x" * 100)
    client.run("f = open(at + '/file', 'r+'); fcntl.lockf(f, fcntl.LOCK_EX, 10, 20)",
               at=str(locking_drive))  # fmt: skip
    with open(folder / "file", "r+") as direct:
        fcntl.lockf(direct, fcntl.LOCK_EX | fcntl.LOCK_NB, 20, 0)
        with pytest.raises(BlockingIOError):
            fcntl.lockf(direct, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 29)
        with pytest.raises(BlockingIOError):
            client.run("fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)")
        fcntl.lockf(direct, fcntl.LOCK_UN)
        client.run("fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)")
        client.run("f.close()")
        wait_until(lambda: _locked(direct))


def _locked(file: Any) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
