"""What a check works with: processes that use the drive, and failures that explain.

A check says what is done in lines of Python for the other process, what must come, and why.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import textwrap
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from cbfsconnect.drive import Drive
from cbfsconnect.testing import features
from cbfsconnect.testing.client import Client, ClientTimeout
from cbfsconnect.testing.recording import Fired, Recording, place_of, where_is
from cbfsconnect.testing.serving import Source

TOOLS = r"""
import ctypes, random
libc = ctypes.CDLL(None, use_errno=True)

def checked(done):
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done

def write(path, data=b"", mode=0o666):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view):]
    finally:
        os.close(fd)

def read(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        most, parts = os.fstat(fd).st_size + (1 << 20), []
        while part := os.read(fd, 1 << 17):
            parts.append(part)
            most -= len(part)
            if most < 0:
                break  # a file that does not end where stat says, if it ends at all
        return b"".join(parts)
    finally:
        os.close(fd)

def pattern(length, seed=0):
    return random.Random(seed).randbytes(length)

def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)

def renameat2(old, new, flags):
    checked(libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags))

def fallocate(fd, flags, start, length):
    start, length = ctypes.c_int64(start), ctypes.c_int64(length)
    checked(libc.fallocate64(fd, flags, start, length))

def together(number, action):
    "Run action(i) in so many processes at once; all must end well."
    children = []
    for i in range(number):
        child = os.fork()
        if not child:
            try:
                action(i)
            except OSError as error:
                os._exit(error.errno or 1)
            except BaseException:
                traceback.print_exc()
                os._exit(255)
            os._exit(0)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children]
    for code in codes:
        if code:
            raise OSError(code, os.strerror(code))

import traceback
os.umask(0o022)
"""
"""Functions that the lines of checks use, in the other process."""

REFUSALS = {errno.EPERM, errno.EROFS, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY}
"""How a filesystem says that it does not have a feature at all."""

_MOST_EVENTS, _MOST_STEPS, _SETTLE_S = 30, 8, 5.0


_numbers = itertools.count(1)


class NotSupported(Exception):
    """The drive does not have, and does not claim, what a check is about."""


class CheckFailed(AssertionError):
    """A check's failure; its text explains."""


class Actor:
    """One process that uses the drive. What it is told is noted, for the explanation."""

    def __init__(self, trial: Trial, client: Client, label: str) -> None:
        self._trial = trial
        self._client = client
        self._label = label

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._client.pid

    def __call__(self, code: str, *, rule: str = "", hint: str = "", **names: Any) -> Any:
        """Run lines that must succeed; what they assign to `result`."""
        try:
            return self.attempt(code, **names)
        except OSError as error:
            self._trial.fail("success", _told(error), rule, hint)

    def attempt(self, code: str, **names: Any) -> Any:
        """Run lines that may fail, with `OSError`."""
        self.start(code, **names)
        return self.finish()

    def start(self, code: str, **names: Any) -> None:
        """Have lines run without waiting for them."""
        self._trial.note(self._label, code, names)
        self._client.start(code, **names)

    def finish(self) -> Any:
        """Wait for what was started."""
        try:
            return self._client.finish(self._trial.source.timeout)
        except ClientTimeout as late:
            self._trial.hangs(late)
        except AssertionError as error:
            self._trial.fail("success", str(error).strip(), "", "")

    def value(self, expression: str, **names: Any) -> Any:
        """What an expression gives, which must not fail."""
        self._trial.shown = expression
        return self(f"result = {expression}", **names)

    def equal(
        self, expression: str, wanted: Any, rule: str = "", hint: str = "", **names: Any
    ) -> None:
        """An expression must give a value."""
        self._trial.shown = expression
        found = self(f"result = {expression}", rule=rule, hint=hint, **names)
        if found != wanted:
            expected, came = describe(wanted, found)
            self._trial.fail(expected, came, rule, hint)

    def fails(self, code: str, *errors: str, rule: str = "", hint: str = "", **names: Any) -> None:
        """Lines must fail with one of these errnos."""
        expected = " or ".join(f"OSError {name}" for name in errors)
        try:
            self.attempt(code, **names)
        except OSError as error:
            if error.errno not in {getattr(errno, name) for name in errors}:
                self._trial.fail(expected, _told(error), rule, hint)
        else:
            self._trial.fail(expected, "success", rule, hint)

    def ends_well(self, *, rule: str = "", hint: str = "") -> Any:
        """Wait for what was started, which must succeed."""
        self._trial.note(self._label, "# goes on", {}, since=False)
        try:
            return self.finish()
        except OSError as error:
            self._trial.fail("success", _told(error), rule, hint)

    def kill(self) -> None:
        """End the process by SIGKILL."""
        self._trial.note(self._label, "os.kill(os.getpid(), 9)", {})
        self._client.kill()

    def probe(self, code: str, what: str, **names: Any) -> None:
        """Run lines; if the drive refuses them as filesystems do that lack `what`, it lacks it."""
        try:
            self.attempt(code, **names)
        except OSError as error:
            if error.errno in REFUSALS:
                name = _name_of(error)
                raise NotSupported(f"the drive refuses {what} with {name}") from None
            self._trial.fail("success", _told(error), "", "")


class Trial(Actor):
    """One check at work on one mounted drive.

    As an `Actor` it is the first process, in a directory of its own on the drive, or in the root
    where the drive has no directories.
    """

    def __init__(
        self,
        source: Source,
        drive: Drive,
        recording: Recording,
        client: Client,
        rule: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(self, client, "")
        self.source = source
        self.drive = drive
        self.recording = recording
        self.rule, self.hint = rule, hint
        self.shown = ""
        self.directory = drive.mountpoint
        self.stuck = False
        self.details = False
        self.forgotten: list[Fired] = []
        self.stack = ExitStack()
        self._steps: list[tuple[str, str]] = []
        self._since = 0
        self._actors = 1
        client.run(TOOLS)

    @property
    def cbfs(self) -> Any:
        """The drive's object of class CBFS."""
        return self.drive.cbfs

    @property
    def root(self) -> str:
        """Where the drive is mounted."""
        return self.drive.mountpoint

    def settle_in(self) -> None:
        """Make a directory for the check; if that does not work, the root has to do."""
        self("os.chdir(at)", rule="Every path begins at the root.", at=self.root)
        if features.missing("create", self.cbfs) is None:
            name = f"check{next(_numbers)}-{os.getpid():x}"
            with contextlib.suppress(OSError):
                self.attempt("os.mkdir(name); os.chdir(name)", name=name)
                self.directory = f"{self.root}/{name}"
        self._steps.clear()
        self._forget()

    def tidy(self) -> None:
        """Remove what the check has made, as far as that works: the storage may be shared."""
        if self.directory == self.drive.mountpoint or features.missing("delete", self.cbfs):
            return
        code = "os.chdir(at); import shutil; shutil.rmtree(gone, ignore_errors=True)"
        with contextlib.suppress(AssertionError, OSError, ClientTimeout):
            self._client.start(code, at=self.drive.mountpoint, gone=self.directory)
            self._client.finish(self.source.timeout)

    def close(self) -> None:
        """End the further processes."""
        self.stack.close()

    def _forget(self) -> None:
        """What has happened until now is not part of the check; it counts in the balance."""
        self.forgotten = self.recording.fired[:]
        del self.recording.fired[: len(self.forgotten)]

    def need(self, *wanted: str) -> None:
        """Go on only if the drive claims these features."""
        for feature in wanted:
            why = features.missing(feature, self.cbfs)
            if why is not None:
                raise NotSupported(why)

    def another(self) -> Actor:
        """One more process, in the same directory."""
        self._actors += 1
        client = self.stack.enter_context(Client())
        client.run(TOOLS)
        actor = Actor(self, client, f"[process {self._actors}] ")
        actor("os.chdir(at)", at=self.directory)
        self._steps.pop()
        return actor

    def note(self, label: str, code: str, names: dict[str, Any], *, since: bool = True) -> None:
        """Note what is done next."""
        code = textwrap.dedent(code).strip()
        looks = bool(self.shown) and code == f"result = {self.shown}"
        if looks:
            code = self.shown
        self.shown = ""
        used = [f"{k} = {_shortened(v)}" for k, v in names.items() if len(k) > 1 or k.isupper()]
        self._steps.append((label, "\n".join([*used, code])))
        # Who only looks wants to know what the handlers did before.
        if since and not looks:
            self._since = len(self.recording.fired)

    def fail(self, expected: str, came: str, rule: str = "", hint: str = "") -> Any:
        """Raise the failure of the last step."""
        rows = [("did", self._last()), ("expected", expected), ("came", came)]
        rows.append(("because", rule or self.rule))
        rows += [("before it", self._before()), ("events", self._events())]
        rows.append(("usually", hint or self.hint))
        raise CheckFailed(table(rows))

    def hangs(self, late: BaseException) -> Any:
        """Raise the failure of a step that does not end."""
        self.stuck = True
        running = self.recording.running()
        rows = [
            ("did", self._last()),
            ("expected", "an answer"),
            ("came", f"none: {late}"),
            ("before it", self._before()),
            ("events", self._events()),
        ]
        for fired in running:
            rows.append(("waits in", f"{fired.name}({fired.path!r}): {where_is(fired.thread)}"))
        hint = (
            "A handler waits for a lock that is never released, for another event of the same "
            "file, or uses its own drive by the file system."
            if running
            else "No handler runs: if this does not come from your drive, please report it."
        )
        rows.append(("usually", hint))
        raise CheckFailed(table(rows))

    def wait_until(self, true: Callable[[], bool]) -> bool:
        """Wait for what follows close(2) a moment later; whether it came."""
        deadline = time.monotonic() + _SETTLE_S
        while not true():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
        return True

    def settled(self) -> bool:
        """Wait until all that was opened is closed for the handlers too."""
        return self.wait_until(lambda: self.recording.open == 0)

    def _last(self) -> str:
        return "".join(self._steps[-1]) if self._steps else ""

    def _before(self) -> str:
        steps = ["".join(step) for step in self._steps[:-1]]
        left_out = ["…"] if len(steps) > _MOST_STEPS else []
        return "\n".join(left_out + steps[-_MOST_STEPS:])

    def _events(self) -> str:
        if not self.recording.kept:
            return ""
        here = self.directory.removeprefix(self.drive.mountpoint) or "/"
        fired = [f for f in self.recording.fired[self._since :] if not _is_way(f, here)]
        return list_events(fired, everything=self.details)


def _is_way(fired: Fired, here: str) -> bool:
    """Whether an event only tells that the directory of the check is there still."""
    asked = fired.name == "on_get_file_info" and fired.path in ("/", here)
    return asked and fired.succeeded and bool(fired.left and fired.left["file_exists"])


def list_events(fired: list[Fired], *, everything: bool = True) -> str:
    """Events, one in a line."""
    lines = list[str]()
    for name, group in itertools.groupby(fired, lambda f: f.name):
        run = list(group)
        told = [f for f in run if f in run[:3] or f is run[-1] or f.error is not None]
        lines += [f.text(everything=everything) for f in told]
        if len(told) < len(run):
            lines.insert(-1, f"… ({len(run) - len(told)} more {name})")
    if len(lines) > _MOST_EVENTS:
        half = _MOST_EVENTS // 2
        failed = [line for line in lines[half:-half] if "→ raised" in line][:5]
        left_out = len(lines) - 2 * half - len(failed)
        lines[half:-half] = [f"… ({left_out} lines more)", *failed]
    for event in fired:
        if event.error is not None and not isinstance(event.error, OSError):
            lines.append(f"    {event.error!r} came from {place_of(event.error)}")
    return "\n".join(lines) or "none: the kernel answered from what it knew"


def table(rows: list[tuple[str, str]]) -> str:
    """Headings and texts, wrapped where that does no harm."""
    lines = []
    for heading, text in rows:
        if not text:
            continue
        if heading in ("because", "usually"):
            text = textwrap.fill(text, 88, break_long_words=False, break_on_hyphens=False)
        lines.append(f"{heading:<10}" + text.replace("\n", "\n" + " " * 10))
    return "\n".join(lines)


def describe(wanted: Any, found: Any) -> tuple[str, str]:
    """Two values that differ; of long bytes the place where they do."""
    if isinstance(wanted, bytes) and isinstance(found, bytes) and len(wanted) + len(found) > 100:
        same = next(
            (i for i, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b),
            min(len(wanted), len(found)),
        )
        return _around(wanted, same), _around(found, same)
    return _shortened(wanted), _shortened(found)


def _around(data: bytes, place: int) -> str:
    there = data[place : place + 16]
    zeros = " (all zeros from there)" if there and not any(data[place:]) else ""
    return f"{len(data)} bytes, at position {place}: {there!r}{zeros}"


def _shortened(value: Any) -> str:
    text = repr(value)
    if len(text) <= 600:
        return text
    return f"{text[:400]} … {text[-100:]}"


def _told(error: OSError) -> str:
    return f"OSError {_name_of(error)}: {error.strerror}"


def _name_of(error: OSError) -> str:
    """The name of its errno that manual pages use; some have two."""
    number = error.errno or 0
    usual = {errno.EDEADLK: "EDEADLK", errno.EOPNOTSUPP: "EOPNOTSUPP", errno.EAGAIN: "EAGAIN"}
    return usual.get(number) or errno.errorcode.get(number, "?")
