"""A kernel in memory: it builds requests with `struct` of its own and takes replies apart.

Nothing here uses the package's layouts, so a mistake in them cannot cancel out. Like the kernel it
refuses a reply to a request that is unknown or answered already (ENOENT) and a message that is no
whole one (EINVAL), and keeps such mistakes in `wrong`.
"""

from __future__ import annotations

import errno
import os
import queue
import re
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import pytest

from cbfsconnect import CBFS
from cbfsconnect.engine.engine import Engine
from cbfsconnect.engine.options import Options
from cbfsconnect.engine.session import Session
from cbfsconnect.events import HandlerTable
from cbfsconnect.fuse.abi import InitFlag, Opcode
from cbfsconnect.fuse.transport import Buffer, MemoryTransport
from cbfsconnect.volume import features_of, options_of

ROOT = 1
ALL_FLAGS = 0xFFFFFFFF
INTERRUPT_BIT = 1
SILENT = {Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY}

_IN_HEADER = struct.Struct("=IIQQIIIHH")
_OUT_HEADER = struct.Struct("=IiQ")
_ATTR = struct.Struct("=QQQQQQ IIII IIIIII")
_ENTRY = struct.Struct("=QQQQII")
_DIRENT = struct.Struct("=QQII")


class Attr(NamedTuple):
    """`struct fuse_attr`."""

    ino: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    atimensec: int
    mtimensec: int
    ctimensec: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    blksize: int
    flags: int


class Entry(NamedTuple):
    """`struct fuse_entry_out`, and with CREATE the handle."""

    nodeid: int
    generation: int
    valid: int
    attr: Attr
    fh: int = 0


class Dirent(NamedTuple):
    """An entry of a listing; `nodeid` and `attr` only with READDIRPLUS."""

    name: bytes
    offset: int
    ino: int
    type: int
    nodeid: int = 0
    attr: Attr | None = None


@dataclass
class Reply:
    """One answer: `error` is a positive errno or 0."""

    unique: int
    error: int
    data: bytes


class FakeKernel(MemoryTransport):
    """The transport of a session, with the kernel's checks of what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.notifications: list[bytes] = []
        self.asked: dict[int, int] = {}
        self.answers: dict[int, Reply] = {}
        self.arrived = threading.Condition()

    def send(self, message: Buffer) -> object:
        """Take a message as a write to /dev/fuse does."""
        message = bytes(message)
        size, error, unique = _OUT_HEADER.unpack_from(message)
        with self.arrived:
            if size != len(message):
                self.wrong.append(f"a message of {len(message)} bytes says {size}")
                raise OSError(errno.EINVAL, "size")
            if unique == 0:
                self.notifications.append(message)
                return len(message)
            if unique & INTERRUPT_BIT:
                self.answers[unique] = Reply(unique, -error, message[16:])
                self.arrived.notify_all()
                return len(message)
            if self.asked.pop(unique, None) is None:
                raise OSError(errno.ENOENT, "no such request")
            if not -512 < error <= 0 or (error and size != 16):
                self.wrong.append(f"error {error} in a reply of {size} bytes")
            self.answers[unique] = Reply(unique, -error, message[16:])
            self.arrived.notify_all()
        return len(message)

    def wait(self, unique: int, timeout: float = 20) -> Reply:
        """The answer to a request."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: unique in self.answers, timeout):
                raise queue.Empty(f"request {unique} was not answered")
            return self.answers.pop(unique)


class Kernel:
    """One session over a drive, with a method per system call. Errors are raised as `OSError`.

    Properties are given as keywords as to `cbfsconnect.mount`, settings in `config`.
    """

    def __init__(
        self,
        handlers: object,
        *,
        config: dict[str, object] | None = None,
        least: int = 1,
        most: int = 0,
        timeout: float = 0.0,
        media: bool = True,
        **properties: Any,
    ) -> None:
        self.transport = FakeKernel()
        options, on = options_for(handlers, config, properties)
        self.options = options
        self.session = Session(
            self.transport,
            features_of(on, options),
            least_workers=least,
            most_workers=most,
            timeout=timeout,
        )
        self.engine = Engine(on, options, self.session.send)
        if media:
            self.session.engine = self.engine
        self.uid, self.gid, self.pid = os.getuid(), os.getgid(), os.getpid()
        self.told: Counter[int] = Counter()
        """How often the drive has named each node to this kernel."""
        self.handles: dict[int, tuple[int, int]] = {}
        """Node and releasing opcode of each handle that the drive has given."""
        self._unique = 0
        self._mutex = threading.Lock()

    def __enter__(self) -> Self:
        self.session.start()
        self.init()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.end()
        if kind is None:
            assert not self.transport.wrong

    def end(self) -> None:
        """Unmount, and see all threads end."""
        self.transport.end()
        over = self.session.wait_until_over(10)
        closed = self.session.close(10)
        assert over
        assert closed

    # --- messages ------------------------------------------------------------------------------

    def message(self, opcode: int, nodeid: int, body: bytes = b"", extlen: int = 0) -> bytes:
        """A request's bytes, with a new unique number."""
        with self._mutex:
            self._unique += 2
            unique = self._unique
        size = _IN_HEADER.size + len(body)
        header = (size, opcode, unique, nodeid, self.uid, self.gid, self.pid, extlen, 0)
        return _IN_HEADER.pack(*header) + body

    def put(self, message: bytes) -> int:
        """Send a request; its unique number."""
        _, opcode, unique, *_ = _IN_HEADER.unpack_from(message)
        if opcode not in SILENT:
            with self.transport.arrived:
                self.transport.asked[unique] = opcode
        self.transport.put(message)
        return int(unique)

    def start(self, opcode: int, nodeid: int, body: bytes = b"") -> int:
        """Send a request without waiting for its answer."""
        return self.put(self.message(opcode, nodeid, body))

    def wait(self, unique: int, timeout: float = 20) -> Reply:
        """The answer to what was started."""
        return self.transport.wait(unique, timeout)

    def finish(self, unique: int) -> bytes:
        """The content of the answer."""
        reply = self.wait(unique)
        if reply.error:
            raise OSError(reply.error, os.strerror(reply.error))
        return reply.data

    def call(self, opcode: int, nodeid: int, body: bytes = b"") -> bytes:
        """Send a request and wait for what it gives."""
        return self.finish(self.start(opcode, nodeid, body))

    def answered(self, unique: int) -> bool:
        """Whether the answer is there already."""
        with self.transport.arrived:
            return unique in self.transport.answers

    def let_go(self) -> None:
        """Release every handle and forget every node, and see that the drive has none left."""
        for fh, (nodeid, opcode) in list(self.handles.items()):
            self.call(opcode, nodeid, struct.pack("=QIIQ", fh, 0, 0, 0))
            del self.handles[fh]
        items = [(nodeid, count) for nodeid, count in self.told.items() if count > 0]
        if items:
            self.batch_forget(*items)
        self.sync()
        engine = self.engine
        assert [handle.node.path for handle in engine.handles.all()] == []
        assert [node.path for node in engine.nodes if node.id != ROOT] == []
        assert not engine.order._inside
        assert not engine.locks._held
        assert not engine.locks._waiting

    # --- the session ---------------------------------------------------------------------------

    def init(self, major: int = 7, minor: int = 45, flags: int = ALL_FLAGS) -> tuple[int, ...]:
        """INIT; the fields of the answer up to `flags2`."""
        body = struct.pack("=IIIII44x", major, minor, 1 << 20, flags, ALL_FLAGS)
        return struct.unpack_from("=IIIIHHIIHHI", self.call(Opcode.INIT, 0, body))

    def interrupt(self, unique: int) -> None:
        """A signal came to who waits for that request."""
        _, opcode, _, *rest = _IN_HEADER.unpack(self.message(Opcode.INTERRUPT, 0)[:40])
        header = _IN_HEADER.pack(48, opcode, unique | INTERRUPT_BIT, *rest)
        self.transport.put(header + struct.pack("=Q", unique))

    def sync(self) -> None:
        """Return when everything that was sent before to a single worker has been served."""
        self.call(Opcode.DESTROY, 0)

    def _told(self, data: bytes) -> Entry:
        entry = _entry(data)
        if entry.nodeid not in (0, ROOT):
            self.told[entry.nodeid] += 1
        return entry

    # --- names ---------------------------------------------------------------------------------

    def lookup(self, name: str | bytes, parent: int = ROOT) -> Entry:
        """LOOKUP."""
        return self._told(self.call(Opcode.LOOKUP, parent, _name(name)))

    def walk(self, path: str) -> Entry:
        """LOOKUP of every component."""
        entry = Entry(ROOT, 0, 0, _NO_ATTR)
        for name in path.strip("/").split("/"):
            entry = self.lookup(name, entry.nodeid)
        return entry

    def forget(self, nodeid: int, count: int = 1) -> None:
        """FORGET."""
        self.told[nodeid] -= count
        self.start(Opcode.FORGET, nodeid, struct.pack("=Q", count))

    def batch_forget(self, *items: tuple[int, int]) -> None:
        """BATCH_FORGET of (node id, count)."""
        body = struct.pack("=II", len(items), 0)
        for nodeid, count in items:
            self.told[nodeid] -= count
        self.start(Opcode.BATCH_FORGET, 0, body + b"".join(struct.pack("=QQ", *i) for i in items))

    def create(
        self, name: str, parent: int = ROOT, flags: int = os.O_RDWR, mode: int = 0o100644
    ) -> Entry:
        """CREATE."""
        body = struct.pack("=IIII", flags | os.O_CREAT, mode, 0o22, 0)
        data = self.call(Opcode.CREATE, parent, body + _name(name))
        entry = self._told(data[:128])
        fh = struct.unpack_from("=QIi", data, 128)[0]
        self.handles[fh] = entry.nodeid, Opcode.RELEASE
        return entry._replace(fh=fh)

    def mkdir(self, name: str, parent: int = ROOT, mode: int = 0o755) -> Entry:
        """MKDIR."""
        return self._told(
            self.call(Opcode.MKDIR, parent, struct.pack("=II", mode, 0) + _name(name))
        )

    def mknod(self, name: str, mode: int, rdev: int = 0, parent: int = ROOT) -> Entry:
        """MKNOD."""
        body = struct.pack("=IIII", mode, rdev, 0, 0)
        return self._told(self.call(Opcode.MKNOD, parent, body + _name(name)))

    def symlink(self, name: str, target: str, parent: int = ROOT) -> Entry:
        """SYMLINK."""
        return self._told(self.call(Opcode.SYMLINK, parent, _name(name) + _name(target)))

    def readlink(self, nodeid: int) -> bytes:
        """READLINK."""
        return self.call(Opcode.READLINK, nodeid)

    def link(self, nodeid: int, name: str, parent: int = ROOT) -> Entry:
        """LINK."""
        return self._told(self.call(Opcode.LINK, parent, struct.pack("=Q", nodeid) + _name(name)))

    def unlink(self, name: str, parent: int = ROOT) -> None:
        """UNLINK."""
        assert self.call(Opcode.UNLINK, parent, _name(name)) == b""

    def rmdir(self, name: str, parent: int = ROOT) -> None:
        """RMDIR."""
        assert self.call(Opcode.RMDIR, parent, _name(name)) == b""

    def rename(
        self, name: str, new: str, parent: int = ROOT, new_parent: int = ROOT, flags: int = 0
    ) -> None:
        """RENAME2."""
        assert self.finish(self.start_rename(name, new, parent, new_parent, flags)) == b""

    def start_rename(
        self, name: str, new: str, parent: int = ROOT, new_parent: int = ROOT, flags: int = 0
    ) -> int:
        """RENAME2, without waiting for the answer."""
        body = struct.pack("=QII", new_parent, flags, 0) + _name(name) + _name(new)
        return self.start(Opcode.RENAME2, parent, body)

    # --- attributes ----------------------------------------------------------------------------

    def getattr(self, nodeid: int) -> Attr:
        """GETATTR."""
        data = self.call(Opcode.GETATTR, nodeid, struct.pack("=IIQ", 0, 0, 0))
        assert len(data) == 16 + _ATTR.size
        return Attr(*_ATTR.unpack_from(data, 16))

    def setattr(self, nodeid: int, valid: int, *, fh: int = 0, size: int = 0, **more: int) -> Attr:
        """SETATTR of what `valid` says; `more` are `mode`, `uid`, `gid`, `mtime`, `atime`."""
        get = more.get
        times = (get("atime", 0), get("mtime", 0), 0, 0, 0, 0)
        owner = (get("mode", 0), 0, get("uid", 0), get("gid", 0), 0)
        body = struct.pack("=IIQQQ QQQIII IIIII", valid, 0, fh, size, 0, *times, *owner)
        return Attr(*_ATTR.unpack_from(self.call(Opcode.SETATTR, nodeid, body), 16))

    def statx(self, nodeid: int) -> bytes:
        """STATX."""
        return self.call(Opcode.STATX, nodeid, struct.pack("=IIQII", 0, 0, 0, 0, 0xFFF))

    def getxattr(self, nodeid: int, name: str, size: int = 65536) -> bytes:
        """GETXATTR; with size 0 the length in four bytes and four zeros."""
        return self.call(Opcode.GETXATTR, nodeid, struct.pack("=II", size, 0) + _name(name))

    def setxattr(self, nodeid: int, name: str, value: bytes, flags: int = 0) -> None:
        """SETXATTR."""
        body = struct.pack("=II", len(value), flags) + _name(name) + value
        assert self.call(Opcode.SETXATTR, nodeid, body) == b""

    def listxattr(self, nodeid: int, size: int = 65536) -> bytes:
        """LISTXATTR."""
        return self.call(Opcode.LISTXATTR, nodeid, struct.pack("=II", size, 0))

    def removexattr(self, nodeid: int, name: str) -> None:
        """REMOVEXATTR."""
        assert self.call(Opcode.REMOVEXATTR, nodeid, _name(name)) == b""

    # --- open files ----------------------------------------------------------------------------

    def open(self, nodeid: int, flags: int = os.O_RDWR) -> int:
        """OPEN; the handle."""
        return self._opened(Opcode.OPEN, nodeid, flags)

    def opendir(self, nodeid: int = ROOT) -> int:
        """OPENDIR; the handle."""
        return self._opened(Opcode.OPENDIR, nodeid, os.O_RDONLY)

    def _opened(self, opcode: int, nodeid: int, flags: int) -> int:
        data = self.call(opcode, nodeid, struct.pack("=II", flags, 0))
        assert len(data) == 16
        fh = int.from_bytes(data[:8], "little")
        is_file = opcode == Opcode.OPEN
        self.handles[fh] = nodeid, Opcode.RELEASE if is_file else Opcode.RELEASEDIR
        return fh

    def flush(self, nodeid: int, fh: int, owner: int = 0) -> None:
        """FLUSH."""
        assert self.call(Opcode.FLUSH, nodeid, struct.pack("=QIIQ", fh, 0, 0, owner)) == b""

    def release(self, nodeid: int, fh: int) -> None:
        """RELEASE."""
        del self.handles[fh]
        assert self.call(Opcode.RELEASE, nodeid, struct.pack("=QIIQ", fh, 0, 0, 0)) == b""

    def releasedir(self, nodeid: int, fh: int) -> None:
        """RELEASEDIR."""
        del self.handles[fh]
        assert self.call(Opcode.RELEASEDIR, nodeid, struct.pack("=QIIQ", fh, 0, 0, 0)) == b""

    def close(self, nodeid: int, fh: int, owner: int = 0) -> None:
        """close(2) of the last descriptor: FLUSH and RELEASE."""
        self.flush(nodeid, fh, owner)
        self.release(nodeid, fh)

    def read(self, nodeid: int, fh: int, size: int = 4096, offset: int = 0) -> bytes:
        """READ."""
        return self.finish(self.start_read(nodeid, fh, size, offset))

    def start_read(self, nodeid: int, fh: int, size: int = 4096, offset: int = 0) -> int:
        """READ, without waiting for the answer."""
        return self.start(
            Opcode.READ, nodeid, struct.pack("=QQIIQII", fh, offset, size, 0, 0, 0, 0)
        )

    def write(self, nodeid: int, fh: int, data: bytes, offset: int = 0, flags: int = 0) -> int:
        """WRITE; the bytes taken."""
        body = struct.pack("=QQIIQII", fh, offset, len(data), flags, 0, 0, 0)
        answer = self.call(Opcode.WRITE, nodeid, body + data)
        assert len(answer) == 8
        return int.from_bytes(answer[:4], "little")

    def fsync(self, nodeid: int, fh: int) -> None:
        """FSYNC."""
        assert self.call(Opcode.FSYNC, nodeid, struct.pack("=QII", fh, 0, 0)) == b""

    def fallocate(self, nodeid: int, fh: int, offset: int, length: int, mode: int = 0) -> None:
        """FALLOCATE."""
        body = struct.pack("=QQQII", fh, offset, length, mode, 0)
        assert self.call(Opcode.FALLOCATE, nodeid, body) == b""

    # --- directories ---------------------------------------------------------------------------

    def readdir(
        self, nodeid: int, fh: int, offset: int = 0, size: int = 4096, plus: bool = False
    ) -> list[Dirent]:
        """One READDIR or READDIRPLUS."""
        body = struct.pack("=QQIIQII", fh, offset, size, 0, 0, 0, 0)
        opcode = Opcode.READDIRPLUS if plus else Opcode.READDIR
        found = list(_dirents(self.call(opcode, nodeid, body), plus))
        self.told.update(entry.nodeid for entry in found if entry.nodeid)
        return found

    def list(self, nodeid: int = ROOT, *, size: int = 4096, plus: bool = False) -> list[Dirent]:
        """All entries but the dots, by as many requests as it takes."""
        fh, offset = self.opendir(nodeid), 0
        found: list[Dirent] = []
        while part := self.readdir(nodeid, fh, offset, size, plus):
            found += part
            offset = part[-1].offset
        self.releasedir(nodeid, fh)
        return [entry for entry in found if entry.name not in (b".", b"..")]

    # --- locks ---------------------------------------------------------------------------------

    def start_lock(
        self,
        nodeid: int,
        fh: int,
        kind: int,
        start: int = 0,
        end: int = (1 << 63) - 1,
        *,
        owner: int = 1,
        wait: bool = False,
        flock: bool = False,
    ) -> int:
        """SETLK or SETLKW, without waiting for the answer."""
        body = struct.pack("=QQQQIIII", fh, owner, start, end, kind, 1000 + owner, flock, 0)
        return self.start(Opcode.SETLKW if wait else Opcode.SETLK, nodeid, body)

    def lock(self, nodeid: int, fh: int, kind: int, *range_: int, **more: Any) -> None:
        """SETLK or SETLKW."""
        assert self.finish(self.start_lock(nodeid, fh, kind, *range_, **more)) == b""

    def getlk(
        self, nodeid: int, fh: int, kind: int, start: int, end: int, owner: int = 1
    ) -> tuple[int, ...]:
        """GETLK: start, end, type and process of what is in the way."""
        body = struct.pack("=QQQQIIII", fh, owner, start, end, kind, 1000 + owner, 0, 0)
        return struct.unpack("=QQII", self.call(Opcode.GETLK, nodeid, body))


def options_for(
    handlers: object, config: dict[str, object] | None, properties: dict[str, Any]
) -> tuple[Options, HandlerTable]:
    """What class CBFS makes of an object with handlers, properties and settings."""
    cbfs = CBFS()
    cbfs.set_handlers(handlers)
    configure = getattr(handlers, "configure", None)
    if configure is not None:
        configure(cbfs)
    for name, value in properties.items():
        assert hasattr(CBFS, name)
        setattr(cbfs, name, value)
    for name, value in (config or {}).items():
        cbfs.config(f"{name}={value}")
    table = HandlerTable()
    for name in dir(handlers):
        if name.startswith("on_"):
            setattr(table, name, getattr(handlers, name))
    return options_of(cbfs), table


@contextmanager
def session(transport: MemoryTransport, features: int = 0, **options: Any) -> Iterator[Session]:
    """A session of its own, ended and joined afterwards."""
    served = Session(transport, InitFlag(features), **options)
    served.start()
    try:
        yield served
    finally:
        transport.end()
        assert served.wait_until_over(10)
        assert served.close(10)


@contextmanager
def fails(number: int) -> Iterator[None]:
    """The calls inside fail with this errno."""
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as caught:
        yield
    assert caught.value.errno == number


def eventually(condition: Any, timeout: float = 10.0) -> None:
    """Poll until a condition holds that nothing announces."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)


_NO_ATTR = Attr(*(0,) * 16)


def _name(name: str | bytes) -> bytes:
    return (name if isinstance(name, bytes) else os.fsencode(name)) + b"\0"


def _entry(data: bytes) -> Entry:
    assert len(data) == _ENTRY.size + _ATTR.size
    nodeid, generation, valid, _, _, _ = _ENTRY.unpack_from(data)
    return Entry(nodeid, generation, valid, Attr(*_ATTR.unpack_from(data, _ENTRY.size)))


def _dirents(data: bytes, plus: bool) -> Iterator[Dirent]:
    while data:
        entry = _entry(data[:128]) if plus else None
        start = 128 if plus else 0
        ino, offset, length, kind = _DIRENT.unpack_from(data, start)
        name = data[start + 24 : start + 24 + length]
        assert len(name) == length > 0
        assert offset > 0
        if entry is None:
            yield Dirent(name, offset, ino, kind)
        else:
            yield Dirent(name, offset, ino, kind, entry.nodeid, entry.attr)
        data = data[start + 24 + (length + 7) // 8 * 8 :]
