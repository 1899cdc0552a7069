"""What a chat template writes between turns, learned by rendering it over probes.

Conversations of several shapes are rendered with one private-use character as each turn's content. What stands before
the first, between two and behind the last of these are the template's markers, whatever the Jinja text looks like. A
shape that the template refuses, or in which a turn is lost, moved or repeated, teaches nothing.

Only markers that hold a control token (`<|im_start|>`, `[INST]`, `<｜User｜>` ...) can be told from what people and
policies write. A system turn that is joined to the user turn by plain text is therefore left as a part of that user
turn, and a template that parts user and assistant by plain text is refused: its text cannot be read back safely.

Dates: what `strftime_now` or Llama's own default writes is matched as any date in the same form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rmkit.chat.template import PINNED_DATE, as_template_dict, pin_dates
from rmkit.errors import ConfigError
from rmkit.serve.compat.policy_templates import PolicyTemplate
from rmkit.types import Message

CONTROL = re.compile(
    r"<\|[^<>\s]{1,60}>|<[^<>\s]{1,60}\|>|<｜[^｜<>]{1,60}｜>|\[/?[A-Z][A-Z_]+\]|</s>|<(?:start|end)_of_turn>"
)
PADS = ("<|endoftext|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "<eos>", "[PAD]")

_SHAPES = ("UA", "UAUA", "SUA", "SUAUA", "UUA", "UAA", "UATA", "UATTA", "UATAUA", "SUATA")
_ROLES = {"S": "system", "U": "user", "A": "assistant", "T": "tool"}
_DATE_FORMS = {
    "%d %b %Y": r"\d{1,2} [A-Z][a-z]{2} \d{4}",
    "%Y-%m-%d": r"\d{4}-\d\d-\d\d",
    "%d %B %Y": r"\d{1,2} [A-Z][a-z]{2,8} \d{4}",
    "%B %d, %Y": r"[A-Z][a-z]{2,8} \d{1,2}, \d{4}",
}


class TemplateRenderer:
    """Renders a policy's template in a sandbox, with the few names that Hugging Face templates expect."""

    def __init__(self, template: PolicyTemplate) -> None:
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _tojson
        environment.globals.update(raise_exception=_refuse, strftime_now=PINNED_DATE.strftime)
        self.tokens = {"bos_token": template.bos, "eos_token": template.eos}
        source = re.sub(r"\{%(-?)\s*generation\s*(-?)%\}", r"{%\1 if true \2%}", pin_dates(template.source))
        source = re.sub(r"\{%(-?)\s*endgeneration\s*(-?)%\}", r"{%\1 endif \2%}", source)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ConfigError(f"the policy template {template.name!r} is no valid Jinja: {error}") from error

    def render(self, messages: Iterable[Message]) -> str:
        """The text of a conversation, without a generation prompt. Raises whatever the template raises."""
        turns = [as_template_dict(message) for message in messages]
        return str(self._template.render(messages=turns, add_generation_prompt=False, **self.tokens))


def _tojson(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=options.get("indent"))


def _refuse(message: str) -> None:
    raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Markers:
    """`before[role]`: texts that open the conversation with that role; `between[a][b]`: texts from a turn of role a to
    one of role b; `after`: texts that end the last assistant turn; `control`: control tokens in any of them.
    """

    before: Mapping[str, frozenset[str]]
    between: Mapping[str, Mapping[str, frozenset[str]]]
    after: frozenset[str]
    control: frozenset[str]


def learn(template: PolicyTemplate, renderer: TemplateRenderer) -> Markers:
    """The markers of a template. Raises ConfigError where its text cannot be read back safely."""
    before: dict[str, set[str]] = {}
    between: dict[str, dict[str, set[str]]] = {}
    after: set[str] = set()
    for shape in _SHAPES:
        roles = [_ROLES[letter] for letter in shape]
        pieces = _probe(renderer, roles)
        if pieces is None:
            continue
        before.setdefault(roles[0], set()).add(pieces[0].removeprefix(template.bos))
        after.add(pieces[-1])
        for first, then, text in zip(roles, roles[1:], pieces[1:-1], strict=False):
            between.setdefault(first, {}).setdefault(then, set()).add(text)
    _drop_what_is_plain_text(before, between)
    if ends := between.get("assistant", {}).get("assistant"):  # what ends a reply opens no further one
        ends -= {text for text in ends if text.strip() in {result.strip() for result in after}}
    for first, then in (("user", "assistant"), ("assistant", "user")):
        if then not in between.get(first, {}):
            raise ConfigError(
                f"the policy template {template.name!r} does not set {first} from {then} turns by control tokens, so "
                "its text cannot be read back; send messages, or a prompt apart from its reply"
            )
    texts = [text for follow in between.values() for result in follow.values() for text in result]
    control = {token for text in [*texts, *after, template.eos] for token in CONTROL.findall(text)}
    return Markers(
        {role: frozenset(result) for role, result in before.items()},
        {first: {then: frozenset(result) for then, result in follow.items()} for first, follow in between.items()},
        frozenset(after),
        frozenset(control | ({template.eos} if template.eos else set())),
    )


def _probe(renderer: TemplateRenderer, roles: Sequence[str]) -> list[str] | None:
    """The rendered text around the probes, or None where the shape teaches nothing."""
    probes = [chr(0xE000 + number) for number in range(len(roles))]
    try:
        text = renderer.render(Message(role, probe) for role, probe in zip(roles, probes, strict=True))
    except Exception:  # templates raise what they like
        return None
    pieces = re.split("[\ue000-\ue0ff]", text)
    # every turn once and in order, or what stands between two pieces is no marker between their turns
    order = [character for character in text if "\ue000" <= character <= "\ue0ff"]
    return pieces if order == probes else None


def _drop_what_is_plain_text(before: dict[str, set[str]], between: dict[str, dict[str, set[str]]]) -> None:
    for follow in between.values():
        for then, result in list(follow.items()):
            if not all(CONTROL.search(text) for text in result):
                del follow[then]
    if not between.get("system", {}).get("user") or before["system"] & before.get("user", set()):
        before.pop("system", None)
        between.pop("system", None)


def pattern(text: str, *, loose: bool) -> str:
    """A regular expression for a marker: dates are any dates, and between control tokens white space may differ.

    Loose ones take the white space behind them; that before them is left to the caller, because a search for leading
    white space takes quadratic time.
    """
    parts = re.split(r"(?<=[>\]])\s*(?=[<\[])", text.strip() if loose else text)
    result = r"\s*".join(re.escape(part) for part in parts)
    for form, dates in _DATE_FORMS.items():
        result = result.replace(re.escape(PINNED_DATE.strftime(form)), dates)
    return rf"{result}\s*" if loose else result
