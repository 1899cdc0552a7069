"""Files that are a benchmark by their form keep their rows out of training; ids and raters of some forms."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.ingest.command import main
from data_pipelines.sources import all_sources
from data_pipelines.sources.examples import example_of
from rmkit.errors import DataError
from tests.data_pipelines.sources.readings import read, turns
from warehouse.store import open_warehouse

BENCHMARKS = {
    *("rewardbench", "rewardbench2", "rm-bench", "m-rewardbench", "rag-rewardbench", "rmb-pairwise", "rmb-bon"),
    *("ppe-human", "ppe-best-of-k", "llmbar", "hhh", "rubricbench", "healthbench", "healthbench-meta", "processbench"),
    *("mtbench-human", "mtbench-judgment", "arena-hard", "judgebench", "prbench", "profbench", "prmbench"),
}  # VisualProcessBench's shape is also that of VisualPRM400K, which is for training


def lines(rows: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_which_forms_are_benchmarks() -> None:
    flagged = {source.name for source in all_sources() if source.is_benchmark}
    assert flagged >= BENCHMARKS
    assert flagged.isdisjoint(("trl", "generic", "hh", "shp", "ultrafeedback", "helpsteer", "visualprocessbench"))


@pytest.mark.parametrize("name", ["rewardbench", "rewardbench2", "judgebench", "processbench"])
def test_a_benchmarks_form_is_told_and_flagged(name: str, tmp_path: Path) -> None:
    row = next(example_of(source) for source in all_sources() if source.name == name)
    plan = read(lines([row], tmp_path / "x.jsonl")).opened.shards[0].plan
    assert (plan.name, plan.is_benchmark) == (name, True)


def test_rows_of_a_benchmark_are_never_trained_on(home: Path, tmp_path: Path, capsys: Any) -> None:
    rows = [
        {"id": f"{n}", "prompt": f"What is {n} plus {n}?", "chosen": [f"It is {2 * n}."], "num_correct": 1,
         "rejected": [f"It is {2 * n + k}." for k in (1, 2, 3)], "subset": "Math"}
        for n in range(4)
    ]  # fmt: skip
    assert main([str(lines(rows, tmp_path / "mine.jsonl"))]) == 0
    shown = capsys.readouterr().out
    assert "rewardbench2 is a benchmark: its rows are kept out of training" in shown
    assert "mine@v1 (benchmark: never trained on)" in shown
    with open_warehouse(read_only=True) as connection:
        assert connection.execute("SELECT is_benchmark FROM source").fetchall() == [(True,)]
    from rmkit.training.command import main as train

    with pytest.raises(DataError, match="4 benchmark rows"):
        train(["lexical", "--data", "mine@v1", "-o", str(tmp_path / "model")])


def test_votes_with_a_benchmarks_common_columns_are_no_benchmark(tmp_path: Path) -> None:
    own = {"prompt": "Ice?", "response_1": "Cold.", "response_2": "Warm.", "winner": "model_a", "model_a": "m"}
    assert not read(lines([{**own, "model_b": "n"}], tmp_path / "x.jsonl")).opened.shards[0].plan.is_benchmark
    bare = {"input": "Ice?", "output_1": "Cold.", "output_2": "Warm.", "label": 1}
    assert read(lines([bare], tmp_path / "y.jsonl")).form == "llmbar"
    with pytest.raises(DataError, match="values of label mean"):
        read(lines([{**bare, "annotator": "ann"}], tmp_path / "z.jsonl"))


def test_an_id_counts_within_its_language(tmp_path: Path) -> None:
    row = next(example_of(source) for source in all_sources() if source.name == "m-rewardbench")
    rows = [
        {**row, "id": 1, "language": "eng_Latn", "prompt": "Ice?", "chosen": "Cold.", "rejected": "Warm."},
        {**row, "id": 1, "language": "deu_Latn", "prompt": "Eis?", "chosen": "Kalt.", "rejected": "Warm."},
        {**row, "id": 1, "language": "deu_Latn", "prompt": "Eis?", "chosen": "Kalt.", "rejected": "Hart."},
    ]
    result = read(lines(rows, tmp_path / "x.jsonl"))
    assert [turns(unit["prompt"])[0][1] for unit in result.units] == ["Ice?", "Eis?"]
    assert result.stream.reasons == {"duplicate id with different content": 1}  # within one language it still is


def test_doccano_files_are_named_for_their_raters(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, label in (("ann", "good"), ("bob", "rude"), ("all", "good")):
            archive.writestr(
                f"{name}.jsonl", json.dumps({"id": 1, "text": "Ice?\n---\nCold.", "label": [label]}) + "\n"
            )
    units = read(tmp_path / "x.zip", split_text="\\n---\\n").units
    judged = [(j["rater"], j["rater_kind"], j["scores"][0]["aspect"]) for unit in units for j in unit["judgments"]]
    assert sorted(judged) == [("ann", "human", "good"), ("annotator", "human", "good"), ("bob", "human", "rude")]
    (tmp_path / "one").mkdir()
    row = {"id": 1, "text": "Ice?\n---\nCold.", "label": ["good"]}
    (judgment,) = read(lines([row], tmp_path / "one" / "cyd.jsonl"), split_text="\\n---\\n").units[0]["judgments"]
    assert judgment["rater"] == "annotator"  # a lone file's name may be anything
