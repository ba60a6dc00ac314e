"""STATFS, ACCESS, DESTROY: the drive as a whole."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cbfsconnect.engine.operations.table import Reply, serves
from cbfsconnect.events import CBFSGetVolumeSizeEventParams
from cbfsconnect.fuse import wire
from cbfsconnect.fuse.abi import Opcode

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine
    from cbfsconnect.engine.workers import Worker
    from cbfsconnect.fuse.wire import Request


@serves(Opcode.STATFS)
def statfs(engine: Engine, worker: Worker, request: Request) -> Reply:
    """`on_get_volume_size`, in blocks of the cluster size."""
    options = engine.options
    block = options.cluster_size or options.sector_size
    total = available = 0
    handler = engine.on.on_get_volume_size
    if handler is not None:
        params = CBFSGetVolumeSizeEventParams()
        error = engine.fire(handler, params)
        if error:
            return error
        total, available = params.total_sectors, params.available_sectors
    name_max = options.max_file_name_length
    try:
        blocks = total * options.sector_size // block
        free = available * options.sector_size // block
        return wire.statfs(request.unique, blocks, free, free, 0, 0, block, name_max, block)
    except (TypeError, struct.error):
        problem = f"total_sectors is {total!r}, available_sectors is {available!r}"
        return engine.nonsense("on_get_volume_size", "the drive", problem)


@serves(Opcode.DESTROY)
def destroy(engine: Engine, worker: Worker, request: Request) -> Reply:
    """The kernel is done with the drive; the end of the session does the rest."""
    return wire.empty(request.unique)
