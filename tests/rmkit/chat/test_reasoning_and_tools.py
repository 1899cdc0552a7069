"""Reasoning, tools and tool calls through the templates of real families, as TRL ships them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rmkit.chat.encode import Chat
from rmkit.chat.reader import read_candidates
from rmkit.errors import DataError
from rmkit.types import Candidates, Completion, Message

Make = Callable[..., Any]

QUESTION = (Message("user", "Is the sky blue?"),)
SCHEMA = {"type": "object", "properties": {"what": {"type": "string", "description": "w"}}, "required": ["what"]}
TOOLS = [{"type": "function", "function": {"name": "look_up", "description": "Looks up.", "parameters": SCHEMA}}]
ARGUMENTS = {"what": 'the "sky"', "n": 2}


@pytest.fixture
def chat_of(make_tokenizer: Make) -> Callable[..., Chat]:
    """The chat of a family's own template by its name, or of the fallback."""

    def make(family: str | None, **settings: Any) -> Chat:
        trl = find_spec("trl")
        if trl is None or not trl.submodule_search_locations:
            pytest.skip("trl brings the templates")
        folder = Path(trl.submodule_search_locations[0]) / "chat_templates"
        template = None if family is None else (folder / f"{family}.jinja").read_text()
        return Chat(make_tokenizer(template), **settings)

    return make


def behind(chat: Chat, item: Candidates) -> str:
    encoded = chat.encode(item.prompt, item.completions[0], item.tools)
    return str(chat.tokenizer.decode(encoded.ids[encoded.prompt_tokens :]))


def trajectory(arguments: Any) -> Candidates:
    call = {"id": "a1b2c3d4e", "function": {"name": "look_up", "arguments": arguments}}
    reply = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "name": "look_up", "tool_call_id": "a1b2c3d4e", "content": 'it\nis "blue"'},
        {"role": "assistant", "content": "Yes."},
    ]
    return read_candidates(QUESTION, [reply], tools=TOOLS)


@pytest.mark.parametrize(
    "family", ["qwen2_5", "qwen3", "qwen3_6", "gptoss", "gemma4_v5", "llama3_1", "deepseekv3", None]
)
def test_a_trajectory_with_tools_is_a_completion(chat_of: Callable[..., Chat], family: str | None) -> None:
    chat = chat_of(family)
    item = trajectory(ARGUMENTS)
    if family == "deepseekv3":  # its template has no place for schemas
        with pytest.raises(DataError, match="drops the tools"):
            behind(chat, item)
        item = replace(item, tools=())
    text = behind(chat, item)
    assert text.index("look_up") < text.index("sky") < text.index("blue") < text.index("Yes.")
    assert "'what'" not in text, "arguments in Python's spelling"
    assert '\\\\"' not in text, "arguments that are JSON inside of JSON"
    spelled = trajectory('{"what": "the \\"sky\\"", "n": 2}')
    assert behind(chat, replace(spelled, tools=item.tools)) == text


@pytest.mark.parametrize("family", ["lfm2", "llama3", "phi3"])
def test_a_template_that_drops_calls_is_named_though_the_tools_name_them(
    chat_of: Callable[..., Chat], family: str
) -> None:
    with pytest.raises(DataError, match="drops tool calls"):
        behind(chat_of(family), trajectory(ARGUMENTS))


def test_tools_are_judged_with_the_prompt(chat_of: Callable[..., Chat]) -> None:
    for family in ("qwen2_5", None):
        chat = chat_of(family)
        item = read_candidates(QUESTION, ["Yes."], tools=TOOLS)
        encoded = chat.encode(item.prompt, item.completions[0], item.tools)
        assert '"description": "Looks up."' in chat.tokenizer.decode(encoded.ids[: encoded.prompt_tokens])
        assert behind(chat, item) == behind(chat, replace(item, tools=()))


def thinking(**turn: Any) -> Candidates:
    return read_candidates(QUESTION, [{"role": "assistant", **turn}])


@pytest.mark.parametrize("family", ["qwen3", "qwen2_5", "glm4moe", "gptoss", "gemma4_v5", None])
def test_reasoning_is_kept_or_stripped_as_the_model_says(chat_of: Callable[..., Chat], family: str | None) -> None:
    apart = thinking(content="Yes.", reasoning_content="light scatters")
    inside = thinking(content="<think>\nlight scatters\n</think>\n\nYes.")
    plain = thinking(content="Yes.")
    keep, strip = chat_of(family), chat_of(family, reasoning="strip")
    text = behind(keep, apart)
    assert text.index("light scatters") < text.index("Yes.")
    if family not in ("gptoss", "gemma4_v5"):  # they have a channel for it; `<think>` is the text that it is
        assert behind(keep, inside) == text
    ids = {strip.encode(item.prompt, item.completions[0]).ids for item in (apart, inside, plain)}
    assert len(ids) == 1
    assert ids == {keep.encode(plain.prompt, plain.completions[0]).ids}
    assert keep.fingerprint != strip.fingerprint
    assert keep.fingerprint == chat_of(family, reasoning="keep", system=None).fingerprint


def test_reasoning_that_a_template_drops_is_refused(chat_of: Callable[..., Chat]) -> None:
    chat = chat_of("deepseek_r1_distill")
    for item in (thinking(content="Yes.", thinking="hm"), thinking(content="<think>hm</think>Yes.")):
        with pytest.raises(DataError, match="drops the response's reasoning"):
            behind(chat, item)
        assert behind(chat_of("deepseek_r1_distill", reasoning="strip"), item).startswith("Yes.")


def test_what_is_nothing_but_reasoning_cannot_be_judged_without(chat_of: Callable[..., Chat]) -> None:
    for content in ("<think>\nI was cut o", "<think>hm</think>", "hm</think>"):
        with pytest.raises(DataError, match="nothing but reasoning"):
            behind(chat_of("qwen3", reasoning="strip"), thinking(content=content))


@pytest.mark.parametrize("family", ["qwen3", "gptoss", None])
def test_steps_of_reasoning_are_placed(chat_of: Callable[..., Chat], family: str | None) -> None:
    """Qwen's template takes the reasoning apart and writes it anew, with white space of its own."""
    content = "<think>\n\n one: 1 + 1 = 2\n\ntwo: so be it </think>\nThe answer: 2"
    ends = tuple(content.index(last) + len(last) for last in ("= 2", "be it", "answer: 2"))
    chat = chat_of(family)
    encoded = chat.encode(QUESTION, Completion((Message("assistant", content),), None, ends))
    texts = [chat.tokenizer.decode(encoded.ids[: at + 1]) for at in encoded.step_index]
    assert [text[-9:] for text in texts] == ["1 + 1 = 2", "so be it"[-9:].rjust(9), "answer: 2"]


def test_steps_of_an_answer_that_its_reasoning_quotes(chat_of: Callable[..., Chat]) -> None:
    message = Message("assistant", "Yes.\n\nIt is.", reasoning="Yes.\n\nIt is. Or not?")
    chat = chat_of("qwen3")
    encoded = chat.encode(QUESTION, Completion((message,), None, (4, 12)))
    first, last = (chat.tokenizer.decode(encoded.ids[: at + 1]) for at in encoded.step_index)
    assert first.endswith("</think>\n\nYes.")
    assert last.endswith("</think>\n\nYes.\n\nIt is.")


def test_steps_move_with_stripped_reasoning(chat_of: Callable[..., Chat]) -> None:
    content = "<think>hm</think>\n\nfirst\n\nlast"
    ends = (content.index("first") + 5, len(content))
    chat = chat_of("qwen2_5", reasoning="strip")
    encoded = chat.encode(QUESTION, Completion((Message("assistant", content),), None, ends))
    assert [chat.tokenizer.decode(encoded.ids[: at + 1])[-5:] for at in encoded.step_index] == ["first", "\nlast"]
    with pytest.raises(DataError, match="no visible character"):
        chat.encode(QUESTION, Completion((Message("assistant", content),), None, (17, *ends)))


def test_a_family_that_needs_an_empty_system_turn_gets_it(chat_of: Callable[..., Chat]) -> None:
    default, empty = chat_of("qwen2_5"), chat_of("qwen2_5", system="")
    assert "You are Qwen" in default.render(QUESTION)
    given = (Message("system", ""), *QUESTION)
    assert empty.render(QUESTION) == empty.render(given)
    assert empty.render(QUESTION).startswith("<|im_start|>system\n<|im_end|>\n<|im_start|>user")
    assert "Be brief." in empty.render((Message("system", "Be brief."), *QUESTION))
    assert default.fingerprint != empty.fingerprint
