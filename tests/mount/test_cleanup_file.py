"""`on_cleanup_file`: a process closes a descriptor, and what the handler says is close(2)'s result.

The vendor's page leaves open whether it fires for every close when `fire_all_open_close_events` is
off. Here it fires when no other open of the file is still unclosed: so more often than the file was
opened, if a descriptor was duplicated or the file is opened anew before `on_close_file`.
"""

import errno
import threading
from typing import Any

import pytest

from support.client import Client, run
from support.failing import FAILURES, Complaints, Failure, refused
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder
from support.serving import both_settings, creator, creator_of, read_only, serve, set_contexts

EVENT = "on_cleanup_file"
OPENING = ("on_create_file", "on_open_file", EVENT, "on_close_file")
FILE = {"f": b"data"}

# --- Parameters -------------------------------------------------------------------------


@pytest.mark.proves("on_cleanup_file")
@both_settings
def test_every_parameter(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, cbfs = serve(mount, client, PlainDrive(**FILE), fire_all=fire_all)
    set_contexts(record, on_open_file=("the file", "the handle"))
    opened_by = []

    def look(params: Any) -> None:
        read_only(params, "file_name", "handle_info", "file_context", "handle_context")
        opened_by.append(creator(cbfs, params.handle_info))

    record.before[EVENT] = look
    client.run("os.close(os.open(at + '/f', os.O_RDONLY))")
    fired = record.one(EVENT)
    assert fired.error is None
    assert fired.given == {
        "file_name": "/f",
        "handle_info": record.one("on_open_file").handle_info,
        "file_context": "the file",
        "handle_context": "the handle",
        "result_code": 0,
    }
    assert fired.handle_info != 0
    assert opened_by == [creator_of(client)]
    record.wait_for("on_close_file")
    assert record.names(*OPENING) == ["on_open_file", EVENT, "on_close_file"]
    assert record.one("on_close_file").handle_info == fired.handle_info


@both_settings
def test_a_created_file(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, _ = serve(mount, client, PlainDrive(), fire_all=fire_all)
    set_contexts(record, on_create_file=("made", "maker"))
    client.run("os.close(os.open(at + '/new', os.O_CREAT | os.O_WRONLY))")
    fired = record.one(EVENT)
    assert (fired.file_name, fired.file_context, fired.handle_context) == ("/new", "made", "maker")
    record.wait_for("on_close_file")
    assert record.names(*OPENING) == ["on_create_file", EVENT, "on_close_file"]


def test_a_renamed_file_has_its_new_name(mount: Mounting, client: Client) -> None:
    record, _ = serve(mount, client, PlainDrive(**FILE))
    client.run("fd = os.open(at + '/f', os.O_RDONLY); os.rename(at + '/f', at + '/moved')")
    client.run("os.close(fd)")
    assert record.one(EVENT).file_name == "/moved"


@both_settings
def test_a_deleted_file_keeps_its_name(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, _ = serve(mount, client, PlainDrive(**FILE), fire_all=fire_all)
    client.run("fd = os.open(at + '/f', os.O_RDONLY); os.unlink(at + '/f')")
    record.clear()
    client.run("os.close(fd)")
    assert record.one(EVENT).file_name == "/f"
    record.wait_for("on_delete_file")
    assert record.names(EVENT, "on_close_file", "on_delete_file") == [
        EVENT,
        "on_close_file",
        "on_delete_file",
    ]


@both_settings
def test_a_directory_is_cleaned_up_when_it_is_closed(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    """The kernel tells of the last close only, and nobody waits for the answer."""
    record, _ = serve(mount, client, PlainDrive(), fire_all=fire_all)
    set_contexts(record, on_open_file=("directory", "handle"))
    record.instead[EVENT] = Failure("OSError", errno.EDQUOT)
    client.run("fd = os.open(at, os.O_RDONLY | os.O_DIRECTORY); os.close(fd)")
    record.wait_for("on_close_file")
    fired = record.one(EVENT)
    assert (fired.file_name, fired.file_context, fired.handle_context) == (
        "/",
        "directory",
        "handle",
    )
    assert record.names(*OPENING) == ["on_open_file", EVENT, "on_close_file"]


# --- When it fires ----------------------------------------------------------------------


def test_close_waits_for_the_handler(mount: Mounting, client: Client) -> None:
    record, _ = serve(mount, client, PlainDrive(**FILE))
    inside, go_on = threading.Event(), threading.Event()

    def wait(params: Any) -> None:
        inside.set()
        assert go_on.wait(20)

    record.before[EVENT] = wait
    client.start(
        """
        fd = os.open(at + '/f', os.O_RDONLY)
        os.close(fd)
        result = time.clock_gettime(time.CLOCK_MONOTONIC)
        """
    )
    assert inside.wait(20)
    with Client() as other:
        released_at = other.call("time.clock_gettime(time.CLOCK_MONOTONIC)")
    go_on.set()
    assert client.finish() > released_at


@both_settings
def test_every_duplicate_that_is_closed(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, _ = serve(mount, client, PlainDrive(**FILE), fire_all=fire_all)
    client.run("fd = os.open(at + '/f', os.O_RDONLY); copies = [os.dup(fd), os.dup(fd)]")
    for count in (1, 2):
        client.run("os.close(copies.pop())")
        assert len(record.all(EVENT)) == count
    assert client.call("os.pread(fd, 9, 0)") == b"data"
    assert not record.all("on_close_file")
    client.run("os.close(fd)")
    assert len(record.all(EVENT)) == 3
    record.wait_for("on_close_file")
    assert record.names(*OPENING) == ["on_open_file", *[EVENT] * 3, "on_close_file"]
    assert len({fired.handle_info for fired in record.all(EVENT)}) == 1


@both_settings
def test_a_forked_process_that_closes_or_ends(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    record, cbfs = serve(mount, client, PlainDrive(**FILE), fire_all=fire_all)
    seen = []
    record.before[EVENT] = lambda p: seen.append(
        (cbfs.get_originator_process_id(), cbfs.get_handle_creator_process_id(p.handle_info))
    )
    fork = """
        child = os.fork()
        if not child:
            if explicitly:
                os.close(fd)
            os._exit(0)
        result = child
        os.waitpid(child, 0)
        """
    client.run("fd = os.open(at + '/f', os.O_RDONLY)")
    first = client.run(fork, explicitly=True)
    second = client.run(fork, explicitly=False)
    assert seen == [(first, client.pid), (second, client.pid)]
    assert not record.all("on_close_file")
    client.run("os.close(fd)")
    assert seen[2:] == [(client.pid, client.pid)]
    record.wait_for("on_close_file")


def test_the_descriptor_that_only_a_child_has_left(mount: Mounting, client: Client) -> None:
    record, _ = serve(mount, client, PlainDrive(**FILE))
    client.run(
        """
        fd = os.open(at + "/f", os.O_RDONLY)
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            os.close(theirs)
            os.read(ours, 1)  # until the parent closes its end
            os._exit(0)
        os.close(fd)
        """
    )
    assert len(record.all(EVENT)) == 1
    assert not record.all("on_close_file")
    client.run("os.close(theirs); os.waitpid(child, 0)")
    assert len(record.all(EVENT)) == 2
    record.wait_for("on_close_file")


@pytest.mark.parametrize(
    "closing",
    [
        "os.dup2(os.open('/dev/null', os.O_RDONLY), fd)",
        "os.closerange(fd, fd + 1)",
        "os.spawnl(os.P_WAIT, '/bin/true', 'true')",
    ],
    ids=["dup2", "closerange", "exec"],
)
def test_other_ways_to_close(mount: Mounting, client: Client, closing: str) -> None:
    """A program that is executed loses the descriptor, which is its process's own close."""
    record, _ = serve(mount, client, PlainDrive(**FILE))
    client.run(f"fd = os.open(at + '/f', os.O_RDONLY)\n{closing}")
    assert len(record.all(EVENT)) == 1


@both_settings
def test_a_killed_process(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, _ = serve(mount, client, PlainDrive(**FILE), fire_all=fire_all)
    client.run("fds = [os.open(at + '/f', os.O_RDONLY) for _ in range(2)]")
    client.kill()
    record.wait_for("on_close_file", 2 if fire_all else 1)
    assert len(record.all(EVENT)) == (2 if fire_all else 1)


def test_without_a_handler_close_succeeds(mount: Mounting, client: Client) -> None:
    handlers = Recorder(PlainDrive(**FILE))
    del handlers.on_cleanup_file  # type: ignore[attr-defined]
    record, _ = serve(mount, client, handlers)
    client.run("os.close(os.open(at + '/f', os.O_RDONLY))")
    record.wait_for("on_close_file")


# --- Several opens, and contexts --------------------------------------------------------


def test_first_and_last_the_close_of_the_last_open_counts(mount: Mounting, client: Client) -> None:
    record, _ = serve(mount, client, PlainDrive(**FILE))
    set_contexts(record, on_open_file=("file", "first handle"))
    client.run("a, b = (os.open(at + '/f', os.O_RDONLY) for _ in range(2)); os.close(b)")
    assert not record.all(EVENT)
    client.run("os.close(a)")
    fired = record.one(EVENT)
    assert (fired.file_context, fired.handle_context) == ("file", "first handle")
    record.wait_for("on_close_file")
    assert record.names(*OPENING) == ["on_open_file", EVENT, "on_close_file"]


def test_first_and_last_another_handle_has_no_context(mount: Mounting, client: Client) -> None:
    """Only the first open could give its handle one: the contract warns of that."""
    record, _ = serve(mount, client, PlainDrive(**FILE))
    set_contexts(record, on_open_file=("file", "first handle"))
    client.run("a, b = (os.open(at + '/f', os.O_RDONLY) for _ in range(2))")
    client.run("os.close(a); os.close(b)")
    fired = record.one(EVENT)
    assert (fired.file_context, fired.handle_context) == ("file", 0)


def test_fire_all_every_handle_has_its_own_context(mount: Mounting, client: Client) -> None:
    record, _ = serve(mount, client, PlainDrive(**FILE), fire_all=True)
    handles = iter("AB")

    def opened(params: Any) -> None:
        params.handle_context = next(handles)
        params.file_context = f"{params.file_context or ''}{params.handle_context}"

    record.before["on_open_file"] = opened
    client.run("a, b = (os.open(at + '/f', os.O_RDONLY) for _ in range(2))")
    client.run("os.close(a); os.close(b)")
    assert [(f.file_context, f.handle_context) for f in record.all(EVENT)] == [
        ("AB", "A"),
        ("AB", "B"),
    ]
    assert [f.handle_info for f in record.all(EVENT)] == [
        f.handle_info for f in record.all("on_open_file")
    ]


@both_settings
def test_contexts_are_those_that_the_last_event_left(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    record, _ = serve(mount, client, PlainDrive(**FILE), fire_all=fire_all)
    set_contexts(record, on_open_file=("file", "handle"), on_read_file=("read", "reader"))
    client.run("fd = os.open(at + '/f', os.O_RDONLY); os.read(fd, 4); os.close(fd)")
    fired = record.one(EVENT)
    assert (fired.file_context, fired.handle_context) == ("read", "reader")
    closed = record.wait_for("on_close_file")[0]
    assert (closed.file_context, closed.handle_context) == ("read", "reader")


@both_settings
def test_the_next_open_begins_anew(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, _ = serve(mount, client, PlainDrive(**FILE), fire_all=fire_all)
    for count in (1, 2):
        set_contexts(record, on_open_file=(f"file {count}", f"handle {count}"))
        client.run("os.close(os.open(at + '/f', os.O_RDONLY))")
        record.wait_for("on_close_file", count)
    assert [f.file_context for f in record.all("on_open_file")] == [0, 0]
    assert [f.handle_context for f in record.all(EVENT)] == ["handle 1", "handle 2"]
    infos = [f.handle_info for f in record.all(EVENT)]
    assert infos[0] != infos[1]


def test_first_and_last_a_file_that_is_mapped_is_closed_again_and_again(
    mount: Mounting, client: Client
) -> None:
    """The mapping keeps it open: opens fire nothing, each close is the last for the moment."""
    record, _ = serve(mount, client, PlainDrive(**FILE))
    client.run(
        """
        fd = os.open(at + "/f", os.O_RDONLY)
        kept = mmap.mmap(fd, 4, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE)
        """
    )  # the mapping keeps a duplicate of the descriptor too
    for count in (1, 2, 3):
        client.run("os.close(fd); fd = os.open(at + '/f', os.O_RDONLY)")
        assert len(record.all(EVENT)) == count
    assert len(record.all("on_open_file")) == 1
    client.run("kept.close(); os.close(fd)")
    record.wait_for("on_close_file")
    assert len(record.all("on_close_file")) == 1


@both_settings
def test_requests_by_path_open_and_clean_up_by_themselves(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    record, _ = serve(mount, client, PlainDrive(**FILE), fire_all=fire_all)
    set_contexts(record, on_open_file=("file", "handle"))
    client.run("os.truncate(at + '/f', 2)")
    shown = ("on_open_file", "on_set_file_size", EVENT, "on_close_file")
    assert record.names(*shown) == list(shown)
    assert len({record.one(name).handle_info for name in shown}) == 1
    fired = record.one(EVENT)
    assert (fired.file_context, fired.handle_context) == ("file", "handle")


# --- Between cleanup and close ----------------------------------------------------------


@both_settings
def test_cached_writes_come_before_it(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, _ = serve(mount, client, PlainDrive(**FILE), fire_all=fire_all)
    client.run("fd = os.open(at + '/f', os.O_WRONLY); os.write(fd, b'DATA'); os.close(fd)")
    assert record.names("on_write_file", EVENT) == ["on_write_file", EVENT]


@both_settings
def test_a_mapping_is_read_and_written_after_it(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    drive = PlainDrive(f=bytes(4096))
    record, _ = serve(mount, client, drive, fire_all=fire_all)
    set_contexts(record, on_open_file=("file", "handle"))
    client.run(
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        fd = os.open(at + "/f", os.O_RDWR)
        address = libc.mmap(None, 4096, 3, mmap.MAP_SHARED, fd, 0)
        os.close(fd)
        """
    )
    assert len(record.all(EVENT)) == 1
    client.run(
        """
        page = (ctypes.c_char * 4096).from_address(address)
        page[0:5] = b"hello"
        assert libc.msync(ctypes.c_void_p(address), 4096, 4) == 0
        """
    )
    assert record.names(EVENT, "on_read_file", "on_write_file") == [
        EVENT,
        "on_read_file",
        "on_write_file",
    ]
    assert record.one("on_write_file").file_context == "file"
    assert drive.items["/f"].data.startswith(b"hello")
    assert not record.all("on_close_file")
    client.run("del page; assert libc.munmap(ctypes.c_void_p(address), 4096) == 0")
    closed = record.wait_for("on_close_file")[0]
    assert (closed.file_context, closed.handle_context) == ("file", "handle")
    assert len(record.all(EVENT)) == 1


# --- What it returns --------------------------------------------------------------------


@pytest.mark.proves("on_cleanup_file")
@both_settings
@pytest.mark.parametrize("failure", FAILURES)
def test_what_it_returns_is_what_close_returns(
    mount: Mounting,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    failure: Failure,
    fire_all: bool,
) -> None:
    handlers = Recorder(PlainDrive(**FILE))
    complaints = Complaints(handlers, caplog)
    record, _ = serve(mount, client, handlers, fire_all=fire_all)
    client.run("fd = os.open(at + '/f', os.O_RDONLY)")
    record.instead[EVENT] = failure
    with refused(failure.errno):
        client.run("os.close(fd)")
    complaints.check(failure, EVENT, "/f")
    with refused(errno.EBADF):  # the descriptor is closed all the same
        client.run("os.fstat(fd)")
    record.wait_for("on_close_file")
    del record.instead[EVENT]
    client.run("os.close(os.open(at + '/f', os.O_RDONLY))")
    assert len(record.all(EVENT)) == 2


def test_each_close_of_a_duplicate_returns_its_own_result(mount: Mounting, client: Client) -> None:
    record, _ = serve(mount, client, PlainDrive(**FILE))
    client.run("fd = os.open(at + '/f', os.O_RDONLY); copy = os.dup(fd)")
    record.instead[EVENT] = Failure("OSError", errno.EDQUOT)
    with refused(errno.EDQUOT):
        client.run("os.close(copy)")
    del record.instead[EVENT]
    client.run("os.close(fd)")


def test_enosys_does_not_silence_later_closes(mount: Mounting, client: Client) -> None:
    """The kernel would take it as "this drive has no FLUSH" and never ask again."""
    record, _ = serve(mount, client, PlainDrive(**FILE))
    record.instead[EVENT] = Failure("OSError", errno.ENOSYS)
    for count in (1, 2):
        with refused(errno.EOPNOTSUPP):
            client.run("os.close(os.open(at + '/f', os.O_RDONLY))")
        assert len(record.all(EVENT)) == count


def test_a_request_by_path_does_not_fail_for_it(mount: Mounting, client: Client) -> None:
    """Nobody closes anything there who could be told."""
    drive = PlainDrive(**FILE)
    record, _ = serve(mount, client, drive)
    record.instead[EVENT] = Failure("OSError", errno.EDQUOT)
    client.run("os.truncate(at + '/f', 2)")
    assert drive.items["/f"].data == b"da"


def test_programs_report_it(mount: Mounting, client: Client) -> None:
    record, cbfs = serve(mount, client, PlainDrive(**FILE))
    record.instead[EVENT] = Failure("result_code", errno.ENOSPC)
    name = cbfs.get_mounting_point_name(0)
    with pytest.raises(AssertionError, match="No space left on device"):
        run("cp", "/etc/hostname", f"{name}/copy")
