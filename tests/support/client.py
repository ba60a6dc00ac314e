"""A process that uses the mount, as any program would, on behalf of a test."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_LOOP = """
import pickle, sys, os, traceback
out = os.fdopen(os.dup(1), "wb"); os.dup2(2, 1)
names = {"__name__": "client"}
exec("import errno, fcntl, mmap, os, stat, struct, sys, time\\nfrom pathlib import Path", names)
while True:
    try:
        code, given = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    names.update(given)
    names.pop("result", None)
    try:
        exec(code, names)
        answer = ("value", names.get("result"))
    except OSError as error:
        answer = ("OSError", (error.errno, error.strerror))
    except BaseException:
        answer = ("failure", traceback.format_exc())
    pickle.dump(answer, out); out.flush()
"""


class Client:
    """One process. Code runs in it in one namespace, so descriptors stay open between calls.

    `errno`, `fcntl`, `mmap`, `os`, `stat`, `struct`, `sys`, `time` and `Path` are imported there.
    """

    def __init__(self, **popen: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LOOP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **popen,
        )

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self.process.pid

    def run(self, code: str, **names: Any) -> Any:
        """Run statements there; what they assign to `result` is returned.

        An `OSError` that they raise is raised here, any other exception as `AssertionError`.
        """
        self.start(code, **names)
        return self.finish()

    def call(self, expression: str, **names: Any) -> Any:
        """Evaluate an expression there."""
        return self.run(f"result = {expression}", **names)

    def start(self, code: str, **names: Any) -> None:
        """Have statements run there without waiting for them."""
        assert self.process.stdin is not None
        pickle.dump((textwrap.dedent(code), names), self.process.stdin)
        self.process.stdin.flush()

    def finish(self) -> Any:
        """Wait for what was started; see `run`."""
        assert self.process.stdout is not None
        kind, value = pickle.load(self.process.stdout)
        if kind == "OSError":
            raise OSError(*value)
        if kind == "failure":
            raise AssertionError(f"in the client process:\n{value}")
        return value

    def kill(self) -> None:
        """End the process with SIGKILL, whatever it is at."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def close(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def run(
    *command: str | Path, cwd: str | Path | None = None, timeout: float = 100, **environment: str
) -> str:
    """Run a program on the mount; its output. A failure shows what it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | {"LC_ALL": "C", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        check=False,
        text=True,
        errors="surrogateescape",
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-4000:]}"
    return done.stdout
