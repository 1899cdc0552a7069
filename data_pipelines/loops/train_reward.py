"""Step of loops: a reward model trained on the version, as `rmkit train KIND` does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from data_pipelines.loops.records import Left, Place
from rmkit.training.front import train


@dataclass(frozen=True, kw_only=True)
class Config:
    kind: Annotated[str, "the kind of model, as `rmkit train` names it"] = "frozen"
    options: Annotated[dict[str, Any], "its settings"] = field(default_factory=dict)
    seed: Annotated[int, "of everything random"] = 0


def act(config: Config, place: Place) -> Left:
    """The folder of the model, and its accuracy on the validation split."""
    result = train(config.kind, place.version, output=place.folder, seed=config.seed, **config.options)
    accuracy: Any = result.validation.get("accuracy")
    value = accuracy.get("value") if isinstance(accuracy, dict) else accuracy
    return Left({} if value is None else {"validation_accuracy": value}, artifact=result.path)
