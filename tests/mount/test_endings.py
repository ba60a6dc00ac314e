"""How a server may end; what is left of its drive then is nothing, or what the next one clears."""

import contextlib
import errno
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cbfsconnect
from cbfsconnect import CBFSConnectError, MemoryDrive
from cbfsconnect.errors import ERROR_BUSY
from cbfsconnect.fuse import mountinfo
from support.apart import NOBODY, become_user, command, run_apart
from support.client import Client, run
from support.server import Server

RUN = """
class Saying(Handlers):
    def configure(self, cbfs):
        super().configure(cbfs)
        threading.Thread(target=self.watch, args=(cbfs,), daemon=True).start()
    def watch(self, cbfs):  # `run` does not say when the drive is served
        while not cbfs.mounting_point_count: time.sleep(0.005)
        say("ready")
cbfsconnect.run(Saying(), point)
say("returned")
"""
WAIT = """
with cbfsconnect.mount(Handlers(), point) as drive:
    say("ready")
    drive.wait()
say("returned")
"""
PAUSE = "for _ in iter(int, 1): time.sleep(0.02)"
"""`signal.pause()` would miss a signal that came just before it."""
NO_WITH = """
drive = cbfsconnect.mount(Handlers(), point)
say("ready")
"""


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """An empty directory. Mounts that a killed server left there or beside it are taken away."""
    path = tmp_path / "point"
    path.mkdir()
    yield path
    while left := mountinfo.entries_below(str(tmp_path)):
        command("umount", "-l", left[-1].mount_point)


def is_mounted(point: Path) -> bool:
    return mountinfo.entry_at(str(point)) is not None


# --- unmounted by others ----------------------------------------------------------------


@pytest.mark.parametrize("code", [WAIT, RUN], ids=["wait", "run"])
def test_an_umount_ends_the_server(point: Path, code: str) -> None:
    with Server(point, code) as server:
        server.wait_for("ready")
        until_mounted(point)
        run("umount", point)
        assert server.finish() == (0, ["unmounted", "ejected", "returned"], "")


def until_mounted(point: Path) -> None:
    """`run` does not say when the mount is there, which is after `on_mount`."""
    deadline = time.monotonic() + 20
    while not is_mounted(point):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    run("stat", "-f", point)


def test_a_lazy_umount_ends_the_server_when_the_last_file_is_closed(
    point: Path, client: Client
) -> None:
    with Server(point, WAIT) as server:
        server.wait_for("ready")
        client.run("file = open(at + '/f', 'w+b', 0); file.write(b'late')", at=str(point))
        run("umount", "-l", point)
        assert client.call("os.pread(file.fileno(), 9, 0)") == b"late"
        assert server.process.poll() is None
        client.run("file.close()")
        assert server.finish() == (0, ["unmounted", "ejected", "returned"], "")


# --- signals ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "number", "status", "said"),
    [
        (RUN, signal.SIGINT, 0, ["unmounted", "returned"]),
        (RUN, signal.SIGTERM, 143, ["unmounted"]),
        (WAIT, signal.SIGTERM, 143, ["unmounted"]),
        (WAIT, signal.SIGHUP, 129, ["unmounted"]),
        (NO_WITH + PAUSE, signal.SIGTERM, 143, ["unmounted"]),
        (NO_WITH + "while True: pass", signal.SIGHUP, 129, ["unmounted"]),
        (
            NO_WITH + "try:\n " + PAUSE + "\nfinally: say('cleaned', drive.cbfs.active)",
            signal.SIGTERM,
            143,
            ["cleaned True", "unmounted"],
        ),
    ],
    ids=["run INT", "run TERM", "with TERM", "with HUP", "bare TERM", "bare HUP", "finally TERM"],
)
def test_a_signal_unmounts_in_good_order(
    point: Path, code: str, number: int, status: int, said: list[str]
) -> None:
    with Server(point, code) as server:
        server.wait_for("ready")
        until_mounted(point)
        server.signal(number)
        assert server.finish() == (status, said, "")
        assert not is_mounted(point)


def test_control_c_in_a_with_block_unmounts_and_shows_where(point: Path) -> None:
    with Server(point, WAIT) as server:
        server.wait_for("ready")
        server.signal(signal.SIGINT)
        status, said, complaint = server.finish()
        assert (status, said) == (-signal.SIGINT, ["unmounted"])
        assert complaint.rstrip().endswith("KeyboardInterrupt")
        assert not is_mounted(point)


def test_a_signal_writes_what_is_cached_and_closes_what_is_open(
    point: Path, client: Client
) -> None:
    code = """
class Saying(Handlers):
    def on_write_file(self, p): super().on_write_file(p); say("wrote", bytes(p.buffer_view))
    def on_close_file(self, p): super().on_close_file(p); say("closed", p.file_name)
with cbfsconnect.mount(Saying(), point) as drive:
    say("ready")
    drive.wait()
"""
    with Server(point, code) as server:
        server.wait_for("ready")
        client.run("file = open(at + '/f', 'wb', 0); file.write(b'kept')", at=str(point))
        server.signal(signal.SIGTERM)
        status, said, complaint = server.finish()
        assert (status, complaint) == (143, "")
        wanted = ["wrote b'kept'", "closed /f", "unmounted"]
        assert [line for line in said if line in wanted] == wanted
        with pytest.raises(OSError, match="not connected") as caught:
            client.run("os.fsync(file.fileno())")
        assert caught.value.errno == errno.ENOTCONN


def test_without_the_setting_signals_are_left_alone(point: Path) -> None:
    code = """
drive = cbfsconnect.mount(Handlers(), point, config={"HandleSignals": False})
say("ready", signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
signal.pause()
"""
    with Server(point, code) as server:
        assert server.wait_for("ready") == "ready True"
        server.signal(signal.SIGTERM)
        assert server.finish() == (-signal.SIGTERM, [], "")
        assert is_mounted(point)


def test_what_the_program_does_with_a_signal_stays(point: Path) -> None:
    code = """
heard = threading.Event()
signal.signal(signal.SIGTERM, lambda *given: heard.set())
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with cbfsconnect.mount(Handlers(), point) as drive:
    say("ready")
    while not heard.wait(0.01): pass
    say("left")
"""
    with Server(point, code) as server:
        server.wait_for("ready")
        server.signal(signal.SIGHUP)
        server.signal(signal.SIGTERM)
        assert server.finish() == (0, ["left", "unmounted"], "")


# --- the end of the interpreter ---------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "complaint"),
    [
        ("", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("raise RuntimeError('out of order')", 1, "RuntimeError: out of order\n"),
        ("with drive: raise RuntimeError('inside')", 1, "RuntimeError: inside\n"),
        ("threading.Thread(target=lambda: say('thread')).start()", 0, ""),
    ],
    ids=["end", "exit", "exception", "exception in with", "thread"],
)
def test_the_end_of_the_program_unmounts(
    point: Path, code: str, status: int, complaint: str
) -> None:
    with Server(point, NO_WITH + code) as server:
        server.wait_for("ready")
        ended, said, told = server.finish()
        assert ended == status
        assert said[-1] == "unmounted"
        assert told.endswith(complaint) if complaint else told == ""
        assert not is_mounted(point)


def test_media_without_a_mounting_point_is_unmounted_too(point: Path) -> None:
    code = """
cbfs = cbfsconnect.CBFS()
cbfs.set_handlers(Handlers())
cbfs.initialize("{0}")
cbfs.create_storage()
cbfs.mount_media(0)
"""
    with Server(point, code) as server:
        assert server.finish() == (0, ["mounted", "unmounted"], "")


def test_a_drive_that_cannot_be_unmounted_does_not_keep_another_mounted(point: Path) -> None:
    code = """
class Failing(Handlers):
    def on_unmount(self, p): raise RuntimeError("no way")
inner = os.path.join(os.path.dirname(point), "second")
os.mkdir(inner)
one = cbfsconnect.mount(Failing(), point)
two = cbfsconnect.mount(Handlers(), inner)
say("ready")
"""
    with Server(point, code) as server:
        status, said, complaint = server.finish()
        assert (status, said.count("unmounted")) == (0, 1)
        assert "no way" in complaint
        assert not mountinfo.entries_below(str(point.parent))


# --- killed -----------------------------------------------------------------------------


def kill(server: Server) -> None:
    server.signal(signal.SIGKILL)
    assert server.finish()[0] == -signal.SIGKILL


def test_the_drive_of_a_killed_server_is_replaced_by_the_next(point: Path, client: Client) -> None:
    with Server(point, WAIT) as server:
        server.wait_for("ready")
        client.run("os.chdir(at); file = open('f', 'w')", at=str(point))
        kill(server)
        assert is_mounted(point)
        with pytest.raises(OSError, match="not connected"):
            client.run("os.stat('new')")
        with Server(point, WAIT) as second:
            second.wait_for("ready")
            assert len([e for e in mountinfo.entries() if e.mount_point == str(point)]) == 1
            run("touch", point / "new")
            # Who still is in the dead drive stays there.
            with pytest.raises(OSError, match="not connected"):
                client.run("os.stat('new')")
            client.run("os.chdir(at)")
            assert client.call("os.listdir('.')") == ["new"]
            client.run("os.chdir('/')")
            second.signal(signal.SIGTERM)
            assert second.finish()[0] == 143
        assert not is_mounted(point)


def test_the_drive_of_a_living_server_is_not_replaced(point: Path) -> None:
    with Server(point, WAIT) as server:
        server.wait_for("ready")
        with pytest.raises(CBFSConnectError) as caught:
            cbfsconnect.mount(MemoryDrive(), point)
        assert caught.value.code == ERROR_BUSY
        assert "umount" in caught.value.message
        assert run("ls", point) == ""


def test_all_points_of_a_killed_server_are_replaced(point: Path, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    code = """
second = os.path.join(os.path.dirname(point), "second")
with cbfsconnect.mount(Handlers(), point) as drive:
    drive.cbfs.add_mounting_point(second, 0, 0)
    say("ready", drive.cbfs.mounting_point_count)
    drive.wait()
"""
    with Server(point, code) as server:
        server.wait_for("ready")
        kill(server)
        with Server(point, code) as second:
            assert second.wait_for("ready") == "ready 2"
            assert len(mountinfo.entries_below(str(tmp_path))) == 2
            second.signal(signal.SIGTERM)
            second.finish()
        assert not mountinfo.entries_below(str(tmp_path))


# --- fork -------------------------------------------------------------------------------

QUIET = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, for forks with threads
"""
FORKING = {
    "fork": """
drive = cbfsconnect.mount(Handlers(), point)
say("ready")
if os.fork() == 0:
    say("child", os.getpid())
signal.pause()
""",
    "in a handler": """
class Forking(Handlers):
    def on_flush_file(self, p):
        if os.fork() == 0:
            say("child", os.getpid())
            signal.pause()
drive = cbfsconnect.mount(Forking(), point)
say("ready")
signal.pause()
""",
    "multiprocessing": """
import multiprocessing
def work():
    say("child", os.getpid())
    signal.pause()
drive = cbfsconnect.mount(Handlers(), point)
say("ready")
multiprocessing.get_context("fork").Process(target=work, daemon=True).start()
signal.pause()
""",
}


@pytest.mark.parametrize("way", FORKING)
def test_a_forked_child_does_not_keep_the_drive_alive(
    point: Path, client: Client, way: str
) -> None:
    code = QUIET + FORKING[way]
    with Server(point, code) as server:
        server.wait_for("ready")
        client.run("file = open(at + '/f', 'wb', 0); os.fsync(file.fileno())", at=str(point))
        child = int(server.wait_for("child").split()[1])
        try:
            assert not any("/dev/fuse" in link for link in descriptors(child))
            server.signal(signal.SIGKILL)
            server.process.wait(20)
            # Were the connection alive still, this would wait for ever.
            with pytest.raises(OSError, match=r"not connected|abort"):
                client.run("os.stat(at + '/new')")
        finally:
            os.kill(child, signal.SIGKILL)


def descriptors(process: int) -> list[str]:
    links = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            links.append(os.readlink(link))
    return links


def test_a_forked_child_that_exits_leaves_the_drive_mounted(point: Path) -> None:
    code = """
with cbfsconnect.mount(Handlers(), point) as drive:
    if os.fork() == 0:
        say("child", drive.cbfs.storage_present, drive.cbfs.active)
        sys.exit(0)
    os.wait()
    say("ready")
    drive.wait()
"""
    with Server(point, QUIET + code) as server:
        assert server.wait_for("child") == "child False False"
        assert server.wait_for("ready", "unmounted") == "ready"
        run("touch", point / "f")
        assert run("ls", point) == "f\n"
        server.signal(signal.SIGTERM)
        assert server.finish() == (143, ["unmounted"], "")


def test_a_handler_may_return_in_a_forked_child(point: Path) -> None:
    """What the child then does must not reach the kernel, nor anybody's files."""
    code = """
class Forking(Handlers):
    def on_get_file_info(self, p):
        super().on_get_file_info(p)
        if p.file_name == "/fork" and os.fork() == 0:
            os.open("/dev/null", os.O_RDWR)
            say("child", os.getpid())
    def on_close_file(self, p):
        super().on_close_file(p)
        say("closed", os.getpid() == parent)
parent = os.getpid()
with cbfsconnect.mount(Forking(), point) as drive:
    say("ready")
    drive.wait()
"""
    with Server(point, QUIET + code) as server:
        server.wait_for("ready")
        run("sh", "-c", f"exec 3> {point}/open; test ! -e {point}/fork; exec 3>&-")
        child = int(server.wait_for("child").split()[1])
        run("touch", point / "after")
        assert "after" in run("ls", point)
        server.signal(signal.SIGTERM)
        try:
            status, said, complaint = server.finish()  # the child has the pipes too
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        assert (status, said[-1], complaint) == (143, "unmounted", "")
        assert "closed False" not in said


# --- an ordinary user -------------------------------------------------------------------


@pytest.fixture
def area() -> Iterator[Path]:
    """A directory that every user may enter (pytest's own is closed)."""
    path = Path(tempfile.mkdtemp(prefix="endings-"))
    path.chmod(0o755)
    (path / "drive").mkdir()
    os.chown(path / "drive", NOBODY, NOBODY)
    yield path
    command("rm", "-rf", str(path))


def as_user(area: Path, action: Callable[[str], dict[str, object]]) -> dict[str, object]:
    """What `action`, given an empty directory, tells when an ordinary user runs it."""

    def child() -> dict[str, object]:
        become_user(area)
        told = action(str(area / "drive"))
        told["left"] = mountinfo.entry_at(str(area / "drive"))
        return told

    told = run_apart(child)
    assert told.pop("left") is None
    return told


def test_an_ordinary_user_mounts_uses_and_unmounts(area: Path) -> None:
    def action(path: str) -> dict[str, object]:
        with cbfsconnect.mount(MemoryDrive(), path) as drive:
            run("sh", "-c", f"echo hello > {path}/f && mkdir {path}/d")
            told: dict[str, object] = {
                "data": run("cat", f"{path}/f"),
                "owner": run("stat", "-c", "%u", f"{path}/f"),
                "allow_other": drive.cbfs.config("AllowOther"),
            }
            drive.unmount()
        return told

    assert as_user(area, action) == {
        "data": "hello\n",
        "owner": f"{NOBODY}\n",
        "allow_other": "False",
    }


def test_a_user_takes_a_busy_drive_away_by_force_only(area: Path) -> None:
    def action(path: str) -> dict[str, object]:
        told: dict[str, object] = {}
        drive = cbfsconnect.mount(MemoryDrive(), path)
        words = ["sh", "-c", f"cd {path} && exec 3> f && echo in && read line"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
            assert user.stdin is not None
            assert user.stdout is not None
            user.stdout.readline()
            try:
                drive.unmount()
            except CBFSConnectError as error:
                told["code"], told["named"] = error.code, str(user.pid) in error.message
            begun = time.monotonic()
            drive.unmount(force=True)
            told["quick"] = time.monotonic() - begun < 1.5
            told["fuse"] = [link for link in descriptors(os.getpid()) if "fuse" in link]
            user.stdin.close()
        return told

    assert as_user(area, action) == {
        "code": ERROR_BUSY,
        "named": True,
        "quick": True,
        "fuse": [],
    }


def test_an_umount_by_the_user_ends_the_drive(area: Path) -> None:
    def action(path: str) -> dict[str, object]:
        drive = cbfsconnect.mount(MemoryDrive(), path)
        run("fusermount3", "-u", path)
        return {"ended": drive.wait(20), "present": drive.cbfs.storage_present}

    assert as_user(area, action) == {"ended": True, "present": False}


def test_a_user_is_told_why_a_second_mounting_point_is_refused(area: Path) -> None:
    def action(path: str) -> dict[str, object]:
        with cbfsconnect.mount(MemoryDrive(), path) as drive:
            try:
                drive.cbfs.add_mounting_point(path, 0, 0)
            except CBFSConnectError as error:
                return {"message": "root" in error.message}
        return {}

    assert as_user(area, action) == {"message": True}
