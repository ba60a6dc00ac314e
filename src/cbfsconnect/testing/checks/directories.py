"""Directories: made, removed, moved, listed while they change."""

from __future__ import annotations

from cbfsconnect.testing.registry import check
from cbfsconnect.testing.trial import Trial

_LIST_HINT = (
    "on_enumerate_directory must give each name once: begin anew if restart is True, keep the "
    "place in enumeration_context, and not stumble when names come and go meanwhile (a copy of "
    "the list of names, made at restart, is enough)."
)


@check(
    "directories.made_and_removed",
    "directories are made and removed",
    "create",
    "delete",
    rule="mkdir(2), EEXIST; rmdir(2), ENOTEMPTY, ENOTDIR; unlink(2), EISDIR.",
    hint="on_create_file makes a directory if bit 0x10 (FILE_ATTRIBUTE_DIRECTORY) of attributes "
    "is set; on_delete_file gets directories too.",
)
def made_and_removed(t: Trial) -> None:
    """With all refusals."""
    t.probe("os.mkdir('d')", "directories")
    t.equal("stat.S_ISDIR(os.stat('d').st_mode), os.listdir('d')", (True, []))
    t.fails("os.mkdir('d')", "EEXIST")
    t("os.mkdir('d/below'); os.close(os.open('d/file', os.O_CREAT | os.O_WRONLY))")
    t.equal("sorted(os.listdir('d'))", ["below", "file"])
    t.fails(
        "os.rmdir('d')",
        "ENOTEMPTY",
        "EEXIST",
        rule="rmdir(2), ENOTEMPTY.",
        hint="on_is_directory_empty said that it is empty; or use_directory_empty_check is off "
        "and on_delete_file deletes full directories.",
    )
    t.equal("sorted(os.listdir('d'))", ["below", "file"], rule="A refused rmdir changes nothing.")
    t.fails("os.rmdir('d/file')", "ENOTDIR")
    t.fails("os.unlink('d/below')", "EISDIR", "EPERM")
    t("os.unlink('d/file'); os.rmdir('d/below'); os.rmdir('d')")
    t.fails("os.stat('d')", "ENOENT")
    t.equal("'d' in os.listdir()", False)


@check(
    "directories.own_names",
    "a listing has what is in the directory, not what is further down",
    "create",
    rule="readdir(3): the entries of this directory.",
    hint="on_enumerate_directory must give names whose path is directory_name, one '/', and the "
    "name: a path that only begins with directory_name may lie deeper, or beside it.",
)
def own_names(t: Trial) -> None:
    """Directories with similar names, and one in another."""
    t.probe("os.makedirs('d/below/deeper'); os.mkdir('dd'); os.mkdir('d2')", "directories")
    t("os.close(os.open('d/below/file', os.O_CREAT | os.O_WRONLY))")
    t.equal("sorted(os.listdir())", ["d", "d2", "dd"])
    t.equal("os.listdir('d')", ["below"])
    t.equal("sorted(os.listdir('d/below')), os.listdir('dd')", (["deeper", "file"], []))


@check(
    "directories.deep",
    "directories in directories, twenty deep",
    "write",
    rule="path_resolution(7).",
    hint="The drive must find an item by all components of its path.",
)
def deep(t: Trial) -> None:
    """A long path."""
    t.probe("os.mkdir('d')", "directories")
    t("path = '/'.join(['d'] * 20); os.makedirs(path, exist_ok=True); write(path + '/file', b'x')")
    t.equal("read(path + '/file'), os.listdir(path)", (b"x", ["file"]))


@check(
    "directories.moved",
    "a directory moves with all that is in it, open files too",
    "write",
    "rename",
    rule="rename(2): a directory's content moves along; open descriptors are unaffected.",
    hint="on_rename_or_move_file gets directories too: keys of everything below change.",
)
def moved(t: Trial) -> None:
    """From one directory to another."""
    t.probe("os.makedirs('a/b/c'); os.mkdir('z')", "directories")
    t("write('a/b/file', b'1'); write('a/b/c/deeper', b'2')")
    t("fd = os.open('a/b/file', os.O_RDWR)")
    t("os.rename('a/b', 'z/new')")
    t.equal("os.listdir('a'), sorted(os.listdir('z/new'))", ([], ["c", "file"]))
    t.equal("read('z/new/file'), read('z/new/c/deeper')", (b"1", b"2"))
    t.fails("os.stat('a/b/file')", "ENOENT")
    t("os.pwrite(fd, b'still here', 0); os.close(fd)")
    t.equal("read('z/new/file')", b"still here")


@check(
    "directories.rename_over",
    "a directory replaces an empty one, and nothing else",
    "write",
    "rename",
    "delete",
    rule="rename(2), ENOTEMPTY or EEXIST: newpath is a nonempty directory; EISDIR, ENOTDIR: one "
    "is a directory, the other is not; EINVAL: a directory into itself.",
    hint="on_is_directory_empty, or the listing of the directory, is wrong; with PosixDelete "
    "on_rename_or_move_file itself must refuse with ENOTEMPTY.",
)
def rename_over(t: Trial) -> None:
    """All combinations."""
    t.probe("os.mkdir('empty'); os.mkdir('full'); os.mkdir('d')", "directories")
    t("write('full/file', b'kept'); write('d/content', b'moved'); write('file', b'f')")
    t.fails("os.rename('d', 'full')", "ENOTEMPTY", "EEXIST")
    t.equal("read('full/file'), read('d/content')", (b"kept", b"moved"))
    t.fails("os.rename('file', 'empty')", "EISDIR")
    t.fails("os.rename('d', 'file')", "ENOTDIR")
    t.fails("os.rename('d', 'd/below')", "EINVAL")
    t("os.rename('d', 'empty')")
    t.equal("os.listdir('empty'), os.path.exists('d')", (["content"], False))


@check(
    "directories.big",
    "a directory of 1000 names is listed whole",
    "create",
    rule="readdir(3).",
    hint="A listing comes in many requests. " + _LIST_HINT,
)
def big(t: Trial) -> None:
    """More than fits into one reply of the kernel."""
    t(
        """
        before = set(os.listdir())
        wanted = sorted(f"a name of some length, number {i}" for i in range(1000))
        for name in wanted:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        """
    )
    t.equal("len(os.listdir()) - len(before)", 1000)
    t.equal("sorted(set(os.listdir()) - before) == wanted", True)


@check(
    "directories.rewound",
    "a listing that is rewound begins anew",
    "create",
    rule="rewinddir(3): it refers to the current state of the directory.",
    hint="If restart is True on_enumerate_directory begins anew, whatever enumeration_context is.",
)
def rewound(t: Trial) -> None:
    """Listing twice by one descriptor."""
    t("for n in 'abc': os.close(os.open(n, os.O_CREAT | os.O_WRONLY))")
    t("d = os.open('.', os.O_RDONLY)")
    t("first = os.listdir(d); os.close(os.open('later', os.O_CREAT | os.O_WRONLY))")
    t("os.lseek(d, 0, 0); second = os.listdir(d); os.close(d)")
    t.equal("sorted(set(second) - set(first)), sorted(set(first) - set(second))", (["later"], []))


@check(
    "directories.changing",
    "what stays is listed once, while other names come and go",
    "create",
    "delete",
    rule="readdir(3): names that are neither added nor removed meanwhile are returned once.",
    hint=_LIST_HINT,
)
def changing(t: Trial) -> None:
    """A listing that is interrupted by changes."""
    t(
        """
        length = min(150, os.statvfs(".").f_namemax)  # so that a listing takes several requests
        stays = {f"this one stays where it is, number {i} ".ljust(length, "-") for i in range(200)}
        goes = [f"this one goes away, number {i} ".ljust(length, "-") for i in range(200)]
        for name in [n for pair in zip(sorted(stays), goes) for n in pair]:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        """
    )
    t(
        """
        seen = []
        with os.scandir() as entries:
            for number, entry in enumerate(entries):
                seen.append(entry.name)
                if number % 2 == 0 and goes:
                    os.unlink(goes.pop())
                    os.close(os.open(f"new {number}", os.O_CREAT | os.O_WRONLY))
                if number > 5000:
                    break
        """
    )
    t.equal("sorted(n for n in stays if seen.count(n) != 1)[:5]", [])


@check(
    "directories.many_makers",
    "processes that make and delete names of one directory at once do not disturb each other",
    "write",
    "delete",
    rule="open(2), unlink(2): each call is about its own name.",
    hint="Handlers of different files run at the same time: what they share, such as the "
    "dictionary of a directory, needs a lock.",
)
def many_makers(t: Trial) -> None:
    """Four at once."""
    t(
        """
        before = set(os.listdir())
        def make(i):
            for turn in range(30):
                write(f"{i}-{turn}", b"x")
                os.listdir()
                if turn % 3:
                    os.unlink(f"{i}-{turn}")
        together(4, make)
        """
    )
    wanted = sorted(f"{i}-{turn}" for i in range(4) for turn in range(0, 30, 3))
    t.equal("sorted(set(os.listdir()) - before)", wanted)


@check(
    "directories.same_place",
    "a name is free again at once when it was deleted, for a directory as for a file",
    "write",
    "delete",
    rule="unlink(2), mkdir(2): a name can be used again at once.",
    hint="on_delete_file must be done when it returns.",
)
def same_place(t: Trial) -> None:
    """File, directory, file under one name."""
    t("write('name', b'file'); os.unlink('name')")
    t.probe("os.mkdir('name')", "directories")
    t("write('name/below', b''); os.unlink('name/below'); os.rmdir('name')")
    t("write('name', b'file again')")
    t.equal("read('name')", b"file again")
