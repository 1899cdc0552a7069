"""Every file of the shared data: all rows accounted for, each form read as what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.sources import detect
from data_pipelines.sources.reading.lines import (
    open_rows,
)
from data_pipelines.sources.reading.streams import (
    Parsed,
)
from tests.data_pipelines.sources.readings import stream_of
from warehouse.write.units import RATER_KINDS

# file, format, rows in the folder's README, rejected, units (a talk gives one unit per thumb)
FILES = [
    ("pairs_hh_harmless", "pairs", 2262, {}, 2262),
    ("pairs_hh_helpful", "pairs", 2729, {}, 2729),
    ("pairs_webgpt", "pairs", 653, {}, 653),
    ("pairs_pandalm", "pairs", 819, {}, 819),
    ("pairs_tulu", "pairs", 610, {}, 610),
    ("pairs_qa_feedback", "pairs", 2615, {}, 2615),
    ("pairs_ukpconvarg", "pairs", 11642, {}, 11642),
    ("pairs_humicroedit", "pairs", 13079, {}, 13079),
    ("pairs_alpacaeval_gpt4", "pairs", 9377, {}, 9377),
    ("annotators_pandalm", "annotators", 926, {}, 926),
    ("annotators_tulu", "annotators", 909, {}, 909),
    ("annotators_ukpconvarg", "annotators", 16912, {}, 16912),
    ("bench_rmbench", "pairs", 7182, {}, 7182),
    ("bench_hep", "pairs", 984, {}, 984),
    ("bench_xstest", "pairs", 716, {}, 716),
    ("bench_faireval", "pairs", 61, {}, 61),
    ("nway_xstest_labels", "nway", 449, {}, 449),
    ("nway_gsm8k", "nway", 1317, {}, 1317),
    ("nway_oasst", "nway", 193, {}, 193),
    ("nway_rose", "nway", 200, {}, 200),
    ("nway_hf_controlled", "nway", 252, {}, 252),
    ("nway_alpacaeval", "nway", 782, {}, 782),
    ("nway_bon_tulu13b", "nway", 782, {"identical responses": 7}, 775),
    ("nway_dsp_domains", "nway", 659, {"identical responses": 3}, 656),
    ("steps_processbench_gsm8k_math", "steps", 1399, {}, 1399),
    ("steps_prmbench", "steps", 6971, {}, 6971),
    ("steps_bigbench_mistake", "steps", 2185, {}, 2185),
    ("steps_mrmath", "steps", 159, {}, 159),
    ("rubrics_biggen", "rubrics", 765, {}, 765),
    ("rubrics_flask", "rubrics", 1716, {}, 1716),
    ("rubrics_deepresearch", "rubrics", 100, {}, 100),
    ("edits_jfleg", "edits", 1501, {}, 1501),
    ("edits_qa_feedback", "edits", 481, {}, 481),
    ("edits_ilf_code", "edits", 186, {}, 186),
    ("feedback_convai", "talks", 715, {"no assistant turn in the talk": 86}, 1398),
    ("feedback_feedbackqa", "answers", 3924, {}, 3924),
    ("critiques_shepherd", "answers", 1317, {}, 1317),
]


def first_units(path: Path, n: int) -> list[dict[str, Any]]:
    rows = [item for _, item in zip(range(n), open_rows(path).items, strict=False)]
    values = [row.value for row in rows if isinstance(row, Parsed)]
    return [unit for value in values for unit in detect(values, path=path).units(value)]


def test_the_table_is_the_folder(shared_data: Path) -> None:
    assert {f"{name}.jsonl.gz" for name, *_ in FILES} == {path.name for path in shared_data.glob("*.jsonl.gz")}
    assert sum(rows for _, _, rows, _, _ in FILES) == 97529


@pytest.mark.parametrize(("name", "form"), [(name, form) for name, form, *_ in FILES])
def test_the_first_rows_are_units_of_the_right_form(shared_data: Path, name: str, form: str) -> None:
    path = shared_data / f"{name}.jsonl.gz"
    rows = [item for _, item in zip(range(20), open_rows(path).items, strict=False)]
    source = detect([row.value for row in rows if isinstance(row, Parsed)], path=path)
    assert source.name == form
    stream = stream_of(rows, source, path=name)
    units = [unit for batch in stream.batches() for unit in batch.to_pylist()]
    assert stream.n_lines == 20
    assert len({unit["line"] for unit in units}) + stream.n_rejected == 20
    for unit in units:
        n = len(unit["responses"])
        assert json.loads(unit["prompt"])[-1]["role"] == "user"
        assert (n == 0) == (unit["kind"] == "rubric") == (unit["rubric"] is not None)
        for judgment in unit["judgments"]:
            assert judgment["rater_kind"] in RATER_KINDS
            assert judgment["ranks"] is None or len(judgment["ranks"]) == n
            assert all(0 <= score["response"] < n for score in judgment["scores"] or ())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form", "rows", "reasons", "units"), FILES)
def test_every_row_is_accounted_for(
    shared_data: Path, name: str, form: str, rows: int, reasons: dict[str, int], units: int
) -> None:
    path = shared_data / f"{name}.jsonl.gz"
    sample = [item.value for _, item in zip(range(20), open_rows(path).items, strict=False) if isinstance(item, Parsed)]
    stream = stream_of(open_rows(path).items, detect(sample, path=path), path=name)
    found = sum(len(batch) for batch in stream.batches())
    assert (stream.n_lines, stream.reasons, found) == (rows, reasons, units)
    assert stream.rejects().num_rows == stream.n_rejected == sum(reasons.values())


def test_votes_stay_single_and_the_gold_label_stays_out_of_them(shared_data: Path) -> None:
    (unit, *_) = first_units(shared_data / "annotators_tulu.jsonl.gz", 1)
    assert [(j["rater"], j["ranks"], j["strength"]) for j in unit["judgments"]] == [
        ("e01", [0, 1], 2.0),
        ("e02", [0, 0], 0.0),
    ]
    assert json.loads(unit["meta"])["majority"] == "none"
    assert [answer["generator"] for answer in unit["responses"]] == ["tulu_65B", "chatgpt"]


def test_rank_zero_is_best_and_scores_rank_downwards(shared_data: Path) -> None:
    (oasst, *_) = first_units(shared_data / "nway_oasst.jsonl.gz", 1)
    (verdict,) = oasst["judgments"]
    assert verdict["ranks"][:2] == [0, 1]
    (rose, *_) = first_units(shared_data / "nway_rose.jsonl.gz", 1)
    (verdict,) = rose["judgments"]
    by_response = {s["response"]: s["value"] for s in verdict["scores"] if s["aspect"] == "ref_free"}
    best = [at for at, rank in enumerate(verdict["ranks"]) if rank == 0]
    assert {by_response[at] for at in best} == {max(by_response.values())}
    assert {s["aspect"] for s in verdict["scores"]} >= {"prior", "ref_based", "ref_free", "acu", "normalized_acu"}


def test_domains_have_no_judgment_and_are_kept(shared_data: Path) -> None:
    (unit, *_) = first_units(shared_data / "nway_dsp_domains.jsonl.gz", 1)
    assert unit["judgments"] == []
    assert [item["domain"] for item in json.loads(unit["meta"])["responses"]][:2] == ["academy", "business"]


def test_step_ends_cut_the_text_back_into_the_steps(shared_data: Path) -> None:
    path = shared_data / "steps_processbench_gsm8k_math.jsonl.gz"
    (row, *_) = (item.value for item in open_rows(path).items if isinstance(item, Parsed))
    (unit, *_) = first_units(path, 1)
    (answer,) = unit["responses"]
    text, ends = json.loads(answer["messages"])[0]["content"], answer["step_ends"]
    assert [text[a:b].removeprefix("\n\n") for a, b in zip([0, *ends], ends, strict=False)] == row["steps"]
    assert ends[-1] == len(text)
    assert unit["judgments"][0]["step_labels"] == row["labels"]
    assert json.loads(unit["meta"])["first_error"] == row["first_error"]


def test_weights_of_a_rubric_are_shares_of_the_whole(shared_data: Path) -> None:
    for unit in first_units(shared_data / "rubrics_deepresearch.jsonl.gz", 20):
        assert sum(item["weight"] for item in json.loads(unit["rubric"])) == pytest.approx(1, abs=0.02)
