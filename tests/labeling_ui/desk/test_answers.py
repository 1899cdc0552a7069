"""Every kind of answer in stored positions, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from labeling_ui.desk.answers import Answer, read_answer, says
from labeling_ui.desk.items import Item
from labeling_ui.projects.definition import Aspect, TaskDefinition, parse_definition, read_definition, shipped
from rmkit.errors import ConfigError, DataError
from rmkit.types import Message

SHOWN = (2, 0, 1)  # the response stored third stands first


def _item(texts: tuple[str, ...] = ("alpha one", "beta two", "gamma three"), ends: tuple[int, ...] = ()) -> Item:
    responses = tuple((Message("assistant", text),) for text in texts)
    return Item(0, "ab" * 16, "list", (Message("user", "Q"),), responses, ends, None, None, None, {})


def _task(kind: str, **more: Any) -> TaskDefinition:
    return TaskDefinition(**{"name": "t", "kind": kind, "title": "T", "question": "Q?", **more})


def _says(kind: str, answer: dict[str, Any], *, item: Item | None = None, shown: tuple[int, ...] = SHOWN, **more: Any):  # type: ignore[no-untyped-def]
    return says(_task(kind, **more), item or _item(), shown, read_answer(answer))


def test_a_ranking_keeps_what_was_entered_ties_and_gaps_included() -> None:
    """Shown places 1, 3, 1 (gap left open): the responses stored third and second share the first rank."""
    assert _says("ranking", {"places": [1, 3, 1]}) == {"ranks": [1, 0, 0]}
    assert _says("ranking", {"places": [0, None, 4]}, top_k=2) == {"ranks": [None, 1, 0]}


@pytest.mark.parametrize(("places", "told"), [([0, 1], "all 3"), ([0, None, None], "rank at least 3"), (None, "all 3")])
def test_a_ranking_that_leaves_out_too_much_is_refused(places: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        _says("ranking", {"places": places})


def test_ratings_go_to_the_response_that_was_rated() -> None:
    aspects = (Aspect(name="truth", question="?"), Aspect(name="tone", question="?", low=0, high=1))
    answer = {"ratings": {"truth": [5, None, 1], "tone": [None, 1, None]}}
    assert _says("ratings", answer, aspects=aspects)["scores"] == [
        {"response": 2, "aspect": "truth", "value": 5.0},
        {"response": 1, "aspect": "truth", "value": 1.0},
        {"response": 0, "aspect": "tone", "value": 1.0},
    ]
    for wrong, told in (
        ({"truth": [6, 1, 1]}, "from 1 to 5, got 6"),
        ({"truth": [1]}, "1 of 3"),
        ({"style": [1, 1, 1]}, "no aspect 'style'"),
        ({}, "rate at least one"),
    ):
        with pytest.raises(DataError, match=told):
            _says("ratings", {"ratings": wrong}, aspects=aspects)


def test_steps_end_at_the_first_wrong_one() -> None:
    item = _item(("one two three",), (4, 8, 13))
    assert item.steps == ["one", "two", "three"]
    assert _says("steps", {"first_wrong": 1}, item=item, shown=(0,)) == {"step_labels": [1.0, 0.0, None]}
    assert _says("steps", {"first_wrong": None}, item=item, shown=(0,)) == {"step_labels": [1.0, 1.0, 1.0]}
    assert _says("steps", {"steps": [1, 0, 1]}, item=item, shown=(0,)) == {"step_labels": [1.0, 0.0, 1.0]}
    with pytest.raises(DataError, match="there are 3 steps"):
        _says("steps", {"first_wrong": 3}, item=item, shown=(0,))


def test_an_edit_replaces_the_last_assistant_turn_of_the_response_shown() -> None:
    told = _says("edit", {"better": 0, "edit": "gamma four"})
    assert told == {"edit": [{"role": "assistant", "content": "gamma four"}], "extra": {"edited": 2}}
    with pytest.raises(DataError, match="unchanged"):
        _says("edit", {"better": 0, "edit": " gamma three "})


def test_thumbs_and_faces_are_spread_over_minus_one_to_one() -> None:
    assert _says("reaction", {"reaction": 0}) == {"value": -1.0}
    assert _says("reaction", {"reaction": 1}, reactions=("bad", "so so", "good")) == {"value": 0.0}
    with pytest.raises(DataError, match="one of 0 to 1"):
        _says("reaction", {"reaction": 2})


def test_a_span_is_found_in_the_response_it_was_copied_from() -> None:
    answer = {"spans": [{"place": 1, "text": "one", "label": "wrong"}]}
    assert _says("spans", answer)["spans"] == [{"response": 0, "start": 6, "end": 9, "text": "one", "label": "wrong"}]
    with pytest.raises(DataError, match="does not stand in the response"):
        _says("spans", {"spans": [{"place": 0, "text": "one", "label": "wrong"}]})
    with pytest.raises(DataError, match="no label 'nice'"):
        _says("spans", {"spans": [{"place": 1, "text": "one", "label": "nice"}]})


def test_reviewed_criteria_need_their_new_wording() -> None:
    kept = [{"criterion": 0, "decision": "accept"}, {"criterion": 1, "decision": "edit", "text": "shorter"}]
    assert _says("rubric_review", {"criteria": kept}, shown=())["spans"] == kept
    with pytest.raises(DataError, match="new wording"):
        _says("rubric_review", {"criteria": [{"criterion": 0, "decision": "edit"}]}, shown=())


def test_a_reason_that_the_task_asks_for_is_needed() -> None:
    with pytest.raises(DataError, match="asks for a reason"):
        _says("adjudication", {"better": 0, "rationale": "  "}, shown=(1, 0), ask_rationale=True)
    answer = {"better": 0, "strength": 1, "rationale": "it is right"}
    told = _says("adjudication", answer, shown=(1, 0), ask_rationale=True)
    assert told == {"ranks": [1, 0], "strength": 1.0, "rationale": "it is right"}


@pytest.mark.parametrize(
    ("kind", "answer", "told"),
    [
        ("pairwise", {}, "says better; nothing was said"),
        ("pairwise", {"strength": 2}, "says better; nothing was said"),
        ("pairwise", {"better": None, "strength": 2}, "a tie has no strength, got 2"),
        ("pairwise", {"better": 0, "ratings": {}}, "ratings has no meaning in a pairwise answer"),
        ("pairwise", {"verdict": "skip", "better": 0}, "better has no meaning in an answer with verdict skip"),
        ("steps", {}, "says first_wrong or steps"),
        ("steps", {"steps": None}, "steps is null"),
        ("steps", {"steps": [None, None, None]}, "no step has a verdict"),
        ("steps", {"steps": [1, 0, 1], "first_wrong": 1}, "two answers"),
        ("ranking", {"better": 0}, "better has no meaning in a ranking answer"),
        ("ranking", {}, "says places"),
        ("reaction", {}, "says reaction"),
        ("spans", {}, "says spans"),
        ("spans", {"spans": None}, "spans is null"),
        ("ratings", {}, "says ratings"),
        ("edit", {"better": 0}, "unchanged"),
        ("rubric_review", {"criteria": []}, "at least one criterion"),
    ],
)
def test_an_answer_that_says_nothing_is_no_tie_and_no_all_right(kind: str, answer: dict[str, Any], told: str) -> None:
    """`{}` was stored as a tie, and as a solution without a wrong step."""
    item = _item(("one two three",), (4, 8, 13)) if kind == "steps" else None
    more = {"aspects": (Aspect(name="truth", question="?"),)} if kind == "ratings" else {}
    with pytest.raises(DataError, match=told):
        _says(kind, answer, item=item, shown=(0,) if kind == "steps" else SHOWN, **more)


def test_a_strength_that_was_not_said_is_not_the_weakest_one() -> None:
    assert _says("pairwise", {"better": 0}, shown=(1, 0)) == {"ranks": [1, 0]}
    assert _says("pairwise", {"better": None}, shown=(1, 0)) == {"ranks": [0, 0]}
    assert _says("spans", {"spans": []}) == {"spans": [{"label": "none"}]}


@pytest.mark.parametrize("values", [None, [], "tie", 1])
def test_what_is_no_object_is_no_answer(values: Any) -> None:
    with pytest.raises(DataError, match="expected a JSON object"):
        read_answer(values)


def test_unknown_fields_and_types_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="answer: beter: Extra inputs"):
        read_answer({"beter": 1})
    with pytest.raises(DataError, match="answer: strength"):
        read_answer({"better": 0, "strength": 9})


def test_every_shipped_task_loads_and_its_id_covers_every_word() -> None:
    ids = {read_definition(name).id for name in shipped()}
    assert len(ids) == len(shipped()) >= 9
    table = {"name": "t", "kind": "pairwise", "title": "T", "question": "Q?"}
    assert parse_definition(table, where="a").id != parse_definition(table | {"guidelines": "x"}, where="a").id


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"kind": "ratings"}, "ratings need at least one"),
        ({"overlap": 0}, "at least 1"),
        ({"gold_share": 0.4, "repeat_share": 0.2}, r"lie in \[0, 0.5\], got 0.6"),
        ({"quiz": [{"text": "?", "choices": ["a"], "answer": 1}]}, "answer 1 is none of the 1 choices"),
        ({"kin": "pairwise"}, "unknown key 'kin'"),
    ],
)
def test_a_definition_that_cannot_work_is_refused(values: dict[str, Any], told: str) -> None:
    table = {"name": "t", "kind": "pairwise", "title": "T", "question": "Q?"} | values
    with pytest.raises(ConfigError, match=told):
        parse_definition(table, where="t.toml")


def test_answer_fields_default_to_nothing() -> None:
    assert Answer().model_dump(exclude_none=True) == {"verdict": "ok"}
