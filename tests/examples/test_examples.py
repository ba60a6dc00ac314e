"""Every program in `examples/`, used through its drive by ordinary programs."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.client import Client, run
from support.gates import wait_until
from support.programs import REPOSITORY, Program

EXAMPLES = REPOSITORY / "examples"


def test_every_example_is_tested() -> None:
    tested = {"hello.py", "tutorial.py", "dictionary.py", "mirror.py", "commands.py"}
    tested.add("ported_folder_mirror.py")  # in test_ported_folder_mirror.py
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


# --- hello ----------------------------------------------------------------------------------------


def test_hello(point: Path) -> None:
    with Program(EXAMPLES / "hello.py", point, mountpoint=point):
        assert run("ls", point) == "hello.txt\n"
        assert run("cat", point / "hello.txt") == "Hello from Python.\n"
        assert run("stat", "-c", "%F %s", point / "hello.txt") == "regular file 19\n"
        assert run("tail", "-c", "8", point / "hello.txt") == "Python.\n"


def test_hello_is_read_only(point: Path, client: Client) -> None:
    with Program(EXAMPLES / "hello.py", point, mountpoint=point):
        with pytest.raises(OSError) as refused:  # noqa: PT011 - the errno says it
            client.run("Path(at, 'new').touch()", at=str(point))
        assert refused.value.errno == errno.EROFS


# --- tutorial (its steps are tested with docs/tutorial.md) ----------------------------------------


def test_the_notes_of_the_tutorial(point: Path, client: Client) -> None:
    with Program(EXAMPLES / "tutorial.py", point, mountpoint=point):
        client.run("drive = Path(at)", at=str(point))
        assert client.call("[p.name for p in drive.iterdir()]") == ["welcome"]
        client.run("(drive / 'list').write_text('milk\\n' * 100_000)")
        assert client.call("(drive / 'list').read_text()") == "milk\n" * 100_000
        client.run("os.truncate(drive / 'list', 5)")
        client.run("with open(drive / 'list', 'a') as f: f.write('eggs\\n')")
        client.run("(drive / 'list').rename(drive / 'shopping')")
        assert client.call("(drive / 'shopping').read_text()") == "milk\neggs\n"
        client.run("(drive / 'shopping').unlink()")
        assert client.call("os.listdir(drive)") == ["welcome"]
        with pytest.raises(OSError) as refused:  # noqa: PT011
            client.run("(drive / 'directory').mkdir()")
        assert refused.value.errno == errno.EPERM


# --- dictionary -----------------------------------------------------------------------------------


def test_a_dictionary_as_a_drive(point: Path, tmp_path: Path) -> None:
    source = tmp_path / "tree.json"
    source.write_text(json.dumps({"docs": {"readme": "hello\n", "old": "x"}, "number": 5}))
    with Program(EXAMPLES / "dictionary.py", point, source, mountpoint=point) as program:
        assert run("find", ".", cwd=point).split() == [
            ".",
            "./docs",
            "./docs/readme",
            "./docs/old",
            "./number",
        ]
        assert run("cat", point / "docs/readme") == "hello\n"
        run("sh", "-c", "echo more >> docs/readme; rm docs/old; mkdir -p a/b", cwd=point)
        run("sh", "-c", "mv docs a/b; echo new > a/b/docs/new; truncate -s 1 number", cwd=point)
        printed = program.end()
    tree = json.loads(printed)
    assert tree == {
        "number": "5",
        "a": {"b": {"docs": {"readme": "hello\nmore\n", "new": "new\n"}}},
    }


def test_a_dictionary_that_the_program_changes(point: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import cbfsconnect
from dictionary import DictionaryDrive

tree = {{"log": b""}}
with cbfsconnect.mount(DictionaryDrive(tree), {str(point)!r}):
    tree["log"] += b"first\\n"
    input()
print(tree)
"""
    )
    with Program(program, mountpoint=point) as served:
        # The drive is there a moment before the block of the program runs.
        run("sh", "-c", f"until grep -q first {point}/log; do sleep 0.05; done", timeout=20)
        run("sh", "-c", "echo second >> log", cwd=point)
        # Writing the file out by close(2) is what dd does at its end, with fsync(2) before.
        run("sh", "-c", "echo third | dd of=log oflag=append conv=notrunc,fsync", cwd=point)
        printed = served.end("\n")
    assert printed.strip() == str({"log": b"first\nsecond\nthird\n"})


def test_a_file_of_the_dictionary_that_is_deleted_while_open(point: Path, client: Client) -> None:
    with Program(EXAMPLES / "dictionary.py", point, mountpoint=point) as program:
        read = client.run(
            """
            f = open(Path(at, "readme"), "r+")
            os.unlink(Path(at, "readme"))
            f.write("B")
            f.flush()
            f.seek(0)
            result = f.read()
            Path(at, "readme").write_text("another one")
            f.close()
            """,
            at=str(point),
        )
        assert read == "B dictionary.\n"
        printed = program.end()
    assert json.loads(printed) == {"readme": "another one"}


# --- mirror ---------------------------------------------------------------------------------------


@pytest.fixture
def mirror(folder: Path, point: Path) -> Iterator[Path]:
    """The mounted mirror of `folder`."""
    with Program(EXAMPLES / "mirror.py", folder, point, mountpoint=point):
        yield point


def test_a_tree_is_copied_into_the_mirror_and_is_the_same(mirror: Path, folder: Path) -> None:
    library = Path(sysconfig.get_path("stdlib"), "email")
    run("cp", "-a", library, mirror / "copy")
    assert run("diff", "-r", library, mirror / "copy") == ""
    for copy in (mirror / "copy", folder / "copy"):
        # Contents, modes, owners, times, links: rsync finds nothing that it would have to do.
        assert run("rsync", "-aHni", "--delete", "--checksum", f"{library}/", f"{copy}/") == ""


def test_git_works_in_the_mirror(mirror: Path, folder: Path) -> None:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    project = mirror / "project"
    run("git", "init", "--quiet", project)
    run(
        "sh", "-c", "echo one > file; ln -s file link; echo two > exec; chmod 755 exec", cwd=project
    )
    run("git", "add", ".", cwd=project)
    run("git", *identity, "commit", "--quiet", "-m", "first", cwd=project)
    run("git", "gc", "--quiet", cwd=project)
    assert "error" not in run("git", "fsck", "--full", cwd=project)
    assert run("git", "status", "--porcelain", cwd=project) == ""
    clone = folder / "clone"
    run("git", "clone", "--quiet", folder / "project", clone, GIT_CONFIG_NOSYSTEM="1")
    assert sorted(os.listdir(clone)) == [".git", "exec", "file", "link"]
    assert os.readlink(clone / "link") == "file"
    assert stat.S_IMODE((clone / "exec").stat().st_mode) & 0o111 == 0o111


def test_an_unlinked_open_file_stays_usable(mirror: Path, folder: Path, client: Client) -> None:
    seen = client.run(
        """
        path = Path(at, "file")
        f = open(path, "w+")
        f.write("before ")
        f.flush()
        os.unlink(path)
        f.write("after")
        f.flush()
        f.seek(0)
        result = (f.read(), os.fstat(f.fileno()).st_nlink, os.listdir(at), path.exists())
        """,
        at=str(mirror),
    )
    assert seen == ("before after", 0, [], False)
    assert os.listdir(folder) == []
    client.run("path.write_text('a new one'); os.fchmod(f.fileno(), 0o600); f.close()")
    assert (folder / "file").read_text() == "a new one"


def test_hard_links_are_one_file(mirror: Path, folder: Path, client: Client) -> None:
    seen = client.run(
        """
        one, two = Path(at, "one"), Path(at, "two")
        one.write_text("1")
        os.link(one, two)
        two.write_text("22")
        result = (one.read_text(), one.stat().st_nlink, os.path.samefile(one, two))
        """,
        at=str(mirror),
    )
    assert seen == ("22", 2, True)
    assert os.path.samefile(folder / "one", folder / "two")
    client.run("one.unlink()")
    assert client.call("(two.read_text(), two.stat().st_nlink)") == ("22", 1)


def test_modes_owners_and_times_are_kept(mirror: Path, folder: Path, client: Client) -> None:
    client.run(
        """
        os.umask(0)
        path = Path(at, "file")
        path.write_text("x")
        os.chmod(path, 0o4751)
        os.utime(path, ns=(1_000_000_001, -1_000_000_002))
        os.symlink("nowhere", Path(at, "link"))
        os.utime(Path(at, "link"), ns=(3, 4), follow_symlinks=False)
        os.mkfifo(Path(at, "fifo"), 0o620)
        os.mkdir(Path(at, "directory"), 0o711)
        """,
        at=str(mirror),
    )
    for place in (str(mirror), str(folder)):
        client.run("status = lambda name: os.lstat(Path(place, name))", place=place)
        file = client.call("status('file')")
        assert stat.S_IMODE(file.st_mode) == 0o4751
        assert (file.st_atime_ns, file.st_mtime_ns) == (1_000_000_001, -1_000_000_002)
        link = client.call("status('link')")
        assert stat.S_ISLNK(link.st_mode)
        assert (link.st_size, link.st_mtime_ns) == (7, 4)
        assert client.call("status('fifo').st_mode") == stat.S_IFIFO | 0o620
        assert client.call("status('directory').st_mode") == stat.S_IFDIR | 0o711


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_another_user_makes_is_theirs(mirror: Path, folder: Path) -> None:
    os.chmod(folder, 0o1777)
    other = ("setpriv", "--reuid=4711", "--regid=4712", "--clear-groups", "sh", "-c")
    run(*other, "mkdir d; ln -s x l; touch f; ! chown 0:0 f 2>/dev/null", cwd=mirror)
    for name in "dlf":
        status = os.lstat(folder / name)
        assert (status.st_uid, status.st_gid) == (4711, 4712)


def test_errors_are_those_of_the_folder(mirror: Path, client: Client) -> None:
    client.run(
        "os.makedirs(Path(at, 'full', 'inner')); os.symlink('a', Path(at, 'l'))", at=str(mirror)
    )
    for call, number in [
        ("os.rmdir(Path(at, 'full'))", errno.ENOTEMPTY),
        ("os.symlink('b', Path(at, 'l'))", errno.EEXIST),
        ("os.rename(Path(at, 'full'), Path(at, 'full', 'inner', 'x'))", errno.EINVAL),
        ("os.open(Path(at, 'none'), os.O_RDONLY)", errno.ENOENT),
        ("os.stat(Path(at, 'l', 'below'))", errno.ENOENT),
        ("os.stat(Path(at, 'x' * 256))", errno.ENAMETOOLONG),
    ]:
        with pytest.raises(OSError) as failed:  # noqa: PT011
            client.run(call)
        assert failed.value.errno == number, call
    assert client.call("os.readlink(Path(at, 'l'))") == "a"


def test_changes_in_the_folder_are_seen(mirror: Path, folder: Path) -> None:
    run("sh", "-c", "echo long line > file", cwd=mirror)
    assert run("cat", mirror / "file") == "long line\n"
    (folder / "file").write_text("changed from below\n")
    # Names and attributes may be a second old (setting MetadataCacheTimeout).
    run("sh", "-c", f"until grep -q below {mirror}/file; do sleep 0.05; done", timeout=20)
    (folder / "new").touch()
    assert run("ls", mirror) == "file\nnew\n"


def test_a_mountpoint_inside_the_folder_is_refused(folder: Path) -> None:
    inside = folder / "inside"
    inside.mkdir()
    with pytest.raises(AssertionError, match="may lie in the other"):
        run(sys.executable, EXAMPLES / "mirror.py", folder, inside)


# --- commands -------------------------------------------------------------------------------------


def test_commands_as_files(point: Path, client: Client, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    commands = ("now=printf '%s' soon", "bad=exit 3", f"stuck=echo $$ > {note}; sleep 1000; :")
    with Program(EXAMPLES / "commands.py", point, *commands, mountpoint=point):
        assert run("ls", point) == "bad\nnow\nstuck\n"
        assert run("cat", point / "now") == "soon"
        with pytest.raises(OSError) as refused:  # noqa: PT011
            client.run("Path(at).read_text()", at=str(point / "bad"))
        assert refused.value.errno == errno.EIO
        reader = subprocess.Popen(["cat", point / "stuck"])
        wait_until(lambda: note.exists() and note.read_text().endswith("\n"))
        reader.send_signal(signal.SIGINT)
        assert reader.wait(20) == -signal.SIGINT
        group = int(note.read_text())
        wait_until(lambda: not _group_exists(group))


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
