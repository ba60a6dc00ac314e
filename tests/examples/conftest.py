"""What the tests of examples share: where a drive is mounted, and a folder to show there."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """An empty directory to mount at."""
    directory = tmp_path / "drive"
    directory.mkdir()
    return directory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for a drive to show."""
    directory = tmp_path / "folder"
    directory.mkdir()
    return directory
