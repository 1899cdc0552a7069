"""Exports are written a row group at a time: memory does not grow with the version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.benchmarks.data.versions import commit_history, fill_pairs
from rmkit.data.example import read_table
from warehouse.migrate import migrate
from warehouse.out import export, manifest
from warehouse.out.export import export_version
from warehouse.out.forms import FORMS, LINES, Form
from warehouse.out.manifest import verify_export
from warehouse.versions.stream import stream

PAIRS = 50
ROWS = 8  # of a piece and of a row group
PER_FILE = 3 * ROWS


@pytest.fixture(scope="module")
def pairs() -> duckdb.DuckDBPyConnection:
    """A warehouse of two splits."""
    connection = duckdb.connect()
    migrate(connection, Path(":memory:"))
    fill_pairs(connection, PAIRS)
    commit_history(connection, PAIRS)
    return connection


@pytest.fixture
def in_flight(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Exports of small pieces; after each piece, how many rows were read and not written yet."""
    counts: list[int] = []
    n_read = n_written = 0

    def pieces(*arguments: Any, **options: Any) -> Iterator[pa.Table]:
        nonlocal n_read
        for piece in stream(*arguments, rows=ROWS, **options):
            n_read += len(piece)
            counts.append(n_read - n_written)
            yield piece

    put = export._Split._put

    def counted(split: Any, group: pa.Table) -> None:
        nonlocal n_written
        put(split, group)
        n_written += len(group)

    monkeypatch.setattr(export, "stream", pieces)
    monkeypatch.setattr(export._Split, "_put", counted)
    for module in (export, manifest):
        monkeypatch.setattr(module, "PIECE_ROWS", ROWS)
    monkeypatch.setattr(export, "ROWS_PER_FILE", PER_FILE)
    return counts


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_written_before_more_are_read(
    pairs: duckdb.DuckDBPyConnection, form: Form, in_flight: list[int], tmp_path: Path
) -> None:
    folder = export_version(pairs, 1, tmp_path / "out", form=form)
    facts = verify_export(folder)
    n_rows, splits = facts["n_version_rows"], facts["splits"]
    assert isinstance(n_rows, int)
    assert isinstance(splits, dict)
    assert len(splits) == 2
    assert len(in_flight) == -(-n_rows // ROWS) > 4
    assert max(in_flight) <= ROWS + len(splits) * (ROWS - 1)  # a piece, and what fills no row group of its split
    for split in splits.values():
        for at, name in enumerate(split["files"]):
            left = split["rows"] - at * PER_FILE
            if form in LINES:
                assert len((folder / name).read_text().splitlines()) == min(left, PER_FILE)
            else:
                groups = pq.read_metadata(folder / name)
                sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
                assert sizes == [min(ROWS, left - done) for done in range(0, min(left, PER_FILE), ROWS)]


def test_the_pieces_change_no_row(
    pairs: duckdb.DuckDBPyConnection, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole = read_table(export_version(pairs, 1, tmp_path / "whole"))
    request.getfixturevalue("in_flight")
    cut = read_table(export_version(pairs, 1, tmp_path / "cut"))
    assert cut.to_pylist() == whole.to_pylist()
