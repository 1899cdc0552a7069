"""A conversation as somebody else's model was trained to see it.

`AdoptedChat` is rmkit's chat with the rules of an adoption file's table [text] in place of rmkit's own: the template,
the system turn, special tokens once or twice, tokens behind the text, steps with their marks, and what happens to long
texts. The tokens that are read stand in `Encoded.step_index`, in the order that the reader expects.

Control tokens that somebody wrote into a message are split, as everywhere in rmkit; a mark that this file writes itself
(`<extra_0>` behind a step) is the control token.
"""

from __future__ import annotations

import dataclasses
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rmkit.chat.control_tokens import LiteralTokenizer, control_tokens, special_ends
from rmkit.chat.encode import Chat, Encoded, TruncationPolicy
from rmkit.chat.placement import common_chars
from rmkit.chat.steps import in_steps
from rmkit.chat.template import pin_dates, with_system
from rmkit.errors import DataError, ModelError
from rmkit.models.adopted.positions import position
from rmkit.models.adopted.profile import Profile
from rmkit.types import Completion, Conversation, Message

_ONE_QUESTION = "this model's text takes one question of a user and one answer"


class AdoptedChat(Chat):
    """A fast tokenizer with the rules of a profile. `pad_id` is the one of the model's config, which rules of position
    compare with; it may be EOS. Raises ModelError where text or tokens cannot be made as the profile says."""

    def __init__(self, tokenizer: Any, profile: Profile, *, max_length: int, pad_id: int | None) -> None:
        if not tokenizer.is_fast:
            raise ModelError(f"{type(tokenizer).__name__} gives no character offsets; a fast tokenizer is needed")
        self.tokenizer = tokenizer
        self.profile = profile
        self.pad_id = pad_id
        self.truncation = TruncationPolicy(max_length=max_length)
        self.reasoning = profile.text.reasoning
        self.system = {"none": None, "keep-empty": ""}.get(profile.text.system, profile.text.system)
        self.template = pin_dates(_template(tokenizer, profile))
        bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        by_rule: dict[str, tuple[list[int], list[int]]] = {"none": ([], []), "bos": (bos, [])}
        self._special_ends = by_rule.get(profile.text.special) or special_ends(tokenizer)
        self._literal = LiteralTokenizer(tokenizer)
        self._append = self.token_id(profile.text.append)
        self._marked = profile.text.after_step in control_tokens(tokenizer)
        at = profile.read.at
        self._step_id = self.token_id(next(iter(at.values()))) if profile.in_steps and isinstance(at, Mapping) else None
        gate = profile.head.gate
        self._places = [one for one in (gate.at if gate else None, at) if one is not None]
        self._eos = tokenizer.eos_token_id

    def token_id(self, token: Any) -> int | None:
        """The id of a token named by id, by text or as "eos". Raises ModelError where the vocabulary has none."""
        if token is None:
            return None
        if token == "eos":
            token = self.tokenizer.eos_token
        if isinstance(token, str):
            known = self.tokenizer.convert_tokens_to_ids(token)
            if known is None or (known == self.tokenizer.unk_token_id and token != self.tokenizer.unk_token):
                raise ModelError(f"the tokenizer has no token {token!r}, which the profile names")
            return int(known)
        if not 0 <= int(token) < len(self.tokenizer):
            raise ModelError(f"the profile names id {token}, and the vocabulary ends at {len(self.tokenizer) - 1}")
        return int(token)

    def render(self, messages: Iterable[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """As `Chat.render`, without line breaks at the end where the profile closes texts with EOS itself."""
        text = super().render(messages, tools)
        return text.rstrip("\n") if self.profile.text.close_with_eos else text

    def encode(self, prompt: Conversation, completion: Completion, tools: Sequence[Mapping[str, Any]] = ()) -> Encoded:
        """Ids of prompt and completion with the places that are read. Raises DataError where they cannot be made."""
        if not completion.messages:
            raise DataError("the completion has no message")
        if self.profile.text.newlines == "space":
            prompt, completion = tuple(map(_on_one_line, prompt)), _each_on_one_line(completion)
        if self.profile.text.segments == 2:
            return self._encode_segments(prompt, completion)
        literal = self._literal.needed_for((*prompt, *completion.messages), tools)
        if not self.profile.in_steps:
            chat = self._for_control_tokens if literal else self
            return chat._encode(prompt, dataclasses.replace(completion, step_ends=()), tools)
        steps = self.steps(completion)
        if self.profile.text.apart:
            return self._encode_apart(prompt, steps, literal=literal)
        chat = self._for_control_tokens if literal or self._marked else self
        assert isinstance(chat, AdoptedChat)
        if self.profile.text.step_turn:
            return chat._encode_turns(prompt, steps)
        return chat._encode(prompt, self._with_marks(completion, steps), tools)

    def steps(self, completion: Completion) -> list[str]:
        """The texts of the steps without white space around them; a completion without marks is split."""
        marked = in_steps(completion, separator=self.profile.text.separator)
        text, ends = marked.text, marked.step_ends
        return [text[start:end].strip() for start, end in zip((0, *ends), ends, strict=False)]

    def _content_start(
        self, text: str, before: Conversation, then: Conversation, tools: Sequence[Mapping[str, Any]]
    ) -> int:
        if self.profile.text.header == "response":
            return common_chars(text, self.render(before, tools))
        return super()._content_start(text, before, then, tools)

    def _with_marks(self, completion: Completion, steps: Sequence[str]) -> Completion:
        """One assistant turn of all steps, each with what stands behind it; steps end there."""
        text = self.profile.text
        behind = self._literal.written(text.after_step) if self._marked else text.after_step
        content, ends = "", []
        for number, step in enumerate(steps, start=1):
            content += text.join * (number > 1) + text.step.replace("{n}", str(number)).replace("{s}", step) + behind
            ends.append(len(content))
        return Completion((Message("assistant", content),), completion.source, tuple(ends))

    def _encode_turns(self, prompt: Conversation, steps: Sequence[str]) -> Encoded:
        """Each step a user turn, the first behind the question, with the same answer of the assistant."""
        if not prompt or prompt[-1].role != "user":
            raise DataError("the prompt must end with a user's turn, behind which the first step stands")
        reply = Message("assistant", self.profile.text.step_turn)
        first = dataclasses.replace(prompt[-1], content=f"{prompt[-1].content} {steps[0]}")
        turns = [*prompt[:-1], first, reply]
        for step in steps[1:]:
            turns += [Message("user", step), reply]
        text = self.render(turns)
        ids, offsets = self._tokenize(text)
        replies = range(len(prompt), len(turns), 2)
        starts = [self._content_start(text, tuple(turns[:at]), tuple(turns[at:]), ()) for at in replies]
        places = [bisect_right(offsets, start, key=lambda span: span[0]) - 1 for start in starts]
        prompt_tokens = min(places[0], len(ids) - 1)
        if len(ids) > self.truncation.max_length:
            return self._truncate(ids, 0, prompt_tokens, places)
        return self._finish(ids, prompt_tokens, places)

    def _encode_apart(self, prompt: Conversation, steps: Sequence[str], *, literal: bool) -> Encoded:
        """Prompt, steps and separators tokenized one by one; a step ends at its last token."""
        text = self.profile.text
        beginning, _, _ = text.template.partition("{a}")
        tokenizer = self._literal if literal else self.tokenizer

        def ids_of(piece: str) -> list[int]:
            return list(tokenizer(piece, add_special_tokens=False)["input_ids"]) if piece else []

        ids = [*self._special_ends[0], *ids_of(beginning.replace("{q}", question_of(prompt)))]
        prompt_tokens, places = len(ids), []
        behind = self.tokenizer(text.after_step, add_special_tokens=False)["input_ids"] if text.after_step else []
        for number, step in enumerate(steps, start=1):
            ids += ids_of(text.step.replace("{n}", str(number)).replace("{s}", step)) + list(behind)
            places.append(len(ids) - 1)
        if len(ids) > self.truncation.max_length:
            return self._truncate(ids, 0, prompt_tokens, places)
        return self._finish(ids, prompt_tokens, places)

    def _encode_segments(self, prompt: Conversation, completion: Completion) -> Encoded:
        """Question and answer as an encoder's two segments."""
        if len(completion.messages) != 1:
            raise DataError(_ONE_QUESTION)
        literal = self._literal.needed_for((*prompt, *completion.messages))
        tokenizer = self._literal if literal else self.tokenizer
        question, answer = (
            list(tokenizer(one, add_special_tokens=False)["input_ids"])
            for one in (question_of(prompt), completion.messages[0].content)
        )
        before, between, after = segment_ends(self.tokenizer)
        ids = [*before, *question, *between, *answer, *after]
        prompt_tokens = len(before) + len(question) + len(between)
        over = len(ids) - self.truncation.max_length
        flags = {}
        if over > 0:
            if self.profile.text.cut == "refuse" or over >= len(answer):
                raise DataError(self._too_long(len(ids)))
            ids = [*ids[: len(ids) - len(after) - over], *after]
            flags = {"response_truncated": True}
        return Encoded(tuple(ids), prompt_tokens, (len(ids) - 1,), **flags)

    def _tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        special = self.profile.text.special
        result = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, offsets = list(result["input_ids"]), list(result["offset_mapping"])
        end = (len(text), len(text))
        if self.profile.text.close_with_eos and ids[-1:] != [self._eos]:
            result = self.tokenizer(f"{text} ", add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids, offsets = [*result["input_ids"], self._eos], [*result["offset_mapping"], end]
        before, after = self._special_ends
        if before and (special == "twice" or ids[: len(before)] != before):
            ids, offsets = before + ids, [(0, 0)] * len(before) + offsets
        if after and (special == "twice" or ids[-len(after) :] != after):
            ids, offsets = ids + after, offsets + [end] * len(after)
        if self._append is not None:
            ids, offsets = [*ids, self._append], [*offsets, end]
        return ids, offsets

    def _truncate(self, ids: list[int], head: int, prompt_tokens: int, steps: list[int]) -> Encoded:
        """By the profile: refused, or cut at one end, as its card or its trainer does."""
        limit = self.truncation.max_length
        over, start = len(ids) - limit, len(self._special_ends[0])
        if over <= 0:
            return self._finish(ids, prompt_tokens, steps)
        if self.profile.text.cut == "refuse":
            raise DataError(self._too_long(len(ids)))
        if self.profile.text.cut == "right":
            kept_steps = [step for step in steps if step < limit]
            if len(kept_steps) < len(steps):
                raise DataError(f"only {len(kept_steps)} of {len(steps)} steps fit into {limit} tokens")
            return self._finish(ids[:limit], prompt_tokens, kept_steps, response_truncated=True)
        shifted = [step - over for step in steps]
        if any(step < start for step in shifted):
            raise DataError(f"steps were cut away: the text takes {len(ids)} tokens and may take {limit}")
        ids = ids[:start] + ids[start + over :]
        return self._finish(ids, max(start, prompt_tokens - over), shifted, prompt_truncated=True)

    def _too_long(self, n: int) -> str:
        return (
            f"the text takes {n} tokens and may take {self.truncation.max_length}; shorten it, or adopt the model with "
            "text.cut = left (or right)"
        )

    def _finish(self, ids: list[int], prompt_tokens: int, steps: list[int], **flags: bool) -> Encoded:
        if len(ids) <= prompt_tokens:
            raise DataError("the completion renders to no token")
        return Encoded(tuple(ids), prompt_tokens, self._reads(ids, steps), **flags)

    def _reads(self, ids: Sequence[int], steps: Sequence[int]) -> tuple[int, ...]:
        """The tokens that are read: the gate's and the reward's, or one a step."""
        at = self.profile.read.at
        if not self.profile.in_steps:
            return tuple(position(ids, place, pad_id=self.pad_id) for place in self._places)
        if self._step_id is not None and any(ids[step] != self._step_id for step in steps):
            got = next(ids[step] for step in steps if ids[step] != self._step_id)
            raise DataError(f"a step ends with id {got}, expected {self._step_id}, where its reward is read")
        return tuple(step - 1 for step in steps) if isinstance(at, Mapping) and "before" in at else tuple(steps)


def question_of(prompt: Conversation) -> str:
    """The text of a prompt that is one question. Raises DataError for any other."""
    turns = with_system(prompt, None)
    if len(turns) != 1 or turns[0].role != "user":
        raise DataError(_ONE_QUESTION)
    return turns[0].content


def segment_ends(tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """The special ids before, between and behind two segments. Raises ModelError where segments have types of their
    own, which the trunk would have to be given."""
    one = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", "a")["input_ids"]
    width = len(one)
    starts = [at for at in range(len(full) - width + 1) if full[at : at + width] == one]
    if len(starts) < 2:
        raise ModelError(f"{type(tokenizer).__name__} does not join two segments")
    first, second = starts[0], starts[-1]
    return full[:first], full[first + width : second], full[second + width :]


def _template(tokenizer: Any, profile: Profile) -> str:
    """The Jinja text of a profile. Raises ModelError where the tokenizer brings none and the profile names none."""
    text = profile.text.template
    if text != "own":
        return text if "{%" in text or "{{" in text else _single_turn(text)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template:
        return str(template)
    if profile.text.segments == 2 or profile.read.kind == "pair":
        return _single_turn("{q}{a}")
    raise ModelError(
        "the tokenizer has no chat template, so how conversations were written in training cannot be told; say it: "
        "text.template = FILE.jinja, or a text such as 'Human: {q}\\nAssistant: {a}'"
    )


def _single_turn(text: str) -> str:
    """A Jinja template of a text with {q} and {a}."""
    wrong = f"raise_exception({_ONE_QUESTION!r})"
    parts = re.split(r"(\{q\}|\{a\})", text)
    names = {"{q}": "messages[0]['content']", "{a}": "messages[1]['content']"}
    body = "".join(f"{{{{- {names[part] if part in names else repr(part)} -}}}}" for part in parts if part)
    roles = "messages|length != 2 or messages[0]['role'] != 'user' or messages[1]['role'] != 'assistant'"
    return f"{{%- if {roles} -%}}{{{{- {wrong} -}}}}{{%- endif -%}}{body}"


def _on_one_line(message: Message) -> Message:
    return dataclasses.replace(message, content=re.sub(r"\s*\n\s*", " ", message.content))


def _each_on_one_line(completion: Completion) -> Completion:
    return dataclasses.replace(completion, messages=tuple(map(_on_one_line, completion.messages)), step_ends=())
