"""What was stored is still there after an unmount, and what fsync confirmed after a crash."""

from __future__ import annotations

from cbfsconnect.testing.registry import check
from cbfsconnect.testing.stage import Stage
from cbfsconnect.testing.trial import NotSupported


@check(
    "durability.remount",
    "what was written is there after an unmount and a new mount",
    "write",
    rule="umount(2) writes out what is cached; a filesystem keeps what it was given.",
    hint="What handlers keep for open files must reach the storage by on_close_file, which fires "
    "for everything that is open when the drive is unmounted; on_unmount is the last event.",
    mounts=False,
)
def remount(s: Stage) -> None:
    """A durable drive is made anew; of another one the same object is mounted again."""
    with s.made() as made:
        with s.mounted(made) as t:
            t("write('closed', b'closed in time')")
            t("fd = os.open('open', os.O_CREAT | os.O_RDWR); os.write(fd, b'open at the end')")
            base = t.directory.removeprefix(t.drive.mountpoint).lstrip("/") or "."
            t.directory = t.drive.mountpoint  # so that nothing is removed
        if not s.source.takes_directory:
            _compare_after_remount(s, made, base)
            return
    with s.made() as made:
        _compare_after_remount(s, made, base)


def _compare_after_remount(s: Stage, made: object, base: str) -> None:
    with s.mounted(made) as t:
        t("# unmounted, mounted again\nos.chdir(at); os.chdir(base)", at=s.point, base=base)
        t.equal("read('closed')", b"closed in time")
        t.equal("read('open')", b"open at the end")
        t.directory = f"{s.point}/{base}"


@check(
    "durability.fsync",
    "what fsync has confirmed is there after kill -9 of the drive's process",
    "write",
    rule="fsync(2) returns when the data have reached the storage, so that they can be retrieved "
    "even if the system crashes.",
    hint="on_flush_file must store all that was written to the file, and its size, before it "
    "returns: not in on_close_file only. For a directory it stores names.",
    mounts=False,
)
def fsync(s: Stage) -> None:
    """A new file, a changed one, one that was cut, one that was replaced, one that was deleted."""
    if not s.source.is_durable:
        raise NotSupported("not applicable: its factory takes no directory to keep things in")
    with s.made() as made, s.mounted(made) as t:
        t.need("write")
        deletes = t.cbfs.on_delete_file is not None
        renames = t.cbfs.on_rename_or_move_file is not None
        cuts = t.cbfs.on_set_file_size is not None
        t("os.chdir(at)", at=s.point)
        t("for n in ('changed', 'cut', 'replaced', 'deleted'): write(n, b'old ' * 1000)")
    with s.apart() as (t, kill):
        t(
            """
            def synced(path, flags, action):
                fd = os.open(path, flags)
                action(fd)
                os.fsync(fd)
                return fd  # open still: the drive's process dies before it is closed

            fds = [
                synced("new", os.O_CREAT | os.O_RDWR, lambda fd: os.write(fd, b"new " * 1000)),
                synced("changed", os.O_RDWR, lambda fd: os.pwrite(fd, b"CHANGED", 100)),
            ]
            """
        )
        if cuts:
            t("fds.append(synced('cut', os.O_RDWR, lambda fd: os.ftruncate(fd, 7)))")
        if renames:
            t(
                """
                fds.append(synced("replaced.tmp", os.O_CREAT | os.O_RDWR,
                                  lambda fd: os.write(fd, b"replaced")))
                os.rename("replaced.tmp", "replaced")
                """
            )
        if deletes:
            t("os.unlink('deleted')")
        t("fds.append(synced('.', os.O_RDONLY, lambda fd: None))")
        kill()
    with s.made() as made, s.mounted(made) as t:
        t(
            "# kill -9 of the drive's process; a new mount of the same storage\nos.chdir(at)",
            at=s.point,
        )
        t.equal("read('new')", b"new " * 1000)
        t.equal("os.stat('new').st_size", 4000)
        changed = bytearray(b"old " * 1000)
        changed[100:107] = b"CHANGED"
        t.equal("read('changed')", bytes(changed))
        if cuts:
            t.equal("read('cut')", b"old old")
        if renames:
            t.equal("read('replaced'), os.path.exists('replaced.tmp')", (b"replaced", False))
        if deletes:
            t.equal("os.path.exists('deleted')", False)
