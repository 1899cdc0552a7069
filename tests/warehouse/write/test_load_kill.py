"""kill -9 and a full disk in the middle of an ingest: all of it or nothing, and the next start is clean."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.ingest.command import ingest
from rmkit.paths import warehouse_path
from warehouse.store import open_warehouse

TABLES = (
    "source",
    "run",
    "prompt",
    "response",
    "unit",
    "unit_source",
    "judgment",
    "example",
    "version",
    "delta",
    "branch",
)

CHILD = """
import sys
from data_pipelines.ingest.command import ingest
from warehouse.write import load, stage
chunks, stage.CHUNK_BYTES = load.chunks, 1
load.chunks = lambda batches: chunks(b.slice(at, 250) for b in batches for at in range(0, b.num_rows, 250))
print("ready", flush=True)
report = ingest(sys.argv[1], dataset="toy")
print(report.version.digest, flush=True)
"""


def write_pairs(path: Path, n: int, *, characters: int = 200) -> Path:
    rng = random.Random(1)
    texts = [[f"{name} {rng.randbytes(characters // 2).hex()}" for _ in range(n)] for name in ("p", "c", "r")]
    pq.write_table(pa.table(dict(zip(("prompt", "chosen", "rejected"), texts, strict=True))), path, row_group_size=400)
    return path


def start(path: Path, home: Path) -> subprocess.Popen[str]:
    """A child that is about to ingest: everything imported, nothing opened."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        env=os.environ | {"RMKIT_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def contents(home: Path) -> dict[str, int]:
    with open_warehouse(home / "warehouse.duckdb") as connection:
        return {table: connection.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in TABLES}


def kill_at_random_moments(tmp_path: Path, n_kills: int, n_pairs: int) -> None:
    path = write_pairs(tmp_path / "pairs.parquet", n_pairs)
    whole = start(path, tmp_path / "whole")
    began = time.monotonic()
    digest, errors = whole.communicate()
    seconds = time.monotonic() - began
    assert digest.strip(), errors
    expected = contents(tmp_path / "whole")
    rng = random.Random(n_kills)
    home = tmp_path / "broken"
    unfinished = 0
    for kill in range(n_kills):
        child = start(path, home)
        time.sleep(seconds * (kill + rng.random()) / n_kills)  # one in each part of the run
        child.kill()
        child.wait()
        found = contents(home)
        if found["source"]:  # the kill came after the commit
            assert found == expected
            (home / "warehouse.duckdb").unlink()
        else:
            assert set(found.values()) == {0}
            unfinished += 1
        assert not list(home.glob("*.tmp/*"))
    assert unfinished, "no kill came in time: the test showed nothing"
    again = start(path, home)  # over whatever the last kill left behind
    assert again.communicate()[0] == digest
    assert contents(home) == expected


@pytest.mark.slow
def test_killed_ingest_leaves_nothing_and_a_rerun_completes(tmp_path: Path) -> None:
    kill_at_random_moments(tmp_path, 3, n_pairs=2000)


@pytest.mark.slow
def test_killed_ingest_many_times(tmp_path: Path) -> None:
    kill_at_random_moments(tmp_path, 24, n_pairs=8000)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO example",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("INSERT INTO response", "UPDATE source")),
    ],
)
def test_kill_at_a_given_statement(tmp_path: Path, statement: str) -> None:
    """SIGKILL of itself right after a statement of the second chunk or later, with the transaction still open."""
    path = write_pairs(tmp_path / "pairs.parquet", 1000)
    code = (
        "import os, signal\nfrom warehouse import sql\nfrom warehouse.write import derive, judgments, load, stage\n"
        "run, seen = sql.run, []\n"
        "def killing(connection, text, parameters=None):\n"
        "    found = run(connection, text, parameters)\n"
        f"    seen.extend([text] if text.strip().startswith({statement!r}) else [])\n"
        f"    if len(seen) == {2 if 'response' in statement else 1}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return found\n"
        "for module in (derive, judgments, load, stage): module.run = killing\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + CHILD, str(path)],
        env=os.environ | {"RMKIT_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert set(contents(tmp_path / "home").values()) == {0}


def test_full_disk_is_one_line_and_keeps_the_old_content(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may not grow beyond 300 KB more than it has: what a full disk does, without filling one."""
    ingest(write_pairs(tmp_path / "first.parquet", 100), dataset="first")
    before = contents(home)
    room = warehouse_path().stat().st_size + 300_000
    done = subprocess.run(
        [sys.executable, "-m", "rmkit", "ingest", str(write_pairs(tmp_path / "second.parquet", 5000, characters=2000))],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert done.returncode == 2, done.stderr
    assert "@v1" not in done.stdout  # how the file is read stands there, and no version
    (line,) = done.stderr.splitlines()
    assert line.startswith("rmkit: ")
    assert "free disk space" in line
    assert contents(home) == before
    report = ingest(tmp_path / "second.parquet", dataset="second")
    assert report.version is not None
    assert report.version.n_rows == 5000
