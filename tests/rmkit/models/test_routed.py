"""Models by category: who scores what, the mixture, and what a rare category gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from rmkit.errors import ConfigError, DataError
from rmkit.intrinsic.ranker import Ranker, paired
from rmkit.memory.memory import hashed_words, unit_length
from rmkit.models.wrappers.routed import RoutedModel, Standard, WordRouter
from rmkit.types import Candidates, Comparison, Completion, Message, ModelInfo, Score, compare_by_score


@dataclass(frozen=True)
class Fixed:
    """Scores the length of a text, times a factor; an empty one cannot be scored."""

    name: str
    factor: float

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(self.name, "explicit", "logit", True, self.name)

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return [
            [Score(self.factor * len(one.text)) if one.text else Score.failed("empty") for one in item.completions]
            for item in batch
        ]

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)


@dataclass(frozen=True)
class Says:
    """A router that reads P(a) in the prompt's last word."""

    def probabilities(self, texts: Sequence[str]) -> list[dict[str, float]]:
        return [{"a": (p := float(text.split()[-1])), "b": 1 - p} for text in texts]


def item(prompt: str, *texts: str) -> Candidates:
    return Candidates((Message("user", prompt),), tuple(Completion((Message("assistant", text),)) for text in texts))


def test_the_category_scores_and_a_mixture_where_none_is_sure() -> None:
    members = {"a": Fixed("a", 1), "b": Fixed("b", -10)}
    model = RoutedModel(members=members, router=Says(), threshold=0.7)
    rows = model.score([item("p 0.9", "xx", ""), item("p 0.2", "xx"), item("p 0.6", "xx", "x")])
    assert [[one.value for one in row if not one.unscored] for row in rows] == [
        [2],
        [-20],
        [pytest.approx(0.6 * 2 - 0.4 * 20), pytest.approx(0.6 - 0.4 * 10)],
    ]
    assert rows[0][1].unscored == "empty"
    assert rows[2][0].aspects == {"a": 0.6, "b": 0.4}
    standards = {"b": Standard(mean=-20, scale=10)}
    assert (
        RoutedModel(members=members, router=Says(), standards=standards).score([item("p 0", "xxx")])[0][0].value == -1
    )
    covered = RoutedModel(members=members, router=Says(), threshold=0.7, fallback=Fixed("all", 100))
    assert [row[0].value for row in covered.score([item("p 0.6", "x"), item("p 0.9", "x")])] == [100, 1]
    assert model.compare([item("p 1", "x", "xxx")])[0].p_first == pytest.approx(1 / (1 + np.exp(2)))
    assert model.info.fingerprint != RoutedModel(members=members, router=Says()).info.fingerprint
    with pytest.raises(ConfigError, match="needs members"):
        RoutedModel(members={}, router=Says())


PROMPTS = {
    "fraud": ["bank", "card", "loan"],
    "health": ["dose", "pill", "diet"],
    "rare": ["reactor", "isotope", "fuse"],
}
GOOD = {"fraud": "warn", "health": "doctor", "rare": "refuse"}
WORDS = ["warn", "doctor", "refuse", "answer", "steps"]


class Words:
    """A Bradley-Terry model of words, by the ranker."""

    def __init__(self, pairs: Sequence[tuple[str, str, str]]) -> None:
        self.ranker = Ranker(steps=300, weight_decay=0)
        self.ranker.learn([paired(better, worse) for _, better, worse in pairs], [1.0] * len(pairs))
        self.info = ModelInfo("words", "explicit", "logit", True, str(len(pairs)))

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        assert self.ranker.weights is not None
        weights = self.ranker.weights
        return [
            [Score(float(unit_length(hashed_words([one.text]))[0] @ weights)) for one in row.completions]
            for row in batch
        ]

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        return compare_by_score(self.score, batch)


def planted(seed: int, n: dict[str, int]) -> list[tuple[str, str, str]]:
    """(prompt, better, worse): the category's own word makes the reply good, the others' words bad."""
    rng, pairs = np.random.default_rng(seed), []
    for category, many in n.items():
        for _ in range(many):
            prompt = " ".join(rng.choice(PROMPTS[category], 2))
            wrong = str(rng.choice([word for word in WORDS if word != GOOD[category]]))
            pairs.append((prompt, f"{GOOD[category]} you", f"{wrong} you"))
    return pairs


def test_a_rare_category_gains_from_a_model_of_its_own() -> None:
    train = planted(0, {"fraud": 200, "health": 200, "rare": 20})
    category = {word: name for name, words in PROMPTS.items() for word in words}
    labels = [category[prompt.split()[0]] for prompt, _, _ in train]
    router = WordRouter.fit([prompt for prompt, _, _ in train], labels)
    members = {name: Words([pair for pair, own in zip(train, labels, strict=True) if own == name]) for name in PROMPTS}
    routed, one_for_all = RoutedModel(members=members, router=router), Words(train)
    held_out = [item(*pair) for pair in planted(1, {"rare": 60})]

    def accuracy(model: RoutedModel | Words) -> float:
        return float(np.mean([one.p_first > 0.5 for one in model.compare(held_out)]))

    assert accuracy(routed) == 1
    assert accuracy(one_for_all) < 0.7
    with pytest.raises(DataError, match="two categories"):
        WordRouter.fit(["x"], ["a"])
