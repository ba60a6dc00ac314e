"""A session: one connection to the kernel, its workers, and the engine that serves it.

The way of a request: a worker reads it from the transport, the wire decodes it, the operation of
its kind fires events and makes the reply, the worker writes that. All on one thread, in `_serve`.

A session begins with a mounting point and ends when that is unmounted. Media may come and go
meanwhile: without an engine every request is answered with ENOMEDIUM.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cbfsconnect.engine.dropped import take_back
from cbfsconnect.engine.workers import Workers
from cbfsconnect.fuse import wire
from cbfsconnect.fuse.abi import ROOT_ID, InitFlag, Opcode
from cbfsconnect.fuse.backing import BackingFiles
from cbfsconnect.fuse.negotiate import Refused, negotiate
from cbfsconnect.fuse.transport import READ_AGAIN, SESSION_ENDED

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.flows import Flows
    from cbfsconnect.engine.operations import Reply
    from cbfsconnect.engine.workers import ThreadWorker, Worker
    from cbfsconnect.fuse.transport import Transport
    from cbfsconnect.fuse.wire import Request

log = logging.getLogger("cbfsconnect")

_ALWAYS = (
    InitFlag.ASYNC_READ
    | InitFlag.BIG_WRITES
    | InitFlag.MAX_PAGES
    | InitFlag.ATOMIC_O_TRUNC
    | InitFlag.DO_READDIRPLUS
    | InitFlag.READDIRPLUS_AUTO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.AUTO_INVAL_DATA
    | InitFlag.ASYNC_DIO
    | InitFlag.HANDLE_KILLPRIV_V2
    | InitFlag.DIRECT_IO_ALLOW_MMAP
    | InitFlag.INIT_EXT
)
"""What the operations implement for every drive."""


_PATIENCE_S = 0.02
"""With the event loop's thread beside them workers often wait for the interpreter, up to 5 ms each
time. More workers would only make that longer."""


class Session:
    """One connection. `ended` is called once, on a worker's thread, when it is over.

    `backing` are local files that the kernel reads and writes itself, where that was agreed.
    """

    def __init__(
        self,
        transport: Transport,
        features: InitFlag,
        *,
        read_ahead: int = 1 << 20,
        background: int = 64,
        least_workers: int = 1,
        most_workers: int = 0,
        timeout: float = 0.0,
        worker_begins: Callable[[], None] = lambda: None,
        worker_ends: Callable[[], None] = lambda: None,
        ended: Callable[[Session], None] = lambda session: None,
    ) -> None:
        self.engine: Engine | None = None
        self.backing: BackingFiles | None = None
        self.flows: Flows | None = None
        self._transport = transport
        self._features = _ALWAYS | features
        self._read_ahead = read_ahead
        self._background = background
        self._ended = ended
        self._ready = threading.Event()
        self._over = threading.Event()
        self._end_mutex = threading.Lock()
        self._refusal = ""
        self._given_up = False
        self._abandoned = False
        self._receive = transport.receive
        self._send = transport.send
        self.workers = Workers(
            self._serve,
            self.answer_late,
            least=least_workers,
            most=most_workers,
            timeout=timeout,
            begin=worker_begins,
            end=worker_ends,
            drained=self._drained,
        )

    def start(self) -> None:
        """Begin to serve."""
        self.workers.start()

    def wait_until_ready(self, timeout: float) -> str | None:
        """Wait for the kernel's INIT: None when it was agreed upon, else what went wrong."""
        if not self._ready.wait(timeout):
            return "the kernel did not begin the FUSE conversation"
        return self._refusal or None

    def wait_until_over(self, timeout: float | None = None) -> bool:
        """Wait until the drive is unmounted and the last handler has returned."""
        return self._over.wait(timeout)

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended."""
        return self._over.is_set()

    def send(self, message: bytes) -> bool:
        """Write a reply that comes later, or a notification; False when nobody is there for it."""
        try:
            self._send(message)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EBADF, errno.ENOTCONN):
                log.error("the kernel refused a message: %s", error)
            return False
        except ValueError:  # the transport is closed: the session ended meanwhile
            return False
        return True

    def close(self, timeout: float, wake: Callable[[int], object] = lambda count: None) -> bool:
        """Give up the connection and wait for the workers; False when a handler is stuck.

        The worker whose handler is stuck lets go of the rest when that returns. Closing a
        descriptor does not wake who reads it: `wake(count)` shall send so many requests while the
        drive is in use.
        """
        self.engine = None
        if self.flows is not None:
            self.flows.interrupt_all()
        self.workers.stop()
        self._given_up = True
        if self.workers.count():
            wake(self.workers.count())
        deadline = time.monotonic() + timeout
        stuck: list[Worker] = [*self.workers.join(timeout)]
        if self.flows is not None:
            stuck.extend(self.flows.join(max(0.0, deadline - time.monotonic())))
        self._transport.cut()
        for worker in stuck:
            log.warning("a handler did not return: %r is left behind", worker.request)
        if not stuck:
            self._transport.close()
        return not stuck

    def abandon(self) -> None:
        """In a forked child: let go of the connection, which is the parent's."""
        self.engine = None
        self._abandoned = True
        self.workers.abandon()
        self._transport.abandon()

    def _drained(self) -> None:
        """The last worker has ended."""
        if self._given_up:
            self._transport.close()

    def serve(self, engine: Engine) -> None:
        """Media is in: requests go to its engine."""
        if self.flows is not None:
            engine.resume_by(self.flows.resuming)
        self.engine = engine

    def use_flows(self, flows: Flows) -> None:
        """From now on requests wait for `async def` handlers without a thread."""
        self.flows = flows
        self.workers.patience = _PATIENCE_S
        if self.engine is not None:
            self.engine.resume_by(flows.resuming)

    # --- one request ---------------------------------------------------------------------------

    def _serve(self, worker: ThreadWorker) -> bool:
        """Read a request and serve it; False when the session is over."""
        try:
            length = self._receive(worker.buffer)
        except OSError as error:
            return self._read_failed(worker, error)
        workers = self.workers
        workers.reading.discard(worker)
        if not length:
            return True
        try:
            request = wire.decode(worker.buffer, length)
        except wire.MalformedMessage as error:
            self._refuse(error)
            return True
        worker.limit = None
        worker.request = request
        if not workers.calm:
            workers.took(request.opcode)
        engine = self.engine
        operation = None if engine is None else engine.operation_of(request.opcode)
        try:
            if engine is None or operation is None:
                self._answer(None, worker, request, self._without_operation(engine, request))
                return True
            try:
                reply = operation(engine, worker, request)
            except Exception as error:
                reply = self.failed(engine, request, error)
            if engine is not self.engine or worker.late is request:
                self._drop(engine, worker, request, reply)
            elif isinstance(reply, bytes):
                try:  # as `_answer` does, without the cost of its call
                    self._send(reply)
                except OSError as error:
                    self._not_taken(engine, worker, request, reply, error)
            else:
                self._answer(engine, worker, request, reply)
        finally:
            worker.request = None
        return True

    def finish(self, engine: Engine, worker: Worker, request: Request, reply: Reply) -> None:
        """Answer a request that was suspended."""
        if engine is not self.engine or worker.late is request:
            self._drop(engine, worker, request, reply)
        else:
            self._answer(engine, worker, request, reply)

    def failed(self, engine: Engine, request: Request, error: Exception) -> int:
        """What goes wrong in an operation becomes EIO."""
        log.error("%r could not be served", request, exc_info=error)
        engine.tell_error(errno.EIO, f"{request!r}: {type(error).__name__}: {error}")
        return errno.EIO

    def answer_late(self, request: Request) -> None:
        """Answer for a handler that takes too long; its own answer is dropped."""
        if request.opcode in wire.NO_REPLY:
            return
        log.warning("%r timed out in its handler", request)
        self.send(wire.error(request.unique, errno.ETIMEDOUT))

    def _read_failed(self, worker: Worker, error: OSError) -> bool:
        """Whether to read again."""
        if error.errno in READ_AGAIN:
            return True
        if error.errno not in SESSION_ENDED:
            log.error("cannot read from the kernel any more: %s", error)
        self._end(worker)
        return False

    def _without_operation(self, engine: Engine | None, request: Request) -> Reply:
        if engine is None or request.opcode == Opcode.INIT:
            return self._without_engine(request)
        return errno.ENOSYS

    def _answer(
        self, engine: Engine | None, worker: Worker, request: Request, reply: Reply
    ) -> None:
        try:
            if not isinstance(reply, int):
                if reply is not None:
                    self._send(reply)
            elif request.opcode not in wire.NO_REPLY:
                self._send(wire.error(request.unique, reply))
        except OSError as error:
            self._not_taken(engine, worker, request, reply, error)

    def _not_taken(
        self, engine: Engine | None, worker: Worker, request: Request, reply: Reply, error: OSError
    ) -> None:
        # ENOENT: the request is gone (it timed out just now, or the drive was unmounted).
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EBADF):
            log.error("the kernel refused the reply to %r: %s", request, error)
            self.send(wire.error(request.unique, errno.EIO))
        if engine is not None:
            self._take_back(engine, worker, request, reply)

    def _drop(self, engine: Engine, worker: Worker, request: Request, reply: Reply) -> None:
        """Nobody wants this reply: it is late, or media was taken out meanwhile."""
        if self._abandoned:
            return
        if worker.late is not request and reply is not None:
            self._answer(None, worker, request, self._without_engine(request))
        self._take_back(engine, worker, request, reply)

    def _take_back(self, engine: Engine, worker: Worker, request: Request, reply: Reply) -> None:
        if self.flows is not None and self.flows.on_loop:  # its events wait for the loop
            self.workers.visit(lambda other: take_back(engine, other, request, reply))
        else:
            take_back(engine, worker, request, reply)

    def _refuse(self, error: wire.MalformedMessage) -> None:
        unknown = isinstance(error, wire.UnknownOpcode)
        if not unknown:
            log.error("a request that cannot be understood: %s", error)
        if error.unique:
            self.send(wire.error(error.unique, errno.ENOSYS if unknown else errno.EIO))

    # --- beginning, no media, end --------------------------------------------------------------

    def _without_engine(self, request: Request) -> Reply:
        opcode = request.opcode
        if opcode == Opcode.INIT:
            return self._init(request)
        if opcode in wire.NO_REPLY:
            return None
        if opcode in (Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.FLUSH, Opcode.DESTROY):
            return wire.empty(request.unique)
        return errno.ENOMEDIUM

    def _init(self, request: Request) -> Reply:
        agreed = negotiate(
            request.body,
            self._features,
            max_readahead=self._read_ahead,
            # One filesystem below: with more, what is stacked itself could be a backing file, but
            # nothing could be stacked on the drive.
            max_stack_depth=1 if InitFlag.PASSTHROUGH in self._features else 0,
            max_background=self._background,
            congestion_threshold=self._background * 3 // 4,
        )
        if isinstance(agreed, Refused):
            if not agreed.retry:
                self._refusal = agreed.reason
                self._ready.set()
            return agreed.reply(request.unique)
        reply = agreed.reply(request.unique)
        if InitFlag.PASSTHROUGH in agreed.flags:
            self.backing = BackingFiles(lambda: self._transport.fd)
        try:
            self._send(reply)
        except OSError as error:
            self._refusal = f"the kernel refused the answer to INIT: {error}"
        self._ready.set()
        return None

    def _end(self, worker: Worker) -> None:
        """The connection is gone: close what is open, and tell the owner. Done by one worker."""
        with self._end_mutex:
            if self._over.is_set():
                return
            self.workers.stop()
            self._refusal = self._refusal or "the drive was unmounted at once"
            self._ready.set()
            engine = self.engine
            if self.flows is not None:
                self.flows.interrupt_all()
            if engine is not None:
                engine.close_all(worker)
            self._over.set()
        self._ended(self)


def farewell(engine: Engine, open_nodes: Iterable[int]) -> list[bytes]:
    """What has the kernel forget the root's entries, and the data of what is open: media goes."""
    names = [engine.fsencode(name) for name in list(engine.nodes.root.children)]
    return [
        *(wire.inval_entry(ROOT_ID, name) for name in names),
        *(wire.inval_inode(node_id) for node_id in open_nodes),
        wire.inval_inode(ROOT_ID),
    ]
