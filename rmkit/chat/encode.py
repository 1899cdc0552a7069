"""Conversations to token ids, the same way in training, scoring and serving.

One `Chat` holds a tokenizer, the template it renders with and the truncation policy; its fingerprint covers all three.
What it guarantees, and tests pin:

- the ids are those of the tokenizer over the rendered text, with the special tokens that the tokenizer puts at either
  end present exactly once (a template that writes the BOS itself does not get a second one);
- the reward is read at `reward_index`, the last id; an `Encoded` has no padding, and the pad token is never EOS;
- what a message holds is text: a control token written there (`<|im_end|>`) is split like any other text;
- rendering does not depend on the day: `strftime_now` is pinned in the template's own text, so that servers which
  render the saved template agree;
- an empty system turn is no system turn, unless the model has a system turn of its own; a turn, a tool or a call that
  the template would drop or refuse is a DataError;
- reasoning is judged, or (`reasoning="strip"`) is not, wherever a response keeps it. A template without a place for it
  gets it as `<think>` in front of the content; where it drops the response's, that is a DataError;
- tool-call arguments reach the template decoded, or as JSON text where it wants that;
- an over-long prompt loses its middle: the template's head with the system turn stays, and so does the end. How much
  of a prompt stays depends on the prompt alone, so a score stays pointwise and the completions of one prompt share it;
- an over-long response is refused, or cut and flagged where the policy says so.

Tokenizers without a chat template get `FALLBACK_TEMPLATE`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

from rmkit.chat.control_tokens import LiteralTokenizer, special_ends
from rmkit.chat.placement import common_chars, step_tokens, tokens_before
from rmkit.chat.reasoning import Reasoning, in_content, without_reasoning
from rmkit.chat.template import (
    DROPS_CALLS,
    DROPS_TOOLS,
    Form,
    as_template_dict,
    check_nothing_dropped,
    check_response,
    own_template,
    pin_dates,
    with_system,
)
from rmkit.errors import ConfigError, DataError, ModelError
from rmkit.ids import canonical_json
from rmkit.types import Candidates, Completion, Conversation, Message

PAD_NAMES = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>")

_PROBE = "\ue000"  # private use: begins no real content, so two renderings part exactly where the content begins


_DIGEST_NAMES = {"max_length": "max_tokens"}  # the name under which stored fingerprints were made


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncationPolicy:
    """What happens to texts over `max_length`, special tokens included.

    A prompt longer than max_length - response_reserve_tokens loses its middle down to that length; the reserve is 1,024
    or half of max_length where that is less, unless it is named. A response may fill all that the (shortened) prompt
    leaves; a longer one is refused, or with `long_response="flag"` cut at its end and marked `response_truncated`.
    """

    max_length: int = 2048
    response_reserve_tokens: int = None  # type: ignore[assignment]  # __post_init__ puts the number here
    long_response: Literal["refuse", "flag"] = "refuse"

    def __post_init__(self) -> None:
        if self.response_reserve_tokens is None:
            object.__setattr__(self, "response_reserve_tokens", min(1024, self.max_length // 2))
        if not 0 < self.response_reserve_tokens < self.max_length:
            raise ConfigError(
                f"response_reserve_tokens must lie between 0 and max_length ({self.max_length}), "
                f"got {self.response_reserve_tokens}"
            )

    @property
    def max_prompt_tokens(self) -> int:
        return self.max_length - self.response_reserve_tokens


@dataclass(frozen=True, slots=True)
class Encoded:
    """One prompt with one completion as token ids, without padding.

    The first `prompt_tokens` ids are the prompt with the header of the completion's first turn. `step_index` holds,
    per step of the completion, the index of the token in which the step's last visible character lies.
    """

    ids: tuple[int, ...]
    prompt_tokens: int
    step_index: tuple[int, ...] = ()
    prompt_truncated: bool = False
    response_truncated: bool = False

    @property
    def reward_index(self) -> int:
        """Where the reward is read: the last id."""
        return len(self.ids) - 1


def ensure_pad(tokenizer: Any) -> bool:
    """Give the tokenizer a pad token that is not its EOS; True where its vocabulary grew (resize the embeddings).

    A token of a usual pad name in the vocabulary is preferred; else `<|pad|>` is added.
    """
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return False
    vocabulary = tokenizer.get_vocab()
    taken = {tokenizer.eos_token, tokenizer.bos_token}
    if name := next((name for name in PAD_NAMES if name in vocabulary and name not in taken), None):
        tokenizer.pad_token = name
        return False
    tokenizer.add_special_tokens({"pad_token": PAD_NAMES[0]})
    return True


class Chat:
    """A fast tokenizer, the template it renders with and the truncation policy.

    `reasoning`: whether what a response's model thought is judged with it (`keep`) or is not (`strip`). `system`: the
    system turn of conversations without one, which may be empty (Qwen's templates else write a default of theirs).

    Raises ModelError for a tokenizer without offsets, or whose pad token is missing or equal to EOS (`ensure_pad`).
    """

    def __init__(
        self,
        tokenizer: Any,
        truncation: TruncationPolicy | None = None,
        *,
        reasoning: Reasoning = "keep",
        system: str | None = None,
    ) -> None:
        if not tokenizer.is_fast:
            raise ModelError(f"{type(tokenizer).__name__} gives no character offsets; a fast tokenizer is needed")
        if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
            raise ModelError(f"the pad token must differ from EOS, got {tokenizer.pad_token!r}; call chat.ensure_pad")
        self.tokenizer = tokenizer
        self.truncation = truncation or TruncationPolicy()
        self.reasoning, self.system = reasoning, system
        self.template = pin_dates(own_template(tokenizer))
        self._special_ends, self._literal = special_ends(tokenizer), LiteralTokenizer(tokenizer)

    @property
    def template_hash(self) -> str:
        """Hex SHA-256 of the template's text, dates pinned."""
        return hashlib.sha256(self.template.encode()).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over template, tokenizer and all settings: equal fingerprints give equal ids."""
        backend = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for state in ("padding", "truncation"):  # left behind by whoever called the tokenizer last
            backend.pop(state, None)
        parts = {
            "template": self.template,
            "tokenizer": backend,
            "special": {name: str(token) for name, token in self.tokenizer.special_tokens_map.items()},
            "truncation": {_DIGEST_NAMES.get(name, name): value for name, value in asdict(self.truncation).items()},
            **({} if self.reasoning == "keep" else {"reasoning": self.reasoning}),
            **({} if self.system is None else {"system": self.system}),
        }
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()

    def render(self, messages: Iterable[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The text of a conversation. Raises DataError where the template refuses it or drops one of its turns."""
        turns = with_system(messages, self.system)
        if self.reasoning == "strip":
            turns = tuple(map(without_reasoning, turns))
        elif not self._has_place_for_reasoning:
            turns = tuple(map(in_content, turns))
        calls = any(turn.tool_calls for turn in turns)
        if calls and self._arguments is None:
            raise DataError(DROPS_CALLS)
        if tools and not self._writes_tools:
            raise DataError(DROPS_TOOLS)
        text = self._text(turns, tools, arguments=(calls and self._arguments) or "object")
        check_nothing_dropped(turns, tools, text)
        return text

    def _text(self, turns: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), *, arguments: Form) -> str:
        """What the template writes."""
        try:
            text: str = self.tokenizer.apply_chat_template(
                [as_template_dict(turn, arguments=arguments, reasoning=True) for turn in turns],
                tools=[dict(tool) for tool in tools] or None,
                chat_template=self.template,
                tokenize=False,
            )
        except Exception as error:  # templates raise what they like; the row is refused, never the batch
            raise DataError(f"the chat template refuses the conversation: {error}") from error
        return text

    @cached_property
    def _arguments(self) -> Form | None:
        """How the template wants tool-call arguments: an object, unless it can write only text as JSON; None where it
        writes no tool calls. A template that refuses the question gets objects."""
        call = {"id": "a12345678", "type": "function", "function": {"name": _PROBE, "arguments": {_PROBE: _PROBE}}}
        turns = Message("user", "b"), Message("assistant", "", tool_calls=(call,))
        try:
            text = self._text(turns, arguments="object")
        except DataError:
            try:
                self._text(turns, arguments="text")
            except DataError:
                return "object"
            return "text"
        if repr({_PROBE: _PROBE}) in text:
            return "text"
        return "object" if _PROBE in text else None

    @cached_property
    def _writes_tools(self) -> bool:
        schema = {"type": "object", "properties": {}}
        tool = {"type": "function", "function": {"name": _PROBE, "description": "", "parameters": schema}}
        try:
            return _PROBE in self._text((Message("user", "a"),), [tool], arguments="object")
        except DataError:
            return True

    @cached_property
    def _has_place_for_reasoning(self) -> bool:
        turns = Message("user", "a"), Message("assistant", "b", reasoning=_PROBE)
        try:
            return _PROBE in self._text(turns, arguments="object")
        except DataError:
            return True

    def encode(self, prompt: Conversation, completion: Completion, tools: Sequence[Mapping[str, Any]] = ()) -> Encoded:
        """Ids of the prompt followed by the completion. Raises DataError where the policy or template refuses."""
        if not completion.messages:
            raise DataError("the completion has no message")
        literal = self._literal.needed_for((*prompt, *completion.messages), tools)
        chat = self._for_control_tokens if literal else self
        return chat._encode(prompt, completion, tools)

    def _encode(self, prompt: Conversation, completion: Completion, tools: Sequence[Mapping[str, Any]] = ()) -> Encoded:
        response = completion.messages
        if self.reasoning == "strip":
            response = tuple(map(without_reasoning, response))
            if not any(turn.content or turn.tool_calls for turn in response):
                raise DataError("the response is nothing but reasoning, which this model does not judge")
        text = self.render((*prompt, *response), tools)
        check_response(response, text)
        ids, offsets = self._tokenize(text)
        content_start = self._content_start(text, prompt, response, tools)
        prompt_tokens = tokens_before(offsets, content_start)
        starts = self._turn_starts(text, prompt, response, tools, content_start) if completion.step_ends else []
        steps = step_tokens(text, offsets, completion, starts, self.reasoning)
        if len(ids) > self.truncation.max_length or prompt_tokens > self.truncation.max_prompt_tokens:
            head = self._head_tokens(text, offsets, prompt, tools)
            return self._truncate(ids, head, prompt_tokens, steps)
        return self._finish(ids, prompt_tokens, steps)

    def encode_candidates(self, item: Candidates) -> list[Encoded | DataError]:
        """[N] per completion its ids, or why it was refused."""
        return [self._encode_or_error(item, completion) for completion in item.completions]

    def _encode_or_error(self, item: Candidates, completion: Completion) -> Encoded | DataError:
        try:
            return self.encode(item.prompt, completion, item.tools)
        except DataError as error:
            return error

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer with the pinned template, so that other engines render the same text."""
        self.tokenizer.chat_template = self.template
        self.tokenizer.save_pretrained(folder)

    @cached_property
    def _for_control_tokens(self) -> Chat:
        """The same chat for messages that hold control tokens as text."""
        twin = copy.copy(self)
        twin.tokenizer = self._literal
        return twin

    def _tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        result = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, offsets = list(result["input_ids"]), list(result["offset_mapping"])
        before, after = self._special_ends
        if before and ids[: len(before)] != before:
            ids, offsets = before + ids, [(0, 0)] * len(before) + offsets
        if after and ids[-len(after) :] != after:
            ids, offsets = ids + after, offsets + [(len(text), len(text))] * len(after)
        return ids, offsets

    def _content_start(
        self, text: str, before: Conversation, then: Conversation, tools: Sequence[Mapping[str, Any]]
    ) -> int:
        """Character at which the first message of `then` begins to speak in `text`, which renders both.

        What it says and calls is replaced in turn; it begins at the first place where a rendering departs.
        """
        first, starts, fault = then[0], [], None
        probes = [replace(first, content=_PROBE, reasoning=None)]
        if first.tool_calls:  # a template may write the calls in place of the content, or refuse content beside them
            probes.append(replace(first, tool_calls=tuple(map(_renamed, first.tool_calls))))
        for probe in probes:
            try:
                starts.append(common_chars(text, self.render((*before, probe, *then[1:]), tools)))
            except DataError as error:
                fault = error
        if not starts:
            raise fault or DataError("the completion renders to no token")
        return min(starts)

    def _turn_starts(
        self,
        text: str,
        prompt: Conversation,
        response: Conversation,
        tools: Sequence[Mapping[str, Any]],
        content_start: int,
    ) -> list[int]:
        """Where each assistant turn of the response begins to speak; a turn without words has no place to look for."""
        starts: list[int] = []
        for at, turn in enumerate(response):
            if turn.role != "assistant":
                continue
            if at and turn.content.strip():
                starts.append(self._content_start(text, (*prompt, *response[:at]), response[at:], tools))
            else:
                starts.append(content_start)
        return starts

    def _truncate(self, ids: list[int], head: int, prompt_tokens: int, steps: list[int]) -> Encoded:
        """Cut the prompt's middle, behind `head` tokens, to its budget; then hold the response against what is left."""
        policy = self.truncation
        cut = max(0, prompt_tokens - policy.max_prompt_tokens)
        if cut:
            if head >= policy.max_prompt_tokens:
                raise DataError(
                    f"the system turn takes {head} tokens and prompts may take {policy.max_prompt_tokens}; "
                    "raise max_length or shorten it"
                )
            ids = ids[:head] + ids[head + cut :]
        prompt_tokens, steps = prompt_tokens - cut, [step - cut for step in steps]
        if over := max(0, len(ids) - policy.max_length):
            if policy.long_response == "refuse":
                raise DataError(
                    f"the response takes {len(ids) - prompt_tokens} tokens and may take "
                    f"{policy.max_length - prompt_tokens}; raise max_length or set long_response = 'flag'"
                )
            ids = ids[: policy.max_length]
            steps = [step for step in steps if step < len(ids)]
        return self._finish(ids, prompt_tokens, steps, prompt_truncated=cut > 0, response_truncated=over > 0)

    def _head_tokens(
        self, text: str, offsets: list[tuple[int, int]], prompt: Conversation, tools: Sequence[Mapping[str, Any]]
    ) -> int:
        """Tokens up to the content of the first turn that is no system turn."""
        turns = with_system(prompt, self.system)
        at = next((i for i, message in enumerate(turns) if message.role != "system"), None)
        if at is None:
            return len(offsets)
        start = common_chars(text, self.render((*turns[:at], Message(turns[at].role, _PROBE)), tools))
        return tokens_before(offsets, start)

    def _finish(self, ids: list[int], prompt_tokens: int, steps: list[int], **flags: bool) -> Encoded:
        if len(ids) <= prompt_tokens:
            raise DataError("the completion renders to no token")
        if ids[-1] == self.tokenizer.pad_token_id:
            raise DataError("the text ends with the pad token, which other engines would take for padding")
        return Encoded(tuple(ids), prompt_tokens, tuple(steps), **flags)


def _renamed(call: Mapping[str, Any]) -> dict[str, object]:
    """The tool call with a probe in front of its name."""
    if not isinstance(call.get("function"), Mapping):
        return {**call, "name": f"{_PROBE}{call.get('name', '')}"}
    return {**call, "function": {**call["function"], "name": f"{_PROBE}{call['function'].get('name', '')}"}}
