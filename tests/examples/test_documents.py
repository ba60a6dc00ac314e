"""The documents' programs and shell sessions do what the documents say."""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path

import pytest

from cbfsconnect import CBFS, EVENTS
from cbfsconnect.engine.operations import OPERATIONS
from cbfsconnect.fuse.abi import Opcode
from cbfsconnect.settings import SETTINGS
from cbfsconnect.testing import CHECKS
from support.client import run
from support.documents import agrees, blocks_of, commands_of, shell
from support.programs import REPOSITORY, Program

DOCUMENTS = sorted(
    str(path.relative_to(REPOSITORY))
    for path in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]
)
_MAIN = '\n\nif __name__ == "__main__":\n'


# --- tutorial -------------------------------------------------------------------------------------


def grown(program: str, block: str) -> str:
    """The program after one more step: the first block is it, later ones are methods."""
    if not program:
        return block
    before, main, after = program.partition(_MAIN)
    return f"{before}\n{block}{main}{after}"


def test_the_tutorial_works_step_by_step(tmp_path: Path) -> None:
    source, program = tmp_path / "notes.py", ""
    with ExitStack() as running:
        for block in blocks_of("docs/tutorial.md"):
            if block.language == "python":
                program = grown(program, block.text)
                source.write_text(program)
                continue
            for command, shown in commands_of(block.text):
                if command == "python notes.py drive":
                    running.close()
                    running.enter_context(
                        Program(source, "drive", mountpoint=tmp_path / "drive", cwd=tmp_path)
                    )
                else:
                    printed = shell(command, tmp_path)
                    assert agrees(shown, printed), f"line {block.line}, {command}:\n{printed}"


def test_the_tutorial_ends_with_its_example() -> None:
    program = ""
    for block in blocks_of("docs/tutorial.md", "python"):
        program = grown(program, block.text)
    example = (REPOSITORY / "examples" / "tutorial.py").read_text()
    assert example.partition("import errno")[2] == program.partition("import errno")[2]
    lines = [line for line in program[program.index("class") :].splitlines() if line]
    assert len(lines) <= 40


# --- README ---------------------------------------------------------------------------------------


def readme_programs(point: Path) -> list[str]:
    """Its two programs, for another mountpoint."""
    first, second = (
        block.text.replace("/mnt/hello", str(point)) for block in blocks_of("README.md", "python")
    )
    # The second one is about the handlers of the first.
    return [first, first[: first.index("\nwith ")] + second]


@pytest.mark.parametrize("number", [0, 1])
def test_the_programs_of_the_readme_work(number: int, tmp_path: Path) -> None:
    point, source = tmp_path / "hello", tmp_path / "program.py"
    point.mkdir()
    source.write_text(readme_programs(point)[number])
    with Program(source, mountpoint=point) as program:
        assert run("ls", "-A", point) == "hello.txt\n"
        assert run("cat", point / "hello.txt") == "Hello from Python.\n"
        program.end("\n")


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = [
        target
        for block in blocks_of("README.md", "sh")
        for target in re.findall(r"^make (\w+)", block.text, re.MULTILINE)
    ]
    assert targets == ["mount", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


# --- getting started ------------------------------------------------------------------------------


def test_getting_started_works(tmp_path: Path) -> None:
    """`make mount` is `python -m cbfsconnect` in the directory of the checkout."""
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    starts = {
        "make mount": ["-m", "cbfsconnect"],
        "PYTHONPATH=src python3 examples/hello.py drive": ["examples/hello.py", "drive"],
    }
    point = tmp_path / "drive"
    started = []
    with ExitStack() as running:
        for block in blocks_of("docs/getting-started.md", "console"):
            for command, shown in commands_of(block.text):
                if command in starts:
                    running.close()
                    program = Program(*starts[command], mountpoint=point, cwd=tmp_path)
                    running.enter_context(program)
                    started.append(command)
                    greeting = shown
                    continue
                printed = shell(command, tmp_path)
                assert agrees(shown, printed), f"line {block.line}, {command}:\n{printed}"
                if command == "umount drive":
                    here = program.end_by_itself().replace(str(tmp_path), "/home/you/cbfsconnect")
                    assert agrees(greeting, here)
    assert started == list(starts)


# --- semantics ------------------------------------------------------------------------------------


def test_semantics_tells_of_every_request_and_every_event() -> None:
    text = (REPOSITORY / "docs" / "semantics.md").read_text(encoding="utf-8")
    words = set(re.findall(r"\w+", text))
    for opcode in OPERATIONS:
        request = Opcode(opcode).name
        assert request in words or request in ("BATCH_FORGET",), request
    for event in EVENTS:
        short = "…_" + event.rsplit("_", 1)[1]
        assert event in words or short in text, event
    for event in set(re.findall(r"\bon_[a-z_]+\b", text)):
        assert event in EVENTS, event
    for setting in re.findall(r"[Ss]ettings? ([A-Z]\w+)", text):
        assert setting in SETTINGS
    for name in re.findall(r"`([a-z_]+)` (?:True|False)\b", text):
        assert hasattr(CBFS, name) or any(
            name in (p.name for p in e.parameters) for e in EVENTS.values()
        ), name


# --- test your drive ------------------------------------------------------------------------------


def test_testing_a_drive_works_as_shown(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    program, tests, script = tmp_path / "mydrive.py", tmp_path / "test_mydrive.py", ""
    wrong = ["            e.enumeration_context = iter(self.files)\n"]
    wrong.append("        self.files[e.file_name] = before + bytes(e.buffer_view)\n")
    python = f"PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={REPOSITORY / 'src'}"
    for block in blocks_of("docs/test-your-drive.md", "python", "console"):
        if block.language == "console":
            for command, shown in commands_of(block.text):
                printed = shell(f"export {python}; {command}", tmp_path)
                assert agrees(shown, printed), f"line {block.line}, {command}:\n{printed}"
        elif block.text.startswith(" "):  # replaces a line
            line = wrong.pop(0)
            assert line in program.read_text()
            program.write_text(program.read_text().replace(line, block.text))
        elif "DriveTests" in block.text:
            tests.write_text(block.text)
        elif program.exists():
            script = block.text
        else:
            program.write_text(block.text)
    assert not wrong
    (tmp_path / "script.py").write_text(script)
    printed = shell(f"export {python}; python script.py", tmp_path)
    assert agrees("MyDrive: … passed, 0 failed, … not supported, in … s\n", printed), printed


def test_testing_a_drive_names_every_group_of_checks() -> None:
    text = (REPOSITORY / "docs/test-your-drive.md").read_text(encoding="utf-8")
    groups = re.findall(r"^\| `(\w+)` \|", text.partition("## What is checked")[2], re.MULTILINE)
    assert groups == list(dict.fromkeys(name.partition(".")[0] for name in CHECKS))


# --- troubleshooting ------------------------------------------------------------------------------

_OF_OTHER_PROGRAMS = {"umount: target is busy", "nothing helps"}


def messages_of(document: str) -> list[str]:
    """The first column of every table whose heading says that it holds messages."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    tables = re.findall(r"^\| message \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [row.split("|")[1].strip() for table in tables for row in table.splitlines()]


def test_the_messages_in_troubleshooting_are_those_of_the_library() -> None:
    sources = (path.read_text() for path in (REPOSITORY / "src").rglob("*.py"))
    # Messages go over several lines, as adjacent literals.
    library = re.sub(r"[\"']\s*\n\s*f?[\"']", "", "\n".join(sources))
    messages = [m for m in messages_of("docs/troubleshooting.md") if m not in _OF_OTHER_PROGRAMS]
    assert len(messages) > 20
    parts = {part.strip(" :();") for message in messages for part in message.split("…")}
    assert [part for part in parts if part not in library] == []


# --- all documents --------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_piece_of_python_can_be_parsed(document: str) -> None:
    for block in blocks_of(document, "python"):
        ast.parse(textwrap.dedent(block.text), f"{document}:{block.line}")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    path = REPOSITORY / document
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), f"{document}: {link}"
        if anchor:
            assert anchor in anchors_of(target), f"{document}: {link}"


def anchors_of(document: Path) -> set[str]:
    """What the headings of a document are called in links, by the rules of GitHub."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_block_names_its_language() -> None:
    languages = {"python", "console", "sh", "text", "diff", "ini"}
    for document in DOCUMENTS:
        for block in blocks_of(document):
            if not document.startswith("docs/reference"):
                assert block.language in languages, f"{document}:{block.line}"
