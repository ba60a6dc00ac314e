"""What any drive must keep, a read-only one too: about whatever is on it at first."""

from __future__ import annotations

from cbfsconnect.testing import features
from cbfsconnect.testing.registry import check
from cbfsconnect.testing.trial import NotSupported, Trial

_WALK = """
os.chdir(at)
listed = {}
todo = ["."]
while todo and len(listed) < 200:
    directory = todo.pop()
    with os.scandir(directory) as entries:
        for entry in entries:
            listed[entry.path] = entry
            if entry.is_dir(follow_symlinks=False):
                todo.append(entry.path)
"""
_FILES = (
    _WALK
    + """
files = [p for p in listed if stat.S_ISREG(os.lstat(p).st_mode)][:50]
"""
)


@check(
    "reading.root",
    "the root is a directory that can be listed",
    rule="Every path begins there: path_resolution(7).",
    hint="on_get_file_info must say file_exists True and FILE_ATTRIBUTE_DIRECTORY (or a mode with "
    "S_IFDIR) for '/'; on_enumerate_directory must set file_found False at the end.",
)
def root(t: Trial) -> None:
    """The root itself."""
    t.equal("stat.S_ISDIR(os.stat(at).st_mode)", True, at=t.drive.mountpoint)
    t("os.listdir(at)", at=t.drive.mountpoint)


@check(
    "reading.listed_exists",
    "what a listing names is there, and of the kind that the listing says",
    rule="readdir(3): an entry is a name in the directory, and d_type is its kind.",
    hint="on_enumerate_directory and on_get_file_info disagree: the names differ (a path where a "
    "name is wanted?), or attributes and mode do.",
)
def listed_exists(t: Trial) -> None:
    """Each listed name can be looked up."""
    t(_WALK, at=t.drive.mountpoint)
    t.equal("[p for p in listed if not os.path.lexists(p)]", [])
    t.equal(
        "[p for p, e in listed.items() if e.is_dir(follow_symlinks=False)"
        " != stat.S_ISDIR(os.lstat(p).st_mode)]",
        [],
    )


@check(
    "reading.nothing_twice",
    "a listing has each name once, and no '/' in it",
    rule="readdir(3): one entry for each name of the directory.",
    hint="on_enumerate_directory must begin anew when restart is True and keep its place in "
    "enumeration_context, not in the drive: several programs list at the same time.",
)
def nothing_twice(t: Trial) -> None:
    """Two readers at once each get every name once."""
    if features.missing("create", t.cbfs) is None:
        t(
            """
            length = min(150, os.statvfs(".").f_namemax)
            for i in range(250):  # so that a listing takes several requests
                name = f"one of many names, number {i}, ".ljust(length, "-")
                os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
            """
        )
    else:
        t("os.chdir(at)", at=t.drive.mountpoint)
    t.equal("[n for n in os.listdir() if '/' in n or os.listdir().count(n) != 1][:5]", [])
    t(
        """
        alone = sorted(os.listdir())
        with os.scandir() as one, os.scandir() as two:
            first, second = [], []
            for a in one:
                first.append(a.name)
                b = next(two, None)
                if b is not None:
                    second.append(b.name)
            second += [b.name for b in two]
        """
    )
    t.equal("sorted(first) == alone, sorted(second) == alone", (True, True))


@check(
    "reading.sizes",
    "files have as many bytes as stat says, and reading ends there",
    rule="read(2): 0 bytes mean the end of the file, which is at st_size: stat(2).",
    hint="on_get_file_info gives another size than on_read_file has data; or on_read_file leaves "
    "bytes_read less than bytes_to_read before the end: the kernel takes that for the end.",
)
def sizes(t: Trial) -> None:
    """Sizes of up to 50 files."""
    t(_FILES, at=t.drive.mountpoint)
    if not t.value("len(files)"):
        raise NotSupported("there is no file on it at first")
    t.equal("[p for p in files if len(read(p)) != os.stat(p).st_size]", [])
    t.equal(
        "[p for p in files for f in [open(p, 'rb', 0)] if f.seek(0, 2) + 10 and f.read(10)]", []
    )


@check(
    "reading.pieces",
    "a file read in pieces, or from the middle, is the file read at once",
    rule="pread(2) reads from the given offset; the bytes of a file do not depend on how.",
    hint="on_read_file must begin at position, and copy min(bytes_to_read, size - position) bytes.",
)
def pieces(t: Trial) -> None:
    """Reading at odd positions."""
    t(_FILES, at=t.drive.mountpoint)
    if not t.value("len(files)"):
        raise NotSupported("there is no file on it at first")
    t(
        """
        def in_pieces(path, size):
            fd = os.open(path, os.O_RDONLY)
            parts = [os.pread(fd, size, at) for at in range(0, os.fstat(fd).st_size, size)]
            os.close(fd)
            return b"".join(parts)
        """
    )
    t.equal(
        "[p for p in files if os.stat(p).st_size < 1 << 20 and in_pieces(p, 999) != read(p)]", []
    )


@check(
    "reading.missing",
    "what is not there is ENOENT, and a file is no directory",
    rule="open(2), ENOENT: a component of the path does not exist; ENOTDIR: one is no directory.",
    hint="on_get_file_info must leave file_exists False (or raise FileNotFoundError) for names "
    "that are not there.",
)
def missing(t: Trial) -> None:
    """Names that nobody has made."""
    t("os.chdir(at)", at=t.drive.mountpoint)
    t.fails("os.stat('this name is not there')", "ENOENT")
    t.fails("os.open('this name is not there', os.O_RDONLY)", "ENOENT")
    t.fails("os.listdir('not there/nor there')", "ENOENT")
    name = t.value("next((e.name for e in os.scandir() if e.is_file()), None)")
    if name is not None:
        t.fails("os.stat(name + '/below')", "ENOTDIR", name=name)


@check(
    "reading.size_of_drive",
    "df has sensible numbers",
    "size of the drive",
    rule="statvfs(3): f_bavail <= f_bfree <= f_blocks.",
    hint="on_get_volume_size gives sectors (setting SectorSize, 512 bytes), not bytes.",
)
def size_of_drive(t: Trial) -> None:
    """The numbers of statvfs."""
    t("volume = os.statvfs(at)", at=t.drive.mountpoint)
    t.equal("0 <= volume.f_bavail <= volume.f_bfree <= volume.f_blocks", True)
    t.equal("volume.f_blocks > 0 and volume.f_bsize > 0 and volume.f_namemax > 0", True)
