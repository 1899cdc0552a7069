"""Building units by hand, and loading them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from rmkit.ids import assistant_message, user_message
from warehouse.store import open_warehouse
from warehouse.write.load import LoadReport, SourceInfo, load_units
from warehouse.write.units import JUDGMENT_STRUCT, REJECT_SCHEMA, UNIT_SCHEMA


@pytest.fixture
def warehouse_file(tmp_path: Path) -> Path:
    return tmp_path / "warehouse.duckdb"


@pytest.fixture(scope="session")
def empty_warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that holds no data; half of the time that most tests here need goes into the schema."""
    path = tmp_path_factory.mktemp("empty") / "warehouse.duckdb"
    with open_warehouse(path):
        pass
    return path


@pytest.fixture
def connection(warehouse_file: Path, empty_warehouse: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    if not warehouse_file.exists():
        warehouse_file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(empty_warehouse, warehouse_file)
    with open_warehouse(warehouse_file) as opened:
        yield opened


@pytest.fixture
def make_unit() -> Callable[..., dict[str, Any]]:
    """A row of UNIT_SCHEMA from plain texts; judgments are mappings of the fields that matter."""

    def make(
        line: int, prompt: str, responses: Sequence[str], *judgments: dict[str, Any], **more: Any
    ) -> dict[str, Any]:
        generators = more.pop("generators", [None] * len(responses))
        step_ends = more.pop("step_ends", None)
        blank = {field.name: None for field in JUDGMENT_STRUCT} | {"rater_kind": "human"}
        return {
            "line": line,
            "kind": ("rubric", "single", "pair")[len(responses)] if len(responses) < 3 else "list",
            "prompt": user_message(prompt),
            "responses": [
                {"messages": assistant_message(text), "generator": generator, "step_ends": step_ends}
                for text, generator in zip(responses, generators, strict=True)
            ],
            "judgments": [blank | judgment for judgment in judgments],
        } | more

    return make


@pytest.fixture
def load(connection: duckdb.DuckDBPyConnection) -> Callable[..., LoadReport]:
    """Load hand-made units as the file `sha`; each batch is one record batch."""

    def load_(
        *batches: Sequence[dict[str, Any]],
        sha: str = "a" * 64,
        dataset: str = "toy",
        rejects: Sequence[dict[str, Any]] = (),
        n_lines: int | None = None,
        into: duckdb.DuckDBPyConnection | None = None,
        **info: Any,
    ) -> LoadReport:
        source = SourceInfo(**({"name": "toy", "path": "toy.jsonl", "format": "units", "file_sha256": sha} | info))
        lines = {row["line"] for rows in (*batches, rejects) for row in rows}
        return load_units(
            into or connection,
            source,
            (pa.RecordBatch.from_pylist(list(rows), schema=UNIT_SCHEMA) for rows in batches),
            rejects=lambda: pa.Table.from_pylist(list(rejects), schema=REJECT_SCHEMA),
            dataset=dataset,
            author="tester",
            n_lines=lambda: len(lines) if n_lines is None else n_lines,
        )

    return load_
