"""What /proc tells of processes, and the kernel's news of them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cbfsconnect.process_events import Executed, ProcessEvents, Started
from cbfsconnect.processes import (
    PinnedProcess,
    Unseen,
    all_processes,
    facts_of,
    identity_of,
    running,
)
from cbfsconnect.program_events import ProgramEvents


def test_facts_of_this_process() -> None:
    facts = facts_of(os.getpid())
    assert facts is not None
    assert (facts.process, facts.thread) == (os.getpid(), os.getpid())
    assert (facts.parent, facts.group, facts.session) == (
        os.getppid(),
        os.getpgid(0),
        os.getsid(0),
    )
    assert not facts.is_kernel
    assert facts in all_processes()


def test_facts_of_a_thread_are_those_of_its_process() -> None:
    found = []

    def ask() -> None:
        found.append((threading.get_native_id(), facts_of(threading.get_native_id())))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    number, facts = found[0]
    assert facts is not None
    assert (facts.process, facts.thread) == (os.getpid(), number)
    assert number != os.getpid()


def test_the_name_of_a_process_confuses_nobody() -> None:
    program = (
        "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'a) R 1 (b'); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert Path(f"/proc/{process.pid}/comm").read_text() == "a) R 1 (b\n"
        facts = facts_of(process.pid)
        process.kill()
    assert facts is not None
    assert facts.parent == os.getpid()


def test_there_are_no_facts_of_nobody() -> None:
    assert facts_of(1 << 30) is None
    with pytest.raises(Unseen):
        running(1 << 30)
    kernel = facts_of(2)
    if kernel is not None:  # in a container it is not there
        assert kernel.is_kernel


def test_what_runs_and_what_it_is_the_same_file_by(tmp_path: Path) -> None:
    real = os.path.realpath(sys.executable)
    file = running(os.getpid())
    assert file.path == real
    assert (file.device, file.inode) == identity_of(real)
    seen = os.stat(real)
    assert file.device == (os.major(seen.st_dev), os.minor(seen.st_dev))
    assert file.inode == seen.st_ino
    (tmp_path / "link").symlink_to(real)
    assert identity_of(str(tmp_path / "link")) == identity_of(real)
    with pytest.raises(FileNotFoundError):
        identity_of(str(tmp_path / "missing"))


def test_a_process_is_pinned_until_it_ends() -> None:
    with subprocess.Popen(["sleep", "100"]) as process:
        pinned = PinnedProcess(process.pid)
        assert pinned.is_alive()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not pinned.is_alive()  # though its number is still taken
    assert not pinned.is_alive()
    with pytest.raises(OSError, match=r".*"):
        PinnedProcess(1 << 30)


def test_the_kernel_tells_of_processes_before_they_run() -> None:
    try:
        events = ProcessEvents()
    except OSError as error:
        pytest.skip(f"this kernel does not tell: {error}")
    reader, writer = os.pipe()
    process = subprocess.Popen(["sh", "-c", "(echo $PPID $$; exec true)"], stdout=writer)
    process.wait()
    told = list(events.read())
    events.close()
    os.close(writer)
    os.close(reader)
    assert Started(os.getpid(), process.pid) in told
    at = told.index(Started(os.getpid(), process.pid))
    assert any(isinstance(e, Executed) and e.process == process.pid for e in told[at:])
    assert any(isinstance(e, Started) and e.parent == process.pid for e in told[at:])


def test_others_who_listen_are_no_loss() -> None:
    try:
        events = ProcessEvents()
    except OSError as error:
        pytest.skip(f"this kernel does not tell: {error}")
    for _ in range(20):
        other = ProcessEvents()
        subprocess.Popen(["true"]).wait()
        assert list(other.read())
        other.close()
        assert list(events.read())
    events.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes other namespaces")
def test_nobody_listens_to_numbers_of_another_namespace() -> None:
    """The kernel would tell, too, in the numbers of the machine."""
    program = "from cbfsconnect.process_events import ProcessEvents; ProcessEvents()"
    done = subprocess.run(
        ["unshare", "-pf", "--mount-proc", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "in a pid namespace of its own" in done.stderr


def test_the_kernel_tells_of_programs_that_are_run(tmp_path: Path) -> None:
    try:
        events = ProgramEvents()
    except OSError as error:
        pytest.skip(f"this kernel does not tell: {error}")
    true = tmp_path / "true"
    events.watch(str(true))  # it is not there yet
    true.write_bytes(Path("/bin/true").read_bytes())
    true.chmod(0o755)
    assert list(events.read()) == []  # nobody runs it
    process = subprocess.Popen([true])
    process.wait()
    told = list(events.read())
    events.close()
    assert [(one.process, one.file.path) for one in told] == [(process.pid, str(true))]
    assert (told[0].file.device, told[0].file.inode) == identity_of(str(true))
