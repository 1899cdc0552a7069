"""Parquet files that pack much into little: rows are measured before they are written out."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.sources.reading.lines import (
    open_rows,
)
from data_pipelines.sources.reading.streams import (
    Parsed,
    Reject,
)
from rmkit.data.parquet import TABLE_BYTES, bounded, bounded_tables, written_bytes
from rmkit.errors import DataError

MB = 1 << 20
TURN = pa.struct([("role", pa.string()), ("content", pa.string())])


def repeated(value: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value]))


def written(path: Path, **columns: Any) -> Path:
    """Without Arrow's own schema: a reader sees plain text columns."""
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=False)
    return path


def shape(path: Path, **options: Any) -> list[int | None]:
    return [None if one is None else len(one) for one in bounded_tables(path, name=path, **options)]


def test_rows_over_the_limit_are_left_out_and_the_others_come(tmp_path: Path) -> None:
    texts = ["short", "x" * 3 * MB, "also short", "y" * 2 * MB]
    path = written(tmp_path / "f.parquet", prompt=texts, chosen=["a"] * 4, rejected=["b"] * 4)
    items = list(open_rows(path, max_line_bytes=2 * MB + 1000).items)
    assert [item.line for item in items] == [1, 2, 3, 4]
    assert [type(item) for item in items] == [Parsed, Reject, Parsed, Parsed]
    assert isinstance(items[1], Reject)
    assert items[1].reason == "row over the limit of 2.00095 MB"
    tables = open_rows(path, max_line_bytes=2 * MB + 1000).tables
    assert tables is not None
    assert [one.line if isinstance(one, Reject) else len(one) for one in tables] == [1, 2, 2]


def test_written_bytes_count_each_repetition() -> None:
    """4 bytes of index and 1,000 of text a row; a list of 3 has three of them; a slice its own rows only."""
    named = repeated("z" * 1000, 6)
    assert written_bytes(pa.table({"a": named})) == 6 * 1004
    assert written_bytes(pa.table({"a": named}).slice(4)) == 2 * 1004
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 4, 6], pa.int32()), named)
    assert written_bytes(pa.table({"a": lists}).slice(1, 1)) == 8 + 3 * 1004
    turns = pa.array([[{"role": "u", "content": "v" * 10}], [], None], pa.list_(TURN))
    assert written_bytes(pa.table({"a": turns}).slice(1)) == 16
    table = pa.table({"a": pa.array([[("k", "v" * 100)]] * 5, pa.map_(pa.string(), pa.string()))})
    assert written_bytes(table.slice(2, 2)) == pytest.approx(2 * 101, abs=40)


def test_pieces_are_bounded_and_lose_nothing() -> None:
    table = pa.table({"n": list(range(300)), "text": repeated("q" * MB, 300)})
    pieces = list(bounded(table))
    assert all(written_bytes(piece) <= TABLE_BYTES for piece in pieces)
    assert [n for piece in pieces for n in piece["n"].to_pylist()] == list(range(300))


def test_many_small_repetitions_in_one_row_are_one_large_row(tmp_path: Path) -> None:
    """The values stand in the third row's list: 2,990 of 900 kB, 2.7 GB; none are in the first two."""
    lists = pa.ListArray.from_arrays(pa.array([0, 0, 0, 2990, 3000], pa.int32()), repeated("b" * 900_000, 3000))
    path = written(tmp_path / "f.parquet", i=[0, 1, 2, 3], m=lists)
    assert path.stat().st_size < 2000
    assert shape(path) == [2, None, 1]


@pytest.mark.slow
def test_a_file_that_is_mostly_air_is_refused(tmp_path: Path) -> None:
    text = "c" * (64 * MB)
    with pq.ParquetWriter(tmp_path / "f.parquet", pa.schema([("t", pa.string())]), compression="zstd") as writer:
        writer.write_table(pa.table({"t": [text + str(n) for n in range(17)]}))
    with pytest.raises(DataError, match=r"column t packs 1\.1 GB into \d+ kB"):
        shape(tmp_path / "f.parquet")


READ = """
import sys
from data_pipelines.ingest.command import ingest
from rmkit.errors import DataError
try:
    ingest(sys.argv[1], dataset="bomb")
except DataError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["texts", "conversations"])
def test_28_rows_of_100_mb_in_4_kb_are_rejected_in_little_memory(home: Path, tmp_path: Path, form: str) -> None:
    """Ingest wrote them out: 2.8 GB, and as much again in Python."""
    big = repeated("a" * 100_000_000, 28)
    if form == "conversations":
        one = pa.StructArray.from_arrays([repeated("user", 28), big], ["role", "content"])
        big = pa.ListArray.from_arrays(pa.array(range(29), pa.int32()), one)
    answers = {name: [[{"role": "assistant", "content": name}]] * 28 for name in ("chosen", "rejected")}
    plain = {name: [name] * 28 for name in answers}
    path = written(tmp_path / "f.parquet", prompt=big, **(plain if form == "texts" else answers))
    assert path.stat().st_size < 10_000
    limit = 2_500 * MB

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    command = [sys.executable, "-c", READ, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "no row of the first 28 can be read (row over the limit of 32 MB)" in done.stdout
