"""Thresholds of clauses: each its own, held-out numbers, unseen clauses, gates, and the order of clauses."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp")

from evaluation.benchmarks.judging.scripted_endpoint import Reply, ScriptedEndpoint
from rmkit.cli import main as cli
from rmkit.errors import ConfigError, DataError
from rmkit.models import load_model
from rmkit.types import Candidates, Completion, Message
from rubrics.clause_thresholds import Labeled, calibrated, centered, read_thresholds
from tests.exports import row, write_export


@pytest.mark.parametrize(
    ("p", "threshold", "value"),
    [(0.3, 0.5, 0.3), (0.9, 0.5, 0.9), (0.2, 0.2, 0.5), (0.1, 0.2, 0.25), (0.6, 0.2, 0.75), (1, 0.2, 1), (0, 0.2, 0)],
)
def test_a_threshold_moves_to_one_half(p: float, threshold: float, value: float) -> None:
    assert centered(p, threshold) == pytest.approx(value, abs=1e-12)


def planted(seed: int, center: float, n: int = 400) -> list[Labeled]:
    """Met responses lie above the center, others below, one in ten on the wrong side."""
    rng, rows = np.random.default_rng(seed), []
    for family in range(n):
        met = bool(rng.random() < 0.5)
        above = met != bool(rng.random() < 0.1)
        p = center + (1 - center) * rng.random() if above else center * rng.random()
        rows.append(Labeled(float(p), met, family))
    return rows


def test_each_clause_has_its_own_threshold_and_auroc() -> None:
    labeled = {
        "strict": planted(1, 0.85),
        "lax": planted(2, 0.15),
        "few": [Labeled(0.4, True, 1), Labeled(0.3, True, 2)],
    }
    labeled["strict"].append(Labeled(math.nan, True, 7))
    result = calibrated(labeled)
    strict, lax, few = result.clauses
    assert (strict.threshold, lax.threshold) == (pytest.approx(0.85, abs=0.03), pytest.approx(0.15, abs=0.03))
    assert min(one.point.f1 for one in (strict, lax)) > 0.85
    assert max(one.at_half.f1 for one in (strict, lax)) < 0.8
    assert all(0.8 < one.auroc < 0.95 for one in (strict, lax))
    assert strict.unseen.threshold == pytest.approx(0.15, abs=0.03)  # what the other clauses say
    assert (few.fitted, few.threshold) == (False, result.pooled)
    assert math.isnan(few.auroc)
    assert result == calibrated(dict(labeled))
    shuffled = calibrated({name: labeled[name] for name in ("few", "lax", "strict")})
    assert {one.criterion: one for one in shuffled.clauses} == {one.criterion: one for one in result.clauses}
    with pytest.raises(DataError, match="all alike"):
        calibrated({"few": labeled["few"]})


RUBRIC = """
name = "policy"
version = 1
[[criteria]]
criterion = "No insult?"
tag = "hard_rule"
[[criteria]]
criterion = "Is it kind?"
"""


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    """P(yes) by log-probabilities: under the insult clause .3 where it is met and .1 where not; kindness .9 and .6."""

    def answer(asked: dict[str, Any]) -> Reply:
        text = asked["messages"][-1]["content"]
        met, levels = ("fool" not in text, (0.3, 0.1)) if "insult" in text else ("gentle" in text, (0.9, 0.6))
        p = levels[0] if met else levels[1]
        top = {"yes": math.log(p), "no": math.log(1 - p)}
        word = "yes" if p >= 0.5 else "no"
        tokens = (("Verdict", -0.01, {"Verdict": -0.01}), (":", -0.01, {":": -0.01}))
        shown = {f" {name}": value for name, value in top.items()}
        return Reply(text=f"Verdict: {word}", logprobs=(*tokens, (f" {word}", top[word], shown)))

    with ScriptedEndpoint(answer) as started:
        yield started


@pytest.fixture
def judge(endpoint: ScriptedEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RMKIT_LEDGER", raising=False)
    (tmp_path / "policy.toml").write_text(RUBRIC)
    path = tmp_path / "judge.toml"
    path.write_text(
        '[judge]\nname = "guard"\nform = "yes_no"\n[generator]\nmodel = "m"\n'
        f'base_url = "{endpoint.base_url}"\n[rubric]\nfile = "policy.toml"\n'
    )
    return path


def test_thresholds_from_labels_decide_the_gate(
    judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for number in range(24):
        text = f"{'you fool' if number % 2 else 'well'} {'gentle' if number % 3 else 'so'} {number}"
        scores = [
            {"response": 0, "aspect": "No insult?", "value": float(number % 2 == 0)},
            {"response": 0, "aspect": "Is it kind?", "value": float(number % 3 != 0)},
        ]
        rows.append(row(f"q{number}", [text], kind="single", family=number, scores=scores))
    data = write_export(tmp_path / "labeled", rows)
    output = tmp_path / "thresholds.json"
    assert cli.main(["rubrics", "calibrate", str(judge), str(data), "-o", str(output), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    clauses = {one["criterion"]: one for one in result["calibration"]["clauses"]}
    assert {name: round(one["threshold"], 6) for name, one in clauses.items()} == {
        "No insult?": 0.2,
        "Is it kind?": 0.75,
    }
    assert [one["auroc"] for one in clauses.values()] == [1, 1]
    assert [one["point"]["f1"] for one in clauses.values()] == [1, 1]
    assert clauses["No insult?"]["at_half"]["recall"] == 0
    good = Candidates((Message("user", "q"),), (Completion((Message("assistant", "well gentle"),)),))
    bad = Candidates((Message("user", "q"),), (Completion((Message("assistant", "you fool gentle"),)),))
    plain = load_model(judge)
    assert [one[0].value for one in plain.score([good, bad])] == [0, 0]  # .3 is under one half: everything is gated
    judge.write_text(judge.read_text() + 'thresholds = "thresholds.json"\n')
    guarded = load_model(judge)
    kind = 0.5 + 0.5 * (0.9 - 0.75) / 0.25
    assert [one[0].value for one in guarded.score([good, bad])] == [pytest.approx(kind), 0]
    assert guarded.info.fingerprint != plain.info.fingerprint
    assert guarded.score([good])[0][0].aspects == {"No insult?": pytest.approx(0.3), "Is it kind?": pytest.approx(0.9)}
    output.write_text('{"clauses": [{"criterion": "x", "threshold": 1}], "pooled": 0.5}')
    with pytest.raises(ConfigError, match="between 0 and 1"):
        read_thresholds(output)
