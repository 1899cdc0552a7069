"""Reward models by category behind one score: the router's category decides, else a mixture (DR-IRL).

    P(c | prompt) = P_c / sum P      one classifier on words for each category, against the rest
    max P >= threshold               r = z_c, the category's model
    else                             r = sum_c P(c) z_c, or the global model where there is one

z are the members' scores, standardized by means and scales where they are given: models trained apart share neither
zero nor unit. `aspects` keep P of each category. Small categories should share a frozen encoder, so that a few hundred
demonstrations train a head only. As an artifact (`rmkit train routed`):

    reward_model.json     categories with mean, scale and fingerprint; threshold, temperature
    router.npz            the weights of each category's classifier
    members/NAME ...      the members' own artifacts; members/fallback that of the global model
    golden.jsonl          as every artifact's
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rmkit.errors import ConfigError, DataError, ModelError
from rmkit.ids import content_hash
from rmkit.intrinsic.classifier import Classifier
from rmkit.memory.memory import Embed, hashed_words
from rmkit.models.artifact import folder as artifact
from rmkit.models.artifact import golden
from rmkit.models.wrappers.ensemble import MEMBERS, copied_member
from rmkit.types import Candidates, Comparison, ModelInfo, RewardModel, Score, compare_by_score

ROUTER, FALLBACK = "router.npz", "fallback"
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
    """Pointwise where every member is. A completion that its members cannot score is unscored.

    `temperature` divides the values; `own_info` is that of the artifact, where it is one.
    """

    members: Mapping[str, RewardModel]
    router: CategoryRouter
    fallback: RewardModel | None = None
    threshold: float = 0.5
    standards: Mapping[str, Standard] = field(default_factory=dict)
    temperature: float = 1.0
    own_info: ModelInfo | None = None

    def __post_init__(self) -> None:
        if not self.members or not 0 <= self.threshold <= 1:
            raise ConfigError(f"a routed model needs members and a threshold in [0, 1], got {self.threshold}")
        if any(one.scale <= 0 for one in self.standards.values()):
            raise ConfigError("a member whose scores do not vary cannot be standardized")

    @property
    def info(self) -> ModelInfo:
        if self.own_info is not None:
            return self.own_info
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
        return self._scored(batch, lambda model, part: model.score(part))

    def golden_scores(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        """The same from the members' exact scores."""
        return self._scored(batch, lambda model, part: model.golden_scores(part))

    def _scored(
        self, batch: Sequence[Candidates], ask: Callable[[Any, list[Candidates]], list[list[Score]]]
    ) -> list[list[Score]]:
        shares = [self._shares(row) for row in self.router.probabilities([routed_text(item) for item in batch])]
        by_member: dict[str, dict[int, list[Score]]] = {}
        for name, model in self.members.items():
            places = [at for at, share in enumerate(shares) if share.get(name)]
            by_member[name] = dict(zip(places, ask(model, [batch[at] for at in places]), strict=True))
        rest = [at for at, share in enumerate(shares) if not share]
        other = {}
        if self.fallback is not None:
            scores = ask(self.fallback, [batch[at] for at in rest])
            other = {
                at: [self._divided(self._standardized(FALLBACK, one)) for one in row]
                for at, row in zip(rest, scores, strict=True)
            }
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
            values = [self._standardized(name, one).value for name, one in zip(scores, column, strict=True)]
            total = sum(weight * value for weight, value in zip(share.values(), values, strict=True))
            result.append(failed or self._divided(Score(total, aspects=dict(share))))
        return result

    def _standardized(self, name: str, score: Score) -> Score:
        own = self.standards.get(name, Standard())
        return score if score.unscored else replace(score, value=(score.value - own.mean) / own.scale)

    def _divided(self, score: Score) -> Score:
        return score if score.unscored else replace(score, value=score.value / self.temperature)


def routed_text(item: Candidates) -> str:
    """What the router reads of an item: its prompt."""
    return "\n\n".join(message.content for message in item.prompt)


def write_routed(
    folder: Path,
    members: Mapping[str, Path],
    router: WordRouter,
    *,
    fallback: Path | None,
    threshold: float,
    standards: Mapping[str, Standard],
    temperature: float,
    facts: Mapping[str, Any],
    scale: str,
    fingerprints: Mapping[str, str],
) -> None:
    """Write a routed model into an existing empty folder: members copied, golden scores made. `fingerprints` are those
    of the members and of the fallback, by name."""
    sources = {**members, **({FALLBACK: fallback} if fallback else {})}
    cards = [copied_member(source, folder, name) for name, source in sources.items()]
    with (folder / ROUTER).open("wb") as file:
        np.savez(file, **{name: _weights(one) for name, one in router.classifiers.items()})
    card = {
        "model": "routed",
        "kind": "ensemble",
        "scale": scale,
        "pointwise": True,
        "temperature": temperature,
        **facts,
        "config": {
            "threshold": threshold,
            "members": list(members),
            "standards": {name: asdict(one) for name, one in standards.items()},
            "fingerprints": dict(fingerprints),
        },
    }
    artifact.sign(folder, card, bound=[*cards, ROUTER])
    golden.write_golden_scores(folder, load(folder, check=False))


def load(folder: Path, *, check: bool = True, **options: Any) -> RoutedModel:
    """The routed model in an artifact folder, members verified and golden scores replayed. Raises ModelError."""
    from rmkit.models import load_model

    opened = artifact.open_artifact(folder)
    config = opened.card["config"]
    try:
        names, fingerprints = [str(name) for name in config["members"]], dict(config["fingerprints"])
        standards = {str(name): Standard(**one) for name, one in config["standards"].items()}
        threshold, temperature = float(config["threshold"]), float(opened.card["temperature"])
        with np.load(folder / ROUTER, allow_pickle=False) as arrays:
            weights = {name: np.asarray(arrays[name], np.float64) for name in arrays.files}
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise ModelError(f"{folder}: {artifact.CARD} or {ROUTER} is not that of a routed model: {error}") from error
    models = {name: load_model(folder / MEMBERS / name, check=check, **options) for name in fingerprints}
    for name, model in models.items():
        if model.info.fingerprint != fingerprints[name]:
            raise ModelError(f"{folder}: member {name} is {model.info.fingerprint}, {artifact.CARD} says otherwise")
    routed = RoutedModel(
        members={name: models[name] for name in names},
        router=WordRouter({name: Classifier(steps=STEPS, weights=one) for name, one in weights.items()}),
        fallback=models.get(FALLBACK),
        threshold=threshold,
        standards=standards,
        temperature=temperature,
        own_info=opened.info,
    )
    return golden.verified(opened, routed, check=check)


def _weights(classifier: Classifier) -> Any:
    if classifier.weights is None:
        raise ModelError("a router that has learned nothing cannot be stored")
    return classifier.weights
