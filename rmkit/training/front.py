"""`rmkit.train`: what `rmkit train KIND` does, from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmkit.data.export_folder import Data
from rmkit.errors import UsageError
from rmkit.models import load_model
from rmkit.types import RewardModel

KINDS = ("lexical", "frozen", "pairwise", "process-frozen", "explicit", "process", "implicit", "ensemble", "routed")


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A trained model: where it lies, its fingerprint, and all facts that its reward_model.json records."""

    path: Path
    fingerprint: str
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def validation(self) -> Mapping[str, object]:
        """The numbers on the validation split."""
        result: Mapping[str, Any] = self.facts["validation"]
        return result

    def load(self) -> RewardModel:
        """The model, verified."""
        return load_model(self.path)

    def as_json(self) -> dict[str, object]:
        """What `rmkit train KIND --json` prints."""
        return {"path": str(self.path), "fingerprint": self.fingerprint, **self.facts}


def train(
    kind: str,
    data: Data,
    *,
    output: str | Path | None = None,
    seed: int = 0,
    allow_benchmark: bool = False,
    **settings: Any,
) -> TrainResult:
    """Train, store and reload a reward model on the train split of `data` (as `export_folder` takes it).

    `settings` are the options of the kind: the keys of its config TOML (`model="Qwen/Qwen3-0.6B"` of `explicit`, say),
    `denoise` and `noise` of `frozen`, `members`, `rule` and `uncertainty_weight` of `ensemble`, `members` (a model for
    each category) of `routed`, `resume` and `restart`
    of those that keep checkpoints. The artifact goes to `output` (default $RMKIT_HOME/models/DATA-KIND).

    Raises UsageError for an unknown kind, ConfigError for unknown settings, DataError where a split is missing, too
    small or holds benchmark rows, MissingExtraError where the kind needs a package that is not installed.
    """
    target = None if output is None else Path(output)
    named: dict[str, Any] = {"output": target, "allow_benchmark": allow_benchmark}
    match kind:
        case "lexical" | "frozen" | "pairwise":
            from rmkit.training import command

            if kind == "frozen":
                named |= {key: settings.pop(key) for key in ("denoise", "noise") if key in settings}
            facts = command.train(kind, data, seed=seed, values=settings, **named)
        case "process-frozen":
            from rmkit.training import process_frozen

            facts = process_frozen.train(data, seed=seed, values=settings, **named)
        case "explicit" | "process" | "implicit":
            from rmkit.training import explicit
            from rmkit.training.settings import read_settings

            named |= {key: settings.pop(key) for key in ("resume", "restart") if key in settings}
            facts = explicit.train(data, read_settings(None, [], kind=kind, seed=seed, **settings), **named)
        case "ensemble":
            from rmkit.training import ensemble

            facts = ensemble.train(settings.pop("members", ()), data, output=target, values=settings)
        case "routed":
            from rmkit.training import routed

            facts = routed.train(settings.pop("members", {}), data, output=target, values=settings)
        case _:
            raise UsageError(
                f"rmkit.train knows {', '.join(KINDS)}, got {kind!r}; the other kinds start from other data than "
                "preferences: rmkit train --help"
            )
    return TrainResult(Path(str(facts.pop("path"))), str(facts.pop("fingerprint")), facts)
