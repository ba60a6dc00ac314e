"""A process that uses the mount, as any program would, on behalf of a test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cbfsconnect.testing.client import Client

__all__ = ["Client", "run"]


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
