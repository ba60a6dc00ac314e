"""What /proc tells of the processes behind requests.

All of it is true only while the process cannot change: a thread whose request is unanswered waits
in the kernel, so its ids, its start and its program stay what they are.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
from typing import NamedTuple

INVALID_HANDLE = -1

_PF_KTHREAD = 0x00200000
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_AT_FDCWD = -100
_AT_STATX_DONT_SYNC = 0x4000
_AT_SYMLINK_NOFOLLOW = 0x100
_STATX_INO = 0x100
_INO_AT, _DEVICE_AT = 32, 136
_NUMBER, _DEVICE = struct.Struct("=Q"), struct.Struct("=II")


def executable_of(process: int) -> str:
    """The full path of the program a process runs; its short name when that is hidden; else ""."""
    try:
        return os.readlink(f"/proc/{process}/exe").removesuffix(" (deleted)")
    except OSError:
        pass
    try:
        with open(f"/proc/{process}/comm", encoding="utf-8", errors="surrogateescape") as comm:
            return comm.read().rstrip("\n")
    except OSError:
        return ""


def token_of(process: int) -> int:
    """A descriptor that stands for the process (pidfd_open(2)); the caller closes it. -1: gone."""
    try:
        return os.pidfd_open(process)
    except (OSError, OverflowError):
        return INVALID_HANDLE


class ProcessFacts(NamedTuple):
    """A process, as one of its threads shows it. `start` is that thread's, in clock ticks since
    the machine started."""

    process: int
    thread: int
    parent: int
    group: int
    session: int
    start: int
    is_kernel: bool


def facts_of(thread: int) -> ProcessFacts | None:
    """What is known of a thread's process; None when there is none, or it may not be seen."""
    try:
        line = _read(f"/proc/{thread}/stat")
    except OSError:
        return None
    # The name in parentheses may hold anything, parentheses too.
    fields = line[line.rindex(b")") + 2 :].split()
    process = thread
    if int(fields[35]) < 0:  # its end is told to nobody: it is not the first of its process
        process = _process_of(thread)
        if not process:
            return None
    kernel = bool(int(fields[6]) & _PF_KTHREAD)
    parent, group, session, start = (int(fields[n]) for n in (1, 2, 3, 19))
    return ProcessFacts(process, thread, parent, group, session, start, kernel)


def was_there(process: int, boot_time_ns: int) -> bool:
    """Whether the process that has this number now had it then; to a hundredth of a second."""
    facts = facts_of(process)
    return facts is not None and facts.start <= ticks_of(boot_time_ns)


def all_processes() -> list[ProcessFacts]:
    """Every process that is there now, in the order of their ids."""
    ids = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    return [facts for process in ids if (facts := facts_of(process)) is not None]


def ticks_of(boot_time_ns: int) -> int:
    """A time since the machine started, in the unit of `ProcessFacts.start`."""
    return boot_time_ns * _TICKS_PER_S // 1_000_000_000


class PinnedProcess:
    """One process, told from later ones with the same number by a descriptor of it (pidfd)."""

    def __init__(self, process: int) -> None:
        """Raises `OSError` when there is no such process, or `process` is another's thread."""
        self.id = process
        self._descriptor = os.pidfd_open(process)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def is_alive(self) -> bool:
        """Whether it has not ended. While this holds, its number is nobody else's."""
        if self._descriptor < 0:
            return False
        if self._poll.poll(0):
            self.close()
            return False
        return True

    def close(self) -> None:
        """Let go of the descriptor."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Executable(NamedTuple):
    """A file that is run: its path as this process sees it, and what it is the same file by."""

    path: str
    device: tuple[int, int]
    inode: int


class Unseen(Exception):
    """What a process runs cannot be found out: it may be anything."""


def is_at_home(thread: int) -> bool:
    """Whether a thread's process is in the same user namespace as this one, and shows it.

    Who makes a user namespace may there say of itself that it runs another file (PR_SET_MM_MAP).
    """
    try:
        return os.readlink(f"/proc/{thread}/ns/user") == os.readlink("/proc/self/ns/user")
    except OSError:
        return False


def running(thread: int) -> Executable:
    """What a thread's process runs; raises `Unseen`.

    Asked by the thread's own id: the first thread of a process may have ended before the others.
    """
    link = f"/proc/{thread}/exe"
    try:
        path = os.readlink(link)
        device, inode = identity_of(link)
    except OSError:
        raise Unseen from None
    return Executable(path, device, inode)


def identity_of(path: str, follow: bool = True) -> tuple[tuple[int, int], int]:
    """Device and inode of a file, or of a link itself unless to `follow`; raises `OSError`.

    The kernel answers out of what it knows (AT_STATX_DONT_SYNC). The file may lie on the very drive
    whose request is being served, which could not answer.
    """
    buffer = ctypes.create_string_buffer(256)
    flags = _AT_STATX_DONT_SYNC if follow else _AT_STATX_DONT_SYNC | _AT_SYMLINK_NOFOLLOW
    if _statx(_AT_FDCWD, os.fsencode(path), flags, _STATX_INO, buffer):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return _DEVICE.unpack_from(buffer, _DEVICE_AT), _NUMBER.unpack_from(buffer, _INO_AT)[0]


_statx = ctypes.CDLL(None, use_errno=True).statx


def _process_of(thread: int) -> int:
    try:
        status = _read(f"/proc/{thread}/status")
    except OSError:
        return 0
    at = status.find(b"\nTgid:")
    return int(status[at + 6 : status.index(b"\n", at + 6)]) if at >= 0 else 0


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


_HARMLESS = frozenset(
    {
        *(signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH),
        *(signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    }
)
"""Signals that end no process that does not handle them."""
_REQUESTS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
"""Signals that ask a process to end, also when it handles them."""


def wants_to_end(thread: int) -> bool:
    """Whether a signal that waits for a thread of a process ends it, or asks it to.

    Timers and the like interrupt programs that do not expect a read(2) to fail with EINTR: no local
    filesystem does that. A thread that is gone, or cannot be seen, counts as ended.
    """
    try:
        with open(f"/proc/{thread}/status", "rb") as status:
            lines = dict(
                line.split(b":", 1) for line in status if line.startswith((b"Sig", b"Shd"))
            )
        mask = {name: int(lines[name], 16) for name in (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigCgt")}
        ignored = int(lines[b"SigIgn"], 16)
    except (OSError, KeyError, ValueError):
        return True
    pending = (mask[b"SigPnd"] | mask[b"ShdPnd"]) & ~mask[b"SigBlk"] & ~ignored
    caught = mask[b"SigCgt"]
    return any(
        number in _REQUESTS if caught >> number - 1 & 1 else number not in _HARMLESS
        for number in range(1, signal.NSIG)
        if pending >> number - 1 & 1
    )
