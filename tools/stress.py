#!/usr/bin/env python3
"""Stress of the memory drive by fsx and fsstress of xfstests, mixed with remounts.

    tools/stress.py --fsx PATH --fsstress PATH [--minutes 60] [--seed N] [--only NAME ...]

Needs root, and the two programs, built elsewhere. For each configuration of the drive there is a
row of turns; in a turn some of the programs use the drive at once for some seconds. After each turn
all that is on the drive (names, attributes, contents) is read, the drive is unmounted and mounted
again, and all of it is read once more: what the kernel has shown must be what the drive has got.
At the end of a configuration everything is removed, and nothing may be left of it in the server.

Stops at the first divergence, hang, leak or complaint in the server's log, with exit code 1. All
that is known of it is in the directory that is printed then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
GRACE_S = 60.0
"""A program that goes on for longer than it was told, by so much, hangs."""
MOST_READ = 1000
"""So many items or fewer of a tree are looked at whole."""
GROWTH = 64 * MIB
"""The server's memory may be so much larger after all was removed: that of the allocators."""


class Failure(Exception):
    """What went wrong."""


@dataclass(frozen=True)
class Configuration:
    """How the drive is mounted. `lossless`: there is room for all that is written."""

    name: str
    properties: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    size: int = 4 << 30
    lossless: bool = True


CONFIGURATIONS = [
    Configuration("default"),
    Configuration("write-through", config={"FileCachePolicyWriteThrough": True}),
    Configuration("uncached", {"file_cache": 0}),
    Configuration("all-events", {"fire_all_open_close_events": True}),
    Configuration(
        "no-metadata-cache",
        {"metadata_cache_enabled": False, "non_existent_files_cache_enabled": False},
    ),
    Configuration("serialized", {"serialize_events": True}),
    Configuration("any-case", {"use_case_sensitive_file_names": False}),
    Configuration("windows-delete", config={"PosixDelete": False}),
    Configuration(
        "windows-events",
        {"fire_all_open_close_events": True, "serialize_access": True, "file_cache": 1},
        {"PosixDelete": False, "FireSetFileSizeOnWrite": True, "FastRenameMove": False},
    ),
    Configuration("many-workers", config={"MinWorkerThreadCount": 8, "MetadataCacheTimeout": 0.1}),
    Configuration("full", size=16 * MIB, lossless=False),
]

DROP_CACHES = "while sleep 0.5; do echo 2 > /proc/sys/vm/drop_caches; done"
FSX_MODES: dict[str, list[str]] = {
    "buffered": [],
    "reopened": ["-c", "20"],
    "no-mappings": ["-R", "-W", "-c", "100"],
    "flushed": ["-f", "-y"],
    "polluted": ["-e", "1"],
    "verified": ["-X", "-l", "65536", "-o", "16384"],
    "large": ["-l", "8388608", "-o", "1048576"],
    "direct": ["-Z", "-R", "-W", "-r", "4096", "-w", "4096"],
    "direct-512": ["-Z", "-R", "-W", "-r", "512", "-w", "512", "-t", "512"],
    "asynchronous": ["-A", "-R", "-W"],
    "direct-asynchronous": ["-Z", "-A", "-R", "-W", "-r", "512", "-w", "512"],
}

_NO_MATTER = """
    bulkstat bulkstat1 resvsp unresvsp clonerange deduperange exchangerange snapshot subvol_create
    subvol_delete uring_read uring_write unshare fiemap setattr setxattr
"""
_FEWER = "unlink=6 rmdir=3"
"""Without it trees grow until looking at them takes longer than the programs."""
_NAMES = """
    rename=6 rnoreplace=3 rexchange=4 rwhiteout=1 link=4 symlink=2 unlink=10 mkdir=3 rmdir=3 creat=5
    mknod=2 getdents=3 stat=3 readlink=2 write=1 truncate=1 chown=1 setfattr=1
"""
_DATA = """
    creat=3 unlink=2 read=4 write=6 readv=2 writev=3 aread=2 awrite=3 dread=3 dwrite=3 mread=4
    mwrite=5 truncate=3 fallocate=2 punch=2 zero=2 copyrange=3 splice=2 fsync=1 fdatasync=1 sync=1
    link=1 rename=1 collapse=1 insert=1 read_dontcache=1 write_dontcache=1
"""
_ATTRIBUTES = """
    creat=4 mkdir=2 mknod=1 symlink=1 unlink=6 rmdir=2 setfattr=6 getfattr=4 listfattr=4
    removefattr=3 attr_set=3 attr_remove=2 chown=4 stat=4 getattr=1 rename=2 link=1 write=2
"""


def _frequencies(words: str) -> list[str]:
    return [option for word in words.split() for option in ("-f", word)]


_WHAT_MATTERS = _frequencies(" ".join(f"{name}=0" for name in _NO_MATTER.split()))
FSSTRESS_MODES: dict[str, list[str]] = {
    "all": [*_WHAT_MATTERS, *_frequencies(_FEWER)],
    "names": ["-z", *_frequencies(_NAMES)],
    "data": ["-z", *_frequencies(_DATA)],
    "attributes": ["-z", *_frequencies(_ATTRIBUTES)],
    "padded-names": ["-r", *_WHAT_MATTERS, *_frequencies(_FEWER)],
}


# --- the server ------------------------------------------------------------------------------


class Server:
    """The process that serves the drive."""

    def __init__(self, point: Path, directory: Path) -> None:
        self.log = directory / "server.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "stress_server.py"), str(point)],
                env=os.environ | {"PYTHONPATH": str(HERE.parent / "src")},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ask(self, do: str, **given: Any) -> Any:
        """Have a command done; what it returns."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        alarm = signal.signal(signal.SIGALRM, self._hangs)
        signal.alarm(int(GRACE_S))
        try:
            self.process.stdin.write(json.dumps({"do": do, **given}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, alarm)
        if not line:
            raise Failure(f"the server ended with {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failure(f"{do}: {answer['error']}")
        return answer["value"]

    def stacks(self) -> None:
        """Have it write to its log where its threads are."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR2)
            time.sleep(1)

    def complaints(self) -> str:
        """What it has logged."""
        return self.log.read_text(errors="replace")

    def end(self) -> None:
        """End it; the drive is unmounted by that, or by force."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            self.process.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()

    def _hangs(self, number: int, frame: object) -> None:
        raise Failure("the server does not answer")


# --- what is on the drive --------------------------------------------------------------------


_HOLE = bytes(MIB)


def tree(top: Path, contents: bool, calm: bool) -> dict[str, tuple[Any, ...]]:
    """All items below a directory: what `lstat` says, attributes, targets, and hashed contents.

    Of many items the last three are looked at for an even choice only. Times are looked at, and
    files have to close without error, if all is calm: no program was killed just before.
    """
    paths = []
    for directory, names, files in os.walk(top, onerror=_raise):
        paths += [directory, *(os.path.join(directory, name) for name in names + files)]
    share = 1 + len(paths) // MOST_READ
    found = {}
    for path in set(paths):
        status = os.lstat(path)
        said = _status(status, contents, calm)
        if zlib.crc32(os.fsencode(path)) % share == 0:
            said += _details(path, status, contents, calm)
        found[os.path.relpath(path, top)] = said
    return found


def _status(status: os.stat_result, contents: bool, calm: bool) -> tuple[Any, ...]:
    said: tuple[Any, ...] = (status.st_ino, oct(status.st_mode), status.st_nlink)
    said += (status.st_uid, status.st_gid, status.st_rdev)
    if contents:
        said += (status.st_size,)
    if contents and calm:
        said += (status.st_mtime_ns, status.st_ctime_ns)
    return said


def _details(path: str, status: os.stat_result, contents: bool, calm: bool) -> tuple[Any, ...]:
    said: tuple[Any, ...] = ()
    if stat.S_ISLNK(status.st_mode):
        return (os.readlink(path),)
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        said += (name, os.getxattr(path, name, follow_symlinks=False))
    if stat.S_ISREG(status.st_mode) and contents:
        said += (_hash(path, calm),)
    return said


def _hash(path: str, calm: bool) -> str:
    total = hashlib.sha1(usedforsecurity=False)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while piece := os.read(descriptor, MIB):
            # Most of these files is holes, and comparing is quicker than hashing.
            total.update(b"hole" if piece == _HOLE else piece)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        try:
            os.close(descriptor)
        except OSError as error:
            if calm:
                raise Failure(f"{path} cannot be closed: {error}") from None
    return total.hexdigest()


def _raise(error: OSError) -> None:
    raise error


def differences(
    before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]
) -> Iterator[str]:
    """One line for each item that is not the same."""
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            yield f"{path}:\n    before {before.get(path)}\n    after  {after.get(path)}"


# --- turns -----------------------------------------------------------------------------------


class Run:
    """One run through the configurations, until the time is over."""

    def __init__(self, given: argparse.Namespace, directory: Path) -> None:
        self.given = given
        self.directory = directory
        self.point = directory / "drive"
        self.point.mkdir()
        self.random = random.Random(given.seed)
        self.server = Server(self.point, directory)
        self.clients: list[subprocess.Popen[bytes]] = []
        self.seconds: dict[str, float] = defaultdict(float)
        self.operations: Counter[str] = Counter()
        self.remounts = 0
        self.turn = 0
        self.full = False
        self.interrupted = False

    def go(self) -> None:
        """Take the configurations in turn until the time is over."""
        chosen = [c for c in CONFIGURATIONS if not self.given.only or c.name in self.given.only]
        share = 60 * self.given.minutes / len(chosen) / self.given.rounds
        for _ in range(self.given.rounds):
            for configuration in chosen:
                self.configuration(configuration, share)

    def configuration(self, configuration: Configuration, seconds: float) -> None:
        """Turns with one configuration; at the end nothing may be left of them."""
        end = sum(self.seconds.values()) + seconds
        self.full = not configuration.lossless
        self.server.ask("new", size=configuration.size)
        self.mount(configuration)
        empty = self.server.ask("report")
        free = os.statvfs(self.point).f_bfree
        while sum(self.seconds.values()) < end:
            turns = [self.files, self.names, self.both, self.killed, self.forgotten, self.forced]
            if not configuration.lossless:
                turns = [self.names, self.killed, self.forgotten, self.forced]
            turns[self.turn % len(turns)](configuration)
            self.turn += 1
            self.compare(configuration)
            self.check_log()
        self.remove_all(configuration, empty, free)

    def mount(self, configuration: Configuration) -> None:
        """Mount the drive as it is."""
        options = {"properties": configuration.properties, "config": configuration.config}
        self.server.ask("mount", **options)
        self.remounts += 1

    def compare(self, configuration: Configuration) -> None:
        """Remount; what the kernel has shown before must be what the drive has got."""
        # When a program is killed the kernel gives up the request by which it tells the times of
        # what it has cached. It also notes an error for who closes the file next; nothing is lost.
        what = (configuration.lossless, not self.interrupted)
        self.interrupted = False
        before = tree(self.point, *what)
        self.server.ask("unmount", force=False)
        self.mount(configuration)
        after = tree(self.point, *what)
        different = list(differences(before, after))
        if different:
            raise Failure("\n".join(["other than before the remount:", *different[:50]]))

    def remove_all(self, configuration: Configuration, empty: Any, free: int) -> None:
        """Remove everything: nothing may be left on the drive or in the server."""
        for path in self.point.iterdir():
            self.remove(path)
        left = list(self.point.iterdir())
        if left:
            raise Failure(f"left after rm -rf: {left}")
        mounted = self.eventually_as(empty)
        if mounted["objects"] != empty["objects"]:
            known = "\n".join(self.server.ask("nodes"))
            raise Failure(
                f"objects are left: {mounted['objects']}, not {empty['objects']}\n{known}"
            )
        if os.statvfs(self.point).f_bfree != free:
            raise Failure(f"{os.statvfs(self.point).f_bfree} blocks are free, at first {free}")
        self.server.ask("unmount", force=False)
        unmounted = self.server.ask("report")
        grown = unmounted["resident"] - empty["resident"]
        say(f"{configuration.name}: the server has {unmounted['resident'] // MIB} MiB")
        if grown > GROWTH:
            raise Failure(f"the server's memory has grown by {grown // MIB} MiB")

    def remove(self, path: Path) -> None:
        """Remove a tree."""
        subprocess.run(["rm", "-rf", str(path)], check=True)

    def eventually_as(self, wanted: Any) -> Any:
        """What the server reports, when it is the same or some seconds later."""
        deadline = time.monotonic() + 5
        while True:
            found = self.server.ask("report")
            if found["objects"] == wanted["objects"] or time.monotonic() > deadline:
                return found
            time.sleep(0.1)

    def check_log(self) -> None:
        """The library must have nothing to complain of."""
        complaints = self.server.complaints()
        if complaints.strip():
            raise Failure(f"the server complains:\n{complaints[-4000:]}")

    # --- kinds of turns ---

    def files(self, configuration: Configuration) -> None:
        """Several fsx at once, each on a file of its own."""
        self.until_done(configuration, "fsx", [self.fsx() for _ in range(4)])

    def names(self, configuration: Configuration) -> None:
        """fsstress."""
        self.until_done(configuration, "fsstress", [self.fsstress()])

    def both(self, configuration: Configuration) -> None:
        """fsx and fsstress at once."""
        commands = [self.fsx(), self.fsx(), self.fsstress()]
        self.until_done(configuration, "fsx+fsstress", commands)

    def forgotten(self, configuration: Configuration) -> None:
        """fsx and fsstress, while the kernel is made to drop its caches all the time."""
        commands = [self.fsx(), self.fsstress()] if configuration.lossless else [self.fsstress()]
        dropping = subprocess.Popen(["sh", "-c", DROP_CACHES])
        try:
            self.until_done(configuration, "caches dropped", commands)
        finally:
            dropping.kill()
            dropping.wait()

    def killed(self, configuration: Configuration) -> None:
        """fsstress that is killed in the middle."""
        say(f"{configuration.name}: fsstress, killed")
        self.start(self.fsstress())
        time.sleep(self.given.turn / 2)
        self.kill_all()
        self.seconds[f"{configuration.name} killed"] += self.given.turn / 2

    def forced(self, configuration: Configuration) -> None:
        """A drive that is unmounted by force under fsstress."""
        say(f"{configuration.name}: fsstress, unmounted by force")
        self.start(self.fsstress())
        time.sleep(self.given.turn / 2)
        self.server.ask("unmount", force=True)
        self.kill_all()
        self.mount(configuration)
        self.seconds[f"{configuration.name} forced"] += self.given.turn / 2

    def until_done(
        self, configuration: Configuration, kind: str, commands: list[list[str]]
    ) -> None:
        """Run programs at once; one that fails, or does not end in time, is a failure."""
        say(f"{configuration.name}: {kind}")
        for command in commands:
            self.start(command)
        began = time.monotonic()
        for client in self.clients:
            try:
                client.wait(max(1.0, began + self.given.turn + GRACE_S - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise Failure(f"hangs: {client.args!r}") from None
        for client in self.clients:
            if client.returncode:
                raise Failure(f"{client.args!r} ended with {client.returncode}")
        self.clients.clear()
        self.seconds[f"{configuration.name} {kind}"] += time.monotonic() - began
        self.count_operations()

    def start(self, command: list[str]) -> None:
        """Start a program in a session of its own, with its output in a file."""
        output = self.directory / f"{self.turn:03}-{len(self.clients)}.log"
        with open(output, "wb") as file:
            file.write(f"{command}\n".encode())
            file.flush()
            client = subprocess.Popen(
                command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.clients.append(client)

    def kill_all(self) -> None:
        """Kill the programs; one that cannot be killed hangs."""
        for client in self.clients:
            for process in family(client.pid):
                os.kill(process, signal.SIGKILL)
        deadline = time.monotonic() + GRACE_S
        for client in self.clients:
            try:
                client.wait(max(1.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise Failure(f"cannot be killed: {client.args!r}") from None
        self.clients.clear()
        self.interrupted = True
        self.count_operations()

    def count_operations(self) -> None:
        """What the programs say they have done; the logs of what went well are not kept."""
        for log in self.directory.glob(f"{self.turn:03}-*.log"):
            text = log.read_text(errors="replace")
            done = re.search(r"All (\d+) operations completed", text)
            self.operations["fsx"] += int(done[1]) if done else 0
            self.operations["fsstress"] += len(re.findall(r"^\d+/\d+: ", text, re.MULTILINE))
            log.unlink()

    def fsx(self) -> list[str]:
        """A command: another mode and seed each time."""
        mode = self.random.choice(list(FSX_MODES))
        seed = self.random.randrange(1, 1 << 31)
        logs = self.directory / "fsx"
        logs.mkdir(exist_ok=True)
        words = [self.given.fsx, "-q", "-S", str(seed), "-P", str(logs), *FSX_MODES[mode]]
        name = f"fsx-{self.turn}-{len(self.clients)}-{seed}"
        return [*words, f"--duration={self.given.turn}", str(self.point / name)]

    def fsstress(self) -> list[str]:
        """A command: another mode and seed each time."""
        mode = self.random.choice(list(FSSTRESS_MODES))
        seed = self.random.randrange(1, 1 << 31)
        processes = self.random.choice([1, 4, 8])
        words = [self.given.fsstress, "-v", "-s", str(seed), "-p", str(processes)]
        place = self.point / f"fsstress-{self.turn % 2}"
        if self.full:
            for path in self.point.iterdir():  # there must be room for its directories
                self.remove(path)
        elif self.random.random() < 0.85:
            self.remove(place)
        return [*words, *FSSTRESS_MODES[mode], f"--duration={self.given.turn}", "-d", str(place)]

    # --- the end ---

    def explain(self) -> None:
        """Write down where everybody is."""
        self.server.stacks()
        with open(self.directory / "clients.txt", "w") as file:
            for client in self.clients:
                for process in family(client.pid):
                    file.write(f"{process} of {client.args!r}\n{where_is(process)}\n")

    def end(self) -> None:
        """End all processes, and unmount."""
        for client in self.clients:
            for process in family(client.pid):
                os.kill(process, signal.SIGKILL)
        self.server.end()
        subprocess.run(["umount", "-l", str(self.point)], stderr=subprocess.DEVNULL)


def family(process: int) -> list[int]:
    """A process and its descendants, as far as they have not ended."""
    found = [process] if Path(f"/proc/{process}").exists() else []
    for known in found:
        for children in Path(f"/proc/{known}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:
                continue
    return found


def where_is(process: int) -> str:
    """Where in the kernel a process is."""
    said = []
    for name in ("wchan", "syscall", "stack"):
        try:
            said.append(f"{name}: {Path(f'/proc/{process}/{name}').read_text()}")
        except OSError as error:
            said.append(f"{name}: {error}")
    return "\n".join(said)


def say(text: str) -> None:
    """Print a line with the time."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


def main() -> int:
    """Run, and say how it went; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--fsx", required=True, help="the program, built from xfstests")
    parser.add_argument("--fsstress", required=True, help="the program, built from xfstests")
    parser.add_argument("--minutes", type=float, default=60, help="of the programs, default 60")
    parser.add_argument("--turn", type=int, default=20, help="seconds of a turn, default 20")
    parser.add_argument("--rounds", type=int, default=1, help="how often each configuration comes")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--only", nargs="*", choices=[c.name for c in CONFIGURATIONS])
    given = parser.parse_args()
    given.fsx, given.fsstress = os.path.abspath(given.fsx), os.path.abspath(given.fsstress)
    directory = Path(tempfile.mkdtemp(prefix="stress-"))
    say(f"seed {given.seed}, {platform_line()}")
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has them ignored
        signal.signal(number, signal.default_int_handler)
    run = Run(given, directory)
    failed = True
    try:
        run.go()
        failed = False
    except KeyboardInterrupt:
        say("ended by a signal")
        failed = False
    except (Failure, OSError, subprocess.SubprocessError) as error:
        run.explain()
        say(f"FAILED in turn {run.turn}, see {directory}: {error}")
    finally:
        run.end()
        summarise(run)
        if not failed:
            shutil.rmtree(directory)
    return failed


def platform_line() -> str:
    """What the figures depend on."""
    return f"Linux {os.uname().release}, Python {sys.version.split()[0]}"


def summarise(run: Run) -> None:
    """Print the times and counts."""
    for name, seconds in sorted(run.seconds.items()):
        print(f"{seconds:6.0f} s  {name}")
    print(f"{sum(run.seconds.values()):6.0f} s  in all, {run.remounts} mounts")
    for program, count in run.operations.items():
        print(f"{count:10} operations of {program}")


if __name__ == "__main__":
    sys.exit(main())
