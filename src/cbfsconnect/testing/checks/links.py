"""Hard links, symbolic links, special files."""

from __future__ import annotations

from cbfsconnect.testing.registry import check
from cbfsconnect.testing.trial import Trial


@check(
    "links.hard",
    "two names of a file are one file",
    "write",
    "hard links",
    "delete",
    rule="link(2): both names refer to the same file; st_nlink counts them: stat(2).",
    hint="After on_create_hard_link on_get_file_info must give the same file_id, size and "
    "hard_link_count for both names; deleting one of them leaves the file.",
)
def hard(t: Trial) -> None:
    """Made, used, taken away."""
    t("write('one', b'1')")
    t.probe("os.link('one', 'two')", "hard links")
    t.equal("os.path.samefile('one', 'two'), os.stat('two').st_nlink", (True, 2))
    t("fd = os.open('two', os.O_WRONLY | os.O_APPEND); os.write(fd, b'2'); os.close(fd)")
    t.equal("read('one'), read('two'), os.stat('one').st_size", (b"12", b"12", 2))
    t("write('three')")
    t.fails("os.link('one', 'three')", "EEXIST")
    t("os.unlink('one')")
    t.fails("os.stat('one')", "ENOENT")
    t.equal("read('two'), os.stat('two').st_nlink", (b"12", 1))


@check(
    "links.hard_names",
    "cbfsconnect.enumerate_hard_links knows all names of a file",
    "write",
    "hard links",
    "hard link names",
    rule="The contract of on_enumerate_hard_links: one name and the id of its directory each.",
    hint="parent_id is the file_id of the directory, ROOT_FILE_ID for the root; "
    "on_get_file_name_by_file_id turns ids into paths.",
)
def hard_names(t: Trial) -> None:
    """Names in two directories."""
    t.probe("os.mkdir('d'); write('one'); os.link('one', 'd/two')", "directories")
    t("import cbfsconnect")
    t.equal(
        "sorted(os.path.relpath(p) for p in cbfsconnect.enumerate_hard_links('one'))",
        ["d/two", "one"],
    )


@check(
    "links.symbolic",
    "symbolic links keep their target byte for byte, and are followed",
    "write",
    "symbolic links",
    rule="symlink(2), readlink(2): the target is any string; lstat(2): st_size is its length.",
    hint="on_set_reparse_point gets header and data in one buffer, and on_get_reparse_point must "
    "give the same bytes and set reparse_buffer_length; a link's size is the length of its target.",
)
def symbolic(t: Trial) -> None:
    """Targets that exist, and some that do not."""
    t("write('file', b'found')")
    t.probe("os.symlink('file', 'link')", "symbolic links")
    t.equal("os.readlink('link')", "file")
    t.equal("read('link')", b"found")
    t.equal("os.path.islink('link'), os.lstat('link').st_size", (True, 4))
    t.fails("os.symlink('other', 'link')", "EEXIST")
    for target in ("nowhere/at all", "/absolute", "../ü \n", "x" * 1000):
        t("os.symlink(target, 'way')", target=target)
        t.equal("os.readlink('way')", target)
        if t.recording.count("on_delete_file") or t.cbfs.on_delete_file is not None:
            t("os.unlink('way')")
    t("os.unlink('link')")
    t.equal("read('file')", b"found", rule="unlink(2): a link is deleted, not its target.")
    t("os.symlink('me', 'me')")
    t.fails("os.stat('me')", "ELOOP")


@check(
    "links.special",
    "FIFOs and sockets are what they were made",
    "special files",
    rule="mknod(2), stat(2).",
    hint="on_create_file gets mode with the type bits (S_IFIFO, S_IFSOCK); on_get_file_info must "
    "give it back.",
)
def special(t: Trial) -> None:
    """Those that need no privilege."""
    t.probe("os.mkfifo('fifo', 0o600)", "FIFOs")
    t.equal("stat.S_ISFIFO(os.lstat('fifo').st_mode)", True)
    t.probe("os.mknod('socket', stat.S_IFSOCK | 0o600)", "sockets")
    t.equal("stat.S_ISSOCK(os.lstat('socket').st_mode)", True)
    t.equal(
        "{e.name for e in os.scandir() if e.is_file(follow_symlinks=False)} & {'fifo', 'socket'}",
        set(),
    )
