"""Settings of a training run from a TOML and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmkit import config
from rmkit.training.config import TrainingConfig, training_config
from rmkit.training.recipes import recipe


def read_settings(file: Path | None, assignments: Sequence[str], *, kind: str, **named: Any) -> TrainingConfig:
    """The config of `rmkit train KIND`: its defaults, under the TOML (a file, or the name of a shipped recipe), under
    KEY=VALUE assignments, under what is named.

    Raises UsageError for an assignment without a value, ConfigError for unknown keys or values out of range.
    """
    if file and not file.exists() and file.suffix != ".toml" and file.parent == Path():
        file = recipe(file.name)
    values = (config.read_toml(file) if file else {}) | config.assignments(assignments)
    return training_config(kind, **values | {key: value for key, value in named.items() if value is not None})
