"""A program that serves a drive, started as its user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from cbfsconnect.fuse import mountinfo
from cbfsconnect.fuse.mount import unmount

REPOSITORY = Path(__file__).parents[2]
"""Where `README.md`, `docs` and `examples` are."""

_DEADLINE_S = 30.0


class Program:
    """A Python program that mounts a drive at `mountpoint` and serves it until it is told to end.

    The `with` block begins when the drive is mounted. At its end the program gets Ctrl-C, unless
    `end` was called; a program that fails, or leaves its drive mounted, fails the test.
    """

    def __init__(self, *arguments: str | Path, mountpoint: Path, cwd: Path | None = None) -> None:
        self.mountpoint = mountpoint
        self._ended = False
        self._command = [sys.executable, "-X", "faulthandler", *map(str, arguments)]
        self._process = subprocess.Popen(
            self._command,
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _DEADLINE_S
        while not self._is_mounted():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                output, _ = self._process.communicate()
                raise AssertionError(f"{self._command} did not mount a drive:\n{output}")
            time.sleep(0.01)
        return self

    def end(self, answer: str | None = None) -> str:
        """End the program by an answer to its question, else by Ctrl-C; what it has printed."""
        self._ended = True
        if answer is None:
            self._process.send_signal(signal.SIGINT)
        try:
            output, _ = self._process.communicate(answer, timeout=_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)  # says where every thread is
            output, _ = self._process.communicate()
            raise AssertionError(f"{self._command} did not end:\n{output}") from None
        assert self._process.returncode == 0, f"ended with {self._process.returncode}:\n{output}"
        assert not self._is_mounted(), f"{self.mountpoint} is mounted still:\n{output}"
        return output

    def kill(self) -> None:
        """End the program by SIGKILL: its mount stays, dead, until the `with` block ends."""
        self._ended = True
        self._process.kill()
        self._process.wait(_DEADLINE_S)

    def close_input(self) -> None:
        """Let the program find that there is nobody who could answer it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.stdin = None

    def end_by_itself(self) -> str:
        """Wait until the program has noticed that its drive is unmounted; what it has printed."""
        self._ended = True
        output, _ = self._process.communicate(timeout=_DEADLINE_S)
        assert self._process.returncode == 0, f"ended with {self._process.returncode}:\n{output}"
        return output

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if not self._ended and kind is None:
                output = self.end()
                assert "Traceback" not in output, output
        finally:
            self._process.kill()
            output, _ = self._process.communicate()
            if kind is not None and output:
                print(f"{self._command} printed:\n{output}")
            unmount(self.mountpoint, force=True)

    def _is_mounted(self) -> bool:
        return mountinfo.entry_at(str(self.mountpoint)) is not None
