"""A folder shown as a drive, read and write: `python examples/mirror.py FOLDER MOUNTPOINT`.

What programs do on the drive is done in the folder: modes, owners, times to the nanosecond,
symbolic and hard links, FIFOs, sockets and devices, files that are unlinked while they are open.
Run it as root to have owners kept. Not passed on: extended attributes, and names of hard links
for `cbfsconnect.enumerate_hard_links`.

The idea: the context of an open item is a descriptor of the item itself, opened with O_PATH. It
stays good when the item is renamed or has lost its name, and it opens neither FIFOs nor devices.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator

import cbfsconnect
from cbfsconnect import (
    CBFS,
    IO_REPARSE_TAG_LX_SYMLINK,
    CBFSCloseDirectoryEnumerationEventParams,
    CBFSCloseFileEventParams,
    CBFSCreateFileEventParams,
    CBFSCreateHardLinkEventParams,
    CBFSDeleteFileEventParams,
    CBFSEnumerateDirectoryEventParams,
    CBFSFlushFileEventParams,
    CBFSGetFileInfoEventParams,
    CBFSGetReparsePointEventParams,
    CBFSGetVolumeSizeEventParams,
    CBFSOpenFileEventParams,
    CBFSReadFileEventParams,
    CBFSRenameOrMoveFileEventParams,
    CBFSSetFileAttributesEventParams,
    CBFSSetFileSizeEventParams,
    CBFSSetReparsePointEventParams,
    CBFSWriteFileEventParams,
)

SECTOR = 512
NO_FD = -1
LINK = struct.Struct("<IHHI")
"""Reparse data of a symbolic link: tag, length of what follows the header, reserved, the number 2;
then the target. `cbfsconnect` gives and takes them in this form."""


class Item:
    """An open item: a descriptor of it (O_PATH), and one for its data once they are wanted."""

    def __init__(self, path: str, owner: tuple[int, int] | None = None) -> None:
        self.path = path
        self.owner = owner
        self.fd = NO_FD
        self.data_fd = NO_FD
        self.read_only = False
        self.is_made = False

    def find(self) -> None:
        """Get hold of the item at the path, and give it the owner it shall have."""
        self.fd = os.open(self.path, os.O_PATH | os.O_NOFOLLOW)
        self.is_made = True
        if self.owner is not None:
            os.chown(self.itself(), *self.owner)

    def data(self, *, writing: bool = False) -> int:
        """A descriptor to read and write by; one to read by if the item allows no more."""
        if self.data_fd == NO_FD or (writing and self.read_only):
            try:
                fd, self.read_only = os.open(self.itself(), os.O_RDWR), False
            except OSError:
                if writing:
                    raise
                fd, self.read_only = os.open(self.itself(), os.O_RDONLY), True
            if self.data_fd != NO_FD:
                os.close(self.data_fd)
            self.data_fd = fd
        return self.data_fd

    def itself(self) -> str:
        """A path that leads to the item whatever its name is now, also to a symbolic link."""
        return f"/proc/self/fd/{self.fd}"

    def close(self) -> None:
        """Close the descriptors."""
        for fd in {self.fd, self.data_fd} - {NO_FD}:
            os.close(fd)
        self.fd = self.data_fd = NO_FD


class Mirror:
    """The handlers. They raise `OSError` as the calls on the folder do."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.realpath(folder)
        self.device = os.stat(self.folder).st_dev
        self.is_root = os.geteuid() == 0

    def configure(self, cbfs: CBFS) -> None:
        """What a filesystem of Linux does by itself, and so this drive."""
        cbfs.use_case_sensitive_file_names = True
        cbfs.use_hard_links = True
        cbfs.use_reparse_points = True
        cbfs.support_change_time_attribute = True
        cbfs.use_directory_empty_check = False  # rmdir(2) looks itself
        cbfs.config("PosixDelete=True")  # unlink(2) does not wait for the last close
        cbfs.config("FireSetFileSizeOnWrite=False")  # write(2) makes files longer itself
        # Others may change the folder too: a write must not linger in the cache of this drive.
        cbfs.config("FileCachePolicyWriteThrough=True")

    def real(self, path: str) -> str:
        """The path in the folder for a path on the drive."""
        return self.folder + path

    # --- information ---

    def on_get_file_info(self, e: CBFSGetFileInfoEventParams) -> None:
        """Asks the open item, which may have lost its name, else the name."""
        item: Item | int = e.file_context
        try:
            found = (
                os.fstat(item.fd) if isinstance(item, Item) else os.lstat(self.real(e.file_name))
            )
        except (FileNotFoundError, NotADirectoryError):
            e.file_exists = False
            return
        e.file_exists = True
        self.describe(e, found)

    def describe(
        self,
        e: CBFSGetFileInfoEventParams | CBFSEnumerateDirectoryEventParams,
        found: os.stat_result,
    ) -> None:
        """Passes on what stat(2) says."""
        e.mode, e.uid, e.gid, e.rdev = found.st_mode, found.st_uid, found.st_gid, found.st_rdev
        e.size, e.allocation_size = found.st_size, found.st_blocks * 512
        e.hard_link_count = found.st_nlink
        e.last_access_time_ns = found.st_atime_ns
        e.last_write_time_ns = found.st_mtime_ns
        e.change_time_ns = found.st_ctime_ns
        # Below a mount inside the folder the numbers are another filesystem's and may repeat.
        e.file_id = found.st_ino if found.st_dev == self.device else 0

    def on_set_file_attributes(self, e: CBFSSetFileAttributesEventParams) -> None:
        """Changes owner, mode and times, as far as given."""
        item: Item = e.file_context
        if e.uid is not None or e.gid is not None:
            uid, gid = (-1 if given is None else given for given in (e.uid, e.gid))
            os.chown(item.itself(), uid, gid)
        if e.mode is not None:
            os.chmod(item.itself(), e.mode)
        if e.last_write_time_ns is None and e.change_time_ns is not None:
            return  # the file was read: the folder's own filesystem keeps that time
        if e.last_access_time_ns is not None or e.last_write_time_ns is not None:
            now = os.fstat(item.fd)
            accessed, written = e.last_access_time_ns, e.last_write_time_ns
            os.utime(
                item.itself(),
                ns=(
                    now.st_atime_ns if accessed is None else accessed,
                    now.st_mtime_ns if written is None else written,
                ),
            )

    def on_get_volume_size(self, e: CBFSGetVolumeSizeEventParams) -> None:
        """Gives the size of the filesystem that the folder is on."""
        volume = os.statvfs(self.folder)
        e.total_sectors = volume.f_blocks * volume.f_frsize // SECTOR
        e.available_sectors = volume.f_bavail * volume.f_frsize // SECTOR

    # --- directories ---

    def on_enumerate_directory(self, e: CBFSEnumerateDirectoryEventParams) -> None:
        """Gives the next entry with all that stat(2) says of it."""
        if e.restart:
            if e.enumeration_context:
                e.enumeration_context.close()
            e.enumeration_context = os.scandir(self.real(e.directory_name))
        entries: Iterator[os.DirEntry[str]] = e.enumeration_context
        for entry in entries:
            try:
                self.describe(e, entry.stat(follow_symlinks=False))
            except FileNotFoundError:
                continue  # somebody has just removed it
            e.file_name = entry.name
            e.file_found = True
            return

    def on_close_directory_enumeration(self, e: CBFSCloseDirectoryEnumerationEventParams) -> None:
        """Closes what the listing had open."""
        if e.enumeration_context:
            e.enumeration_context.close()

    # --- opening and closing ---

    def on_create_file(self, e: CBFSCreateFileEventParams) -> None:
        """Makes an item of any kind, with its owner and mode."""
        path, kind = self.real(e.file_name), stat.S_IFMT(e.mode)
        e.file_context = item = Item(path, (e.uid, e.gid) if self.is_root else None)
        if kind == stat.S_IFLNK:
            return  # on_set_reparse_point follows with the target
        if kind == stat.S_IFDIR:
            os.mkdir(path, 0o700)
        elif kind == stat.S_IFREG:
            # Kept: a file may be made read-only and be written to all the same.
            item.data_fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        else:
            os.mknod(path, kind | 0o600, e.rdev)
        item.find()
        os.chmod(item.itself(), stat.S_IMODE(e.mode))  # after chown, which takes set-ID bits away

    def on_open_file(self, e: CBFSOpenFileEventParams) -> None:
        """Gets hold of the item; its data are opened when they are wanted."""
        item = Item(self.real(e.file_name))
        item.find()
        e.file_context = item

    def on_close_file(self, e: CBFSCloseFileEventParams) -> None:
        """Lets go of it: this was the last handle."""
        e.file_context.close()

    # --- data ---

    def on_read_file(self, e: CBFSReadFileEventParams) -> None:
        """Reads into the library's own memory."""
        e.bytes_read = os.preadv(e.file_context.data(), [e.buffer_view], e.position)

    def on_write_file(self, e: CBFSWriteFileEventParams) -> None:
        """Writes from the library's own memory."""
        e.bytes_written = os.pwrite(e.file_context.data(writing=True), e.buffer_view, e.position)

    def on_set_file_size(self, e: CBFSSetFileSizeEventParams) -> None:
        """Cuts the file, or makes it longer."""
        os.ftruncate(e.file_context.data(writing=True), e.size)

    def on_flush_file(self, e: CBFSFlushFileEventParams) -> None:
        """Has the data written to the disk; with no name everything."""
        if e.file_name:
            os.fsync(e.file_context.data())
        else:
            # Not os.sync(): that would write out this drive too, which waits for this handler.
            subprocess.run(["sync", "-f", "--", self.folder], check=True)

    # --- names ---

    def on_delete_file(self, e: CBFSDeleteFileEventParams) -> None:
        """Removes the name."""
        item: Item | int = e.file_context
        if isinstance(item, Item) and not item.is_made:
            return  # a symbolic link that could not be made
        path = self.real(e.file_name)
        if stat.S_ISDIR(os.lstat(path).st_mode):
            os.rmdir(path)
        else:
            os.unlink(path)

    def on_rename_or_move_file(self, e: CBFSRenameOrMoveFileEventParams) -> None:
        """Moves the name; an item that has the new one is replaced."""
        os.rename(self.real(e.file_name), self.real(e.new_file_name))

    def on_create_hard_link(self, e: CBFSCreateHardLinkEventParams) -> None:
        """Gives the file one more name."""
        os.link(self.real(e.file_name), self.real(e.link_name), follow_symlinks=False)

    # --- symbolic links ---

    def on_set_reparse_point(self, e: CBFSSetReparsePointEventParams) -> None:
        """Makes the symbolic link that on_create_file has announced."""
        item: Item = e.file_context
        if item.is_made:
            if stat.S_IFMT(os.fstat(item.fd).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                raise OSError(errno.EOPNOTSUPP, "files and directories cannot become links")
            return  # a FIFO, socket or device, which on_create_file has made
        target = bytes(e.reparse_buffer_view[LINK.size : e.reparse_buffer_length])
        os.symlink(target, os.fsencode(item.path))
        item.find()

    def on_get_reparse_point(self, e: CBFSGetReparsePointEventParams) -> None:
        """Gives the target of a symbolic link."""
        target = os.readlink(b"", dir_fd=e.file_context.fd)
        data = LINK.pack(IO_REPARSE_TAG_LX_SYMLINK, 4 + len(target), 0, 2) + target
        e.reparse_buffer_view[: len(data)] = data
        e.reparse_buffer_length = len(data)


def main(folder: str, mountpoint: str) -> None:
    """Mount the folder, and serve it until it is unmounted."""
    inner, outer = os.path.realpath(mountpoint), os.path.realpath(folder)
    if os.path.commonpath([inner, outer]) in (inner, outer):
        # The drive would ask itself for what it is asked for, and wait for ever.
        sys.exit("neither of folder and mountpoint may lie in the other")
    cbfsconnect.run(Mirror(folder), mountpoint)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python mirror.py FOLDER MOUNTPOINT")
    main(sys.argv[1], sys.argv[2])
