"""Where a trainer's dataset row holds what a signal needs: paths into nested values, "extra_info.answer" say.

A path is a column's whole name, or names joined by dots; a text on the way is read as JSON, since several trainers can
only carry text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from rmkit.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Paths into a row; what is not set is looked for under its own name."""

    reference: Annotated[str, "the right answer, which verifiers compare with"] = "reference"
    rubric: Annotated[str, "criteria of this prompt"] = "rubric"
    group: Annotated[str, "an id of the prompt: completions under one id are one group"] = "group_id"
    components: Annotated[dict[str, str], "numbers (or lists of numbers) for the mix and the chain, name = path"] = (
        field(default_factory=dict)
    )

    def __post_init__(self) -> None:
        if not all(isinstance(path, str) and path for path in self.components.values()):
            raise ConfigError(f"columns: components are names with paths, got {self.components!r}")


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """What stands there, None where nothing does."""
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        if isinstance(value, str):
            value = _document(value)
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def as_text(value: Any) -> str | None:
    """A gold answer as the text that verifiers read: JSON for what is no text, None for nothing."""
    value = plain(value)
    if value is None or isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    except (TypeError, ValueError):
        return str(value)


def as_rubric(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Criteria from a text, a list of texts or of objects, or any of these as JSON."""
    if isinstance(value, str):
        document = _document(value)
        value = [value] if document is None or isinstance(document, str | int | float) else document
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        return ()
    return tuple({"criterion": one} if isinstance(one, str) else one for one in value if isinstance(one, str | Mapping))


def plain(value: Any) -> Any:
    """The value as JSON knows it: arrays and numpy's numbers as lists and numbers, NaN and infinities as null; what is
    none of these becomes text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set):
        return [plain(one) for one in value]
    return str(value)


def _document(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
