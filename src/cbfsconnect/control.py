"""Control requests to a mounted drive, for programs on its client side.

The functions take a path, or the descriptor of an open file or directory. Any process may call
them, but not the one that serves the drive. All raise `OSError`: ENOTTY when the file is on no such
drive or the drive does not know the request, and whatever the drive's handlers report.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

from cbfsconnect import control_layout as layout

Target: TypeAlias = "str | os.PathLike[str] | int"

_FS_IOC_GETFSLABEL = 0x81009431
_FS_IOC_SETFSLABEL = 0x41009432
_LABEL_BYTES = 256
_U32 = 1 << 32


def ctl_code(device_type: int, function: int, method: int = 0, access: int = 0) -> int:
    """A Windows control code, as the macro CTL_CODE makes it.

    `access`: 0 any, 1 for a descriptor that can be read, 2 written, 3 both. Raises `ValueError`
    for a number that is out of range.
    """
    fields = (device_type, 1 << 16), (access, 4), (function, 1 << 12), (method, 4)
    if any(not 0 <= value < limit for value, limit in fields):
        raise ValueError("a control code has 16 bits of device type, 12 of function, 2 of the rest")
    return device_type << 16 | access << 14 | function << 2 | method


def send_fsctl(target: Target, code: int, data: bytes = b"", output_size: int = 4096) -> bytes:
    """Send a filesystem control request (`on_fsctl`); what the drive answers.

    `code` is a Windows control code of device type 9. Its function must be 2400 to 4095, unless the
    drive has `handle_all_fsctls`. `data` may have 16359 bytes, the answer `output_size`, at most
    1 MiB. Raises `ValueError` for another code; EACCES when the code asks for access that the
    descriptor does not have (a path is opened for what the code asks), E2BIG for too much data.
    """
    if not 0 <= code < _U32 or layout.device_type(code) != layout.FILE_SYSTEM:
        raise ValueError(f"{code:#x} is not of device type 9: see send_ioctl")
    return _control(target, code, data, output_size)


def send_ioctl(target: Target, code: int, data: bytes = b"", output_size: int = 4096) -> bytes:
    """Send a control request of any other device type (`on_ioctl`); as `send_fsctl`.

    For the ioctls of Linux itself use `fcntl.ioctl`: they reach `on_ioctl` as they are.
    """
    if not 0 <= code < _U32 or layout.device_type(code) == layout.FILE_SYSTEM:
        raise ValueError(f"{code:#x} is of device type 9: see send_fsctl")
    return _control(target, code, data, output_size)


def set_valid_data_length(target: Target, length: int) -> None:
    """Declare that the first `length` bytes of a file are valid (`on_set_valid_data_length`).

    The counterpart of SetFileValidData: set the size first. The file must be open for writing
    (EBADF). Raises EINVAL for less than 0 or more than the size.
    """
    if length < 0:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    with opened(target, os.O_WRONLY) as descriptor:
        ask(descriptor, layout.Request.SET_VALID_DATA_LENGTH, layout.NUMBER.pack(length))


def get_volume_label(target: Target) -> str:
    """The label of the drive that an item is on (FS_IOC_GETFSLABEL, which any filesystem may have).

    A drive asks its `on_get_volume_label`.
    """
    buffer = bytearray(_LABEL_BYTES)
    with opened(target) as descriptor:
        fcntl.ioctl(descriptor, _FS_IOC_GETFSLABEL, buffer)
    return os.fsdecode(bytes(buffer).split(b"\0", 1)[0])


def set_volume_label(target: Target, label: str) -> None:
    """Give the drive a new label (FS_IOC_SETFSLABEL); on a drive, `on_set_volume_label` fires.

    Raises EINVAL when it is longer than 32 characters, EPERM for a caller who is neither root nor
    the owner of the drive's root.
    """
    data = os.fsencode(label)
    if len(data) >= _LABEL_BYTES or b"\0" in data:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    with opened(target) as descriptor:
        fcntl.ioctl(descriptor, _FS_IOC_SETFSLABEL, data.ljust(_LABEL_BYTES, b"\0"))


@contextmanager
def opened(target: Target, access: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor of the target: its own if it is one, else one for the time of a block."""
    if isinstance(target, int):
        yield target
        return
    # A FIFO must not be waited for.
    descriptor = os.open(target, access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def ask(descriptor: int, request: layout.Request, data: bytes = b"") -> bytes:
    """A request of the library; its answer."""
    return _call(descriptor, layout.NR_LIBRARY, request, data, layout.MOST_OUTPUT)


def _control(target: Target, code: int, data: bytes, output_size: int) -> bytes:
    if not 0 <= output_size <= layout.MOST_OUTPUT:
        raise ValueError(f"output_size is {output_size}, not 0 to {layout.MOST_OUTPUT}")
    wanted = layout.required_access(code)
    access = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY, os.O_RDWR)[wanted]
    if access != os.O_RDONLY and not isinstance(target, int) and os.path.isdir(target):
        access = os.O_RDONLY  # Linux opens directories for nothing else
    with opened(target, access) as descriptor:
        return _call(descriptor, layout.NR_CONTROL, code, data, output_size)


def _call(descriptor: int, nr: int, code: int, data: bytes, output_size: int) -> bytes:
    """Make the call, and more of them until the answer is there."""
    if len(data) > layout.MOST_DATA:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    room = min(max(len(data), output_size), layout.MOST_DATA)
    answer, token = b"", 0
    while True:
        argument = bytearray(layout.HEADER.size + room)
        given = b"" if token else data
        layout.HEADER.pack_into(argument, 0, code, len(given), output_size, len(answer), token)
        argument[layout.HEADER.size : layout.HEADER.size + len(given)] = given
        fcntl.ioctl(descriptor, layout.number_of(nr, len(argument)), argument)
        _, _, total, _, token = layout.HEADER.unpack_from(argument)
        rest = total - len(answer)
        answer += argument[layout.HEADER.size : layout.HEADER.size + rest]
        if not token:
            return answer
