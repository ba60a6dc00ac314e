"""`docs/port-from-windows.md`: its commands, its programs, its numbers and its symptoms."""

from __future__ import annotations

import ast
import configparser
import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from cbfsconnect import CBFS, EVENTS, constants, errno_from_win32, errors, win32_from_errno
from cbfsconnect.settings import SETTINGS
from support.client import Client, run
from support.documents import agrees, blocks_of, commands_of, shell
from support.programs import REPOSITORY, Program

GUIDE = "docs/port-from-windows.md"
TEXT = (REPOSITORY / GUIDE).read_text(encoding="utf-8")
PORTED = (REPOSITORY / "examples" / "ported_folder_mirror.py").read_text(encoding="utf-8")


def section(heading: str) -> str:
    """The text below a heading of the guide."""
    return TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without their heads."""
    found = re.findall(r"^\|[-| ]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for table in found
        for line in table.splitlines()
    ]


# --- the lines that differ ------------------------------------------------------------------------


def hunks() -> list[list[str]]:
    """The parts of the difference, each a list of lines with their signs."""
    (block,) = blocks_of(GUIDE, "diff")
    return [part.splitlines() for part in block.text.strip("\n").split("\n\n")]


def on_windows() -> str:
    """The example as it was before it was ported."""
    program = PORTED
    for hunk in hunks():
        after = "".join(line[1:] + "\n" for line in hunk if line[0] != "-")
        before = "".join(line[1:] + "\n" for line in hunk if line[0] != "+")
        assert program.count("\n" + after) == 1, after
        program = program.replace("\n" + after, "\n" + before)
    return program


def functions(program: str) -> dict[str, str]:
    """The functions of a program by name."""
    tree = ast.parse(program)
    return {
        node.name: ast.dump(node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    }


def test_few_lines_differ_and_no_handler() -> None:
    lines = [line for hunk in hunks() for line in hunk]
    assert len([line for line in lines if line.startswith("+")]) <= 12
    assert len([line for line in lines if line.startswith("-")]) <= 12
    before, after = functions(on_windows()), functions(PORTED)
    assert before.keys() == after.keys()
    differing = {name for name in after if before[name] != after[name]}
    assert differing == {"attributes_of", "code_of", "lock", "set_attributes", "unlock"}
    handlers = {name for name in after if name.startswith("cb_")}
    assert len(handlers) > 20
    assert {f"on_{name.removeprefix('cb_')}" for name in handlers} <= EVENTS.keys()


# --- step by step ---------------------------------------------------------------------------------


def test_the_steps_lead_to_a_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "src"))
    source, point = tmp_path / "mirror.py", tmp_path / "drive"
    source.write_text(on_windows())
    with ExitStack() as running:
        program = None
        for block in blocks_of(GUIDE, "console"):
            for command, shown in commands_of(block.text):
                if command == "python3 mirror.py folder drive":
                    source.write_text(PORTED)  # step 4
                    program = Program(source, "folder", "drive", mountpoint=point, cwd=tmp_path)
                    running.enter_context(program)
                    greeting = shown
                    continue
                printed = shell(command, tmp_path)
                assert agrees(shown, printed), f"line {block.line}, {command}:\n{printed}"
        assert program is not None
        here = program.end("\n").replace(str(tmp_path), "/home/you")
    (farewell,) = (block.text for block in blocks_of(GUIDE, "text"))
    assert here == greeting + farewell


def test_step_3_finds_what_there_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "src"))
    command = next(
        command
        for block in blocks_of(GUIDE, "console")
        for command, _ in commands_of(block.text)
        if command.startswith("python3 -c")
    )
    (tmp_path / "mirror.py").write_text("drive.on_query_ea = f\ndrive.on_read_file = f\n")
    assert shell(command, tmp_path) == "on_query_ea\n"


# --- what may be added ----------------------------------------------------------------------------


def test_modes_and_owners_are_kept_with_what_may_be_added(tmp_path: Path) -> None:
    (added,) = (block.text for block in blocks_of(GUIDE, "python"))
    assert functions(added).keys() <= functions(PORTED).keys()
    head, mark, main = PORTED.partition("# --- the program ---")
    program = tmp_path / "mirror.py"
    program.write_text(f"{head}{added}\n\n{mark}{main}")
    folder, point, tree = (tmp_path / name for name in ("folder", "drive", "tree"))
    folder.mkdir()
    point.mkdir()
    run("cp", "-r", Path(sysconfig.get_path("stdlib"), "json"), tree)
    (tree / "program").write_text("#!/bin/sh\necho runs\n")
    for name, mode in (("program", 0o751), ("decoder.py", 0o640), ("encoder.py", 0o400)):
        (tree / name).chmod(mode)
    os.chown(tree / "scanner.py", 4711, 4712)
    os.utime(tree / "tool.py", ns=(1, 10**18 + 1))
    with Program(program, folder, point, mountpoint=point) as served:
        run("cp", "-a", tree, point / "copy")
        assert run("rsync", "-ani", "--delete", "--checksum", f"{tree}/", point / "copy/") == ""
        assert run("rsync", "-ani", "--delete", "--checksum", f"{tree}/", folder / "copy/") == ""
        assert run(point / "copy" / "program") == "runs\n"
        assert (folder / "copy" / "tool.py").stat().st_mtime_ns == 10**18 + 1
        assert served.end("\n").endswith("0 files, 0 handles, 0 listings.\n")


# --- the service ----------------------------------------------------------------------------------


def test_the_service(tmp_path: Path) -> None:
    """Its command, started without a console, serves the drive until SIGTERM comes."""
    (block,) = blocks_of(GUIDE, "ini")
    unit = configparser.ConfigParser()
    unit.read_string(block.text)
    folder, point = tmp_path / "folder", tmp_path / "drive"
    folder.mkdir()
    point.mkdir()
    places = {
        "/usr/bin/python3": sys.executable,
        "/opt/mirror/mirror.py": str(REPOSITORY / "examples" / "ported_folder_mirror.py"),
        "/opt/cbfsconnect/src": str(REPOSITORY / "src"),
        "/srv/folder": str(folder),
        "/mnt/drive": str(point),
    }

    def here(value: str) -> list[str]:
        for place, ours in places.items():
            value = value.replace(place, ours)
        return shlex.split(value)

    service = unit["Service"]
    process = subprocess.Popen(
        here(service["ExecStart"]),
        env=os.environ | dict(word.split("=", 1) for word in here(service["Environment"])),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(f"is mounted at {point}.\n")
        run("touch", point / "file")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == int(service["SuccessExitStatus"])
        assert (folder / "file").exists()
        assert not os.path.ismount(point)
    finally:
        process.kill()
        process.communicate()


# --- numbers and names ----------------------------------------------------------------------------


def test_the_tables_of_errors() -> None:
    told, mistaken = [], []
    for row in rows(section("Error numbers")):
        if row[0].startswith("`E") and not row[0].startswith("`ERROR"):
            mistaken.append(row)
        else:
            told.append(row)
    assert len(told) > 10
    for codes, name, text in told:
        number = getattr(errno, name.strip("`"))
        assert os.strerror(number) == text
        for code, value in re.findall(r"`(ERROR_\w+)` (\d+)", codes) or [("", "-1")]:
            assert getattr(errors, code, -1) == int(value)
            assert errno_from_win32(int(value)) == number
    assert len(mistaken) == 4
    for meant, taken, got in mistaken:
        name, value = re.fullmatch(r"`(\w+)` (\d+)", meant).groups()  # type: ignore[union-attr]
        assert getattr(errno, name) == int(value) == getattr(errors, taken.strip("`"))
        assert errno_from_win32(int(value)) == getattr(errno, got.strip("`"))
        assert errno_from_win32(win32_from_errno(int(value))) == int(value)


def test_the_names_in_the_guide_exist() -> None:
    for name in set(re.findall(r"\bon_\w+\b", TEXT)) - {"on_query_ea", "on_"}:
        assert name in EVENTS, name
    for name in re.findall(r"[Ss]ettings? ([A-Z]\w+)", TEXT) + re.findall(
        r'config\("(\w+)=\\', TEXT
    ):
        assert name in SETTINGS, name
    members = re.findall(r"`((?:use|serialize|get|fire|file)_\w+)(?:\(.*?\))?`", TEXT)
    parameters = {p.name for event in EVENTS.values() for p in event.parameters}
    for name in members:
        assert hasattr(CBFS, name) or name in parameters, name
    for name in re.findall(r"\bFILE_ATTRIBUTE_\w+", TEXT):
        assert hasattr(constants, name), name


# --- symptoms -------------------------------------------------------------------------------------

Start = Callable[..., Program]


@pytest.fixture
def mistaken(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes the example down with a mistake in it."""

    def write(right: str, wrong: str) -> Path:
        assert PORTED.count(right) == 1
        program = tmp_path / "mirror.py"
        program.write_text(PORTED.replace(right, wrong))
        return program

    return write


@pytest.fixture
def start(mistaken: Callable[[str, str], Path], folder: Path, point: Path) -> Start:
    """Starts the example with a mistake in it."""

    def begin(right: str, wrong: str, *options: str) -> Program:
        return Program(mistaken(right, wrong), *options, folder, point, mountpoint=point)

    return begin


def is_a_symptom(words: str) -> None:
    """The guide must name it."""
    assert any(words in row[0] for row in rows(section("Symptoms"))), words


TOO_DEEP = """
os.chdir(at)
try:
    for _ in range(25):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
finally:
    os.chdir("/")
"""
"""Makes a path that is good on the drive and too long for the calls of the handlers."""


@pytest.mark.parametrize(
    ("wrong", "number"),
    [
        ("return error.winerror", errno.EIO),
        ("return win32_from_errno(error.errno)", errno.ENAMETOOLONG),
    ],
)
def test_winerror(start: Start, point: Path, client: Client, wrong: str, number: int) -> None:
    message = "'OSError' object has no attribute 'winerror'"
    is_a_symptom(message)
    with start("return win32_from_errno(error.errno or -1)", wrong) as program:
        with pytest.raises(OSError) as failed:  # noqa: PT011 - the errno says it
            client.run(TOO_DEEP, at=str(point))
        assert failed.value.errno == number
        assert (message in program.end("\n")) == (number == errno.EIO)


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("BINARY = 0", "BINARY = os.O_BINARY", "module 'os' has no attribute 'O_BINARY'"),
        (
            "    kind = FILE_ATTRIBUTE_DIRECTORY if",
            "    return info.st_file_attributes\n    kind = FILE_ATTRIBUTE_DIRECTORY if",
            "'os.stat_result' object has no attribute 'st_file_attributes'",
        ),
        (
            'drive.config(f"SectorSize={SECTOR_SIZE}")',
            'drive.config("NoSuchSetting=0")',
            "there is no setting named",
        ),
        (
            'drive.config(f"SectorSize={SECTOR_SIZE}")',
            'drive.config("PathSeparator=\\\\")',
            "the root",
        ),
    ],
)
def test_a_program_that_does_not_start(start: Start, right: str, wrong: str, message: str) -> None:
    is_a_symptom(message)
    with pytest.raises(AssertionError, match="did not mount") as failed, start(right, wrong):
        pass
    assert message in str(failed.value)


@pytest.mark.parametrize(
    ("right", "wrong", "command", "message"),
    [
        (
            "fd = files[params.file_context].fd\n    data = bytearray(params.bytes_to_write)",
            "handles[params.handle_context]",
            "echo x > file",
            "KeyError: None",
        ),
        (
            "if file.opens == 0 and not params.delete_file:",
            "if file.opens == 0:",
            "touch file; rm file",
            "KeyError",
        ),
        (
            "fcntl.lockf(fd, kind | fcntl.LOCK_NB, length % (1 << 63), 0, os.SEEK_CUR)",
            "fcntl.lockf(fd, kind | fcntl.LOCK_NB, length, 0, os.SEEK_CUR)",
            "flock file true",
            "OverflowError",
        ),
    ],
)
def test_a_handler_that_fails(
    start: Start, point: Path, right: str, wrong: str, command: str, message: str
) -> None:
    is_a_symptom(message)
    with start(right, wrong, "-all", "-locks") as program:
        shell(command, point)
        assert message in program.end()


def test_a_table_of_handles_that_grows(start: Start, point: Path, client: Client) -> None:
    is_a_symptom("the table of handles grows")
    with start("if drive.fire_all_open_close_events:", "if True:") as program:
        client.run("a = open(at + '/file', 'w'); b = open(at + '/file'); a.close()", at=str(point))
        client.run("b.close()")
        assert "Left open: 0 files, 1 handles" in program.end()


def test_local_times(
    start: Start, folder: Path, point: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_a_symptom("times are wrong by hours")
    monkeypatch.setenv("TZ", "UTC-9")
    (folder / "file").touch()
    os.utime(folder / "file", (10**9, 10**9))
    right = "NO_TIME + timedelta(seconds=info.st_mtime)"
    with start(right, "datetime.fromtimestamp(info.st_mtime)"):
        assert run("stat", "-c", "%Y", point / "file") == f"{10**9 + 9 * 3600}\n"


def test_read_only_files_that_may_not_be_deleted(start: Start, point: Path) -> None:
    is_a_symptom("`rm`, `git gc`: Permission denied")
    right = "params.can_be_deleted = True"
    wrong = "params.can_be_deleted = os.stat(path_of(params.file_name)).st_mode & 0o200 != 0"
    with start(right, wrong):
        assert shell("touch file; chmod a-w file; rm -f file", point) == (
            "rm: cannot remove 'file': Permission denied\n"
        )


def test_a_service_that_ends_at_once(
    mistaken: Callable[[str, str], Path], folder: Path, point: Path
) -> None:
    is_a_symptom("the service ends at once")
    program = mistaken("        ended.wait()", "        pass")
    assert "Left open" in run(sys.executable, program, folder, point)
