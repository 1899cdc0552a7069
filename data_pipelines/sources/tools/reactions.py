"""A log of reactions in a chat: messages, message_index of the reply that was reacted to, reaction. Later turns are
no part of the item.
"""

from __future__ import annotations

from collections.abc import Iterator

from data_pipelines.sources.source import Source
from data_pipelines.sources.talks import split_talk
from data_pipelines.sources.unit_builder import Row, Unit, UnusableRowError, field, judgment, response, rest, unit
from data_pipelines.sources.verdicts import as_text

_UP = (
    "👍",
    ":thumbs_up:",
    "thumbs_up",
    "thumbsup",
    "+1",
    "1",
    "up",
    "like",
    "liked",
    "true",
    "❤",
    "❤️",
    "heart",
    "positive",
)
_DOWN = (
    "👎",
    ":thumbs_down:",
    "thumbs_down",
    "thumbsdown",
    "-1",
    "0",
    "down",
    "dislike",
    "disliked",
    "false",
    "negative",
)


def matches(row: Row) -> bool:
    return "messages" in row and "message_index" in row and "reaction" in row


def units(row: Row) -> Iterator[Unit]:
    messages, at = field(row, "messages"), as_text(field(row, "message_index"))
    if not isinstance(messages, list) or not at.isdigit() or int(at) >= len(messages):
        raise UnusableRowError("message_index names no message")
    reaction = as_text(row["reaction"]).lower() if row["reaction"] is not None else ""
    if reaction and reaction not in _UP and reaction not in _DOWN:
        raise UnusableRowError(f"reaction is neither up nor down: {reaction[:20]!r}")
    prompt, reply = split_talk(messages[: int(at) + 1])
    rater = row.get("user_id") or row.get("user") or "user"
    votes = (
        [judgment(rater, "human", scores=[(0, "thumb", float(reaction in _UP))], time=row.get("timestamp"))]
        if reaction
        else []
    )
    meta = rest(row, "messages", "message_index", "reaction", "user_id", "user", "id", "timestamp")
    yield unit(prompt, [response(reply)], votes, row_id=row.get("id"), meta=meta)


REACTIONS = Source(
    "reaction-log", "messages, message_index, reaction", matches, units, labels="thumbs up 1, thumbs down 0"
)
