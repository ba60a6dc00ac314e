"""Data of files: written, read, appended, cut, mapped, by several processes."""

from __future__ import annotations

from cbfsconnect.testing.registry import check
from cbfsconnect.testing.trial import Trial

_WRITE_HINT = (
    "on_write_file must put bytes_to_write bytes of buffer_view at position (copies of them: the "
    "buffer is the library's), and set bytes_written."
)
_SIZE_HINT = (
    "on_set_file_size must cut what lies behind size, or fill up with zeros; it fires before "
    "on_write_file goes past the end, unless the setting FireSetFileSizeOnWrite is off."
)
_OPEN_HINT = (
    "Handlers must work on what the open item is, by file_context, and not on a copy that each "
    "open makes for itself."
)


@check(
    "files.write_and_read",
    "what was written is read, by other processes too",
    "write",
    rule="write(2): a read after a write returns the data written.",
    hint=_WRITE_HINT,
)
def write_and_read(t: Trial) -> None:
    """The simplest use."""
    t("write('file', b'Hello, drive.\\n')")
    t.equal("read('file')", b"Hello, drive.\n")
    t.equal("os.stat('file').st_size", 14, rule="stat(2): st_size is the size in bytes.")
    t.another().equal("read('file')", b"Hello, drive.\n")
    t("write('empty')")
    t.equal("read('empty'), os.stat('empty').st_size", (b"", 0))


@check(
    "files.every_byte",
    "a file of 3 MiB and a bit comes back whole",
    "write",
    rule="read(2) may return fewer bytes only at the end of the file.",
    hint="on_read_file must give all of bytes_to_read unless the file ends: fewer bytes are taken "
    "for the end of the file, and the rest reads as zeros. " + _WRITE_HINT,
)
def every_byte(t: Trial) -> None:
    """Many pages, sizes that are no multiple of them."""
    t(
        """
        data = pattern(3 * 1024 * 1024 + 77)
        fd = os.open("file", os.O_CREAT | os.O_WRONLY)
        for start in range(0, len(data), 50_001):
            assert os.write(fd, data[start:start + 50_001]) == len(data[start:start + 50_001])
        os.close(fd)
        """
    )
    t.equal("os.stat('file').st_size", 3 * 1024 * 1024 + 77)
    t.equal("len(read('file'))", 3 * 1024 * 1024 + 77)
    t.equal("next((i for i, a in enumerate(read('file')) if a != data[i]), 'the same')", "the same")
    t("fd = os.open('file', os.O_RDONLY)")
    t.equal(
        "[p for p in range(0, len(data), 99_991) if os.pread(fd, 4097, p) != data[p:p + 4097]]", []
    )
    t("os.close(fd)")


@check(
    "files.positions",
    "writing in the middle leaves the rest as it is",
    "write",
    rule="pwrite(2) writes at the given offset, and changes nothing else.",
    hint=_WRITE_HINT + " What lies "
    "behind stays: a slice assignment of another length would move it.",
)
def positions(t: Trial) -> None:
    """Overwriting parts, forwards and backwards; more than the kernel writes out at once."""
    t("write('file', b'0123456789' * 20_000)")
    t(
        """
        fd = os.open("file", os.O_RDWR)
        os.pwrite(fd, b"middle", 50_003)
        os.pwrite(fd, b"start", 0)
        os.pwrite(fd, b"end", 199_997)
        """
    )
    wanted = bytearray(b"0123456789" * 20_000)
    wanted[50_003:50_009], wanted[0:5], wanted[199_997:] = b"middle", b"start", b"end"
    t.equal("os.pread(fd, 300_000, 0)", bytes(wanted))
    t("os.close(fd)")
    t.equal("read('file')", bytes(wanted))
    t("fd = os.open('file', os.O_WRONLY); os.pwrite(fd, b'again', 20_001); os.close(fd)")
    wanted[20_001:20_006] = b"again"
    t.equal("len(read('file'))", 200_000)
    t.equal("read('file')", bytes(wanted))


@check(
    "files.append",
    "O_APPEND writes at the end, whoever else has written there",
    "write",
    rule="open(2), O_APPEND: before each write the offset is at the end of the file.",
    hint="on_write_file must write at e.position, which is the end already: counting positions "
    "in the drive, or writing at 0, loses what was there.",
)
def append(t: Trial) -> None:
    """Two descriptors that append in turn."""
    t("write('log', b'first\\n')")
    t(
        """
        one = os.open("log", os.O_WRONLY | os.O_APPEND)
        two = os.open("log", os.O_WRONLY | os.O_APPEND)
        os.write(one, b"second\\n"); os.write(two, b"third\\n")
        os.lseek(one, 0, 0); os.write(one, b"fourth\\n")
        os.close(one); os.close(two)
        """
    )
    t.equal("read('log')", b"first\nsecond\nthird\nfourth\n")
    t.another()("with open('log', 'ab') as f: f.write(b'fifth\\n')")
    t.equal("read('log')", b"first\nsecond\nthird\nfourth\nfifth\n")


@check(
    "files.exclusive",
    "O_EXCL makes a file once; without it the file that is there is opened as it is",
    "write",
    rule="open(2), O_EXCL: with O_CREAT, EEXIST if the path exists.",
    hint="on_get_file_info does not find what on_create_file has made; or on_create_file answers "
    "for an existing name with another error than EEXIST (ERROR_FILE_EXISTS, 80).",
)
def exclusive(t: Trial) -> None:
    """Making what is there already."""
    t("write('file', b'content')")
    t.fails("os.open('file', os.O_CREAT | os.O_EXCL | os.O_WRONLY)", "EEXIST")
    t("os.close(os.open('file', os.O_CREAT | os.O_WRONLY))")
    t.equal("read('file')", b"content", rule="open(2), O_CREAT alone leaves an existing file.")
    t(
        "os.close(os.open('new', os.O_CREAT | os.O_EXCL | os.O_WRONLY))",
        hint="on_create_file fails for a new name: EEXIST belongs to names that are there.",
    )


@check(
    "files.race_to_create",
    "of many that make a file with O_EXCL at once, one succeeds",
    "write",
    rule="open(2), O_EXCL: the check and the making are one step.",
    hint="on_create_file must look and make under one lock, and raise FileExistsError (EEXIST) if "
    "somebody else was quicker.",
)
def race_to_create(t: Trial) -> None:
    """Eight processes, one name, several rounds."""
    t(
        """
        won = []
        for turn in range(5):
            reader, writer = os.pipe()
            def race(i):
                try:
                    fd = os.open(f"only one {turn}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                except FileExistsError:
                    return
                os.write(writer, b"x")
                os.close(fd)
            together(6, race)
            os.close(writer)
            won.append(len(os.read(reader, 100)))
            os.close(reader)
        """
    )
    t.equal("won", [1] * 5)


@check(
    "files.truncate_at_open",
    "O_TRUNC empties a file",
    "write",
    "truncate",
    rule="open(2), O_TRUNC: the file is truncated to length 0.",
    hint="An overwriting open is on_open_file, then on_set_file_size with size 0. " + _SIZE_HINT,
)
def truncate_at_open(t: Trial) -> None:
    """Opening for overwriting."""
    t("write('file', b'a long content that must go')")
    t("fd = os.open('file', os.O_WRONLY | os.O_TRUNC)")
    t.equal("os.fstat(fd).st_size", 0)
    t("os.write(fd, b'short'); os.close(fd)")
    t.equal("read('file')", b"short")


@check(
    "files.truncate",
    "files are cut, and grow with zeros",
    "write",
    "truncate",
    rule="truncate(2): shorter loses the rest; longer reads as zeros. What was cut off must not "
    "come back.",
    hint=_SIZE_HINT,
)
def truncate(t: Trial) -> None:
    """By path and by descriptor."""
    t("write('file', b'0123456789'); os.truncate('file', 4)")
    t.equal("read('file'), os.stat('file').st_size", (b"0123", 4))
    t("os.truncate('file', 8)")
    t.equal("read('file')", b"0123\0\0\0\0")
    t(
        """
        fd = os.open("file", os.O_RDWR)
        os.ftruncate(fd, 2); os.ftruncate(fd, 5)
        os.pwrite(fd, b"end", 5)
        """
    )
    t.equal("os.pread(fd, 100, 0)", b"01\0\0\0end")
    t("os.close(fd)")
    t.equal("read('file'), os.stat('file').st_size", (b"01\0\0\0end", 8))


@check(
    "files.sparse",
    "a gap before what was written reads as zeros",
    "write",
    rule="lseek(2): data written behind the end leave a gap, which reads as zeros.",
    hint=_SIZE_HINT,
)
def sparse(t: Trial) -> None:
    """Writing behind the end."""
    t("fd = os.open('file', os.O_CREAT | os.O_RDWR); os.pwrite(fd, b'far', 200_000)")
    t.equal("os.fstat(fd).st_size", 200_003)
    t.equal("os.pread(fd, 300_000, 0)", bytes(200_000) + b"far")
    t("os.close(fd)")
    t.equal("read('file')", bytes(200_000) + b"far")


@check(
    "files.fallocate",
    "reserved space keeps what is there, and reads as zeros",
    "write",
    "truncate",
    rule="fallocate(2), mode 0: the size grows to offset + len if it was smaller; new bytes are 0.",
    hint="on_set_allocation_size only reserves; on_set_file_size follows with the new size.",
)
def fallocate(t: Trial) -> None:
    """Reserving behind the end."""
    t("write('file', b'content'); fd = os.open('file', os.O_RDWR)")
    t.probe("fallocate(fd, 0, 0, 10_000)", "fallocate")
    t.equal("os.fstat(fd).st_size", 10_000)
    t("os.close(fd)")
    t.equal("read('file')", b"content" + bytes(9993))


@check(
    "files.two_descriptors",
    "descriptors of one file show each other's changes at once",
    "write",
    rule="write(2): any later read of any process returns the data written.",
    hint=_OPEN_HINT,
)
def two_descriptors(t: Trial) -> None:
    """One file, two opens, two processes."""
    t("write('file', b'....')")
    t("reader = os.open('file', os.O_RDONLY); writer = os.open('file', os.O_RDWR)")
    t("os.pwrite(writer, b'ab', 1)")
    t.equal("os.pread(reader, 10, 0)", b".ab.")
    other = t.another()
    other("fd = os.open('file', os.O_RDWR); os.pwrite(fd, b'longer', 2)")
    t.equal("os.pread(reader, 10, 0)", b".alonger")
    t("os.close(writer)")
    other("os.close(fd)")
    t.equal("os.pread(reader, 10, 0), read('file')", (b".alonger", b".alonger"))
    t("os.close(reader)")


@check(
    "files.unlinked_open",
    "a file that is deleted while it is open goes on until it is closed",
    "write",
    "delete",
    rule="unlink(2): a file that processes have open remains until the last descriptor is closed.",
    hint="With the setting PosixDelete on_delete_file comes at once, and later events of the open "
    "file must go by file_context, not by the name; also on_get_file_info. Without it "
    "on_delete_file comes after the last on_close_file.",
)
def unlinked_open(t: Trial) -> None:
    """Programs for temporary files do this."""
    t("fd = os.open('file', os.O_CREAT | os.O_RDWR); os.write(fd, b'before '); os.unlink('file')")
    t.fails("os.stat('file')", "ENOENT", rule="unlink(2): the name is gone at once.")
    t.equal("'file' in os.listdir()", False)
    t("os.write(fd, b'after')")
    t.equal("os.pread(fd, 100, 0), os.fstat(fd).st_size", (b"before after", 12))
    t.equal("os.fstat(fd).st_nlink", 0, rule="stat(2): an item with no name has no links.")
    t("write('file', b'another one')")
    t.equal("os.pread(fd, 100, 0)", b"before after")
    t("os.close(fd)")
    t.settled()
    t.equal("read('file')", b"another one")


@check(
    "files.mapped",
    "mapped files and read files are the same",
    "write",
    rule="mmap(2), MAP_SHARED: changes are carried through to the file (at the latest by msync).",
    hint="on_read_file and on_write_file get whole pages here: position and size are multiples of "
    "4096, except at the end. " + _WRITE_HINT,
)
def mapped(t: Trial) -> None:
    """Shared memory of a file."""
    t("write('file', b'-' * 10_000); fd = os.open('file', os.O_RDWR)")
    t.probe("map = mmap.mmap(fd, 10_000)", "shared mappings")
    t("map[4090:4102] = b'over a page!'; map[9999:] = b'.'; map.flush()")
    wanted = b"-" * 4090 + b"over a page!" + b"-" * 5897 + b"."
    t.equal("os.pread(fd, 20_000, 0)", wanted)
    t("map.close(); os.close(fd)")
    t.settled()
    t.equal("read('file')", wanted)


@check(
    "files.sync",
    "fsync, fdatasync and close succeed when nothing is wrong",
    "write",
    rule="fsync(2): 0 on success; close(2) returns errors of writing.",
    hint="on_flush_file or on_cleanup_file fail: their errors are what fsync and close return.",
)
def sync(t: Trial) -> None:
    """Syncing files and directories."""
    t("fd = os.open('file', os.O_CREAT | os.O_RDWR); os.write(fd, b'data')")
    t("os.fsync(fd); os.fdatasync(fd); os.close(fd)")
    t.equal("read('file')", b"data")
    t("d = os.open('.', os.O_RDONLY); os.fsync(d); os.close(d)")


@check(
    "files.many_open",
    "300 files can be open at the same time, and are not mixed up",
    "write",
    rule="open(2): each descriptor stands for its file.",
    hint="The drive keeps open files under a key that repeats, such as a counter that restarts; "
    "file_context can hold the object itself.",
)
def many_open(t: Trial) -> None:
    """Each has its own content."""
    t(
        """
        fds = [os.open(f"file{i}", os.O_CREAT | os.O_RDWR) for i in range(300)]
        for i, fd in enumerate(fds):
            os.write(fd, b"%d" % i)
        """
    )
    t.equal("[i for i, fd in enumerate(fds) if os.pread(fd, 9, 0) != b'%d' % i]", [])
    t("for fd in fds: os.close(fd)")
    t.equal("[i for i in range(300) if read(f'file{i}') != b'%d' % i]", [])


@check(
    "files.many_writers",
    "processes that write different parts of a file at once lose nothing",
    "write",
    rule="pwrite(2): a write changes its own bytes, whatever others do.",
    hint="Events of one file come one after another, but each open may have its own handle: "
    "reading all, changing a part, and storing all loses what came between. " + _OPEN_HINT,
)
def many_writers(t: Trial) -> None:
    """Stripes of one file, and files of one directory."""
    t(
        """
        write("file")
        def stripes(i):
            fd = os.open("file", os.O_WRONLY)
            for turn in range(20):
                os.pwrite(fd, bytes([65 + i]) * 3000, (turn * 4 + i) * 3000)
            os.close(fd)
            for turn in range(10):
                write(f"file {i} {turn}", b"%d %d" % (i, turn))
        together(4, stripes)
        """
    )
    wanted = b"".join(bytes([65 + i]) * 3000 for i in range(4)) * 20
    t.equal("read('file')", wanted)
    t.equal(
        "[(i, n) for i in range(4) for n in range(10) "
        "if read(f'file {i} {n}') != b'%d %d' % (i, n)]",
        [],
    )


@check(
    "files.copy",
    "a copy by copy_file_range is the same",
    "write",
    rule="copy_file_range(2): the bytes are copied as by reading and writing.",
    hint="on_offload_write_file must copy transfer_length bytes from where the token says, at "
    "position; or on_read_file and on_write_file are at fault, if those fired.",
)
def copy(t: Trial) -> None:
    """What cp does."""
    t("write('one', pattern(300_001)); write('two')")
    t(
        """
        one, two = os.open("one", os.O_RDONLY), os.open("two", os.O_WRONLY)
        left = 300_001
        while left:
            done = os.copy_file_range(one, two, left)
            assert done, "copy_file_range copies nothing"
            left -= done
        os.close(one); os.close(two)
        """
    )
    t.equal("read('two') == read('one') == pattern(300_001)", True)


@check(
    "files.no_surprise_on_directories",
    "reading and writing a directory is EISDIR",
    "create",
    rule="read(2) and open(2), EISDIR: the path is a directory.",
    hint="on_get_file_info does not say that it is a directory.",
)
def directory_as_file(t: Trial) -> None:
    """Directories are no files."""
    t.probe("os.mkdir('directory')", "directories")
    t.fails("os.open('directory', os.O_WRONLY)", "EISDIR")
    t.fails("os.read(os.open('directory', os.O_RDONLY), 10)", "EISDIR")
