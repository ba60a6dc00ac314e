"""Trees of files copied to a drive and back, and compared by programs that look at everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.client import run

EVERYTHING = ("rsync", "-aHAX", "--numeric-ids")
TAR = ("tar", "--sort=name", "--numeric-owner", "--sparse", "--format=posix")
# What differs from one copy to the next by its nature is left out of the archive.
SAME_BYTES = "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/h/%f"


@pytest.fixture(params=["library", "curiosities"])
def tree(request: pytest.FixtureRequest) -> Path:
    """Each of the trees that are copied."""
    directory: Path = request.getfixturevalue(request.param)
    return directory


def assert_same(one: Path, other: Path, *options: str) -> None:
    """Compare contents with diff, and all that a copy can keep with rsync, in both directions."""
    run("diff", "-r", "--no-dereference", "--exclude=special", one, other)
    for source, target in ((one, other), (other, one)):
        compared = (*EVERYTHING, "--checksum", "--delete", "--dry-run", "--itemize-changes")
        assert run(*compared, *options, f"{source}/", f"{target}/") == ""


def test_cp_keeps_everything(drive: Path, tree: Path, tmp_path: Path) -> None:
    run("cp", "-a", tree, drive / "copy")
    assert_same(tree, drive / "copy")
    run("cp", "-a", drive / "copy", drive / "copy of the copy")
    run("rm", "-rf", drive / "copy")
    run("cp", "-a", drive / "copy of the copy", tmp_path / "back")
    assert_same(tree, tmp_path / "back")


def test_rsync_keeps_everything_both_ways(drive: Path, tree: Path, tmp_path: Path) -> None:
    run(*EVERYTHING, f"{tree}/", drive / "copy/")
    assert_same(tree, drive / "copy")
    run(*EVERYTHING, f"{drive / 'copy'}/", tmp_path / "back/")
    assert_same(tree, tmp_path / "back")


def test_rsync_brings_a_copy_up_to_date(drive: Path, curiosities: Path) -> None:
    copy = drive / "copy"
    run(*EVERYTHING, f"{curiosities}/", f"{copy}/")
    (copy / "owned").write_bytes(b"changed, with all of its names")
    (copy / "deep" / "new").mkdir()
    (copy / "empty").unlink()
    (copy / "link").unlink()
    (copy / "link").mkdir()
    (copy / "mode0").chmod(0o600)
    run(*EVERYTHING, "--checksum", "--delete", f"{curiosities}/", f"{copy}/")
    assert_same(curiosities, copy)


def test_tar_in_and_out(drive: Path, curiosities: Path, tmp_path: Path) -> None:
    archive, again = tmp_path / "archive.tar", drive / "again.tar"
    run(*TAR, SAME_BYTES, "--xattrs", "-cf", archive, "-C", curiosities, ".")
    (drive / "out").mkdir()
    run("tar", "--xattrs", "--numeric-owner", "-xpf", archive, "-C", drive / "out")
    run("tar", "--compare", "-f", archive, "-C", drive / "out")
    # Archives have no sockets, and no hard links of special files.
    assert_same(curiosities, drive / "out", "--exclude=special")
    run(*TAR, SAME_BYTES, "--xattrs", "-cf", again, "-C", drive / "out", ".")
    listings = [run("tar", "--full-time", "--numeric-owner", "-tvf", a) for a in (archive, again)]
    assert listings[0] == listings[1]


def test_tar_of_a_copied_library_has_the_same_bytes(
    drive: Path, library: Path, tmp_path: Path
) -> None:
    part = library / "email"
    run(
        "sh",
        "-c",
        f"tar -C '{part}' -cf - . | (mkdir '{drive}/out' && tar -C '{drive}/out' -xpf -)",
    )
    archives = [tmp_path / "one.tar", drive / "other.tar"]
    for archive, directory in zip(archives, (part, drive / "out"), strict=True):
        run(*TAR, SAME_BYTES, "-cf", archive, "-C", directory, ".")
    run("cmp", *archives)
