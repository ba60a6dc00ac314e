"""git lives on a drive: it locks by O_EXCL, renames over, hard-links, maps packs into memory."""

from __future__ import annotations

from pathlib import Path

from support.client import run

SETTINGS = (
    "GIT_CONFIG_GLOBAL=/dev/null",
    "GIT_CONFIG_SYSTEM=/dev/null",
    *(f"GIT_{who}_{what}=a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")),
)
"""Nothing of the machine's own settings."""


def git(directory: Path, *arguments: str | Path) -> str:
    """Run git in a directory; its output."""
    return run("env", *SETTINGS, "git", "-C", directory, *arguments).strip()


def test_a_repository_is_made_changed_cloned_and_packed(
    drive: Path, library: Path, tmp_path: Path
) -> None:
    project, clone, outside = drive / "project", drive / "clone", tmp_path / "outside"
    run("cp", "-r", library / "email", project)
    git(project, "init", "-q", "-b", "main")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "all of it")
    git(project, "switch", "-q", "-c", "topic")
    (project / "message.py").write_text("print('changed')\n")
    git(project, "mv", "header.py", "moved.py")
    git(project, "commit", "-q", "-a", "-m", "a change")
    git(project, "switch", "-q", "main")
    (project / "new file").write_text("new\n")
    git(project, "add", ".")
    git(project, "commit", "-q", "-m", "another")
    git(project, "merge", "-q", "-m", "both", "topic")

    git(drive, "clone", "-q", project, clone)
    git(clone, "gc", "-q", "--aggressive", "--prune=now")
    git(clone, "fsck", "--full", "--strict")
    assert git(clone, "status", "--porcelain") == ""
    git(tmp_path, "clone", "-q", "--no-local", clone, outside)
    head = git(project, "rev-parse", "HEAD")
    assert [git(r, "rev-parse", "HEAD") for r in (clone, outside)] == [head, head]
    run("diff", "-r", "--exclude=.git", project, outside)


def test_a_push_and_a_stash(drive: Path) -> None:
    git(drive, "init", "-q", "--bare", "-b", "main", drive / "bare.git")
    git(drive, "clone", "-q", drive / "bare.git", drive / "work")
    work = drive / "work"
    for number in range(3):
        (work / "file").write_text(f"{number}\n" * 1000)
        git(work, "add", "file")
        git(work, "commit", "-q", "-m", f"number {number}")
    git(work, "push", "-q", "origin", "HEAD:main")
    (work / "file").write_text("not yet\n")
    git(work, "stash", "-q")
    assert git(work, "status", "--porcelain") == ""
    git(work, "stash", "pop", "-q")
    assert git(work, "status", "--porcelain") == "M file"
    git(work, "reset", "-q", "--hard", "HEAD~1")
    assert (work / "file").read_text() == "1\n" * 1000
    git(drive / "bare.git", "fsck", "--full")
    assert git(drive / "bare.git", "log", "--format=%s", "main").split("\n") == [
        "number 2",
        "number 1",
        "number 0",
    ]
