"""What each kind of task lets people say: the form's choices and keys, and the answer in what a browser hands back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from labeling_ui.desk.answers import says
from labeling_ui.desk.items import Item
from labeling_ui.projects.definition import Aspect, TaskDefinition
from labeling_ui.web.forms import Form, edited, form
from rmkit.errors import DataError
from rmkit.types import Conversation, Message

ORDER = (2, 0, 1)  # stored positions of what is shown as A, B and C


def _said(text: str) -> Conversation:
    return (Message("assistant", text),)


ITEM = Item(
    number=0,
    unit="0" * 32,
    kind="list",
    prompt=(Message("user", "What is 2 + 2?"),),
    responses=(_said("four, four"), _said("five"), _said("\x1b[1mfo\r\nur and four")),
    step_ends=(),
    rubric=json.dumps(
        [{"criterion": "right?"}, {"criterion": "short?"}, {"criterion": "kind?", "levels": {"0": "no", "2": "yes"}}]
    ),
    gold=None,
    reason=None,
    evidence={},
)
SOLUTION = replace(ITEM, responses=(_said("a b c"),), step_ends=(1, 3, 5))


def _task(kind: str, **options: Any) -> TaskDefinition:
    return TaskDefinition(name="t", kind=kind, title="T", question="Q?", **options)  # type: ignore[arg-type]


def _form(task: TaskDefinition, item: Item = ITEM, order: tuple[int, ...] = ORDER) -> Form:
    return form(task, item, [item.responses[position] for position in order])


def _payload(task: TaskDefinition, values: object, item: Item = ITEM, order: tuple[int, ...] = ORDER) -> dict[str, Any]:
    return says(task, item, order, _form(task, item, order).answer(values))


def _rated(response: int, aspect: str, value: float) -> dict[str, object]:
    return {"response": response, "aspect": aspect, "value": value}


TRUTH, STYLE = Aspect(name="truth", question="?"), Aspect(name="style", question="?", low=-1, high=1)


@pytest.mark.parametrize(
    ("task", "values", "payload"),
    [
        (_task("ranking"), {"cells": [[3, 1, 1]]}, {"ranks": [0, 0, 1]}),
        (_task("ranking", top_k=1), {"cells": [[None, 2, None]]}, {"ranks": [0, None, None]}),
        (
            _task("ratings", aspects=(TRUTH, STYLE)),
            {"cells": [[4, None, 2], [None, -1, None]]},
            {"scores": [_rated(2, "truth", 4.0), _rated(1, "truth", 2.0), _rated(0, "style", -1.0)]},
        ),
        (
            _task("rubric_review"),
            {"cells": [["reject"], [None], ["edit"]], "texts": {"2": "friendly?"}},
            {
                "spans": [
                    {"criterion": 0, "decision": "reject"},
                    {"criterion": 2, "decision": "edit", "text": "friendly?"},
                ]
            },
        ),
        (
            _task("edit"),
            {"place": 2, "texts": {"2": "six"}},
            {"edit": [{"role": "assistant", "content": "six"}], "extra": {"edited": 1}},
        ),
        # The second "four" of a response that has it twice, and one behind an escape and a CRLF.
        (
            _task("spans"),
            {"spans": [{"place": 1, "start": 6, "text": "four", "label": "good"}]},
            {"spans": [{"response": 0, "start": 6, "end": 10, "text": "four", "label": "good"}]},
        ),
        (
            _task("spans"),
            {"spans": [{"place": 0, "start": 18, "text": "four", "label": "wrong"}]},
            {"spans": [{"response": 2, "start": 15, "end": 19, "text": "four", "label": "wrong"}]},
        ),
        (
            _task("rubric"),
            {"cells": [[1, 0, None], [None, None, None], [None, 2, None]]},
            {"scores": [_rated(2, "right?", 1.0), _rated(0, "right?", 0.0), _rated(0, "kind?", 2.0)]},
        ),
        (_task("spans"), {"spans": []}, {"spans": [{"label": "none"}]}),
    ],
)
def test_what_a_browser_hands_back_becomes_the_payload(
    task: TaskDefinition, values: object, payload: dict[str, Any]
) -> None:
    assert _payload(task, values) == payload


def test_the_choices_of_a_pair_and_of_steps_are_their_keys() -> None:
    pair = replace(ITEM, responses=ITEM.responses[:2])
    task = _task("pairwise", strengths=("better", "much better"))
    options = _form(task, pair, (1, 0)).data["options"]
    assert [f"{one['key']} {one['label']}" for one in options] == [
        "1 A much better",
        "2 A better",
        "3 tie",
        "4 B better",
        "5 B much better",
    ]
    assert _payload(task, {"choice": 4}, pair, (1, 0)) == {"ranks": [0, 1], "strength": 2.0}
    assert _payload(task, {"choice": 2}, pair, (1, 0)) == {"ranks": [0, 0]}
    steps = _task("steps")
    assert [one["key"] for one in _form(steps, SOLUTION, (0,)).data["options"]] == ["0", "1", "2", "3"]
    assert _payload(steps, {"choice": 2}, SOLUTION, (0,)) == {"step_labels": [1.0, 0.0, None]}
    assert _payload(steps, {"choice": 0}, SOLUTION, (0,)) == {"step_labels": [1.0, 1.0, 1.0]}


def test_turns_are_graded_in_the_prompt_and_in_the_response() -> None:
    prompt = (Message("user", "hi"), Message("assistant", "yes?"), Message("user", "2 + 2?"))
    response = (Message("assistant", ""), Message("tool", "4"), Message("assistant", "four"))
    item, task = replace(ITEM, prompt=prompt, responses=(response,)), _task("turns", grades=("bad", "fair", "good"))
    assert [row["label"] for row in _form(task, item, (0,)).data["rows"]] == ["turn 1", "turn 2", "turn 3"]
    assert _payload(task, {"cells": [[1], [None], [2]]}, item, (0,)) == {
        "scores": [_rated(0, "turn 1", 0.5), _rated(0, "turn 3", 1.0)]
    }
    for cells, reason in (([[None]] * 3, "at least one turn"), ([[1]], "3 turns"), ([[3]] * 3, "one of 0 to 2")):
        with pytest.raises(DataError, match=reason):
            _payload(task, {"cells": cells}, item, (0,))


@pytest.mark.parametrize(
    ("low", "high", "keys"),
    [(1, 5, "12345"), (0, 3, "0123"), (1, 10, "1234567890"), (-1, 1, "123"), (5, 11, "1234567")],
)
def test_a_digit_is_the_value_where_there_is_one(low: int, high: int, keys: str) -> None:
    task = _task("ratings", aspects=(Aspect(name="a", question="?", low=low, high=high),))
    assert "".join(one["key"] for one in _form(task).data["rows"][0]["options"]) == keys


def test_a_review_starts_empty_and_an_edit_needs_a_new_text() -> None:
    with pytest.raises(DataError, match="review at least one criterion"):
        _payload(_task("rubric_review"), {"cells": [[None], [None], [None]], "texts": {}})
    with pytest.raises(DataError, match="needs its new wording"):
        _payload(_task("rubric_review"), {"cells": [["edit"], [None], [None]], "texts": {}})
    with pytest.raises(DataError, match="unchanged"):
        _payload(_task("edit"), {"place": 0, "texts": {}})


def test_what_differs_from_the_start_is_shown_only_once_it_does() -> None:
    shown = [ITEM.responses[position] for position in ORDER]
    assert edited(_task("edit"), shown, {}) is None
    assert edited(_task("edit"), shown, {"place": 1, "texts": {"1": " four, four "}}) is None
    assert edited(_task("edit"), shown, {"place": 1, "texts": {"1": "4"}}) == ("four, four", "4")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("ranking", None),
        ("ranking", {"cells": [[1]]}),
        ("ranking", {"cells": [["x", 1, 1]]}),
        ("ranking", {}),
        ("edit", {"place": 9, "texts": {}}),
        ("edit", {"place": "0", "texts": {"0": "x"}}),
        ("spans", {"spans": [{"place": 1, "start": 5, "text": "four", "label": "good"}]}),
        ("spans", {"spans": [7]}),
        ("rubric", {"cells": [[1, 0, 1], [1, 0, 1], [1, 0, 1]]}),
        ("rubric", {"cells": [[1, 0, 1]]}),
        ("rubric", {"cells": [[None] * 3] * 3}),
        ("rubric_review", {"cells": [["burn"]], "texts": {}}),
    ],
)
def test_what_is_no_answer_to_the_form_is_refused_in_one_line(kind: str, values: object) -> None:
    with pytest.raises(DataError, match=r"^(answer: .*|the page sent what is no answer to this form; reload it)$"):
        _payload(_task(kind), values)


def test_no_choice_is_taken_from_the_end() -> None:
    task = _task("pairwise")
    for choice in (-1, 7, True, "1", None):
        with pytest.raises(DataError, match="no answer to this form"):
            form(task, ITEM, []).answer({"choice": choice})
