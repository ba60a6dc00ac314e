"""Routed items: local files and directories that stand for items of the drive while those are open.

A routing begins with the first open of an item, by `route_to_file` in its handler or by the route
cache, and ends with the last close. Meanwhile the local file has the data, and whatever is not
about data is done to it as well, unless a CBFS_ROUTE_… flag says that the event fires.

The names of a routed item are the local file's only if its path mirrors the drive's; else renaming,
linking and deleting are the drive's business, and fire their events.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cbfsconnect import constants as c
from cbfsconnect.engine.attributes import BLOCK, without_privileges
from cbfsconnect.engine.listing import Listing
from cbfsconnect.engine.local_files import Mirror, find, reopen
from cbfsconnect.engine.nodes import Directory
from cbfsconnect.events import CBFSGetFileInfoEventParams
from cbfsconnect.fuse import abi, wire

if TYPE_CHECKING:
    from cbfsconnect.engine.access import Access
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle, OpenState
    from cbfsconnect.engine.nodes import Node
    from cbfsconnect.fuse.backing import BackingFiles

log = logging.getLogger("cbfsconnect")

_EVENTS = (
    c.CBFS_ROUTE_OPEN_EVENT
    | c.CBFS_ROUTE_CLEANUP_EVENT
    | c.CBFS_ROUTE_CLOSE_EVENT
    | c.CBFS_ROUTE_ENUMERATE_DIRECTORY_EVENT
    | c.CBFS_ROUTE_SET_SECURITY_EVENT
    | c.CBFS_ROUTE_GET_SECURITY_EVENT
    | c.CBFS_ROUTE_SET_FILE_ATTRIBUTES_EVENT
    | c.CBFS_ROUTE_SET_FILE_SIZES_EVENT
    | c.CBFS_ROUTE_SET_VALID_DATA_LENGTH_EVENT
    | c.CBFS_ROUTE_CREATE_HARD_LINK_EVENT
    | c.CBFS_ROUTE_QUERY_QUOTA_EVENT
    | c.CBFS_ROUTE_SET_QUOTA_EVENT
    | c.CBFS_ROUTE_CAN_FILE_BE_DELETED_EVENT
    | c.CBFS_ROUTE_IS_DIRECTORY_EMPTY_EVENT
    | c.CBFS_ROUTE_RENAME_EVENT
    | c.CBFS_ROUTE_SET_EA_EVENT
    | c.CBFS_ROUTE_QUERY_EA_EVENT
)
_WRITES_DATA = c.DESIRED_ACCESS_FILE_WRITE_DATA | c.DESIRED_ACCESS_FILE_APPEND_DATA
_UNREACHABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY)
"""Why a file that may be read cannot be opened for writing."""
_MOST_REMEMBERED = 100_000


def with_implied(flags: int) -> int:
    """The flags with those that others imply: an event in between wants open and close too."""
    if flags & _EVENTS:
        flags |= c.CBFS_ROUTE_OPEN_EVENT | c.CBFS_ROUTE_CLOSE_EVENT
    return flags


class Route:
    """One routed item. `fd` is its local file; `unwritable` the errno of a write, 0 if it may be.

    `base` is what the drive said of the item when it was opened: what the local file does not have,
    or may not decide (mode and owner). `names` is the directory that mirrors the drive, if the
    local file's path does. `number` is that of a backing file, 0 while data goes through us, None
    before the kernel has opened the item. `ended`: it shall not be routed any more.
    """

    __slots__ = ("base", "by_cache", "ended", "fd", "flags", "names", "number", "unwritable")

    def __init__(self, fd: int, unwritable: int, flags: int, names: Mirror | None) -> None:
        self.fd = fd
        self.unwritable = unwritable
        self.flags = flags
        self.names = names
        self.base: CBFSGetFileInfoEventParams | None = None
        self.by_cache = False
        self.number: int | None = None
        self.ended = False

    def fires(self, event: int) -> bool:
        """Whether an event (CBFS_ROUTE_…_EVENT) fires all the same."""
        return bool(self.flags & event)

    @property
    def keeps_attributes(self) -> bool:
        """Whether mode, owner and times are changed at the local file."""
        return not self.fires(c.CBFS_ROUTE_SET_FILE_ATTRIBUTES_EVENT)

    @property
    def refusal(self) -> int:
        """The errno of a change that is not to the data; 0 if it may be."""
        return errno.EACCES if self.flags & c.CBFS_ROUTE_FILE_READ_ONLY else 0


class Routing:
    """The routed items of one drive. It is there once something was routed, or may be by the cache.

    `backing()` are the backing files of the connection, if there may be any; `own()` is the
    drive's `st_dev`, where nothing can be routed to.
    """

    def __init__(
        self,
        engine: Engine,
        backing: Callable[[], BackingFiles | None],
        own: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._backing = backing
        self._own = own
        self._cache: tuple[Mirror, int] | None = None
        self._routes: dict[OpenState, Route] = {}
        self._mutex = threading.Lock()
        self._were_routed: set[int] = set()
        engine.route_by(self)

    # --- beginning and end ---------------------------------------------------------------------

    def set_cache(self, cache: tuple[Mirror, int] | None) -> None:
        """Route what is opened from now on to a directory that mirrors the drive, or to none."""
        self._cache = cache

    def end_cached(self) -> None:
        """End what the route cache has routed, where the kernel does not hold it."""
        for route in list(self._routes.values()):
            route.ended = route.by_cache
        # The handlers' data may be others than those that the kernel has cached.
        ended = {h.node.id for h in self._engine.handles.all() if self.is_ending(h)}
        self._engine.notify([wire.inval_inode(node_id) for node_id in ended])

    def offer(self, handle: Handle, path: str, flags: int) -> bool:
        """Route an item that is being opened to a local file; whether that was possible.

        Raises `OnOwnDrive`.
        """
        state = handle.state
        known = self._routes.get(state)
        if known is None and (state.handles or handle.node.open is state):
            log.warning("%r is open already and cannot be routed any more", handle.node.path)
            return False
        path = os.path.abspath(path)
        try:
            found = find(path, self._own())
        except OSError as error:
            if error.errno == errno.EDEADLK:
                raise
            log.warning("%r cannot be routed to %r: %s", handle.node.path, path, error)
            return False
        try:
            if known is not None:
                return os.path.samestat(os.fstat(found), os.fstat(known.fd))
            names = self._mirror_of(path, handle.node)
            return self._begin(handle, found, flags, names) is not None
        finally:
            os.close(found)

    def of(self, node: Node) -> Route | None:
        """How an item is routed, None if it is not."""
        state = node.open
        return None if state is None else self._routes.get(state)

    def current(self, handle: Handle) -> Route | None:
        """How the item of an open handle is routed, when a request about it is to be served."""
        route = self._routes.get(handle.state)
        if route is not None and route.ended and not route.number:
            self._leave_to_handlers(handle.state)
            return None
        return route

    def is_ending(self, handle: Handle) -> bool:
        """Whether the next request about an open item finds it routed no more."""
        route = self._routes.get(handle.state)
        return route is not None and route.ended and not route.number

    def drop(self, state: OpenState) -> None:
        """The item is closed: let its local file go."""
        route = self._routes.pop(state, None)
        if route is None:
            return
        if route.number and (backing := self._backing()) is not None:
            backing.close(route.number)
        os.close(route.fd)

    def _begin(self, handle: Handle, found: int, flags: int, names: Mirror | None) -> Route | None:
        """Route to what a descriptor (O_PATH) stands for; None when it is of another kind."""
        mode = os.fstat(found).st_mode
        kind = handle.node.kind
        if stat.S_IFMT(mode) != kind or kind not in (stat.S_IFREG, stat.S_IFDIR):
            return None
        if self._is_stream(handle.node):
            return None
        unwritable = errno.EACCES if flags & c.CBFS_ROUTE_FILE_READ_ONLY else 0
        try:
            if kind == stat.S_IFDIR:
                fd = reopen(found, os.O_RDONLY | os.O_DIRECTORY)
            else:
                fd, unwritable = _open_data(found, unwritable)
        except OSError as error:
            log.warning("%r cannot be routed: %s", handle.node.path, error)
            return None
        route = Route(fd, unwritable, with_implied(flags), names)
        self._routes[handle.state] = route
        return route

    def _leave_to_handlers(self, state: OpenState) -> None:
        """From now on the handlers serve an open item that never told them of its opening."""
        from cbfsconnect.engine import access

        handles = self._engine.handles
        route = self._routes[state]
        self.drop(state)
        state.size = None
        if route.fires(c.CBFS_ROUTE_OPEN_EVENT):
            return
        for handle in [h for h in handles.all() if h.state is state]:
            handle.offered = True  # the handler may ask for a routing, and hears that it is late
            handles.fire_open(handle, access.WRITE_DATA[isinstance(handle.node, Directory)])
            handle.offered = False
            if not self._engine.options.fire_all_open_close_events:
                return

    def _is_stream(self, node: Node) -> bool:
        options = self._engine.options
        return options.stream_xattrs and options.stream_separator in node.name

    def _mirror_of(self, path: str, node: Node) -> Mirror | None:
        """The directory in which a local path is what the item's path is in the drive, if so."""
        relative = self.relative(node.path)
        if not relative or not path.endswith("/" + relative):
            return None
        try:
            return Mirror(path[: -len(relative)], self._own)
        except OSError:
            return None

    def relative(self, path: str) -> str:
        """A path of the drive below its root, with slashes."""
        return path[1:].replace(self._engine.options.separator, "/")

    # --- opening and closing -------------------------------------------------------------------

    def open_is_due(self, handle: Handle, first: bool) -> bool:
        """Whether `on_open_file` fires; the route cache decides here whether the item is routed."""
        route = self._from_cache(handle) if first else self._routes.get(handle.state)
        if route is not None and not route.fires(c.CBFS_ROUTE_OPEN_EVENT):
            return False
        return first or self._engine.options.fire_all_open_close_events

    def is_due(self, state: OpenState, event: int) -> bool:
        """Whether an event of an open item fires (CBFS_ROUTE_…_EVENT)."""
        route = self._routes.get(state)
        return route is None or route.fires(event)

    def hides(self, state: OpenState) -> bool:
        """Whether events without a flag of their own do not fire: the item is routed."""
        return state in self._routes

    def refusal(self, handle: Handle, access: Access) -> int:
        """The errno of an open that would write to what cannot be written."""
        route = self._routes.get(handle.state)
        if route is None or not route.unwritable:
            return 0
        writes = access.desired & _WRITES_DATA or access.disposition == c.FILE_OVERWRITE
        return route.unwritable if writes and handle.node.kind == stat.S_IFREG else 0

    def created(self, handle: Handle) -> None:
        """A file was made by `on_create_file`: where the mirror has it, it is routed, empty.

        What the mirror had under this name before belongs to a file that is no more.
        """
        if handle.state in self._routes:
            return
        route = self._from_cache(handle)
        if route is not None and handle.node.kind == stat.S_IFREG and not route.unwritable:
            os.ftruncate(route.fd, 0)

    def opened(self, handle: Handle, uid: int, new: bool) -> tuple[int, int] | None:
        """How the kernel shall treat the data of an open (FOPEN_…), and the backing file's number.

        None where the item is not routed. `new`: the kernel has not known the item so far.
        """
        route = self._routes.get(handle.state)
        node = handle.node
        if route is None or isinstance(node, Directory):
            return None
        before = None if new else self._learn(route, node)
        if route.number is None:
            backing = self._backing()
            route.number = backing.open(route.fd) if backing is not None else 0
            self._remember(node.id)
        if not new:
            # What it knows of the item was the drive's word; size and times are the file's now.
            self._engine.send(wire.inval_inode(node.id, -1))
        if route.number:
            self._take_privileges(route, handle, uid)
            return abi.FOPEN_PASSTHROUGH, route.number
        options = self._engine.options
        if not options.kernel_cache:
            return abi.FOPEN_DIRECT_IO, 0
        # With write-back the kernel believes its own size for as long as it knows the file.
        wrong = options.write_back and before not in (None, os.fstat(route.fd).st_size)
        return (abi.FOPEN_DIRECT_IO if wrong else 0), 0

    def forgets_cache(self, node: Node) -> bool:
        """Whether the kernel must drop what it caches of an item that is opened unrouted: it was
        routed before, and the kernel did not see what changed."""
        with self._mutex:
            if node.id not in self._were_routed:
                return False
            self._were_routed.discard(node.id)
            return True

    def _remember(self, node_id: int) -> None:
        with self._mutex:
            if len(self._were_routed) >= _MOST_REMEMBERED:
                self._were_routed.clear()
            self._were_routed.add(node_id)

    def _learn(self, route: Route, node: Node) -> int | None:
        """Ask the drive what it says of the item; the size, None where that is not known."""
        params = self.info(node.path, node)
        if route.base is None or isinstance(params, int):
            return None
        return route.base.size

    def _from_cache(self, handle: Handle) -> Route | None:
        known = self._routes.get(handle.state)
        if self._cache is None or known is not None:
            return known
        mirror, flags = self._cache
        try:
            found = mirror.find(self.relative(handle.node.path))
        except OSError:
            return None
        try:
            route = self._begin(handle, found, flags, mirror)
        finally:
            os.close(found)
        if route is not None:
            route.by_cache = True
        return route

    def _take_privileges(self, route: Route, handle: Handle, uid: int) -> None:
        """Take set-ID bits away when another than root opens a file to write: the kernel does not
        see the writes for which it would do it, and the local file does not know who writes."""
        base = route.base
        if base is None or base.mode is None or not uid or handle.flags & os.O_ACCMODE == 0:
            return
        without = without_privileges(base.mode)
        if without != base.mode:
            self.set_attributes(route, mode=without & 0o7777)

    # --- information ---------------------------------------------------------------------------

    def info(
        self, path: str, node: Node | None, complete: bool = True
    ) -> CBFSGetFileInfoEventParams | int:
        """As `Engine.info`, but of a routed file what its local file says, without an event."""
        engine = self._engine
        route = None if node is None else self.of(node)
        ask = type(engine).info
        if route is None or isinstance(node, Directory):
            return ask(engine, path, node, complete)
        base = route.base
        if base is None or not route.keeps_attributes:
            asked = ask(engine, path, node)
            if isinstance(asked, int):
                return asked
            base = route.base = asked
        try:
            status = os.fstat(route.fd)
        except OSError:  # closed just now
            return ask(engine, path, node, complete)
        return _told(path, base, status, route)

    def set_size(self, handle: Handle, size: int) -> int | None:
        """Cut or grow the local file: 0, an errno, or None where `on_set_file_size` fires."""
        route = self.current(handle)
        if route is None or route.fires(c.CBFS_ROUTE_SET_FILE_SIZES_EVENT):
            return None
        return route.unwritable or _errno_of(lambda: os.ftruncate(route.fd, size))

    def set_attributes(
        self,
        route: Route,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        atime: int | None = None,
        mtime: int | None = None,
    ) -> int:
        """Change mode, owner and times of the local file; 0 or an errno."""
        if route.refusal:
            return route.refusal
        base, status = route.base, os.fstat(route.fd)
        try:
            if uid is not None or gid is not None:
                os.fchown(route.fd, -1 if uid is None else uid, -1 if gid is None else gid)
            if mode is not None:
                owner = status.st_uid if base is None or base.uid is None else base.uid
                if owner != status.st_uid:
                    # The local file would run as somebody whom the item does not belong to.
                    mode &= ~(stat.S_ISUID | stat.S_ISGID)
                os.fchmod(route.fd, mode)
            if atime is not None or mtime is not None:
                times = (
                    status.st_atime_ns if atime is None else atime,
                    status.st_mtime_ns if mtime is None else mtime,
                )
                os.utime(route.fd, ns=times)
        except OSError as error:
            return error.errno or errno.EIO
        if base is not None:
            base.mode = stat.S_IFREG | mode if mode is not None else base.mode
            base.uid = uid if uid is not None else base.uid
            base.gid = gid if gid is not None else base.gid
        return 0

    # --- names ---------------------------------------------------------------------------------

    def removes_locally(self, node: Node) -> bool:
        """Whether the item is deleted by deleting the local one, without an event."""
        route = self.of(node)
        if route is None or route.fires(c.CBFS_ROUTE_CAN_FILE_BE_DELETED_EVENT):
            return False
        return self._names(route, node) is not None

    def remove(self, node: Node) -> int:
        """Delete the local item; 0 or an errno."""
        route = self.of(node)
        names, directory = None if route is None else route.names, isinstance(node, Directory)
        if route is None or names is None:
            return errno.ENOENT
        return route.refusal or _errno_of(lambda: names.remove(self.relative(node.path), directory))

    def rename(self, node: Node, path: str) -> int | None:
        """Move the local item to another path of the drive: 0, an errno, or None where the drive
        does it."""
        with_cache = self._in_cache(node)
        route = self.of(node)
        if route is not None:
            names, flags, refusal = self._names(route, node), route.flags, route.refusal
        elif with_cache is not None:
            names, flags = with_cache
            refusal = errno.EACCES if flags & c.CBFS_ROUTE_FILE_READ_ONLY else 0
        else:
            return None
        if names is None or flags & c.CBFS_ROUTE_RENAME_EVENT:
            return None
        old, new = self.relative(node.path), self.relative(path)
        return refusal or _errno_of(lambda: names.rename(old, new))

    def link(self, node: Node, path: str) -> int | None:
        """Give the local file another name in the drive; as `rename`."""
        route = self.of(node)
        names = None if route is None else self._names(route, node)
        if route is None or names is None or route.fires(c.CBFS_ROUTE_CREATE_HARD_LINK_EVENT):
            return None
        old, new = self.relative(node.path), self.relative(path)
        return route.refusal or _errno_of(lambda: names.link(old, new))

    def replaces_locally(self, node: Node) -> bool:
        """Whether another item may take an open item's name at once, as local files do it."""
        route = self.of(node)
        if route is None or route.fires(c.CBFS_ROUTE_RENAME_EVENT):
            return False
        return self._names(route, node) is not None

    def cached_at(self, path: str) -> int | None:
        """A descriptor (O_PATH) of what the route cache has under a path that is about to be
        replaced by something that it does not have."""
        if self._cache is None or self._cache[1] & c.CBFS_ROUTE_RENAME_EVENT:
            return None
        try:
            return self._cache[0].find(self.relative(path))
        except OSError:
            return None

    def forget_cached(self, path: str, fd: int) -> None:
        """Delete what `cached_at` has found, if it is there still: it was replaced in the drive."""
        cache, relative = self._cache, self.relative(path)
        if cache is not None and cache[0].is_at(relative, fd):
            error = _errno_of(lambda: cache[0].remove(relative, False))
            if error:
                log.warning("%r stays in the route cache: %s", path, os.strerror(error))

    def _names(self, route: Route, node: Node) -> Mirror | None:
        """The mirror, if the item has the same name in it still."""
        names = route.names
        if names is not None and names.is_at(self.relative(node.path), route.fd):
            return names
        return None

    def _in_cache(self, node: Node) -> tuple[Mirror, int] | None:
        """The route cache, if it has an item that nobody has open."""
        if self._cache is None or node.open is not None:
            return None
        try:
            os.close(self._cache[0].find(self.relative(node.path)))
        except OSError:
            return None
        return self._cache

    # --- directories ---------------------------------------------------------------------------

    def listing(self, handle: Handle) -> LocalListing | None:
        """A new listing of the local directory; None where the drive lists its own."""
        route = self._routes.get(handle.state)
        if route is None or route.fires(c.CBFS_ROUTE_ENUMERATE_DIRECTORY_EVENT):
            return None
        return LocalListing(self._engine, handle, route.fd)

    def is_empty(self, node: Node) -> int | None:
        """0, ENOTEMPTY, or None where the drive has to tell."""
        route = self.of(node)
        if route is None or route.fires(c.CBFS_ROUTE_IS_DIRECTORY_EMPTY_EVENT):
            return None
        return errno.ENOTEMPTY if os.listdir(route.fd) else 0


class LocalListing(Listing):
    """A listing of a local directory: its names, without an event."""

    def __init__(self, engine: Engine, handle: Handle, fd: int) -> None:
        super().__init__(engine, handle)
        self._fd = fd
        self._names: Iterator[str] = iter(())

    def close(self) -> None:
        """End it: there is nothing to close."""
        self._restart = True

    def _fire(self) -> int:
        if self._restart:
            self._restart = False
            try:
                self._names = iter(os.listdir(self._fd))
            except OSError as error:
                return error.errno or errno.EIO
        self.params.renew(self._handle.node.path, False)
        name = next(self._names, None)
        self.params.file_found = name is not None
        self.params.file_name = name or ""
        return 0


def _open_data(found: int, unwritable: int) -> tuple[int, int]:
    """Open for reading and writing if possible: the descriptor, and why it cannot be written."""
    if not unwritable:
        try:
            return reopen(found, os.O_RDWR), 0
        except OSError as error:
            if error.errno not in _UNREACHABLE:
                raise
            unwritable = error.errno
    return reopen(found, os.O_RDONLY), unwritable


def _told(
    path: str, base: CBFSGetFileInfoEventParams, status: os.stat_result, route: Route
) -> CBFSGetFileInfoEventParams:
    """Size, blocks and times of the local file, and the rest from the drive."""
    told = CBFSGetFileInfoEventParams(path, base.file_context, True)
    told.size, told.allocation_size = status.st_size, status.st_blocks * BLOCK
    if route.keeps_attributes:
        told.last_access_time_ns = status.st_atime_ns
        told.last_write_time_ns = status.st_mtime_ns
        told.change_time_ns = status.st_ctime_ns
    else:
        told.last_access_time_ns = base.last_access_time_ns
        told.last_write_time_ns = base.last_write_time_ns
        told.change_time_ns = base.change_time_ns
    told.creation_time_ns = base.creation_time_ns
    told.file_id, told.attributes = base.file_id, base.attributes
    told.reparse_tag, told.rdev = base.reparse_tag, base.rdev
    told.short_file_name, told.real_file_name = base.short_file_name, base.real_file_name
    told.mode, told.uid, told.gid = base.mode, base.uid, base.gid
    told.hard_link_count = base.hard_link_count if route.names is None else status.st_nlink
    return told


def _errno_of(action: Callable[[], None]) -> int:
    try:
        action()
    except OSError as error:
        return error.errno or errno.EIO
    return 0
