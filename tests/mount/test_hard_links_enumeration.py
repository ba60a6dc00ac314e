"""Every name of a file: `enumerate_hard_links`, and the two events that answer it.

`on_close_hard_links_enumeration` fires exactly once for each enumeration, however that ends.
"""

import errno
import itertools
import logging
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cbfsconnect import ROOT_FILE_ID, MemoryDrive
from support.client import Client, run
from support.failing import FAILURES, Complaints, Failure, refused
from support.linking import LinkingDrive
from support.mounts import Mounting, mounting
from support.plain import PlainDrive
from support.recorder import Recorder
from support.serving import both_settings, creator, creator_of, read_only, serve, set_contexts

NEXT = "on_enumerate_hard_links"
CLOSE = "on_close_hard_links_enumeration"
AROUND = ("on_open_file", NEXT, CLOSE, "on_cleanup_file", "on_close_file")
CALL = "result = enumerate_hard_links(at + '/f')"


IMPORT = "from cbfsconnect import enumerate_hard_links\n"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A client that has the function; one for all tests, since importing the package takes time."""
    with Client() as process:
        process.run(IMPORT)
        yield process


def linked() -> LinkingDrive:
    """A drive whose file /f has the names /second and /dir/third too."""
    drive = LinkingDrive(f=b"data")
    drive.add_directory("/dir")
    for name in ("/second", "/dir/third"):
        drive.items[name] = drive.items["/f"]
    return drive


def serve_linked(
    mount: Mounting, client: Client, handlers: object = None, **options: Any
) -> tuple[Recorder, Any]:
    return serve(mount, client, handlers or linked(), use_hard_links=True, **options)


class Many(LinkingDrive):
    """The file /f claims to have any number of long names in the root."""

    def __init__(self, count: int) -> None:
        super().__init__(f=b"")
        self.count = count

    def name(self, number: int) -> str:
        return f"{number:06}-".ljust(200, "x")

    def on_enumerate_hard_links(self, p: Any) -> None:
        if p.enumeration_context < self.count:
            p.link_found, p.parent_id = True, ROOT_FILE_ID
            p.link_name = self.name(p.enumeration_context)
            p.enumeration_context += 1


# --- Parameters and contexts ------------------------------------------------------------


@pytest.mark.proves("on_enumerate_hard_links", "on_close_hard_links_enumeration")
@both_settings
def test_every_parameter(mount: Mounting, client: Client, fire_all: bool) -> None:
    record, cbfs = serve_linked(mount, client, fire_all=fire_all)
    set_contexts(record, on_open_file=("the file", "the handle"))
    processes = []

    def look(params: Any) -> None:
        read_only(params, "file_name", "handle_info")
        processes.append((creator(cbfs, params.handle_info), cbfs.get_originator_process_id()))

    def look_at_close(params: Any) -> None:
        read_only(params, "enumeration_context")
        look(params)

    record.before[NEXT] = look
    record.before[CLOSE] = look_at_close
    point = cbfs.get_mounting_point_name(0)
    assert client.run(CALL) == [f"{point}{name}" for name in ("/f", "/second", "/dir/third")]
    common = {
        "file_name": "/f",
        "handle_info": record.one("on_open_file").handle_info,
        "file_context": "the file",
        "handle_context": "the handle",
        "result_code": 0,
    }
    assert common["handle_info"] != 0
    given = {"link_found": False, "link_name": "", "parent_id": 0}
    assert [f.given for f in record.all(NEXT)] == [
        common | given | {"enumeration_context": count} for count in range(4)
    ]
    assert record.one(CLOSE).given == common | {"enumeration_context": 3}
    assert not any(f.error for f in record.fired)
    assert processes == [(creator_of(client), client.pid)] * 5


@both_settings
def test_the_file_is_opened_for_it_and_closed(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    record, _ = serve_linked(mount, client, fire_all=fire_all)
    client.run(CALL)
    assert record.names(*AROUND) == [
        "on_open_file",
        *[NEXT] * 4,
        CLOSE,
        "on_cleanup_file",
        "on_close_file",
    ]
    infos = {f.handle_info for f in record.fired if f.name in AROUND}
    assert len(infos) == 1


@both_settings
def test_the_contexts_that_the_handlers_leave(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    record, _ = serve_linked(mount, client, fire_all=fire_all)
    numbers = itertools.count(1)

    def change(params: Any) -> None:
        number = next(numbers)
        params.file_context, params.handle_context = f"file {number}", f"handle {number}"

    record.before[NEXT] = record.before[CLOSE] = change
    client.run(CALL)
    events = [f for f in record.fired if f.name in AROUND]
    assert [(f.file_context, f.handle_context) for f in events] == [
        (0, 0),
        (0, 0),
        *[(f"file {number}", f"handle {number}") for number in (1, 2, 3, 4, 5, 5)],
    ]


@both_settings
def test_the_enumeration_context_may_be_any_object(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    record, _ = serve_linked(mount, client, fire_all=fire_all)
    listings: list[Iterator[str]] = []

    def give(params: Any) -> None:
        if not params.enumeration_context:
            params.enumeration_context = iter(["a", "b"])
            listings.append(params.enumeration_context)
        name = next(params.enumeration_context, None)
        params.link_found = name is not None
        params.link_name, params.parent_id = name or "", ROOT_FILE_ID

    record.instead[NEXT] = give
    for count in (1, 2):
        client.run(CALL)
        contexts = [f.enumeration_context for f in record.all(NEXT)]
        assert contexts == [0, listings[0], listings[0], 0, listings[-1], listings[-1]][: 3 * count]
        assert [f.enumeration_context for f in record.all(CLOSE)] == listings
    assert len(listings) == 2


@both_settings
def test_a_file_that_is_open_has_its_context(
    mount: Mounting, client: Client, fire_all: bool
) -> None:
    record, _ = serve_linked(mount, client, fire_all=fire_all)
    set_contexts(record, on_open_file=("the file", "the handle"))
    client.run("fd = os.open(at + '/f', os.O_RDONLY)")
    opened = record.one("on_open_file").handle_info
    client.run(CALL)
    for fired in (*record.all(NEXT), record.one(CLOSE)):
        assert fired.file_context == "the file"
        assert fired.handle_context == ("the handle" if fire_all else 0)
        assert fired.handle_info != opened
    assert len(record.all("on_open_file")) == (2 if fire_all else 1)


# --- The paths --------------------------------------------------------------------------


def test_the_memory_drive(mount: Mounting, client: Client) -> None:
    _, cbfs = serve(mount, client, MemoryDrive())
    client.run(
        """
        for name in ("a", "b"):
            os.makedirs(f"{at}/{name}/sub")
        Path(at, "a/one").touch()
        for name in ("a/two", "b/sub/three", "four"):
            os.link(f"{at}/a/one", f"{at}/{name}")
        """
    )
    point = cbfs.get_mounting_point_name(0)
    names = {f"{point}/{name}" for name in ("a/one", "a/two", "b/sub/three", "four")}
    for name in sorted(names):
        assert set(client.call("enumerate_hard_links(path)", path=name)) == names
    client.run("os.rename(at + '/b', at + '/moved'); os.unlink(at + '/four')")
    names = {f"{point}/{name}" for name in ("a/one", "a/two", "moved/sub/three")}
    assert set(client.call("enumerate_hard_links(Path(at, 'a/one'))")) == names
    assert client.call("{os.stat(n).st_ino for n in names}", names=names) == {
        client.call("os.stat(at + '/a/one').st_ino")
    }


def test_a_file_with_one_name(mount: Mounting, client: Client) -> None:
    _, cbfs = serve_linked(mount, client, LinkingDrive(f=b""))
    assert client.run(CALL) == [f"{cbfs.get_mounting_point_name(0)}/f"]


def test_directories_that_nobody_has_looked_up_are_named_by_their_ids(
    mount: Mounting, client: Client
) -> None:
    drive = linked()
    record, cbfs = serve_linked(mount, client, drive)
    assert f"{cbfs.get_mounting_point_name(0)}/dir/third" in client.run(CALL)
    assert record.one("on_get_file_name_by_file_id").file_id == drive.items["/dir"].file_id
    client.run("os.stat(at + '/dir')")
    client.run(CALL)
    assert len(record.all("on_get_file_name_by_file_id")) == 1, "the engine knows it by now"


def test_another_separator(mount: Mounting, client: Client) -> None:
    record = Recorder(LinkingDrive())

    def info(params: Any) -> None:
        params.file_exists = params.file_name in ("\\", "\\f")
        params.attributes = 0x10 if params.file_name == "\\" else 0x80

    def links(params: Any) -> None:
        params.link_found = params.enumeration_context < 2
        params.link_name = ("f", "g")[min(params.enumeration_context, 1)]
        params.parent_id = (ROOT_FILE_ID, 7)[min(params.enumeration_context, 1)]
        params.enumeration_context += 1

    record.instead["on_get_file_info"] = info
    record.instead[NEXT] = links
    record.instead["on_get_file_name_by_file_id"] = lambda p: setattr(p, "file_path", "\\a\\b")
    _, cbfs = serve_linked(mount, client, record, config={"PathSeparator": "\\"})
    point = cbfs.get_mounting_point_name(0)
    assert client.run(CALL) == [f"{point}/f", f"{point}/a/b/g"]


@pytest.mark.parametrize("name", ["not utf8 \udcff", "+plus", "new\nline", "a" * 255])
def test_unusual_names(mount: Mounting, client: Client, name: str) -> None:
    drive = LinkingDrive(f=b"")
    drive.items[f"/{name}"] = drive.items["/f"]
    _, cbfs = serve_linked(mount, client, drive)
    point = cbfs.get_mounting_point_name(0)
    assert client.run(CALL) == [f"{point}/f", f"{point}/{name}"]


def test_ways_to_name_the_file(mount: Mounting, client: Client, tmp_path: Path) -> None:
    """Relative, over symbolic links in the parents, with `..` behind one."""
    _, cbfs = serve_linked(mount, client)
    links = client.run(CALL)
    point = cbfs.get_mounting_point_name(0)
    (tmp_path / "way").symlink_to(point)
    (tmp_path / "into").symlink_to(f"{point}/dir")
    assert client.call("enumerate_hard_links(p)", p=f"{tmp_path}/way/f") == links
    assert client.call("enumerate_hard_links(p)", p=f"{tmp_path}/into/third") == links
    assert client.call("enumerate_hard_links(p)", p=f"{tmp_path}/into/../second") == links
    assert client.call("enumerate_hard_links(Path(at, 'f'))") == links
    found = client.run("os.chdir(at)\nresult = enumerate_hard_links('f')\nos.chdir('/')")
    assert found == links


def test_a_symbolic_link_is_not_followed(mount: Mounting, client: Client) -> None:
    serve(mount, client, MemoryDrive())
    client.run("Path(at, 'f').touch(); os.symlink('f', at + '/s')")
    client.run("os.link(at + '/s', at + '/t', follow_symlinks=False)")
    links = client.call("enumerate_hard_links(at + '/s')")
    assert {Path(link).name for link in links} == {"s", "t"}


# --- More than fits into one answer -----------------------------------------------------


def test_many_names_come_in_pages_of_one_enumeration(mount: Mounting, client: Client) -> None:
    drive = Many(1500)  # some 300 KB
    record, cbfs = serve_linked(mount, client, drive)
    point = cbfs.get_mounting_point_name(0)
    assert client.run(CALL) == [f"{point}/{drive.name(number)}" for number in range(1500)]
    assert len(record.all(NEXT)) == 1501
    assert record.one(CLOSE).enumeration_context == 1500


def test_a_reader_that_stops_early_leaves_nothing_open(mount: Mounting, client: Client) -> None:
    record, _ = serve_linked(mount, client, Many(1500))
    client.run(
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def page(name, attribute="system.cbfs.hard_links"):
            room = ctypes.create_string_buffer(65536)
            size = libc.getxattr((at + name).encode(), attribute.encode(), room, 65536)
            if size < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            return room.raw[:size]
        first = page("/f")
        token = first.split(b"\\0")[-2].removeprefix(b"+").decode()
        """
    )
    assert len(record.all(CLOSE)) == 1
    assert record.names(*AROUND)[-1] == "on_close_file"
    second = client.call("page('/f', 'system.cbfs.hard_links.' + token)")
    assert second == client.call("page('/f', 'system.cbfs.hard_links.' + token)")
    assert second.startswith(b"/")
    assert len(record.all(CLOSE)) == 1, "a further page is no enumeration"


@pytest.mark.parametrize("rest", [".", ".1", ".x.y", ".1.1", ".-1.0", "x", ".999999.0"])
def test_tokens_that_stand_for_nothing(mount: Mounting, client: Client, rest: str) -> None:
    record, _ = serve_linked(mount, client)
    with refused(errno.ENODATA):
        client.run("os.getxattr(at + '/f', 'system.cbfs.hard_links' + rest)", rest=rest)
    assert not record.all(NEXT)


def test_a_token_is_good_for_its_own_file_only(mount: Mounting, client: Client) -> None:
    drive = Many(1000)
    drive.add("/other")
    serve_linked(mount, client, drive)
    client.run(
        """
        name = "system.cbfs.hard_links"
        value = os.getxattr(at + "/f", name)
        token = value.split(b"\\0")[-2].removeprefix(b"+").decode()
        """
    )
    with refused(errno.ENODATA):
        client.run("os.getxattr(at + '/other', f'{name}.{token}')")
    assert client.call("os.getxattr(at + '/f', f'{name}.{token}')").startswith(b"/")


def test_an_endless_enumeration_is_ended(mount: Mounting, client: Client) -> None:
    class Endless(LinkingDrive):
        closed = 0

        def on_enumerate_hard_links(self, p: Any) -> None:
            p.link_found, p.link_name, p.parent_id = True, "f", ROOT_FILE_ID

        def on_close_hard_links_enumeration(self, p: Any) -> None:
            self.closed += 1

    drive = Endless(f=b"")
    mounted = mount(drive, use_hard_links=True)
    with refused(errno.E2BIG):
        client.run(CALL, at=mounted.mountpoint)
    assert drive.closed == 1


def test_listings_that_nobody_reads_to_the_end_are_dropped_one_day(
    mount: Mounting, client: Client
) -> None:
    drive = mount(Many(90_000), use_hard_links=True)
    client.run(
        """
        name = "system.cbfs.hard_links"
        values = [os.getxattr(at + "/f", name) for _ in range(2)]  # each asks twice
        tokens = [value.split(b"\\0")[-2].removeprefix(b"+").decode() for value in values]
        """,
        at=drive.mountpoint,
    )
    assert client.call("len(os.getxattr(at + '/f', f'{name}.{tokens[1]}'))") > 50_000
    with refused(errno.ENODATA):
        client.run("os.getxattr(at + '/f', f'{name}.{tokens[0]}')")


# --- Mounts -----------------------------------------------------------------------------


@pytest.fixture
def bind(tmp_path: Path) -> Iterator[Any]:
    """A function that mounts with `mount(8)` and takes it back at the end."""
    points: list[Path] = []

    def bind(*arguments: str | Path, over: Path) -> Path:
        run("mount", *arguments, over)
        points.append(over)
        return over

    yield bind
    for point in reversed(points):
        run("umount", point)


def test_the_paths_are_those_of_the_mount_that_was_used(
    mount: Mounting, client: Client, bind: Any, tmp_path: Path
) -> None:
    record, cbfs = serve_linked(mount, client)
    point = cbfs.get_mounting_point_name(0)
    call = "enumerate_hard_links(path)"
    for name in ("all", "part"):
        (tmp_path / name).mkdir()
    (tmp_path / "single").touch()

    everything = bind("--bind", point, over=tmp_path / "all")
    assert client.call(call, path=f"{everything}/f") == [
        f"{everything}{name}" for name in ("/f", "/second", "/dir/third")
    ]
    part = bind("--bind", f"{point}/dir", over=tmp_path / "part")
    assert client.call(call, path=f"{part}/third") == [f"{part}/third"]
    single = bind("--bind", f"{point}/second", over=tmp_path / "single")
    assert client.call(call, path=str(single)) == [str(single)]
    assert len(record.all(CLOSE)) == 3


def test_names_that_another_mount_covers_are_left_out(
    mount: Mounting, client: Client, bind: Any
) -> None:
    _, cbfs = serve_linked(mount, client)
    point = cbfs.get_mounting_point_name(0)
    cover = bind("-t", "tmpfs", "tmpfs", over=Path(point, "dir"))
    assert client.run(CALL) == [f"{point}/f", f"{point}/second"]
    with refused(errno.EOPNOTSUPP):
        client.run("Path(p).touch(); enumerate_hard_links(p)", p=f"{cover}/other")


def test_a_second_mounting_point(mount: Mounting, client: Client, tmp_path: Path) -> None:
    _, cbfs = serve_linked(mount, client)
    second = tmp_path / "second"
    second.mkdir()
    cbfs.add_mounting_point(str(second))
    assert client.call("enumerate_hard_links(p)", p=f"{second}/f") == [
        f"{second}{name}" for name in ("/f", "/second", "/dir/third")
    ]


# --- Who may, and on what ---------------------------------------------------------------


def test_files_of_other_filesystems(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (f"{tmp_path}/file", "/proc/self/status", "/dev/null"):
        with refused(errno.EOPNOTSUPP):
            client.run("enumerate_hard_links(path)", path=path)


def test_a_drive_without_hard_links(mount: Mounting, client: Client) -> None:
    record, _ = serve(mount, client, linked(), use_reparse_points=True)
    for _ in range(2):
        with refused(errno.EOPNOTSUPP):
            client.run(CALL)
    assert not record.all(NEXT)
    assert not record.all(CLOSE)


def test_a_drive_without_a_handler(mount: Mounting, client: Client) -> None:
    serve(mount, client, PlainDrive(f=b""), use_hard_links=True)
    with refused(errno.EOPNOTSUPP):
        client.run(CALL)


def test_without_a_handler_for_the_end(mount: Mounting, client: Client) -> None:
    handlers = Recorder(linked())
    del handlers.on_close_hard_links_enumeration  # type: ignore[attr-defined]
    serve_linked(mount, client, handlers)
    assert len(client.run(CALL)) == 3


@pytest.mark.parametrize("name", ["", "/", "/dir", "/dir/", "/dir/..", "/."])
def test_directories(mount: Mounting, client: Client, name: str) -> None:
    record, _ = serve_linked(mount, client)
    with refused(errno.EISDIR):
        client.run("enumerate_hard_links(at + name)", name=name)
    assert not record.all(NEXT)


@pytest.mark.parametrize(
    ("name", "number"), [("/none", errno.ENOENT), ("/f/", errno.ENOTDIR), ("/f/x", errno.ENOTDIR)]
)
def test_what_does_not_exist(mount: Mounting, client: Client, name: str, number: int) -> None:
    serve_linked(mount, client)
    with refused(number):
        client.run("enumerate_hard_links(at + name)", name=name)


def test_the_error_names_the_file(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "none"):
        path = str(tmp_path / name)
        code = """
            try:
                enumerate_hard_links(path)
            except OSError as error:
                result = error.filename
            """
        assert client.run(code, path=path) == path


def test_who_may_look_the_file_up_may_ask(client: Client) -> None:
    """As with stat(2): what permissions the file itself has does not matter."""
    drive = linked()
    drive.items["/f"].mode = 0o100000
    drive.items["/dir"].mode = 0o040700
    with tempfile.TemporaryDirectory() as area:
        Path(area).chmod(0o755)
        with mounting(Path(area)) as mount:
            record, cbfs = serve_linked(mount, client, drive)
            client.run("os.setegid(65534); os.seteuid(65534)")
            try:
                with refused(errno.EACCES):
                    client.run("os.open(at + '/f', os.O_RDONLY)")
                with refused(errno.EACCES):
                    client.run("enumerate_hard_links(at + '/dir/third')")
                assert not record.all(NEXT)
                point = cbfs.get_mounting_point_name(0)
                assert f"{point}/f" in client.run(CALL)
            finally:
                client.run("os.seteuid(0); os.setegid(0)")


# --- Failures ---------------------------------------------------------------------------


@both_settings
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("step", [0, 1, 3])
def test_an_enumeration_that_fails_is_closed_once(
    mount: Mounting,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    step: int,
    failure: Failure,
    fire_all: bool,
) -> None:
    drive = linked()
    handlers = Recorder(drive)
    complaints = Complaints(handlers, caplog)
    record, _ = serve_linked(mount, client, handlers, fire_all=fire_all)

    def fail_there(params: Any) -> None:
        if params.enumeration_context == step:
            params.enumeration_context = "what the failing handler has left"
            failure(params)
        else:
            drive.on_enumerate_hard_links(params)

    record.instead[NEXT] = fail_there
    with refused(failure.errno):
        client.run(CALL)
    complaints.check(failure, NEXT, "/f")
    assert len(record.all(NEXT)) == step + 1
    assert record.one(CLOSE).enumeration_context == "what the failing handler has left"
    assert record.names(*AROUND)[-3:] == [CLOSE, "on_cleanup_file", "on_close_file"]
    del record.instead[NEXT]
    assert len(client.run(CALL)) == 3
    assert len(record.all(CLOSE)) == 2


@both_settings
@pytest.mark.parametrize("failure", FAILURES)
def test_an_end_that_fails_is_told(
    mount: Mounting,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    failure: Failure,
    fire_all: bool,
) -> None:
    """As close(2) tells it: the caller learns that something went wrong."""
    handlers = Recorder(linked())
    complaints = Complaints(handlers, caplog)
    record, _ = serve_linked(mount, client, handlers, fire_all=fire_all)
    record.instead[CLOSE] = failure
    with refused(failure.errno):
        client.run(CALL)
    complaints.check(failure, CLOSE, "/f")
    assert len(record.all(CLOSE)) == 1
    assert record.names(*AROUND)[-1] == "on_close_file"
    del record.instead[CLOSE]
    assert len(client.run(CALL)) == 3


def test_of_two_failures_the_first_is_told(mount: Mounting, client: Client) -> None:
    record, _ = serve_linked(mount, client)
    record.instead[NEXT] = Failure("OSError", errno.ENOMEM)
    record.instead[CLOSE] = Failure("OSError", errno.EDQUOT)
    with refused(errno.ENOMEM):
        client.run(CALL)
    assert len(record.all(CLOSE)) == 1


def test_without_an_open_file_there_is_no_enumeration(mount: Mounting, client: Client) -> None:
    record, _ = serve_linked(mount, client)
    record.instead["on_open_file"] = Failure("OSError", errno.EDQUOT)
    with refused(errno.EDQUOT):
        client.run(CALL)
    assert record.names(*AROUND) == ["on_open_file"]


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("", ROOT_FILE_ID),
        (".", ROOT_FILE_ID),
        ("..", ROOT_FILE_ID),
        ("a/b", ROOT_FILE_ID),
        ("a\0b", ROOT_FILE_ID),
        ("\ud800", ROOT_FILE_ID),
        (b"bytes", ROOT_FILE_ID),
        (None, ROOT_FILE_ID),
        ("name", None),
        ("name", "1"),
        ("name", -1),
        ("name", 424242),
    ],
)
def test_nonsense(
    mount: Mounting,
    client: Client,
    caplog: pytest.LogCaptureFixture,
    name: object,
    parent: object,
) -> None:
    caplog.set_level(logging.WARNING, "cbfsconnect")
    handlers = Recorder(linked())
    handlers.handle("on_error", lambda params: None)
    record, _ = serve_linked(mount, client, handlers)

    def give(params: Any) -> None:
        params.link_found = params.enumeration_context < 1
        params.enumeration_context += 1
        params.link_name, params.parent_id = name, parent

    record.instead[NEXT] = give
    with refused(errno.EIO):
        client.run(CALL)
    assert len(record.all(CLOSE)) == 1
    (line,) = caplog.records
    for text in (line.getMessage(), record.one("on_error").description):
        assert NEXT in text
        assert "'/f'" in text
    del record.instead[NEXT]
    assert len(client.run(CALL)) == 3


def test_a_client_that_is_killed_meanwhile(mount: Mounting) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait(params: Any) -> None:
        inside.set()
        assert go_on.wait(20)

    with Client() as client:
        record, _ = serve_linked(mount, client)
        record.before[NEXT] = wait
        client.start(IMPORT + CALL)
        assert inside.wait(20)
        client.process.kill()
        go_on.set()
        record.wait_for("on_close_file")
    assert len(record.all(NEXT)) == 4
    assert len(record.all(CLOSE)) == 1


def test_two_clients_at_once_have_an_enumeration_each(mount: Mounting, client: Client) -> None:
    record, cbfs = serve_linked(mount, client)
    inside, go_on = threading.Event(), threading.Event()

    def wait(params: Any) -> None:
        inside.set()
        assert go_on.wait(20)

    record.before[NEXT] = wait
    client.start(CALL)
    assert inside.wait(20)
    with Client() as other:
        point = cbfs.get_mounting_point_name(0)
        other.start(IMPORT + CALL, at=point)
        go_on.set()
        assert client.finish() == other.finish()
    names = [f.enumeration_context for f in record.fired if f.name in (NEXT, CLOSE)]
    assert names == [0, 1, 2, 3, 3] * 2
