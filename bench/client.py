"""The client process of the benchmark: one program that uses every mounted drive in turn.

It reads a plan from standard input (JSON: `drives`, a mapping of names to mountpoints; `rounds`;
optionally `operations`) and prints, for every operation and drive, one figure per round:
microseconds per operation. In each round every drive serves each operation once, in an order that
changes from round to round, so that whatever else the machine does falls upon all of them alike.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import sys
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

KIB, MIB = 1 << 10, 1 << 20
FILE_SIZE = 1 << 30
WARM_UP = 10
"""Operations before the clock starts: another drive was served a moment ago."""


class Target(NamedTuple):
    """One mounted drive: the file, its open descriptor, and a name that can be created."""

    path: str
    fd: int
    new: str


def stat(target: Target, count: int) -> None:
    call, path = os.stat, target.path
    for _ in range(count):
        call(path)


def open_close(target: Target, count: int) -> None:
    open_, close, path, flags = os.open, os.close, target.path, os.O_RDONLY
    for _ in range(count):
        close(open_(path, flags))


def create_unlink(target: Target, count: int) -> None:
    open_, close, unlink, path = os.open, os.close, os.unlink, target.new
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    for _ in range(count):
        close(open_(path, flags, 0o644))
        unlink(path)


def reading(size: int) -> Callable[[Target, int], None]:
    buffers = [mmap.mmap(-1, size)]  # whole pages: 1 MiB that begins inside one is two requests

    def read(target: Target, count: int) -> None:
        preadv, fd = os.preadv, target.fd
        for number in range(count):
            if preadv(fd, buffers, number * size % FILE_SIZE) != size:
                raise AssertionError("short read")

    return read


def writing(size: int) -> Callable[[Target, int], None]:
    data = mmap.mmap(-1, size)
    data.write(bytes(size))

    def write(target: Target, count: int) -> None:
        pwrite, fd = os.pwrite, target.fd
        for number in range(count):
            if pwrite(fd, data, number * size % FILE_SIZE) != size:
                raise AssertionError("short write")

    return write


OPERATIONS: dict[str, tuple[Callable[[Target, int], None], int]] = {
    "stat": (stat, 400),
    "open+close": (open_close, 250),
    "create+unlink": (create_unlink, 100),
    "read 4 KiB": (reading(4 * KIB), 800),
    "write 4 KiB": (writing(4 * KIB), 800),
    "read 1 MiB": (reading(MIB), 40),
    "write 1 MiB": (writing(MIB), 40),
}
"""What is measured, and how often it is done between two looks at the clock (about 6 ms)."""


def target_of(mountpoint: str) -> Target:
    path = os.path.join(mountpoint, "f")
    return Target(path, os.open(path, os.O_RDWR), os.path.join(mountpoint, "n"))


def measure(
    drives: dict[str, str], rounds: int, operations: list[str]
) -> dict[str, dict[str, list[float]]]:
    """Microseconds per operation: by operation and drive, one figure per round."""
    targets = {name: target_of(mountpoint) for name, mountpoint in drives.items()}
    figures: dict[str, dict[str, list[float]]] = {
        operation: {name: [] for name in targets} for operation in operations
    }
    names = list(targets)
    for number in range(rounds):
        first = number % len(names)
        for operation in operations:
            function, count = OPERATIONS[operation]
            for name in names[first:] + names[:first]:
                function(targets[name], WARM_UP)
                begin = perf_counter()
                function(targets[name], count)
                end = perf_counter()
                figures[operation][name].append((end - begin) / count * 1e6)
    for target in targets.values():
        os.close(target.fd)
    return figures


def main() -> None:
    plan = json.load(sys.stdin)
    gc.disable()
    figures = measure(plan["drives"], plan["rounds"], plan.get("operations") or list(OPERATIONS))
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main()
