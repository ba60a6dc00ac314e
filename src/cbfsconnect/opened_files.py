"""The snapshot of open files, that `create_opened_files_snapshot` takes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cbfsconnect.errors import ERROR_INVALID_PARAMETER, CBFSConnectError
from cbfsconnect.processes import executable_of

if TYPE_CHECKING:
    from cbfsconnect.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class OpenFile:
    """One entry: a handle, and who opened it. `handle_closed`: its process has closed it, but the
    kernel still keeps the file."""

    name: str
    process_id: int
    process_name: str
    handle_closed: bool


class OpenedFiles:
    """The entries of one snapshot; the drive itself, open by its server, is the first."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.entries: list[OpenFile] = []
        self.handles = 0
        self.objects = 0
        if engine is None:
            return
        handles = engine.handles.all()
        self.handles = len(handles)
        self.objects = len({handle.node for handle in handles}) + 1
        server = os.getpid()
        root = engine.nodes.root.path
        self.entries.append(OpenFile(root, server, executable_of(server), False))
        for handle in handles:
            process = handle.process or engine.process_of(handle.thread)
            self.entries.append(
                OpenFile(handle.node.path, process, executable_of(process), handle.flushed)
            )

    def entry(self, index: int) -> OpenFile:
        """One entry; ERROR_INVALID_PARAMETER when there is none."""
        if not 0 <= index < len(self.entries):
            raise CBFSConnectError(
                ERROR_INVALID_PARAMETER,
                f"there is no open file {index} in the snapshot: create_opened_files_snapshot "
                f"found {len(self.entries)}",
            )
        return self.entries[index]


class OpenedFilesGetters:
    """The getters of class CBFS that tell of the snapshot; without one there is nothing in it."""

    _opened_files = OpenedFiles()

    @property
    def open_files_count(self) -> int:
        """Entries in the snapshot: the drive itself, and a handle each."""
        return len(self._opened_files.entries)

    @property
    def open_handles_count(self) -> int:
        """Handles in the snapshot."""
        return self._opened_files.handles

    @property
    def open_objects_count(self) -> int:
        """Different files and directories in the snapshot, the drive itself among them."""
        return self._opened_files.objects

    def get_open_files_count(self) -> int:
        """Entries in the snapshot; see `open_files_count`."""
        return self.open_files_count

    def get_open_handles_count(self) -> int:
        """Handles in the snapshot; see `open_handles_count`."""
        return self.open_handles_count

    def get_open_objects_count(self) -> int:
        """Different items in the snapshot; see `open_objects_count`."""
        return self.open_objects_count

    def get_open_file_name(self, open_file_index: int) -> str:
        """The path of an open file."""
        return self._opened_files.entry(open_file_index).name

    def get_open_file_handle_closed(self, open_file_index: int) -> bool:
        """Whether its process has closed it, while the kernel keeps it still."""
        return self._opened_files.entry(open_file_index).handle_closed

    def get_open_file_process_id(self, open_file_index: int) -> int:
        """The process that opened it."""
        return self._opened_files.entry(open_file_index).process_id

    def get_open_file_process_name(self, open_file_index: int) -> str:
        """The program of that process; "" when it is gone."""
        return self._opened_files.entry(open_file_index).process_name
