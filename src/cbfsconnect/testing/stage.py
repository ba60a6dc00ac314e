"""Mounting for checks: in this process with a record of all events, or in one to be killed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from cbfsconnect.cbfs import CBFS
from cbfsconnect.drive import Drive
from cbfsconnect.errors import CBFSConnectError
from cbfsconnect.testing import features
from cbfsconnect.testing.client import Client
from cbfsconnect.testing.recording import Fired, Recording
from cbfsconnect.testing.registry import Check
from cbfsconnect.testing.serving import Apart, Source
from cbfsconnect.testing.trial import CheckFailed, NotSupported, Trial


@dataclass
class Stage:
    """Where one check mounts drives, one after another or at the same time."""

    check: Check
    source: Source
    client: Client
    point: str
    storage: str
    fired: list[Fired] = field(default_factory=list)
    fire_all: bool = False

    def made(self) -> Any:
        """A context manager that gives a drive of what the storage has."""
        return self.source.made(self.storage)

    @contextmanager
    def mounted(self, made: Any, point: str | None = None) -> Iterator[Trial]:
        """Mount a drive, recorded, for a process that uses it."""
        recording = Recording()
        try:
            drive = self.source.mount(made, point or self.point, recording)
        except CBFSConnectError as error:
            text = f"came      the drive cannot be mounted: {error.message}"
            raise CheckFailed(text) from error
        self.fire_all = drive.cbfs.fire_all_open_close_events
        forgotten = list[Fired]()
        try:
            for need in self.check.needs:
                why = features.missing(need, drive.cbfs)
                if why is not None:
                    raise NotSupported(why)
            with self._process(drive, recording) as trial:
                forgotten = trial.forgotten
                try:
                    yield trial
                finally:
                    if not trial.stuck:
                        trial.tidy()
        finally:
            drive.unmount(force=True)
            self.fired += forgotten + recording.fired

    @contextmanager
    def apart(self, point: str | None = None) -> Iterator[tuple[Trial, Callable[[], None]]]:
        """Have a process of its own serve a drive; the function kills it."""
        try:
            server = Apart(self.source, point or self.point, self.storage)
        except RuntimeError as error:
            raise CheckFailed(f"came      the drive cannot be mounted: {error}") from None
        try:
            with self._process(Drive(CBFS(), server.point), Recording(kept=False)) as trial:
                yield trial, server.kill
        finally:
            server.kill()

    @contextmanager
    def further_point(self) -> Iterator[str]:
        """One more directory to mount at."""
        point = self.point + "-2"
        os.mkdir(point)
        try:
            yield point
        finally:
            os.rmdir(point)

    @contextmanager
    def _process(self, drive: Drive, recording: Recording) -> Iterator[Trial]:
        with ExitStack() as stack:
            client = self.client
            if client.forked:
                client = stack.enter_context(Client())
            client.begin()
            trial = Trial(self.source, drive, recording, client, self.check.rule, self.check.hint)
            try:
                trial.details = self.check.name.startswith("attributes.")
                trial.settle_in()
                yield trial
            finally:
                if trial.stuck:
                    drive.unmount(force=True)  # else nobody could end what waits for an answer
                trial.close()
                client.end(kill=True, timeout=20)
