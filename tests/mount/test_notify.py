"""`notify_directory_change`: what the kernel knew is forgotten, and nothing else is asked again."""

from pathlib import PurePosixPath

import pytest

import cbfsconnect
from cbfsconnect import (
    CBFS_NOTIFY_FLAG_ADDED,
    CBFS_NOTIFY_FLAG_ALLOCATION_SIZE_MODIFIED,
    CBFS_NOTIFY_FLAG_METADATA_MODIFIED,
    CBFS_NOTIFY_FLAG_MODIFIED,
    CBFS_NOTIFY_FLAG_MODIFIED_NOT_INVALIDATE,
    CBFS_NOTIFY_FLAG_REMOVED,
    CBFS_NOTIFY_FLAG_RENAMED,
    CBFS_NOTIFY_FLAG_SKIP_LOCKED_FILE,
    CBFSConnectError,
)
from support.client import Client
from support.mounts import Mounting
from support.recorder import Recorder

FOREVER = {"MetadataCacheTimeout": -1}


class Shelf:
    """Files in a dictionary that the program changes by itself."""

    def __init__(self) -> None:
        self.files = {"a": b"first"}

    def on_get_file_info(self, p: cbfsconnect.CBFSGetFileInfoEventParams) -> None:
        name = PurePosixPath(p.file_name).name
        p.file_exists = p.file_name == "/" or name in self.files
        p.attributes = 0x10 if p.file_name == "/" else 0x80
        p.size = len(self.files.get(name, b""))

    def on_enumerate_directory(self, p: cbfsconnect.CBFSEnumerateDirectoryEventParams) -> None:
        names = sorted(self.files)
        place = 0 if p.restart else p.enumeration_context
        p.file_found = place < len(names)
        if p.file_found:
            p.file_name, p.enumeration_context = names[place], place + 1

    def on_read_file(self, p: cbfsconnect.CBFSReadFileEventParams) -> None:
        data = self.files[PurePosixPath(p.file_name).name][p.position :][: p.bytes_to_read]
        p.buffer_view[: len(data)] = data
        p.bytes_read = len(data)

    def on_write_file(self, p: cbfsconnect.CBFSWriteFileEventParams) -> None:
        name = PurePosixPath(p.file_name).name
        old = self.files[name].ljust(p.position, b"\0")
        self.files[name] = old[: p.position] + p.buffer_view + old[p.position + p.bytes_to_write :]
        p.bytes_written = p.bytes_to_write


@pytest.mark.proves("notify_directory_change")
@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("write_through", [True, False])
def test_a_modified_file_is_read_anew(
    mount: Mounting, client: Client, wait: bool, write_through: bool
) -> None:
    shelf = Shelf()
    config = FOREVER | {"FileCachePolicyWriteThrough": write_through}
    drive = mount(shelf, config=config)
    read = "Path(at, 'a').read_bytes()"
    assert client.call(read, at=drive.mountpoint) == b"first"
    shelf.files["a"] = b"second and longer"
    if not write_through:
        assert client.call(read) == b"first", "the kernel was to keep it"
    assert drive.cbfs.notify_directory_change("/a", CBFS_NOTIFY_FLAG_MODIFIED, wait)
    if wait:
        assert client.call(read) == b"second and longer"
    else:
        client.run(f"while {read} != b'second and longer': pass")


@pytest.mark.proves("notify_directory_change")
def test_an_added_file_is_seen_where_it_was_known_to_be_missing(
    mount: Mounting, client: Client
) -> None:
    shelf = Shelf()
    drive = mount(shelf, non_existent_files_cache_enabled=True, config=FOREVER)
    assert not client.call("os.path.exists(at + '/b')", at=drive.mountpoint)
    shelf.files["b"] = b"here"
    assert not client.call("os.path.exists(at + '/b')"), "the kernel was to remember it"
    assert drive.cbfs.notify_directory_change("/b", CBFS_NOTIFY_FLAG_ADDED, True)
    assert client.call("Path(at, 'b').read_bytes()") == b"here"


@pytest.mark.proves("notify_directory_change")
def test_a_removed_file_is_gone_and_who_watches_it_is_told(mount: Mounting, client: Client) -> None:
    shelf = Shelf()
    drive = mount(shelf, config=FOREVER)
    client.run(
        """
        import ctypes
        libc = ctypes.CDLL(None)
        watch = libc.inotify_init1(os.O_NONBLOCK)
        IN_DELETE_SELF = 0x400
        libc.inotify_add_watch(watch, f"{at}/a".encode(), IN_DELETE_SELF)
        """,
        at=drive.mountpoint,
    )
    del shelf.files["a"]
    assert drive.cbfs.notify_directory_change("/a", CBFS_NOTIFY_FLAG_REMOVED, True)
    assert not client.call("os.path.exists(at + '/a')")
    _, mask, _, _ = client.run("result = struct.unpack('iIII', os.read(watch, 4096)[:16])")
    assert mask & 0x400


def test_only_what_changed_is_asked_again(mount: Mounting, client: Client) -> None:
    shelf = Shelf()
    shelf.files["b"] = b"other"
    record = Recorder(shelf)
    drive = mount(record, config=FOREVER)
    client.run("[os.stat(f'{at}/{name}') for name in 'ab']", at=drive.mountpoint)
    record.clear()
    assert drive.cbfs.notify_directory_change("/a", CBFS_NOTIFY_FLAG_METADATA_MODIFIED, True)
    client.run("[os.stat(f'{at}/{name}') for name in 'ab']")
    asked = {fired.file_name for fired in record.all("on_get_file_info")}
    assert "/a" in asked
    assert "/b" not in asked


def test_a_handler_may_notify_even_of_the_directory_it_is_asked_about(
    mount: Mounting, client: Client
) -> None:
    shelf = Shelf()
    record = Recorder(shelf)
    drive = mount(record, config=FOREVER)

    def tell(params: object) -> None:
        drive.cbfs.notify_directory_change("/a", CBFS_NOTIFY_FLAG_REMOVED, True)

    client.run("os.stat(at + '/a')", at=drive.mountpoint)
    record.handle("on_create_file", tell)
    record.before["on_get_file_info"] = tell
    drive.cbfs.on_create_file = record.on_create_file  # type: ignore[attr-defined]
    with pytest.raises(FileNotFoundError):
        client.run("Path(at, 'new').touch()")
    assert client.call("os.path.exists(at + '/a')")


def test_what_is_no_action_is_refused(mount: Mounting) -> None:
    drive = mount(Shelf())
    with pytest.raises(CBFSConnectError) as refused:
        drive.cbfs.notify_directory_change("/a", 99, True)
    assert refused.value.code == cbfsconnect.ERROR_INVALID_PARAMETER


ACTIONS = {
    CBFS_NOTIFY_FLAG_ADDED: ("b", b"new"),
    CBFS_NOTIFY_FLAG_RENAMED: ("b", b"new"),
    CBFS_NOTIFY_FLAG_REMOVED: ("a", None),
    CBFS_NOTIFY_FLAG_MODIFIED: ("a", b"second and longer"),
    CBFS_NOTIFY_FLAG_MODIFIED_NOT_INVALIDATE: ("a", b"second and longer"),
    CBFS_NOTIFY_FLAG_METADATA_MODIFIED: ("a", b"second and longer"),
    CBFS_NOTIFY_FLAG_ALLOCATION_SIZE_MODIFIED: ("a", b"second and longer"),
}
SEEN = "[size(f'{at}/{n}') for n in 'ab']"
SIZE = """
def size(path):
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None
"""


@pytest.mark.proves(
    "notify_directory_change",
    "CBFS_NOTIFY_FLAG_ADDED",
    "CBFS_NOTIFY_FLAG_RENAMED",
    "CBFS_NOTIFY_FLAG_REMOVED",
    "CBFS_NOTIFY_FLAG_MODIFIED",
    "CBFS_NOTIFY_FLAG_MODIFIED_NOT_INVALIDATE",
    "CBFS_NOTIFY_FLAG_METADATA_MODIFIED",
    "CBFS_NOTIFY_FLAG_ALLOCATION_SIZE_MODIFIED",
)
@pytest.mark.parametrize("where", ["waiting", "without waiting", "in a handler"])
@pytest.mark.parametrize("write_through", [True, False])
@pytest.mark.parametrize("action", ACTIONS)
def test_the_kernel_forgets_by_every_action(
    mount: Mounting, client: Client, action: int, write_through: bool, where: str
) -> None:
    shelf = Shelf()
    record = Recorder(shelf)
    drive = mount(
        record,
        non_existent_files_cache_enabled=True,
        config=FOREVER | {"FileCachePolicyWriteThrough": write_through},
    )
    name, content = ACTIONS[action]
    before = [len(shelf.files["a"]), None]
    client.run(SIZE)
    assert client.call(SEEN, at=drive.mountpoint) == before
    if content is None:
        del shelf.files[name]
    else:
        shelf.files[name] = content
    after = [len(shelf.files[n]) if n in shelf.files else None for n in "ab"]
    record.clear()
    assert client.call(SEEN) == before, "the kernel was to keep it"
    assert record.fired == []

    def tell(params: object = None) -> None:
        assert drive.cbfs.notify_directory_change(f"/{name}", action, where != "without waiting")

    if where == "in a handler":
        record.before["on_get_file_info"] = tell
        client.run("os.path.exists(at + '/third')")
        del record.before["on_get_file_info"]
    else:
        tell()
    if where == "waiting":
        assert client.call(SEEN) == after
    client.run(f"while {SEEN} != after: pass", after=after)


@pytest.mark.proves("CBFS_NOTIFY_FLAG_SKIP_LOCKED_FILE")
def test_a_locked_file_may_be_left_out(mount: Mounting, client: Client) -> None:
    class Locking(Shelf):
        def on_lock_file(self, p: object) -> None:
            pass

        def on_unlock_file(self, p: object) -> None:
            pass

    shelf = Locking()
    drive = mount(shelf, config=FOREVER | {"FileCachePolicyWriteThrough": True})
    client.run("fd = os.open(at + '/a', os.O_RDWR)", at=drive.mountpoint)
    client.run("fcntl.lockf(fd, fcntl.LOCK_EX)")
    shelf.files["a"] = b"second and longer"
    action = CBFS_NOTIFY_FLAG_MODIFIED | CBFS_NOTIFY_FLAG_SKIP_LOCKED_FILE
    for locked in (True, False):
        assert drive.cbfs.notify_directory_change("/a", action, True)
        size = client.call("os.fstat(fd).st_size")
        assert size == len(b"first" if locked else shelf.files["a"])
        client.run("fcntl.lockf(fd, fcntl.LOCK_UN)")
