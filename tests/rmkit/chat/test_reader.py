"""Every spelling of a conversation is one conversation; what cannot be read is named and never lost."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from rmkit.chat.reader import read_candidates, read_completion, read_conversation, read_tools, split_conversation
from rmkit.chat.tool_calls import read_tool_calls
from rmkit.errors import DataError
from rmkit.ids import messages_json, parse_messages
from rmkit.types import Completion, Message

CALL = {"type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln", "at": 3}'}}
TALK = (
    Message("system", "Be brief."),
    Message("user", "Weather?"),
    Message("assistant", "", tool_calls=(CALL,)),
    Message("tool", "rain"),
    Message("assistant", "It rains.", reasoning="the tool says rain"),
)


def _plain(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


BARE = {"name": "weather", "arguments": {"city": "Köln", "at": 3}}
AS_TEXT = {"name": "weather", "arguments": '{"city":"K\\u00f6ln","at":3}'}
SPELLINGS: dict[str, list[Any]] = {
    "openai": [
        _plain("system", "Be brief."),
        _plain("user", "Weather?"),
        _plain("assistant", None, tool_calls=[{"type": "function", "index": 0, "id": None, "function": AS_TEXT}]),
        _plain("tool", "rain", name=None),
        _plain("assistant", "It rains.", reasoning_content="the tool says rain", refusal=None, audio=None),
    ],
    "parts": [
        _plain("developer", [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief.", "image": None}]),
        _plain("user", [{"type": "input_text", "text": "Weather?"}]),
        _plain("assistant", [], tool_calls=[BARE]),
        _plain("function", ["rain"]),
        _plain("assistant", [{"type": "output_text", "text": "It rains."}], thinking="the tool says rain"),
    ],
    "sharegpt": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": json.dumps(BARE)},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "It rains.", "reasoning": "the tool says rain"},
    ],
    "anthropic": [
        _plain("system", "Be brief."),
        _plain("user", "Weather?"),
        _plain("assistant", [{"type": "tool_use", "name": "weather", "input": BARE["arguments"]}]),
        _plain("user", [{"type": "tool_result", "content": [{"type": "text", "text": "rain"}]}]),
        _plain(
            "assistant",
            [
                {"type": "thinking", "thinking": "the tool says rain", "signature": "x"},
                {"type": "text", "text": "It rains."},
            ],
        ),
    ],
    "gemini": [
        {"role": "system", "parts": [{"text": "Be brief."}]},
        {"role": "User", "parts": [{"text": "Weather?"}]},
        {"role": "model", "function_call": BARE, "content": None},
        _plain("tool", "rain"),
        _plain("model", "It rains.", reasoning=[{"type": "summary_text", "text": "the tool says rain"}]),
    ],
    "objects": [
        SimpleNamespace(role="system", content="Be brief."),
        SimpleNamespace(role="user", content="Weather?"),
        SimpleNamespace(
            role="assistant", content=None, tool_calls=[SimpleNamespace(model_dump=lambda: {"function": BARE})]
        ),
        *TALK[3:],
    ],
    "messages": list(TALK),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_are_one_conversation(spelling: str) -> None:
    assert read_conversation(SPELLINGS[spelling], role="user") == TALK


def test_the_order_of_arguments_survives_storage() -> None:
    stored = parse_messages(messages_json(read_conversation(SPELLINGS["parts"], role="user")))
    assert stored == TALK
    assert json.loads(str(stored[2].tool_calls[0]["function"]["arguments"])) == {"city": "Köln", "at": 3}


def test_arguments_that_are_no_object_stay_as_the_policy_wrote_them() -> None:
    calls = [{"name": "f", "arguments": '{"city": '}, {"name": "f", "arguments": "[1]"}, {"name": "f"}]
    assert [one["function"]["arguments"] for one in read_tool_calls(calls)] == ['{"city": ', "[1]", "{}"]


PROMPT = [_plain("system", "Be brief."), _plain("user", "Sky?")]
REPLY = _plain("assistant", "Blue.")


@pytest.mark.parametrize(
    "response",
    [
        "Blue.",
        REPLY,
        [REPLY],
        [*PROMPT, REPLY],
        [PROMPT[1], REPLY],
        [{"from": "human", "value": "Sky? "}, {"from": "gpt", "value": "Blue."}],
        {"text": "Blue."},
        {"messages": [*PROMPT, REPLY]},
        {"steps": ["Blue."]},
        Completion((Message("assistant", "Blue."),)),
    ],
)
def test_a_response_is_its_own_turns_however_it_is_spelled(response: Any) -> None:
    item = read_candidates(PROMPT, [response])
    assert item.prompt == (Message("system", "Be brief."), Message("user", "Sky?"))
    assert item.completions[0].messages == (Message("assistant", "Blue."),)


def test_a_turn_that_comes_again_later_is_no_repeated_prompt() -> None:
    """The policy's tool turn says the very words of the prompt's."""
    prompt = [_plain("user", "go"), _plain("assistant", "", tool_calls=[BARE]), _plain("tool", "rain")]
    reply = [_plain("assistant", "again", tool_calls=[BARE]), _plain("tool", "rain"), _plain("assistant", "rain")]
    assert [turn.content for turn in read_candidates(prompt, [reply]).completions[0].messages] == [
        "again",
        "rain",
        "rain",
    ]


def test_step_ends_move_with_the_turns_stripped_before_them() -> None:
    prompt = [_plain("user", "a"), _plain("assistant", "bc"), _plain("user", "d")]
    whole = {"messages": [*prompt, _plain("assistant", "efg")], "step_ends": [5, 7]}  # of "bc\n\nefg"
    assert read_candidates(prompt, [whole]).completions[0].step_ends == (1, 3)
    with pytest.raises(DataError, match="a step ends inside of the turns that repeat the prompt"):
        read_candidates(prompt, [{**whole, "step_ends": [2, 7]}])


def test_a_prefill_is_the_beginning_of_every_completion() -> None:
    prompt = [*PROMPT, _plain("assistant", "The sky ", reasoning="hm")]
    item = read_candidates(
        prompt, ["is blue.", {"text": "is red.", "step_ends": [2, 7]}, [*PROMPT, _plain("assistant", "The sky is up.")]]
    )
    assert [turn.role for turn in item.prompt] == ["system", "user"]
    assert [one.text for one in item.completions] == ["The sky is blue.", "The sky is red.", "The sky is up."]
    assert item.completions[0].messages[0].reasoning == "hm"
    assert item.completions[1].step_ends == (10, 15)


def test_steps_are_joined_by_blank_lines() -> None:
    completion = read_completion({"steps": ["one", "three"], "source": "p"})
    assert (completion.text, completion.step_ends, completion.source) == ("one\n\nthree", (3, 10), "p")


def test_a_conversation_is_split_after_its_last_user_turn() -> None:
    item = split_conversation([*SPELLINGS["openai"]])
    assert (len(item.prompt), len(item.completions[0].messages)) == (2, 3)
    with pytest.raises(DataError, match="does not end with an assistant turn"):
        split_conversation(PROMPT)


def test_tools_of_every_form_are_one() -> None:
    schema = {
        "type": "object",
        "properties": {"unit": {"type": "string", "enum": ["C"]}, "city": {}},
        "required": ["city"],
    }
    openai = {"type": "function", "function": {"name": "w", "description": "d", "parameters": schema}}
    stored = json.loads(json.dumps([openai], sort_keys=True))
    anthropic = {"name": "w", "description": "d", "input_schema": schema}
    results = [json.dumps(read_tools(one)) for one in ([openai], stored, json.dumps([openai]), [anthropic])]
    assert set(results) == {
        '[{"type": "function", "function": {"name": "w", "description": "d", "parameters": {"type": "object", '
        '"properties": {"city": {}, "unit": {"type": "string", "enum": ["C"]}}, "required": ["city"]}}}]'
    }


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("a\ud800", "half of a surrogate pair"),
        ([_plain("assistant", "", tool_calls=[{"name": "f", "arguments": "\udc00"}])], "half of a surrogate pair"),
        ([_plain("wizard", "x")], "unknown role"),
        ([_plain(None, "x")], "no role"),
        ([_plain("user", None)], "no content"),
        ([_plain("user", 3)], "not text"),
        ([_plain("user", [{"type": "image_url", "image_url": {}}])], "other parts"),
        ([_plain("user", "look", images=["a.png"])], "other media"),
        ([_plain("user", [{"type": "text"}])], "holds no text"),
        ([_plain("assistant", None, tool_calls=[{"arguments": {}}])], "no object with a name"),
        ([_plain("assistant", None, tool_calls=3)], "not a list of objects"),
        ([7], "not an object"),
        (7, "neither text nor a list of turns"),
        ([], "no turn"),
    ],
)
def test_what_cannot_be_read_is_named(value: Any, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        read_conversation(value, role="user")


@pytest.mark.parametrize(
    ("response", "fault"),
    [
        ([_plain("user", "other"), REPLY], "must begin with an assistant turn"),
        ([_plain("tool", "x")], "without an assistant turn"),
        ({"source": "p"}, "without messages, text or steps"),
        ({"text": "abc", "step_ends": [2, 4]}, "inside of the response"),
        ({"text": "abc", "step_ends": [2, 1]}, "ascending"),
        ({"steps": ["a", " "]}, "empty step"),
        ({"steps": []}, "no steps"),
    ],
)
def test_a_response_that_cannot_be_read_is_named(response: Any, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        read_candidates(PROMPT, [response])


def test_no_response_is_named() -> None:
    with pytest.raises(DataError, match="at least one response"):
        read_candidates("q", [])
