"""Which template a policy's text is in: a named one, a file, or whichever of the known ones reads it back exactly.

With `auto` the readers are asked in a fixed order, the served model's own template first (verl and vLLM clients render
with it), then the built-in ones; the first that reads the text wins. Their control tokens differ, and a template that
only resembles the right one fails the check that it writes the same text again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from rmkit.config import read_object
from rmkit.errors import ConfigError, DataError
from rmkit.serve.compat.policy_templates import BUILT_IN, PolicyTemplate
from rmkit.serve.compat.policy_text import TemplateReader, reply_end
from rmkit.serve.compat.template_markers import CONTROL
from rmkit.types import Candidates, Completion, Message

_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<｜end▁of▁sentence｜>", "</s>")
_PLAIN_BOS = re.compile(r"(?:<\|begin_of_text\|>|<bos>|<s>|<｜begin▁of▁sentence｜>)?")


class PolicyText:
    """Reads policy text with the first of its readers that can; `plain`: prompts are bare user text, untemplated."""

    def __init__(self, readers: Sequence[TemplateReader], *, plain: bool = False) -> None:
        self.readers = tuple(readers)
        self.plain = plain

    def read(self, text: str) -> Candidates:
        """The conversation of a text. Raises DataError where none of the templates reads it back exactly."""
        if self.plain:
            raise DataError("plain text does not tell where its reply begins; send the prompt apart from the query")
        reasons = []
        for reader in self.readers:
            try:
                return reader.read(text)
            except DataError as error:
                reasons.append((reader.opens(text), str(error)))
        raise self._unread(reasons)

    def read_reply(self, prompt: str, query: str) -> tuple[Candidates, bool]:
        """The conversation of a prompt and the reply that follows it in `query`; True where the query was cut.

        Raises DataError where none of the templates reads them back exactly.
        """
        if self.plain:
            return _plain(prompt, query), False
        reasons = []
        for reader in self.readers:
            try:
                return reader.read_reply(prompt, query)
            except DataError as error:
                reasons.append((reader.opens(prompt), str(error)))
        raise self._unread(reasons)

    def refuse_markers(self, text: str, *, where: str) -> None:
        """Raise DataError for text that is meant to be plain and opens like a templated conversation."""
        if any(reader.opens(text) for reader in self.readers):
            raise DataError(f"{where} begins with the markers of a chat template; send plain text or messages")

    def _unread(self, reasons: Sequence[tuple[bool, str]]) -> DataError:
        near = [reason for opens, reason in reasons if opens]
        if near:
            return DataError("; ".join(near))
        known = ", ".join(reader.name for reader in self.readers)
        return DataError(
            f"the text is in none of the known chat templates ({known}); name the policy's with --policy-template, "
            "or 'plain' for prompts without one"
        )


def _plain(prompt: str, query: str) -> Candidates:
    """A bare prompt as one user turn. Refuses control tokens, which would mean that it is no bare prompt."""
    bare, whole = prompt[_bos(prompt) :], query[_bos(query) :]
    if not whole.startswith(bare):
        raise DataError("plain: the query does not begin with its prompt")
    reply = whole[len(bare) :]
    reply = reply[: reply_end(reply, 0, _ENDS)]
    for name, text in (("prompt", bare), ("reply", reply)):
        if stray := CONTROL.search(text):
            raise DataError(f"plain: the {name} holds the control token {stray[0]!r}; name the policy's template")
    return Candidates((Message("user", bare),), (Completion((Message("assistant", reply),)),))


def _bos(text: str) -> int:
    match = _PLAIN_BOS.match(text)
    return match.end() if match else 0


@lru_cache
def built_in_readers() -> dict[str, TemplateReader]:
    """The built-in templates' readers by name, in the order in which they are tried."""
    return {template.name: TemplateReader(template) for template in BUILT_IN}


def policy_text(choice: str = "auto", *, chat: Any = None) -> PolicyText:
    """The readers for `auto`, `plain`, a built-in name, or a path to a template or tokenizer folder.

    `chat` is the served model's `rmkit.chat.encode.Chat`, where it has one. Raises ConfigError for anything else.
    """
    own = _own_reader(chat)
    built_in = built_in_readers()
    if choice == "auto":
        return PolicyText([*own, *built_in.values()])
    if choice == "plain":
        return PolicyText([], plain=True)
    if choice in built_in:
        return PolicyText([built_in[choice]])
    path = Path(choice)
    if not path.exists():
        raise ConfigError(
            f"no policy template {choice!r}; expected auto, plain, {', '.join(built_in)}, a Jinja file or a tokenizer "
            "folder"
        )
    return PolicyText([TemplateReader(template_at(path))])


def _own_reader(chat: Any) -> list[TemplateReader]:
    if chat is None:
        return []
    tokens = chat.tokenizer
    template = PolicyTemplate(
        name="the model's own template", source=chat.template, bos=tokens.bos_token or "", eos=tokens.eos_token or ""
    )
    try:
        return [TemplateReader(template)]
    except ConfigError:  # turns set apart by plain text: such a text cannot be read back, others can
        return []


def template_at(path: Path) -> PolicyTemplate:
    """The template in a Jinja file or a tokenizer folder, with BOS and EOS from tokenizer_config.json beside it."""
    folder = path if path.is_dir() else path.parent
    config = _json(folder / "tokenizer_config.json")
    file = path if path.is_file() else folder / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    if not isinstance(source, str):
        raise ConfigError(f"{path} holds no chat template: no chat_template.jinja, none in tokenizer_config.json")
    bos, eos = _token(config, "bos_token"), _token(config, "eos_token")
    return PolicyTemplate(name=path.name, source=source, bos=bos, eos=eos)


def _json(path: Path) -> dict[str, object]:
    return read_object(path, raises=ConfigError, hint="name a tokenizer's folder") if path.is_file() else {}


def _token(config: dict[str, Any], name: str) -> str:
    token = config.get(name) or ""
    return str(token["content"] if isinstance(token, dict) else token)
