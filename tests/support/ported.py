r"""A drive as programs for the 2020 edition are written: a folder shown as a drive.

Handlers are functions with one argument that are assigned one by one. Contexts are numbers, keys of
dictionaries; data moves with `ctypes.memmove`; results are Win32 codes, -1 for what is unexpected;
times are naive datetimes in UTC; paths have backslashes. Nothing of Linux is known: no modes, no
owners, no nanoseconds.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cbfsconnect import *  # noqa: F403 - as those programs do
from cbfsconnect import CBFS, EVENTS, FILE_OPEN, FILE_OPEN_IF

SECTOR_SIZE = 512
EPOCH = datetime(1970, 1, 1)
CODES: dict[type[OSError], int] = {
    FileNotFoundError: 2,
    PermissionError: 5,
    FileExistsError: 183,
    NotADirectoryError: 267,
}


class PortedDrive:
    """The handlers and what they share. `open_files` and `listings` are empty when all is closed.

    `trouble` collects what should not have happened.
    """

    def __init__(self, folder: Path, cbfs: CBFS) -> None:
        self.folder = str(folder)
        self.cbfs = cbfs
        self.keys = itertools.count(1)
        self.open_files: dict[int, dict[str, Any]] = {}
        self.handles: dict[int, str] = {}
        self.listings: dict[int, Iterator[os.DirEntry[str]]] = {}
        self.trouble: list[str] = []
        for event in EVENTS:
            handler = getattr(self, event.removeprefix("on_"), None)
            if handler is not None:
                setattr(cbfs, event, handler if event == "on_error" else self.guarded(handler))

    def guarded(self, handler: Callable[[Any], None]) -> Callable[[Any], None]:
        """The frame that vendor programs put around every handler."""

        def guard(e: Any) -> None:
            try:
                handler(e)
            except OSError as error:
                e.result_code = CODES.get(type(error), 145 if error.errno == 39 else -1)
            except Exception as error:
                self.trouble.append(f"{handler}: {error!r} in {e!r}")
                e.result_code = -1

        return guard

    def path(self, name: str) -> str:
        """The file behind a name in the drive."""
        if not name.startswith("\\") or "/" in name:
            self.trouble.append(f"the path {name!r}")
        return self.folder + name.rstrip("\\").replace("\\", os.sep)

    # --- the volume ---

    def get_volume_size(self, e: Any) -> None:
        e.total_sectors, e.available_sectors = 1 << 21, 1 << 20

    def get_volume_label(self, e: Any) -> None:
        e.buffer = "Ported"

    def get_volume_id(self, e: Any) -> None:
        e.volume_id = 0x12345678

    def error(self, e: Any) -> None:
        self.trouble.append(f"{e.error_code}: {e.description}")

    # --- opening and closing ---

    def create_file(self, e: Any) -> None:
        path = self.path(e.file_name)
        if e.attributes & 0x10:
            os.mkdir(path)
            file = -1
        else:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        self.opened(e, file)

    def open_file(self, e: Any) -> None:
        path = self.path(e.file_name)
        if e.file_context:
            self.count(e)
            return
        is_directory = bool(e.attributes & 0x10)
        if is_directory != os.path.isdir(path):
            self.trouble.append(f"{e.file_name} opened with attributes {e.attributes:#x}")
        self.opened(e, -1 if is_directory else os.open(path, os.O_RDWR))
        if not is_directory and e.nt_create_disposition not in (FILE_OPEN, FILE_OPEN_IF):
            self.set_attributes(path, e.attributes & 0xFFFF)

    def opened(self, e: Any, file: int) -> None:
        if e.file_context or e.handle_context:
            self.trouble.append(f"contexts that nobody has set: {e!r}")
        e.file_context = next(self.keys)
        self.open_files[e.file_context] = {"file": file, "count": 0, "name": e.file_name}
        self.count(e)

    def count(self, e: Any) -> None:
        self.open_files[e.file_context]["count"] += 1
        e.handle_context = next(self.keys)
        self.handles[e.handle_context] = e.file_name

    def cleanup_file(self, e: Any) -> None:
        if e.file_context not in self.open_files:
            self.trouble.append(f"cleanup of what is not open: {e!r}")

    def close_file(self, e: Any) -> None:
        entry = self.open_files[e.file_context]
        entry["count"] -= 1
        # Without all events only the first handle could be given a context.
        if e.handle_context:
            del self.handles[e.handle_context]
        elif self.cbfs.fire_all_open_close_events:
            self.trouble.append(f"a handle without its context: {e!r}")
        if entry["count"] == 0 and not e.delete_file:
            self.free(e.file_context)

    def free(self, context: int) -> None:
        entry = self.open_files.pop(context)
        if entry["file"] >= 0:
            os.close(entry["file"])

    # --- data ---

    def read_file(self, e: Any) -> None:
        file = self.open_files[e.file_context]["file"]
        data = os.pread(file, e.bytes_to_read, e.position)
        if data:
            source = (ctypes.c_uint8 * len(data)).from_buffer(bytearray(data))
            ctypes.memmove(e.buffer, source, len(data))
        e.bytes_read = len(data)

    def write_file(self, e: Any) -> None:
        file = self.open_files[e.file_context]["file"]
        data = bytearray(e.bytes_to_write)
        ctypes.memmove((ctypes.c_uint8 * len(data)).from_buffer(data), e.buffer, len(data))
        e.bytes_written = os.pwrite(file, data, e.position)

    def set_file_size(self, e: Any) -> None:
        os.ftruncate(self.open_files[e.file_context]["file"], e.size)

    def set_allocation_size(self, e: Any) -> None:
        """The backend does that."""

    def flush_file(self, e: Any) -> None:
        if e.file_name and e.file_context not in self.open_files:
            self.trouble.append(f"flush of what is not open: {e!r}")

    # --- information ---

    def get_file_info(self, e: Any) -> None:
        try:
            info = os.lstat(self.path(e.file_name))
        except (FileNotFoundError, NotADirectoryError):
            e.file_exists = False
            return
        e.file_exists = True
        self.describe(e, info)
        e.real_file_name = e.file_name.rpartition("\\")[2]

    def describe(self, e: Any, info: os.stat_result) -> None:
        is_directory = (info.st_mode & 0o170000) == 0o040000
        e.attributes = 0x10 if is_directory else 0x20
        if not info.st_mode & 0o200:
            e.attributes |= 1
        e.size = 0 if is_directory else info.st_size
        e.allocation_size = -(-e.size // SECTOR_SIZE) * SECTOR_SIZE
        e.creation_time = time_of(info.st_ctime)
        e.last_access_time = time_of(info.st_atime)
        e.last_write_time = time_of(info.st_mtime)

    def set_file_attributes(self, e: Any) -> None:
        path = self.path(e.file_name)
        if e.file_context not in self.open_files:
            self.trouble.append(f"attributes of what is not open: {e!r}")
        if e.attributes:
            self.set_attributes(path, e.attributes)
        if e.last_write_time != EPOCH or e.last_access_time != EPOCH:
            info = os.stat(path)
            times = [
                given.replace(tzinfo=UTC).timestamp() if given != EPOCH else before
                for given, before in (
                    (e.last_access_time, info.st_atime),
                    (e.last_write_time, info.st_mtime),
                )
            ]
            os.utime(path, (times[0], times[1]))

    def set_attributes(self, path: str, attributes: int) -> None:
        if not os.path.isdir(path):
            os.chmod(path, 0o444 if attributes & 1 else 0o644)

    # --- names ---

    def can_file_be_deleted(self, e: Any) -> None:
        e.can_be_deleted = True

    def is_directory_empty(self, e: Any) -> None:
        e.is_empty = not os.listdir(self.path(e.directory_name))

    def delete_file(self, e: Any) -> None:
        path = self.path(e.file_name)
        if e.file_context:
            self.free(e.file_context)
        if os.path.isdir(path):
            os.rmdir(path)
        else:
            os.unlink(path)

    def rename_or_move_file(self, e: Any) -> None:
        os.replace(self.path(e.file_name), self.path(e.new_file_name))

    def enumerate_directory(self, e: Any) -> None:
        if e.restart and e.enumeration_context:
            del self.listings[e.enumeration_context]
            e.enumeration_context = 0
        if not e.enumeration_context:
            e.enumeration_context = next(self.keys)
            self.listings[e.enumeration_context] = iter(
                list(os.scandir(self.path(e.directory_name)))
            )
        entry = next(self.listings[e.enumeration_context], None)
        e.file_found = entry is not None
        if entry is None:
            del self.listings[e.enumeration_context]
            e.enumeration_context = 0
            return
        e.file_name = entry.name
        self.describe(e, entry.stat(follow_symlinks=False))

    def close_directory_enumeration(self, e: Any) -> None:
        if e.enumeration_context:
            del self.listings[e.enumeration_context]


def time_of(seconds: float) -> datetime:
    """A naive datetime in UTC."""
    return EPOCH + timedelta(seconds=seconds)
