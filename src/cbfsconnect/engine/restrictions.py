"""Access rules at the door: which requests are asked for whom they come from, and for what.

As on Windows, who has a file open may use it: reads, writes, locks and the like of a handle are not
checked. Everything that gets at an item anew is, whatever the kernel has cached: opening (a
descriptor in /proc, too), looking up, asking for attributes, making, changing, renaming, deleting.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from cbfsconnect import constants as c
from cbfsconnect import control_layout as layout
from cbfsconnect.engine.nodes import Directory
from cbfsconnect.engine.operations import Operation
from cbfsconnect.engine.operations.table import text
from cbfsconnect.fuse import abi
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.operations import Operation, Reply
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.wire import Request

READ = c.STG_DACCESS_READ
WRITE = c.STG_DACCESS_WRITE
ANY = 0
"""Reading or writing: who may do either may know of the item."""
BY_HANDLE = -1
"""It comes with a handle that was checked when it was opened."""
BY_KERNEL_OR_WRITE = -2
"""The kernel does so by itself when it has written cached data, and so do programs."""

_LIBRARY_READS = (
    layout.Request.QUERY_QUOTA,
    layout.Request.LIST_QUOTAS,
    layout.Request.GET_DEFAULT_QUOTA,
)
_KERNEL_TIMES = abi.FATTR_MTIME | abi.FATTR_CTIME
_IOC_WRITE = 1 << 30
"""The ioctl carries data in, by its own number: those that change something do."""
_CODE = struct.Struct("=I")


class Judge(Protocol):
    """Who knows what processes may do."""

    def access_of(self, thread: int) -> int:
        """READ, WRITE, both, or 0."""

    def is_nobody(self, thread: int) -> bool:
        """Whether no process is behind the request."""


def guarded(judge: Judge, table: Mapping[int, Operation]) -> Mapping[int, Operation]:
    """A table of operations as a drive with access rules has it: refused requests are EACCES."""
    return {
        opcode: _guard(operation, _NEEDS[opcode], judge) if opcode in _NEEDS else operation
        for opcode, operation in table.items()
    }


def _guard(operation: Operation, needs: int | Callable[[Request], int], judge: Judge) -> Operation:
    def serve(engine: Engine, worker: Worker, request: Request) -> Reply:
        needed = needs if isinstance(needs, int) else needs(request)
        if needed == BY_KERNEL_OR_WRITE:
            needed = BY_HANDLE if judge.is_nobody(request.pid) else WRITE
        if needed != BY_HANDLE:
            access = judge.access_of(request.pid)
            if not access or access & needed != needed:
                return _refusal(engine, request)
        return operation(engine, worker, request)

    return serve


def _refusal(engine: Engine, request: Request) -> int:
    """EACCES, unless the kernel looks a name up again that others may be at.

    It would take the refusal for the end of the name: those who work in that directory would lose
    it, and what is mounted there would be taken away. Only for ENOMEM and EINTR it keeps the name.
    It asks for attributes before, and is refused then, except without the setting
    DefaultPermissions, or when a rule is added in between.
    """
    if request.opcode == Opcode.LOOKUP:
        parent = engine.nodes.get(request.nodeid)
        if isinstance(parent, Directory) and parent.spelled(text(request.name)) in parent.children:
            return errno.ENOMEM
    return errno.EACCES


def _of_open(request: Request) -> int:
    flags: int = request.fields[0]
    return _of_flags(flags)


def _of_create(request: Request) -> int:
    return WRITE | _of_flags(request.body.flags)


def _of_flags(flags: int) -> int:
    """What the flags of an open(2) ask for. A program that is started is read."""
    mode = flags & os.O_ACCMODE
    needed = READ if mode == os.O_RDONLY else WRITE if mode == os.O_WRONLY else READ | WRITE
    return needed | WRITE if flags & os.O_TRUNC else needed


def _of_getattr(request: Request) -> int:
    return BY_HANDLE if request.body.getattr_flags & abi.GETATTR_FH else ANY


def _of_setattr(request: Request) -> int:
    valid = request.body.valid
    if valid & abi.FATTR_FH:
        return BY_HANDLE
    return WRITE if valid & ~_KERNEL_TIMES else BY_KERNEL_OR_WRITE


def _of_ioctl(request: Request) -> int:
    """What may change the drive or an item needs WRITE, though the descriptor be another's."""
    cmd = request.body.cmd
    control = layout.is_ours(cmd, layout.NR_CONTROL)
    if not control and not layout.is_ours(cmd, layout.NR_LIBRARY):
        return WRITE if cmd & _IOC_WRITE else ANY
    data = request.data
    code = _CODE.unpack_from(data)[0] if data is not None and len(data) >= _CODE.size else 0
    if control:
        return layout.required_access(code)  # the same bits
    return ANY if code in _LIBRARY_READS else WRITE


_NEEDS: dict[int, int | Callable[[Request], int]] = {
    Opcode.LOOKUP: ANY,
    Opcode.GETATTR: _of_getattr,
    Opcode.STATX: _of_getattr,
    Opcode.READLINK: ANY,
    Opcode.STATFS: ANY,
    Opcode.OPEN: _of_open,
    Opcode.OPENDIR: READ,
    Opcode.CREATE: _of_create,
    Opcode.MKNOD: WRITE,
    Opcode.MKDIR: WRITE,
    Opcode.SYMLINK: WRITE,
    Opcode.LINK: WRITE,
    Opcode.UNLINK: WRITE,
    Opcode.RMDIR: WRITE,
    Opcode.RENAME: WRITE,
    Opcode.RENAME2: WRITE,
    Opcode.SETATTR: _of_setattr,
    Opcode.GETXATTR: READ,
    Opcode.LISTXATTR: READ,
    Opcode.SETXATTR: WRITE,
    Opcode.REMOVEXATTR: WRITE,
    Opcode.IOCTL: _of_ioctl,
}
