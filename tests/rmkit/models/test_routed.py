"""Models by category: who scores what, the mixture, and what a rare category gains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import rmkit
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError, RmkitError
from rmkit.intrinsic.ranker import Ranker, paired
from rmkit.memory.memory import hashed_words, unit_length
from rmkit.models.wrappers.routed import RoutedModel, Standard, WordRouter
from rmkit.types import Candidates, Comparison, Completion, Message, ModelInfo, Score, compare_by_score
from tests.exports import row, write_export


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


def asked(folder: Path, categories: Sequence[str], *, seed: int, n: int = 60) -> Path:
    """An export whose rows know their category as subset; every third row is validation."""
    rows = []
    for category in categories:
        for at, (prompt, better, worse) in enumerate(planted(seed, {category: n})):
            split = "validation" if at % 3 == 0 else "train"
            prompt = f"{prompt} {at}"
            rows.append(row(prompt, [better, worse], p=[1.0, 0.0], family=at, split=split, subset=category))
    return write_export(folder, rows)


def test_a_routed_model_is_an_artifact_that_any_command_takes_by_name(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Models of one category each prefer another word: only the router lets each decide its own prompts."""
    data = asked(tmp_path / "all", ["fraud", "health"], seed=0)
    for name in ("fraud", "health"):
        rmkit.train("lexical", str(asked(tmp_path / name, [name], seed=1)), output=home / "models" / name)
    command = ["routed", "fraud=fraud", "health=health", "--data", str(data), "-o", str(home / "models" / "both")]
    assert cli.call("train", [*command, "--json"]) == 0
    trained = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert trained["training"]["rows"] == {"fraud": 40, "health": 40}
    assert trained["training"]["router_right"] == 1.0
    model = rmkit.load_model("both")
    assert isinstance(model, RoutedModel)
    assert (model.info.fingerprint, model.info.name) == (trained["fingerprint"], "both")
    shown = item("bank card 99", "warn you", "doctor you"), item("dose pill 99", "warn you", "doctor you")
    first, second = model.score(shown)
    assert first[0].value > first[1].value
    assert second[0].value < second[1].value
    # By hand: P(fraud) of "bank card 99" is above 0.5, so the member's raw score, standardized, over the temperature.
    raw = rmkit.load_model("fraud").score(shown[:1])[0][0].value
    own = model.standards["fraud"]
    assert first[0].value == pytest.approx((raw - own.mean) / own.scale / trained["temperature"], rel=1e-6)
    assert first[0].aspects == {"fraud": 1.0}
    assert cli.call("eval", ["both", "fraud", "--data", str(data), "--split", "validation", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    right = [one["measures"]["overall"]["percent"] for one in result["models"]]
    assert right[0] == 100.0 > right[1]
    assert cli.call("verify", ["both"]) == 0
    (home / "models" / "both" / "router.npz").write_bytes(b"other weights")
    assert cli.call("verify", ["both"]) != 0


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        (["fraud=fraud"], [], "two categories or more"),
        (["fraud=fraud", "fraud=fraud"], [], "named twice"),
        (["fraud", "health=fraud"], [], "expected CATEGORY=MODEL"),
        (["fraud=fraud", "wealth=fraud"], [], r"no row .* category 'wealth' \(by subset\); there are: fraud \(40\)"),
        (["fraud=fraud", "fallback=fraud"], [], "a folder's name other than 'fallback'"),
        (["fraud=fraud", "health=length"], [], "length rule is no artifact"),
        (["fraud=fraud", "health=fraud"], ["--set", "threshold=2"], "threshold"),
    ],
)
def test_what_cannot_be_routed_is_said_in_a_line(
    home: Path, tmp_path: Path, members: list[str], options: list[str], message: str
) -> None:
    data = asked(tmp_path / "fraud", ["fraud"], seed=1)
    rmkit.train("lexical", str(data), output=home / "models" / "fraud")
    with pytest.raises(RmkitError, match=message):
        cli.call("train", ["routed", *members, "--data", str(data), *options])
