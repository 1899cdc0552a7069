"""hf:// addresses, offline: folders saved by `datasets` and folders of Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.sources.reading.hub import open_hub
from data_pipelines.sources.reading.streams import (
    Parsed,
)
from rmkit.errors import DataError, MissingExtraError, UsageError

ROWS = [{"prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n in range(5)]


def lines(url: str) -> list[tuple[int, str, Any]]:
    return [
        (item.line, item.value["prompt"], item.value.get("split"))
        for item in open_hub(url).items
        if isinstance(item, Parsed)
    ]


def test_a_saved_dict_of_splits_comes_whole_or_in_part(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "saved"
    parts = {"train": datasets.Dataset.from_list(ROWS[:3]), "test": datasets.Dataset.from_list(ROWS[3:])}
    datasets.DatasetDict(parts).save_to_disk(str(folder))
    assert lines(f"hf://{folder}") == [
        (1, "p0", "train"),
        (2, "p1", "train"),
        (3, "p2", "train"),
        (4, "p3", "test"),
        (5, "p4", "test"),
    ]
    assert lines(f"hf://{folder}:test") == [(1, "p3", "test"), (2, "p4", "test")]
    whole, part = open_hub(f"hf://{folder}"), open_hub(f"hf://{folder}:test")
    assert (whole.name, whole.sha256 != part.sha256) == ("saved", True)
    assert open_hub(f"hf://{folder}").sha256 == whole.sha256
    with pytest.raises(DataError, match="no split 'dev'; it has: train, test"):
        open_hub(f"hf://{folder}:dev")


def test_a_saved_single_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "one"))
    assert [prompt for _, prompt, _ in lines(f"hf://{tmp_path / 'one'}")] == [f"p{n}" for n in range(5)]


def test_a_folder_of_parquet_files_counts_rows_through(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS[:2]), tmp_path / "data" / "train-00000-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[2:4]), tmp_path / "data" / "train-00001-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(ROWS[4:]), tmp_path / "data" / "validation-00000-of-00001.parquet")
    found = lines(f"hf://{tmp_path}")
    assert [(line, split) for line, _, split in found] == [(n, "train" if n < 5 else "validation") for n in range(1, 6)]
    assert [prompt for _, prompt, _ in lines(f"hf://{tmp_path}:validation")] == ["p4"]


def test_addresses_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither a dataset saved by datasets nor Parquet"):
        open_hub(f"hf://{tmp_path / 'empty'}")
    for url in ("hf://", "hf://a:b:c", "hf://only-one-part"):
        with pytest.raises(UsageError, match="hf://"):
            open_hub(url)
    (tmp_path / "empty" / "state.json").write_text("{")
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="cannot be loaded"):
        open_hub(f"hf://{tmp_path / 'empty'}")


def test_without_datasets_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    for url in (f"hf://{tmp_path}", "hf://org/name"):
        with pytest.raises(MissingExtraError, match=r"\[train\]'"):
            open_hub(url)


def test_a_hub_that_cannot_be_reached_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def refuse(*args: object, **options: object) -> None:
        raise ConnectionError("offline\nwith a long trace")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match=r"org/name cannot be loaded: offline$"):
        open_hub("hf://org/name:train")


def test_a_remote_dataset_brings_its_license_and_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "saved"
    datasets.Dataset.from_list(ROWS, info=datasets.DatasetInfo(license="mit")).save_to_disk(str(path))
    stored, asked = datasets.load_from_disk(str(path)), []

    def load(*args: object, **options: object) -> Any:
        asked.append((args, options))
        return datasets.DatasetDict({"train": stored})

    monkeypatch.setattr(datasets, "load_dataset", load)
    hub = open_hub("hf://org/name/config:train", revision="abc")
    assert asked == [(("org/name", "config"), {"revision": "abc"})]
    assert (hub.name, hub.license, hub.url) == ("name", "mit", "https://huggingface.co/datasets/org/name")
    assert len(list(hub.items)) == 5
