"""Mounting and unmounting for real, as root and as an ordinary user.

The tests run as root. A drive that must answer is served by a process of its own. What an ordinary
user sees is tried in a process that gave up root, in a mount namespace of its own with a /dev/fuse
and an /etc/fuse.conf made for the test, so that nothing of the machine is changed.
"""

import ctypes
import errno
import logging
import os
import pickle
import signal
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

import pytest

from cbfsconnect.fuse import mountinfo
from cbfsconnect.fuse.mount import (
    Mounted,
    MountError,
    MountOptions,
    abort_connection,
    bind,
    is_mounted,
    mount,
    processes_using,
    set_read_ahead,
    unmount,
)
from cbfsconnect.fuse.mountinfo import MountEntry
from support.apart import (
    NOBODY,
    become_user,
    command,
    drop_mount_capability,
    drop_root,
    end,
    enter_namespace,
    fork,
    run_apart,
)

PR_SET_NAME = 15

NAMES = [
    "plain",
    "a,allow_other",
    "a\\,allow_other",
    "back\\slash\\",
    "blank tab\tline\nend",
    "#hash",
    "--",
    "quote'\"$(x)=y",
    "not utf8 \udcff",
]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- A drive that answers ---------------------------------------------------------------

INIT, FORGET, BATCH_FORGET, INTERRUPT = 26, 2, 42, 36
FOR_AN_HOUR = 3600
DIRECTORY = struct.pack("<6Q10I", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)
ANSWERS = {
    INIT: struct.pack("<4I2H2I2HI28x", 7, 31, 1 << 17, 0, 12, 9, 1 << 17, 1, 32, 0, 0),
    1: struct.pack("<4QII", 2, 0, FOR_AN_HOUR, FOR_AN_HOUR, 0, 0) + DIRECTORY,  # LOOKUP
    3: struct.pack("<QII", FOR_AN_HOUR, 0, 0) + DIRECTORY,  # GETATTR
    17: bytes(80),  # STATFS
    27: bytes(16),  # OPENDIR
    28: b"",  # READDIR
    29: b"",  # RELEASEDIR
}


def serve(fd: int, mute: bool) -> None:
    """Answer for a drive until it is unmounted; a mute one only lets itself be mounted.

    Every name in it is a directory, and none is listed.
    """
    while True:
        try:
            request = os.read(fd, 1 << 20)
        except OSError:
            return
        _, opcode, unique = struct.unpack_from("<IIQ", request)
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT) or (mute and opcode != INIT):
            continue
        body = ANSWERS.get(opcode)
        failure = 0 if body is not None else -errno.ENOSYS
        body = body or b""
        os.write(fd, struct.pack("<IiQ", 16 + len(body), failure, unique) + body)


class Server(AbstractContextManager["Server"]):
    """A process that mounts a drive and serves it; it is killed at the end, if it still runs."""

    def __init__(self, path: Path, *, mute: bool = False) -> None:
        reader, writer = os.pipe()

        def child() -> None:
            mounted = mount(path, MountOptions())
            os.write(writer, pickle.dumps(mounted))
            os.close(writer)
            serve(mounted.fd, mute)

        self.pid: int | None = fork(child)
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            data = stream.read()
        assert data, "the server failed: its traceback is on stderr"
        self.mounted: Mounted = pickle.loads(data)

    def kill(self) -> None:
        if self.pid is not None:
            end(self.pid)
            self.pid = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()


# --- Fixtures ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _as_root() -> None:
    if os.geteuid() != 0:
        pytest.fail("these tests mount: run them as root (sudo make test)")


@pytest.fixture
def area() -> Iterator[Path]:
    """A directory that every user may enter (pytest's own is closed), left without mounts."""
    path = Path(tempfile.mkdtemp(prefix="mounting-"))
    path.chmod(0o755)
    yield path
    while left := mountinfo.entries_below(str(path)):
        command("umount", "-l", left[-1].mount_point)
    command("rm", "-rf", str(path))


@pytest.fixture
def drive(area: Path) -> Path:
    """An empty directory that the ordinary user owns."""
    path = area / "drive"
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)
    return path


def entry_of(path: Path) -> MountEntry:
    entry = mountinfo.entry_at(str(path))
    assert entry is not None, f"nothing is mounted at {path}"
    return entry


def refusal(action: Callable[[], object]) -> MountError:
    with pytest.raises(MountError) as caught:
        action()
    assert str(caught.value) == caught.value.message
    return caught.value


def mount_and_describe(path: Path, options: MountOptions) -> MountEntry:
    """Mount in this process, and tell what the kernel shows; the drive is gone afterwards."""
    mounted = mount(path, options)
    entry = entry_of(path)
    assert mounted.device == entry.device
    assert not os.get_inheritable(mounted.fd)
    mounted.unmount()
    assert not is_mounted(path)
    os.close(mounted.fd)
    return entry


# --- Mounting ---------------------------------------------------------------------------


def test_a_mount_tells_descriptor_path_and_device(drive: Path) -> None:
    mounted = mount(drive, MountOptions())
    try:
        assert os.readlink(f"/proc/self/fd/{mounted.fd}") == "/dev/fuse"
        assert not os.get_inheritable(mounted.fd)
        assert mounted.mountpoint == str(drive)
        assert mounted.device == entry_of(drive).device
        assert is_mounted(drive)
        assert is_mounted(drive, mounted.device)
        assert not is_mounted(drive, "0:0")
        _, opcode, _ = struct.unpack_from("<IIQ", os.read(mounted.fd, 1 << 20))
        assert opcode == INIT
    finally:
        mounted.unmount()
        os.close(mounted.fd)


@pytest.mark.parametrize("user", [False, True], ids=["root", "user"])
@pytest.mark.parametrize("name", NAMES)
def test_names_arrive_exactly_and_switch_nothing_on(area: Path, name: str, user: bool) -> None:
    path = area / f"to {name}"
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)

    def action() -> MountEntry:
        if user:
            become_user(area, fuse_conf="user_allow_other\n")
        return mount_and_describe(path, MountOptions(source=name, subtype=name))

    entry = run_apart(action)
    owner = NOBODY if user else 0
    assert entry.mount_point == str(path)
    assert entry.source == name
    assert entry.fstype == f"fuse.{name}"
    assert set(entry.super_options) == {
        "rw",
        f"user_id={owner}",
        f"group_id={owner}",
        "default_permissions",
        "max_read=1048576",
    }


def test_a_subtype_may_be_left_out(drive: Path) -> None:
    assert mount_and_describe(drive, MountOptions(subtype="")).fstype == "fuse"


@pytest.mark.parametrize("user", [False, True], ids=["root", "user"])
def test_every_option_reaches_the_kernel(area: Path, drive: Path, user: bool) -> None:
    options = MountOptions(
        allow_other=True,
        default_permissions=False,
        read_only=True,
        max_read=8192,
        nosuid=True,
        nodev=True,
        noexec=True,
        synchronous=True,
        dirsync=True,
        noatime=True,
    )

    def action() -> MountEntry:
        if user:
            become_user(area, fuse_conf="user_allow_other\n")
        return mount_and_describe(drive, options)

    entry = run_apart(action)
    assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= set(entry.options)
    assert {"ro", "sync", "dirsync", "allow_other", "max_read=8192"} <= set(entry.super_options)
    assert "default_permissions" not in entry.super_options


def test_root_gets_device_nodes_and_suid_a_user_never(area: Path, drive: Path) -> None:
    def as_user() -> MountEntry:
        become_user(area)
        return mount_and_describe(drive, MountOptions())

    assert not {"nosuid", "nodev"} & set(mount_and_describe(drive, MountOptions()).options)
    assert {"nosuid", "nodev"} <= set(run_apart(as_user).options)


@pytest.mark.parametrize(
    "options",
    [
        MountOptions(source=""),
        MountOptions(source="a\0b"),
        MountOptions(subtype="a\0b"),
        MountOptions(source="x" * 5000),
        MountOptions(max_read=0),
    ],
)
def test_options_that_cannot_be_passed_on_are_refused(drive: Path, options: MountOptions) -> None:
    assert refusal(lambda: mount(drive, options)).errno == errno.EINVAL
    assert not is_mounted(drive)


def test_a_symbolic_link_leads_to_the_mountpoint(area: Path, drive: Path) -> None:
    (area / "link").symlink_to("drive")
    mounted = mount(area / "link", MountOptions())
    try:
        assert mounted.mountpoint == str(drive)
        assert is_mounted(area / "link")
        unmount(area / "link")
        assert not is_mounted(drive)
    finally:
        os.close(mounted.fd)


def test_a_relative_mountpoint_becomes_absolute(
    area: Path, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(area)
    mounted = mount("./drive/", MountOptions())
    os.close(mounted.fd)
    assert mounted.mountpoint == str(drive)


# --- Mountpoints that will not do -------------------------------------------------------


def test_a_missing_mountpoint_says_how_to_make_it(area: Path) -> None:
    error = refusal(lambda: mount(area / "not there", MountOptions()))
    assert error.errno == errno.ENOENT
    assert f"mkdir -p '{area}/not there'" in error.message


def test_a_file_is_no_mountpoint(area: Path) -> None:
    (area / "file").touch()
    error = refusal(lambda: mount(area / "file", MountOptions()))
    assert error.errno == errno.ENOTDIR


def test_a_directory_with_something_in_it_is_refused_and_kept(drive: Path) -> None:
    (drive / "precious").touch()
    error = refusal(lambda: mount(drive, MountOptions()))
    assert error.errno == errno.ENOTEMPTY
    assert "precious" in error.message
    assert "empty directory" in error.message
    assert not is_mounted(drive)


@pytest.mark.parametrize("path", ["", "/tmp/a\0b"])
def test_what_is_no_path_at_all(path: str) -> None:
    assert refusal(lambda: mount(path, MountOptions())).errno == errno.EINVAL


def test_a_loop_of_symbolic_links(area: Path) -> None:
    (area / "a").symlink_to("b")
    (area / "b").symlink_to("a")
    assert refusal(lambda: mount(area / "a", MountOptions())).errno == errno.ELOOP


def test_a_mounted_filesystem_of_another_kind_is_left_alone(drive: Path) -> None:
    command("mount", "-t", "tmpfs", "somebody", str(drive))
    before = entry_of(drive)
    error = refusal(lambda: mount(drive, MountOptions()))
    assert error.errno == errno.EBUSY
    assert "tmpfs" in error.message
    assert f"umount {drive}" in error.message
    assert refusal(lambda: unmount(drive, force=True)).errno == errno.EINVAL
    assert entry_of(drive) == before


def test_a_live_drive_is_refused_and_lives_on(drive: Path) -> None:
    with Server(drive) as server:
        error = refusal(lambda: mount(drive, MountOptions()))
        assert error.errno == errno.EBUSY
        assert f"umount {drive}" in error.message
        assert is_mounted(drive, server.mounted.device)
        assert os.statvfs(drive).f_namemax == 0
        unmount(drive)


def test_a_drive_that_does_not_answer_is_not_taken_for_dead(drive: Path) -> None:
    with Server(drive, mute=True) as server:
        assert refusal(lambda: mount(drive, MountOptions())).errno == errno.EBUSY
        assert is_mounted(drive, server.mounted.device)
    # With its server gone the probe that hung comes back, and nothing is left of it.
    deadline = time.monotonic() + 20
    while any(thread.name == "reap stuck probe" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- What a killed server leaves behind -------------------------------------------------


def test_the_mount_of_a_killed_server_is_replaced(drive: Path) -> None:
    with Server(drive) as server:
        os.stat(drive)
        server.kill()
        # The trap: the kernel still answers this from its cache.
        os.stat(drive)
        with pytest.raises(OSError, match="not connected"):
            os.statvfs(drive)
    with Server(drive):
        assert os.statvfs(drive).f_namemax == 0
        unmount(drive)
        assert not is_mounted(drive)


def test_replacing_a_dead_mount_is_logged(drive: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cbfsconnect.fuse.mount")
    os.close(mount(drive, MountOptions(source="first")).fd)
    mounted = mount(drive, MountOptions(source="second"))
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "first" in caplog.text
    assert str(drive) in caplog.text
    assert entry_of(drive).source == "second"
    mounted.unmount()
    os.close(mounted.fd)


def test_several_dead_mounts_on_each_other_are_replaced(drive: Path) -> None:
    with Server(drive):
        command("mount", "--bind", str(drive), str(drive))
        command("mount", "--bind", str(drive), str(drive))
    assert len(mountinfo.entries_below(str(drive.parent))) == 3
    mounted = mount(drive, MountOptions())
    assert [e.device for e in mountinfo.entries_below(str(drive.parent))] == [mounted.device]
    mounted.unmount()
    os.close(mounted.fd)


def test_a_user_replaces_the_own_dead_mount(area: Path, drive: Path) -> None:
    def action() -> list[str]:
        become_user(area)
        os.close(mount(drive, MountOptions(source="first")).fd)
        mounted = mount(drive, MountOptions(source="second"))
        return [e.source for e in mountinfo.entries() if e.mount_point == mounted.mountpoint]

    assert run_apart(action) == ["second"]


def test_root_replaces_the_dead_mount_of_a_user(area: Path, drive: Path) -> None:
    """Root is not let into such a mount, and would be told that all is well there."""

    def by_user() -> None:
        drop_root()
        mount(drive, MountOptions(source="first"))

    def action() -> list[str]:
        enter_namespace()
        os.mknod(area / "fuse", 0o020600, os.makedev(10, 229))
        (area / "fuse").chmod(0o666)
        command("mount", "--bind", str(area / "fuse"), "/dev/fuse")
        run_apart(by_user)
        mount(drive, MountOptions(source="second"))
        return [e.source for e in mountinfo.entries() if e.mount_point == str(drive)]

    assert run_apart(action) == ["second"]


# --- What the machine or its rules refuse -----------------------------------------------


@pytest.mark.parametrize("user", [False, True], ids=["root", "user"])
def test_without_the_device_the_message_names_modprobe(drive: Path, user: bool) -> None:
    def action() -> Mounted:
        enter_namespace()
        command("mount", "-t", "tmpfs", "tmpfs", "/dev")
        if user:
            drop_root()
        return mount(drive, MountOptions())

    error = refusal(lambda: run_apart(action))
    assert error.errno == errno.ENOENT
    assert "modprobe fuse" in error.message
    assert "--device /dev/fuse" in error.message


def test_root_in_a_container_is_told_what_the_container_needs(drive: Path) -> None:
    def action() -> tuple[MountError, int]:
        drop_mount_capability()
        before = open_descriptors()
        return refusal(lambda: mount(drive, MountOptions())), open_descriptors() - before

    error, leaked = run_apart(action)
    assert error.errno == errno.EPERM
    assert "--cap-add SYS_ADMIN" in error.message
    assert leaked == 0


def test_a_user_kept_from_the_device_is_told_so(area: Path, drive: Path) -> None:
    def action() -> Mounted:
        become_user(area, device_mode=0o600)
        return mount(drive, MountOptions())

    error = refusal(lambda: run_apart(action))
    assert error.errno == errno.EACCES
    assert "chmod 0666 /dev/fuse" in error.message


def test_a_user_without_the_helper_is_told_how_to_install_it(area: Path, drive: Path) -> None:
    def action() -> tuple[MountError, int]:
        become_user(area)
        os.environ["PATH"] = "/nonexistent"
        before = open_descriptors()
        return refusal(lambda: mount(drive, MountOptions())), open_descriptors() - before

    error, leaked = run_apart(action)
    assert error.errno == errno.ENOENT
    assert "apt install fuse3" in error.message
    assert leaked == 0


def test_allow_other_for_a_user_needs_a_line_in_fuse_conf(area: Path, drive: Path) -> None:
    def action() -> Mounted:
        become_user(area)
        return mount(drive, MountOptions(allow_other=True))

    error = refusal(lambda: run_apart(action))
    assert error.errno == errno.EPERM
    assert "add the line 'user_allow_other' to /etc/fuse.conf" in error.message


def test_a_user_with_too_many_mounts(area: Path, drive: Path) -> None:
    def action() -> Mounted:
        become_user(area, fuse_conf="mount_max = 0\n")
        return mount(drive, MountOptions())

    error = refusal(lambda: run_apart(action))
    assert error.errno == errno.EMFILE
    assert "mount_max" in error.message


@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_a_user_cannot_mount_on_the_directory_of_another(area: Path, mode: int) -> None:
    path = area / "of root"
    path.mkdir()
    path.chmod(mode)

    def action() -> Mounted:
        become_user(area)
        return mount(path, MountOptions())

    error = refusal(lambda: run_apart(action))
    assert error.errno == errno.EACCES
    assert "fusermount3: " in error.message
    assert "choose a directory that you own" in error.message


def test_a_user_cannot_read_the_mountpoint(area: Path) -> None:
    path = area / "closed"
    path.mkdir(0o700)

    def action() -> Mounted:
        become_user(area)
        return mount(path, MountOptions())

    assert refusal(lambda: run_apart(action)).errno == errno.EACCES


# --- Unmounting -------------------------------------------------------------------------


def test_a_server_sees_the_end_of_its_drive(drive: Path) -> None:
    mounted = mount(drive, MountOptions())
    server = fork(lambda: serve(mounted.fd, False))
    os.statvfs(drive)
    mounted.unmount()
    assert not is_mounted(drive)
    assert os.waitpid(server, 0)[1] == 0
    os.close(mounted.fd)


def test_what_is_not_mounted_is_unmounted_quietly(area: Path, drive: Path) -> None:
    unmount(drive)
    unmount(area / "never made")
    mounted = mount(drive, MountOptions())
    unmount(drive)
    mounted.unmount()
    unmount(drive)
    os.close(mounted.fd)


def test_a_drive_mounted_there_later_is_not_unmounted_for_the_old_one(drive: Path) -> None:
    """Even though the kernel likes to give it the same device number."""
    first = mount(drive, MountOptions())
    unmount(drive)
    with Server(drive) as second:
        first.unmount()
        assert is_mounted(drive, second.mounted.device)
        assert os.statvfs(drive).f_namemax == 0
        unmount(drive)
    os.close(first.fd)


def test_a_drive_covered_by_another_mount_is_not_taken_for_gone(drive: Path) -> None:
    mounted = mount(drive, MountOptions())
    command("mount", "-t", "tmpfs", "cover", str(drive))
    error = refusal(mounted.unmount)
    assert error.errno == errno.EBUSY
    assert "cover" in error.message
    assert is_mounted(drive, mounted.device)
    command("umount", str(drive))
    mounted.unmount()
    assert not is_mounted(drive)
    os.close(mounted.fd)


def hold_by_directory(drive: Path) -> None:
    os.chdir(drive)


def hold_by_descriptor(drive: Path) -> None:
    os.open(drive, os.O_RDONLY | os.O_DIRECTORY)


def holder(drive: Path, hold: Callable[[Path], None]) -> int:
    """A process called 'the holder' that keeps the drive busy until it is ended."""
    reader, writer = os.pipe()

    def child() -> None:
        hold(drive)
        assert ctypes.CDLL(None).prctl(PR_SET_NAME, b"the holder") == 0
        os.write(writer, b"!")
        signal.pause()

    pid = fork(child)
    os.close(writer)
    assert os.read(reader, 1) == b"!"
    os.close(reader)
    return pid


@pytest.mark.parametrize("hold", [hold_by_directory, hold_by_descriptor])
def test_a_busy_drive_names_who_uses_it(drive: Path, hold: Callable[[Path], None]) -> None:
    with Server(drive):
        pid = holder(drive, hold)
        try:
            error = refusal(lambda: unmount(drive))
            assert error.errno == errno.EBUSY
            assert f"{pid} (the holder)" in error.message
            assert processes_using(str(drive)) == [(pid, "the holder")]
            assert processes_using(str(drive), limit=0) == []
            assert is_mounted(drive)
        finally:
            end(pid)
        unmount(drive)
        assert not is_mounted(drive)


def test_force_takes_a_busy_drive_away(drive: Path) -> None:
    with Server(drive):
        pid = holder(drive, hold_by_directory)
        try:
            unmount(drive, force=True)
            assert not is_mounted(drive)
        finally:
            end(pid)


def test_what_is_mounted_inside_is_named(drive: Path) -> None:
    with Server(drive):
        command("mount", "-t", "tmpfs", "tmpfs", str(drive / "inner"))
        error = refusal(lambda: unmount(drive))
        assert error.errno == errno.EBUSY
        assert str(drive / "inner") in error.message
        command("umount", str(drive / "inner"))
        unmount(drive)
        assert not is_mounted(drive)


def test_a_user_unmounts_a_busy_drive_only_by_force(area: Path, drive: Path) -> None:
    def action() -> tuple[MountError, bool, bool]:
        become_user(area)
        mounted = mount(drive, MountOptions())
        pid = fork(lambda: serve(mounted.fd, False))
        user = holder(drive, hold_by_descriptor)
        error = refusal(mounted.unmount)
        still = is_mounted(drive)
        mounted.unmount(force=True)
        gone = not is_mounted(drive)
        end(user)
        end(pid)
        return error, still, gone

    error, still, gone = run_apart(action)
    assert error.errno == errno.EBUSY
    assert "(the holder)" in error.message
    assert still
    assert gone


def test_a_user_cannot_unmount_the_drive_of_another(drive: Path) -> None:
    def action() -> None:
        drop_root()
        unmount(drive)

    mounted = mount(drive, MountOptions())
    error = refusal(lambda: run_apart(action))
    assert error.errno == errno.EPERM
    assert f"umount {drive}" in error.message
    assert is_mounted(drive)
    mounted.unmount()
    os.close(mounted.fd)


# --- Further mounting points ------------------------------------------------------------


def test_a_bind_shows_the_same_drive_elsewhere(area: Path, drive: Path) -> None:
    second = area / "second"
    second.mkdir()
    with Server(drive) as server:
        assert bind(drive, second) == str(second)
        device = server.mounted.device
        assert mountinfo.mount_points_of(device) == [str(drive), str(second)]
        assert os.statvfs(second).f_namemax == 0
        unmount(second)
        assert mountinfo.mount_points_of(device) == [str(drive)]
        unmount(drive)


def test_a_bind_needs_a_free_directory_and_a_mounted_drive(area: Path, drive: Path) -> None:
    second = area / "second"
    assert refusal(lambda: bind(drive, second)).errno == errno.EINVAL
    with Server(drive):
        assert refusal(lambda: bind(drive, second)).errno == errno.ENOENT
        second.mkdir()
        (second / "file").touch()
        assert refusal(lambda: bind(drive, second)).errno == errno.ENOTEMPTY
        assert refusal(lambda: bind(drive, drive)).errno == errno.EBUSY


def test_a_bind_replaces_a_dead_mount(area: Path, drive: Path) -> None:
    second = area / "second"
    second.mkdir()
    os.close(mount(second, MountOptions()).fd)
    with Server(drive) as server:
        bind(drive, second)
        assert entry_of(second).device == server.mounted.device
        assert len(mountinfo.entries_below(str(area))) == 2


def test_a_bind_is_for_root(area: Path, drive: Path) -> None:
    def action() -> str:
        drop_root()
        return bind(drive, area)

    error = refusal(lambda: run_apart(action))
    assert error.errno == errno.EPERM
    assert "root" in error.message


# --- Controls ---------------------------------------------------------------------------


def test_aborting_a_connection_ends_the_server(drive: Path) -> None:
    def action() -> tuple[bool, int | None, bool, bool]:
        enter_namespace()
        command("mount", "-t", "fusectl", "fusectl", "/sys/fs/fuse/connections")
        mounted = mount(drive, MountOptions())
        done = abort_connection(mounted.device)
        number = None
        try:
            os.read(mounted.fd, 1 << 20)
        except OSError as error:
            number = error.errno
        left = is_mounted(drive)
        mounted.unmount()
        return done, number, left, is_mounted(drive)

    done, number, left, left_at_last = run_apart(action)
    assert done
    assert number in (errno.ENODEV, errno.ECONNABORTED)
    assert left, "the mount outlives its connection"
    assert not left_at_last


@pytest.mark.parametrize("device", ["", "0:", "0:../1", "999:1", "0:99999999", "nonsense"])
def test_controls_of_what_is_no_fuse_device_do_nothing(device: str) -> None:
    assert not abort_connection(device)
    assert not set_read_ahead(device, 128)


def test_read_ahead_is_set(drive: Path) -> None:
    with Server(drive) as server:
        os.statvfs(drive)  # INIT was answered.
        assert set_read_ahead(server.mounted.device, 2048)
        control = Path("/sys/class/bdi", server.mounted.device, "read_ahead_kb")
        assert control.read_text() == "2048\n"
        unmount(drive)
