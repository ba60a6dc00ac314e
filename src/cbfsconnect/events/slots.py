"""The `on_…` attributes of class CBFS: where handlers are assigned, where the engine finds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from cbfsconnect.event_loop import HandlerLoop
from cbfsconnect.events.asynchronous import AsyncHandler, is_async
from cbfsconnect.events.control import (
    CBFSFsctlEventParams,
    CBFSIoctlEventParams,
    CBFSSetValidDataLengthEventParams,
)
from cbfsconnect.events.declare import EVENTS, EventParams, event_name
from cbfsconnect.events.directories import (
    CBFSCloseDirectoryEnumerationEventParams,
    CBFSEnumerateDirectoryEventParams,
    CBFSIsDirectoryEmptyEventParams,
)
from cbfsconnect.events.files import (
    CBFSCanFileBeDeletedEventParams,
    CBFSCleanupFileEventParams,
    CBFSCloseFileEventParams,
    CBFSCreateFileEventParams,
    CBFSDeleteFileEventParams,
    CBFSFlushFileEventParams,
    CBFSGetFileInfoEventParams,
    CBFSGetFileNameByFileIdEventParams,
    CBFSOpenFileEventParams,
    CBFSReadFileEventParams,
    CBFSRenameOrMoveFileEventParams,
    CBFSSetAllocationSizeEventParams,
    CBFSSetFileAttributesEventParams,
    CBFSSetFileSizeEventParams,
    CBFSWriteFileEventParams,
)
from cbfsconnect.events.links import (
    CBFSCloseHardLinksEnumerationEventParams,
    CBFSCloseNamedStreamsEnumerationEventParams,
    CBFSCreateHardLinkEventParams,
    CBFSDeleteReparsePointEventParams,
    CBFSEnumerateHardLinksEventParams,
    CBFSEnumerateNamedStreamsEventParams,
    CBFSGetReparsePointEventParams,
    CBFSSetReparsePointEventParams,
)
from cbfsconnect.events.locks import CBFSLockFileEventParams, CBFSUnlockFileEventParams
from cbfsconnect.events.offload import (
    CBFSOffloadReadFileEventParams,
    CBFSOffloadWriteFileEventParams,
)
from cbfsconnect.events.quotas import (
    CBFSCloseQuotasEnumerationEventParams,
    CBFSGetDefaultQuotaInfoEventParams,
    CBFSQueryQuotasEventParams,
    CBFSSetDefaultQuotaInfoEventParams,
    CBFSSetQuotasEventParams,
)
from cbfsconnect.events.security import (
    CBFSGetFileSecurityEventParams,
    CBFSSetFileSecurityEventParams,
)
from cbfsconnect.events.volume import (
    CBFSEjectedEventParams,
    CBFSErrorEventParams,
    CBFSGetVolumeIdEventParams,
    CBFSGetVolumeLabelEventParams,
    CBFSGetVolumeObjectIdEventParams,
    CBFSGetVolumeSizeEventParams,
    CBFSMountEventParams,
    CBFSSetVolumeLabelEventParams,
    CBFSSetVolumeObjectIdEventParams,
    CBFSUnmountEventParams,
    CBFSWorkerThreadCreationEventParams,
    CBFSWorkerThreadTerminationEventParams,
)

P = TypeVar("P", bound=EventParams)


class HandlerTable:
    """The assigned handlers by event name, None where there is none: plain attributes, so that
    the engine finds a handler with one look-up."""

    def __init__(self) -> None:
        for name in EVENTS:
            setattr(self, name, None)
        self.has_async = False
        """Whether any of them was ever `async def`."""

    if TYPE_CHECKING:  # a real one would make every look-up slow

        def __getattr__(self, name: str) -> Any: ...


class EventSlot(Generic[P]):
    """One `on_…` attribute: assign a callable that takes the params object, or None.

    The callable may be `async def`.
    """

    def __init__(self, params: type[P]) -> None:
        self.params = params
        self.name = event_name(params)
        self.__doc__ = params.__doc__

    @overload
    def __get__(self, source: None, owner: type) -> Self: ...
    @overload
    def __get__(self, source: EventSource, owner: type) -> Callable[[P], Any] | None: ...
    def __get__(self, source: EventSource | None, owner: type) -> Self | Callable[[P], Any] | None:
        if source is None:
            return self
        handler = getattr(source._handlers, self.name)
        assigned: Callable[[P], Any] | None = (
            handler.function if isinstance(handler, AsyncHandler) else handler
        )
        return assigned

    def __set__(self, source: EventSource, handler: Callable[[P], Any] | None) -> None:
        if handler is not None and not callable(handler):
            raise TypeError(f"{self.name} takes a callable with one argument, or None")
        if handler is None or not is_async(handler):
            setattr(source._handlers, self.name, handler)
            return
        setattr(source._handlers, self.name, AsyncHandler(handler, source._handler_loop))
        source._handlers.has_async = True
        source._async_handler_assigned()


class EventSource:
    """All events of the class, each an attribute that takes a handler."""

    def __init__(self) -> None:
        self._handlers = HandlerTable()
        self._handler_loop = HandlerLoop()

    def _async_handler_assigned(self) -> None:
        """Called when a handler that is `async def` is there from now on."""

    def set_handlers(self, handlers: object) -> None:
        """Assigns every method of `handlers` whose name is that of an event.

        Raises `TypeError` for an `on_…` attribute that names no event, which is a misspelling,
        and when there is none at all.
        """
        names = {name for name in dir(handlers) if name.startswith("on_")}
        unknown = sorted(names - EVENTS.keys())
        if unknown:
            raise TypeError(f"{', '.join(unknown)}: no such event; see cbfsconnect.EVENTS")
        if not names:
            raise TypeError(f"{handlers!r} has no on_… method, so it cannot handle any event")
        for name in names:
            setattr(self, name, getattr(handlers, name))

    on_can_file_be_deleted = EventSlot(CBFSCanFileBeDeletedEventParams)
    on_cleanup_file = EventSlot(CBFSCleanupFileEventParams)
    on_close_directory_enumeration = EventSlot(CBFSCloseDirectoryEnumerationEventParams)
    on_close_file = EventSlot(CBFSCloseFileEventParams)
    on_close_hard_links_enumeration = EventSlot(CBFSCloseHardLinksEnumerationEventParams)
    on_close_named_streams_enumeration = EventSlot(CBFSCloseNamedStreamsEnumerationEventParams)
    on_close_quotas_enumeration = EventSlot(CBFSCloseQuotasEnumerationEventParams)
    on_create_file = EventSlot(CBFSCreateFileEventParams)
    on_create_hard_link = EventSlot(CBFSCreateHardLinkEventParams)
    on_delete_file = EventSlot(CBFSDeleteFileEventParams)
    on_delete_reparse_point = EventSlot(CBFSDeleteReparsePointEventParams)
    on_ejected = EventSlot(CBFSEjectedEventParams)
    on_enumerate_directory = EventSlot(CBFSEnumerateDirectoryEventParams)
    on_enumerate_hard_links = EventSlot(CBFSEnumerateHardLinksEventParams)
    on_enumerate_named_streams = EventSlot(CBFSEnumerateNamedStreamsEventParams)
    on_error = EventSlot(CBFSErrorEventParams)
    on_flush_file = EventSlot(CBFSFlushFileEventParams)
    on_fsctl = EventSlot(CBFSFsctlEventParams)
    on_get_default_quota_info = EventSlot(CBFSGetDefaultQuotaInfoEventParams)
    on_get_file_info = EventSlot(CBFSGetFileInfoEventParams)
    on_get_file_name_by_file_id = EventSlot(CBFSGetFileNameByFileIdEventParams)
    on_get_file_security = EventSlot(CBFSGetFileSecurityEventParams)
    on_get_reparse_point = EventSlot(CBFSGetReparsePointEventParams)
    on_get_volume_id = EventSlot(CBFSGetVolumeIdEventParams)
    on_get_volume_label = EventSlot(CBFSGetVolumeLabelEventParams)
    on_get_volume_object_id = EventSlot(CBFSGetVolumeObjectIdEventParams)
    on_get_volume_size = EventSlot(CBFSGetVolumeSizeEventParams)
    on_ioctl = EventSlot(CBFSIoctlEventParams)
    on_is_directory_empty = EventSlot(CBFSIsDirectoryEmptyEventParams)
    on_lock_file = EventSlot(CBFSLockFileEventParams)
    on_mount = EventSlot(CBFSMountEventParams)
    on_offload_read_file = EventSlot(CBFSOffloadReadFileEventParams)
    on_offload_write_file = EventSlot(CBFSOffloadWriteFileEventParams)
    on_open_file = EventSlot(CBFSOpenFileEventParams)
    on_query_quotas = EventSlot(CBFSQueryQuotasEventParams)
    on_read_file = EventSlot(CBFSReadFileEventParams)
    on_rename_or_move_file = EventSlot(CBFSRenameOrMoveFileEventParams)
    on_set_allocation_size = EventSlot(CBFSSetAllocationSizeEventParams)
    on_set_default_quota_info = EventSlot(CBFSSetDefaultQuotaInfoEventParams)
    on_set_file_attributes = EventSlot(CBFSSetFileAttributesEventParams)
    on_set_file_security = EventSlot(CBFSSetFileSecurityEventParams)
    on_set_file_size = EventSlot(CBFSSetFileSizeEventParams)
    on_set_quotas = EventSlot(CBFSSetQuotasEventParams)
    on_set_reparse_point = EventSlot(CBFSSetReparsePointEventParams)
    on_set_valid_data_length = EventSlot(CBFSSetValidDataLengthEventParams)
    on_set_volume_label = EventSlot(CBFSSetVolumeLabelEventParams)
    on_set_volume_object_id = EventSlot(CBFSSetVolumeObjectIdEventParams)
    on_unlock_file = EventSlot(CBFSUnlockFileEventParams)
    on_unmount = EventSlot(CBFSUnmountEventParams)
    on_worker_thread_creation = EventSlot(CBFSWorkerThreadCreationEventParams)
    on_worker_thread_termination = EventSlot(CBFSWorkerThreadTerminationEventParams)
    on_write_file = EventSlot(CBFSWriteFileEventParams)
