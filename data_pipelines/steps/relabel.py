"""Labels that people decided anew, put into the rows of their units.

`labels` are lines "UNIT P N": the unit's content hash (32 hex digits), the probability that its first stored response
is the better one, and the number of answers behind it. The recipe holds them all, so the version says by itself what
was changed; `rmkit denoise adjudicated` writes such a recipe from the answers in the warehouse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from data_pipelines.steps import Context, StepResult, nothing_dropped
from rmkit.errors import ConfigError

METHOD = "adjudicated"
_LINE = re.compile(r"([0-9a-f]{32}) (\S+) ([1-9][0-9]*)")


@dataclass(frozen=True, kw_only=True)
class Config:
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        units = [unit for unit, _, _ in self.parsed()]
        if len(set(units)) < len(units):
            raise ConfigError("relabel: a unit is named twice; give each one label")

    def parsed(self) -> list[tuple[str, float, int]]:
        """(unit, p first, answers) of every line."""
        results = []
        for line in self.labels:
            match = _LINE.fullmatch(line)
            try:
                p = float(match[2]) if match else -1.0
            except ValueError:
                p = -1.0
            if match is None or not 0 <= p <= 1:
                raise ConfigError(f"relabel: expected 'UNIT P N' with P in [0, 1], got {line!r}")
            results.append((match[1], p, int(match[3])))
        return results


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """All rows; those of the named units with the new label and full weight."""
    summary = pl.DataFrame(config.parsed(), schema={"unit": pl.String, "_p": pl.Float64, "_n": pl.Int32}, orient="row")
    joined = frame.join(summary, on="unit", how="left", maintain_order="left")
    inputs, p = pl.col("_p").is_not_null(), pl.col("_p")
    before = pl.col("p").list.first()
    new = {
        "p": pl.concat_list(p, 1 - p),
        "ranks": pl.concat_list((p < 0.5).cast(pl.Int32), (p > 0.5).cast(pl.Int32)),
        "n_votes": pl.col("_n"),
        "method": pl.lit(METHOD),
        "margin": pl.lit(None, pl.Float64),
        "weight": pl.lit(1.0),
    }
    result = joined.with_columns(
        pl.when(inputs).then(value).otherwise(pl.col(name)).alias(name) for name, value in new.items()
    )
    changed = joined.filter(inputs & ((before > 0.5) != (p > 0.5)))
    facts = {
        "relabeled": int(joined["_p"].is_not_null().sum()),
        "winner_changed": len(changed),
        "not_in_this_version": len(summary) - joined.filter(inputs)["unit"].n_unique(),
    }
    return nothing_dropped(result.select(frame.columns).cast(frame.schema), facts)
