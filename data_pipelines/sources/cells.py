"""Columns of texts that hold JSON (or the repr of a Python value): which of them mean what they hold, told once a file.

A reply may be JSON itself: "[2, 3, 5]" answers a question. So a column is taken for its content only where all of a
sample says so, and a reply's column only where its siblings do too:

    turns     every text is a list of {role, content} turns; of two replies, both
    lists     every text is a list of texts; replies only together with a prompt column of lists
    objects   every text is an object or a list of objects; never a reply's column
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from data_pipelines.sources.talks import is_talk
from data_pipelines.sources.unit_builder import Row, UnusableRowError

Kind = Literal["turns", "lists", "objects"]
_REPLY = re.compile(
    r"(chosen|rejected|accepted|better|worse|(response|answer|completion|output|generation|reply|candidate|summary|text|"
    r"left|right|content)(_?[a-z0-9]{1,2})?)",
    re.I,
)
_PLURAL = re.compile(
    r"(responses|completions|answers|generations|outputs|candidates|choices|options|replies|steps)", re.I
)
_PROMPT = re.compile(r"(prompt|question|instruction|query|input|conversation|context|history|messages)s?", re.I)


def parsed_columns(rows: Sequence[Row]) -> dict[str, Kind]:
    """The columns of texts that stand for what they hold."""
    candidates = {
        name
        for row in rows
        for name, value in row.items()
        if isinstance(value, str) and value[:1] in ("[", "{") and len(value) > 1
    }
    kinds = {name: kind for name in sorted(candidates) if (kind := _kind([row.get(name) for row in rows]))}
    replies = {name for row in rows for name in row if _REPLY.fullmatch(name) and not _PLURAL.fullmatch(name)}
    odd = [name for name in replies if name not in kinds and not _all_talks(row.get(name) for row in rows)]
    result: dict[str, Kind] = {}
    for name, kind in kinds.items():
        if name not in replies or kind == "turns":
            if (
                kind == "turns"
                and name in replies
                and (odd or (len(replies) == 1 and not _has_talks(rows, kinds, name)))
            ):
                continue
            if kind == "lists" and _PROMPT.fullmatch(name) and not any(kinds.get(one) == "lists" for one in replies):
                continue
            result[name] = kind
        elif kind == "lists" and any(_PROMPT.fullmatch(one) and kinds.get(one) == "lists" for one in kinds) and not odd:
            result[name] = kind
    return result


def _has_talks(rows: Sequence[Row], kinds: Mapping[str, Kind], own: str) -> bool:
    """Whether the prompt of a lone reply column is a list of turns as well."""
    return any(
        _PROMPT.fullmatch(name) and (kinds.get(name) == "turns" or _all_talks(row.get(name) for row in rows))
        for name in {name for row in rows for name in row} - {own}
    )


def _all_talks(values: Any) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(is_talk(value) for value in present)


def _kind(values: Sequence[Any]) -> Kind | None:
    documents = []
    for value in values:
        if value is None or value == "":
            continue
        document = parse(value) if isinstance(value, str) else value
        if not isinstance(document, list | dict):
            return None
        documents.append(document)
    if all(is_talk(document) for document in documents):
        return "turns"
    if all(
        isinstance(d, list) and all(item is None or isinstance(item, str | int | float) for item in d)
        for d in documents
    ):
        return "lists"
    if all(isinstance(d, dict) or all(isinstance(item, dict | list) for item in d) for d in documents):
        return "objects"
    return None


def parse(text: str) -> Any:
    """The JSON, or the Python literal, that a text writes; None for any other text."""
    start = text.lstrip()
    if start[:1] not in ("[", "{") or len(text) > 10_000_000:
        return None
    try:
        return json.loads(start)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(start)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def with_content(row: Row, columns: Mapping[str, Kind]) -> Row:
    """The row with these columns' texts replaced by what they hold. Raises UnusableRowError for a text that holds
    none.
    """
    changed = dict(row)
    for name in columns:
        value = row.get(name)
        if not isinstance(value, str):
            continue
        if value == "":
            changed[name] = None
            continue
        document = parse(value)
        if not isinstance(document, list | dict):
            raise UnusableRowError(f"{name} does not hold JSON as the other rows do")
        changed[name] = document
    return changed
