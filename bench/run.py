"""Measures our null drive beside the same null filesystem on C libfuse: `make bench`.

Builds the C filesystem outside the source tree, starts all drives, has one client process use them
in alternating rounds, prints a table, and writes the figures to `docs/performance.json` and the
table into `docs/performance.md`. See there for what the figures mean.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
BASELINE, C_DEFAULT = "C -s", "C default"
OURS, OURS_ON_SYSTEM = "ours", "ours, system Python"
SYSTEM_PYTHON = "/usr/bin/python3"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
MOUNTED_WITHIN_S = 10.0

Figures = dict[str, dict[str, list[float]]]


# --- building and starting ---------------------------------------------------------------------


def missing() -> list[str]:
    """The Debian packages without which the C filesystem cannot be built."""
    packages = [tool for tool in ("gcc", "pkg-config") if shutil.which(tool) is None]
    if "pkg-config" in packages or subprocess.run(["pkg-config", "--exists", "fuse3"]).returncode:
        packages.append("libfuse3-dev")
    return packages


def build(directory: Path) -> str:
    """Compile the C null filesystem; the path of the program."""
    program = str(directory / "null_lowlevel")
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "fuse3"], check=True, capture_output=True, text=True
    ).stdout.split()
    source = str(HERE / "null_lowlevel.c")
    subprocess.run(["gcc", "-O2", source, "-o", program, *flags], check=True)
    return program


def python_version(path: str) -> str | None:
    """The version of an interpreter, None when there is none that can run our drive."""
    if shutil.which(path) is None:
        return None
    code = "import platform; print(platform.python_version())"
    answer = subprocess.run([path, "-c", code], capture_output=True, text=True)
    version = answer.stdout.strip()
    enough = not answer.returncode and tuple(map(int, version.split(".")[:2])) >= (3, 11)
    return version if enough else None


def interpreters() -> dict[str, str]:
    """What our drive runs on: the Python of this program, and that of the system if it is another.

    They may differ in how they were compiled, and that shows.
    """
    found = {OURS: sys.executable}
    another = os.path.realpath(sys.executable) != os.path.realpath(SYSTEM_PYTHON)
    if another and python_version(SYSTEM_PYTHON):
        found[OURS_ON_SYSTEM] = SYSTEM_PYTHON
    return found


def servers(c_program: str) -> dict[str, list[str]]:
    """The drives by name: the command that mounts each of them, but for its mountpoint."""
    # The options that our drive is mounted with, so that the kernel asks the same of all.
    options = "default_permissions" + (",allow_other" if os.geteuid() == 0 else "")
    c_server = [c_program, "-f", "-o", options]
    drive = str(HERE / "null_drive.py")
    ours = {name: [python, drive] for name, python in interpreters().items()}
    return {BASELINE: [*c_server, "-s"], C_DEFAULT: c_server, **ours}


@contextlib.contextmanager
def mounted(command: list[str], mountpoint: Path) -> Iterator[None]:
    """Run a server and wait until its drive is there; unmount it at the end."""
    mountpoint.mkdir()
    process = subprocess.Popen([*command, str(mountpoint)], env=_environment())
    try:
        deadline = time.monotonic() + MOUNTED_WITHIN_S
        while not os.path.ismount(mountpoint):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"bench: no drive appeared: {' '.join(command)}")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # For a server that could not unmount; os.path.ismount is blind to a dead mount.
        unmount = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
        subprocess.run([*unmount, str(mountpoint)], stderr=subprocess.DEVNULL)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(HERE.parent / "src")}


def measure(rounds: int, operations: list[str]) -> Figures:
    """Start everything, have the client measure, end everything."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cbfs-bench-")))
        drives: dict[str, str] = {}
        for number, (name, command) in enumerate(servers(build(directory)).items()):
            mountpoint = directory / f"drive{number}"
            stack.enter_context(mounted(command, mountpoint))
            drives[name] = str(mountpoint)
        plan = json.dumps({"drives": drives, "rounds": rounds, "operations": operations})
        client = subprocess.run(
            [sys.executable, str(HERE / "client.py")],
            input=plan,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        figures: Figures = json.loads(client.stdout)
        return figures


# --- figures -----------------------------------------------------------------------------------


def spread(values: list[float]) -> float:
    """Half the distance between the quartiles."""
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 2


def ratio(figures: dict[str, list[float]], name: str, to: str) -> float:
    """The median of the ratios of each round: what disturbs a round disturbs both sides of it."""
    return statistics.median(a / b for a, b in zip(figures[name], figures[to], strict=True))


def rows(figures: Figures) -> list[list[str]]:
    """The table: a head, and a row per operation."""
    names = list(next(iter(figures.values())))
    ours = [name for name in names if name not in (BASELINE, C_DEFAULT)]
    ratios = [(name, to) for to in (BASELINE, C_DEFAULT) for name in ours]
    table = [["µs per operation", *names, *(f"{name} / {to}" for name, to in ratios)]]
    for operation, by_name in figures.items():
        cells = [f"{statistics.median(v):.1f} ±{spread(v):.1f}" for v in by_name.values()]
        table.append([operation, *cells, *(f"{ratio(by_name, *pair):.2f}" for pair in ratios)])
    return table


def markdown(table: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (table[0], rule, *table[1:])
    ]
    return "\n".join(lines)


def conditions(cpu: int | None, rounds: int) -> dict[str, str]:
    """Where and how this was measured."""
    version = subprocess.run(
        ["pkg-config", "--modversion", "fuse3"], capture_output=True, text=True
    ).stdout.strip()
    where = "not pinned" if cpu is None else "clients and servers pinned to one CPU"
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": f"{_processor()}, {os.cpu_count()} CPUs",
        "kernel": platform.release(),
        "Python": ", ".join(
            f"{python_version(path)} ({name})" for name, path in interpreters().items()
        ),
        "libfuse": version,
        "placement": where,
        "rounds": str(rounds),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def write_results(figures: Figures, facts: dict[str, str]) -> None:
    """Keep the medians, spreads and ratios, and put the table into the page."""
    summary = {
        operation: {
            name: {
                "median_us": round(statistics.median(values), 2),
                "spread_us": round(spread(values), 2),
                "ratio_to_c_single": round(ratio(by_name, name, BASELINE), 3),
            }
            for name, values in by_name.items()
        }
        for operation, by_name in figures.items()
    }
    data = json.dumps({"conditions": facts, "operations": summary}, indent=1, ensure_ascii=False)
    (DOCS / "performance.json").write_text(data + "\n")
    page = DOCS / "performance.md"
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"bench: {page} has no {BEGIN} … {END} to put the table between")
    said = "; ".join(f"{name}: {value}" for name, value in facts.items())
    page.write_text(f"{before}{BEGIN}\n\n{markdown(rows(figures))}\n\n{said}.\n\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=100, help="at least 2 (default: %(default)s)")
    parser.add_argument("--unpinned", action="store_true", help="leave placement to the kernel")
    parser.add_argument("--only", action="append", default=[], metavar="OPERATION")
    parser.add_argument("--dry", action="store_true", help="print the table, write no files")
    arguments = parser.parse_args()
    packages = missing()
    if packages:
        sys.exit(f"bench: the C filesystem cannot be built: apt install {' '.join(packages)}")
    cpu = None if arguments.unpinned else max(os.sched_getaffinity(0))
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})  # servers and client inherit it
    facts = conditions(cpu, arguments.rounds)
    figures = measure(arguments.rounds, arguments.only)
    print(markdown(rows(figures)))
    if not arguments.dry:
        write_results(figures, facts)


if __name__ == "__main__":
    main()
