"""Published forms read as their own descriptions say.

Rows and expectations under `spec_forms` are invented after the descriptions of the forms and were written before any
importer was; an importer that reads otherwise is wrong, or the description is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data_pipelines.sources.expected import differences, read

FOLDER = Path(__file__).parent / "spec_forms"
# No importer reads these yet; the others must stay right.
OPEN = {
    "pairs/preference_700k.jsonl": "the rater is stored as a person",
    "pairs/ultrainteract.jsonl": "the prompt is invented from the words that both replies share",
    "pairs/wildchecklists.jsonl": "the rubric goes to meta",
    "pairs/llamafactory_alpaca_rank.json": "the prompt is invented or the row refused",
    "pairs/rm_hh_rlhf.jsonl": "marks in the prompt are no turns",
    "tools/labelstudio_pairwise.json": "names of models become responses",
} | dict.fromkeys(
    [
        "pairs/llamafactory_renamed/toy.json",
        "pairs/msswift_rm.jsonl",
        "pairs/msswift_rm_query.jsonl",
        "pairs/nemorl_preference.jsonl",
        "pairs/stackexchange_paired.jsonl",
        "pairs/orca_chatgpt.jsonl",
        "votes/wsdm_arena.jsonl",
        "votes/mtbench_human.jsonl",
        "votes/alpacaeval1.json",
        "votes/alpacafarm_human.json",
        "votes/judgelm.jsonl",
        "votes/pandalm_train.json",
        "votes/llmbar.json",
        "votes/judgebench.jsonl",
        "votes/rmb_bon.json",
        "votes/oasst_trees.jsonl",
        "rubrics/rubrichub_rurl.jsonl",
        "rubrics/openrubrics_v1.jsonl",
        "rubrics/processbench.jsonl",
        "rubrics/visualprocessbench.jsonl",
        "rubrics/openrlhf_prm.jsonl",
        "tools/labelstudio_min.json",
        "tools/prodigy_compare.jsonl",
        "tools/mturk_batch.csv",
        "tools/reaction_log.jsonl",
    ],
    "not recognized",
)
FORMS: list[dict[str, Any]] = [json.loads(line) for line in (FOLDER / "expected.jsonl").read_text().splitlines()]


def _case(expectation: dict[str, Any]) -> Any:
    reason = OPEN.get(expectation["file"])
    marks = [pytest.mark.xfail(strict=False, reason=reason)] if reason else []
    return pytest.param(expectation, id=expectation["file"], marks=marks)


@pytest.mark.parametrize("expectation", [_case(form) for form in FORMS])
def test_form_reads_as_described(expectation: dict[str, Any]) -> None:
    assert differences(expectation, read(FOLDER / expectation["file"])) == []
