"""Serves one memory drive for `stress.py`, mounted and unmounted as often as it is told.

Usage: stress_server.py MOUNTPOINT. Commands come as JSON lines on standard input, answers go as
JSON lines to standard output. SIGUSR2 writes where every thread is to standard error, where the
library's log goes too.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import logging
import signal
import sys
import threading
from collections import Counter
from typing import Any

import cbfsconnect
from cbfsconnect.drives.memory_data import Content
from cbfsconnect.engine.nodes import Node

_ITEMS = ("Handle", "OpenState", "Listing")


class Service:
    """What is done for each command; `drive` is None while nothing is mounted."""

    def __init__(self, point: str) -> None:
        self.point = point
        self.memory = cbfsconnect.MemoryDrive()
        self.drive: cbfsconnect.Drive | None = None

    def new(self, size: int) -> None:
        """Start over with an empty drive."""
        self.memory = cbfsconnect.MemoryDrive(size)

    def mount(self, properties: dict[str, Any], config: dict[str, Any]) -> None:
        """Mount what the drive holds."""
        self.drive = cbfsconnect.mount(self.memory, self.point, config=config, **properties)

    def unmount(self, force: bool) -> None:
        """Unmount; what the drive holds stays in this process."""
        assert self.drive is not None
        self.drive.unmount(force)
        self.drive = None

    def nodes(self) -> list[str]:
        """What the library takes the kernel to know."""
        known = [item for item in gc.get_objects() if isinstance(item, Node)]
        return [f"{n.path}: {n.lookups} look-ups, open {n.open}, {n.has_path}" for n in known]

    def report(self) -> dict[str, Any]:
        """How many objects of the library and the drive are alive, and what else may pile up."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        kinds = Counter(
            f"{type(item).__module__.removeprefix('cbfsconnect.')}.{type(item).__name__}"
            for item in gc.get_objects()
            if type(item).__module__.startswith("cbfsconnect") and _is_alive(item)
        )
        with open("/proc/self/statm", encoding="ascii") as file:
            resident = int(file.read().split()[1]) * 4096
        return {"objects": dict(kinds), "threads": threading.active_count(), "resident": resident}


def _is_alive(item: object) -> bool:
    # An idle worker and a cycle may hold what nobody uses any more.
    if isinstance(item, Node):
        return item.lookups > 0 or item.open is not None
    if isinstance(item, Content):
        return item.links > 0 or item.opens > 0
    return type(item).__name__ in _ITEMS


def main() -> None:
    """Do what is asked for until standard input ends."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2, all_threads=True)
    service = Service(sys.argv[1])
    try:
        for line in sys.stdin:
            command = json.loads(line)
            try:
                answer = {"value": getattr(service, command.pop("do"))(**command)}
            except cbfsconnect.CBFSConnectError as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), flush=True)
    finally:
        if service.drive is not None:
            service.unmount(True)


if __name__ == "__main__":
    main()
