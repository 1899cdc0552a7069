"""What a loop's own steps are given and leave, and the record of a finished step.

Such a step lives in a module of its own: a frozen config `Config` and `act(config, place) -> Left`. What it leaves
follows from its config and the version alone, and appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Place:
    """What a step of a loop's own is given beside its config: the version to work on, the dataset that versions go
    into, and the folder where an artifact may appear."""

    version: str
    dataset: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Left:
    """What a step leaves: a dataset version or an artifact's folder, and its facts."""

    facts: Mapping[str, Any]
    version: str | None = None
    artifact: Path | None = None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A finished step of a round (0: before the first)."""

    round: int
    number: int
    use: str
    facts: Mapping[str, Any]
    version: str | None
    artifact: str | None
    seconds: float
