"""Policy-templated text, as trainers send it, back into messages.

`read(text)` splits a rendered conversation at the markers of its template; the last assistant turn, finished or not,
is the completion. What comes back is trustworthy because three things are checked, and each failure is a DataError:

- every turn begins where a marker says so, and the conversation ends with an assistant turn;
- no content holds a control token of the template, so a stray one never hides in what is scored;
- the template, given the messages that were read, writes the same text again, white space aside.

`read_reply(prompt, query)` is the safer form for trainers that also send the prompt: the reply is what follows it, and
a reply that opens turns of its own is refused. A query whose beginning was cut off is completed from the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rmkit.errors import DataError
from rmkit.serve.compat.policy_templates import PolicyTemplate
from rmkit.serve.compat.template_markers import PADS, TemplateRenderer, learn, pattern
from rmkit.types import Candidates, Completion, Conversation, Message

_PROBE = "\ue000"


class _Turn(NamedTuple):
    role: str
    start: int
    end: int


class TemplateReader:
    """Reads the text of one template. Raises ConfigError for a template whose text cannot be read back safely."""

    def __init__(self, template: PolicyTemplate) -> None:
        self.name = template.name
        self._template = template
        self._renderer = TemplateRenderer(template)
        self._markers = learn(template, self._renderer)
        loose = template.loose
        self._opening = _one_of(self._markers.before, loose=loose)
        self._next = {role: _one_of(follow, loose=loose) for role, follow in self._markers.between.items()}
        ends = {text.strip() for text in self._markers.after} | {template.eos}
        self._ends = sorted((text for text in ends if text), key=len, reverse=True)
        pads = "|".join(re.escape(pad) for pad in PADS)
        space = r"\s*" if loose else ""
        self._start = re.compile(rf"(?:{pads})*(?:\s*{re.escape(template.bos) or '(?!)'})*{space}")

    def render(self, messages: Conversation) -> str:
        """The template's text of a conversation. Raises whatever the template raises."""
        return self._renderer.render(messages)

    def opens(self, text: str) -> bool:
        """Whether the text begins with a control token, as this template's conversations do."""
        match = self._opening.match(text, self._begin(text))
        return match is not None and match.end() > match.start()

    def read(self, text: str) -> Candidates:
        """The conversation of a text; raises DataError where it cannot be read back exactly."""
        turns = self._turns(text)
        if turns[-1].role == "assistant" and turns[-1].start == len(text):
            raise DataError(f"{self.name}: the text is a prompt without a reply")
        return self._checked(text, turns)

    def read_reply(self, prompt: str, query: str) -> tuple[Candidates, bool]:
        """The conversation of a prompt, as rendered for generation, with the reply that follows it in `query`.

        True where the query's beginning had been cut off and was taken from the prompt. Raises DataError.
        """
        reply_at, cut = _reply_start(prompt[self._begin(prompt) :], query[self._begin(query) :]), False
        if reply_at is None:
            reply, cut = self._reply_after_cut(prompt, query), True
        else:
            reply = query[self._begin(query) + reply_at :]
        turns = self._turns(prompt + reply)
        if _visible((prompt + reply)[len(prompt) : turns[-1].start]):
            raise DataError(f"{self.name}: the reply opens turns of its own, or the prompt does not end with a header")
        return self._checked(prompt + reply, turns), cut

    def _begin(self, text: str) -> int:
        """Where the conversation begins behind padding and the BOS token."""
        match = self._start.match(text)
        return match.end() if match else 0

    def _turns(self, text: str) -> list[_Turn]:
        opened = self._opening.match(text, self._begin(text))
        if opened is None:
            raise DataError(f"{self.name}: the text does not begin like a conversation of this template")
        return list(self._split(text, _role(opened), opened.end()))

    def _split(self, text: str, role: str, start: int) -> Iterator[_Turn]:
        while match := self._next[role].search(text, start) if role in self._next else None:
            yield _Turn(role, start, match.start())
            role, start = _role(match), match.end()
        yield _Turn(role, start, reply_end(text, start, self._ends) if role == "assistant" else len(text))

    def _checked(self, text: str, turns: list[_Turn]) -> Candidates:
        if turns[-1].role != "assistant":
            raise DataError(f"{self.name}: the text ends with a {turns[-1].role} turn, not with a reply")
        if len(turns) < 2:
            raise DataError(f"{self.name}: the text has a reply and no prompt")
        messages = tuple(Message(turn.role, self._content(text, turn)) for turn in turns)
        for message in messages:
            if stray := next((token for token in self._markers.control if token in message.content), None):
                raise DataError(f"{self.name}: the {message.role} turn holds the control token {stray!r}")
        if _visible(self._written(messages)) != _visible(text[turns[0].start : turns[-2].end]):
            raise DataError(f"{self.name}: the template would not write this text for the messages in it")
        shown = tuple(message for message in messages if message.role != "system" or message.content.strip())
        return Candidates(shown[:-1], (Completion((shown[-1],)),))

    def _content(self, text: str, turn: _Turn) -> str:
        content = text[turn.start : turn.end]
        return content.strip() if self._template.loose else content

    def _written(self, messages: Conversation) -> str:
        """What the template writes between its opening and the header of the reply."""
        try:
            whole = self.render((*messages[:-1], Message("assistant", _PROBE)))
        except Exception as error:  # templates raise what they like
            raise DataError(f"{self.name}: the template refuses the messages of this text: {error}") from error
        head = whole[: max(0, whole.rfind(_PROBE))].removeprefix(self._template.bos)
        opening = max((m for m in self._markers.before[messages[0].role] if head.startswith(m)), key=len, default="")
        headers = self._markers.between[messages[-2].role]["assistant"]
        return head[len(opening) :].removesuffix(max((m for m in headers if head.endswith(m)), key=len, default=""))

    def _reply_after_cut(self, prompt: str, query: str) -> str:
        """The reply in a query that holds only the end of the prompt."""
        turns = self._turns(prompt)
        if len(turns) < 2 or turns[-1].role != "assistant":
            raise DataError(f"{self.name}: the prompt does not end with the header of a reply")
        body, header = prompt[: turns[-2].end], prompt[turns[-2].end :]
        at = query.rfind(header)
        while at >= 0:
            if body.endswith(query[:at].lstrip("�")):
                return query[at + len(header) :]
            at = query.rfind(header, 0, at)
        raise DataError(f"{self.name}: the query holds neither the prompt nor its end")


def reply_end(text: str, start: int, ends: Sequence[str]) -> int:
    """Where the reply that begins at `start` ends: before padding and before one of `ends`, if it has them.

    White space is a part of the reply unless padding or an end follows it. Linear in what is cut off.
    """
    at, padded = _before_space(text, start, len(text)), False
    while pad := next((pad for pad in PADS if text.endswith(pad, start, at)), None):
        at, padded = _before_space(text, start, at - len(pad)), True
    if end := next((end for end in ends if text.endswith(end, start, at)), None):
        return at - len(end)
    return at if padded else len(text)


def _before_space(text: str, start: int, at: int) -> int:
    while at > start and text[at - 1].isspace():
        at -= 1
    return at


def _one_of(texts_by_role: Mapping[str, frozenset[str]], *, loose: bool) -> re.Pattern[str]:
    """Any of the markers, the longest first; the group that matched is named after the role."""
    ordered = sorted(((text, role) for role, texts in texts_by_role.items() for text in texts), key=_longest_first)
    arms = [f"(?P<{role}_{n}>{pattern(text, loose=loose)})" for n, (text, role) in enumerate(ordered)]
    return re.compile("|".join(arms) or "(?!)")


def _longest_first(marker: tuple[str, str]) -> tuple[int, str]:
    return -len(marker[0]), marker[0]


def _role(match: re.Match[str]) -> str:
    return str(match.lastgroup).rsplit("_", 1)[0]


def _visible(text: str) -> str:
    return "".join(text.split())


def _reply_start(prompt: str, query: str) -> int | None:
    """Where in `query` the text behind `prompt` begins, white space in the prompt aside; None where it differs."""
    if query.startswith(prompt):
        return len(prompt)
    at = 0
    for character in _visible(prompt):
        while at < len(query) and query[at].isspace():
            at += 1
        if at == len(query) or query[at] != character:
            return None
        at += 1
    trailing = prompt[len(prompt.rstrip()) :]
    return at + len(trailing) if query.startswith(trailing, at) else at
