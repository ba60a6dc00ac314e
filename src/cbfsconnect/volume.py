"""Between class CBFS and the engine: the rules of a mounted drive, and the events of the volume."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cbfsconnect import constants as c
from cbfsconnect.engine.options import Options
from cbfsconnect.errors import (
    ERROR_INVALID_STATE,
    CBFSConnectError,
    win32_from_errno,
)
from cbfsconnect.events import (
    CBFSGetVolumeIdEventParams,
    CBFSGetVolumeLabelEventParams,
    CBFSGetVolumeSizeEventParams,
    CBFSWorkerThreadCreationEventParams,
    CBFSWorkerThreadTerminationEventParams,
)
from cbfsconnect.fuse.abi import InitFlag

if TYPE_CHECKING:
    from cbfsconnect.cbfs import CBFS
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.events import EventParams, HandlerTable

log = logging.getLogger("cbfsconnect")


def options_of(cbfs: CBFS) -> Options:
    """The rules that hold from now on, out of properties and settings."""
    settings = cbfs.settings
    # What the kernel remembers it would tell everybody, whatever access rules say.
    remembers = not cbfs.process_restrictions_enabled
    return Options(
        fire_all_open_close_events=cbfs.fire_all_open_close_events,
        serialize_access=cbfs.serialize_access,
        use_alternate_data_streams=cbfs.use_alternate_data_streams,
        use_directory_empty_check=cbfs.use_directory_empty_check,
        use_hard_links=cbfs.use_hard_links,
        use_disk_quotas=cbfs.use_disk_quotas,
        handle_all_fsctls=cbfs.handle_all_fsctls,
        use_reparse_points=cbfs.use_reparse_points,
        use_case_sensitive_file_names=cbfs.use_case_sensitive_file_names,
        use_short_file_names=cbfs.use_short_file_names,
        use_windows_security=cbfs.use_windows_security,
        ntfs_attributes=settings.ntfs_attributes,
        support_odx_read_write=cbfs.support_odx_read_write,
        max_file_name_length=cbfs.max_file_name_length,
        max_file_path_length=cbfs.max_file_path_length,
        file_cache=cbfs.file_cache,
        write_through=settings.file_cache_policy_write_through,
        metadata_cache=cbfs.metadata_cache_enabled and remembers,
        metadata_timeout=settings.metadata_cache_timeout,
        metadata_cache_size=cbfs.metadata_cache_size,
        nonexistent_cache=cbfs.non_existent_files_cache_enabled and remembers,
        nonexistent_cache_size=cbfs.non_existent_files_cache_size,
        support_change_time_attribute=cbfs.support_change_time_attribute,
        support_last_access_time_attribute=cbfs.support_last_access_time_attribute,
        read_only=bool(cbfs.storage_characteristics & c.STGC_READONLY_DEVICE),
        use_file_ids=settings.use_file_ids,
        read_outside_eof=settings.allow_read_outside_eof,
        fire_set_file_size_on_write=settings.fire_set_file_size_on_write,
        posix_delete=settings.posix_delete,
        support_exchange=settings.support_exchange,
        fast_rename=settings.fast_rename_move,
        routes=cbfs._is_routing(),
        passthrough=settings.route_method != "positioned" and os.geteuid() == 0,
        unlock_all=settings.support_unlock_all_requests,
        separator=settings.path_separator,
        stream_separator=settings.stream_separator,
        xattr_streams=settings.streams_interface != "windows",
        windows_streams=settings.streams_interface != "xattr",
        sector_size=settings.sector_size,
        cluster_size=settings.cluster_size,
        default_permissions=settings.default_permissions,
        uid=os.geteuid(),
        gid=os.getegid(),
    )


def features_of(on: HandlerTable, options: Options) -> InitFlag:
    """What is asked of the kernel beyond what every drive gets."""
    features = InitFlag(0)
    if options.write_back and on.on_write_file is not None:
        features |= InitFlag.WRITEBACK_CACHE
    if options.metadata_cache:
        features |= InitFlag.CACHE_SYMLINKS
    if options.stable_ids and on.on_get_file_name_by_file_id is not None:
        features |= InitFlag.EXPORT_SUPPORT
    if options.routes and options.passthrough:
        features |= InitFlag.PASSTHROUGH
    if on.on_lock_file is not None:
        features |= InitFlag.POSIX_LOCKS | InitFlag.FLOCK_LOCKS
    return features


def check_volume(engine: Engine) -> None:
    """Ask what every system asks of new media; raises when a handler is missing or fails."""
    on = engine.on
    for name in ("on_get_file_info", "on_enumerate_directory"):
        if getattr(on, name) is None:
            raise CBFSConnectError(
                ERROR_INVALID_STATE, f"assign {name} before mount_media: every drive needs it"
            )
    _ask(engine, on.on_get_volume_size, CBFSGetVolumeSizeEventParams())
    _ask(engine, on.on_get_volume_label, CBFSGetVolumeLabelEventParams())
    _ask(engine, on.on_get_volume_id, CBFSGetVolumeIdEventParams())
    root = engine.nodes.root
    info = engine.info(root.path, root)
    if isinstance(info, int):
        raise CBFSConnectError(
            win32_from_errno(info),
            f"on_get_file_info fails for the root directory {root.path!r}: {os.strerror(info)}",
        )
    if not stat.S_ISDIR(engine.attributes.mode_of(info)):
        raise CBFSConnectError(
            ERROR_INVALID_STATE,
            "on_get_file_info must say that the root is a directory: set attributes to "
            "FILE_ATTRIBUTE_DIRECTORY, or mode with stat.S_IFDIR",
        )


def _ask(engine: Engine, handler: Callable[[Any], None] | None, params: EventParams) -> None:
    error = fire_volume_event(engine, handler, params)
    if error:
        name = getattr(handler, "__name__", repr(handler))
        raise CBFSConnectError(
            win32_from_errno(error), f"{name} fails: {os.strerror(error)}; see the log"
        )


def fire_volume_event(
    engine: Engine, handler: Callable[[Any], None] | None, params: EventParams
) -> int:
    """Fire an event of the volume, if it is handled; 0 or an errno."""
    return engine.fire(handler, params) if handler is not None else 0


def fire_worker_begins(on: HandlerTable) -> None:
    """Fire `on_worker_thread_creation` on this thread."""
    _fire_quietly(on.on_worker_thread_creation, CBFSWorkerThreadCreationEventParams())


def fire_worker_ends(on: HandlerTable) -> None:
    """Fire `on_worker_thread_termination` on this thread."""
    _fire_quietly(on.on_worker_thread_termination, CBFSWorkerThreadTerminationEventParams())


def _fire_quietly(handler: Callable[[Any], None] | None, params: EventParams) -> None:
    if handler is None:
        return
    try:
        handler(params)
    except BaseException:
        log.exception("%s failed", getattr(handler, "__name__", handler))
