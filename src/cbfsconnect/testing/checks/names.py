"""Names: made, kept byte for byte, renamed, deleted."""

from __future__ import annotations

from cbfsconnect.testing.registry import check
from cbfsconnect.testing.trial import NotSupported, Trial

_RENAME_HINT = (
    "on_rename_or_move_file must move the item to new_file_name and replace what is there; what "
    "lies below a directory moves along."
)
_NAMES = [
    " leading and trailing blanks ",
    ".hidden",
    "...",
    "quote ' and \" and `",
    "new\nline and \ttab",
    "back\\slash",
    "*?[a-z]{x,y}~$HOME",
    '<>|"con.txt.',
    "über Füße",
    "e\u0301 (decomposed)",
    "\u00e9 (decomposed)",
    "日本語",
    "🙂",
    "-rf",
    "#%41%2F&;",
]


@check(
    "names.made_and_deleted",
    "a file that was made is listed, one that was deleted is not",
    "create",
    "delete",
    rule="open(2), O_CREAT; unlink(2): the name is there, and then it is not.",
    hint="on_enumerate_directory, on_get_file_info and on_delete_file must look at the same place; "
    "names that are not there must be file_exists False.",
)
def made_and_deleted(t: Trial) -> None:
    """One file, from its beginning to its end."""
    t("os.close(os.open('file', os.O_CREAT | os.O_WRONLY))")
    t.equal("'file' in os.listdir(), os.path.exists('file')", (True, True))
    t("os.unlink('file')")
    t.equal("'file' in os.listdir()", False)
    t.fails("os.stat('file')", "ENOENT")
    t.fails("os.unlink('file')", "ENOENT")
    t("os.close(os.open('file', os.O_CREAT | os.O_EXCL | os.O_WRONLY))")
    t.equal("os.listdir().count('file')", 1)


@check(
    "names.every_byte",
    "names are kept byte for byte",
    "write",
    rule="path_resolution(7): a name is any bytes but '/' and NUL; nothing is folded or trimmed.",
    hint="The drive changes names on their way: normalising, stripping, quoting, or treating "
    "characters as patterns or separators.",
)
def every_byte(t: Trial) -> None:
    """Names that people and programs make up."""
    reserved = t.cbfs.config("StreamSeparator") if t.cbfs.use_alternate_data_streams else ""
    if t.cbfs.config("PathSeparator") == "\\":
        reserved += "\\"
    wanted = [n for n in _NAMES if not set(reserved) & set(n)]
    t("before = set(os.listdir())")
    for name in wanted:
        t("write(name, name.encode())", name=name)
    t.equal("sorted(set(os.listdir()) - before)", sorted(wanted))
    t.equal("[n for n in made if read(n) != n.encode()]", [], made=wanted)


@check(
    "names.not_utf8",
    "names that are no UTF-8 are kept too",
    "write",
    rule="path_resolution(7): Linux knows bytes, not characters.",
    hint="Such names come with surrogates, as os.fsdecode makes them: encode them by os.fsencode, "
    "or refuse them with EILSEQ or EINVAL.",
)
def not_utf8(t: Trial) -> None:
    """Refusing them is no failure, losing them is."""
    try:
        t.attempt("write(b'latin-1: \\xe9\\xff', b'x')")
    except OSError as error:
        raise NotSupported(f"it refuses names that are no UTF-8: {error.strerror}") from None
    t.equal("b'latin-1: \\xe9\\xff' in os.listdir(b'.')", True)
    t.equal("read(b'latin-1: \\xe9\\xff')", b"x")


@check(
    "names.long",
    "names may be as long as statvfs says, and longer ones are ENAMETOOLONG",
    "write",
    rule="statvfs(3), f_namemax; open(2), ENAMETOOLONG.",
    hint="A drive with shorter names must say so in the property max_file_name_length (in bytes).",
)
def long_names(t: Trial) -> None:
    """The longest name, in one-byte and in longer characters."""
    t("longest = os.statvfs('.').f_namemax")
    t("write('x' * longest, b'long')")
    t.equal("read('x' * longest), 'x' * longest in os.listdir()", (b"long", True))
    t("write('é' * (longest // 2), b'long too')")
    t.equal("read('é' * (longest // 2))", b"long too")
    t.fails("write('x' * (longest + 1))", "ENAMETOOLONG")


@check(
    "names.letter_case",
    "names that differ in letter case only are two",
    "write",
    "letter case",
    rule="path_resolution(7): names are compared byte for byte.",
    hint="use_case_sensitive_file_names is True, but the drive finds names in any letter case.",
)
def letter_case(t: Trial) -> None:
    """For drives that say they tell them apart."""
    t("write('name', b'small'); write('NAME', b'capital')")
    t.equal("read('name'), read('NAME')", (b"small", b"capital"))
    t.equal("sorted(n for n in os.listdir() if n.lower() == 'name')", ["NAME", "name"])


@check(
    "names.rename",
    "a renamed file has its new name only, and its content",
    "write",
    "rename",
    rule="rename(2).",
    hint=_RENAME_HINT,
)
def rename(t: Trial) -> None:
    """Plain renaming."""
    t("write('old', b'content'); os.rename('old', 'new')")
    t.equal("'old' in os.listdir(), 'new' in os.listdir()", (False, True))
    t.fails("os.stat('old')", "ENOENT")
    t.equal("read('new')", b"content")
    t.fails("os.rename('old', 'newer')", "ENOENT")
    t("os.rename('new', 'new')", rule="rename(2): of an item to itself does nothing.")
    t.equal("read('new')", b"content")


@check(
    "names.rename_over",
    "a file that is renamed over another one replaces it",
    "write",
    "rename",
    rule="rename(2): if newpath already exists, it is atomically replaced.",
    hint="on_rename_or_move_file must replace the item at new_file_name: what Windows calls "
    "MOVEFILE_REPLACE_EXISTING, os.replace of Python. " + _RENAME_HINT,
)
def rename_over(t: Trial) -> None:
    """How programs save safely."""
    t("write('file', b'old'); write('file.tmp', b'new content')")
    t("os.rename('file.tmp', 'file')")
    t.equal("read('file')", b"new content")
    t.equal("[n for n in os.listdir() if n.startswith('file')]", ["file"])
    t.equal("os.stat('file').st_size", 11)


@check(
    "names.rename_over_open",
    "a file that is replaced while it is open goes on for those who have it open",
    "write",
    "rename",
    "delete",
    rule="rename(2): open file descriptors for newpath are unaffected.",
    hint="Events of the replaced file must go by file_context; its name belongs to the other now.",
)
def rename_over_open(t: Trial) -> None:
    """Both files are open."""
    t("write('target', b'old'); write('source', b'new')")
    t("old = os.open('target', os.O_RDWR); new = os.open('source', os.O_RDWR)")
    t("os.rename('source', 'target')")
    t.equal("os.pread(old, 9, 0), os.pread(new, 9, 0)", (b"old", b"new"))
    t("os.pwrite(old, b'OLD', 0); os.pwrite(new, b'NEW', 0); os.close(old); os.close(new)")
    t.settled()
    t.equal("read('target'), 'source' in os.listdir()", (b"NEW", False))


@check(
    "names.rename_open",
    "a file that is renamed while it is open goes on under its new name",
    "write",
    "rename",
    rule="rename(2): open file descriptors for oldpath are unaffected.",
    hint="The drive finds open files by the path of their open: after on_rename_or_move_file "
    "events carry the new one.",
)
def rename_open(t: Trial) -> None:
    """Writing goes on."""
    t("fd = os.open('old', os.O_CREAT | os.O_RDWR); os.write(fd, b'before ')")
    t("os.rename('old', 'new'); os.write(fd, b'after')")
    t.equal("os.pread(fd, 99, 0), os.fstat(fd).st_size", (b"before after", 12))
    t("os.close(fd)")
    t.equal("read('new')", b"before after")
    t.fails("os.stat('old')", "ENOENT")


@check(
    "names.no_replace",
    "RENAME_NOREPLACE does not replace",
    "write",
    "rename",
    rule="renameat2(2), RENAME_NOREPLACE: EEXIST if newpath exists.",
    hint="on_get_file_info does not find the name that is there.",
)
def no_replace(t: Trial) -> None:
    """As `mv -n` does."""
    t("write('one', b'1'); write('two', b'2')")
    t.fails("renameat2('one', 'two', 1)", "EEXIST")
    t.equal("read('one'), read('two')", (b"1", b"2"))
    t("renameat2('one', 'three', 1)")
    t.equal("read('three')", b"1")


@check(
    "names.exchange",
    "RENAME_EXCHANGE swaps two names",
    "write",
    "rename",
    "exchange",
    rule="renameat2(2), RENAME_EXCHANGE.",
    hint="The setting SupportExchange says that on_rename_or_move_file knows exchange True.",
)
def exchange(t: Trial) -> None:
    """Two files at once."""
    t("write('one', b'1'); write('two', b'2'); renameat2('one', 'two', 2)")
    t.equal("read('one'), read('two')", (b"2", b"1"))
