"""sqlite on a drive: byte-range locks between processes, and with WAL a shared memory map."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from support.client import run

WRITERS = 4
TRANSACTIONS = 60
WRITER = """
import sqlite3, sys
path, writer, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
database = sqlite3.connect(path, timeout=60, isolation_level=None)
print("ready", flush=True)
for number in range(count):
    database.execute("begin immediate")
    database.execute("insert into rows values (?, ?, ?)", (writer, number, "x" * 1000))
    database.execute("update total set rows = rows + 1")
    database.execute("commit")
    print(number, flush=True)
"""


def start_writer(database: Path, writer: int, count: int) -> subprocess.Popen[str]:
    """Start a process that adds rows, and wait until it has opened the database."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(database), str(writer), str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def make(database: Path, journal: str) -> None:
    """Make the tables; fails if sqlite does not find the drive fit for this kind of journal."""
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute(f"pragma journal_mode = {journal}").fetchone() == (journal,)
        connection.executescript(
            "create table rows (writer, number, text, primary key (writer, number));"
            "create table total (rows); insert into total values (0);"
        )


@pytest.mark.parametrize("journal", ["wal", "delete", "persist"])
def test_several_writers(drive: Path, journal: str) -> None:
    database = drive / "database"
    make(database, journal)
    writers = [start_writer(database, n, TRANSACTIONS) for n in range(WRITERS)]
    with closing(sqlite3.connect(database, timeout=60)) as reader:
        query = "select (select count(*) from rows) = (select rows from total)"
        while any(w.poll() is None for w in writers):
            assert reader.execute(query).fetchone() == (1,), "half of a transaction was read"
            for writer in writers:
                assert writer.stdout is not None
                writer.stdout.readline()
    assert [w.wait(60) for w in writers] == [0] * WRITERS
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    assert run("sqlite3", database, "pragma integrity_check").strip() == "ok"
    totals = run("sqlite3", database, "select rows from total", "select count(*) from rows")
    assert totals.split() == [str(WRITERS * TRANSACTIONS)] * 2


def test_a_killed_writer_leaves_the_database_whole(drive: Path) -> None:
    database = drive / "database"
    make(database, "wal")
    writer = start_writer(database, 1, 1_000_000)
    assert writer.stdout is not None
    for _ in range(50):
        writer.stdout.readline()
    writer.kill()
    committed = 50 + len(writer.stdout.read().splitlines())
    writer.wait()
    writer.stdout.close()
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        (rows,) = connection.execute("select count(*) from rows").fetchone()
        assert committed <= rows <= committed + 1
        assert connection.execute("select rows from total").fetchone() == (rows,)
        assert connection.execute("pragma wal_checkpoint(truncate)").fetchone()[0] == 0
    assert sorted(p.name for p in drive.iterdir()) == ["database"]


def test_the_command_line_program_dumps_and_restores(drive: Path) -> None:
    run("sqlite3", drive / "a", "create table t (x); insert into t values (1), ('two'), (x'03')")
    run("sh", "-c", f"sqlite3 '{drive}/a' .dump | sqlite3 '{drive}/b'")
    run("sqlite3", drive / "b", f"vacuum into '{drive}/c'")
    assert run("sqlite3", drive / "c", "select quote(x) from t").split() == ["1", "'two'", "X'03'"]
