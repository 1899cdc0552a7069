"""Settings of a training run from a TOML and the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmkit import config
from rmkit.errors import UsageError
from rmkit.training.config import ExplicitConfig, ImplicitConfig


def read_settings(file: Path | None, assignments: Sequence[str], *, kind: str, **named: Any) -> ExplicitConfig:
    """The config of `rmkit train KIND`: its defaults, under the TOML, under KEY=VALUE assignments, under what is named.

    Raises UsageError for an assignment without a value, ConfigError for unknown keys or values out of range.
    """
    values = config.read_toml(file) if file else {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set takes KEY=VALUE, got {assignment!r}")
        values[key.strip()] = _toml_value(text.strip())
    values |= {key: value for key, value in named.items() if value is not None}
    if kind == "process":
        values["objective"] = "process"
    return config.build(ImplicitConfig if kind == "implicit" else ExplicitConfig, values, where=f"train {kind}")


def _toml_value(text: str) -> Any:
    """A TOML value; what is none is a plain string, so that words need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
