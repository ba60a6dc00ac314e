"""What POSIX and Linux promise of a filesystem, on a mounted memory drive.

Most of it is tried three times: with the drive's own settings; with those of a drive that knows
nothing of Linux (no cache, deletion after the last close, every open and close told), so that the
library itself keeps the promises that the drive would have kept; and with `async def` handlers, so
that the operations in the form that waits without a thread do what the plain ones do.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cbfsconnect import CBFSCloseFileEventParams, CBFSCreateFileEventParams, MemoryDrive
from cbfsconnect.constants import FILE_ATTRIBUTE_DIRECTORY, FILE_ATTRIBUTE_NORMAL
from support.asynchronous import made_async
from support.client import Client
from support.mounts import Mounting

NOBODY = 65534
MIB = 1 << 20
PLAIN: dict[str, Any] = {
    "file_cache": 0,
    "fire_all_open_close_events": True,
    "serialize_access": True,
    "config": {
        "PosixDelete": False,
        "FireSetFileSizeOnWrite": True,
        "MetadataCacheTimeout": 0,
    },
}


def same(handlers: object) -> object:
    """The handlers as they are."""
    return handlers


CALLS = """
    import ctypes, socket
    libc = ctypes.CDLL(None, use_errno=True)

    def checked(done):
        if done < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return done

    def rename(old, new, flags):
        checked(libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags))

    def fallocate(fd, mode, start, length):
        start, length = ctypes.c_int64(start), ctypes.c_int64(length)
        checked(libc.fallocate64(fd, mode, start, length))

    def entries(fd, size):
        buffer = ctypes.create_string_buffer(size)
        end, at, found = checked(libc.getdents64(fd, buffer, size)), 0, []
        while at < end:
            length = struct.unpack_from("<H", buffer, at + 16)[0]
            found.append(buffer[at + 19 : at + length].split(b"\\0")[0].decode())
            at += length
        return found

    def write(path, data=b"", mode=0o666):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def mode(path):
        return stat.S_IMODE(os.lstat(path).st_mode)

    def become(user, *groups):
        os.setgroups(groups[1:])
        os.setresgid(*(groups[:1] or (user,)) * 3)
        os.setresuid(user, user, user)

    os.umask(0o022)
    os.chdir(at)
"""
NOREPLACE, EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE = 1, 2


@pytest.fixture(
    params=[(same, {}), (same, PLAIN), (made_async, {})], ids=["posix", "plain", "async"]
)
def here(request: pytest.FixtureRequest, mount: Mounting, client: Client) -> Client:
    """A process whose working directory is a new memory drive."""
    kind, options = request.param
    return settle(client, mount(kind(MemoryDrive()), **options).mountpoint)


@pytest.fixture
def people(here: Client) -> Iterator[Callable[..., Client]]:
    """A function that starts a process of another user, in the same directory as `here`."""
    started: list[Client] = []

    def start(user: int, *groups: int) -> Client:
        process = Client()
        started.append(process)
        # A path to the drive need not be open to that user: first there, then another user.
        settle(process, here.call("os.getcwd()"))
        process.run("become(user, *groups)", user=user, groups=groups)
        return process

    yield start
    for process in started:
        process.close()


def settle(client: Client, directory: str) -> Client:
    """Make the drive the working directory of a process, and give it the functions of CALLS."""
    client.run(CALLS, at=directory)
    return client


def error_of(client: Client, code: str, **names: Any) -> str:
    """The name of the errno with which the code fails."""
    try:
        client.run(code, **names)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "none"


def wait_until(client: Client, expression: str, **names: Any) -> None:
    """Wait for what follows close(2) at some time: the kernel's RELEASE."""
    deadline = time.monotonic() + 20
    while not client.call(expression, **names):
        assert time.monotonic() < deadline, f"never true: {expression}"
        time.sleep(0.005)


def put(drive: MemoryDrive, path: str, mode: int, gid: int = 0) -> None:
    """Make an item without the kernel's knowledge."""
    directory = stat.S_ISDIR(mode)
    attributes = FILE_ATTRIBUTE_DIRECTORY if directory else FILE_ATTRIBUTE_NORMAL
    made = CBFSCreateFileEventParams(path, 0, attributes, 7, 1, 0, 0, 0, mode, 0, gid)
    drive.on_create_file(made)
    drive.on_close_file(CBFSCloseFileEventParams(path, False, 0, made.file_context, 0))


# --- modes and owners ---


def test_new_items_have_the_mode_less_the_umask_and_the_owner_of_their_process(
    here: Client, people: Callable[..., Client]
) -> None:
    here.run("os.mkdir('open'); os.chmod('open', 0o777)")
    nobody = people(NOBODY, 1234)
    nobody.run(
        """
        os.umask(0o027)
        os.chdir("open")
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir("directory", 0o777)
        os.mkfifo("fifo", 0o666)
        os.symlink("target", "link")
        """
    )
    found = here.call(
        """{n: (oct(os.lstat(p).st_mode), os.lstat(p).st_uid, os.lstat(p).st_gid)
            for n in os.listdir("open") for p in [f"open/{n}"]}"""
    )
    assert found == {
        "file": ("0o100640", NOBODY, 1234),
        "directory": ("0o40750", NOBODY, 1234),
        "fifo": ("0o10640", NOBODY, 1234),
        "link": ("0o120777", NOBODY, 1234),
    }


def test_chmod_sets_all_twelve_bits(here: Client) -> None:
    changed = here.run(
        """
        write("file"); os.mkdir("directory")
        fd = os.open("file", os.O_RDONLY)
        result = []
        for bits in (0, 0o7777, 0o1644, 0o4755, 0o2755, 0o600):
            os.chmod("file", bits); os.chmod("directory", bits)
            result.append(mode("file") == mode("directory") == bits)
        os.fchmod(fd, 0o421)
        result.append(mode("file") == 0o421)
        """
    )
    assert all(changed), changed


def test_a_file_made_without_permissions_can_be_written_by_its_maker(here: Client) -> None:
    assert here.run(
        """
        fd = os.open("file", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0)
        os.write(fd, b"secret")
        result = os.pread(fd, 10, 0), mode("file")
        os.close(fd)
        """
    ) == (b"secret", 0)


def test_chown_changes_what_is_given_and_links_themselves(here: Client) -> None:
    owners = here.run(
        """
        write("file"); os.symlink("file", "link")
        owner = lambda p: (os.lstat(p).st_uid, os.lstat(p).st_gid)
        result = []
        for uid, gid in ((1, 2), (-1, 3), (4, -1), (-1, -1)):
            os.chown("file", uid, gid)
            result.append(owner("file"))
        os.lchown("link", 2**32 - 2, 2**31)
        result += [owner("link"), owner("file")]
        os.chown("link", 7, 8)
        result += [owner("link"), owner("file")]
        """
    )
    big = (2**32 - 2, 2**31)
    assert owners == [(1, 2), (1, 3), (4, 3), (4, 3), big, (4, 3), big, (7, 8)]


@pytest.mark.parametrize("kind", ["file", "fifo", "device", "directory"])
def test_chown_takes_the_set_id_bits_of_all_but_directories(here: Client, kind: str) -> None:
    modes = here.run(
        """
        if kind == "file": write("item")
        elif kind == "fifo": os.mkfifo("item")
        elif kind == "device": os.mknod("item", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        else: os.mkdir("item")
        result = []
        for bits, uid, gid in ((0o6755, 5, -1), (0o6755, -1, 6), (0o2745, 7, 7)):
            os.chmod("item", bits)
            os.chown("item", uid, gid)
            result.append(oct(mode("item")))
        """,
        kind=kind,
    )
    # Set-group-ID without permission to execute is no privilege: it stays.
    kept = ["0o6755", "0o6755", "0o2745"] if kind == "directory" else ["0o755", "0o755", "0o2745"]
    assert modes == kept


@pytest.mark.parametrize(
    "change",
    ["os.write(fd, b'x')", "os.ftruncate(fd, 1)", "os.truncate('file', 1)", "write('file')"],
)
def test_a_change_by_another_user_takes_the_set_id_bits(
    here: Client, people: Callable[..., Client], change: str
) -> None:
    here.run("write('file', b'content'); os.chown('file', 1, 1); os.chmod('file', 0o6777)")
    nobody = people(NOBODY)
    nobody.run("fd = os.open('file', os.O_RDWR)")
    here.run(change.replace("fd", "os.open('file', os.O_RDWR)"))
    assert here.call("oct(mode('file'))") == "0o6777", "root keeps them"
    nobody.run(change)
    nobody.run("os.close(fd)")
    assert here.call("oct(mode('file'))") == "0o777"


def test_a_set_group_id_directory_hands_its_group_down(here: Client) -> None:
    groups = here.run(
        """
        os.mkdir("team"); os.chown("team", 0, 1234); os.chmod("team", 0o2775)
        write("team/file"); os.mkdir("team/below"); os.symlink("x", "team/link")
        os.mkfifo("team/fifo"); write("team/below/file")
        items = ("file", "below", "link", "fifo", "below/file")
        result = {i: os.lstat(f"team/{i}").st_gid for i in items}
        result["bits"] = oct(mode("team/below")), oct(mode("team/file"))
        os.chmod("team", 0o775)
        write("team/later")
        result["later"] = os.stat("team/later").st_gid
        """
    )
    assert groups.pop("bits") == ("0o2755", "0o644")
    assert groups.pop("later") == 0
    assert set(groups.values()) == {1234}, groups


def test_a_set_group_id_directory_is_known_from_a_listing_too(
    mount: Mounting, client: Client
) -> None:
    drive = MemoryDrive()
    put(drive, "/outer", stat.S_IFDIR | 0o755)
    put(drive, "/outer/team", stat.S_IFDIR | 0o2775, gid=1234)
    settle(client, mount(drive).mountpoint)
    assert client.run(
        """
        os.listdir("outer")  # names the directory to the kernel, with all its attributes
        write("outer/team/file"); os.mkdir("outer/team/below")
        below = os.stat("outer/team/below")
        result = os.stat("outer/team/file").st_gid, below.st_gid, oct(below.st_mode)
        """
    ) == (1234, 1234, "0o42755")


# --- times ---


def test_times_are_kept_to_the_nanosecond(here: Client) -> None:
    times = [
        (1, 2),
        (-1, -1_500_000_001),
        (1_700_000_000_123_456_789, 1_600_000_000_987_654_321),
        (2**33 * 10**9 + 7, 2**34 * 10**9 + 999_999_999),
    ]
    kept = here.run(
        """
        write("file"); os.mkdir("directory"); os.symlink("file", "link")
        def set_and_get(path, ns):
            os.utime(path, ns=ns, follow_symlinks=False)
            found = os.lstat(path)
            return found.st_atime_ns, found.st_mtime_ns
        result = [set_and_get(p, ns) for ns in times for p in ("file", "directory", "link")]
        """,
        times=times,
    )
    assert kept == [t for t in times for _ in range(3)]


def test_changes_show_in_the_right_times(here: Client) -> None:
    changed = here.run(
        """
        OLD = 10**18
        os.mkdir("directory"); write("directory/file", b"content"); os.symlink("x", "link")

        def changed(path, action):
            before = os.stat(path).st_ctime_ns
            os.utime(path, ns=(OLD, OLD))
            between = os.stat(path).st_ctime_ns
            action()
            after = os.stat(path)
            assert before <= between <= after.st_ctime_ns <= time.time_ns()
            return after.st_atime_ns != OLD, after.st_mtime_ns != OLD

        file, directory = "directory/file", "directory"
        result = {
            "chmod": changed(file, lambda: os.chmod(file, 0o600)),
            "chown": changed(file, lambda: os.chown(file, 1, 1)),
            "truncate": changed(file, lambda: os.truncate(file, 2)),
            "write": changed(file, lambda: write(file, b"more")),
            "link": changed(file, lambda: os.link(file, "other")),
            "rename": changed(file, lambda: os.rename("other", "another")),
            "xattr": changed(file, lambda: os.setxattr(file, "user.x", b"1")),
            "entry made": changed(directory, lambda: write(directory + "/new")),
            "entry written": changed(directory, lambda: write(directory + "/new", b"again")),
            "entry renamed": changed(directory, lambda: os.rename("link", directory + "/link")),
            "entry removed": changed(directory, lambda: os.unlink(file)),
        }
        """
    )
    written = {"truncate", "write", "entry made", "entry renamed", "entry removed"}
    assert changed == {what: (False, what in written) for what in changed}


def test_times_set_after_a_write_outlast_the_close(here: Client) -> None:
    assert here.run(
        """
        fd = os.open("file", os.O_RDWR | os.O_CREAT)
        os.write(fd, b"content")
        os.utime(fd, ns=(11, 12))
        os.close(fd)
        found = os.stat("file")
        result = found.st_atime_ns, found.st_mtime_ns
        """
    ) == (11, 12)


# --- links ---


def test_hard_links_are_one_file(here: Client) -> None:
    here.run(
        """
        os.mkdir("directory"); write("a", b"one"); os.link("a", "directory/b")
        write("directory/b", b"changed"); os.chmod("a", 0o640)
        """
    )
    assert here.call("Path('a').read_bytes()") == b"changed"
    assert here.call("[os.stat(p).st_nlink for p in ('a', 'directory/b')]") == [2, 2]
    assert here.call("os.path.samefile('a', 'directory/b'), mode('directory/b')") == (True, 0o640)
    here.run("os.unlink('a')")
    assert here.call("os.stat('directory/b').st_nlink, os.path.lexists('a')") == (1, False)
    assert here.call("Path('directory/b').read_bytes()") == b"changed"


def test_hard_links_that_cannot_be(here: Client) -> None:
    here.run("write('file'); os.mkdir('directory'); os.symlink('file', 'link')")
    assert error_of(here, "os.link('file', 'directory')") == "EEXIST"
    assert error_of(here, "os.link('directory', 'new')") == "EPERM"
    assert error_of(here, "os.link('missing', 'new')") == "ENOENT"
    here.run("os.link('link', 'link2', follow_symlinks=False)")
    assert here.call("os.readlink('link2'), os.lstat('link').st_nlink") == ("file", 2)


def test_a_directory_counts_those_in_it(here: Client) -> None:
    assert here.run(
        """
        os.makedirs("one/two"); os.mkdir("one/three"); write("one/file")
        result = [os.stat(p).st_nlink for p in ("one", "one/two")]
        os.rename("one/two", "two")
        result += [os.stat(p).st_nlink for p in ("one", "two")]
        """
    ) == [4, 2, 3, 2]


@pytest.mark.parametrize("target", [b"file", b"/", b"../\xff\xfe \n\\", b"x" * 4095])
def test_symbolic_links_keep_any_target(here: Client, target: bytes) -> None:
    here.run("os.symlink(target, b'link')", target=target)
    assert here.call("os.readlink(b'link')") == target
    assert here.call("os.lstat('link').st_size") == len(target)
    assert here.call("stat.S_ISLNK(os.lstat('link').st_mode)") is True


def test_symbolic_links_are_followed_and_loops_refused(here: Client) -> None:
    here.run(
        """
        os.makedirs("a/b"); write("a/b/file", b"found")
        os.symlink("a/b", "way"); os.symlink("../a/b/file", "a/again"); os.symlink("me", "me")
        """
    )
    assert here.call("Path('way/file').read_bytes(), Path('a/again').read_bytes()") == (
        b"found",
        b"found",
    )
    assert error_of(here, "os.stat('me')") == "ELOOP"
    assert error_of(here, "os.readlink('a')") == "EINVAL"
    here.run("os.unlink('way')")
    assert here.call("os.listdir('a/b')") == ["file"]


# --- special files ---


def test_special_files_are_what_they_were_made(here: Client) -> None:
    found = here.run(
        """
        os.mknod("fifo", stat.S_IFIFO | 0o640)
        os.mknod("socket", stat.S_IFSOCK | 0o666)
        os.mknod("char", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.mknod("block", stat.S_IFBLK | 0o600, os.makedev(4095, 1_000_000))
        os.mknod("file", stat.S_IFREG | 0o600)
        def tell(path):
            found = os.lstat(path)
            device = os.major(found.st_rdev), os.minor(found.st_rdev)
            return stat.filemode(found.st_mode), device, found.st_size
        result = {p: tell(p) for p in os.listdir()}
        """
    )
    assert found == {
        "fifo": ("prw-r-----", (0, 0), 0),
        "socket": ("srw-r--r--", (0, 0), 0),
        "char": ("crw-------", (1, 3), 0),
        "block": ("brw-------", (4095, 1_000_000), 0),
        "file": ("-rw-------", (0, 0), 0),
    }


def test_a_fifo_joins_two_processes(here: Client, people: Callable[..., Client]) -> None:
    here.run("os.mkfifo('fifo'); os.chmod('fifo', 0o666)")
    reader = people(NOBODY)
    reader.start("result = Path('fifo').read_bytes()")
    here.run("Path('fifo').write_bytes(b'through the pipe')")
    assert reader.finish() == b"through the pipe"


def test_a_socket_joins_two_processes(here: Client, people: Callable[..., Client]) -> None:
    here.run(
        """
        server = socket.socket(socket.AF_UNIX)
        server.bind("socket")
        server.listen()
        os.chmod("socket", 0o666)
        """
    )
    other = people(NOBODY)
    other.run("s = socket.socket(socket.AF_UNIX); s.connect('socket'); s.sendall(b'hello')")
    assert here.run("peer = server.accept()[0]; result = peer.recv(100)") == b"hello"
    other.run("s.close()")
    here.run("peer.close(); server.close()")


def test_a_device_node_reaches_the_device(here: Client) -> None:
    here.run("os.mknod('zero', stat.S_IFCHR | 0o666, os.makedev(1, 5))")
    assert here.run("with open('zero', 'rb') as f: result = f.read(5)") == bytes(5)


# --- data, sparse files ---


def test_a_sparse_file_takes_only_what_was_written(here: Client) -> None:
    here.run(
        """
        fd = os.open("sparse", os.O_RDWR | os.O_CREAT)
        os.pwrite(fd, b"end", (1 << 40) - 3)
        os.pwrite(fd, b"middle", 1 << 30)
        os.close(fd)
        """
    )
    size, blocks = here.call("(lambda s: (s.st_size, s.st_blocks))(os.stat('sparse'))")
    assert size == 1 << 40
    assert 16 <= blocks <= 2 * (64 << 10) // 512, "two chunks at most"
    assert here.run(
        """
        fd = os.open("sparse", os.O_RDONLY)
        result = os.pread(fd, 9, (1 << 30) - 3), os.pread(fd, 9, (1 << 40) - 6), os.pread(fd, 4, 0)
        """
    ) == (b"\0\0\0middle", b"\0\0\0end", bytes(4))


def test_seeking_data_and_holes_follows_the_rules(here: Client) -> None:
    # A filesystem may call all of a file data: then the only hole is the one behind its end.
    here.run("write('file', b'x' * 10_000); fd = os.open('file', os.O_RDONLY)")
    assert here.call("os.lseek(fd, 5, os.SEEK_DATA), os.lseek(fd, 5, os.SEEK_HOLE)") == (5, 10_000)
    assert error_of(here, "os.lseek(fd, 10_000, os.SEEK_DATA)") == "ENXIO"
    assert here.call("os.lseek(fd, -10, os.SEEK_END), os.read(fd, 20)") == (9990, b"x" * 10)


def test_truncating_cuts_and_extends_with_zeros(here: Client) -> None:
    assert here.run(
        """
        write("file", b"0123456789")
        os.truncate("file", 4); os.truncate("file", 8)
        fd = os.open("file", os.O_RDWR)
        result = [os.pread(fd, 20, 0)]
        os.ftruncate(fd, 2); os.pwrite(fd, b"x", 5)
        result += [os.pread(fd, 20, 0), os.fstat(fd).st_size]
        """
    ) == [b"0123\0\0\0\0", b"01\0\0\0x", 6]
    assert error_of(here, "os.truncate('.', 0)") == "EISDIR"


def test_a_punched_hole_reads_as_zeros_and_gives_its_space_back(here: Client) -> None:
    here.run("write('file', bytes([7]) * (1 << 20)); fd = os.open('file', os.O_RDWR)")
    assert here.call("os.stat('file').st_blocks") == MIB // 512
    here.run("fallocate(fd, mode_, 128 << 10, 512 << 10)", mode_=KEEP_SIZE | PUNCH_HOLE)
    assert here.call("os.stat('file').st_size") == MIB
    assert here.call("os.stat('file').st_blocks") == MIB // 2 // 512
    data = here.call("os.pread(fd, 1 << 20, 0)")
    assert data == bytes([7]) * (128 << 10) + bytes(512 << 10) + bytes([7]) * (384 << 10)


def test_fallocate_reserves_and_extends(here: Client) -> None:
    here.run("fd = os.open('file', os.O_RDWR | os.O_CREAT)")
    here.run("fallocate(fd, mode_, 0, 1 << 20)", mode_=KEEP_SIZE)
    assert here.call("os.fstat(fd).st_size") == 0
    here.run("os.posix_fallocate(fd, 0, 1 << 20)")
    assert here.call("(os.fstat(fd).st_size, os.fstat(fd).st_blocks)") == (MIB, MIB // 512)
    assert error_of(here, "fallocate(fd, 8, 0, 4096)") == "ENOTSUP", "FALLOC_FL_COLLAPSE_RANGE"


def test_appending_processes_do_not_overwrite_each_other(
    here: Client, people: Callable[..., Client]
) -> None:
    here.run("write('log'); os.chmod('log', 0o666)")
    others = [people(NOBODY), people(1)]
    code = """
        fd = os.open("log", os.O_WRONLY | os.O_APPEND)
        for _ in range(100): os.write(fd, line)
        os.close(fd)
    """
    for number, other in enumerate(others):
        other.start(code, line=b"%d" % number * 99 + b"\n")
    for other in others:
        other.finish()
    lines = here.call("Path('log').read_bytes()").splitlines()
    assert sorted(lines) == [b"0" * 99] * 100 + [b"1" * 99] * 100


# --- extended attributes ---


def test_extended_attributes_keep_their_bytes(here: Client) -> None:
    values = {"user.empty": b"", "user.zero": b"\0\xff", "user.large": b"x" * 65536}
    here.run(
        """
        write("file"); os.mkdir("directory")
        for path in ("file", "directory", "."):
            for name, value in values.items(): os.setxattr(path, name, value)
        """,
        values=values,
    )
    for path in ("file", "directory", "."):
        found = here.call("{n: os.getxattr(p, n) for n in os.listxattr(p)}", p=path)
        assert found == values
    here.run("os.removexattr('file', 'user.zero'); os.rename('file', 'moved')")
    assert here.call("sorted(os.listxattr('moved'))") == ["user.empty", "user.large"]
    assert here.call("os.listdir('.')") == ["directory", "moved"]


def test_extended_attributes_are_made_and_replaced_as_asked(here: Client) -> None:
    here.run("write('file'); os.setxattr('file', 'user.a', b'1', os.XATTR_CREATE)")
    here.run("os.setxattr('file', 'user.a', b'22', os.XATTR_REPLACE)")
    here.run("os.setxattr('file', 'user.a', b'3')")
    assert here.call("os.getxattr('file', 'user.a')") == b"3"
    again = "os.setxattr('file', 'user.a', b'', os.XATTR_CREATE)"
    assert error_of(here, again) == "EEXIST"
    assert error_of(here, "os.setxattr('file', 'user.b', b'', os.XATTR_REPLACE)") == "ENODATA"
    assert error_of(here, "os.getxattr('file', 'user.b')") == "ENODATA"
    assert error_of(here, "os.removexattr('file', 'user.b')") == "ENODATA"
    assert error_of(here, "os.setxattr('file', 'trusted.a', b'')") == "ENOTSUP"


def test_attributes_of_an_unlinked_file_do_not_reach_its_successor(here: Client) -> None:
    here.run("fd = os.open('file', os.O_RDWR | os.O_CREAT); os.unlink('file'); write('file')")
    error_of(here, "os.setxattr(fd, 'user.a', b'1')")
    assert here.call("os.listxattr('file')") == []


# --- unlinked open files ---


def test_an_unlinked_file_lives_until_it_is_closed(here: Client) -> None:
    assert here.run(
        """
        fd = os.open("file", os.O_RDWR | os.O_CREAT)
        os.write(fd, b"content")
        os.unlink("file")
        write("file", b"another one")
        os.pwrite(fd, b"C", 0); os.pwrite(fd, b"far", 100)
        result = [os.fstat(fd).st_nlink, os.fstat(fd).st_size, os.pread(fd, 7, 0)]
        os.ftruncate(fd, 3); os.fchmod(fd, 0o600); os.fchown(fd, 1, 2); os.utime(fd, ns=(3, 4))
        found = os.fstat(fd)
        result += [found.st_nlink, found.st_size, oct(found.st_mode), found.st_mtime_ns]
        result += [os.pread(fd, 10, 0), Path("file").read_bytes(), os.listdir()]
        os.close(fd)
        result += [Path("file").read_bytes(), os.stat("file").st_nlink]
        """
    ) == [
        *(0, 103, b"Content"),
        *(0, 3, "0o100600", 4),
        *(b"Con", b"another one", ["file"]),
        *(b"another one", 1),
    ]


def test_a_file_replaced_while_open_lives_until_it_is_closed(here: Client) -> None:
    assert here.run(
        """
        write("new", b"new content")
        fd = os.open("file", os.O_RDWR | os.O_CREAT); os.write(fd, b"old")
        opened = os.open("new", os.O_RDWR)
        os.rename("new", "file")
        os.pwrite(fd, b"O", 0); os.pwrite(opened, b"N", 0)
        result = [os.fstat(fd).st_nlink, os.pread(fd, 9, 0)]
        result += [os.fstat(opened).st_nlink, os.pread(opened, 20, 0)]
        os.ftruncate(fd, 1)
        result += [os.fstat(fd).st_size, os.path.getsize("file"), os.listdir()]
        os.close(fd); os.close(opened)
        result += [Path("file").read_bytes()]
        """
    ) == [0, b"Old", 1, b"New content", 1, 11, ["file"], b"New content"]


def test_unlinking_one_of_two_names_leaves_the_other(here: Client) -> None:
    assert here.run(
        """
        fd = os.open("a", os.O_RDWR | os.O_CREAT); os.link("a", "b")
        os.unlink("a"); os.write(fd, b"still here")
        result = [os.fstat(fd).st_nlink, Path("b").read_bytes()]
        os.unlink("b")
        result += [os.fstat(fd).st_nlink, os.pread(fd, 20, 0), os.listdir()]
        """
    ) == [1, b"still here", 0, b"still here", []]


def test_a_directory_with_an_unlinked_open_file_can_be_removed(here: Client) -> None:
    assert here.run(
        """
        os.mkdir("d")
        fd = os.open("d/file", os.O_RDWR | os.O_CREAT); os.write(fd, b"alive")
        os.unlink("d/file"); os.rmdir("d"); os.mkdir("d")
        result = os.pread(fd, 9, 0), os.listdir("."), os.listdir("d")
        """
    ) == (b"alive", ["d"], [])


def test_a_removed_directory_is_empty_and_stays_so(here: Client) -> None:
    here.run("os.mkdir('d'); fd = os.open('d', os.O_RDONLY); os.rmdir('d')")
    assert here.call("os.fstat(fd).st_nlink, os.listdir(fd)") == (0, [])
    assert error_of(here, "os.mkdir('below', dir_fd=fd)") == "ENOENT"
    assert error_of(here, "os.open('file', os.O_CREAT, dir_fd=fd)") == "ENOENT"


def test_a_descriptor_without_a_file_never_shows_its_successor(here: Client) -> None:
    here.run("write('file', b'1'); fd = os.open('file', os.O_PATH); os.unlink('file')")
    here.run("write('file', b'22')")
    size = here.run("try: result = os.fstat(fd).st_size\nexcept OSError: result = 'gone'")
    assert size != 2
    assert error_of(here, "os.open(f'/proc/self/fd/{fd}', os.O_RDONLY)") in ("ENOENT", "ESTALE")


# --- renaming ---


def test_rename_replaces_files_and_empty_directories(here: Client) -> None:
    assert here.run(
        """
        write("a", b"a"); write("b", b"b"); os.mkdir("d"); write("d/file"); os.mkdir("empty")
        os.rename("a", "b"); os.rename("d", "empty")
        result = sorted(os.listdir()), Path("b").read_bytes(), os.listdir("empty")
        """
    ) == (["b", "empty"], b"a", ["file"])


def test_renames_that_cannot_be(here: Client) -> None:
    here.run("write('file'); os.makedirs('d/e'); os.mkdir('f')")
    assert error_of(here, "os.rename('f', 'd')") == "ENOTEMPTY"
    assert error_of(here, "os.rename('file', 'f')") == "EISDIR"
    assert error_of(here, "os.rename('f', 'file')") == "ENOTDIR"
    assert error_of(here, "os.rename('d', 'd/e/below')") == "EINVAL"
    assert error_of(here, "os.rename('missing', 'file')") == "ENOENT"
    assert error_of(here, "os.rename('file', 'missing/file')") == "ENOENT"
    assert here.call("sorted(os.listdir()), os.listdir('d')") == (["d", "f", "file"], ["e"])


def test_renaming_to_another_name_of_the_same_file_does_nothing(here: Client) -> None:
    here.run("write('a', b'x'); os.link('a', 'b'); os.rename('a', 'b')")
    assert here.call("sorted(os.listdir()), os.stat('a').st_nlink") == (["a", "b"], 2)


def test_rename_without_replacing(here: Client) -> None:
    here.run("write('a', b'a'); write('b', b'b')")
    assert error_of(here, "rename('a', 'b', flag)", flag=NOREPLACE) == "EEXIST"
    here.run("rename('a', 'c', flag)", flag=NOREPLACE)
    assert here.call("sorted(os.listdir()), Path('c').read_bytes()") == (["b", "c"], b"a")


def test_exchanging_swaps_whatever_the_names_stand_for(here: Client) -> None:
    here.run("write('file', b'x'); os.mkdir('d'); write('d/below', b'y'); write('d/other', b'z')")
    here.run("fd = os.open('d/below', os.O_RDWR); rename('file', 'd', flag)", flag=EXCHANGE)
    assert here.call("Path('d').read_bytes(), sorted(os.listdir('file'))") == (
        b"x",
        ["below", "other"],
    )
    here.run("os.pwrite(fd, b'Y', 0); os.close(fd); rename('d', 'file/other', flag)", flag=EXCHANGE)
    contents = "[Path(p).read_bytes() for p in ('d', 'file/other', 'file/below')]"
    assert here.call(contents) == [b"z", b"x", b"Y"]
    assert error_of(here, "rename('d', 'missing', flag)", flag=EXCHANGE) == "ENOENT"
    assert error_of(here, "rename('file', 'file/other', flag)", flag=EXCHANGE) == "EINVAL"


def test_open_files_follow_their_directory(here: Client) -> None:
    assert here.run(
        """
        os.makedirs("a/b"); os.mkdir("c")
        fd = os.open("a/b/file", os.O_RDWR | os.O_CREAT); directory = os.open("a/b", os.O_RDONLY)
        os.rename("a", "c/moved"); os.mkdir("a")
        os.write(fd, b"written later"); os.close(os.open("new", os.O_CREAT, dir_fd=directory))
        os.close(fd)
        names = sorted(os.listdir("c/moved/b")), os.listdir("a")
        result = Path("c/moved/b/file").read_bytes(), *names
        """
    ) == (b"written later", ["file", "new"], [])


# --- names and directories ---


@pytest.mark.parametrize(
    "name", [b"\xff\xfe", b"new\nline", b" ", b"back\\slash", b"a:b", b"*?", b"n" * 255]
)
def test_names_are_bytes(here: Client, name: bytes) -> None:
    assert here.run(
        """
        write(name, b"content"); os.mkdir(b"d"); os.rename(name, b"d/" + name)
        result = os.listdir(b"d"), Path(os.fsdecode(b"d/" + name)).read_bytes()
        os.unlink(b"d/" + name); os.rmdir(b"d")
        """,
        name=name,
    ) == ([name], b"content")


@pytest.mark.parametrize(
    "action",
    [
        "os.stat(name)",
        "write(name)",
        "os.mkdir(name)",
        "os.unlink(name)",
        "os.rmdir(name)",
        "os.symlink('x', name)",
        "os.link('file', name)",
        "os.rename('file', name)",
        "os.rename(name, 'file')",
        "os.chmod(name, 0)",
    ],
)
def test_too_long_names_are_refused(here: Client, action: str) -> None:
    here.run("write('file')")
    assert error_of(here, action, name="n" * 256) == "ENAMETOOLONG"


def test_case_makes_a_different_name(here: Client) -> None:
    here.run("write('name', b'1'); write('NAME', b'2')")
    assert here.call("[Path(p).read_bytes() for p in ('name', 'NAME')]") == [b"1", b"2"]


def test_a_slow_reader_sees_each_entry_once_while_they_are_deleted(here: Client) -> None:
    # With so small a buffer the kernel asks again for entries that it had got already.
    seen = here.run(
        """
        os.mkdir("many")
        for number in range(300): write(f"many/{number:04}")
        fd, result = os.open("many", os.O_RDONLY), []
        while found := entries(fd, 200):
            result += found
            for name in found:
                if name not in (".", ".."): os.unlink(f"many/{name}")
        """
    )
    assert seen[:2] == [".", ".."]
    assert sorted(seen[2:]) == [f"{n:04}" for n in range(300)]
    assert here.call("os.listdir('many')") == []


def test_a_directory_is_read_again_from_any_place(here: Client) -> None:
    assert here.run(
        """
        for number in range(500): write(f"{number:04}")
        fd = os.open(".", os.O_RDONLY)
        first, second = entries(fd, 4096), entries(fd, 4096)
        place = os.lseek(fd, 0, os.SEEK_CUR)
        rest = []
        while found := entries(fd, 4096): rest += found
        os.lseek(fd, place, os.SEEK_SET)
        again = []
        while found := entries(fd, 1000): again += found
        os.lseek(fd, 0, os.SEEK_SET)
        write("0500")
        result = again == rest, entries(fd, 4096) == first, len(first + second + rest)
        """
    ) == (True, True, 502)


def test_a_directory_of_100_000_entries(mount: Mounting, client: Client) -> None:
    drive = MemoryDrive()
    put(drive, "/big", stat.S_IFDIR | 0o755)
    for number in range(100_000):
        put(drive, f"/big/{number:06}", stat.S_IFREG | 0o644)
    settle(client, mount(drive).mountpoint)
    client.run("os.chdir('big')")
    assert client.call("os.listdir() == [f'{n:06}' for n in range(100_000)]") is True
    assert client.call("os.stat('099999').st_nlink, os.path.exists('100000')") == (1, False)
    assert (
        client.run(
            """
        result = []
        for number in range(50_000, 50_500): os.unlink(f"{number:06}")
        for number in range(500): write(f"new{number}"); os.rename(f"new{number}", f"last{number}")
        result = sum(1 for entry in os.scandir() if entry.stat().st_nlink == 1)
        """
        )
        == 100_000
    )
    assert error_of(client, "os.rmdir('../big')") == "ENOTEMPTY"


# --- the drive's size ---


@pytest.mark.parametrize("options", [{}, {"file_cache": 0}], ids=["cached", "uncached"])
def test_a_full_drive_says_so_and_deleting_makes_room(
    mount: Mounting, client: Client, options: dict[str, Any]
) -> None:
    settle(client, mount(MemoryDrive(size=4 * MIB), **options).mountpoint)
    free = "(lambda s: s.f_bavail * s.f_frsize)(os.statvfs('.'))"
    whole = client.call(free)
    assert whole == 4 * MIB
    client.run("write('kept', b'kept' * 1000); fd = os.open('big', os.O_RDWR | os.O_CREAT)")
    # A cached write fails when it is written out, at fsync(2) or close(2); one that is not cached
    # is short first.
    filling = """
        rest = memoryview(bytes([7]) * (5 << 20))
        while rest: rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    """
    assert error_of(client, filling) == "ENOSPC"
    assert error_of(client, "os.posix_fallocate(fd, 0, 5 << 20)") == "ENOSPC"
    assert error_of(client, "write('other', bytes(1 << 20))") == "ENOSPC"
    assert client.call("Path('kept').read_bytes()") == b"kept" * 1000
    client.run("os.unlink('other'); os.unlink('big')")
    client.run("try: os.close(fd)\nexcept OSError: pass  # the descriptor is closed all the same")
    wait_until(client, f"{free} > 3 << 20")
    client.run("write('big', bytes([9]) * (3 << 20))")
    assert client.call("Path('big').read_bytes() == bytes([9]) * (3 << 20)") is True
    client.run("os.unlink('big'); os.unlink('kept')")
    wait_until(client, f"{free} == {whole}")


def test_names_and_empty_files_need_room_too(mount: Mounting, client: Client) -> None:
    settle(client, mount(MemoryDrive(size=64 << 10)).mountpoint)
    assert error_of(client, "for n in range(1000): os.mkdir(f'd{n}')") == "ENOSPC"
    assert error_of(client, "os.symlink('x', 'link')") == "ENOSPC"
    client.run("os.rmdir('d0'); os.rmdir('d1'); os.symlink('x', 'link')")
    assert client.call("os.readlink('link')") == "x"


def test_an_unlinked_open_file_holds_its_space(here: Client) -> None:
    free = "(lambda s: s.f_bavail * s.f_frsize)(os.statvfs('.'))"
    whole = here.call(free)
    here.run("fd = os.open('file', os.O_RDWR | os.O_CREAT); os.write(fd, b'x' * MIB)", MIB=MIB)
    here.run("os.fsync(fd); os.unlink('file')")
    assert here.call(free) <= whole - MIB
    here.run("os.close(fd)")
    wait_until(here, f"{free} == {whole}")


# --- permissions ---


def test_another_user_is_refused_what_the_modes_refuse(
    here: Client, people: Callable[..., Client]
) -> None:
    here.run(
        """
        os.chmod(".", 0o755)
        write("private", b"secret"); os.chmod("private", 0o600)
        write("public", b"news")
        os.mkdir("closed"); write("closed/file"); os.chmod("closed", 0o700)
        os.mkdir("listed"); write("listed/file"); os.chmod("listed", 0o744)
        """
    )
    nobody = people(NOBODY)
    assert nobody.call("Path('public').read_bytes()") == b"news"
    assert nobody.call("os.listdir('listed')") == ["file"]
    for action in (
        "Path('private').read_bytes()",
        "os.open('public', os.O_WRONLY)",
        "os.truncate('public', 0)",
        "os.utime('public')",
        "os.setxattr('public', 'user.a', b'')",
        "os.getxattr('private', 'user.a')",
        "write('new')",
        "os.mkdir('new')",
        "os.symlink('x', 'new')",
        "os.unlink('public')",
        "os.rename('public', 'mine')",
        "os.listdir('closed')",
        "os.stat('closed/file')",
        "os.stat('listed/file')",
        "os.chdir('closed')",
    ):
        assert error_of(nobody, action) == "EACCES", action
    for action in (
        "os.chmod('public', 0o777)",
        "os.chown('public', NOBODY, -1)",
        "os.utime('public', ns=(1, 1))",
        "os.mknod('null', stat.S_IFCHR | 0o666, os.makedev(1, 3))",
    ):
        assert error_of(nobody, action, NOBODY=NOBODY) in ("EPERM", "EACCES"), action
    assert nobody.call("[os.access('private', m) for m in (os.F_OK, os.R_OK)]") == [True, False]
    assert here.call("sorted(os.listdir()), mode('public')") == (
        ["closed", "listed", "private", "public"],
        0o644,
    )


def test_owners_and_groups_have_their_rights(here: Client, people: Callable[..., Client]) -> None:
    here.run(
        """
        write("owned"); os.chown("owned", 1, 1); os.chmod("owned", 0o600)
        write("shared", b"x"); os.chown("shared", 0, 1234); os.chmod("shared", 0o640)
        """
    )
    owner, member = people(1), people(2, 2, 1234)
    owner.run("write('owned', b'mine'); os.chmod('owned', 0o644); os.chown('owned', -1, 1)")
    assert error_of(owner, "os.chown('owned', 2, -1)") == "EPERM", "only root gives files away"
    assert error_of(owner, "Path('shared').read_bytes()") == "EACCES"
    assert member.call("Path('shared').read_bytes(), Path('owned').read_bytes()") == (b"x", b"mine")
    assert error_of(member, "os.open('shared', os.O_WRONLY)") == "EACCES"


def test_in_a_sticky_directory_everybody_deletes_only_what_is_theirs(
    here: Client, people: Callable[..., Client]
) -> None:
    here.run("os.mkdir('tmp'); os.chmod('tmp', 0o1777)")
    one, other = people(1), people(2)
    one.run("write('tmp/one')")
    other.run("write('tmp/other')")
    assert error_of(other, "os.unlink('tmp/one')") == "EPERM"
    assert error_of(other, "os.rename('tmp/other', 'tmp/one')") == "EPERM"
    one.run("os.unlink('tmp/one')")
    assert here.call("os.listdir('tmp')") == ["other"]


def test_the_mount_is_for_every_user(mount: Mounting, client: Client) -> None:
    drive = mount(MemoryDrive())
    assert os.geteuid() == 0, "the tests run as root"
    settle(client, drive.mountpoint).run("become(user)", user=NOBODY)
    assert client.call("os.listdir(), os.stat('.').st_uid") == ([], 0)
