"""OpenAssistant (arXiv:2304.07327): a row a message with the id of its parent, or a row a tree. Rank 0 is best.

The whole file is held: messages come in no promised order. Deleted messages and those that the review refused are left
out; a place of the tree with fewer than two ranked replies holds nothing to judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_pipelines.sources.gathered.gather import Gather, Gathered
from data_pipelines.sources.recognize import Hints
from data_pipelines.sources.unit_builder import Row

_ROLES = {"prompter": "user", "assistant": "assistant", "user": "user"}


def is_message(sample: Sequence[Row]) -> bool:
    return all({"message_id", "parent_id", "text", "role"} <= set(row) for row in sample)


def is_tree(sample: Sequence[Row]) -> bool:
    return all("message_tree_id" in row and isinstance(row.get("prompt"), Mapping) for row in sample)


def of_messages(file: Iterator[Row], hints: Hints) -> Iterator[Gathered]:
    messages: dict[str, Row] = {}
    children: dict[str | None, list[str]] = {}
    for row in file:
        messages[str(row["message_id"])] = row
        parent = None if row.get("parent_id") in (None, "") else str(row["parent_id"])
        children.setdefault(parent, []).append(str(row["message_id"]))
    for parent in sorted(one for one in children if one is not None):
        talk = _talk(messages, parent)
        place = _place(talk, [messages[one] for one in children[parent]])
        if place is not None:
            yield {**place, "id": parent}


def of_trees(file: Iterator[Row], hints: Hints) -> Iterator[Gathered]:
    for tree in file:
        waiting: list[tuple[list[Row], Any]] = [([], tree["prompt"])]
        while waiting:
            before, message = waiting.pop(0)
            replies = message.get("replies") or []
            talk = [*before, message]
            row = _place(talk if all(_usable(one) for one in talk) else None, replies)
            if row is not None:
                yield {**row, "id": message.get("message_id")}
            waiting += [(talk, one) for one in replies]


def _talk(messages: Mapping[str, Row], at: str) -> list[Row] | None:
    """The messages from the root to this one, None where one is missing or unusable."""
    talk: list[Row] = []
    place: str | None = at
    while place is not None:
        message = messages.get(place)
        if message is None or not _usable(message) or len(talk) > 1_000:
            return None
        talk.insert(0, message)
        place = None if message.get("parent_id") in (None, "") else str(message["parent_id"])
    return talk


def _usable(message: Row) -> bool:
    gone = str(message.get("deleted")).lower() in ("true", "1")
    refused = str(message.get("review_result")).lower() in ("false", "0")
    return not gone and not refused and isinstance(message.get("text"), str)


def _place(talk: list[Row] | None, replies: Sequence[Row]) -> dict[str, Any] | None:
    """The ranked replies after a talk, None where fewer than two are ranked."""
    if not talk or _ROLES.get(str(talk[-1].get("role"))) != "user":
        return None
    ranked = [one for one in replies if _usable(one) and one.get("rank") not in (None, "")]
    if len(ranked) < 2:
        return None
    return {
        "prompt": [{"role": _ROLES.get(str(one.get("role")), "user"), "content": one["text"]} for one in talk],
        "responses": [one["text"] for one in ranked],
        "ranks": [one["rank"] for one in ranked],
        "models": [one.get("model_name") for one in ranked],
        "oasst_labels": [one.get("labels") for one in ranked],
        "language": talk[-1].get("lang"),
        "oasst_tree": talk[0].get("message_tree_id") or talk[0].get("message_id"),
    }


MESSAGES = Gather("oasst", "OpenAssistant messages", is_message, of_messages, items_after=False)
TREES = Gather("oasst-trees", "OpenAssistant trees", is_tree, of_trees, items_after=False)
