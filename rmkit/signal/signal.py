"""A signal: which components there are, how they are joined, what shapes a group's rewards, where rows hold answers.

    # math.toml, for `rmkit serve helpful=models/helpful --signal math.toml`
    mix = {answer = 1.0, helpful = 0.2, brief = 0.1}
    chain = ["z_score"]

    [verifiers.answer]                    # a verifier of this name, or of `use`, with its options
    timeout_s = 3

    [verifiers.brief]
    use = "length"
    max = 400
    slack = 400

    [columns]
    reference = "answer"                  # the dataset's column of gold answers

Components are `reward` (the model that a request names), the served models and verifiers by name, and numbers that the
trainer brings (`columns.components`). Without `mix` the reward is the model's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rmkit.config import build, read_toml
from rmkit.errors import ConfigError, unknown
from rmkit.signal.columns import Columns
from rmkit.signal.mix import MODEL, Combine
from rmkit.types import RewardModel

if TYPE_CHECKING:
    from rmkit.shaping import Chain

SENT = ("mix", "combine", "gates", "gated", "chain")  # fields that a request may carry itself


@dataclass(frozen=True, kw_only=True)
class VerifierSpec:
    """A verifier of a signal: which one, where its reference stands in a row (empty: where the signal's does)."""

    use: str
    column: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Signal:
    """See the module. `chain` is what `rmkit.shaping.chain` reads."""

    name: str = ""
    mix: Annotated[dict[str, float], "weights of the components"] = field(default_factory=dict)
    combine: Annotated[Combine, "how components are joined"] = "sum"
    gates: Annotated[dict[str, float], "components that must reach a value"] = field(default_factory=dict)
    gated: Annotated[float, "the reward where a gate is closed"] = 0.0
    chain: Annotated[tuple[Any, ...], "transforms of a group's rewards, in order"] = ()
    columns: Columns = field(default_factory=Columns)
    models: Annotated[dict[str, str], "models to serve beside, name = MODEL"] = field(default_factory=dict)
    verifiers: Annotated[dict[str, VerifierSpec], "verifiers by name"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what in ("mix", "gates"):
            for name, weight in getattr(self, what).items():
                if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
                    raise ConfigError(f"signal {self.name}: {what}: {name} must be a finite number, got {weight!r}")

    @cached_property
    def shape(self) -> Chain | None:
        """The chain, None where rewards go out as they are. Raises ConfigError for one that cannot be read.

        numpy is only needed here: a trainer's machine sends chains without it.
        """
        from rmkit.shaping import chain

        return chain(list(self.chain)) if self.chain else None

    @property
    def weights(self) -> Mapping[str, float]:
        """The mix, the model alone where there is none."""
        return self.mix or {MODEL: 1.0}

    @cached_property
    def named(self) -> tuple[str, ...]:
        """The components that it reads: of the mix, the gates, and columns that the chain needs."""
        needs = self.shape.needs if self.shape else {}
        return tuple(dict.fromkeys((*self.weights, *self.gates, *needs)))

    @classmethod
    def read(cls, path: str | Path) -> Signal:
        """The signal of a TOML file, named by the file. Raises ConfigError."""
        return cls.of(read_toml(Path(path)), name=Path(path).stem, where=str(path))

    @classmethod
    def of(cls, values: Mapping[str, Any], *, name: str = "", where: str = "signal") -> Signal:
        """The signal of a table. Raises ConfigError for unknown keys and wrong types."""
        table = {"name": name, **values}
        chain = table.get("chain", [])
        table["chain"] = [chain] if isinstance(chain, str | Mapping) else chain
        if not isinstance(verifiers := table.get("verifiers", {}), Mapping):
            raise ConfigError(f"{where}: verifiers are tables, [verifiers.NAME]")
        table["verifiers"] = {key: _verifier(key, one, where) for key, one in verifiers.items()}
        return build(cls, table, where=where)

    def sent(self) -> dict[str, Any]:
        """What a request says of it: the fields that it may carry, without defaults.

        Raises ConfigError for verifiers and models, which only a service can bring.
        """
        if self.verifiers or self.models:
            raise ConfigError(
                f"signal {self.name}: verifiers and models run in the service; start it with --signal and name the "
                "signal here"
            )
        default = Signal()
        values = {key: getattr(self, key) for key in SENT if getattr(self, key) != getattr(default, key)}
        if self.columns != default.columns:
            values["columns"] = {one.name: getattr(self.columns, one.name) for one in fields(Columns)}
        return values

    def load_verifiers(self) -> dict[str, RewardModel]:
        """Its verifiers as models. Raises what loading one raises."""
        from rmkit.verifiers.verifier import load_verifier

        return {
            name: load_verifier(
                spec.use, spec.options, name=name, where=f"signal {self.name}: verifiers.{name}", trusted=True
            )
            for name, spec in self.verifiers.items()
        }


def _verifier(name: str, table: Any, where: str) -> VerifierSpec:
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: verifiers.{name}: expected a table, got {table!r}")
    if name == MODEL:
        raise ConfigError(f"{where}: no verifier can be called {MODEL!r}, which is the model's own component")
    options = {key: value for key, value in table.items() if key not in ("use", "column")}
    use, column = table.get("use", name), table.get("column", "")
    if not isinstance(use, str) or not isinstance(column, str):
        raise ConfigError(f"{where}: verifiers.{name}: use and column are texts")
    return VerifierSpec(use=use, column=column, options=options)


def check_named(signal: Signal, known: tuple[str, ...]) -> None:
    """Raises ConfigError for a weight or gate whose component is none of `known`."""
    for name in (*signal.weights, *signal.gates):
        if name not in known:
            raise ConfigError(unknown("component", name, known))
