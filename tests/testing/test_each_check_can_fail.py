"""For each check a drive that is broken in one way: the check finds it, and says why."""

from __future__ import annotations

import errno
import itertools
import re
import stat
from collections.abc import Callable
from typing import Any

import pytest

from cbfsconnect import MemoryDrive
from cbfsconnect.constants import FILE_ATTRIBUTE_DIRECTORY
from cbfsconnect.testing import CHECKS, Outcome, check_drive
from support.breakable import (
    Change,
    LockingDrive,
    LockingMirror,
    StoredDictionary,
    after,
    broken,
    leaking,
    nothing,
    refusing,
    unless,
    with_params,
)

Case = tuple[Callable[..., Any], list[str]]
"""A factory, and what the explanation must match."""

FIRE_ALL = {"fire_all_open_close_events": True}
STREAM = "\0"


def of_regular_file(content: bytes = b"0123456789" * 500) -> Callable[..., MemoryDrive]:
    """A memory drive that has a file at first."""

    def make() -> MemoryDrive:
        drive = MemoryDrive()
        node = drive._tree.create("/at first", stat.S_IFREG | 0o644, 0, 0, 0)
        node.write(drive._space, 0, memoryview(content))
        return drive

    return make


def name_of(p: Any) -> str:
    """The last component of the path."""
    return str(p.file_name.rpartition("/")[2])


def every(number: int) -> Callable[[Any], bool]:
    """True now and then."""
    turn = itertools.count(1)
    return lambda p: next(turn) % number == 0


def exists(drive: Any, path: str) -> bool:
    """Whether the memory drive has an item."""
    try:
        drive._tree.get(path)
    except OSError:
        return False
    return True


# --- handlers that are wrong ----------------------------------------------------------------------


def ghost(drive: Any, p: Any, right: Change) -> None:
    """Lists one name more than there is."""
    right(p)
    if not p.file_found and not getattr(drive, "haunted", False):
        drive.haunted = True
        p.file_found, p.file_name = True, "ghost"
    elif p.restart:
        drive.haunted = False


def one_place_for_all(drive: Any, p: Any, right: Change) -> None:
    """Keeps the place of a listing in the drive."""
    if not p.restart:
        p.enumeration_context = drive.place
    right(p)
    drive.place = p.enumeration_context


def stale_listing(drive: Any, p: Any, right: Change) -> None:
    """Makes the list of names once and for ever."""
    lists = vars(drive).setdefault("lists", {})
    if p.restart:
        if p.directory_name not in lists:
            found = lists[p.directory_name] = []
            while True:
                right(p)
                if not p.file_found:
                    break
                found.append(p.file_name)
                p.renew(p.directory_name, False)
        p.enumeration_context = iter(lists[p.directory_name])
    p.mode, p.attributes, p.file_name = None, 0, next(p.enumeration_context, "")
    p.file_found = bool(p.file_name)


def all_below(drive: Any, p: Any, right: Change) -> None:
    """Lists what lies deeper, too."""
    if p.restart:
        found, todo = list[str](), [drive._tree.get(p.directory_name)]
        while todo:
            children = getattr(todo.pop(), "children", {})
            found += children
            todo += children.values()
        p.enumeration_context = iter(found)
    p.file_name = next(p.enumeration_context, "")
    p.file_found = bool(p.file_name)


def live_listing(drive: Any, p: Any, right: Change) -> None:
    """Walks a dictionary that changes meanwhile."""
    if p.restart:
        p.enumeration_context = iter(drive._tree.get(p.directory_name).children)
    name = next(p.enumeration_context, None)
    p.file_found, p.file_name = name is not None, name or ""


def no_more_than(number: int) -> Change:
    """Ends each listing early."""

    def handler(drive: Any, p: Any, right: Change) -> None:
        count = vars(drive).setdefault("count", {})
        count[p.directory_name] = 0 if p.restart else count[p.directory_name] + 1
        right(p)
        if count[p.directory_name] >= number:
            p.file_found = False

    return handler


def short_read(drive: Any, p: Any, right: Change) -> None:
    """Gives half of what is asked for."""
    right(p)
    p.bytes_read = max(1, p.bytes_read // 2) if p.bytes_read else 0


def pretend(drive: Any, p: Any, right: Change) -> None:
    """Says that it has written."""
    p.bytes_written = p.bytes_to_write


def own_position(drive: Any, p: Any, right: Change) -> None:
    """Counts the positions of each open itself, from 0."""
    positions = vars(drive).setdefault("positions", {})
    p._position = positions.get(p.handle_info, 0)
    right(p)
    positions[p.handle_info] = p._position + p.bytes_written


def exists_already(drive: Any, p: Any, right: Change) -> None:
    """Has an errno of its own for names that are there."""
    if exists(drive, p.file_name):
        raise PermissionError(errno.EACCES, "exists")
    right(p)


def blind(drive: Any, p: Any, right: Change) -> None:
    """Does not see files that nobody has open."""
    unseen = any(word in name_of(p) for word in ("file", "only", "two"))
    if p.file_context or not unseen:
        right(p)


def make_or_take(drive: Any, p: Any, right: Change) -> None:
    """Makes a file, or takes the one that is there."""
    if exists(drive, p.file_name):
        p.file_context = drive._tree.get(p.file_name)
        p.file_context.opens += 1
    else:
        right(p)


def cut_only(drive: Any, p: Any, right: Change) -> None:
    """Does not make files longer."""
    if p.size < p.file_context.size:
        right(p)


def by_name(drive: Any, p: Any, right: Change) -> None:
    """Uses what has the name now, not what is open."""
    p.file_context = drive._tree.get(p.file_name)
    right(p)


def by_first_name(drive: Any, p: Any, right: Change) -> None:
    """Uses what has the name that the file was made under."""
    first = vars(drive).setdefault("first", {}).setdefault(p.file_context, p.file_name)
    drive._tree.get(first)
    right(p)


def snapshot_at_open(drive: Any, p: Any, right: Change) -> None:
    """Reads what the file was when the handle was first used."""
    kept = vars(drive).setdefault("kept", {})
    right(p)
    data = kept.setdefault(p.handle_info, bytes(p.buffer_view[: p.bytes_read]))
    p.buffer_view[: len(data)] = data
    p.bytes_read = len(data)


def second_page_is_empty(drive: Any, p: Any, right: Change) -> None:
    """Forgets everything behind the first page."""
    right(p)
    for i in range(max(0, 4096 - p.position), p.bytes_read):
        p.buffer_view[i] = 0


def no_more_files_than(number: int) -> Change:
    """Has few places for open files."""

    def handler(drive: Any, p: Any, right: Change) -> None:
        drive.made = getattr(drive, "made", 0) + 1
        if drive.made > number:
            raise OSError(errno.EMFILE, "no more")
        right(p)

    return handler


def no_letter_case(drive: Any, p: Any, right: Change) -> None:
    """Finds names in any letter case."""
    directory, _, name = p.file_name.rpartition("/")
    for stored in drive._tree.get(directory or "/").children:
        if stored.lower() == name.lower():
            raise FileExistsError(errno.EEXIST, "in another letter case")
    right(p)


def windows_rename(drive: Any, p: Any, right: Change) -> None:
    """Refuses to replace, as MoveFile does."""
    if exists(drive, p.new_file_name):
        raise FileExistsError(errno.EEXIST, "exists")
    right(p)


def not_full(drive: Any, p: Any, right: Change) -> None:
    """Has an errno of its own for directories that are full."""
    try:
        right(p)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise PermissionError(errno.EACCES, "full") from None
        raise


def own_id(p: Any) -> None:
    p.file_id = abs(hash(p.file_name)) + 1 if name_of(p) in ("one", "two") else p.file_id


def one_name_only(drive: Any, p: Any, right: Change) -> None:
    if p.enumeration_context:
        p.link_found = False
    else:
        right(p)


def first_stream_only(drive: Any, p: Any, right: Change) -> None:
    right(p)
    if p.stream_name.startswith(":b"):
        right(p)


def shorter_target(p: Any) -> None:
    p.reparse_buffer_length -= 1


def regular_always(p: Any) -> None:
    if p.mode is not None and not stat.S_ISDIR(p.mode):
        p.mode = stat.S_IFREG | stat.S_IMODE(p.mode)


def no_directories(p: Any) -> None:
    if p.file_name.endswith("directory"):
        p.mode, p.attributes = stat.S_IFREG | 0o644, 0x80


def only_exact_ranges(drive: Any, p: Any, right: Change) -> None:
    wanted = (p.file_name, p.handle_info, p.byte_offset, p.byte_offset + p.length - 1)
    drive.locks = [lock for lock in drive.locks if lock[:4] != wanted]


def whole_file_only(drive: Any, p: Any, right: Change) -> None:
    p._byte_offset, p._length = 0, 1 << 62
    right(p)


def forgets_all(drive: Any, p: Any, right: Change) -> None:
    drive.__init__()


def key_error(drive: Any, p: Any, right: Change) -> None:
    right(p)
    if name_of(p) == "file":
        raise KeyError(p.file_name)


def flush_later(drive: Any, p: Any, right: Change) -> None:
    """Says that all is stored."""


def leak_at_restart(drive: Any, p: Any, right: Change) -> None:
    """Keeps each listing in a table until its last entry was given."""
    table = vars(drive).setdefault("table", {})
    if p.restart:
        table[p.handle_info] = [p]
    right(p)
    if not p.file_found:
        table.pop(p.handle_info, None)


def missing_is_denied(drive: Any, p: Any, right: Change) -> None:
    right(p)
    if not p.file_exists and not name_of(p).startswith("check"):
        raise PermissionError(errno.EACCES, "nothing here")


LARGE = with_params(position=lambda drive, p: 0)

CASES: dict[str, Case] = {
    "reading.root": (
        broken(on_enumerate_directory=refusing(errno.EACCES)),
        ["os.listdir", "EACCES", "file_found False at the end"],
    ),
    "reading.listed_exists": (
        broken(on_enumerate_directory=ghost),
        [r"\['./ghost'\]", "d_type is its kind", r"on_get_file_info\(file_name='/ghost'"],
    ),
    "reading.nothing_twice": (
        broken(on_enumerate_directory=one_place_for_all),
        [r"expected +\(True, True\)", "enumeration_context, not in the drive"],
    ),
    "reading.sizes": (
        broken(of_regular_file(), on_get_file_info=after(lambda p: setattr(p, "size", p.size + 5))),
        ["'./at first'", "0 bytes mean the end of the file", "another size than on_read_file"],
    ),
    "reading.pieces": (
        broken(of_regular_file(), on_read_file=LARGE),
        ["'./at first'", "must begin at position"],
    ),
    "reading.missing": (
        broken(on_get_file_info=missing_is_denied),
        ["expected +OSError ENOENT", "came +OSError EACCES", "leave file_exists False"],
    ),
    "reading.size_of_drive": (
        broken(
            on_get_volume_size=after(lambda p: setattr(p, "available_sectors", p.total_sectors * 2))
        ),
        ["f_bavail <= f_bfree"],
    ),
    "files.write_and_read": (
        broken(on_write_file=pretend),
        ["Hello, d", "a read after a write returns the data written"],
    ),
    "files.every_byte": (
        broken(on_read_file=short_read),
        ["4097", "must give all of bytes_to_read", "on_read_file"],
    ),
    "files.positions": (
        broken(on_write_file=with_params(position=lambda d, p: p.position and p.position + 1)),
        [r"os\.pwrite", "at position 50003", "writes at the given offset"],
    ),
    "files.append": (
        broken(properties=FIRE_ALL, on_write_file=own_position),
        [
            r"expected +b'first\\nsecond\\nthird\\nfourth\\n'",
            "O_APPEND: before each write",
            "counting positions",
            "two = os.open",
        ],
    ),
    "files.exclusive": (
        broken(on_get_file_info=blind, on_create_file=exists_already),
        [
            "O_CREAT . os.O_EXCL",
            "expected +OSError EEXIST",
            "came +OSError EACCES",
            r"on_create_file\(.*\) → raised PermissionError",
            "another\n? *error than EEXIST",
        ],
    ),
    "files.race_to_create": (
        broken(on_get_file_info=blind, on_create_file=make_or_take),
        ["only one", "under one lock"],
    ),
    "files.truncate_at_open": (
        broken(on_set_file_size=unless(lambda p: p.size == 0)),
        ["O_TRUNC", r"on_set_file_size\(.*size=0", "on_set_file_size with size 0"],
    ),
    "files.truncate": (
        broken(on_set_file_size=cut_only),
        [r"expected +b'0123\\x00", "fill up\n? *with zeros"],
    ),
    "files.sparse": (
        broken(
            on_write_file=with_params(position=lambda d, p: min(p.position, p.file_context.size))
        ),
        ["200_000", "a gap, which reads as zeros"],
    ),
    "files.fallocate": (broken(on_set_file_size=cut_only), ["10000", "offset . len"]),
    "files.two_descriptors": (
        broken(properties=FIRE_ALL, on_read_file=snapshot_at_open),
        ["pread.reader", "not on a copy that each\n? *open makes"],
    ),
    "files.unlinked_open": (
        broken(on_read_file=by_name),
        ["os.unlink|os.pread", "must go by file_context", "→ raised FileNotFoundError"],
    ),
    "files.mapped": (
        broken(on_read_file=second_page_is_empty),
        ["MAP_SHARED", "at position 4096"],
    ),
    "files.sync": (
        broken(on_flush_file=refusing(errno.EINVAL)),
        ["os.fsync", "came +OSError EINVAL", r"on_flush_file\(.*raised OSError"],
    ),
    "files.many_open": (
        broken(on_create_file=no_more_files_than(100)),
        ["EMFILE", "under a key that repeats"],
    ),
    "files.many_writers": (
        broken(
            on_write_file=lambda d, p, right: (
                setattr(p, "bytes_written", p.bytes_to_write) if p.position == 9000 else right(p)
            )
        ),
        ["at position 9000", "loses what came between"],
    ),
    "files.copy": (
        broken(
            on_write_file=lambda d, p, right: (
                setattr(p, "bytes_written", p.bytes_to_write)
                if p.file_name.endswith("two") and p.position > 100_000
                else right(p)
            )
        ),
        ["copy_file_range", "read.'two'."],
    ),
    "files.no_surprise_on_directories": (
        broken(on_get_file_info=after(no_directories)),
        ["os.mkdir", "EIO"],
    ),
    "names.made_and_deleted": (
        broken(on_delete_file=nothing),
        ["'file' in os.listdir", "look at the same place|sees"],
    ),
    "names.every_byte": (
        broken(
            on_enumerate_directory=after(lambda p: setattr(p, "file_name", p.file_name.strip()))
        ),
        ["leading and trailing blanks", "stripping"],
    ),
    "names.not_utf8": (
        broken(
            on_enumerate_directory=after(
                lambda p: setattr(p, "file_name", p.file_name.encode("utf-8", "replace").decode())
            )
        ),
        ["latin-1", "os.fsencode"],
    ),
    "names.long": (
        broken(on_create_file=refusing(errno.ENAMETOOLONG, lambda p: len(name_of(p)) > 100)),
        ["longest", "max_file_name_length"],
    ),
    "names.letter_case": (
        broken(on_create_file=no_letter_case),
        ["'NAME'", "use_case_sensitive_file_names is True"],
    ),
    "names.rename": (
        broken(on_rename_or_move_file=nothing),
        ["os.rename.'old', 'new'", r"on_rename_or_move_file\(file_name='/check", "must move"],
    ),
    "names.rename_over": (
        broken(on_rename_or_move_file=windows_rename),
        ["came +OSError EEXIST", "atomically replaced", "MOVEFILE_REPLACE_EXISTING"],
    ),
    "names.rename_over_open": (
        broken(on_read_file=by_name),
        [r"\(b'old', b'new'\)", "must go by file_context"],
    ),
    "names.rename_open": (
        broken(on_write_file=by_first_name),
        ["ENOENT", "by the path of their open"],
    ),
    "names.no_replace": (
        broken(on_get_file_info=blind),
        ["renameat2", "RENAME_NOREPLACE"],
    ),
    "names.exchange": (
        broken(on_rename_or_move_file=with_params(exchange=lambda d, p: False)),
        ["renameat2", "SupportExchange"],
    ),
    "directories.made_and_removed": (
        broken(on_is_directory_empty=refusing(errno.EACCES)),
        ["os.rmdir.'d'", "expected +OSError ENOTEMPTY or OSError EEXIST", "EACCES"],
    ),
    "directories.own_names": (
        broken(on_enumerate_directory=all_below),
        ["'below', 'd', 'd2'", "may lie deeper"],
    ),
    "directories.deep": (
        broken(on_create_file=refusing(errno.ENOENT, lambda p: p.file_name.count("/") > 12)),
        ["os.makedirs", "all components"],
    ),
    "directories.moved": (
        broken(on_rename_or_move_file=unless(lambda p: p.new_file_name.endswith("/new"))),
        ["'a/b', 'z/new'", "directories too"],
    ),
    "directories.rename_over": (
        broken(on_rename_or_move_file=not_full),
        ["os.rename.'d', 'full'", "came +OSError EACCES", "refuse with ENOTEMPTY"],
    ),
    "directories.big": (
        broken(on_enumerate_directory=no_more_than(500)),
        ["expected +1000", "came +500", "in many requests"],
    ),
    "directories.rewound": (
        broken(on_enumerate_directory=stale_listing),
        ["'later'", "If restart is True"],
    ),
    "directories.changing": (
        broken(on_enumerate_directory=live_listing),
        ["EIO", "dictionary changed size|dictionary keys changed", "next.p.enumeration_context"],
    ),
    "directories.many_makers": (
        broken(on_create_file=refusing(errno.EBUSY, every(50))),
        ["EBUSY", "needs a lock"],
    ),
    "directories.same_place": (
        broken(on_delete_file=nothing),
        ["must be done when it returns"],
    ),
    "links.hard": (
        broken(on_get_file_info=after(own_id)),
        ["samefile", "the same file_id"],
    ),
    "links.hard_names": (
        broken(on_enumerate_hard_links=one_name_only),
        ["'d/two', 'one'", "parent_id"],
    ),
    "links.symbolic": (
        broken(on_get_reparse_point=after(shorter_target)),
        ["os.readlink", "came +'fil'", "reparse_buffer_length"],
    ),
    "links.special": (broken(on_get_file_info=after(regular_always)), ["mkfifo", "S_IFIFO"]),
    "attributes.new_mode": (
        broken(
            on_create_file=with_params(
                mode=lambda d, p: (
                    p.mode if p.attributes & FILE_ATTRIBUTE_DIRECTORY else stat.S_IFREG | 0o644
                )
            )
        ),
        ["0o640", "the umask is taken off already"],
    ),
    "attributes.chmod": (
        broken(on_set_file_attributes=unless(lambda p: p.mode is not None)),
        ["os.chmod", r"on_set_file_attributes\(.*mode=0o|none: the kernel", "mode not None"],
    ),
    "attributes.chown": (
        broken(on_set_file_attributes=with_params(gid=lambda d, p: None)),
        [r"expected +\(1, 2\)", "has uid and gid"],
    ),
    "attributes.times": (
        broken(on_set_file_attributes=with_params(last_write_time_ns=lambda d, p: None)),
        ["3600", "last_write_time_ns and last_access_time_ns"],
    ),
    "attributes.streams": (
        broken(on_set_file_size=unless(lambda p: STREAM in p.file_name)),
        ["b'shorter'", "A new value replaces the old"],
    ),
    "attributes.stream_names": (
        broken(on_enumerate_named_streams=first_stream_only),
        ["user.a", "then named_stream_found False"],
    ),
    "locks.conflict": (
        broken(LockingDrive, on_lock_file=whole_file_only),
        ["process 2", "EAGAIN", "must not for ranges that do not overlap"],
    ),
    "locks.released": (
        broken(LockingDrive, on_unlock_file=only_exact_ranges),
        ["LOCK_EX", "EAGAIN", "may cover several"],
    ),
    "locks.waiting": (
        broken(
            LockingDrive,
            on_lock_file=refusing(errno.EDEADLK, every(2)),
        ),
        ["EDEADLK", "it must not wait|F_SETLKW"],
    ),
    "locks.whole_file": (
        broken(LockingDrive, on_lock_file=refusing(errno.EINVAL, lambda p: p.length > 1 << 62)),
        ["flock", "EINVAL", "up to 2..63"],
    ),
    "locks.unmounted": (
        broken(LockingDrive, on_unlock_file=nothing),
        ["mounted again", "EAGAIN", "on_unlock_file must give up"],
    ),
    "locks.of_others": (
        broken(LockingMirror, stored=True, on_lock_file=nothing),
        ["process|LOCK_EX", "came +success", "must ask the storage"],
    ),
    "contexts.balanced": (
        broken(on_close_file=key_error),
        ["KeyError", "test_each_check_can_fail.py", "on_close_file"],
    ),
    "contexts.nothing_left_of_files": (
        broken(on_open_file=leaking),
        ["more objects for each on_open_file", "breakable.py", "an entry of a table"],
    ),
    "contexts.nothing_left_of_handles": (
        broken(properties=FIRE_ALL, on_open_file=leaking),
        ["more objects", "one thing for each handle_info"],
    ),
    "contexts.nothing_left_of_listings": (
        broken(
            on_enumerate_directory=lambda d, p, right: (
                leaking(d, p, right) if p.restart else right(p)
            )
        ),
        ["more objects for each on_enumerate_directory", "breakable.py"],
    ),
    "contexts.nothing_left_of_abandoned_listings": (
        broken(on_enumerate_directory=leak_at_restart),
        ["more objects", "comes in any case"],
    ),
    "contexts.nothing_left_of_streams": (
        broken(on_enumerate_named_streams=leaking),
        ["more objects", "listxattr"],
    ),
    "contexts.nothing_left_of_hard_link_names": (
        broken(on_enumerate_hard_links=leaking),
        ["more objects", "enumerate_hard_links"],
    ),
    "contexts.nothing_left_of_failures": (
        broken(on_get_file_info=leaking),
        ["more objects for each on_get_file_info"],
    ),
    "durability.remount": (
        broken(on_unmount=forgets_all),
        ["unmounted, mounted again", "ENOENT", "on_unmount is the last event"],
    ),
    "durability.fsync": (
        broken(StoredDictionary, stored=True, on_flush_file=flush_later),
        ["kill -9", "ENOENT|at position", "not in on_close_file only"],
    ),
}


def test_there_is_a_broken_drive_for_each_check() -> None:
    assert list(CASES) == list(CHECKS)


@pytest.mark.parametrize("name", CASES)
def test_a_broken_drive_is_found(name: str) -> None:
    factory, words = CASES[name]
    result = check_drive(factory, select=name)[name]
    assert result.outcome is Outcome.FAILED, f"{result.outcome}: {result.message}"
    explained = re.sub(r"\n {10,}", " ", result.message)
    for word in words:
        assert re.search(word, explained) or re.search(word, result.message), (
            f"{word!r} is not in:\n{result.message}"
        )
