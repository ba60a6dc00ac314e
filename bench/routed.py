"""The speed of a routed file as a ratio to that of its local file: run it as root.

Both are read and written in turn, in rounds, in an order that changes; a ratio is the median over
the rounds. The local file is in /dev/shm unless another directory is given, so that a disk does not
hide what the way through the drive costs.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

import cbfsconnect
from cbfsconnect import FILE_ATTRIBUTE_DIRECTORY

KIB, MIB = 1 << 10, 1 << 20
FILE_SIZE = 64 * MIB
ROWS = {
    "read 1 MiB": (MIB, os.preadv, 64),
    "write 1 MiB": (MIB, os.pwritev, 64),
    "read 4 KiB": (4 * KIB, os.preadv, 4096),
    "write 4 KiB": (4 * KIB, os.pwritev, 4096),
}


class OneRoutedFile:
    """A drive with one file, /file, that a local file stands for."""

    def __init__(self, local: str) -> None:
        self.local = local

    def configure(self, cbfs: cbfsconnect.CBFS) -> None:
        self.cbfs = cbfs

    def on_get_file_info(self, p: Any) -> None:
        if p.file_name == "/":
            p.file_exists, p.attributes = True, FILE_ATTRIBUTE_DIRECTORY
        elif p.file_name == "/file":
            p.file_exists, p.size = True, FILE_SIZE

    def on_open_file(self, p: Any) -> None:
        if p.file_name == "/file":
            self.cbfs.route_to_file(p.file_info, self.local, 0)

    def on_enumerate_directory(self, p: Any) -> None:
        pass


def measure(paths: list[str], rounds: int) -> dict[str, list[float]]:
    """CPU time of the local file by that of the routed one, for each row and round.

    All of both is spent in the calls of this process, and its own time does not count what else
    the machine does.
    """
    files = [os.open(path, os.O_RDWR) for path in paths]
    ratios: dict[str, list[float]] = {name: [] for name in ROWS}
    for _ in range(rounds):
        for name, (size, call, count) in ROWS.items():
            buffers = [mmap.mmap(-1, size)]
            taken = [0.0, 0.0]
            for which in random.sample((0, 1), 2):
                fd = files[which]
                for number in range(8):  # what another file was doing a moment ago is over
                    call(fd, buffers, number * size)
                begin = process_time()
                for number in range(count):
                    call(fd, buffers, number * size % FILE_SIZE)
                taken[which] = process_time() - begin
            ratios[name].append(taken[0] / taken[1])
    return ratios


def main() -> None:
    """Mount the drive, and have another process measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default="/dev/shm", help="where the local file is")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--client", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        for name, ratios in measure(options.client, options.rounds).items():
            low, middle, high = statistics.quantiles(ratios, n=4)
            print(f"{name:12} {middle:.3f} of the local file's speed (±{(high - low) / 2:.3f})")
        return
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        local, point = Path(folder, "local"), Path(folder, "drive")
        local.write_bytes(bytes(FILE_SIZE))
        point.mkdir()
        with cbfsconnect.mount(OneRoutedFile(str(local)), point):
            client = [sys.executable, __file__, "--rounds", str(options.rounds)]
            subprocess.run([*client, "--client", str(local), f"{point}/file"], check=True)


if __name__ == "__main__":
    main()
