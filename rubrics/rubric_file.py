"""Rubrics as versioned TOML files, never edited once used.

    name = "helpful"
    version = 1
    total = 1.0                        # optional: what the weights must add up to

    [[criteria]]
    criterion = "Is every step of the answer right?"
    levels = {1 = "no step is", 3 = "some are", 5 = "all are"}
    weight = 0.6
    tag = "principle"

    [[criteria]]
    criterion = "The response has at most 200 words."
    weight = 0.4
    tag = "hard_rule"
    check = {rule = "max_words", value = 200}

The first use of NAME@vVERSION is recorded in the ledger with the rubric's hash; a file that says something else under
the same name and version is refused from then on, on every machine that shares the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmkit.config import read_toml
from rmkit.errors import ConfigError, ConflictError, DataError
from rmkit.ids import content_hash
from rmkit.ledger import Ledger
from rmkit.verifiers.rules import compiled
from rubrics.aggregate import require_total
from rubrics.criteria import Criterion, parse_rubric, rubric_json

KIND = "rubric"


@dataclass(frozen=True, slots=True)
class Rubric:
    """`hash` is the identity of the criteria: 32 hex digits."""

    name: str
    version: int
    criteria: tuple[Criterion, ...]

    @property
    def ref(self) -> str:
        """NAME@vN."""
        return f"{self.name}@v{self.version}"

    @property
    def hash(self) -> str:
        return content_hash(rubric_json(self.criteria))


def read_rubric(path: Path) -> Rubric:
    """The rubric of a TOML file. Raises ConfigError naming the file and what is wrong in it."""
    table = read_toml(path)
    if unknown := sorted(set(table) - {"name", "version", "total", "criteria"}):
        raise ConfigError(f"{path}: unknown {', '.join(unknown)}; known: name, version, total, criteria")
    name, version = table.get("name"), table.get("version")
    if not isinstance(name, str) or not name or "@" in name:
        raise ConfigError(f"{path}: name must be a text without @, got {name!r}")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ConfigError(f"{path}: version must be a whole number from 1, got {version!r}")
    try:
        criteria = parse_rubric(table.get("criteria"))
        for number, criterion in enumerate(criteria, 1):
            if criterion.check:
                _compilable(criterion.check, f"criterion {number}")
        if "total" in table:
            require_total(criteria, float(table["total"]))
    except (DataError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return Rubric(name, version, criteria)


def _compilable(check: Mapping[str, Any], where: str) -> None:
    try:
        compiled(check)
    except DataError as error:
        raise DataError(f"{where}, check: {error}") from None


def use(rubric: Rubric, ledger: Ledger) -> None:
    """Record the first use. Raises ConfigError where another rubric was used under this name and version before."""
    try:
        ledger.put(KIND, rubric.ref, {"hash": rubric.hash, "rubric": rubric_json(rubric.criteria)}, expect=0)
    except ConflictError:
        known = ledger.record(KIND, rubric.ref)
        if known is None or known.value["hash"] != rubric.hash:
            raise ConfigError(
                f"rubric {rubric.ref} was changed after it had been used; save it as version {rubric.version + 1}"
            ) from None
