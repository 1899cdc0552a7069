"""LLaMA-Factory's dataset_info.json: a file of that name beside the data says what its columns and its turns' keys
mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.sources.reading.streams import Item, Parsed

NAME = "dataset_info.json"
_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output", "messages": "conversations"}
_ROLES = {
    "user_tag": ("human", "human"),
    "assistant_tag": ("gpt", "gpt"),
    "observation_tag": ("observation", "observation"),
    "function_tag": ("function_call", "function_call"),
    "system_tag": ("system", "system"),
}


def renamed(path: Path, items: Iterator[Item]) -> Iterator[Item]:
    """The items under LLaMA-Factory's own names, where a dataset_info.json beside the file renames them."""
    info = _of(path)
    return items if info is None else _renamed(info, items)


def _of(path: Path) -> Mapping[str, Any] | None:
    beside = path.with_name(NAME)
    if not beside.is_file() or beside.stat().st_size > 1 << 24:
        return None
    try:
        document = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    entries = document.values() if isinstance(document, Mapping) else ()
    own = [one for one in entries if isinstance(one, Mapping) and one.get("file_name") == path.name]
    return own[0] if len(own) == 1 and (own[0].get("columns") or own[0].get("tags")) else None


def _renamed(info: Mapping[str, Any], items: Iterator[Item]) -> Iterator[Item]:
    columns = {str(name): _COLUMNS.get(role, role) for role, name in (info.get("columns") or {}).items()}
    tags = info.get("tags") or {}
    roles = {str(tags.get(tag, default)): role for tag, (default, role) in _ROLES.items()}
    for item in items:
        if not isinstance(item, Parsed):
            yield item
            continue
        row = {columns.get(name, name): value for name, value in item.value.items()}
        if tags:
            row = {name: _turns(value, tags, roles) for name, value in row.items()}
        yield Parsed(item.line, row)


def _turns(value: Any, tags: Mapping[str, Any], roles: Mapping[str, str]) -> Any:
    role, content = str(tags.get("role_tag", "from")), str(tags.get("content_tag", "value"))
    if isinstance(value, list):
        return [_turns(one, tags, roles) for one in value]
    if isinstance(value, Mapping) and role in value and content in value:
        return {"from": roles.get(str(value[role]), value[role]), "value": value[content]}
    return value
