"""Mounting and unmounting: how a FUSE descriptor comes to answer for a directory.

Root calls mount(2) and umount2(2) itself. Any other user asks the setuid helper ``fusermount3``,
which opens ``/dev/fuse``, mounts, and passes the descriptor back over a unix socket whose number it
finds in ``_FUSE_COMMFD``.

Rules that hold everywhere here:

* A server must never touch its own mount, it would wait for itself. What is mounted where is read
  from mountinfo, never asked of the mounted directory.
* Options are typed fields. Names given by a program (source, subtype, mount point) never get into
  an option string unescaped, so they can switch nothing on.
* Every failure is a :class:`MountError` whose message says what to do.
"""

import ctypes
import errno
import os
import re
import select
import shlex
import socket
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path

from cbfsconnect.fuse import mountinfo
from cbfsconnect.fuse.mountinfo import MountEntry

__all__ = [
    "MountError",
    "MountOptions",
    "Mounted",
    "abort_connection",
    "bind",
    "flush",
    "is_mounted",
    "mount",
    "processes_using",
    "send_requests",
    "set_read_ahead",
    "unmount",
]

_log = getLogger(__name__)

_DEVICE = "/dev/fuse"
_HELPER = "fusermount3"
_INSTALL_HELPER = "install it with: apt install fuse3 (Debian, Ubuntu), dnf install fuse3 (Fedora)"
_LOAD_MODULE = "load the kernel module with: modprobe fuse (a container needs: --device /dev/fuse)"
_OPEN_TO_ALL = "as root run: chmod 0666 /dev/fuse (a container needs: --device /dev/fuse)"

# From <linux/mount.h> and umount2(2).
_MS_BIND = 4096
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8

# Field of MountOptions, flag of mount(2), option of fusermount3.
_FLAGS = (
    ("read_only", 1, "ro"),
    ("nosuid", 2, "nosuid"),
    ("nodev", 4, "nodev"),
    ("noexec", 8, "noexec"),
    ("synchronous", 16, "sync"),
    ("dirsync", 128, "dirsync"),
    ("noatime", 1024, "noatime"),
)

_FLUSH_WITHIN_S = 5.0

_INT = struct.Struct("i")
_LONGEST_NAME = 1024
_PROBE_SECONDS = 2.0
_MOST_STACKED = 64
_MOST_LINKS = 40


class MountError(Exception):
    """Mounting or unmounting failed; ``str()`` is a message that says what to do about it."""

    def __init__(self, errno: int, message: str) -> None:
        """Keep *errno* (a number of the ``errno`` module) and *message*."""
        super().__init__(errno, message)
        self.errno = errno
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """What to mount and how. Names may hold any character but NUL and arrive exactly."""

    source: str = "cbfs"
    """What ``df`` and mountinfo show as source; not empty."""
    subtype: str = "cbfs"
    """The filesystem's type is shown as ``fuse.SUBTYPE`` (just ``fuse`` when empty)."""
    allow_other: bool = False
    """Let other users in; an ordinary user needs ``user_allow_other`` in /etc/fuse.conf for it."""
    default_permissions: bool = True
    """Let the kernel check modes and owners."""
    read_only: bool = False
    """Refuse every change (EROFS) before it reaches the server."""
    max_read: int = 1 << 20
    """Largest read request, in bytes."""
    nosuid: bool = False
    """Ignore set-user-id bits (always so when an ordinary user mounts)."""
    nodev: bool = False
    """Refuse to open device nodes (always so when an ordinary user mounts)."""
    noexec: bool = False
    """Refuse to execute files."""
    synchronous: bool = False
    """Treat every file as opened with O_SYNC."""
    dirsync: bool = False
    """Make changes of directories synchronous."""
    noatime: bool = False
    """Do not update times of last access."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount that was just made."""

    fd: int
    """The descriptor to serve (close-on-exec); owned by the caller, who closes it."""
    mountpoint: str
    """The mount point's absolute path, free of symbolic links."""
    device: str
    """``major:minor`` of the mounted filesystem."""

    @property
    def is_connected(self) -> bool:
        """Whether the kernel still has requests for the drive: forced off, it may be in use."""
        return not _is_disconnected(self.fd)

    def unmount(self, force: bool = False, at: str | None = None) -> None:
        """Unmount this drive, as :func:`unmount` does; does nothing when it is gone already.

        *at* is another of its mount points, as :func:`bind` returned it. Call it before closing the
        descriptor, by which it knows its own drive from a later one. Reading the descriptor gives
        ENODEV once the filesystem is gone.
        """
        path = at or self.mountpoint
        if not self._is_replaced(path):
            _unmount_at(path, force, self.device)

    def take_away(self, at: str) -> int | None:
        """Take the mount point *at* out of the tree, busy or not.

        Where programs go on using it, the descriptor is returned by which :func:`send_requests`
        reaches the drive still; the caller closes it.
        """
        if self._is_replaced(at) or at not in mountinfo.mount_points_of(self.device):
            return None
        pin = None
        if _call_unmount(at, force=False):
            # Nothing is asked of the drive for this, as it were for any other kind of open.
            with suppress(OSError):
                pin = os.open(at, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self.unmount(force=True, at=at)
            except BaseException:
                if pin is not None:
                    os.close(pin)
                raise
        return pin

    def _is_replaced(self, path: str) -> bool:
        """Whether the drive is gone and a later one at its place got the same device number.

        The kernel gives the lowest free number, so this is what follows an unmount by others.
        """
        if self.is_connected:
            return False
        entry = mountinfo.entry_at(path)
        # A connection that was aborted leaves its mount behind, but dead.
        return entry is not None and entry.device == self.device and not _is_dead(entry)


def mount(mountpoint: str | os.PathLike[str], options: MountOptions) -> Mounted:
    """Mount a FUSE filesystem on the empty directory *mountpoint*.

    What a killed server left behind there is detached first. Raises :class:`MountError`.
    """
    _check_options(options)
    path = _free_mountpoint(mountpoint)
    fd = _mount_as_root(path, options) if os.geteuid() == 0 else _mount_as_user(path, options)
    try:
        return Mounted(fd, path, _mounted_entry(path, options).device)
    except BaseException:
        os.close(fd)
        raise


def bind(existing: str | os.PathLike[str], new: str | os.PathLike[str]) -> str:
    """Show the drive mounted at *existing* also at the empty directory *new*; its path is returned.

    The same conditions hold for *new* as for :func:`mount`; :func:`unmount` takes it away again.
    Only root can do this. Raises :class:`MountError`.
    """
    if os.geteuid() != 0:
        raise MountError(
            errno.EPERM,
            "a further mounting point is a bind mount, which only root can make: "
            "run as root, or use a single mounting point",
        )
    origin = _resolve(existing)
    if mountinfo.entry_at(origin) is None:
        raise MountError(errno.EINVAL, f"nothing is mounted at {origin!r}: mount the drive first")
    path = _free_mountpoint(new)
    failure = _call_mount(os.fsencode(origin), path, None, _MS_BIND, None)
    if failure:
        raise _mount_failed(failure, path)
    return path


def unmount(mountpoint: str | os.PathLike[str], force: bool = False) -> None:
    """Unmount the FUSE filesystem at *mountpoint*; returns quietly when none is mounted there.

    A drive in use raises :class:`MountError` with EBUSY and a message that names the processes;
    *force* takes it out of the tree at once, and it ends when the last of them lets go.
    """
    _unmount_at(_resolve(mountpoint), force, None)


def flush(mountpoint: str, helpers: set[int] | None = None) -> None:
    """Have the kernel write out what it caches of the drive, before it is cut off; best effort.

    Another process asks for it, since the server must not call into its own mount. Before it does,
    its id is in *helpers*, until it has ended.
    """
    helpers = set() if helpers is None else helpers
    try:
        process = subprocess.Popen(
            ["sh", "-c", 'read -r go && exec sync -f -- "$1"', "sh", mountpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return
    helpers.add(process.pid)
    try:
        process.communicate(b"go\n", _FLUSH_WITHIN_S)
    except subprocess.TimeoutExpired:
        _log.warning(
            "the cached data of %r cannot be written: a handler does not return", mountpoint
        )
        _abandon(process)  # it waits in the kernel, where no signal reaches it
    finally:
        helpers.discard(process.pid)


def send_requests(pin: int, count: int) -> None:
    """Have another process ask so much of a drive, by a descriptor that `take_away` returned."""
    path = f"/proc/self/fd/{pin}"
    with suppress(OSError):
        process = subprocess.Popen(
            ["stat", "-f", "--", *[path] * count],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(pin,),
            start_new_session=True,
        )
        _reap(process)


def is_mounted(mountpoint: str | os.PathLike[str], device: str | None = None) -> bool:
    """Whether a filesystem is mounted at *mountpoint*; with *device*, whether that one is.

    With *device* a mount that another one covers counts too.
    """
    path = _resolve(mountpoint)
    if device is None:
        return mountinfo.entry_at(path) is not None
    return path in mountinfo.mount_points_of(device)


def abort_connection(device: str) -> bool:
    """Cut the filesystem *device* (``major:minor``) off its server: every call on it fails at once.

    Needs root and the control filesystem at /sys/fs/fuse/connections; False when it cannot be done.
    """
    major, _, minor = device.partition(":")
    if major != "0" or not minor.isdecimal():
        return False
    # The kernel names a connection's directory by the minor number (its documentation, fuse.rst).
    return _write_control(Path("/sys/fs/fuse/connections", minor, "abort"), "1")


def set_read_ahead(device: str, kib: int) -> bool:
    """Set how far the kernel reads ahead on *device* (``major:minor``), in KiB; False if it cannot.

    Needs root. INIT's answer lowers the value again, so call this once that was sent.
    """
    if re.fullmatch(r"\d+:\d+", device) is None:
        return False
    return _write_control(Path("/sys/class/bdi", device, "read_ahead_kb"), f"{kib:d}")


def processes_using(mountpoint: str, limit: int = 5) -> list[tuple[int, str]]:
    """Up to *limit* processes (id, name) that have something open in *mountpoint*.

    Reads names in /proc only, so a hanging drive cannot block it. An ordinary user sees only the
    own processes.
    """
    found: list[tuple[int, str]] = []
    for entry in Path("/proc").iterdir():
        if len(found) >= limit:
            break
        if entry.name.isdecimal() and any(_is_in(p, mountpoint) for p in _paths_used(entry)):
            found.append((int(entry.name), _process_name(entry)))
    return found


# --- The mount point ----------------------------------------------------------


def _resolve(mountpoint: str | os.PathLike[str]) -> str:
    """The absolute path without symbolic links, found without touching what is mounted at it."""
    path = os.fspath(mountpoint)
    if not path or "\0" in path:
        raise MountError(errno.EINVAL, f"{path!r} is no name of a directory: give a path")
    for _ in range(_MOST_LINKS):
        parent, name = os.path.split(path.rstrip("/") or "/")
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        path = os.path.join(os.path.realpath(parent), name)
        # lstat() of a mounted directory asks its server, which may hang or be this process.
        if mountinfo.entry_at(path) is not None or not os.path.islink(path):
            return path
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    raise MountError(
        errno.ELOOP, f"{path!r} leads through too many symbolic links: give another path"
    )


def _missing_directory(given: str, path: str) -> MountError:
    # A drive letter, \\server\share, letter;server;share.
    if re.match(r"[A-Za-z]:($|\\)|\\\\|[^/]*;[^/]*;", given):
        problem = f"mountpoint {given!r} is a name of Windows: give an empty directory"
    else:
        command = f"mkdir -p {shlex.quote(path)}"
        problem = f"mountpoint {path!r} does not exist: create it with: {command}"
    return MountError(errno.ENOENT, problem)


def _free_mountpoint(mountpoint: str | os.PathLike[str]) -> str:
    """The resolved path of an empty directory with nothing mounted on it."""
    path = _resolve(mountpoint)
    _detach_dead_mounts(path)
    try:
        is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
        occupant = _first_name(path) if is_directory else None
    except FileNotFoundError:
        raise _missing_directory(os.fspath(mountpoint), path) from None
    except OSError as error:
        raise _unusable_directory(path, error) from error
    if not is_directory:
        raise MountError(
            errno.ENOTDIR, f"mountpoint {path!r} is not a directory: choose an empty directory"
        )
    if occupant is not None:
        raise MountError(
            errno.ENOTEMPTY,
            f"mountpoint {path!r} is not empty (it holds {occupant!r}), and mounting would hide "
            "that: choose an empty directory",
        )
    return path


def _first_name(directory: str) -> str | None:
    with os.scandir(directory) as names:
        first = next(names, None)
    return None if first is None else first.name


def _unusable_directory(path: str, error: OSError) -> MountError:
    number = error.errno or errno.EIO
    if number == errno.ENOTCONN:
        inside = mountinfo.entry_for(path)
        where = inside.mount_point if inside is not None else os.path.dirname(path)
        advice = f"it lies in a dead mount: unmount that with: {_unmount_command(where)}"
    elif number == errno.EACCES:
        advice = "choose a directory of your own, or have its permissions changed"
    else:
        advice = "choose another directory"
    return MountError(number, f"mountpoint {path!r} cannot be used ({error.strerror}): {advice}")


def _detach_dead_mounts(path: str) -> None:
    """Take away what killed servers left mounted at *path*; refuse anything that lives there."""
    for _ in range(_MOST_STACKED):
        entry = mountinfo.entry_at(path)
        if entry is None:
            return
        if not (entry.is_fuse and _is_dead(entry)):
            raise MountError(
                errno.EBUSY,
                f"something is already mounted at {path!r} (a {entry.fstype} called "
                f"{entry.source!r}): unmount it with: {_unmount_command(path)}",
            )
        # Another program may have replaced the dead mount while it was looked at.
        if mountinfo.entry_at(path) == entry:
            _log.info("detaching the dead mount of %r at %r", entry.source, path)
            _detach(entry)
    raise MountError(
        errno.EBUSY,
        f"too many dead mounts at {path!r}: unmount them with: {_unmount_command(path)}",
    )


def _is_dead(entry: MountEntry) -> bool:
    """Whether the server of a FUSE mount is gone.

    The kernel tells this only to who calls into the mount, and such a call can hang in a way that
    no signal ends: so a process of its own does it. It asks for statfs, because a stat may be
    answered from the cache even when the server is dead.
    """
    owner, group = entry.super_option("user_id"), entry.super_option("group_id")
    # Without allow_other even root gets a made-up answer; only the owner gets the real one.
    borrow = os.geteuid() == 0 and bool(owner) and bool(group)
    try:
        probe = subprocess.Popen(
            ["stat", "-f", "--", entry.mount_point],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | {"LC_ALL": "C"},
            user=int(owner) if borrow and owner else None,
            group=int(group) if borrow and group else None,
            extra_groups=[] if borrow else None,
            start_new_session=True,
        )
    except OSError as error:
        _log.warning("cannot look whether %r is a dead mount: %s", entry.mount_point, error)
        return False
    try:
        _, complaint = probe.communicate(timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        _abandon(probe)
        return False
    # ENOTCONN and ECONNABORTED, in the words of glibc and of musl.
    return b"not connected" in complaint or b"onnection abort" in complaint


def _abandon(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process that may be stuck in the kernel, and have it reaped whenever it ends."""
    process.kill()
    if process.stderr is not None:
        process.stderr.close()
    _reap(process)


def _reap(process: "subprocess.Popen[bytes]") -> None:
    with suppress(RuntimeError):  # at the interpreter's exit no thread can be started
        threading.Thread(target=process.wait, name="reap stuck probe", daemon=True).start()


def _detach(entry: MountEntry) -> None:
    complaint = _call_unmount(entry.mount_point, force=True)
    if complaint and _is_still_there(entry):
        raise MountError(
            errno.EBUSY,
            f"the dead mount at {entry.mount_point!r} cannot be taken away ({complaint}): "
            f"as root run: umount -l {shlex.quote(entry.mount_point)}",
        )


def _mounted_entry(path: str, options: MountOptions) -> MountEntry:
    """The mountinfo entry of the mount just made at *path*."""
    entry = mountinfo.entry_at(path)
    if entry is None or not entry.is_fuse:
        raise MountError(
            errno.ENODEV, f"the mount at {path!r} was taken away while it was made: try again"
        )
    if (entry.source, entry.fstype) != (options.source, _fstype(options)):
        # A helper too old to know escapes would have read a part of a name as an option.
        _call_unmount(path, force=True)
        raise MountError(
            errno.EINVAL,
            f"source {options.source!r} or subtype {options.subtype!r} cannot be passed to "
            f"{_HELPER}: use letters and digits only",
        )
    return entry


# --- Mounting -----------------------------------------------------------------


def _check_options(options: MountOptions) -> None:
    if not options.source:
        raise MountError(errno.EINVAL, "the source is empty: give a name, such as 'cbfs'")
    for field in ("source", "subtype"):
        name = getattr(options, field)
        if "\0" in name or len(os.fsencode(name)) > _LONGEST_NAME:
            raise MountError(
                errno.EINVAL,
                f"{field} {name[:40]!r} cannot be passed to the kernel: use at most "
                f"{_LONGEST_NAME} bytes and no NUL",
            )
    if options.max_read <= 0:
        raise MountError(errno.EINVAL, f"max_read is {options.max_read}: give a number of bytes")


def _fstype(options: MountOptions) -> str:
    return f"fuse.{options.subtype}" if options.subtype else "fuse"


def _kernel_options(options: MountOptions) -> Iterator[str]:
    """The options common to mount(2)'s data and fusermount3, none of them holding a name."""
    yield f"max_read={options.max_read:d}"
    if options.allow_other:
        yield "allow_other"
    if options.default_permissions:
        yield "default_permissions"


def _mount_as_root(path: str, options: MountOptions) -> int:
    fd = _open_device()
    data = f"fd={fd},rootmode={stat.S_IFDIR:o},user_id={os.geteuid()},group_id={os.getegid()}"
    data = ",".join([data, *_kernel_options(options)])
    flags = sum(flag for field, flag, _ in _FLAGS if getattr(options, field))
    source, fstype = os.fsencode(options.source), os.fsencode(_fstype(options))
    failure = _call_mount(source, path, fstype, flags, data.encode())
    if failure:
        os.close(fd)
        raise _mount_failed(failure, path)
    return fd


def _open_device() -> int:
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _no_device(error.errno or errno.EIO) from error


def _no_device(number: int) -> MountError:
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        advice = _LOAD_MODULE
    elif number in (errno.EACCES, errno.EPERM):
        advice = _OPEN_TO_ALL
    else:
        advice = "see the kernel's log (dmesg)"
    return MountError(number, f"cannot open {_DEVICE} ({os.strerror(number)}): {advice}")


def _mount_failed(number: int, path: str) -> MountError:
    advice = {
        errno.EPERM: "this process lacks CAP_SYS_ADMIN: a container needs --cap-add SYS_ADMIN "
        "--device /dev/fuse (and perhaps --security-opt apparmor=unconfined)",
        errno.ENODEV: _LOAD_MODULE,
        errno.ENOSPC: "too many mounts: raise the limit with: sysctl fs.mount-max",
        errno.ENOENT: f"create the directory with: mkdir -p {shlex.quote(path)}",
        errno.EBUSY: f"something uses the mountpoint: see: findmnt {shlex.quote(path)}",
    }.get(number, "see the kernel's log (dmesg)")
    return MountError(number, f"mounting at {path!r} failed ({os.strerror(number)}): {advice}")


def _mount_as_user(path: str, options: MountOptions) -> int:
    if not os.path.exists(_DEVICE):
        raise _no_device(errno.ENOENT)
    words = [f"fsname={_escape(options.source)}", *_kernel_options(options)]
    if options.subtype:
        words.append(f"subtype={_escape(options.subtype)}")
    words += [word for field, _, word in _FLAGS if getattr(options, field)]
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            complaint = _run_helper("-o", ",".join(words), "--", path, channel=theirs)
        # Not socket.recv_fds(): it drops its flags, and the descriptor would be inherited.
        _, messages, _, _ = ours.recvmsg(1, socket.CMSG_LEN(_INT.size), socket.MSG_CMSG_CLOEXEC)
    if not messages:
        raise _helper_failed(complaint, path)
    if complaint:
        _log.warning("%s", complaint)
    fd: int = _INT.unpack(messages[0][2])[0]
    return fd


def _escape(name: str) -> str:
    """*name* as fusermount3 wants it in its option string, where a backslash quotes."""
    return re.sub(r"([\\,])", r"\\\1", name)


def _run_helper(*arguments: str, channel: socket.socket | None = None) -> str:
    """Run fusermount3 and return what it complained of (warnings too); "" when all is well."""
    passed = () if channel is None else (channel.fileno(),)
    environment = os.environ | {"LC_ALL": "C"}
    if channel is not None:
        environment["_FUSE_COMMFD"] = str(channel.fileno())
    try:
        # A session of its own: Ctrl-C is meant for the server, which then unmounts in good order.
        done = subprocess.run(
            [_HELPER, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            pass_fds=passed,
            start_new_session=True,
            check=False,
        )
    except OSError as error:
        number = error.errno or errno.EIO
        raise MountError(
            number,
            f"{_HELPER}, which mounts and unmounts for users other than root, cannot be run "
            f"({error.strerror}): {_INSTALL_HELPER}",
        ) from error
    failure = f"{_HELPER} ended with {done.returncode}" if done.returncode else ""
    return os.fsdecode(done.stderr).strip() or failure


# What fusermount3 says (a part of it), the errno that it amounts to, and what to do.
_HELPER_ADVICE = (
    (
        "user_allow_other",
        errno.EPERM,
        "add the line 'user_allow_other' to /etc/fuse.conf (as root), or mount without allow_other",
    ),
    (
        "too many FUSE filesystems",
        errno.EMFILE,
        "unmount some, or raise mount_max in /etc/fuse.conf (as root)",
    ),
    ("not owned by user", errno.EACCES, "choose a directory that you own"),
    ("no write access", errno.EACCES, "choose a directory that you own and may write to"),
    ("device not found", errno.ENODEV, _LOAD_MODULE),
    (f"open {_DEVICE}", errno.EACCES, _OPEN_TO_ALL),
    ("is forbidden", errno.EPERM, "choose a mountpoint on an ordinary filesystem"),
    (
        "Operation not permitted",
        errno.EPERM,
        "fusermount3 must be setuid root (as root: chmod u+s /usr/bin/fusermount3), and a "
        "container needs --cap-add SYS_ADMIN --device /dev/fuse",
    ),
    ("Permission denied", errno.EACCES, "choose a directory that you may enter and write to"),
    ("Device or resource busy", errno.EBUSY, "close what is in use there"),
)


def _helper_failed(complaint: str, path: str) -> MountError:
    said = complaint or f"{_HELPER} gave no reason"
    for fragment, number, advice in _HELPER_ADVICE:
        if fragment in complaint:
            return MountError(number, f"mounting at {path!r} failed ({said}): {advice}")
    return MountError(
        errno.EIO,
        f"mounting at {path!r} failed ({said}): try the same as root, or another directory",
    )


# --- Unmounting ---------------------------------------------------------------


def _unmount_at(path: str, force: bool, device: str | None) -> None:
    entry = mountinfo.entry_at(path)
    if entry is None or (device is not None and path not in mountinfo.mount_points_of(device)):
        return
    if not entry.is_fuse or (device is not None and entry.device != device):
        raise MountError(
            errno.EINVAL if device is None else errno.EBUSY,
            f"at {path!r} there is now a {entry.fstype} called {entry.source!r}, not this drive: "
            f"unmount that first with: {_unmount_command(path)}",
        )
    complaint = _call_unmount(path, force)
    if complaint and _is_still_there(entry):
        raise _unmount_failed(path, complaint)


def _is_still_there(entry: MountEntry) -> bool:
    """Whether a mount is there after a complaint, which may have been a mere warning.

    A later mount, anywhere, may have got its ids by now.
    """
    return any(
        (other.mount_id, other.device, other.mount_point)
        == (entry.mount_id, entry.device, entry.mount_point)
        for other in mountinfo.entries()
    )


def _call_unmount(path: str, force: bool) -> str:
    """Try to unmount what is at *path*; the reason for a failure is returned, in words."""
    if os.geteuid() != 0:
        return _run_helper("-uz" if force else "-u", "--", path)
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if force else 0)
    ctypes.set_errno(0)
    failed = _libc.umount2(os.fsencode(path), flags)
    return os.strerror(ctypes.get_errno()) if failed else ""


def _unmount_failed(path: str, complaint: str) -> MountError:
    if os.strerror(errno.EBUSY) in complaint or "Device or resource busy" in complaint:
        return MountError(errno.EBUSY, _busy_message(path))
    return MountError(
        errno.EPERM,
        f"{path!r} cannot be unmounted ({complaint}): only root or the user who mounted it may do "
        f"that; as root run: umount {shlex.quote(path)}",
    )


def _busy_message(path: str) -> str:
    users = [f"{pid} ({name})" for pid, name in processes_using(path)]
    inner = [repr(entry.mount_point) for entry in mountinfo.entries_below(path)]
    reasons = []
    if users:
        reasons.append(
            f"processes that have files or a working directory there: {', '.join(users)}"
        )
    if inner:
        reasons.append(f"mounted inside it: {', '.join(inner[:5])}")
    why = "; ".join(reasons) or "by a process that cannot be seen from here"
    return (
        f"{path!r} is in use ({why}): end or leave what uses it and unmount again, "
        "or force the unmount"
    )


def _unmount_command(path: str) -> str:
    command = "umount" if os.geteuid() == 0 else f"{_HELPER} -u"
    return f"{command} {shlex.quote(path)}"


def _paths_used(process: Path) -> Iterator[str]:
    """Every path that a process (its directory in /proc) holds on to, as far as it may be seen."""
    links = [process / "cwd", process / "root", process / "exe"]
    with suppress(OSError):  # Ended, or somebody else's.
        links += (process / "fd").iterdir()
    for link in links:
        try:
            yield os.readlink(link)
        except OSError:
            continue
    try:
        maps = os.fsdecode((process / "maps").read_bytes())
    except OSError:
        return
    for line in maps.split("\n"):
        # address, permissions, offset, device, inode, path: the path may hold blanks.
        _, slash, path = line.partition("/")
        if slash:
            yield slash + path


def _process_name(process: Path) -> str:
    try:
        return os.fsdecode((process / "comm").read_bytes()).rstrip("\n")
    except OSError:
        return "?"


def _is_in(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


# --- System calls -------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def _call_mount(
    source: bytes, target: str, fstype: bytes | None, flags: int, data: bytes | None
) -> int:
    """mount(2); its errno is returned, 0 when it worked."""
    ctypes.set_errno(0)
    failed: int = _libc.mount(source, os.fsencode(target), fstype, flags, data)
    return ctypes.get_errno() if failed else 0


def _is_disconnected(fd: int) -> bool:
    """Whether the filesystem of a FUSE descriptor is gone or its connection was aborted."""
    poller = select.poll()
    poller.register(fd, 0)
    return any(events & select.POLLERR for _, events in poller.poll(0))


def _write_control(path: Path, text: str) -> bool:
    try:
        path.write_text(text)
    except OSError:
        return False
    return True
