"""Control tokens inside of messages: `<|im_end|>` that somebody wrote is text, not the end of a turn.

A tokenizer takes the text of its special tokens for control tokens wherever it stands, so a reply that holds them would
forge turns of its own. Here they are told apart by who wrote them: in messages they go through the template as marks
that nobody can have written; what the template wrote itself then becomes marks, and the marks of messages text again. A
copy of the tokenizer knows the marks for the control tokens (with all their rules on white space) and splits control
tokens like any other text. Everything else has the very ids that it would have without.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rmkit.errors import DataError
from rmkit.types import Message

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SALT = secrets.token_hex(8)  # marks occur in no text; which ones they are changes no id


def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Texts that the tokenizer takes for control tokens wherever they stand, the longest first."""
    special = set(tokenizer.all_special_tokens)
    special |= {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(filter(str.strip, special), key=lambda name: (-len(name), name)))


def special_ends(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids of control tokens that the tokenizer itself puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []


class LiteralTokenizer:
    """A fast tokenizer for conversations whose messages hold control tokens as text.

    It has what `Chat` asks of a tokenizer. What it renders is to be read by itself only.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.pad_token_id = tokenizer.pad_token_id
        names = control_tokens(tokenizer)
        self._mark = {name: f"{_SALT}t{number}t" for number, name in enumerate(names)}
        self._other = self._mark | {mark: name for name, mark in self._mark.items()}
        self._control = re.compile("|".join(_by_beginning(names)) or "(?!)")
        self._either = re.compile("|".join(map(re.escape, self._other)) or "(?!)")

    def needed_for(self, messages: Iterable[Message], tools: Sequence[Mapping[str, Any]] = ()) -> bool:
        """Whether any text in the messages or tools is that of a control token."""
        result = self._control.search
        return bool(tools and result(str(tools))) or any(
            result(one.content)
            or result(one.name or "")
            or result(one.reasoning or "")
            or (one.tool_calls and result(str(one.tool_calls)))
            for one in messages
        )

    def written(self, name: str) -> str:
        """What a message holds where the control token of that name itself is meant, not its text."""
        return self._mark[name]

    def apply_chat_template(self, turns: Sequence[Any], **options: Any) -> str:
        """The rendered text, in which marks stand for the control tokens that the template wrote."""
        tools = self._within(options.pop("tools", None))
        return self._swapped(str(self.tokenizer.apply_chat_template(self._within(turns), tools=tools, **options)))

    def __call__(self, text: str, **_: Any) -> dict[str, list[Any]]:
        """`input_ids` and `offset_mapping`, without special tokens at the ends.

        Raises DataError where the tokenizer's vocabulary gives text no other ids than those of a control token.
        """
        backend, control = self._backend
        result = backend.encode(text, add_special_tokens=False)
        if forged := sorted(set(result.ids) & (set(control.values()) - {self.tokenizer.unk_token_id})):
            name = self.tokenizer.convert_ids_to_tokens(forged[0])
            raise DataError(f"a message holds the control token {name!r}, which this tokenizer cannot read as text")
        return {"input_ids": [control.get(one, one) for one in result.ids], "offset_mapping": result.offsets}

    @cached_property
    def _backend(self) -> tuple[Tokenizer, dict[int, int]]:
        """The copy that splits control tokens, and the ids of control tokens by those of their marks."""
        from tokenizers import AddedToken, Tokenizer

        backend: Any = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        backend.no_padding()
        backend.no_truncation()
        backend.encode_special_tokens = True
        rules = {str(token): token for token in self.tokenizer.added_tokens_decoder.values()}
        control: dict[int, int] = {}
        for name, mark in self._mark.items():
            rule = rules.get(name, AddedToken(name))
            same = {flag: getattr(rule, flag) for flag in ("single_word", "lstrip", "rstrip", "normalized")}
            backend.add_tokens([AddedToken(mark, special=False, **same)])
            control[backend.token_to_id(mark)] = self.tokenizer.convert_tokens_to_ids(name)
        return backend, control

    def _swapped(self, text: str) -> str:
        return self._either.sub(lambda result: self._other[result[0]], text)

    def _within(self, value: Any) -> object:
        """The value with every text in it swapped."""
        match value:
            case str():
                return self._swapped(value)
            case dict():
                return {self._swapped(key): self._within(inner) for key, inner in value.items()}
            case list() | tuple():
                return [self._within(inner) for inner in value]
        return value


def _by_beginning(names: Sequence[str]) -> Iterator[str]:
    """Patterns of names that begin alike: hundreds of reserved tokens are then tried where one may begin, not at each
    `<` of a text."""
    for head in sorted({name[:2] for name in names}):
        tails = "|".join(re.escape(name[2:]) for name in names if name[:2] == head)
        yield f"{re.escape(head)}(?:{tails})"
