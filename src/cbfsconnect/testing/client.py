"""The process that uses a mounted drive: a server must never touch its own mount.

One interpreter is started, and it forks for each `begin`: a fork costs a millisecond or two, a new
interpreter fifty. What a fork has open is closed when it ends, so that nothing stays behind.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import textwrap
from types import TracebackType
from typing import Any, Self

_LOOP = """
import pickle, sys, os, traceback
out = os.fdopen(os.dup(1), "wb"); os.dup2(2, 1)
names = {"__name__": "client"}
exec("import errno, fcntl, mmap, os, stat, struct, sys, time\\nfrom pathlib import Path", names)
fork = 0

def say(*answer):
    pickle.dump(answer, out); out.flush()

while True:
    try:
        code, given = pickle.load(sys.stdin.buffer)
    except EOFError:
        os._exit(0)
    if code is None and fork:
        os._exit(0)
    if code is None:
        child = os.fork()
        if child:
            status = os.waitpid(child, 0)[1]
            say("ended", status)
        else:
            fork = os.getpid()
            say("begun", fork)
        continue
    names.update(given)
    names.pop("result", None)
    try:
        exec(code, names)
        answer = ("value", names.get("result"))
    except OSError as error:
        answer = ("OSError", (error.errno, error.strerror))
    except BaseException:
        answer = ("failure", traceback.format_exc())
    say(*answer)
"""


class ClientTimeout(Exception):
    """The process has not come back in time: most likely a request of it is not answered."""


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
        self._fork = 0

    @property
    def pid(self) -> int:
        """The id of the process that runs the code."""
        return self._fork or self.process.pid

    @property
    def forked(self) -> bool:
        """Whether a fork of it is at work."""
        return bool(self._fork)

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
        self._send(textwrap.dedent(code), names)

    def finish(self, timeout: float | None = None) -> Any:
        """Wait for what was started; see `run`. `ClientTimeout` after `timeout` seconds."""
        kind, value = self._receive(timeout)
        if kind == "OSError":
            raise OSError(*value)
        if kind == "failure":
            raise AssertionError(f"in the client process:\n{value}")
        if kind == "ended":
            self._fork = 0
            raise AssertionError(f"the client process was ended by signal {value & 0x7F}")
        return value

    def begin(self) -> None:
        """Have a fork of the process run all that follows, until `end`."""
        self._send(None, {})
        kind, value = self._receive(60)
        assert kind == "begun", kind
        self._fork = value

    def end(self, *, kill: bool = False, timeout: float | None = 60) -> None:
        """End the fork, by its own exit or by SIGKILL, and wait until it is gone."""
        if not self._fork:
            return
        if kill:
            os.kill(self._fork, signal.SIGKILL)
        else:
            self._send(None, {})
        while self._receive(timeout)[0] != "ended":
            pass  # an answer that nobody has waited for
        self._fork = 0

    def kill(self) -> None:
        """End the process with SIGKILL, whatever it is at."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def close(self) -> None:
        """End the process."""
        if self._fork:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._fork, signal.SIGKILL)
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

    def _send(self, code: str | None, names: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        pickle.dump((code, names), self.process.stdin)
        self.process.stdin.flush()

    def _receive(self, timeout: float | None) -> tuple[str, Any]:
        stream = self.process.stdout
        assert stream is not None
        if timeout is not None:
            waiting = select.poll()
            waiting.register(stream, select.POLLIN)
            if not waiting.poll(timeout * 1000):
                raise ClientTimeout(f"no answer within {timeout:g} s")
        kind, value = pickle.load(stream)
        return kind, value

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
