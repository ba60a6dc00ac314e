"""The ioctls of the library: how Windows control codes and requests of its own reach a drive.

The argument of both is one structure, with numbers in the byte order of the machine::

    struct cbfs_control {
        __u32 code;           // Windows control code, or request of the library
        __u32 input_length;   // bytes of `data` that go in
        __u32 output_length;  // in: how many bytes the answer may have; out: how many it has
        __u32 offset;         // of the answer: where the part begins that is wanted
        __u64 token;          // in: 0, or the answer that is wanted further; out: 0 at its end
        __u8  data[];         // in: the input; out: the answer from `offset` on
    };

The ioctl's number is `_IOC(_IOC_READ|_IOC_WRITE, 0xCB, NR, size)`, where the size is that of the
whole structure: at most 16383 bytes, since an ioctl number has 14 bits for it. `NR` is 0x40 for
control codes and 0x41 for requests of the library. An answer that does not fit comes in parts: the
same call with the `token` of the last answer and no input gives the part at `offset`, and no event
fires. A descriptor keeps the last few answers that were not fetched whole.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

HEADER: Final = struct.Struct("=IIIIQ")
MOST_BYTES: Final = (1 << 14) - 1
"""Size of the largest argument that an ioctl number can tell."""
MOST_DATA: Final = MOST_BYTES - HEADER.size
MOST_OUTPUT: Final = 1 << 20
"""The largest answer that may be asked for."""

MAGIC: Final = 0xCB
NR_CONTROL: Final = 0x40
NR_LIBRARY: Final = 0x41

_READ_WRITE = 3

FILE_SYSTEM: Final = 9
"""FILE_DEVICE_FILE_SYSTEM, the device type of filesystem control codes."""


class Request(enum.IntEnum):
    """Requests of the library, with the layout of their input and answer."""

    SET_VALID_DATA_LENGTH = 1
    """`NUMBER`."""
    QUERY_QUOTA = 2
    """A binary SID; `QUOTA`s, one or none."""
    LIST_QUOTAS = 3
    """Nothing; `QUOTA`s."""
    SET_QUOTAS = 4
    """`QUOTA`s; for each one byte, 1 if there was one already."""
    REMOVE_QUOTAS = 5
    """The same, of which only the SID counts."""
    GET_DEFAULT_QUOTA = 6
    """Nothing; `DEFAULT_QUOTA`."""
    SET_DEFAULT_QUOTA = 7
    """`DEFAULT_QUOTA`."""


NUMBER: Final = struct.Struct("=Q")
QUOTA: Final = struct.Struct("=qqq")
"""Bytes used, threshold, limit; the binary SID follows, which tells its own length."""
DEFAULT_QUOTA: Final = struct.Struct("=qqI")
"""Threshold, limit, control flags."""


def number_of(nr: int, size: int) -> int:
    """The ioctl number of a call whose argument has this size."""
    return _READ_WRITE << 30 | size << 16 | MAGIC << 8 | nr


def is_ours(cmd: int, nr: int) -> bool:
    """Whether an ioctl number is that of this call, with whatever size."""
    return cmd >> 30 == _READ_WRITE and cmd & 0xFFFF == MAGIC << 8 | nr


def device_type(code: int) -> int:
    """The device type of a Windows control code."""
    return code >> 16


def function(code: int) -> int:
    """The function number of a Windows control code."""
    return code >> 2 & 0xFFF


def required_access(code: int) -> int:
    """Which access a Windows control code asks for: 1 reading, 2 writing, 3 both, 0 any."""
    return code >> 14 & 3
