"""Exports: the same bytes every time, true manifests, and nothing leaves that may not."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.benchmarks.data.versions import fill_pairs
from rmkit.chat.reader import read_conversation
from rmkit.cli import main as cli
from rmkit.data.example import EXAMPLE_SCHEMA, read_examples, read_table
from rmkit.errors import DataError, StoreError, UsageError
from rmkit.ids import assistant_message, messages_json, parse_messages, user_message
from rmkit.types import Message
from tests.warehouse.states import forget
from warehouse.migrate import migrate
from warehouse.out import export as module
from warehouse.out.export import export_version, record_export
from warehouse.out.forms import FORMS, TRL_SCHEMA, Form, trl_table
from warehouse.out.licenses import restriction
from warehouse.out.manifest import verify_export
from warehouse.versions.checkout import checkout
from warehouse.versions.versions import commit, get, resolve
from warehouse.write.load import LoadReport

Make = Callable[..., dict[str, Any]]
Load = Callable[..., LoadReport]


@pytest.fixture
def warehouse_file(home: Path) -> Path:
    return home / "warehouse.duckdb"


@pytest.fixture
def version_id(connection: duckdb.DuckDBPyConnection, load: Load, make_unit: Make) -> int:
    return story(load, make_unit)


def story(load: Load, make_unit: Make, into: duckdb.DuckDBPyConnection | None = None) -> int:
    """toy@v1: three pairs (one a tie), a list of three; train and test; file license MIT, one row unknown."""
    win = {"rater": "h", "ranks": [0, 1]}
    load(
        [
            make_unit(1, "one", ["a", "b"], win, split="train", generators=["gpt", "llama"]),
            make_unit(2, "zwei ä|ö", ["c", "d"], win, split="test"),
            make_unit(3, "tie", ["e", "f"], {"rater": "h", "ranks": [0, 0]}, split="train"),
            make_unit(4, "list", ["g", "h", "i"], {"rater": "h", "ranks": [1, 0, 2]}, split="train", license="unknown"),
        ],
        license="MIT",
        url="https://example.org/toy",
        revision="r1",
        into=into,
    )
    return 1


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_warehouses_export_the_same_bytes(
    connection: duckdb.DuckDBPyConnection, version_id: int, load: Load, make_unit: Make, tmp_path: Path
) -> None:
    other = duckdb.connect()
    other.execute("SET threads = 1").fetchall()
    migrate(other, Path(":memory:"))
    story(load, make_unit, into=other)
    for form in FORMS:
        one = export_version(connection, version_id, tmp_path / f"one-{form}", form=form)
        two = export_version(other, version_id, tmp_path / f"two-{form}", form=form)
        assert contents(one) == contents(two)


def test_the_manifest_says_what_is_there(connection: duckdb.DuckDBPyConnection, version_id: int, home: Path) -> None:
    folder = export_version(connection, version_id)
    version = get(connection, version_id)
    assert folder == home / "exports" / f"toy-v1-{version.digest[:8]}"
    manifest = verify_export(folder)
    assert manifest == json.loads((folder / "manifest.json").read_text())
    assert (manifest["ref"], manifest["digest"], manifest["rows_digest"]) == ("toy@v1", version.digest, version.digest)
    assert {split: facts["rows"] for split, facts in manifest["splits"].items()} == {"test": 1, "train": 3}
    assert manifest["licenses"] == {"MIT": 3, "unknown": 1}
    (source,) = manifest["sources"]
    assert (source["name"], source["url"], source["revision"], source["rows"]) == (
        "toy",
        "https://example.org/toy",
        "r1",
        4,
    )
    assert source["sha256"] == "a" * 64
    text = (folder / "manifest.json").read_text() + (folder / "README.md").read_text()
    assert str(home) not in text
    assert "1 rows of unknown license" in manifest["gaps"]


def test_the_trainers_side_reads_it(connection: duckdb.DuckDBPyConnection, version_id: int) -> None:
    folder = export_version(connection, version_id)
    expected = {row["id"]: row for row in checkout(connection, version_id).to_pylist()}
    assert {example.id: dict(example.row) for example in read_examples(folder)} == expected
    assert read_table(folder, split="test")["prompt"].to_pylist() == [user_message("zwei ä|ö")]
    ids = read_table(folder, split="train")["id"].to_pylist()
    assert ids == sorted(ids)


def test_trl_rows(connection: duckdb.DuckDBPyConnection, version_id: int) -> None:
    folder = export_version(connection, version_id, form="trl")
    manifest = verify_export(folder)
    assert manifest["left_out"] == {"no strict preference": 1}
    assert not manifest["complete"]
    rows = [
        row
        for name in sorted(manifest["files"])
        if name.endswith("parquet")
        for row in pq.read_table(folder / name).to_pylist()
    ]
    pairs = {(row["prompt"][0]["content"], row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows}
    assert pairs == {
        ("one", "a", "b"),
        ("zwei ä|ö", "c", "d"),
        ("list", "h", "g"),
        ("list", "h", "i"),
        ("list", "g", "i"),
    }


def test_trl_rows_keep_calls_reasoning_and_tools() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": '{"b": 1, "a": 2}'}}
    turns = (Message("assistant", "", tool_calls=(call,)), Message("tool", "3", tool_call_id="7"))
    row = dict.fromkeys(EXAMPLE_SCHEMA.names) | {
        "id": "i",
        "prompt": user_message("q"),
        "responses": [messages_json((*turns, Message("assistant", "x", reasoning="hm"))), assistant_message("y")],
        "ranks": [0, 1],
        "tools": '[{"function":{"name":"f"},"type":"function"}]',
    }
    rows, _ = trl_table(pa.Table.from_pylist([row], schema=EXAMPLE_SCHEMA))
    (one,) = rows.to_pylist()
    assert one["tools"] == row["tools"]
    first, tool, last = one["chosen"]
    assert first["tool_calls"] == [{"id": None, **call}]
    assert (tool["tool_call_id"], last["content"], last["reasoning_content"]) == ("7", "x", "hm")
    assert read_conversation(one["chosen"], role="assistant") == parse_messages(row["responses"][0])
    plain, _ = trl_table(
        pa.Table.from_pylist([row | {"responses": row["responses"][1:] * 2, "tools": None}], EXAMPLE_SCHEMA)
    )
    assert plain.schema == TRL_SCHEMA


def test_jsonl_is_readable_without_rmkit(connection: duckdb.DuckDBPyConnection, version_id: int) -> None:
    folder = export_version(connection, version_id, form="jsonl", split="test")
    verify_export(folder)
    (line,) = (folder / "test-00000.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(line)
    assert row["prompt"] == [{"role": "user", "content": "zwei ä|ö"}]
    assert {response[0]["content"] for response in row["responses"]} == {"c", "d"}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_verified(connection: duckdb.DuckDBPyConnection, version_id: int, form: Form) -> None:
    folder = export_version(connection, version_id, form=form)
    assert verify_export(folder)["form"] == form
    file = sorted(path for path in folder.iterdir() if path.suffix in (".parquet", ".jsonl"))[0]
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(DataError, match=rf"{file.name} has sha256 .*export it again"):
        verify_export(folder)


def test_the_card_is_hugging_faces(connection: duckdb.DuckDBPyConnection, version_id: int) -> None:
    yaml = pytest.importorskip("yaml")
    folder = export_version(connection, version_id)
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(front)
    assert (facts["license"], facts["license_name"]) == ("other", "MIT AND unknown")
    assert facts["size_categories"] == ["n<1K"]
    files = {entry["split"]: entry["path"] for entry in facts["configs"][0]["data_files"]}
    assert files == {"test": ["test-00000.parquet"], "train": ["train-00000.parquet"]}
    assert "| toy | 4 | MIT | unknown | unknown | unknown | r1 | https://example.org/toy |" in body
    assert "| unknown | 1 |" in body


def test_the_card_tells_how_it_was_made(connection: duckdb.DuckDBPyConnection, version_id: int) -> None:
    (run_id,) = connection.sql("SELECT run_id FROM version").fetchall()[0]
    connection.execute(
        "INSERT INTO step_result VALUES (?, 1, 'exact_dedup', '{}', 6, 4, 2, 0.5, NULL)", [run_id]
    ).fetchall()
    connection.execute(
        "INSERT INTO step_drop SELECT ?, 1, i, 'duplicate', NULL FROM range(2) t(i)", [run_id]
    ).fetchall()
    body = (export_version(connection, version_id) / "README.md").read_text()
    assert "| exact_dedup | 6 | 4 | 2 | duplicate: 2 |" in body


def test_exporting_again_touches_nothing(connection: duckdb.DuckDBPyConnection, version_id: int) -> None:
    folder = export_version(connection, version_id)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    inode = folder.stat().st_ino
    assert export_version(connection, version_id) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert folder.stat().st_ino == inode
    assert list(folder.parent.iterdir()) == [folder]  # no half-built folder is left


def test_an_export_from_before_an_erasure_is_replaced(connection: duckdb.DuckDBPyConnection, version_id: int) -> None:
    folder = export_version(connection, version_id)
    connection.execute("UPDATE prompt SET messages = NULL WHERE messages = ?", [user_message("one")]).fetchall()
    assert export_version(connection, version_id) == folder
    manifest = verify_export(folder)
    assert (manifest["n_rows"], manifest["erased_rows"], manifest["complete"]) == (3, 1, False)
    assert manifest["rows_digest"] != manifest["digest"] == get(connection, version_id).digest
    assert list(folder.parent.iterdir()) == [folder]


def test_other_peoples_folders_are_left_alone(
    connection: duckdb.DuckDBPyConnection, version_id: int, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="is not an export of toy@v1; choose another folder"):
        export_version(connection, version_id, mine)
    assert contents(mine) == {"thesis.tex": b"years of work"}
    assert list(tmp_path.glob(".mine*")) == []


def test_a_full_disk_leaves_nothing_half_done(
    connection: duckdb.DuckDBPyConnection, version_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.pq, "ParquetWriter", full)
    with pytest.raises(StoreError, match=r"cannot write .*No space left on device; free space"):
        export_version(connection, version_id, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".out*")) == []


def test_verification_notices_every_tampering(
    connection: duckdb.DuckDBPyConnection, version_id: int, tmp_path: Path
) -> None:
    good = export_version(connection, version_id)

    def tampered(change: Callable[[Path], object]) -> Path:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder)
        change(folder)
        return folder

    def edit_manifest(folder: Path, **changes: object) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    with pytest.raises(DataError, match=r"README.md has sha256"):
        verify_export(tampered(lambda folder: (folder / "README.md").write_text("nicer")))
    with pytest.raises(DataError, match=r"test-00000.parquet is missing"):
        verify_export(tampered(lambda folder: (folder / "test-00000.parquet").unlink()))
    with pytest.raises(DataError, match="the rows have digest"):
        verify_export(tampered(lambda folder: edit_manifest(folder, rows_digest="0" * 64)))
    with pytest.raises(DataError, match="the version toy@v1 is 000"):
        verify_export(tampered(lambda folder: edit_manifest(folder, digest="0" * 64)))
    with pytest.raises(DataError, match="not an export folder"):
        verify_export(tmp_path)


def test_a_release_names_what_stops_it(connection: duckdb.DuckDBPyConnection, version_id: int, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown \(1 rows\); .*--allow-license unknown"):
        export_version(connection, version_id, target="release")
    folder = export_version(connection, version_id, tmp_path / "ok", target="release", allow_licenses=["unknown"])
    assert verify_export(folder)["n_rows"] == 4
    connection.execute("UPDATE source SET is_benchmark = true").fetchall()
    with pytest.raises(DataError, match=r"4 rows are benchmark data \(toy\).*--allow-benchmark"):
        export_version(connection, version_id, target="release", allow_licenses=["unknown"])
    export_version(connection, version_id, target="release", allow_licenses=["UNKNOWN"], allow_benchmark=True)


def test_an_empty_version_and_an_unknown_split(connection: duckdb.DuckDBPyConnection, version_id: int) -> None:
    with pytest.raises(UsageError, match="toy@v1 has no rows in split 'dev'"):
        export_version(connection, version_id, split="dev")
    commit(
        connection, "none", "(SELECT 1 AS example_id, '' AS split, 1.0 AS weight WHERE false)", message="", author=""
    )
    folder = export_version(connection, resolve(connection, "none"))
    assert verify_export(folder)["n_rows"] == 0
    assert read_table(folder).num_rows == 0


def test_splits_with_odd_names_get_safe_files(connection: duckdb.DuckDBPyConnection, version_id: int) -> None:
    state = "(SELECT example_id, CASE WHEN example_id % 2 = 0 THEN '../up' END AS split, 1.0 AS weight FROM example)"
    commit(connection, "odd/name", state, message="", author="")
    folder = export_version(connection, resolve(connection, "odd/name"))
    manifest = verify_export(folder)
    assert folder.name.startswith("odd-name-v1-")
    assert sorted(manifest["splits"]) == ["../up", "rows"]
    assert all("/" not in name for name in manifest["files"])
    assert read_table(folder).num_rows == 4
    assert read_table(folder, split="../up").num_rows == 2


@pytest.mark.usefixtures("version_id")
def test_the_command(connection: duckdb.DuckDBPyConnection, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    connection.close()
    assert cli.call("export", ["toy", "-o", str(tmp_path / "out"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["path"], result["n_rows"], result["ref"]) == (str(tmp_path / "out"), 4, "toy@v1")
    assert cli.call("export", ["--verify", str(tmp_path / "out")]) == 0
    assert "toy@v1" in capsys.readouterr().out
    with pytest.raises(DataError, match="may not be released"):
        cli.call("export", ["toy", "--target", "release"])
    for nonsense in ([], ["toy", "--verify", str(tmp_path)]):
        with pytest.raises(UsageError, match="NAME@VERSION, or --verify"):
            cli.call("export", nonsense)


def test_an_export_is_noted_once(connection: duckdb.DuckDBPyConnection, version_id: int) -> None:
    folder = export_version(connection, version_id)
    for _ in range(2):
        record_export(connection, version_id, folder, form="native")
    ((noted, path),) = connection.sql("SELECT version_id, path FROM export").fetchall()
    assert (noted, path) == (version_id, str(folder))


def _eight_pairs() -> duckdb.DuckDBPyConnection:
    made = duckdb.connect()
    migrate(made, Path(":memory:"))
    fill_pairs(made, 8)
    made.execute("INSERT INTO source SELECT * REPLACE (2 AS source_id) FROM source").fetchall()
    made.execute(
        "INSERT INTO unit_source SELECT * REPLACE (2 AS source_id) FROM unit_source WHERE unit_id < 4"
    ).fetchall()
    made.execute("CREATE TABLE backup AS FROM prompt").fetchall()
    return made


EIGHT = _eight_pairs()
LICENSES = st.sampled_from(["MIT", "cc-by-sa-4.0", None] * 5 + ["CC-BY-NC-4.0", "unknown", "My-Own-1.0"])


@settings(max_examples=15, deadline=None)
@given(
    st.lists(LICENSES, min_size=12, max_size=12),
    st.sets(st.integers(0, 7)),
    st.sets(st.sampled_from(["unknown", "CC-BY-NC-4.0"])),
)
def test_a_release_never_holds_a_blocked_or_erased_row(
    licenses: list[str | None], gone: set[int], allowed: set[str]
) -> None:
    forget(EIGHT)
    rows = [(unit, 1) for unit in range(8)] + [(unit, 2) for unit in range(4)]
    for (unit, source), license in zip(rows, licenses, strict=True):
        update = "UPDATE unit_source SET license = ? WHERE unit_id = ? AND source_id = ?"
        EIGHT.execute(update, [license, unit, source]).fetchall()
    EIGHT.execute(
        "UPDATE prompt SET messages = CASE WHEN list_contains(?, prompt.prompt_id) THEN NULL ELSE backup.messages END "
        "FROM backup WHERE backup.prompt_id = prompt.prompt_id",
        [sorted(gone)],
    ).fetchall()
    commit(EIGHT, "d", "(SELECT example_id, 'train' AS split, 1.0 AS weight FROM example)", message="", author="")
    said: dict[int, set[str]] = {unit: set() for unit in range(8)}
    for (unit, _), license in zip(rows, licenses, strict=True):
        said[unit].add(license or "CC0-1.0")  # the generated source's own license
    free = all(restriction(name) < 2 or name in allowed for unit in said.keys() - gone for name in said[unit])
    with tempfile.TemporaryDirectory() as folder:
        try:
            out = export_version(EIGHT, 1, Path(folder) / "out", target="release", allow_licenses=allowed)
        except DataError:
            assert not free
            return
        lines = {int(json.loads(row.row["prompt"])[0]["content"].split()[0]) for row in read_examples(out)}
    assert free
    assert lines == set(range(8)) - gone
