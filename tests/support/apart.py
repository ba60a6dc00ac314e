"""Processes beside the test: forked, as an ordinary user, in a mount namespace of their own.

A forked process goes on with the code of the test, so it needs no program of its own.
"""

import ctypes
import os
import pickle
import signal
import struct
import subprocess
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cbfsconnect import CBFSConnectError
from cbfsconnect.fuse.mount import MountError

T = TypeVar("T")

NOBODY = 65534
_CLONE_NEWNS = 0x20000
_PR_SET_DUMPABLE = 4
_CAP_SYS_ADMIN = 21
_CAPABILITY_VERSION = 0x20080522


def fork(child: Callable[[], object]) -> int:
    """The id of a new process that runs *child* and ends."""
    with warnings.catch_warnings():
        # Python 3.12 warns when other tests left threads; the child needs none of their locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    try:
        child()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def run_apart(action: Callable[[], T]) -> T:
    """What *action* returns when a process of its own runs it; errors of ours are raised."""
    reader, writer = os.pipe()

    def child() -> None:
        result: object
        try:
            result = action()
        except (MountError, CBFSConnectError) as error:
            result = error
        os.write(writer, pickle.dumps(result))

    pid = fork(child)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(pid, 0)
    assert data, "the process failed: its traceback is on stderr"
    result = pickle.loads(data)
    if isinstance(result, MountError | CBFSConnectError):
        raise result
    value: T = result
    return value


def command(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


def enter_namespace() -> None:
    """Give this process a list of mounts of its own; whatever it mounts goes when it ends."""
    assert ctypes.CDLL(None).unshare(_CLONE_NEWNS) == 0
    command("mount", "--make-rprivate", "/")


def become_user(area: Path, device_mode: int = 0o666, fuse_conf: str = "") -> None:
    """Go on as an ordinary user, with a /dev/fuse and an /etc/fuse.conf as given."""
    enter_namespace()
    private = area / "private"
    private.mkdir()
    command("mount", "-t", "tmpfs", "tmpfs", str(private))
    os.mknod(private / "fuse", 0o020600, os.makedev(10, 229))
    (private / "fuse").chmod(device_mode)
    command("mount", "--bind", str(private / "fuse"), "/dev/fuse")
    (private / "fuse.conf").write_text(fuse_conf)
    command("mount", "--bind", str(private / "fuse.conf"), "/etc/fuse.conf")
    drop_root()


def drop_root() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    # As after an exec; else the process may not even look at its own directory in /proc.
    assert ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1) == 0


def drop_mount_capability() -> None:
    """Stay root, but lose _CAP_SYS_ADMIN, as in a container."""
    libc = ctypes.CDLL(None)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    sets = ctypes.create_string_buffer(24)
    assert libc.capget(header, sets) == 0
    effective = struct.unpack_from("=I", sets)[0] & ~(1 << _CAP_SYS_ADMIN)
    struct.pack_into("=I", sets, 0, effective)
    assert libc.capset(header, sets) == 0
