"""Content identity: the same thing has the same id in Python, in DuckDB and in any other language.

The identity of a value is the SHA-256 of its canonical JSON, cut to 128 bits and written as 32 lower-case hex digits.
Canonical JSON has sorted keys, no spaces, UTF-8 text unescaped, and control characters escaped as `\\u001F` (upper-case
hex), which is byte for byte what DuckDB's `to_json` writes for a struct whose keys are given in sorted order. The
warehouse stores messages as this very text, so there `left(sha256(messages), 32)` is the id.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rmkit.errors import DataError
from rmkit.types import Conversation, Message

_ESCAPE = re.compile(r"\\\\|\\u00[01][0-9a-f]")


def canonical_json(value: Any) -> str:
    """Canonical JSON of a JSON-ready value. Raises DataError for NaN, infinities and lone surrogates."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
        text.encode()
    except (TypeError, ValueError) as error:  # UnicodeEncodeError is a ValueError
        raise DataError(f"not representable as canonical JSON: {error}") from error
    return _ESCAPE.sub(_upper_hex, text) if "\\u00" in text else text


def _upper_hex(match: re.Match[str]) -> str:
    result = match[0]
    return result if result == "\\\\" else "\\u" + result[2:].upper()


def content_hash(text: str) -> str:
    """Identity of a text: 32 hex digits (128 bits of SHA-256 over UTF-8)."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def messages_json(conversation: Iterable[Message]) -> str:
    """Canonical JSON of a conversation; absent fields are left out, so a plain turn is {"content", "role"}."""
    return canonical_json([message_mapping(message) for message in conversation])


def message_mapping(message: Message) -> dict[str, object]:
    """All that a message holds, JSON-ready; absent fields are left out."""
    optional = {
        "name": message.name,
        "reasoning": message.reasoning,
        "tool_call_id": message.tool_call_id,
        "tool_calls": [dict(call) for call in message.tool_calls],
    }
    return {"role": message.role, "content": message.content} | {key: value for key, value in optional.items() if value}


def parse_messages(text: str) -> Conversation:
    """The conversation behind canonical (or any) JSON. Raises DataError where it is not a list of messages."""
    try:
        return tuple(_as_message(item) for item in json.loads(text))
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"not a JSON list of messages with role and content: {text[:80]!r}") from error


def _as_message(item: Mapping[str, Any]) -> Message:
    return Message(
        role=item["role"],
        content=item["content"],
        name=item.get("name"),
        tool_calls=tuple(item.get("tool_calls") or ()),
        tool_call_id=item.get("tool_call_id"),
        reasoning=item.get("reasoning"),
    )


def user_message(text: str) -> str:
    """Canonical JSON of the one-turn conversation in which a user says `text`."""
    return messages_json((Message("user", text),))


def assistant_message(text: str) -> str:
    """Canonical JSON of the one-turn conversation in which an assistant says `text`."""
    return messages_json((Message("assistant", text),))


def digest(parts: Sequence[str]) -> str:
    """Hex SHA-256 over the parts in order, separated by newlines; callers sort where order must not matter."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces. OSError for a pipe or a device, which may never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_digest(folder: Path) -> str:
    """Hex SHA-256 over names and contents of a language model's weights, configurations and chat template."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".jinja"))
    return digest([f"{path.name} {file_sha256(path)}" for path in files])
