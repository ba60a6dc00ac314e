"""Rights that the kernel does not check: it leaves `system.…` attributes and ioctls to us."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cbfsconnect.engine.nodes import Directory

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.nodes import Node
    from cbfsconnect.fuse.wire import Request


def check_owner(engine: Engine, node: Node, request: Request) -> int:
    """0 when the caller may change what the item is (root, its owner), else an errno."""
    if not request.uid or not engine.options.default_permissions:
        return 0
    params = engine.info(node.path, node)
    if isinstance(params, int):
        return params
    owner = engine.options.uid if params.uid is None else params.uid
    return 0 if request.uid == owner else errno.EPERM


def check_administrator(engine: Engine, request: Request) -> int:
    """0 when the caller may change the drive as a whole: root, the owner of the drive's root."""
    return check_owner(engine, engine.nodes.root, request)


def check_handle(
    engine: Engine, handle: Handle, request: Request, reading: bool, writing: bool
) -> int:
    """0 when the handle was opened for this access, else EACCES.

    Nobody opens a directory for writing: there its owner counts as who may.
    """
    if writing and engine.options.read_only:
        return errno.EROFS
    if isinstance(handle.node, Directory):
        return check_owner(engine, handle.node, request) if writing else 0
    mode = handle.flags & os.O_ACCMODE
    refused = (reading and mode == os.O_WRONLY) or (writing and mode == os.O_RDONLY)
    return errno.EACCES if refused else 0
