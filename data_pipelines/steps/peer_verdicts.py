"""What two fine-tuned models that reviewed each other's pairs made of every label: `rmkit train peers` as a filter.

`model` is the folder of the run. A pair that neither learned from in the last epoch has weight 0, one that only one
learned from 1/2; the audit of all epochs goes to the warehouse as those of other denoising steps do. Pairs that the run
does not know pass unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipelines.algorithms.weighing import Action, weighed
from data_pipelines.recipes.recipe import Recipe, run_recipe
from data_pipelines.steps import Context, StepResult
from rmkit.errors import ConfigError, DataError
from rmkit.reliability.label_weights import LabelWeights, reasons

AUDIT = "audit.parquet"


@dataclass(frozen=True, kw_only=True)
class Config:
    model: Annotated[str, "folder of a run of `rmkit train peers`"]
    action: Annotated[Action, "drop pairs of weight 0, or only weigh them"] = "weight"

    def __post_init__(self) -> None:
        if not (Path(self.model) / AUDIT).is_file():
            raise ConfigError(f"peer_verdicts: {self.model} holds no {AUDIT}; make one with: rmkit train peers")


def step(frame: pl.DataFrame, config: Config, context: Context) -> StepResult:
    """Rows with the weight that both models give them. Raises DataError where the run knows none of them."""
    audit = pq.read_table(Path(config.model) / AUDIT)
    audit = audit.filter(pc.is_in(audit["id"], pa.array(frame["id"])))
    if not audit.num_rows:
        raise DataError(f"peer_verdicts: {config.model} was trained on other data: it knows none of {len(frame)} rows")
    last = audit.filter(pc.equal(audit["epoch"], pc.max(audit["epoch"])))
    parts = {name: last.filter(pc.equal(last["model"], name)).sort_by("id") for name in ("A", "B")}
    kept = {name: np.asarray(part["kept"]) for name, part in parts.items()}
    weight = (kept["A"].astype(np.float64) + kept["B"]) / 2
    verdicts = LabelWeights(
        method="peer_verdicts",
        ids=tuple(parts["A"]["id"].to_pylist()),
        weight=weight,
        reason=reasons(
            len(weight), {"neither model learned from it": weight == 0, "one model learned from it": weight == 0.5}
        ),
        evidence={f"margin_{name}": np.asarray(part["margin"]) for name, part in parts.items()},
    )
    return weighed(frame, verdicts, action=config.action, audit=audit)


def record(data: str, folder: Path, out: str) -> str:
    """A version of dataset `out` weighed by the run in the folder, with its audit; NAME@vN."""
    config = Config(model=str(folder))
    steps = (("peer_verdicts", config),)
    recipe = Recipe(name="peer_verdicts", description="what two fine-tuned models kept", steps=steps)
    return str(run_recipe(recipe, data, out=out)["version"])
