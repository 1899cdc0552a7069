"""Results as JSON can hold them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmkit.atomic import write_text


def without_nan(value: Any) -> Any:
    """The same value with None for every NaN and infinity, which JSON does not have; tuples become lists."""
    match value:
        case dict():
            return {key: without_nan(item) for key, item in value.items()}
        case list() | tuple():
            return [without_nan(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """The result as one line in a file, folders made; errors as `rmkit.atomic.write_text`."""
    write_text(path, json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")
