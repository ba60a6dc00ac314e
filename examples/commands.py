"""Files that are made by programs: each read of `MOUNTPOINT/NAME` runs a command.

    python examples/commands.py MOUNTPOINT now='date' load='uptime' slow='sleep 2; echo done'

Reading waits for the command, in an `async def` handler: a thousand programs may read at once, and
need no thread each. Ctrl-C on a reader cancels the handler, which ends the command.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys

import cbfsconnect
from cbfsconnect import (
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_READONLY,
    CBFSEnumerateDirectoryEventParams,
    CBFSGetFileInfoEventParams,
    CBFSOpenFileEventParams,
    CBFSReadFileEventParams,
)


class Commands:
    """The handlers. Those that wait are `async def`, the others plain functions."""

    def __init__(self, commands: dict[str, str]) -> None:
        self.commands = commands

    def on_get_file_info(self, e: CBFSGetFileInfoEventParams) -> None:
        """Nobody knows the size before the command has run: it is 0, as in /proc."""
        e.file_exists = e.file_name == "/" or e.file_name[1:] in self.commands
        is_root = e.file_name == "/"
        e.attributes = FILE_ATTRIBUTE_DIRECTORY if is_root else FILE_ATTRIBUTE_READONLY

    def on_enumerate_directory(self, e: CBFSEnumerateDirectoryEventParams) -> None:
        """One name each time."""
        if e.restart:
            e.enumeration_context = iter(self.commands)
        name = next(e.enumeration_context, "")
        e.file_found = bool(name)
        e.file_name = name
        e.attributes = FILE_ATTRIBUTE_READONLY

    def on_open_file(self, e: CBFSOpenFileEventParams) -> None:
        """Nothing yet: opens of one file come one after another, and none shall wait here."""

    async def on_read_file(self, e: CBFSReadFileEventParams) -> None:
        """A part of the output, which the first read of a handle makes."""
        if not e.handle_context:
            e.handle_context = await self.output_of(e.file_name[1:])
        data = e.handle_context[0][e.position : e.position + e.bytes_to_read]
        e.buffer_view[: len(data)] = data
        e.bytes_read = len(data)

    async def output_of(self, name: str) -> tuple[bytes]:
        """Run the command. It ends with all that it has started when the reader is interrupted."""
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_shell(
                self.commands[name], stdout=asyncio.subprocess.PIPE, start_new_session=True
            )
        )
        try:
            process = await asyncio.shield(starting)  # it may run already when this is cancelled
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            process = await starting
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise
        if process.returncode:
            raise OSError(errno.EIO, f"{name} ended with {process.returncode}")
        return (output,)


def main() -> None:
    """Mount, until Ctrl-C."""
    if len(sys.argv) < 3:
        sys.exit("usage: python commands.py MOUNTPOINT NAME=COMMAND ...")
    commands = dict(pair.split("=", 1) for pair in sys.argv[2:])
    cbfsconnect.run(
        Commands(commands),
        sys.argv[1],
        fire_all_open_close_events=True,  # so that each handle has a context
        serialize_access=False,  # reads of one file need not wait for each other
        file_cache=0,
    )


if __name__ == "__main__":
    main()
