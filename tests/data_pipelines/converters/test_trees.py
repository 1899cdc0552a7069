"""Rows as trees, and what the tree converters make of them."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from data_pipelines.algorithms.trees import Reading, grown
from data_pipelines.converters import Example, NotConvertibleError, partial_starts, refinements, tree_labels, tree_pairs
from rmkit import plugins
from rmkit.chat.steps import step_texts
from rmkit.errors import ConfigError, DataError, UsageError
from rmkit.ids import assistant_message, messages_json, parse_messages, user_message
from rmkit.types import Completion, Message

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


Turn = str | tuple[str, str]  # what is said, or said and called


def trajectory(*turns: Turn, reply: str = "ok") -> str:
    """Assistant turns, each call with its tool's reply behind it."""
    messages = []
    for turn in turns:
        text, name = (turn, "") if isinstance(turn, str) else turn
        messages.append(Message("assistant", text, tool_calls=(call(name),) if name else ()))
        messages += [Message("tool", reply, tool_call_id=f"c-{name}")] if name else []
    return messages_json(tuple(messages))


def agent(*responses: str, rated: tuple[float | None, ...]) -> dict[str, Any]:
    return example(("x",) * len(responses), rated) | {"responses": list(responses)}


def actions(text: str) -> list[str]:
    """What an assistant chose, turn by turn: the tool's name, else its words."""
    turns = [turn for turn in json.loads(text) if turn["role"] == "assistant"]
    return [turn["tool_calls"][0]["function"]["name"] if turn.get("tool_calls") else turn["content"] for turn in turns]


LOOK = ("I look.", "look")
AGENT = agent(
    trajectory(LOOK, ("", "take"), "Done: 14."),
    trajectory(LOOK, ("", "drop"), "Done: 15.", reply="no"),  # another reply is not another choice
    trajectory(LOOK, ("", "take"), ("", "wait"), "Done: 3."),
    trajectory("I guess 7."),
    rated=(1.0, 0.2, 0.1, 0.05),
)


def test_turns_of_a_trajectory_are_steps_and_equal_calls_one_node() -> None:
    row = agent(
        trajectory(("", "look"), ("", "take")),
        trajectory(("", "look"), ("", "drop"), reply="no"),
        trajectory(("", "run"), ("", "go")),
        rated=(1.0, 0.0, 0.0),
    )
    pairs = list(tree_pairs.convert(row, tree_pairs.Config(rule="on_path")))
    names = [[actions(text) for text in one.responses] for one in pairs]
    assert names == [[["look"], ["run"]], [["look", "take"], ["look", "drop"]]]
    assert [json.loads(text)[-1]["role"] for one in pairs for text in one.responses] == ["assistant"] * 4
    for no_words in (refinements, partial_starts):
        with pytest.raises(NotConvertibleError, match="turns"):
            list(no_words.convert(row, no_words.Config()))


def test_turns_with_words_are_labeled_steps_and_all_turns_are_rated() -> None:
    units = list(tree_labels.convert(AGENT, tree_labels.Config(rule="mean", options={"over": "below"})))
    look, take = (1.0 + 0.2 + 0.1) / 3, (1.0 + 0.1) / 2
    first = units[0]
    # "I look." ends at 7; behind it stand two joints, the wordless turn's and that of the last, of nine characters
    assert (first.kind, first.step_ends) == ("steps", [(7, 20)])
    assert first.step_labels == pytest.approx([look, 1.0])
    ratings = [(0, "correct", 1.0), (0, "turn 1", look), (0, "turn 2", take), (0, "turn 3", 1.0)]
    assert [(at, name) for at, name, _ in first.scores] == [(at, name) for at, name, _ in ratings]
    assert [value for *_, value in first.scores] == pytest.approx([value for *_, value in ratings])
    completion = Completion(parse_messages(first.responses[0]), step_ends=tuple(first.step_ends[0]))
    assert step_texts(completion) == ("I look.", "\n\n\n\nDone: 14.")
    assert [one.step_labels for one in units][3] == [0.05]
    hard = list(tree_labels.convert(AGENT, tree_labels.Config(rule="any_correct", until_error=True)))
    assert [one.step_labels for one in hard] == [[1, 1], [1, 0], [1, 0], [0]]
    # the wordless turn goes wrong first: it is no step, and the next one shows it
    assert [score for score in hard[1].scores if score[1] != "correct"] == [(0, "turn 1", 1.0), (0, "turn 2", 0.0)]


def test_turns_without_any_word_are_rated_only() -> None:
    row = agent(trajectory(("", "a"), ("", "b")), trajectory(("", "a"), ("", "c")), rated=(1.0, 0.0))
    first, other = tree_labels.convert(row, tree_labels.Config(rule="mean"))
    assert (first.kind, first.step_ends, first.step_labels) == ("single", None, None)
    assert first.scores == [(0, "correct", 1.0), (0, "turn 1", 0.5), (0, "turn 2", 1.0)]
    assert other.scores == [(0, "correct", 0.0), (0, "turn 1", 0.5), (0, "turn 2", 0.0)]


@pytest.mark.parametrize("rule", plugins.BUILT_IN["tree_labels"])
def test_every_label_rule_takes_turns_in_any_order_of_completions(rule: str) -> None:
    def labels(order: tuple[int, ...]) -> dict[str, Any]:
        scores = [one | {"response": order.index(one["response"])} for one in AGENT["scores"]]
        row = AGENT | {"responses": [AGENT["responses"][at] for at in order], "scores": scores}
        units = tree_labels.convert(row, tree_labels.Config(rule=rule))
        return {one.responses[0]: (one.step_labels, sorted(one.scores)) for one in units}

    first = labels((0, 1, 2, 3))
    assert len(first) == 4
    assert first == labels((3, 2, 1, 0)) == labels((2, 0, 3, 1))
    [alone] = tree_labels.convert(agent(AGENT["responses"][0], rated=(1.0,)), tree_labels.Config(rule=rule))
    turns = [value for _, name, value in alone.scores if name.startswith("turn")]
    assert turns == pytest.approx([1 / 3, 2 / 3, 1] if rule == "distance" else [1, 1, 1])


@pytest.mark.parametrize(
    ("rule", "options", "names"),
    [
        ("by_value", {}, [["look"], ["I guess 7."]]),
        ("by_value", {}, [["look", "take"], ["look", "drop", "Done: 15."]]),
        ("extremes", {}, [["look", "take", "Done: 14."], ["look", "take", "wait"]]),
        ("on_path", {}, [["look", "take"], ["look", "drop"]]),
        ("across_groups", {}, [["look", "take", "Done: 14."], ["look", "drop", "Done: 15."]]),
        ("score_gap", {"value": "mean"}, [["look", "take", "Done: 14."], ["look", "take", "wait"]]),
    ],
)
def test_every_pair_rule_takes_turns(rule: str, options: dict[str, Any], names: list[list[str]]) -> None:
    pairs = list(tree_pairs.convert(AGENT, tree_pairs.Config(rule=rule, options=options)))
    sides = [[actions(text) for text in one.responses] for one in pairs]
    assert names in sides
    for one in pairs:
        assert one.step_ends is None
        if rule != "across_groups":  # both share all turns, replies included, but those that are compared
            first, second = (json.loads(text) for text in one.responses)
            shared = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
            assert second[shared]["role"] == first[shared]["role"] == "assistant"


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
