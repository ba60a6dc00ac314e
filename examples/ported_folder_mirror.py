"""A folder shown as a drive, the way a program for the 2020 edition on Windows does it.

    python examples/ported_folder_mirror.py [-all] [-locks] FOLDER MOUNTING_POINT

`-all` fires open and close events for every handle, `-locks` passes byte-range locks on to the
folder, for programs that use it directly.

This is the worked example of `docs/port-from-windows.md`, which shows the few lines that
differ on Windows; no handler is among them. So there is nothing of Linux in the handlers: integer
keys as contexts, `ctypes.memmove`, Win32 codes, attributes instead of modes. Files and directories
are shown, links and special files are not, and permissions are READONLY or nothing.
`examples/mirror.py` is the mirror that Linux deserves.
"""

import ctypes
import fcntl
import itertools
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cbfsconnect import *

PRODUCT_GUID = "{52B4AF9C-7C4F-4E07-8D5B-0C0C0A6D2E11}"
SECTOR_SIZE = 512
NO_TIME = datetime(1970, 1, 1)
NO_FD = -1
BINARY = 0
Information = CBFSGetFileInfoEventParams | CBFSEnumerateDirectoryEventParams
Opening = CBFSCreateFileEventParams | CBFSOpenFileEventParams


@dataclass
class OpenFile:
    """What a file context stands for: a descriptor (none of a directory), and its open events."""

    fd: int
    opens: int = 0


drive = CBFS()
folder = ""
ended = threading.Event()
next_key = itertools.count(1).__next__
files: dict[int, OpenFile] = {}
"""By file context."""
handles: dict[int, str] = {}
"""By handle context: the program that opened it. Used with `-all` only; without it most handles are
opened and closed with no event."""
listings: dict[int, Iterator[os.DirEntry[str]]] = {}
"""By enumeration context."""


# --- what the system does ------------------------------------------------------------------------


def code_of(error: OSError) -> int:
    """The Win32 code of an error."""
    return win32_from_errno(error.errno or -1)


def attributes_of(info: os.stat_result) -> int:
    """The Windows attributes of a file or directory."""
    kind = FILE_ATTRIBUTE_DIRECTORY if stat.S_ISDIR(info.st_mode) else FILE_ATTRIBUTE_ARCHIVE
    return kind if info.st_mode & stat.S_IWUSR else kind | FILE_ATTRIBUTE_READONLY


def set_attributes(path: str, attributes: int) -> None:
    """Give a file or directory these Windows attributes."""
    mode = os.stat(path).st_mode
    wanted = mode & ~0o222 if attributes & FILE_ATTRIBUTE_READONLY else mode | 0o200
    if stat.S_ISREG(mode) and mode != wanted:
        os.chmod(path, wanted)


def lock(fd: int, offset: int, length: int, exclusive: bool) -> None:
    """Lock bytes of a file in the folder, or fail: to wait here would hold the file up."""
    os.lseek(fd, offset, os.SEEK_SET)
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    fcntl.lockf(fd, kind | fcntl.LOCK_NB, length % (1 << 63), 0, os.SEEK_CUR)


def unlock(fd: int, offset: int, length: int) -> None:
    """Unlock them."""
    os.lseek(fd, offset, os.SEEK_SET)
    fcntl.lockf(fd, fcntl.LOCK_UN, length % (1 << 63), 0, os.SEEK_CUR)


# --- what the handlers share ---------------------------------------------------------------------


def path_of(name: str) -> str:
    """The path in the folder of what is `name` on the drive."""
    return folder + name


def is_shown(info: os.stat_result) -> bool:
    """Whether it is a file or a directory. A link would lead out of the folder."""
    return stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)


def describe(params: Information, info: os.stat_result) -> None:
    """Say what the folder says."""
    params.attributes = attributes_of(info)
    params.size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
    params.allocation_size = -(-params.size // SECTOR_SIZE) * SECTOR_SIZE
    params.creation_time = NO_TIME + timedelta(seconds=info.st_ctime)
    params.last_access_time = NO_TIME + timedelta(seconds=info.st_atime)
    params.last_write_time = NO_TIME + timedelta(seconds=info.st_mtime)


def remember(params: Opening, fd: int) -> None:
    """Keep what was opened first for this file."""
    params.file_context = next_key()
    files[params.file_context] = OpenFile(fd)
    count(params)


def count(params: Opening) -> None:
    """Keep one more handle."""
    files[params.file_context].opens += 1
    if drive.fire_all_open_close_events:
        params.handle_context = next_key()
        handles[params.handle_context] = drive.get_originator_process_name()


def forget(file_context: int) -> None:
    """Let go of a file."""
    file = files.pop(file_context)
    if file.fd != NO_FD:
        os.close(file.fd)


# --- the volume ----------------------------------------------------------------------------------


def cb_get_volume_size(params: CBFSGetVolumeSizeEventParams) -> None:
    """As large as the disk that the folder is on."""
    usage = shutil.disk_usage(folder)
    params.total_sectors = usage.total // SECTOR_SIZE
    params.available_sectors = usage.free // SECTOR_SIZE


def cb_get_volume_label(params: CBFSGetVolumeLabelEventParams) -> None:
    """A name for the drive."""
    params.buffer = "Folder mirror"


def cb_get_volume_id(params: CBFSGetVolumeIdEventParams) -> None:
    """A serial number for the drive."""
    params.volume_id = 0x20201120


def cb_ejected(params: CBFSEjectedEventParams) -> None:
    """Somebody else has unmounted the drive."""
    print("The drive was ejected.")
    ended.set()


def cb_error(params: CBFSErrorEventParams) -> None:
    """A handler has failed in a way that it should not."""
    print(f"Unhandled error {params.error_code}: {params.description}")


# --- opening and closing -------------------------------------------------------------------------


def cb_create_file(params: CBFSCreateFileEventParams) -> None:
    """Make a file or a directory. The bits above the lowest 16 are flags of the request."""
    path, attributes = path_of(params.file_name), params.attributes & 0xFFFF
    if attributes & FILE_ATTRIBUTE_DIRECTORY:
        os.mkdir(path)
        remember(params, NO_FD)
    else:
        remember(params, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o666))
        if attributes & FILE_ATTRIBUTE_READONLY:
            set_attributes(path, attributes)


def cb_open_file(params: CBFSOpenFileEventParams) -> None:
    """Open what is there, for writing if that is allowed: only the first open may be told of."""
    if params.file_context:
        count(params)
        return
    path = path_of(params.file_name)
    if params.attributes & FILE_ATTRIBUTE_DIRECTORY:
        remember(params, NO_FD)
        return
    try:
        fd = os.open(path, os.O_RDWR | BINARY)
    except PermissionError:
        fd = os.open(path, os.O_RDONLY | BINARY)
    remember(params, fd)
    if params.nt_create_disposition not in (FILE_OPEN, FILE_OPEN_IF):
        set_attributes(path, params.attributes & 0xFFFF)


def cb_close_file(params: CBFSCloseFileEventParams) -> None:
    """Let go of the file with its last handle; if it is deleted then, cb_delete_file does it."""
    file = files[params.file_context]
    file.opens -= 1
    if params.handle_context:
        del handles[params.handle_context]
    if file.opens == 0 and not params.delete_file:
        forget(params.file_context)


# --- data ----------------------------------------------------------------------------------------


def cb_read_file(params: CBFSReadFileEventParams) -> None:
    """Copy bytes of the file into the buffer."""
    fd = files[params.file_context].fd
    os.lseek(fd, params.position, os.SEEK_SET)
    data = bytearray(os.read(fd, params.bytes_to_read))
    if data:
        source = (ctypes.c_uint8 * len(data)).from_buffer(data)
        ctypes.memmove(params.buffer, source, len(data))
    params.bytes_read = len(data)


def cb_write_file(params: CBFSWriteFileEventParams) -> None:
    """Copy the buffer into bytes of the file."""
    fd = files[params.file_context].fd
    data = bytearray(params.bytes_to_write)
    target = (ctypes.c_uint8 * len(data)).from_buffer(data)
    ctypes.memmove(target, params.buffer, params.bytes_to_write)
    os.lseek(fd, params.position, os.SEEK_SET)
    params.bytes_written = os.write(fd, data)


def cb_set_file_size(params: CBFSSetFileSizeEventParams) -> None:
    """Cut the file, or make it longer."""
    os.ftruncate(files[params.file_context].fd, params.size)


def cb_set_allocation_size(params: CBFSSetAllocationSizeEventParams) -> None:
    """The folder's own filesystem finds space when it is needed."""


def cb_flush_file(params: CBFSFlushFileEventParams) -> None:
    """Have the file's data on the disk; without a name those of all files."""
    wanted = [files[params.file_context]] if params.file_name else list(files.values())
    for file in wanted:
        if file.fd != NO_FD:
            os.fsync(file.fd)


def cb_lock_file(params: CBFSLockFileEventParams) -> None:
    """Lock the bytes in the folder too; the drive's own programs are agreed already."""
    fd = files[params.file_context].fd
    lock(fd, params.byte_offset, params.length, params.exclusive_lock)


def cb_unlock_file(params: CBFSUnlockFileEventParams) -> None:
    """Unlock them."""
    unlock(files[params.file_context].fd, params.byte_offset, params.length)


# --- information ---------------------------------------------------------------------------------


def cb_get_file_info(params: CBFSGetFileInfoEventParams) -> None:
    """Say whether it exists, and what it is."""
    try:
        info = os.lstat(path_of(params.file_name))
    except (FileNotFoundError, NotADirectoryError):
        params.file_exists = False
        return
    params.file_exists = is_shown(info)
    if params.file_exists:
        describe(params, info)


def cb_set_file_attributes(params: CBFSSetFileAttributesEventParams) -> None:
    """Change attributes and times, as far as they are given."""
    path = path_of(params.file_name)
    if params.attributes:
        set_attributes(path, params.attributes)
    info = os.stat(path)
    times = [info.st_atime, info.st_mtime]
    for index, given in enumerate((params.last_access_time, params.last_write_time)):
        if given != NO_TIME:
            times[index] = (given - NO_TIME).total_seconds()
    if times != [info.st_atime, info.st_mtime]:
        os.utime(path, (times[0], times[1]))


def cb_enumerate_directory(params: CBFSEnumerateDirectoryEventParams) -> None:
    """Give the next entry."""
    if params.restart:
        close_listing(params.enumeration_context)
        params.enumeration_context = 0
    if not params.enumeration_context:
        params.enumeration_context = next_key()
        listings[params.enumeration_context] = os.scandir(path_of(params.directory_name))
    for entry in listings[params.enumeration_context]:
        if not drive.file_matches_mask(params.mask, entry.name, params.case_sensitive):
            continue
        try:
            info = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # deleted meanwhile
        if is_shown(info):
            params.file_found = True
            params.file_name = entry.name
            describe(params, info)
            return
    params.file_found = False


def cb_close_directory_enumeration(params: CBFSCloseDirectoryEnumerationEventParams) -> None:
    """Let go of the listing."""
    close_listing(params.enumeration_context)


def close_listing(enumeration_context: int) -> None:
    """Close what the system keeps for a listing, if there is one."""
    listing: Any = listings.pop(enumeration_context, None)
    if listing is not None:
        listing.close()


# --- names ---------------------------------------------------------------------------------------


def cb_can_file_be_deleted(params: CBFSCanFileBeDeletedEventParams) -> None:
    """Everything may be deleted."""
    params.can_be_deleted = True


def cb_is_directory_empty(params: CBFSIsDirectoryEmptyEventParams) -> None:
    """Look into the directory."""
    with os.scandir(path_of(params.directory_name)) as entries:
        params.is_empty = next(entries, None) is None


def cb_delete_file(params: CBFSDeleteFileEventParams) -> None:
    """Delete what was closed just now."""
    if params.file_context:
        forget(params.file_context)
    path = path_of(params.file_name)
    if os.path.isdir(path):
        os.rmdir(path)
    else:
        os.unlink(path)


def cb_rename_or_move_file(params: CBFSRenameOrMoveFileEventParams) -> None:
    """Give it the new name; a file that has it is replaced."""
    os.replace(path_of(params.file_name), path_of(params.new_file_name))


# --- the program ---------------------------------------------------------------------------------


def reporting(handler: Callable[[Any], None]) -> Callable[[Any], None]:
    """A handler that reports errors of the system by their codes."""

    def report(params: Any) -> None:
        try:
            handler(params)
        except OSError as error:
            params.result_code = code_of(error)

    return report


def assign_handlers(with_locks: bool) -> None:
    """Give the drive its handlers."""
    drive.on_get_volume_size = reporting(cb_get_volume_size)
    drive.on_get_volume_label = cb_get_volume_label
    drive.on_get_volume_id = cb_get_volume_id
    drive.on_ejected = cb_ejected
    drive.on_error = cb_error
    drive.on_create_file = reporting(cb_create_file)
    drive.on_open_file = reporting(cb_open_file)
    drive.on_close_file = reporting(cb_close_file)
    drive.on_read_file = reporting(cb_read_file)
    drive.on_write_file = reporting(cb_write_file)
    drive.on_set_file_size = reporting(cb_set_file_size)
    drive.on_set_allocation_size = cb_set_allocation_size
    drive.on_flush_file = reporting(cb_flush_file)
    drive.on_get_file_info = reporting(cb_get_file_info)
    drive.on_set_file_attributes = reporting(cb_set_file_attributes)
    drive.on_enumerate_directory = reporting(cb_enumerate_directory)
    drive.on_close_directory_enumeration = cb_close_directory_enumeration
    drive.on_can_file_be_deleted = cb_can_file_be_deleted
    drive.on_is_directory_empty = reporting(cb_is_directory_empty)
    drive.on_delete_file = reporting(cb_delete_file)
    drive.on_rename_or_move_file = reporting(cb_rename_or_move_file)
    if with_locks:
        drive.on_lock_file = reporting(cb_lock_file)
        drive.on_unlock_file = reporting(cb_unlock_file)


def wait_for_enter() -> None:
    """Wait until the user has had enough."""
    print("Press Enter to unmount and quit.", flush=True)
    try:
        input()
    except EOFError:  # a service has nobody to press it
        ended.wait()


def main() -> int:
    """Mount the folder, wait for the user, unmount."""
    global folder
    options = [word for word in sys.argv[1:] if word.startswith("-")]
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    if len(words) != 2 or not set(options) <= {"-all", "-locks"}:
        print("usage: ported_folder_mirror.py [-all] [-locks] FOLDER MOUNTING_POINT")
        return 2
    folder, mounting_point = os.path.realpath(words[0]), words[1]
    if os.path.realpath(mounting_point).startswith(os.path.join(folder, "")):
        print("The mounting point must not lie in the folder.")
        return 2

    drive.config(f"SectorSize={SECTOR_SIZE}")
    drive.fire_all_open_close_events = "-all" in options
    assign_handlers("-locks" in options)
    try:
        drive.initialize(PRODUCT_GUID)
        drive.create_storage()
        drive.mount_media(0)
        drive.add_mounting_point(mounting_point, STGMP_SIMPLE, 0)
        print(f"{folder} is mounted at {mounting_point}.")
        wait_for_enter()
    except KeyboardInterrupt:
        print()
    except CBFSConnectError as error:
        print(f"Error {error.code}: {error.message}")
        return 1
    finally:
        if drive.storage_present:
            drive.delete_storage(True)
    print(f"Left open: {len(files)} files, {len(handles)} handles, {len(listings)} listings.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
