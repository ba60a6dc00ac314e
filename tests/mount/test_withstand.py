"""What a drive must withstand: handlers that block, clients that are killed, many of everything."""

import contextlib
import errno
import logging
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cbfsconnect
from cbfsconnect import CBFS, CBFSConnectError, MemoryDrive
from cbfsconnect.errors import ERROR_INVALID_STATE
from cbfsconnect.fuse import mountinfo
from support.client import Client
from support.gates import DEADLINE_S, Gate, wait_until_blocked
from support.mounts import Mounting
from support.recorder import Recorder
from support.server import Server


class Closing(MemoryDrive):
    """Hears of closed descriptors too."""

    def on_cleanup_file(self, p: Any) -> None:
        pass


@pytest.fixture
def record() -> Recorder:
    return Recorder(Closing())


@pytest.fixture
def clients() -> Iterator[Callable[[str], Client]]:
    """Makes further client processes, which know the mountpoint as `at`."""
    with contextlib.ExitStack() as stack:

        def make(at: str) -> Client:
            client = stack.enter_context(Client())
            client.run("", at=at)
            return client

        yield make


def descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def library_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cbfs")]


def nothing_is_left(at: str, before: dict[str, str]) -> None:
    """Wait until no thread, descriptor and mount of a drive is left."""
    deadline = time.monotonic() + DEADLINE_S
    while library_threads() or descriptors() != before:
        assert time.monotonic() < deadline, (library_threads(), descriptors(), before)
        time.sleep(0.01)
    assert mountinfo.entry_at(at) is None


FILL = """
for name in ("slow", "other"):
    Path(at, name).write_bytes(b"data")
os.mkdir(at + "/d")
"""
UNCACHED = {"file_cache": 0}

# --- handlers that block ----------------------------------------------------------------


def test_other_files_work_while_handlers_block(
    mount: Mounting, record: Recorder, clients: Callable[[str], Client]
) -> None:
    drive = mount(record, **UNCACHED)
    quick = clients(drive.mountpoint)
    quick.run("for n in range(10): Path(at, f'slow{n}').write_bytes(b'data')")
    quick.run(FILL)
    gate, inside = Gate(), threading.Semaphore(0)

    def slow(params: Any) -> None:
        if params.file_name.startswith("/slow"):
            inside.release()
            gate(params)

    record.before["on_read_file"] = slow
    stuck = [clients(drive.mountpoint) for _ in range(10)]
    for number, client in enumerate(stuck):
        client.start(f"result = Path(at, 'slow{number}').read_bytes()")
    for _ in stuck:
        assert inside.acquire(timeout=DEADLINE_S), "a request waits for those that block"
    for number in range(50):
        quick.run(f"Path(at, 'd/f{number}').write_bytes(b'x')")
    assert quick.call("len(os.listdir(at + '/d'))") == 50
    assert quick.call("Path(at, 'other').read_bytes()") == b"data"
    gate.open()
    assert [client.finish() for client in stuck] == [b"data"] * 10


def test_with_serialized_events_one_blocks_all_until_it_returns(
    mount: Mounting, record: Recorder, clients: Callable[[str], Client]
) -> None:
    drive = mount(record, serialize_events=True, **UNCACHED)
    one, two = clients(drive.mountpoint), clients(drive.mountpoint)
    one.run(FILL)
    gate = record.before["on_read_file"] = Gate("/slow")
    one.start("result = Path(at, 'slow').read_bytes()")
    gate.wait()
    two.start("result = os.listdir(at + '/d')")
    wait_until_blocked(two)
    record.clear()
    assert library_threads().count("cbfs-worker") == 1
    gate.open()
    assert (one.finish(), two.finish()) == (b"data", [])
    assert record.names()[0] == "on_read_file"


# --- timeouts ---------------------------------------------------------------------------

STUCK_CALLS = {
    "on_read_file": "os.pread(os.open(at + '/slow', os.O_RDONLY), 4, 0)",
    "on_write_file": "os.pwrite(os.open(at + '/write', os.O_WRONLY), b'x', 0)",
    "on_open_file": "os.open(at + '/open', os.O_RDONLY)",
    "on_create_file": "os.open(at + '/d/created', os.O_WRONLY | os.O_CREAT)",
    "on_get_file_info": "os.stat(at + '/e/info')",
    "on_cleanup_file": "os.close(os.open(at + '/cleanup', os.O_RDONLY))",
    "on_set_file_attributes": "os.utime(at + '/times')",
    "on_enumerate_directory": "os.listdir(at + '/l')",
    "on_flush_file": "os.fsync(os.open(at + '/flush', os.O_RDONLY))",
}
PATHS = {"on_create_file": "/d/created", "on_get_file_info": "/e/info"}


@pytest.mark.proves("reset_timeout")
def test_a_handler_that_takes_too_long_is_answered_for(
    mount: Mounting, record: Recorder, clients: Callable[[str], Client]
) -> None:
    """All at once, since each takes three seconds."""
    drive = mount(record, timeout=3000, fire_all_open_close_events=True, **UNCACHED)
    stuck = {event: clients(drive.mountpoint) for event in STUCK_CALLS}
    first, patient = next(iter(stuck.values())), clients(drive.mountpoint)
    first.run(
        """
        for name in ("slow", "write", "open", "cleanup", "times", "flush", "patient"):
            Path(at, name).write_bytes(b"data")
        for name in "del":
            os.mkdir(f"{at}/{name}")
        """
    )
    gates = {event: Gate(PATHS.get(event)) for event in STUCK_CALLS}
    end = Gate("/patient")

    def ask_for_more(params: Any) -> None:
        if params.file_name == "/patient":
            assert drive.cbfs.reset_timeout(0)
            end(params)
        else:
            gates["on_read_file"](params)

    def at_directory(params: Any) -> None:
        if params.directory_name == "/l":
            gates["on_enumerate_directory"](Named(params.directory_name))

    only = {"on_write_file": "/write", "on_open_file": "/open", "on_cleanup_file": "/cleanup"}
    for event, gate in gates.items():
        gate.path = PATHS.get(event, only.get(event))
        record.before[event] = gate
    record.before["on_read_file"] = ask_for_more
    record.before["on_enumerate_directory"] = at_directory
    begun = time.monotonic()
    patient.start("result = os.pread(os.open(at + '/patient', os.O_RDONLY), 4, 0)")
    for event, client in stuck.items():
        client.start(STUCK_CALLS[event])
    for event, client in stuck.items():
        with pytest.raises(OSError, match=r"timed out") as caught:
            client.finish()
        assert caught.value.errno == errno.ETIMEDOUT, event
        assert 2.9 < time.monotonic() - begun < 8, event
    assert patient.process.poll() is None
    end.open()
    assert patient.finish() == b"data"
    record.clear()
    for gate in gates.values():
        gate.open()
    # The late answers are dropped, and what they opened is closed again.
    for path in ("/open", "/d/created"):
        deadline = time.monotonic() + DEADLINE_S
        while not record.all("on_close_file", path):
            assert time.monotonic() < deadline, path
            time.sleep(0.01)
    assert first.call("os.pread(os.open(at + '/slow', os.O_RDONLY), 4, 0)") == b"data"
    assert sorted(first.call("os.listdir(at + '/l')")) == []
    for client in (patient, *stuck.values()):
        client.close()
    drive.cbfs.unmount_media(False)


class Named:
    """Stands for parameters with a path."""

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name


def test_the_timeout_holds_for_points_that_were_there_before(
    tmp_path: Path, record: Recorder, client: Client
) -> None:
    cbfs = CBFS()
    cbfs.set_handlers(record)
    cbfs.initialize("{0}")
    cbfs.create_storage()
    cbfs.add_mounting_point(str(tmp_path), 0, 0)
    cbfs.mount_media(3000)
    gate = record.before["on_get_file_info"] = Gate("/f")
    try:
        with pytest.raises(OSError, match="timed out"):
            client.run("os.stat(at + '/f')", at=str(tmp_path))
    finally:
        gate.open()
        cbfs.delete_storage(True)


# --- forbidden calls, killed clients ----------------------------------------------------


def test_a_forbidden_call_in_a_handler_leaves_the_drive_as_it_was(
    mount: Mounting, record: Recorder, client: Client
) -> None:
    drive = mount(record)

    def forbidden(params: Any) -> None:
        drive.cbfs.delete_storage(True)

    record.before["on_open_file"] = forbidden
    client.run(FILL, at=drive.mountpoint)
    with pytest.raises(OSError, match="Input/output error"):
        client.run("open(at + '/slow').read()")
    failure = record.all("on_open_file")[0].error
    assert isinstance(failure, CBFSConnectError)
    assert failure.code == ERROR_INVALID_STATE
    record.before.clear()
    assert client.call("open(at + '/slow').read()") == "data"


@pytest.mark.parametrize(
    ("event", "call"),
    [
        ("on_read_file", "os.pread(os.open(at + '/slow', os.O_RDONLY), 4, 0)"),
        ("on_open_file", "os.open(at + '/slow', os.O_RDONLY)"),
        ("on_create_file", "os.open(at + '/directory/new', os.O_RDWR | os.O_CREAT)"),
        ("on_write_file", "os.pwrite(os.open(at + '/slow', os.O_WRONLY), b'x', 0)"),
    ],
)
def test_a_client_killed_in_the_middle_of_a_call_leaves_nothing_open(
    mount: Mounting,
    record: Recorder,
    client: Client,
    clients: Callable[[str], Client],
    event: str,
    call: str,
) -> None:
    drive = mount(record, **UNCACHED)
    client.run(FILL, at=drive.mountpoint)
    # Elsewhere: while a name is made, the kernel looks up no other in the same directory.
    client.run("os.mkdir(at + '/directory')", at=drive.mountpoint)
    victim = clients(drive.mountpoint)
    gate = record.before[event] = Gate("/directory/new" if event == "on_create_file" else "/slow")
    victim.start(call)
    gate.wait()
    record.clear()
    victim.process.send_signal(signal.SIGKILL)
    assert client.call("Path(at, 'other').read_bytes()") == b"data"
    gate.open()
    victim.process.wait(DEADLINE_S)
    record.wait_for("on_close_file", 2)  # that of "other" and of the victim's
    drive.cbfs.unmount_media(False)


# --- many -------------------------------------------------------------------------------


def test_ten_thousand_open_files(mount: Mounting, record: Recorder, client: Client) -> None:
    count = 10_000
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= count + 100 or os.geteuid() == 0
    drive = mount(Closing())
    client.run(
        f"""
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, ({count + 100}, {max(hard, count + 100)}))
        files = [os.open(f"{{at}}/f{{n}}", os.O_RDWR | os.O_CREAT) for n in range({count})]
        for n in range(0, {count}, 100):
            os.pwrite(files[n], b"%d" % n, 0)
        """,
        at=drive.mountpoint,
    )
    cbfs = drive.cbfs
    cbfs.create_opened_files_snapshot()
    assert cbfs.open_handles_count == count
    cbfs.close_opened_files_snapshot()
    assert client.call("[os.pread(files[n], 9, 0) for n in (0, 5000, 9900)]") == [
        b"0",
        b"5000",
        b"9900",
    ]
    client.run("for fd in files: os.close(fd)")
    cbfs.unmount_media(False)


def test_a_thousand_mounts_leave_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    handlers = MemoryDrive()

    def cycle() -> None:
        cbfsconnect.mount(handlers, tmp_path).unmount()

    cycle()
    before = descriptors()
    threads = set(threading.enumerate())
    begun = time.monotonic()
    for _ in range(1000):
        cycle()
        assert mountinfo.entry_at(str(tmp_path)) is None
    # Seconds for a thousand of them.
    record_property("milliseconds per cycle", round(time.monotonic() - begun, 2))
    assert set(threading.enumerate()) == threads
    assert descriptors() == before


def test_media_in_and_out_a_hundred_times_leaves_nothing(
    mount: Mounting, record: Recorder, client: Client
) -> None:
    drive = mount(record)
    client.run("Path(at, 'f').write_text('x')", at=drive.mountpoint)
    drive.cbfs.unmount_media(False)
    before, threads = descriptors(), len(library_threads())
    for _ in range(100):
        drive.cbfs.mount_media(0)
        client.run("assert Path(at, 'f').read_text() == 'x'")
        drive.cbfs.unmount_media(False)
    assert descriptors() == before
    assert len(library_threads()) <= threads + 2  # workers come and go by need
    drive.cbfs.mount_media(0)


# --- the end with a stuck handler -------------------------------------------------------

END_WITHIN_S = 15


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Stuck handlers are given up sooner than in earnest, and the log of it is not shown."""
    caplog.set_level(logging.CRITICAL, "cbfsconnect")
    monkeypatch.setattr("cbfsconnect.cbfs.STUCK_AFTER_S", 0.4)
    monkeypatch.setattr("cbfsconnect.engine.engine.STUCK_AFTER_S", 0.4)
    monkeypatch.setattr("cbfsconnect.cbfs._CLOSING_WITHIN_S", 0.8)
    monkeypatch.setattr("cbfsconnect.fuse.mount._FLUSH_WITHIN_S", 0.4)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("method", ["unmount_media", "delete_storage"])
@pytest.mark.parametrize(
    ("event", "call", "options"),
    [
        ("on_read_file", "open(at + '/slow').read()", {}),
        ("on_read_file", "open(at + '/slow').read()", {"serialize_events": True}),
        ("on_create_file", "open(at + '/slow2', 'w')", {}),
        ("on_write_file", "f = open(at + '/slow', 'r+'); f.write('x'); f.flush()", {}),
    ],
    ids=["read", "only worker", "create", "cached write"],
)
def test_a_forced_end_does_not_wait_for_a_stuck_handler(
    tmp_path: Path,
    record: Recorder,
    client: Client,
    method: str,
    event: str,
    call: str,
    options: dict[str, Any],
) -> None:
    before = descriptors()
    drive = cbfsconnect.mount(record, tmp_path, **options)
    client.run("Path(at, 'slow').write_text('data')", at=str(tmp_path))
    drive.cbfs.unmount_media(False)
    drive.cbfs.mount_media(0)  # nothing is cached
    gate = record.before[event] = Gate()
    try:
        client.start(call)
        if event != "on_write_file":
            gate.wait()
        else:
            client.finish()
        begun = time.monotonic()
        getattr(drive.cbfs, method)(True)
        assert time.monotonic() - begun < END_WITHIN_S
        assert not drive.cbfs.active
        if event != "on_write_file" and method == "delete_storage":
            with pytest.raises(OSError, match=r"abort|not connected"):
                client.finish()
    finally:
        gate.open()
        if drive.cbfs.storage_present:
            drive.cbfs.delete_storage(True)
    nothing_is_left(str(tmp_path), before)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("event", ["on_close_file", "on_unmount"])
def test_a_handler_that_is_stuck_in_the_closing_itself_is_left_behind(
    tmp_path: Path,
    record: Recorder,
    client: Client,
    event: str,
) -> None:
    before = descriptors()
    record.handle("on_unmount", lambda params: None)
    drive = cbfsconnect.mount(record, tmp_path)
    client.run("file = open(at + '/f', 'w')", at=str(tmp_path))
    gate = Gate("/f")
    record.before[event] = lambda params: gate(Named("/f"))
    try:
        begun = time.monotonic()
        drive.cbfs.delete_storage(True)
        assert time.monotonic() - begun < END_WITHIN_S
        assert gate.reached
        assert not drive.cbfs.storage_present
    finally:
        gate.open()
    nothing_is_left(str(tmp_path), before)


@pytest.mark.usefixtures("impatient")
def test_a_late_reply_goes_to_nobodys_file(
    tmp_path: Path, record: Recorder, client: Client
) -> None:
    """The descriptor's number stays taken until the stuck handler has returned."""
    before = descriptors()
    drive = cbfsconnect.mount(record, tmp_path)
    client.run("Path(at, 'slow').write_text('data')", at=str(tmp_path))
    gate = record.before["on_get_file_info"] = Gate("/missing")
    client.start("os.path.exists(at + '/missing')")
    gate.wait()
    drive.unmount(force=True)
    innocent = [os.open(tmp_path / f"file{n}", os.O_RDWR | os.O_CREAT) for n in range(20)]
    gate.open()
    deadline = time.monotonic() + DEADLINE_S
    while library_threads():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    sizes = [os.fstat(file).st_size for file in innocent]
    for file in innocent:
        os.close(file)
    assert sizes == [0] * 20
    nothing_is_left(str(tmp_path), before)


@pytest.mark.parametrize("end", ["sys.exit(0)", "signal.pause()"], ids=["exit", "SIGTERM"])
def test_the_program_ends_with_a_stuck_handler(tmp_path: Path, client: Client, end: str) -> None:
    code = f"""
class Stuck(Handlers):
    def on_read_file(self, p):
        say("stuck")
        go.set()
        threading.Event().wait()
go = threading.Event()
drive = cbfsconnect.mount(Stuck(), point, file_cache=0)
say("ready")
go.wait()
{end}
"""
    with Server(tmp_path, code) as server:
        server.wait_for("ready")
        client.start(
            "Path(at, 'f').write_text('x'); open(at + '/f', 'rb').read()", at=str(tmp_path)
        )
        server.wait_for("stuck")
        if "pause" in end:
            server.signal(signal.SIGTERM)
        status, said, _ = server.finish(END_WITHIN_S)
        assert status in (0, 143)
        assert said == ["unmounted"]
        assert mountinfo.entry_at(str(tmp_path)) is None
        with pytest.raises(OSError, match=r"abort|not connected"):
            client.finish()


@pytest.mark.usefixtures("impatient")
def test_an_umount_by_others_does_not_wait_for_a_stuck_handler(
    tmp_path: Path, record: Recorder, client: Client
) -> None:
    before = descriptors()
    record.handle("on_ejected", lambda params: None)
    drive = cbfsconnect.mount(record, tmp_path)
    client.run("Path(at, 'f').write_text('x')", at=str(tmp_path))
    record.wait_for("on_close_file")
    gate = record.before["on_close_file"] = Gate("/f")
    try:
        client.run("open(at + '/f').close()")
        gate.wait()
        subprocess.run(["umount", str(tmp_path)], check=True)
        assert drive.wait(END_WITHIN_S)
        assert record.all("on_ejected")
    finally:
        gate.open()
    nothing_is_left(str(tmp_path), before)
