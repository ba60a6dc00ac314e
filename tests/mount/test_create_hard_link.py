"""`on_create_hard_link`: a further name for a file, with `use_hard_links` only."""

import errno
from typing import Any

import pytest

from cbfsconnect import MemoryDrive
from support.client import Client
from support.failing import FAILURES, Complaints, Failure, refused
from support.linking import LinkingDrive
from support.mounts import Mounting
from support.recorder import Recorder
from support.serving import both_settings, creator, creator_of, read_only, serve, set_contexts

EVENT = "on_create_hard_link"
AROUND = ("on_open_file", EVENT, "on_cleanup_file", "on_close_file")
LINK = "os.link(at + '/f', at + '/link')"


def linking(mount: Mounting, client: Client, **options: Any) -> tuple[Recorder, LinkingDrive, Any]:
    """A drive with hard links, the file /f and the directory /dir."""
    drive = LinkingDrive(f=b"data")
    drive.add_directory("/dir")
    # With a write-back cache the kernel would set the file's change time itself after a link.
    config = {"FileCachePolicyWriteThrough": True}
    record, cbfs = serve(mount, client, drive, use_hard_links=True, config=config, **options)
    return record, drive, cbfs


# --- Parameters and contexts ------------------------------------------------------------


@pytest.mark.proves("on_create_hard_link", "use_hard_links")
@both_settings
def test_every_parameter(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, _, cbfs = linking(mount, client, fire_all=fire_all)
    set_contexts(record, on_open_file=("the file", "the handle"))
    processes = []

    def look(params: Any) -> None:
        read_only(params, "file_name", "link_name", "handle_info")
        processes.append((creator(cbfs, params.handle_info), cbfs.get_originator_process_id()))

    record.before[EVENT] = look
    client.run("os.link(at + '/f', at + '/dir/link')")
    fired = record.one(EVENT)
    assert fired.error is None
    assert fired.given == {
        "file_name": "/f",
        "link_name": "/dir/link",
        "handle_info": record.one("on_open_file").handle_info,
        "file_context": "the file",
        "handle_context": "the handle",
        "result_code": 0,
    }
    assert fired.handle_info != 0
    assert processes == [(creator_of(client), client.pid)]


@both_settings
def test_the_file_is_opened_for_it_and_closed(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    record, _, _ = linking(mount, client, fire_all=fire_all)
    set_contexts(record, on_create_hard_link=("linked", "linker"))
    client.run(LINK)
    assert record.names(*AROUND) == list(AROUND)
    for event in ("on_cleanup_file", "on_close_file"):
        fired = record.one(event)
        assert (fired.file_context, fired.handle_context) == ("linked", "linker")
    assert len({record.one(event).handle_info for event in AROUND}) == 1


@both_settings
def test_a_file_that_is_open_has_its_context(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    record, _, _ = linking(mount, client, fire_all=fire_all)
    set_contexts(record, on_open_file=("the file", "the handle"))
    client.run("fd = os.open(at + '/f', os.O_RDONLY)")
    set_contexts(record, on_open_file=("again", "another"), on_create_hard_link=("linked", "x"))
    client.run(LINK)
    fired = record.one(EVENT)
    if fire_all:
        assert record.names(*AROUND) == ["on_open_file", *AROUND]
        assert (fired.file_context, fired.handle_context) == ("again", "another")
    else:
        assert record.names(*AROUND) == ["on_open_file", EVENT]
        assert (fired.file_context, fired.handle_context) == ("the file", 0)
    assert fired.handle_info != record.all("on_open_file")[0].handle_info
    client.run("os.close(fd)")
    last = record.wait_for("on_close_file", 2 if fire_all else 1)[-1]
    assert (last.file_context, last.handle_context) == ("linked", "the handle")


# --- Names ------------------------------------------------------------------------------


def test_names_are_absolute_paths_of_the_drive(mount: Mounting, client: Client) -> None:
    """The kernel does not say by which of its names a file was given: any of them may come."""
    record, _, _ = linking(mount, client)
    client.run(
        """
        os.mkdir(at + "/dir/deep")
        os.chdir(at + "/dir")
        os.link("../f", "deep/relative")
        os.rename("deep", "deeper")
        os.link("deeper/relative", "deeper/again")
        os.chdir("/")
        """
    )
    assert [(f.file_name, f.link_name) for f in record.all(EVENT)] == [
        ("/f", "/dir/deep/relative"),
        ("/f", "/dir/deeper/again"),
    ]


@pytest.mark.proves("PathSeparator")
def test_names_with_another_separator(mount: Mounting, client: Client) -> None:
    record = Recorder(LinkingDrive())
    paths = {"\\": 0x10, "\\f": 0x80, "\\dir": 0x10}

    def info(params: Any) -> None:
        params.file_exists = params.file_name in paths
        params.attributes = paths.get(params.file_name, 0)

    record.instead["on_get_file_info"] = info
    record.instead[EVENT] = lambda params: paths.update({params.link_name: 0x80})
    serve(mount, client, record, use_hard_links=True, config={"PathSeparator": "\\"})
    client.run("os.link(at + '/f', at + '/dir/link')")
    fired = record.one(EVENT)
    assert (fired.file_name, fired.link_name) == ("\\f", "\\dir\\link")
    with refused(errno.EINVAL):
        client.run("os.link(at + '/f', at + '/dir/a\\\\b')")


@pytest.mark.parametrize("name", ["blank and ünïcode", "not utf8 \udcff", "a" * 255, "-", "..."])
def test_unusual_names(mount: Mounting, client: Client, name: str) -> None:
    record, drive, _ = linking(mount, client)
    client.run("os.link(at + '/f', at + '/' + name)", name=name)
    assert record.one(EVENT).link_name == f"/{name}"
    assert drive.items[f"/{name}"] is drive.items["/f"]


def test_a_name_that_is_too_long(mount: Mounting, client: Client) -> None:
    record, _, _ = linking(mount, client, max_file_name_length=10)
    with refused(errno.ENAMETOOLONG):
        client.run("os.link(at + '/f', at + '/' + 11 * 'a')")
    client.run("os.link(at + '/f', at + '/' + 10 * 'a')")
    assert len(record.all(EVENT)) == 1


def test_the_name_of_a_deleted_file_that_is_still_open(mount: Mounting, client: Client) -> None:
    """The drive has it still: it is renamed out of the way, and deleted under that name."""
    record, drive, _ = linking(mount, client)
    drive.add("/link", b"old")
    client.run("fd = os.open(at + '/link', os.O_RDONLY); os.unlink(at + '/link')")
    client.run(LINK)
    assert record.names("on_rename_or_move_file", EVENT) == ["on_rename_or_move_file", EVENT]
    assert client.call("os.pread(fd, 9, 0)") == b"old"
    assert client.call("Path(at, 'link').read_bytes()") == b"data"
    client.run("os.close(fd)")
    moved = record.one("on_rename_or_move_file").new_file_name
    assert record.wait_for("on_delete_file")[0].file_name == moved
    assert sorted(drive.items) == ["/dir", "/f", "/link"]


# --- What comes of it -------------------------------------------------------------------


@both_settings
def test_both_names_are_the_same_file(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, drive, _ = linking(mount, client, fire_all=fire_all)
    client.run(LINK)
    stats = client.call("[os.stat(at + name) for name in ('/f', '/link')]")
    assert stats[0] == stats[1]
    assert (stats[0].st_nlink, stats[0].st_ino) == (2, drive.items["/f"].file_id)
    client.run("Path(at, 'link').write_bytes(b'changed')")
    assert client.call("Path(at, 'f').read_bytes()") == b"changed"
    client.run("os.unlink(at + '/f')")
    assert record.one("on_delete_file").file_name == "/f"
    assert client.call("Path(at, 'link').read_bytes()") == b"changed"
    assert client.call("os.stat(at + '/link').st_nlink") == 1


@both_settings
def test_one_name_of_an_open_file_is_deleted_at_once(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    """There is another one: nothing has to be kept until the last close."""
    record, drive, _ = linking(mount, client, fire_all=fire_all)
    client.run(LINK + "; fd = os.open(at + '/f', os.O_RDONLY); os.unlink(at + '/f')")
    assert record.one("on_delete_file").file_name == "/f"
    assert sorted(drive.items) == ["/dir", "/link"]
    assert client.call("os.pread(fd, 9, 0)") == b"data"
    assert record.all("on_read_file")[-1].file_name == "/link"
    client.run("os.close(fd)")


def test_symbolic_links_and_special_files_may_have_several_names(
    mount: Mounting, client: Client
) -> None:
    record, _ = serve(mount, client, MemoryDrive())
    client.run(
        """
        os.symlink("target", at + "/symlink")
        os.link(at + "/symlink", at + "/second symlink", follow_symlinks=False)
        os.mkfifo(at + "/fifo")
        os.link(at + "/fifo", at + "/second fifo")
        """
    )
    assert client.call("os.readlink(at + '/second symlink')") == "target"
    assert client.call("os.stat(at + '/second fifo').st_nlink") == 2
    assert [f.link_name for f in record.all(EVENT)] == ["/second symlink", "/second fifo"]


# --- Refusals ---------------------------------------------------------------------------


def test_only_with_use_hard_links(mount: Mounting, client: Client) -> None:
    record, _ = serve(mount, client, LinkingDrive(f=b"data"))
    with refused(errno.EPERM):
        client.run(LINK)
    assert not record.all(EVENT)
    assert not client.call("os.path.lexists(at + '/link')")


def test_only_with_a_handler(mount: Mounting, client: Client) -> None:
    handlers = Recorder(LinkingDrive(f=b"data"))
    del handlers.on_create_hard_link  # type: ignore[attr-defined]
    serve(mount, client, handlers, use_hard_links=True)
    with refused(errno.EPERM):
        client.run(LINK)


@pytest.mark.parametrize(
    ("old", "new", "number"),
    [
        ("/f", "/dir", errno.EEXIST),
        ("/f", "/f", errno.EEXIST),
        ("/dir", "/link", errno.EPERM),
        ("/none", "/link", errno.ENOENT),
        ("/f", "/none/link", errno.ENOENT),
        ("/f", "/f/link", errno.ENOTDIR),
    ],
)
def test_what_the_kernel_refuses_by_itself(
    mount: Mounting, client: Client, old: str, new: str, number: int
) -> None:
    record, _, _ = linking(mount, client)
    with refused(number):
        client.run("os.link(at + old, at + new)", old=old, new=new)
    assert not record.all(EVENT)


@both_settings
@pytest.mark.parametrize("failure", FAILURES)
def test_failures(
    mount: Mounting,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    failure: Failure,
    fire_all: bool,
) -> None:
    handlers = Recorder(LinkingDrive(f=b"data"))
    complaints = Complaints(handlers, caplog)
    record, _ = serve(mount, client, handlers, use_hard_links=True, fire_all=fire_all)
    record.instead[EVENT] = failure
    with refused(failure.errno):
        client.run(LINK)
    complaints.check(failure, EVENT, "/f")
    assert record.names(*AROUND) == list(AROUND), "what was opened is closed all the same"
    assert not client.call("os.path.lexists(at + '/link')")
    assert client.call("os.stat(at + '/f').st_nlink") == 1
    del record.instead[EVENT]
    client.run(LINK)
    assert client.call("os.stat(at + '/f').st_nlink") == 2


@both_settings
def test_a_file_that_cannot_be_opened_is_not_linked(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    record, _, _ = linking(mount, client, fire_all=fire_all)
    record.instead["on_open_file"] = Failure("OSError", errno.EACCES)
    with refused(errno.EACCES):
        client.run(LINK)
    assert record.names(*AROUND) == ["on_open_file"]


def test_a_link_that_the_drive_then_does_not_have(mount: Mounting, client: Client) -> None:
    record, _, _ = linking(mount, client)
    record.instead[EVENT] = lambda params: None
    with refused(errno.ENOENT):
        client.run(LINK)
    assert client.call("os.listdir(at)") == ["f", "dir"]


def test_cleanup_and_close_do_not_undo_it(mount: Mounting, client: Client) -> None:
    record, _, _ = linking(mount, client)
    for event in ("on_cleanup_file", "on_close_file"):
        record.instead[event] = Failure("OSError", errno.EDQUOT)
    client.run(LINK)
    assert client.call("os.stat(at + '/link').st_nlink") == 2


def test_the_handler_may_say_that_the_name_was_taken_meanwhile(
    mount: Mounting, client: Client
) -> None:
    record, _, _ = linking(mount, client)
    record.instead[EVENT] = lambda params: setattr(params, "result_code", 183)
    with refused(errno.EEXIST):  # ERROR_ALREADY_EXISTS
        client.run(LINK)
