"""Results as JSON can hold them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmkit.errors import DataError


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
    """The result as one line in a file, folders made. Raises DataError where that cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; name another file with -o") from error
