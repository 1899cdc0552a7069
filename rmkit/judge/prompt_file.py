"""A judge's prompt: a Jinja file with the blocks `system` and `user`. Its identity is the hash of its text.

The built-in files carry their version in the name and are never changed once released: a better wording is a new file,
so an old judge still asks what it asked. Users replace one by naming their own file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rmkit.chat.reasoning import in_content
from rmkit.chat.tool_calls import json_text
from rmkit.errors import ConfigError
from rmkit.ids import content_hash
from rmkit.judge.prompt_delimiters import fenced, harmless, mark_of
from rmkit.types import Completion, Conversation, Message

FOLDER = Path(__file__).parent / "prompts"
BUILT_IN = {
    "scale": "scale_v1.jinja",
    "yes_no": "yes_no_v1.jinja",
    "pairwise": "pairwise_v1.jinja",
    "listwise": "listwise_v1.jinja",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a prompt shows beside the conversation: responses in the order shown, rubric, reference answer, tools."""

    responses: tuple[Completion, ...]
    rubric: str = ""
    reference: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()


class PromptFile:
    """Raises ConfigError where the file is missing, is no Jinja, or lacks the block `user`."""

    def __init__(self, path: Path, *, text: str | None = None) -> None:
        """`text` is that of a prompt that stands in no file, which `path` only names."""
        self.name = path.name
        try:
            text = path.read_text() if text is None else text
            self._template = ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(text)
        except (OSError, UnicodeDecodeError, TemplateError) as error:
            raise ConfigError(f"the prompt {path} cannot be used: {error}") from error
        if "user" not in self._template.blocks:
            raise ConfigError(f"the prompt {path} has no block user; see {FOLDER / BUILT_IN['pairwise']}")
        self.hash = content_hash(text)

    def render(self, conversation: Conversation, shown: Shown, *, settings: Mapping[str, Any]) -> Conversation:
        """The messages that ask for one judgment; what others wrote is fenced. `settings`: lowest, highest, ties."""
        labels = [chr(ord("A") + i) for i in range(len(shown.responses))]
        responses = {
            f"response-{label}": conversation_text(r.messages) for label, r in zip(labels, shown.responses, strict=True)
        }
        tools = f"tools: {json_text(shown.tools)}\n\n" if shown.tools else ""
        pieces = {
            "conversation": tools + conversation_text(conversation),
            "reference": shown.reference,
            "rubric": shown.rubric,
        }
        mark = mark_of([*pieces.values(), *responses.values()])
        values = fenced(pieces, mark=mark) | {
            "responses": [
                {"label": label, "text": text or f"<response-{label} {mark}>\n</response-{label} {mark}>"}
                for label, text in zip(labels, fenced(responses, mark=mark).values(), strict=True)
            ],
            "question": harmless(pieces["conversation"]),
            "answers": [harmless(text) for text in responses.values()],
            "rubric_text": harmless(shown.rubric),
            "reference_text": harmless(shown.reference),
            **settings,
        }
        context = self._template.new_context(values)
        rendered = {name: self._block(name, context) for name in ("system", "user") if name in self._template.blocks}
        return tuple(Message(name, text) for name, text in rendered.items() if text)

    def _block(self, name: str, context: Context) -> str:
        try:
            return "".join(self._template.blocks[name](context)).strip()
        except TemplateError as error:
            raise ConfigError(f"the prompt {self.name}, block {name}: {error}") from error


def conversation_text(messages: Sequence[Message]) -> str:
    """A conversation as text: a sole message bare, several with their roles; reasoning in front of what was said."""
    turns = [in_content(message) for message in messages]
    if len(turns) == 1:
        return turns[0].content + _calls(turns[0])
    return "\n\n".join(f"{turn.role}: {turn.content}{_calls(turn)}" for turn in turns)


def _calls(message: Message) -> str:
    functions = (call.get("function") or call for call in message.tool_calls)
    return "".join(f"\n(calls a tool: {one.get('name')} {one.get('arguments')})" for one in functions)
