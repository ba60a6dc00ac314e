"""Access rules: which processes may use a drive, and that nothing leads around them."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cbfsconnect as c
from cbfsconnect import (
    STG_DACCESS_READ,
    STG_DACCESS_READWRITE,
    STG_DACCESS_WRITE,
    CBFSConnectError,
    MemoryDrive,
    lineage,
)
from cbfsconnect.errors import ERROR_INVALID_PARAMETER, ERROR_INVALID_STATE
from support.client import Client, run
from support.mounts import Mounting
from support.recorder import Recorder

EVERYBODY = ("", -1)
FILL = """
    os.mkdir(at + '/dir')
    Path(at + '/dir/file').write_bytes(b'content')
    Path(at + '/file').write_bytes(b'content')
    os.symlink('file', at + '/link')
    shutil = __import__('shutil')
    shutil.copy('/bin/true', at + '/true')
"""
READING = {
    "open": "os.close(os.open(at + '/file', os.O_RDONLY))",
    "list": "os.listdir(at)",
    "list below": "os.listdir(at + '/dir')",
    "run": "subprocess.check_call([at + '/true'])",
    "attributes": "os.listxattr(at + '/file')",
    "attribute": "os.getxattr(at + '/file', 'user.stream')",
}
WRITING = {
    "open": "os.close(os.open(at + '/file', os.O_WRONLY))",
    "make": "os.close(os.open(at + '/new', os.O_WRONLY | os.O_CREAT | os.O_EXCL))",
    "mkdir": "os.mkdir(at + '/newdir')",
    "mknod": "os.mkfifo(at + '/fifo')",
    "symlink": "os.symlink('x', at + '/newlink')",
    "link": "os.link(at + '/file', at + '/hardlink')",
    "unlink": "os.unlink(at + '/file')",
    "rename": "os.rename(at + '/file', at + '/moved')",
    "rename a directory": "os.rename(at + '/dir', at + '/moved')",
    "truncate": "os.truncate(at + '/file', 1)",
    "chmod": "os.chmod(at + '/file', 0o600)",
    "chown": "os.chown(at + '/file', 1, 1)",
    "times": "os.utime(at + '/file')",
    "set attribute": "os.setxattr(at + '/file', 'user.new', b'x')",
    "remove attribute": "os.removexattr(at + '/file', 'user.stream')",
    "rmdir": "os.rmdir(at + '/empty')",
}
BOTH = {
    "open for both": "os.close(os.open(at + '/file', os.O_RDWR))",
    "truncate while reading": "os.close(os.open(at + '/file', os.O_RDONLY | os.O_TRUNC))",
    "make to read": "os.close(os.open(at + '/new', os.O_RDONLY | os.O_CREAT))",
}
EITHER = {
    "stat": "os.stat(at + '/file')",
    "stat the root": "os.stat(at)",
    "stat below": "os.stat(at + '/dir/file')",
    "readlink": "os.readlink(at + '/link')",
    "enter": "os.chdir(at + '/dir'); os.chdir('/')",
    "statvfs": "os.statvfs(at)",
}
EVERYTHING = {**READING, **WRITING, **BOTH, **EITHER}


class Restricted:
    """A drive with some content, whose access rules are enforced."""

    def __init__(self, mount: Mounting, **options: Any) -> None:
        self.drive = mount(
            options.pop("handlers", None) or MemoryDrive(),
            process_restrictions_enabled=True,
            use_alternate_data_streams=True,
            **options,
        )
        self.cbfs = self.drive.cbfs
        self.at = self.drive.mountpoint
        with Client() as first:
            first.run(FILL, at=self.at)
            first.run("os.setxattr(at + '/file', 'user.stream', b'x'); os.mkdir(at + '/empty')")

    def grant(self, process: int, access: int = STG_DACCESS_READWRITE, **more: Any) -> None:
        """Grant access to a process."""
        self.cbfs.add_granted_process("", process, bool(more.get("children")), access)

    def deny(self, process: int, access: int = STG_DACCESS_READWRITE, **more: Any) -> None:
        """Deny access to a process."""
        self.cbfs.add_denied_process("", process, bool(more.get("children")), access)

    def may(self, client: Client, code: str) -> bool:
        """Whether a client may do something: either it does it, or it is told EACCES."""
        try:
            client.run(f"import subprocess\n{code}", at=self.at)
        except PermissionError as error:
            if error.errno != errno.EACCES:
                raise
            return False
        return True


@pytest.fixture
def restricted(mount: Mounting) -> Restricted:
    """A drive with access rules, and none so far."""
    return Restricted(mount)


@pytest.fixture
def other() -> Iterator[Client]:
    """One more process."""
    with Client() as process:
        yield process


@pytest.fixture(params=["told", "untold"])
def descent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the kernel tells the library who descends from whom."""
    if request.param == "untold":
        monkeypatch.setattr(lineage, "ProcessEvents", _refuse)
    return str(request.param)


def _refuse() -> None:
    raise OSError(errno.EPERM, "not here")


# --- who, and what -------------------------------------------------------------------------------


def test_without_a_rule_everybody_may_do_everything(restricted: Restricted, client: Client) -> None:
    for code in (*EITHER.values(), *READING.values()):
        assert restricted.may(client, code)


@pytest.mark.proves("add_granted_process", "process_restrictions_enabled")
@pytest.mark.parametrize("code", EVERYTHING.values(), ids=EVERYTHING)
def test_who_is_granted_nothing_may_do_nothing(
    restricted: Restricted, client: Client, other: Client, code: str
) -> None:
    restricted.grant(other.pid, children=True)
    assert not restricted.may(client, code)
    assert restricted.may(other, code)


@pytest.mark.proves("add_denied_process", "process_restrictions_enabled")
@pytest.mark.parametrize("code", EVERYTHING.values(), ids=EVERYTHING)
def test_who_is_denied_may_do_nothing(
    restricted: Restricted, client: Client, other: Client, code: str
) -> None:
    restricted.deny(client.pid, children=True)
    assert not restricted.may(client, code)
    assert restricted.may(other, code)


@pytest.mark.proves("STG_DACCESS_READ", "STG_DACCESS_WRITE", "STG_DACCESS_READWRITE")
@pytest.mark.parametrize(
    ("access", "allowed", "refused"),
    [
        (STG_DACCESS_READ, {**READING, **EITHER}, {**WRITING, **BOTH}),
        (STG_DACCESS_WRITE, {**WRITING, **EITHER}, {**READING, **BOTH}),
    ],
    ids=["read", "write"],
)
@pytest.mark.parametrize("how", ["grant", "deny the rest"])
def test_reading_and_writing_are_granted_one_by_one(
    restricted: Restricted,
    client: Client,
    access: int,
    allowed: dict[str, str],
    refused: dict[str, str],
    how: str,
) -> None:
    if how == "grant":
        restricted.grant(client.pid, access)
        restricted.grant(client.pid, access, children=True)  # programs are run by children
    else:
        restricted.deny(client.pid, STG_DACCESS_READWRITE - access, children=True)
    for name, code in refused.items():
        assert not restricted.may(client, code), name
    for name, code in sorted(allowed.items(), key=lambda item: item[0] == "unlink"):
        if name not in ("rename", "rename a directory"):  # the others would not find it
            assert restricted.may(client, code), name


def test_a_denial_beats_a_grant(restricted: Restricted, client: Client) -> None:
    restricted.grant(client.pid)
    restricted.cbfs.add_granted_process(*EVERYBODY, False, STG_DACCESS_READWRITE)
    restricted.deny(client.pid, STG_DACCESS_WRITE)
    assert restricted.may(client, READING["open"])
    assert not restricted.may(client, WRITING["open"])


def test_grants_add_up_and_so_do_denials(restricted: Restricted, client: Client) -> None:
    restricted.grant(client.pid, STG_DACCESS_READ)
    restricted.grant(client.pid, STG_DACCESS_WRITE)
    assert restricted.may(client, BOTH["open for both"])
    restricted.deny(client.pid, STG_DACCESS_READ)
    restricted.deny(client.pid, STG_DACCESS_WRITE)
    assert not restricted.may(client, EITHER["stat"])


def test_rules_for_everybody(restricted: Restricted, client: Client, other: Client) -> None:
    restricted.cbfs.add_granted_process(*EVERYBODY, False, STG_DACCESS_READ)
    assert restricted.may(client, READING["open"])
    assert not restricted.may(client, WRITING["open"])
    restricted.grant(other.pid)
    assert restricted.may(other, WRITING["mkdir"])
    restricted.cbfs.add_denied_process(*EVERYBODY, False, STG_DACCESS_READWRITE)
    assert not restricted.may(other, EITHER["stat"])
    assert not restricted.may(client, EITHER["stat"])


@pytest.mark.proves("remove_granted_process", "remove_denied_process")
def test_rules_are_removed_and_the_last_grant_does_not_open_the_drive(
    restricted: Restricted, client: Client, other: Client
) -> None:
    restricted.deny(client.pid)
    restricted.deny(client.pid, STG_DACCESS_READ)
    assert not restricted.may(client, EITHER["stat"])
    restricted.cbfs.remove_denied_process("", client.pid)
    assert restricted.may(client, EITHER["stat"])
    restricted.grant(client.pid)
    restricted.cbfs.remove_granted_process("", client.pid)
    assert not restricted.may(client, EITHER["stat"])
    assert not restricted.may(other, EITHER["stat"])


def test_a_rule_holds_at_once_for_clients_at_work(restricted: Restricted, client: Client) -> None:
    for _ in range(20):
        assert restricted.may(client, READING["open"])
        restricted.deny(client.pid)
        assert not restricted.may(client, READING["open"])
        restricted.cbfs.remove_denied_process("", client.pid)


# --- caches and descriptors ----------------------------------------------------------------------


def test_what_a_permitted_process_has_cached_serves_nobody_else(
    restricted: Restricted, client: Client, other: Client
) -> None:
    restricted.grant(client.pid)
    client.run(
        """
        kept = [open(at + '/file', 'rb'), open(at + '/dir/file', 'rb')]
        kept.append(mmap.mmap(kept[0].fileno(), 0, prot=mmap.PROT_READ))
        for _ in range(3):
            kept[1].read(), kept[2][:], os.listdir(at), list(os.scandir(at + '/dir'))
            os.stat(at + '/file'), os.lstat(at + '/link'), os.readlink(at + '/link')
            os.access(at + '/dir/file', os.R_OK), os.path.exists(at + '/missing')
        os.chdir(at + '/dir')
        """,
        at=restricted.at,
    )
    for name, code in EVERYTHING.items():
        assert not restricted.may(other, code), name
    assert not restricted.may(other, "os.lstat(at + '/link')")
    assert not restricted.may(other, "os.stat(at + '/missing')")
    # Nor does a refused look take anything away from those who are at it.
    assert client.call("os.getcwd()") == restricted.at + "/dir"


def test_the_library_of_system_calls_finds_no_cached_attributes(
    restricted: Restricted, client: Client, other: Client
) -> None:
    """AT_STATX_DONT_SYNC asks for what the kernel knows, without a question to the drive."""
    restricted.grant(client.pid)
    ask = """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        room = ctypes.create_string_buffer(256)
        failed = libc.statx(-100, (at + '/file').encode(), 0x4000, 0x7ff, room)
        result = ctypes.get_errno() if failed else 0
    """
    assert client.run(ask, at=restricted.at) == 0
    assert other.run(ask, at=restricted.at) == errno.EACCES


def test_refused_looks_take_nothing_away_without_default_permissions(
    mount: Mounting, client: Client, other: Client
) -> None:
    """Then the kernel does not ask for attributes on its way, and could forget the names."""
    restricted = Restricted(mount, config={"DefaultPermissions": False})
    restricted.grant(client.pid)
    client.run("os.chdir(at + '/dir')", at=restricted.at)
    for look in ("os.stat(at + '/dir/file')", "os.stat(at + '/missing')", "os.listdir(at)"):
        with pytest.raises(OSError, match=r"Errno (12|13)"):
            other.run(look, at=restricted.at)
    assert client.call("os.getcwd()") == restricted.at + "/dir"


def test_a_process_that_is_denied_later_finds_nothing_in_its_own_cache(
    restricted: Restricted, client: Client
) -> None:
    for code in (*EITHER.values(), *READING.values()):
        assert restricted.may(client, code)
    restricted.deny(client.pid, children=True)
    for name, code in EVERYTHING.items():
        assert not restricted.may(client, code), name


def test_an_open_handle_stays_usable_and_opens_nothing_anew(
    restricted: Restricted, client: Client
) -> None:
    client.run(
        """
        fd = os.open(at + '/file', os.O_RDWR)
        directory = os.open(at, os.O_RDONLY)
        marked = os.open(at + '/file', os.O_PATH)
        true = os.open(at + '/true', os.O_RDONLY)
        """,
        at=restricted.at,
    )
    restricted.deny(client.pid, children=True)
    assert client.call("os.pread(fd, 3, 0)") == b"con"
    assert client.call("os.pwrite(fd, b'C', 0)") == 1
    client.run("os.fsync(fd); os.ftruncate(fd, 3); os.lseek(fd, 0, os.SEEK_END)")
    assert client.call("bytes(mmap.mmap(fd, 3))") == b"Con"
    for anew in (
        "os.open(f'/proc/self/fd/{fd}', os.O_RDONLY)",
        "os.open(f'/proc/self/fd/{fd}', os.O_WRONLY)",
        "os.open(f'/proc/self/fd/{marked}', os.O_RDONLY)",
        "os.open(f'/proc/self/fd/{directory}', os.O_RDONLY)",
        "os.open(f'/proc/self/fd/{directory}/file', os.O_RDONLY)",
        "os.open('file', os.O_RDONLY, dir_fd=directory)",
        "os.open('.', os.O_RDONLY, dir_fd=directory)",
        "os.open('made', os.O_CREAT | os.O_WRONLY, dir_fd=directory)",
        "os.stat('file', dir_fd=directory)",
        "os.truncate(f'/proc/self/fd/{fd}', 0)",
        "os.fchmod(fd, 0o777)",
        "os.utime(fd)",
        "os.link(f'/proc/self/fd/{fd}', at + '/other', follow_symlinks=True)",
        "os.unlink('file', dir_fd=directory)",
        "os.execve(true, ['true'], {})",
        "os.fchdir(directory); os.open('file', os.O_RDONLY)",
    ):
        assert not restricted.may(client, anew), anew
    client.run("os.close(fd); os.close(directory); os.close(marked); os.close(true)")


def test_a_descriptor_that_was_handed_over_is_a_handle_and_no_permit(
    restricted: Restricted, client: Client, other: Client, tmp_path: Path
) -> None:
    restricted.grant(client.pid)
    path = str(tmp_path / "socket")
    client.start(
        """
        import socket
        server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen()
        fd = os.open(at + '/file', os.O_RDONLY)
        socket.send_fds(server.accept()[0], [b'x'], [fd])
        """,
        at=restricted.at,
        path=path,
    )
    other.run(
        """
        import socket
        while True:
            peer = socket.socket(socket.AF_UNIX)
            try: peer.connect(path); break
            except OSError: time.sleep(0.01)
        fd = socket.recv_fds(peer, 1, 1)[1][0]
        """,
        path=path,
    )
    client.finish()
    assert other.call("os.read(fd, 100)") == b"content"
    assert not restricted.may(other, "os.open(f'/proc/self/fd/{fd}', os.O_RDONLY)")


def test_what_was_written_before_a_denial_is_written_out(mount: Mounting, client: Client) -> None:
    record = Recorder(MemoryDrive())
    restricted = Restricted(mount, handlers=record)
    client.run(
        "fd = os.open(at + '/late', os.O_CREAT | os.O_RDWR); os.write(fd, b'late')",
        at=restricted.at,
    )
    record.clear()
    restricted.cbfs.add_denied_process(*EVERYBODY, False, STG_DACCESS_READWRITE)
    client.run("os.close(fd)")
    assert record.one("on_write_file", "/late").buffer_view == b"late"


def test_a_forced_end_writes_out_what_is_cached_though_everybody_is_denied(
    mount: Mounting, client: Client
) -> None:
    record = Recorder(MemoryDrive())
    restricted = Restricted(mount, handlers=record)
    client.run(
        "fd = os.open(at + '/late', os.O_CREAT | os.O_RDWR); os.write(fd, b'late')",
        at=restricted.at,
    )
    record.clear()
    restricted.cbfs.add_denied_process(*EVERYBODY, False, STG_DACCESS_READWRITE)
    restricted.drive.unmount(force=True)
    assert record.one("on_write_file", "/late").buffer_view == b"late"


def test_routed_files_are_opened_by_the_rules(
    mount: Mounting, client: Client, other: Client, tmp_path: Path
) -> None:
    """Their data and attributes come from elsewhere, with no event, but not for everybody."""
    restricted = Restricted(mount)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "file").write_bytes(b"routed")
    restricted.cbfs.enable_route_cache(str(mirror), 0)
    restricted.grant(client.pid, children=True)
    assert client.call("Path(at + '/file').read_bytes()", at=restricted.at) == b"routed"
    for name, code in EVERYTHING.items():
        assert not restricted.may(other, code), name
    assert restricted.may(client, READING["open"])


def test_ioctls_that_change_something_need_the_right_to_write(
    restricted: Restricted, client: Client
) -> None:
    client.run("fd = os.open(at, os.O_RDONLY)", at=restricted.at)
    set_label, get_label = 0x41009432, 0x81009431
    restricted.deny(client.pid, STG_DACCESS_WRITE)
    assert not restricted.may(client, f"fcntl.ioctl(fd, {set_label}, b'x'.ljust(256, b'\\0'))")
    assert not restricted.may(client, "fcntl.ioctl(fd, 0x4004cc01, bytes(4))")
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        client.run("fcntl.ioctl(fd, 0x8004cc01, bytes(4))")
    restricted.cbfs.remove_denied_process("", client.pid)
    restricted.deny(client.pid)
    assert not restricted.may(client, "fcntl.ioctl(fd, 0x8004cc01, bytes(4))")
    assert not restricted.may(client, f"fcntl.ioctl(fd, {get_label}, bytes(256))")


# --- processes and their children ----------------------------------------------------------------

IN_A_CHILD = """
    def ask():
        try:
            os.close(os.open(at + '/file', os.O_RDONLY))
            return 0
        except OSError as error:
            return error.errno

    def child(generation, orphan=False):
        '''What a descendant is told; an orphan has no parent left, and a session of its own.'''
        reader, writer = os.pipe()
        first = os.fork()
        if not first:
            for n in range(generation - 1):
                parent = os.getpid()
                below = os.fork()
                if below:
                    if not orphan:
                        os.waitpid(below, 0)
                    os._exit(0)
                if orphan:
                    os.setsid()
                    while os.getppid() == parent:
                        time.sleep(0.005)
            os.write(writer, bytes([ask()]))
            os._exit(0)
        os.close(writer)
        os.waitpid(first, 0)
        answer = os.read(reader, 1)
        os.close(reader)
        return answer[0]
"""


def told(client: Client, at: str, call: str) -> int:
    """What a descendant of a client is told when it opens a file: 0 or an errno."""
    client.run(IN_A_CHILD, at=at)
    answer = client.call(call)
    assert isinstance(answer, int)
    return answer


def test_a_grant_without_children_is_for_the_process_alone(
    restricted: Restricted, client: Client
) -> None:
    restricted.grant(client.pid)
    assert told(client, restricted.at, "ask()") == 0
    assert told(client, restricted.at, "child(1)") == errno.EACCES


@pytest.mark.proves("add_granted_process")
@pytest.mark.parametrize("generation", [1, 2, 5])
@pytest.mark.usefixtures("descent")
def test_children_are_included(restricted: Restricted, client: Client, generation: int) -> None:
    restricted.grant(client.pid, children=True)
    assert told(client, restricted.at, "ask()") == 0
    assert told(client, restricted.at, f"child({generation})") == 0
    restricted.deny(client.pid, children=True)
    assert told(client, restricted.at, f"child({generation})") == errno.EACCES


def test_orphans_in_sessions_of_their_own_are_still_children(
    restricted: Restricted, client: Client
) -> None:
    restricted.deny(client.pid, children=True)
    for generation in (2, 3):
        call = f"child({generation}, orphan=True)"
        assert told(client, restricted.at, call) == errno.EACCES
    restricted.cbfs.remove_denied_process("", client.pid)
    restricted.grant(client.pid, children=True)
    assert told(client, restricted.at, "child(2, orphan=True)") == 0


def test_children_of_a_process_that_has_ended_stay_what_they_are(
    restricted: Restricted, other: Client
) -> None:
    restricted.grant(other.pid, children=True)
    program = (
        "import os, sys, time\n"
        "while os.getppid() == int(sys.argv[2]): time.sleep(0.005)\n"
        "print(open(sys.argv[1]).read(), flush=True)\n"
    )
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    other.run(
        """
        import subprocess
        subprocess.Popen([sys.executable, '-c', program, at + '/file', str(os.getpid())],
                         stdout=open(f'/proc/{test}/fd/{writer}', 'wb'))
        """,
        program=program,
        at=restricted.at,
        test=os.getpid(),
        writer=writer,
    )
    os.close(writer)
    other.kill()
    with open(reader) as answer:
        assert answer.read() == "content\n"


@pytest.mark.usefixtures("descent")
def test_children_that_were_there_before_the_rule_are_included(
    restricted: Restricted, client: Client
) -> None:
    client.run(
        """
        reader, answer = os.pipe()
        go, begin = os.pipe()
        if not os.fork():
            os.read(go, 1)
            try:
                os.write(answer, open(at + '/file', 'rb').read())
            except OSError as error:
                os.write(answer, str(error.errno).encode())
            os._exit(0)
        """,
        at=restricted.at,
    )
    restricted.deny(client.pid, children=True)
    assert client.run("os.write(begin, b'x'); result = os.read(reader, 100)") == b"13"


@pytest.mark.usefixtures("descent")
def test_who_is_no_child_is_not_included(
    restricted: Restricted, client: Client, other: Client
) -> None:
    restricted.deny(client.pid, children=True)
    assert told(other, restricted.at, "child(2)") == 0
    restricted.grant(client.pid, children=True)
    assert told(other, restricted.at, "ask()") == errno.EACCES


def test_every_thread_of_a_process_is_the_process(
    restricted: Restricted, client: Client, other: Client
) -> None:
    in_a_thread = """
        import threading
        answers = []
        def ask():
            try: answers.append(open(at + '/file').read())
            except OSError as error: answers.append(error.errno)
        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        result = answers
    """
    restricted.grant(client.pid)
    assert client.run(in_a_thread, at=restricted.at) == ["content"] * 5
    assert other.run(in_a_thread, at=restricted.at) == [errno.EACCES] * 5


def test_a_process_goes_on_after_its_first_thread_has_ended(restricted: Restricted) -> None:
    program = """
import ctypes, os, sys, threading, time
def ask():
    while open('/proc/self/stat').read().rsplit(')')[1].split()[0] != 'Z': time.sleep(0.005)
    try: sys.stdout.write(open(sys.argv[1]).read())
    except OSError as error: sys.stdout.write(str(error.errno))
    sys.stdout.flush()
    os._exit(0)
threading.Thread(target=ask).start()
ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)  # exit, of one thread
"""
    ask = [sys.executable, "-c", program, restricted.at + "/file"]
    restricted.cbfs.add_granted_process(os.path.realpath(sys.executable), 0, False, 1)
    assert run(*ask) == "content"
    restricted.cbfs.add_denied_process(os.path.realpath(sys.executable), 0, False, 1)
    assert run(*ask) == str(errno.EACCES)


def _next_process_gets(number: int) -> None:
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(number - 1))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root says which number comes next")
@pytest.mark.usefixtures("descent")
@pytest.mark.parametrize("children", [False, True])
def test_a_number_that_is_used_again_is_not_granted_again(
    restricted: Restricted, children: bool
) -> None:
    with Client() as first:
        restricted.grant(first.pid, children=children)
        assert restricted.may(first, READING["open"])
        number = first.pid
    for _ in range(200):
        _next_process_gets(number)
        with Client() as second:
            if second.pid == number:
                assert not restricted.may(second, READING["open"])
                assert not restricted.may(second, EITHER["stat"])
                return
    pytest.skip("other processes took the number each time")


# --- programs ------------------------------------------------------------------------------------


def outcome(*command: str | Path, **more: Any) -> str:
    """What a program prints, or the error that it complains of."""
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"LC_ALL": "C"},
        **more,
    )
    return str(done.stdout) or str(done.stderr).rsplit(": ", 1)[-1].strip()


REFUSED = "Permission denied"
CAT, HEAD = (os.path.realpath(shutil.which(name) or "") for name in ("cat", "head"))


def test_a_program_is_granted_by_its_file(restricted: Restricted) -> None:
    restricted.cbfs.add_granted_process(CAT, 0, False, STG_DACCESS_READ)
    assert outcome(CAT, restricted.at + "/file") == "content"
    assert outcome(HEAD, restricted.at + "/file") == REFUSED
    restricted.cbfs.remove_granted_process(CAT, 0)
    assert outcome(CAT, restricted.at + "/file") == REFUSED


def test_a_program_is_denied_by_its_file(restricted: Restricted) -> None:
    restricted.cbfs.add_denied_process(CAT, 0, False, STG_DACCESS_READ)
    assert outcome(CAT, restricted.at + "/file") == REFUSED
    assert outcome(HEAD, restricted.at + "/file") == "content"


def test_links_to_a_program_are_the_program_and_copies_are_not(
    restricted: Restricted, tmp_path: Path
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    shutil.copy(CAT, original)
    shutil.copy(CAT, copy)
    (tmp_path / "symbolic").symlink_to("original")
    (tmp_path / "hard").hardlink_to(original)
    restricted.cbfs.add_granted_process(str(tmp_path / "symbolic"), 0, False, STG_DACCESS_READ)
    for name in ("original", "symbolic", "hard"):
        assert outcome(tmp_path / name, restricted.at + "/file") == "content"
    assert outcome(copy, restricted.at + "/file") == REFUSED


def test_a_program_may_be_named_before_it_is_there(restricted: Restricted, tmp_path: Path) -> None:
    restricted.cbfs.add_granted_process(str(tmp_path / "cat"), 0, False, STG_DACCESS_READ)
    shutil.copy(CAT, tmp_path / "cat")
    assert outcome(tmp_path / "cat", restricted.at + "/file") == "content"


def test_a_program_whose_file_was_replaced_is_not_granted_but_denied(
    restricted: Restricted, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    shutil.copy(os.path.realpath(sys.executable), python)
    home = sys.base_prefix
    with Client(executable=str(python), env=os.environ | {"PYTHONHOME": home}) as old:
        restricted.cbfs.add_denied_process(str(python), 0, False, STG_DACCESS_WRITE)
        restricted.cbfs.add_granted_process(str(python), 0, False, STG_DACCESS_READWRITE)
        assert restricted.may(old, READING["open"])
        python.unlink()
        shutil.copy(os.path.realpath(sys.executable), python)
        restricted.cbfs.add_granted_process(*EVERYBODY, False, STG_DACCESS_WRITE)
        assert not restricted.may(old, WRITING["open"])  # it may be the one that is meant
        assert not restricted.may(old, READING["open"])  # it is not proved that it is


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a namespace with mounts of its own")
def test_another_view_of_the_tree_makes_no_program_of_another(restricted: Restricted) -> None:
    """In a namespace of its own somebody may show any file under the name of the granted one."""
    shown = f"mount --bind {HEAD} {CAT} && exec {CAT} {restricted.at}/file"
    restricted.cbfs.add_granted_process(CAT, 0, False, STG_DACCESS_READ)
    assert outcome("unshare", "-m", "sh", "-c", shown) == REFUSED
    assert outcome("unshare", "-m", CAT, restricted.at + "/file") == "content"


def test_who_could_lie_about_its_program_is_granted_nothing(restricted: Restricted) -> None:
    """In a user namespace of its own a process may say that it runs another file."""
    ask = ("unshare", "-r", CAT, restricted.at + "/file")
    assert outcome(*ask) == "content", "no user namespaces here"
    restricted.cbfs.add_granted_process(CAT, 0, False, STG_DACCESS_READ)
    assert outcome(*ask) == REFUSED
    assert outcome(CAT, restricted.at + "/file") == "content"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes other namespaces")
def test_a_pid_namespace_hides_nobody(restricted: Restricted, client: Client) -> None:
    ask = ("unshare", "-pf", "--mount-proc", CAT, restricted.at + "/file")
    assert outcome(*ask) == "content"
    restricted.cbfs.add_denied_process(CAT, 0, False, STG_DACCESS_READ)
    assert outcome(*ask) == REFUSED
    below = "subprocess.check_output(['unshare', '-pf', 'head', at + '/file'])"
    assert restricted.may(client, below)
    restricted.deny(client.pid, children=True)
    with pytest.raises(AssertionError, match="CalledProcessError"):
        restricted.may(client, below)


@pytest.fixture
def shell(tmp_path: Path) -> str:
    """A shell that is no ancestor of the tests."""
    copy = tmp_path / "shell"
    shutil.copy(os.path.realpath("/bin/sh"), copy)
    return str(copy)


@pytest.mark.usefixtures("descent")
def test_children_of_a_program(restricted: Restricted, shell: str) -> None:
    restricted.cbfs.add_granted_process(shell, 0, False, STG_DACCESS_READ)
    script = f"cat {restricted.at}/file; true"
    assert outcome(shell, "-c", script) == REFUSED
    restricted.cbfs.add_granted_process(shell, 0, True, STG_DACCESS_READ)
    assert outcome(shell, "-c", script) == "content"
    assert outcome(shell, "-c", f"env env env {script}") == "content"
    assert outcome(CAT, restricted.at + "/file") == REFUSED
    restricted.cbfs.add_denied_process(shell, 0, True, STG_DACCESS_READ)
    assert outcome(shell, "-c", script) == REFUSED


def test_what_a_program_becomes_and_leaves_behind_is_its_child(
    restricted: Restricted, shell: str
) -> None:
    restricted.cbfs.add_denied_process(shell, 0, True, STG_DACCESS_READ)
    for _ in range(20):  # the shell lives for a moment only
        assert outcome(shell, "-c", f"exec cat {restricted.at}/file") == REFUSED
        assert outcome("env", "cat", f"{restricted.at}/file") == "content"
    orphan = f"(setsid sh -c 'sleep 0.2; exec cat {restricted.at}/file' 2>&1 &)"
    assert outcome(shell, "-c", orphan).endswith(REFUSED + "\n")
    assert outcome(CAT, restricted.at + "/file") == "content"


def test_a_program_on_the_drive_cannot_be_named_but_can_be_run(
    mount: Mounting, client: Client
) -> None:
    """To look at it the drive would have to ask itself, here with its only worker."""
    restricted = Restricted(mount, serialize_events=True)
    client.run(
        "shutil = __import__('shutil'); shutil.copy(cat, at + '/cat')", cat=CAT, at=restricted.at
    )
    for name in (restricted.at + "/cat", restricted.at + "/dir/../cat"):
        with pytest.raises(CBFSConnectError, match="on the drive itself") as caught:
            restricted.cbfs.add_granted_process(name, 0, False, STG_DACCESS_READ)
        assert caught.value.code == ERROR_INVALID_PARAMETER
    restricted.cbfs.add_denied_process(HEAD, 0, True, STG_DACCESS_READ)
    # The serving process must not start it: in Python it cannot serve while it does.
    client.run("import subprocess")
    assert client.call("subprocess.check_output([at + '/cat', at + '/file'])") == b"content"
    assert outcome(HEAD, restricted.at + "/file") == REFUSED


# --- the methods ---------------------------------------------------------------------------------


@pytest.mark.proves(
    "access_denied_process_count",
    "get_access_denied_process_desired_access",
    "get_access_denied_process_include_children",
    "get_access_denied_process_id",
    "get_access_denied_process_name",
    "access_granted_process_count",
    "get_access_granted_process_desired_access",
    "get_access_granted_process_include_children",
    "get_access_granted_process_id",
    "get_access_granted_process_name",
)
def test_the_lists_tell_what_was_added(restricted: Restricted, client: Client) -> None:
    cbfs = restricted.cbfs
    cbfs.add_granted_process("", client.pid, True, STG_DACCESS_READ)
    cbfs.add_granted_process(CAT, 0, False, STG_DACCESS_WRITE)
    cbfs.add_denied_process(*EVERYBODY, 1, STG_DACCESS_READWRITE)  # type: ignore[arg-type]
    granted = [
        (
            cbfs.get_access_granted_process_name(n),
            cbfs.get_access_granted_process_id(n),
            cbfs.get_access_granted_process_include_children(n),
            cbfs.get_access_granted_process_desired_access(n),
        )
        for n in range(cbfs.access_granted_process_count)
    ]
    assert granted == [("", client.pid, True, 1), (CAT, 0, False, 2)]
    assert cbfs.access_denied_process_count == cbfs.get_access_denied_process_count() == 1
    assert cbfs.get_access_denied_process_name(0) == ""
    assert cbfs.get_access_denied_process_id(0) == -1
    assert cbfs.get_access_denied_process_include_children(0) is True
    assert cbfs.get_access_denied_process_desired_access(0) == 3
    cbfs.remove_granted_process("", client.pid)
    assert cbfs.get_access_granted_process_count() == 1
    assert cbfs.get_access_granted_process_name(0) == CAT


@pytest.mark.parametrize(
    "getter",
    [
        f"get_access_{kind}_process_{field}"
        for kind in ("granted", "denied")
        for field in ("name", "id", "include_children", "desired_access")
    ],
)
def test_there_is_nothing_outside_of_the_lists(restricted: Restricted, getter: str) -> None:
    for index in (0, -1):
        with pytest.raises(CBFSConnectError) as caught:
            getattr(restricted.cbfs, getter)(index)
        assert caught.value.code == ERROR_INVALID_PARAMETER


@pytest.mark.parametrize("method", ["add_granted_process", "add_denied_process"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", 0, False, 1), "name a process"),
        ((CAT, 1, False, 1), "give a name"),
        ((CAT, -1, False, 1), "give a name"),
        (("cat", 0, False, 1), "full name"),
        (("/bin/c\0t", 0, False, 1), "full name"),
        ((None, 0, False, 1), "a string"),
        (("", -2, False, 1), "process_id"),
        (("", "7", False, 1), "process_id"),
        (("", True, False, 1), "process_id"),
        (("", 1 << 30, False, 1), "no process"),
        (("", 1 << 40, False, 1), "no process"),
        ((CAT, 0, 2, 1), "child_processes"),
        ((CAT, 0, False, 0), "STG_DACCESS"),
        ((CAT, 0, False, 4), "STG_DACCESS"),
        ((CAT, 0, False, True), "STG_DACCESS"),
    ],
)
def test_rules_that_mean_nothing_are_refused(
    restricted: Restricted, method: str, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(CBFSConnectError, match=message) as caught:
        getattr(restricted.cbfs, method)(*arguments)
    assert caught.value.code == ERROR_INVALID_PARAMETER
    assert restricted.cbfs.access_granted_process_count == 0
    assert restricted.cbfs.access_denied_process_count == 0


def test_a_process_that_has_ended_cannot_be_named(restricted: Restricted) -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(CBFSConnectError, match="has ended"):
        restricted.grant(process.pid)
    process.wait()


@pytest.mark.parametrize("method", ["remove_granted_process", "remove_denied_process"])
def test_only_what_was_added_is_removed(
    restricted: Restricted, client: Client, method: str
) -> None:
    (restricted.grant if "denied" in method else restricted.deny)(client.pid)
    with pytest.raises(CBFSConnectError, match="no such rule") as caught:
        getattr(restricted.cbfs, method)("", client.pid)
    assert caught.value.code == ERROR_INVALID_PARAMETER


CHANGES: list[Callable[[c.CBFS], None]] = [
    lambda cbfs: cbfs.add_granted_process(*EVERYBODY, False, 1),
    lambda cbfs: cbfs.add_denied_process(*EVERYBODY, False, 1),
    lambda cbfs: cbfs.remove_granted_process(*EVERYBODY),
    lambda cbfs: cbfs.remove_denied_process(*EVERYBODY),
]


@pytest.mark.parametrize("change", CHANGES)
def test_rules_need_media_the_property_and_no_handler(
    mount: Mounting, client: Client, change: Callable[[c.CBFS], None]
) -> None:
    def code(cbfs: c.CBFS) -> int:
        with pytest.raises(CBFSConnectError) as caught:
            change(cbfs)
        return caught.value.code

    cbfs = c.CBFS()
    cbfs.process_restrictions_enabled = True
    assert code(cbfs) == ERROR_INVALID_STATE
    assert code(mount(MemoryDrive()).cbfs) == ERROR_INVALID_STATE
    record = Recorder(MemoryDrive())
    drive = mount(record, process_restrictions_enabled=True)
    codes: list[int] = []
    record.before["on_create_file"] = lambda p: codes.append(code(drive.cbfs))
    client.run("os.mkdir(at + '/x')", at=drive.mountpoint)
    assert codes == [ERROR_INVALID_STATE]


def test_the_property(mount: Mounting) -> None:
    assert c.CBFS().process_restrictions_enabled is False
    cbfs = mount(MemoryDrive()).cbfs
    with pytest.raises(CBFSConnectError) as caught:
        cbfs.process_restrictions_enabled = True
    assert caught.value.code == ERROR_INVALID_STATE
    cbfs.unmount_media(False)
    cbfs.process_restrictions_enabled = True
    assert cbfs.process_restrictions_enabled
    with pytest.raises(CBFSConnectError, match="before the first mounting point") as caught:
        cbfs.mount_media(0)
    assert caught.value.code == ERROR_INVALID_STATE


def test_rules_outlive_media_but_not_the_drive(
    restricted: Restricted, client: Client, other: Client
) -> None:
    cbfs = restricted.cbfs
    restricted.grant(client.pid, children=True)
    cbfs.unmount_media(True)
    assert cbfs.access_granted_process_count == 1
    cbfs.mount_media(0)
    assert client.call("os.stat(at).st_mode", at=restricted.at)
    assert not restricted.may(other, "os.stat(at)")
    cbfs.delete_storage(True)
    assert cbfs.access_granted_process_count == 0


def test_a_drive_ends_for_its_rules_when_others_unmount_it(restricted: Restricted) -> None:
    restricted.cbfs.add_denied_process(CAT, 0, True, STG_DACCESS_READ)
    run("umount", restricted.at)
    assert restricted.drive.wait(20)
    assert restricted.cbfs.access_denied_process_count == 0


def test_a_killed_process_leaves_nothing_behind(restricted: Restricted, client: Client) -> None:
    restricted.grant(client.pid)
    assert restricted.may(client, READING["open"])
    client.process.send_signal(signal.SIGKILL)
    client.process.wait(20)
    assert restricted.cbfs.get_access_granted_process_id(0) == client.pid
    restricted.cbfs.remove_granted_process("", client.pid)
