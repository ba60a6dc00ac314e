"""Locks. Without `on_lock_file` the kernel keeps them by itself, and programs see the same."""

from __future__ import annotations

from contextlib import ExitStack

from cbfsconnect.testing.registry import check
from cbfsconnect.testing.stage import Stage
from cbfsconnect.testing.trial import Actor, CheckFailed, NotSupported, Trial

_UNLOCK_HINT = (
    "on_unlock_file must give up what on_lock_file took. It comes with the range that a program "
    "names, which may cover several locked ones or parts of them, and with each range that was "
    "held when a process closes the file or dies (with the setting SupportUnlockAllRequests: "
    "offset and length -1)."
)


def _both(t: Trial) -> None:
    if t.cbfs.on_lock_file is not None and t.cbfs.on_unlock_file is None:
        t.note("", "# look at the handlers", {})
        t.fail(
            "on_unlock_file beside on_lock_file",
            "on_lock_file alone",
            "Handle both events or neither: what is locked could never be unlocked.",
        )


def _opened(actor: Actor) -> None:
    actor("fd = os.open('file', os.O_RDWR)")


@check(
    "locks.conflict",
    "locks of two processes exclude each other where they overlap",
    "write",
    rule="fcntl(2), F_SETLK: EAGAIN or EACCES if another process holds a conflicting lock; shared "
    "locks do not conflict.",
    hint="The library has decided among the drive's own clients before on_lock_file fires: it must "
    "refuse only for locks of others, and must not for ranges that do not overlap.",
)
def conflict(t: Trial) -> None:
    """Exclusive and shared, overlapping and not."""
    _both(t)
    t("write('file', b'x' * 100); fd = os.open('file', os.O_RDWR)")
    other = t.another()
    _opened(other)
    t("fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)")
    other.fails("fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)", "EAGAIN", "EACCES")
    other.fails("fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 9)", "EAGAIN", "EACCES")
    other("fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 10)")
    t("fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 50)")
    other("fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 55)")
    other.fails("fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 55)", "EAGAIN", "EACCES")


@check(
    "locks.released",
    "what is unlocked, closed, or held by a process that dies, is free for others",
    "write",
    rule="fcntl(2): locks go with F_UNLCK, with the close of any descriptor of the file, and with "
    "the process.",
    hint=_UNLOCK_HINT,
)
def released(t: Trial) -> None:
    """The three ways."""
    _both(t)
    t("write('file', b'x' * 100); fd = os.open('file', os.O_RDWR)")
    take = "fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)"
    other = t.another()
    _opened(other)
    other(take)
    other("fcntl.lockf(fd, fcntl.LOCK_UN, 10, 0)")
    t(take)
    t("fcntl.lockf(fd, fcntl.LOCK_UN, 100, 0)")
    other("fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 4, 0)")
    other("fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 4, 20); os.close(fd)")
    t("fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 100, 0); fcntl.lockf(fd, fcntl.LOCK_UN)")
    _opened(other)
    other(take)
    other.kill()
    t(take)


@check(
    "locks.waiting",
    "who waits for a lock gets it when it is free",
    "write",
    rule="fcntl(2), F_SETLKW waits until the lock can be had.",
    hint="on_lock_file fires when the library could grant the lock: it must not wait for a lock of "
    "the drive's own clients itself. " + _UNLOCK_HINT,
)
def waiting(t: Trial) -> None:
    """One waits for the other."""
    _both(t)
    t("write('file', b'x' * 100); fd = os.open('file', os.O_RDWR)")
    other = t.another()
    _opened(other)
    t("fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0)")
    other.start("fcntl.lockf(fd, fcntl.LOCK_EX, 10, 0); result = 'got it'")
    t("fcntl.lockf(fd, fcntl.LOCK_UN, 10, 0)")
    other.ends_well()
    t.fails("fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)", "EAGAIN", "EACCES")


@check(
    "locks.whole_file",
    "flock excludes between descriptors",
    "write",
    rule="flock(2): locks belong to an open file description; EWOULDBLOCK with LOCK_NB.",
    hint="on_lock_file must take a range up to 2**63. " + _UNLOCK_HINT,
)
def whole_file(t: Trial) -> None:
    """Two descriptors of one process."""
    _both(t)
    t("write('file'); one, two = os.open('file', os.O_RDWR), os.open('file', os.O_RDWR)")
    t("fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)")
    t.fails("fcntl.flock(two, fcntl.LOCK_SH | fcntl.LOCK_NB)", "EAGAIN")
    t("os.close(one)")
    if t.cbfs.on_unlock_file is not None:
        t.wait_until(lambda: t.recording.count("on_unlock_file") > 0)
    t("fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)")
    t("fcntl.flock(two, fcntl.LOCK_UN); os.close(two)")


@check(
    "locks.unmounted",
    "what was locked at an unmount is free in the next mount",
    "write",
    rule="The contract of on_unlock_file: each range that is held comes when the drive ends.",
    hint=_UNLOCK_HINT,
    mounts=False,
)
def unmounted(s: Stage) -> None:
    """A lock that nobody gives up."""
    lock = "fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)"
    with s.made() as made:
        with s.mounted(made) as t:
            _both(t)
            t("os.chdir(at); write('locked', b'x' * 100)", at=s.point)
            t(f"fd = os.open('locked', os.O_RDWR); {lock}")
        with s.mounted(made) as t:
            t("# unmounted while it was locked; mounted again\nos.chdir(at)", at=s.point)
            t("fd = os.open('locked', os.O_RDWR)")
            t(lock)


@check(
    "locks.of_others",
    "two drives of one storage see each other's locks",
    "write",
    "locks",
    rule="on_lock_file is there to pass locks on to storage that others use too; fcntl(2), EAGAIN.",
    hint="on_lock_file must ask the storage, and answer with EAGAIN (ERROR_LOCK_VIOLATION, 33) if "
    "somebody else holds the range there.",
    mounts=False,
)
def of_others(s: Stage) -> None:
    """The storage is opened twice, by two processes."""
    lock = "fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)"
    with s.made() as made, s.mounted(made) as t:
        if not s.source.takes_directory:
            raise NotSupported("its factory takes no directory: it cannot be opened twice")
        _both(t)
        t("os.chdir(at); write('locked', b'x' * 100)", at=s.point)
    with ExitStack() as stack:
        try:
            other, _ = stack.enter_context(s.apart(stack.enter_context(s.further_point())))
            t = stack.enter_context(s.mounted(stack.enter_context(s.made())))
            for one in (other, t):
                one.attempt("os.chdir(at); fd = os.open('locked', os.O_RDWR)", at=one.root)
        except (CheckFailed, OSError) as error:
            raise NotSupported(f"its storage cannot be opened twice: {error}") from None
        t.note("[a process on the other drive] ", lock, {})
        other(lock)
        t.fails(lock, "EAGAIN", "EACCES")
        t.note("[a process on the other drive] ", "fcntl.lockf(fd, fcntl.LOCK_UN)", {})
        other("fcntl.lockf(fd, fcntl.LOCK_UN)")
        t(lock, hint=_UNLOCK_HINT)
        t("fcntl.lockf(fd, fcntl.LOCK_UN)")
        other(lock, hint=_UNLOCK_HINT)
