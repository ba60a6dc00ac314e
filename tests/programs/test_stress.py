"""The stress tool: that it ends well when all is well, and finds what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.programs import REPOSITORY

_FSX = """#!/bin/sh
for file in "$@"; do :; done
head -c 100000 /dev/urandom > "$file"
sleep 0.3
echo "All 3 operations completed A-OK!"
"""
_FSSTRESS = """#!/bin/sh
for place in "$@"; do :; done
mkdir -p "$place"
ln -s nowhere "$place/link.$$"
echo "0/1: symlink"
sleep 0.3
"""


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, Path]:
    """Stand-ins for the two programs, which do what is said of them and no more."""
    found = {}
    for name, text in (("fsx", _FSX), ("fsstress", _FSSTRESS)):
        found[name] = tmp_path / name
        found[name].write_text(text)
        found[name].chmod(0o755)
    return found


def stress(programs: dict[str, Path], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    given = [f"--{name}={path}" for name, path in programs.items()]
    given += ["--minutes=0.05", "--turn=1", "--seed=1", "--only=default"]
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "tools/stress.py"), *given],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_it_ends_well(programs: dict[str, Path], tmp_path: Path) -> None:
    done = stress(programs, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "default fsx+fsstress" in done.stdout
    assert "operations of fsstress" in done.stdout
    assert not list(tmp_path.glob("stress-*"))


def test_a_program_that_finds_a_divergence_ends_it(
    programs: dict[str, Path], tmp_path: Path
) -> None:
    programs["fsx"].write_text("#!/bin/sh\necho 'READ BAD DATA'\nexit 110\n")
    done = stress(programs, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ended with 110" in done.stdout
    logs = next(tmp_path.glob("stress-*")).glob("000-*.log")
    assert any("READ BAD DATA" in log.read_text() for log in logs)
