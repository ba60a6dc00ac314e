"""The methods of class CBFS that route items of the drive to local files.

Whether the kernel shall read and write those itself must be agreed with it before any is known, and
costs the write-back cache. So it is asked for where the drive will probably route: the route cache
is on, or the handlers of opening name the method in their code.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
from abc import abstractmethod
from types import CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from cbfsconnect.engine.local_files import Mirror, OnOwnDrive
from cbfsconnect.engine.routing import Routing
from cbfsconnect.errors import (
    ERROR_INVALID_PARAMETER,
    ERROR_INVALID_STATE,
    ERROR_POSSIBLE_DEADLOCK,
    CBFSConnectError,
    win32_from_errno,
)
from cbfsconnect.events import HandlerTable

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.session import Session
    from cbfsconnect.fuse.backing import BackingFiles
    from cbfsconnect.fuse.mount import Mounted
    from cbfsconnect.settings import Settings

_beginning = threading.Lock()
_METHOD = "route_to_file"


class Routes:
    """Routing, for class CBFS."""

    _engine: Engine | None
    _session: Session | None
    _mounted: Mounted | None
    _handlers: HandlerTable
    settings: Settings

    _route_cache: tuple[Mirror, int] | None = None

    @abstractmethod
    def _need_media(self, method: str) -> None: ...

    def enable_route_cache(self, location: str, flags: int) -> None:
        """Route what is opened from now on to the items of the same path below a directory.

        Names never lead out of it, and symbolic links in it are not followed. What it does not have
        fires events as ever. `flags` are CBFS_ROUTE_… as in `route_to_file`. Raises with the code
        of what is wrong with the directory, ERROR_POSSIBLE_DEADLOCK when it is on the drive.
        """
        try:
            mirror = Mirror(os.path.abspath(location), self._own_device)
        except OnOwnDrive as error:
            raise _deadlock(location) from error
        except OSError as error:
            raise CBFSConnectError(
                win32_from_errno(error.errno or 0),
                f"the route cache cannot be {location!r}: {error}",
            ) from error
        self._route_cache = mirror, _checked(flags)
        engine = self._engine
        if engine is not None:
            self._route_from_cache(engine)

    def disable_route_cache(self, invalidate_routed_files: bool) -> None:
        """Route no more of what is opened to the directory of `enable_route_cache`.

        With `invalidate_routed_files` the handlers serve what the cache has routed and is open
        still, `on_open_file` first. What the kernel reads and writes itself it does to the last
        close. Without, all of it stays routed until then.
        """
        self._route_cache = None
        routing = None if self._engine is None else self._engine.routing
        if routing is not None:
            routing.set_cache(None)
            if invalidate_routed_files:
                routing.end_cached()

    def route_to_file(self, file_info: int, file_name: str, flags: int) -> bool:
        """Have a local file stand for the item that is being opened, until its last close.

        To be called inside `on_create_file` and `on_open_file`, with the event's `file_info`; a
        directory can be routed to a directory. `flags`: CBFS_ROUTE_FILE_READ_ONLY, and
        CBFS_ROUTE_…_EVENT for what shall fire its event all the same; each of these implies those
        of open and close. False when the local file is not there, is of another kind, or the item
        is open already without being routed to it; the log says why. Raises
        ERROR_POSSIBLE_DEADLOCK for a file on the drive itself.
        """
        self._need_media(_METHOD)
        engine = self._engine
        handle = engine.handles.get(file_info) if engine is not None else None
        if engine is None or handle is None or not handle.offered:
            raise CBFSConnectError(
                ERROR_INVALID_STATE,
                "call route_to_file inside on_create_file or on_open_file, with their file_info",
            )
        routing = self._begin_routing(engine)
        try:
            return routing.offer(handle, os.fsdecode(file_name), _checked(flags))
        except OSError as error:
            raise _deadlock(file_name) from error

    # --- for the rest of the class -------------------------------------------------------------

    def _is_routing(self) -> bool:
        """Whether items of the drive will probably be routed."""
        if self._route_cache is not None or self.settings.route_method == "passthrough":
            return True
        on = self._handlers
        return any(names(h, _METHOD) for h in (on.on_open_file, on.on_create_file) if h is not None)

    def _route_from_cache(self, engine: Engine) -> None:
        """Have a new engine, or one that runs, use the route cache."""
        if self._route_cache is not None:
            self._begin_routing(engine).set_cache(self._route_cache)

    def _begin_routing(self, engine: Engine) -> Routing:
        with _beginning:
            if engine.routing is None:
                Routing(engine, self._backing, self._own_device)
            assert engine.routing is not None
            return engine.routing

    def _backing(self) -> BackingFiles | None:
        session = self._session
        return session.backing if session is not None else None

    def _own_device(self) -> int:
        mounted = self._mounted
        if mounted is None:
            return -1
        major, _, minor = mounted.device.partition(":")
        return os.makedev(int(major), int(minor))


def names(function: object, name: str) -> bool:
    """Whether the code of a function has this name in it, or the code of what it calls: methods of
    its object, functions of its module, functions that it encloses or wraps."""
    todo: list[object] = [function]
    seen: set[CodeType] = set()
    while todo:
        found = todo.pop()
        while isinstance(found, functools.partial):
            found = found.func
        owner = found.__self__ if isinstance(found, MethodType) else None
        plain = inspect.unwrap(found) if callable(found) else found
        plain = getattr(plain, "__func__", plain)
        if not isinstance(plain, FunctionType):
            continue
        for code in _codes(plain.__code__):
            if name in code.co_names:
                return True
            if code not in seen:
                seen.add(code)
                todo += _named_by(code, plain, owner)
    return False


def _codes(code: CodeType) -> list[CodeType]:
    """A code object and those of the functions inside it."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return [code, *(each for one in inner for each in _codes(one))]


def _named_by(code: CodeType, function: FunctionType, owner: object) -> list[object]:
    """What the names in a function's code stand for, as far as one can see without running it."""
    cells = function.__closure__ or ()
    found: list[object] = [cell.cell_contents for cell in cells if _is_full(cell)]
    for name in code.co_names:
        known = function.__globals__.get(name)
        if getattr(known, "__globals__", None) is function.__globals__:
            found.append(known)
        if owner is not None:
            # Not by getattr: a property of the program would run.
            method: Any = inspect.getattr_static(type(owner), name, None)
            found.append(MethodType(method, owner) if isinstance(method, FunctionType) else method)
    return [one for one in found if callable(one)]


def _is_full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty cell raises
    except ValueError:
        return False
    return True


def _checked(flags: int) -> int:
    if not isinstance(flags, int) or flags < 0:
        raise CBFSConnectError(ERROR_INVALID_PARAMETER, f"flags {flags!r} are no CBFS_ROUTE_…")
    return flags


def _deadlock(path: str) -> CBFSConnectError:
    return CBFSConnectError(
        ERROR_POSSIBLE_DEADLOCK,
        f"{path!r} is on the drive itself: it would wait for its own answer",
    )
