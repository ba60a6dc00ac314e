"""Errors of the API: Win32 codes, their translation to and from errno, and the exception.

Handlers report failures as Win32 codes (`result_code`), the kernel wants an errno, and Linux code
raises `OSError`. The two number spaces meet in one table here, `_CODES_OF_ERRNO`. Several Win32
codes share an errno; the first one of a row is the one that stands for it on the way back.

An errno without any Win32 counterpart travels as `APPLICATION_ERROR | errno`: bit 29 is the bit
that Windows reserves for codes that an application defines, so such a code meets no system code.

Names and numbers of the `ERROR_*` constants: winerror.h.
"""

import errno
from typing import Final

ERROR_SUCCESS: Final = 0
ERROR_INVALID_FUNCTION: Final = 1
ERROR_FILE_NOT_FOUND: Final = 2
ERROR_PATH_NOT_FOUND: Final = 3
ERROR_TOO_MANY_OPEN_FILES: Final = 4
ERROR_ACCESS_DENIED: Final = 5
ERROR_INVALID_HANDLE: Final = 6
ERROR_NOT_ENOUGH_MEMORY: Final = 8
ERROR_BAD_ENVIRONMENT: Final = 10
ERROR_INVALID_ACCESS: Final = 12
ERROR_INVALID_DATA: Final = 13
ERROR_OUTOFMEMORY: Final = 14
ERROR_INVALID_DRIVE: Final = 15
ERROR_CURRENT_DIRECTORY: Final = 16
ERROR_NOT_SAME_DEVICE: Final = 17
ERROR_NO_MORE_FILES: Final = 18
ERROR_WRITE_PROTECT: Final = 19
ERROR_BAD_UNIT: Final = 20
ERROR_NOT_READY: Final = 21
ERROR_BAD_COMMAND: Final = 22
ERROR_CRC: Final = 23
ERROR_WRITE_FAULT: Final = 29
ERROR_READ_FAULT: Final = 30
ERROR_GEN_FAILURE: Final = 31
ERROR_SHARING_VIOLATION: Final = 32
ERROR_LOCK_VIOLATION: Final = 33
ERROR_SHARING_BUFFER_EXCEEDED: Final = 36
ERROR_HANDLE_EOF: Final = 38
ERROR_HANDLE_DISK_FULL: Final = 39
ERROR_NOT_SUPPORTED: Final = 50
ERROR_BAD_NETPATH: Final = 53
ERROR_DEV_NOT_EXIST: Final = 55
ERROR_BAD_NET_RESP: Final = 58
ERROR_UNEXP_NET_ERR: Final = 59
ERROR_NETNAME_DELETED: Final = 64
ERROR_NETWORK_ACCESS_DENIED: Final = 65
ERROR_FILE_EXISTS: Final = 80
ERROR_CANNOT_MAKE: Final = 82
ERROR_INVALID_PARAMETER: Final = 87
ERROR_BROKEN_PIPE: Final = 109
ERROR_BUFFER_OVERFLOW: Final = 111
ERROR_DISK_FULL: Final = 112
ERROR_CALL_NOT_IMPLEMENTED: Final = 120
ERROR_SEM_TIMEOUT: Final = 121
ERROR_INSUFFICIENT_BUFFER: Final = 122
ERROR_INVALID_NAME: Final = 123
ERROR_INVALID_LEVEL: Final = 124
ERROR_NEGATIVE_SEEK: Final = 131
ERROR_SEEK_ON_DEVICE: Final = 132
ERROR_DIR_NOT_EMPTY: Final = 145
ERROR_NOT_LOCKED: Final = 158
ERROR_BAD_ARGUMENTS: Final = 160
ERROR_BAD_PATHNAME: Final = 161
ERROR_LOCK_FAILED: Final = 167
ERROR_BUSY: Final = 170
ERROR_ALREADY_EXISTS: Final = 183
ERROR_BAD_EXE_FORMAT: Final = 193
ERROR_FILENAME_EXCED_RANGE: Final = 206
ERROR_FILE_TOO_LARGE: Final = 223
ERROR_NO_DATA: Final = 232
ERROR_MORE_DATA: Final = 234
ERROR_INVALID_EA_NAME: Final = 254
ERROR_WAIT_TIMEOUT: Final = 258
ERROR_NO_MORE_ITEMS: Final = 259
ERROR_DIRECTORY: Final = 267
ERROR_EAS_DIDNT_FIT: Final = 275
ERROR_EA_FILE_CORRUPT: Final = 276
ERROR_EA_TABLE_FULL: Final = 277
ERROR_EAS_NOT_SUPPORTED: Final = 282
ERROR_NOT_OWNER: Final = 288
ERROR_DELETE_PENDING: Final = 303
ERROR_DIRECTORY_NOT_SUPPORTED: Final = 336
ERROR_INVALID_ADDRESS: Final = 487
ERROR_ARITHMETIC_OVERFLOW: Final = 534
ERROR_OPERATION_ABORTED: Final = 995
ERROR_IO_PENDING: Final = 997
ERROR_NOACCESS: Final = 998
ERROR_FILE_INVALID: Final = 1006
ERROR_NO_MEDIA_IN_DRIVE: Final = 1112
ERROR_NO_UNICODE_TRANSLATION: Final = 1113
ERROR_IO_DEVICE: Final = 1117
ERROR_POSSIBLE_DEADLOCK: Final = 1131
ERROR_TOO_MANY_LINKS: Final = 1142
ERROR_NOT_FOUND: Final = 1168
ERROR_CANCELLED: Final = 1223
ERROR_USER_MAPPED_FILE: Final = 1224
ERROR_CONNECTION_REFUSED: Final = 1225
ERROR_NETWORK_UNREACHABLE: Final = 1231
ERROR_HOST_UNREACHABLE: Final = 1232
ERROR_CONNECTION_ABORTED: Final = 1236
ERROR_RETRY: Final = 1237
ERROR_IMPLEMENTATION_LIMIT: Final = 1292
ERROR_DISK_QUOTA_EXCEEDED: Final = 1295
ERROR_INVALID_OWNER: Final = 1307
ERROR_PRIVILEGE_NOT_HELD: Final = 1314
ERROR_NONE_MAPPED: Final = 1332
ERROR_INVALID_SECURITY_DESCR: Final = 1338
ERROR_INTERNAL_ERROR: Final = 1359
ERROR_FILE_CORRUPT: Final = 1392
ERROR_DISK_CORRUPT: Final = 1393
ERROR_NO_SYSTEM_RESOURCES: Final = 1450
ERROR_TIMEOUT: Final = 1460
ERROR_INVALID_USER_BUFFER: Final = 1784
ERROR_CANT_RESOLVE_FILENAME: Final = 1921
ERROR_NOT_CONNECTED: Final = 2250
ERROR_NOT_A_REPARSE_POINT: Final = 4390
ERROR_REPARSE_ATTRIBUTE_CONFLICT: Final = 4391
ERROR_INVALID_REPARSE_DATA: Final = 4392
ERROR_REPARSE_TAG_INVALID: Final = 4393
ERROR_REPARSE_TAG_MISMATCH: Final = 4394
ERROR_OFFLOAD_READ_FLT_NOT_SUPPORTED: Final = 4440
ERROR_OFFLOAD_WRITE_FLT_NOT_SUPPORTED: Final = 4441
ERROR_OFFLOAD_READ_FILE_NOT_SUPPORTED: Final = 4442
ERROR_OFFLOAD_WRITE_FILE_NOT_SUPPORTED: Final = 4443
ERROR_INVALID_STATE: Final = 5023

APPLICATION_ERROR: Final = 0x20000000
"""Bit 29: marks the Win32 codes that carry an errno unchanged."""

MAX_ERRNO: Final = 511
"""The largest errno that a FUSE reply may carry; the kernel refuses larger ones."""

_CODES_OF_ERRNO: dict[int, tuple[int, ...]] = {
    0: (ERROR_SUCCESS,),
    # Which rights are missing
    errno.EACCES: (
        ERROR_ACCESS_DENIED,
        ERROR_INVALID_ACCESS,
        ERROR_NETWORK_ACCESS_DENIED,
        ERROR_CANNOT_MAKE,
    ),
    errno.EPERM: (ERROR_PRIVILEGE_NOT_HELD, ERROR_NOT_OWNER),
    errno.EROFS: (ERROR_WRITE_PROTECT,),
    # Names. Linux does not tell a missing item from a missing directory above it.
    errno.ENOENT: (
        ERROR_FILE_NOT_FOUND,
        ERROR_PATH_NOT_FOUND,
        ERROR_NO_MORE_FILES,
        ERROR_BAD_PATHNAME,
        ERROR_NO_MORE_ITEMS,
        ERROR_NOT_FOUND,
    ),
    errno.EEXIST: (ERROR_FILE_EXISTS, ERROR_ALREADY_EXISTS),
    errno.ENOTDIR: (ERROR_DIRECTORY,),
    errno.EISDIR: (ERROR_DIRECTORY_NOT_SUPPORTED,),
    errno.ENOTEMPTY: (ERROR_DIR_NOT_EMPTY,),
    errno.ENAMETOOLONG: (ERROR_FILENAME_EXCED_RANGE, ERROR_BUFFER_OVERFLOW),
    errno.ELOOP: (ERROR_CANT_RESOLVE_FILENAME,),
    errno.EILSEQ: (ERROR_NO_UNICODE_TRANSLATION,),
    errno.EXDEV: (ERROR_NOT_SAME_DEVICE,),
    errno.EMLINK: (ERROR_TOO_MANY_LINKS,),
    # What is in use
    errno.EBUSY: (
        ERROR_BUSY,
        ERROR_SHARING_VIOLATION,
        ERROR_CURRENT_DIRECTORY,
        ERROR_DELETE_PENDING,
    ),
    errno.ETXTBSY: (ERROR_USER_MAPPED_FILE,),
    errno.EAGAIN: (ERROR_LOCK_VIOLATION, ERROR_LOCK_FAILED, ERROR_RETRY),
    errno.EDEADLK: (ERROR_POSSIBLE_DEADLOCK,),
    errno.ENOLCK: (ERROR_SHARING_BUFFER_EXCEEDED,),
    # What is used up
    errno.ENOSPC: (ERROR_DISK_FULL, ERROR_HANDLE_DISK_FULL, ERROR_EA_TABLE_FULL),
    errno.EDQUOT: (ERROR_DISK_QUOTA_EXCEEDED,),
    errno.EFBIG: (ERROR_FILE_TOO_LARGE,),
    errno.ENOMEM: (ERROR_NOT_ENOUGH_MEMORY, ERROR_OUTOFMEMORY, ERROR_NO_SYSTEM_RESOURCES),
    errno.EMFILE: (ERROR_TOO_MANY_OPEN_FILES,),
    # Arguments
    errno.EINVAL: (
        ERROR_INVALID_PARAMETER,
        ERROR_INVALID_DATA,
        ERROR_INVALID_NAME,
        ERROR_NEGATIVE_SEEK,
        ERROR_NOT_LOCKED,
        ERROR_BAD_ARGUMENTS,
        ERROR_INVALID_EA_NAME,
        ERROR_IMPLEMENTATION_LIMIT,
        ERROR_INVALID_OWNER,
        ERROR_NONE_MAPPED,
        ERROR_INVALID_SECURITY_DESCR,
        ERROR_INVALID_STATE,
        # readlink(2) gives EINVAL for anything that is no symbolic link.
        ERROR_NOT_A_REPARSE_POINT,
        ERROR_REPARSE_ATTRIBUTE_CONFLICT,
        ERROR_INVALID_REPARSE_DATA,
        ERROR_REPARSE_TAG_INVALID,
        ERROR_REPARSE_TAG_MISMATCH,
    ),
    errno.EBADF: (ERROR_INVALID_HANDLE,),
    errno.EFAULT: (ERROR_NOACCESS, ERROR_INVALID_ADDRESS, ERROR_INVALID_USER_BUFFER),
    errno.ESPIPE: (ERROR_SEEK_ON_DEVICE,),
    errno.E2BIG: (ERROR_BAD_ENVIRONMENT,),
    errno.ENOEXEC: (ERROR_BAD_EXE_FORMAT,),
    # getxattr(2) gives ERANGE for a buffer that is too small.
    errno.ERANGE: (ERROR_INSUFFICIENT_BUFFER, ERROR_MORE_DATA, ERROR_EAS_DIDNT_FIT),
    errno.EOVERFLOW: (ERROR_ARITHMETIC_OVERFLOW,),
    errno.ENODATA: (ERROR_HANDLE_EOF,),
    # What is not there to be asked
    errno.ENOSYS: (ERROR_CALL_NOT_IMPLEMENTED,),
    errno.EOPNOTSUPP: (
        ERROR_NOT_SUPPORTED,
        ERROR_INVALID_FUNCTION,
        ERROR_INVALID_LEVEL,
        ERROR_EAS_NOT_SUPPORTED,
        # copy_file_range(2) goes on by reading and writing after EOPNOTSUPP.
        ERROR_OFFLOAD_READ_FLT_NOT_SUPPORTED,
        ERROR_OFFLOAD_WRITE_FLT_NOT_SUPPORTED,
        ERROR_OFFLOAD_READ_FILE_NOT_SUPPORTED,
        ERROR_OFFLOAD_WRITE_FILE_NOT_SUPPORTED,
    ),
    errno.ENOTTY: (ERROR_BAD_COMMAND,),
    # Devices
    errno.EIO: (
        ERROR_IO_DEVICE,
        ERROR_CRC,
        ERROR_WRITE_FAULT,
        ERROR_READ_FAULT,
        ERROR_GEN_FAILURE,
        ERROR_INTERNAL_ERROR,
    ),
    errno.ENODEV: (ERROR_DEV_NOT_EXIST, ERROR_INVALID_DRIVE),
    errno.ENXIO: (ERROR_BAD_UNIT,),
    errno.ENOMEDIUM: (ERROR_NO_MEDIA_IN_DRIVE, ERROR_NOT_READY),
    errno.EUCLEAN: (ERROR_FILE_CORRUPT, ERROR_DISK_CORRUPT, ERROR_EA_FILE_CORRUPT),
    # The file changed behind the caller's back.
    errno.ESTALE: (ERROR_FILE_INVALID,),
    # What did not come to its end. Never EINTR: callers repeat the call after it, for ever when
    # the handler always answers the same.
    errno.ECANCELED: (ERROR_CANCELLED, ERROR_OPERATION_ABORTED),
    errno.ETIMEDOUT: (ERROR_TIMEOUT, ERROR_SEM_TIMEOUT, ERROR_WAIT_TIMEOUT),
    errno.EINPROGRESS: (ERROR_IO_PENDING,),
    # Networks and pipes, for drives that stand on one
    errno.EPIPE: (ERROR_BROKEN_PIPE, ERROR_NO_DATA),
    errno.ENOTCONN: (ERROR_NOT_CONNECTED,),
    errno.ECONNREFUSED: (ERROR_CONNECTION_REFUSED,),
    errno.ECONNABORTED: (ERROR_CONNECTION_ABORTED,),
    errno.ECONNRESET: (ERROR_NETNAME_DELETED,),
    errno.ENETUNREACH: (ERROR_NETWORK_UNREACHABLE,),
    errno.EHOSTUNREACH: (ERROR_HOST_UNREACHABLE, ERROR_BAD_NETPATH),
    errno.EPROTO: (ERROR_BAD_NET_RESP,),
    errno.EREMOTEIO: (ERROR_UNEXP_NET_ERR,),
}

_ERRNO_OF_CODE = {code: number for number, codes in _CODES_OF_ERRNO.items() for code in codes}
_CODE_OF_ERRNO = {number: codes[0] for number, codes in _CODES_OF_ERRNO.items()}


def errno_from_win32(code: int) -> int:
    """Return the errno that tells a Linux program the same as the Win32 *code*.

    Never raises. 0 stays 0, `APPLICATION_ERROR | errno` gives that errno, and every code that is
    not in the table (-1, for instance, which ported handlers use for any unexpected exception) is
    EIO.
    The result is always within 0..`MAX_ERRNO`, as a FUSE reply needs it.
    """
    number = _ERRNO_OF_CODE.get(code)
    if number is not None:
        return number
    number = code ^ APPLICATION_ERROR
    return number if 0 < number <= MAX_ERRNO else errno.EIO


def win32_from_errno(number: int) -> int:
    """Return the Win32 code for an errno; `errno_from_win32` turns it into the same errno again.

    Never raises. An errno without a Win32 counterpart becomes `APPLICATION_ERROR | errno`; what is
    no errno at all (negative, or above `MAX_ERRNO`) becomes ERROR_IO_DEVICE.
    """
    code = _CODE_OF_ERRNO.get(number)
    if code is not None:
        return code
    return APPLICATION_ERROR | number if 0 < number <= MAX_ERRNO else ERROR_IO_DEVICE


_NAMES = {value: name for name, value in list(globals().items()) if name.startswith("ERROR_")}


def describe_code(code: int) -> str:
    """Return *code* for a reader: its number, and its name where it has one."""
    if code in _NAMES:
        return f"{code} {_NAMES[code]}"
    number = code ^ APPLICATION_ERROR
    if 0 < number <= MAX_ERRNO:
        return f"{code} {errno.errorcode.get(number, f'errno {number}')}"
    return str(code)


class CBFSConnectError(Exception):
    """Raised by the methods and property setters of the API that fail.

    `code` is a Win32 code (one of the `ERROR_*` constants), `message` says what went wrong and what
    to do about it.
    """

    code: int
    message: str

    def __init__(self, code: int, message: str) -> None:
        """Make an error with the Win32 *code* and a *message* for people."""
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} (error {describe_code(self.code)})"


__all__ = [
    "CBFSConnectError",
    "errno_from_win32",
    "win32_from_errno",
    "APPLICATION_ERROR",
    "ERROR_SUCCESS",
    "ERROR_INVALID_FUNCTION",
    "ERROR_FILE_NOT_FOUND",
    "ERROR_PATH_NOT_FOUND",
    "ERROR_TOO_MANY_OPEN_FILES",
    "ERROR_ACCESS_DENIED",
    "ERROR_INVALID_HANDLE",
    "ERROR_NOT_ENOUGH_MEMORY",
    "ERROR_BAD_ENVIRONMENT",
    "ERROR_INVALID_ACCESS",
    "ERROR_INVALID_DATA",
    "ERROR_OUTOFMEMORY",
    "ERROR_INVALID_DRIVE",
    "ERROR_CURRENT_DIRECTORY",
    "ERROR_NOT_SAME_DEVICE",
    "ERROR_NO_MORE_FILES",
    "ERROR_WRITE_PROTECT",
    "ERROR_BAD_UNIT",
    "ERROR_NOT_READY",
    "ERROR_BAD_COMMAND",
    "ERROR_CRC",
    "ERROR_WRITE_FAULT",
    "ERROR_READ_FAULT",
    "ERROR_GEN_FAILURE",
    "ERROR_SHARING_VIOLATION",
    "ERROR_LOCK_VIOLATION",
    "ERROR_SHARING_BUFFER_EXCEEDED",
    "ERROR_HANDLE_EOF",
    "ERROR_HANDLE_DISK_FULL",
    "ERROR_NOT_SUPPORTED",
    "ERROR_BAD_NETPATH",
    "ERROR_DEV_NOT_EXIST",
    "ERROR_BAD_NET_RESP",
    "ERROR_UNEXP_NET_ERR",
    "ERROR_NETNAME_DELETED",
    "ERROR_NETWORK_ACCESS_DENIED",
    "ERROR_FILE_EXISTS",
    "ERROR_CANNOT_MAKE",
    "ERROR_INVALID_PARAMETER",
    "ERROR_BROKEN_PIPE",
    "ERROR_BUFFER_OVERFLOW",
    "ERROR_DISK_FULL",
    "ERROR_CALL_NOT_IMPLEMENTED",
    "ERROR_SEM_TIMEOUT",
    "ERROR_INSUFFICIENT_BUFFER",
    "ERROR_INVALID_NAME",
    "ERROR_INVALID_LEVEL",
    "ERROR_NEGATIVE_SEEK",
    "ERROR_SEEK_ON_DEVICE",
    "ERROR_DIR_NOT_EMPTY",
    "ERROR_NOT_LOCKED",
    "ERROR_BAD_ARGUMENTS",
    "ERROR_BAD_PATHNAME",
    "ERROR_LOCK_FAILED",
    "ERROR_BUSY",
    "ERROR_ALREADY_EXISTS",
    "ERROR_BAD_EXE_FORMAT",
    "ERROR_FILENAME_EXCED_RANGE",
    "ERROR_FILE_TOO_LARGE",
    "ERROR_NO_DATA",
    "ERROR_MORE_DATA",
    "ERROR_INVALID_EA_NAME",
    "ERROR_WAIT_TIMEOUT",
    "ERROR_NO_MORE_ITEMS",
    "ERROR_DIRECTORY",
    "ERROR_EAS_DIDNT_FIT",
    "ERROR_EA_FILE_CORRUPT",
    "ERROR_EA_TABLE_FULL",
    "ERROR_EAS_NOT_SUPPORTED",
    "ERROR_NOT_OWNER",
    "ERROR_DELETE_PENDING",
    "ERROR_DIRECTORY_NOT_SUPPORTED",
    "ERROR_INVALID_ADDRESS",
    "ERROR_ARITHMETIC_OVERFLOW",
    "ERROR_OPERATION_ABORTED",
    "ERROR_IO_PENDING",
    "ERROR_NOACCESS",
    "ERROR_FILE_INVALID",
    "ERROR_NO_MEDIA_IN_DRIVE",
    "ERROR_NO_UNICODE_TRANSLATION",
    "ERROR_IO_DEVICE",
    "ERROR_POSSIBLE_DEADLOCK",
    "ERROR_TOO_MANY_LINKS",
    "ERROR_NOT_FOUND",
    "ERROR_CANCELLED",
    "ERROR_USER_MAPPED_FILE",
    "ERROR_CONNECTION_REFUSED",
    "ERROR_NETWORK_UNREACHABLE",
    "ERROR_HOST_UNREACHABLE",
    "ERROR_CONNECTION_ABORTED",
    "ERROR_RETRY",
    "ERROR_IMPLEMENTATION_LIMIT",
    "ERROR_DISK_QUOTA_EXCEEDED",
    "ERROR_INVALID_OWNER",
    "ERROR_PRIVILEGE_NOT_HELD",
    "ERROR_NONE_MAPPED",
    "ERROR_INVALID_SECURITY_DESCR",
    "ERROR_INTERNAL_ERROR",
    "ERROR_FILE_CORRUPT",
    "ERROR_DISK_CORRUPT",
    "ERROR_NO_SYSTEM_RESOURCES",
    "ERROR_TIMEOUT",
    "ERROR_INVALID_USER_BUFFER",
    "ERROR_CANT_RESOLVE_FILENAME",
    "ERROR_NOT_CONNECTED",
    "ERROR_NOT_A_REPARSE_POINT",
    "ERROR_REPARSE_ATTRIBUTE_CONFLICT",
    "ERROR_INVALID_REPARSE_DATA",
    "ERROR_REPARSE_TAG_INVALID",
    "ERROR_REPARSE_TAG_MISMATCH",
    "ERROR_OFFLOAD_READ_FLT_NOT_SUPPORTED",
    "ERROR_OFFLOAD_WRITE_FLT_NOT_SUPPORTED",
    "ERROR_OFFLOAD_READ_FILE_NOT_SUPPORTED",
    "ERROR_OFFLOAD_WRITE_FILE_NOT_SUPPORTED",
    "ERROR_INVALID_STATE",
]
