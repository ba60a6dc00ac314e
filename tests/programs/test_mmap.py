"""Files of a drive mapped into the memory of several processes at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.client import Client

PAGE = 4096
MAP = """
    fd = os.open(path, os.O_RDWR)
    memory = mmap.mmap(fd, 0, mmap.MAP_SHARED)
"""


@pytest.fixture
def others() -> Iterator[tuple[Client, Client]]:
    """Two processes."""
    with Client() as one, Client() as other:
        yield one, other


@pytest.fixture
def path(drive: Path) -> str:
    """A file of 64 pages of zeros."""
    file = drive / "file"
    file.write_bytes(bytes(64 * PAGE))
    return str(file)


def test_two_processes_see_each_other_s_changes_at_once(
    path: str, others: tuple[Client, Client]
) -> None:
    one, other = others
    for process in others:
        process.run(MAP, path=path)
    one.run("memory[5000:5007] = b'from me'")
    assert other.call("memory[5000:5007]") == b"from me"
    other.run("memory[-3:] = b'end'")
    assert one.call("memory[-3:]") == b"end"


def test_mappings_and_reads_and_writes_agree(path: str, others: tuple[Client, Client]) -> None:
    one, other = others
    one.run(MAP, path=path)
    other.run("fd = os.open(path, os.O_RDWR)", path=path)
    one.run("memory[0:6] = b'mapped'")
    assert other.call("os.pread(fd, 6, 0)") == b"mapped"
    other.run("os.pwrite(fd, b'written', 10_000)")
    assert one.call("memory[10_000:10_007]") == b"written"
    assert other.call("Path(path).read_bytes()") == one.call("memory[:]")


def test_what_was_synced_comes_back_from_the_drive(
    path: str, others: tuple[Client, Client]
) -> None:
    one, other = others
    one.run(MAP, path=path)
    one.run("memory[PAGE * 3 : PAGE * 4] = b'x' * PAGE; memory.flush(); memory.close()", PAGE=PAGE)
    one.run("os.close(fd)")
    data = other.run(
        """
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # the kernel has to ask the drive
        result = os.pread(fd, 64 * 4096, 0)
        """,
        path=path,
    )
    assert data == bytes(PAGE * 3) + b"x" * PAGE + bytes(PAGE * 60)


def test_a_private_mapping_stays_private(path: str, others: tuple[Client, Client]) -> None:
    one, other = others
    one.run("fd = os.open(path, os.O_RDWR)", path=path)
    one.run("memory = mmap.mmap(fd, 0, mmap.MAP_PRIVATE); memory[:4] = b'mine'")
    assert other.call("Path(path).read_bytes()[:4]", path=path) == bytes(4)


def test_a_mapped_file_that_is_unlinked_stays_shared(
    path: str, others: tuple[Client, Client]
) -> None:
    one, other = others
    for process in others:
        process.run(MAP, path=path)
        process.run("os.close(fd)")
    one.run("os.unlink(path); Path(path).write_bytes(b'another file')", path=path)
    one.run("memory[:7] = b'unnamed'; memory.flush()")
    assert other.call("memory[:7]") == b"unnamed"
    assert other.call("Path(path).read_bytes()") == b"another file"


def test_a_counter_under_a_lock_loses_no_count(path: str, others: tuple[Client, Client]) -> None:
    for process in others:
        process.run(MAP, path=path)
        process.start(
            """
            for _ in range(500):
                fcntl.lockf(fd, fcntl.LOCK_EX, 8)
                value = struct.unpack_from("<Q", memory)[0]
                struct.pack_into("<Q", memory, 0, value + 1)
                fcntl.lockf(fd, fcntl.LOCK_UN, 8)
            """
        )
    for process in others:
        process.finish()
    assert others[0].call("struct.unpack_from('<Q', memory)[0]") == 1000
