"""The engine: what one mounted drive knows, and how it asks the handlers.

An `Engine` holds the tables (nodes, handles, locks, order), the options, and the few things that
every operation does: firing an event, asking for information about an item, naming a node in a
reply. The operations themselves, one function per kernel request, are in `operations/`.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cbfsconnect import constants as c
from cbfsconnect.engine.attributes import NONSENSE, Attributes, nonsense_in
from cbfsconnect.engine.bounds import (
    Bound,
    BoundedNodeTable,
    bound_of_absent,
    bound_of_nodes,
)
from cbfsconnect.engine.deletion import Deletion
from cbfsconnect.engine.handles import HandleTable
from cbfsconnect.engine.links import LinkPages
from cbfsconnect.engine.locks import LockTable
from cbfsconnect.engine.nodes import Directory, Node, NodeTable
from cbfsconnect.engine.order import FileOrder
from cbfsconnect.engine.reparse import HEADER
from cbfsconnect.errors import errno_from_win32, win32_from_errno
from cbfsconnect.events import (
    CBFSErrorEventParams,
    CBFSGetFileInfoEventParams,
    CBFSGetReparsePointEventParams,
    HandlerTable,
)
from cbfsconnect.events.asynchronous import AsyncHandler
from cbfsconnect.fuse import abi, wire

if TYPE_CHECKING:
    from cbfsconnect.engine.operations import Operation
    from cbfsconnect.engine.options import Options
    from cbfsconnect.engine.restrictions import Judge
    from cbfsconnect.engine.routing import Routing
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.events import EventParams

log = logging.getLogger("cbfsconnect")

FOREVER_S = 10 * 365 * 24 * 3600
"""How long names and attributes stay valid when nobody else changes the drive."""


HAS_EPOCHS = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= (6, 16)
"""Whether this kernel forgets all names at once when it is told so."""

STUCK_AFTER_S = 2.0
"""How long the end of a drive waits for handlers that have not returned."""


class Engine:
    """One mounted drive.

    `on` are the handlers; `options` the rules. `send` writes a message to the kernel: replies that
    come later than their request's end (locks). `notify` sends notifications soon, from a thread
    that answers nothing. `mounts_inside` says whether something is mounted inside the drive.
    `judge` knows what processes may do, where access rules are enforced.
    """

    def __init__(
        self,
        on: HandlerTable,
        options: Options,
        send: Callable[[bytes], object],
        notify: Callable[[list[bytes]], object] = lambda told: None,
        mounts_inside: Callable[[], bool] = lambda: False,
        judge: Judge | None = None,
    ) -> None:
        from cbfsconnect.engine.operations import OPERATIONS

        self._judge = judge
        self._table: Mapping[int, Operation] = OPERATIONS
        self._resuming: Callable[[Mapping[int, Operation]], Mapping[int, Operation]] | None = None
        self._use_table()
        self.on = on
        self.options = options
        self.send = send
        self.notify = notify
        self.mounts_inside = mounts_inside
        self.started = time.time_ns()
        self.attributes = Attributes(options, self.started)
        self.nodes = NodeTable(options.separator)
        self.absent_bound: Bound[tuple[int, bytes]] | None = None
        self._bound_caches()
        self.order = FileOrder()
        self.handles = HandleTable(self)
        self.deletion = Deletion(self)
        self.locks = LockTable(self)
        self.routing: Routing | None = None
        self.link_pages = LinkPages()
        self.valid_s, self.valid_ns = _validity(options)
        self.reserved = options.reserved
        self.folds = options.stable_ids and not options.use_case_sensitive_file_names
        self.respells = self.folds or options.use_short_file_names
        self._stable_ids = options.stable_ids
        self.fsencode = os.fsencode

    def _use_table(self) -> None:
        """Put the way of requests together. A drive pays only for what it has: each of these makes
        another table of operations."""
        from cbfsconnect.engine.restrictions import guarded

        table = self._table if self._resuming is None else self._resuming(self._table)
        self.operation_of = (table if self._judge is None else guarded(self._judge, table)).get

    def route_by(self, routing: Routing) -> None:
        """Serve by local files what is routed. A drive that does not route pays nothing for it."""
        from cbfsconnect.engine.operations.routed import ROUTED_OPERATIONS

        self.routing = self.handles.routing = routing
        self.info = routing.info  # type: ignore[method-assign] # so nobody asks who need not
        self._table = ROUTED_OPERATIONS
        self._use_table()

    def resume_by(
        self, resuming: Callable[[Mapping[int, Operation]], Mapping[int, Operation]]
    ) -> None:
        """Have requests wait without a thread: by a table made of that of plain operations."""
        self._resuming = resuming
        self._use_table()

    def _bound_caches(self) -> None:
        options = self.options
        if options.metadata_cache and options.metadata_cache_size:
            bound = bound_of_nodes(self, options.metadata_cache_size)
            self.nodes = BoundedNodeTable(options.separator, bound)
        if options.nonexistent_cache and options.nonexistent_cache_size:
            self.absent_bound = bound_of_absent(self, options.nonexistent_cache_size)

    # --- firing events -------------------------------------------------------------------------

    def fire(self, handler: Callable[[Any], object], params: Any) -> int:
        """Run a handler; 0, or the errno that its answer stands for. Never raises."""
        try:
            handler(params)
            code = params.result_code
            return _clean(errno_from_win32(code)) if code else 0
        except OSError as error:
            number = error.errno  # whatever the exception was made with
            if isinstance(number, int) and 0 < number <= wire.ERRNO_MAX:
                return _clean(number)
            self.report(handler, params, error)
        except BaseException as error:  # a handler must not bring the server down
            self.report(handler, params, error)
        return errno.EIO

    def report(self, handler: object, params: EventParams, error: BaseException) -> None:
        """Log what escaped a handler, once, and tell `on_error`."""
        name = getattr(handler, "__name__", repr(handler))
        log.error("%s failed: %r\n  in %r", name, error, params, exc_info=error)
        self.tell_error(win32_from_errno(errno.EIO), f"{name}: {type(error).__name__}: {error}")

    def nonsense(self, event: str, path: str, problem: str) -> int:
        """Log an answer that cannot be used and tell `on_error`; the errno for the client."""
        log.error("%s for %r: %s", event, path, problem)
        self.tell_error(win32_from_errno(errno.EIO), f"{event} for {path!r}: {problem}")
        return errno.EIO

    def tell_error(self, code: int, description: str) -> None:
        """Fire `on_error`; what escapes from that handler is only logged."""
        handler = self.on.on_error
        if handler is None:
            return
        params = CBFSErrorEventParams(code, description)
        try:
            if isinstance(handler, AsyncHandler):
                handler.start(params)  # nothing waits for it, the thread of its loop least of all
            else:
                handler(params)
        except BaseException:
            log.exception("on_error failed")

    # --- information about items ---------------------------------------------------------------

    def info(
        self, path: str, node: Node | None, complete: bool = True
    ) -> CBFSGetFileInfoEventParams | int:
        """Fire `on_get_file_info`; an errno (ENOENT among them) when there is nothing to know.

        What the item is can be relied on then: `mode` is there and has the type bits, unless it
        shall not be completed. The other numbers are checked when they are packed.
        """
        state = None if node is None else node.open
        params = CBFSGetFileInfoEventParams(path, 0 if state is None else state.context)
        error = self.fire(self.on.on_get_file_info, params)
        if error:
            return error
        if not params.file_exists:
            return errno.ENOENT
        try:
            if params.mode is None and params.attributes & c.FILE_ATTRIBUTE_REPARSE_POINT:
                self._ask_reparse_tag(params)
            mode = self.attributes.mode_of(params)
            if complete:
                params.mode = mode
        except (TypeError, ValueError) as problem:
            return self.nonsense("on_get_file_info", path, nonsense_in(params) or str(problem))
        return params

    def attr(self, node: Node, params: CBFSGetFileInfoEventParams) -> bytes:
        """The kernel's attributes of a node; raises `NONSENSE`."""
        state = node.open
        links = params.hard_link_count
        if state is not None and state.deleted and not self.options.posix_delete:
            links = 0
        mode = params.mode
        assert mode is not None  # `info` has completed it
        packed = self.attributes.pack(params.file_id or node.id, mode, links, params)
        node.links = links
        node.accessed = params.last_access_time_ns
        if node.__class__ is Directory:
            self.note_group(node, mode, params.gid)
        return packed

    def note_group(self, node: Directory, mode: int, gid: int | None) -> None:
        """Note of a directory that the kernel hears of whether it hands its group down."""
        own = self.options.gid if gid is None else gid
        node.inherit_gid = own if mode & stat.S_ISGID else None

    def attr_reply(self, unique: int, node: Node, path: str) -> bytes | int:
        """Ask for the item's information and answer GETATTR or SETATTR with it."""
        params = self.info(path, node)
        if isinstance(params, int):
            return params
        try:
            attr = self.attr(node, params)
        except NONSENSE as error:
            return self.nonsense("on_get_file_info", path, nonsense_in(params) or str(error))
        if (params.mode or 0) & 0o170000 != node.kind:
            return errno.ESTALE  # another item has this name now: the kernel looks it up anew
        return wire.attr(unique, self.valid_s, self.valid_ns, attr)

    def entry_reply(
        self,
        unique: int,
        parent: Directory,
        name: str,
        params: CBFSGetFileInfoEventParams,
        keep: bool = True,
    ) -> bytes | int:
        """Answer LOOKUP and what creates names: the node of a name, counted as looked up.

        `keep`: the kernel may remember the name for a while.
        """
        try:
            node = self.identify(parent, name, params)
        except NONSENSE as error:
            problem = nonsense_in(params) or str(error)
            return self.nonsense("on_get_file_info", parent.prefix + name, problem)
        return self.node_reply(unique, node, params, keep)

    def node_reply(
        self, unique: int, node: Node, params: CBFSGetFileInfoEventParams, keep: bool = True
    ) -> bytes | int:
        """Name a node to the kernel that is counted for this already."""
        try:
            attr = self.attr(node, params)
        except NONSENSE as error:
            self.nodes.release(node)
            problem = nonsense_in(params) or str(error)
            return self.nonsense("on_get_file_info", params.file_name, problem)
        s, ns = self.valid_s, self.valid_ns
        if not keep:
            return wire.entry(unique, node.id, 0, 0, 0, s, ns, attr)
        return wire.entry(unique, node.id, 0, s, ns, s, ns, attr)

    def identify(self, parent: Directory, name: str, params: Any) -> Node:
        """The node that a name stands for, counted as looked up: release what is not told.

        `mode` of `params` has the type bits.
        """
        file_id = params.file_id if self._stable_ids else 0
        return self.nodes.take(parent, name, params.mode & 0o170000, file_id)

    def spelling(self, parent: Directory, name: str, params: CBFSGetFileInfoEventParams) -> str:
        """The name as the drive stores it, where that differs in letter case or is the long one."""
        options, real = self.options, params.real_file_name
        short = params.short_file_name if options.use_short_file_names else ""
        if real:
            if real == name or not isinstance(real, str) or "/" in real:
                return name
            if short and same_name(name, short):
                return real
            folds = not options.use_case_sensitive_file_names
            return real if folds and same_name(name, real) else name
        known = self.nodes.get(params.file_id) if self._stable_ids and params.file_id else None
        if known is None or name in parent.children:
            return name
        is_short = short and same_name(name, short)
        for directory, other in known.names:
            if directory is not parent or parent.children.get(other) is not known:
                continue
            if is_short or (self.folds and same_name(other, name)):
                return other
        return name

    def note_short_name(self, parent: Directory, name: str, short: object) -> None:
        """An item with this name has that short name too, where the drive gives one."""
        if short and isinstance(short, str) and not same_name(short, name):
            parent.note_short(short.casefold(), name)

    def info_by_short_name(
        self, parent: Directory, name: str
    ) -> tuple[CBFSGetFileInfoEventParams, str] | None:
        """The item whose short name this is, as far as is known, and its long name.

        Who knows it under the long name must not be asked whether there is a short one.
        """
        folded = name.casefold()
        long_name = parent.shorts.get(folded) if parent.shorts is not None else None
        if parent.shorts is None or long_name is None:
            return None
        params = self.info(parent.prefix + long_name, parent.children.get(long_name))
        if isinstance(params, int) or not same_name(name, params.short_file_name):
            parent.shorts.pop(folded, None)  # it was renamed, or is gone
            return None
        return params, long_name

    def made(self, parent: Directory, name: str) -> None:
        """An item has got this name: the kernel forgets that other spellings do not exist."""
        if parent.absent is not None and (others := parent.take_absent(name)):
            self.forget_spellings(parent, *others)

    def forget_spellings(self, parent: Directory, *names: str) -> None:
        """Have the kernel forget names that changed under another spelling, before the next reply.

        It holds the directory's lock until that reply, so a notification about one name comes a
        moment too late. The one about all names needs no lock, but takes away what is mounted on
        any of them.
        """
        if HAS_EPOCHS and not self.mounts_inside():
            self.send(wire.inc_epoch())
            return
        self.notify(
            [wire.inval_entry(parent.id, self.fsencode(name), abi.EXPIRE_ONLY) for name in names]
        )

    def cannot_be_named(self, name: str) -> bool:
        """Whether a name has characters that would mean something else in the drive's paths."""
        return any(character in name for character in self.reserved)

    def new_item_gid(self, parent: Directory, gid: int) -> int:
        """The group of a new item: its creator's, or that of a set-group-ID directory."""
        return gid if parent.inherit_gid is None else parent.inherit_gid

    def _ask_reparse_tag(self, params: CBFSGetFileInfoEventParams) -> None:
        """Which kind of reparse point: the drive may say it with its data only."""
        handler = self.on.on_get_reparse_point
        if params.reparse_tag or handler is None or not self.options.use_reparse_points:
            return
        view = memoryview(bytearray(4096))
        asked = CBFSGetReparsePointEventParams(params.file_name, view, 0, 4096)
        error = self.fire(handler, asked)
        if error in (0, errno_from_win32(234)):
            params.reparse_tag = HEADER.unpack_from(view)[0]

    # --- processes -----------------------------------------------------------------------------

    @staticmethod
    def process_of(thread: int) -> int:
        """The process that a thread belongs to (Tgid in /proc); the thread's id when it is gone."""
        try:
            with open(f"/proc/{thread}/status", "rb") as status:
                for line in status:
                    if line.startswith(b"Tgid:"):
                        return int(line[5:])
        except OSError:
            pass
        return thread

    # --- the end -------------------------------------------------------------------------------

    def close_all(self, worker: Worker) -> None:
        """Close every handle, with its events: media goes away, by whatever cause.

        A file in which a handler is stuck is left as it is, and an item that a request is about to
        make: the request closes it.
        """
        deadline = time.monotonic() + STUCK_AFTER_S
        for handle in self.handles.all():
            node = handle.node
            if not node.id:
                continue
            left = max(0.0, deadline - time.monotonic())
            if not self.order.enter_within(node.id, node, worker, left):
                log.warning("%r is not closed: a handler is still at it", node.path)
                continue
            try:
                if self.handles.get(handle.id) is handle:
                    self.locks.release_handle(handle)
                    self.handles.close(handle)
            finally:
                self.order.leave(node.id)


def same_name(one: str, other: object) -> bool:
    """Whether two names differ in letter case at most."""
    return isinstance(other, str) and one.casefold() == other.casefold()


def _clean(number: int) -> int:
    """A handler's ENOSYS is about one request; the kernel would never send that kind again."""
    return errno.EOPNOTSUPP if number == errno.ENOSYS else number


def _validity(options: Options) -> tuple[int, int]:
    if not options.metadata_cache:
        return 0, 0
    if options.metadata_timeout < 0:
        return FOREVER_S, 0
    seconds = int(options.metadata_timeout)
    return seconds, int((options.metadata_timeout - seconds) * 1e9)
