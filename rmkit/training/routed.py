"""`rmkit train routed`: a model for each category behind one score (DR-IRL), and the router that tells them apart.

The router learns from the train split, where a row's category is its subset or a key of its `meta`. Each member is
standardized by its scores on the validation rows of its own category, the fallback by those on all; the temperature is
fitted on the validation pairs. Categories without a member of their own go to the mixture, or to the fallback.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from rmkit.cli import arguments, display
from rmkit.config import build
from rmkit.data.example import Example
from rmkit.data.export_folder import Data, dataset_of, examples_of, export_folder, model_folder, split_pairs
from rmkit.data.pairs import Pair, column
from rmkit.errors import ConfigError, DataError, UsageError
from rmkit.metrics import fit_temperature
from rmkit.models import find_model, load_model
from rmkit.models.artifact.folder import building
from rmkit.models.wrappers.ensemble import standardization
from rmkit.models.wrappers.routed import FALLBACK, RoutedModel, Standard, WordRouter, routed_text, write_routed
from rmkit.training.command import MIN_VALIDATION, validation_facts
from rmkit.training.summary import summary_text
from rmkit.types import RewardModel


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedSettings:
    """How an item finds its model."""

    by: Annotated[str, "where a row's category stands: `subset`, or a key of its meta"] = "subset"
    threshold: Annotated[float, "share of the router at which one category decides alone"] = 0.5
    fallback: Annotated[str, "model for what the router is not sure of; empty: the members' mixture"] = ""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold: expected a number in [0, 1], got {self.threshold}")


def main(argv: list[str]) -> int:
    parser = arguments.parser(
        "train routed",
        "A model for each category behind one score: a router on words, a mixture where it is not sure.",
        examples=[
            "train routed fraud=models/fraud health=models/health --data asked@v2 -o models/asked",
            "train routed fraud=models/fraud health=models/health --data asked@v2 --set fallback=models/all",
        ],
    )
    parser.add_argument("members", nargs="+", metavar="CATEGORY=MODEL", help="two or more categories and their models")
    parser.add_data(help="dataset version or export: the router learns from its train split")
    parser.add_config(RoutedSettings)
    parser.add_output("artifact folder (default $RMKIT_HOME/models/DATA-routed)")
    options = parser.parse_args(argv)
    pairs = [one.partition("=") for one in options.members]
    if wrong := [name for name, equals, model in pairs if not (name and equals and model)]:
        raise UsageError(f"expected CATEGORY=MODEL, got {wrong[0]!r}")
    members = {name: model for name, _, model in pairs}
    if len(members) < len(pairs):
        raise UsageError("a category is named twice")
    result = train(members, options.data, values=arguments.set_values(options), output=options.output)
    display.emit(result, as_json=options.json, text=_text(result))
    return 0


def train(
    members: Mapping[str, str], data: Data, *, values: Mapping[str, Any] | None = None, output: Path | None = None
) -> dict[str, object]:
    """Store and reload the routed model of models by category: its path, fingerprint and validation numbers.

    Raises UsageError for fewer than two members, unlike scales or a category that the data does not have, DataError
    where a split is too small, ModelError for a member that cannot be used, ConfigError for unknown `values`.
    """
    start = time.monotonic()
    settings = build(RoutedSettings, values or {}, where="train routed")
    folder = export_folder(data)
    if len(members) < 2:
        raise UsageError("a routed model takes two categories or more")
    if FALLBACK in members or any("/" in name or name.startswith(".") for name in members):
        raise UsageError(f"a category is a folder's name other than {FALLBACK!r}; got {', '.join(members)}")
    names = dict(members) | ({FALLBACK: settings.fallback} if settings.fallback else {})
    models = {name: load_model(model) for name, model in names.items()}
    _check(models, names)
    rows = [row for row in examples_of(folder, "train") if _category(row, settings.by)]
    counts = Counter(_category(row, settings.by) for row in rows)
    if absent := sorted(set(members) - set(counts)):
        known = ", ".join(f"{name} ({n})" for name, n in counts.most_common(8)) or "none"
        raise UsageError(
            f"no row of the train split is of category {absent[0]!r} (by {settings.by}); there are: {known}"
        )
    router = WordRouter.fit(
        [routed_text(row.candidates) for row in rows], [_category(row, settings.by) for row in rows]
    )
    pairs, skipped = split_pairs(folder, "validation", at_least=MIN_VALIDATION)
    category = {row.id: _category(row, settings.by) for name in ("validation", "dev") for row in _rows(folder, name)}
    standards = {
        name: _standard(model, [pair for pair in pairs if name in (FALLBACK, category.get(pair.id))], name)
        for name, model in models.items()
    }
    routed = RoutedModel(
        members={name: models[name] for name in members},
        router=router,
        fallback=models.get(FALLBACK),
        threshold=settings.threshold,
        standards=standards,
    )
    margin = np.array([row[0].value - row[1].value for row in routed.score([pair.candidates for pair in pairs])])
    temperature = fit_temperature(margin, column(pairs, "p"), weight=column(pairs, "share"))
    probabilities = router.probabilities([routed_text(pair.candidates) for pair in pairs])
    guessed = [max(one, key=lambda name: one[name]) for one in probabilities]
    right = [guess == category[pair.id] for guess, pair in zip(guessed, pairs, strict=True) if category.get(pair.id)]
    target = output or model_folder(folder, "routed")
    with building(target) as temporary:
        fingerprints = {name: model.info.fingerprint for name, model in models.items()}
        facts = {
            "name": target.name,
            "dataset": dataset_of(folder),
            "training": {
                "members": {names[name]: fingerprint for name, fingerprint in fingerprints.items()},
                "rows": dict(counts),
                "router_right": round(sum(right) / len(right), 4) if right else None,
                "pairs": {"validation": len(pairs)},
                "skipped": {"validation": skipped},
                "seconds": round(time.monotonic() - start, 2),
            },
            "validation": validation_facts(margin / temperature, pairs),
        }
        write_routed(
            temporary,
            {name: find_model(model) for name, model in members.items()},
            router,
            fallback=find_model(settings.fallback) if settings.fallback else None,
            threshold=settings.threshold,
            standards=standards,
            temperature=temperature,
            facts=facts,
            scale=next(iter(models.values())).info.scale,
            fingerprints=fingerprints,
        )
        fingerprint = load_model(temporary).info.fingerprint
    return {"path": str(target), "fingerprint": fingerprint, "temperature": temperature, **facts}


def _category(row: Example, by: str) -> str:
    if by == "subset":
        return str(row.row["subset"] or "")
    value = json.loads(row.row["meta"] or "{}").get(by)
    return "" if value is None else str(value)


def _rows(folder: Path, split: str) -> list[Example]:
    try:
        return examples_of(folder, split)
    except DataError:
        return []


def _check(models: Mapping[str, RewardModel], names: Mapping[str, str]) -> None:
    if "length" in names.values():
        raise UsageError("the length rule is no artifact and cannot be a member")
    if len(scales := sorted({model.info.scale for model in models.values()})) > 1:
        raise UsageError(f"members score on different scales ({', '.join(scales)}), whose numbers cannot be mixed")
    if relative := [name for name, model in models.items() if not model.info.pointwise]:
        raise UsageError(f"{', '.join(relative)} cannot score one response by itself, so it has no scale of its own")


def _standard(model: RewardModel, pairs: Sequence[Pair], name: str) -> Standard:
    """By the member's scores of these pairs. Raises DataError for fewer than two."""
    scores = [one.value for row in model.score([pair.candidates for pair in pairs]) for one in row]
    if sum(map(math.isfinite, scores)) < 2:
        raise DataError(f"category {name}: fewer than two scores of validation rows, so it cannot be standardized")
    mean, scale = standardization(scores)
    return Standard(mean=mean, scale=scale)


def _text(result: Mapping[str, Any]) -> str:
    training = result["training"]
    right = training["router_right"]
    more = [
        f"members      {', '.join(training['members'])}",
        f"router       {', '.join(f'{name} {n}' for name, n in training['rows'].items())} rows"
        + (f"; right on {right:.1%} of the validation pairs" if right is not None else ""),
        f"took         {training['seconds']:.1f} s",
    ]
    return summary_text(result, rows=f"{training['pairs']['validation']} validation pairs", more=more)
