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
from data_pipelines.sources.reading.streams import (
    Parsed,
)
from data_pipelines.sources.unit_builder import UnusableRowError
from rmkit.errors import DataError, UsageError

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


EXAMPLES: dict[str, Mapping[str, Any]] = {
    "pairs": {"id": "1", "source": "s", "prompt": CONTEXT, "chosen": "Red.", "rejected": "Sea.", "meta": {}},
    "annotators": {
        "id": "1",
        "source": "s",
        "prompt": CONTEXT,
        "response_a": "Red.",
        "response_b": "Sea.",
        "majority": "a",
        "labels": [{"annotator": "h1", "preference": "a", "reason": "fits"}],
        "meta": {"label_type": "human"},
    },
    "nway": {
        "id": "1",
        "source": "s",
        "prompt": CONTEXT,
        "meta": {"label_type": "verified"},
        "responses": [{"text": "Red.", "score": 1, "model": "m"}, {"text": "Sea.", "score": 0, "model": "n"}],
    },
    "steps": {
        "id": "1",
        "source": "s",
        "prompt": "2+2+2?",
        "steps": ["2+2=4", "4+2=7"],
        "labels": [1, 0],
        "first_error": 1,
        "meta": {"label_type": "human", "generator": "m"},
    },
    "rubrics": {"id": "1", "source": "s", "prompt": CONTEXT, "rubric": [{"criterion": "a color?"}], "meta": {}},
    "edits": {"id": "1", "source": "s", "prompt": CONTEXT, "original": "Rd.", "edited": "Red.", "meta": {}},
    "talks": {
        "id": "1",
        "source": "s",
        "persona": ["I paint."],
        "dialog_score": 4,
        "meta": {"label_type": "human"},
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi", "thumb": "up"},
            {"role": "user", "content": "A color?"},
            {"role": "assistant", "content": "Cheese", "thumb": "down"},
        ],
    },
    "answers": {
        "id": "1",
        "source": "s",
        "prompt": CONTEXT,
        "response": "Red.",
        "meta": {},
        "labels": [{"annotator": "h1", "rating": "Bad", "score": 1, "explanation": "no"}],
    },
    "hh": {
        "chosen": "\n\nHuman: A color?\n\nAssistant: Which?\n\nHuman: Any.\n\nAssistant: Red.",
        "rejected": "\n\nHuman: A color?\n\nAssistant: Which?\n\nHuman: Any.\n\nAssistant: Cheese.",
    },
    "hh-red-team": {
        "transcript": "\n\nHuman: Say it.\n\nAssistant: No.\n\nHuman: Please.",
        "min_harmlessness_score_transcript": -0.5,
        "num_params": "52B",
        "model_type": "rlhf",
        "rating": 1.0,
        "task_description": "rude words",
        "task_description_harmlessness_score": 0.1,
        "red_team_member_id": 7,
        "is_upworker": False,
        "tags": None,
    },
    "ultrafeedback": {
        "source": "flan",
        "instruction": "A color?",
        "models": ["model-R", "model-S", "model-B"],
        "completions": [
            completion("Red.", "5454", 4.5, 8.0),
            completion("Sea.", "1111", 1.0, 10.0),
            completion("Blue.", "4545", 4.5, 7.0),
        ],
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    },
    "ultrafeedback-binarized": {
        "prompt": "A color?",
        "prompt_id": "ab12",
        "score_chosen": 8.5,
        "score_rejected": 6.0,
        "chosen": [{"role": "user", "content": "A color?"}, {"role": "assistant", "content": "Red."}],
        "rejected": [{"role": "user", "content": "A color?"}, {"role": "assistant", "content": "Sea."}],
        "messages": [{"role": "user", "content": "A color?"}, {"role": "assistant", "content": "Red."}],
    },
    "ultrafeedback-argilla": {
        "source": "flan",
        "instruction": "A color?",
        "chosen_response": "Red.",
        "rejected_response": "Sea.",
        "chosen_avg_rating": 5.0,
        "rejected_avg_rating": 2.0,
        "chosen_model": "m",
        "rejected_model": "n",
    },
    "helpsteer": HELPSTEER,
    "helpsteer2-preference": {
        "split": "val",
        "prompt": "A color?",
        "response_1": "Red.",
        "response_2": "Sea.",
        "preference_strength": -2,
        "preference_statement": "1 is better",
        "preference_elaboration": "it is a color",
        "three_most_similar_preferences": [{"statement": "1", "elaboration": "e", "strength": -2}],
        "all_preferences_unprocessed": [
            {"strength": -2, "statement": "1 is a color", "elaboration": "e"},
            {"strength": 1, "statement": "2 is poetic", "elaboration": "f"},
            {"strength": -100, "statement": "neither", "elaboration": "g"},
        ],
    },
    "helpsteer3-preference": PREFERENCE3,
    "helpsteer3-edit-quality": {
        "domain": "general",
        "language": "english",
        "context": CONTEXT,
        "original_response": "Rd.",
        "good_edited_response": "Red.",
        "bad_edited_response": "Green.",
        "feedback": ["fix the spelling"],
    },
    "helpsteer3-edit": {
        "domain": "general",
        "language": "english",
        "context": CONTEXT,
        "original_response": "Rd.",
        "edited_response": "Red.",
        "change_summary": "spelling",
        "feedback": ["fix the spelling"],
    },
    "helpsteer3-principle": {
        "domain": "general",
        "language": "english",
        "context": CONTEXT,
        "response": "Red.",
        "principle": "brevity",
        "fulfilment": "Yes",
    },
    "helpsteer3-feedback": {
        "domain": "general",
        "language": "english",
        "context": CONTEXT,
        "response": "Red.",
        "feedback": ["The response is mostly helpful.", "Fine."],
    },
    "published-rubrics": {
        "id": "b1",
        "capability": "planning",
        "system_prompt": "You plan.",
        "input": "Plan a day.",
        "reference_answer": "Rest.",
        "score_rubric": {"criteria": "Is it feasible?"} | {f"score{i}_description": f"level {i}" for i in range(1, 6)},
    },
    "shp": {
        "post_id": "p1",
        "domain": "askculinary_train",
        "upvote_ratio": 0.98,
        "history": "Which oil?",
        "c_root_id_A": "a1",
        "c_root_id_B": "b1",
        "created_at_utc_A": 10,
        "created_at_utc_B": 9,
        "score_A": 2,
        "score_B": 8,
        "human_ref_A": "Olive.",
        "human_ref_B": "Rapeseed, it is neutral.",
        "labels": 0,
        "seconds_difference": 1.0,
        "score_ratio": 4.0,
    },
    "nectar": {
        "prompt": "\n\nHuman: A color?\n\nAssistant: ",
        "turns": 1,
        "num_responses": 3,
        "source": ["lmsys-chat-1m"],
        "answers": [
            {"answer": "Sea.", "model": "n", "rank": 3.0},
            {"answer": "Red.", "model": "m", "rank": 1.0},
            {"answer": "Blue.", "model": "o", "rank": 2.0},
        ],
        "good_natured": True,
    },
    "webgpt": {
        "question": {"dataset": "eli5", "id": "q1", "full_text": "Why is the sky blue?"},
        "quotes_0": {"title": ["Sky"], "extract": ["Light scatters."]},
        "quotes_1": {"title": [], "extract": []},
        "answer_0": "It is not.",
        "answer_1": "Light scatters [1].",
        "score_0": -0.75,
        "score_1": 0.75,
        "tokens_0": {"prefix": [1], "completion": [2]},
        "tokens_1": {"prefix": [1], "completion": [3]},
    },
    "prm800k": {
        "labeler": "l1",
        "timestamp": "2022-07-30T14:42:50",
        "generation": None,
        "is_quality_control_question": False,
        "is_initial_screening_question": False,
        "question": {"problem": "2+2+2?", "ground_truth_solution": "6", "ground_truth_answer": "6"},
        "label": {
            "steps": [
                {
                    "completions": [
                        {"text": "2+2=4", "rating": 1, "flagged": False},
                        {"text": "2+2=5", "rating": -1, "flagged": False},
                    ],
                    "human_completion": None,
                    "chosen_completion": 0,
                },
                {
                    "completions": [{"text": "Hm.", "rating": 0, "flagged": None}],
                    "human_completion": {"text": "4+2=6", "rating": None, "source": "human", "flagged": False},
                    "chosen_completion": None,
                },
            ],
            "total_time": 60000,
            "finish_reason": "solution",
        },
    },
    "argilla": {
        "id": "r1",
        "status": "completed",
        "metadata": {},
        "vectors": {},
        "_server_id": "u",
        "fields": {"prompt": "A color?", "response-1": "Red.", "response-2": "Sea."},
        "suggestions": {},
        "responses": {"preference": [{"value": "response-1", "user_id": "u1"}]},
    },
    "label-studio": {
        "id": 3,
        "data": {"prompt": "A color?", "answer1": "Red.", "answer2": "Sea."},
        "predictions": [],
        "annotations": [
            {
                "id": 9,
                "completed_by": 2,
                "was_cancelled": False,
                "lead_time": 4.2,
                "result": [
                    {"from_name": "pw", "to_name": "answer1,answer2", "type": "pairwise", "value": {"selected": "left"}}
                ],
            }
        ],
    },
    "trl-stepwise": {"prompt": "2+2+2?", "completions": ["2+2=4", "4+2=7"], "labels": [True, False]},
    "trl-unpaired": {"prompt": "A color?", "completion": "Red.", "label": True},
    "trl": {"prompt": "A color?", "chosen": "Red.", "rejected": "Sea."},
    "generic": {"prompt": "A color?", "response_a": "Red.", "response_b": "Sea.", "preference": "b"},
}

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
    "trl-unpaired": ({"label": "good"}, "label is not true or false"),
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


def test_every_format_has_an_example_and_a_malformed_row() -> None:
    names = [source.name for source in all_sources()]
    assert list(EXAMPLES) == names
    assert list(MALFORMED) == names


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_row_is_recognized_as_its_own_format(name: str) -> None:
    assert detect([EXAMPLES[name]], path=UNIT).name == name
    assert units(name)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_row_says_why(name: str) -> None:
    changes, reason = MALFORMED[name]
    with pytest.raises(UnusableRowError, match=reason):
        units(name, **changes)


def test_unknown_columns_and_unknown_names_are_one_clear_error() -> None:
    with pytest.raises(DataError, match=r"columns color, shape;.*--format.*--map"):
        detect([{"shape": 1}, {"color": 2}], path="f.jsonl")
    with pytest.raises(UsageError, match="unknown source 'hhh'; did you mean 'hh'"):
        find("hhh")


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
    unit = only("ultrafeedback-binarized")
    assert [len(json.loads(answer["messages"])) for answer in unit["responses"]] == [1, 1]
    assert (texts(unit), unit["judgments"][0]["strength"]) == (["Red.", "Sea."], 2.5)
    assert meta(unit) == {"prompt_id": "ab12"}
    argilla = only("ultrafeedback-argilla")
    assert [answer["generator"] for answer in argilla["responses"]] == ["m", "n"]
    assert argilla["judgments"][0]["strength"] == 3.0
    hyphened = {"prompt": "A color?", "chosen-rating": 5.0, "rejected-rating": 4.0, "chosen-model": "m"}
    row = {**hyphened, "chosen": "Red.", "rejected": "Sea.", "rejected-model": "n", "source": "flan"}
    assert detect([row], path=UNIT).name == "ultrafeedback-binarized"
    (unit,) = find("ultrafeedback-binarized").units(row)
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
    unit = only("trl", prompt=None, chosen="The sky is gray today", rejected="The sky is green")
    assert (json.loads(unit["prompt"])[0]["content"], texts(unit)) == ("The sky is", [" gray today", " green"])
    with pytest.raises(UnusableRowError, match="share no beginning"):
        units("trl", prompt=None, chosen="Red", rejected="Sea")
    with pytest.raises(UnusableRowError, match="images"):
        units("trl", images=["x.png"])


def test_trl_unpaired_and_stepwise() -> None:
    assert scores(only("trl-unpaired", label=False)["judgments"][0]) == {(0, "desirable"): 0.0}
    unit = only("trl-stepwise")
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


SPOTS = [(name, path) for name, row in EXAMPLES.items() for path in spots(dict(row))]
TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)


NASTY = (None, [], {}, " ", "x", 7, True, math.nan, 10**400, ["x", "y"], {"a": 1}, [[]], [{}])


def check(name: str, rows: list[dict[str, Any]]) -> UnitStream:
    stream = UnitStream([Parsed(line, row) for line, row in enumerate(rows, 1)], find(name), path="f")
    lines = {unit["line"] for batch in stream.batches() for unit in batch.to_pylist()}
    assert stream.n_lines == len(rows)
    assert len(lines) + stream.n_rejected == len(rows)
    assert stream.rejects().num_rows == stream.n_rejected
    assert not [reason for reason in stream.reasons if reason.startswith(SHAPE)], stream.rejects().to_pylist()
    return stream


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_nasty_value_in_any_place_makes_units_or_a_reject_with_a_reason(name: str) -> None:
    good = dict(EXAMPLES[name])
    rows = [replaced(good, path, value) for path in spots(good) if path != ("id",) for value in NASTY]
    check(name, [good, *(row | {"id": f"row {at}"} if "id" in good else row for at, row in enumerate(rows))])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SPOTS), JSON)
def test_any_value_in_any_place_makes_units_or_a_reject_with_a_reason(spot: tuple[str, Any], value: Any) -> None:
    name, path = spot
    check(name, [dict(EXAMPLES[name]), replaced(dict(EXAMPLES[name]), path, value)])
