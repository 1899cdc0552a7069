"""What inference servers take as input of a classifier: text, texts, token ids or messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, StrictInt

from rmkit.chat.reader import read_conversation
from rmkit.errors import DataError
from rmkit.serve.compat.dialect import Reading, one_reply
from rmkit.serve.compat.policy_readers import PolicyText
from rmkit.serve.compat.served_model import chat_of
from rmkit.serve.http.problems import HttpError
from rmkit.types import Candidates, Message, RewardModel

TokenIds = list[Annotated[StrictInt, Field(ge=0, lt=2**31)]]
Inputs = str | list[str] | TokenIds | list[TokenIds]


def text_readings(inputs: Inputs, model: RewardModel) -> list[Reading]:
    """A reading per text. Token ids are decoded with the model's own tokenizer. Raises HttpError (400)."""
    if isinstance(inputs, str):
        return [_of_text(inputs)]
    if not inputs:
        raise HttpError(400, "the input is empty")
    if isinstance(inputs[0], str):
        return [_of_text(str(text)) for text in inputs]
    rows = inputs if isinstance(inputs[0], list) else [inputs]
    return [_of_text(_decoded(row, model)) for row in rows]


def _decoded(ids: Sequence[int], model: RewardModel) -> str:
    chat = chat_of(model)
    if chat is None:
        raise HttpError(400, f"{model.info.name} has no tokenizer; send text or messages")
    if not ids or max(ids) >= len(chat.tokenizer):
        raise HttpError(400, f"token ids must lie in 0 to {len(chat.tokenizer) - 1}, and there must be some")
    return str(chat.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _of_text(text: str) -> Reading:
    return lambda reader: reader.read(text)


def message_reading(messages: Sequence[dict[str, Any]]) -> Reading:
    """The last turn is scored; it must be the assistant's."""

    def read(_: PolicyText) -> Candidates:
        turns = read_conversation(messages, role="user")
        if turns[-1].role != "assistant":
            raise DataError("the last message must be the assistant's, which is what is scored")
        return one_reply(turns[:-1], turns[-1:])

    return read


def plain_reading(prompt: str, reply: str) -> Reading:
    """A bare prompt and reply. What looks like templated text is refused: it would be scored with its markers."""

    def read(text: PolicyText) -> Candidates:
        text.refuse_markers(prompt, where="the first text")
        text.refuse_markers(reply, where="the second text")
        return one_reply([Message("user", prompt)], [Message("assistant", reply)])

    return read
