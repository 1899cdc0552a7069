"""Reward models by category behind one score: the router's category decides, else a mixture (DR-IRL).

    P(c | prompt) = P_c / sum P      one classifier on words for each category, against the rest
    max P >= threshold               r = z_c, the category's model
    else                             r = sum_c P(c) z_c, or the global model where there is one

z are the members' scores, standardized by means and scales where they are given: models trained apart share neither
zero nor unit. `aspects` keep P of each category. Small categories should share a frozen encoder, so that a few hundred
demonstrations train a head only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from rmkit.errors import ConfigError, DataError
from rmkit.ids import content_hash
from rmkit.intrinsic.classifier import Classifier
from rmkit.memory.memory import Embed, hashed_words
from rmkit.types import Candidates, Comparison, ModelInfo, RewardModel, Score, compare_by_score

STEPS = 200  # of gradient descent, for each category


class CategoryRouter(Protocol):
    """P [n] of every category, adding up to 1."""

    def probabilities(self, texts: Sequence[str]) -> list[dict[str, float]]: ...


@dataclass(frozen=True, slots=True)
class WordRouter:
    """A classifier of words for each category."""

    classifiers: Mapping[str, Classifier]

    @classmethod
    def fit(cls, texts: Sequence[str], categories: Sequence[str], *, embed: Embed = hashed_words) -> WordRouter:
        """Of texts [n] and their categories [n]. Raises DataError for fewer than two categories."""
        names = sorted(set(categories))
        if len(names) < 2 or len(texts) != len(categories):
            raise DataError(f"a router needs texts of two categories, got {len(texts)} texts of {', '.join(names)}")
        classifiers = {name: Classifier(steps=STEPS, embed=embed) for name in names}
        for name, classifier in classifiers.items():
            classifier.learn(texts, [float(one == name) for one in categories])
        return cls(classifiers)

    def probabilities(self, texts: Sequence[str]) -> list[dict[str, float]]:
        by_category = {name: classifier.probability(texts) for name, classifier in self.classifiers.items()}
        rows = [{name: float(values[at]) for name, values in by_category.items()} for at in range(len(texts))]
        return [{name: value / (sum(row.values()) or 1.0) for name, value in row.items()} for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard:
    """What a member's scores are standardized by."""

    mean: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class RoutedModel:
    """Pointwise where every member is. A completion that its members cannot score is unscored."""

    members: Mapping[str, RewardModel]
    router: CategoryRouter
    fallback: RewardModel | None = None
    threshold: float = 0.5
    standards: Mapping[str, Standard] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.members or not 0 <= self.threshold <= 1:
            raise ConfigError(f"a routed model needs members and a threshold in [0, 1], got {self.threshold}")
        if any(one.scale <= 0 for one in self.standards.values()):
            raise ConfigError("a member whose scores do not vary cannot be standardized")

    @property
    def info(self) -> ModelInfo:
        models = [*self.members.values(), *([self.fallback] if self.fallback else [])]
        parts = [f"{name} {model.info.fingerprint}" for name, model in self.members.items()]
        first = models[0].info
        return replace(
            first,
            name=" + ".join(self.members),
            pointwise=all(model.info.pointwise for model in models),
            fingerprint=content_hash("\n".join([*parts, f"{self.threshold} {self.standards}"])),
        )

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """[P][N], see the module."""
        texts = ["\n\n".join(message.content for message in item.prompt) for item in batch]
        shares = [self._shares(row) for row in self.router.probabilities(texts)]
        by_member: dict[str, dict[int, list[Score]]] = {}
        for name, model in self.members.items():
            places = [at for at, share in enumerate(shares) if share.get(name)]
            by_member[name] = dict(zip(places, model.score([batch[at] for at in places]), strict=True))
        rest = [at for at, share in enumerate(shares) if not share]
        other = dict(zip(rest, self.fallback.score([batch[at] for at in rest]), strict=True)) if self.fallback else {}
        return [
            other[at] if at in other else self._mixed(share, {name: by_member[name][at] for name in share})
            for at, share in enumerate(shares)
        ]

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)

    def _shares(self, probabilities: Mapping[str, float]) -> dict[str, float]:
        """The members that score an item, with their shares; none where the fallback does."""
        known = {name: probabilities.get(name, 0.0) for name in self.members}
        best = max(known, key=lambda name: known[name])
        if known[best] >= self.threshold:
            return {best: 1.0}
        total = sum(known.values())
        if self.fallback or not total:
            return {} if self.fallback else dict.fromkeys(known, 1 / len(known))
        return {name: value / total for name, value in known.items() if value}

    def _mixed(self, share: Mapping[str, float], scores: Mapping[str, Sequence[Score]]) -> list[Score]:
        result = []
        for column in zip(*scores.values(), strict=True):
            failed = next((one for one in column if one.unscored), None)
            values = [
                (one.value - (own := self.standards.get(name, Standard())).mean) / own.scale
                for name, one in zip(scores, column, strict=True)
            ]
            total = sum(weight * value for weight, value in zip(share.values(), values, strict=True))
            result.append(failed or Score(total, aspects=dict(share)))
        return result
