"""Files that are broken in every way: each row is read or rejected with its line, nothing crashes, counts add up."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipelines.sources.reading.lines import (
    open_rows,
)
from data_pipelines.sources.reading.streams import (
    CUT_OFF,
    Parsed,
    Reject,
)
from rmkit.errors import DataError

GOOD = b'{"prompt": "a", "n": 1}\n'


def read(path: Path, data: bytes | None = None, **options: Any) -> list[tuple[int, Any]]:
    """(line, value) of each row, (line, reason) of each reject."""
    if data is not None:
        path.write_bytes(data)
    return [
        (item.line, item.value if isinstance(item, Parsed) else item.reason)
        for item in open_rows(path, **options).items
    ]


def test_each_fault_has_its_line_and_reason(tmp_path: Path) -> None:
    lines = [
        GOOD.strip(),
        b"",
        b"not json",
        b"[1, 2]",
        b'"text"',
        b'{"a": "\xff"}',
        b'{"a": "\\ud83d"}',
        b'{"a": "\\ud83d\\ude00"}',
        b"   ",
        b"[" * 100_000,
        GOOD.strip(),
    ]
    assert read(tmp_path / "f.jsonl", b"\n".join(lines) + b"\n") == [
        (1, {"prompt": "a", "n": 1}),
        (3, "not JSON"),
        (4, "not a JSON object"),
        (5, "not a JSON object"),
        (6, "invalid UTF-8"),
        (7, "lone surrogate in the text"),
        (8, {"a": "\U0001f600"}),
        (10, "JSON nested too deeply"),
        (11, {"prompt": "a", "n": 1}),
    ]


def test_a_torn_last_line_is_told_from_a_bad_one(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    assert read(path, GOOD + b'{"prompt": "b')[1] == (2, "torn last line")
    assert read(path, GOOD + 'é"'.encode()[:1])[1] == (2, "torn last line")
    assert read(path, GOOD + b'{"prompt": "b"}')[1] == (2, {"prompt": "b"})
    assert read(path, b"\xef\xbb\xbf" + GOOD)[0] == (1, {"prompt": "a", "n": 1})
    assert read(path, b"\r\n".join([GOOD.strip()] * 2))[1][0] == 2


def test_a_long_line_is_rejected_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    with path.open("wb") as file:
        file.write(GOOD + b'{"a": "')
        for _ in range(50):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + GOOD)
    tracemalloc.start()
    found = read(path, max_line_bytes=1 << 20)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found[1:] == [(2, "line over the limit of 1 MB"), (3, {"prompt": "a", "n": 1})]
    assert peak < 8 << 20
    assert read(path)[1][1] == "line over the limit of 32 MB"


def test_excerpts_are_short_and_always_text(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b"\xff\x00" + b"y" * 5000 + b"\n")
    (reject,) = open_rows(path).items
    assert isinstance(reject, Reject)
    assert reject.excerpt == "��" + "y" * 198


@pytest.mark.parametrize("keep", [20, 60, 90])
def test_a_gzip_file_cut_anywhere_keeps_what_came_before(tmp_path: Path, keep: int) -> None:
    whole = gzip.compress(b"".join(b'{"n": %d, "x": "%x"}\n' % (i, hash(i * 7919)) for i in range(3000)))
    found = read(tmp_path / "f.jsonl.gz", whole[: len(whole) * keep // 100])
    assert found[-1][1] == CUT_OFF
    assert [value["n"] for _, value in found[:-1]] == list(range(len(found) - 1))
    assert len(found) > 3000 * keep // 100 * 0.5
    assert [value["n"] for _, value in read(tmp_path / "g.jsonl.gz", whole)] == list(range(3000))


def test_zstd_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as out:
        out.write(GOOD * 3)
    assert read(path) == [(line, {"prompt": "a", "n": 1}) for line in (1, 2, 3)]


def test_files_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    cases = {
        tmp_path: "is a folder, not a file",
        tmp_path / "absent.jsonl": "no such file",
        tmp_path / "empty.jsonl": "is empty: 0 bytes",
        tmp_path / "nul\0.jsonl": "cannot be read",
        tmp_path / "empty.jsonl" / "below": "cannot be read: Not a directory",
    }
    for path, said in cases.items():
        with pytest.raises(DataError, match=said):
            open_rows(path)


def test_a_json_array_is_read_element_by_element(tmp_path: Path) -> None:
    rows = [{"n": n, "x": "é" * n} for n in range(3000)]
    path = tmp_path / "f.json"
    assert read(path, json.dumps(rows, ensure_ascii=False, indent=1).encode()) == list(enumerate(rows, 1))
    assert read(path, json.dumps([*rows, 5, {"a": "\ud800"}]).encode())[-2:] == [
        (3001, "not a JSON object"),
        (3002, "invalid UTF-8 or a lone surrogate"),
    ]
    assert read(path, b"[]") == []
    assert read(path, b' \n[{"n": 1} , {"n": 2}')[-1] == (3, "torn: the array does not end")
    assert read(path, b'[{"n": 1}, {"n": 2')[-1] == (2, "not JSON, or torn; the rest of the array was not read")
    assert read(path, b"[" * 100_000)[-1] == (1, "JSON nested too deeply; the rest of the array was not read")
    assert (
        "no element ends within 1 MB"
        in read(path, b'[{"n": "' + b"x" * (4 << 20) + b'"}]', max_line_bytes=1 << 20)[0][1]
    )
    packed = gzip.compress(json.dumps(rows).encode())
    found = read(tmp_path / "f.json.gz", packed[: len(packed) // 2])
    assert found[-1][1] == CUT_OFF
    assert found[:-1] == list(enumerate(rows, 1))[: len(found) - 1]


def test_csv_rows_carry_the_line_they_begin_at(tmp_path: Path) -> None:
    text = 'id,prompt\n1,"two\nlines"\n2,a,b\n\n3,"c ""quoted"""\n4,\xe9\n'.encode("latin-1")
    assert read(tmp_path / "f.csv", text) == [
        (2, {"id": "1", "prompt": "two\nlines"}),
        (4, "more fields than the header names"),
        (6, {"id": "3", "prompt": 'c "quoted"'}),
        (7, "invalid UTF-8"),
    ]
    assert read(tmp_path / "f.tsv", b"id\tprompt\n1\ta,b\n") == [(2, {"id": "1", "prompt": "a,b"})]
    assert read(tmp_path / "g.csv", b'id,prompt\n1,a\n2,"never ends\n')[-1] == (3, "torn: a quoted field does not end")
    long = read(tmp_path / "h.csv", b"id,p\n1,a\n2," + b"x" * 5000 + b"\n3,b\n", max_line_bytes=1000)
    assert [line for line, _ in long] == [2, 3, 4]
    assert long[1][1].startswith("line over the limit")


@pytest.mark.parametrize("header", [b"\n", b"a,a\n", b"\xff,b\n", b",\n"])
def test_a_csv_file_must_name_its_columns(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(DataError, match="must name its columns"):
        read(tmp_path / "f.csv", header + b"1,2\n")


def test_parquet_rows_and_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    table = pa.table(
        {"prompt": ["a", None], "n": [1, 2], "m": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int8()))}
    )
    pq.write_table(table, path)
    assert read(path) == [(1, {"prompt": "a", "n": 1, "m": [["k", 1]]}), (2, {"prompt": None, "n": 2, "m": []})]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged or no Parquet file"):
        read(path)


def test_parquet_text_that_is_not_utf8_costs_only_its_row(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    bad = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"prompt": bad}), path)
    assert read(path) == [(1, {"prompt": "a"}), (2, "invalid UTF-8"), (3, {"prompt": "c"})]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.binary(max_size=40) | st.just(GOOD) | st.just(b"\n") | st.just(b'{"a": "\\udfff"}\n')), st.booleans()
)
def test_random_bytes_never_crash_and_every_line_counts(tmp_path: Path, parts: list[bytes], packed: bool) -> None:
    data = b"{}\n" + b"".join(parts)
    path = tmp_path / "f.jsonl"
    path.write_bytes(gzip.compress(data) if packed else data)
    found = read(path, max_line_bytes=64)
    lines = [(n, line) for n, line in enumerate(io.BytesIO(data), 1) if line.strip() or len(line) > 64]
    assert [line for line, _ in found] == [n for n, _ in lines]
    for value in (value for _, value in found if isinstance(value, dict)):
        json.dumps(value, ensure_ascii=False).encode()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["f.json", "f.csv", "f.parquet", "f.json.gz"]), st.binary(max_size=200))
def test_no_file_of_any_kind_crashes_the_reader(tmp_path: Path, name: str, data: bytes) -> None:
    starts = {"f.json": b"[", "f.csv": b"a,b\n", "f.parquet": b"PAR1", "f.json.gz": b"\x1f\x8b"}
    path = tmp_path / name
    path.write_bytes(starts[name] + data)
    with contextlib.suppress(DataError):  # the whole file is refused; anything else is a crash
        assert all(line >= 1 for line, _ in read(path, max_line_bytes=100))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=2, max_size=2)))
def test_what_python_writes_as_csv_comes_back(tmp_path: Path, rows: list[list[str]]) -> None:
    path = tmp_path / "f.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    assert [list(value.values()) for _, value in read(path)] == rows
