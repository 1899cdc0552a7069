"""Threads and processes of one warehouse: writers take turns, a reader sees the last commit."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rmkit.errors import BusyError
from warehouse import snapshot
from warehouse.store import open_warehouse

COUNT = "SELECT count(*), max(gen_id) FROM generator"
ADD = "INSERT INTO generator (gen_id, model) SELECT range, repeat('x', 200) || range FROM range({}, {})"
WRITER = f"""
import sys
from pathlib import Path
from warehouse.store import open_warehouse
with open_warehouse(Path(sys.argv[1])) as connection:
    print("open", flush=True)
    number = 2
    for line in sys.stdin:
        size = int(line)
        connection.execute("BEGIN")
        connection.execute("{ADD}".format(number, number + size))
        connection.execute("UPDATE generator SET model = model || 'y' WHERE gen_id % 7 = 0")
        connection.execute("COMMIT")
        number += size
        print("committed", flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with open_warehouse(tmp_path / "warehouse.duckdb") as connection:
        connection.execute(ADD.format(1, 2))
    return tmp_path / "warehouse.duckdb"


def read(path: Path) -> tuple[int, int]:
    with open_warehouse(path, read_only=True, wait_s=5.0) as connection:
        [(n, last)] = connection.execute(COUNT).fetchall()
    return n, last


def test_a_reader_waits_for_a_short_write_of_the_same_process(path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with open_warehouse(path) as connection:
        reader = threading.Thread(target=lambda: seen.append(read(path)))
        reader.start()
        connection.execute(ADD.format(2, 3)).fetchall()
    reader.join(timeout=30)
    assert seen == [(2, 2)]


def test_a_reader_sees_the_last_commit_while_a_thread_writes_and_the_lock_holds(path: Path) -> None:
    with open_warehouse(path) as connection:
        connection.execute("BEGIN")
        connection.execute(ADD.format(2, 9))
        assert read(path) == (1, 1)
        # The copy was made without closing a descriptor of this process, so DuckDB's lock is still there.
        other = "import duckdb, sys; duckdb.connect(sys.argv[1], read_only=True)"
        refused = subprocess.run([sys.executable, "-c", other, str(path)], capture_output=True, text=True, check=False)
        assert "lock" in refused.stderr
        connection.execute("COMMIT")
    assert read(path) == (8, 8)


def test_readers_see_whole_commits_while_another_process_writes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warehouse.store.SNAPSHOT_AFTER_S", 0.0)
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdout.readline()
        seen = [read(path)]
        for size in (1, 3000, 2, 90_000, 1):  # into the log, past it by a checkpoint, both again
            writer.stdin.write(f"{size}\n")
            writer.stdin.flush()
            seen.append(read(path))  # beside the commit
            writer.stdout.readline()
            seen.append(read(path))
        writer.stdin.close()
    assert {first == second for first, second in seen} == {True}  # no half commit
    assert [first for first, _ in seen[2::2]] == [2, 3002, 3004, 93_004, 93_005]
    assert seen == sorted(seen)


def test_a_copy_leaves_out_what_was_not_committed_and_leaves_nothing_behind(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with open_warehouse(path) as connection:
        connection.execute("CHECKPOINT")
        before = path.stat().st_size
        connection.execute("BEGIN")
        # Whole row groups go to the file before the commit.
        connection.execute("CREATE TABLE bulk AS SELECT random() AS x FROM range(1_500_000)")
        (folder := tmp_path / "copy").mkdir()
        assert snapshot.try_snapshot(path, folder)
        assert (folder / snapshot.NAME).stat().st_size <= before < path.stat().st_size
        with open_warehouse(path, read_only=True) as reader:
            assert reader.execute(COUNT).fetchall() == [(1, 1)]
            assert [file for file in scratch.rglob("*") if file.is_file()] == []
        connection.execute("ROLLBACK")
    assert list(scratch.iterdir()) == []


def test_a_copy_that_a_commit_came_between_is_none(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := tmp_path / "copy").mkdir()

    def slow(descriptor: int, target: str, n_bytes: int | None) -> None:
        with open_warehouse(path) as connection:
            connection.execute(ADD.format(2, 3))
        Path(target).touch()

    monkeypatch.setattr(snapshot, "_clone", slow)
    assert snapshot.main(str(path), str(folder)) != 0


def test_who_needs_the_file_itself_and_waits_too_long_is_told_who_holds_it(path: Path) -> None:
    refused = pytest.raises(BusyError, match="held by another process or thread")
    with open_warehouse(path), refused, open_warehouse(path, read_only=True, locked=True, wait_s=0.2):
        pass
    with open_warehouse(path, read_only=True), refused, open_warehouse(path, wait_s=0.2):
        pass
