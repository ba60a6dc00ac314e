"""Drives that route items to local files, in each way in which their data can move."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import cbfsconnect
from cbfsconnect.engine.operations.routed import ROUTED_OPERATIONS
from cbfsconnect.fuse.abi import Opcode
from support.client import Client
from support.mounts import Mounting
from support.plain import PlainDrive
from support.recorder import Recorder

LOCAL = b"what the local file has"


@dataclass(frozen=True)
class Transport:
    """How data of routed files moves. `seen`: the library can see that the drive will route."""

    name: str
    method: str = "auto"
    seen: bool = True


PASSTHROUGH = Transport("passthrough")
POSITIONED = Transport("positioned", "positioned")
WRITE_BACK = Transport("write_back", seen=False)

every_transport = pytest.mark.parametrize(
    "transport", [PASSTHROUGH, POSITIONED, WRITE_BACK], ids=lambda t: t.name
)
coherent_transports = pytest.mark.parametrize(
    "transport", [PASSTHROUGH, POSITIONED], ids=lambda t: t.name
)


class UnseenRouter(PlainDrive):
    """Routes what is in `targets` (path: local path and flags); `answers` is what came of it.

    Nothing in its code says so.
    """

    def __init__(self, **files: bytes) -> None:
        super().__init__(**files)
        self.targets: dict[str, tuple[str, int]] = {}
        self.answers: list[bool] = []
        self.cbfs: Any = None

    def configure(self, cbfs: Any) -> None:
        self.cbfs = cbfs

    def on_create_file(self, p: Any) -> None:
        super().on_create_file(p)
        self._route(p)

    def on_open_file(self, p: Any) -> None:
        self._route(p)

    def _route(self, p: Any) -> None:
        if p.file_name in self.targets:
            self.answers.append(self.call(p.file_info, *self.targets[p.file_name]))

    def call(self, *arguments: Any) -> bool:
        done: bool = getattr(self.cbfs, "route_" + "to_file")(*arguments)
        return done


class Router(UnseenRouter):
    """The same for all to see."""

    def call(self, *arguments: Any) -> bool:
        done: bool = self.cbfs.route_to_file(*arguments)
        return done


@dataclass
class Routed:
    """A mounted drive that routes: its record, its handlers, and where local files are."""

    record: Recorder
    handlers: UnseenRouter
    cbfs: cbfsconnect.CBFS
    at: str
    folder: Path
    requests: list[int] = field(default_factory=list)

    @property
    def local(self) -> Path:
        """The file that /f is routed to."""
        return self.folder / "local"


def route(
    mount: Mounting,
    client: Client,
    folder: Path,
    transport: Transport,
    flags: int = 0,
    *,
    handlers: UnseenRouter | None = None,
    config: dict[str, Any] | None = None,
    **options: Any,
) -> Routed:
    """Mount a drive whose file /f is routed to a local file with `LOCAL` in it."""
    local = folder / "local"
    if not local.exists():
        local.write_bytes(LOCAL)
    if handlers is None:
        drive = Router if transport.seen else UnseenRouter
        # With write-back the kernel believes the size that the drive has told.
        handlers = drive(f=b"?" * (9 if transport.seen else len(LOCAL)), g=b"the drive's own")
        handlers.targets["/f"] = str(local), flags
    record = Recorder(handlers)
    config = {"RouteMethod": transport.method, **(config or {})}
    drive_ = mount(record, config=config, **options)
    client.run("", at=drive_.mountpoint)
    return Routed(record, handlers, drive_.cbfs, str(drive_.mountpoint), folder)


def count_requests(monkeypatch: pytest.MonkeyPatch, *opcodes: Opcode) -> list[int]:
    """From now on the numbers of such requests are put into the list."""
    counted: list[int] = []
    for opcode in opcodes:
        usual = ROUTED_OPERATIONS[opcode]

        def counting(engine: Any, worker: Any, request: Any, usual: Any = usual) -> Any:
            counted.append(request.opcode)
            return usual(engine, worker, request)

        monkeypatch.setitem(ROUTED_OPERATIONS, opcode, counting)
    return counted


def descriptors_on(path: Path) -> int:
    """How many descriptors of this process stand for a file."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{fd}") == str(path)
        except OSError:
            continue
    return found
