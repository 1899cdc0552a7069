"""`rmkit ingest` from the file to the warehouse and back out as text."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.ingest.command import Origin, Reading, ingest, main, slug
from data_pipelines.ingest.rows import CONFLICT
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError, UsageError
from warehouse.store import open_warehouse

PAIRS = [{"id": str(n), "prompt": f"Question {n}?", "chosen": f"Good {n}.", "rejected": f"Bad {n}."} for n in range(6)]


def write(path: Path, rows: list[Any]) -> Path:
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return path


def asked(sql: str) -> list[Any]:
    with open_warehouse(read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_every_row_is_stored_or_rejected_with_its_line(home: Path, tmp_path: Path) -> None:
    bad = [
        "not json\n",
        "\n",
        {"id": "7", "prompt": " ", "chosen": "a", "rejected": "b"},
        {**PAIRS[0], "chosen": "Other."},
        PAIRS[1],
        '{"prompt": "torn',
    ]
    report = ingest(write(tmp_path / "my pairs.jsonl.gz", [*PAIRS, *bad]))
    assert (report.dataset, report.version and report.version.ref) == ("my-pairs", "my-pairs@v1")
    assert (report.n_lines, report.n_accepted, report.n_rejected) == (11, 7, 4)
    assert (report.n_units, report.n_duplicate_units) == (6, 1)
    assert asked("SELECT line, source_row, reason FROM reject ORDER BY line") == [
        (7, None, "not JSON"),
        (9, "7", "empty prompt"),
        (10, "0", CONFLICT),
        (12, None, "torn last line"),
    ]
    assert asked("SELECT name, kind FROM rater") == [("my-pairs/unstated", "unknown")]


def test_the_same_file_again_changes_nothing(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "pairs.jsonl", PAIRS)
    first = ingest(path)
    before = asked("SELECT count(*) FROM judgment") + asked("SELECT count(*) FROM source")
    again = ingest(path)
    assert (again.already_loaded, again.n_new_units, again.version) == (True, 0, first.version)
    assert asked("SELECT count(*) FROM judgment") + asked("SELECT count(*) FROM source") == before
    assert main([str(path)]) == 0
    assert "already ingested, nothing changed; it is pairs@v1" in capsys.readouterr().out


def test_a_changed_file_is_the_next_version(home: Path, tmp_path: Path) -> None:
    ingest(write(tmp_path / "pairs.jsonl", PAIRS))
    report = ingest(write(tmp_path / "pairs.jsonl", PAIRS[1:]))
    assert (report.version and report.version.ref, report.n_new_units) == ("pairs@v2", 0)


def test_reading_the_same_bytes_in_another_way_is_another_load(home: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", PAIRS)
    assert ingest(path, reading=Reading(limit=2)).n_lines == 2
    assert ingest(path).n_lines == 6
    swapped = {"chosen": "rejected", "rejected": "chosen"}
    assert not ingest(path, reading=Reading(roles=swapped)).already_loaded
    assert [f for (f,) in asked("SELECT format FROM source ORDER BY source_id")] == [
        "trl limit=2",
        "trl",
        "generic chosen=rejected,rejected=chosen",
    ]


def test_where_a_file_comes_from_is_recorded(home: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "bench_x.jsonl", PAIRS)
    (tmp_path / "bench_x.jsonl.source.toml").write_text('license = "MIT"\nurl = "https://x.org"\npii = "none"\n')
    ingest(path, origin=Origin(license="CC-BY-4.0", revision="r2"))
    columns = "license, url, revision, pii, is_benchmark, text_origin, length(file_sha256)"
    assert asked(f"SELECT {columns} FROM source") == [("CC-BY-4.0", "https://x.org", "r2", "none", True, "unknown", 64)]
    (tmp_path / "bench_x.jsonl.source.toml").write_text('licence = "MIT"\n')
    with pytest.raises(ConfigError, match=r"bench_x.jsonl.source.toml: unknown key 'licence'; did you mean 'license'"):
        ingest(path)


def test_nothing_usable_stores_the_reasons_alone(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "bad.jsonl", [{**pair, "rejected": pair["chosen"]} for pair in PAIRS])
    for _ in range(2):  # read again, it leaves the same
        with pytest.raises(DataError, match=r"nothing usable in 6 rows \(identical responses: 6\); no row was stored"):
            ingest(path)
    counts = ", ".join(f"(SELECT count(*) FROM {name})" for name in ("source", "reject", "unit", "version", "dataset"))
    assert asked(f"SELECT {counts}") == [(1, 6, 0, 0, 0)]
    assert cli.main(["ingest", "--rejects", "bad", "--json"]) == 0
    rejects = json.loads(capsys.readouterr().out)["rejects"]
    assert [(one["line"], one["source_row"], one["reason"]) for one in rejects] == [
        (n + 1, str(n), "identical responses") for n in range(6)
    ]
    assert cli.main(["datasets"]) == 0
    assert "bad" not in capsys.readouterr().out
    report = ingest(write(path, PAIRS))  # mended, it is a dataset like any other
    assert report.version is not None
    assert (report.version.ref, report.n_accepted) == ("bad@v1", 6)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("empty.jsonl", b"", "is empty: 0 bytes"),
        ("blank.jsonl", b"\n\n", "no row of the first 0"),
        ("noise.jsonl", b"\x00\xff" * 100, "no row of the first 1 can be read .torn last line"),
        ("other.jsonl", b'{"color": 1}\n', "no known format has the columns color; .*--map"),
        ("folder", None, "is a folder without files of rows"),
        ("absent.jsonl", None, "no such file"),
    ],
)
def test_files_that_give_nothing_are_one_line_on_stderr(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, data: bytes | None, said: str
) -> None:
    (tmp_path / "folder").mkdir()
    if data is not None:
        (tmp_path / name).write_bytes(data)
    assert cli.main(["ingest", str(tmp_path / name)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert re.search(said, captured.err)
    assert not home.exists()


def test_an_unreadable_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # root, who runs many a test, may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"pairs.jsonl cannot be read: Permission denied"):
        ingest(tmp_path / "pairs.jsonl")


def test_a_long_line_costs_only_itself(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(
        tmp_path / "pairs.jsonl", [*PAIRS, {"prompt": "x" * (2 << 20), "chosen": "a", "rejected": "b"}, PAIRS[0]]
    )
    assert main([str(path), "--max-line-mb", "1", "--json"]) == 0
    (summary,) = json.loads(capsys.readouterr().out)["files"]
    assert (summary["accepted"], summary["reasons"]) == (7, {"line over the limit of 1 MB": 1})


def test_a_mapped_parquet_file_by_command(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"q": pair["prompt"], "good": pair["chosen"], "bad": pair["rejected"], "n": 1} for pair in PAIRS]
    pq.write_table(pa.Table.from_pylist([*rows, {**rows[0], "bad": ""}]), tmp_path / "x.parquet")
    arguments = [str(tmp_path / "x.parquet"), "--name", "mine", "--rater", "gpt-4:llm", "--license", "MIT"]
    assert main([*arguments, "--map", "prompt=q,chosen=good,rejected=bad"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"form generic \(as you said\)\n(.*\n)* +q +prompt +--map +Question 0\?", out)
    assert "rows     7 = 6 accepted + 1 rejected" in out
    assert "1 x empty response" in out
    assert "rmkit ingest --rejects mine" in out
    assert asked("SELECT DISTINCT kind, rater.name FROM rater") == [("llm", "mine/gpt-4")]
    assert asked("SELECT DISTINCT meta FROM unit_source") == [('{"n": 1}',)]
    assert main(["--rejects", "mine"]) == 0
    assert "x.parquet:7: empty response" in capsys.readouterr().out
    assert main(["--rejects", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rejects"][0]["line"] == 7
    with pytest.raises(UsageError, match="nothing was ingested into a dataset 'other'"):
        main(["--rejects", "other"])


def test_a_hub_folder_by_command(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hub").mkdir()
    pq.write_table(pa.Table.from_pylist(PAIRS), tmp_path / "hub" / "validation-0.parquet")
    assert main([f"hf://{tmp_path / 'hub'}", "--json"]) == 0
    (summary,) = json.loads(capsys.readouterr().out)["files"]
    assert (summary["version"], summary["rows"]) == ("hub@v1", 6)
    assert asked("SELECT DISTINCT split FROM unit_source") == [("dev",)]


def test_several_files_are_one_version(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(write(tmp_path / f"votes-{n}.jsonl", ["\n", *PAIRS[2 * n : 2 * n + 3]])) for n in range(2)]
    assert main([*paths, "--json", "--benchmark"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["files"]
    assert (found["version"], found["rows"], found["units"], found["benchmark"]) == ("votes@v1", 6, 5, True)
    assert [shard["rows"] for shard in found["shards"].values()] == [3, 3]
    assert main([str(tmp_path / "votes-*.jsonl"), "--json", "--benchmark"]) == 0
    (again,) = json.loads(capsys.readouterr().out)["files"]
    assert (again["version"], again["already_ingested"]) == ("votes@v1", True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "at least one file"),
        (["x.jsonl", "--format", "hh", "--map", "prompt=q"], "--map belongs to the generic format"),
        (["x.jsonl", "--limit", "0"], "must be 1 or more"),
        (["x.jsonl", "--rater", "gpt-4:robot"], "NAME:KIND"),
    ],
)
def test_options_that_make_no_sense(home: Path, arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        main(arguments)


def test_a_mapped_column_must_be_there(home: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", PAIRS)
    with pytest.raises(UsageError, match="no column question for the role prompt; it has: chosen, id, prompt"):
        ingest(path, reading=Reading(roles={"prompt": "question"}))


def test_a_forced_format_is_obeyed(home: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", PAIRS)
    with pytest.raises(DataError, match=r"nothing usable in 6 rows \(missing field history|missing field labels"):
        ingest(path, reading=Reading(format="shp"))
    with pytest.raises(UsageError, match="unknown source 'nope'"):
        ingest(path, reading=Reading(format="nope"))


@pytest.mark.parametrize(
    ("name", "slugged"),
    [
        ("pairs_hh_harmless.jsonl.gz", "pairs-hh-harmless"),
        ("My Data (v1.2).CSV", "my-data-v1.2"),
        ("train.parquet", "train"),
        ("…", "data"),
    ],
)
def test_a_dataset_is_named_after_its_file(name: str, slugged: str) -> None:
    assert slug(name) == slugged


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "accepted", "rejected"),
    [("pairs_pandalm", 819, 0), ("annotators_pandalm", 926, 0), ("nway_dsp_domains", 656, 3), ("steps_mrmath", 159, 0)],
)
def test_real_files_go_all_the_way(shared_data: Path, home: Path, name: str, accepted: int, rejected: int) -> None:
    report = ingest(shared_data / f"{name}.jsonl.gz")
    assert (report.n_accepted, report.n_rejected) == (accepted, rejected)
    assert report.version is not None
    assert report.version.n_rows == report.n_units
