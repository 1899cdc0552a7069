"""Perturbation probes on models whose weakness is known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import evaluation.probes.command as command
from evaluation.probes.perturb import FLATTERY, PERTURBATIONS, perturb_probe, sentences
from evaluation.suites.forms import item_of
from rmkit.errors import ModelError, UsageError
from rmkit.types import Candidates, Comparison, ModelInfo, Score

TEXT = "First we add two. Then we divide by three! Is that all? **Yes**, it is."


class ByText:
    """Scores a reply by a function of its text."""

    def __init__(self, reward: Callable[[str], float], *, pointwise: bool = True) -> None:
        self.info = ModelInfo("by-text", "explicit", "logit", pointwise, "f" * 32)
        self.reward = reward

    def score(self, batch: Sequence[Candidates]) -> list[list[Score]]:
        return [[self.one(c.text) for c in item.completions] for item in batch]

    def one(self, text: str) -> Score:
        value = self.reward(text)
        return Score.failed("no") if math.isnan(value) else Score(value)

    def compare(self, batch: Sequence[Candidates]) -> list[Comparison]:
        raise NotImplementedError


def items(n: int = 6) -> list:  # type: ignore[type-arg]
    return [item_of(str(i), "s", f"p{i}", (TEXT + " More." * i, "worse"), {}) for i in range(n)]


def test_every_change_by_hand() -> None:
    changed = {name: change(TEXT) for name, (_, change) in PERTURBATIONS.items()}
    assert sentences(TEXT) == ["First we add two.", "Then we divide by three!", "Is that all?", "**Yes**, it is."]
    assert changed["truncated"] == "First we add two. Then we divide by"
    assert changed["reversed"] == "**Yes**, it is. Is that all? Then we divide by three! First we add two."
    assert changed["bulleted"].splitlines()[1] == "- Then we divide by three!"
    assert changed["stripped"].endswith("Is that all? Yes, it is.")
    assert changed["flattered"] == FLATTERY + TEXT
    assert changed["repeated"].count("First") == 2


def test_length_rule_falls_for_repetition_and_flattery() -> None:
    found = perturb_probe(ByText(lambda text: float(len(text))), items())["perturbations"]
    for name in ("repeated", "flattered", "praised", "bulleted"):
        assert (found[name]["rose"]["numerator"], found[name]["rose"]["denominator"]) == (6, 6)
        assert found[name]["mean_change"] > 0
    for name in ("truncated", "emptied", "stripped"):
        assert (found[name]["fell"], found[name]["rose"]["percent"]) == (6, 0)
    assert found["reversed"]["unchanged"] == 6
    assert found["repeated"]["rose"]["low"] == 100


def test_mean_change_is_in_deviations_of_the_originals() -> None:
    probe = perturb_probe(ByText(lambda text: float(text.count("More")) + (3.0 if FLATTERY in text else 0)), items())
    spread = math.sqrt(sum((i - 2.5) ** 2 for i in range(6)) / 6)
    assert probe["spread"] == pytest.approx(spread)
    assert probe["perturbations"]["flattered"]["mean_change"] == pytest.approx(3 / spread)


def test_unscored_and_unchangeable_replies_do_not_count() -> None:
    plain = [item_of("1", "s", "p", ("one", "worse"), {})]
    found = perturb_probe(ByText(lambda text: math.nan if FLATTERY in text else 1.0), plain)["perturbations"]
    assert (found["flattered"]["n"], found["flattered"]["unscored"]) == (0, 1)
    assert found["flattered"]["rose"]["percent"] is None
    assert found["stripped"]["n"] == 0  # nothing to strip
    assert found["reversed"]["n"] == 0  # one sentence


def test_one_reply_a_prompt() -> None:
    twice = [*items(3), *(item_of(f"again{i}", "s", f"p{i}", ("other", "worse"), {}) for i in range(3))]
    assert perturb_probe(ByText(len), twice)["replies"] == 3


def test_group_relative_models_are_refused() -> None:
    with pytest.raises(ModelError, match="need pointwise scores"):
        perturb_probe(ByText(len, pointwise=False), items())


def test_command(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": str(i), "subset": "s", "prompt": f"p{i // 2}", "chosen": TEXT, "rejected": "x"} for i in range(20)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert command.main(["perturb", "length", "--suite", "pairs", "--data", str(path), "--limit", "7", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["replies"] == 7
    assert result["perturbations"]["repeated"]["rose"]["numerator"] == 7
    assert command.main(["perturb", "length", "--suite", "pairs", "--data", str(path)]) == 0
    assert "length (6324b6d0d6a5) on 10 good replies of pairs" in capsys.readouterr().out
    with pytest.raises(UsageError, match="does not say which reply is the best"):
        command.main(["perturb", "length", "--suite", "steps", "--data", str(path)])
