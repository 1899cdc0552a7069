"""Public preference formats. Every row here is SYNTHETIC: written for this test after the columns of each format's
published card; no text of the data sets themselves is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.ingest.rows import SHAPE, UnitStream
from data_pipelines.sources import all_sources, detect, find
from data_pipelines.sources.examples import example_of
from data_pipelines.sources.reading.streams import (
    Parsed,
)
from data_pipelines.sources.recognize import Hints, recognize
from data_pipelines.sources.unit_builder import UnusableRowError
from rmkit.errors import DataError, UsageError
from tests.data_pipelines.sources.readings import stream_of

HELPSTEER = {
    "prompt": "Name a color.",
    "response": "Red.",
    "helpfulness": 4,
    "correctness": 4,
    "coherence": 3,
    "complexity": 1,
    "verbosity": 0,
}
CONTEXT = [{"role": "user", "content": "Name a color."}]
PREFERENCE3 = {
    "domain": "general",
    "language": "english",
    "context": CONTEXT,
    "response1": "Red.",
    "response2": "Blue, like the sea.",
    "overall_preference": 2,
    "individual_preference": [
        {"score": 2, "reasoning": "2 says more", "feedback1": "short", "feedback2": "nice"},
        {"score": 0, "reasoning": "alike", "feedback1": "a", "feedback2": "b"},
        {"score": -1, "reasoning": "1 is to the point", "feedback1": "c", "feedback2": "d"},
    ],
}
UNIT = "unit of a synthetic row"
ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")


def completion(text: str, ratings: str, fine: float | None, overall: float) -> dict[str, Any]:
    notes = {name: {"Rating": rating, "Rationale": "because"} for name, rating in zip(ASPECTS, ratings, strict=True)}
    notes["helpfulness"] |= {"Type": ["1"], "Rationale For Rating": "so"}
    return {
        "model": f"model-{text[0]}",
        "principle": "honesty",
        "custom_system_prompt": "Be honest.",
        "response": text,
        "annotations": notes,
        "critique": "fine",
        "overall_score": overall,
        "fine-grained_score": fine,
    }


EXAMPLES = {source.name: example_of(source) for source in all_sources()}

WITH_TEXTS = [
    one.name for one in all_sources() if one.form is None or not (one.form.needs_items or "text" in one.form.roles)
]

MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "pairs": ({"chosen": "Sea."}, "identical responses"),
    "annotators": ({"labels": [{"annotator": "h1", "preference": "c"}]}, "preference is not a, b or tie"),
    "nway": ({"responses": [{"text": "Red.", "score": "best"}]}, "score or rank is not a number"),
    "steps": ({"labels": [1]}, "number of labels"),
    "rubrics": ({"rubric": []}, "empty rubric"),
    "edits": ({"original": " "}, "empty response"),
    "talks": ({"messages": [{"role": "user", "content": "Hello"}]}, "no assistant turn"),
    "answers": ({"labels": [{"annotator": "h1", "score": float("nan")}]}, "score is NaN"),
    "hh": ({"rejected": "\n\nHuman: Another talk\n\nAssistant: Red."}, "differ before the last reply"),
    "hh-red-team": ({"transcript": "Say it."}, "no Human: and Assistant: marks"),
    "ultrafeedback": ({"completions": [completion("Red.", "x454", 4.5, 8.0)]}, "rating is not a number"),
    "ultrafeedback-binarized": ({"rejected": None}, "missing field rejected"),
    "ultrafeedback-argilla": ({"chosen_avg_rating": float("inf")}, "NaN or infinite"),
    "helpsteer": ({"verbosity": "much"}, "score is not a number"),
    "helpsteer2-preference": ({"all_preferences_unprocessed": None, "preference_strength": None}, "missing field"),
    "helpsteer3-preference": ({"context": [{"role": "narrator", "content": "x"}]}, "unknown role"),
    "helpsteer3-edit-quality": ({"feedback": "one text"}, "not a list of texts"),
    "helpsteer3-edit": ({"edited_response": None}, "missing field edited_response"),
    "helpsteer3-principle": ({"fulfilment": "Partly"}, "not Yes or No"),
    "helpsteer3-feedback": ({"context": []}, "empty prompt"),
    "published-rubrics": ({"score_rubric": {"criteria": "x"}}, "score1_description must be a text"),
    "shp": ({"labels": 2}, "labels is not 0 or 1"),
    "nectar": ({"answers": [{"answer": "Red.", "model": "m", "rank": None}]}, "missing field rank"),
    "webgpt": ({"score_0": float("nan")}, "score is NaN"),
    "prm800k": ({"label": {"steps": [{"completions": [{"text": "a", "rating": 2}]}]}}, "rating is not -1, 0, 1"),
    "argilla": ({"fields": {"response-1": "Red."}}, "no field is named like a prompt"),
    "label-studio": ({"data": {"prompt": "A color?"}}, "no field is named like a response"),
    "trl-stepwise": ({"labels": [True]}, "number of labels"),
    "trl-unpaired": ({"label": "maybe"}, "label is not true or false"),
    "trl": ({"prompt": "  "}, "empty prompt"),
    "generic": ({"preference": "1"}, "preference is not a, b or tie"),
}


def units(name: str, **changes: Any) -> list[dict[str, Any]]:
    return list(find(name).units({**EXAMPLES[name], **changes}))


def only(name: str, **changes: Any) -> dict[str, Any]:
    (unit,) = units(name, **changes)
    return unit


def texts(unit: Mapping[str, Any]) -> list[str]:
    return [json.loads(answer["messages"])[0]["content"] for answer in unit["responses"]]


def meta(unit: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(unit["meta"])


def scores(judgment: Mapping[str, Any]) -> dict[tuple[int, str], float]:
    return {(score["response"], score["aspect"]): score["value"] for score in judgment["scores"] or ()}


def test_names_are_told_apart() -> None:
    names = [source.name for source in all_sources()]
    assert len(set(names)) == len(names)
    assert set(MALFORMED) <= set(names)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_row_is_recognized_as_its_own_format(name: str) -> None:
    row = EXAMPLES[name]
    backwards = dict(reversed(row.items()))
    assert detect([row], path=UNIT).name == detect([backwards], path=UNIT).name == name
    texts = ("prompt", "response", "response_a", "response_b", "responses")
    hints = Hints(item_columns=tuple(set(texts) & set(row)), split_text="\\n---\\n")
    assert list(recognize([row], path=UNIT, hints=hints).read(row))


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_row_says_why(name: str) -> None:
    changes, reason = MALFORMED[name]
    with pytest.raises(UnusableRowError, match=reason):
        units(name, **changes)


def test_unknown_columns_and_unknown_names_are_one_clear_error() -> None:
    with pytest.raises(DataError, match=r"columns color, shape;.*--map.*--format"):
        recognize([{"shape": 1}, {"color": 2}], path="f.jsonl")
    with pytest.raises(UsageError, match="unknown source 'hhz'; did you mean 'hh'"):
        find("hhz")


def test_most_rows_decide_when_some_are_odd() -> None:
    rows = [{"junk": 1}, EXAMPLES["shp"], EXAMPLES["shp"], EXAMPLES["trl"]]
    assert detect(rows, path=UNIT).name == "shp"


def test_hh_splits_the_talk_at_its_marks() -> None:
    unit = only("hh")
    said = [(turn["role"], turn["content"]) for turn in json.loads(unit["prompt"])]
    assert said == [("user", "A color?"), ("assistant", "Which?"), ("user", "Any.")]
    assert texts(unit) == ["Red.", "Cheese."]
    assert unit["judgments"][0]["ranks"] == [0, 1]


def test_a_red_team_talk_ends_at_the_last_reply() -> None:
    unit = only("hh-red-team")
    assert texts(unit) == ["No."]
    member, model = unit["judgments"]
    assert (member["rater"], scores(member)) == ("red-team-7", {(0, "attack_success"): 1.0})
    assert (model["rater_kind"], scores(model)) == ("rm", {(0, "min_harmlessness"): -0.5})
    assert meta(unit)["task_description"] == "rude words"


def test_ultrafeedback_ranks_by_the_mean_of_the_aspects_not_by_the_overall_score() -> None:
    (verdict,) = only("ultrafeedback")["judgments"]
    assert verdict["ranks"] == [0, 1, 0]  # 4.5, 1.0, 4.5; the overall scores 8, 10, 7 would say otherwise
    assert scores(verdict)[1, "overall_score"] == 10.0
    assert scores(verdict)[0, "honesty"] == 4.0
    assert (verdict["rater"], verdict["rater_kind"]) == ("gpt-4", "llm")
    assert json.loads(verdict["extra"])["completions"][0]["critique"] == "fine"
    without = [completion("Red.", "1112", None, 8.0), completion("Sea.", "22N2".replace("N", "2"), None, 1.0)]
    assert only("ultrafeedback", completions=without)["judgments"][0]["ranks"] == [1, 0]
    without[1]["annotations"]["honesty"]["Rating"] = "N/A"
    assert (1, "honesty") not in scores(only("ultrafeedback", completions=without)["judgments"][0])


def test_binarized_ultrafeedback_drops_the_repeated_prompt_and_keeps_the_gap() -> None:
    talk = [{"role": "user", "content": "A color?"}]
    sides = {
        "prompt": "A color?",
        "prompt_id": "ab12",
        "chosen": [*talk, {"role": "assistant", "content": "Red."}],
        "rejected": [*talk, {"role": "assistant", "content": "Sea."}],
        "messages": [*talk, {"role": "assistant", "content": "Red."}],
        "score_chosen": 7.5,
        "score_rejected": 5.0,
    }
    unit = only("ultrafeedback-binarized", **sides)
    assert [len(json.loads(answer["messages"])) for answer in unit["responses"]] == [1, 1]
    assert (texts(unit), unit["judgments"][0]["strength"]) == (["Red.", "Sea."], 2.5)
    assert (unit["judgments"][0]["ranks"], meta(unit)) == ([0, 1], {"prompt_id": "ab12"})
    assert only("ultrafeedback-binarized", **(sides | {"score_rejected": 7.5}))["judgments"][0]["ranks"] == [0, 0]
    models = {"chosen_model": "m", "rejected_model": "n", "chosen_avg_rating": 5.0, "rejected_avg_rating": 2.0}
    argilla = only("ultrafeedback-argilla", **models)
    assert [answer["generator"] for answer in argilla["responses"]] == ["m", "n"]
    assert argilla["judgments"][0]["strength"] == 3.0
    hyphened = {"prompt": "A color?", "chosen-rating": 5.0, "rejected-rating": 4.0, "chosen-model": "m"}
    row = {**hyphened, "chosen": "Red.", "rejected": "Sea.", "rejected-model": "n", "source": "flan"}
    assert detect([row], path=UNIT).name == "ultrafeedback-cleaned"
    (unit,) = find("ultrafeedback-cleaned").units(row)
    assert (unit["subset"], unit["responses"][1]["generator"], unit["meta"]) == ("flan", "n", None)


def test_helpsteer_keeps_five_attributes_and_single_annotators() -> None:
    assert scores(only("helpsteer")["judgments"][0])[0, "verbosity"] == 0.0
    lists = {name: [1, 2, 4] for name in ("helpfulness", "correctness", "coherence", "complexity", "verbosity")}
    raters = only("helpsteer", **lists)["judgments"]
    assert [scores(one)[0, "coherence"] for one in raters] == [1.0, 2.0, 4.0]
    with pytest.raises(UnusableRowError, match="different numbers"):
        units("helpsteer", **{**lists, "verbosity": [1]})


def test_helpsteer2_talks_are_cut_at_their_marks() -> None:
    text = "A color?\n<extra_id_1>Assistant\nRed.\n<extra_id_1>User\nAnother?"
    said = [(turn["role"], turn["content"]) for turn in json.loads(only("helpsteer", prompt=text)["prompt"])]
    assert said == [("user", "A color?"), ("assistant", "Red."), ("user", "Another?")]


def test_helpsteer2_votes_with_neither_left_out() -> None:
    unit = only("helpsteer2-preference")
    assert [(j["ranks"], j["strength"], j["rationale"]) for j in unit["judgments"]] == [
        ([0, 1], 2.0, "1 is a color"),
        ([1, 0], 1.0, "2 is poetic"),
    ]
    assert (unit["split"], meta(unit)["preference_strength"]) == ("dev", -2)
    alone = only("helpsteer2-preference", all_preferences_unprocessed=None)["judgments"]
    assert [(j["rater"], j["ranks"]) for j in alone] == [("annotator-majority", [0, 1])]


def test_helpsteer3_signs_and_ties() -> None:
    unit = only("helpsteer3-preference")
    assert [(j["ranks"], j["strength"]) for j in unit["judgments"]] == [([1, 0], 2.0), ([0, 0], 0.0), ([0, 1], 1.0)]
    assert json.loads(unit["judgments"][0]["extra"]) == {"feedback1": "short", "feedback2": "nice"}
    assert meta(unit)["overall_preference"] == 2


def test_helpsteer3_edits_principles_and_feedback() -> None:
    (edit,) = only("helpsteer3-edit")["judgments"]
    assert json.loads(edit["edit"]) == [{"content": "Red.", "role": "assistant"}]
    assert edit["rationale"] == "spelling"
    quality = only("helpsteer3-edit-quality")
    assert (texts(quality), quality["judgments"][0]["rater_kind"]) == (["Red.", "Green."], "constructed")
    principle = only("helpsteer3-principle")
    assert json.loads(principle["rubric"]) == [{"criterion": "brevity"}]
    assert scores(principle["judgments"][0]) == {(0, "fulfilment"): 1.0}
    assert [j["rationale"] for j in only("helpsteer3-feedback")["judgments"]][1] == "Fine."


def test_shp_label_zero_means_the_second() -> None:
    unit = only("shp")
    (verdict,) = unit["judgments"]
    assert (verdict["ranks"], verdict["strength"], unit["source_row"]) == ([1, 0], 4.0, "p1/a1/b1")
    assert only("shp", labels=1)["judgments"][0]["ranks"] == [0, 1]
    assert scores(verdict) == {(0, "votes"): 2.0, (1, "votes"): 8.0}
    assert meta(unit)["seconds_difference"] == 1.0


def test_nectar_rank_one_is_best() -> None:
    unit = only("nectar")
    assert json.loads(unit["prompt"]) == [{"content": "A color?", "role": "user"}]
    assert unit["judgments"][0]["ranks"] == [2, 0, 1]
    assert [answer["generator"] for answer in unit["responses"]] == ["n", "m", "o"]


def test_webgpt_scores_decide_and_equal_ones_tie() -> None:
    unit = only("webgpt")
    (verdict,) = unit["judgments"]
    assert (verdict["ranks"], verdict["strength"]) == ([1, 0], 1.5)
    assert meta(unit)["quotes_0"]["title"] == ["Sky"]
    assert only("webgpt", score_0=0, score_1=0)["judgments"][0]["ranks"] == [0, 0]


def test_prm800k_counts_each_rating_once() -> None:
    made = units("prm800k")
    found = {tuple(text.split("\n\n")): unit["judgments"][0]["step_labels"] for unit in made for text in texts(unit)}
    assert found == {
        ("2+2=5",): [0.0],
        ("2+2=4", "Hm."): [None, 0.5],
        ("2+2=4", "4+2=6"): [1.0, None],
    }
    assert [meta(unit)["followed"] for unit in made] == [False, False, True]
    assert {unit["judgments"][0]["rater"] for unit in made} == {"l1"}
    assert meta(made[0])["finish_reason"] == "solution"


def test_prm800k_ends_where_an_error_was_found() -> None:
    step = {"completions": [{"text": "2+2=5", "rating": -1}], "human_completion": None, "chosen_completion": None}
    unit = only("prm800k", label={"steps": [step], "finish_reason": "found_error"})
    assert unit["judgments"][0]["step_labels"] == [0.0]
    with pytest.raises(UnusableRowError, match="names no completion"):
        units("prm800k", label={"steps": [{**step, "chosen_completion": 3}]})


def test_trl_conversational_and_implicit_prompts() -> None:
    talk = [{"role": "user", "content": "A color?"}]
    sides = {
        side: [*talk, {"role": "assistant", "content": text}]
        for side, text in (("chosen", "Red."), ("rejected", "Sea."))
    }
    unit = only("trl", prompt=None, **sides)
    assert (json.loads(unit["prompt"]), texts(unit)) == ([{"content": "A color?", "role": "user"}], ["Red.", "Sea."])
    unit = only("trl", prompt=talk, margin=0.5, **sides)
    assert (texts(unit), unit["judgments"][0]["strength"]) == (["Red.", "Sea."], 0.5)
    (unit,) = find("trl").units({"chosen": "The sky is gray today", "rejected": "The sky is green"})
    assert (json.loads(unit["prompt"])[0]["content"], texts(unit)) == ("The sky is", [" gray today", " green"])
    with pytest.raises(UnusableRowError, match="share no beginning"):
        list(find("trl").units({"chosen": "Red", "rejected": "Sea"}))
    with pytest.raises(UnusableRowError, match="images"):
        units("trl", images=["x.png"])


def test_trl_unpaired_and_stepwise() -> None:
    assert scores(only("trl-unpaired", label=False)["judgments"][0]) == {(0, "desirable"): 0.0}
    unit = only("trl-stepwise", labels=[True, False])
    assert (unit["kind"], unit["judgments"][0]["step_labels"]) == ("steps", [1.0, 0.0])


def test_house_raters_follow_the_label_type() -> None:
    kinds = {
        "human": ("annotator", "human"),
        "human expert": ("annotator-expert", "human"),
        "verified": ("verified", "verifier"),
        "constructed, checked by people": ("constructed", "constructed"),
        "llm-judge": ("llm-judge", "llm"),
    }
    for label_type, rater in kinds.items():
        (verdict,) = only("pairs", meta={"label_type": label_type})["judgments"]
        assert (verdict["rater"], verdict["rater_kind"]) == rater
    judged = only("pairs", meta={"label_type": "llm-judge", "judge": "gpt4_turbo, weighted", "models": ["m", "n"]})
    assert judged["judgments"][0]["rater"] == "gpt4_turbo"
    assert [answer["generator"] for answer in judged["responses"]] == ["m", "n"]


def test_house_grades_become_scores_and_gaps_strength() -> None:
    graded = {"grades_chosen": [1, 2], "grades_rejected": [0, 1], "mean_gap": 1.0, "label_type": "human"}
    (verdict,) = only("pairs", meta=graded)["judgments"]
    assert scores(verdict) == {(0, "grade"): 1.5, (1, "grade"): 0.5}
    assert (verdict["strength"], verdict["rater"]) == (1.0, "annotator-majority")


def test_a_talk_gives_one_unit_a_thumb() -> None:
    first, second = units("talks")
    assert (first["source_row"], texts(first), scores(first["judgments"][0])) == ("1#1", ["Hi"], {(0, "thumb"): 1.0})
    assert (texts(second), scores(second["judgments"][0])) == (["Cheese"], {(0, "thumb"): 0.0})
    assert len(json.loads(second["prompt"])) == 3
    assert meta(first)["dialog_score"] == 4
    plain = [{key: value for key, value in turn.items() if key != "thumb"} for turn in EXAMPLES["talks"]["messages"]]
    whole = only("talks", messages=plain)
    assert (texts(whole), scores(whole["judgments"][0])) == (["Cheese"], {(0, "dialog_score"): 4.0})
    greeting = [{"role": "assistant", "content": "Yo", "thumb": "up"}, *plain]
    assert meta(only("talks", messages=greeting))["thumbs_without_user_turn"] == 1


def test_edits_left_unchanged_are_no_edit() -> None:
    given = [{"annotator": "h0", "text": "Red.", "changed": True}, {"annotator": "h1", "text": "Rd.", "changed": False}]
    first, second = only("edits", edits=given, edited=None)["judgments"]
    assert json.loads(first["edit"])[0]["content"] == "Red."
    assert (second["rater"], second["edit"], json.loads(second["extra"])) == ("h1", None, {"changed": False})


def test_labels_of_responses_are_classes_not_ranks() -> None:
    labeled = [
        {"text": "Red.", "labels": [{"annotator": "h1", "label": "full"}, {"annotator": "h2", "label": "part"}]},
        {"text": "Sea.", "labels": [{"annotator": "h1", "label": "none"}]},
    ]
    first, second = only("nway", responses=labeled)["judgments"]
    assert (first["rater"], first["ranks"], scores(first)) == ("h1", None, {(0, "full"): 1.0, (1, "none"): 1.0})
    assert scores(second) == {(0, "part"): 1.0}


def spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to every value inside a row."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from spots(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    key, *rest = path
    if isinstance(value, list):
        return [replaced(item, tuple(rest), by) if at == key else item for at, item in enumerate(value)]
    return {name: replaced(item, tuple(rest), by) if name == key else item for name, item in value.items()}


SPOTS = [(name, path) for name, row in ((name, EXAMPLES[name]) for name in WITH_TEXTS) for path in spots(dict(row))]
TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)


NASTY = (None, [], {}, " ", "x", 7, True, math.nan, 10**400, ["x", "y"], {"a": 1}, [[]], [{}])


def check(name: str, rows: list[dict[str, Any]]) -> UnitStream:
    stream = stream_of([Parsed(line, row) for line, row in enumerate(rows, 1)], find(name), path="f")
    lines = {unit["line"] for batch in stream.batches() for unit in batch.to_pylist()}
    assert stream.n_lines == len(rows)
    assert len(lines) + stream.n_rejected == len(rows)
    assert stream.rejects().num_rows == stream.n_rejected
    assert not [reason for reason in stream.reasons if reason.startswith(SHAPE)], stream.rejects().to_pylist()
    return stream


@pytest.mark.parametrize("name", WITH_TEXTS)
def test_a_nasty_value_in_any_place_makes_units_or_a_reject_with_a_reason(name: str) -> None:
    good = dict(EXAMPLES[name])
    rows = [replaced(good, path, value) for path in spots(good) if path != ("id",) for value in NASTY]
    check(name, [good, *(row | {"id": f"row {at}"} if "id" in good else row for at, row in enumerate(rows))])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SPOTS), JSON)
def test_any_value_in_any_place_makes_units_or_a_reject_with_a_reason(spot: tuple[str, Any], value: Any) -> None:
    name, path = spot
    check(name, [dict(EXAMPLES[name]), replaced(dict(EXAMPLES[name]), path, value)])
