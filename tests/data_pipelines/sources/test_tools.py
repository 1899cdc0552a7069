"""Exports of annotation tools. Every record here is SYNTHETIC, written after the tools' documented export formats."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data_pipelines.sources import detect
from data_pipelines.sources.tools import argilla, label_studio
from data_pipelines.sources.unit_builder import UnusableRowError

FIELDS = {"prompt": "A color?", "response-1": "Red.", "response-2": "Sea.", "response-3": "Blue.", "topic": "paint"}


def nested(responses: Any, **more: Any) -> dict[str, Any]:
    return {"id": "r1", "fields": FIELDS, "responses": responses, "suggestions": {}, "metadata": {"k": 1}, **more}


def said(row: dict[str, Any]) -> list[dict[str, Any]]:
    (unit,) = argilla.records(row)
    return unit["judgments"]


def places(**ranks: int) -> list[dict[str, Any]]:
    return [{"value": name.replace("_", "-"), "rank": rank} for name, rank in ranks.items()]


def test_ties_of_an_argilla_ranking_are_kept() -> None:
    ranking = places(response_2=1, response_1=2, response_3=1)
    (verdict,) = said(nested({"ranking": [{"value": ranking, "user_id": "u1"}]}))
    assert (verdict["rater"], verdict["ranks"], verdict["extra"]) == ("u1", [1, 0, 0], None)
    columns = {"rank": [1, 2, 1], "value": ["response-2", "response-1", "response-3"]}  # as a hub dataset holds it
    assert said(nested({"ranking": [{"value": columns, "user_id": "u1"}]}))[0]["ranks"] == [1, 0, 0]


def test_an_order_of_names_says_that_ties_are_lost() -> None:
    order = ["response-2", "response-3", "response-1"]
    (verdict,) = said(nested({"ranking": [{"value": order, "user_id": "u1"}]}))
    assert verdict["ranks"] == [2, 0, 1]
    assert "ties were lost" in verdict["extra"]


def test_a_partial_ranking_leaves_the_others_unranked() -> None:
    (verdict,) = said(nested({"ranking": [{"value": places(response_3=1, response_1=2), "user_id": "u1"}]}))
    assert verdict["ranks"] == [1, None, 0]


def test_all_question_types_of_one_user_make_one_judgment() -> None:
    answers = {
        "preference": [{"value": "response-2", "user_id": "u1"}, {"value": "tie", "user_id": "u2"}],
        "quality-response-1": [{"value": 2, "user_id": "u1"}],
        "overall": [{"value": 4, "user_id": "u1"}],
        "reason": [{"value": "because", "user_id": "u1"}],
        "corrected": [{"value": "Crimson.", "user_id": "u1"}],
        "tags": [{"value": ["rude", "short"], "user_id": "u1"}],
        "tone": [{"value": "polite", "user_id": "u1"}],
    }
    first, second = said(nested(answers))
    assert first["ranks"] == [1, 0, 1]
    assert first["scores"] == [{"response": 0, "aspect": "quality-response-1", "value": 2.0}]
    assert (first["rationale"], json.loads(first["edit"])[0]["content"]) == ("because", "Crimson.")
    assert json.loads(first["extra"]) == {"overall": 4, "tags": ["rude", "short"], "tone": "polite"}
    assert (second["rater"], second["ranks"]) == ("u2", [0, 0, 0])


def test_drafts_and_discards_are_no_judgments_and_suggestions_wait_for_people() -> None:
    hint = {"preference": {"value": "response-1", "score": 0.9, "agent": "gpt-4"}}
    given = {"preference": [{"value": "response-2", "user_id": "u1", "status": "discarded"}]}
    (unit,) = argilla.records(nested(given, suggestions=hint))
    (verdict,) = unit["judgments"]
    assert (verdict["rater"], verdict["rater_kind"], verdict["ranks"]) == ("gpt-4", "llm", [0, 1, 1])
    assert json.loads(unit["meta"])["not_submitted"][0]["status"] == "discarded"
    given["preference"].append({"value": "response-3", "user_id": "u2", "status": "ResponseStatus.submitted"})
    (unit,) = argilla.records(nested(given, suggestions=hint))
    assert [(v["rater"], v["ranks"]) for v in unit["judgments"]] == [("u2", [1, 1, 0])]
    meta = json.loads(unit["meta"])
    assert meta["suggestions"][0]["user"] == "gpt-4"
    assert (meta["metadata"], meta["fields"]) == ({"k": 1}, {"topic": "paint"})


def test_the_other_three_shapes_of_argilla_say_the_same() -> None:
    ranking = places(response_1=2, response_2=1, response_3=2)
    rest = nested(
        [{"user_id": "u1", "status": "submitted", "values": {"ranking": {"value": ranking}, "why": {"value": "hm"}}}],
        suggestions=[],
    )
    flat1 = {
        **FIELDS,
        "ranking": [{"user_id": "u1", "value": {"rank": [2, 1, 2], "value": list(FIELDS)[1:4]}, "status": "submitted"}],
        "ranking-suggestion": None,
        "ranking-suggestion-metadata": {"type": None, "score": None, "agent": None},
        "why": [{"user_id": "u1", "value": "hm", "status": "submitted"}],
        "external_id": None,
        "metadata": "{}",
    }
    flat2 = {
        **FIELDS,
        "id": "r1",
        "status": "completed",
        "ranking.responses": [ranking],
        "ranking.responses.users": ["u1"],
        "ranking.responses.status": ["submitted"],
        "why.responses": ["hm"],
        "why.responses.users": ["u1"],
        "why.responses.status": ["submitted"],
    }
    for row in (rest, flat1, flat2):
        assert detect([row], path="synthetic").name == "argilla"
        (verdict,) = said(row)
        assert (verdict["rater"], verdict["ranks"], verdict["rationale"]) == ("u1", [1, 0, 1], "hm")


def test_argilla_lengths_that_do_not_agree() -> None:
    row = {**FIELDS, "ranking.responses": ["response-1"], "ranking.responses.users": ["u1", "u2"]}
    with pytest.raises(UnusableRowError, match="different lengths"):
        list(argilla.records(row))


def task(*results: dict[str, Any], **more: Any) -> dict[str, Any]:
    data = {"prompt": "A color?", "answer1": "Red.", "answer2": "Sea."}
    return {"id": 1, "data": data, "annotations": [{"completed_by": 2, "result": list(results)}], **more}


def result(kind: str, value: dict[str, Any], name: str = "q", to: str = "prompt") -> dict[str, Any]:
    return {"id": "x", "from_name": name, "to_name": to, "type": kind, "value": value}


def judged(row: dict[str, Any]) -> list[dict[str, Any]]:
    (unit,) = label_studio.tasks(row)
    return unit["judgments"]


@pytest.mark.parametrize(
    ("selected", "to", "ranks"),
    [
        ("left", "answer1,answer2", [0, 1]),
        ("right", "answer1,answer2", [1, 0]),
        ("left", "answer2,answer1", [1, 0]),
        ("right", "txt-1,txt-2", [1, 0]),
    ],
)
def test_pairwise_left_is_the_first_object_of_the_tag(selected: str, to: str, ranks: list[int]) -> None:
    (verdict,) = judged(task(result("pairwise", {"selected": selected}, "pw", to)))
    assert (verdict["rater"], verdict["ranks"]) == ("2", ranks)


def test_choices_ratings_and_texts_go_where_they_belong() -> None:
    (verdict,) = judged(
        task(
            result("choices", {"choices": ["answer2"]}, "better"),
            result("choices", {"choices": ["unsafe", "rude"]}, "flags"),
            result("rating", {"rating": 4}, "helpful", "answer1"),
            result("textarea", {"text": ["it rhymes"]}, "comment"),
            result("labels", {"start": 0, "end": 2, "labels": ["x"]}, "span", "answer1"),
        )
    )
    assert verdict["ranks"] == [1, 0]
    assert verdict["scores"] == [{"response": 0, "aspect": "helpful", "value": 4.0}]
    assert verdict["rationale"] == "it rhymes"
    assert json.loads(verdict["extra"]) == {
        "flags": ["unsafe", "rude"],
        "span": {"start": 0, "end": 2, "labels": ["x"]},
    }


def test_a_ranker_orders_items_and_buckets_are_classes() -> None:
    items = [{"id": "m", "title": "t", "body": "Red."}, {"id": "n", "body": "Sea."}, {"id": "o", "html": "Blue."}]
    row = {"id": 1, "data": {"prompt": "A color?", "items": items}, "annotations": []}
    order = result("ranker", {"ranker": ["o", "m", "n"]}, "rank", "items")
    (unit,) = label_studio.tasks(row | {"annotations": [{"result": [order]}]})
    assert [json.loads(answer["messages"])[0]["content"] for answer in unit["responses"]] == ["Red.", "Sea.", "Blue."]
    assert unit["judgments"][0]["ranks"] == [1, 2, 0]
    sole = result("ranker", {"ranker": {"_": [], "rank": ["n", "o", "m"]}}, "rank", "items")
    assert judged(row | {"annotations": [{"result": [sole]}]})[0]["ranks"] == [2, 0, 1]
    two = result("ranker", {"ranker": {"_": ["m"], "good": ["o"], "bad": ["n"]}}, "rank", "items")
    (verdict,) = judged(row | {"annotations": [{"result": [two]}]})
    assert verdict["ranks"] is None
    assert {(s["response"], s["aspect"]) for s in verdict["scores"]} == {(2, "good"), (1, "bad")}
    with pytest.raises(UnusableRowError, match="unknown item"):
        judged(row | {"annotations": [{"result": [result("ranker", {"ranker": ["zz"]})]}]})


def test_cancelled_annotations_and_predictions() -> None:
    pick = result("pairwise", {"selected": "left"}, "pw", "answer1,answer2")
    predictions = [{"model_version": "judge-1", "result": [pick], "score": 0.7}]
    row = task(pick, predictions=predictions)
    (unit,) = label_studio.tasks(row)
    assert [verdict["rater"] for verdict in unit["judgments"]] == ["2"]
    assert json.loads(unit["meta"])["predictions"] == predictions
    row["annotations"][0]["was_cancelled"] = True
    (unit,) = label_studio.tasks(row)
    assert [(v["rater"], v["rater_kind"], v["ranks"]) for v in unit["judgments"]] == [("judge-1", "llm", [0, 1])]
    assert json.loads(unit["meta"])["cancelled"] == 1


def test_two_annotators_are_two_judgments() -> None:
    pick = result("pairwise", {"selected": "right"}, "pw", "answer1,answer2")
    row = task(pick)
    row["annotations"].append({"completed_by": {"id": 7, "email": "someone@example.org"}, "result": [pick]})
    assert [verdict["rater"] for verdict in judged(row)] == ["2", "7"]
