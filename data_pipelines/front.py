"""`rmkit.ingest` and `rmkit.run_recipe`: what the commands `ingest` and `run` do, from Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipelines.ingest import command
from data_pipelines.ingest.inputs import open_inputs
from data_pipelines.ingest.report import summary
from data_pipelines.recipes import recipe as recipes


@dataclass(frozen=True, slots=True)
class IngestResult:
    """What one ingest did: rows = accepted + rejected, `reasons` counts the rejected. `version` is NAME@vN."""

    version: str | None
    rows: int
    accepted: int
    rejected: int
    reasons: Mapping[str, int]
    facts: Mapping[str, Any] = field(repr=False)

    def as_json(self) -> dict[str, object]:
        """What `rmkit ingest --json` prints of a file."""
        return dict(self.facts)


@dataclass(frozen=True, slots=True)
class RecipeResult:
    """What a recipe did: the version that it made, rows before and after, and per step what it dropped and measured."""

    version: str
    digest: str
    rows_in: int
    rows_out: int
    steps: tuple[Mapping[str, Any], ...] = field(repr=False)
    facts: Mapping[str, Any] = field(repr=False)

    def as_json(self) -> dict[str, object]:
        """What `rmkit run --json` prints."""
        return dict(self.facts)


def ingest(
    data: str | Path | Iterable[Any],
    *,
    name: str | None = None,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    values: str | None = None,
    rater: str | None = None,
    limit: int | None = None,
    license: str = "unknown",
    url: str | None = None,
    revision: str | None = None,
    is_benchmark: bool = False,
) -> IngestResult:
    """Store a file, an hf:// address, a frame, a Hugging Face dataset or an iterable of mappings as a dataset version.

    `name` is the dataset's (default: the file's); `columns` maps roles to columns or paths of the data,
    `{"prompt": "question", "chosen": "better", "rejected": "worse.text"}`; `values` says what labels mean
    ("1=a,2=b,0=tie"); `rater` ("NAME:KIND") gave labels whose source does not say who did. Ingesting the same rows
    again changes nothing. Raises DataError where no row is usable.
    """
    reading = command.Reading(format=format, roles=dict(columns or {}), values=values, rater=rater, limit=limit)
    origin = command.Origin(license=license, url=url, revision=revision, is_benchmark=is_benchmark)
    opened = open_inputs(data, reading, revision=revision)
    report, stream = command.load(opened, reading, origin, dataset=name)
    facts = summary(report, opened, stream, None)
    numbers = {key: facts[key] for key in ("version", "rows", "accepted", "rejected", "reasons")}
    return IngestResult(**numbers, facts=facts)


def run_recipe(recipe: str | Path | Mapping[str, Any], data: str, *, out: str | None = None) -> RecipeResult:
    """Run a recipe (a shipped one's name, a TOML file, or its table as a mapping) on a version, making a new one.

    `out` is the dataset that the new version belongs to (default: the same). Raises ConfigError for a recipe that is
    wrong, VersionError for unknown data, DataError where no row is left.
    """
    read = (
        recipes.parse_recipe(dict(recipe), where="run_recipe")
        if isinstance(recipe, Mapping)
        else recipes.read_recipe(str(recipe))
    )
    facts = recipes.run_recipe(read, data, out=out)
    version, digest, rows_in, rows_out = (facts[key] for key in ("version", "digest", "rows_in", "rows_out"))
    return RecipeResult(version, digest, rows_in, rows_out, tuple(facts["steps"]), facts)
