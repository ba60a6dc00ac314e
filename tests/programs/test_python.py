"""Python on a drive: a virtual environment with pip, packages that are compiled and imported."""

from __future__ import annotations

import sys
from pathlib import Path

from support.client import run


def test_a_virtual_environment_with_pip(drive: Path) -> None:
    environment = drive / "environment"
    run(sys.executable, "-m", "venv", environment)
    python = environment / "bin" / "python"
    where = run(python, "-I", "-c", "import pip._internal.cli.main as m, sys; print(m.__file__)")
    assert Path(where.strip()).is_relative_to(environment)
    assert run(environment / "bin" / "pip", "--version").startswith("pip ")
    assert run(python, "-I", "-c", "import sys; print(sys.prefix)").strip() == str(environment)


def test_a_package_is_written_compiled_changed_and_imported(drive: Path) -> None:
    package = drive / "package"
    package.mkdir()
    (package / "__init__.py").write_text("from package.part import value\n")
    for value in ("1", "'another value'"):
        (package / "part.py").write_text(f"value = {value}\n")
        code = "import package; print(repr(package.value))"
        shown = run(sys.executable, "-c", code, cwd=drive, PYTHONDONTWRITEBYTECODE="")
        assert shown.strip() == value
    assert any((package / "__pycache__").glob("part.*.pyc"))
    run(sys.executable, "-m", "compileall", "-q", "-f", package)
    run(sys.executable, "-m", "zipfile", "-c", drive / "package.zip", package)
    code = "import sys; sys.path[:0] = ['package.zip']; import package; print(package.__file__)"
    (drive / "elsewhere").mkdir()
    (drive / "package.zip").rename(drive / "elsewhere" / "package.zip")
    shown = run(sys.executable, "-c", code, cwd=drive / "elsewhere")
    assert shown.strip() == "package.zip/package/__init__.py"
