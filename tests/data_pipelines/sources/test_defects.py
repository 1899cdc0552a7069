"""Files of shared/cases/ingest_defects: readings that were wrong or refused, each with what is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rmkit.errors import DataError
from tests.data_pipelines.sources.readings import Read, read, text, turns, votes

ROOT = Path(__file__).resolve().parents[4] / "shared" / "cases" / "ingest_defects"
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="no shared/cases")


def of(name: str, **options: Any) -> Read:
    return read(ROOT / name, **options)


def test_votes_with_an_id_are_all_counted() -> None:
    assert votes(ROOT / "min_id.csv") == {"What is 2+2?": {"a": 1, "b": 2}, "Name a fruit.": {"b": 2}}
    assert of("min_id.csv").stream.n_rejected == 0


def test_every_raters_score_is_there() -> None:
    for unit in of("ratings_id.csv").merged:
        assert [(j["rater"], j["scores"][0]["value"]) for j in unit["judgments"]] == [
            ("ann", 1),
            ("bob", 2),
            ("cyd", 3),
        ]


def test_a_prompt_like_column_is_the_prompt() -> None:
    prompts = [turns(unit["prompt"]) for unit in of("orca_min.jsonl").units]
    assert prompts[0] == [["system", "Be brief."], ["user", "What is 2+2?"]]
    assert [prompt[1][1] for prompt in prompts[1:]] == ["Name the capital of France.", "Name a colour."]


def test_a_rater_beside_chosen_and_rejected_is_a_vote() -> None:
    assert votes(ROOT / "raters4.csv") == {"What is 2+2?": {"a": 2, "b": 1}, "Name a fruit.": {"a": 2}}
    raters = {j["rater"] for unit in of("raters4.csv").units for j in unit["judgments"]}
    assert raters == {"ann", "bob", "cyd"}


def test_a_signed_scale_is_refused_until_its_meaning_is_said() -> None:
    with pytest.raises(DataError, match=r"'-3' 1, '0' 1, '1' 1.*--values '-3..-1=\?,0=\?,1..3=\?'"):
        of("neg7.csv")
    units = of("neg7.csv", values="-3..-1=a,0=tie,1..3=b").units
    judged = [(unit["judgments"][0]["ranks"], unit["judgments"][0]["strength"]) for unit in units]
    assert judged == [
        *(([0, 1], 3.0), ([0, 1], 2.0), ([0, 1], 1.0), ([0, 0], None), ([1, 0], 1.0), ([1, 0], 2.0), ([1, 0], 3.0)),
    ]


@pytest.mark.parametrize(("name", "ranks"), [("ls_rank.json", [[0, 1], [1, 0], [1, 0]]), ("ar_models.jsonl", [[0, 1]])])
def test_names_of_models_are_who_wrote_the_replies(name: str, ranks: list[list[int]]) -> None:
    for unit, order in zip(of(name).units, ranks, strict=True):
        assert [answer["generator"] for answer in unit["responses"]] == ["m-one", "m-two"]
        assert unit["judgments"][0]["ranks"] == order


def test_chats_as_json_text_are_turns_and_answers_that_are_json_stay() -> None:
    (unit,) = of("t_conv.csv").units
    assert (turns(unit["prompt"]), [text(a) for a in unit["responses"]]) == ([["user", "Say yo."]], ["Yo.", "No."])
    answers = [text(unit["responses"][0]) for unit in of("jsonlist.jsonl").units]
    assert answers[:3] == ["[2, 3, 5]", "[]", '[{"role": "user", "content": "Bob"}]']
    assert of("jsonlist.jsonl").stream.n_rejected == 0


def test_objects_in_columns_are_kept_or_said() -> None:
    units = of("min_why.jsonl", roles={"prompt": "q", "response": "a", "rationale": "why"}).units
    assert [unit["judgments"][0]["rationale"] for unit in units] == ['{"x": "y"}', "right"]
    assert of("meta_lost.jsonl").stream.reasons == {"margin is not a number": 1, "rater is a list": 1}


def test_marks_in_a_prompt_are_turns_and_roles_have_any_case() -> None:
    (unit,) = of("dahoas.jsonl").units
    assert (turns(unit["prompt"]), text(unit["responses"][0])) == ([["user", "Say hi."]], "Hi.")
    prompts = [turns(unit["prompt"]) for unit in of("role_case.jsonl").units]
    assert prompts == [[["user", f"Say {word}."]] for word in ("hi", "yo", "so")]


def test_left_and_right_name_columns() -> None:
    roles = {"prompt": "question", "response_a": "left", "response_b": "right", "preference": "winner"}
    right = {"What is 2+2?": {"a": 1}, "Name a colour.": {"b": 1}, "Name a fruit.": {"tie": 1}}
    assert votes(ROOT / "votes_lr.csv", roles=roles) == votes(ROOT / "votes_lr.csv") == right


def test_truth_values_are_labels_and_a_named_judge_is_no_person() -> None:
    labels = [unit["judgments"][0]["scores"][0]["value"] for unit in of("k_kto.csv").units]
    assert labels == [1.0, 0.0, 1.0]
    (unit,) = of("judge_named.jsonl", roles={"rater": "judge"}, rater="gpt-x:llm").units
    assert (unit["judgments"][0]["rater"], unit["judgments"][0]["rater_kind"]) == ("gpt-x", "llm")
    (unit,) = of("judge_named.jsonl").units
    assert unit["judgments"][0]["rater_kind"] == "unknown"


def test_two_better_and_two_worse() -> None:
    (unit,) = of("multi_cr.jsonl").units
    assert unit["judgments"][0]["ranks"] == [0, 0, 1, 1]


def test_spellings_of_verdicts() -> None:
    result = of("ties.csv")
    assert result.stream.reasons == {
        f"preference is not a, b or tie: '{value}'": 1 for value in ("One.", "-1", "+1", "chosen", "skip", "1.")
    }
    verdicts = {turns(unit["prompt"])[0][1].split()[0]: unit["judgments"][0]["ranks"] for unit in result.units}
    a, b, tie = [0, 1], [1, 0], [0, 0]
    assert verdicts == {
        **dict.fromkeys(("Q1", "Q2", "Q3", "Q11", "Q14", "Q20"), tie),
        **dict.fromkeys(("Q4", "Q6", "Q7", "Q8", "Q10", "Q12", "Q13", "Q15"), a),
        **dict.fromkeys(("Q5", "Q9", "Q22"), b),
    }


@pytest.mark.parametrize(
    "name", ["t.tar.gz", "c.jsonl.xz", "c_utf16.csv", "c_semi.csv", "c_short.csv", "c_keyed.json", "c_pd.json"]
)
def test_containers_encodings_and_shapes(name: str) -> None:
    result = of(name)
    assert [text(unit["responses"][0]) for unit in result.units] == [f"Answer good number {n}." for n in range(5)]
    assert result.stream.n_rejected == 0


def test_a_workbook_without_sheets_is_one_true_sentence() -> None:
    with pytest.raises(DataError, match=r"c.xlsx is a spreadsheet without sheets$"):
        of("c.xlsx")


def test_two_raters_of_one_item() -> None:
    assert votes(ROOT / "pot_wide.csv") == {"Say hi.": {"a": 1, "b": 1}, "Say yo.": {"tie": 1}}
