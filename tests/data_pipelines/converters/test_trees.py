"""Rows as trees, and what the tree converters make of them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from data_pipelines.algorithms.trees import Reading, grown
from data_pipelines.converters import Example, NotConvertibleError, partial_starts, refinements, tree_labels, tree_pairs
from rmkit.errors import ConfigError, DataError, UsageError
from rmkit.ids import assistant_message, messages_json, user_message
from rmkit.types import Message

TEXTS = ("5 + 2 = 7\n7 * 2 = 14", "5 + 2 = 7\n7 * 2 = 15", "5 * 2 = 10\n10 + 2 = 12", "5 + 2 = 7\n7 * 2 = 14\nso 14")
RIGHT = (1.0, 0.0, 0.0, 1.0)


def example(texts: tuple[str, ...] = TEXTS, rated: tuple[float | None, ...] = RIGHT, **more: Any) -> dict[str, Any]:
    scores = [
        {"response": at, "aspect": "correct", "value": value} for at, value in enumerate(rated) if value is not None
    ]
    base: dict[str, Any] = {
        "prompt": user_message("?"),
        "responses": [assistant_message(text) for text in texts],
        "scores": scores,
        "step_ends": None,
        "meta": None,
    }
    return base | more


def sampled(at: int, start: int, n: int) -> dict[str, Any]:
    return {"response": at, "aspect": f"from_step_{start}", "value": float(n)}


def test_responses_share_the_steps_that_they_begin_with() -> None:
    result = grown(example(), Reading())
    assert len(result.tree) == 7  # the prompt, 5+2, three of 14 15 so-14, 5*2, 12
    assert result.at[0] == result.at[3][:2]
    assert result.outcome == RIGHT
    labels = list(tree_labels.convert(example(), tree_labels.Config(rule="any_correct")))
    assert [one.step_labels for one in labels] == [[1, 1], [1, 0], [0, 0], [1, 1, 1]]
    assert [one.kind for one in labels] == ["steps"] * 4
    assert labels[1].step_ends == [(10, 20)]
    assert labels[1].scores == [(0, "correct", 0.0)]
    ended = tree_labels.convert(example(), tree_labels.Config(rule="any_correct", until_error=True))
    assert [one.step_labels for one in ended][2] == [0, None]
    verdicts = tree_labels.convert(example(), tree_labels.Config(last_only=True))
    assert [one.step_labels for one in verdicts] == [[None, 1.0], [None, 0.0], [None, 0.0], [None, None, 1.0]]


def test_samples_from_a_prefix_count_only_behind_it_and_are_no_rows_of_their_own() -> None:
    texts = ("a\nb", "a\nc", "a\nd")
    scores = [sampled(0, 0, 1), sampled(1, 1, 2), sampled(2, 1, 1)]
    row = example(texts, (0.0, 1.0, 0.0))
    row = row | {"scores": [*row["scores"], *scores]}
    # root: 0 of 1; a: two of the continuations right, one wrong, and the solution wrong: 2 of 4
    [one] = tree_labels.convert(row, tree_labels.Config(rule="mean"))
    assert one.step_labels == [0.5, 0.0]
    both = list(tree_labels.convert(row, tree_labels.Config(rule="mean", continuations=True)))
    assert [other.step_labels for other in both][1] == [0.5, 1.0]


def test_pairs_part_at_one_step_and_carry_the_confidence() -> None:
    meta = json.dumps(
        {
            "tree": [
                {"id": 0, "parent": None, "step": ""},
                {"id": 1, "parent": 0, "step": "5 + 2 = 7", "visits": 30, "q": 0.9},
                {"id": 2, "parent": 0, "step": "5 * 2 = 10", "visits": 10, "q": 0.1},
            ]
        }
    )
    [one] = tree_pairs.convert(example(meta=meta), tree_pairs.Config(options={"merge": False}))
    assert [json.loads(text)[0]["content"] for text in one.responses] == ["5 + 2 = 7", "5 * 2 = 10"]
    assert one.p == [0.75, 0.25]
    assert one.step_ends == [[9], [10]]
    pairs = list(tree_pairs.convert(example(), tree_pairs.Config(rule="on_path")))
    texts = [[json.loads(text)[0]["content"] for text in one.responses] for one in pairs]
    assert texts == [["5 + 2 = 7", "5 * 2 = 10"], ["5 + 2 = 7\n7 * 2 = 14", "5 + 2 = 7\n7 * 2 = 15"]]
    assert pairs[1].origins[1] == 1


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": f"c-{name}", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_turns_of_a_trajectory_are_steps_and_equal_calls_one_node() -> None:
    def trajectory(*names: str, reply: str = "ok") -> str:
        turns = []
        for name in names:
            turns += [Message("assistant", "", tool_calls=(call(name),)), Message("tool", reply)]
        return messages_json(tuple(turns))

    row = example(("x", "y", "z"), (1.0, 0.0, 0.0))
    row = row | {
        "responses": [trajectory("look", "take"), trajectory("look", "drop", reply="no"), trajectory("run", "go")]
    }
    pairs = list(tree_pairs.convert(row, tree_pairs.Config(rule="on_path")))
    names = [
        [
            [turn["tool_calls"][0]["function"]["name"] for turn in json.loads(text) if turn["role"] == "assistant"]
            for text in one.responses
        ]
        for one in pairs
    ]
    assert names == [[["look"], ["run"]], [["look", "take"], ["look", "drop"]]]
    with pytest.raises(NotConvertibleError, match="turns of a trajectory"):
        list(tree_labels.convert(row, tree_labels.Config()))


def test_a_wrong_draft_is_mended_and_the_best_answer_cut() -> None:
    units = list(refinements.convert(example(), refinements.Config()))
    [first] = [one for one in units if "[BAD] 7 * 2 = 15" in (one.prompt or "")]
    assert json.loads(first.responses[0])[0]["content"] == TEXTS[0]
    cuts = list(partial_starts.convert(example(), partial_starts.Config()))
    assert [json.loads(one.responses[0])[0]["content"] for one in cuts] == ["5 + 2 = 7\n"]
    with pytest.raises(NotConvertibleError, match="hardly differ"):
        list(partial_starts.convert(example(rated=(1.0,) * 4), partial_starts.Config()))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (example(("a",), (None,)), "no rating 'correct' says"),
        (example(step_ends=[[3], [3], [3], [3]]), "do not rebuild the text"),
        (example(step_ends=[[10, 10, 20]] * 4), "no visible text"),
        (example(("a", " "), (1.0, 0.0)), "no assistant text"),
        (example((), ()), "no response"),
    ],
)
def test_what_is_no_tree_gives_nothing_and_says_why(row: Example, why: str) -> None:
    with pytest.raises(NotConvertibleError, match=why):
        list(tree_labels.convert(row, tree_labels.Config()))


def test_any_single_rating_counts_and_of_several_the_named_one() -> None:
    row = example(("a",), (1.0,))
    other = row | {"scores": [{"response": 0, "aspect": "score", "value": 0.5}]}
    assert grown(other, Reading()).outcome == (0.5,)
    both = row | {"scores": [*other["scores"], {"response": 0, "aspect": "help", "value": 3.0}]}
    with pytest.raises(DataError, match="'help', 'score'"):
        grown(both, Reading())
    assert grown(both, Reading(outcome="score")).outcome == (0.5,)
    assert math.isnan(grown(example(("a", "b"), (1.0, None)), Reading()).outcome[1])


def test_rules_are_checked_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match="did you mean 'mean'"):
        tree_labels.Config(rule="meen")
    with pytest.raises(ConfigError, match="gap"):
        tree_pairs.Config(rule="extremes", options={"gab": 1})


def test_what_failed_by_an_outage_is_in_no_pair() -> None:
    """Three tool calls to success, two failed siblings at the first and one at the third, and one outage."""
    texts = ("find\nopen\nread", "guess", "search\nopen", "find\nopen\nwrite", "ask\nwait")
    row = example(texts, (1.0, 0.0, 0.0, 0.0, 0.0))
    row = row | {"scores": [*row["scores"], {"response": 4, "aspect": "outage", "value": 1.0}]}
    pairs = list(tree_pairs.convert(row, tree_pairs.Config(rule="on_path")))
    sides = [tuple(json.loads(text)[0]["content"] for text in pair.responses) for pair in pairs]
    assert sides == [("find", "guess"), ("find", "search"), ("find\nopen\nread", "find\nopen\nwrite")]
    for chosen, rejected in sides:  # both share the prefix and differ at its end
        assert chosen.split("\n")[:-1] == rejected.split("\n")[:-1]
