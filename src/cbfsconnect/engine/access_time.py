"""The time of last access, which the kernel leaves to the drive.

The rule is that of the property `support_last_access_time_attribute`: closing a file that was
opened for reading sets the time, unless it is younger than a minute. Only drives that give such a
time have it set, and only where the drive can be changed.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from cbfsconnect.engine.operations.attributes import fire_set_attributes
from cbfsconnect.fuse import wire

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.handles import Handle
    from cbfsconnect.engine.nodes import Node

YOUNG_NS = 60 * 1_000_000_000
"""A time of last access that is younger than this stays."""

NOT_READ = os.O_WRONLY | os.O_RDWR | os.O_PATH | os.O_NOATIME
"""Flags of handles whose closing says nothing about a program that reads. Who writes may set all
times before it closes, and they must stay."""

_ATTRIBUTES_ONLY = -1


def note_access(engine: Engine, node: Node, handle: Handle) -> None:
    """Fire `on_set_file_attributes` for a file that is being closed, where that is due.

    Nobody hears of a failure: a program that only reads need not be allowed to change the file.
    """
    now = time.time_ns()
    options, accessed = engine.options, node.accessed
    if accessed is None or now - accessed < YOUNG_NS:
        return
    if handle.flushed or handle.state.deleted or handle.state.access_is_set:
        return
    if options.read_only or not options.support_last_access_time_attribute:
        return
    if engine.on.on_set_file_attributes is None:
        return
    if engine.routing is not None and engine.routing.hides(handle.state):
        return  # the local file has such a time of its own
    info = engine.info(node.path, node)
    if isinstance(info, int) or info.last_access_time_ns is None:
        return
    node.accessed = info.last_access_time_ns
    if now - info.last_access_time_ns < YOUNG_NS:
        return
    # Access is no change: without its time the drive would take this for one.
    changed = info.change_time_ns
    if not fire_set_attributes(engine, node, handle, atime=now, ctime=changed):
        node.accessed = now
        engine.notify([wire.inval_inode(node.id, _ATTRIBUTES_ONLY)])
