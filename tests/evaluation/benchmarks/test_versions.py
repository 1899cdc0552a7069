"""The bench of versions: its contestants agree, its history is as varied as it says, it measures what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from evaluation.benchmarks.data import versions as bench
from rmkit.data.example import EXAMPLE_SCHEMA
from warehouse.store import open_warehouse
from warehouse.versions.checkout import checkout
from warehouse.versions.diff import diff
from warehouse.versions.versions import members

ROWS = 2000


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What `measure` says, and the warehouse it leaves."""
    path = tmp_path_factory.mktemp("bench") / "w.duckdb"
    return bench.measure(path, rows=ROWS, repeats=1), path


@pytest.fixture
def connection(measured: tuple[dict[str, Any], Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    with open_warehouse(measured[1], read_only=True) as opened:
        yield opened


@pytest.mark.slow
def test_checkout_and_hand_written_sql_give_the_same_table(connection: duckdb.DuckDBPyConnection) -> None:
    by_hand = connection.sql(bench.HAND_WRITTEN + " ORDER BY e.h").to_arrow_table()
    ours = checkout(connection, 1 + bench.N_VERSIONS)
    assert 0.85 * ROWS < ours.num_rows < 0.95 * ROWS
    assert ours.equals(by_hand.cast(EXAMPLE_SCHEMA))
    texts = sum(map(len, ours["prompt"].to_pylist())) + sum(len(a) + len(b) for a, b in ours["responses"].to_pylist())
    assert 800 < texts / ours.num_rows < 1300


def test_the_history_is_as_varied_as_it_says(connection: duckdb.DuckDBPyConnection) -> None:
    ops = connection.sql("SELECT version_id, count(*) FROM delta WHERE version_id > 1 GROUP BY 1").fetchall()
    assert [version_id for version_id, _ in sorted(ops)][: bench.N_VERSIONS] == list(range(2, 12))
    assert all(0.01 < n / (0.9 * ROWS) < 0.03 for version_id, n in ops if version_id < 12)
    history = "(FROM delta WHERE version_id BETWEEN 2 AND 11)"
    (kinds,) = connection.sql(
        f"SELECT count(*) FILTER (op = -1), count(*) FILTER (op = 0), count(DISTINCT weight) FROM {history}"
    ).fetchall()
    assert min(kinds[:2]) > 50
    assert kinds[2] > 1
    (often,) = connection.sql(
        f"SELECT max(n) FROM (SELECT count(*) AS n FROM {history} GROUP BY example_id)"
    ).fetchall()
    assert often[0] >= 4
    again = f"SELECT count(*) FROM {history} a JOIN {history} b USING (example_id) WHERE a.op < 0 AND b.op > 0"
    assert connection.sql(again + " AND b.version_id > a.version_id").fetchall()[0][0] > 10
    found = diff(connection, 1, 11)
    assert min(found.added, found.removed, found.relabeled, found.changed) > 10


@pytest.mark.parametrize(("old", "new"), [(3, 9), (1, 11), (11, 1)])
def test_diff_agrees_with_a_join_of_the_memberships(connection: duckdb.DuckDBPyConnection, old: int, new: int) -> None:
    here = f"{members(connection, old)} o FULL JOIN {members(connection, new)} n USING (example_id) JOIN example"
    (added, removed, relabeled, changed), *_ = connection.sql(
        f"""
        SELECT sum(greatest(come - gone, 0)), sum(greatest(gone - come, 0)), sum(least(come, gone)), sum(differ)
        FROM (SELECT count(*) FILTER (o.weight IS NULL) AS come, count(*) FILTER (n.weight IS NULL) AS gone,
            count(*) FILTER (o.weight <> n.weight OR o.weight IS NOT NULL AND n.weight IS NOT NULL
                AND o.split IS DISTINCT FROM n.split) AS differ
            FROM {here} USING (example_id) GROUP BY unit_id)"""
    ).fetchall()
    found = diff(connection, old, new)
    assert (found.added, found.removed, found.relabeled, found.changed) == (added, removed, relabeled, changed)


def test_it_measures_everything(measured: tuple[dict[str, Any], Path]) -> None:
    result, path = measured
    assert (result["rows"], result["versions"]) == (ROWS, bench.N_VERSIONS)
    assert result["ops"] > result["rows_with_ops"] > 0
    assert 1 < result["history_mb"] * 2**20 / result["ops"] < 200  # bytes per op; here it is mostly the file header
    for name in ("diff_v3_v9_ms", "diff_first_last_ms", "checkout_s", "sql_ordered_s", "sql_unordered_s"):
        median, fastest, slowest = result[name]
        assert 0 < fastest <= median <= slowest
    speed = result["sql_unordered_s"][0] / result["checkout_s"][0]
    assert result["speed_over_unordered_sql"] == pytest.approx(speed)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_command_prints_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def measure(path: Path, **options: Any) -> dict[str, Any]:
        asked.update(options)
        path.write_text("a warehouse")
        return {"history_mb": 0.5}

    monkeypatch.setattr(bench, "measure", measure)
    assert bench.main(["--rows", "500", "--repeats", "1", "--json", "--folder", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == {"history_mb": 0.5}
    assert asked == {"rows": 500, "repeats": 1}
    assert list(tmp_path.iterdir()) == []
