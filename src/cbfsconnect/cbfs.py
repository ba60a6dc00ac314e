"""Class CBFS: one virtual drive, by the contract of CBFS Connect 2020 Python Edition.

The life of a drive: `initialize` (once per process), `create_storage`, `mount_media`,
`add_mounting_point`; then `remove_mounting_point`, `unmount_media`, `delete_storage`. Where the
contract leaves Linux open, `docs/semantics.md` says what is done.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import threading
import time
from typing import TYPE_CHECKING, ClassVar

from cbfsconnect import constants as c
from cbfsconnect import lifetime, masks
from cbfsconnect.access_rules import AccessRuleMembers, AccessRules
from cbfsconnect.engine import changes
from cbfsconnect.engine.engine import STUCK_AFTER_S, Engine
from cbfsconnect.engine.notifier import Notifier
from cbfsconnect.engine.session import Session, farewell
from cbfsconnect.engine.workers import Worker
from cbfsconnect.errors import (
    ERROR_ACCESS_DENIED,
    ERROR_BUSY,
    ERROR_FILE_NOT_FOUND,
    ERROR_IMPLEMENTATION_LIMIT,
    ERROR_INVALID_PARAMETER,
    ERROR_INVALID_STATE,
    ERROR_IO_PENDING,
    CBFSConnectError,
    win32_from_errno,
)
from cbfsconnect.event_thread import EventThread
from cbfsconnect.events import (
    CBFSEjectedEventParams,
    CBFSMountEventParams,
    CBFSUnmountEventParams,
)
from cbfsconnect.fuse import mount as fuse_mount
from cbfsconnect.fuse import mountinfo
from cbfsconnect.fuse.abi import ROOT_ID, InitFlag
from cbfsconnect.fuse.transport import DeviceTransport
from cbfsconnect.later import LaterEditions
from cbfsconnect.opened_files import OpenedFiles, OpenedFilesGetters
from cbfsconnect.points import MountingPoint, check_flags
from cbfsconnect.routes import Routes
from cbfsconnect.settings import Settings
from cbfsconnect.system import System
from cbfsconnect.volume import check_volume, features_of, fire_volume_event, options_of

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger("cbfsconnect")

_SHORTEST_TIMEOUT_MS = 3000
_READY_WITHIN_S = 10.0
_LONGEST_WAIT_S = 1.0
"""A signal that comes as a wait begins, or on another thread, does not end it: Python runs its
handler when the main thread wakes. So it wakes now and then, and Ctrl-C always works."""
_SOME, _MANY = 64, 8192
"""How many read-aheads and late writes the kernel may have under way at once: a thread each, and
without."""
_CLOSING_WITHIN_S = 10.0
"""So long a forced end waits for the handlers of on_close_file and on_unmount."""
_RELEASED_WITHIN_S = 1.0
"""The kernel tells of a closed file a moment later; so long a file may seem to be open still."""


class CBFS(AccessRuleMembers, OpenedFilesGetters, Routes, System, LaterEditions):
    """One virtual filesystem, served by handlers that are assigned to its `on_…` attributes.

    Methods and properties raise `CBFSConnectError`, whose `code` is a Win32 error number. Those
    that would deadlock inside a handler refuse to be called there.
    """

    _initialized: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.settings = Settings()
        self._storage = False
        self._active = False
        self._timeout_s = 0.0
        self._points: list[MountingPoint] = []
        self._links_cached = False
        self._mounted: fuse_mount.Mounted | None = None
        self._expected_end = False
        self._mutex = threading.Lock()  # who ends a session: a method, or the umount of others
        self._gone = threading.Event()
        self._gone.set()
        self._notifier = Notifier(self._send)

    # --- state ---------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether media is mounted and events fire."""
        return self._active

    @property
    def storage_present(self) -> bool:
        """Whether the drive exists: from `create_storage` to `delete_storage`."""
        return self._storage

    @property
    def mounting_point_count(self) -> int:
        """How many mounting points there are."""
        return len(self._points)

    def get_active(self) -> bool:
        """Whether media is mounted; see `active`."""
        return self.active

    def get_storage_present(self) -> bool:
        """Whether the drive exists; see `storage_present`."""
        return self.storage_present

    def get_mounting_point_count(self) -> int:
        """How many mounting points there are; see `mounting_point_count`."""
        return self.mounting_point_count

    def get_mounting_point_name(self, mounting_point_index: int) -> str:
        """The name under which the point was added."""
        return self._point(mounting_point_index).name

    def get_mounting_point_flags(self, mounting_point_index: int) -> int:
        """The STGMP_… flags with which it was added."""
        return self._point(mounting_point_index).flags

    def get_mounting_point_authentication_id(self, mounting_point_index: int) -> int:
        """The authentication id with which it was added."""
        return self._point(mounting_point_index).authentication_id

    def config(self, configuration_string: str) -> str:
        """Read a setting (`"Name"`) or change it (`"Name=Value"`)."""
        return self.settings.configure(
            configuration_string, active=self._active, storage=self._storage
        )

    @property
    def event_loop(self) -> asyncio.AbstractEventLoop | None:
        """Linux extension: the loop on which `async def` handlers run; None: one of the drive's.

        May be changed while no media is mounted, when handlers shall share what belongs to a loop
        of the program: sessions, pools, queues. It must run for as long as the drive is mounted;
        methods that wait for handlers are then called from other threads (`asyncio.to_thread`).
        """
        return self._handler_loop.programs_own

    @event_loop.setter
    def event_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        if self._active:
            raise CBFSConnectError(
                ERROR_INVALID_STATE, "event_loop can be changed only while no media is mounted"
            )
        self._handler_loop.programs_own = loop

    # --- life cycle ----------------------------------------------------------------------------

    def initialize(self, product_guid: str) -> None:
        """Begin to use the class in this process; once, on any instance.

        `product_guid` identifies the program on Windows; here it must only be a string. Raises
        ERROR_FILE_NOT_FOUND when the machine has no FUSE.
        """
        self._refuse_in_event("call initialize")
        if not isinstance(product_guid, str) or not product_guid:
            raise CBFSConnectError(ERROR_INVALID_PARAMETER, "product_guid must be a string")
        if not os.path.exists("/dev/fuse"):
            raise CBFSConnectError(
                ERROR_FILE_NOT_FOUND,
                "there is no /dev/fuse: load the kernel module (modprobe fuse), and in a "
                "container pass the device (docker run --device /dev/fuse)",
            )
        CBFS._initialized = True

    def create_storage(self) -> None:
        """Create the drive, without media and mounting points."""
        self._refuse_in_event("call create_storage")
        if not CBFS._initialized:
            raise CBFSConnectError(
                ERROR_INVALID_STATE, "call initialize once before create_storage"
            )
        if self._storage:
            raise CBFSConnectError(ERROR_INVALID_STATE, "the drive exists: delete_storage first")
        if self.storage_type == c.STGT_DISK_PNP and not self.storage_guid:
            raise CBFSConnectError(
                ERROR_INVALID_PARAMETER, "a drive of type STGT_DISK_PNP needs a storage_guid"
            )
        self._gone = threading.Event()
        self._storage = True
        lifetime.register(self, handle_signals=False)

    def mount_media(self, timeout: int) -> None:
        """Put media in: from now on events fire.

        `timeout` in milliseconds bounds how long an event may take: 0, or at least 3000. Raises
        when a handler that every drive needs is missing or fails.
        """
        self._refuse_in_event("call mount_media")
        self._need_storage("mount_media")
        if timeout < 0 or 0 < timeout < _SHORTEST_TIMEOUT_MS:
            raise CBFSConnectError(
                ERROR_IMPLEMENTATION_LIMIT,
                f"timeout {timeout} ms: give 0 for none, or at least {_SHORTEST_TIMEOUT_MS}",
            )
        if self._active:
            raise CBFSConnectError(ERROR_INVALID_STATE, "media is mounted already")
        if self.process_restrictions_enabled and self._links_cached:
            raise CBFSConnectError(
                ERROR_INVALID_STATE,
                "process_restrictions_enabled must be True before the first mounting point is "
                "added: the kernel caches symbolic links there",
            )
        lifetime.register(self, handle_signals=self.settings.handle_signals)
        engine = self._new_engine()
        try:
            self._on_event_thread(lambda: check_volume(engine))
        except BaseException:
            self._stop_event_thread(STUCK_AFTER_S)
            raise
        self._timeout_s = timeout / 1000
        session = self._session
        self._engine = engine
        self._active = True
        if session is not None:
            session.workers.configure(*self._worker_rules())
            if session.flows is not None:
                session.flows.timeout = self._timeout_s
            session.serve(engine)
        self._on_event_thread(
            lambda: fire_volume_event(engine, self._handlers.on_mount, CBFSMountEventParams())
        )

    def add_mounting_point(
        self, mounting_point: str, flags: int = 0, authentication_id: int = 0
    ) -> None:
        """Show the drive at an existing, empty directory. Several points show the same drive."""
        self._refuse_in_event("call add_mounting_point")
        self._need_storage("add_mounting_point")
        flags = check_flags(flags, [point.flags for point in self._points])
        lifetime.register(self, handle_signals=self.settings.handle_signals)
        with lifetime.signals_held_back():
            try:
                if self._points:
                    path = fuse_mount.bind(self._points[0].path, mounting_point)
                else:
                    path = self._start_session(mounting_point)
            except fuse_mount.MountError as error:
                raise _from_mount_error(error) from error
            self._points.append(MountingPoint(mounting_point, flags, authentication_id, path))

    def remove_mounting_point(
        self,
        index: int,
        mounting_point: str = "",
        flags: int = 0,
        authentication_id: int = 0,
    ) -> None:
        """Take a mounting point away: by its index, or with -1 by what it was added with.

        Raises ERROR_BUSY while programs use it, and names them.
        """
        self._refuse_in_event("call remove_mounting_point")
        self._need_storage("remove_mounting_point")
        if index == -1:
            index = self._index_of(mounting_point, flags, authentication_id)
        point = self._point(index)
        last = len(self._points) == 1
        if last:
            self._claim_end("remove_mounting_point")
        try:
            self._unmount(point)
        except CBFSConnectError:
            self._disclaim_end()
            raise
        if last:
            self._finish_session()
            if self._active:
                self._engine = self._new_engine()  # the next point begins with nothing known

    def unmount_media(self, force_unmount: bool = False) -> None:
        """Take media out; the drive and its mounting points stay, and answer ENOMEDIUM.

        Raises ERROR_BUSY while files are open, unless forced: then they are closed.
        """
        self._refuse_in_event("call unmount_media")
        self._need_storage("unmount_media")
        if not self._active:
            raise CBFSConnectError(ERROR_INVALID_STATE, "no media is mounted")
        if self.storage_type == c.STGT_DISK_PNP and not (
            self.storage_characteristics & c.STGC_REMOVABLE_MEDIA
        ):
            raise CBFSConnectError(
                ERROR_ACCESS_DENIED, "the media of this drive is not removable: delete_storage"
            )
        if not force_unmount:
            self._refuse_while_open()
        self._flush()
        self._take_media_out(force_unmount)

    def delete_storage(self, force_unmount: bool = False) -> None:
        """Delete the drive, with its mounting points and media.

        Raises ERROR_BUSY while it is in use, unless forced.
        """
        self._refuse_in_event("call delete_storage")
        self._need_storage("delete_storage")
        self._claim_end("delete_storage")
        try:
            if force_unmount:
                self._flush()
            pin = self._unmount_all(force_unmount)
        except CBFSConnectError:
            self._disclaim_end()
            raise
        if self._active and pin is not None:
            self._take_media_out(force_unmount)
        self._finish_session(pin)
        if self._active:
            self._take_media_out(force_unmount)
        self._notifier.stop()
        self._handler_loop.stop(STUCK_AFTER_S)
        self._storage = False
        self._rules.clear()
        lifetime.unregister(self)
        self._gone.set()

    # --- changes behind the drive --------------------------------------------------------------

    def notify_directory_change(self, file_name: str, action: int, wait: bool = False) -> bool:
        """Say that an item changed other than through the drive, so that the kernel asks anew.

        `action` is one CBFS_NOTIFY_FLAG_…. `wait` returns when the kernel has forgotten what it
        knew; inside a handler it cannot be waited for, and the call returns at once. False when
        the drive is mounted nowhere.
        """
        self._need_media("notify_directory_change")
        if action & ~c.CBFS_NOTIFY_FLAG_SKIP_LOCKED_FILE not in changes.ACTIONS:
            raise CBFSConnectError(
                ERROR_INVALID_PARAMETER, f"action {action:#x} is no CBFS_NOTIFY_FLAG_…"
            )
        engine, session = self._engine, self._session
        if engine is None or session is None:
            return False
        if action & c.CBFS_NOTIFY_FLAG_SKIP_LOCKED_FILE and engine.locks.any_on(file_name):
            return True
        told = changes.notices(engine, file_name, action & ~c.CBFS_NOTIFY_FLAG_SKIP_LOCKED_FILE)
        if wait and not self._in_event():
            for message in told:
                session.send(message)
        else:
            self._notifier.put(told)
        return True

    def release_unused_files(self) -> bool:
        """Have the kernel let go of all that it caches of files that nobody has open.

        Raises ERROR_IO_PENDING inside a handler: there it is done a moment later.
        """
        self._need_media("release_unused_files")
        engine, session = self._engine, self._session
        if engine is None or session is None:
            return True
        told = changes.releases(engine)
        if self._in_event():
            self._notifier.put(told)
            raise CBFSConnectError(ERROR_IO_PENDING, "unused files are released in a moment")
        for message in told:
            session.send(message)
        return True

    # --- the snapshot of open files ------------------------------------------------------------

    def create_opened_files_snapshot(self) -> None:
        """Note which files are open now; the `open_…` getters tell of that moment."""
        self._refuse_in_event("call create_opened_files_snapshot")
        self._need_media("create_opened_files_snapshot")
        self._opened_files = OpenedFiles(self._engine)

    def close_opened_files_snapshot(self) -> None:
        """Forget the snapshot."""
        self._opened_files = OpenedFiles()

    @staticmethod
    def file_matches_mask(mask: str, file_name: str, case_sensitive: bool) -> bool:
        """Whether a name (no path) matches a mask such as `*.txt`, as Windows matches it."""
        return masks.matches(mask, file_name, case_sensitive)

    def wait(self, timeout: float | None = None) -> bool:
        """Linux extension: wait until the drive is deleted or somebody unmounts it.

        `timeout` in seconds; False when it ran out.
        """
        self._refuse_in_event("call wait")
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self._gone.wait(max(0.0, min(_LONGEST_WAIT_S, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return False
        return True

    # --- sessions ------------------------------------------------------------------------------

    def _start_session(self, mounting_point: str) -> str:
        settings = self.settings
        options = fuse_mount.MountOptions(
            source=settings.mount_source,
            allow_other=settings.allow_other,
            default_permissions=settings.default_permissions,
            read_only=bool(self.storage_characteristics & c.STGC_READONLY_DEVICE),
        )
        mounted = fuse_mount.mount(mounting_point, options)
        least, most, timeout = self._worker_rules()
        features = features_of(self._handlers, options_of(self))
        self._links_cached = bool(features & InitFlag.CACHE_SYMLINKS)
        session = Session(
            DeviceTransport(mounted.fd),
            features,
            read_ahead=settings.read_ahead,
            background=_MANY if self._handlers.has_async else _SOME,
            least_workers=least,
            most_workers=most,
            timeout=timeout,
            worker_begins=self._worker_begins,
            worker_ends=self._worker_ends,
            ended=self._session_ended,
        )
        if self._engine is not None:
            session.serve(self._engine)
        self._expected_end = False
        self._mounted, self._session = mounted, session
        try:
            self._use_flows(session)
            session.start()
            problem = session.wait_until_ready(_READY_WITHIN_S)
            if problem is not None:
                raise CBFSConnectError(win32_from_errno(errno.EPROTO), problem)
            fuse_mount.set_read_ahead(mounted.device, settings.read_ahead // 1024)
        except BaseException:  # Ctrl-C among them: no mount may be left that nobody serves
            self._expected_end = True
            mounted.unmount(force=True)
            self._finish_session()
            raise
        return mounted.mountpoint

    def _use_flows(self, session: Session) -> None:
        """Requests shall wait for async handlers without a thread. Where only one event may happen
        at a time there is nothing to gain: then the one worker waits."""
        if self._handlers.has_async and not self.serialize_events:
            from cbfsconnect.engine.flows import Flows

            session.use_flows(Flows(session, self._handler_loop, self._timeout_s))

    def _async_handler_assigned(self) -> None:
        session = self._session
        if session is not None and session.flows is None:
            self._use_flows(session)

    def _worker_rules(self) -> tuple[int, int, float]:
        """The least and most workers, and the seconds that a handler may take."""
        if self.serialize_events:
            return 1, 1, self._timeout_s
        settings = self.settings
        return settings.min_worker_thread_count, settings.max_worker_thread_count, self._timeout_s

    def _unmount(self, point: MountingPoint) -> None:
        try:
            if self._mounted is not None:
                self._mounted.unmount(at=point.path)
        except fuse_mount.MountError as error:
            raise _from_mount_error(error) from error
        self._points.remove(point)

    def _unmount_all(self, force: bool) -> int | None:
        """Take all mounting points away. Where programs go on using the drive by force, a
        descriptor is returned that reaches it."""
        pin = None
        for point in reversed(list(self._points)):
            if not force or self._mounted is None:
                self._unmount(point)
                continue
            if pin is not None:
                os.close(pin)
            try:
                pin = self._mounted.take_away(point.path)
            except fuse_mount.MountError as error:
                raise _from_mount_error(error) from error
            self._points.remove(point)
        return pin

    def _claim_end(self, method: str) -> None:
        """From now on the session ends because we want it to."""
        with self._mutex:
            self._need_storage(method)
            self._expected_end = True

    def _disclaim_end(self) -> None:
        """The session goes on after all, unless somebody else has ended it meanwhile."""
        self._expected_end = False
        session = self._session
        if session is not None and session.is_over:
            self._session_ended(session)

    def _finish_session(self, pin: int | None = None) -> None:
        """Wait for the workers of an unmounted session, and let its descriptor go.

        Programs that use a drive taken away by force keep the connection alive: then `pin` reaches
        it, and the session is cut off from them.
        """
        session = self._session
        if session is not None:
            deadline = time.monotonic() + STUCK_AFTER_S + 1
            if pin is None:
                session.wait_until_over(STUCK_AFTER_S + 1)
                session.close(max(STUCK_AFTER_S / 10, deadline - time.monotonic()))
            else:
                session.close(STUCK_AFTER_S, lambda count: fuse_mount.send_requests(pin, count))
        if pin is not None:
            os.close(pin)
        self._session = self._mounted = None
        self._links_cached = False

    def _session_ended(self, session: Session) -> None:
        """Runs on a worker when the connection is over: by us, or by somebody else's umount."""
        with self._mutex:
            if self._expected_end or session is not self._session:
                return
            self._points.clear()
            self._session = self._mounted = None
            self._links_cached = False
            engine, self._engine = self._engine, None
            was_active, self._active = self._active, False
            self._storage = False
        lifetime.unregister(self)
        if self._event_thread is None:
            self._event_thread = EventThread(self._event_thread_begins, self._event_thread_ends)
        self._event_thread.start(lambda: self._eject(session, engine, was_active, self._gone))

    def _eject(
        self, session: Session, engine: Engine | None, active: bool, gone: threading.Event
    ) -> None:
        """Runs on the event thread: the rest of an end that came from outside."""
        on = self._handlers
        if engine is None:
            engine = self._new_engine()
        if active:
            fire_volume_event(engine, on.on_unmount, CBFSUnmountEventParams())
        fire_volume_event(engine, on.on_ejected, CBFSEjectedEventParams())
        session.close(STUCK_AFTER_S)
        self._notifier.stop()
        self._stop_event_thread()
        self._rules.clear()
        self._handler_loop.stop(STUCK_AFTER_S)
        gone.set()

    # --- media ---------------------------------------------------------------------------------

    def _new_engine(self) -> Engine:
        engine = Engine(
            self._handlers,
            options_of(self),
            self._send,
            self._notify,
            self._has_mounts_inside,
            self._rules if self.process_restrictions_enabled else None,
        )
        self._route_from_cache(engine)
        return engine

    def _has_mounts_inside(self) -> bool:
        inside = tuple(point.path.rstrip("/") + "/" for point in self._points)
        return any(mount.mount_point.startswith(inside) for mount in mountinfo.entries())

    def _notify(self, told: list[bytes]) -> None:
        self._notifier.put(told)

    def _send(self, message: bytes) -> object:
        session = self._session
        return session.send(message) if session is not None else False

    def _flush(self) -> None:
        """Have the kernel write what it caches of files that are open."""
        if self._points and self._engine is not None and len(self._engine.handles):
            fuse_mount.flush(self._points[0].path, self._rules.helpers)

    def _take_media_out(self, force: bool) -> None:
        """Close what is open, and tell `on_unmount`; by force, stuck handlers are left behind."""
        engine, session = self._engine, self._session
        self._engine, self._active = None, False
        if session is not None:
            session.engine = None
        if engine is None:
            return
        within = _CLOSING_WITHIN_S if force else None
        told = farewell(engine, {handle.node.id for handle in engine.handles.all()} - {ROOT_ID})
        try:
            self._on_event_thread(lambda: engine.close_all(Worker()), within)
            if session is not None and not self._expected_end:
                # The kernel takes them only when nobody is at the items: not this thread may wait.
                self._notifier.put(told)
                self._notifier.wait(STUCK_AFTER_S)
            self._on_event_thread(
                lambda: fire_volume_event(
                    engine, self._handlers.on_unmount, CBFSUnmountEventParams()
                ),
                within,
            )
        except TimeoutError:
            log.warning("a handler did not return: media is taken out all the same")
        self._stop_event_thread(within)

    def _refuse_while_open(self) -> None:
        engine = self._engine
        deadline = time.monotonic() + _RELEASED_WITHIN_S
        while engine is not None and len(engine.handles):
            if time.monotonic() > deadline:
                names = sorted({handle.node.path for handle in engine.handles.all()})[:5]
                raise CBFSConnectError(
                    ERROR_BUSY,
                    f"files are open: {', '.join(names)}; close them, or force the unmount",
                )
            time.sleep(0.01)

    # --- the end of the process ----------------------------------------------------------------

    def _end_of_process(self) -> None:
        if self._storage:
            self.delete_storage(True)

    def _in_forked_child(self) -> None:
        """The drive is the parent's: a child that held its descriptor would keep it alive."""
        session, self._session, self._mounted = self._session, None, None
        self._engine, self._event_thread = None, None
        self._storage = self._active = False
        self._points.clear()
        self._gone = threading.Event()
        self._gone.set()
        self._mutex = threading.Lock()
        self._notifier = Notifier(self._send)
        self._rules.abandon()
        self._rules = AccessRules()
        self._handler_loop.abandon()
        if session is not None:
            session.abandon()

    # --- helpers -------------------------------------------------------------------------------

    def _need_storage(self, method: str) -> None:
        if not self._storage:
            raise CBFSConnectError(
                ERROR_INVALID_STATE, f"there is no drive: call create_storage before {method}"
            )

    def _need_media(self, method: str) -> None:
        if not self._active:
            raise CBFSConnectError(
                ERROR_INVALID_STATE, f"no media is mounted: call mount_media before {method}"
            )

    def _is_own(self, path: str) -> bool:
        return any((path + "/").startswith(point.path.rstrip("/") + "/") for point in self._points)

    def _point(self, index: int) -> MountingPoint:
        if not 0 <= index < len(self._points):
            raise CBFSConnectError(
                ERROR_INVALID_PARAMETER, f"there is no mounting point with index {index}"
            )
        return self._points[index]

    def _index_of(self, name: str, flags: int, authentication_id: int) -> int:
        # How the removal is told to the system is no part of what the point was added with.
        flags = check_flags(flags, []) & ~c.STGMP_DRIVE_LETTER_NOTIFY_ASYNC
        wanted = (name, flags, authentication_id)
        for index, point in enumerate(self._points):
            added = point.flags & ~c.STGMP_DRIVE_LETTER_NOTIFY_ASYNC
            if (point.name, added, point.authentication_id) == wanted:
                return index
        raise CBFSConnectError(ERROR_INVALID_PARAMETER, f"{name!r} is no mounting point")


def _from_mount_error(error: fuse_mount.MountError) -> CBFSConnectError:
    code = ERROR_BUSY if error.errno == errno.EBUSY else win32_from_errno(error.errno)
    return CBFSConnectError(code, error.message)
