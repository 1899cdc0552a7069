"""What a training split's ratings say before training: aspects, their scales, and where thresholds start.

Aspects with one value only teach nothing: they are refused by name, or left out where nobody named them. Several
aspects make one value by a weighted mean, which means something only on one scale: without declared weights, aspects
whose spans differ more than twofold are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from rmkit.data.example import Example
from rmkit.errors import DataError
from rmkit.models.transformer.rating_head import RatingHead
from rmkit.training.config import ExplicitConfig

MAX_LEVELS = 32
MAX_SPAN_RATIO = 2.0

Values = Mapping[str, Sequence[float]]


def rating_head(examples: Iterable[Example], config: ExplicitConfig) -> RatingHead:
    """The head for the ratings of a training split, its cuts still to be learned. Raises DataError where the ratings do
    not fit the objective."""
    values = _values(examples)
    names = config.aspects or tuple(sorted(name for name, result in values.items() if len(set(result)) > 1))
    _check_names(names, values)
    values = {name: values[name] for name in names}
    weights = config.aspect_weights or (1.0,) * len(names)
    match config.objective:
        case "reaction":
            _check_reaction(values)
            return RatingHead(kind="reaction", aspects=names, weights=(1.0,))
        case "ordinal":
            levels = tuple(tuple(sorted(set(values[name]))) for name in names)
            _check_levels(names, levels)
            scale: dict[str, Any] = {"kind": "ordinal", "levels": levels}
        case _:
            mean, std = zip(*(_moments(values[name]) for name in names), strict=True)
            scale = {"kind": "regression", "mean": mean, "std": std}
    if not config.aspect_weights:
        _check_one_scale(values)
    shares = tuple(weight / sum(weights) for weight in weights)
    return RatingHead(aspects=names, weights=shares, **scale)


def initial_cuts(examples: Iterable[Example], head: RatingHead) -> Tensor:
    """[A, K] free parameters (see `ordered_cuts`) at which a score of 0 gives the levels' shares in the split."""
    values = _values(examples)
    raw_AK = torch.zeros(len(head.aspects), max(len(levels) for levels in head.levels) - 1)
    for a, (name, levels) in enumerate(zip(head.aspects, head.levels, strict=True)):
        n = len(values[name])
        below = [sum(value <= level for value in values[name]) / n for level in levels[:-1]]
        cuts = [math.log(share / (1 - share)) for share in below]
        steps = [math.log(math.expm1(max(high - low, 1e-3))) for low, high in pairwise(cuts)]
        raw_AK[a, : len(cuts)] = torch.tensor([cuts[0], *steps])
    return raw_AK


def _values(examples: Iterable[Example]) -> dict[str, list[float]]:
    results: dict[str, list[float]] = {}
    for example in examples:
        for one in example.row["scores"] or []:
            if one["value"] is not None:
                results.setdefault(one["aspect"] or "", []).append(float(one["value"]))
    return results


def _check_names(names: Sequence[str], values: Values) -> None:
    text = ", ".join(f"{name or '(unnamed)'} ({len(result)})" for name, result in sorted(values.items())) or "none"
    if not names:
        raise DataError(f"no aspect has two different ratings in the train split; it has: {text}")
    if missing := [name for name in names if name not in values]:
        raise DataError(f"no rating of {', '.join(missing)} in the train split; it has: {text}")
    if flat := [name for name in names if len(set(values[name])) < 2]:
        raise DataError(
            f"every rating of {', '.join(flat)} is the same, which teaches nothing; leave it out of aspects"
        )


def _check_reaction(values: Values) -> None:
    if len(values) != 1:
        raise DataError(
            f"a reaction is one aspect, the data has {', '.join(values)}; name one: --set aspects='[\"NAME\"]'"
        )
    [(name, result)] = values.items()
    if min(result) < 0 or max(result) > 1:
        raise DataError(
            f"reactions lie in [0, 1], {name} reaches from {min(result):g} to {max(result):g}; "
            "use the objective regression or ordinal"
        )


def _check_levels(names: Sequence[str], levels: Sequence[Sequence[float]]) -> None:
    for name, of in zip(names, levels, strict=True):
        if len(of) > MAX_LEVELS:
            raise DataError(
                f"{name} has {len(of)} different values, too many for levels (at most {MAX_LEVELS}); "
                "use the objective regression"
            )


def _check_one_scale(values: Values) -> None:
    span = {name: max(names) - min(names) for name, names in values.items()}
    if max(span.values()) > MAX_SPAN_RATIO * min(span.values()):
        text = ", ".join(f"{name} {min(names):g} to {max(names):g}" for name, names in values.items())
        raise DataError(
            f"the aspects are on different scales ({text}), so their mean means nothing; "
            "name some with aspects, or give aspect_weights"
        )


def _moments(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
