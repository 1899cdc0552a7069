"""The one reader of conversations, called at every door: files, requests, trainers' values, judges, Python.

    role        role or from: system, user, assistant, tool, or a name of ROLE_NAMES (human, gpt, model, developer ...)
    content     content, value or parts: text; a list of parts, whose texts are joined as they stand; null beside tool
                calls or reasoning. Parts that are tool uses or their results become tool calls and tool turns
    reasoning   reasoning, reasoning_content or thinking, or parts of that kind: `Message.reasoning`. A `<think>` inside
                of the content stays there: `chat.encode` deals with it
    tool calls  tool_calls in OpenAI's form or bare {name, arguments}; function_call; items of the Responses API. See
                `chat.tool_calls` and `chat.responses_items`
    completion  a text, one turn, turns, or an object with `messages`, `text` or `steps`. Turns that repeat the prompt
                are stripped; where the prompt ends in an assistant turn (a prefill), the completion goes on with it

Whatever else is there (images, a role nobody knows, half of a surrogate pair) is a DataError. Its message names the
fault and never the row's own values, so that reasons can be counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rmkit.chat.responses_items import with_items_as_turns
from rmkit.chat.tool_calls import HALF_PAIR, json_text, parsed, read_tool_calls, read_tools
from rmkit.errors import DataError
from rmkit.types import ROLES, Candidates, Completion, Conversation, Message

ROLE_NAMES = {role: role for role in ROLES} | {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "developer": "system",
    "function": "tool",
    "observation": "tool",
    "environment": "tool",
    "ipython": "tool",
}

_CONTENT = ("content", "value", "parts")
_REASONING = ("reasoning", "reasoning_content", "thinking")
TURN_FIELDS = (*_CONTENT, *_REASONING, "role", "from", "name", "tool_calls", "tool_call_id", "function_call", "refusal")
COMPLETION_FIELDS = ("messages", "text", "steps", "source", "step_ends")
_OTHER_MEDIA = ("image", "images", "audio", "audios", "video", "videos")


def read_candidates(
    prompt: Any,
    responses: Sequence[Any],
    *,
    tools: Any = (),
    reference: str | None = None,
    rubric: Sequence[Mapping[str, Any]] = (),
) -> Candidates:
    """One prompt (a text or turns) and its completions, each as `read_completion` takes it: a model's input.

    Raises DataError for what cannot be read, for no response, and for a response that does not begin with a turn of the
    policy (or of a tool that it called) once the turns that repeat the prompt are stripped.
    """
    if isinstance(responses, str | Mapping) or not len(responses):
        raise DataError("expected a list of at least one response")
    turns = read_conversation(prompt, role="user")
    result = Candidates(
        turns, tuple(map(read_completion, responses)), read_tools(tools), reference, tuple(dict(one) for one in rubric)
    )
    return aligned(result)


def read_conversation(value: Any, *, role: str) -> Conversation:
    """A text as one turn of `role`; one turn (a mapping or an object), or an iterable of turns, as they stand.

    Raises DataError where there is no turn, or one that cannot be read.
    """
    if isinstance(value, str):
        return (_checked(Message(role, value)),)
    if isinstance(value, Message | Mapping) or hasattr(value, "role"):
        value = (value,)
    if value is None or not isinstance(value, Iterable):
        raise DataError("neither text nor a list of turns")
    turns = tuple(_checked(turn) for one in with_items_as_turns(value) for turn in _turns(one))
    if not turns:
        raise DataError("no turn")
    return turns


def read_completion(value: Any) -> Completion:
    """A text, turns, or an object: {messages | text | steps, source, step_ends}. Steps are joined by blank lines.

    Raises DataError for anything else, for an empty step and for step ends that do not lie inside of the text.
    """
    if isinstance(value, Completion):
        return replace(value, messages=read_conversation(value.messages, role="assistant"))
    if not isinstance(value, Mapping) or _role_of(value):
        return Completion(read_conversation(value, role="assistant"))
    source, ends = value.get("source"), tuple(value.get("step_ends") or ())
    if source is not None and not isinstance(source, str):
        raise DataError("source of a response is not text")
    if value.get("steps") is not None:
        return replace(read_steps(value["steps"]), source=source)
    turns = next((value[name] for name in ("messages", "text") if value.get(name) is not None), None)
    if turns is None:
        raise DataError("a response without messages, text or steps")
    result = Completion(read_conversation(turns, role="assistant"), source, ends)
    if any(not isinstance(end, int) for end in ends) or list(ends) != sorted({*ends}):
        raise DataError("step_ends must be ascending positions")
    if ends and not 0 < ends[0] <= ends[-1] <= len(result.text):
        raise DataError("step_ends must lie inside of the response")
    return result


def read_steps(steps: Any) -> Completion:
    """One response made of the texts of its steps, joined by blank lines. Raises DataError for an empty step."""
    if isinstance(steps, str) or not isinstance(steps, Iterable):
        raise DataError("steps is not a list of texts")
    texts = list(steps)
    if not texts:
        raise DataError("no steps")
    if not all(isinstance(step, str) for step in texts):
        raise DataError("a step is not text")
    if not all(step.strip() for step in texts):
        raise DataError("empty step")
    ends: list[int] = []
    for step in texts:
        ends.append((ends[-1] + 2 if ends else 0) + len(step))
    return Completion(read_conversation("\n\n".join(texts), role="assistant"), None, tuple(ends))


def split_conversation(value: Any) -> Candidates:
    """A conversation that ends with what is judged: all after the last user (or system) turn is the completion.

    Raises DataError where no assistant turn follows.
    """
    turns = read_conversation(value, role="user")
    at = max((place for place, turn in enumerate(turns) if turn.role in ("user", "system")), default=-1) + 1
    if not at:
        raise DataError("the conversation has no prompt")
    if not any(turn.role == "assistant" for turn in turns[at:]):
        raise DataError("the conversation does not end with an assistant turn")
    return Candidates(turns[:at], (Completion(turns[at:]),))


def aligned(item: Candidates) -> Candidates:
    """The item with every completion freed of turns that repeat the prompt, and a prompt that ends before the policy
    spoke: an assistant turn at its end is a prefill, the beginning of every completion's first turn.

    Raises DataError where a completion does not begin with a turn of the policy or of a tool.
    """
    prompt, prefill = item.prompt, None
    if prompt[-1].role == "assistant" and not prompt[-1].tool_calls and len(prompt) > 1:
        prompt, prefill = prompt[:-1], prompt[-1]
    completions = tuple(_own_turns(one, prompt, prefill) for one in item.completions)
    return replace(item, prompt=prompt, completions=completions)


def _own_turns(completion: Completion, prompt: Conversation, prefill: Message | None) -> Completion:
    turns, repeated = completion.messages, 0
    for size in range(min(len(prompt), len(turns) - 1), 0, -1):
        if turns[size - 1].role != "assistant" and list(map(_key, turns[:size])) == list(map(_key, prompt[-size:])):
            repeated = size
            break
    before, turns = Completion(turns[:repeated]), turns[repeated:]
    if turns[0].role not in ("assistant", "tool"):
        raise DataError("a response must begin with an assistant turn")
    if not any(turn.role == "assistant" for turn in turns):
        raise DataError("a response without an assistant turn")
    # step ends count from the text's beginning, in which turns are set apart by a blank line
    shift = -len(before.text + "\n\n") if any(turn.role == "assistant" for turn in before.messages) else 0
    if prefill and turns[0].role == "assistant" and not turns[0].content.startswith(prefill.content):
        first = turns[0]
        content, reasoning = prefill.content + first.content, first.reasoning or prefill.reasoning
        turns = (replace(first, content=content, reasoning=reasoning), *turns[1:])
        shift += len(prefill.content)
    ends = tuple(end + shift for end in completion.step_ends)
    if ends and ends[0] <= 0:
        raise DataError("a step ends inside of the turns that repeat the prompt")
    return Completion(turns, completion.source, ends)


def _key(turn: Message) -> tuple[object, ...]:
    """What makes two readings of one turn the same."""
    return turn.role, turn.content.strip(), turn.tool_calls


def _turns(value: Any) -> Iterable[Message]:
    """The turns in one spelled turn: one, but for results of tools that lie as parts in a user's turn."""
    if not isinstance(value, Mapping):
        value = {name: getattr(value, name) for name in TURN_FIELDS if hasattr(value, name)}
    if not value:
        raise DataError("a turn is not an object")
    spelled = _role_of(value)
    if not isinstance(spelled, str):
        raise DataError("a turn has no role")
    if any(value.get(name) for name in _OTHER_MEDIA):
        raise DataError("only text can be scored; a turn holds other media")
    calls = [
        *read_tool_calls(value.get("tool_calls")),
        *read_tool_calls([value["function_call"]] if value.get("function_call") else ()),
    ]
    content = next((value[name] for name in _CONTENT if value.get(name) is not None), None)
    if spelled.strip().lower() == "function_call":  # ShareGPT: the turn's text is the call
        call = parsed(content) if isinstance(content, str) else content
        calls, content, spelled = list(read_tool_calls(call if isinstance(call, list) else [call])), None, "assistant"
    role = ROLE_NAMES.get(spelled.strip().lower())
    if role is None:
        raise DataError("unknown role of a turn")
    parts = _Parts(content if content is not None else value.get("refusal"), role)
    reasoning = next((value[name] for name in _REASONING if value.get(name)), None)
    if reasoning is not None and not isinstance(reasoning, str):
        reasoning = _Parts(reasoning, "assistant").everything
    reasoning = reasoning or parts.reasoning or None
    calls += parts.calls
    if parts.empty and not (calls or reasoning or parts.results):
        raise DataError("a turn has no content")
    yield from parts.results
    if parts.results and not (parts.text or calls):
        return
    name, call_id = value.get("name"), value.get("tool_call_id")
    yield Message(
        role,
        parts.text,
        name=name if isinstance(name, str) and name else None,
        tool_calls=tuple(calls),
        tool_call_id=call_id if isinstance(call_id, str) and call_id else None,
        reasoning=reasoning,
    )


def _role_of(value: Mapping[str, Any]) -> object:
    return value.get("role") or value.get("from")


class _Parts:
    """What a turn's content says: its text, and what stands in parts of other kinds."""

    def __init__(self, content: Any, role: str) -> None:
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.results: list[Message] = []
        self.empty = content is None
        if content is None or isinstance(content, str):
            self.texts.append(content or "")
        elif role == "tool" and not _looks_like_parts(content):
            self.texts.append(json_text(content))
        elif isinstance(content, Iterable):
            for part in [content] if isinstance(content, Mapping) else content:
                self._add(part)
        else:
            raise DataError("content of a turn is not text")

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def reasoning(self) -> str:
        return "".join(self.thoughts)

    @property
    def everything(self) -> str:
        return self.reasoning + self.text

    def _add(self, part: Any) -> None:
        if not isinstance(part, str | Mapping):
            part = {name: getattr(part, name, None) for name in ("type", "text", "thinking", "id", "name", "input")}
        if isinstance(part, str):
            self.texts.append(part)
            return
        match part.get("type", "text"):
            case "text" | "input_text" | "output_text" | "summary_text" | "reasoning_text":
                self.texts.append(_text_of(part, "text"))
            case "refusal":
                self.texts.append(_text_of(part, "refusal"))
            case "thinking":
                self.thoughts.append(_text_of(part, "thinking"))
            case "reasoning":
                self.thoughts.append(_text_of(part, "reasoning" if part.get("reasoning") is not None else "text"))
            case "redacted_thinking":  # encrypted by its maker: there is nothing to read
                pass
            case "tool_use":
                call = {"id": part.get("id"), "name": part.get("name"), "arguments": part.get("input")}
                self.calls += read_tool_calls([call])
            case "tool_result":
                text = _Parts(part.get("content") or "", "tool").text
                self.results.append(Message("tool", text, tool_call_id=str(part.get("tool_use_id") or "") or None))
            case _:
                raise DataError("only text can be scored; a turn holds other parts")


def _looks_like_parts(content: Any) -> bool:
    return (
        isinstance(content, Iterable)
        and not isinstance(content, Mapping)
        and all(isinstance(part, str) or (isinstance(part, Mapping) and "type" in part) for part in content)
    )


def _text_of(part: Mapping[str, Any], name: str) -> str:
    if not isinstance(part.get(name), str):
        raise DataError("a part of a turn holds no text")
    return str(part[name])


def _checked(turn: Message) -> Message:
    try:
        (turn.content + (turn.reasoning or "") + (turn.name or "")).encode()
    except UnicodeEncodeError as error:
        raise DataError(HALF_PAIR) from error
    if turn.tool_calls:
        json_text(turn.tool_calls)
    return turn
