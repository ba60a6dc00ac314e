"""`use_case_sensitive_file_names`: one item under any letter case, or exact names."""

import errno
import os
from typing import Any

import pytest

from support.client import Client, run
from support.failing import refused
from support.mounts import Mounting
from support.plain import Item, PlainDrive
from support.recorder import Recorder
from support.serving import serve

FOREVER = {"MetadataCacheTimeout": -1}
UNTIL_GONE = """
deadline = time.monotonic() + 20
while os.path.exists(at + '/Name'):
    assert time.monotonic() < deadline
"""
STATED = "sorted(os.stat(at + '/' + name).st_ino for name in names)"


class FoldingItems(dict[str, Item]):
    """Finds items whatever the letter case."""

    def __missing__(self, path: str) -> Item:
        for stored in list(self):
            if stored.casefold() == path.casefold():
                return self[stored]
        raise KeyError(path)


class FoldingDrive(PlainDrive):
    """Says how the names of items are stored."""

    tells_name = True

    def __init__(self, **files: bytes) -> None:
        super().__init__(**files)
        self.items = FoldingItems(self.items)

    def stored(self, path: str) -> str:
        folded = {one.casefold(): one for one in list(self.items)}
        return folded.get(path.casefold(), path)

    def children(self, directory: str) -> list[str]:
        return super().children(self.stored(directory))

    def on_get_file_info(self, p: Any) -> None:
        stored = self.stored(p.file_name)
        item = self.items.get(stored)
        if item is None:
            super().on_get_file_info(p)  # the root, or nothing
            return
        p.file_exists, p.attributes, p.file_id = True, item.attributes, item.file_id
        p.size = len(item.data)
        if self.tells_name:
            p.real_file_name = stored.rpartition("/")[2]

    def on_create_file(self, p: Any) -> None:
        if self.stored(p.file_name) in self.items:
            raise FileExistsError(errno.EEXIST, "there in another spelling")
        super().on_create_file(p)

    def on_delete_file(self, p: Any) -> None:
        del self.items[self.stored(p.file_name)]

    def on_rename_or_move_file(self, p: Any) -> None:
        item = self.items.pop(self.stored(p.file_name))
        self.items.pop(self.stored(p.new_file_name), None)
        self.items[p.new_file_name] = item


class FoldingById(FoldingDrive):
    """Says by the file id only that two names are one."""

    tells_name = False


@pytest.fixture(params=["timed", "for_ever", "negatives"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "timed":
        return {}
    more = {"non_existent_files_cache_enabled": True} if request.param == "negatives" else {}
    return {"config": FOREVER, **more}


@pytest.fixture(params=[FoldingDrive, FoldingById], ids=["by_name", "by_id"])
def folding(
    request: pytest.FixtureRequest, mount: Mounting, client: Client, options: dict[str, Any]
) -> tuple[Recorder, FoldingDrive]:
    """A drive with /Name and /dir/Name."""
    drive = request.param(Name=b"data")
    drive.add_directory("/Dir")
    drive.add("/Dir/Name", b"below")
    config = options.get("config", {}) | {"UseFileIds": request.param is FoldingById}
    record, _ = serve(mount, client, drive, **options | {"config": config})
    return record, drive


Folding = tuple[Recorder, FoldingDrive]


def exists(client: Client, *names: str) -> list[bool]:
    found = client.call("[os.path.lexists(at + '/' + name) for name in names]", names=names)
    assert isinstance(found, list)
    return found


def test_one_file_under_any_letter_case(folding: Folding, client: Client) -> None:
    numbers = client.call(STATED, names=["Name", "name", "NAME", "nAmE", "dir/NAME", "DIR/name"])
    assert len(set(numbers)) == 2
    client.run("fd = os.open(at + '/NAME', os.O_RDWR); os.pwrite(fd, b'D', 0); os.close(fd)")
    assert client.call("open(at + '/name').read()") == "Data"
    assert client.call("sorted(os.listdir(at + '/DIR'))") == ["Name"]


def test_events_of_the_open_item_have_its_stored_name(folding: Folding, client: Client) -> None:
    record, _ = folding
    client.run("os.stat(at + '/Name'); open(at + '/NAME').read()")
    assert record.one("on_open_file").file_name == "/Name"
    assert record.all("on_read_file")[0].file_name == "/Name"


def test_no_two_files_are_made(folding: Folding, client: Client) -> None:
    _, drive = folding
    with refused(errno.EEXIST):
        client.run("os.open(at + '/NAME', os.O_CREAT | os.O_EXCL)")
    with refused(errno.EEXIST):
        client.run("os.mkdir(at + '/dir/../NAME')")
    client.run("open(at + '/nAME', 'a').close()")
    assert sorted(drive.items) == ["/Dir", "/Dir/Name", "/Name"]


SPELLINGS = pytest.mark.parametrize("spelling", ["Name", "name", "NAME"])


@SPELLINGS
def test_deleted_under_one_it_is_gone_under_all(
    folding: Folding, client: Client, spelling: str
) -> None:
    _, drive = folding
    names = ("Name", "name", "NAME")
    assert exists(client, *names) == [True] * 3
    client.run("os.unlink(at + '/' + name)", name=spelling)
    assert exists(client, *names) == [False] * 3
    assert "/Name" not in drive.items
    client.run("open(at + '/nAmE', 'w').close()")
    assert exists(client, *names, "nAmE") == [True] * 4
    assert "/nAmE" in drive.items


@SPELLINGS
def test_deleted_while_it_is_open(folding: Folding, client: Client, spelling: str) -> None:
    record, _ = folding
    names = ("Name", "name", "NAME")
    client.run("fd = os.open(at + '/Name', os.O_RDONLY)")
    assert exists(client, *names) == [True] * 3
    client.run("os.unlink(at + '/' + name)", name=spelling)
    assert exists(client, *names) == [False] * 3
    assert client.call("os.pread(fd, 9, 0)") == b"data"
    client.run("open(at + '/NAMe', 'w').write('another')")
    assert client.call("open(at + '/name').read()") == "another"
    client.run("os.close(fd)")
    record.wait_for("on_delete_file")
    assert exists(client, *names) == [True] * 3
    assert client.call("open(at + '/Name').read()") == "another"


@SPELLINGS
def test_a_directory_under_one_spelling_is_gone_under_all(
    folding: Folding, client: Client, spelling: str
) -> None:
    client.run("os.unlink(at + '/DIR/name')")
    spelling = {"Name": "Dir", "name": "dir", "NAME": "DIR"}[spelling]
    assert exists(client, "Dir", "dir", "DIR") == [True] * 3
    client.run("os.rmdir(at + '/' + name)", name=spelling)
    assert exists(client, "Dir", "dir", "DIR", "DIR/name") == [False] * 4


@SPELLINGS
def test_renamed_under_one_it_is_renamed_under_all(
    folding: Folding, client: Client, spelling: str
) -> None:
    _, drive = folding
    assert exists(client, "Name", "name", "NAME", "New", "NEW") == [True] * 3 + [False] * 2
    client.run("os.rename(at + '/' + name, at + '/New')", name=spelling)
    assert exists(client, "Name", "name", "NAME", "New", "NEW") == [False] * 3 + [True] * 2
    assert sorted(drive.items) == ["/Dir", "/Dir/Name", "/New"]
    client.run("os.rename(at + '/NEW', at + '/dir/new')")
    assert exists(client, "New", "NEW", "Dir/New", "DIR/NEW") == [False, False, True, True]


@SPELLINGS
def test_a_file_replaces_another_in_any_spelling(
    folding: Folding, client: Client, spelling: str
) -> None:
    _, drive = folding
    client.run("open(at + '/other', 'w').write('new')")
    assert exists(client, "Name", "name", "NAME") == [True] * 3
    client.run("os.rename(at + '/OTHER', at + '/' + name)", name=spelling)
    for name in ("Name", "name", "NAME"):
        assert client.call(f"open(at + '/{name}').read()") == "new"
    assert exists(client, "other", "OTHER") == [False] * 2
    assert sorted(drive.items) == ["/Dir", "/Dir/Name", "/Name"]


def test_what_was_not_there_is_there_under_all(folding: Folding, client: Client) -> None:
    names = ("New", "new", "NEW")
    for make in ("open(at + '/new', 'w').close()", "os.mkdir(at + '/NEW')"):
        assert exists(client, *names) == [False] * 3
        client.run(make)
        assert exists(client, *names) == [True] * 3
        client.run("(os.rmdir if os.path.isdir(at + '/New') else os.unlink)(at + '/New')")
    assert exists(client, *names) == [False] * 3
    client.run("os.rename(at + '/Name', at + '/new')")
    assert exists(client, *names) == [True] * 3


def test_a_directory_that_is_moved_takes_all_below_with_it(
    folding: Folding, client: Client
) -> None:
    record, _ = folding
    assert exists(client, "DIR/NAME", "dir/name") == [True] * 2
    fd = "fd = os.open(at + '/dir/NAME', os.O_RDONLY)"
    client.run(fd)
    client.run("os.rename(at + '/DIR', at + '/Moved')")
    record.clear()
    assert client.call("os.fstat(fd).st_size") == 5
    assert exists(client, "dir/Name", "Moved") == [False, True]
    client.run("os.close(fd)")


# --- Exact names ------------------------------------------------------------------------


@pytest.mark.proves("use_case_sensitive_file_names")
def test_exact_names_are_different_files(mount: Mounting, client: Client) -> None:
    drive = PlainDrive(name=b"lower", NAME=b"upper")
    record, _ = serve(
        mount, client, drive, use_case_sensitive_file_names=True, config={"UseFileIds": True}
    )
    assert client.call("open(at + '/name').read() + open(at + '/NAME').read()") == "lowerupper"
    client.run("os.unlink(at + '/name')")
    assert exists(client, "name", "NAME", "Name") == [False, True, False]
    client.run("list(os.scandir(at))")
    assert record.all("on_enumerate_directory")[0].case_sensitive is True


def test_exact_names_do_not_follow_another_spelling(mount: Mounting, client: Client) -> None:
    record, _ = serve(mount, client, FoldingDrive(Name=b"data"), use_case_sensitive_file_names=True)
    client.run("os.close(os.open(at + '/NAME', os.O_RDONLY))")
    assert record.one("on_open_file").file_name == "/NAME"


# --- What it costs ----------------------------------------------------------------------


def test_the_stored_spelling_is_remembered(mount: Mounting, client: Client) -> None:
    record, _ = serve(mount, client, FoldingDrive(Name=b"data"), config=FOREVER)
    client.run("os.stat(at + '/Name')")
    record.clear()
    client.run("for _ in range(5): os.stat(at + '/Name')")
    assert record.fired == []
    client.run("for _ in range(5): os.stat(at + '/NAME')")
    assert record.names() == ["on_get_file_info"] * 5


class ShortNames(FoldingDrive):
    """A file with a short name, which the drive takes anywhere."""

    def stored(self, path: str) -> str:
        return super().stored(path.replace("LONGNA~1.TXT", "long name.text"))

    def on_get_file_info(self, p: Any) -> None:
        super().on_get_file_info(p)
        if p.real_file_name == "long name.text":
            p.short_file_name = "LONGNA~1.TXT"


@pytest.mark.proves("use_short_file_names")
def test_a_short_name_is_another_spelling(mount: Mounting, client: Client) -> None:
    drive = ShortNames(**{"long name.text": b"data"})
    serve(mount, client, drive, use_short_file_names=True, config=FOREVER)
    names = ("long name.text", "LONGNA~1.TXT", "longna~1.txt")
    numbers = client.call(STATED, names=names[:2])
    assert len(set(numbers)) == 1
    client.run("os.unlink(at + '/LONGNA~1.TXT')")
    assert exists(client, *names) == [False] * 3


class OnlyShortNames(PlainDrive):
    """Files with short names. The handlers take long names only, and tell no stored spelling."""

    def __init__(self, **shorts: str) -> None:
        super().__init__()
        self.shorts = {long_name: short for short, long_name in shorts.items()}
        for long_name in self.shorts:
            self.add(f"/{long_name}", long_name.encode())

    def on_get_file_info(self, p: Any) -> None:
        super().on_get_file_info(p)
        p.short_file_name = self.shorts.get(p.file_name[1:], "")

    def on_enumerate_directory(self, p: Any) -> None:
        super().on_enumerate_directory(p)
        p.short_file_name = self.shorts.get(p.file_name, "")


LONG = "a long name.text"
LEARNT = {
    "by a look": "os.stat(at + '/' + long_name); os.stat(at + '/the other name')",
    "by a listing": "os.listdir(at)",
}


@pytest.mark.proves("use_short_file_names")
@pytest.mark.parametrize("learnt", LEARNT)
def test_a_short_name_is_known_by_what_the_drive_says_of_the_long_one(
    mount: Mounting, client: Client, learnt: str, options: dict[str, Any]
) -> None:
    drive = OnlyShortNames(ALONGN1=LONG, OTHER1="the other name")
    serve(mount, client, drive, use_short_file_names=True, **options)
    client.run(LEARNT[learnt], long_name=LONG)
    assert len(set(client.call(STATED, names=[LONG, "ALONGN1", "alongn1"]))) == 1
    assert client.call("open(at + '/ALONGN1').read()") == LONG
    client.run("os.truncate(at + '/ALONGN1', 1)")
    assert client.call("os.path.getsize(at + '/' + name)", name=LONG) == 1
    client.run("os.rename(at + '/ALONGN1', at + '/moved')")
    assert exists(client, LONG, "ALONGN1", "moved") == [False, False, True]
    client.run("os.unlink(at + '/other1')")
    assert exists(client, "the other name", "OTHER1") == [False] * 2
    assert list(drive.items) == ["/moved"]


def test_a_short_name_may_become_anothers(mount: Mounting, client: Client) -> None:
    drive = OnlyShortNames(ALONGN1=LONG)
    serve(mount, client, drive, use_short_file_names=True, config=FOREVER)
    client.run("os.listdir(at); os.unlink(at + '/' + name)", name=LONG)
    assert exists(client, "ALONGN1") == [False]
    drive.shorts = {"a longer name": "ALONGN1"}
    client.run("open(at + '/a longer name', 'w').close(); os.listdir(at)")
    assert exists(client, "ALONGN1") == [True]


def test_without_the_property_there_are_no_short_names(mount: Mounting, client: Client) -> None:
    serve(mount, client, OnlyShortNames(ALONGN1=LONG), config=FOREVER)
    client.run("os.listdir(at); os.stat(at + '/' + name)", name=LONG)
    assert exists(client, "ALONGN1") == [False]


def test_what_might_be_a_short_name_is_not_remembered_as_missing(
    mount: Mounting, client: Client
) -> None:
    drive = OnlyShortNames()
    options: dict[str, Any] = {"non_existent_files_cache_enabled": True, "config": FOREVER}
    record, _ = serve(mount, client, drive, use_short_file_names=True, **options)
    assert exists(client, "ALONGN1", "no short name.at all") == [False] * 2
    drive.shorts = {LONG: "ALONGN1"}
    client.run("open(at + '/' + name, 'w').close(); os.listdir(at)", name=LONG)
    record.clear()
    assert exists(client, "ALONGN1", "no short name.at all") == [True, False]
    assert f"/{LONG}" in {f.file_name for f in record.all("on_get_file_info")}
    assert not record.all("on_get_file_info", "/no short name.at all")


def test_an_older_kernel_forgets_the_name_a_moment_later(
    mount: Mounting, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbfsconnect.engine.engine.HAS_EPOCHS", False)
    monkeypatch.setattr("cbfsconnect.engine.operations.lookup.HAS_EPOCHS", False)
    options: dict[str, Any] = {"config": FOREVER, "non_existent_files_cache_enabled": True}
    serve(mount, client, FoldingDrive(Name=b"data"), **options)
    assert exists(client, "Name", "NAME", "New", "NEW") == [True, True, False, False]
    client.run("os.rename(at + '/NAME', at + '/New')")
    assert exists(client, "New", "NEW") == [True, True]
    client.run(UNTIL_GONE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount there")
def test_what_is_mounted_inside_stays(mount: Mounting, client: Client) -> None:
    drive = FoldingDrive(Name=b"data")
    drive.add_directory("/Dir")
    serve(mount, client, drive, config=FOREVER)
    at = client.call("at")
    assert exists(client, "Name", "NAME") == [True, True]
    run("mount", "-t", "tmpfs", "none", f"{at}/Dir")
    try:
        client.run("os.unlink(at + '/NAME')")
        client.run(UNTIL_GONE)
        assert client.call("os.path.ismount(at + '/Dir')")
    finally:
        run("umount", f"{at}/Dir")
