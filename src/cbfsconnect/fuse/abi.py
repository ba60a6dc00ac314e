"""The kernel's FUSE protocol 7.45 as data: opcodes, flags and struct layouts.

Everything here can be checked line by line against ``<linux/fuse.h>``: the order is the header's
and so are the names, without the ``FUSE_`` prefix. Nothing here has behaviour except
:func:`layout`, which turns the annotations of a struct into a :class:`struct.Struct`.

Numbers are in native byte order without padding, because the header pads every struct by hand.
Where a struct contains another one, the field's type is that struct's class, and :func:`layout`
packs its values in place. Only ``struct fuse_file_lock`` and ``struct fuse_sx_time`` are written
out within the structs that contain them, so that those are one flat tuple. Spare words are pad
bytes in the format of the field before them and appear in no tuple.
"""

from __future__ import annotations

import enum
import functools
import struct
from typing import Annotated, Any, Final, NamedTuple, get_type_hints

u64 = Annotated[int, "Q"]
i64 = Annotated[int, "q"]
u32 = Annotated[int, "I"]
i32 = Annotated[int, "i"]
u16 = Annotated[int, "H"]


@functools.cache
def layout(cls: type[tuple[Any, ...]]) -> struct.Struct:
    """Return the binary layout of a struct class of this module (native order, no padding)."""
    return struct.Struct("=" + _format(cls))


def _format(cls: type[tuple[Any, ...]]) -> str:
    hints = get_type_hints(cls, include_extras=True)
    return "".join(
        hint.__metadata__[0] if hasattr(hint, "__metadata__") else _format(hint)
        for hint in hints.values()
    )


KERNEL_MAJOR: Final = 7
"""FUSE_KERNEL_VERSION."""
KERNEL_MINOR: Final = 45
"""FUSE_KERNEL_MINOR_VERSION: the newest minor version that this module describes."""
MINOR_MIN: Final = 31
"""The oldest minor version that this package speaks (Linux 5.4); not from the header."""

ROOT_ID: Final = 1

# Bitmasks of SetattrIn.valid
FATTR_MODE: Final = 1 << 0
FATTR_UID: Final = 1 << 1
FATTR_GID: Final = 1 << 2
FATTR_SIZE: Final = 1 << 3
FATTR_ATIME: Final = 1 << 4
FATTR_MTIME: Final = 1 << 5
FATTR_FH: Final = 1 << 6
FATTR_ATIME_NOW: Final = 1 << 7
FATTR_MTIME_NOW: Final = 1 << 8
FATTR_LOCKOWNER: Final = 1 << 9
FATTR_CTIME: Final = 1 << 10
FATTR_KILL_SUIDGID: Final = 1 << 11

# OpenOut.open_flags
FOPEN_DIRECT_IO: Final = 1 << 0
FOPEN_KEEP_CACHE: Final = 1 << 1
FOPEN_NONSEEKABLE: Final = 1 << 2
FOPEN_CACHE_DIR: Final = 1 << 3
FOPEN_STREAM: Final = 1 << 4
FOPEN_NOFLUSH: Final = 1 << 5
FOPEN_PARALLEL_DIRECT_WRITES: Final = 1 << 6
FOPEN_PASSTHROUGH: Final = 1 << 7


class InitFlag(enum.IntFlag):
    """Flags of INIT; bits 32 to 63 travel in the field flags2."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    FILE_OPS = 1 << 2
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    SPLICE_WRITE = 1 << 7
    SPLICE_MOVE = 1 << 8
    SPLICE_READ = 1 << 9
    FLOCK_LOCKS = 1 << 10
    HAS_IOCTL_DIR = 1 << 11
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    MAP_ALIGNMENT = 1 << 26
    SUBMOUNTS = 1 << 27
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    INIT_RESERVED = 1 << 31
    SECURITY_CTX = 1 << 32
    HAS_INODE_DAX = 1 << 33
    CREATE_SUPP_GROUP = 1 << 34
    HAS_EXPIRE_ONLY = 1 << 35
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37
    NO_EXPORT_SUPPORT = 1 << 38
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40
    OVER_IO_URING = 1 << 41
    REQUEST_TIMEOUT = 1 << 42
    DIRECT_IO_RELAX = DIRECT_IO_ALLOW_MMAP


CUSE_UNRESTRICTED_IOCTL: Final = 1 << 0

# ReleaseIn.release_flags
RELEASE_FLUSH: Final = 1 << 0
RELEASE_FLOCK_UNLOCK: Final = 1 << 1

# GetattrIn.getattr_flags
GETATTR_FH: Final = 1 << 0

# LkIn.lk_flags
LK_FLOCK: Final = 1 << 0

# WriteIn.write_flags
WRITE_CACHE: Final = 1 << 0
WRITE_LOCKOWNER: Final = 1 << 1
WRITE_KILL_SUIDGID: Final = 1 << 2
WRITE_KILL_PRIV: Final = WRITE_KILL_SUIDGID

# ReadIn.read_flags
READ_LOCKOWNER: Final = 1 << 1

# IoctlIn.flags
IOCTL_COMPAT: Final = 1 << 0
IOCTL_UNRESTRICTED: Final = 1 << 1
IOCTL_RETRY: Final = 1 << 2
IOCTL_32BIT: Final = 1 << 3
IOCTL_DIR: Final = 1 << 4
IOCTL_COMPAT_X32: Final = 1 << 5
IOCTL_MAX_IOV: Final = 256

# PollIn.flags
POLL_SCHEDULE_NOTIFY: Final = 1 << 0

# FsyncIn.fsync_flags
FSYNC_FDATASYNC: Final = 1 << 0

# Attr.flags
ATTR_SUBMOUNT: Final = 1 << 0
ATTR_DAX: Final = 1 << 1

# OpenIn.open_flags, CreateIn.open_flags
OPEN_KILL_SUIDGID: Final = 1 << 0

# SetxattrIn.setxattr_flags
SETXATTR_ACL_KILL_SGID: Final = 1 << 0

# NotifyInvalEntryOut.flags
EXPIRE_ONLY: Final = 1 << 0

# ExtHeader.type: 0 to MAX_NR_SECCTX mean a SecctxHeader
MAX_NR_SECCTX: Final = 31
EXT_GROUPS: Final = 32


class Opcode(enum.IntEnum):
    """What a request asks for (enum fuse_opcode)."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53
    CUSE_INIT = 4096
    CUSE_INIT_BSWAP_RESERVED = 1048576
    INIT_BSWAP_RESERVED = 436207616


class NotifyCode(enum.IntEnum):
    """What an unsolicited message to the kernel means (enum fuse_notify_code)."""

    POLL = 1
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    STORE = 4
    RETRIEVE = 5
    DELETE = 6
    RESEND = 7
    INC_EPOCH = 8
    PRUNE = 9


MIN_READ_BUFFER: Final = 8192
COMPAT_INIT_IN_SIZE: Final = 16
"""Size of InitIn up to 7.35, before INIT_EXT; the header has no name for it."""

# Top bit of InHeader.unique
UNIQUE_RESEND: Final = 1 << 63
# InHeader.uid and gid that cannot be mapped (ALLOW_IDMAP)
INVALID_UIDGID: Final = 0xFFFFFFFF

# SetupmappingIn.flags
SETUPMAPPING_FLAG_WRITE: Final = 1 << 0
SETUPMAPPING_FLAG_READ: Final = 1 << 1

CUSE_INIT_INFO_MAX: Final = 4096

URING_IN_OUT_HEADER_SZ: Final = 128
URING_OP_IN_OUT_SZ: Final = 128


class UringCmd(enum.IntEnum):
    """Commands of FUSE over io_uring (enum fuse_uring_cmd)."""

    INVALID = 0
    REGISTER = 1
    COMMIT_AND_FETCH = 2


class Attr(NamedTuple):
    """``struct fuse_attr``."""

    ino: u64
    size: u64
    blocks: u64
    atime: u64
    mtime: u64
    ctime: u64
    atimensec: u32
    mtimensec: u32
    ctimensec: u32
    mode: u32
    nlink: u32
    uid: u32
    gid: u32
    rdev: u32
    blksize: u32
    flags: u32


class SxTime(NamedTuple):
    """``struct fuse_sx_time``."""

    tv_sec: i64
    tv_nsec: Annotated[int, "I4x"]  # then int32_t __reserved


class Statx(NamedTuple):
    """``struct fuse_statx``."""

    mask: u32
    blksize: u32
    attributes: u64
    nlink: u32
    uid: u32
    gid: u32
    mode: Annotated[int, "H2x"]  # then uint16_t __spare0[1]
    ino: u64
    size: u64
    blocks: u64
    attributes_mask: u64
    atime: i64
    atime_nsec: Annotated[int, "I4x"]  # then int32_t __reserved
    btime: i64
    btime_nsec: Annotated[int, "I4x"]  # then int32_t __reserved
    ctime: i64
    ctime_nsec: Annotated[int, "I4x"]  # then int32_t __reserved
    mtime: i64
    mtime_nsec: Annotated[int, "I4x"]  # then int32_t __reserved
    rdev_major: u32
    rdev_minor: u32
    dev_major: u32
    dev_minor: Annotated[int, "I112x"]  # then uint64_t __spare2[14]


class Kstatfs(NamedTuple):
    """``struct fuse_kstatfs``."""

    blocks: u64
    bfree: u64
    bavail: u64
    files: u64
    ffree: u64
    bsize: u32
    namelen: u32
    frsize: u32
    padding: Annotated[int, "I24x"]  # then uint32_t spare[6]


class FileLock(NamedTuple):
    """``struct fuse_file_lock``."""

    start: u64
    end: u64
    type: u32
    pid: u32


class EntryOut(NamedTuple):
    """``struct fuse_entry_out``."""

    nodeid: u64
    generation: u64
    entry_valid: u64
    attr_valid: u64
    entry_valid_nsec: u32
    attr_valid_nsec: u32
    attr: Attr


class ForgetIn(NamedTuple):
    """``struct fuse_forget_in``."""

    nlookup: u64


class ForgetOne(NamedTuple):
    """``struct fuse_forget_one``."""

    nodeid: u64
    nlookup: u64


class BatchForgetIn(NamedTuple):
    """``struct fuse_batch_forget_in``."""

    count: u32  # type: ignore[assignment]
    dummy: u32


class GetattrIn(NamedTuple):
    """``struct fuse_getattr_in``."""

    getattr_flags: u32
    dummy: u32
    fh: u64


class AttrOut(NamedTuple):
    """``struct fuse_attr_out``."""

    attr_valid: u64
    attr_valid_nsec: u32
    dummy: u32
    attr: Attr


class StatxIn(NamedTuple):
    """``struct fuse_statx_in``."""

    getattr_flags: u32
    reserved: u32
    fh: u64
    sx_flags: u32
    sx_mask: u32


class StatxOut(NamedTuple):
    """``struct fuse_statx_out``."""

    attr_valid: u64
    attr_valid_nsec: u32
    flags: Annotated[int, "I16x"]  # then uint64_t spare[2]
    stat: Statx


class MknodIn(NamedTuple):
    """``struct fuse_mknod_in``."""

    mode: u32
    rdev: u32
    umask: u32
    padding: u32


class MkdirIn(NamedTuple):
    """``struct fuse_mkdir_in``."""

    mode: u32
    umask: u32


class RenameIn(NamedTuple):
    """``struct fuse_rename_in``."""

    newdir: u64


class Rename2In(NamedTuple):
    """``struct fuse_rename2_in``."""

    newdir: u64
    flags: u32
    padding: u32


class LinkIn(NamedTuple):
    """``struct fuse_link_in``."""

    oldnodeid: u64


class SetattrIn(NamedTuple):
    """``struct fuse_setattr_in``."""

    valid: u32
    padding: u32
    fh: u64
    size: u64
    lock_owner: u64
    atime: u64
    mtime: u64
    ctime: u64
    atimensec: u32
    mtimensec: u32
    ctimensec: u32
    mode: u32
    unused4: u32
    uid: u32
    gid: u32
    unused5: u32


class OpenIn(NamedTuple):
    """``struct fuse_open_in``."""

    flags: u32
    open_flags: u32


class CreateIn(NamedTuple):
    """``struct fuse_create_in``."""

    flags: u32
    mode: u32
    umask: u32
    open_flags: u32


class OpenOut(NamedTuple):
    """``struct fuse_open_out``."""

    fh: u64
    open_flags: u32
    backing_id: i32


class ReleaseIn(NamedTuple):
    """``struct fuse_release_in``."""

    fh: u64
    flags: u32
    release_flags: u32
    lock_owner: u64


class FlushIn(NamedTuple):
    """``struct fuse_flush_in``."""

    fh: u64
    unused: u32
    padding: u32
    lock_owner: u64


class ReadIn(NamedTuple):
    """``struct fuse_read_in``."""

    fh: u64
    offset: u64
    size: u32
    read_flags: u32
    lock_owner: u64
    flags: u32
    padding: u32


class WriteIn(NamedTuple):
    """``struct fuse_write_in``."""

    fh: u64
    offset: u64
    size: u32
    write_flags: u32
    lock_owner: u64
    flags: u32
    padding: u32


class WriteOut(NamedTuple):
    """``struct fuse_write_out``."""

    size: u32
    padding: u32


class StatfsOut(NamedTuple):
    """``struct fuse_statfs_out``."""

    st: Kstatfs


class FsyncIn(NamedTuple):
    """``struct fuse_fsync_in``."""

    fh: u64
    fsync_flags: u32
    padding: u32


class SetxattrIn(NamedTuple):
    """``struct fuse_setxattr_in``."""

    size: u32
    flags: u32
    setxattr_flags: u32
    padding: u32


class SetxattrInCompat(NamedTuple):
    """The form of struct fuse_setxattr_in without SETXATTR_EXT (COMPAT_SETXATTR_IN_SIZE)."""

    size: u32
    flags: u32


class GetxattrIn(NamedTuple):
    """``struct fuse_getxattr_in``."""

    size: u32
    padding: u32


class GetxattrOut(NamedTuple):
    """``struct fuse_getxattr_out``."""

    size: u32
    padding: u32


class LkIn(NamedTuple):
    """``struct fuse_lk_in``."""

    fh: u64
    owner: u64
    start: u64
    end: u64
    type: u32
    pid: u32
    lk_flags: u32
    padding: u32


class LkOut(NamedTuple):
    """``struct fuse_lk_out``."""

    start: u64
    end: u64
    type: u32
    pid: u32


class AccessIn(NamedTuple):
    """``struct fuse_access_in``."""

    mask: u32
    padding: u32


class InitIn(NamedTuple):
    """``struct fuse_init_in``."""

    major: u32
    minor: u32
    max_readahead: u32
    flags: u32
    flags2: Annotated[int, "I44x"]  # then uint32_t unused[11]


class InitOut(NamedTuple):
    """``struct fuse_init_out``."""

    major: u32
    minor: u32
    max_readahead: u32
    flags: u32
    max_background: u16
    congestion_threshold: u16
    max_write: u32
    time_gran: u32
    max_pages: u16
    map_alignment: u16
    flags2: u32
    max_stack_depth: u32
    request_timeout: Annotated[int, "H22x"]  # then uint16_t unused[11]


class CuseInitIn(NamedTuple):
    """``struct cuse_init_in``."""

    major: u32
    minor: u32
    unused: u32
    flags: u32


class CuseInitOut(NamedTuple):
    """``struct cuse_init_out``."""

    major: u32
    minor: u32
    unused: u32
    flags: u32
    max_read: u32
    max_write: u32
    dev_major: u32
    dev_minor: Annotated[int, "I40x"]  # then uint32_t spare[10]


class InterruptIn(NamedTuple):
    """``struct fuse_interrupt_in``."""

    unique: u64


class BmapIn(NamedTuple):
    """``struct fuse_bmap_in``."""

    block: u64
    blocksize: u32
    padding: u32


class BmapOut(NamedTuple):
    """``struct fuse_bmap_out``."""

    block: u64


class IoctlIn(NamedTuple):
    """``struct fuse_ioctl_in``."""

    fh: u64
    flags: u32
    cmd: u32
    arg: u64
    in_size: u32
    out_size: u32


class IoctlIovec(NamedTuple):
    """``struct fuse_ioctl_iovec``."""

    base: u64
    len: u64


class IoctlOut(NamedTuple):
    """``struct fuse_ioctl_out``."""

    result: i32
    flags: u32
    in_iovs: u32
    out_iovs: u32


class PollIn(NamedTuple):
    """``struct fuse_poll_in``."""

    fh: u64
    kh: u64
    flags: u32
    events: u32


class PollOut(NamedTuple):
    """``struct fuse_poll_out``."""

    revents: u32
    padding: u32


class NotifyPollWakeupOut(NamedTuple):
    """``struct fuse_notify_poll_wakeup_out``."""

    kh: u64


class FallocateIn(NamedTuple):
    """``struct fuse_fallocate_in``."""

    fh: u64
    offset: u64
    length: u64
    mode: u32
    padding: u32


class InHeader(NamedTuple):
    """``struct fuse_in_header``."""

    len: u32
    opcode: u32
    unique: u64
    nodeid: u64
    uid: u32
    gid: u32
    pid: u32
    total_extlen: u16
    padding: u16


class OutHeader(NamedTuple):
    """``struct fuse_out_header``."""

    len: u32
    error: i32
    unique: u64


class Dirent(NamedTuple):
    """``struct fuse_dirent``."""

    ino: u64
    off: u64
    namelen: u32
    type: u32


class Direntplus(NamedTuple):
    """``struct fuse_direntplus``."""

    entry_out: EntryOut
    dirent: Dirent


class NotifyInvalInodeOut(NamedTuple):
    """``struct fuse_notify_inval_inode_out``."""

    ino: u64
    off: i64
    len: i64


class NotifyInvalEntryOut(NamedTuple):
    """``struct fuse_notify_inval_entry_out``."""

    parent: u64
    namelen: u32
    flags: u32


class NotifyDeleteOut(NamedTuple):
    """``struct fuse_notify_delete_out``."""

    parent: u64
    child: u64
    namelen: u32
    padding: u32


class NotifyStoreOut(NamedTuple):
    """``struct fuse_notify_store_out``."""

    nodeid: u64
    offset: u64
    size: u32
    padding: u32


class NotifyRetrieveOut(NamedTuple):
    """``struct fuse_notify_retrieve_out``."""

    notify_unique: u64
    nodeid: u64
    offset: u64
    size: u32
    padding: u32


class NotifyRetrieveIn(NamedTuple):
    """``struct fuse_notify_retrieve_in``."""

    dummy1: u64
    offset: u64
    size: u32
    dummy2: u32
    dummy3: u64
    dummy4: u64


class NotifyPruneOut(NamedTuple):
    """``struct fuse_notify_prune_out``."""

    count: u32  # type: ignore[assignment]
    padding: u32
    spare: u64


class BackingMap(NamedTuple):
    """``struct fuse_backing_map``."""

    fd: i32
    flags: u32
    padding: u64


class LseekIn(NamedTuple):
    """``struct fuse_lseek_in``."""

    fh: u64
    offset: u64
    whence: u32
    padding: u32


class LseekOut(NamedTuple):
    """``struct fuse_lseek_out``."""

    offset: u64


class CopyFileRangeIn(NamedTuple):
    """``struct fuse_copy_file_range_in``."""

    fh_in: u64
    off_in: u64
    nodeid_out: u64
    fh_out: u64
    off_out: u64
    len: u64
    flags: u64


class CopyFileRangeOut(NamedTuple):
    """``struct fuse_copy_file_range_out``."""

    bytes_copied: u64


class SetupmappingIn(NamedTuple):
    """``struct fuse_setupmapping_in``."""

    fh: u64
    foffset: u64
    len: u64
    flags: u64
    moffset: u64


class RemovemappingIn(NamedTuple):
    """``struct fuse_removemapping_in``."""

    count: u32  # type: ignore[assignment]


class RemovemappingOne(NamedTuple):
    """``struct fuse_removemapping_one``."""

    moffset: u64
    len: u64


class SyncfsIn(NamedTuple):
    """``struct fuse_syncfs_in``."""

    padding: u64


class Secctx(NamedTuple):
    """``struct fuse_secctx``."""

    size: u32
    padding: u32


class SecctxHeader(NamedTuple):
    """``struct fuse_secctx_header``."""

    size: u32
    nr_secctx: u32


class ExtHeader(NamedTuple):
    """``struct fuse_ext_header``."""

    size: u32
    type: u32


class SuppGroups(NamedTuple):
    """``struct fuse_supp_groups``."""

    nr_groups: u32


class UringEntInOut(NamedTuple):
    """``struct fuse_uring_ent_in_out``."""

    flags: u64
    commit_id: u64
    payload_sz: u32
    padding: u32
    reserved: u64


class UringReqHeader(NamedTuple):
    """``struct fuse_uring_req_header``."""

    in_out: Annotated[bytes, "128s"]
    op_in: Annotated[bytes, "128s"]
    ring_ent_in_out: UringEntInOut


class UringCmdReq(NamedTuple):
    """``struct fuse_uring_cmd_req``."""

    flags: u64
    commit_id: u64
    qid: Annotated[int, "H6x"]  # then uint8_t padding[6]


_IOC_NONE, _IOC_WRITE, _IOC_READ = 0, 1, 2


def _ioc(direction: int, number: int, size: int) -> int:
    """Build an ioctl number as <asm-generic/ioctl.h> does."""
    return direction << 30 | size << 16 | DEV_IOC_MAGIC << 8 | number


# ioctls of an open /dev/fuse
DEV_IOC_MAGIC: Final = 229
DEV_IOC_CLONE: Final = _ioc(_IOC_READ, 0, 4)
DEV_IOC_BACKING_OPEN: Final = _ioc(_IOC_WRITE, 1, layout(BackingMap).size)
DEV_IOC_BACKING_CLOSE: Final = _ioc(_IOC_WRITE, 2, 4)
DEV_IOC_SYNC_INIT: Final = _ioc(_IOC_NONE, 3, 0)
