"""What is opened is closed, and nothing is left of it: contexts, enumerations, descriptors."""

from __future__ import annotations

import gc
import os
import sys
import tracemalloc

from cbfsconnect.testing import features
from cbfsconnect.testing.registry import check
from cbfsconnect.testing.trial import NotSupported, Trial

_ROUNDS, _LEAK, _AGAIN = 200, 0.9, 3
_OURS = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


@check(
    "contexts.balanced",
    "each open and create is followed by cleanup and close, whatever programs do",
    "write",
    rule="The contract of contexts: a file's lives from its first open to its last close.",
)
def balanced(t: Trial) -> None:
    """Duplicates, forks, mappings, failures, and what is open at the unmount."""
    t(
        """
        write("file", pattern(10_000))
        a = os.open("file", os.O_RDWR); b = os.dup(a); c = os.open("file", os.O_RDONLY)
        def use(i):
            os.pwrite(a, b"x", i)
            os.close(a); os.close(os.open("file", os.O_RDONLY))
            os.close(os.open(f"of {i}", os.O_CREAT | os.O_RDWR))
        together(3, use)
        os.close(a); os.pwrite(b, b"y", 5); os.close(b)
        for flags in (os.O_RDONLY, os.O_RDWR | os.O_APPEND, os.O_RDWR | os.O_CREAT):
            os.close(os.open("file", flags))
        map = mmap.mmap(c, 10_000, prot=mmap.PROT_READ); os.close(c); map[:10]; map.close()
        for name in ("file", "nothing/at all"):
            try:
                os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            except OSError:
                pass
        os.listdir()
        left_open = os.open("file", os.O_RDWR)
        directory_left_open = os.open(".", os.O_RDONLY)
        """
    )


@check(
    "contexts.nothing_left_of_files",
    "opening and closing a file 200 times leaves nothing behind",
    rule="on_close_file ends what on_open_file or on_create_file began.",
    hint="on_open_file makes something that on_close_file does not take away: an entry of a table "
    "of open files, a descriptor. Free it in on_close_file; on_cleanup_file may come several "
    "times for one open, or not before others use the file again.",
)
def files(t: Trial) -> None:
    """With reading and writing between; of a drive that is not written to, the first file."""
    if features.missing("write", t.cbfs) is None:
        t("write('file', b'x' * 100)")
        use = "os.pread(fd, 9, 0); os.pwrite(fd, b'y', 5)"
        _leaks_nothing(t, f"fd = os.open('file', os.O_RDWR); {use}; os.close(fd)", "on_open_file")
        return
    t("os.chdir(at)", at=t.drive.mountpoint)
    t("name = next((e.name for e in os.scandir() if e.is_file()), '')")
    if not t.value("name"):
        raise NotSupported("there is no file in its root")
    use = "fd = os.open(name, os.O_RDONLY); os.pread(fd, 9, 0); os.close(fd)"
    _leaks_nothing(t, use, "on_open_file")


@check(
    "contexts.nothing_left_of_handles",
    "files that are open several times at once leave nothing behind",
    "write",
    rule="handle_context is per handle; file_context per file: each is released at its close.",
    hint="With fire_all_open_close_events on_open_file comes for each handle, and so does "
    "on_close_file: count, or keep one thing for each handle_info.",
)
def handles(t: Trial) -> None:
    """Three descriptors at once."""
    t("write('file', b'x' * 100)")
    _leaks_nothing(
        t,
        "fds = [os.open('file', os.O_RDWR) for _ in range(3)]; [os.close(fd) for fd in fds]",
        "on_open_file",
    )


@check(
    "contexts.nothing_left_of_listings",
    "listing a directory 200 times leaves nothing behind",
    rule="on_close_directory_enumeration ends what on_enumerate_directory began.",
    hint="on_enumerate_directory keeps something for enumeration_context (an entry of a table, a "
    "descriptor) that on_close_directory_enumeration must free.",
)
def listings(t: Trial) -> None:
    """From the first entry to the last."""
    _leaks_nothing(t, "os.listdir()", "on_enumerate_directory")


@check(
    "contexts.nothing_left_of_abandoned_listings",
    "listings that programs abandon in the middle leave nothing behind",
    "create",
    rule="on_close_directory_enumeration fires also for a listing that did not reach its end.",
    hint="What a listing holds is freed when the last entry was given, but not in "
    "on_close_directory_enumeration, which comes in any case.",
)
def abandoned(t: Trial) -> None:
    """After the first entries."""
    t(
        """
        length = min(150, os.statvfs(".").f_namemax)
        for i in range(250):  # so that the first request does not give all of them
            os.close(os.open(f"a name of some length {i} ".ljust(length, "-"), os.O_CREAT))
        def abandon():
            with os.scandir() as entries:
                next(entries)
        """
    )
    _leaks_nothing(t, "abandon()", "on_enumerate_directory", opens="on_open_file")


@check(
    "contexts.nothing_left_of_streams",
    "listing and reading extended attributes 200 times leaves nothing behind",
    "write",
    "streams",
    "stream names",
    rule="on_close_named_streams_enumeration ends what on_enumerate_named_streams began.",
    hint="An enumeration of streams, or the stream that is opened for each request, is not freed.",
)
def streams(t: Trial) -> None:
    """Names and values."""
    t("write('file')")
    t.probe("os.setxattr('file', 'user.one', b'1')", "extended attributes")
    _leaks_nothing(
        t,
        "os.listxattr('file'); os.getxattr('file', 'user.one')",
        "on_enumerate_named_streams",
    )


@check(
    "contexts.nothing_left_of_hard_link_names",
    "enumerating hard links 200 times leaves nothing behind",
    "write",
    "hard links",
    "hard link names",
    rule="on_close_hard_links_enumeration ends what on_enumerate_hard_links began.",
    hint="An enumeration of hard links is not freed.",
)
def hard_links(t: Trial) -> None:
    """With two names."""
    t("import cbfsconnect; write('one')")
    t.probe("os.link('one', 'two')", "hard links")
    _leaks_nothing(t, "list(cbfsconnect.enumerate_hard_links('one'))", "on_enumerate_hard_links")


@check(
    "contexts.nothing_left_of_failures",
    "requests that fail leave nothing behind",
    rule="An open that failed has no close: what it began it must take back itself.",
    hint="A handler that fails half-way leaves what it had begun.",
)
def failures(t: Trial) -> None:
    """Names that are not there, files that are there already."""
    code = "[os.path.exists(f'not there {i}') for i in range(3)]"
    if t.cbfs.on_create_file is not None and t.cbfs.on_write_file is not None:
        t("write('there')")
        t(
            """
            def refused():
                for path in ("there", "nowhere/new"):
                    try:
                        os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                    except OSError:
                        pass
            """
        )
        code += "; refused()"
    _leaks_nothing(t, code, "on_get_file_info")


def _leaks_nothing(t: Trial, code: str, event: str, opens: str = "") -> None:
    """Run lines so often that what they leave is more than chance."""
    loop = f"for _ in range({_ROUNDS}): {code}"
    t.note("", loop, {})
    t.settled()  # what is told later would be missing in the balance
    t.recording.paused = True
    t.start(f"for _ in range(40): {code}")
    t.finish()
    # What is leaked grows each time; what the kernel knows of the drive comes and goes.
    grown = _grown(t, loop, event)
    for _ in range(_AGAIN):
        if not _leaking(grown):
            break
        grown = _grown(t, loop, event)
    worst = max(grown, key=lambda g: g[1])
    if worst[1] < _LEAK:
        t.recording.paused = False
        return
    places = _places(t, loop) if worst[0] != "descriptors" else ""
    t.recording.paused = False
    t.start(code)
    t.finish()
    t.settled()
    missing = _not_handled(t, event)
    t.fail(
        f"as many objects and descriptors in the drive's process after {_ROUNDS} rounds as before",
        f"{worst[1]:.1f} more {worst[0]} for each {event}{places}",
        hint=f"{missing}{t.hint}",
    )


def _not_handled(t: Trial, event: str) -> str:
    closing = {
        "on_open_file": "on_close_file",
        "on_enumerate_directory": "on_close_directory_enumeration",
        "on_enumerate_named_streams": "on_close_named_streams_enumeration",
        "on_enumerate_hard_links": "on_close_hard_links_enumeration",
    }.get(event)
    if closing is None:
        return ""
    handled = any(f.name == closing and f.handled for f in t.recording.fired)
    return "" if handled else f"{closing} is not handled. "


def _leaking(grown: list[tuple[str, float]]) -> bool:
    return any(each >= _LEAK for _, each in grown)


def _grown(t: Trial, loop: str, event: str) -> list[tuple[str, float]]:
    """How many descriptors and objects there are more after a loop, for each event in it."""
    events, descriptors, objects = t.recording.count(event), _descriptors(), _objects(t)
    t.start(loop)
    t.finish()
    objects, descriptors = _objects(t) - objects, _descriptors() - descriptors
    # So many times it fired, but a round may need it more than once.
    number = max(1, min(_ROUNDS, t.recording.count(event) - events))
    return [("descriptors", descriptors / number), ("objects", objects / number)]


def _objects(t: Trial) -> int:
    t.settled()
    gc.collect()
    return sys.getallocatedblocks()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _places(t: Trial, loop: str) -> str:
    """Where what stays was made, in the drive's own code."""
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start(1)
    try:
        _objects(t)
        before = tracemalloc.take_snapshot()
        t.start(loop)
        t.finish()
        _objects(t)
        grown = tracemalloc.take_snapshot().compare_to(before, "lineno")
    finally:
        if not tracing:
            tracemalloc.stop()
    found = [
        f"\n    made at {g.traceback[0].filename}:{g.traceback[0].lineno}"
        for g in sorted(grown, key=lambda g: -g.count_diff)
        if g.count_diff >= _ROUNDS * 0.5 and not g.traceback[0].filename.startswith(_OURS)
    ]
    return "".join(found[:3])
