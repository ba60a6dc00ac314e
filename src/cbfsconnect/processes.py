"""What /proc tells of the processes behind requests."""

from __future__ import annotations

import os

INVALID_HANDLE = -1


def executable_of(process: int) -> str:
    """The full path of the program a process runs; its short name when that is hidden; else ""."""
    try:
        return os.readlink(f"/proc/{process}/exe").removesuffix(" (deleted)")
    except OSError:
        pass
    try:
        with open(f"/proc/{process}/comm", encoding="utf-8", errors="surrogateescape") as comm:
            return comm.read().rstrip("\n")
    except OSError:
        return ""


def token_of(process: int) -> int:
    """A descriptor that stands for the process (pidfd_open(2)); the caller closes it. -1: gone."""
    try:
        return os.pidfd_open(process)
    except (OSError, OverflowError):
        return INVALID_HANDLE
