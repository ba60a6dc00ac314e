"""Making a drive from an author's factory, and mounting it with a record of its events."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from cbfsconnect.cbfs import CBFS
from cbfsconnect.drive import PRODUCT_GUID, Configures, Drive
from cbfsconnect.fuse import mount as fuse_mount
from cbfsconnect.testing.recording import Recording

Factory = Callable[..., Any]


@dataclass(frozen=True)
class Source:
    """How to make the drive that is checked, and how to mount it.

    A `factory` with a parameter that must be given gets a directory to keep things in, and makes a
    drive of what is there already.
    """

    factory: Factory
    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    durable: bool | None = None
    timeout: float = 30.0

    @property
    def takes_directory(self) -> bool:
        """Whether the factory keeps things in a directory that it is given."""
        try:
            parameters = inspect.signature(self.factory).parameters.values()
        except (TypeError, ValueError):
            return False
        return any(
            p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
            for p in parameters
        )

    @property
    def is_durable(self) -> bool:
        """Whether what fsync confirmed must outlive the process of the drive."""
        return self.takes_directory if self.durable is None else self.durable

    @contextmanager
    def made(self, storage: str) -> Iterator[Any]:
        """A drive; what the factory returns may be a context manager that gives it."""
        made = self.factory(storage) if self.takes_directory else self.factory()
        handles = any(name.startswith("on_") for name in dir(made))
        with ExitStack() as stack:
            if not handles and hasattr(made, "__enter__"):
                made = stack.enter_context(made)
            yield made

    def mount(self, made: Any, point: str, recording: Recording | None) -> Drive:
        """Mount a drive that the factory made: handlers, or an object of class CBFS with them."""
        cbfs = made if isinstance(made, CBFS) else CBFS()
        if cbfs is not made:
            cbfs.set_handlers(made)
            if isinstance(made, Configures):
                made.configure(cbfs)
        for name, value in self.options.items():
            if not hasattr(CBFS, name):
                raise TypeError(f"class CBFS has no property {name!r}")
            setattr(cbfs, name, value)
        for name, setting in self.config.items():
            cbfs.config(f"{name}={setting}")
        if recording is not None:
            recording.wrap(cbfs)
        cbfs.initialize(PRODUCT_GUID)
        cbfs.create_storage()
        try:
            cbfs.mount_media(0)
            cbfs.add_mounting_point(point)
        except BaseException:
            cbfs.delete_storage(True)
            raise
        return Drive(cbfs, point)


@contextmanager
def workplace() -> Iterator[tuple[str, str]]:
    """An empty directory to mount at, and one in which a drive may keep things."""
    top = tempfile.mkdtemp(prefix="cbfsconnect-")
    point, storage = os.path.join(top, "drive"), os.path.join(top, "storage")
    os.mkdir(point)
    os.mkdir(storage)
    try:
        yield point, storage
    finally:
        shutil.rmtree(storage, ignore_errors=True)
        # Never looked into: if it is mounted still, this process must not touch it.
        with contextlib.suppress(OSError):
            os.rmdir(point)
        with contextlib.suppress(OSError):
            os.rmdir(top)


class _Collecting(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def collected_log() -> Iterator[list[str]]:
    """What the library logs meanwhile; it goes into the report and not to stderr."""
    lines: list[str] = []
    log, handler = logging.getLogger("cbfsconnect"), _Collecting(lines)
    log.addHandler(handler)
    before, log.propagate = log.propagate, False
    try:
        yield lines
    finally:
        log.removeHandler(handler)
        log.propagate = before


class Apart:
    """A drive that a process of its own serves, so that it can be killed.

    The process is a fork of this one: so the factory may be any function.
    """

    def __init__(self, source: Source, point: str, storage: str) -> None:
        self.point = point
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            # Other threads of this process, of which Python 3.12 warns, hold no lock of ours.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            _serve(source, point, storage, writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read(4096)
        if said != b"ready":
            os.waitpid(self.pid, 0)
            self.pid = 0
            raise RuntimeError(said.decode(errors="replace") or "its process has ended")

    def kill(self) -> None:
        """End the process as a crash would, and take its dead mount away."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
        fuse_mount.unmount(self.point, force=True)


def _serve(source: Source, point: str, storage: str, writer: int) -> None:
    """Serve until killed; never returns. The pipe is closed when that is settled."""
    try:
        with source.made(storage) as made, source.mount(made, point, None):
            os.write(writer, b"ready")
            os.close(writer)
            while True:
                signal.pause()
    except BaseException as error:
        os.write(writer, f"{type(error).__name__}: {error}".encode()[:4096])
    finally:
        os._exit(1)
