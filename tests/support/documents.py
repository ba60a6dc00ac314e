"""Code and shell sessions in the documents, for the tests that run them."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.programs import REPOSITORY

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the document where it begins."""

    language: str
    text: str
    line: int


def blocks_of(document: str, *languages: str) -> list[Block]:
    """The fenced blocks of a document in the repository, those of some languages only."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    found = [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 2)
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def commands_of(session: str) -> list[tuple[str, str]]:
    """The commands of a shell session, after `$ `, each with the output that is shown for it."""
    commands: list[tuple[str, str]] = []
    for line in session.splitlines(keepends=True):
        if line.startswith("$ "):
            commands.append((line[2:].rstrip("\n"), ""))
        else:
            command, output = commands[-1]
            commands[-1] = (command, output + line)
    return commands


def shell(command: str, cwd: Path) -> str:
    """What a shell prints for a command, errors too."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        env=os.environ | {"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
        text=True,
    )
    return done.stdout


def agrees(shown: str, printed: str) -> bool:
    """Whether a program printed what a document shows, where `…` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in shown.split("…"))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None
