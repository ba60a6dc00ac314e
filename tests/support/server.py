"""A program that serves a drive in a process of its own, to be ended in all ways."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_PRELUDE = """
import os, signal, sys, threading, time
import cbfsconnect
point = sys.argv[1]

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

class Handlers(cbfsconnect.MemoryDrive):
    def on_mount(self, p): say("mounted")
    def on_unmount(self, p): say("unmounted")
    def on_ejected(self, p): say("ejected")
"""


class Server:
    """Runs `code` after a prelude that defines `say`, `point` and `Handlers`.

    Handlers say `mounted`, `unmounted` and `ejected`; the code should say `ready`.
    """

    def __init__(self, point: Path, code: str, **popen: Any) -> None:
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-X", "dev", "-c", _PRELUDE + code, str(point)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # what is read ahead of a line would be lost to `communicate`
            **popen,
        )

    def wait_for(self, *words: str) -> str:
        """Read what it says until a line begins with one of these words; the line."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline().decode():
            if line.startswith(words):
                return line.rstrip()
        raise AssertionError(f"it ended without {words}: {self.finish()}")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def finish(self, timeout: float = 20) -> tuple[int, list[str], str]:
        """Wait for its end: the exit code (a signal below 0), what else it said, its stderr."""
        said, complaint = self.process.communicate(timeout=timeout)
        return self.process.returncode, said.decode().splitlines(), complaint.decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(20)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
